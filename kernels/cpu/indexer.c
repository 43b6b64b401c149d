#include "kernels/cpu/kv.h"

#include <omp.h>
#include <string.h>

/* Index scores and their k highest, for contexts of any length: keys are scored in blocks and
 * offered to a heap of k, so nothing grows with the context. A row's keys may be split among
 * threads: each finds the k highest of its part, and the k highest of these are the answer, which
 * is unique because candidates are totally ordered. */

#define KEY_GROUP 32 /* columns that share a scale */
/* Keys scored between offers to the heap: a few vectors of them. */
#define KEY_BLOCK 64
/* Fewer keys than this are not worth a second thread: about 25 us of work with Pro's 64 heads. */
#define KEYS_PER_THREAD 256
_Static_assert(KEYS_PER_THREAD % KEY_BLOCK == 0 && KEY_BLOCK % KEY_LANES == 0, "whole blocks");

/* --- Hadamard ------------------------------------------------------------------------------- */

void cpu_hadamard(struct ops *ops, const struct hadamard *a) {
    const struct cpu_ops *c = cpu_of(ops);
    float *x = cpu_ptr(a->x);
#pragma omp parallel for num_threads(c->n_threads) schedule(static) if (a->n_rows > 64)
    for (uint32_t row = 0; row < a->n_rows; row++)
        c->forms->hadamard(x + (size_t)row * a->dim, a->dim);
}

/* --- the k highest -------------------------------------------------------------------------- */

/* A candidate as one integer, larger is better: the score's bits made monotonic, then ~j, so that
 * among equal scores the lower j wins. Zeros of either sign are equal scores. */
static inline uint64_t candidate(float score, uint32_t j) {
    uint32_t bits = float_bits(score + 0.0f);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~j;
}
static inline uint32_t candidate_entry(uint64_t candidate) {
    return ~(uint32_t)candidate;
}

/* The best `most` so far, as a heap with the worst on top. */
struct best {
    uint64_t *heap;
    uint32_t n, most;
};

static void sift_down(uint64_t *heap, uint32_t n, uint32_t i) {
    uint64_t moving = heap[i];
    for (uint32_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (moving <= heap[child])
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}
static void make_heap(uint64_t *heap, uint32_t n) {
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i);
}

static inline void best_offer(struct best *b, uint64_t candidate) {
    if (b->n < b->most) {
        b->heap[b->n++] = candidate;
        if (b->n == b->most) // a heap from here on
            make_heap(b->heap, b->n);
    } else if (candidate > b->heap[0]) {
        b->heap[0] = candidate;
        sift_down(b->heap, b->n, 0);
    }
}

/* Their entries ascending, then −1. Uses the heap up. */
static void best_write(struct best *b, int32_t *chosen) {
    for (uint32_t i = 0; i < b->n; i++)
        b->heap[i] = candidate_entry(b->heap[i]);
    make_heap(b->heap, b->n);
    for (uint32_t i = 0; i < b->most; i++) {
        chosen[i] = -1;
        if (b->n > 0) {
            chosen[i] = (int32_t)b->heap[0];
            b->heap[0] = b->heap[--b->n];
            sift_down(b->heap, b->n, 0);
        }
    }
}

/* --- scores --------------------------------------------------------------------------------- */

struct indexer {
    const struct index_topk *a;
    const struct cpu_forms *forms;
    struct kv_pages pages;
    struct kv_shape shape;
    const float *q, *weights;
    uint32_t ci, n_groups;
    bool exact;
};

/* A thread's scratch. */
struct index_scratch {
    struct best best;
    float *weight;            /* [Hi]: w_h of the row */
    struct index_query query; /* the row's, rounded */
    float *exact;             /* [ci]: a key, in exact mode */
    float *score;             /* [KEY_BLOCK] */
};

static struct index_scratch scratch_of(const struct indexer *x, unsigned char *memory) {
    size_t heads = x->a->n_heads, groups = heads * x->n_groups, used = 0;
    struct index_scratch s = { .query = { .n_heads = x->a->n_heads, .n_groups = x->n_groups } };
#define TAKE(member, count)                                                                        \
    s.member = (void *)(memory + used);                                                            \
    used += ((count) * sizeof *s.member + 63) & ~(size_t)63;
    TAKE(best.heap, x->a->k)
    TAKE(weight, heads)
    TAKE(query.scale, groups)
    TAKE(query.code, groups * KEY_GROUP)
    TAKE(query.minus, groups)
    TAKE(exact, x->ci)
    TAKE(score, (size_t)KEY_BLOCK)
#undef TAKE
    assert(used <= CPU_THREAD_BYTES);
    s.query.weight = s.weight;
    s.best.n = 0;
    s.best.most = x->a->k;
    return s;
}

/* The row's query, rounded, and its weights. */
static void load_query(const struct indexer *x, uint32_t i, struct index_scratch *s) {
    const struct index_topk *a = x->a;
    for (size_t h = 0; h < a->n_heads; h++)
        s->weight[h] = x->weights[(size_t)i * a->n_heads + h] * a->weight_scale;
    if (!x->exact)
        x->forms->query(&s->query, x->q + (size_t)i * a->n_heads * x->ci);
}

/* Scores of keys first … +n of a sequence. Lanes that are too many score the last key again. */
static void score_block(const struct indexer *x, uint32_t table, uint32_t first, uint32_t n,
                        const struct index_scratch *s) {
    for (uint32_t at = 0; at < n; at += KEY_LANES) {
        const unsigned char *keys[KEY_LANES];
        for (uint32_t j = 0; j < KEY_LANES; j++)
            keys[j] = kv_at(&x->pages, x->shape, table, first + (at + j < n ? at + j : n - 1));
        x->forms->index_scores(s->score + at, &s->query, keys);
    }
}

