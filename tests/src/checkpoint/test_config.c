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

#include "src/checkpoint/config.h"
#include "src/checkpoint/config_make.h"
#include "tests/support/make_checkpoint.h"

/* A preset's config.json as a JSON object, to be damaged. */
static json_t *preset(const char *name) {
    struct config c;
    assert_int_equal(config_preset(&c, name, NULL), OK);
    char *text = config_text(&c);
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(root);
    return root;
}

static enum status parse(const json_t *root, struct config *c, struct err *err) {
    char *text = json_dumps(root, 0);
    *err = (struct err){ 0 };
    enum status status = config_parse(c, text, strlen(text), "dir/config.json", err);
    free(text);
    return status;
}

static void expect_accepted(json_t *root, struct config *c) {
    struct err err;
    if (parse(root, c, &err) != OK)
        fail_msg("%s", err.text);
    json_decref(root);
}

/* Refused as ERR_INPUT, and the message names the file and `what`. */
static void expect_refused(json_t *root, const char *what) {
    struct config c;
    struct err err;
    if (parse(root, &c, &err) != ERR_INPUT)
        fail_msg("%s was accepted (%s)", what, err.text);
    assert_non_null(strstr(err.text, "dir/config.json: "));
    if (!strstr(err.text, what))
        fail_msg("\"%s\" does not name %s", err.text, what);
    json_decref(root);
}

static void expect_text_refused(const char *text, size_t length, const char *what) {
    struct config c;
    struct err err = { 0 };
    assert_int_equal(config_parse(&c, text, length, "f", &err), ERR_INPUT);
    if (!strstr(err.text, what))
        fail_msg("\"%s\" does not say %s", err.text, what);
}

/* ---- what is published ---- */

static void pro_is_read(void **state) {
    (void)state;
    struct config c;
    expect_accepted(preset("pro"), &c);
    assert_int_equal(c.d, 7168);
    assert_int_equal(c.n_layers, 61);
    assert_int_equal(c.n_drafts, 1);
    assert_int_equal(c.n_heads, 128);
    assert_int_equal(c.head_dim, 512);
    assert_int_equal(c.rope_dim, 64);
    assert_int_equal(c.q_rank, 1536);
    assert_int_equal(c.o_groups, 16);
    assert_int_equal(c.o_rank, 1024);
    assert_int_equal(c.window, 128);
    assert_int_equal(c.index_heads, 64);
    assert_int_equal(c.index_dim, 128);
    assert_int_equal(c.index_topk, 1024);
    assert_int_equal(c.n_experts, 384);
    assert_int_equal(c.n_chosen, 6);
    assert_int_equal(c.expert_dim, 3072);
    assert_int_equal(c.n_hash_layers, 3);
    assert_int_equal(c.n_streams, 4);
    assert_int_equal(c.sinkhorn_iters, 20);
    assert_int_equal(c.vocab, 129280);
    assert_int_equal(c.max_positions, 1048576);
    assert_int_equal(c.bos_token, 0);
    assert_int_equal(c.eos_token, 1);
    assert_true(c.route_scale == 2.5f && c.swiglu_limit == 10.0f);
    assert_true(c.hc_eps == 1e-6f && c.norm_eps == 1e-6f);
    assert_true(c.rope_theta == 10000 && c.compress_rope_theta == 160000);
    assert_true(c.yarn_factor == 16 && c.yarn_original_positions == 65536);
    assert_true(c.yarn_beta_fast == 32 && c.yarn_beta_slow == 1);
    assert_int_equal(c.expert_format, EXPERT_FP4);
    assert_int_equal(c.draft, DRAFT_MTP);
    assert_int_equal(c.ratio[0], 128);
    assert_int_equal(c.ratio[1], 128);
    for (uint32_t layer = 2; layer < 61; layer++)
        assert_int_equal(c.ratio[layer], layer % 2 ? 128 : 4);
    assert_int_equal(c.ratio[61], 0);
    assert_string_equal(c.name, "DeepSeek-V4 (61 layers, 384 experts)");
}

static void flash_begins_with_two_window_layers(void **state) {
    (void)state;
    struct config c;
    expect_accepted(preset("flash"), &c);
    assert_int_equal(c.n_layers, 43);
    assert_int_equal(c.ratio[0], 0);
    assert_int_equal(c.ratio[1], 0);
    assert_int_equal(c.ratio[2], 4);
    assert_int_equal(c.ratio[3], 128);
    assert_true(config_is_csa(&c, 2) && !config_is_csa(&c, 3));
    assert_true(config_is_hash(&c, 2) && !config_is_hash(&c, 3));
}

static void base_has_fp8_experts(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_set_new(root, "expert_dtype", json_string("fp8"));
    expect_accepted(root, &c);
    assert_int_equal(c.expert_format, EXPERT_FP8);
    assert_string_equal(c.name, "DeepSeek-V4-Base (61 layers, 384 experts)");
}

