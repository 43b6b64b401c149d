#include "kernels/cpu/internal.h"

void cpu_rope_table(struct ops *ops, const struct rope_table *a) {
    const int32_t *position = cpu_ptr(a->position);
    const float *theta = cpu_ptr(a->theta);
    float *cs = cpu_ptr(a->cs);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads)
    for (uint32_t row = 0; row < a->n_rows; row++)
        for (uint32_t i = 0; i < a->r / 2; i++) {
            float *pair = cs + ((size_t)row * (a->r / 2) + i) * 2;
            arith_sincos((float)position[row] * theta[i], &pair[1], &pair[0]);
        }
}

/* (a + ib)·(cos + i sin), or its conjugate. */
CPU_CLONES static void rotate_head(float *x, const float *cs, uint32_t r, bool inverse) {
    for (uint32_t i = 0; i < r; i += 2) {
        float a = x[i], b = x[i + 1], cos_i = cs[i], sin_i = inverse ? -cs[i + 1] : cs[i + 1];
        x[i] = fmaf(a, cos_i, -(b * sin_i));
        x[i + 1] = fmaf(a, sin_i, b * cos_i);
    }
}

void cpu_rotate(struct ops *ops, const struct rotate *a) {
    float *x = cpu_ptr(a->x);
    const float *cs = cpu_ptr(a->cs);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads)
    for (uint64_t i = 0; i < (uint64_t)a->n_rows * a->n_heads; i++)
        rotate_head(x + i * a->c + (a->c - a->r), cs + i / a->n_heads * a->r, a->r, a->inverse);
}
