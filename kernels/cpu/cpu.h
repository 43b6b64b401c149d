/* kernels/cpu/cpu.h - the CPU backend: plain scalar C in the canonical arithmetic, over all cores.
 *
 * Ops are tiled over rows and outputs and run through OpenMP; each has finished when it returns,
 * so events have happened at once. Device memory is host memory. */
#ifndef SLUICE_KERNELS_CPU_CPU_H
#define SLUICE_KERNELS_CPU_CPU_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cpu_options {
    uint32_t n_threads; /* 0: as many as this process may run on */
    bool exact;         /* see ops.h */
};

/* Scratch that cpu_open takes with these options, touched as ops need it: for the memory budget. */
uint64_t cpu_scratch_bytes(const struct cpu_options *options);

/* ERR_MEMORY, ERR_SYSTEM. Close with ops_close. */
enum status cpu_open(struct ops **out, const struct cpu_options *options, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
