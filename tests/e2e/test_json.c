/* What is written for programs to read. The account of a run adds up; what `inspect` says is the
 * same in numbers. (Bytes read, against what the kernel counts: bytes_read.sh.) */
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *dir;
static const char *model, *stats;

static int make_all(void **state) {
    (void)state;
    static char names[2][512];
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(names[0], sizeof names[0], "%s/model", dir);
    snprintf(names[1], sizeof names[1], "%s/stats", dir);
    model = names[0];
    stats = names[1];
    return program_run(dir, NULL, ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", model));
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

/* The number at a path, "phases.load.seconds". */
static double number(const json_t *root, const char *path) {
    char rest[128], *at = rest;
    snprintf(rest, sizeof rest, "%s", path);
    for (char *key; (key = strsep(&at, "."));)
        root = json_object_get(root, key);
    if (!json_is_number(root))
        fail_msg("no number %s", path);
    return json_number_value(root);
}

/* Run it and read what it wrote; closed by the caller. */
static json_t *account_of(const char *const *arguments) {
    int code = program_run(dir, NULL, arguments);
    if (code != 0) {
        char *err = program_read(dir, "err", NULL);
        fail_msg("exit code %d: %s", code, err);
    }
    json_error_t error;
    json_t *root = json_load_file(stats, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        fail_msg("line %d: %s", error.line, error.text);
    return root;
}

static void assert_near(double one, double other, double within) {
    if (!(fabs(one - other) <= within))
        fail_msg("%.12g and %.12g", one, other);
}

/* Every second is somebody's, and no expert is counted twice. */
static void assert_adds_up(const json_t *root) {
    double all = 0;
    const char *name;
    json_t *phase, *seconds;
    json_object_foreach(json_object_get(root, "phases"), name, phase) {
        double sum = 0;
        const char *activity;
        json_object_foreach(json_object_get(phase, "activity_seconds"), activity, seconds) {
            assert_true(json_number_value(seconds) >= 0);
            sum += json_number_value(seconds);
        }
        assert_near(sum, number(phase, "seconds"), 1e-6);
        all += sum;
    }
    assert_int_equal(json_object_size(json_object_get(root, "phases")), 3);
    assert_near(all, number(root, "seconds"), 1e-6);

    // At the smallest --ram dense weights are streamed, too.
    double misses = number(root, "experts.misses"), dense = number(root, "dense.bytes_read");
    double bytes = number(root, "disk.bytes_read") - dense;
    assert_true((dense > 0) == (number(root, "dense.streamed_bytes_per_step") > 0));
    assert_near(number(root, "experts.wanted"),
                number(root, "experts.hits") + misses + number(root, "experts.joined"), 0);
    assert_true(bytes >= misses * number(root, "experts.expert_bytes"));
    double reads = misses + number(root, "prefetch.hash.read") +
                   number(root, "prefetch.gate.read") + number(root, "prefetch.sweep.read");
    assert_true(bytes <= reads * number(root, "experts.slot_bytes"));
    assert_true(number(root, "experts.evicted") <= reads);
    assert_near(number(root, "disk.failed"), 0, 0);
}

#define RUN(...)                                                                                   \
    ARGUMENTS("run", "-m", model, "--raw", "--temperature", "0", "-p", "a", "--ctx", "512",        \
              "--stats", stats, __VA_ARGS__)

static void times_and_tokens_of_a_run_add_up(void **state) {
    (void)state;
    json_t *root = account_of(RUN("--max-tokens", "30"));
    assert_adds_up(root);
    assert_near(number(root, "phases.prefill.tokens"), 2, 0); // BOS, and a letter
    assert_near(number(root, "phases.decode.tokens"), 29, 0); // the last one is not fed again
    assert_near(number(root, "phases.decode.steps"), 29, 0);
    assert_near(number(root, "phases.load.tokens"), 0, 0);
    assert_true(number(root, "phases.load.activity_seconds.load") > 0);
    assert_true(number(root, "phases.decode.activity_seconds.experts") > 0);
    json_decref(root);
}

static void times_and_tokens_of_an_eval_add_up(void **state) {
    (void)state;
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "text", "Some text, and more of it.", 26, &err), OK);
    json_t *root = account_of(ARGUMENTS("eval", "-m", model, "-f", in_dir(dir, "text"), "--window",
                                        "8", "--ctx", "512", "--stats", stats));
    assert_adds_up(root);
    assert_true(number(root, "phases.prefill.tokens") + number(root, "phases.decode.tokens") > 8);
    json_decref(root);
}

/* The smallest --ram that would do, as the refusal has it. */
static const char *least_ram(void) {
    static char ram[32];
    assert_int_equal(program_run(dir, NULL, RUN("--max-tokens", "1", "--ram", "1M")), 3);
    char *err = program_read(dir, "err", NULL);
    const char *at = strstr(err, "would do is --ram ");
    assert_non_null(at);
    snprintf(ram, sizeof ram, "%.*s", (int)strcspn(at + 18, "\n"), at + 18);
    free(err);
    return ram;
}

static void a_small_cache_is_counted_as_one(void **state) {
    (void)state;
    const char *ram = least_ram();
    json_t *root = account_of(RUN("--max-tokens", "30", "--ram", ram, "--io-engine", "pread"));
    assert_adds_up(root);
    assert_true(number(root, "experts.evicted") > 0);
    assert_true(number(root, "experts.slots") < number(root, "experts.of"));
    json_decref(root);
}

static void what_is_in_a_checkpoint_is_json(void **state) {
    (void)state;
    assert_int_equal(program_run(dir, NULL, ARGUMENTS("inspect", model, "--json")), 0);
    json_t *root = json_load_file(in_dir(dir, "out"), JSON_REJECT_DUPLICATES, NULL), *file;
    assert_non_null(root);
    double all = 0;
    size_t i;
    json_array_foreach(json_object_get(root, "files"), i, file) all += number(file, "bytes");
    assert_int_equal(i, 4);
    assert_near(all, number(root, "sizes.all_files"), 0);
    assert_near(number(root, "expert.count"), 64, 0); // of two layers
    assert_near(number(root, "sizes.routed_experts"), 64 * number(root, "expert.bytes"), 0);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_and_tokens_of_a_run_add_up),
        cmocka_unit_test(times_and_tokens_of_an_eval_add_up),
        cmocka_unit_test(a_small_cache_is_counted_as_one),
        cmocka_unit_test(what_is_in_a_checkpoint_is_json),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
