/* `sluice run -p A -p B …`: each answer is that of a run of its own, to the byte, whatever the groups, the
 * cache and the prefetch; they come in the order of the prompts, set apart. */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define INTERRUPTED 130
#define N_PROMPTS   4
#define FIRST       "The quick brown fox jumps over the lazy dog"
#define SECOND      "Rain"
#define THIRD       "one two three four five six seven eight nine ten and so on and on and on it went"
#define PROMPTS     "-p", FIRST, "-p", SECOND, "-p", THIRD, "-p", SECOND
#define COMMON      "--ctx", "256", "--seed", "5", "--max-tokens", "24"

static const char *const prompts[N_PROMPTS] = { FIRST, SECOND, THIRD, SECOND };

static char *dir, *least;
static const char *model;
static char *raw_together, *json_together; // what all are to say, set apart as the program does

static void succeeds(const char *const *arguments) {
    int code = program_run(dir, NULL, arguments);
    if (code != 0)
        fail_msg("exit code %d: %s", code, program_read(dir, "err", NULL));
}

static void assert_says(const char *wanted) {
    char *out = program_read(dir, "out", NULL);
    assert_string_equal(out, wanted);
    free(out);
}

// As `head` and `tail` do with files; a long prompt is cut.
static void put_title(FILE *text, uint32_t i) {
    fprintf(text, "%s==> %u of %u: ", i ? "\n" : "", i + 1, N_PROMPTS);
    size_t n = strlen(prompts[i]);
    fprintf(text, n > 56 ? "%.56s… <==\n" : "%.56s <==\n", prompts[i]);
}

static void answer_each_alone(void) {
    size_t n;
    FILE *raw = open_memstream(&raw_together, &n);
    FILE *json = open_memstream(&json_together, &n);
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        succeeds(ARGUMENTS("run", "-m", model, "--raw", "-p", prompts[i], COMMON));
        char *out = program_read(dir, "out", NULL);
        assert_true(strlen(out) > 24);
        put_title(raw, i);
        fputs(out, raw);
        free(out);
        succeeds(ARGUMENTS("run", "-m", model, "--json", "-p", prompts[i], COMMON));
        out = program_read(dir, "out", NULL);
        assert_true(out[0] == '{' && strchr(out, '\n') == out + strlen(out) - 1);
        fputs(out, json);
        free(out);
    }
    fclose(raw);
    fclose(json);
}

static int make_all(void **state) {
    (void)state;
    static char name[512];
    signal(SIGPIPE, SIG_IGN);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(name, sizeof name, "%s/model", dir);
    model = name;
    // Layers 2 to 4 of the demo's list: one by table, two by score.
    succeeds(ARGUMENTS("mkmodel", "--first", "2", "--layers", "3", "--drafts", "none", model));
    answer_each_alone();
    least = program_least_ram(dir, ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON,
                                             "--groups", "3", "--ram", "1M"));
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    free(least);
    free(raw_together);
    free(json_together);
    return 0;
}

// --- the same bits -------------------------------------------------------------------------------

static void each_says_what_it_says_alone(void **state) {
    (void)state;
    static const char *const groups[] = { "1", "2", "3" };
    static const char *const modes[] = { "auto", "off" };
    const char *const rams[] = { least, "1G" };
    for (int g = 0; g < 3; g++)
        for (int m = 0; m < 2; m++)
            for (int r = 0; r < 2; r++) {
                succeeds(ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON, "--groups",
                                   groups[g], "--prefetch", modes[m], "--ram", rams[r]));
                assert_says(raw_together);
            }
}

static void neither_chunk_nor_threads_nor_engine_show(void **state) {
    (void)state;
    succeeds(ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON, "--chunk", "1"));
    assert_says(raw_together);
    succeeds(ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON, "--chunk", "13", "--threads",
                       "3", "--io-engine", "pread", "--ram", least));
    assert_says(raw_together);
}

static void json_is_a_message_a_line(void **state) {
    (void)state;
    succeeds(ARGUMENTS("run", "-m", model, "--json", PROMPTS, COMMON));
    assert_says(json_together);
}

static void the_same_experts_are_recorded(void **state) {
    (void)state;
    const char *trace = in_dir(dir, "routing");
    succeeds(ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON, "--record-routing", trace));
    assert_says(raw_together);
    assert_int_equal(access(trace, F_OK), 0);
}

// --- what is said beside it ----------------------------------------------------------------------

