#include "kernels/cpu/kv.h"

#include <omp.h>
#include <string.h>

/* A unit of work is a row and some of its heads. Their keys are unpacked to float in blocks, twice:
 * once for the scores and their maximum, once for exp, denominator and values. The canonical order
 * wants the maximum of all keys before the first exp, so there is no running softmax. Unpacking is
 * shared by the unit's heads, and units of a row can be shared among threads. */

/* Heads of a unit: unpacking a key's 512 columns costs what three heads do with it, twice. So as many
 * as scratch holds, unless threads would be left without work. */
#define MOST_HEADS  64
#define LEAST_HEADS 8
/* Keys unpacked together: 32 of Pro's are 64 KiB, in L2, which heads read a few columns at a time. */
#define KEY_BLOCK 32
/* Keys whose scores are kept between the passes: window and compressed entries of a 1M context at
 * m = 128 (8192 + 128), a multiple of KEY_BLOCK; 2.1 MiB with 64 heads. The scores of what lies
 * beyond (m = 4 without an index) are computed again, which gives the same bits. */
#define KEPT_KEYS 8320
_Static_assert(KEPT_KEYS % KEY_BLOCK == 0, "a block is kept or is not");

/* What the heads of a row attend to: n_window entries from position `oldest` on, then compressed. */
struct row_keys {
    struct kv_pages pages;
    struct kv_shape shape;
    const struct kv_rows *seq;
    const unsigned char *fresh;
    const int32_t *chosen; /* NULL: all */
    uint32_t oldest, n_window, n, ring_entries;
};

static struct row_keys row_keys(const struct attention *a, bool exact, uint32_t i) {
    struct row_keys k = { .pages = kv_pages_of(&a->kv), .ring_entries = a->kv.ring_entries };
    uint32_t row = a->first_row + i;
    k.shape = kv_shape(kv_entry_bytes(exact, a->kv.c, a->kv.r), a->kv.page_bytes);
    k.seq = kv_rows_of(&k.pages, row);
    k.fresh = cpu_ptr(a->fresh);
    uint32_t t = kv_position(k.seq, row);
    k.n_window = t + 1 < a->window ? t + 1 : a->window;
    k.oldest = t + 1 - k.n_window;
    k.n = k.n_window;
    if (a->m == 0)
        return k;
    uint32_t n_entries = (t + 1) / a->m;
    const int32_t *chosen = cpu_ptr(a->chosen);
    if (!chosen) {
        k.n += n_entries;
        return k;
    }
    k.chosen = chosen + (size_t)i * a->k;
    for (uint32_t j = 0; j < a->k && k.chosen[j] >= 0; j++) {
        assert((uint32_t)k.chosen[j] < n_entries);
        k.n++;
    }
    return k;
}

/* Key i, in the order in which they are summed. */
static const unsigned char *key_at(const struct row_keys *k, uint32_t i) {
    const struct kv_rows *s = k->seq;
    if (i >= k->n_window) {
        uint32_t j = i - k->n_window;
        return kv_at(&k->pages, k->shape, s->entries, k->chosen ? (uint32_t)k->chosen[j] : j);
    }
    uint32_t position = k->oldest + i;
    if (position >= s->start)
        return k->fresh + (size_t)(s->first_row + (position - s->start)) * k->shape.entry_bytes;
    return kv_at(&k->pages, k->shape, s->window_read, position % k->ring_entries);
}

/* --- a unit --------------------------------------------------------------------------------- */

/* A thread's scratch, for a unit of `heads`; scores lie in rows of `stride`, vectors of 16 heads. */
struct unit_scratch {
    size_t stride;
    float *kept;        /* [KEPT_KEYS, stride] scores of the first keys */
    float *again;       /* [KEY_BLOCK, stride] of a block beyond */
    float *keys;        /* [KEY_BLOCK, c] */
    float *o;           /* [heads, c] */
    float *most;        /* [stride] */
    float *denominator; /* [stride] */
    size_t bytes;
};

static struct unit_scratch scratch_of(void *memory, uint32_t heads, uint32_t c) {
    struct unit_scratch s = { .stride = (heads + 15) / 16 * 16 };
    s.kept = memory;
    s.again = s.kept + KEPT_KEYS * s.stride;
    s.most = s.again + KEY_BLOCK * s.stride;
    s.denominator = s.most + s.stride;
    s.keys = s.denominator + s.stride;
    s.o = s.keys + (size_t)KEY_BLOCK * c;
    s.bytes =
        ((KEPT_KEYS + KEY_BLOCK + 2) * s.stride + (size_t)(KEY_BLOCK + heads) * c) * sizeof(float);
    return s;
}

