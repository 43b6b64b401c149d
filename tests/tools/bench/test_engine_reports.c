/* What `bench decode` and `bench prefill` make of their figures: quartiles, the crossover, the list of
 * lengths, and reports of made results. */
#include "tools/bench/decode.h"
#include "tools/bench/prefill.h"
#include "tools/bench/quartiles.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct err err;

static int no_error(void **state) {
    (void)state;
    err_clear(&err);
    return 0;
}

static void assert_near(double is, double want) {
    if (fabs(is - want) > 1e-9 * fmax(1, fabs(want)))
        fail_msg("%g, not %g", is, want);
}

// --- quartiles -----------------------------------------------------------------------------------

static void quartiles_lie_between_values(void **state) {
    (void)state;
    double five[] = { 5, 1, 4, 2, 3 }, four[] = { 40, 10, 30, 20 }, one[] = { 7 };
    struct quartiles q = quartiles_of(five, 5);
    assert_near(q.low, 2);
    assert_near(q.median, 3);
    assert_near(q.high, 4);
    q = quartiles_of(four, 4);
    assert_near(q.low, 17.5);
    assert_near(q.median, 25);
    assert_near(q.high, 32.5);
    q = quartiles_of(one, 1);
    assert_true(q.low == 7 && q.median == 7 && q.high == 7);
    q = quartiles_of(NULL, 0);
    assert_true(q.low == 0 && q.median == 0 && q.high == 0);
}

// --- the crossover -------------------------------------------------------------------------------

// The disk takes a second; arithmetic takes so long.
static struct prefill_pass pass(uint32_t n_rows, double arithmetic_s) {
    struct prefill_pass p = { .n_rows = n_rows, .rate = 1e9, .ideal_bytes = 1000000000 };
    p.window.figures.ns = 4000000000u;
    p.window.figures.wait_ns = 4000000000u - (uint64_t)(arithmetic_s * 1e9);
    p.bound.ns = 4e9;
    return p;
}

static void the_crossover_lies_between_two_passes(void **state) {
    (void)state;
    double rows;
    struct prefill_pass passes[] = { pass(16, 0.2), pass(64, 0.5), pass(256, 1.5), pass(1024, 3) };
    assert_int_equal(prefill_crossover(passes, 4, &rows), CROSSOVER_FOUND);
    assert_near(rows, 128); // in the middle, in logarithms
    assert_int_equal(prefill_crossover(passes + 2, 2, &rows), CROSSOVER_BELOW);
    assert_int_equal(prefill_crossover(passes, 2, &rows), CROSSOVER_ABOVE);
    assert_int_equal(prefill_crossover(passes, 0, &rows), CROSSOVER_ABOVE);
}

// --- lists of lengths ----------------------------------------------------------------------------

static void lists(const char *text, enum status status, uint32_t n, uint32_t last) {
    uint32_t rows[PREFILL_PASSES_MAX], is;
    err_clear(&err);
    if (prefill_rows(text, rows, &is, &err) != status)
        fail_msg("'%s': %s", text, err.text);
    if (status != OK)
        return;
    assert_int_equal(is, n);
    assert_int_equal(rows[n - 1], last);
}

static void lengths_are_an_ascending_list(void **state) {
    (void)state;
    lists("32", OK, 1, 32);
    lists("1,64,4096", OK, 3, 4096);
    lists("65536", OK, 1, 65536);
    static const char *const wrong[] = { "",      "0",      "-1",    "a",     "32,",
                                         ",32",   "32,,64", "32 64", "64,32", "32,32",
                                         "65537", "1e3",    "32,64x" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        lists(wrong[i], ERR_USAGE, 0, 0);
    char many[1024] = "1";
    for (int i = 2; i <= PREFILL_PASSES_MAX + 1; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), ",%d", i);
    lists(many, ERR_USAGE, 0, 0);
}

// --- reports -------------------------------------------------------------------------------------

static const struct sluice_fit fit = { .n_slots = 10, .n_experts = 40, .used_bytes = 1000000000 };
static const struct config config = { .n_layers = 2, .n_experts = 20, .n_chosen = 4 };

static char *printed;
static size_t n_printed;

static FILE *begin_printing(void) {
    free(printed);
    return open_memstream(&printed, &n_printed);
}

static void has(const char *text) {
    if (!strstr(printed, text))
        fail_msg("no '%s' in:\n%s", text, printed);
}