static void one_account_is_of_all(void **state) {
    (void)state;
    succeeds(
        ARGUMENTS("run", "-m", model, "--raw", PROMPTS, COMMON, "--stats", in_dir(dir, "stats")));
    char *err = program_read(dir, "err", NULL), *stats = program_read(dir, "stats", NULL);
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        char line[64];
        snprintf(line, sizeof line, "%u of %u: ", i + 1, N_PROMPTS);
        assert_int_equal(count_lines(err, line), 1);
    }
    assert_int_equal(count_lines(err, "together "), 1);
    assert_non_null(strstr(err, "4 sequences in 2 groups"));
    assert_non_null(strstr(err, "100.0 %"));
    assert_non_null(strstr(stats, "\"sequences_together\": 4"));
    assert_non_null(strstr(stats, "\"groups\": 2"));
    free(stats);
    free(err);
}

static void a_prompt_that_is_too_long_is_named_before_anything_is_said(void **state) {
    (void)state;
    assert_int_equal(program_run(dir, NULL,
                                 ARGUMENTS("run", "-m", model, "--raw", "-p", "a", "-p", THIRD,
                                           "--ctx", "8", "--max-tokens", "2")),
                     3);
    char *err = program_read(dir, "err", NULL);
    assert_non_null(strstr(err, "sluice run: prompt 2 has "));
    assert_non_null(strstr(err, "--ctx"));
    assert_says("");
    free(err);
}

static void an_empty_prompt_among_others_is_refused(void **state) {
    (void)state;
    assert_int_equal(
        program_run(dir, NULL, ARGUMENTS("run", "-m", model, "-p", "a", "-p", "", "--ctx", "64")),
        2);
    assert_says("");
}

// A title is one line, and steers no terminal.
static void a_prompt_of_several_lines_has_a_title_of_one(void **state) {
    (void)state;
    succeeds(ARGUMENTS("run", "-m", model, "--raw", "-p", "a\nb\x1b[2J", "-p", "c\xff", "--ctx",
                       "64", "--max-tokens", "1"));
    char *out = program_read(dir, "out", NULL);
    assert_int_equal(strncmp(out, "==> 1 of 2: a b [2J <==\n", 24), 0);
    assert_non_null(strstr(out, "\n==> 2 of 2: c\xEF\xBF\xBD <==\n"));
    free(out);
}

// --- interrupted ---------------------------------------------------------------------------------

// Until it is interrupted they speak; what each has said by then is the beginning of what it says.
static void ctrl_c_keeps_what_all_have_said(void **state) {
    (void)state;
    struct program p;
    unlink(in_dir(dir, "out"));
    program_start(&p, dir, NULL,
                  ARGUMENTS("run", "-m", model, "--raw", "-p", FIRST, "-p", THIRD, "--ctx", "30000",
                            "--temperature", "0"));
    assert_true(program_until(&p, "out", "<==\n"));
    kill(p.pid, SIGINT);
    assert_int_equal(program_wait(&p), INTERRUPTED);
    char *err = program_read(dir, "err", NULL), *out = program_read(dir, "out", NULL);
    assert_non_null(strstr(err, "1 of 2: "));
    assert_non_null(strstr(err, "2 of 2: "));
    assert_non_null(strstr(err, "ended by: interrupted"));
    assert_non_null(strstr(err, "100.0 %"));
    assert_null(strstr(err, "sluice run: "));
    char *second = strstr(out, "\n==> 2 of 2: ");
    assert_non_null(second);
    second = strstr(second, "<==\n");
    char n_generated[16];
    const char *line = strstr(strstr(err, "2 of 2: "), "prompt, ");
    assert_int_equal(sscanf(line, "prompt, %15[0-9] generated", n_generated), 1);
    if (strcmp(n_generated, "0") != 0) {
        succeeds(ARGUMENTS("run", "-m", model, "--raw", "-p", THIRD, "--ctx", "30000",
                           "--temperature", "0", "--max-tokens", n_generated));
        assert_says(second + 4);
    }
    free(err);
    free(out);
    program_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_says_what_it_says_alone),
        cmocka_unit_test(neither_chunk_nor_threads_nor_engine_show),
        cmocka_unit_test(json_is_a_message_a_line),
        cmocka_unit_test(the_same_experts_are_recorded),
        cmocka_unit_test(one_account_is_of_all),
        cmocka_unit_test(a_prompt_that_is_too_long_is_named_before_anything_is_said),
        cmocka_unit_test(an_empty_prompt_among_others_is_refused),
        cmocka_unit_test(a_prompt_of_several_lines_has_a_title_of_one),
        cmocka_unit_test(ctrl_c_keeps_what_all_have_said),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
