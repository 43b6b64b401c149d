#include "tools/bench/cache.h"

#include <stdlib.h>
#include <string.h>

#define MADE_SEED 1

const double bench_sizes[BENCH_SIZES] = { 0.02, 0.05, 0.10, 0.15, 0.30, 0.50 };

static const struct replay_contender lru = { .name = "LRU", .policy = POLICY_LRU };

/* Gathers the statistics while a trace is read. */
struct gathering {
    struct bench_trace *trace;
    const struct routing_header *header;
    uint32_t *uses;             // by layer and expert
    struct routing_step before; // the step before this one
    uint32_t *before_rows;      // its sequences, then its positions
    uint16_t *before_experts;
    uint64_t n_followed, n_again; // choices of tokens that follow another; of those it made, too
};

// --- statistics ----------------------------------------------------------------------------------

static uint32_t in_common(const uint16_t *a, const uint16_t *b, uint32_t n) {
    uint32_t common = 0;
    for (uint32_t i = 0, j = 0; i < n && j < n;) {
        common += a[i] == b[j];
        uint16_t x = a[i], y = b[j];
        i += x <= y;
        j += y <= x;
    }
    return common;
}

/* The row before this one in its sequence, if it is at hand: in the same step, or in the last one. */
static const struct routing_step *row_before(const struct gathering *g,
                                             const struct routing_step *step, uint32_t row,
                                             uint32_t *out) {
    uint32_t sequence = step->sequence[row], position = step->position[row];
    if (row > 0 && step->sequence[row - 1] == sequence && step->position[row - 1] + 1 == position) {
        *out = row - 1;
        return step;
    }
    for (uint32_t i = 0; i < g->before.n_rows; i++)
        if (g->before.sequence[i] == sequence && g->before.position[i] + 1 == position) {
            *out = i;
            return &g->before;
        }
    return NULL;
}

static void gather(struct gathering *g, const struct routing_step *step) {
    const struct routing_header *h = g->header;
    for (uint32_t row = 0; row < step->n_rows; row++) {
        uint32_t other = 0;
        const struct routing_step *before = row_before(g, step, row, &other);
        for (uint32_t block = 0; block < step->n_blocks; block++) {
            if (h->kind[block])
                continue;
            const uint16_t *chosen = routing_experts(h, step, block, row);
            for (uint32_t i = 0; i < h->n_chosen; i++)
                g->uses[block * h->n_experts + chosen[i]]++;
            if (!before || block >= before->n_blocks)
                continue;
            g->n_followed += h->n_chosen;
            g->n_again += in_common(chosen, routing_experts(h, before, block, other), h->n_chosen);
        }
    }
}

static bool keep_step(struct gathering *g, const struct routing_step *step) {
    size_t n_rows = step->n_rows, n = n_rows * step->n_blocks * g->header->n_chosen;
    uint32_t *rows = realloc(g->before_rows, 2 * n_rows * sizeof *rows);
    if (rows)
        g->before_rows = rows;
    uint16_t *experts = realloc(g->before_experts, n * sizeof *experts);
    if (experts)
        g->before_experts = experts;
    if (!rows || !experts)
        return false;
    memcpy(rows, step->sequence, n_rows * sizeof *rows);
    memcpy(rows + n_rows, step->position, n_rows * sizeof *rows);
    memcpy(experts, step->experts, n * sizeof *experts);
    g->before = *step;
    g->before.sequence = rows;
    g->before.position = rows + n_rows;
    g->before.experts = experts;
    return true;
}

static int descending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double top_tenth(struct gathering *g) {
    uint32_t n = g->header->n_experts, tenth = n >= 10 ? n / 10 : 1;
    uint64_t all = 0, top = 0;
    for (uint32_t block = 0; block < g->header->n_blocks; block++) {
        uint32_t *uses = g->uses + (size_t)block * n;
        qsort(uses, n, sizeof *uses, descending);
        for (uint32_t e = 0; e < n; e++) {
            all += uses[e];
            top += e < tenth ? uses[e] : 0;
        }
    }
    return all ? (double)top / (double)all : 0;
}

// --- reading -------------------------------------------------------------------------------------

static enum status begin(struct gathering *g, struct bench_trace *t, const struct routing_header *h,
                         struct err *err) {
    *g = (struct gathering){ .trace = t, .header = h };
    t->n_layers = h->n_blocks;
    t->n_experts = h->n_experts;
    t->n_chosen = h->n_chosen;
    t->expert_bytes = h->expert_bytes;
    g->uses = calloc((size_t)h->n_blocks * h->n_experts, sizeof *g->uses);
    if (!g->uses)
        return err_set(err, ERR_MEMORY, "no memory for the statistics of a trace");
    return replay_trace_open(&t->demands, h->n_blocks, h->n_experts, err);
}

