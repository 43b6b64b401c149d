/* --trace of `run` and of `eval`: it changes nothing, says what the account says, and outlives what
 * happens to a run. */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"
#include "tests/support/timeline.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#define PROMPT "The quick brown fox jumps over the lazy dog, and the dog does not mind."
#define LAYERS 3

static char *dir, *least;
static const char *model, *trace, *stats;

#define RUN(...)                                                                                   \
    ARGUMENTS("run", "-m", model, "--raw", "-p", PROMPT, "--seed", "5", "--ctx", "512",            \
              "--max-tokens", "20", __VA_ARGS__)
#define TRACE "--trace", trace

static void keep_least_ram(void) {
    least = program_least_ram(dir, RUN("--ram", "1M"));
}

static int make_all(void **state) {
    (void)state;
    static char names[3][512];
    signal(SIGPIPE, SIG_IGN);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(names[0], sizeof names[0], "%s/model", dir);
    snprintf(names[1], sizeof names[1], "%s/trace", dir);
    snprintf(names[2], sizeof names[2], "%s/stats", dir);
    model = names[0];
    trace = names[1];
    stats = names[2];
    int code = program_run(
        dir, NULL,
        ARGUMENTS("mkmodel", "--first", "2", "--layers", "3", "--drafts", "none", model));
    if (code == 0)
        keep_least_ram();
    return code;
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    free(least);
    return 0;
}

static void succeeds(const char *const *arguments) {
    int code = program_run(dir, NULL, arguments);
    if (code != 0)
        fail_msg("exit code %d: %s", code, program_read(dir, "err", NULL));
}

static void assert_error(int code, int want, const char *text) {
    char *err = program_read(dir, "err", NULL);
    if (code != want || !strstr(err, text))
        fail_msg("exit code %d: %s", code, err);
    free(err);
}

static void sum_of_file(struct timeline *out) {
    json_t *root = timeline_read(trace);
    timeline_sum(root, out);
    json_decref(root);
}

// --- what it says --------------------------------------------------------------------------------

static double member(const json_t *root, const char *one, const char *other) {
    const json_t *value = json_object_get(json_object_get(root, one), other);
    if (!json_is_number(value))
        fail_msg("no number %s.%s", one, other);
    return json_number_value(value);
}

// What comes after the account (closing, in no activity) is in the timeline alone.
static void assert_agrees(const struct timeline *t, const json_t *account) {
    const json_t *phases = json_object_get(account, "phases");
    for (int p = 0; p < PHASES; p++) {
        const json_t *phase = json_object_get(phases, phase_name((enum phase)p));
        const json_t *seconds = json_object_get(phase, "activity_seconds");
        for (int a = 0; a < ACTIVITIES; a++) {
            const char *name = activity_name((enum activity)a);
            double want = json_number_value(json_object_get(seconds, name)), is = t->ns[p][a] / 1e9;
            if (a == ACTIVITY_OTHER ? is < want - 1e-8 : fabs(is - want) > 1e-8)
                fail_msg("%s, %s: %.9f, not %.9f", phase_name((enum phase)p), name, is, want);
        }
        assert_int_equal(t->n_steps[p], json_integer_value(json_object_get(phase, "steps")));
    }
    assert_int_equal(t->n_layers, LAYERS * (t->n_steps[PHASE_PREFILL] + t->n_steps[PHASE_DECODE]));
    // A prefetch that a demand joins ends as one of that demand's; one may be given up for its slot.
    static const char *const kinds[] = { "hash", "gate", "sweep" };
    const json_t *prefetch = json_object_get(account, "prefetch");
    double n_missed = member(account, "experts", "misses"), n_ahead = 0, n_lost = 0;
    for (int i = 0; i < 3; i++) {
        n_ahead += member(prefetch, kinds[i], "read") - member(prefetch, kinds[i], "cancelled");
        n_lost += member(prefetch, kinds[i], "lost");
    }
    uint64_t n_ok = t->n_ok[READ_DEMAND] + t->n_ok[READ_PREFETCH];
    assert_true(t->n_ok[READ_DEMAND] >= (uint64_t)n_missed);
    assert_in_range(n_ok, (uint64_t)(n_missed + n_ahead - n_lost), (uint64_t)(n_missed + n_ahead));
    // Dense weights for a next step may be on their way when the account is made.
    uint64_t n_bytes = (uint64_t)member(account, "disk", "bytes_read");
    uint64_t n_more = (uint64_t)member(account, "dense", "streamed_bytes_per_step");
    assert_in_range(t->bytes, n_bytes, n_bytes + n_more);
    assert_int_equal(t->bytes_so_far, t->bytes);
    assert_int_equal(t->lost_events, 0);
    assert_true(t->complete);
}

static void timeline_and_account_agree(void **state) {
    (void)state;
    struct timeline t;
    succeeds(RUN("--ram", least));
    char *plain = program_read(dir, "out", NULL);
    succeeds(RUN("--ram", least, TRACE, "--stats", stats));
    char *traced = program_read(dir, "out", NULL);
    assert_string_equal(plain, traced);
    json_t *account = timeline_read(stats);
    sum_of_file(&t);
    assert_agrees(&t, account);
    assert_int_equal(t.n_steps[PHASE_DECODE], 19);
    assert_true(t.n_ok[READ_DEMAND] > 0 && t.ns[PHASE_DECODE][ACTIVITY_WAIT] > 0);
    assert_true(t.n_dense > 0 && member(account, "dense", "bytes_read") > 0);
    json_decref(account);

    // The other engine, several prefill steps, and everything in memory.
    succeeds(RUN("--chunk", "7", "--io-engine", "pread", TRACE, "--stats", stats));
    account = timeline_read(stats);
    sum_of_file(&t);
    assert_agrees(&t, account);
    assert_true(t.n_steps[PHASE_PREFILL] > 3 && t.n_dense == 0);
    json_decref(account);
    free(plain);
    free(traced);
}

