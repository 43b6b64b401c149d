/* tools/bench/quartiles.h - how a few measurements lie: median and quartiles. */
#ifndef SLUICE_TOOLS_BENCH_QUARTILES_H
#define SLUICE_TOOLS_BENCH_QUARTILES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quartiles {
    double low, median, high;
};

/* Of n values, which are sorted for it; between two of them by their distance. All 0 if there are
 * none. */
struct quartiles quartiles_of(double *values, size_t n);

#ifdef __cplusplus
}
#endif
#endif