static void experts_are_fp4_unless_said_otherwise(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_del(root, "expert_dtype");
    expect_accepted(root, &c);
    assert_int_equal(c.expert_format, EXPERT_FP4);
}

static void add_dspark(json_t *root) {
    json_array_append_new(json_object_get(root, "compress_ratios"), json_integer(0));
    json_array_append_new(json_object_get(root, "compress_ratios"), json_integer(0));
    json_object_set_new(root, "dspark_block_size", json_integer(5));
    json_object_set_new(root, "dspark_target_layer_ids", json_pack("[i,i,i]", 58, 59, 60));
}

static void august_releases_are_dspark_with_three_stages(void **state) {
    (void)state;
    const char *const presets[] = { "pro", "flash" };
    for (int i = 0; i < 2; i++) {
        struct config c;
        json_t *root = preset(presets[i]);
        add_dspark(root);
        // num_nextn_predict_layers still says 1: it is wrong as a count of stages.
        expect_accepted(root, &c);
        assert_int_equal(c.draft, DRAFT_DSPARK);
        assert_int_equal(c.n_drafts, 3);
    }
}

static void ratios_may_end_with_the_trunk(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_array_remove(json_object_get(root, "compress_ratios"), 61);
    expect_accepted(json_incref(root), &c);
    assert_int_equal(c.n_drafts, 1); // by num_nextn_predict_layers
    assert_int_equal(c.ratio[61], 0);
    json_object_set_new(root, "num_nextn_predict_layers", json_integer(0));
    expect_accepted(root, &c);
    assert_int_equal(c.n_drafts, 0);
    assert_int_equal(c.draft, DRAFT_NONE);
}

static void a_config_without_the_count_of_drafts_goes_by_ratios(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_del(root, "num_nextn_predict_layers");
    expect_accepted(root, &c);
    assert_int_equal(c.n_drafts, 1);
    assert_int_equal(c.draft, DRAFT_MTP);
}

/* ---- spellings ---- */

static void whole_numbers_may_be_floats(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_set_new(root, "hidden_size", json_real(7168.0));
    json_object_set_new(root, "compress_rope_theta", json_real(160000.0));
    json_array_set_new(json_object_get(root, "compress_ratios"), 2, json_real(4.0));
    expect_accepted(json_incref(root), &c);
    assert_int_equal(c.d, 7168);
    assert_int_equal(c.ratio[2], 4);
    json_object_set_new(root, "hidden_size", json_real(7168.5));
    expect_refused(json_incref(root), "\"hidden_size\" is not a whole number");
    json_object_set_new(root, "hidden_size", json_real(1e300));
    expect_refused(root, "\"hidden_size\" is not a whole number");
}

static void rope_scaling_may_say_rope_type(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_t *yarn = json_object_get(root, "rope_scaling");
    json_object_del(yarn, "type");
    json_object_set_new(yarn, "rope_type", json_string("yarn"));
    json_object_del(yarn, "beta_fast");
    json_object_del(yarn, "beta_slow");
    expect_accepted(root, &c);
    assert_true(c.yarn_beta_fast == 32 && c.yarn_beta_slow == 1);
}

static void tokens_may_be_null_absent_or_a_list(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_set_new(root, "bos_token_id", json_null());
    json_object_set_new(root, "eos_token_id", json_pack("[i,i]", 7, 8));
    expect_accepted(json_incref(root), &c);
    assert_int_equal(c.bos_token, -1);
    assert_int_equal(c.eos_token, 7);
    json_object_del(root, "eos_token_id");
    expect_accepted(json_incref(root), &c);
    assert_int_equal(c.eos_token, -1);
    json_object_set_new(root, "eos_token_id", json_integer(129280));
    expect_refused(json_incref(root), "eos_token_id");
    json_object_set_new(root, "eos_token_id", json_string("</s>"));
    expect_refused(root, "eos_token_id");
}

static void model_type_or_architectures_alone_will_do(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_del(root, "architectures");
    expect_accepted(root, &c);
    root = preset("pro");
    json_object_del(root, "model_type");
    expect_accepted(json_incref(root), &c);
    json_object_del(root, "architectures");
    expect_refused(root, "architectures");
}

/* ---- refusals ---- */

static void another_architecture_is_refused(void **state) {
    (void)state;
    json_t *root = preset("pro");
    json_object_set_new(root, "model_type", json_string("deepseek_v3"));
    expect_refused(root, "model_type");
    root = preset("pro");
    json_object_set_new(root, "architectures", json_pack("[s]", "DeepseekV3ForCausalLM"));
    expect_refused(root, "architectures");
}

