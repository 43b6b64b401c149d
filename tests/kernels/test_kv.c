/* kv_pack and window_store: the form of an entry, and what a ring holds after any steps. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/kernels/each_form.h"
#include "tests/kernels/kv_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void open_small(struct kv_fixture *f, bool exact, uint32_t c, uint32_t n_threads) {
    struct kv_fixture_options o = {
        .exact = exact,
        .n_threads = n_threads,
        .n_seqs = 3,
        .max_tokens = 200,
        .c = c,
        .r = 64,
        .index_dim = 128,
        .window = 16,
        .rollback = 8,
        .m = 4,
        .seed = c + exact,
    };
    kv_fixture_open(f, &o);
}

/* --- kv_pack -------------------------------------------------------------------------------- */

/* Rows whose groups meet every edge of the quantizer: ordinary values, all zeros, amax at powers of
 * two times 448 and just beside, ties between codes, subnormal codes, large and tiny magnitudes. */
static void fill_edges(float *x, uint32_t n_rows, uint32_t c) {
    uint64_t random = 5;
    random_floats(&random, x, (size_t)n_rows * c, 3.0f);
    static const float edges[] = { 448.0f, 447.9f,   448.00003f, 224.0f, 1e-4f,  9e-5f,
                                   1.0f,   0x1p+60f, 0x1p-60f,   3e38f,  0.875f, 0.87500006f };
    for (uint32_t row = 0; row < n_rows; row++) {
        float *v = x + (size_t)row * c, edge = edges[row % (sizeof edges / sizeof *edges)];
        if (row % 5 == 4)
            memset(v, 0, c * sizeof *v);
        v[row % 64] = edge; // the largest of group 0; ties and small ones beside it
        for (uint32_t i = 0; i < 32; i++)
            v[(row + 1 + i) % 64] =
                edge * (float)((2.0 * random_below(&random, 200) + 1) * (i % 2 ? 0x1p-9 : 0x1p-16));
    }
}

static void check_pack(bool exact, uint32_t c) {
    struct kv_fixture f;
    open_small(&f, exact, c, 2);
    uint32_t n = 61, r = 64, bytes = kv_entry_bytes(exact, c, r);
    float *x = malloc((size_t)n * c * sizeof *x);
    unsigned char *got = malloc((size_t)n * bytes), *want = malloc(bytes);
    fill_edges(x, n, c);
    struct mem kv = kv_fixture_put(&f, x, (size_t)n * c * sizeof *x);
    struct mem entries = kv_fixture_put(&f, NULL, (size_t)n * bytes);
    struct kv_pack a = { .kv = kv, .entries = entries, .n_rows = n, .c = c, .r = r };
    kv_pack(f.ops, &a);
    kv_fixture_get(&f, entries, got, (size_t)n * bytes);
    for (uint32_t row = 0; row < n; row++) {
        literal_entry_pack(exact, x + (size_t)row * c, c, r, want);
        assert_memory_equal(got + (size_t)row * bytes, want, bytes);
    }
    free(x);
    free(got);
    free(want);
    kv_fixture_close(&f);
}

static void entries_are_rounded_and_laid_out_as_specified(void **state) {
    (void)state;
    assert_int_equal(kv_entry_bytes(false, 512, 64), 584);
    assert_int_equal(kv_entry_bytes(false, 192, 64), 264);
    check_pack(false, 192);
    check_pack(false, 512);
}

static void exact_entries_are_the_floats(void **state) {
    (void)state;
    check_pack(true, 192);
}

/* Packing loses nothing that is already rounded: the round trip's floats are kept. (Not the bytes: a
 * largest value that was rounded down to a power of two times 448 gets the smaller scale.) */
static void rounded_entries_survive_packing(void **state) {
    (void)state;
    enum { N = 24, C = 192, R = 64 };
    struct kv_fixture f;
    open_small(&f, false, C, 1);
    float x[N * C];
    unsigned char first[N * 264], again[N * 264];
    uint64_t random = 8;
    random_floats(&random, x, N * C, 2.0f);
    struct mem kv = kv_fixture_put(&f, x, sizeof x);
    struct mem entries = kv_fixture_put(&f, NULL, sizeof first);
    struct kv_pack a = { .kv = kv, .entries = entries, .n_rows = N, .c = C, .r = R };
    kv_pack(f.ops, &a);
    kv_fixture_get(&f, entries, first, sizeof first);
    for (uint32_t row = 0; row < N; row++) {
        float y[C];
        literal_entry_unpack(false, first + row * 264, C, R, y);
        for (uint32_t i = 0; i < C; i++) { // half a step of three bits of mantissa, or of the least
            float most =
                i < C - R ? fabsf(x[row * C + i]) / 16 + 0.002f : fabsf(x[row * C + i]) / 256;
            assert_true(fabsf(y[i] - x[row * C + i]) <= most || fabsf(x[row * C + i]) > 2.0f);
        }
        memcpy(x + row * C, y, sizeof y);
    }
    ops_upload(f.ops, kv, x, sizeof x);
    kv_pack(f.ops, &a);
    kv_fixture_get(&f, entries, again, sizeof again);
    for (uint32_t row = 0; row < N; row++) {
        float y[C];
        literal_entry_unpack(false, again + row * 264, C, R, y);
        assert_memory_equal(y, x + row * C, sizeof y);
    }
    kv_fixture_close(&f);
}

