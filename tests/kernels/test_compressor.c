/* compress: entries, index keys and states after any steps, rollbacks included. */
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

#define EPS        1e-6f
#define MAX_TOKENS 320

/* A compressor, and the text of each sequence so far: what wkv and wgate made of it. */
struct bench {
    struct kv_fixture f;
    bool index;
    uint32_t m, dim, width, r;
    float *ape, *norm_float, *theta;
    struct mem ape_mem, norm_mem, theta_mem;
    float *values[KV_FIXTURE_SEQS], *gates[KV_FIXTURE_SEQS]; /* [MAX_TOKENS, width] */
    uint64_t random;
};

static void bench_open(struct bench *b, const struct kv_fixture_options *options, bool index) {
    memset(b, 0, sizeof *b);
    kv_fixture_open(&b->f, options);
    b->index = index;
    b->m = options->m;
    b->dim = index ? options->index_dim : options->c;
    b->width = b->m == 4 ? 2 * b->dim : b->dim;
    b->r = options->r;
    b->random = options->seed;
    size_t n_ape = (size_t)b->m * b->width;
    b->ape = malloc(n_ape * sizeof(float));
    b->norm_float = malloc(b->dim * sizeof(float));
    b->theta = malloc(b->r / 2 * sizeof(float));
    random_floats(&b->random, b->ape, n_ape, 0.5f);
    // Weights lie at any byte of a shard.
    unsigned char *bytes = malloc(1 + n_ape * sizeof(float));
    memcpy(bytes + 1, b->ape, n_ape * sizeof(float));
    b->ape_mem = mem_at(kv_fixture_put(&b->f, bytes, 1 + n_ape * sizeof(float)), 1);
    for (uint32_t i = 0; i < b->dim; i++) {
        float x = 1.0f + 0.5f * random_float(&b->random);
        uint16_t code = bf16_code(x);
        memcpy(bytes + 1 + 2 * i, &code, 2);
        b->norm_float[i] = bf16_value(code);
    }
    b->norm_mem = mem_at(kv_fixture_put(&b->f, bytes, 1 + 2 * b->dim), 1);
    free(bytes);
    for (uint32_t i = 0; i < b->r / 2; i++)
        b->theta[i] = (float)pow(160000.0, -2.0 * i / b->r);
    b->theta_mem = kv_fixture_put(&b->f, b->theta, b->r / 2 * sizeof(float));
    for (uint32_t i = 0; i < options->n_seqs; i++) {
        b->values[i] = malloc((size_t)MAX_TOKENS * b->width * sizeof(float));
        b->gates[i] = malloc((size_t)MAX_TOKENS * b->width * sizeof(float));
    }
}

static void bench_close(struct bench *b) {
    for (uint32_t i = 0; i < KV_FIXTURE_SEQS; i++) {
        free(b->values[i]);
        free(b->gates[i]);
    }
    free(b->ape);
    free(b->norm_float);
    free(b->theta);
    kv_fixture_close(&b->f);
}

/* New text for these parts, and the step. */
static void bench_step(struct bench *b, const struct kv_fixture_part *parts, uint32_t n_parts,
                       bool fresh) {
    size_t n = 0, row_bytes = b->width * sizeof(float), at = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        n += parts[i].n_rows;
    struct mem values = kv_fixture_put(&b->f, NULL, n * row_bytes + 1);
    struct mem gates = kv_fixture_put(&b->f, NULL, n * row_bytes + 1);
    for (uint32_t i = 0; i < n_parts; i++) {
        size_t first = (size_t)b->f.seqs[parts[i].seq].tokens * b->width;
        size_t count = (size_t)parts[i].n_rows * b->width;
        float *v = b->values[parts[i].seq] + first, *g = b->gates[parts[i].seq] + first;
        random_floats(&b->random, v, count, 2.0f);
        random_floats(&b->random, g, count, 3.0f);
        ops_upload(b->f.ops, mem_at(values, at), v, count * sizeof(float));
        ops_upload(b->f.ops, mem_at(gates, at), g, count * sizeof(float));
        at += count * sizeof(float);
    }
    struct compress a = {
        .kv = kv_fixture_step(&b->f, parts, n_parts, fresh),
        .values = values,
        .gates = gates,
        .ape = b->ape_mem,
        .norm = b->norm_mem,
        .theta = b->theta_mem,
        .n_rows = (uint32_t)n,
        .m = b->m,
        .dim = b->dim,
        .r = b->r,
        .eps = EPS,
        .index = b->index,
    };
    compress(b->f.ops, &a);
    kv_fixture_commit(&b->f);
}

/* --- by definition -------------------------------------------------------------------------- */

struct running {
    float max, sum, weighted;
};

