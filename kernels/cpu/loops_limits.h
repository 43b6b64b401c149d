/* kernels/cpu/loops_limits.h - loops that do nothing but read, or multiply and add. */
#ifndef SLUICE_KERNELS_CPU_LOOPS_LIMITS_H
#define SLUICE_KERNELS_CPU_LOOPS_LIMITS_H

#include "kernels/cpu/forms.h"
#include "kernels/lowbit.h"

#include <math.h>

static inline uint32_t loop_read(const unsigned char *memory, size_t bytes) {
    uint32_t words[64] = { 0 };
    for (size_t i = 0; i < bytes; i += sizeof words)
        for (size_t k = 0; k < 64; k++)
            words[k] ^= load_u32(memory + i + 4 * k);
    for (size_t k = 1; k < 64; k++)
        words[0] ^= words[k];
    return words[0];
}

/* Independent sums, as many as hide the latency of two units. They converge to 1: no value becomes
 * subnormal or infinite, which some machines are slow at. */
static inline void loop_peak(float *values, uint64_t rounds) {
    float sums[PEAK_LANES];
    for (int k = 0; k < PEAK_LANES; k++)
        sums[k] = values[k];
    for (uint64_t i = 0; i < rounds; i++)
        for (int k = 0; k < PEAK_LANES; k++)
            sums[k] = fmaf(sums[k], 0.5f, 0.5f);
    for (int k = 0; k < PEAK_LANES; k++)
        values[k] = sums[k];
}

#endif
