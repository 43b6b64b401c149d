#include "src/checkpoint/tensor_name.h"

#include <string.h>

/* Segments (what lies between dots) as other copies spell them. q_a_proj and its like are V3's;
 * where V3's matrix is another one its shape differs and the reader says so. */
static const struct {
    const char *other, *ours;
} aliases[] = {
    { "self_attn", "attn" },
    { "mlp", "ffn" },
    { "weight_scale_inv", "scale" },
    { "weight_scale", "scale" },
    { "e_score_correction_bias", "bias" },
    { "embed_tokens", "embed" },
    { "lm_head", "head" },
    { "input_layernorm", "attn_norm" },
    { "post_attention_layernorm", "ffn_norm" },
    { "gate_proj", "w1" },
    { "up_proj", "w3" },
    { "down_proj", "w2" },
    { "q_a_proj", "wq_a" },
    { "q_a_layernorm", "q_norm" },
    { "q_b_proj", "wq_b" },
    { "kv_a_layernorm", "kv_norm" },
};

#define REST_BYTES 64 /* the longest canonical name within a block has 38 */

static bool skip(const char **at, const char *prefix) {
    const size_t n = strlen(prefix);
    if (strncmp(*at, prefix, n) != 0)
        return false;
    *at += n;
    return true;
}

/* "12." to 12. No leading zeros: layers.01 is not layers.1. */
static bool skip_number(const char **at, uint32_t *out) {
    const char *s = *at;
    uint32_t value = 0;
    if (*s < '0' || *s > '9' || (*s == '0' && s[1] != '.'))
        return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        value = value * 10 + (uint32_t)(*s - '0');
        if (value > 1000000)
            return false;
    }
    if (*s != '.')
        return false;
    *at = s + 1;
    *out = value;
    return true;
}

/* Rewrite every segment in our spelling; false if the result is longer than any name we know. */
static bool canonical(const char *name, char out[REST_BYTES]) {
    size_t used = 0;
    for (const char *s = name;; s++) {
        const size_t n = strcspn(s, ".");
        const char *segment = s;
        size_t length = n;
        for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
            if (strncmp(aliases[i].other, s, n) == 0 && aliases[i].other[n] == 0) {
                segment = aliases[i].ours;
                length = strlen(segment);
                break;
            }
        }
        if (used + length + 2 > REST_BYTES)
            return false;
        memcpy(out + used, segment, length);
        used += length;
        s += n;
        if (!*s) {
            out[used] = 0;
            return true;
        }
        out[used++] = '.';
    }
}

/* The id in first .. end-1 whose canonical name within its block is `rest`. */
static bool find_id(const char *rest, enum tensor_id first, enum tensor_id end,
                    enum tensor_id *out) {
    for (int id = first; id < (int)end; id++) {
        if (strcmp(manifest_suffix((enum tensor_id)id), rest) == 0) {
            *out = (enum tensor_id)id;
            return true;
        }
    }
    return false;
}

static enum name_kind draft_only(const char *rest) {
    const char *s = rest;
    if (skip(&s, "emb") || strcmp(rest, "head.weight") == 0)
        return NAME_DRAFT_COPY;
    if (skip(&s, "main_proj.") || skip(&s, "main_norm.") || skip(&s, "markov_head.") ||
        skip(&s, "confidence_head."))
        return NAME_DSPARK;
    return NAME_UNKNOWN;
}

struct tensor_name tensor_name_parse(const char *name) {
    const struct tensor_name unknown = { .kind = NAME_UNKNOWN };
    struct tensor_name out = { .kind = NAME_TENSOR };
    char rest[REST_BYTES];
    const char *s = name;
    skip(&s, "model.");
    if (skip(&s, "layers."))
        out.where = BLOCK_LAYER;
    else if (skip(&s, "mtp."))
        out.where = BLOCK_DRAFT;
    if (out.where != BLOCK_NONE && !skip_number(&s, &out.block))
        return unknown;
    if (!canonical(s, rest))
        return unknown;

    const char *r = rest;
    bool known;
    if (out.where == BLOCK_NONE)
        known = find_id(rest, TENSOR_EMBED, TENSOR_ATTN_NORM, &out.id);
    else if (skip(&r, "ffn.experts."))
        known = skip_number(&r, &out.expert) && find_id(r, TENSOR_W1, TENSOR_COUNT, &out.id);
    else
        known = find_id(rest, TENSOR_ATTN_NORM,
                        out.where == BLOCK_DRAFT ? TENSOR_W1 : TENSOR_MTP_E_PROJ, &out.id);
    if (known)
        return out;
    return (struct tensor_name){ .kind = out.where == BLOCK_DRAFT ? draft_only(rest) : NAME_UNKNOWN,
                                 .where = out.where,
                                 .block = out.block };
}
