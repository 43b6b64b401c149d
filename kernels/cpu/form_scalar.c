/* The scalar form: plain C, for any machine. The others must give its bits. */
#include "kernels/cpu/loops_kv.h"
#include "kernels/cpu/loops_limits.h"
#include "kernels/cpu/loops_matrix.h"
#include "kernels/cpu/loops_rows.h"

static float sum_squares(const float *x, uint32_t n) {
    return arith_sum16_squares(x, n);
}

static void norm(float *y, const float *x, const uint8_t *weight, uint32_t d, float eps) {
    loop_norm(y, x, weight, d, eps, sum_squares(x, d));
}

const struct cpu_forms cpu_forms_scalar = {
    .name = "scalar",
    .round = loop_round,
    .round_groups = loop_round_groups,
    .widen = loop_widen,
    .direct_rows = 0,
    .t16 = loop_t16,
    .fold = loop_fold,
    .fp4 = loop_fp4,
    .swiglu = loop_swiglu,
    .norm = norm,
    .sum_squares = sum_squares,
    .rotate = loop_rotate,
    .hadamard = loop_hadamard,
    .mix = loop_mix,
    .post = loop_post,
    .bf16 = loop_bf16,
    .add = loop_add,
    .sum = loop_sum,
    .entry_pack = loop_entry_pack,
    .entry_unpack = loop_entry_unpack,
    .key_pack = loop_key_pack,
    .scores = loop_scores,
    .most = loop_most,
    .weights = loop_weights,
    .values = loop_values,
    .divide = loop_divide,
    .query = loop_query,
    .index_scores = loop_index_scores,
    .feed = loop_feed,
    .quotient = loop_quotient,
    .read = loop_read,
    .peak = loop_peak,
};
