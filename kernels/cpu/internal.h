/* kernels/cpu/internal.h - what the CPU backend's files share. Not for anybody else.
 *
 * Device memory is host memory: a struct mem holds a pointer, and tensors may lie at any byte
 * address. Floats that ops wrote themselves (activations) are 4-byte aligned; weights need not be.
 *
 * Threads: an op opens a parallel region of ops->n_threads (OpenMP) and gives each thread rows,
 * heads or outputs; it has ended when the op returns. Each element of a result is computed whole by
 * one thread, in the canonical order, so how the work is split cannot be seen.
 *
 * Scratch: two kinds, both allocated at open and of fixed size, so no op allocates, and tiles are
 * chosen to fit: a block for each thread, and one that the threads of an op share. An op owns both
 * from its beginning to its end; what it finds there is garbage. Pages never touched cost nothing. */
#ifndef SLUICE_KERNELS_CPU_INTERNAL_H
#define SLUICE_KERNELS_CPU_INTERNAL_H

#include "kernels/arith.h"
#include "kernels/cpu/forms.h"
#include "kernels/ops.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 1 MiB for the scores of a row against every entry that a model of 1M positions can have (2^18
 * floats), three more for tiles. */
#define CPU_THREAD_BYTES ((size_t)4 << 20)
/* Rounded activations of a tile of rows: 64 rows of Pro's widest (d = 7168, wo_b's 16384) are 4 MiB. */
#define CPU_SHARED_BYTES ((size_t)16 << 20)
/* The widest row that is rounded: one such must fit in half of the shared scratch (expert_ffn keeps
 * two tiles there), scales included. */
#define CPU_MAX_COLS (1u << 20)

struct cpu_allocation; /* backend.c: what close must free */

struct cpu_ops {
    struct ops ops;                /* first: a struct ops * is a struct cpu_ops * */
    const struct cpu_forms *forms; /* the loops for this machine */
    int n_threads;
    unsigned char *scratch; /* n_threads × CPU_THREAD_BYTES, then CPU_SHARED_BYTES */
    struct cpu_allocation *allocations;
};

static inline struct cpu_ops *cpu_of(struct ops *ops) {
    return (struct cpu_ops *)(void *)ops;
}

/* The pointer in a handle; NULL for none. */
static inline void *cpu_ptr(struct mem m) {
    return (void *)(uintptr_t)m.address;
}

/* CPU_THREAD_BYTES for thread `thread` (omp_get_thread_num) of the op under way, 64-byte aligned. */
static inline void *cpu_scratch(const struct cpu_ops *c, int thread) {
    assert(thread >= 0 && thread < c->n_threads);
    return c->scratch + (size_t)thread * CPU_THREAD_BYTES;
}

/* CPU_SHARED_BYTES that all threads of the op under way share, 64-byte aligned. */
static inline void *cpu_shared(const struct cpu_ops *c) {
    return c->scratch + (size_t)c->n_threads * CPU_THREAD_BYTES;
}

/* The ops. backend.c's table lists them. */
void cpu_embed(struct ops *ops, const struct embed *a);
void cpu_hc_pre(struct ops *ops, const struct hc_pre *a);
void cpu_hc_post(struct ops *ops, const struct hc_post *a);
void cpu_hc_head(struct ops *ops, const struct hc_head *a);
void cpu_rms_norm(struct ops *ops, const struct rms_norm *a);
void cpu_matmul(struct ops *ops, const struct matmul *a);
void cpu_rope_table(struct ops *ops, const struct rope_table *a);
void cpu_rotate(struct ops *ops, const struct rotate *a);
void cpu_kv_pack(struct ops *ops, const struct kv_pack *a);
void cpu_window_store(struct ops *ops, const struct window_store *a);
void cpu_compress(struct ops *ops, const struct compress *a);
void cpu_hadamard(struct ops *ops, const struct hadamard *a);
void cpu_index_topk(struct ops *ops, const struct index_topk *a);
void cpu_attention(struct ops *ops, const struct attention *a);
void cpu_route(struct ops *ops, const struct route *a);
void cpu_expert_ffn(struct ops *ops, const struct expert_ffn *a);
void cpu_moe_sum(struct ops *ops, const struct moe_sum *a);
void cpu_add_to_streams(struct ops *ops, const struct add_to_streams *a);
void cpu_gather_rows(struct ops *ops, const struct gather_rows *a);

#endif
