#include "kernels/cpu/internal.h"

/* Ops that move rows, or add them: nothing here is larger than one pass over memory. */

void cpu_embed(struct ops *ops, const struct embed *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const uint8_t *table = cpu_ptr(a->table);
    const int32_t *id = cpu_ptr(a->id);
    float *h = cpu_ptr(a->h);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint32_t i = 0; i < a->n_rows; i++)
        for (uint32_t j = 0; j < a->n_streams; j++)
            c->forms->bf16(h + ((size_t)i * a->n_streams + j) * a->d,
                           table + (size_t)id[i] * a->d * 2, a->d);
}

void cpu_gather_rows(struct ops *ops, const struct gather_rows *a) {
    const float *x = cpu_ptr(a->x);
    const int32_t *row = cpu_ptr(a->row);
    float *y = cpu_ptr(a->y);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads)
    for (uint32_t i = 0; i < a->n; i++)
        memcpy(y + (size_t)i * a->width, x + (size_t)row[i] * a->width, a->width * sizeof(float));
}

void cpu_add_to_streams(struct ops *ops, const struct add_to_streams *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const float *e = cpu_ptr(a->e);
    float *h = cpu_ptr(a->h);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint32_t row = 0; row < a->n_rows; row++)
        for (uint32_t j = 0; j < a->n_streams; j++)
            c->forms->add(h + ((size_t)row * a->n_streams + j) * a->d, e + (size_t)row * a->d,
                          a->d);
}

void cpu_moe_sum(struct ops *ops, const struct moe_sum *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const float *parts = cpu_ptr(a->parts), *shared = cpu_ptr(a->shared);
    float *y = cpu_ptr(a->y);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint32_t i = 0; i < a->n_rows; i++)
        c->forms->sum(y + (size_t)i * a->d, parts + (size_t)i * a->n_parts * a->d,
                      shared + (size_t)i * a->d, a->n_parts, a->d);
}
