#include "tools/latency.h"

#include <math.h>

// Below 32 ns each has its own; above, the five bits after the first choose within the octave.
static uint32_t bucket_of(uint64_t ns) {
    if (ns < 32)
        return (uint32_t)ns;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(ns); // 5 and up
    return (octave - 4) * 32 + (uint32_t)(ns >> (octave - 5) & 31);
}

// The largest time that falls into it.
static double bucket_top(uint32_t bucket) {
    if (bucket < 32)
        return bucket;
    uint32_t octave = bucket / 32 + 4;
    return ldexp(32 + bucket % 32 + 1, (int)octave - 5) - 1;
}

void latency_add(struct latency *l, uint64_t ns) {
    l->n++;
    l->sum_ns += ns;
    l->most_ns = ns > l->most_ns ? ns : l->most_ns;
    l->count[bucket_of(ns)]++;
}

double latency_percentile(const struct latency *l, double share) {
    uint64_t rank = (uint64_t)ceil(share * (double)l->n), seen = 0;
    if (l->n == 0)
        return 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->count[i];
        if (seen >= rank && seen > 0)
            return fmin(bucket_top(i), (double)l->most_ns);
    }
    return (double)l->most_ns;
}
