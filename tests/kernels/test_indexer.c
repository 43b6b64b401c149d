/* hadamard and index_topk. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/kernels/each_form.h"
#include "tests/kernels/kv_fixture.h"
#include "kernels/arith.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- hadamard ------------------------------------------------------------------------------- */

static void check_hadamard(uint32_t n_rows, uint32_t dim) {
    struct kv_fixture_options o = { .n_threads = 2,
                                    .n_seqs = 1,
                                    .max_tokens = 8,
                                    .c = 192,
                                    .r = 64,
                                    .index_dim = 128,
                                    .window = 4,
                                    .rollback = 1 };
    struct kv_fixture f;
    kv_fixture_open(&f, &o);
    uint64_t random = dim;
    size_t bytes = (size_t)n_rows * dim * sizeof(float);
    float *x = malloc(bytes), *got = malloc(bytes), *want = malloc(dim * sizeof *want);
    random_floats(&random, x, (size_t)n_rows * dim, 1.0f);
    struct hadamard a = { .x = kv_fixture_put(&f, x, bytes), .n_rows = n_rows, .dim = dim };
    hadamard(f.ops, &a);
    kv_fixture_get(&f, a.x, got, bytes);
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *in = x + (size_t)row * dim, *out = got + (size_t)row * dim;
        literal_hadamard(in, dim, want);
        assert_memory_equal(out, want, dim * sizeof *want);
        for (uint32_t i = 0; i < dim; i++) { // H[i][k] = (−1)^(bits that i and k share)
            double sum = 0;
            for (uint32_t k = 0; k < dim; k++)
                sum += (double)(__builtin_popcount(i & k) % 2 ? -in[k] : in[k]);
            assert_true(fabs(sum / sqrt(dim) - (double)out[i]) < 1e-5);
        }
    }
    free(x);
    free(got);
    free(want);
    kv_fixture_close(&f);
}

static void hadamard_is_the_matrix_in_natural_order(void **state) {
    (void)state;
    check_hadamard(3, 128);
    check_hadamard(70, 64);
    check_hadamard(1, 2);
    check_hadamard(2, 1);
}

/* --- index_topk: a bench -------------------------------------------------------------------- */

struct bench {
    struct kv_fixture f;
    uint32_t n_heads, k, m, ci;
    float *keys[KV_FIXTURE_SEQS]; /* [entries, ci]: what the model's keys are, rounded */
    uint64_t random;
};

/* Keys that are all in place; what lies beyond them is garbage. flat: few values, so that many
 * scores are equal. */
static void bench_open(struct bench *b, const struct kv_fixture_options *o, uint32_t n_heads,
                       uint32_t k, const uint32_t *n_entries, bool flat) {
    memset(b, 0, sizeof *b);
    kv_fixture_open(&b->f, o);
    b->n_heads = n_heads;
    b->k = k;
    b->m = o->m;
    b->ci = o->index_dim;
    b->random = o->seed + n_heads;
    uint32_t bytes = index_key_bytes(o->exact, b->ci);
    unsigned char *key = malloc(bytes);
    float *x = malloc(b->ci * sizeof *x);
    for (uint32_t s = 0; s < o->n_seqs; s++) {
        b->keys[s] = malloc(((size_t)n_entries[s] * b->ci + 1) * sizeof(float));
        for (uint32_t j = 0; j < n_entries[s]; j++) {
            random_floats(&b->random, x, b->ci, 1.0f + (float)(j % 3));
            for (uint32_t i = 0; i < b->ci && flat; i++)
                x[i] = (float)random_below(&b->random, 2) * (i % 5 == 0);
            literal_key_pack(o->exact, x, b->ci, key);
            kv_fixture_write(&b->f, b->f.seqs[s].keys, bytes, j, key);
            float *rounded = b->keys[s] + (size_t)j * b->ci;
            for (uint32_t i = 0; i < b->ci; i++)
                rounded[i] = o->exact ? x[i]
                                      : (float)(literal_e2m1(key[i / 2] >> 4 * (i % 2) & 15) *
                                                ldexp(1.0, key[b->ci / 2 + i / 32] - 127));
        }
    }
    free(key);
    free(x);
}

static void bench_close(struct bench *b) {
    for (uint32_t s = 0; s < KV_FIXTURE_SEQS; s++)
        free(b->keys[s]);
    kv_fixture_close(&b->f);
}

