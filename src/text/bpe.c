#include "src/text/bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table of merges ---- */

static uint32_t pair_hash(uint32_t left, uint32_t right) {
    uint64_t key = (uint64_t)left << 32 | right;
    key *= 0x9E3779B97F4A7C15u; // 2^64 / golden ratio: spreads consecutive ids
    return (uint32_t)(key >> 32);
}

/* The slot of a pair: where it is, or where it would go. */
static struct bpe_pair *pair_slot(const struct bpe *b, uint32_t left, uint32_t right) {
    uint32_t i = pair_hash(left, right) & b->pair_mask;
    for (;; i = (i + 1) & b->pair_mask) {
        struct bpe_pair *p = &b->pair[i];
        if (p->rank == BPE_NONE || (p->left == left && p->right == right))
            return p;
    }
}

static uint32_t pair_rank(const struct bpe *b, uint32_t left, uint32_t right) {
    return pair_slot(b, left, right)->rank;
}

enum status bpe_open(struct bpe *b, uint32_t max_merges, struct err *err) {
    *b = (struct bpe){ .pair_mask = 15 };
    while (b->pair_mask + 1 < (uint64_t)max_merges * 2) // at most half full: short probes
        b->pair_mask = b->pair_mask * 2 + 1;
    b->pair = malloc(((size_t)b->pair_mask + 1) * sizeof *b->pair);
    b->merged_id = malloc(((size_t)max_merges + 1) * sizeof *b->merged_id);
    if (!b->pair || !b->merged_id) {
        bpe_close(b);
        return err_set(err, ERR_MEMORY, "no memory for the tokenizer's %u merges", max_merges);
    }
    for (size_t i = 0; i <= b->pair_mask; i++)
        b->pair[i].rank = BPE_NONE;
    return OK;
}

void bpe_close(struct bpe *b) {
    free(b->pair);
    free(b->merged_id);
    b->pair = NULL;
    b->merged_id = NULL;
}

uint32_t bpe_add_merge(struct bpe *b, uint32_t left, uint32_t right, uint32_t merged) {
    struct bpe_pair *p = pair_slot(b, left, right);
    if (p->rank != BPE_NONE)
        return p->rank;
    *p = (struct bpe_pair){ left, right, b->n_merges };
    b->merged_id[b->n_merges++] = merged;
    return BPE_NONE;
}

/* ---- scratch ---- */

/* One symbol of a long piece, at the index of its first byte. */
struct symbol {
    uint32_t id;             /* BPE_NONE: merged into the one before it */
    uint32_t previous, next; /* BPE_NONE at the ends */
    uint32_t rank;           /* of the pair that it and the next one make; BPE_NONE if none */
};

/* Positions whose pair had this rank when they came in; a position is stale once its symbol's
 * rank is another. As long as positions come in ascending, entry[head..n) is taken from the
 * front; one that comes out of order turns what is left into a heap (an ascending array is one). */
struct bucket {
    uint32_t rank;
    bool listed; /* among the ranks of `listed` below */
    bool heap;
    size_t head, n, capacity;
    uint32_t *entry;
};

struct bpe_scratch {
    const struct bpe *b;
    uint32_t short_ids[BPE_SHORT_BYTES];
    struct symbol *symbol;
    size_t symbol_capacity;
    uint32_t *bucket_of;   /* by rank: its bucket, BPE_NONE while it has none */
    struct bucket *bucket; /* the first n_buckets are this piece's; the others keep their memory */
    uint32_t n_buckets, buckets_capacity;
    uint32_t *listed; /* heap of the ranks whose bucket may hold something */
    uint32_t n_listed;
};

enum status bpe_scratch_open(struct bpe_scratch **out, const struct bpe *b, struct err *err) {
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_set(err, ERR_MEMORY, "no memory to encode a text");
    (*out)->b = b;
    return OK;
}

