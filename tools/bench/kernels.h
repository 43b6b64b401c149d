/* tools/bench/kernels.h - `sluice bench kernels`: see bench.h. */
#ifndef SLUICE_TOOLS_BENCH_KERNELS_H
#define SLUICE_TOOLS_BENCH_KERNELS_H

#include "tools/options.h"

extern const struct command bench_kernels;

#endif
