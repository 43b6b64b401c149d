/* attention, with the window as kv_pack and window_store keep it. */
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

/* Sequences whose keys are known: every position's, and every compressed entry's. */
struct bench {
    struct kv_fixture f;
    uint32_t n_heads, c, bytes, k;
    float *sink;
    struct mem sink_mem;
    float *kv[KV_FIXTURE_SEQS];      /* [max_tokens, c], as given */
    float *window[KV_FIXTURE_SEQS];  /* the same, as the model rounds them */
    float *entries[KV_FIXTURE_SEQS]; /* [max_tokens / m, c], rounded */
    uint64_t random;
};

static void bench_open(struct bench *b, const struct kv_fixture_options *o, uint32_t n_heads,
                       uint32_t k) {
    memset(b, 0, sizeof *b);
    kv_fixture_open(&b->f, o);
    b->n_heads = n_heads;
    b->c = o->c;
    b->bytes = kv_entry_bytes(o->exact, o->c, o->r);
    b->k = k;
    b->random = o->seed;
    unsigned char *packed = malloc(b->bytes);
    for (uint32_t s = 0; s < o->n_seqs; s++) {
        size_t floats = (size_t)o->max_tokens * o->c;
        b->kv[s] = malloc(floats * sizeof(float));
        b->window[s] = malloc(floats * sizeof(float));
        b->entries[s] = malloc(floats * sizeof(float));
        random_floats(&b->random, b->kv[s], floats, 1.0f);
        for (uint32_t t = 0; t < o->max_tokens; t++) {
            literal_entry_pack(o->exact, b->kv[s] + (size_t)t * o->c, o->c, o->r, packed);
            literal_entry_unpack(o->exact, packed, o->c, o->r, b->window[s] + (size_t)t * o->c);
        }
        for (uint32_t j = 0; o->m && j < o->max_tokens / o->m; j++) {
            float *entry = b->entries[s] + (size_t)j * o->c;
            random_floats(&b->random, entry, o->c, 1.0f);
            literal_entry_pack(o->exact, entry, o->c, o->r, packed);
            literal_entry_unpack(o->exact, packed, o->c, o->r, entry);
            kv_fixture_write(&b->f, b->f.seqs[s].entries, b->bytes, j, packed);
        }
    }
    free(packed);
    b->sink = malloc(n_heads * sizeof(float)); // a weight: it lies at any byte of a shard
    unsigned char *bytes = malloc(1 + n_heads * sizeof(float));
    for (uint32_t h = 0; h < n_heads; h++)
        b->sink[h] = 3.0f * random_float(&b->random);
    memcpy(bytes + 1, b->sink, n_heads * sizeof(float));
    b->sink_mem = mem_at(kv_fixture_put(&b->f, bytes, 1 + n_heads * sizeof(float)), 1);
    free(bytes);
}

static void bench_close(struct bench *b) {
    for (uint32_t s = 0; s < KV_FIXTURE_SEQS; s++) {
        free(b->kv[s]);
        free(b->window[s]);
        free(b->entries[s]);
    }
    free(b->sink);
    kv_fixture_close(&b->f);
}

/* k of the first n, ascending, padded with −1: some of them, at random. */
static void random_choice(uint64_t *random, uint32_t n, uint32_t k, int32_t *chosen) {
    uint32_t at = 0;
    for (uint32_t j = 0; j < n && at < k; j++)
        if (random_below(random, n - j) < k - at)
            chosen[at++] = (int32_t)j;
    while (at < k)
        chosen[at++] = -1;
}

/* --- by definition -------------------------------------------------------------------------- */

/* The keys of position t of a sequence, in canonical order. */
static uint32_t keys_of(const struct bench *b, uint32_t seq, uint32_t t, const int32_t *chosen,
                        const float **keys) {
    uint32_t n = 0, window = b->f.options.window, m = b->f.options.m;
    for (uint32_t p = t + 1 < window ? 0 : t + 1 - window; p <= t; p++)
        keys[n++] = b->window[seq] + (size_t)p * b->c;
    for (uint32_t j = 0; m && !chosen && j < (t + 1) / m; j++)
        keys[n++] = b->entries[seq] + (size_t)j * b->c;
    for (uint32_t i = 0; m && chosen && i < b->k; i++)
        if (chosen[i] >= 0)
            keys[n++] = b->entries[seq] + (size_t)chosen[i] * b->c;
    return n;
}

