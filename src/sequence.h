/* src/sequence.h - one sequence's state: how far it is, and which pages hold its KV.
 *
 *   open (length 0) --a step's commit--> longer
 *                   --sequence_rollback--> shorter, by up to KV_ROLLBACK tokens, or empty
 *                   --sequence_fork--> a second sequence with the same state
 *
 * Per layer a sequence has: a window ring (the last W + KV_ROLLBACK entries), a ring of compressor
 * states (after each of the last KV_ROLLBACK + 1 tokens), compressed entries, and index keys; each
 * in pages of its own, found through a table. Forks share pages; a page that is shared is copied
 * before it is written. A step of more than KV_ROLLBACK rows writes windows and states to fresh
 * pages, which its commit puts in place: so a step that fails or is given up leaves the sequence as
 * it was.
 *
 * Called by the control thread only. */
#ifndef SLUICE_SRC_SEQUENCE_H
#define SLUICE_SRC_SEQUENCE_H

#include "cache/pages.h"
#include "kernels/ops.h"
#include "src/sluice.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KV_ROLLBACK   8      /* R: rows that can be taken back; drafts are at most this long */
#define KV_PAGE_BYTES 16384u /* four blocks: 28 entries of Pro; tables stay short at 1M tokens */

enum kv_kind { KV_WINDOW, KV_STATE, KV_INDEX_STATE, KV_ENTRIES, KV_KEYS, KV_KINDS };

/* How the KV state of a model is laid out: sizes only. */
struct kv_layout {
    const struct config *config;
    bool exact;
    uint32_t n_blocks; /* trunk layers and draft block */
    uint32_t page_bytes;
    uint32_t ring_entries;
};
void kv_layout_init(struct kv_layout *l, const struct config *config, uint32_t n_blocks,
                    bool exact);

/* Entries of a kind in a page of layer `layer`. */
struct kv_shape kv_shape_of(const struct kv_layout *l, uint32_t layer, enum kv_kind kind);
/* Pages of one kind that layer `layer` needs for a sequence of `length` tokens. Rings do not
 * depend on the length. 0: the layer has none of that kind. */
uint32_t kv_pages(const struct kv_layout *l, uint32_t layer, enum kv_kind kind, uint32_t length);
/* All pages of a sequence of `length` tokens; `rings` those that a wide step doubles meanwhile. */
uint64_t kv_pages_total(const struct kv_layout *l, uint32_t length, uint64_t *rings);
/* Pages that always suffice for n_sequences of up to max_tokens each, all of them in a wide step at
 * once, and for a snapshot of one of them that goes on, or back and on. */
uint64_t kv_pages_enough(const struct kv_layout *l, uint32_t max_tokens, uint32_t n_sequences);
/* Bytes of host memory for that many pages and the tables of these sequences. */
uint64_t kv_tables_bytes(const struct kv_layout *l, uint32_t max_tokens, uint32_t n_sequences);

/* The KV memory of an engine: pages and their bytes. */
struct kv_store {
    struct kv_layout layout;
    struct pages pages;
    struct mem memory;
    struct ops *ops; /* not owned */
};
enum status kv_store_open(struct kv_store *s, struct ops *ops, const struct kv_layout *layout,
                          uint32_t n_pages, struct err *err);
void kv_store_close(struct kv_store *s);

/* A sequence that can grow to max_tokens. Takes no pages yet. ERR_MEMORY. */
enum status sequence_open(struct sequence **out, struct kv_store *store, uint32_t max_tokens,
                          struct err *err);
/* Declared in src/sluice.h:
 *   sequence_close            not while a step has it; NULL is fine
 *   sequence_rollback_floor   the shortest length that sequence_rollback can go back to now
 *   sequence_rollback         forget the tokens from `length` on; to 0 from anywhere, else ERR_USAGE
 *                             below the floor or above the length
 *   sequence_fork             a second sequence with the same state; pages are shared until written.
 *                             A snapshot is a fork that nobody continues. ERR_MEMORY
 *   sequence_restore          become what `from` is (of the same store and at most the same
 *                             max_tokens); never fails */

/* Can the draft block go on with `token`? It must have seen every position, or its window has gaps,
 * and the last one with this token after it, for it computes with both: after a rollback, another
 * token in that place means to go back one further and take the last one in again. */
bool sequence_draft_current(const struct sequence *s, int32_t token);

/* --- for src/step.c ------------------------------------------------------------------------- */

/* Make room for n_rows more tokens in layers 0 … n_blocks−1: take pages, copy those that are shared
 * and will be written. ERR_MEMORY (the KV budget is used up) leaves the sequence usable and
 * unchanged. Marks it busy: one step at a time. */
enum status sequence_begin(struct sequence *s, uint32_t n_rows, struct err *err);

/* Page numbers of a kind in a layer, for the step under way: as the step reads and writes them.
 * `*n` of them; for entries and keys those that hold something or will. */
const uint32_t *sequence_pages(const struct sequence *s, uint32_t layer, enum kv_kind kind,
                               bool write, uint32_t *n);

/* The rows of sequence_begin are part of it now. draft_next: the token after each of them, with which
 * the draft block has seen them too; NULL: it has not. */
void sequence_commit(struct sequence *s, const int32_t *draft_next);
/* As before sequence_begin. `ran`: ops of the step may have run; what a narrow step has then written
 * in place of older states raises the rollback floor. */
void sequence_abandon(struct sequence *s, bool ran);

/* Assert that tables and pages agree; for tests. */
void sequence_check(const struct sequence *s);

#ifdef __cplusplus
}
#endif
#endif