/* --- window_store --------------------------------------------------------------------------- */

/* An entry that says whose it is: sequence, position, and which life (rollbacks write again). */
static void label(unsigned char *entry, uint32_t bytes, uint32_t seq, uint32_t position,
                  uint32_t life) {
    uint64_t random = (uint64_t)seq << 40 | (uint64_t)life << 20 | position;
    for (uint32_t i = 0; i < bytes; i++)
        entry[i] = (unsigned char)random_next(&random);
}

struct lives { // of each position, which step wrote it last
    uint32_t of[KV_FIXTURE_SEQS][256];
};

static void store_step(struct kv_fixture *f, const struct kv_fixture_part *parts, uint32_t n_parts,
                       bool fresh, uint32_t life, struct lives *lives) {
    uint32_t bytes = kv_entry_bytes(f->options.exact, f->options.c, f->options.r), n = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        n += parts[i].n_rows;
    unsigned char *entries = malloc((size_t)n * bytes + 1), *to = entries;
    for (uint32_t i = 0; i < n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n_rows; k++, to += bytes) {
            uint32_t position = f->seqs[parts[i].seq].tokens + k;
            lives->of[parts[i].seq][position] = life;
            label(to, bytes, parts[i].seq, position, life);
        }
    struct window_store a = { .kv = kv_fixture_step(f, parts, n_parts, fresh),
                              .entries = kv_fixture_put(f, entries, (size_t)n * bytes + 1) };
    window_store(f->ops, &a);
    kv_fixture_commit(f);
    free(entries);
}

/* The last `reach` positions below the sequence's end are in its ring. */
static void check_ring(struct kv_fixture *f, uint32_t seq, uint32_t reach,
                       const struct lives *lives) {
    uint32_t bytes = kv_entry_bytes(f->options.exact, f->options.c, f->options.r);
    const struct kv_fixture_seq *s = &f->seqs[seq];
    unsigned char got[2048], want[2048];
    assert_true(bytes <= sizeof got);
    for (uint32_t back = 1; back <= reach && back <= s->tokens; back++) {
        uint32_t position = s->tokens - back;
        kv_fixture_read(f, s->window[s->now], bytes, position % f->ring_entries, got);
        label(want, bytes, seq, position, lives->of[seq][position]);
        assert_memory_equal(got, want, bytes);
    }
}

static void check_window(bool exact, uint32_t chunk, bool fresh, uint32_t n_threads) {
    struct kv_fixture f;
    struct lives lives;
    uint32_t lengths[] = { 90, 1, 57 }, n_parts, life = 0;
    struct kv_fixture_part parts[KV_FIXTURE_SEQS];
    open_small(&f, exact, 192, n_threads);
    struct kv_plan plan = kv_plan(chunk, 3, lengths, chunk);
    while (kv_plan_next(&plan, parts, &n_parts)) {
        store_step(&f, parts, n_parts, fresh && life % 3 != 1, life, &lives);
        life++;
        for (uint32_t seq = 0; seq < 3; seq++)
            check_ring(&f, seq, f.ring_entries, &lives);
    }
    assert_int_equal(f.seqs[0].tokens, 90);
    kv_fixture_close(&f);
}

static void ring_holds_the_last_entries_after_any_steps(void **state) {
    (void)state;
    static const uint32_t chunks[] = { 1, 7, 23, 24, 25, 64, 300, 0 };
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (int fresh = 0; fresh < 2; fresh++) {
            check_window(false, chunks[i], fresh, 1 + i % 3);
            check_window(true, chunks[i], fresh, 2);
        }
}

/* After a rollback of any length the window of the next row is whole, wherever the ring's edge is. */
static void ring_serves_every_rollback(void **state) {
    (void)state;
    for (uint32_t tokens = 1; tokens <= 60; tokens += 1 + tokens / 20)
        for (uint32_t back = 0; back <= 8 && back <= tokens; back++)
            for (int fresh = 0; fresh < 2; fresh++) {
                struct kv_fixture f;
                struct lives lives;
                open_small(&f, false, 192, 1);
                struct kv_fixture_part part = { .seq = 0, .n_rows = tokens - tokens / 3 };
                store_step(&f, &part, 1, fresh, 0, &lives);
                part.n_rows = tokens / 3;
                store_step(&f, &part, 1, fresh, 1, &lives);
                f.seqs[0].tokens -= back;
                check_ring(&f, 0, f.options.window, &lives);
                part.n_rows = 3;
                store_step(&f, &part, 1, fresh, 2, &lives);
                check_ring(&f, 0, f.options.window, &lives);
                kv_fixture_close(&f);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_rounded_and_laid_out_as_specified),
        cmocka_unit_test(exact_entries_are_the_floats),
        cmocka_unit_test(rounded_entries_survive_packing),
        cmocka_unit_test(ring_holds_the_last_entries_after_any_steps),
        cmocka_unit_test(ring_serves_every_rollback),
    };
    return each_form_run(tests);
}
