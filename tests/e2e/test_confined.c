/* With less than everybody has: no io_uring, little or no locked memory, no privileges. The tokens
 * are the same, and a note says what was lost and how to get it back. */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

// The address sanitizer makes mlock do nothing: then nothing is lost, and nothing said.
#ifdef __SANITIZE_ADDRESS__
#define LOCKS false
#else
#define LOCKS true
#endif

#define NOBODY   65534
#define N_TOKENS 40

/* --- what a child lives with ------------------------------------------------------------------ */

struct confinement {
    int uring_errno; /* what io_uring_setup answers; 0: what it would */
    bool memlock;    /* RLIMIT_MEMLOCK is memlock_bytes, and CAP_IPC_LOCK is gone */
    rlim_t memlock_bytes;
    bool nobody; /* an ordinary user, if the test runs as root */
};

/* The x32 calls of x86-64, and 32-bit programs, have other numbers: the program makes neither. */
static bool forbid_uring(int error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* What root has after exec is bounded by the bounding set; others have what they have now. */
static bool drop_lock_capability(void) {
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
    if (prctl(PR_CAPBSET_READ, CAP_IPC_LOCK, 0, 0, 0) == 1 &&
        prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) != 0 && geteuid() == 0)
        return false;
    if (syscall(SYS_capget, &header, data) != 0)
        return false;
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    data[0].permitted &= ~(1u << CAP_IPC_LOCK);
    data[0].inheritable &= ~(1u << CAP_IPC_LOCK);
    return syscall(SYS_capset, &header, data) == 0;
}

static bool confine(void *context) {
    const struct confinement *c = context;
    struct rlimit limit = { .rlim_cur = c->memlock_bytes, .rlim_max = c->memlock_bytes };
    if (c->memlock && (!drop_lock_capability() || setrlimit(RLIMIT_MEMLOCK, &limit) != 0))
        return false;
    if (c->nobody && geteuid() == 0 &&
        (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
         setresuid(NOBODY, NOBODY, NOBODY) != 0))
        return false;
    return c->uring_errno == 0 || forbid_uring(c->uring_errno);
}

/* --- the model, and what an unconfined run makes of it ---------------------------------------- */

static char *dir, *free_dir; // all that anybody may read; what the unconfined run wrote
static const char *model, *tokens, *binary, *expected, *made;

/* Its experts take more than 8 MiB, so that such a limit is one. */
static void make_model(void) {
    assert_int_equal(
        program_run(dir, NULL, ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", model)),
        0);
    char text[N_TOKENS * 8] = "";
    for (int i = 0; i < N_TOKENS; i++)
        sprintf(text + strlen(text), "%d ", (i * 389 + 7) % 4096);
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "tokens", text, strlen(text), &err), OK);
}

/* A binary in a folder that only its owner can enter would be nobody's to run. */
static void copy_binary(void) {
    char command[2048];
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod -R a+rX '%s' && chmod 755 '%s'",
             program_binary(), binary, dir, binary);
    assert_int_equal(system(command), 0);
}

#define EVAL(out)                                                                                  \
    ARGUMENTS("eval", "-m", model, "--ctx", "256", "--tokens", tokens, "--logits", out)