static void fits_eighty_columns(void) {
    for (const char *line = printed; *line;) {
        size_t n = strcspn(line, "\n");
        if (n > 80)
            fail_msg("%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

static double number(const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    if (!json_is_number(value))
        fail_msg("no number %s", key);
    return json_number_value(value);
}

// Two rounds of two steps of three sequences: 0.5 s and 1 s, half of it waiting.
static struct decode_round made_rounds[2];
static double made_looks[3] = { 2e9, 4e9, 2e9 };

static struct decode_result made_decode(void) {
    for (int i = 0; i < 2; i++) {
        uint64_t ns = i ? 1000000000 : 500000000;
        made_rounds[i] = (struct decode_round){ .n_tokens = 6, .rate = 3e9 };
        made_rounds[i].window.figures = (struct recording_figures){
            .ns = ns,
            .wait_ns = ns / 2,
            .idle_ns = ns / 4,
            .idle_wanted_ns = ns / 100,
            .activity_ns = { [ACTIVITY_WAIT] = ns / 2, [ACTIVITY_ATTENTION] = ns / 2 },
            .bytes = 3e8,
            .wait_bytes = (double)ns / 2 * (i ? 3 : 1.5),
        };
        made_rounds[i].window.bytes = made_rounds[i].window.kernel_bytes = 300000000;
        made_rounds[i].window.demanded = 60;
        made_rounds[i].window.hits = 15;
        made_rounds[i].bound = (struct ideal_time){ .ns = (double)ns / (i ? 1.0 : 1.25),
                                                    .compute_ns = (double)ns / 2 };
    }
    return (struct decode_result){ .fit = &fit,
                                   .config = &config,
                                   .expert_bytes = 5000000,
                                   .model = "some/model",
                                   .engine = "io_uring",
                                   .n_prompt = 8,
                                   .n_sequences = 3,
                                   .n_groups = 1,
                                   .prompt_s = 2,
                                   .rounds = made_rounds,
                                   .looks = made_looks,
                                   .n_rounds = 2,
                                   .n_looks = 3 };
}

static void a_decode_is_told_to_people(void **state) {
    (void)state;
    struct decode_result d = made_decode();
    FILE *out = begin_printing();
    assert_int_equal(decode_text(&d, out, &err), OK);
    fclose(out);
    fits_eighty_columns();
    has("decode         8 tokens/s (quartiles of 2 rounds 7.5 to 10.5), 12 tokens");
    has("50 MB a token; 10.0 experts wanted, 25.0 % found in memory");
    has("waiting 50.0, attention 50.0");
    has("idle 25.0 % of the time; while something was wanted 1.00 %");
    has("3.00 GB/s (3.00 to 3.00)\n");
    has("from one look to the next 1.250 (0.875 to 1.625)");
    has("2.25 GB/s: 0.750 (0.625 to 0.875) of that");
    has("375.00 ms; over an ideal disk of that rate 350.00 ms");
    has("187.50 of arithmetic: 1.125 (1.062 to 1.188) times its bound");
    assert_null(strstr(printed, "interrupted"));
    d.interrupted = true;
    d.n_lost = 3;
    out = begin_printing();
    assert_int_equal(decode_text(&d, out, &err), OK);
    fclose(out);
    has("interrupted");
    has("3 events of the timeline were lost");
}

static void a_decode_is_told_to_programs(void **state) {
    (void)state;
    struct decode_result d = made_decode();
    FILE *out = begin_printing();
    assert_int_equal(decode_json(&d, out, &err), OK);
    fclose(out);
    json_t *root = json_loads(printed, 0, NULL);
    assert_non_null(root);
    assert_near(number(root, "tokens"), 12);
    assert_near(number(root, "tokens_per_s"), 8);
    assert_near(number(root, "bytes_per_token"), 5e7);
    assert_near(number(root, "hit_rate"), 0.25);
    assert_near(number(root, "idle_wanted_share"), 0.01);
    assert_near(number(json_object_get(root, "time_by_bound"), "median"), 1.125);
    assert_near(number(json_object_get(root, "awaited_share"), "high"), 0.875);
    assert_int_equal(json_array_size(json_object_get(root, "rounds")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "looks_bytes_per_s")), 3);
    json_decref(root);
    d.model = "no \xff UTF-8";
    out = begin_printing();
    assert_int_equal(decode_json(&d, out, &err), ERR_INPUT);
    fclose(out);
}

static void passes_are_told(void **state) {
    (void)state;
    struct prefill_result r = { .fit = &fit,
                                .config = &config,
                                .expert_bytes = 5000000,
                                .model = "some/model",
                                .engine = "io_uring",
                                .passes = { pass(32, 0.5), pass(128, 1.5) },
                                .n_passes = 2 };
    r.passes[0].window.bytes = 1100000000;
    r.passes[0].window.kernel_bytes = 1200000000;
    r.passes[1].n_again = 3;
    FILE *out = begin_printing();
    prefill_text(&r, out);
    fclose(out);
    fits_eighty_columns();
    has("    32      8.0       4   1.100  1.100  1.200  1.00 ");
    has("      1     0.5  1.000\n");
    has("128 rows: 3 reads of an expert that had been read before");
    has("from about 64 rows on (interpolated)");
    out = begin_printing();
    assert_int_equal(prefill_json(&r, out, &err), OK);
    fclose(out);
    json_t *root = json_loads(printed, 0, NULL);
    assert_non_null(root);
    assert_near(number(root, "crossover_rows"), 64);
    const json_t *first = json_array_get(json_object_get(root, "passes"), 0);
    assert_near(number(first, "disk_seconds"), 1);
    assert_near(number(first, "arithmetic_seconds"), 0.5);
    assert_string_equal(json_string_value(json_object_get(first, "binds")), "disk");
    json_decref(root);
}

static int stop_printing(void **state) {
    (void)state;
    free(printed);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(quartiles_lie_between_values, no_error),
        cmocka_unit_test_setup(the_crossover_lies_between_two_passes, no_error),
        cmocka_unit_test_setup(lengths_are_an_ascending_list, no_error),
        cmocka_unit_test_setup(a_decode_is_told_to_people, no_error),
        cmocka_unit_test_setup(a_decode_is_told_to_programs, no_error),
        cmocka_unit_test_setup(passes_are_told, no_error),
    };
    return cmocka_run_group_tests(tests, NULL, stop_printing);
}