/* The items of entry j among the first t tokens, in order: (position, half). */
static uint32_t items_of(const struct bench *b, uint32_t j, uint32_t t, uint32_t *position,
                         uint32_t *half) {
    uint32_t n = 0, m = b->m;
    if (m == 4 && j > 0)
        for (uint32_t p = (j - 1) * m; p < j * m && p < t; p++, n++) {
            position[n] = p;
            half[n] = 0;
        }
    for (uint32_t p = j * m; p < (j + 1) * m && p < t; p++, n++) {
        position[n] = p;
        half[n] = m == 4;
    }
    return n;
}

static float gate_of(const struct bench *b, uint32_t seq, uint32_t p, uint32_t column) {
    return b->gates[seq][(size_t)p * b->width + column] +
           b->ape[(size_t)(p % b->m) * b->width + column];
}

static struct running running_of(const struct bench *b, uint32_t seq, uint32_t j, uint32_t t,
                                 uint32_t channel) {
    struct running s = { -INFINITY, 0.0f, 0.0f };
    uint32_t position[128], half[128], n = items_of(b, j, t, position, half);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t column = half[i] * b->dim + channel;
        float g = gate_of(b, seq, position[i], column);
        float kv = b->values[seq][(size_t)position[i] * b->width + column];
        if (g <= s.max) {
            float e = arith_exp(g - s.max);
            s.sum = s.sum + e;
            s.weighted = fmaf(e, kv, s.weighted);
        } else {
            float r = arith_exp(s.max - g);
            s.sum = fmaf(s.sum, r, 1.0f);
            s.weighted = fmaf(s.weighted, r, kv);
            s.max = g;
        }
    }
    return s;
}

/* Entry j before it is packed. */
static void entry_of(const struct bench *b, uint32_t seq, uint32_t j, float *x) {
    for (uint32_t i = 0; i < b->dim; i++) {
        struct running s = running_of(b, seq, j, (j + 1) * b->m, i);
        x[i] = s.weighted / s.sum;
    }
    float mean = literal_t16(x, x, b->dim) / (float)b->dim;
    float root = 1.0f / sqrtf(mean + EPS);
    for (uint32_t i = 0; i < b->dim; i++)
        x[i] = (x[i] * root) * b->norm_float[i];
    for (uint32_t i = 0; i < b->r / 2; i++) {
        float *pair = x + b->dim - b->r + 2 * i, even = pair[0], odd = pair[1], sin, cos;
        arith_sincos((float)(j * b->m) * b->theta[i], &sin, &cos);
        pair[0] = fmaf(even, cos, -(odd * sin));
        pair[1] = fmaf(even, sin, odd * cos);
    }
}

/* The same in double, straight from the specification: softmax over all items, and so on. */
static void entry_in_double(const struct bench *b, uint32_t seq, uint32_t j, double *x) {
    uint32_t position[128], half[128], n = items_of(b, j, UINT32_MAX, position, half);
    double squares = 0;
    for (uint32_t i = 0; i < b->dim; i++) {
        double most = -1e30, sum = 0, weighted = 0;
        for (uint32_t k = 0; k < n; k++)
            most = fmax(most, (double)gate_of(b, seq, position[k], half[k] * b->dim + i));
        for (uint32_t k = 0; k < n; k++) {
            uint32_t column = half[k] * b->dim + i;
            double e = exp((double)gate_of(b, seq, position[k], column) - most);
            sum += e;
            weighted += e * (double)b->values[seq][(size_t)position[k] * b->width + column];
        }
        x[i] = weighted / sum;
        squares += x[i] * x[i];
    }
    for (uint32_t i = 0; i < b->dim; i++)
        x[i] *= (double)b->norm_float[i] / sqrt(squares / b->dim + (double)EPS);
    for (uint32_t i = 0; i < b->r / 2; i++) {
        double *pair = x + b->dim - b->r + 2 * i, even = pair[0], odd = pair[1];
        double angle = (double)((float)(j * b->m) * b->theta[i]);
        pair[0] = even * cos(angle) - odd * sin(angle);
        pair[1] = even * sin(angle) + odd * cos(angle);
    }
    if (!b->index)
        return;
    double *from = malloc(b->dim * sizeof *from);
    memcpy(from, x, b->dim * sizeof *x);
    for (uint32_t i = 0; i < b->dim; i++) { // H[i][k] = (−1)^(bits that i and k share)
        x[i] = 0;
        for (uint32_t k = 0; k < b->dim; k++)
            x[i] += (__builtin_popcount(i & k) % 2 ? -from[k] : from[k]) / sqrt(b->dim);
    }
    free(from);
}

/* --- checks --------------------------------------------------------------------------------- */

