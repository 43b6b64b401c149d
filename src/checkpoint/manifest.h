/* src/checkpoint/manifest.h - the tensors that a config implies: name, shape, type, kind.
 *
 * One list, three users: the checkpoint reader checks files against it, mkmodel writes files
 * from it, inspect adds sizes up by it. Names are the canonical ones (`layers.3.attn.wq_a.weight`);
 * the spellings that other copies use are told apart in tensor_name.c, nowhere else.
 *
 * A quantized matrix is two tensors, `.weight` and `.scale`. FP8: one scale for a block of
 * 128×128. FP4 (routed experts): two codes in a byte, the even column low; one scale for a row
 * and 32 columns. Nothing here allocates or keeps state; any thread may call. */
#ifndef SLUICE_SRC_CHECKPOINT_MANIFEST_H
#define SLUICE_SRC_CHECKPOINT_MANIFEST_H

#include "src/checkpoint/config.h"

#ifdef __cplusplus
extern "C" {
#endif

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E8M0, DTYPE_I8, DTYPE_I32, DTYPE_I64 };

/* Which tensor of its block; with (layer, expert) it names a tensor without a string. The order
 * is that of the published files within a layer. TENSOR_X and TENSOR_X_SCALE are neighbours. */
enum tensor_id {
    TENSOR_EMBED,
    TENSOR_HEAD,
    TENSOR_NORM,
    TENSOR_HC_HEAD_FN,
    TENSOR_HC_HEAD_BASE,
    TENSOR_HC_HEAD_SCALE,
    /* of a layer, or of a draft block */
    TENSOR_ATTN_NORM,
    TENSOR_FFN_NORM,
    TENSOR_HC_ATTN_FN,
    TENSOR_HC_ATTN_BASE,
    TENSOR_HC_ATTN_SCALE,
    TENSOR_HC_FFN_FN,
    TENSOR_HC_FFN_BASE,
    TENSOR_HC_FFN_SCALE,
    TENSOR_ATTN_SINK,
    TENSOR_WQ_A,
    TENSOR_WQ_A_SCALE,
    TENSOR_Q_NORM,
    TENSOR_WQ_B,
    TENSOR_WQ_B_SCALE,
    TENSOR_WKV,
    TENSOR_WKV_SCALE,
    TENSOR_KV_NORM,
    TENSOR_WO_A,
    TENSOR_WO_A_SCALE,
    TENSOR_WO_B,
    TENSOR_WO_B_SCALE,
    TENSOR_COMP_APE,
    TENSOR_COMP_WKV,
    TENSOR_COMP_WGATE,
    TENSOR_COMP_NORM, /* m > 0 */
    TENSOR_INDEX_WQ_B,
    TENSOR_INDEX_WQ_B_SCALE,
    TENSOR_INDEX_WEIGHTS, /* m = 4 */
    TENSOR_INDEX_COMP_APE,
    TENSOR_INDEX_COMP_WKV,
    TENSOR_INDEX_COMP_WGATE,
    TENSOR_INDEX_COMP_NORM,
    TENSOR_GATE,
    TENSOR_GATE_TABLE /* hash layers */,
    TENSOR_GATE_BIAS /* all others */,
    TENSOR_SHARED_W1,
    TENSOR_SHARED_W1_SCALE,
    TENSOR_SHARED_W2,
    TENSOR_SHARED_W2_SCALE,
    TENSOR_SHARED_W3,
    TENSOR_SHARED_W3_SCALE,
    /* of an MTP block alone */
    TENSOR_MTP_E_PROJ,
    TENSOR_MTP_E_PROJ_SCALE,
    TENSOR_MTP_H_PROJ,
    TENSOR_MTP_H_PROJ_SCALE,
    TENSOR_MTP_ENORM,
    TENSOR_MTP_HNORM,
    TENSOR_MTP_NORM,
    TENSOR_MTP_HC_HEAD_FN,
    TENSOR_MTP_HC_HEAD_BASE,
    TENSOR_MTP_HC_HEAD_SCALE,
    /* of one routed expert */
    TENSOR_W1,
    TENSOR_W1_SCALE,
    TENSOR_W2,
    TENSOR_W2_SCALE,
    TENSOR_W3,
    TENSOR_W3_SCALE,
    TENSOR_COUNT
};

#define MANIFEST_NAME_BYTES 96

struct manifest_entry {
    enum tensor_id id;
    uint32_t layer;   /* trunk layers, then draft blocks from n_layers on; 0 for global tensors */
    uint32_t expert;  /* of the routed experts; 0 otherwise */
    enum dtype dtype; /* as published for this config */
    uint32_t n_dims;
    uint64_t shape[2];
    uint64_t bytes;
    char name[MANIFEST_NAME_BYTES]; /* canonical */
};

/* Fill *out for one tensor; false if this config has no such tensor (a compressor in a layer with
 * m = 0, a bias in a hash layer, a DSpark block: those are listed by the reader, not described). */
bool manifest_entry(const struct config *c, enum tensor_id id, uint32_t layer, uint32_t expert,
                    struct manifest_entry *out);

/* All tensors of a config in published order: embed; each layer, its experts ascending between
 * gate and shared expert; norm, head, hc_head; then, if c->draft is DRAFT_MTP, n_drafts MTP blocks.
 * `visit` returns OK to go on; anything else ends the walk and is returned. */
typedef enum status manifest_visit(void *context, const struct manifest_entry *entry,
                                   struct err *err);
enum status manifest_walk(const struct config *c, manifest_visit *visit, void *context,
                          struct err *err);

/* The canonical name without what says where: `attn.wq_a.weight` of `layers.3.attn.wq_a.weight`,
 * `w1.scale` of an expert's, `norm.weight` of the global and of a draft block's alike. */
const char *manifest_suffix(enum tensor_id id);

/* `.scale` tensors of quantized matrices (hc_*_scale are none). */
bool manifest_is_scale(enum tensor_id id);

uint64_t dtype_bytes(enum dtype dtype);   /* of one element as stored: I8 holds two FP4 */
const char *dtype_name(enum dtype dtype); /* as safetensors spells it: "F8_E4M3", … */

#ifdef __cplusplus
}
#endif
#endif
