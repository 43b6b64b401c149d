/* kernels/cpu/limits.h - what the machine allows: how fast its cores read memory, and how many
 * multiply-adds they do, with the loops of a form. For `sluice bench kernels`, which measures ops against
 * both in the same run. */
#ifndef SLUICE_KERNELS_CPU_LIMITS_H
#define SLUICE_KERNELS_CPU_LIMITS_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Read every byte once, a contiguous part by each thread; bytes a multiple of 4096. Returns a word that
 * depends on all of them, so that no compiler leaves one out. */
uint32_t cpu_read_memory(struct ops *ops, const void *memory, size_t bytes);

/* Multiply-adds in registers, on all threads: float32, `rounds` rounds. Returns how many in all. */
uint64_t cpu_multiply_adds(struct ops *ops, uint64_t rounds);

#ifdef __cplusplus
}
#endif
#endif