static const char *const required[] = {
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
    "qk_rope_head_dim",
    "q_lora_rank",
    "o_groups",
    "o_lora_rank",
    "sliding_window",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "num_hash_layers",
    "hc_mult",
    "hc_sinkhorn_iters",
    "vocab_size",
    "max_position_embeddings",
    "routed_scaling_factor",
    "swiglu_limit",
    "hc_eps",
    "rms_norm_eps",
    "rope_theta",
    "compress_rope_theta",
    "rope_scaling",
    "compress_ratios",
};

static void each_required_key_is_missed_by_name(void **state) {
    (void)state;
    char what[80];
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        json_t *root = preset("flash");
        assert_int_equal(json_object_del(root, required[i]), 0);
        snprintf(what, sizeof what, "\"%s\" is missing", required[i]);
        expect_refused(root, what);
    }
}

static void a_value_of_another_type_is_refused_by_name(void **state) {
    (void)state;
    char what[80];
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        json_t *root = preset("flash");
        json_object_set_new(root, required[i], json_string("many"));
        snprintf(what, sizeof what, "\"%s\"", required[i]);
        expect_refused(root, what);
    }
}

static void numbers_out_of_range_are_refused_by_name(void **state) {
    (void)state;
    char what[80];
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (strcmp(required[i], "rope_scaling") == 0 || strcmp(required[i], "compress_ratios") == 0)
            continue;
        for (int high = 0; high < 2; high++) {
            json_t *root = preset("flash");
            json_object_set_new(root, required[i], json_integer(high ? 9000000000000000000 : -1));
            snprintf(what, sizeof what, "\"%s\" is ", required[i]);
            expect_refused(root, what);
        }
    }
}

static void sizes_that_do_not_divide_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int value;
        const char *what;
    } cases[] = {
        { "hidden_size", 4096 + 64, "hidden_size" },
        { "moe_intermediate_size", 2048 + 64, "moe_intermediate_size" },
        { "q_lora_rank", 1024 + 64, "q_lora_rank" },
        { "qk_rope_head_dim", 63, "qk_rope_head_dim" },
        { "head_dim", 512 + 32, "head_dim" },
        { "qk_rope_head_dim", 512, "head_dim" },
        { "o_groups", 7, "num_attention_heads" },
        { "o_lora_rank", 1023, "o_lora_rank" },
        { "index_head_dim", 96, "index_head_dim" },
        { "index_head_dim", 32, "index_head_dim" },
        { "n_routed_experts", 5, "num_experts_per_tok" },
        { "num_key_value_heads", 2, "num_key_value_heads" },
        { "n_shared_experts", 2, "n_shared_experts" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = preset("flash");
        json_object_set_new(root, cases[i].key, json_integer(cases[i].value));
        expect_refused(root, cases[i].what);
    }
    json_t *root = preset("flash");
    json_object_set_new(root, "head_dim", json_integer(128 + 64)); // 1 head a group: 192
    json_object_set_new(root, "o_groups", json_integer(64));
    expect_refused(root, "head_dim");
}

static void what_the_arithmetic_takes_for_granted_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *key, *json;
    } cases[] = {
        { "scoring_func", "\"sigmoid\"" },
        { "topk_method", "\"greedy\"" },
        { "hidden_act", "\"gelu\"" },
        { "hidden_act", "3" },
        { "norm_topk_prob", "false" },
        { "tie_word_embeddings", "true" },
        { "attention_bias", "true" },
        { "expert_dtype", "\"int4\"" },
        { "expert_dtype", "4" },
        { "quantization_config", "{\"quant_method\": \"awq\"}" },
        { "quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": [64, 64]}" },
        { "quantization_config", "{\"weight_block_size\": 128}" },
        { "quantization_config", "\"fp8\"" },
        { "rope_scaling", "{\"type\": \"linear\", \"factor\": 16}" },
        { "rope_scaling", "{\"factor\": 16}" },
        { "num_nextn_predict_layers", "9" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = preset("pro");
        json_object_set_new(root, cases[i].key, json_loads(cases[i].json, JSON_DECODE_ANY, NULL));
        expect_refused(root, cases[i].key);
    }
    struct config c;
    json_t *root = preset("pro");
    json_object_set_new(root, "quantization_config", json_null());
    expect_accepted(root, &c);
}

static void yarn_numbers_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *key;
        double value;
    } cases[] = {
        { "factor", 0 },       { "original_max_position_embeddings", 0 },
        { "beta_fast", -1 },   { "beta_slow", 0 },
        { "beta_slow", 33.0 },
    };
    char what[80];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = preset("pro");
        json_object_set_new(json_object_get(root, "rope_scaling"), cases[i].key,
                            json_real(cases[i].value));
        snprintf(what, sizeof what, "rope_scaling.%s", cases[i].key);
        expect_refused(root, what);
    }
}