/* --- by definition -------------------------------------------------------------------------- */

/* The query of one head as the model rounds it. */
static void rounded_query(const struct bench *b, const float *q, float *out) {
    unsigned char *packed = malloc(index_key_bytes(false, b->ci));
    literal_key_pack(false, q, b->ci, packed);
    for (uint32_t i = 0; i < b->ci; i++)
        out[i] = b->f.options.exact ? q[i]
                                    : (float)(literal_e2m1(packed[i / 2] >> 4 * (i % 2) & 15) *
                                              ldexp(1.0, packed[b->ci / 2 + i / 32] - 127));
    free(packed);
}

/* q·key: in exact mode T16. Else groups of 32: the sum of products of a group is exact (a small
 * integer times a power of two), and each is added in turn, with one rounding. */
static float dot_of(const struct bench *b, const float *q, const float *key) {
    if (b->f.options.exact)
        return literal_t16(q, key, b->ci);
    float acc = 0.0f;
    for (uint32_t g = 0; g < b->ci; g += 32) {
        double sum = 0;
        for (uint32_t i = g; i < g + 32; i++)
            sum += (double)q[i] * (double)key[i];
        acc = (float)((double)acc + sum); // a double holds both exactly at these magnitudes
    }
    return acc;
}

/* Scores of row i (its q and weights) against n keys; checked against a plain sum in double. */
static void scores_of(const struct bench *b, const float *q, const float *weights, float scale,
                      const float *keys, uint32_t n, float *score) {
    float *rounded = malloc((size_t)b->n_heads * b->ci * sizeof *rounded);
    for (uint32_t h = 0; h < b->n_heads; h++)
        rounded_query(b, q + (size_t)h * b->ci, rounded + (size_t)h * b->ci);
    for (uint32_t j = 0; j < n; j++) {
        const float *key = keys + (size_t)j * b->ci;
        double plain = 0, magnitude = 0;
        for (uint32_t h = 0; h < b->n_heads; h++) {
            const float *query = rounded + (size_t)h * b->ci;
            float w = weights[h] * scale, dot = dot_of(b, query, key);
            float relu = dot > 0.0f ? dot : 0.0f;
            score[j] = h == 0 ? w * relu : fmaf(w, relu, score[j]);
            double sum = 0;
            for (uint32_t i = 0; i < b->ci; i++)
                sum += (double)query[i] * (double)key[i];
            plain += (double)weights[h] * (double)scale * fmax(sum, 0);
            magnitude += fabs((double)weights[h] * (double)scale) * fmax(fabs(sum), 1);
        }
        assert_true(fabs(plain - (double)score[j]) <= 1e-5 * magnitude);
    }
    free(rounded);
}

/* The k highest by picking the highest k times; ascending. */
static void highest(const float *score, uint32_t n, uint32_t k, int32_t *chosen) {
    bool *taken = calloc(n + 1, sizeof *taken);
    for (uint32_t i = 0; i < k && i < n; i++) {
        uint32_t best = n;
        for (uint32_t j = 0; j < n; j++)
            if (!taken[j] && (best == n || score[j] > score[best]))
                best = j;
        taken[best] = true;
    }
    uint32_t at = 0;
    for (uint32_t j = 0; j < n; j++)
        if (taken[j])
            chosen[at++] = (int32_t)j;
    while (at < k)
        chosen[at++] = -1;
    free(taken);
}

/* --- checks --------------------------------------------------------------------------------- */

/* A step of these parts; its rows asked for in tiles of `tile`, which may begin and end inside a
 * sequence. */
