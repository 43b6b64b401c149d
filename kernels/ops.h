/* kernels/ops.h - the backend: everything that touches weights, activations or KV state.
 *
 * Shaped for a device. Memory is a `struct mem`, an address that only its backend can follow; ops
 * are enqueued in order and may finish later (the CPU's are done when they return); bytes cross
 * by ops_upload and ops_download alone; completion is an event. No op takes a host pointer to
 * activations, none allocates; scratch inside an op is bounded by a tile of rows.
 *
 * Every op gives the same bits on every backend, for any n_rows, tile and thread count: the order
 * of each sum is kernels/arith.h's. [R, …] shapes are row-major F32 unless said otherwise, R is
 * n_rows. Errors of a device are sticky: they surface at the next download or wait.
 *
 * `exact` (a property of the backend, for checking): activations, keys and index keys are not
 * quantized, and KV entries are float32. Sources: the published inference/model.py and kernel.py,
 * as retold by name in each op. */
#ifndef SLUICE_KERNELS_OPS_H
#define SLUICE_KERNELS_OPS_H

#include "io/event.h"
#include "io/pinned.h"
#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- memory --------------------------------------------------------------------------------- */

struct mem {
    uint64_t address; /* the backend's; 0 is "none" */
};

static inline struct mem mem_none(void) {
    struct mem m = { 0 };
    return m;
}
static inline struct mem mem_at(struct mem m, uint64_t bytes) {
    m.address += bytes;
    return m;
}

enum matrix_type {
    MATRIX_F32,
    MATRIX_BF16,
    MATRIX_FP8, /* E4M3 codes; scale: E8M0, one for each 128×128 block, [⌈rows/128⌉,⌈cols/128⌉] */
    MATRIX_FP8_F32, /* the same with F32 scales (-Base) */
    MATRIX_FP4 /* E2M1, low nibble = even column, [rows, cols/2]; E8M0 scale, [rows, cols/32] */
};

/* y = W x. Any byte alignment: tensors lie where the shard put them. */
struct matrix {
    enum matrix_type type;
    uint32_t rows, cols;
    struct mem weight, scale; /* scale: none for F32 and BF16 */
};

/* --- KV state ------------------------------------------------------------------------------- */

/* Pages hold entries of one kind; an entry never crosses a 4096-byte block (so that a gather from
 * disk reads one block), and is found through a table of page numbers. */
#define KV_BLOCK_BYTES 4096

/* Entries of a page, and where the i-th lies. A large entry (exact mode, big states) may be as long
 * as a page; then blocks are not kept apart. */
struct kv_shape {
    uint32_t entry_bytes; /* stride */
    uint32_t per_block;   /* 0: entries longer than a block, packed back to back */
    uint32_t per_page;
};
static inline struct kv_shape kv_shape(uint32_t entry_bytes, uint32_t page_bytes) {
    struct kv_shape s;
    s.entry_bytes = entry_bytes;
    s.per_block = entry_bytes <= KV_BLOCK_BYTES ? KV_BLOCK_BYTES / entry_bytes : 0;
    s.per_page = s.per_block ? page_bytes / KV_BLOCK_BYTES * s.per_block : page_bytes / entry_bytes;
    return s;
}
static inline uint64_t kv_offset(struct kv_shape s, uint32_t i) {
    if (!s.per_block)
        return (uint64_t)i * s.entry_bytes;
    return (uint64_t)(i / s.per_block) * KV_BLOCK_BYTES +
           (uint64_t)(i % s.per_block) * s.entry_bytes;
}

/* Bytes of one KV entry of dim c, the last r of it rotary: c−r E4M3 codes, one E8M0 scale for 64 of
 * them, r BF16, rounded up to 8 (583 → 584). Exact: c floats. */
