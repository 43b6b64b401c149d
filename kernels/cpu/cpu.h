/* kernels/cpu/cpu.h - the CPU backend: the canonical arithmetic over all cores, in plain C or with the
 * vectors that the machine has. The bits are the same.
 *
 * Ops are tiled over rows and outputs and run through OpenMP; each has finished when it returns,
 * so events have happened at once. Device memory is host memory. */
#ifndef SLUICE_KERNELS_CPU_CPU_H
#define SLUICE_KERNELS_CPU_CPU_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The loops to use. On machines other than x86-64 there is SCALAR alone. */
enum cpu_isa {
    CPU_AUTO, /* the best that this machine has */
    CPU_SCALAR,
    CPU_AVX2,  /* with FMA and F16C */
    CPU_AVX512 /* F, BW, DQ and VL; VNNI where there is */
};

struct cpu_options {
    uint32_t n_threads; /* 0: as many as this process may run on */
    bool exact;         /* see ops.h */
    enum cpu_isa isa;
};

/* Scratch that cpu_open takes with these options, touched as ops need it: for the memory budget. */
uint64_t cpu_scratch_bytes(const struct cpu_options *options);

/* ERR_MEMORY; ERR_USAGE: this machine lacks options->isa. Close with ops_close. */
enum status cpu_open(struct ops **out, const struct cpu_options *options, struct err *err);

/* The name of the loops in use: "scalar", "avx2", "avx512", "avx512+vnni". */
const char *cpu_form_name(struct ops *ops);
uint32_t cpu_thread_count(struct ops *ops);

#ifdef __cplusplus
}
#endif
#endif
