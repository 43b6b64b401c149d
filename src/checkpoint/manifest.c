#include "src/checkpoint/manifest.h"

#include <stdio.h>

/* The dimensions of the published description, by the names it gives them. */
enum dim {
    DIM_NONE, /* a vector has one dimension only */
    DIM_1,
    DIM_3,
    DIM_V,
    DIM_D,
    DIM_N,
    DIM_ND,     /* n·d: the flattened streams */
    DIM_MIX,    /* (2+n)·n: pre, post and the n×n mixing of hyper-connections */
    DIM_H,      /* heads */
    DIM_C,      /* c */
    DIM_HC,     /* H·c */
    DIM_HC_G,   /* H·c/g: the heads of one output group */
    DIM_DQ,     /* dq */
    DIM_GDG,    /* g·dg */
    DIM_M,      /* m, the layer's compression ratio */
    DIM_OC,     /* o·c; o = 2 where blocks overlap (m = 4) */
    DIM_HI,     /* Hi */
    DIM_CI,     /* ci */
    DIM_HI_CI,  /* Hi·ci */
    DIM_OCI,    /* o·ci */
    DIM_E,      /* E */
    DIM_CHOSEN, /* K */
    DIM_F       /* f */
};

/* Which blocks have the tensor. */
enum scope { GLOBAL, BLOCK, COMPRESSED, CSA, HASH, SCORED, DRAFT, EXPERT };

/* Plain tensors have the dtype of their row; the others follow from their matrix's format. */
enum form { PLAIN, FP8, FP8_SCALE, CODES, CODES_SCALE };

struct row {
    const char *suffix;
    enum scope scope;
    enum dim dim[2];
    enum form form;
    enum dtype dtype; /* of PLAIN */
};

