#include "src/checkpoint/config_make.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- presets -------------------------------------------------------------------------------- */

// What Pro and Flash have in common, and the demo with them.
#define COMMON                                                                                     \
    .rope_dim = 64, .window = 128, .n_hash_layers = 3, .swiglu_limit = 10, .n_streams = 4,         \
    .sinkhorn_iters = 20, .hc_eps = 1e-6f, .norm_eps = 1e-6f, .rope_theta = 10000,                 \
    .compress_rope_theta = 160000, .yarn_factor = 16, .yarn_original_positions = 65536,            \
    .yarn_beta_fast = 32, .yarn_beta_slow = 1, .max_positions = 1048576, .bos_token = 0,           \
    .eos_token = 1, .n_drafts = 1, .draft = DRAFT_MTP, .expert_format = EXPERT_FP4

static const struct config pro = {
    COMMON,           .d = 7168,          .n_layers = 61,
    .n_heads = 128,   .head_dim = 512,    .q_rank = 1536,
    .o_groups = 16,   .o_rank = 1024,     .index_heads = 64,
    .index_dim = 128, .index_topk = 1024, .n_experts = 384,
    .n_chosen = 6,    .expert_dim = 3072, .route_scale = 2.5f,
    .vocab = 129280,
};

static const struct config flash = {
    COMMON,           .d = 4096,          .n_layers = 43,
    .n_heads = 64,    .head_dim = 512,    .q_rank = 1024,
    .o_groups = 8,    .o_rank = 1024,     .index_heads = 64,
    .index_dim = 128, .index_topk = 512,  .n_experts = 256,
    .n_chosen = 6,    .expert_dim = 2048, .route_scale = 1.5f,
    .vocab = 129280,
};

// 9 × 32 experts of 208,896 bytes are 60 MB, the dense weights 33 MB. index_topk is low enough
// that a text of 300 tokens makes the indexer choose.
static const struct config demo = {
    COMMON,           .d = 512,          .n_layers = 8,       .n_heads = 8,
    .head_dim = 128,  .q_rank = 256,     .o_groups = 2,       .o_rank = 256,
    .index_heads = 8, .index_dim = 64,   .index_topk = 64,    .n_experts = 32,
    .n_chosen = 4,    .expert_dim = 256, .route_scale = 2.5f, .vocab = 4096,
};

/* The published lists: HCA and CSA take turns; the first two layers are HCA in Pro and windows in
 * Flash; the draft block is a window. */
static void alternate_ratios(struct config *c, uint32_t first_two) {
    for (uint32_t layer = 0; layer < c->n_layers; layer++)
        c->ratio[layer] = layer < 2 ? first_two : layer % 2 == 0 ? 4 : 128;
}

enum status config_preset(struct config *out, const char *name, struct err *err) {
    // Layers 0 to 2 are hash layers of all three kinds, the rest are routed by score.
    static const uint32_t demo_ratios[] = { 128, 0, 4, 128, 4, 0, 4, 128 };
    memset(out, 0, sizeof *out);
    if (strcmp(name, "pro") == 0) {
        *out = pro;
        alternate_ratios(out, 128);
    } else if (strcmp(name, "flash") == 0) {
        *out = flash;
        alternate_ratios(out, 0);
    } else if (strcmp(name, "demo") == 0) {
        *out = demo;
        memcpy(out->ratio, demo_ratios, sizeof demo_ratios);
    } else {
        return err_set(err, ERR_USAGE, "preset %s: there are demo, flash and pro", name);
    }
    snprintf(out->name, sizeof out->name, "DeepSeek-V4 (%u layers, %u experts)", out->n_layers,
             out->n_experts);
    return OK;
}

enum status config_cut(struct config *c, uint32_t first, uint32_t n, enum draft_kind draft,
                       struct err *err) {
    if (n == 0 || first >= c->n_layers || n > c->n_layers - first)
        return err_set(err, ERR_USAGE,
                       "%" PRIu32 " layers from layer %" PRIu32
                       " on: the model has layers 0 to %" PRIu32
                       ", choose --first and --layers within them",
                       n, first, c->n_layers - 1);
    const uint32_t n_drafts = draft == DRAFT_MTP ? c->n_drafts : 0;
    uint32_t ratio[CONFIG_MAX_LAYERS] = { 0 };
    memcpy(ratio, c->ratio + first, n * sizeof *ratio);
    memcpy(ratio + n, c->ratio + c->n_layers, n_drafts * sizeof *ratio);
    memcpy(c->ratio, ratio, sizeof ratio);
    const uint32_t n_hash = c->n_hash_layers > first ? c->n_hash_layers - first : 0;
    c->n_hash_layers = n_hash < n ? n_hash : n;
    c->n_layers = n;
    c->n_drafts = n_drafts;
    c->draft = draft;
    snprintf(c->name, sizeof c->name, "DeepSeek-V4 (%u layers, %u experts)", n, c->n_experts);
    return OK;
}