static uint32_t heads_of_a_unit(const struct attention *a, int n_threads) {
    uint32_t heads = MOST_HEADS;
    while (heads > LEAST_HEADS &&
           (scratch_of(NULL, heads, a->kv.c).bytes > CPU_THREAD_BYTES ||
            (uint64_t)a->n_rows * a->n_heads < 2 * (uint64_t)n_threads * heads))
        heads /= 2;
    return heads;
}

/* What all units of an op have in common. */
struct attending {
    const struct attention *a;
    const struct cpu_forms *forms;
    bool exact;
};

static void unpack_keys(const struct attending *t, const struct row_keys *k, uint32_t first,
                        uint32_t n, float *keys) {
    const uint32_t c = t->a->kv.c;
    for (uint32_t i = 0; i < n; i++)
        kv_entry_unpack(t->forms, t->exact, key_at(k, first + i), c, t->a->kv.r,
                        keys + (size_t)i * c);
}

/* Row i, heads `head` … +n_heads. */
static void attend(const struct attending *t, uint32_t i, uint32_t head, uint32_t n_heads,
                   void *memory) {
    const struct attention *a = t->a;
    const struct cpu_forms *forms = t->forms;
    const uint32_t c = a->kv.c;
    const struct row_keys k = row_keys(a, t->exact, i);
    const struct unit_scratch s = scratch_of(memory, n_heads, c);
    const size_t at = ((size_t)i * a->n_heads + head) * c;
    const float *q = (const float *)cpu_ptr(a->q) + at;
    const float scale = inverse_root(c);
    assert(s.bytes <= CPU_THREAD_BYTES);

    // Scores and their maximum.
    for (uint32_t h = 0; h < s.stride; h++)
        s.most[h] = -INFINITY;
    for (uint32_t first = 0; first < k.n; first += KEY_BLOCK) {
        uint32_t n = k.n - first < KEY_BLOCK ? k.n - first : KEY_BLOCK;
        float *score = first < KEPT_KEYS ? s.kept + first * s.stride : s.again;
        unpack_keys(t, &k, first, n, s.keys);
        forms->scores(score, s.stride, q, n_heads, s.keys, n, c, scale);
        forms->most(s.most, score, s.stride, n, n_heads);
    }

    // Weights, denominator, values. From −0, the first sum is the first term, and the first fmaf the
    // first product, whatever their signs: seq has no +0 to begin with.
    for (uint32_t h = 0; h < s.stride; h++)
        s.denominator[h] = -0.0f;
    for (size_t d = 0; d < (size_t)n_heads * c; d++)
        s.o[d] = -0.0f;
    for (uint32_t first = 0; first < k.n; first += KEY_BLOCK) {
        uint32_t n = k.n - first < KEY_BLOCK ? k.n - first : KEY_BLOCK;
        float *score = first < KEPT_KEYS ? s.kept + first * s.stride : s.again;
        if (k.n > KEY_BLOCK) // else the keys still lie there
            unpack_keys(t, &k, first, n, s.keys);
        if (first >= KEPT_KEYS)
            forms->scores(score, s.stride, q, n_heads, s.keys, n, c, scale);
        forms->weights(score, s.stride, n, n_heads, s.most, s.denominator);
        forms->values(s.o, score, s.stride, n_heads, s.keys, n, c);
    }

    // The sink, and out: o may be where q was, which is not needed any more.
    const unsigned char *sink = cpu_ptr(a->sink);
    float *o = (float *)cpu_ptr(a->o) + at;
    for (uint32_t h = 0; h < n_heads; h++) {
        float of_sink = load_f32(sink + (size_t)4 * (head + h));
        float total = s.denominator[h] + arith_exp(of_sink - s.most[h]);
        forms->divide(o + (size_t)h * c, s.o + (size_t)h * c, total, c);
    }
}

void cpu_attention(struct ops *ops, const struct attention *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const struct attending t = { a, c->forms, ops->exact };
    const uint32_t heads = heads_of_a_unit(a, c->n_threads);
    const uint32_t per_row = (a->n_heads + heads - 1) / heads;
    const size_t n_units = (size_t)a->n_rows * per_row;
    assert(a->window > 0 && a->kv.ring_entries >= a->window);
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic, 1)
    for (size_t unit = 0; unit < n_units; unit++) {
        uint32_t i = (uint32_t)(unit / per_row), head = (uint32_t)(unit % per_row) * heads;
        uint32_t n_heads = a->n_heads - head < heads ? a->n_heads - head : heads;
        attend(&t, i, head, n_heads, cpu_scratch(c, omp_get_thread_num()));
    }
}
