#include "src/checkpoint/config_make.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

static struct config preset(const char *name) {
    struct config c;
    struct err err = { .status = OK };
    assert_int_equal(config_preset(&c, name, &err), OK);
    return c;
}

static struct config parse(const char *text) {
    struct config c;
    struct err err = { .status = OK };
    if (config_parse(&c, text, strlen(text), "config.json", &err) != OK)
        fail_msg("%s", err.text);
    return c;
}

/* The keys of the published file, in its order. */
static const char *const published_keys[] = {
    "architectures",
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "expert_dtype",
    "hc_eps",
    "hc_mult",
    "hc_sinkhorn_iters",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "index_head_dim",
    "index_n_heads",
    "index_topk",
    "initializer_range",
    "max_position_embeddings",
    "model_type",
    "moe_intermediate_size",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_hash_layers",
    "num_key_value_heads",
    "num_nextn_predict_layers",
    "o_groups",
    "o_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "quantization_config",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "scoring_func",
    "sliding_window",
    "swiglu_limit",
    "tie_word_embeddings",
    "topk_method",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "vocab_size",
    "compress_rope_theta",
    "compress_ratios",
};

static void config_text_has_the_published_keys_in_their_order(void **state) {
    (void)state;
    const struct config c = preset("pro");
    char *text = config_text(&c);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    size_t i = 0;
    for (void *it = json_object_iter(root); it; it = json_object_iter_next(root, it), i++) {
        assert_true(i < sizeof published_keys / sizeof *published_keys);
        assert_string_equal(json_object_iter_key(it), published_keys[i]);
    }
    assert_int_equal(i, sizeof published_keys / sizeof *published_keys);
    assert_non_null(strstr(text, "\"hc_eps\": 1e-06,"));
    assert_non_null(strstr(text, "\"swiglu_limit\": 10.0,"));
    assert_non_null(strstr(text, "\"rope_theta\": 10000,"));
    json_decref(root);
    free(text);
}

static void every_preset_survives_the_way_through_its_text(void **state) {
    (void)state;
    static const char *const names[] = { "demo", "flash", "pro" };
    for (size_t i = 0; i < 3; i++) {
        for (int cut = 0; cut < 2; cut++) {
            struct config before = preset(names[i]);
            if (cut)
                assert_int_equal(config_cut(&before, 2, 3, DRAFT_NONE, NULL), OK);
            char *text = config_text(&before);
            const struct config after = parse(text);
            char *again = config_text(&after);
            assert_string_equal(text, again);
            assert_string_equal(before.name, after.name);
            assert_int_equal(before.draft, after.draft);
            assert_int_equal(before.n_drafts, after.n_drafts);
            assert_memory_equal(before.ratio, after.ratio, sizeof before.ratio);
            free(again);
            free(text);
        }
    }
}

static void pro_and_flash_have_the_published_geometry(void **state) {
    (void)state;
    const struct config p = preset("pro"), f = preset("flash");
    const uint32_t pairs[][4] = {
        { p.d, 7168, f.d, 4096 },
        { p.n_layers, 61, f.n_layers, 43 },
        { p.n_heads, 128, f.n_heads, 64 },
        { p.head_dim, 512, f.head_dim, 512 },
        { p.rope_dim, 64, f.rope_dim, 64 },
        { p.q_rank, 1536, f.q_rank, 1024 },
        { p.o_groups, 16, f.o_groups, 8 },
        { p.o_rank, 1024, f.o_rank, 1024 },
        { p.window, 128, f.window, 128 },
        { p.index_heads, 64, f.index_heads, 64 },
        { p.index_dim, 128, f.index_dim, 128 },
        { p.index_topk, 1024, f.index_topk, 512 },
        { p.n_experts, 384, f.n_experts, 256 },
        { p.n_chosen, 6, f.n_chosen, 6 },
        { p.expert_dim, 3072, f.expert_dim, 2048 },
        { p.n_hash_layers, 3, f.n_hash_layers, 3 },
        { p.vocab, 129280, f.vocab, 129280 },
        { p.ratio[0], 128, f.ratio[0], 0 },
        { p.ratio[1], 128, f.ratio[1], 0 },
        { p.ratio[2], 4, f.ratio[2], 4 },
        { p.ratio[3], 128, f.ratio[3], 128 },
        { p.ratio[p.n_layers - 1], 4, f.ratio[f.n_layers - 1], 4 },
        { p.ratio[p.n_layers], 0, f.ratio[f.n_layers], 0 },
        { p.n_drafts, 1, f.n_drafts, 1 },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_int_equal(pairs[i][0], pairs[i][1]);
        assert_int_equal(pairs[i][2], pairs[i][3]);
    }
    assert_true(p.route_scale == 2.5f && f.route_scale == 1.5f);
}

