#include "kernels/cpu/limits.h"
#include "kernels/cpu/internal.h"

#include <omp.h>

uint32_t cpu_read_memory(struct ops *ops, const void *memory, size_t bytes) {
    const struct cpu_ops *c = cpu_of(ops);
    uint32_t word = 0;
#pragma omp parallel num_threads(c->n_threads) reduction(^ : word)
    {
        const size_t threads = (size_t)omp_get_num_threads(), thread = (size_t)omp_get_thread_num();
        const size_t first = bytes / 4096 * thread / threads * 4096;
        const size_t end = bytes / 4096 * (thread + 1) / threads * 4096;
        word ^= c->forms->read((const unsigned char *)memory + first, end - first);
    }
    return word;
}

uint64_t cpu_multiply_adds(struct ops *ops, uint64_t rounds) {
    const struct cpu_ops *c = cpu_of(ops);
    uint64_t n = 0;
#pragma omp parallel num_threads(c->n_threads) reduction(+ : n)
    {
        float *values = cpu_scratch(c, omp_get_thread_num());
        for (int i = 0; i < PEAK_LANES; i++)
            values[i] = 1.0f;
        c->forms->peak(values, rounds);
        n += rounds * PEAK_LANES;
    }
    return n;
}