static inline uint32_t kv_entry_bytes(bool exact, uint32_t c, uint32_t r) {
    return exact ? 4 * c : ((c - r) + (c - r) / 64 + 2 * r + 7) / 8 * 8;
}
/* Bytes of one index key of dim ci: ci/2 of E2M1 codes, one E8M0 scale for 32. Exact: ci floats. */
static inline uint32_t index_key_bytes(bool exact, uint32_t ci) {
    return exact ? 4 * ci : ci / 2 + ci / 32;
}
/* Bytes of a compressor's running state: (max, sum, weighted sum) of dim floats each, once for
 * m = 128, twice for m = 4: the entry under way and the one after it, whose A half has begun. */
static inline uint32_t compressor_state_bytes(uint32_t m, uint32_t dim) {
    return (m == 4 ? 2 : 1) * 3 * dim * 4;
}

/* One sequence in a step, for one layer: an array of these lies in backend memory, all uint32_t.
 * Tables are indices into `tables`, where page numbers of that kind follow each other.
 * Where `_write` differs from `_read`, the step works on fresh pages that a commit puts in the
 * sequence's tables: so a step that ends early leaves its sequences as they were. */
struct kv_rows {
    uint32_t first_row; /* in the step; rows of a sequence are consecutive positions */
    uint32_t n_rows;
    uint32_t start; /* position of the first of them: tokens the sequence had before */
    uint32_t window_read, window_write; /* ring of KV entries, position p at p mod ring_entries */
    uint32_t state_read, state_write; /* ring of compressor states: after t tokens, t mod history */
    uint32_t index_state_read, index_state_write; /* likewise, of the indexer's compressor */
    uint32_t entries;                             /* compressed entries, j at j */
    uint32_t keys;                                /* index keys, j at j */
};

/* What ops need to find KV state; the same for all ops of a layer. */
struct kv_view {
    struct mem pages;  /* page p begins at p * page_bytes */
    struct mem tables; /* uint32_t page numbers */
    struct mem rows;   /* struct kv_rows [n_seqs], ascending first_row, covering all rows */
    uint32_t n_seqs;
    uint32_t page_bytes;
    uint32_t c, r;         /* dims of an entry */
    uint32_t index_dim;    /* ci */
    uint32_t ring_entries; /* of the window ring, at least W + history - 1 */
    uint32_t history;      /* compressor states kept: rollback rows + 1 */
    uint32_t max_seq_rows; /* longest n_rows among them */
};

/* --- ops: arguments ------------------------------------------------------------------------- */

/* h[i, j, :] = table[id[i]] for j < n_streams. table BF16 [*, d]; id I32 [R].
 * Source: Transformer.forward, h = embed(tokens).unsqueeze(2).repeat(1, 1, hc_mult, 1). */
struct embed {
    struct mem table, id, h;
    uint32_t n_rows, n_streams, d;
};

/* Hyper-connections, read side: u = h flattened [n·d], ρ = 1/sqrt(mean u² + norm_eps),
 * z = (fn u)·ρ; pre, post, comb from z (Sinkhorn); x = Σ_j pre_j h_j.
 * fn F32 [(2+n)n, n·d], base F32 [(2+n)n], scale F32 [3]; h [R,n,d] → x [R,d], post [R,n],
 * comb [R,n,n] (first index: the stream that is read). Source: Block.hc_pre, hc_split_sinkhorn. */
struct hc_pre {
    struct mem h, fn, base, scale, x, post, comb;
    uint32_t n_rows, n_streams, d, sinkhorn_iters;
    float norm_eps, hc_eps;
};

/* Write side, in place: h'_j = post_j·x + Σ_i comb[i][j]·h_i, i ascending. Source: Block.hc_post. */
struct hc_post {
    struct mem h, x, post, comb;
    uint32_t n_rows, n_streams, d;
};

/* The head's mix: pre_j = σ(z_j·scale + base_j) + hc_eps; x = Σ_j pre_j h_j.
 * fn F32 [n, n·d], base F32 [n], scale F32 [1]. Source: ParallelHead.hc_head. */
struct hc_head {
    struct mem h, fn, base, scale, x;
    uint32_t n_rows, n_streams, d;
    float norm_eps, hc_eps;
};

/* y = x · 1/sqrt(mean x² + eps) · weight, over rows of d. weight BF16 [d], or none: all ones.
 * y may be x. Source: RMSNorm.forward; without weight: Attention.forward's q normalization. */
