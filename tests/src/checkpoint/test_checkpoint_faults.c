#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/config_make.h"
#include "tests/support/checkpoint_fixture.h"

/* ---- what is not what it claims to be ---- */

static void wrong_types_and_shapes_are_named(void **state) {
    (void)state;
    static const struct {
        const char *name, *dtype, *shape; // the same number of bytes as before
        const char *is, *should;
    } cases[] = {
        { "embed.weight", "F16", "[64, 128]", "F16 [64, 128]", "BF16 [64, 128]" },
        { "embed.weight", "BF16", "[128, 64]", "BF16 [128, 64]", "BF16 [64, 128]" },
        { "embed.weight", "BF16", "[8192]", "BF16 [8192]", "BF16 [64, 128]" },
        { "norm.weight", "BF16", "[128, 1]", "BF16 [128, 1]", "BF16 [128]" },
        { "norm.weight", "F32", "[64]", "F32 [64]", "BF16 [128]" },
        { "layers.0.attn.wq_a.weight", "I8", "[128, 128]", "I8 ", "F8_E4M3 [128, 128]" },
        { "layers.0.attn.wq_a.weight", "F8_E5M2", "[128, 128]", "F8_E5M2 ", "F8_E4M3 " },
        { "layers.0.attn.wq_a.scale", "I8", "[1, 1]", "I8 [1, 1]", "F8_E8M0 [1, 1]" },
        { "layers.0.ffn.gate.tid2eid", "F64", "[64, 2]", "F64 [64, 2]", "I64 [64, 2]" },
        { "layers.0.ffn.gate.tid2eid", "I32", "[64, 4]", "I32 [64, 4]", "I64 [64, 2]" },
        { "layers.3.ffn.experts.4.w2.weight", "F8_E4M3", "[128, 64]", "F8_E4M3 ", "I8 " },
        { "layers.3.ffn.experts.4.w2.weight", "I8", "[64, 128]", "I8 [64, 128]", "[128, 64]" },
        { "layers.3.ffn.experts.4.w2.scale", "F32", "[128, 1]", "F32 ", "F8_E8M0 [128, 4]" },
        { "layers.1.hc_attn_fn", "I32", "[24, 512]", "I32 ", "F32 [24, 512]" },
        { "mtp.0.e_proj.weight", "I8", "[128, 128]", "I8 ", "F8_E4M3 [128, 128]" },
    };
    const struct make_options options = { .sparse = true };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_make(&options);
        fixture_edit("model.safetensors", cases[i].name, cases[i].dtype, cases[i].shape);
        fixture_refused(ERR_INPUT, fixture_path("model.safetensors"), cases[i].name, cases[i].is,
                        cases[i].should);
    }
}

static bool leave_one_scale_out(const struct manifest_entry *entry, void *context) {
    (void)context;
    return entry->id == TENSOR_W1_SCALE && entry->layer == 0 && entry->expert == 0;
}

/* The exact integer sums of FP4 experts need scales that are powers of two. */
static void fp4_scales_as_f32_are_refused(void **state) {
    (void)state;
    const struct manifest_entry extra =
        fixture_entry("layers.0.ffn.experts.0.w1.scale", DTYPE_F32, 128, 4);
    const struct make_options options = {
        .sparse = true, .leave_out = leave_one_scale_out, .extra = &extra, .n_extra = 1
    };
    fixture_make(&options);
    fixture_refused(ERR_INPUT, "layers.0.ffn.experts.0.w1.scale is F32 [128, 4]",
                    "F8_E8M0 [128, 4]");
}

