/* src/checkpoint/config_make.h - geometry to config.json: the presets of mkmodel, and the small files beside it.
 *
 * The inverse of config.h: config_parse of config_text gives the same config again. Keys and
 * their order are those of the published file. */
#ifndef SLUICE_SRC_CHECKPOINT_CONFIG_MAKE_H
#define SLUICE_SRC_CHECKPOINT_CONFIG_MAKE_H

#include "src/checkpoint/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The geometry of a whole model, its MTP block included.
 *   "pro", "flash"  as published
 *   "demo"          the same architecture with everything that tells it from a toy (hash and score
 *                   routing; HCA, CSA and window layers; a draft block), small enough to make and
 *                   run in seconds: under 100 MB, and experts of 0.2 MB, so that a cache has
 *                   something to do
 * ERR_USAGE for another name. */
enum status config_preset(struct config *out, const char *name, struct err *err);

/* Keep layers first .. first + n - 1 of the trunk, renumbered from 0: each keeps its kind of
 * attention and of routing, so num_hash_layers becomes the number of hash layers kept. The draft
 * block keeps its own kind, or goes. ERR_USAGE if there are no such layers. */
enum status config_cut(struct config *c, uint32_t first, uint32_t n, enum draft_kind draft,
                       struct err *err);

/* The text of config.json, of generation_config.json and of tokenizer_config.json. The caller
 * frees it; NULL: out of memory. */
char *config_text(const struct config *c);
char *config_generation_text(const struct config *c);
char *config_tokenizer_text(const struct config *c);

#ifdef __cplusplus
}
#endif
#endif