struct rms_norm {
    struct mem x, weight, y;
    uint32_t n_rows, d;
    float eps;
};

/* y[i, ρ] = W[ρ, :] · q(x)[i, group(ρ)·cols …]. With n_groups > 1 (wo_a), row ρ belongs to group
 * ρ / (rows / n_groups) and reads that group's cols of x [R, n_groups·cols]; y [R, rows].
 * q() is the FP8 rounding of groups of 128 columns if `quantize` (FP8 forms only; never in exact
 * mode), else nothing. Source: Linear.forward, fp8_gemm; einsum of wo_a. */
struct matmul {
    struct matrix w;
    struct mem x, y;
    uint32_t n_rows, n_groups;
    bool quantize;
};

/* cos and sin of position·theta[i]: cs [R, r/2, 2]. position I32 [R], theta F32 [r/2]; the angle is
 * one float32 product. Source: precompute_freqs_cis. */
struct rope_table {
    struct mem position, theta, cs;
    uint32_t n_rows, r;
};

/* Rotate adjacent pairs of the last r of each head's c dims, in place; `inverse` by −angle.
 * x [R, n_heads, c], cs of the same rows. Source: apply_rotary_emb. */
struct rotate {
    struct mem x, cs;
    uint32_t n_rows, n_heads, c, r;
    bool inverse;
};

/* Round and pack KV entries: kv [R,c] (normed, rotated) → entries [R] of kv_entry_bytes: first c−r
 * dims FP8 in groups of 64, the last r BF16. Source: Attention.forward, act_quant(kv[..., :-rd]). */
struct kv_pack {
    struct mem kv, entries;
    uint32_t n_rows, c, r;
};

/* Put the step's entries into each sequence's window ring (the last ring_entries positions; older
 * ones are carried over from window_read where window_write is another ring). entries [R] as packed.
 * After the layer's attention. */
struct window_store {
    struct kv_view kv;
    struct mem entries;
};

/* Feed rows to a compressor, and finish entries: for each sequence, in token order, per channel,
 * a running softmax of gate + ape over kv (design: One arithmetic); when a group's last token has
 * been seen: entry N/S → RMSNorm(norm) → rotate at position j·m → FP8/BF16 entry; or, for index keys
 * (`index`), Hadamard → FP4. Written to `entries` (or `keys`), states after each of the last `history`
 * rows to state_write; of fewer rows, older states still in reach of a rollback are carried over from
 * state_read where state_write is another ring. At start = 0 the state is empty, whatever its page
 * holds. A state is M, S, N of the entry under way, [3, dim], then (m = 4) of the next. values, gates [R, o·dim], o = 2 if m = 4 else 1 (A half first); ape F32
 * [m, o·dim]; norm BF16 [dim]; theta F32 [r/2]. Source: Compressor.forward. */
struct compress {
    struct kv_view kv;
    struct mem values, gates, ape, norm, theta;
    uint32_t n_rows, m, dim, r;
    float eps;
    bool index;
};

/* Hadamard transform of rows of dim (a power of two), natural order, · dim^(−1/2), in place.
 * Source: rotate_activation. */
struct hadamard {
    struct mem x;
    uint32_t n_rows, dim;
};

/* The indexer: for rows first_row … +n_rows of the step, score_j = Σ_h (weights_h·weight_scale) ·
 * relu(q4(q_h)·key_j) over j < ⌊(t+1)/m⌋; the k highest, ties to the lower j.
 * q [n_rows, Hi, ci] and weights [n_rows, Hi] of just these rows → chosen I32 [n_rows, k], ascending,
 * padded with −1. Source: Indexer.forward. */
struct index_topk {
    struct kv_view kv;
    struct mem q, weights, chosen;
    uint32_t first_row, n_rows, n_heads, m, k;
    float weight_scale;
};