void bpe_scratch_close(struct bpe_scratch *s) {
    if (!s)
        return;
    for (uint32_t i = 0; i < s->buckets_capacity; i++)
        free(s->bucket[i].entry);
    free(s->bucket);
    free(s->bucket_of);
    free(s->listed);
    free(s->symbol);
    free(s);
}

/* ---- short pieces ---- */

static size_t encode_short(struct bpe_scratch *s, const unsigned char *piece, size_t n) {
    const struct bpe *b = s->b;
    uint32_t *id = s->short_ids;
    uint32_t rank[BPE_SHORT_BYTES]; // of the pair (i, i + 1)
    for (size_t i = 0; i < n; i++)
        id[i] = b->byte_id[piece[i]];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) // the leftmost of equals stays
                best = i;
        if (rank[best] == BPE_NONE)
            break;
        id[best] = b->merged_id[rank[best]];
        size_t rest = n - best - 2;
        memmove(id + best + 1, id + best + 2, rest * sizeof *id);
        if (rest)
            memmove(rank + best + 1, rank + best + 2, (rest - 1) * sizeof *rank);
        n--;
        if (best + 1 < n)
            rank[best] = pair_rank(b, id[best], id[best + 1]);
        if (best > 0)
            rank[best - 1] = pair_rank(b, id[best - 1], id[best]);
    }
    return n;
}

/* ---- heaps of uint32, the smallest first ---- */

static void heap_up(uint32_t *heap, size_t i) {
    uint32_t value = heap[i];
    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

/* Takes the top off a heap of n > 0; n - 1 are left. */
static uint32_t heap_pop(uint32_t *heap, size_t n) {
    uint32_t top = heap[0], value = heap[--n];
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= value)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
    return top;
}

/* ---- long pieces ---- */

