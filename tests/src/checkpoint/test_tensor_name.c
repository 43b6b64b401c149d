#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/tensor_name.h"

// That every canonical name is parsed, in every spelling, is in test_manifest.c.

static void spellings_may_be_mixed_within_a_name(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum tensor_id id;
        uint32_t block, expert;
    } cases[] = {
        { "layers.7.mlp.experts.31.w2.weight_scale_inv", TENSOR_W2_SCALE, 7, 31 },
        { "model.layers.7.ffn.experts.31.down_proj.weight", TENSOR_W2, 7, 31 },
        { "layers.0.self_attn.wq_a.weight_scale", TENSOR_WQ_A_SCALE, 0, 0 },
        { "model.layers.60.mlp.shared_experts.up_proj.scale", TENSOR_SHARED_W3_SCALE, 60, 0 },
        { "layers.3.ffn.gate.e_score_correction_bias", TENSOR_GATE_BIAS, 3, 0 },
        { "model.layers.3.post_attention_layernorm.weight", TENSOR_FFN_NORM, 3, 0 },
        { "model.mtp.0.self_attn.attn_sink", TENSOR_ATTN_SINK, 0, 0 },
        { "mtp.2.norm.weight", TENSOR_MTP_NORM, 2, 0 },
        { "model.norm.weight", TENSOR_NORM, 0, 0 },
        { "lm_head.weight", TENSOR_HEAD, 0, 0 },
        { "model.hc_head_fn", TENSOR_HC_HEAD_FN, 0, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct tensor_name name = tensor_name_parse(cases[i].name);
        if (name.kind != NAME_TENSOR || name.id != cases[i].id || name.block != cases[i].block ||
            name.expert != cases[i].expert)
            fail_msg("%s", cases[i].name);
    }
}

static void what_draft_modules_have_of_their_own_is_told_apart(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum name_kind kind;
    } cases[] = {
        { "mtp.0.emb.tok_emb.weight", NAME_DRAFT_COPY },
        { "mtp.0.embed_tokens.weight", NAME_DRAFT_COPY },
        { "mtp.0.head.weight", NAME_DRAFT_COPY },
        { "mtp.0.main_proj.weight", NAME_DSPARK },
        { "mtp.0.main_proj.scale", NAME_DSPARK },
        { "mtp.0.main_norm.weight", NAME_DSPARK },
        { "mtp.2.markov_head.markov_w1.weight", NAME_DSPARK },
        { "mtp.2.confidence_head.proj.weight", NAME_DSPARK },
        { "mtp.0.main_project.weight", NAME_UNKNOWN },
        { "layers.0.main_proj.weight", NAME_UNKNOWN },
        { "layers.0.head.weight", NAME_UNKNOWN },
        { "layers.0.e_proj.weight", NAME_UNKNOWN },
        { "layers.0.norm.weight", NAME_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (tensor_name_parse(cases[i].name).kind != cases[i].kind)
            fail_msg("%s", cases[i].name);
}

static void strange_names_are_unknown(void **state) {
    (void)state;
    static const char *const names[] = {
        "",
        ".",
        "..",
        "model.",
        "layers",
        "layers.",
        "layers..attn_norm.weight",
        "layers.x.attn_norm.weight",
        "layers.01.attn_norm.weight",
        "layers.-1.attn_norm.weight",
        "layers.+1.attn_norm.weight",
        "layers.1",
        "layers.1.",
        "layers.4294967297.attn_norm.weight",
        "layers.1.attn_norm.weight.",
        "layers.1.attn_norm.weight\n",
        "layers.1.attn_norm",
        "layers.1.ffn.experts.weight",
        "layers.1.ffn.experts.0",
        "layers.1.ffn.experts.0.",
        "layers.1.ffn.experts.00.w1.weight",
        "layers.1.ffn.experts.0.w4.weight",
        "layers.1.ffn.experts.0.w1.bias",
        "layers.1.attn.wq_a.bias",
        "model.model.norm.weight",
        "attn.wq_a.weight",
        "rotary_emb.inv_freq",
        "Embed.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (tensor_name_parse(names[i]).kind != NAME_UNKNOWN)
            fail_msg("\"%s\"", names[i]);
    char *text = malloc(100001);
    memset(text, 'a', 100000);
    text[100000] = 0;
    memcpy(text, "layers.1.", 9);
    assert_int_equal(tensor_name_parse(text).kind, NAME_UNKNOWN);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings_may_be_mixed_within_a_name),
        cmocka_unit_test(what_draft_modules_have_of_their_own_is_told_apart),
        cmocka_unit_test(strange_names_are_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