static int make_all(void **state) {
    (void)state;
    static char names[5][512];
    dir = make_temp_dir();
    free_dir = make_temp_dir();
    assert_true(dir && free_dir);
    const char *const each[] = { "model", "tokens", "sluice", "logits" };
    for (size_t i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s/%s", dir, each[i]);
    snprintf(names[4], sizeof names[4], "%s/logits", free_dir);
    model = names[0];
    tokens = names[1];
    binary = names[2];
    made = names[3];
    expected = names[4];
    make_model();
    copy_binary();
    assert_int_equal(program_run(free_dir, NULL, EVAL(expected)), 0);
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    remove_temp_dir(free_dir);
    return 0;
}

/* --- the tests -------------------------------------------------------------------------------- */

/* The same logits; the notes, freed by the caller. */
static char *notes_of(struct confinement *c) {
    struct program_options options = { .binary = binary, .confine = confine, .context = c };
    chmod(dir, 0777); // nobody writes what it says and makes there
    unlink(made);
    unlink(in_dir(dir, "out"));
    unlink(in_dir(dir, "err"));
    int code = program_run(dir, &options, EVAL(made));
    if (code == PROGRAM_CONFINED_NOT || code == PROGRAM_NOT_STARTED)
        skip(); // no seccomp, a temporary folder without exec: then there is nothing to see
    char *err = program_read(dir, "err", NULL);
    if (code != 0)
        print_error("%s", err);
    assert_int_equal(code, 0);
    assert_true(same_files(made, expected));
    return err;
}

static void assert_said(const char *notes, const char *const *texts) {
    for (size_t i = 0; texts[i]; i++)
        if (!strstr(notes, texts[i]))
            fail_msg("nothing like \"%s\" in:\n%s", texts[i], notes);
}
#define SAID(notes, ...) assert_said(notes, (const char *const[]){ __VA_ARGS__, NULL })

static void without_io_uring_threads_read(void **state) {
    (void)state;
    char *notes = notes_of(&(struct confinement){ .uring_errno = EPERM });
    SAID(notes, "note: reading with ", "threads: io_uring is forbidden", "allow", "; pread");
    free(notes);
}

static void a_kernel_without_io_uring_is_said_to_be_one(void **state) {
    (void)state;
    char *notes = notes_of(&(struct confinement){ .uring_errno = ENOSYS });
    SAID(notes, "note: reading with ", "threads: io_uring ", "kernel");
    free(notes);
}

static void eight_megabytes_of_locked_memory_are_enough(void **state) {
    (void)state;
    char *notes = notes_of(&(struct confinement){ .memlock = true, .memlock_bytes = 8 << 20 });
    if (LOCKS)
        SAID(notes, "note: ", "not locked", "RLIMIT_MEMLOCK is 8 MiB", "ulimit -l", "LimitMEMLOCK");
    free(notes);
}

static void no_locked_memory_is_enough(void **state) {
    (void)state;
    char *notes = notes_of(&(struct confinement){ .memlock = true, .memlock_bytes = 0 });
    if (LOCKS)
        SAID(notes, "note: ", "not locked", "RLIMIT_MEMLOCK is 0 MiB", "ulimit -l");
    free(notes);
}

static void an_ordinary_user_with_nothing_gets_the_same_tokens(void **state) {
    (void)state;
    if (geteuid() == 0) { // others need not be let into the folder of temporary files
        char command[1024];
        snprintf(command, sizeof command, "%s/..", dir);
        struct stat st;
        if (stat(command, &st) != 0 || !(st.st_mode & S_IXOTH))
            skip();
    }
    char *notes = notes_of(&(struct confinement){
        .uring_errno = EPERM, .memlock = true, .memlock_bytes = 8 << 20, .nobody = true });
    SAID(notes, "note: reading with ", "threads: io_uring ", LOCKS ? "RLIMIT_MEMLOCK is 8" : "");
    free(notes);
}

static void notes_are_lines_of_their_own(void **state) {
    (void)state;
    char *notes = notes_of(
        &(struct confinement){ .uring_errno = EPERM, .memlock = true, .memlock_bytes = 0 });
    int n = count_lines(notes, "note: ");
    assert_in_range(n, LOCKS ? 2 : 1, 4);
    assert_true(strncmp(notes, "note: ", 6) == 0); // before everything else
    assert_null(strstr(notes, "note: \n"));
    free(notes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_io_uring_threads_read),
        cmocka_unit_test(a_kernel_without_io_uring_is_said_to_be_one),
        cmocka_unit_test(eight_megabytes_of_locked_memory_are_enough),
        cmocka_unit_test(no_locked_memory_is_enough),
        cmocka_unit_test(an_ordinary_user_with_nothing_gets_the_same_tokens),
        cmocka_unit_test(notes_are_lines_of_their_own),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
