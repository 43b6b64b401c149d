/* src/sample.h - logits to a token.
 *
 * In the canonical order (kernels/arith.h): candidates by logit, the highest first, of equals the
 * lower id. With m the highest logit:
 *     e_i = exp((logit_i - m) / temperature)       float32, arith_exp
 *   top-k   keep the first k candidates
 *   top-p   keep the shortest prefix whose sum of e reaches top_p times the sum of all that are left
 *   min-p   keep the prefix up to the first e below min_p (the first e is 1)
 *   draw    the first candidate whose running sum of e exceeds u times the sum of what is kept
 * Sums are doubles, in the order of candidates: in floats the tail of 129,280 would be lost. u is
 * random_uniform(seed, position, 0). So the token is a function of logits, options, seed and
 * position. Temperature 0 takes the first candidate.
 *
 * All memory is allocated by sampler_open. One thread at a time. */
#ifndef SLUICE_SRC_SAMPLE_H
#define SLUICE_SRC_SAMPLE_H

#include <stdint.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sampling {
    float temperature; /* 0: greedy; finite, not negative */
    uint32_t top_k;    /* 0: off */
    float top_p;       /* 0 to 1; 1: off. The first candidate always stays. */
    float min_p;       /* 0 to 1; 0: off */
};

/* ERR_USAGE: a value out of bounds; err names its option. */
enum status sampling_check(const struct sampling *options, struct err *err);

struct sample_candidate {
    uint32_t key; /* the smaller, the higher the logit */
    uint32_t id;
};

struct sampler {
    uint32_t n_vocab;
    struct sample_candidate *candidate; /* [2][n_vocab]: the list, and room to sort it */
    float *weight;                      /* [n_vocab]: e, in the order of candidates */
};

/* ERR_MEMORY. sampler_close is safe afterwards either way. */
enum status sampler_open(struct sampler *s, uint32_t n_vocab, struct err *err);
void sampler_close(struct sampler *s);

/* One token from logits [n_vocab]; options as sampling_check passes them. A logit of -inf is a token
 * that is never drawn.
 *   ERR_INPUT   a logit is NaN or +inf, or all are -inf: what the weights compute makes no sense */
enum status sampler_draw(struct sampler *s, const struct sampling *options, const float *logits,
                         uint64_t seed, uint64_t position, uint32_t *token, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
