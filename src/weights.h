/* src/weights.h - dense tensors in memory, and the table of where each routed expert lies.
 *
 * Everything but the routed experts (28.7 GB for Pro, 1.85 of it the embedding, which may stay on
 * disk) is read once at start into memory of the backend, as it is stored, and never moves; but for
 * units that the plan streams (src/dense_plan.h), whose matrices have an address only while
 * src/dense.h holds them. Experts stay where they are published: expert_layout says which bytes of
 * which shard one expert is. */
#ifndef SLUICE_SRC_WEIGHTS_H
#define SLUICE_SRC_WEIGHTS_H

#include "io/reader.h"
#include "kernels/ops.h"
#include "src/checkpoint/checkpoint.h"
#include "src/dense_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hyper_weights { /* one half of a block, or the head (where comb is not used) */
    struct mem fn, base, scale;
};

struct compressor_weights {
    struct matrix wkv, wgate;
    struct mem ape, norm;
};

struct layer_weights {
    struct hyper_weights hc_attn, hc_ffn;
    struct mem attn_norm, ffn_norm;
    struct matrix wq_a, wq_b, wkv, wo_a, wo_b;
    struct mem q_norm, kv_norm, sink;
    struct compressor_weights compressor;       /* m > 0 */
    struct matrix index_wq_b, index_weights;    /* m = 4 */
    struct compressor_weights index_compressor; /* m = 4 */
    struct matrix gate;
    struct mem gate_table, gate_bias; /* one of them */
    struct matrix shared_w1, shared_w2, shared_w3;
    /* of an MTP block */
    struct matrix e_proj, h_proj;
    struct mem enorm, hnorm, norm;
    struct hyper_weights hc_head;
};

struct weights {
    const struct checkpoint *cp; /* not owned */
    struct ops *ops;
    struct mem arena;
    struct mem embed;    /* none: rows are read from disk, by embed_read */
    struct matrix *head; /* [plan.n_panels]: some of its rows each */
    struct mem norm;
    struct hyper_weights hc_head;
    struct layer_weights *layers; /* [n_blocks] */
    uint32_t n_blocks;            /* trunk, and the draft block if it was asked for */
    struct dense_plan plan;
};

/* For the plan: bytes in memory of what always stays there, of a layer and of what is in none (the
 * embedding apart); and of a unit. */
uint64_t weights_fixed_bytes(const struct checkpoint *cp, uint32_t layer);
uint64_t weights_global_bytes(const struct checkpoint *cp);
uint64_t weights_unit_bytes(const struct checkpoint *cp, const struct dense_plan *plan,
                            uint32_t unit);

/* The tensors of a unit, in an order of their own; how many. */
uint32_t weights_unit_parts(const struct checkpoint *cp, const struct dense_plan *plan,
                            uint32_t unit, struct tensor_place part[DENSE_MAX_PARTS]);
/* A streamed unit's tensors are at these addresses from now on; NULL: nowhere. */
void weights_unit_place(struct weights *w, uint32_t unit, const struct mem *at);

struct weights_options {
    const struct dense_plan *plan; /* n_blocks of it are loaded; copied */
    bool embed_on_disk;
    enum io_mode io;
    bool forbid_uring;
    /* Called now and then from the calling thread; NULL: not. Returns false to cancel. */
    bool (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
};

/* Read all dense weights that are not streamed. ERR_MEMORY, ERR_IO, ERR_TRUNCATED, ERR_INPUT (a
 * routing table that names an expert there is not, an expert whose matrices do not go together),
 * CANCELLED. Safe to close after any result. cp and ops must outlive it. */
enum status weights_load(struct weights *w, const struct checkpoint *cp, struct ops *ops,
                         const struct weights_options *options, struct err *err);
void weights_close(struct weights *w);

/* Rows of the embedding from disk, BF16, into rows[i] = row of token[i]. */
enum status weights_embed_rows(const struct weights *w, const int32_t *token, uint32_t n,
                               unsigned char *rows, struct err *err);

/* --- routed experts --------------------------------------------------------------------------- */

/* Where the experts of a checkpoint lie, as the reader counts files. */
struct expert_table {
    const struct checkpoint *cp; /* not owned */
    uint32_t *file_of;           /* checkpoint file → reader file */
    uint64_t slot_bytes;         /* the largest expert's buffer, outward rounding included */
    uint64_t expert_bytes;       /* the six tensors of one expert, without rounding */
    uint32_t n_blocks;
};

/* Adds every shard that holds experts, or what the plan streams, to the reader. ERR_IO, ERR_SYSTEM. */
enum status expert_table_open(struct expert_table *t, const struct checkpoint *cp,
                              const struct dense_plan *plan, struct reader *reader,
                              struct err *err);
void expert_table_close(struct expert_table *t);

/* `expert` is layer * n_experts + id. The form slots_options.source wants; context: the table. */
void expert_layout(void *context, uint32_t expert, struct extents_layout *out);

/* The largest expert's buffer, without a reader: for the fit check. */
uint64_t expert_slot_bytes(const struct checkpoint *cp, uint32_t n_blocks);

/* The three matrices of an expert whose layout was read to `data`. */
void expert_matrices(const struct expert_table *t, uint32_t expert, struct mem data,
                     struct matrix *w1, struct matrix *w3, struct matrix *w2);

#ifdef __cplusplus
}
#endif
#endif
