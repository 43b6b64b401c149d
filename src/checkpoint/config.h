/* src/checkpoint/config.h - config.json to geometry: every model variant is told apart here.
 *
 * DeepSeek-V4 is one architecture (Pro, Flash, their -Base forms, the August 2026 releases);
 * only numbers differ. What is read here is checked here, so the rest of the engine can rely
 * on every field being in range and on the divisibilities below. Symbols are those of the
 * published description: d, L, H, c, r, n, m, … */
#ifndef SLUICE_SRC_CHECKPOINT_CONFIG_H
#define SLUICE_SRC_CHECKPOINT_CONFIG_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_MAX_LAYERS  256  /* trunk and draft blocks together; Pro has 61 + 1 (or + 3) */
#define CONFIG_MAX_DRAFTS  8    /* draft blocks; published: 1 (MTP) or 3 (DSpark) */
#define CONFIG_MAX_ROPE    1024 /* qk_rope_head_dim; published: 64 */
#define CONFIG_MAX_STREAMS 8    /* hc_mult; published: 4 */
#define CONFIG_MAX_CHOSEN  32   /* num_experts_per_tok; published: 6 */
#define CONFIG_MAX_BYTES   (16u << 20) /* of a config.json; published: 2 KB */

enum draft_kind {
    DRAFT_NONE,
    DRAFT_MTP,   /* April 2026: one multi-token-prediction block, mtp.0.e_proj is present */
    DRAFT_DSPARK /* August 2026: three DSpark stages; recognized and listed, not run */
};

enum expert_format {
    EXPERT_FP4, /* E2M1 codes, one E8M0 scale for 32 columns */
    EXPERT_FP8  /* -Base: E4M3 codes, scales over 128×128 blocks (F32 or E8M0) */
};

struct config {
    uint32_t d;                        /* hidden_size */
    uint32_t n_layers;                 /* L, num_hidden_layers: the trunk alone */
    uint32_t n_drafts;                 /* draft blocks that follow the trunk in compress_ratios (or,
                                          where it has only L entries, num_nextn_predict_layers) */
    uint32_t n_heads;                  /* H */
    uint32_t head_dim;                 /* c */
    uint32_t rope_dim;                 /* r, qk_rope_head_dim: the last r of c */
    uint32_t q_rank;                   /* dq, q_lora_rank */
    uint32_t o_groups;                 /* g */
    uint32_t o_rank;                   /* dg, o_lora_rank */
    uint32_t window;                   /* W, sliding_window */
    uint32_t ratio[CONFIG_MAX_LAYERS]; /* m: 0 (window only), 4 (CSA) or 128 (HCA) */
    uint32_t index_heads;              /* Hi */
    uint32_t index_dim;                /* ci, a power of two and a multiple of 32 */
    uint32_t index_topk;               /* k */
    uint32_t n_experts;                /* E */
    uint32_t n_chosen;                 /* K, num_experts_per_tok */
    uint32_t expert_dim;               /* f, moe_intermediate_size */
    uint32_t n_hash_layers;
    float route_scale; /* λ, routed_scaling_factor */
    float swiglu_limit;
    uint32_t n_streams; /* n, hc_mult */
    uint32_t sinkhorn_iters;
    float hc_eps;
    float norm_eps;             /* ε, rms_norm_eps */
    double rope_theta;          /* layers with m = 0 */
    double compress_rope_theta; /* layers with m > 0, with YaRN: */
    double yarn_factor;
    double yarn_original_positions;
    double yarn_beta_fast, yarn_beta_slow;
    uint32_t vocab; /* V */
    uint32_t max_positions;
    int32_t bos_token, eos_token; /* -1: none given; of several ends the first */
    enum expert_format expert_format;
    enum draft_kind draft; /* as config.json tells it; the checkpoint's tensors decide */
    char name[64];         /* "DeepSeek-V4 (61 layers, 384 experts)": for people */
};

/* Parse the text of a config.json (`path` is for messages only). Refused with ERR_INPUT, the
 * key and the reason: another architecture, a key that is missing, of another type or out of
 * range, a scoring_func, topk_method, hidden_act or quantization that is not V4's, and sizes
 * that do not divide. After OK these hold:
 *   c − r a positive multiple of 64; r even; ci a power of two, at least 32 and at least r
 *   d, f, dq, H·c/g and g·dg multiples of 128; H a multiple of g; K at most E
 *   L between 1 and CONFIG_MAX_LAYERS − CONFIG_MAX_DRAFTS; n_drafts at most CONFIG_MAX_DRAFTS
 *   every size small enough that no tensor's bytes, nor the model's, come near 2^63
 * A whole number may be spelled as a float (160000.0). Unknown keys are ignored. */
enum status config_parse(struct config *out, const char *text, size_t length, const char *path,
                         struct err *err);

/* config_parse of a file: ERR_MISSING, ERR_IO, ERR_INPUT; files over 16 MiB are refused. */
enum status config_load(struct config *out, const char *path, struct err *err);

/* Kind of a layer's attention and routing; `layer` counts the trunk, then the draft blocks. */
static inline bool config_is_csa(const struct config *c, uint32_t layer) {
    return c->ratio[layer] == 4;
}
static inline bool config_is_hash(const struct config *c, uint32_t layer) {
    return layer < c->n_hash_layers;
}

#ifdef __cplusplus
}
#endif
#endif
