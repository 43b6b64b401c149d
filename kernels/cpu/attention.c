#include "kernels/cpu/kv.h"

#include <omp.h>
#include <string.h>

/* A unit of work is a row and a few of its heads. Their keys are unpacked to float in blocks, twice:
 * once for the scores and their maximum, once for exp, denominator and values. The canonical order
 * wants the maximum of all keys before the first exp, so there is no running softmax. Unpacking is
 * shared by the unit's heads, and units of a row can be shared among threads. */

/* Heads of a unit: a vector of each key's scores. Unpacking is then a third of the time (AVX-512,
 * Pro's shape); more heads would make that less and leave fewer units to share a decoded row. */
#define HEADS 8
/* Keys unpacked together: 16 of Pro's are 32 KiB, and heads pass over them while they are in L1/L2. */
#define KEY_BLOCK 16
/* Keys whose scores are kept between the passes: window and compressed entries of a 1M context at
 * m = 128 (8192 + 128), a multiple of KEY_BLOCK; 266 KiB with 8 heads. The scores of what lies
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

/* --- scores --------------------------------------------------------------------------------- */

static inline void lanes_fma(float *restrict lanes, const float *a, const float *b, size_t n) {
#pragma omp simd
    for (size_t l = 0; l < n; l++)
        lanes[l] = fmaf(a[l], b[l], lanes[l]);
}

/* arith_dot16 of four queries, `stride` apart, with one key: four chains hide fma's latency. */
static inline void dot16_by_4(const float *q, size_t stride, const float *key, size_t c,
                              float out[4]) {
    const float *q0 = q, *q1 = q0 + stride, *q2 = q1 + stride, *q3 = q2 + stride;
    float lanes0[16] = { 0 }, lanes1[16] = { 0 }, lanes2[16] = { 0 }, lanes3[16] = { 0 };
    size_t i = 0;
    for (; i + 16 <= c; i += 16) {
        lanes_fma(lanes0, q0 + i, key + i, 16);
        lanes_fma(lanes1, q1 + i, key + i, 16);
        lanes_fma(lanes2, q2 + i, key + i, 16);
        lanes_fma(lanes3, q3 + i, key + i, 16);
    }
    lanes_fma(lanes0, q0 + i, key + i, c - i);
    lanes_fma(lanes1, q1 + i, key + i, c - i);
    lanes_fma(lanes2, q2 + i, key + i, c - i);
    lanes_fma(lanes3, q3 + i, key + i, c - i);
    out[0] = arith_tree16(lanes0);
    out[1] = arith_tree16(lanes1);
    out[2] = arith_tree16(lanes2);
    out[3] = arith_tree16(lanes3);
}

/* score[i][h] = (q_h·key_i)·scale for n keys; heads that the unit lacks get 0. */
CPU_CLONES
static void score_keys(const float *q, uint32_t n_heads, const float *keys, uint32_t n, uint32_t c,
                       float scale, float (*score)[HEADS]) {
    for (uint32_t i = 0; i < n; i++) {
        const float *key = keys + (size_t)i * c;
        float dots[HEADS] = { 0 };
        uint32_t h = 0;
        for (; h + 4 <= n_heads; h += 4)
            dot16_by_4(q + (size_t)h * c, c, key, c, dots + h);
        for (; h < n_heads; h++)
            dots[h] = arith_dot16(q + (size_t)h * c, key, c);
        for (h = 0; h < HEADS; h++)
            score[i][h] = dots[h] * scale;
    }
}

/* --- values --------------------------------------------------------------------------------- */

/* score[i][h] becomes exp(score − max_h), and is added to denominator_h, i ascending. */
CPU_CLONES
static void exp_keys(float (*score)[HEADS], uint32_t n, const float *max, float *denominator) {
    for (uint32_t i = 0; i < n; i++)
#pragma omp simd
        for (int h = 0; h < HEADS; h++) {
            score[i][h] = arith_exp(score[i][h] - max[h]);
            denominator[h] += score[i][h];
        }
}

/* o_h = fmaf(e[i][h], key_i, o_h), i ascending; four keys between a load and a store of o. */
CPU_CLONES
static void add_values(const float (*e)[HEADS], uint32_t n_heads, const float *keys, uint32_t n,
                       size_t c, float *o) {
    for (uint32_t h = 0; h < n_heads; h++) {
        float *restrict sum = o + h * c;
        uint32_t i = 0;
        for (; i + 4 <= n; i += 4) {
            const float *k0 = keys + i * c, *k1 = k0 + c, *k2 = k1 + c, *k3 = k2 + c;
            float e0 = e[i][h], e1 = e[i + 1][h], e2 = e[i + 2][h], e3 = e[i + 3][h];
#pragma omp simd
            for (size_t d = 0; d < c; d++)
                sum[d] = fmaf(e3, k3[d], fmaf(e2, k2[d], fmaf(e1, k1[d], fmaf(e0, k0[d], sum[d]))));
        }
        for (; i < n; i++) {
            const float *key = keys + i * c;
#pragma omp simd
            for (size_t d = 0; d < c; d++)
                sum[d] = fmaf(e[i][h], key[d], sum[d]);
        }
    }
}

