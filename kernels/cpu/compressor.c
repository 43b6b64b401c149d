#include "kernels/cpu/kv.h"

#include <omp.h>
#include <string.h>

/* How an entry comes about, and where its running values are.
 *
 * Entry j of a sequence takes, per channel, one half of each of its items in token order. m = 128:
 * the tokens jm … jm+m−1. m = 4 (overlapping): the A halves of the group before, (j−1)m … jm−1,
 * then the B halves of its own, jm … jm+m−1; entry 0 has no group before it. The running values
 * (M, S, N) of an entry under way are a `set`. After t tokens, j = ⌊t/m⌋, a state is
 *     cur    the set of entry j:     what it has of its items below t
 *     next   the set of entry j + 1 (m = 4 only): A halves of jm … t−1
 * so at a group's end cur is complete and gives an entry, next becomes cur, and a new next is empty.
 *
 * A set depends on the rows of two groups at most, and on the state at `start` where these began
 * before the step. So entries are computed independently of each other (gather_set), from rows as
 * they come in the step, and the sum's order is the token order however the step was cut.
 *
 * An op has two phases with a barrier between: entries, then states. States of a step may be
 * written over the one that it began from; by then nobody reads it but who writes. */

/* Channels whose states one thread computes: 64 are enough vectors to hide exp's latency, and eight
 * threads can share a sequence of Pro's 512. */
#define STATE_CHANNELS 64
/* Rows below which a team of threads costs more to wake than it saves: a row of Pro's is 1-2 us. */
#define WORTH_THREADS 4

/* The running values of an entry under way: n channels each. */
struct set {
    float *max, *sum, *weighted;
};

struct compressor {
    const struct compress *a;
    const struct cpu_forms *forms;
    struct kv_pages pages;
    struct kv_shape state_shape, entry_shape;
    const float *values, *gates, *theta;
    const unsigned char *ape, *norm; // F32 and BF16 at any byte: weights lie as the shard put them
    bool exact, overlapping;
};

/* --- running values ------------------------------------------------------------------------- */

static struct set set_at(float *memory, uint32_t n) {
    return (struct set){ memory, memory + n, memory + 2 * (size_t)n };
}

static void set_empty(struct set s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        s.max[i] = -INFINITY;
        s.sum[i] = 0.0f;
        s.weighted[i] = 0.0f;
    }
}

static void set_copy(struct set to, struct set from, uint32_t n) {
    memcpy(to.max, from.max, n * sizeof(float));
    memcpy(to.sum, from.sum, n * sizeof(float));
    memcpy(to.weighted, from.weighted, n * sizeof(float));
}

/* Feed the half `half` (0: A, 1: B) of the token at `position`, channels first … +n. */
static void feed(const struct compressor *p, const struct kv_rows *s, struct set set,
                 uint32_t position, uint32_t half, uint32_t first, uint32_t n) {
    uint32_t dim = p->a->dim, m = p->a->m;
    size_t width = p->overlapping ? 2 * (size_t)dim : dim;
    size_t row = s->first_row + (position - s->start), column = (size_t)half * dim + first;
    p->forms->feed(set.max, set.sum, set.weighted, p->values + row * width + column,
                   p->gates + row * width + column, p->ape + 4 * (position % m * width + column),
                   n);
}

/* Where the state after t tokens lies, in the ring of table `table`. */
static unsigned char *state_at(const struct compressor *p, uint32_t table, uint32_t t) {
    return kv_at(&p->pages, p->state_shape, table, t % p->a->kv.history);
}
static uint32_t state_read(const struct compressor *p, const struct kv_rows *s) {
    return p->a->index ? s->index_state_read : s->state_read;
}
static uint32_t state_write(const struct compressor *p, const struct kv_rows *s) {
    return p->a->index ? s->index_state_write : s->state_write;
}

/* The three vectors of one set (0: cur, 1: next) within a state in a page, as seen by channels
 * first … +n. Page memory has no alignment, so they are copied, never pointed to. */
