#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/kernels/kv_fixture.h"
#include "kernels/cpu/cpu.h"
#include "tests/kernels/each_form.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- sequences ------------------------------------------------------------------------------ */

static uint32_t pages_for(struct kv_fixture *f, uint32_t entry_bytes, uint32_t n) {
    struct kv_shape shape = kv_shape(entry_bytes, f->options.page_bytes);
    assert_true(shape.per_page > 0);
    return (n + shape.per_page - 1) / shape.per_page;
}

/* Deal out a table of n pages; returns where it begins. Page numbers are filled in later. */
static uint32_t table_of(struct kv_fixture *f, uint32_t n_pages) {
    uint32_t at = f->n_tables;
    f->n_tables += n_pages;
    return at;
}

static void deal_tables(struct kv_fixture *f) {
    const struct kv_fixture_options *o = &f->options;
    uint32_t entry = kv_entry_bytes(o->exact, o->c, o->r);
    uint32_t key = index_key_bytes(o->exact, o->index_dim), m = o->m ? o->m : 1;
    uint32_t n_entries = o->max_tokens / m + 1;
    for (uint32_t i = 0; i < o->n_seqs; i++) {
        struct kv_fixture_seq *s = &f->seqs[i];
        for (int set = 0; set < 2; set++) {
            s->window[set] = table_of(f, pages_for(f, entry, f->ring_entries));
            s->state[set] = table_of(f, pages_for(f, compressor_state_bytes(m, o->c), f->history));
            s->index_state[set] =
                table_of(f, pages_for(f, compressor_state_bytes(m, o->index_dim), f->history));
        }
        s->entries = table_of(f, pages_for(f, entry, n_entries));
        s->keys = table_of(f, pages_for(f, key, n_entries));
    }
}

void kv_fixture_open(struct kv_fixture *f, const struct kv_fixture_options *options) {
    struct err err = { 0 };
    memset(f, 0, sizeof *f);
    f->options = *options;
    if (!f->options.page_bytes)
        f->options.page_bytes = 16384;
    assert_true(options->n_seqs <= KV_FIXTURE_SEQS);
    f->history = options->rollback + 1;
    f->ring_entries = options->window + options->rollback;
    struct cpu_options cpu = { .n_threads = options->n_threads, .exact = options->exact };
    assert_int_equal(cpu_open(&f->ops, &cpu, &err), OK);
    each_form_use(f->ops);

    deal_tables(f);
    f->n_pages = f->n_tables + 3; // a few that nobody has
    f->tables = malloc(f->n_pages * sizeof *f->tables);
    f->page = malloc(f->options.page_bytes);
    assert_non_null(f->tables);
    assert_non_null(f->page);
    uint64_t random = options->seed + 1;
    for (uint32_t i = 0; i < f->n_pages; i++) { // a random permutation
        uint32_t other = random_below(&random, i + 1);
        f->tables[i] = f->tables[other];
        f->tables[other] = i;
    }
    f->pages_mem = kv_fixture_put(f, NULL, (size_t)f->n_pages * f->options.page_bytes);
    f->tables_mem = kv_fixture_put(f, f->tables, f->n_tables * sizeof *f->tables);
    f->rows_mem = kv_fixture_put(f, NULL, sizeof f->rows);
}

void kv_fixture_close(struct kv_fixture *f) {
    ops_close(f->ops);
    free(f->tables);
    free(f->page);
}

struct mem kv_fixture_put(struct kv_fixture *f, const void *bytes, size_t n) {
    struct err err = { 0 };
    struct mem m;
    assert_int_equal(ops_alloc(f->ops, n, &m, &err), OK);
    unsigned char garbage[4096];
    memset(garbage, 0xFF, sizeof garbage);
    if (bytes)
        ops_upload(f->ops, m, bytes, n);
    for (size_t at = 0; !bytes && at < n; at += sizeof garbage)
        ops_upload(f->ops, mem_at(m, at), garbage,
                   n - at < sizeof garbage ? n - at : sizeof garbage);
    return m;
}

