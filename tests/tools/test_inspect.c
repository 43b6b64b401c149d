#include "tools/commands.h"
#include "tools/inspection.h"

#include "src/checkpoint/checkpoint_make.h"
#include "src/checkpoint/config_make.h"
#include "tests/support/make_checkpoint.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const struct command command = { .name = "inspect",
                                        .bit = COMMAND_INSPECT,
                                        .operands = "DIR...",
                                        .least_operands = 1,
                                        .most_operands = OPTION_LIST_MAX,
                                        .about = "List a checkpoint.",
                                        .run = cmd_inspect };

static char *dir;
static struct checkpoint cp;
static struct inspection in;

static int make_dir(void **state) {
    (void)state;
    dir = make_temp_dir();
    memset(&cp, 0, sizeof cp);
    memset(&in, 0, sizeof in);
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    inspection_close(&in);
    checkpoint_close(&cp);
    remove_temp_dir(dir);
    return 0;
}

/* Make a checkpoint in `dir`, open and inspect it. */
static void inspect(const struct config *c, const struct make_options *options) {
    struct err err = { .status = OK };
    const char *const dirs[] = { dir };
    if (make_checkpoint(dir, c, options, &err) != OK || checkpoint_open(&cp, dirs, 1, &err) != OK ||
        inspection_open(&in, &cp, &err) != OK)
        fail_msg("%s", err.text);
}

/* What `inspect …` prints; the caller frees it. */
static char *printed(char **argv, int expected_code) {
    struct options o = { .command = &command };
    struct err err = { .status = OK };
    int argc = 0;
    while (argv[argc])
        argc++;
    if (options_parse(&o, &command, argc, argv, &err) != OK)
        fail_msg("%s", err.text);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    const int kept = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    const int code = cmd_inspect(&o);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    assert_int_equal(code, expected_code);
    const off_t length = lseek(fileno(file), 0, SEEK_END);
    assert_true(length >= 0);
    char *text = calloc(1, (size_t)length + 1);
    assert_int_equal(pread(fileno(file), text, (size_t)length, 0), length);
    fclose(file);
    return text;
}

static void mentions(const char *text, const char *what) {
    if (!strstr(text, what))
        fail_msg("does not say \"%s\":\n%s", what, text);
}

/* --- the real Pro ------------------------------------------------------------------------------ */

static void full_pro_is_told_in_words(void);

/* The figures of the published description. */
static void full_pro_has_the_published_figures(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(config_preset(&c, "pro", NULL), OK);
    const struct make_options options = { .layer_per_shard = true, .sparse = true };
    inspect(&c, &options);
    assert_int_equal(in.expert_bytes, 35094528);
    assert_int_equal(in.token_experts, 366);
    assert_int_equal(in.token_bytes, 366ull * 35094528);
    assert_true(in.token_bytes > 12.84e9 && in.token_bytes < 12.85e9);
    assert_true(in.dense_bytes > 28.65e9 && in.dense_bytes < 28.75e9);
    assert_true(in.kind_bytes[KIND_EMBEDDING] > 1.85e9 && in.kind_bytes[KIND_EMBEDDING] < 1.86e9);
    assert_true(in.kind_bytes[KIND_EXPERTS] > 822e9 && in.kind_bytes[KIND_EXPERTS] < 823e9);
    assert_int_equal(in.n_experts, 62 * 384);
    assert_int_equal(in.n_adjacent, in.n_experts);
    assert_int_equal(in.reads_most, 1);
    assert_true(in.overhead > 0 && in.overhead < 0.001);
    assert_in_range(in.slot_bytes, in.expert_bytes, in.expert_bytes + 2 * READER_ALIGN);
    assert_int_equal(in.n_layers, 62);
    for (uint32_t i = 0; i < in.n_layers; i++) {
        assert_int_equal(in.layers[i].n_spans, 1);
        assert_int_equal(in.layers[i].expert_bytes, 384ull * 35094528);
    }
    full_pro_is_told_in_words();
}

static void full_pro_is_told_in_words(void) {
    char *text = printed((char *[]){ dir, NULL }, EXIT_OK);
    static const char *const said[] = {
        "DeepSeek-V4 (61 layers, 384 experts)",
        "61: 31 HCA, 30 CSA, 0 window only; 3 routed by hash, 58 by score",
        "35,094,528 bytes; its six tensors are adjacent in all 23,808 experts",
        "1 read each",
        "366 experts (6 in each of 61 layers) are 12.84 GB",
        "MTP, 1 block",
        "mtp 0  window  score",
        "60  CSA     score",
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        mentions(text, said[i]);
    // Scratch depends on the threads there are; the rest of the least memory does not.
    unsigned least = 0, ample = 0;
    double gb = 0;
    const char *memory = strstr(text, "\nmemory, for 4,096 tokens");
    assert_non_null(memory);
    if (sscanf(strstr(memory, "--ram "), "--ram %uM at least: then %lf GB", &least, &gb) != 2 ||
        sscanf(strstr(memory, "--ram") + 5, "%*[^-]--ram %uM holds all", &ample) != 1)
        fail_msg("%s", memory);
    if (least < 1800 || least > 2600 || gb < 25.9 || gb > 26.3 || ample < 25500 || ample > 26800)
        fail_msg("%.300s", memory);
    free(text);
}

/* --- sums -------------------------------------------------------------------------------------- */

static void kinds_and_layers_add_up_to_all_tensors(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    inspect(&c, &(struct make_options){ .n_shards = 3 });
    struct checkpoint_plan plan;
    assert_int_equal(checkpoint_plan_open(&plan, &c, 0, NULL), OK);
    uint64_t kinds = 0, layers = 0;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        assert_true(in.kind_bytes[kind] > 0);
        kinds += in.kind_bytes[kind];
    }
    for (uint32_t i = 0; i < in.n_layers; i++)
        layers += in.layers[i].dense_bytes + in.layers[i].expert_bytes;
    assert_int_equal(kinds, plan.tensor_bytes);
    assert_int_equal(layers + in.kind_bytes[KIND_EMBEDDING] + in.kind_bytes[KIND_HEAD],
                     plan.tensor_bytes);
    assert_int_equal(in.dense_bytes + in.kind_bytes[KIND_DRAFT] + in.kind_bytes[KIND_EXPERTS] +
                         in.kind_bytes[KIND_DRAFT_EXPERTS],
                     plan.tensor_bytes);
    checkpoint_plan_close(&plan);
}