static void an_eval_has_a_timeline_too(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct timeline t;
    assert_int_equal(make_file(dir, "text", PROMPT PROMPT, strlen(PROMPT PROMPT), &err), OK);
    succeeds(ARGUMENTS("eval", "-m", model, "-f", in_dir(dir, "text"), "--window", "16", "--ctx",
                       "512", TRACE, "--stats", stats));
    json_t *account = timeline_read(stats);
    sum_of_file(&t);
    assert_agrees(&t, account);
    assert_true(t.n_steps[PHASE_PREFILL] > 3);
    json_decref(account);
}

// --- runs that end badly -------------------------------------------------------------------------

static void start_long_run(struct program *p) {
    unlink(trace);
    program_start(p, dir, NULL,
                  ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "--seed", "5", "--ctx", "65536",
                            TRACE, "--stats", stats));
    assert_true(program_until(p, "trace", "\"name\":\"decode\""));
}

static void an_interrupted_run_leaves_all_of_its_timeline(void **state) {
    (void)state;
    struct program p;
    struct timeline t;
    start_long_run(&p);
    kill(p.pid, SIGINT);
    assert_int_equal(program_wait(&p), 130);
    program_close(&p);
    sum_of_file(&t);
    assert_true(t.complete && t.n_steps[PHASE_DECODE] > 0 && t.n_ok[READ_DEMAND] > 0);
    json_t *account = timeline_read(stats);
    for (int a = 0; a < ACTIVITIES; a++) {
        json_t *decode = json_object_get(json_object_get(account, "phases"), "decode");
        const char *name = activity_name((enum activity)a);
        if (a != ACTIVITY_OTHER)
            assert_true(fabs(member(decode, "activity_seconds", name) -
                             t.ns[PHASE_DECODE][a] / 1e9) < 1e-8);
    }
    json_decref(account);
}

static void a_killed_run_leaves_a_whole_file(void **state) {
    (void)state;
    struct program p;
    struct timeline t;
    start_long_run(&p);
    kill(p.pid, SIGKILL);
    assert_int_equal(program_wait(&p), 128 + SIGKILL);
    program_close(&p);
    sum_of_file(&t);
    assert_true(!t.complete && t.n_steps[PHASE_DECODE] > 0);
}

// --- files that cannot be written ----------------------------------------------------------------

static void a_wrong_path_is_refused_before_the_model(void **state) {
    (void)state;
    struct err err = { .status = OK };
    int code = program_run(dir, NULL,
                           ARGUMENTS("run", "-m", "no/such/model", "--raw", "-p", "a", "--trace",
                                     in_dir(dir, "no/trace")));
    assert_error(code, 1, "no/trace: cannot be made: No such file");
    unlink(trace);
    code = program_run(dir, NULL, RUN("--ram", "1M", TRACE));
    assert_error(code, 3, "would do is --ram");
    assert_int_equal(access(trace, F_OK), -1); // nothing is left of a run that was none,
    assert_int_equal(make_file(dir, "trace", "of yesterday", 12, &err), OK);
    program_run(dir, NULL, RUN("--ram", "1M", TRACE));
    char *old = program_read(dir, "trace", NULL); // and nothing is lost
    assert_string_equal(old, "of yesterday");
    free(old);
}

// Room for the account and the answer, and less than the timeline wants.
#define ROOM 32768

static bool confine_files(void *context) {
    (void)context;
    return setrlimit(RLIMIT_FSIZE, &(struct rlimit){ ROOM, ROOM }) == 0;
}

static void a_full_disk_is_an_error_and_no_lost_answer(void **state) {
    (void)state;
    struct program_options confined = { .confine = confine_files };
    struct timeline t;
    succeeds(RUN("--ram", least));
    char *whole = program_read(dir, "out", NULL);
    int code = program_run(dir, &confined, RUN("--ram", least, TRACE));
    assert_error(code, 1, "/trace: cannot be written at byte ");
    assert_error(code, 1, "File too large: the timeline ends there; ");
    assert_error(code, 1, "events are not in it");
    assert_error(code, 1, "ended by: --max-tokens");
    assert_error(code, 1, "100.0 %"); // the account is there too
    char *answer = program_read(dir, "out", NULL);
    assert_string_equal(answer, whole);
    sum_of_file(&t);
    assert_true(!t.complete);
    if (access("/dev/full", W_OK) == 0) {
        code = program_run(dir, NULL, RUN("--trace", "/dev/full"));
        assert_error(code, 1, "sluice run: /dev/full: cannot be written at byte 0: No space left");
    }
    free(answer);
    free(whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeline_and_account_agree),
        cmocka_unit_test(an_eval_has_a_timeline_too),
        cmocka_unit_test(an_interrupted_run_leaves_all_of_its_timeline),
        cmocka_unit_test(a_killed_run_leaves_a_whole_file),
        cmocka_unit_test(a_wrong_path_is_refused_before_the_model),
        cmocka_unit_test(a_full_disk_is_an_error_and_no_lost_answer),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