static enum status add_step(struct gathering *g, const struct routing_step *step, struct err *err) {
    struct bench_trace *t = g->trace;
    t->n_steps++;
    t->n_rows += step->n_rows;
    gather(g, step);
    if (!keep_step(g, step))
        return err_set(err, ERR_MEMORY, "no memory for a step of %u rows", step->n_rows);
    enum status status = OK;
    for (uint32_t block = 0; block < step->n_blocks && status == OK; block++)
        status = replay_trace_add(&t->demands, block, routing_experts(g->header, step, block, 0),
                                  (uint64_t)step->n_rows * g->header->n_chosen, err);
    t->n_accesses = t->demands.n_accesses;
    return status;
}

static void end(struct gathering *g) {
    if (g->uses && g->n_followed)
        g->trace->overlap = (double)g->n_again / (double)g->n_followed;
    if (g->uses)
        g->trace->top_tenth = top_tenth(g);
    free(g->uses);
    free(g->before_rows);
    free(g->before_experts);
}

enum status bench_trace_made(struct bench_trace *t, enum made_model model, enum made_load load,
                             struct err *err) {
    struct made_routing *m;
    struct routing_step step;
    struct gathering g;
    *t = (struct bench_trace){ 0 };
    snprintf(t->name, sizeof t->name, "%s, %s (made)", made_model_name(model),
             made_load_name(load));
    enum status status = made_routing_open(&m, model, load, MADE_SEED, err);
    if (status != OK)
        return status;
    status = begin(&g, t, made_routing_header(m), err);
    while (status == OK && made_routing_next(m, &step) == OK)
        status = add_step(&g, &step, err);
    end(&g);
    made_routing_close(m);
    return status;
}

enum status bench_trace_recorded(struct bench_trace *t, const char *path, bool *is_cut,
                                 struct err *err) {
    struct routing_reader *r;
    struct routing_step step;
    struct gathering g;
    *t = (struct bench_trace){ 0 };
    *is_cut = false;
    snprintf(t->name, sizeof t->name, "%s", path);
    enum status status = routing_reader_open(&r, path, err);
    if (status != OK)
        return status;
    status = begin(&g, t, routing_reader_header(r), err);
    while (status == OK && (status = routing_reader_next(r, &step, err)) == OK)
        status = add_step(&g, &step, err);
    end(&g);
    routing_reader_close(r);
    *is_cut = status == ERR_TRUNCATED && t->n_steps;
    if (status == DONE && !t->demands.n_accesses)
        return err_set(err, ERR_INPUT, "%s: a trace without a step", path);
    return status == DONE || *is_cut ? OK : status;
}

void bench_trace_close(struct bench_trace *t) {
    replay_trace_close(&t->demands);
}

// --- replaying -----------------------------------------------------------------------------------

static double hits(const struct replay_result *r) {
    return 1 - (double)r->misses / (double)r->accesses;
}

static enum status lru_hits(const struct bench_trace *t, double n_slots, double *out,
                            struct err *err) {
    struct replay_result r;
    enum status status = replay(&t->demands, &lru, n_slots < 1 ? 1 : (uint32_t)n_slots, &r, err);
    if (status == OK)
        *out = hits(&r);
    return status;
}

static enum status published_figures(struct bench_trace *t, struct err *err) {
    double all = (double)t->n_layers * t->n_experts;
    enum status status = lru_hits(t, 0.15 * all, &t->lru_15, err);
    if (status == OK)
        status = lru_hits(t, 0.34 * all, &t->lru_34, err);
    if (status == OK)
        status = lru_hits(t, 0.75 * t->n_layers * t->n_chosen, &t->lru_token, err);
    return status;
}

enum status bench_trace_replay(struct bench_trace *t, bool (*cancelled)(void *context),
                               struct err *err) {
    double all = (double)t->n_layers * t->n_experts;
    enum status status = published_figures(t, err);
    for (int size = 0; size < BENCH_SIZES && status == OK; size++) {
        t->n_slots[size] = bench_sizes[size] * all < 1 ? 1 : (uint32_t)(bench_sizes[size] * all);
        for (int c = 0; c < REPLAY_CONTENDERS && status == OK; c++)
            status = cancelled(NULL) ? CANCELLED
                                     : replay(&t->demands, &replay_contenders[c], t->n_slots[size],
                                              &t->results[c][size], err);
    }
    return status;
}

double bench_of_belady(const struct bench_trace *t, int contender, int size) {
    const struct replay_result *best = &t->results[REPLAY_CONTENDERS - 1][size];
    return (double)t->results[contender][size].misses / (double)best->misses;
}

double bench_bytes_a_row(const struct bench_trace *t, int contender, int size) {
    return (double)t->results[contender][size].misses * (double)t->expert_bytes / (double)t->n_rows;
}