/* Pro's layers from 3 on: one HCA and one CSA layer, both routed by score. */
static void cut_keeps_each_layers_kind(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t first, n;
        uint32_t ratio[4], n_hash;
    } cases[] = {
        { "pro", 3, 2, { 128, 4 }, 0 },
        { "pro", 0, 3, { 128, 128, 4 }, 3 },
        { "pro", 1, 4, { 128, 4, 128, 4 }, 2 },
        { "pro", 2, 1, { 4 }, 1 },
        { "pro", 60, 1, { 4 }, 0 },
        { "flash", 0, 2, { 0, 0 }, 2 },
        { "flash", 1, 3, { 0, 4, 128 }, 2 },
        { "flash", 3, 2, { 128, 4 }, 0 },
        { "flash", 40, 3, { 4, 128, 4 }, 0 },
        { "demo", 4, 3, { 4, 0, 4 }, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c = preset(cases[i].name);
        const uint32_t draft_ratio = c.ratio[c.n_layers];
        assert_int_equal(config_cut(&c, cases[i].first, cases[i].n, DRAFT_MTP, NULL), OK);
        assert_int_equal(c.n_layers, cases[i].n);
        assert_int_equal(c.n_hash_layers, cases[i].n_hash);
        assert_memory_equal(c.ratio, cases[i].ratio, cases[i].n * sizeof(uint32_t));
        assert_int_equal(c.ratio[c.n_layers], draft_ratio);
        assert_int_equal(c.n_drafts, 1);
        for (uint32_t layer = c.n_layers; layer < CONFIG_MAX_LAYERS; layer++)
            assert_int_equal(c.ratio[layer], 0); // nothing of what was cut off
    }
}

static void draft_block_can_be_left_out(void **state) {
    (void)state;
    struct config c = preset("demo");
    assert_int_equal(config_cut(&c, 0, c.n_layers, DRAFT_NONE, NULL), OK);
    char *text = config_text(&c);
    const struct config back = parse(text);
    assert_int_equal(back.draft, DRAFT_NONE);
    assert_int_equal(back.n_drafts, 0);
    free(text);
}

static void layers_that_the_model_lacks_are_refused(void **state) {
    (void)state;
    static const uint32_t cases[][2] = {
        { 61, 1 }, { 60, 2 }, { 0, 62 }, { 3, 0 }, { 3, UINT32_MAX }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c = preset("pro");
        struct err err = { .status = OK };
        assert_int_equal(config_cut(&c, cases[i][0], cases[i][1], DRAFT_NONE, &err), ERR_USAGE);
        assert_non_null(strstr(err.text, "0 to 60"));
    }
    struct config c;
    struct err err = { .status = OK };
    assert_int_equal(config_preset(&c, "mega", &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "mega"));
}

static void small_files_are_json(void **state) {
    (void)state;
    const struct config c = preset("demo");
    char *texts[] = { config_generation_text(&c), config_tokenizer_text(&c) };
    for (int i = 0; i < 2; i++) {
        json_t *root = json_loads(texts[i], JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(root);
        const json_t *bos = json_object_get(root, i ? "bos_token" : "bos_token_id");
        if (i == 0)
            assert_int_equal(json_integer_value(bos), 0);
        else
            assert_string_equal(json_string_value(json_object_get(bos, "content")),
                                "<｜begin▁of▁sentence｜>");
        json_decref(root);
        free(texts[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_text_has_the_published_keys_in_their_order),
        cmocka_unit_test(every_preset_survives_the_way_through_its_text),
        cmocka_unit_test(pro_and_flash_have_the_published_geometry),
        cmocka_unit_test(cut_keeps_each_layers_kind),
        cmocka_unit_test(draft_block_can_be_left_out),
        cmocka_unit_test(layers_that_the_model_lacks_are_refused),
        cmocka_unit_test(small_files_are_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