static void attend(const struct bench *b, const float *q, const float **keys, uint32_t n,
                   float sink, float *o) {
    float *score = malloc(n * sizeof *score), scale = (float)pow(b->c, -0.5);
    for (uint32_t i = 0; i < n; i++)
        score[i] = literal_t16(q, keys[i], b->c) * scale;
    float max = score[0];
    for (uint32_t i = 1; i < n; i++)
        max = score[i] > max ? score[i] : max;
    for (uint32_t i = 0; i < n; i++)
        score[i] = arith_exp(score[i] - max);
    float denominator = score[0];
    for (uint32_t i = 1; i < n; i++)
        denominator += score[i];
    denominator += arith_exp(sink - max);
    for (uint32_t d = 0; d < b->c; d++) {
        float sum = score[0] * keys[0][d];
        for (uint32_t i = 1; i < n; i++)
            sum = fmaf(score[i], keys[i][d], sum);
        o[d] = sum / denominator;
    }
    free(score);
}

/* Softmax over the keys and the sink, in double. */
static void attend_in_double(const struct bench *b, const float *q, const float **keys, uint32_t n,
                             float sink, double *o) {
    double *score = malloc(n * sizeof *score), most = (double)sink;
    for (uint32_t i = 0; i < n; i++) {
        score[i] = 0;
        for (uint32_t d = 0; d < b->c; d++)
            score[i] += (double)q[d] * (double)keys[i][d] / sqrt(b->c);
        most = fmax(most, score[i]);
    }
    double denominator = exp((double)sink - most);
    memset(o, 0, b->c * sizeof *o);
    for (uint32_t i = 0; i < n; i++) {
        double e = exp(score[i] - most);
        denominator += e;
        for (uint32_t d = 0; d < b->c; d++)
            o[d] += e * (double)keys[i][d];
    }
    for (uint32_t d = 0; d < b->c; d++)
        o[d] /= denominator;
    free(score);
}

/* --- checks --------------------------------------------------------------------------------- */

/* The result of one row, bit for bit, and near to what double says. */
static void check_row(const struct bench *b, uint32_t seq, uint32_t t, const float *q,
                      const int32_t *chosen, const float *got) {
    const float **keys = malloc((b->f.options.max_tokens + b->f.options.window) * sizeof *keys);
    float *want = malloc(b->c * sizeof *want);
    double *near = malloc(b->c * sizeof *near);
    uint32_t n = keys_of(b, seq, t, chosen, keys);
    for (uint32_t h = 0; h < b->n_heads; h++) {
        const float *query = q + (size_t)h * b->c, *out = got + (size_t)h * b->c;
        attend(b, query, keys, n, b->sink[h], want);
        assert_memory_equal(out, want, b->c * sizeof *want);
        attend_in_double(b, query, keys, n, b->sink[h], near);
        for (uint32_t d = 0; d < b->c; d++)
            assert_true(fabs((double)out[d] - near[d]) < 1e-4);
    }
    free((void *)keys);
    free(want);
    free(near);
}

enum { ALL_ENTRIES, CHOSEN_ENTRIES };

