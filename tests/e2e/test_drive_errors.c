/* A drive that fails, stalls or dies under the running program: what it reads goes past this test, which
 * answers for the kernel (seccomp's user notification; kernels from 5.5 on, else skipped). */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define INTERRUPTED 130
#define NEVER       UINT64_MAX

/* --- the drive -------------------------------------------------------------------------------- */

struct drive {
    uint64_t fails_every; /* so many reads one fails; it succeeds when it is tried again */
    uint64_t dies_after;  /* from this one on all fail */
    uint64_t stalls_at;   /* this one stands still for stall_ms, and those after it wait */
    unsigned stall_ms;
    int sockets[2]; /* the child sends its listener */
    pthread_t thread;
    _Atomic uint64_t n_reads, n_failed;
    _Atomic bool stalls; /* now */
};

static const struct drive sound = { .fails_every = NEVER, .dies_after = NEVER, .stalls_at = NEVER };

/* pread of a block or more is the drive's; what the dynamic loader reads of libraries is smaller. */
static int listen_to_reads(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pread64, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 4096, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
}

union fd_message {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static bool confine(void *context) {
    const struct drive *d = context;
    int listener = listen_to_reads();
    if (listener < 0)
        return false;
    union fd_message control = { 0 };
    char byte = 0;
    struct iovec data = { &byte, 1 };
    struct msghdr message = { .msg_iov = &data,
                              .msg_iovlen = 1,
                              .msg_control = control.room,
                              .msg_controllen = sizeof control.room };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(c), &listener, sizeof listener);
    bool sent = sendmsg(d->sockets[1], &message, 0) == 1;
    close(listener);
    return sent;
}

static int receive_listener(const struct drive *d) {
    union fd_message control = { 0 };
    char byte;
    struct iovec data = { &byte, 1 };
    struct msghdr message = { .msg_iov = &data,
                              .msg_iovlen = 1,
                              .msg_control = control.room,
                              .msg_controllen = sizeof control.room };
    int listener = -1;
    if (recvmsg(d->sockets[0], &message, 0) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    return listener;
}

static int error_of(struct drive *d) {
    uint64_t n = atomic_fetch_add(&d->n_reads, 1) + 1;
    if (n == d->stalls_at) {
        atomic_store(&d->stalls, true);
        nanosleep(&(struct timespec){ .tv_sec = d->stall_ms / 1000,
                                      .tv_nsec = d->stall_ms % 1000 * 1000000L },
                  NULL);
        atomic_store(&d->stalls, false);
    }
    if (n < d->dies_after && n % d->fails_every != 0)
        return 0;
    atomic_fetch_add(&d->n_failed, 1);
    return EIO;
}

static void *serve(void *context) {
    struct drive *d = context;
    int listener = receive_listener(d);
    for (;;) {
        struct pollfd ready = { .fd = listener, .events = POLLIN };
        if (listener < 0 || poll(&ready, 1, -1) < 0 || !(ready.revents & POLLIN))
            break; // the child is no more
        struct seccomp_notif asked = { 0 };
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
            continue;
        int error = error_of(d);
        struct seccomp_notif_resp answer = {
            .id = asked.id, .error = -error, .flags = error ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE
        };
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); // if it still waits
    }
    if (listener >= 0)
        close(listener);
    return NULL;
}

static void drive_open(struct drive *d, const struct drive *like) {
    *d = *like;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, d->sockets), 0);
    assert_int_equal(pthread_create(&d->thread, NULL, serve, d), 0);
}

/* After the child has ended. */
static void drive_close(struct drive *d) {
    close(d->sockets[1]);
    pthread_join(d->thread, NULL);
    close(d->sockets[0]);
}

/* --- the model -------------------------------------------------------------------------------- */

static char *dir, *least;
static const char *model, *prompt, *stats;

#define RUN(...)                                                                                   \
    ARGUMENTS("run", "-m", model, "--raw", "-f", prompt, "--temperature", "0", "--ctx", "4096",    \
              "--chunk", "64", "--io-engine", "pread", "--stats", stats, __VA_ARGS__)

