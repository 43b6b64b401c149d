/* Ctrl-C and SIGTERM at any moment: an orderly end, exit code 130, the account, and nothing half
 * done under a finished name. And what is seen of the progress, on a terminal. */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define INTERRUPTED 130
#define GOLDEN      "tests/data/golden/checkpoint" /* 1 KB of logits a token */
#define LONG_WORDS  30000 /* row by row, a prompt that takes seconds on any machine */

static char *dir;
static const char *model, *long_text, *long_tokens;

static void make_long_texts(void) {
    char *text = malloc(LONG_WORDS * 8 + 1), *ids = malloc(LONG_WORDS * 8 + 1);
    assert_true(text && ids);
    char *t = text, *i = ids;
    for (int n = 0; n < LONG_WORDS; n++) {
        t += sprintf(t, "%s ", n % 3 == 0 ? "one" : n % 3 == 1 ? "and" : "two");
        i += sprintf(i, "%d ", 5 + n % 250);
    }
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "text", text, strlen(text), &err), OK);
    assert_int_equal(make_file(dir, "tokens", ids, strlen(ids), &err), OK);
    free(text);
    free(ids);
}

static int make_all(void **state) {
    (void)state;
    static char names[3][512];
    signal(SIGPIPE, SIG_IGN);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(names[0], sizeof names[0], "%s/model", dir);
    snprintf(names[1], sizeof names[1], "%s/text", dir);
    snprintf(names[2], sizeof names[2], "%s/tokens", dir);
    model = names[0];
    long_text = names[1];
    long_tokens = names[2];
    make_long_texts();
    return program_run(dir, NULL, ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", model));
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

/* It ended in order, as what is on the screen or in `err` shows. */
static void assert_account(const char *text) {
    assert_non_null(strstr(text, "ended by: interrupted"));
    assert_non_null(strstr(text, "100.0 %"));
    assert_null(strstr(text, "sluice run: "));
}

/* --- prefill ---------------------------------------------------------------------------------- */

/* The prompt is under way, and the line says how far and how long. */
static void start_prefill(struct program *p) {
    program_start(p, dir, &(struct program_options){ .terminal = true },
                  ARGUMENTS("run", "-m", model, "--raw", "-f", long_text, "--ctx", "131072",
                            "--chunk", "1", "--max-tokens", "4"));
    assert_true(program_until(p, NULL, "prefill  ")); // loading has such a line too
    assert_true(program_until(p, NULL, " left"));
    assert_non_null(strstr(p->screen, " tokens  "));
    assert_non_null(strstr(p->screen, " %  "));
    assert_non_null(strstr(p->screen, " tokens/s  "));
}

static void ctrl_c_ends_prefill_with_the_account(void **state) {
    (void)state;
    struct program p;
    start_prefill(&p);
    program_type(&p, "\x03");
    assert_int_equal(program_wait(&p), INTERRUPTED);
    assert_account(p.screen);
    assert_non_null(strstr(p.screen, " 0 generated"));
    // The line of progress is taken away before anything else is said.
    const char *cleared = strstr(p.screen, "\r\x1b[K\r\n");
    assert_non_null(cleared);
    assert_true(cleared < strstr(p.screen, "ended by"));
    char *out = program_read(dir, "out", NULL);
    assert_string_equal(out, "");
    free(out);
    program_close(&p);
}

/* In a wide step that wants more experts than there are slots: some are computed, some on their way, and
 * most are not asked for yet. */
static void ctrl_c_in_the_middle_of_a_wave_ends_in_order(void **state) {
    (void)state;
    const char *const wave[] = { "run",     "-m",    model,          "--raw",   "-f",
                                 long_text, "--ctx", "32768",        "--chunk", "64",
                                 "--ram",   "1M",    "--max-tokens", "4",       NULL };
    const char *arguments[sizeof wave / sizeof *wave];
    memcpy(arguments, wave, sizeof wave);
    char *least = program_least_ram(dir, wave);
    arguments[11] = least;
    for (int i = 0; i < 4; i++) { // somewhere else each time
        struct program p;
        program_start(&p, dir, &(struct program_options){ .terminal = true }, arguments);
        assert_true(program_until(&p, NULL, "prefill  "));
        nanosleep(&(struct timespec){ .tv_nsec = i * 13000000 }, NULL);
        kill(p.pid, SIGINT);
        assert_int_equal(program_wait(&p), INTERRUPTED);
        assert_account(p.screen);
        program_close(&p);
    }
    free(least);
}

static void termination_ends_prefill_alike(void **state) {
    (void)state;
    struct program p;
    start_prefill(&p);
    kill(p.pid, SIGTERM);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    assert_account(p.screen);
    program_close(&p);
}

/* --- decode ----------------------------------------------------------------------------------- */

/* Interrupted while it writes: what it has written is the beginning of the whole text. */
static void decode_ended_by(int signal) {
    struct program p;
    unlink(in_dir(dir, "out"));
    program_start(&p, dir, NULL,
                  ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "--temperature", "0", "--ctx",
                            "65536", "--stats", in_dir(dir, "stats")));
    assert_true(program_until(&p, "out", " "));
    kill(p.pid, signal);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    char *err = program_read(dir, "err", NULL), *out = program_read(dir, "out", NULL);
    assert_account(err);
    assert_null(strchr(err, '\r')); // no terminal, no progress
    const char *line = strstr(err, " tokens of prompt, ");
    assert_non_null(line);
    char n_generated[16];
    assert_int_equal(sscanf(line, " tokens of prompt, %15[0-9] generated", n_generated), 1);
    char *stats = program_read(dir, "stats", NULL);
    assert_true(stats[0] == '{' && strstr(stats, "\n}"));
    free(stats);
    free(err);

    assert_int_equal(program_run(dir, NULL,
                                 ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "--temperature",
                                           "0", "--ctx", "65536", "--max-tokens", n_generated)),
                     0);
    char *whole = program_read(dir, "out", NULL);
    assert_string_equal(out, whole);
    free(whole);
    free(out);
    program_close(&p);
}