/* Two shards: a malformed second one is an error that names it, whatever the fault. */
static void malformed_headers_are_refused_by_file(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        enum status status;
        const char *what;
    } cases[] = {
#define BYTES(text)          text, sizeof text - 1
#define HEADER(length, text) BYTES(length "\0\0\0\0\0\0\0" text)
        { BYTES("\0\0\0\0\0\0\0\x80 the header has 2^63 bytes"), ERR_INPUT, "9223372036854775808" },
        { BYTES("\xff\xff\xff\xff\xff\xff\xff\xff{}"), ERR_INPUT, "18446744073709551615" },
        { BYTES("\1\xe1\xf5\5\0\0\0\0{}"), ERR_INPUT, "100000001" },
        { BYTES("\0\0\0\0\0\0\0\0"), ERR_INPUT, "0 bytes" },
        { BYTES("version https://git-lfs.github.com/spec/v1\n"), ERR_INPUT, "git lfs pull" },
        { HEADER("\4", "[{}]"), ERR_INPUT, "not a JSON object" },
        { HEADER("\4", "{{}}"), ERR_INPUT, "not JSON" },
        { HEADER("\7", "{\"t\":3}"), ERR_INPUT, "tensor t" },
        { HEADER("\x35", "{\"t\":{\"dtype\":\"Q8\",\"shape\":[4],\"data_offsets\":[0,4]}}1234"),
          ERR_INPUT, "tensor t: unknown dtype \"Q8\"" },
        { HEADER("\x35", "{\"t\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,4]}}1234"),
          ERR_INPUT, "tensor t: its shape" },
        { HEADER("\x35", "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}1234"),
          ERR_INPUT, "tensor t: its data begin after they end" },
        { HEADER("\x69", "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                         "\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}1234567"),
          ERR_INPUT, "tensors t and u overlap" },
        { HEADER("\x69", "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                         "\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}12345678"),
          ERR_INPUT, "duplicate object key near '\"t\"'" },
        { HEADER("\x35", "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}123"),
          ERR_TRUNCATED, "(1 bytes short)" },
    };
    const struct make_options options = { .n_shards = 2, .sparse = true };
    fixture_make(&options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_file(fixture.dir, "model-00002-of-00002.safetensors", cases[i].bytes, cases[i].length,
                  &fixture.err);
        fixture_refused(cases[i].status, "model-00002-of-00002.safetensors", cases[i].what);
    }
}

static void malformed_indexes_are_refused(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 2, .sparse = true };
    const char *const name = "model.safetensors.index.json";
    fixture_make(&options);
    make_file(fixture.dir, name, "{", 1, &fixture.err);
    fixture_refused(ERR_INPUT, fixture_path(name), "not JSON");
    const char traversal[] = "{\"weight_map\": {\"embed.weight\": \"../model.safetensors\"}}";
    make_file(fixture.dir, name, traversal, sizeof traversal - 1, &fixture.err);
    fixture_refused(ERR_INPUT, fixture_path(name), "embed.weight", "../model.safetensors");
    const char twice[] =
        "{\"weight_map\": {\"embed.weight\": \"a\", \"model.embed.weight\": \"b\"}}";
    make_file(fixture.dir, name, twice, sizeof twice - 1, &fixture.err);
    fixture_refused(ERR_INPUT, fixture_path(name), "tensor model.embed.weight is listed twice");
    unlink(fixture_path(name));
    assert_int_equal(mkdir(fixture_path(name), 0700), 0);
    fixture_refused(ERR_INPUT, fixture_path(name), "not a regular file");
}

/* ---- one tensor in two places ---- */

static void a_tensor_in_two_shards_needs_an_index(void **state) {
    (void)state;
    const struct manifest_entry extra = fixture_entry("embed.weight", DTYPE_BF16, 64, 128);
    const struct make_options options = {
        .n_shards = 3, .without_index = true, .extra = &extra, .n_extra = 1
    };
    fixture_make(&options); // the extra one, zeros, is in the last shard
    fixture_refused(ERR_INPUT, "model-00003-of-00003.safetensors: tensor embed.weight is in ",
                    "model-00001-of-00003.safetensors too");
}

static void the_index_decides_which_shard_holds_a_tensor(void **state) {
    (void)state;
    // A wrong copy in the first shard, in another spelling, and one in the last.
    const struct manifest_entry extra = fixture_entry("embed.weight", DTYPE_BF16, 64, 128);
    for (int right = 1; right <= 3; right += 2) {
        const struct make_options options = { .n_shards = 3, .extra = &extra, .n_extra = 1 };
        fixture_make(&options);
        json_t *index = json_load_file(fixture_path("model.safetensors.index.json"), 0, NULL);
        char shard[64];
        snprintf(shard, sizeof shard, "model-%05d-of-00003.safetensors", right);
        json_object_set_new(json_object_get(index, "weight_map"), "embed.weight",
                            json_string(shard));
        json_dump_file(index, fixture_path("model.safetensors.index.json"), 0);
        json_decref(index);
        fixture_open();
        assert_string_equal(fixture.cp.files[fixture.cp.global[TENSOR_EMBED].file].path,
                            fixture_path(shard));
        assert_int_equal(fixture.cp.n_ignored, 1);
        assert_int_equal(fixture.cp.ignored_bytes, 64 * 128 * 2);
        checkpoint_close(&fixture.cp);
    }
}