/* Doubles an array until it holds `need`. */
static bool grow(void **array, size_t *capacity, size_t need, size_t item_bytes) {
    if (need <= *capacity)
        return true;
    size_t wanted = *capacity ? *capacity : 16;
    while (wanted < need)
        wanted *= 2;
    void *bigger = realloc(*array, wanted * item_bytes);
    if (!bigger)
        return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

/* Room for one bucket more, and for its rank in the heap. */
static bool grow_buckets(struct bpe_scratch *s) {
    if (s->n_buckets < s->buckets_capacity)
        return true;
    uint32_t more = s->buckets_capacity ? s->buckets_capacity * 2 : 64;
    uint32_t *listed = realloc(s->listed, more * sizeof *listed);
    if (!listed)
        return false;
    s->listed = listed;
    struct bucket *bucket = realloc(s->bucket, more * sizeof *bucket);
    if (!bucket)
        return false;
    s->bucket = bucket;
    memset(bucket + s->buckets_capacity, 0, (more - s->buckets_capacity) * sizeof *bucket);
    s->buckets_capacity = more;
    return true;
}

static bool bucket_push(struct bpe_scratch *s, uint32_t rank, uint32_t position) {
    if (s->bucket_of[rank] == BPE_NONE) {
        if (!grow_buckets(s))
            return false;
        struct bucket *fresh = &s->bucket[s->n_buckets];
        fresh->rank = rank;
        fresh->listed = false;
        fresh->head = fresh->n = 0;
        s->bucket_of[rank] = s->n_buckets++;
    }
    struct bucket *u = &s->bucket[s->bucket_of[rank]];
    if (!grow((void **)&u->entry, &u->capacity, u->n + 1, sizeof *u->entry))
        return false;
    if (u->head == u->n) {
        u->head = u->n = 0;
        u->heap = false;
    }
    u->heap |= u->n > u->head && position < u->entry[u->n - 1];
    u->entry[u->n++] = position;
    if (u->heap)
        heap_up(u->entry + u->head, u->n - u->head - 1);
    if (!u->listed) {
        u->listed = true;
        s->listed[s->n_listed++] = rank;
        heap_up(s->listed, s->n_listed - 1);
    }
    return true;
}

static uint32_t bucket_pop(struct bucket *u) {
    if (!u->heap)
        return u->entry[u->head++];
    uint32_t position = heap_pop(u->entry + u->head, u->n - u->head);
    u->n--;
    return position;
}

/* The pair that begins at a symbol is another now: look its rank up and list it. */
static bool rerank(struct bpe_scratch *s, uint32_t at) {
    struct symbol *left = &s->symbol[at];
    left->rank =
        left->next == BPE_NONE ? BPE_NONE : pair_rank(s->b, left->id, s->symbol[left->next].id);
    return left->rank == BPE_NONE || bucket_push(s, left->rank, at);
}

/* Merge the pair that begins at a symbol. */
static bool merge_at(struct bpe_scratch *s, uint32_t at) {
    struct symbol *left = &s->symbol[at], *right = &s->symbol[left->next];
    left->id = s->b->merged_id[left->rank];
    left->next = right->next;
    right->rank = BPE_NONE; // makes its entry stale
    right->id = BPE_NONE;
    if (left->next != BPE_NONE)
        s->symbol[left->next].previous = at;
    return rerank(s, at) && (left->previous == BPE_NONE || rerank(s, left->previous));
}

static bool merge_all(struct bpe_scratch *s) {
    while (s->n_listed) {
        uint32_t rank = s->listed[0];
        struct bucket *u = &s->bucket[s->bucket_of[rank]];
        if (u->head == u->n) {
            u->listed = false;
            heap_pop(s->listed, s->n_listed--);
            continue;
        }
        uint32_t at = bucket_pop(u);
        if (s->symbol[at].rank == rank && !merge_at(s, at))
            return false;
    }
    return true;
}

static bool long_begin(struct bpe_scratch *s, const unsigned char *piece, uint32_t n) {
    if (!grow((void **)&s->symbol, &s->symbol_capacity, n, sizeof *s->symbol))
        return false;
    if (!s->bucket_of) {
        s->bucket_of = malloc(((size_t)s->b->n_merges + 1) * sizeof *s->bucket_of);
        if (!s->bucket_of)
            return false;
        memset(s->bucket_of, 0xFF, ((size_t)s->b->n_merges + 1) * sizeof *s->bucket_of);
    }
    for (uint32_t i = 0; i < n; i++)
        s->symbol[i] = (struct symbol){ .id = s->b->byte_id[piece[i]],
                                        .previous = i ? i - 1 : BPE_NONE,
                                        .next = i + 1 < n ? i + 1 : BPE_NONE };
    for (uint32_t i = 0; i < n; i++)
        if (!rerank(s, i))
            return false;
    return true;
}

static void long_end(struct bpe_scratch *s) {
    for (uint32_t i = 0; i < s->n_buckets; i++)
        s->bucket_of[s->bucket[i].rank] = BPE_NONE;
    s->n_buckets = 0;
    s->n_listed = 0;
}

enum status bpe_encode(struct bpe_scratch *s, const char *piece, size_t n_bytes,
                       const uint32_t **ids, size_t *n_ids, struct err *err) {
    if (n_bytes <= BPE_SHORT_BYTES) {
        *n_ids = encode_short(s, (const unsigned char *)piece, n_bytes);
        *ids = s->short_ids;
        return OK;
    }
    bool done = long_begin(s, (const unsigned char *)piece, (uint32_t)n_bytes) && merge_all(s);
    long_end(s);
    if (!done)
        return err_set(err, ERR_MEMORY, "no memory to encode a word of %zu bytes", n_bytes);
    // The ids take the place of the symbols: the k-th id lies before the symbol it came from.
    uint32_t *packed = (uint32_t *)s->symbol;
    size_t n = 0;
    for (uint32_t at = 0; at != BPE_NONE;) {
        struct symbol symbol = s->symbol[at];
        packed[n++] = symbol.id;
        at = symbol.next;
    }
    *ids = packed;
    *n_ids = n;
    return OK;
}
