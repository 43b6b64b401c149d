#include "tools/bench/io.h"

#include "io/clock.h"
#include "io/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024u
#define MIB (1024u * 1024u)

// A plan is made of windows of equal length; a run of 40 seconds has windows of 0.4.
#define WINDOWS         100
#define GRID_LIMIT      1.4 // of the time that was asked for: then what is left of the grid is skipped
#define GRID_LIMIT_FULL 4.5
#define IN_FLIGHT_MAX   (256ull * MIB)

// Of experts: less than 8 MiB at the device starves any drive worth having, and eight experts that
// are queued ahead fill no more than 256. Much of that is wanted where other work keeps the disk's
// thread from the CPU: 64 MiB are 18 ms at 3.5 GB/s. With two busy processes of higher priority on
// two cores 2 MiB x 32 read 2.5 GB/s, 8 MiB x 32 3.4.
#define CANDIDATE_LEAST (8ull * MIB)
#define CANDIDATE_MOST  (256ull * MIB)

static const uint32_t candidate_chunks[] = { 512 * KIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB };
static const uint32_t candidate_depths[] = { 8, 16, 32, 64, 128 };

static const uint32_t random_blocks[] = { 4 * KIB, 64 * KIB, 256 * KIB, MIB, 2 * MIB, 4 * MIB };
static const uint32_t random_depths[] = { 1, 4, 16, 32, 64, 128 };
static const uint32_t sequential_blocks[] = { 256 * KIB, MIB, 4 * MIB };
static const uint32_t sequential_depths[] = { 1, 4, 32 };

#define LENGTH(array) (sizeof(array) / sizeof *(array))

struct plan {
    struct bench_drive *d;
    const struct bench_run *run;
    const struct clock *clock;
    uint64_t begin_ns;
    char what[96];
};

uint64_t bench_memory_bytes(void) {
    struct read_setup expert = { .shape = SHAPE_EXPERT };
    uint64_t bytes = measure_memory_bytes(&expert);
    return bytes > IN_FLIGHT_MAX ? bytes : IN_FLIGHT_MAX;
}

// --- one window ----------------------------------------------------------------------------------

static void report_progress(void *context, uint64_t bytes) {
    struct plan *p = context;
    if (p->run->progress)
        p->run->progress(p->run->context, p->what, bytes);
}

static bool plan_cancelled(void *context) {
    struct plan *p = context;
    return p->run->cancelled && p->run->cancelled(p->run->context);
}

static enum status window(struct plan *p, const struct read_setup *setup, double n_windows,
                          struct read_result *out, struct err *err) {
    struct read_target target = p->run->base;
    target.path = p->d->target.file;
    target.name = p->d->target.name;
    target.bytes = p->d->target.place.device.bytes;
    target.forbid_uring = p->run->forbid_uring;
    target.memory = p->run->memory;
    target.memory_bytes = p->run->memory_bytes;
    struct measure_options options = { .seconds = p->run->seconds * n_windows / WINDOWS,
                                       .cancelled = plan_cancelled,
                                       .progress = report_progress,
                                       .context = p };
    read_setup_text(setup, p->what, sizeof p->what);
    return measure(out, &target, setup, &options, err);
}

static void plan_start(struct plan *p, struct bench_drive *d, const struct bench_run *run) {
    *p = (struct plan){ .d = d, .run = run };
    p->clock = run->base.clock ? run->base.clock : clock_system();
    p->begin_ns = clock_now_ns(p->clock);
}

// --- experts: the chunk and the depth that a drive wants -----------------------------------------

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_turn(const struct bench_candidate *c) {
    double sorted[BENCH_ROUNDS];
    if (c->n_turns == 0)
        return 0;
    memcpy(sorted, c->turns, c->n_turns * sizeof *sorted);
    qsort(sorted, c->n_turns, sizeof *sorted, by_value);
    uint32_t middle = c->n_turns / 2;
    return c->n_turns % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

static uint64_t in_flight(const struct bench_candidate *c) {
    return (uint64_t)c->chunk_bytes * c->depth;
}

uint32_t bench_choose(const struct bench_candidate *candidates, uint32_t n,
                      uint32_t default_chunk_bytes, uint32_t default_depth) {
    double best = 0, usual = 0;
    uint32_t chosen = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        double rate = median_turn(&candidates[i]);
        best = rate > best ? rate : best;
        if (candidates[i].chunk_bytes == default_chunk_bytes &&
            candidates[i].depth == default_depth && rate > 0) {
            usual = rate;
            chosen = i;
        }
    }
    if (best <= usual * 1.02)
        return chosen;
    chosen = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (median_turn(&candidates[i]) >= best * 0.99 &&
            (chosen == UINT32_MAX || in_flight(&candidates[i]) < in_flight(&candidates[chosen])))
            chosen = i;
    return chosen;
}

static struct read_setup expert_setup(const struct bench_drive *d, uint32_t chunk_bytes,
                                      uint32_t depth) {
    return (struct read_setup){ .shape = SHAPE_EXPERT,
                                .block_bytes = chunk_bytes,
                                .depth = depth,
                                .ahead = EXPERTS_AHEAD,
                                .buffered = d->buffered };
}