/* Entries from..end of a sequence, bit for bit; in exact mode also against double. */
static void check_entries(struct bench *b, uint32_t seq, uint32_t from, uint32_t end) {
    bool exact = b->f.options.exact;
    uint32_t bytes =
        b->index ? index_key_bytes(exact, b->dim) : kv_entry_bytes(exact, b->dim, b->r);
    uint32_t table = b->index ? b->f.seqs[seq].keys : b->f.seqs[seq].entries;
    float *x = malloc(b->dim * sizeof *x), *y = malloc(b->dim * sizeof *y);
    double *reference = malloc(b->dim * sizeof *reference);
    unsigned char *want = malloc(bytes), *got = malloc(bytes);
    for (uint32_t j = from; j < end; j++) {
        entry_of(b, seq, j, x);
        if (b->index) {
            literal_hadamard(x, b->dim, y);
            literal_key_pack(exact, y, b->dim, want);
        } else {
            literal_entry_pack(exact, x, b->dim, b->r, want);
        }
        kv_fixture_read(&b->f, table, bytes, j, got);
        assert_memory_equal(got, want, bytes);
        if (!exact)
            continue;
        entry_in_double(b, seq, j, reference);
        for (uint32_t i = 0; i < b->dim; i++)
            assert_true(fabs((double)load_f32(got + 4 * i) - reference[i]) < 2e-5);
    }
    free(x);
    free(y);
    free(reference);
    free(want);
    free(got);
}

/* The states of the last `reach` token counts. */
static void check_states(struct bench *b, uint32_t seq, uint32_t reach) {
    const struct kv_fixture_seq *s = &b->f.seqs[seq];
    uint32_t bytes = compressor_state_bytes(b->m, b->dim), sets = b->m == 4 ? 2 : 1;
    uint32_t table = b->index ? s->index_state[s->now] : s->state[s->now];
    float *got = malloc(bytes);
    for (uint32_t t = s->tokens; t > 0 && s->tokens - t < reach; t--) {
        kv_fixture_read(&b->f, table, bytes, t % b->f.history, got);
        for (uint32_t set = 0; set < sets; set++)
            for (uint32_t i = 0; i < b->dim; i++) {
                struct running want = running_of(b, seq, t / b->m + set, t, i);
                const float *at = got + 3 * set * b->dim + i;
                assert_int_equal(float_bits(at[0]), float_bits(want.max));
                assert_int_equal(float_bits(at[b->dim]), float_bits(want.sum));
                assert_int_equal(float_bits(at[2 * b->dim]), float_bits(want.weighted));
            }
    }
    free(got);
}

static struct kv_fixture_options small(uint32_t m, uint32_t c, bool exact) {
    struct kv_fixture_options o = {
        .exact = exact,
        .n_threads = 2,
        .n_seqs = 3,
        .max_tokens = MAX_TOKENS,
        .c = c,
        .r = 64,
        .index_dim = 128,
        .window = 16,
        .rollback = 8,
        .m = m,
        .seed = m + c,
    };
    return o;
}

/* A text through all its steps. Everything the last step made is checked after each. */
static void check_plan(const struct kv_fixture_options *o, bool index, uint32_t chunk, bool fresh,
                       const uint32_t *lengths) {
    struct bench b;
    struct kv_fixture_part parts[KV_FIXTURE_SEQS];
    uint32_t n_parts, step = 0;
    bench_open(&b, o, index);
    struct kv_plan plan = kv_plan(chunk, o->n_seqs, lengths, o->seed);
    while (kv_plan_next(&plan, parts, &n_parts)) {
        uint32_t had[KV_FIXTURE_SEQS];
        for (uint32_t i = 0; i < o->n_seqs; i++)
            had[i] = b.f.seqs[i].tokens;
        bench_step(&b, parts, n_parts, fresh && step++ % 3 != 1);
        for (uint32_t i = 0; i < o->n_seqs; i++) {
            check_entries(&b, i, had[i] / o->m, b.f.seqs[i].tokens / o->m);
            if (chunk != 1 || b.f.seqs[i].tokens % 5 == 0)
                check_states(&b, i, b.f.history);
        }
    }
    for (uint32_t i = 0; i < o->n_seqs; i++)
        check_entries(&b, i, 0, lengths[i] / o->m);
    bench_close(&b);
}

/* --- tests ---------------------------------------------------------------------------------- */

/* 9 is the length of the ring of states: the step's last takes the place of the one it began from. */
static const uint32_t chunks[] = { 1, 2, 7, 9, 64, 1000, 0 };
static const uint32_t short_texts[] = { 41, 3, 24 }, long_texts[] = { 300, 5, 130 };

