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

void cpu_rotate(struct ops *ops, const struct rotate *a) {
    const struct cpu_ops *c = cpu_of(ops);
    float *x = cpu_ptr(a->x);
    const float *cs = cpu_ptr(a->cs);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint64_t i = 0; i < (uint64_t)a->n_rows * a->n_heads; i++)
        c->forms->rotate(x + i * a->c + (a->c - a->r), cs + i / a->n_heads * a->r, a->r,
                         a->inverse);
}
