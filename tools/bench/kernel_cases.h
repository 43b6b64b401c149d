/* tools/bench/kernel_cases.h - the ops of `sluice bench kernels`, at the shapes of a preset: arguments, and what
 * they read and multiply. */
#ifndef SLUICE_TOOLS_BENCH_KERNEL_CASES_H
#define SLUICE_TOOLS_BENCH_KERNEL_CASES_H

#include "io/status.h"
#include "kernels/ops.h"
#include "src/checkpoint/config.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_MAX_ROWS 512

/* Memory that all cases share: weights, far more than caches hold, from which each turn takes other
 * bytes; activations; KV pages. */
struct bench_memory {
    struct ops *ops;
    const struct config *config; /* of the preset */
    struct mem pool;             /* BENCH_POOL_BYTES: numbers of middling size, whatever the type */
    struct mem scales;           /* E8M0, of middling size too */
    struct mem ones;             /* F32 scales */
    struct mem x, y, z;          /* activations */
    struct mem ids;              /* int32: chosen entries, picks */
    struct mem pages, tables, rows, fresh;
    uint32_t page_bytes, keys_page; /* tables name pages in order; keys begin here */
};

#define BENCH_POOL_BYTES ((uint64_t)512 << 20)

/* ERR_MEMORY. Belongs to ops, which frees it. */
enum status bench_memory_open(struct bench_memory *m, struct ops *ops, const struct config *config,
                              struct err *err);

/* What a call costs at least. */
struct bench_work {
    double bytes;         /* of weights, KV state or rows, each once */
    double multiply_adds; /* as float32 ones would be counted */
};

struct bench_case {
    const char *name;
    const char *about; /* shape in words: types and what it stands for */
    /* One call for n_rows rows with the weights of turn `turn`. */
    void (*run)(const struct bench_memory *m, uint32_t n_rows, uint32_t turn);
    struct bench_work (*work)(const struct config *c, uint32_t n_rows);
};

const struct bench_case *bench_cases(size_t *n);

#ifdef __cplusplus
}
#endif
#endif