static void overlapping_entries_do_not_depend_on_steps(void **state) {
    (void)state;
    struct kv_fixture_options o = small(4, 192, false);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        o.n_threads = 1 + i % 3;
        check_plan(&o, false, chunks[i], i % 2, short_texts);
        check_plan(&o, false, chunks[i], i % 2 == 0, short_texts);
    }
}

static void index_keys_do_not_depend_on_steps(void **state) {
    (void)state;
    struct kv_fixture_options o = small(4, 192, false);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        o.n_threads = 1 + i % 3;
        check_plan(&o, true, chunks[i], i % 2, short_texts);
        check_plan(&o, true, chunks[i], i % 2 == 0, short_texts);
    }
}

static void wide_entries_do_not_depend_on_steps(void **state) {
    (void)state;
    struct kv_fixture_options o = small(128, 192, false);
    for (size_t i = 2; i < sizeof chunks / sizeof *chunks; i++) // 1 and 2 below, near edges
        check_plan(&o, false, chunks[i], i % 2, long_texts);
}

static void full_width_entries_are_the_same(void **state) {
    (void)state;
    struct kv_fixture_options o = small(4, 512, false);
    static const uint32_t lengths[] = { 13, 8, 1 };
    check_plan(&o, false, 3, true, lengths);
    o = small(128, 512, false);
    static const uint32_t wide[] = { 129, 128, 2 };
    check_plan(&o, false, 70, true, wide);
}

static void exact_entries_are_close_to_double(void **state) {
    (void)state;
    struct kv_fixture_options o = small(4, 192, true);
    check_plan(&o, false, 7, true, short_texts);
    check_plan(&o, true, 7, false, short_texts);
    o = small(128, 192, true);
    check_plan(&o, false, 64, true, long_texts);
}

/* Pages too small for more than one state, and a ring of one state: no rollback at all. */
static void small_pages_and_no_history_work(void **state) {
    (void)state;
    struct kv_fixture_options o = small(4, 192, false);
    o.page_bytes = 8192;
    o.rollback = 0;
    check_plan(&o, false, 1, false, short_texts);
    check_plan(&o, false, 2, false, short_texts);
    check_plan(&o, false, 5, false, short_texts);
    check_plan(&o, true, 0, true, short_texts);
}

/* Tokens, in two steps, then `back` of them taken back, then others: as if these had come at once. */
static void check_rollback(uint32_t m, uint32_t tokens, uint32_t last, uint32_t back, bool index,
                           bool fresh) {
    struct kv_fixture_options o = small(m, 192, false);
    struct bench b;
    o.n_seqs = 1;
    o.seed += tokens * 10 + back;
    bench_open(&b, &o, index);
    struct kv_fixture_part part = { .seq = 0, .n_rows = tokens - last };
    if (part.n_rows > 0)
        bench_step(&b, &part, 1, fresh);
    part.n_rows = last;
    bench_step(&b, &part, 1, fresh);
    b.f.seqs[0].tokens -= back;
    check_states(&b, 0, b.f.history - back);
    part.n_rows = 1 + (tokens + back) % (m == 4 ? 6 : 3);
    bench_step(&b, &part, 1, fresh);
    part.n_rows = m == 4 ? 4 : 10;
    bench_step(&b, &part, 1, !fresh);
    check_states(&b, 0, 4);
    check_entries(&b, 0, 0, b.f.seqs[0].tokens / m);
    bench_close(&b);
}

static void every_rollback_leaves_no_trace(void **state) {
    (void)state;
    for (uint32_t tokens = 1; tokens <= 14; tokens++)
        for (uint32_t back = 0; back <= 8 && back <= tokens; back++)
            for (uint32_t last = 1; last <= 12 && last <= tokens; last += 1 + last / 2 * 2)
                check_rollback(4, tokens, last, back, tokens % 2, (back + last) % 2);
}

static void every_rollback_leaves_no_trace_in_wide_groups(void **state) {
    (void)state;
    static const uint32_t ends[] = { 3, 126, 127, 128, 129, 131, 136 };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        for (uint32_t back = 0; back <= 8 && back <= ends[i]; back += 1 + i % 2)
            check_rollback(128, ends[i], 1 + (ends[i] - 1) * (back % 2) / 2, back, false,
                           back % 3 != 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlapping_entries_do_not_depend_on_steps),
        cmocka_unit_test(index_keys_do_not_depend_on_steps),
        cmocka_unit_test(wide_entries_do_not_depend_on_steps),
        cmocka_unit_test(full_width_entries_are_the_same),
        cmocka_unit_test(exact_entries_are_close_to_double),
        cmocka_unit_test(small_pages_and_no_history_work),
        cmocka_unit_test(every_rollback_leaves_no_trace),
        cmocka_unit_test(every_rollback_leaves_no_trace_in_wide_groups),
    };
    return each_form_run(tests);
}