void kv_fixture_get(struct kv_fixture *f, struct mem m, void *out, size_t n) {
    struct err err = { 0 };
    assert_int_equal(ops_download(f->ops, out, m, n, &err), OK);
}

static void spoil_table(struct kv_fixture *f, uint32_t table, uint32_t n_pages) {
    memset(f->page, 0xFF, f->options.page_bytes);
    for (uint32_t i = 0; i < n_pages; i++)
        ops_upload(f->ops,
                   mem_at(f->pages_mem, (uint64_t)f->tables[table + i] * f->options.page_bytes),
                   f->page, f->options.page_bytes);
}

struct kv_view kv_fixture_step(struct kv_fixture *f, const struct kv_fixture_part *parts,
                               uint32_t n_parts, bool fresh) {
    const struct kv_fixture_options *o = &f->options;
    struct kv_view view = {
        .pages = f->pages_mem,
        .tables = f->tables_mem,
        .rows = f->rows_mem,
        .n_seqs = n_parts,
        .page_bytes = o->page_bytes,
        .c = o->c,
        .r = o->r,
        .index_dim = o->index_dim,
        .ring_entries = f->ring_entries,
        .history = f->history,
    };
    uint32_t n_rows = 0;
    f->n_parts = n_parts;
    f->fresh = fresh;
    for (uint32_t i = 0; i < n_parts; i++) {
        const struct kv_fixture_seq *s = &f->seqs[parts[i].seq];
        uint32_t read = s->now, write = fresh ? !s->now : s->now;
        assert_true(s->tokens + parts[i].n_rows <= o->max_tokens);
        f->parts[i] = parts[i];
        f->rows[i] = (struct kv_rows){
            .first_row = n_rows,
            .n_rows = parts[i].n_rows,
            .start = s->tokens,
            .window_read = s->window[read],
            .window_write = s->window[write],
            .state_read = s->state[read],
            .state_write = s->state[write],
            .index_state_read = s->index_state[read],
            .index_state_write = s->index_state[write],
            .entries = s->entries,
            .keys = s->keys,
        };
        if (fresh) // the three tables of a set follow each other
            spoil_table(f, s->window[write],
                        write == 0 ? s->window[1] - s->window[0] : s->entries - s->window[1]);
        n_rows += parts[i].n_rows;
        if (parts[i].n_rows > view.max_seq_rows)
            view.max_seq_rows = parts[i].n_rows;
    }
    ops_upload(f->ops, f->rows_mem, f->rows, n_parts * sizeof *f->rows);
    return view;
}

void kv_fixture_commit(struct kv_fixture *f) {
    for (uint32_t i = 0; i < f->n_parts; i++) {
        struct kv_fixture_seq *s = &f->seqs[f->parts[i].seq];
        s->tokens += f->parts[i].n_rows;
        if (f->fresh)
            s->now = !s->now;
    }
    f->n_parts = 0;
}

static struct mem entry_at(struct kv_fixture *f, uint32_t table, uint32_t entry_bytes, uint32_t i) {
    struct kv_shape shape = kv_shape(entry_bytes, f->options.page_bytes);
    uint64_t page = f->tables[table + i / shape.per_page];
    return mem_at(f->pages_mem,
                  page * f->options.page_bytes + kv_offset(shape, i % shape.per_page));
}
void kv_fixture_read(struct kv_fixture *f, uint32_t table, uint32_t entry_bytes, uint32_t i,
                     void *out) {
    kv_fixture_get(f, entry_at(f, table, entry_bytes, i), out, entry_bytes);
}
void kv_fixture_write(struct kv_fixture *f, uint32_t table, uint32_t entry_bytes, uint32_t i,
                      const void *in) {
    ops_upload(f->ops, entry_at(f, table, entry_bytes, i), in, entry_bytes);
}

