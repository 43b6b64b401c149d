/* src/random.h - random numbers as a function of (seed, position): nothing is drawn in turn.
 *
 * Philox 4x32 with 10 rounds: a block of four words is a hash of a 128-bit counter under a 64-bit
 * key, so what a sequence draws at a position depends on its seed and that position alone, in
 * whatever order, batch or thread positions are sampled, and a rollback draws the same again.
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the
 * test vectors of the authors' Random123 are in tests/src/test_sample.c. Pure functions. */
#ifndef SLUICE_SRC_RANDOM_H
#define SLUICE_SRC_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out = Philox4x32-10(counter, key). out may be counter. */
static inline void random_philox(const uint32_t counter[4], const uint32_t key[2],
                                 uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; // golden ratio
        k1 += 0xBB67AE85u; // sqrt(3) - 1
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Uniform in [0, 1), a multiple of 2^-53. `stream` tells apart draws of one position that must be
 * independent; sampling a token is stream 0. */
static inline double random_uniform(uint64_t seed, uint64_t position, uint32_t stream) {
    uint32_t counter[4] = { (uint32_t)position, (uint32_t)(position >> 32), stream, 0 };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    random_philox(counter, key, counter);
    uint64_t bits = (uint64_t)counter[0] << 21 | counter[1] >> 11;
    return (double)bits * 0x1p-53;
}

#ifdef __cplusplus
}
#endif
#endif