static void a_tensor_under_two_spellings_is_a_duplicate(void **state) {
    (void)state;
    const struct manifest_entry extra =
        fixture_entry("model.embed_tokens.weight", DTYPE_BF16, 64, 128);
    const struct make_options options = { .extra = &extra, .n_extra = 1 };
    fixture_make(&options);
    fixture_refused(ERR_INPUT, fixture_path("model.safetensors"),
                    "tensor model.embed_tokens.weight is there twice, in two spellings");
}

/* ---- tensors and config that do not go together ---- */

static void tensors_that_contradict_the_config_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum dtype dtype;
        uint64_t rows, cols;
        const char *key;
    } cases[] = {
        { "layers.2.attn.compressor.ape", DTYPE_F32, 4, 256, "compress_ratios" },
        { "layers.0.attn.indexer.wq_b.weight", DTYPE_F8_E4M3, 128, 128, "compress_ratios" },
        { "mtp.0.attn.compressor.ape", DTYPE_F32, 4, 256, "compress_ratios" },
        { "layers.1.ffn.gate.tid2eid", DTYPE_I64, 64, 2, "num_hash_layers" },
        { "layers.1.ffn.experts.5.w1.weight", DTYPE_I8, 128, 64, "n_routed_experts" },
        { "mtp.0.ffn.experts.5.w1.weight", DTYPE_I8, 128, 64, "n_routed_experts" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct manifest_entry extra =
            fixture_entry(cases[i].name, cases[i].dtype, cases[i].rows, cases[i].cols);
        const struct make_options options = { .sparse = true, .extra = &extra, .n_extra = 1 };
        fixture_make(&options);
        fixture_refused(ERR_INPUT, fixture_path("model.safetensors"), cases[i].name, cases[i].key);
    }
}

static void a_hash_layer_may_carry_a_bias(void **state) {
    (void)state;
    struct manifest_entry extra = fixture_entry("layers.0.ffn.gate.bias", DTYPE_F32, 5, 1);
    extra.n_dims = 1;
    const struct make_options options = { .extra = &extra, .n_extra = 1 };
    fixture_make(&options);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.n_ignored, 1);
    checkpoint_close(&fixture.cp);
}

static void tensors_of_no_known_purpose_are_noted(void **state) {
    (void)state;
    const struct manifest_entry extra[] = {
        fixture_entry("model.rotary_emb.inv_freq", DTYPE_F32, 1, 32),
        fixture_entry("layers.0.attn.wq_a.bias", DTYPE_BF16, 1, 128),
        fixture_entry("mtp.9.attn_norm.weight", DTYPE_BF16, 1, 128),
    };
    struct make_options options = { .extra = extra, .n_extra = 3 };
    fixture_make(&options);
    fixture_open_and_compare();
    assert_int_equal(fixture.cp.n_ignored, 3);
    assert_int_equal(fixture.cp.ignored_bytes, 128 + 256 + 256);
    assert_string_equal(fixture.cp.note, "3 tensors of no known purpose left alone, first "
                                         "model.rotary_emb.inv_freq");
    checkpoint_close(&fixture.cp);
}

static void layers_beyond_the_config_are_noted(void **state) {
    (void)state;
    const struct make_options options = { .n_shards = 3 };
    fixture_make(&options);
    struct config cut = fixture.small; // someone keeps two layers and all the shards
    assert_int_equal(config_cut(&cut, 0, 2, DRAFT_MTP, NULL), OK);
    char *text = config_text(&cut);
    fixture_make_file("config.json", text);
    free(text);
    fixture_open();
    fixture_compare();
    assert_int_equal(checkpoint_n_blocks(&fixture.cp), 3);
    assert_non_null(
        strstr(fixture.cp.note, "tensors of no known purpose left alone, first layers.2."));
    checkpoint_close(&fixture.cp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(wrong_types_and_shapes_are_named),
        FIXTURE_TEST(fp4_scales_as_f32_are_refused),
        FIXTURE_TEST(malformed_headers_are_refused_by_file),
        FIXTURE_TEST(malformed_indexes_are_refused),
        FIXTURE_TEST(a_tensor_in_two_shards_needs_an_index),
        FIXTURE_TEST(the_index_decides_which_shard_holds_a_tensor),
        FIXTURE_TEST(a_tensor_under_two_spellings_is_a_duplicate),
        FIXTURE_TEST(tensors_that_contradict_the_config_are_refused),
        FIXTURE_TEST(a_hash_layer_may_carry_a_bias),
        FIXTURE_TEST(tensors_of_no_known_purpose_are_noted),
        FIXTURE_TEST(layers_beyond_the_config_are_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