static void expert_whose_tensors_lie_apart_takes_more_reads(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    // A hole of three blocks before each tensor: six reads each, and none adjacent.
    inspect(&c, &(struct make_options){ .n_shards = 1, .gap = 3 * READER_ALIGN });
    assert_int_equal(in.n_adjacent, 0);
    assert_int_equal(in.reads_least, 6);
    assert_int_equal(in.reads_most, 6);
    assert_true(in.overhead > 0.5); // six small tensors, each with margins
    char *text = printed((char *[]){ dir, NULL }, EXIT_OK);
    mentions(text, "adjacent in 0 of 25 experts");
    mentions(text, "6 reads each");
    free(text);
}

static void expert_cut_between_two_shards_takes_two_reads(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    struct checkpoint_plan plan;
    struct err err = { .status = OK };
    const struct checkpoint_make_options o = { .seed = 1 };
    const char *const dirs[] = { dir };
    assert_int_equal(checkpoint_plan_open(&plan, &c, 40, NULL), OK);
    if (checkpoint_make(dir, &plan, &o, &err) != OK || checkpoint_open(&cp, dirs, 1, &err) != OK ||
        inspection_open(&in, &cp, &err) != OK)
        fail_msg("%s", err.text);
    checkpoint_plan_close(&plan);
    assert_true(in.n_adjacent > 0 && in.n_adjacent < in.n_experts);
    assert_int_equal(in.reads_least, 1);
    assert_true(in.reads_most >= 2);
    bool spread = false;
    for (uint32_t i = 0; i < in.n_layers; i++) {
        spread |= in.layers[i].n_spans > 1;
        for (uint32_t s = 1; s < in.layers[i].n_spans; s++)
            assert_true(in.layers[i].spans[s - 1].file < in.layers[i].spans[s].file);
    }
    assert_true(spread);
}

/* Each layer's spans hold its tensors and, in files of one layer each, nothing else. */
static void spans_say_where_a_layer_lies(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    inspect(&c, &(struct make_options){ .layer_per_shard = true });
    for (uint32_t i = 0; i < in.n_layers; i++) {
        const struct layer_figures *layer = &in.layers[i];
        assert_int_equal(layer->n_spans, 1);
        assert_int_equal(layer->spans[0].end - layer->spans[0].begin,
                         layer->dense_bytes + layer->expert_bytes);
        assert_int_equal(layer->spans[0].end, cp.files[layer->spans[0].file].bytes);
    }
}

/* --- what is printed --------------------------------------------------------------------------- */

static void json_has_the_same_figures(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    inspect(&c, &(struct make_options){ .n_shards = 2 });
    char *text = printed((char *[]){ "--json", dir, NULL }, EXIT_OK);
    json_error_t why;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        fail_msg("%s in %s", why.text, text);
    const json_t *expert = json_object_get(root, "expert"), *token = json_object_get(root, "token");
    const json_t *sizes = json_object_get(root, "sizes"), *layers = json_object_get(root, "layers");
    assert_int_equal(json_integer_value(json_object_get(expert, "bytes")), in.expert_bytes);
    assert_int_equal(json_integer_value(json_object_get(expert, "count")), in.n_experts);
    assert_int_equal(json_integer_value(json_object_get(expert, "adjacent")), in.n_adjacent);
    assert_int_equal(json_integer_value(json_object_get(token, "bytes")), in.token_bytes);
    assert_int_equal(json_integer_value(json_object_get(token, "read_bytes")), in.token_read_bytes);
    assert_int_equal(json_integer_value(json_object_get(sizes, "dense")), in.dense_bytes);
    assert_int_equal(json_integer_value(json_object_get(sizes, "draft_routed_experts")),
                     in.kind_bytes[KIND_DRAFT_EXPERTS]);
    assert_int_equal(json_array_size(layers), in.n_layers);
    const json_t *last = json_array_get(layers, in.n_layers - 1);
    assert_true(json_is_true(json_object_get(last, "draft")));
    assert_int_equal(json_integer_value(json_object_get(last, "expert_bytes")),
                     in.layers[in.n_layers - 1].expert_bytes);
    assert_string_equal(json_string_value(json_object_get(root, "draft")), "mtp");
    json_decref(root);
    free(text);
}

static void directory_without_a_checkpoint_fails_by_name(void **state) {
    (void)state;
    fflush(stderr);
    const int kept = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    char *text = printed((char *[]){ dir, NULL }, EXIT_FAILED);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(null);
    assert_string_equal(text, "");
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(full_pro_has_the_published_figures),
        TEST(kinds_and_layers_add_up_to_all_tensors),
        TEST(expert_whose_tensors_lie_apart_takes_more_reads),
        TEST(expert_cut_between_two_shards_takes_two_reads),
        TEST(spans_say_where_a_layer_lies),
        TEST(json_has_the_same_figures),
        TEST(directory_without_a_checkpoint_fails_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