/* Exact mode: T16 of what was not rounded. */
static void score_block_exact(const struct indexer *x, uint32_t i, uint32_t table, uint32_t first,
                              uint32_t n, const struct index_scratch *s) {
    size_t ci = x->ci, n_heads = x->a->n_heads;
    for (uint32_t j = 0; j < n; j++) {
        memcpy(s->exact, kv_at(&x->pages, x->shape, table, first + j), ci * sizeof(float));
        float score = -0.0f;
        for (size_t h = 0; h < n_heads; h++) {
            float dot = arith_dot16(x->q + ((size_t)i * n_heads + h) * ci, s->exact, x->ci);
            score = fmaf(s->weight[h], dot > 0.0f ? dot : 0.0f, score);
        }
        s->score[j] = score;
    }
}

/* --- rows ----------------------------------------------------------------------------------- */

/* Offer entries first … end of row i (of those asked for) to s->best. */
static void search(const struct indexer *x, const struct kv_rows *seq, uint32_t i, uint32_t first,
                   uint32_t end, struct index_scratch *s) {
    if (first >= end)
        return;
    load_query(x, i, s);
    for (uint32_t block = first; block < end; block += KEY_BLOCK) {
        uint32_t n = end - block < KEY_BLOCK ? end - block : KEY_BLOCK;
        if (x->exact)
            score_block_exact(x, i, seq->keys, block, n, s);
        else
            score_block(x, seq->keys, block, n, s);
        for (uint32_t j = 0; j < n; j++)
            best_offer(&s->best, candidate(s->score[j], block + j));
    }
}

/* Entries that row i sees. */
static uint32_t visible(const struct indexer *x, uint32_t i) {
    uint32_t row = x->a->first_row + i;
    return (kv_position(kv_rows_of(&x->pages, row), row) + 1) / x->a->m;
}

/* All entries, where there are no more than k: no score decides anything. */
static void choose_all(uint32_t n, uint32_t k, int32_t *chosen) {
    for (uint32_t j = 0; j < k; j++)
        chosen[j] = j < n ? (int32_t)j : -1;
}

/* Row i by one thread. */
static void choose(const struct indexer *x, uint32_t i, int32_t *chosen, unsigned char *memory) {
    struct index_scratch s = scratch_of(x, memory);
    uint32_t n = visible(x, i), k = x->a->k;
    if (n <= k) {
        choose_all(n, k, chosen);
        return;
    }
    search(x, kv_rows_of(&x->pages, x->a->first_row + i), i, 0, n, &s);
    best_write(&s.best, chosen);
}

/* Row i, its entries dealt out to all threads in parts; part p's best stay in p's scratch. */
static void choose_together(const struct indexer *x, const struct cpu_ops *c, uint32_t i,
                            int32_t *chosen) {
    const struct kv_rows *seq = kv_rows_of(&x->pages, x->a->first_row + i);
    uint32_t n = visible(x, i), k = x->a->k, most_parts = (uint32_t)c->n_threads;
    if (n <= k) {
        choose_all(n, k, chosen);
        return;
    }
    uint32_t length = n / most_parts + 1;
    length = (length + KEYS_PER_THREAD - 1) / KEYS_PER_THREAD * KEYS_PER_THREAD;
    uint32_t n_parts = (n + length - 1) / length;
#pragma omp parallel for num_threads(c->n_threads) schedule(static, 1) if (n_parts > 1)
    for (uint32_t part = 0; part < n_parts; part++) {
        struct index_scratch s = scratch_of(x, cpu_scratch(c, (int)part));
        uint32_t first = part * length, end = n - first < length ? n : first + length;
        search(x, seq, i, first, end, &s);
    }
    struct best best = scratch_of(x, cpu_scratch(c, 0)).best;
    best.n = length < k ? length : k;
    for (uint32_t part = 1; part < n_parts; part++) {
        const uint64_t *found = scratch_of(x, cpu_scratch(c, (int)part)).best.heap;
        uint32_t size = n - part * length < length ? n - part * length : length;
        for (uint32_t j = 0; j < size && j < k; j++)
            best_offer(&best, found[j]);
    }
    best_write(&best, chosen);
}

void cpu_index_topk(struct ops *ops, const struct index_topk *a) {
    const struct cpu_ops *c = cpu_of(ops);
    struct indexer x = {
        .a = a,
        .forms = c->forms,
        .pages = kv_pages_of(&a->kv),
        .shape = kv_shape(index_key_bytes(ops->exact, a->kv.index_dim), a->kv.page_bytes),
        .q = cpu_ptr(a->q),
        .weights = cpu_ptr(a->weights),
        .ci = a->kv.index_dim,
        .n_groups = a->kv.index_dim / KEY_GROUP,
        .exact = ops->exact,
    };
    assert(a->k > 0 && a->m > 0 && x.ci % KEY_GROUP == 0);
    int32_t *chosen = cpu_ptr(a->chosen);
    if (a->n_rows < (uint32_t)c->n_threads) {
        for (uint32_t i = 0; i < a->n_rows; i++)
            choose_together(&x, c, i, chosen + (size_t)i * a->k);
        return;
    }
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic, 1)
    for (uint32_t i = 0; i < a->n_rows; i++)
        choose(&x, i, chosen + (size_t)i * a->k, cpu_scratch(c, omp_get_thread_num()));
}