/* --- texts ---------------------------------------------------------------------------------- */

/* The shortest decimal that reads back as the same float, with a point or an exponent: "10.0",
 * "1e-06", as the published file spells them. */
struct decimal {
    char text[32];
};
static struct decimal decimal(float value) {
    struct decimal d;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(d.text, sizeof d.text, "%.*g", digits, (double)value);
        // "%.1g" of ten is 1e+01: go on to 10.
        const bool exponent_is_due = value < 1e-4f || value >= 1e9f;
        if (strtof(d.text, NULL) == value && (exponent_is_due || !strchr(d.text, 'e')))
            break;
    }
    if (!strpbrk(d.text, ".e"))
        strcat(d.text, ".0");
    return d;
}

static char *format(const char *text, ...) __attribute__((format(printf, 1, 2)));
static char *format(const char *text, ...) {
    va_list args;
    va_start(args, text);
    char *out;
    if (vasprintf(&out, text, args) < 0)
        out = NULL;
    va_end(args);
    return out;
}

static void ratios_text(const struct config *c, char *out, size_t out_bytes) {
    size_t at = 0;
    const uint32_t n = c->n_layers + c->n_drafts;
    for (uint32_t i = 0; i < n && at < out_bytes; i++)
        at += (size_t)snprintf(out + at, out_bytes - at, "%s%" PRIu32, i ? ", " : "", c->ratio[i]);
}

