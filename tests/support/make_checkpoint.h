/* tests/support/make_checkpoint.h - checkpoints for tests: made from a config, renamed, damaged.
 *
 * A tensor's bytes depend on the seed and its canonical name alone, so two checkpoints of one
 * config and seed hold the same model whatever their shards, spellings and types. Values are such
 * that a model computes with them: no NaN codes, scales near 1, table entries below n_experts. */
#ifndef SLUICE_TESTS_SUPPORT_MAKE_CHECKPOINT_H
#define SLUICE_TESTS_SUPPORT_MAKE_CHECKPOINT_H

#include "src/checkpoint/manifest.h"

struct json_t; /* jansson's */

enum make_names {
    NAMES_PUBLISHED, /* layers.0.ffn.gate.bias */
    NAMES_PREFIXED,  /* model.layers.0.mlp.gate.e_score_correction_bias: the spellings that the
                        description of the model lists */
    NAMES_V3 /* those, and V3's others: input_layernorm, gate_proj, embed_tokens, lm_head, … */
};

struct make_options {
    enum make_names names;
    uint32_t n_shards;    /* 0: a single model.safetensors without an index */
    bool layer_per_shard; /* embed, each layer, head, each draft block; n_shards is not looked at */
    bool without_index;
    bool sparse;     /* data are holes: a full-size model that takes no space */
    bool u8;         /* FP4 codes and E8M0 scales under the name U8 */
    bool i32_table;  /* tid2eid */
    bool f32_scales; /* of FP8 matrices */
    uint32_t gap;    /* bytes of hole before each tensor */
    uint64_t seed;
    /* Tensors to leave out (true), and tensors to add to the last shard (zeros). */
    bool (*leave_out)(const struct manifest_entry *entry, void *context);
    void *context;
    const struct manifest_entry *extra;
    uint32_t n_extra;
};

/* The smallest config that has everything: HCA, CSA, window; hash and score; an MTP block. */
void make_small_config(struct config *c);

/* Write config.json, shards and index into `dir`, which exists. */
enum status make_checkpoint(const char *dir, const struct config *c, const struct make_options *o,
                            struct err *err);

/* The bytes of a tensor as published (entry->bytes of them). */
void make_bytes(const struct config *c, const struct manifest_entry *entry, uint64_t seed,
                void *out);

/* A canonical name in another spelling. */
void make_spelling(const char *canonical, enum make_names names, char *out, size_t out_bytes);

/* Copy the checkpoint in `from` (published names) to the existing directory `to`, renamed. */
enum status make_renamed(const char *from, const char *to, enum make_names names, struct err *err);

/* Rewrite a shard's header after `edit` has changed it; the data stay where they were behind it. */
enum status make_edited(const char *path, void (*edit)(struct json_t *header, void *context),
                        void *context, struct err *err);

/* Write a text (or any bytes) to dir/name. */
enum status make_file(const char *dir, const char *name, const void *bytes, size_t length,
                      struct err *err);

/* A directory under $TMPDIR or /tmp, malloc'd path; and its end, with all that is in it. */
char *make_temp_dir(void);
void remove_temp_dir(char *dir);

#endif
