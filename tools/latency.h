/* tools/latency.h - how long things took, as percentiles, in memory that does not grow.
 *
 * Times are counted in buckets, 32 to each power of two, so a percentile is right within 3 %; the
 * largest is kept exactly. */
#ifndef SLUICE_TOOLS_LATENCY_H
#define SLUICE_TOOLS_LATENCY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LATENCY_BUCKETS (60 * 32)

struct latency {
    uint64_t n, sum_ns, most_ns;
    uint32_t count[LATENCY_BUCKETS];
};

/* Zeroed is empty. */
void latency_add(struct latency *l, uint64_t ns);

/* The time that a share of them (0.5: the median) did not exceed; 0 if there are none. */
double latency_percentile(const struct latency *l, double share);

#ifdef __cplusplus
}
#endif
#endif