static bool is_default(const struct plan *p, const struct bench_candidate *c) {
    return c->chunk_bytes == p->run->default_chunk_bytes && c->depth == p->run->default_depth;
}

static void add_candidate(struct bench_drive *d, uint32_t chunk_bytes, uint32_t depth) {
    d->candidates[d->n_candidates++] =
        (struct bench_candidate){ .chunk_bytes = chunk_bytes, .depth = depth };
}

static void list_candidates(struct plan *p) {
    struct bench_drive *d = p->d;
    d->n_candidates = 0;
    add_candidate(d, p->run->default_chunk_bytes, p->run->default_depth);
    for (size_t i = 0; i < LENGTH(candidate_chunks); i++)
        for (size_t j = 0; j < LENGTH(candidate_depths); j++) {
            struct bench_candidate c = { candidate_chunks[i], candidate_depths[j], 0, { 0 }, 0 };
            if (in_flight(&c) >= CANDIDATE_LEAST && in_flight(&c) <= CANDIDATE_MOST &&
                !is_default(p, &c))
                add_candidate(d, c.chunk_bytes, c.depth);
        }
}

// The default and the fastest of the first round.
static uint32_t finalists(const struct bench_drive *d, uint32_t out[BENCH_FINALISTS_MAX]) {
    bool taken[BENCH_CANDIDATES_MAX] = { true };
    uint32_t n = 0;
    for (out[n++] = 0; n < BENCH_FINALISTS_MAX; n++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < d->n_candidates; i++)
            if (!taken[i] && d->candidates[i].rate > 0 &&
                (best == UINT32_MAX || d->candidates[i].rate > d->candidates[best].rate))
                best = i;
        if (best == UINT32_MAX)
            break;
        taken[best] = true;
        out[n] = best;
    }
    return n;
}

static bool is_over(const struct plan *p, double share) {
    return (double)(clock_now_ns(p->clock) - p->begin_ns) * 1e-9 > p->run->seconds * share;
}

// A drive's rate moves by 10 % from one second to the next: all once, then the best in turns. A drive
// so slow that the time is over before is judged by what there is, the default first.
static enum status tune(struct plan *p, struct err *err) {
    struct bench_drive *d = p->d;
    struct read_result result;
    uint32_t final[BENCH_FINALISTS_MAX];
    enum status status = OK;
    list_candidates(p);
    for (uint32_t i = 0; i < d->n_candidates && status == OK; i++) {
        if (i > 0 && is_over(p, 0.5))
            break;
        struct bench_candidate *c = &d->candidates[i];
        struct read_setup setup = expert_setup(d, c->chunk_bytes, c->depth);
        status = window(p, &setup, 1, &result, err);
        c->rate = result.rate;
    }
    uint32_t n = finalists(d, final);
    for (uint32_t round = 0; round < BENCH_ROUNDS && status == OK; round++)
        for (uint32_t i = 0; i < n && status == OK; i++) {
            if (round + i > 0 && is_over(p, 0.8))
                break;
            struct bench_candidate *c = &d->candidates[final[i]];
            struct read_setup setup = expert_setup(d, c->chunk_bytes, c->depth);
            status = window(p, &setup, 1, &result, err);
            if (status == OK && result.rate > 0)
                c->turns[c->n_turns++] = result.rate;
        }
    uint32_t chosen = bench_choose(d->candidates, d->n_candidates, p->run->default_chunk_bytes,
                                   p->run->default_depth);
    if (status == OK && chosen != UINT32_MAX) {
        d->chunk_bytes = d->candidates[chosen].chunk_bytes;
        d->depth = d->candidates[chosen].depth;
        d->default_rate = median_turn(&d->candidates[0]);
        d->tuned_rate = median_turn(&d->candidates[chosen]);
    }
    return status;
}

enum status bench_tune(struct bench_drive *d, const struct bench_run *run, struct err *err) {
    struct plan p;
    plan_start(&p, d, run);
    return tune(&p, err);
}

static enum status experts(struct plan *p, struct err *err) {
    struct bench_drive *d = p->d;
    struct read_setup setup = expert_setup(d, d->chunk_bytes, d->depth);
    struct read_setup alone = setup, plain = setup, buffered = setup;
    alone.ahead = 1;
    plain.plain_memory = true;
    buffered.buffered = true;
    enum status status = window(p, &setup, 8, &d->expert, err);
    if (status == OK)
        status = window(p, &alone, 3, &d->alone, err);
    if (status == OK)
        status = window(p, &plain, 2, &d->plain_expert, err);
    if (status == OK && !d->buffered)
        status = window(p, &buffered, 2, &d->buffered_expert, err);
    return status;
}

// --- the grid's tables ---------------------------------------------------------------------------

