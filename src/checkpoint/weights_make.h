/* src/checkpoint/weights_make.h - random weights with the statistics of trained ones, in the published form.
 *
 * Any byte range of any tensor of the manifest can be asked for by itself, in any order, from any
 * thread: what it holds depends on the seed, the config and the tensor's name only. So a file of
 * 14 GB is written by as many threads as the drive needs, and the same seed gives the same file.
 *
 * "Like trained ones" means that activations stay sane through any number of layers and that every
 * part of the engine has real work: residual streams mix slowly, norms have a spread, a few
 * channels are large, experts differ and some are chosen far more often, no logit runs away. The
 * table in weights_make.c says what each tensor is drawn from, and why.
 *
 * Memory: about 15 MB of drawn values from open to close. Immutable after open. */
#ifndef SLUICE_SRC_CHECKPOINT_WEIGHTS_MAKE_H
#define SLUICE_SRC_CHECKPOINT_WEIGHTS_MAKE_H

#include "src/checkpoint/manifest.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weights_make;

/* *out is NULL after an error. ERR_MEMORY. `c` is copied. */
enum status weights_make_open(struct weights_make **out, const struct config *c, uint64_t seed,
                              struct err *err);
void weights_make_close(struct weights_make *w); /* NULL is fine */

/* Bytes [from, from + bytes) of a tensor that manifest_entry described, as its file holds them. */
void weights_make_fill(const struct weights_make *w, const struct manifest_entry *entry,
                       uint64_t from, void *dst, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