static void state_load(const unsigned char *state, uint32_t which, uint32_t dim, struct set set,
                       uint32_t first, uint32_t n) {
    const unsigned char *from = state + ((size_t)3 * which * dim + first) * sizeof(float);
    memcpy(set.max, from, n * sizeof(float));
    memcpy(set.sum, from + (size_t)dim * sizeof(float), n * sizeof(float));
    memcpy(set.weighted, from + (size_t)2 * dim * sizeof(float), n * sizeof(float));
}
static void state_store(unsigned char *state, uint32_t which, uint32_t dim, struct set set,
                        uint32_t first, uint32_t n) {
    unsigned char *to = state + ((size_t)3 * which * dim + first) * sizeof(float);
    memcpy(to, set.max, n * sizeof(float));
    memcpy(to + (size_t)dim * sizeof(float), set.sum, n * sizeof(float));
    memcpy(to + (size_t)2 * dim * sizeof(float), set.weighted, n * sizeof(float));
}

/* The set of entry j as it is after t tokens (start ≤ t ≤ (j+1)m), channels first … +n: what the
 * state at `start` holds of it, if any of its items came before the step, and the step's rows. At
 * start = 0 no item did, so a page that was never written is not read. */
static void gather_set(const struct compressor *p, const struct kv_rows *s, uint32_t j, uint32_t t,
                       struct set set, uint32_t first, uint32_t n) {
    uint32_t m = p->a->m, own = j * m; // its group's first token
    uint32_t position = p->overlapping && j > 0 ? own - m : own;
    if (s->start > position) {
        uint32_t which = j - s->start / m; // cur, or next if start lies in the group before
        state_load(state_at(p, state_read(p, s), s->start), which, p->a->dim, set, first, n);
        position = s->start;
    } else {
        set_empty(set, n);
    }
    for (; position < t; position++)
        feed(p, s, set, position, p->overlapping && position >= own, first, n);
}

/* --- entries -------------------------------------------------------------------------------- */

/* From the complete set to the entry: N/S → RMSNorm → rotate the last r at position j·m → pack. */
static void finish_entry(const struct compressor *p, uint32_t j, struct set set, float *x,
                         unsigned char *out) {
    const struct compress *a = p->a;
    p->forms->quotient(x, set.weighted, set.sum, a->dim);
    p->forms->norm(x, x, p->norm, a->dim, a->eps);
    float *rotary = x + a->dim - a->r;
    for (uint32_t i = 0; i < a->r / 2; i++) {
        float sin, cos, even = rotary[2 * i], odd = rotary[2 * i + 1];
        arith_sincos((float)(j * a->m) * p->theta[i], &sin, &cos);
        rotary[2 * i] = fmaf(even, cos, -(odd * sin));
        rotary[2 * i + 1] = fmaf(even, sin, odd * cos);
    }
    if (a->index) {
        p->forms->hadamard(x, a->dim);
        index_key_pack(p->forms, p->exact, x, a->dim, out);
    } else {
        kv_entry_pack(p->forms, p->exact, x, a->dim, a->r, out);
    }
}

/* If this row ends a group, its entry. */
static void row_entry(const struct compressor *p, uint32_t row, float *scratch) {
    const struct kv_rows *s = kv_rows_of(&p->pages, row);
    uint32_t position = kv_position(s, row), m = p->a->m, j = position / m;
    if ((position + 1) % m != 0)
        return;
    struct set set = set_at(scratch, p->a->dim);
    gather_set(p, s, j, position + 1, set, 0, p->a->dim);
    finish_entry(p, j, set, scratch + 3 * (size_t)p->a->dim,
                 kv_at(&p->pages, p->entry_shape, p->a->index ? s->keys : s->entries, j));
}

/* --- states --------------------------------------------------------------------------------- */

/* The states of one sequence, channels first … +n: after each of the step's last `history` rows.
 * They are t = kept … end, where t − 1 = kept − 1 is rebuilt as entries are. */
