/* src/text/bpe.h - byte-pair encoding of one piece: the lowest-ranked adjacent pair is merged, the
 * leftmost of equals first, until no pair has a rank.
 *
 * Two forms of one rule: up to BPE_SHORT_BYTES the pairs are scanned anew after each merge; longer
 * pieces keep their pairs in buckets by rank, n log n at worst and linear where a rank's pairs
 * come up in order, as they do in the usual long piece (one letter repeated).
 *
 * A struct bpe does not change after the last bpe_add_merge: any number of threads may encode
 * with it, each with its own struct bpe_scratch. */
#ifndef SLUICE_SRC_TEXT_BPE_H
#define SLUICE_SRC_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Near where scanning and buckets take the same time: words of 32 to 400 random letters through
 * `tokenize_lines FILE.json bench` crossed between 256 (12.0 and 10.9 MB/s) and 400. */
#define BPE_SHORT_BYTES 256
#define BPE_NONE        UINT32_MAX

struct bpe_pair { /* one slot of a hash table with open addressing */
    uint32_t left, right;
    uint32_t rank; /* BPE_NONE: the slot is free */
};

struct bpe {
    uint32_t byte_id[256];
    uint32_t *merged_id; /* by rank: what the pair becomes */
    uint32_t n_merges;
    struct bpe_pair *pair;
    uint32_t pair_mask; /* slots - 1 */
};

/* Room for max_merges. ERR_MEMORY; bpe_close is safe afterwards either way. The caller fills
 * byte_id. */
enum status bpe_open(struct bpe *b, uint32_t max_merges, struct err *err);
void bpe_close(struct bpe *b);

/* The next merge, its rank the number of those before it. Returns BPE_NONE, or the rank of an
 * earlier merge of the same pair, and then nothing is added. */
uint32_t bpe_add_merge(struct bpe *b, uint32_t left, uint32_t right, uint32_t merged);

/* One thread's working memory; grows with the longest piece seen. */
struct bpe_scratch;
enum status bpe_scratch_open(struct bpe_scratch **out, const struct bpe *b, struct err *err);
void bpe_scratch_close(struct bpe_scratch *s); /* NULL is fine */

/* Encode a piece of 1 to 2^30 bytes. *ids points into the scratch, valid until the next call.
 * ERR_MEMORY. */
enum status bpe_encode(struct bpe_scratch *s, const char *piece, size_t n_bytes,
                       const uint32_t **ids, size_t *n_ids, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
