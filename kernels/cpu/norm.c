#include "kernels/cpu/internal.h"

/* One row: r = 1/sqrt(Σx²/d + ε), y = (x·r)·w. y may be x. */
CPU_CLONES static void norm_row(float *y, const float *x, const uint8_t *weight, uint32_t d,
                                float eps) {
    float r = arith_rsqrt(arith_sum16_squares(x, d) / (float)d + eps);
    if (!weight)
        for (uint32_t i = 0; i < d; i++)
            y[i] = x[i] * r;
    else
        for (uint32_t i = 0; i < d; i++)
            y[i] = (x[i] * r) * bf16_value(load_u16(weight + 2 * (size_t)i));
}

void cpu_rms_norm(struct ops *ops, const struct rms_norm *a) {
    const float *x = cpu_ptr(a->x);
    const uint8_t *weight = cpu_ptr(a->weight);
    float *y = cpu_ptr(a->y);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads)
    for (uint32_t i = 0; i < a->n_rows; i++)
        norm_row(y + (size_t)i * a->d, x + (size_t)i * a->d, weight, a->d, a->eps);
}