#define BF16(id, suffix, scope, ...) [id] = { suffix, scope, { __VA_ARGS__ }, PLAIN, DTYPE_BF16 }
#define F32(id, suffix, scope, ...)  [id] = { suffix, scope, { __VA_ARGS__ }, PLAIN, DTYPE_F32 }
/* A quantized matrix: the scale's row repeats the matrix's dimensions. */
#define MATRIX(id, name, scope, form, rows, cols)                                                  \
    [id] = { name ".weight", scope, { rows, cols }, form, DTYPE_F32 },                             \
    [id##_SCALE] = { name ".scale", scope, { rows, cols }, form##_SCALE, DTYPE_F32 }

/* The table of the published description, section 2. */
static const struct row rows[TENSOR_COUNT] = {
    BF16(TENSOR_EMBED, "embed.weight", GLOBAL, DIM_V, DIM_D),
    BF16(TENSOR_HEAD, "head.weight", GLOBAL, DIM_V, DIM_D),
    BF16(TENSOR_NORM, "norm.weight", GLOBAL, DIM_D),
    F32(TENSOR_HC_HEAD_FN, "hc_head_fn", GLOBAL, DIM_N, DIM_ND),
    F32(TENSOR_HC_HEAD_BASE, "hc_head_base", GLOBAL, DIM_N),
    F32(TENSOR_HC_HEAD_SCALE, "hc_head_scale", GLOBAL, DIM_1),

    BF16(TENSOR_ATTN_NORM, "attn_norm.weight", BLOCK, DIM_D),
    BF16(TENSOR_FFN_NORM, "ffn_norm.weight", BLOCK, DIM_D),
    F32(TENSOR_HC_ATTN_FN, "hc_attn_fn", BLOCK, DIM_MIX, DIM_ND),
    F32(TENSOR_HC_ATTN_BASE, "hc_attn_base", BLOCK, DIM_MIX),
    F32(TENSOR_HC_ATTN_SCALE, "hc_attn_scale", BLOCK, DIM_3),
    F32(TENSOR_HC_FFN_FN, "hc_ffn_fn", BLOCK, DIM_MIX, DIM_ND),
    F32(TENSOR_HC_FFN_BASE, "hc_ffn_base", BLOCK, DIM_MIX),
    F32(TENSOR_HC_FFN_SCALE, "hc_ffn_scale", BLOCK, DIM_3),
    F32(TENSOR_ATTN_SINK, "attn.attn_sink", BLOCK, DIM_H),
    MATRIX(TENSOR_WQ_A, "attn.wq_a", BLOCK, FP8, DIM_DQ, DIM_D),
    BF16(TENSOR_Q_NORM, "attn.q_norm.weight", BLOCK, DIM_DQ),
    MATRIX(TENSOR_WQ_B, "attn.wq_b", BLOCK, FP8, DIM_HC, DIM_DQ),
    MATRIX(TENSOR_WKV, "attn.wkv", BLOCK, FP8, DIM_C, DIM_D),
    BF16(TENSOR_KV_NORM, "attn.kv_norm.weight", BLOCK, DIM_C),
    MATRIX(TENSOR_WO_A, "attn.wo_a", BLOCK, FP8, DIM_GDG, DIM_HC_G),
    MATRIX(TENSOR_WO_B, "attn.wo_b", BLOCK, FP8, DIM_D, DIM_GDG),
    F32(TENSOR_COMP_APE, "attn.compressor.ape", COMPRESSED, DIM_M, DIM_OC),
    BF16(TENSOR_COMP_WKV, "attn.compressor.wkv.weight", COMPRESSED, DIM_OC, DIM_D),
    BF16(TENSOR_COMP_WGATE, "attn.compressor.wgate.weight", COMPRESSED, DIM_OC, DIM_D),
    BF16(TENSOR_COMP_NORM, "attn.compressor.norm.weight", COMPRESSED, DIM_C),
    MATRIX(TENSOR_INDEX_WQ_B, "attn.indexer.wq_b", CSA, FP8, DIM_HI_CI, DIM_DQ),
    BF16(TENSOR_INDEX_WEIGHTS, "attn.indexer.weights_proj.weight", CSA, DIM_HI, DIM_D),
    F32(TENSOR_INDEX_COMP_APE, "attn.indexer.compressor.ape", CSA, DIM_M, DIM_OCI),
    BF16(TENSOR_INDEX_COMP_WKV, "attn.indexer.compressor.wkv.weight", CSA, DIM_OCI, DIM_D),
    BF16(TENSOR_INDEX_COMP_WGATE, "attn.indexer.compressor.wgate.weight", CSA, DIM_OCI, DIM_D),
    BF16(TENSOR_INDEX_COMP_NORM, "attn.indexer.compressor.norm.weight", CSA, DIM_CI),
    BF16(TENSOR_GATE, "ffn.gate.weight", BLOCK, DIM_E, DIM_D),
    [TENSOR_GATE_TABLE] = { "ffn.gate.tid2eid", HASH, { DIM_V, DIM_CHOSEN }, PLAIN, DTYPE_I64 },
    F32(TENSOR_GATE_BIAS, "ffn.gate.bias", SCORED, DIM_E),
    MATRIX(TENSOR_SHARED_W1, "ffn.shared_experts.w1", BLOCK, FP8, DIM_F, DIM_D),
    MATRIX(TENSOR_SHARED_W2, "ffn.shared_experts.w2", BLOCK, FP8, DIM_D, DIM_F),
    MATRIX(TENSOR_SHARED_W3, "ffn.shared_experts.w3", BLOCK, FP8, DIM_F, DIM_D),

    MATRIX(TENSOR_MTP_E_PROJ, "e_proj", DRAFT, FP8, DIM_D, DIM_D),
    MATRIX(TENSOR_MTP_H_PROJ, "h_proj", DRAFT, FP8, DIM_D, DIM_D),
    BF16(TENSOR_MTP_ENORM, "enorm.weight", DRAFT, DIM_D),
    BF16(TENSOR_MTP_HNORM, "hnorm.weight", DRAFT, DIM_D),
    BF16(TENSOR_MTP_NORM, "norm.weight", DRAFT, DIM_D),
    F32(TENSOR_MTP_HC_HEAD_FN, "hc_head_fn", DRAFT, DIM_N, DIM_ND),
    F32(TENSOR_MTP_HC_HEAD_BASE, "hc_head_base", DRAFT, DIM_N),
    F32(TENSOR_MTP_HC_HEAD_SCALE, "hc_head_scale", DRAFT, DIM_1),

    MATRIX(TENSOR_W1, "w1", EXPERT, CODES, DIM_F, DIM_D),
    MATRIX(TENSOR_W2, "w2", EXPERT, CODES, DIM_D, DIM_F),
    MATRIX(TENSOR_W3, "w3", EXPERT, CODES, DIM_F, DIM_D),
};

static uint64_t dim_value(const struct config *c, uint32_t layer, enum dim dim) {
    const uint64_t n = c->n_streams;
    const uint64_t o = c->ratio[layer] == 4 ? 2 : 1;
    switch (dim) {
    case DIM_NONE:
    case DIM_1:
        return 1;
    case DIM_3:
        return 3;
    case DIM_V:
        return c->vocab;
    case DIM_D:
        return c->d;
    case DIM_N:
        return n;
    case DIM_ND:
        return n * c->d;
    case DIM_MIX:
        return (2 + n) * n;
    case DIM_H:
        return c->n_heads;
    case DIM_C:
        return c->head_dim;
    case DIM_HC:
        return (uint64_t)c->n_heads * c->head_dim;
    case DIM_HC_G:
        return (uint64_t)c->n_heads / c->o_groups * c->head_dim;
    case DIM_DQ:
        return c->q_rank;
    case DIM_GDG:
        return (uint64_t)c->o_groups * c->o_rank;
    case DIM_M:
        return c->ratio[layer];
    case DIM_OC:
        return o * c->head_dim;
    case DIM_HI:
        return c->index_heads;
    case DIM_CI:
        return c->index_dim;
    case DIM_HI_CI:
        return (uint64_t)c->index_heads * c->index_dim;
    case DIM_OCI:
        return o * c->index_dim;
    case DIM_E:
        return c->n_experts;
    case DIM_CHOSEN:
        return c->n_chosen;
    case DIM_F:
        return c->expert_dim;
    }
    return 0;
}

/* Does this block have tensors of this scope? */
static bool scope_holds(const struct config *c, enum scope scope, uint32_t layer, uint32_t expert) {
    if (scope == GLOBAL)
        return layer == 0 && expert == 0;
    const bool is_draft = layer >= c->n_layers;
    const uint32_t n_blocks = c->n_layers + (c->draft == DRAFT_MTP ? c->n_drafts : 0);
    if (layer >= n_blocks || layer >= CONFIG_MAX_LAYERS)
        return false;
    if (expert >= (scope == EXPERT ? c->n_experts : 1))
        return false;
    switch (scope) {
    case COMPRESSED:
        return c->ratio[layer] > 0;
    case CSA:
        return config_is_csa(c, layer);
    case HASH:
        return config_is_hash(c, layer);
    case SCORED:
        return !config_is_hash(c, layer);
    case DRAFT:
        return is_draft;
    default:
        return true;
    }
}

/* Shape and type of what a row's matrix is stored as. */
static void quantized_form(const struct config *c, enum form form, struct manifest_entry *out) {
    const bool fp4 = (form == CODES || form == CODES_SCALE) && c->expert_format == EXPERT_FP4;
    switch (form) {
    case PLAIN:
        break;
    case FP8:
    case CODES:
        out->dtype = fp4 ? DTYPE_I8 : DTYPE_F8_E4M3;
        if (fp4)
            out->shape[1] /= 2;
        break;
    case FP8_SCALE:
    case CODES_SCALE:
        if (fp4) {
            out->shape[1] /= 32;
        } else {
            out->shape[0] = (out->shape[0] + 127) / 128;
            out->shape[1] = (out->shape[1] + 127) / 128;
        }
        // Published -Base checkpoints have F32 scales on their experts alone.
        out->dtype = form == CODES_SCALE && !fp4 ? DTYPE_F32 : DTYPE_F8_E8M0;
        break;
    }
}

static void write_name(const struct config *c, const struct row *row, struct manifest_entry *out) {
    const char *kind = out->layer < c->n_layers ? "layers" : "mtp";
    const uint32_t i = out->layer < c->n_layers ? out->layer : out->layer - c->n_layers;
    if (row->scope == GLOBAL)
        snprintf(out->name, sizeof out->name, "%s", row->suffix);
    else if (row->scope == EXPERT)
        snprintf(out->name, sizeof out->name, "%s.%u.ffn.experts.%u.%s", kind, i, out->expert,
                 row->suffix);
    else
        snprintf(out->name, sizeof out->name, "%s.%u.%s", kind, i, row->suffix);
}

bool manifest_entry(const struct config *c, enum tensor_id id, uint32_t layer, uint32_t expert,
                    struct manifest_entry *out) {
    if ((unsigned)id >= TENSOR_COUNT || !scope_holds(c, rows[id].scope, layer, expert))
        return false;
    const struct row *row = &rows[id];
    out->id = id;
    out->layer = layer;
    out->expert = expert;
    out->dtype = row->dtype;
    out->n_dims = row->dim[1] == DIM_NONE ? 1 : 2;
    out->shape[0] = dim_value(c, layer, row->dim[0]);
    out->shape[1] = dim_value(c, layer, row->dim[1]);
    quantized_form(c, row->form, out);
    out->bytes = out->shape[0] * out->shape[1] * dtype_bytes(out->dtype);
    write_name(c, row, out);
    return true;
}

static enum status visit_range(const struct config *c, enum tensor_id first, enum tensor_id end,
                               uint32_t layer, uint32_t expert, manifest_visit *visit,
                               void *context, struct err *err) {
    struct manifest_entry entry;
    for (int id = first; id < (int)end; id++) {
        if (!manifest_entry(c, (enum tensor_id)id, layer, expert, &entry))
            continue;
        enum status status = visit(context, &entry, err);
        if (status != OK)
            return status;
    }
    return OK;
}

static enum status visit_block(const struct config *c, uint32_t layer, manifest_visit *visit,
                               void *context, struct err *err) {
    enum status status =
        visit_range(c, TENSOR_ATTN_NORM, TENSOR_SHARED_W1, layer, 0, visit, context, err);
    for (uint32_t e = 0; e < c->n_experts && status == OK; e++)
        status = visit_range(c, TENSOR_W1, TENSOR_COUNT, layer, e, visit, context, err);
    if (status == OK)
        status = visit_range(c, TENSOR_SHARED_W1, TENSOR_W1, layer, 0, visit, context, err);
    return status;
}

enum status manifest_walk(const struct config *c, manifest_visit *visit, void *context,
                          struct err *err) {
    static const enum tensor_id tail[] = { TENSOR_NORM, TENSOR_HEAD, TENSOR_HC_HEAD_FN,
                                           TENSOR_HC_HEAD_BASE, TENSOR_HC_HEAD_SCALE };
    enum status status = visit_range(c, TENSOR_EMBED, TENSOR_HEAD, 0, 0, visit, context, err);
    for (uint32_t layer = 0; layer < c->n_layers && status == OK; layer++)
        status = visit_block(c, layer, visit, context, err);
    for (size_t i = 0; i < sizeof tail / sizeof *tail && status == OK; i++)
        status = visit_range(c, tail[i], (enum tensor_id)(tail[i] + 1), 0, 0, visit, context, err);
    const uint32_t n_drafts = c->draft == DRAFT_MTP ? c->n_drafts : 0;
    for (uint32_t i = 0; i < n_drafts && status == OK; i++)
        status = visit_block(c, c->n_layers + i, visit, context, err);
    return status;
}

const char *manifest_suffix(enum tensor_id id) {
    return rows[id].suffix;
}

bool manifest_is_scale(enum tensor_id id) {
    return rows[id].form == FP8_SCALE || rows[id].form == CODES_SCALE;
}

uint64_t dtype_bytes(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_I32:
        return 4;
    case DTYPE_BF16:
        return 2;
    case DTYPE_F8_E4M3:
    case DTYPE_F8_E8M0:
    case DTYPE_I8:
        return 1;
    case DTYPE_I64:
        return 8;
    }
    return 0;
}

const char *dtype_name(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F32:
        return "F32";
    case DTYPE_BF16:
        return "BF16";
    case DTYPE_F8_E4M3:
        return "F8_E4M3";
    case DTYPE_F8_E8M0:
        return "F8_E8M0";
    case DTYPE_I8:
        return "I8";
    case DTYPE_I32:
        return "I32";
    case DTYPE_I64:
        return "I64";
    }
    return "?";
}
