/* src/rope.h - rotary frequencies, as the publisher's code rounds them.
 *
 * Layers without compression: base rope_theta, plain. All keys and queries of layers with
 * compression: base compress_rope_theta with YaRN. No magnitude factor. Every step is float32, the
 * power is evaluated in double. Source: precompute_freqs_cis. */
#ifndef SLUICE_SRC_ROPE_H
#define SLUICE_SRC_ROPE_H

#include "src/checkpoint/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* theta[i] for i < r/2; `compressed`: of layers with m > 0. */
void rope_frequencies(const struct config *c, bool compressed, float *theta);

#ifdef __cplusplus
}
#endif
#endif
