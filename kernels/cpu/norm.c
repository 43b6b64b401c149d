#include "kernels/cpu/internal.h"

void cpu_rms_norm(struct ops *ops, const struct rms_norm *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const float *x = cpu_ptr(a->x);
    const uint8_t *weight = cpu_ptr(a->weight);
    float *y = cpu_ptr(a->y);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint32_t i = 0; i < a->n_rows; i++)
        c->forms->norm(y + (size_t)i * a->d, x + (size_t)i * a->d, weight, a->d, a->eps);
}
