/* The AVX2 form. Where no function is written by hand, the plain loop, compiled for the machine. */
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/loops_kv.h"
#include "kernels/cpu/loops_limits.h"
#include "kernels/cpu/loops_matrix.h"
#include "kernels/cpu/loops_rows.h"

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "the Makefile compiles *_avx2.c for AVX2"
#endif

static void norm(float *y, const float *x, const uint8_t *weight, uint32_t d, float eps) {
    loop_norm(y, x, weight, d, eps, avx2_sum_squares(x, d));
}

const struct cpu_forms cpu_forms_avx2 = {
    .name = "avx2",
    .round = loop_round,
    .round_groups = loop_round_digits,
    .widen = avx2_widen,
    .direct_rows = 1,
    .t16 = avx2_t16,
    .fold = avx2_fold,
    .fp4 = avx2_fp4,
    .swiglu = loop_swiglu,
    .norm = norm,
    .sum_squares = avx2_sum_squares,
    .rotate = loop_rotate,
    .hadamard = loop_hadamard,
    .mix = loop_mix,
    .post = loop_post,
    .bf16 = loop_bf16,
    .add = loop_add,
    .sum = loop_sum,
    .entry_pack = loop_entry_pack,
    .entry_unpack = avx2_entry_unpack,
    .key_pack = loop_key_pack,
    .scores = avx2_scores,
    .most = loop_most,
    .weights = loop_weights,
    .values = loop_values,
    .divide = loop_divide,
    .query = loop_query,
    .index_scores = avx2_index_scores,
    .feed = loop_feed,
    .quotient = loop_quotient,
    .read = loop_read,
    .peak = loop_peak,
};