/* A step: pack, attend in tiles of rows, store; every `stride`-th row is checked. o may be q. */
static void check_step(struct bench *b, const struct kv_fixture_part *parts, uint32_t n_parts,
                       uint32_t tile, int which, bool fresh, uint32_t stride, bool in_place) {
    const struct kv_fixture_options *options = &b->f.options;
    size_t n = 0, at = 0, row_floats = (size_t)b->n_heads * b->c;
    for (uint32_t i = 0; i < n_parts; i++)
        n += parts[i].n_rows;
    float *q = malloc(n * row_floats * sizeof *q), *got = malloc(n * row_floats * sizeof *got);
    float *kv = malloc(n * b->c * sizeof *kv);
    int32_t *chosen = malloc((n * b->k + 1) * sizeof *chosen);
    random_floats(&b->random, q, n * row_floats, 1.5f);
    for (uint32_t i = 0; i < n_parts; i++)
        for (uint32_t row = 0; row < parts[i].n_rows; row++, at++) {
            uint32_t t = b->f.seqs[parts[i].seq].tokens + row;
            memcpy(kv + at * b->c, b->kv[parts[i].seq] + (size_t)t * b->c, b->c * sizeof *kv);
            random_choice(&b->random, options->m ? (t + 1) / options->m : 0, b->k,
                          chosen + at * b->k);
        }
    struct kv_view view = kv_fixture_step(&b->f, parts, n_parts, fresh);
    struct kv_pack pack = { .kv = kv_fixture_put(&b->f, kv, n * b->c * sizeof *kv),
                            .entries = kv_fixture_put(&b->f, NULL, n * b->bytes),
                            .n_rows = (uint32_t)n,
                            .c = b->c,
                            .r = options->r };
    kv_pack(b->f.ops, &pack);
    for (size_t first = 0; first < n; first += tile) {
        size_t rows = n - first < tile ? n - first : tile, bytes = rows * row_floats * sizeof *q;
        struct mem q_mem = kv_fixture_put(&b->f, q + first * row_floats, bytes);
        struct attention a = {
            .kv = view,
            .q = q_mem,
            .o = in_place ? q_mem : kv_fixture_put(&b->f, NULL, bytes),
            .fresh = pack.entries,
            .sink = b->sink_mem,
            .chosen = which == CHOSEN_ENTRIES
                          ? kv_fixture_put(&b->f, chosen + first * b->k, rows * b->k * 4)
                          : mem_none(),
            .first_row = (uint32_t)first,
            .n_rows = (uint32_t)rows,
            .n_heads = b->n_heads,
            .window = options->window,
            .m = options->m,
            .k = b->k,
        };
        attention(b->f.ops, &a);
        kv_fixture_get(&b->f, a.o, got + first * row_floats, bytes);
    }
    at = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        for (uint32_t row = 0; row < parts[i].n_rows; row++, at++)
            if (at % stride == 0 || row + 1 == parts[i].n_rows)
                check_row(b, parts[i].seq, b->f.seqs[parts[i].seq].tokens + row,
                          q + at * row_floats, which == CHOSEN_ENTRIES ? chosen + at * b->k : NULL,
                          got + at * row_floats);
    struct window_store store = { .kv = view, .entries = pack.entries };
    window_store(b->f.ops, &store);
    kv_fixture_commit(&b->f);
    free(q);
    free(got);
    free(kv);
    free(chosen);
}

static struct kv_fixture_options options(bool exact, uint32_t c, uint32_t m, uint32_t window,
                                         uint32_t max_tokens) {
    struct kv_fixture_options o = {
        .exact = exact,
        .n_threads = 2,
        .n_seqs = 3,
        .max_tokens = max_tokens,
        .c = c,
        .r = 64,
        .index_dim = 128,
        .window = window,
        .rollback = 8,
        .m = m,
        .page_bytes = 8192,
        .seed = c + m + exact,
    };
    return o;
}

/* One sequence alternating with others through all its steps. */
static void check_plan(const struct kv_fixture_options *o, uint32_t n_heads, int which,
                       uint32_t chunk, uint32_t tile, const uint32_t *lengths, uint32_t stride) {
    struct bench b;
    struct kv_fixture_part parts[KV_FIXTURE_SEQS];
    uint32_t n_parts, step = 0;
    bench_open(&b, o, n_heads, 5);
    struct kv_plan plan = kv_plan(chunk, o->n_seqs, lengths, o->seed);
    for (; kv_plan_next(&plan, parts, &n_parts); step++)
        check_step(&b, parts, n_parts, tile, which, step % 3 != 1, stride, step % 2);
    bench_close(&b);
}

/* --- tests ---------------------------------------------------------------------------------- */

/* Short window, so that rings wrap within few rows; every row checked. */
static const uint32_t lengths[] = { 70, 3, 41 };
static const struct {
    uint32_t chunk, tile, n_threads;
} cuts[] = { { 1000, 1000, 1 }, { 1000, 7, 2 }, { 1, 1, 2 }, { 1, 2, 3 },
             { 7, 5, 2 },       { 64, 64, 3 },  { 0, 9, 2 }, { 24, 1000, 2 } };

