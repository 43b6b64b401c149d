/* tools/bench/io_meaning.h - what a rate means for the published models.
 *
 * A decoded token reads its experts, less those that are in memory: tokens a second are at most
 * rate / (bytes of a token x (1 - hits)). At most: where hits are many, arithmetic or memory binds
 * first. A sweep reads every routed expert once, as a prefill of many tokens or a batch does. */
#ifndef SLUICE_TOOLS_BENCH_IO_MEANING_H
#define SLUICE_TOOLS_BENCH_IO_MEANING_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEANING_MODELS 2
#define MEANING_HITS   7

struct meaning_model {
    const char *name;
    uint64_t expert_bytes, token_bytes, sweep_bytes;
    uint32_t token_experts;
};

/* Pro, then Flash; from the geometry that mkmodel makes them by. */
void meaning_models(struct meaning_model models[MEANING_MODELS]);

/* The shares of hits that tables show: 0, 0.25, … */
extern const double meaning_hits[MEANING_HITS];

double meaning_tokens_per_s(const struct meaning_model *model, double rate, double hits);
double meaning_sweep_s(const struct meaning_model *model, double rate);

#ifdef __cplusplus
}
#endif
#endif