char *config_text(const struct config *c) {
    char ratios[CONFIG_MAX_LAYERS * 6] = "";
    ratios_text(c, ratios, sizeof ratios);
    return format("{\n"
                  "  \"architectures\": [\n"
                  "    \"DeepseekV4ForCausalLM\"\n"
                  "  ],\n"
                  "  \"attention_bias\": false,\n"
                  "  \"attention_dropout\": 0.0,\n"
                  "  \"bos_token_id\": %" PRId32 ",\n"
                  "  \"eos_token_id\": %" PRId32 ",\n"
                  "  \"expert_dtype\": \"%s\",\n"
                  "  \"hc_eps\": %s,\n"
                  "  \"hc_mult\": %" PRIu32 ",\n"
                  "  \"hc_sinkhorn_iters\": %" PRIu32 ",\n"
                  "  \"head_dim\": %" PRIu32 ",\n"
                  "  \"hidden_act\": \"silu\",\n"
                  "  \"hidden_size\": %" PRIu32 ",\n"
                  "  \"index_head_dim\": %" PRIu32 ",\n"
                  "  \"index_n_heads\": %" PRIu32 ",\n"
                  "  \"index_topk\": %" PRIu32 ",\n"
                  "  \"initializer_range\": 0.02,\n"
                  "  \"max_position_embeddings\": %" PRIu32 ",\n"
                  "  \"model_type\": \"deepseek_v4\",\n"
                  "  \"moe_intermediate_size\": %" PRIu32 ",\n"
                  "  \"n_routed_experts\": %" PRIu32 ",\n"
                  "  \"n_shared_experts\": 1,\n"
                  "  \"norm_topk_prob\": true,\n"
                  "  \"num_attention_heads\": %" PRIu32 ",\n"
                  "  \"num_experts_per_tok\": %" PRIu32 ",\n"
                  "  \"num_hidden_layers\": %" PRIu32 ",\n"
                  "  \"num_hash_layers\": %" PRIu32 ",\n"
                  "  \"num_key_value_heads\": 1,\n"
                  "  \"num_nextn_predict_layers\": %" PRIu32 ",\n"
                  "  \"o_groups\": %" PRIu32 ",\n"
                  "  \"o_lora_rank\": %" PRIu32 ",\n"
                  "  \"q_lora_rank\": %" PRIu32 ",\n"
                  "  \"qk_rope_head_dim\": %" PRIu32 ",\n"
                  "  \"quantization_config\": {\n"
                  "    \"activation_scheme\": \"dynamic\",\n"
                  "    \"fmt\": \"e4m3\",\n"
                  "    \"quant_method\": \"fp8\",\n"
                  "    \"scale_fmt\": \"ue8m0\",\n"
                  "    \"weight_block_size\": [\n"
                  "      128,\n"
                  "      128\n"
                  "    ]\n"
                  "  },\n"
                  "  \"rms_norm_eps\": %s,\n"
                  "  \"rope_scaling\": {\n"
                  "    \"beta_fast\": %.17g,\n"
                  "    \"beta_slow\": %.17g,\n"
                  "    \"factor\": %.17g,\n"
                  "    \"original_max_position_embeddings\": %.17g,\n"
                  "    \"type\": \"yarn\"\n"
                  "  },\n"
                  "  \"rope_theta\": %.17g,\n"
                  "  \"routed_scaling_factor\": %s,\n"
                  "  \"scoring_func\": \"sqrtsoftplus\",\n"
                  "  \"sliding_window\": %" PRIu32 ",\n"
                  "  \"swiglu_limit\": %s,\n"
                  "  \"tie_word_embeddings\": false,\n"
                  "  \"topk_method\": \"noaux_tc\",\n"
                  "  \"torch_dtype\": \"bfloat16\",\n"
                  "  \"transformers_version\": \"4.57.1\",\n"
                  "  \"use_cache\": true,\n"
                  "  \"vocab_size\": %" PRIu32 ",\n"
                  "  \"compress_rope_theta\": %.17g,\n"
                  "  \"compress_ratios\": [%s]\n"
                  "}\n",
                  c->bos_token, c->eos_token, c->expert_format == EXPERT_FP4 ? "fp4" : "fp8",
                  decimal(c->hc_eps).text, c->n_streams, c->sinkhorn_iters, c->head_dim, c->d,
                  c->index_dim, c->index_heads, c->index_topk, c->max_positions, c->expert_dim,
                  c->n_experts, c->n_heads, c->n_chosen, c->n_layers, c->n_hash_layers, c->n_drafts,
                  c->o_groups, c->o_rank, c->q_rank, c->rope_dim, decimal(c->norm_eps).text,
                  c->yarn_beta_fast, c->yarn_beta_slow, c->yarn_factor, c->yarn_original_positions,
                  c->rope_theta, decimal(c->route_scale).text, c->window,
                  decimal(c->swiglu_limit).text, c->vocab, c->compress_rope_theta, ratios);
}

char *config_generation_text(const struct config *c) {
    return format("{\n"
                  "  \"_from_model_config\": true,\n"
                  "  \"bos_token_id\": %" PRId32 ",\n"
                  "  \"eos_token_id\": %" PRId32 ",\n"
                  "  \"do_sample\": true,\n"
                  "  \"temperature\": 1.0,\n"
                  "  \"top_p\": 1.0,\n"
                  "  \"transformers_version\": \"4.46.3\"\n"
                  "}\n",
                  c->bos_token, c->eos_token);
}

#define ADDED_TOKEN(key, content)                                                                  \
    "  \"" key "\": {\n"                                                                           \
    "    \"__type\": \"AddedToken\",\n"                                                            \
    "    \"content\": \"" content "\",\n"                                                          \
    "    \"lstrip\": false,\n"                                                                     \
    "    \"normalized\": true,\n"                                                                  \
    "    \"rstrip\": false,\n"                                                                     \
    "    \"single_word\": false\n"                                                                 \
    "  },\n"

char *config_tokenizer_text(const struct config *c) {
    return format("{\n"
                  "  \"add_bos_token\": false,\n"
                  "  \"add_eos_token\": false,\n"                     //
                  ADDED_TOKEN("bos_token", "<｜begin▁of▁sentence｜>") //
                  "  \"clean_up_tokenization_spaces\": false,\n"      //
                  ADDED_TOKEN("eos_token", "<｜end▁of▁sentence｜>")   //
                  "  \"legacy\": true,\n"
                  "  \"model_max_length\": %" PRIu32 ",\n"          //
                  ADDED_TOKEN("pad_token", "<｜end▁of▁sentence｜>") //
                  "  \"sp_model_kwargs\": {},\n"
                  "  \"unk_token\": null,\n"
                  "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n"
                  "}",
                  c->max_positions);
}
