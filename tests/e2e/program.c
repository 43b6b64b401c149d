#include "tests/e2e/program.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define LOOK_MS 10 /* how often we look what a child does */

const char *program_binary(void) {
    const char *binary = getenv("SLUICE");
    return binary && *binary ? binary : "./sluice";
}

const char *in_dir(const char *dir, const char *name) {
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* --- the child -------------------------------------------------------------------------------- */

static bool redirect(int to, const char *path, int flags) {
    int fd = open(path, flags, 0600);
    return fd >= 0 && dup2(fd, to) == to && close(fd) == 0;
}

/* The terminal becomes the child's own, so that what is typed there reaches it as signals. */
static bool take_terminal(int fd) {
    return setsid() >= 0 && ioctl(fd, TIOCSCTTY, 0) == 0 && dup2(fd, STDERR_FILENO) >= 0;
}

_Noreturn static void become(const struct program *p, const struct program_options *o, int in,
                             int terminal, const char *const *arguments) {
    const char *argv[64] = { "sluice" };
    for (size_t i = 0; i < 62 && arguments[i]; i++)
        argv[i + 1] = arguments[i];
    const char *binary = o->binary ? o->binary : program_binary();
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("TERM", "xterm", 1);
    unsetenv("COLUMNS");
    unsetenv("NO_COLOR");
    if (!redirect(STDOUT_FILENO, in_dir(p->dir, "out"), O_WRONLY | O_CREAT | O_TRUNC) ||
        !(terminal >= 0
              ? take_terminal(terminal)
              : redirect(STDERR_FILENO, in_dir(p->dir, "err"), O_WRONLY | O_CREAT | O_TRUNC)) ||
        !(in >= 0       ? dup2(in, STDIN_FILENO) == STDIN_FILENO
          : o->keyboard ? dup2(terminal, STDIN_FILENO) == STDIN_FILENO
                        : redirect(STDIN_FILENO, "/dev/null", O_RDONLY)))
        _exit(PROGRAM_NOT_STARTED);
    if (o->confine && !o->confine(o->context))
        _exit(PROGRAM_CONFINED_NOT);
    execv(binary, (char *const *)argv);
    _exit(PROGRAM_NOT_STARTED);
}

void program_start(struct program *p, const char *dir, const struct program_options *options,
                   const char *const *arguments) {
    static const struct program_options none;
    const struct program_options *o = options ? options : &none;
    int in[2] = { -1, -1 }, slave = -1;
    *p = (struct program){ .in = -1, .terminal = -1 };
    snprintf(p->dir, sizeof p->dir, "%s", dir);
    if (o->in || o->hold_in)
        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    if (o->terminal) {
        struct winsize size = { .ws_row = 25,
                                .ws_col = (unsigned short)(o->columns ? o->columns : 100) };
        assert_int_equal(openpty(&p->terminal, &slave, NULL, NULL, &size), 0);
        fcntl(p->terminal, F_SETFD, FD_CLOEXEC);
        fcntl(slave, F_SETFD, FD_CLOEXEC);
    }
    fflush(NULL);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0)
        become(p, o, in[0], slave, arguments);
    if (slave >= 0)
        close(slave);
    if (in[0] < 0)
        return;
    close(in[0]);
    p->in = in[1];
    size_t n = o->in ? strlen(o->in) : 0;
    for (size_t at = 0; at < n;) {
        ssize_t some = write(p->in, o->in + at, n - at);
        if (some < 0) // it ended without reading: how, is the test's to judge
            break;
        at += (size_t)some;
    }
    if (!o->hold_in) {
        close(p->in);
        p->in = -1;
    }
}

/* --- watching it ------------------------------------------------------------------------------ */

/* Take what is on the terminal, waiting for it for one look at most. */
static void watch(struct program *p) {
    struct pollfd poller = { .fd = p->terminal, .events = POLLIN };
    char some[4096];
    ssize_t n;
    int ready = poll(&poller, p->terminal >= 0, LOOK_MS);
    if (ready <= 0 || (n = read(p->terminal, some, sizeof some)) <= 0) {
        if (ready > 0) // closed at the other end: nothing to wait for any more
            nanosleep(&(struct timespec){ .tv_nsec = LOOK_MS * 1000000 }, NULL);
        return;
    }
    p->screen = realloc(p->screen, p->n_screen + (size_t)n + 1);
    assert_non_null(p->screen);
    memcpy(p->screen + p->n_screen, some, (size_t)n);
    p->screen[p->n_screen += (size_t)n] = '\0';
}