static void check_step(struct bench *b, const struct kv_fixture_part *parts, uint32_t n_parts,
                       uint32_t tile) {
    uint32_t n = 0, q_row = b->n_heads * b->ci, at = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        n += parts[i].n_rows;
    float *q = malloc((size_t)n * q_row * sizeof *q);
    float *weights = malloc((size_t)n * b->n_heads * sizeof *weights), scale = 0.044194174f;
    int32_t *got = malloc((size_t)n * b->k * sizeof *got), *want = malloc(b->k * sizeof *want);
    random_floats(&b->random, q, (size_t)n * q_row, 1.5f);
    random_floats(&b->random, weights, (size_t)n * b->n_heads, 1.0f);
    struct kv_view view = kv_fixture_step(&b->f, parts, n_parts, false);
    for (uint32_t first = 0; first < n; first += tile) {
        uint32_t rows = n - first < tile ? n - first : tile;
        struct index_topk a = {
            .kv = view,
            .q = kv_fixture_put(&b->f, q + (size_t)first * q_row, (size_t)rows * q_row * 4),
            .weights = kv_fixture_put(&b->f, weights + (size_t)first * b->n_heads,
                                      (size_t)rows * b->n_heads * 4),
            .chosen = kv_fixture_put(&b->f, NULL, (size_t)rows * b->k * 4),
            .first_row = first,
            .n_rows = rows,
            .n_heads = b->n_heads,
            .m = b->m,
            .k = b->k,
            .weight_scale = scale,
        };
        index_topk(b->f.ops, &a);
        kv_fixture_get(&b->f, a.chosen, got + (size_t)first * b->k, (size_t)rows * b->k * 4);
    }
    for (uint32_t i = 0; i < n_parts; i++)
        for (uint32_t row = 0; row < parts[i].n_rows; row++, at++) {
            uint32_t t = b->f.seqs[parts[i].seq].tokens + row, n_keys = (t + 1) / b->m;
            float *score = malloc((n_keys + 1) * sizeof *score);
            scores_of(b, q + (size_t)at * q_row, weights + (size_t)at * b->n_heads, scale,
                      b->keys[parts[i].seq], n_keys, score);
            highest(score, n_keys, b->k, want);
            assert_memory_equal(got + (size_t)at * b->k, want, b->k * sizeof *want);
            free(score);
        }
    kv_fixture_commit(&b->f);
    free(q);
    free(weights);
    free(got);
    free(want);
}

static struct kv_fixture_options options(bool exact, uint32_t n_threads, uint32_t max_tokens) {
    struct kv_fixture_options o = {
        .exact = exact,
        .n_threads = n_threads,
        .n_seqs = 3,
        .max_tokens = max_tokens,
        .c = 192,
        .r = 64,
        .index_dim = 128,
        .window = 16,
        .rollback = 8,
        .m = 4,
        .page_bytes = 8192,
        .seed = n_threads + exact,
    };
    return o;
}

/* Sequences through all their steps, with few, just enough and too many entries for k. */
static void check_plan(bool exact, uint32_t n_threads, uint32_t chunk, uint32_t tile, uint32_t k,
                       bool flat) {
    static const uint32_t lengths[] = { 90, 5, 50 }, n_entries[] = { 22, 1, 12 };
    struct kv_fixture_options o = options(exact, n_threads, 100);
    struct kv_fixture_part parts[KV_FIXTURE_SEQS];
    struct bench b;
    uint32_t n_parts;
    bench_open(&b, &o, 3, k, n_entries, flat);
    struct kv_plan plan = kv_plan(chunk, 3, lengths, chunk);
    while (kv_plan_next(&plan, parts, &n_parts))
        check_step(&b, parts, n_parts, tile);
    bench_close(&b);
}

/* --- tests ---------------------------------------------------------------------------------- */

static void the_highest_are_chosen_ascending_whatever_the_steps(void **state) {
    (void)state;
    static const uint32_t plans[][4] = { // threads, chunk, tile, k
                                         { 1, 1000, 1000, 4 }, { 2, 1000, 7, 4 }, { 3, 7, 1000, 4 },
                                         { 2, 1, 2, 4 },       { 2, 0, 5, 4 },    { 2, 64, 64, 1 },
                                         { 3, 64, 50, 12 },    { 2, 64, 3, 22 },  { 1, 1000, 9, 40 }
    };
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        const uint32_t *p = plans[i];
        check_plan(false, p[0], p[1], p[2], p[3], false);
        check_plan(true, p[0], p[1], p[2], p[3], false);
    }
}

static void of_equal_scores_the_lower_entry_is_chosen(void **state) {
    (void)state;
    check_plan(false, 2, 1000, 1000, 6, true);
    check_plan(false, 3, 7, 2, 6, true);
    check_plan(true, 2, 64, 64, 6, true);
}

/* Scores that vanish are equal: +0 where no head has anything to say, −0 where a negative product is
 * too small for a float, and nothing at all where every weight is zero. */