static void check_cuts(uint32_t m, int which, bool exact) {
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct kv_fixture_options o = options(exact, 192, m, 16, 80);
        o.n_threads = cuts[i].n_threads;
        check_plan(&o, 2, which, cuts[i].chunk, cuts[i].tile, lengths, 1 + (exact ? 2 : 0));
    }
}

static void window_alone(void **state) {
    (void)state;
    check_cuts(0, ALL_ENTRIES, false);
    check_cuts(0, ALL_ENTRIES, true);
}

static void window_and_all_entries(void **state) {
    (void)state;
    check_cuts(4, ALL_ENTRIES, false);
    check_cuts(4, ALL_ENTRIES, true);
}

static void window_and_chosen_entries(void **state) {
    (void)state;
    check_cuts(4, CHOSEN_ENTRIES, false);
    check_cuts(4, CHOSEN_ENTRIES, true);
}

/* The real window and m = 128, around the edges of both. */
static void wide_groups_and_the_real_window(void **state) {
    (void)state;
    static const uint32_t texts[] = { 270, 127, 129 };
    static const uint32_t chunk[] = { 1000, 64, 0 };
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk; i++) {
        struct kv_fixture_options o = options(i == 1, 192, 128, 128, 280);
        check_plan(&o, 1, ALL_ENTRIES, chunk[i], 50, texts, 11);
    }
}

/* Any number of heads, Pro's c; a unit of heads may be cut short. */
static void any_number_of_heads_at_full_width(void **state) {
    (void)state;
    static const uint32_t heads[] = { 1, 3, 4, 7, 8, 9, 20 }, texts[] = { 21, 4, 17 };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct kv_fixture_options o = options(false, 512, 4, 16, 24);
        o.page_bytes = 16384; // a state of Pro's is 12 KiB
        check_plan(&o, heads[i], i % 2, 5, 3, texts, 3);
    }
}

/* A rotary part that makes c no multiple of 16: T16's last columns are a part of the lanes. */
static void width_need_not_be_a_multiple_of_lanes(void **state) {
    (void)state;
    static const uint32_t texts[] = { 23, 1, 9 };
    struct kv_fixture_options o = options(false, 74, 4, 16, 24);
    o.r = 10;
    check_plan(&o, 5, ALL_ENTRIES, 6, 4, texts, 1);
}

/* More entries than scores are kept for (m = 4 without an index). */
static void contexts_beyond_the_kept_scores_give_the_same_bits(void **state) {
    (void)state;
    struct kv_fixture_options o = options(false, 80, 4, 1, 4 * 8400);
    struct bench b;
    o.r = 16;
    o.n_seqs = 1;
    bench_open(&b, &o, 3, 5);
    b.f.seqs[0].tokens = 4 * 8400 - 2;
    struct kv_fixture_part part = { .seq = 0, .n_rows = 2 };
    check_step(&b, &part, 1, 2, ALL_ENTRIES, false, 1, false);
    bench_close(&b);
}

static void a_sink_may_be_far_off(void **state) {
    (void)state;
    struct kv_fixture_options o = options(false, 192, 4, 16, 40);
    struct bench b;
    bench_open(&b, &o, 4, 5);
    static const float sinks[] = { 200.0f, -200.0f, 60.0f, 0.0f };
    memcpy(b.sink, sinks, sizeof sinks);
    ops_upload(b.f.ops, b.sink_mem, sinks, sizeof sinks);
    struct kv_fixture_part part = { .seq = 1, .n_rows = 33 };
    check_step(&b, &part, 1, 8, ALL_ENTRIES, false, 1, false);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_alone),
        cmocka_unit_test(window_and_all_entries),
        cmocka_unit_test(window_and_chosen_entries),
        cmocka_unit_test(wide_groups_and_the_real_window),
        cmocka_unit_test(any_number_of_heads_at_full_width),
        cmocka_unit_test(width_need_not_be_a_multiple_of_lanes),
        cmocka_unit_test(contexts_beyond_the_kept_scores_give_the_same_bits),
        cmocka_unit_test(a_sink_may_be_far_off),
    };
    return each_form_run(tests);
}