/* --- plans ---------------------------------------------------------------------------------- */

struct kv_plan kv_plan(uint32_t chunk, uint32_t n_seqs, const uint32_t *lengths, uint64_t seed) {
    struct kv_plan p = { .chunk = chunk, .n_seqs = n_seqs, .random = seed + 7 };
    memcpy(p.left, lengths, n_seqs * sizeof *lengths);
    return p;
}

bool kv_plan_next(struct kv_plan *p, struct kv_fixture_part *parts, uint32_t *n_parts) {
    uint32_t longest = 0, rows = 0, turn = random_below(&p->random, p->n_seqs);
    for (uint32_t i = 0; i < p->n_seqs; i++)
        longest = p->left[i] > longest ? p->left[i] : longest;
    while (longest > 0 && rows == 0) { // random sizes may all be 0
        *n_parts = 0;
        for (uint32_t i = 0; i < p->n_seqs; i++) {
            uint32_t seq = (i + turn) % p->n_seqs, n = p->chunk;
            if (p->chunk == 0) {
                static const uint32_t sizes[] = { 0, 1, 1, 2, 3, 4, 5, 8, 9, 13, 31, 130 };
                n = sizes[random_below(&p->random, sizeof sizes / sizeof *sizes)];
            }
            n = n < p->left[seq] ? n : p->left[seq];
            p->left[seq] -= n;
            rows += n;
            if (n > 0 || p->chunk == 0) // a sequence without rows may be listed
                parts[(*n_parts)++] = (struct kv_fixture_part){ .seq = seq, .n_rows = n };
        }
    }
    return longest > 0;
}

/* --- random --------------------------------------------------------------------------------- */

uint64_t random_next(uint64_t *state) { // splitmix64
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)(random_next(state) >> 33) % n;
}
float random_float(uint64_t *state) {
    return (float)((double)(random_next(state) >> 11) * 0x1p-52 - 1.0);
}
void random_floats(uint64_t *state, float *out, size_t n, float spread) {
    for (size_t i = 0; i < n; i++) {
        float x = random_float(state) * spread;
        switch (random_below(state, 64)) {
        case 0:
            x = 0.0f;
            break;
        case 1:
            x *= 1e-6f;
            break;
        case 2:
            x *= 20.0f;
            break;
        case 3:
            x = -0.0f;
            break;
        default:
            break;
        }
        out[i] = x;
    }
}

/* --- literal forms -------------------------------------------------------------------------- */

float literal_t16(const float *a, const float *b, uint32_t n) {
    float lane[16] = { 0 };
    for (uint32_t c = 0; c < n; c++)
        lane[c % 16] = fmaf(a[c], b[c], lane[c % 16]);
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; i++)
            lane[i] = lane[i] + lane[i + step];
    return lane[0];
}

double literal_e4m3(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    double value =
        exponent == 0 ? ldexp(mantissa / 8.0, -6) : ldexp(1.0 + mantissa / 8.0, exponent - 7);
    return code & 0x80 ? -value : value;
}
double literal_e2m1(uint8_t code) {
    static const double values[] = { 0, .5, 1, 1.5, 2, 3, 4, 6 };
    return code & 8 ? -values[code & 7] : values[code & 7];
}

static uint8_t nearest(double x, double (*value)(uint8_t), uint8_t largest, uint8_t sign) {
    double a = fabs(x);
    uint8_t below = 0, above = largest; // codes ascend with their values
    while (above - below > 1) {
        uint8_t middle = (uint8_t)((above + below) / 2);
        if (value(middle) <= a)
            below = middle;
        else
            above = middle;
    }
    double down = fabs(a - value(below)), up = fabs(value(above) - a);
    uint8_t best = up < down || (up == down && above % 2 == 0) ? above : below;
    return signbit(x) ? best | sign : best;
}
uint8_t literal_e4m3_nearest(double x) {
    return nearest(x, literal_e4m3, 0x7E, 0x80);
}
uint8_t literal_e2m1_nearest(double x) {
    return nearest(x, literal_e2m1, 7, 8);
}