/* Attention of rows first_row … +n_rows over window entries t−W+1 … t and compressed entries
 * (m = 0: none; `chosen` none: all j < ⌊(t+1)/m⌋; else those), with one sink a head. Keys are values.
 * q [n_rows, H, c] → o [n_rows, H, c] (may be the same memory). fresh: the step's own entries [R]
 * as packed, all rows of the step; older ones come from window_read. sink F32 [H].
 * Source: Attention.forward, sparse_attn. */
struct attention {
    struct kv_view kv;
    struct mem q, o, fresh, sink, chosen;
    uint32_t first_row, n_rows, n_heads, window, m, k;
};

/* The gate: a = sqrt(softplus(logits)); experts = table[token] (hash) or the K largest of a + bias
 * (ties: lower id), sorted ascending; weight = a / Σ chosen a · route_scale.
 * logits [R,E]; bias F32 [E] or none; table I32 [V,K] and token I32 [R] or none →
 * experts I32 [R,K], weights [R,K]. Source: Gate.forward. */
struct route {
    struct mem logits, bias, table, token, experts, weights;
    uint32_t n_rows, n_experts, n_chosen;
    float route_scale;
};

/* One expert, for the rows of a step that chose it:
 *     y = w2 q(weight · silu(min(w1 q(x), limit)) · clamp(w3 q(x), −limit, limit))
 * pick I32 [n]: row·K + place in that row's choice, ascending; x [R,d]; weights [R,K].
 *   EXPERT_STORE: y[pick] = v, y [R,K,d]  (a decode step keeps its few results)
 *   EXPERT_ADD:   place 0: y[row] = v, else y[row] += v, y [R,d]  (experts must come ascending)
 * Without pick (the shared expert): rows 0 … n−1, weight 1, y[row] = v.
 * FP4: groups of 32 are integer sums; see arith.h. Source: Expert.forward. */
enum expert_mode { EXPERT_STORE, EXPERT_ADD };
struct expert_ffn {
    struct matrix w1, w3, w2;
    struct mem x, pick, weights, y;
    uint32_t n, n_chosen;
    enum expert_mode mode;
    float limit;
};

/* y = Σ_k parts[:, k, :] (k ascending, from the first) + shared. parts [R,K,d], shared [R,d] → y [R,d],
 * which may be `shared`, or parts if K = 1. Source: MoE.forward. */
struct moe_sum {
    struct mem parts, shared, y;
    uint32_t n_rows, n_parts, d;
};

/* h[i, j, :] += e[i, :]: the draft block's e_proj e + h_proj h_j. Source: MTPBlock.forward. */
struct add_to_streams {
    struct mem h, e;
    uint32_t n_rows, n_streams, d;
};

/* y[i, :] = x[row[i], :]. row I32 [n]. */
struct gather_rows {
    struct mem x, row, y;
    uint32_t n, width;
};

/* --- the backend ---------------------------------------------------------------------------- */

struct ops; /* a backend; opened by kernels/cpu/cpu.h, later kernels/cuda */

/* What a backend fills in. Callers use the inline functions below. */
struct ops_table {
    const char *name; /* "cpu" */
    void (*close)(struct ops *ops);
    enum status (*alloc)(struct ops *ops, uint64_t bytes, struct mem *out, struct err *err);
    void (*release)(struct ops *ops, struct mem m);
    enum status (*host_alloc)(struct ops *ops, const struct pinned_options *options,
                              struct pinned *out, struct err *err);
    void (*host_release)(struct ops *ops, struct pinned *p);
    struct mem (*host_mem)(struct ops *ops, const void *host);
    void (*upload)(struct ops *ops, struct mem dst, const void *src, uint64_t bytes);
    enum status (*download)(struct ops *ops, void *dst, struct mem src, uint64_t bytes,
                            struct err *err);
    void (*copy)(struct ops *ops, struct mem dst, struct mem src, uint64_t bytes);
    struct event (*record)(struct ops *ops);
    void (*embed)(struct ops *ops, const struct embed *a);
    void (*hc_pre)(struct ops *ops, const struct hc_pre *a);
    void (*hc_post)(struct ops *ops, const struct hc_post *a);
    void (*hc_head)(struct ops *ops, const struct hc_head *a);
    void (*rms_norm)(struct ops *ops, const struct rms_norm *a);
    void (*matmul)(struct ops *ops, const struct matmul *a);
    void (*rope_table)(struct ops *ops, const struct rope_table *a);
    void (*rotate)(struct ops *ops, const struct rotate *a);
    void (*kv_pack)(struct ops *ops, const struct kv_pack *a);
    void (*window_store)(struct ops *ops, const struct window_store *a);
    void (*compress)(struct ops *ops, const struct compress *a);
    void (*hadamard)(struct ops *ops, const struct hadamard *a);
    void (*index_topk)(struct ops *ops, const struct index_topk *a);
    void (*attention)(struct ops *ops, const struct attention *a);
    void (*route)(struct ops *ops, const struct route *a);
    void (*expert_ffn)(struct ops *ops, const struct expert_ffn *a);
    void (*moe_sum)(struct ops *ops, const struct moe_sum *a);
    void (*add_to_streams)(struct ops *ops, const struct add_to_streams *a);
    void (*gather_rows)(struct ops *ops, const struct gather_rows *a);
};

