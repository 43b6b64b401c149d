/* src/checkpoint/tensor_name.h - a tensor's name in a file, in whatever spelling, to what it is.
 *
 * Published:       layers.3.ffn.experts.17.w1.scale
 * Other copies:    model.layers.3.mlp.experts.17.gate_proj.weight_scale_inv
 * Both are TENSOR_W1_SCALE of layer 3, expert 17: names are taken apart segment by segment, so
 * every mixture of spellings works, and no table of strings is needed for 150,000 tensors.
 * Pure functions; any thread may call them. */
#ifndef SLUICE_SRC_CHECKPOINT_TENSOR_NAME_H
#define SLUICE_SRC_CHECKPOINT_TENSOR_NAME_H

#include "src/checkpoint/manifest.h"

#ifdef __cplusplus
extern "C" {
#endif

enum name_kind {
    NAME_TENSOR,     /* id, block, expert say which */
    NAME_DRAFT_COPY, /* mtp.*.emb*, mtp.*.head.weight: repeat embed and head */
    NAME_DSPARK,     /* of a DSpark stage alone: main_proj, main_norm, markov_head, … */
    NAME_UNKNOWN     /* none of a DeepSeek-V4 checkpoint */
};

enum name_block { BLOCK_NONE, BLOCK_LAYER, BLOCK_DRAFT };

struct tensor_name {
    enum name_kind kind;
    enum tensor_id id;     /* of NAME_TENSOR */
    enum name_block where; /* BLOCK_NONE: a global tensor */
    uint32_t block;        /* i of layers.i or mtp.i */
    uint32_t expert;       /* of the routed experts; 0 otherwise */
};

/* Never fails: what it does not know is NAME_UNKNOWN (numbers above 10^6 too). That the block
 * and the expert exist in a config is for the caller to check. */
struct tensor_name tensor_name_parse(const char *name);

#ifdef __cplusplus
}
#endif
#endif
