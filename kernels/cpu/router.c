#include "kernels/cpu/internal.h"

#include <omp.h>

/* The n highest of score[0 … n_experts), in descending order (ties: the lower id first), by
 * insertion: n is 6. Always n distinct ids, even among NaNs. */
static void highest(int32_t *chosen, uint32_t n, const float *score, uint32_t n_experts) {
    uint32_t have = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (have == n && !(score[e] > score[chosen[n - 1]]))
            continue;
        uint32_t at = have < n ? have++ : n - 1;
        for (; at > 0 && score[e] > score[chosen[at - 1]]; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = (int32_t)e;
    }
}

static void sort_ascending(int32_t *ids, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) {
        int32_t id = ids[i];
        uint32_t at = i;
        for (; at > 0 && ids[at - 1] > id; at--)
            ids[at] = ids[at - 1];
        ids[at] = id;
    }
}

static void route_row(const struct route *a, uint32_t row, float *affinity, float *score) {
    const uint32_t n = a->n_chosen;
    const float *logits = (const float *)cpu_ptr(a->logits) + (size_t)row * a->n_experts;
    const float *bias = cpu_ptr(a->bias);
    const int32_t *table = cpu_ptr(a->table), *token = cpu_ptr(a->token);
    int32_t *experts = (int32_t *)cpu_ptr(a->experts) + (size_t)row * n;
    float *weights = (float *)cpu_ptr(a->weights) + (size_t)row * n;
    for (uint32_t e = 0; e < a->n_experts; e++)
        affinity[e] = sqrtf(arith_softplus(logits[e]));
    if (table) {
        memcpy(experts, table + (size_t)token[row] * n, n * sizeof *experts);
    } else {
        for (uint32_t e = 0; e < a->n_experts; e++)
            score[e] = bias ? affinity[e] + load_f32(bias + e) : affinity[e];
        highest(experts, n, score, a->n_experts);
    }
    sort_ascending(experts, n);
    for (uint32_t k = 0; k < n; k++)
        assert(experts[k] >= 0 && (uint32_t)experts[k] < a->n_experts);
    // The bias chooses, but never weighs.
    float sum = affinity[experts[0]];
    for (uint32_t k = 1; k < n; k++)
        sum += affinity[experts[k]];
    for (uint32_t k = 0; k < n; k++)
        weights[k] = (affinity[experts[k]] / sum) * a->route_scale;
}

void cpu_route(struct ops *ops, const struct route *a) {
    const struct cpu_ops *c = cpu_of(ops);
    assert(a->n_chosen >= 1 && a->n_chosen <= a->n_experts);
    assert((size_t)a->n_experts * 2 * sizeof(float) <= CPU_THREAD_BYTES);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint32_t row = 0; row < a->n_rows; row++) {
        float *affinity = cpu_scratch(c, omp_get_thread_num());
        route_row(a, row, affinity, affinity + a->n_experts);
    }
}