static void write_states(const struct compressor *p, const struct kv_rows *s, uint32_t first,
                         uint32_t n, float *scratch) {
    uint32_t m = p->a->m, dim = p->a->dim, end = s->start + s->n_rows;
    uint32_t rows = s->n_rows < p->a->kv.history ? s->n_rows : p->a->kv.history;
    uint32_t t = end - rows; // rebuilt first, not written: it is older, or the step's beginning
    struct set cur = set_at(scratch, n), next = set_at(scratch + 3 * (size_t)n, n);
    gather_set(p, s, t / m, t, cur, first, n);
    if (p->overlapping)
        gather_set(p, s, t / m + 1, t, next, first, n);
    for (; t < end; t++) {
        feed(p, s, cur, t, p->overlapping, first, n);
        if (p->overlapping)
            feed(p, s, next, t, 0, first, n);
        if ((t + 1) % m == 0) { // a group's end
            if (p->overlapping)
                set_copy(cur, next, n);
            set_empty(p->overlapping ? next : cur, n);
        }
        unsigned char *state = state_at(p, state_write(p, s), t + 1);
        state_store(state, 0, dim, cur, first, n);
        if (p->overlapping)
            state_store(state, 1, dim, next, first, n);
    }
}

/* A step of fewer rows than `history` leaves states before it in reach of a rollback: where the ring
 * to write is another, they are carried over. (The state at t = 0 is empty and never read.) */
static void carry_states(const struct compressor *p, const struct kv_rows *s) {
    uint32_t end = s->start + s->n_rows, history = p->a->kv.history;
    uint32_t t = end >= history ? end - history + 1 : 1;
    for (; t <= s->start; t++) {
        unsigned char *to = state_at(p, state_write(p, s), t);
        const unsigned char *from = state_at(p, state_read(p, s), t);
        if (to != from)
            memcpy(to, from, p->state_shape.entry_bytes);
    }
}

/* --- the op --------------------------------------------------------------------------------- */

void cpu_compress(struct ops *ops, const struct compress *a) {
    const struct cpu_ops *c = cpu_of(ops);
    bool overlapping = a->m == 4;
    struct compressor p = {
        .a = a,
        .forms = c->forms,
        .pages = kv_pages_of(&a->kv),
        .state_shape = kv_shape(compressor_state_bytes(a->m, a->dim), a->kv.page_bytes),
        .entry_shape = kv_shape(a->index ? index_key_bytes(ops->exact, a->dim)
                                         : kv_entry_bytes(ops->exact, a->dim, a->r),
                                a->kv.page_bytes),
        .values = cpu_ptr(a->values),
        .gates = cpu_ptr(a->gates),
        .ape = cpu_ptr(a->ape),
        .theta = cpu_ptr(a->theta),
        .norm = cpu_ptr(a->norm),
        .exact = ops->exact,
        .overlapping = overlapping,
    };
    assert(a->m > 0 && a->kv.history > 0);
    assert(4 * (size_t)a->dim * sizeof(float) <= CPU_THREAD_BYTES);
    uint32_t blocks = (a->dim + STATE_CHANNELS - 1) / STATE_CHANNELS;
    size_t state_units = (size_t)a->kv.n_seqs * blocks;
    bool worth_it = a->n_rows >= WORTH_THREADS;
#pragma omp parallel num_threads(c->n_threads) if (worth_it)
    {
        float *scratch = cpu_scratch(c, omp_get_thread_num());
        // This loop ends in a barrier: what follows may overwrite the states that it reads.
#pragma omp for schedule(dynamic, 4)
        for (uint32_t row = 0; row < a->n_rows; row++)
            row_entry(&p, row, scratch);
#pragma omp for schedule(static)
        for (size_t unit = 0; unit < state_units; unit++) {
            const struct kv_rows *s = &p.pages.seqs[unit / blocks];
            uint32_t first = (uint32_t)(unit % blocks) * STATE_CHANNELS;
            uint32_t n = a->dim - first < STATE_CHANNELS ? a->dim - first : STATE_CHANNELS;
            if (first == 0)
                carry_states(&p, s);
            write_states(&p, s, first, n, scratch);
        }
    }
}