static int make_all(void **state) {
    (void)state;
    static char names[3][512], text[1200 * 4 + 1];
    struct err err = { .status = OK };
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(names[0], sizeof names[0], "%s/model", dir);
    snprintf(names[1], sizeof names[1], "%s/text", dir);
    snprintf(names[2], sizeof names[2], "%s/stats", dir);
    model = names[0];
    prompt = names[1];
    stats = names[2];
    for (int i = 0; i < 1200; i++)
        memcpy(text + 4 * i, i % 3 == 0 ? "one " : i % 3 == 1 ? "and " : "two ", 4);
    assert_int_equal(make_file(dir, "text", text, sizeof text - 1, &err), OK);
    assert_int_equal(
        program_run(dir, NULL, ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", model)),
        0);
    least = program_least_ram(dir, RUN("--ram", "1M"));
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    free(least);
    remove_temp_dir(dir);
    return 0;
}

/* What it says with a sound drive; freed by the caller. */
static char *undisturbed(const char *max_tokens) {
    assert_int_equal(program_run(dir, NULL, RUN("--ram", least, "--max-tokens", max_tokens)), 0);
    return program_read(dir, "out", NULL);
}

static int run_on(struct drive *d, const struct drive *like, const char *max_tokens) {
    struct program_options options = { .confine = confine, .context = d };
    drive_open(d, like);
    int code = program_run(dir, &options, RUN("--ram", least, "--max-tokens", max_tokens));
    drive_close(d);
    if (code == PROGRAM_CONFINED_NOT)
        skip();
    return code;
}

static double number(const char *one, const char *other) {
    json_t *root = json_load_file(stats, 0, NULL);
    assert_non_null(root);
    double value = json_number_value(json_object_get(json_object_get(root, one), other));
    json_decref(root);
    return value;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void one_read_in_a_thousand_that_fails_is_not_seen(void **state) {
    (void)state;
    struct drive d, like = sound;
    like.fails_every = 1000;
    assert_int_equal(run_on(&d, &like, "600"), 0); // may skip: nothing is allocated by then
    assert_true(d.n_failed >= 3);
    assert_true(number("disk", "retries") > 0); // loading has a reader of its own
    assert_true(number("disk", "retries") <= (double)d.n_failed);
    assert_int_equal((int)number("disk", "failed"), 0);
    char *is = program_read(dir, "out", NULL), *want = undisturbed("600");
    assert_string_equal(is, want);
    free(is);
    free(want);
}

static void a_drive_that_dies_is_named_with_the_place(void **state) {
    (void)state;
    struct drive d, like = sound;
    assert_int_equal(run_on(&d, &like, "200"), 0);
    char *want = undisturbed("200");
    like.dies_after = d.n_reads * 2 / 3; // while it says something, however many were read ahead
    assert_int_equal(run_on(&d, &like, "200"), 1);
    char *is = program_read(dir, "out", NULL), *err = program_read(dir, "err", NULL);
    assert_true(strlen(is) > 0 && strlen(is) < strlen(want));
    assert_memory_equal(is, want, strlen(is)); // what it had said was right
    const char *line = strstr(err, "sluice run: ");
    assert_non_null(line);
    assert_non_null(strstr(line, "/model-0000"));
    assert_non_null(strstr(line, ": cannot read at byte "));
    assert_non_null(strstr(line, "Input/output error (tried twice)"));
    assert_int_equal(count_lines(err, "sluice run: "), 1);
    free(is);
    free(err);
    free(want);
}

static void a_drive_that_stalls_for_five_seconds_is_waited_for(void **state) {
    (void)state;
    struct drive d, like = sound;
    assert_int_equal(run_on(&d, &like, "100"), 0);
    char *want = undisturbed("100");
    like.stalls_at = d.n_reads * 2 / 3; // as above
    like.stall_ms = 5000;
    assert_int_equal(run_on(&d, &like, "100"), 0);
    char *is = program_read(dir, "out", NULL);
    assert_string_equal(is, want);
    assert_int_equal(d.n_failed, 0);
    assert_true(number("disk", "busy_seconds") >= 4.9); // and it is the drive's time
    free(is);
    free(want);
}

/* The program asks for no more, and ends when the drive has answered. */
static void ctrl_c_ends_a_run_whose_drive_stands_still(void **state) {
    (void)state;
    struct drive d, like = sound;
    struct program p;
    assert_int_equal(run_on(&d, &like, "100"), 0);
    like.stalls_at = d.n_reads * 2 / 3; // as above
    like.stall_ms = 1500;
    drive_open(&d, &like);
    program_start(&p, dir, &(struct program_options){ .confine = confine, .context = &d },
                  RUN("--ram", least, "--max-tokens", "100"));
    for (int i = 0; i < PROGRAM_LIMIT_S * 100 && !d.stalls; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    uint64_t n_reads = d.n_reads;
    kill(p.pid, SIGINT);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    drive_close(&d);
    assert_true(d.n_reads < n_reads + 40); // those that were at the device
    char *err = program_read(dir, "err", NULL);
    assert_non_null(strstr(err, "ended by: interrupted"));
    free(err);
    program_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_read_in_a_thousand_that_fails_is_not_seen),
        cmocka_unit_test(a_drive_that_dies_is_named_with_the_place),
        cmocka_unit_test(a_drive_that_stalls_for_five_seconds_is_waited_for),
        cmocka_unit_test(ctrl_c_ends_a_run_whose_drive_stands_still),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
