/* The spellings that checkpoints have been published in, and a single file instead of shards: the
 * same logits, bit for bit, through the program. */
#include "io/small_file.h"
#include "tests/e2e/program.h"
#include "tests/support/make_checkpoint.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN "tests/data/golden/checkpoint"

static char *dir;
static const char *copy, *tokens, *expected, *logits;

#define EVAL(model, out)                                                                           \
    ARGUMENTS("eval", "-m", model, "--ctx", "128", "--mtp", "--tokens", tokens, "--logits", out)

static int make_all(void **state) {
    (void)state;
    static char names[4][512];
    static const char *const each[] = { "copy", "tokens", "expected", "logits" };
    dir = make_temp_dir();
    assert_non_null(dir);
    for (int i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s/%s", dir, each[i]);
    copy = names[0];
    tokens = names[1];
    expected = names[2];
    logits = names[3];
    char text[512] = "";
    for (int i = 0; i < 100; i++)
        sprintf(text + strlen(text), "%d ", i * 89 % 256);
    struct err err = { .status = OK };
    assert_int_equal(make_file(dir, "tokens", text, strlen(text), &err), OK);
    return program_run(dir, NULL, EVAL(GOLDEN, expected));
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

static int make_copy_dir(void **state) {
    (void)state;
    return mkdir(copy, 0700);
}

static int remove_copy(void **state) {
    (void)state;
    remove_temp_dir(strdup(copy));
    return 0;
}

static void copy_gives_the_same_bits(void) {
    unlink(logits);
    int code = program_run(dir, NULL, EVAL(copy, logits));
    char *err = program_read(dir, "err", NULL);
    if (code != 0)
        print_error("%s", err);
    free(err);
    assert_int_equal(code, 0);
    assert_true(same_files(logits, expected));
}

static void renamed(enum make_names names) {
    struct err err = { .status = OK };
    if (make_renamed(GOLDEN, copy, names, &err) != OK)
        fail_msg("%s", err.text);
}

/* The copy's first header is not the original's, so the test tests something. */
static bool has_name(const char *name) {
    char *bytes;
    size_t n_bytes;
    struct err err = { .status = OK };
    const char *shard = in_dir(copy, "model-00001-of-00002.safetensors");
    if (small_file_read(shard, 1 << 30, &bytes, &n_bytes, &err) != OK)
        fail_msg("%s", err.text);
    bool found = memmem(bytes, n_bytes, name, strlen(name)) != NULL;
    free(bytes);
    return found;
}

static void prefixed_names_give_the_same_bits(void **state) {
    (void)state;
    renamed(NAMES_PREFIXED);
    assert_true(has_name("\"model.layers.0.self_attn."));
    assert_true(has_name(".mlp.experts.0.w1.weight_scale_inv\""));
    assert_true(has_name(".mlp.gate.e_score_correction_bias\"") || has_name(".mlp.gate.tid2eid\""));
    copy_gives_the_same_bits();
}

static void older_names_give_the_same_bits(void **state) {
    (void)state;
    renamed(NAMES_V3);
    assert_true(has_name(".input_layernorm.weight\""));
    assert_true(has_name(".mlp.experts.0.gate_proj."));
    copy_gives_the_same_bits();
}

/* --- one file --------------------------------------------------------------------------------- */

/* Append the data of a shard, and its tensors to the header. */
static void append_shard(json_t *header, FILE *data, const char *path) {
    char *bytes;
    size_t n_bytes;
    struct err err = { .status = OK };
    if (small_file_read(path, 1 << 30, &bytes, &n_bytes, &err) != OK)
        fail_msg("%s", err.text);
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    const json_int_t base = ftell(data);
    json_t *shard = json_loadb(bytes + 8, length, 0, NULL), *tensor;
    assert_non_null(shard);
    const char *name;
    json_object_foreach(shard, name, tensor) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        json_t *from = json_object_get(tensor, "data_offsets"), *to = json_array();
        for (size_t i = 0; i < 2; i++)
            json_array_append_new(to,
                                  json_integer(base + json_integer_value(json_array_get(from, i))));
        json_object_set_new(tensor, "data_offsets", to);
        json_object_set(header, name, tensor);
    }
    json_decref(shard);
    assert_int_equal(fwrite(bytes + 8 + length, 1, n_bytes - 8 - length, data),
                     n_bytes - 8 - length);
    free(bytes);
}

static void copy_config(void) {
    char *bytes;
    size_t n_bytes;
    struct err err = { .status = OK };
    if (small_file_read(GOLDEN "/config.json", 1 << 20, &bytes, &n_bytes, &err) != OK ||
        make_file(copy, "config.json", bytes, n_bytes, &err) != OK)
        fail_msg("%s", err.text);
    free(bytes);
}

static void a_single_file_gives_the_same_bits(void **state) {
    (void)state;
    char *data_bytes, *text;
    size_t n_data;
    json_t *header = json_object();
    FILE *data = open_memstream(&data_bytes, &n_data);
    assert_non_null(data);
    append_shard(header, data, GOLDEN "/model-00001-of-00002.safetensors");
    append_shard(header, data, GOLDEN "/model-00002-of-00002.safetensors");
    fclose(data);
    text = json_dumps(header, JSON_COMPACT);
    json_decref(header);

    FILE *file = fopen(in_dir(copy, "model.safetensors"), "wb");
    assert_non_null(file);
    const uint64_t length = strlen(text);
    assert_true(fwrite(&length, 8, 1, file) == 1 && fwrite(text, 1, length, file) == length &&
                fwrite(data_bytes, 1, n_data, file) == n_data && fclose(file) == 0);
    free(text);
    free(data_bytes);
    copy_config();
    copy_gives_the_same_bits();
}

#define COPY_TEST(f) cmocka_unit_test_setup_teardown(f, make_copy_dir, remove_copy)

int main(void) {
    const struct CMUnitTest tests[] = {
        COPY_TEST(prefixed_names_give_the_same_bits),
        COPY_TEST(older_names_give_the_same_bits),
        COPY_TEST(a_single_file_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