static void ratios_must_be_known_and_fit_the_layers(void **state) {
    (void)state;
    json_t *root = preset("pro");
    json_array_set_new(json_object_get(root, "compress_ratios"), 5, json_integer(64));
    expect_refused(root, "\"compress_ratios\"[5]");

    root = preset("pro");
    json_array_set_new(json_object_get(root, "compress_ratios"), 5, json_string("4"));
    expect_refused(root, "\"compress_ratios\"[5]");

    root = preset("pro");
    json_object_set_new(root, "num_hidden_layers", json_integer(63));
    expect_refused(root, "\"compress_ratios\" has 62 entries for 63 layers");

    root = preset("pro"); // a trunk cut in one place only
    json_object_set_new(root, "num_hidden_layers", json_integer(2));
    expect_refused(root, "\"compress_ratios\" has 62 entries for 2 layers");
}

static void unknown_keys_are_ignored(void **state) {
    (void)state;
    struct config c;
    json_t *root = preset("pro");
    json_object_set_new(root, "brand_new", json_pack("{s:[n,b]}", "x", 1));
    expect_accepted(root, &c);
}

/* ---- what is not JSON ---- */

static void broken_json_is_refused(void **state) {
    (void)state;
    expect_text_refused("", 0, "not JSON");
    expect_text_refused("{", 1, "not JSON");
    expect_text_refused("[]", 2, "not a JSON object");
    expect_text_refused("{} {}", 5, "not JSON");
    expect_text_refused("{\"a\": 1e999}", 12, "not JSON");
    expect_text_refused("{\"a\": 99999999999999999999}", 27, "not JSON");
    expect_text_refused("{\"a\0b\": 1}", 10, "not JSON");
    expect_text_refused("{\"d\": 1, \"d\": 2}", 16, "duplicate");
    expect_text_refused("{\"\xff\": 1}", 8, "not JSON");
}

static void a_depth_bomb_is_refused(void **state) {
    (void)state;
    const size_t n = 4 << 20;
    char *text = malloc(n);
    memset(text, '[', n);
    expect_text_refused(text, n, "not JSON");
    memcpy(text, "{\"a\":", 5);
    expect_text_refused(text, n, "not JSON");
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    expect_text_refused(text, n, "not JSON");
    free(text);
}

/* ---- files ---- */

static void files_are_loaded_or_refused_by_name(void **state) {
    (void)state;
    char *dir = make_temp_dir(), path[4096];
    struct config c;
    struct err err = { 0 };

    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(config_load(&c, path, &err), ERR_MISSING);
    assert_non_null(strstr(err.text, path));

    json_t *root = preset("demo");
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    assert_int_equal(config_load(&c, path, NULL), OK);

    err = (struct err){ 0 };
    assert_int_equal(config_load(&c, dir, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, "not a regular file"));

    snprintf(path, sizeof path, "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    err = (struct err){ 0 };
    assert_int_equal(config_load(&c, path, &err), ERR_INPUT); // and does not wait for a writer

    snprintf(path, sizeof path, "%s/large", dir);
    FILE *file = fopen(path, "wb");
    assert_int_equal(fseek(file, CONFIG_MAX_BYTES, SEEK_SET), 0);
    fputc('x', file);
    fclose(file);
    err = (struct err){ 0 };
    assert_int_equal(config_load(&c, path, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, "16777217 bytes"));
    remove_temp_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pro_is_read),
        cmocka_unit_test(flash_begins_with_two_window_layers),
        cmocka_unit_test(base_has_fp8_experts),
        cmocka_unit_test(experts_are_fp4_unless_said_otherwise),
        cmocka_unit_test(august_releases_are_dspark_with_three_stages),
        cmocka_unit_test(ratios_may_end_with_the_trunk),
        cmocka_unit_test(a_config_without_the_count_of_drafts_goes_by_ratios),
        cmocka_unit_test(whole_numbers_may_be_floats),
        cmocka_unit_test(rope_scaling_may_say_rope_type),
        cmocka_unit_test(tokens_may_be_null_absent_or_a_list),
        cmocka_unit_test(model_type_or_architectures_alone_will_do),
        cmocka_unit_test(another_architecture_is_refused),
        cmocka_unit_test(each_required_key_is_missed_by_name),
        cmocka_unit_test(a_value_of_another_type_is_refused_by_name),
        cmocka_unit_test(numbers_out_of_range_are_refused_by_name),
        cmocka_unit_test(sizes_that_do_not_divide_are_refused),
        cmocka_unit_test(what_the_arithmetic_takes_for_granted_is_checked),
        cmocka_unit_test(yarn_numbers_are_checked),
        cmocka_unit_test(ratios_must_be_known_and_fit_the_layers),
        cmocka_unit_test(unknown_keys_are_ignored),
        cmocka_unit_test(broken_json_is_refused),
        cmocka_unit_test(a_depth_bomb_is_refused),
        cmocka_unit_test(files_are_loaded_or_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