static time_t seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void give_up(struct program *p, const char *why) {
    char *err = program_read(p->dir, "err", NULL), *out = program_read(p->dir, "out", NULL);
    print_error("screen: %s\nerr: %s\nout: %s\n", p->screen ? p->screen : "", err, out);
    free(err);
    free(out);
    program_close(p);
    fail_msg("not within %d seconds: %s", PROGRAM_LIMIT_S, why);
}

int program_wait(struct program *p) {
    int how;
    for (time_t end = seconds_now() + PROGRAM_LIMIT_S;;) {
        pid_t pid = waitpid(p->pid, &how, WNOHANG);
        assert_true(pid >= 0 || errno == EINTR);
        if (pid == p->pid)
            break;
        watch(p);
        if (seconds_now() > end)
            give_up(p, "its end");
    }
    p->pid = 0;
    for (size_t before = p->n_screen + 1; p->terminal >= 0 && p->n_screen != before;) {
        before = p->n_screen;
        watch(p); // its last words
    }
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

int program_run(const char *dir, const struct program_options *options,
                const char *const *arguments) {
    struct program p;
    program_start(&p, dir, options, arguments);
    int code = program_wait(&p);
    program_close(&p);
    return code;
}

/* Look until `found` says so; false: the child ended before. */
static bool look(struct program *p,
                 bool (*found)(struct program *p, const char *name, const char *what),
                 const char *name, const char *what) {
    for (time_t end = seconds_now() + PROGRAM_LIMIT_S;;) {
        siginfo_t ended = { .si_pid = 0 };
        assert_int_equal(waitid(P_PID, (id_t)p->pid, &ended, WEXITED | WNOHANG | WNOWAIT), 0);
        watch(p);
        bool yes = found(p, name, what);
        if (yes || ended.si_pid)
            return yes;
        if (seconds_now() > end)
            give_up(p, what);
    }
}

static bool is_said(struct program *p, const char *name, const char *text) {
    char *said = name ? program_read(p->dir, name, NULL) : NULL;
    const char *in = name ? said : p->screen;
    bool found = in && strstr(in, text);
    free(said);
    return found;
}

bool program_until(struct program *p, const char *name, const char *text) {
    return look(p, is_said, name, text);
}

static bool is_there(struct program *p, const char *name, const char *pattern) {
    (void)p, (void)name;
    glob_t paths = { .gl_pathc = 0 };
    bool found = glob(pattern, 0, NULL, &paths) == 0;
    globfree(&paths);
    return found;
}

bool program_until_there(struct program *p, const char *pattern) {
    return look(p, is_there, NULL, pattern);
}

void program_type(struct program *p, const char *text) {
    assert_int_equal(write(p->terminal, text, strlen(text)), strlen(text));
}

void program_close(struct program *p) {
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    if (p->in >= 0)
        close(p->in);
    if (p->terminal >= 0)
        close(p->terminal);
    free(p->screen);
    *p = (struct program){ .in = -1, .terminal = -1 };
}

/* --- files ------------------------------------------------------------------------------------ */

char *program_read(const char *dir, const char *name, size_t *n_bytes) {
    FILE *file = fopen(in_dir(dir, name), "rb");
    char *text = NULL;
    size_t n = 0, capacity = 0;
    do {
        if (n + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 4096;
            text = realloc(text, capacity);
            assert_non_null(text);
        }
        size_t some = file ? fread(text + n, 1, capacity - n - 1, file) : 0;
        if (some == 0)
            break;
        n += some;
    } while (file);
    text[n] = '\0';
    if (file)
        fclose(file);
    if (n_bytes)
        *n_bytes = n;
    return text;
}

int count_lines(const char *text, const char *start) {
    int n = 0;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        n += strncmp(line, start, strlen(start)) == 0;
    return n;
}

bool same_files(const char *one, const char *other) {
    FILE *a = fopen(one, "rb"), *b = fopen(other, "rb");
    bool same = a && b;
    for (int x = 0; same && x != EOF;) {
        x = getc(a);
        same = x == getc(b);
    }
    if (a)
        fclose(a);
    if (b)
        fclose(b);
    return same;
}

char *program_least_ram(const char *dir, const char *const *arguments) {
    assert_int_equal(program_run(dir, NULL, arguments), 3);
    char *err = program_read(dir, "err", NULL);
    const char *at = strstr(err, "would do is --ram ");
    assert_non_null(at);
    char *least = strndup(at + 18, strcspn(at + 18, "\n"));
    free(err);
    return least;
}