struct ops {
    const struct ops_table *table;
    bool exact;
};

/* Closing frees every allocation that is left. NULL is fine. */
static inline void ops_close(struct ops *ops) {
    if (ops)
        ops->table->close(ops);
}
/* Device memory, 64-byte aligned at least, not zeroed. ERR_MEMORY. */
static inline enum status ops_alloc(struct ops *ops, uint64_t bytes, struct mem *out,
                                    struct err *err) {
    return ops->table->alloc(ops, bytes, out, err);
}
static inline void ops_release(struct ops *ops, struct mem m) {
    ops->table->release(ops, m);
}
/* Pinned host memory that reads go into: slots. Let go of by ops_host_release. */
static inline enum status ops_host_alloc(struct ops *ops, const struct pinned_options *options,
                                         struct pinned *out, struct err *err) {
    return ops->table->host_alloc(ops, options, out, err);
}
static inline void ops_host_release(struct ops *ops, struct pinned *p) {
    ops->table->host_release(ops, p);
}
/* Host memory from ops_host_alloc as ops see it (where the backend can compute from it). */
static inline struct mem ops_host_mem(struct ops *ops, const void *host) {
    return ops->table->host_mem(ops, host);
}
/* Host to device. src may be reused on return. */
static inline void ops_upload(struct ops *ops, struct mem dst, const void *src, uint64_t bytes) {
    ops->table->upload(ops, dst, src, bytes);
}
/* Device to host, after all ops enqueued so far; reports a device's error. */
static inline enum status ops_download(struct ops *ops, void *dst, struct mem src, uint64_t bytes,
                                       struct err *err) {
    return ops->table->download(ops, dst, src, bytes, err);
}
static inline void ops_copy(struct ops *ops, struct mem dst, struct mem src, uint64_t bytes) {
    ops->table->copy(ops, dst, src, bytes);
}
/* Happens when all ops enqueued so far are done. */
static inline struct event ops_record(struct ops *ops) {
    return ops->table->record(ops);
}

#define OPS_FORWARD(op)                                                                            \
    static inline void op(struct ops *ops, const struct op *a) {                                   \
        ops->table->op(ops, a);                                                                    \
    }
OPS_FORWARD(embed)
OPS_FORWARD(hc_pre)
OPS_FORWARD(hc_post)
OPS_FORWARD(hc_head)
OPS_FORWARD(rms_norm)
OPS_FORWARD(matmul)
OPS_FORWARD(rope_table)
OPS_FORWARD(rotate)
OPS_FORWARD(kv_pack)
OPS_FORWARD(window_store)
OPS_FORWARD(compress)
OPS_FORWARD(hadamard)
OPS_FORWARD(index_topk)
OPS_FORWARD(attention)
OPS_FORWARD(route)
OPS_FORWARD(expert_ffn)
OPS_FORWARD(moe_sum)
OPS_FORWARD(add_to_streams)
OPS_FORWARD(gather_rows)
#undef OPS_FORWARD

#ifdef __cplusplus
}
#endif
#endif