static void ctrl_c_ends_decode_and_keeps_the_text(void **state) {
    (void)state;
    decode_ended_by(SIGINT);
}

static void termination_ends_decode_and_keeps_the_text(void **state) {
    (void)state;
    decode_ended_by(SIGTERM);
}

/* --- eval ------------------------------------------------------------------------------------- */

static void eval_ended_by(int signal) {
    const char *logits = in_dir(dir, "logits"), *partial = in_dir(dir, "logits.partial");
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "logits", "of yesterday", 12, &err), OK);
    struct program p;
    program_start(&p, dir, &(struct program_options){ .terminal = true },
                  ARGUMENTS("eval", "-m", GOLDEN, "--tokens", long_tokens, "--logits", logits,
                            "--ctx", "131072", "--chunk", "1"));
    assert_true(program_until(&p, NULL, "eval  ")); // loading has such a line too, if it takes long
    assert_true(program_until(&p, NULL, " left"));
    assert_int_equal(access(partial, F_OK), 0);
    kill(p.pid, signal);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    assert_non_null(strstr(p.screen, "100.0 %"));
    assert_null(strstr(p.screen, "sluice eval: "));
    assert_int_equal(access(partial, F_OK), -1);
    char *old = program_read(dir, "logits", NULL);
    assert_string_equal(old, "of yesterday");
    free(old);
    program_close(&p);
}

static void ctrl_c_leaves_no_half_written_logits(void **state) {
    (void)state;
    eval_ended_by(SIGINT);
}

static void termination_leaves_no_half_written_logits(void **state) {
    (void)state;
    eval_ended_by(SIGTERM);
}

static void interrupted_perplexity_is_that_of_what_was_read(void **state) {
    (void)state;
    struct program p;
    program_start(&p, dir, &(struct program_options){ .terminal = true },
                  ARGUMENTS("eval", "-m", model, "-f", long_text, "--window", "64", "--chunk", "1",
                            "--ctx", "64"));
    assert_true(program_until(&p, NULL, " left"));
    program_type(&p, "\x03");
    assert_int_equal(program_wait(&p), INTERRUPTED);
    char *out = program_read(dir, "out", NULL);
    assert_true(strncmp(out, "perplexity ", 11) == 0);
    assert_non_null(strstr(out, " tokens, interrupted)\n"));
    free(out);
    program_close(&p);
}

/* --- a text that does not come ---------------------------------------------------------------- */

static bool is_asleep(pid_t pid) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 0;
        fclose(file);
    }
    return state == 'S';
}

static void ctrl_c_ends_waiting_for_standard_input(void **state) {
    (void)state;
    struct program p;
    program_start(&p, dir, &(struct program_options){ .in = "Once upon", .hold_in = true },
                  ARGUMENTS("run", "-m", model, "--raw"));
    // It has taken what there is, and sleeps until more comes: asleep at several looks.
    int left = 1, asleep = 0;
    for (int i = 0; i < PROGRAM_LIMIT_S * 100 && asleep < 20; i++) {
        assert_int_equal(ioctl(p.in, FIONREAD, &left), 0);
        asleep = left == 0 && is_asleep(p.pid) ? asleep + 1 : 0;
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    assert_int_equal(asleep, 20);
    kill(p.pid, SIGINT);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    char *err = program_read(dir, "err", NULL), *out = program_read(dir, "out", NULL);
    assert_null(strstr(err, "sluice run: "));
    assert_string_equal(out, "");
    free(err);
    free(out);
    program_close(&p);
}

/* --- mkmodel ---------------------------------------------------------------------------------- */

/* Gigabytes that would take seconds to write: it is interrupted when the first are on their way. */
static void ctrl_c_leaves_no_model(void **state) {
    (void)state;
    struct statvfs fs;
    assert_int_equal(statvfs(dir, &fs), 0);
    if ((double)fs.f_bavail * (double)fs.f_frsize < 8e9)
        skip();
    const char *large = in_dir(dir, "large");
    struct program p;
    program_start(&p, dir, &(struct program_options){ .terminal = true },
                  ARGUMENTS("mkmodel", "--preset", "flash", "--layers", "1", large));
    assert_true(program_until_there(&p, in_dir(large, "*.mkmodel")));
    program_type(&p, "\x03");
    assert_int_equal(program_wait(&p), INTERRUPTED);
    assert_int_equal(access(large, F_OK), -1);
    assert_null(strstr(p.screen, "sluice mkmodel: "));
    program_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ctrl_c_ends_prefill_with_the_account),
        cmocka_unit_test(ctrl_c_in_the_middle_of_a_wave_ends_in_order),
        cmocka_unit_test(termination_ends_prefill_alike),
        cmocka_unit_test(ctrl_c_ends_decode_and_keeps_the_text),
        cmocka_unit_test(termination_ends_decode_and_keeps_the_text),
        cmocka_unit_test(ctrl_c_leaves_no_half_written_logits),
        cmocka_unit_test(termination_leaves_no_half_written_logits),
        cmocka_unit_test(interrupted_perplexity_is_that_of_what_was_read),
        cmocka_unit_test(ctrl_c_ends_waiting_for_standard_input),
        cmocka_unit_test(ctrl_c_leaves_no_model),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