static void scores_of_zero_are_equal_whatever_their_sign(void **state) {
    (void)state;
    enum { N = 100, K = 10, HEADS = 2, CI = 128 };
    static const float weights[][HEADS] = { { 1.0f, -1e-30f }, { 0.0f, -0.0f }, { -0.0f, 0.0f } };
    struct kv_fixture_options o = options(false, 2, 4 * N);
    uint32_t n_entries[] = { N, 0, 0 };
    struct bench b;
    o.n_seqs = 1;
    bench_open(&b, &o, HEADS, K, n_entries, true);
    float key[CI] = { 0 }, q[HEADS][CI];
    unsigned char packed[68];
    for (uint32_t j = 0; j < N; j++) { // entries 0, 3, 6 … are zero, all others ones
        for (uint32_t i = 0; i < CI; i++)
            key[i] = j % 3 ? 1.0f : 0.0f;
        literal_key_pack(false, key, CI, packed);
        kv_fixture_write(&b.f, b.f.seqs[0].keys, sizeof packed, j, packed);
    }
    for (uint32_t i = 0; i < CI; i++) {
        q[0][i] = -1.0f; // its relu is 0 for every key
        q[1][i] = 1e-30f;
    }
    b.f.seqs[0].tokens = 4 * N - 1;
    struct kv_fixture_part part = { .seq = 0, .n_rows = 1 };
    for (size_t c = 0; c < sizeof weights / sizeof *weights; c++) {
        int32_t got[K];
        struct index_topk a = {
            .kv = kv_fixture_step(&b.f, &part, 1, false),
            .q = kv_fixture_put(&b.f, q, sizeof q),
            .weights = kv_fixture_put(&b.f, weights[c], sizeof weights[c]),
            .chosen = kv_fixture_put(&b.f, NULL, sizeof got),
            .n_rows = 1,
            .n_heads = HEADS,
            .m = 4,
            .k = K,
            .weight_scale = 1.0f,
        };
        index_topk(b.f.ops, &a);
        kv_fixture_get(&b.f, a.chosen, got, sizeof got);
        for (int32_t j = 0; j < K; j++)
            assert_int_equal(got[j], j);
    }
    bench_close(&b);
}

/* One row, thousands of entries: parts of threads, blocks, and a last block that is not full. */
static void long_contexts_are_searched_in_parts(void **state) {
    (void)state;
    static const uint32_t n_threads[] = { 1, 2, 3, 5 };
    for (size_t i = 0; i < sizeof n_threads / sizeof *n_threads; i++)
        for (int flat = 0; flat < 2; flat++) {
            struct kv_fixture_options o = options(i == 3, n_threads[i], 4 * 2003 + 4);
            uint32_t n_entries[] = { 2003, 700, 0 };
            struct bench b;
            bench_open(&b, &o, 5, 150, n_entries, flat);
            b.f.seqs[0].tokens = 4 * 2003 - 1;
            b.f.seqs[1].tokens = 4 * 700 - 1;
            struct kv_fixture_part parts[] = { { .seq = 1, .n_rows = 1 },
                                               { .seq = 0, .n_rows = 3 } };
            check_step(&b, parts, 2, i % 2 ? 1 : 4);
            bench_close(&b);
        }
}

/* Pro's own shape, once: 64 heads, k = 1024. */
static void full_shape_is_the_same(void **state) {
    (void)state;
    struct kv_fixture_options o = options(false, 2, 4 * 1100 + 4);
    uint32_t n_entries[] = { 1100, 0, 0 };
    struct bench b;
    o.n_seqs = 1;
    bench_open(&b, &o, 64, 1024, n_entries, false);
    b.f.seqs[0].tokens = 4 * 1100 - 1;
    struct kv_fixture_part part = { .seq = 0, .n_rows = 1 };
    check_step(&b, &part, 1, 1);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hadamard_is_the_matrix_in_natural_order),
        cmocka_unit_test(the_highest_are_chosen_ascending_whatever_the_steps),
        cmocka_unit_test(of_equal_scores_the_lower_entry_is_chosen),
        cmocka_unit_test(scores_of_zero_are_equal_whatever_their_sign),
        cmocka_unit_test(long_contexts_are_searched_in_parts),
        cmocka_unit_test(full_shape_is_the_same),
    };
    return each_form_run(tests);
}