/* --- a unit --------------------------------------------------------------------------------- */

/* A thread's scratch. */
struct unit_scratch {
    float (*kept)[HEADS];  /* [KEPT_KEYS] scores of the first keys */
    float (*again)[HEADS]; /* [KEY_BLOCK] of a block beyond */
    float *keys;           /* [KEY_BLOCK, c] */
    float *o;              /* [HEADS, c] */
};

static struct unit_scratch scratch_of(void *memory, uint32_t c) {
    struct unit_scratch s;
    s.kept = memory;
    s.again = s.kept + KEPT_KEYS;
    s.keys = (float *)(s.again + KEY_BLOCK);
    s.o = s.keys + (size_t)KEY_BLOCK * c;
    assert((size_t)((char *)(s.o + (size_t)HEADS * c) - (char *)memory) <= CPU_THREAD_BYTES);
    return s;
}

static void unpack_keys(const struct row_keys *k, bool exact, const struct attention *a,
                        uint32_t first, uint32_t n, float *keys) {
    for (uint32_t i = 0; i < n; i++)
        kv_entry_unpack(exact, key_at(k, first + i), a->kv.c, a->kv.r, keys + (size_t)i * a->kv.c);
}

/* Row i, heads `head` … +n_heads: at most HEADS. */
static void attend(const struct attention *a, bool exact, uint32_t i, uint32_t head,
                   uint32_t n_heads, void *memory) {
    uint32_t c = a->kv.c;
    struct row_keys k = row_keys(a, exact, i);
    struct unit_scratch s = scratch_of(memory, c);
    size_t at = ((size_t)i * a->n_heads + head) * c;
    const float *q = (const float *)cpu_ptr(a->q) + at;
    float scale = inverse_root(c), max[HEADS], denominator[HEADS];

    // Scores and their maximum.
    for (int h = 0; h < HEADS; h++)
        max[h] = -INFINITY;
    for (uint32_t first = 0; first < k.n; first += KEY_BLOCK) {
        uint32_t n = k.n - first < KEY_BLOCK ? k.n - first : KEY_BLOCK;
        float(*score)[HEADS] = first < KEPT_KEYS ? s.kept + first : s.again;
        unpack_keys(&k, exact, a, first, n, s.keys);
        score_keys(q, n_heads, s.keys, n, c, scale, score);
        for (uint32_t j = 0; j < n; j++)
            for (int h = 0; h < HEADS; h++)
                max[h] = score[j][h] > max[h] ? score[j][h] : max[h];
    }

    // Weights, denominator, values. From −0, the first sum is the first term, and the first fmaf the
    // first product, whatever their signs: seq has no +0 to begin with.
    for (int h = 0; h < HEADS; h++)
        denominator[h] = -0.0f;
    for (size_t d = 0; d < (size_t)HEADS * c; d++)
        s.o[d] = -0.0f;
    for (uint32_t first = 0; first < k.n; first += KEY_BLOCK) {
        uint32_t n = k.n - first < KEY_BLOCK ? k.n - first : KEY_BLOCK;
        float(*score)[HEADS] = first < KEPT_KEYS ? s.kept + first : s.again;
        unpack_keys(&k, exact, a, first, n, s.keys);
        if (first >= KEPT_KEYS)
            score_keys(q, n_heads, s.keys, n, c, scale, score);
        exp_keys(score, n, max, denominator);
        add_values((const float(*)[HEADS])score, n_heads, s.keys, n, c, s.o);
    }

    // The sink, and out: o may be where q was, which is not needed any more.
    const unsigned char *sink = cpu_ptr(a->sink);
    float *o = (float *)cpu_ptr(a->o) + at;
    for (uint32_t h = 0; h < n_heads; h++) {
        float of_sink = load_f32(sink + (size_t)4 * (head + h));
        float total = denominator[h] + arith_exp(of_sink - max[h]);
        for (size_t d = 0; d < c; d++)
            o[h * c + d] = s.o[h * c + d] / total;
    }
}

void cpu_attention(struct ops *ops, const struct attention *a) {
    const struct cpu_ops *c = cpu_of(ops);
    uint32_t per_row = (a->n_heads + HEADS - 1) / HEADS;
    size_t n_units = (size_t)a->n_rows * per_row;
    assert(a->window > 0 && a->kv.ring_entries >= a->window);
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic, 1)
    for (size_t unit = 0; unit < n_units; unit++) {
        uint32_t i = (uint32_t)(unit / per_row), head = (uint32_t)(unit % per_row) * HEADS;
        uint32_t n_heads = a->n_heads - head < HEADS ? a->n_heads - head : HEADS;
        attend(a, ops->exact, i, head, n_heads, cpu_scratch(c, omp_get_thread_num()));
    }
}