uint8_t literal_scale(float amax, double least, double most) {
    double a = (double)amax > least ? (double)amax : least;
    float quotient = (float)((float)a / (float)most); // a float division, as published
    int exponent;
    double fraction = frexp((double)quotient, &exponent); // fraction · 2^exponent, in [½, 1)
    return (uint8_t)(127 + (fraction == 0.5 ? exponent - 1 : exponent));
}

static float largest(const float *x, uint32_t n) {
    float most = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

void literal_entry_pack(bool exact, const float *x, uint32_t c, uint32_t r, unsigned char *out) {
    uint32_t coded = c - r, at = 0;
    memset(out, 0, kv_entry_bytes(exact, c, r));
    if (exact) {
        memcpy(out, x, 4 * (size_t)c);
        return;
    }
    for (uint32_t g = 0; g < coded / 64; g++) {
        uint8_t scale = literal_scale(largest(x + 64 * g, 64), 1e-4, 448);
        out[coded + g] = scale;
        for (uint32_t i = 64 * g; i < 64 * g + 64; i++)
            out[at++] = literal_e4m3_nearest((double)x[i] / ldexp(1.0, scale - 127));
    }
    at += coded / 64;
    for (uint32_t i = coded; i < c; i++) { // BF16: the upper half, to nearest even
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        uint32_t upper = bits >> 16, rest = bits & 0xFFFF;
        upper += rest > 0x8000 || (rest == 0x8000 && upper % 2 == 1);
        out[at++] = (unsigned char)upper;
        out[at++] = (unsigned char)(upper >> 8);
    }
}

void literal_entry_unpack(bool exact, const unsigned char *in, uint32_t c, uint32_t r, float *x) {
    uint32_t coded = c - r;
    if (exact) {
        memcpy(x, in, 4 * (size_t)c);
        return;
    }
    for (uint32_t i = 0; i < coded; i++)
        x[i] = (float)(literal_e4m3(in[i]) * ldexp(1.0, in[coded + i / 64] - 127));
    const unsigned char *rotary = in + coded + coded / 64;
    for (uint32_t i = 0; i < r; i++) {
        uint32_t bits = (uint32_t)rotary[2 * i] << 16 | (uint32_t)rotary[2 * i + 1] << 24;
        memcpy(&x[coded + i], &bits, 4);
    }
}

void literal_key_pack(bool exact, const float *x, uint32_t ci, unsigned char *out) {
    memset(out, 0, index_key_bytes(exact, ci));
    if (exact) {
        memcpy(out, x, 4 * (size_t)ci);
        return;
    }
    for (uint32_t i = 0; i < ci; i++) {
        uint8_t scale = literal_scale(largest(x + i / 32 * 32, 32), 6 * ldexp(1.0, -126), 6);
        uint8_t code = literal_e2m1_nearest((double)x[i] / ldexp(1.0, scale - 127));
        out[i / 2] |= (unsigned char)(code << 4 * (i % 2));
        out[ci / 2 + i / 32] = scale;
    }
}

void literal_hadamard(const float *x, uint32_t n, float *y) {
    float *from = malloc(n * sizeof *from);
    assert_non_null(from);
    memcpy(y, x, n * sizeof *x);
    for (uint32_t distance = 1; distance < n; distance *= 2) {
        memcpy(from, y, n * sizeof *y);
        for (uint32_t i = 0; i < n; i++)
            y[i] = i & distance ? from[i - distance] - from[i] : from[i] + from[i + distance];
    }
    float scale = (float)pow(n, -0.5);
    for (uint32_t i = 0; i < n; i++)
        y[i] = y[i] * scale;
    free(from);
}