void bench_tables(const struct bench_drive *d, struct bench_table tables[BENCH_TABLES]) {
    for (uint32_t i = 0; i < BENCH_TABLES; i++)
        tables[i] = (struct bench_table){ .shape = i & 1 ? SHAPE_SEQUENTIAL : SHAPE_RANDOM,
                                          .plain_memory = (i & 2) != 0,
                                          .buffered = d->buffered != ((i & 4) != 0) };
}

struct bench_words bench_block_words(uint64_t bytes) {
    struct bench_words w;
    bool kib = bytes % (1u << 20) != 0;
    snprintf(w.text, sizeof w.text, "%" PRIu64 " %s", bytes >> (kib ? 10 : 20),
             kib ? "KiB" : "MiB");
    return w;
}

void bench_table_text(const struct bench_drive *d, const struct bench_table *table, char *text,
                      size_t bytes) {
    const char *how = table->buffered == d->buffered ? ""
                      : table->buffered              ? ", buffered"
                                                     : ", direct";
    snprintf(text, bytes, "%s%s%s", read_shape_name(table->shape), how,
             table->plain_memory ? ", plain memory" : "");
}

bool bench_is_in(const struct read_result *r, const struct bench_table *table) {
    return r->setup.shape == table->shape && r->setup.buffered == table->buffered &&
           r->setup.plain_memory == table->plain_memory;
}

uint32_t bench_table_depths(const struct bench_drive *d, const struct bench_table *table) {
    uint32_t seen = 0; // depths are powers of two
    for (uint32_t i = 0; i < d->n_points; i++)
        if (bench_is_in(&d->points[i], table))
            seen |= d->points[i].setup.depth;
    return (uint32_t)__builtin_popcount(seen);
}

// --- the grid ------------------------------------------------------------------------------------

static enum status point(struct plan *p, const struct read_setup *setup, struct err *err) {
    struct bench_drive *d = p->d;
    if (!measure_fits(setup, d->target.place.device.bytes) || d->n_points == BENCH_POINTS_MAX ||
        (d->buffered && !setup->buffered)) // a file that refuses O_DIRECT
        return OK;
    if (is_over(p, p->run->full ? GRID_LIMIT_FULL : GRID_LIMIT)) {
        d->n_skipped++;
        return OK;
    }
    struct read_result result;
    enum status status = window(p, setup, 1, &result, err);
    if (result.rate > 0)
        d->points[d->n_points++] = result;
    return status;
}

static enum status grid(struct plan *p, const struct bench_table *table, const uint32_t *blocks,
                        size_t n_blocks, const uint32_t *depths, size_t n_depths, struct err *err) {
    enum status status = OK;
    for (size_t i = 0; i < n_blocks; i++)
        for (size_t j = 0; j < n_depths && status == OK; j++) {
            struct read_setup setup = { .shape = table->shape,
                                        .block_bytes = blocks[i],
                                        .depth = depths[j],
                                        .buffered = table->buffered,
                                        .plain_memory = table->plain_memory };
            if ((uint64_t)blocks[i] * depths[j] <= IN_FLIGHT_MAX)
                status = point(p, &setup, err);
        }
    return status;
}

// What registering memory and going around the page cache are worth, at sizes small and large.
static enum status variants(struct plan *p, struct err *err) {
    const struct read_setup setups[] = {
        { SHAPE_RANDOM, 4 * KIB, 32, 0, p->d->buffered, true },
        { SHAPE_RANDOM, MIB, 32, 0, p->d->buffered, true },
        { SHAPE_RANDOM, 4 * KIB, 32, 0, true, false },
        { SHAPE_RANDOM, MIB, 32, 0, true, false },
        { SHAPE_SEQUENTIAL, MIB, 1, 0, true, false },
        { SHAPE_SEQUENTIAL, MIB, 4, 0, true, false },
    };
    enum status status = OK;
    for (size_t i = 0; i < LENGTH(setups) && status == OK; i++)
        if (!p->d->buffered || setups[i].plain_memory)
            status = point(p, &setups[i], err);
    return status;
}

enum status bench_plan(struct bench_drive *d, const struct bench_run *run, struct err *err) {
    struct plan p;
    double celsius;
    plan_start(&p, d, run);
    if (place_temperature(&d->target.place, &celsius))
        d->celsius_before = celsius;
    enum status status = tune(&p, err);
    if (status == OK)
        status = experts(&p, err);
    struct bench_table tables[BENCH_TABLES];
    bench_tables(d, tables);
    for (uint32_t i = 0; i < (run->full ? BENCH_TABLES : 2) && status == OK; i++)
        status = tables[i].shape == SHAPE_RANDOM
                     ? grid(&p, &tables[i], random_blocks, LENGTH(random_blocks), random_depths,
                            LENGTH(random_depths), err)
                     : grid(&p, &tables[i], sequential_blocks, LENGTH(sequential_blocks),
                            sequential_depths, LENGTH(sequential_depths), err);
    if (status == OK && !run->full)
        status = variants(&p, err);
    if (place_temperature(&d->target.place, &celsius))
        d->celsius_after = celsius;
    return status;
}
