#include "tools/bench/io.h"

#include "io/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// One drive's thread; the first that fails ends them all.
struct worker {
    pthread_t thread;
    bool started;
    struct bench_drive *drive;
    struct read_target target;
    struct read_setup setup;
    struct measure_options options;
    struct rate_series series;
    struct read_result result;
    enum status status;
    struct err err;
    struct group *group;
};

struct group {
    const struct bench_run *run;
    atomic_bool stop;
    struct worker *workers;
    uint32_t n;
    const char *what;
};

static bool worker_cancelled(void *context) {
    struct worker *w = context;
    const struct bench_run *run = w->group->run;
    return atomic_load(&w->group->stop) || (run->cancelled && run->cancelled(run->context));
}

// Progress is drawn by one thread only.
static void worker_progress(void *context, uint64_t bytes) {
    struct worker *w = context;
    const struct bench_run *run = w->group->run;
    if (run->progress && w == w->group->workers)
        run->progress(run->context, w->group->what, bytes * w->group->n);
}

static void worker_span(void *context, uint32_t i) {
    struct worker *w = context;
    double celsius;
    w->drive->sustained.n = i + 1;
    if (place_temperature(&w->drive->target.place, &celsius))
        w->drive->sustained.celsius[i] = celsius;
}

static void *work(void *context) {
    struct worker *w = context;
    w->status = measure(&w->result, &w->target, &w->setup, &w->options, &w->err);
    if (w->status != OK)
        atomic_store(&w->group->stop, true);
    return NULL;
}

static void prepare(struct worker *w, struct group *g, struct bench_drive *d, uint32_t i,
                    const struct read_setup *setup, double seconds) {
    *w = (struct worker){ .drive = d, .group = g, .setup = *setup, .target = g->run->base };
    w->target.path = d->target.file;
    w->target.name = d->target.name;
    w->target.bytes = d->target.place.device.bytes;
    w->target.forbid_uring = g->run->forbid_uring;
    w->target.memory = g->run->memory + i * bench_memory_bytes();
    w->target.memory_bytes = bench_memory_bytes();
    w->setup.buffered |= d->buffered;
    w->options = (struct measure_options){
        .seconds = seconds, .cancelled = worker_cancelled, .progress = worker_progress, .context = w
    };
}

// Spans of a second, or longer where there would be too many.
static void keep_spans(struct worker *w, double seconds) {
    struct bench_sustained *s = &w->drive->sustained;
    s->n = 0;
    s->span_s = seconds > BENCH_SPANS_MAX ? seconds / BENCH_SPANS_MAX : seconds < 10 ? 0.25 : 1;
    w->series = (struct rate_series){ .span_s = s->span_s,
                                      .rates = s->rates,
                                      .room = BENCH_SPANS_MAX,
                                      .on_span = worker_span,
                                      .context = w };
    w->options.series = &w->series;
}

static enum status run_group(struct group *g, struct err *err) {
    enum status status = OK;
    for (uint32_t i = 0; i < g->n && status == OK; i++) {
        struct worker *w = &g->workers[i];
        w->started = pthread_create(&w->thread, NULL, work, w) == 0;
        if (!w->started)
            status = err_set(err, ERR_SYSTEM, "cannot start %u threads", g->n);
    }
    if (status != OK)
        atomic_store(&g->stop, true);
    for (uint32_t i = 0; i < g->n; i++)
        if (g->workers[i].started)
            pthread_join(g->workers[i].thread, NULL);
    // An error is worth more than the end that it brought upon the others.
    for (uint32_t i = 0; i < g->n && status == OK; i++)
        if (g->workers[i].status != OK && g->workers[i].status != CANCELLED)
            status = err_set(err, g->workers[i].status, "%s", g->workers[i].err.text);
    for (uint32_t i = 0; i < g->n && status == OK; i++)
        if (g->workers[i].status == CANCELLED)
            status = err_set(err, CANCELLED, "interrupted");
    return status;
}

static enum status open_group(struct group *g, const struct bench_io *b,
                              const struct bench_run *run, const char *what, struct err *err) {
    *g = (struct group){ .run = run, .n = b->n_drives, .what = what };
    g->workers = calloc(b->n_drives, sizeof *g->workers);
    return g->workers ? OK : err_set(err, ERR_MEMORY, "no memory to measure with");
}

enum status bench_together(struct bench_io *b, const struct bench_run *run, double seconds,
                           bool spans, struct err *err) {
    struct group g;
    if (open_group(&g, b, run, spans ? "sustained" : "all at once", err) != OK)
        return err->status;
    for (uint32_t i = 0; i < b->n_drives; i++) {
        struct bench_drive *d = &b->drives[i];
        struct read_setup setup = { .shape = SHAPE_EXPERT,
                                    .block_bytes = d->chunk_bytes,
                                    .depth = d->depth,
                                    .ahead = EXPERTS_AHEAD };
        prepare(&g.workers[i], &g, d, i, &setup, seconds);
        if (spans)
            keep_spans(&g.workers[i], seconds);
    }
    enum status status = run_group(&g, err);
    for (uint32_t i = 0; i < b->n_drives; i++)
        b->drives[i].together = g.workers[i].result;
    free(g.workers);
    return status;
}

enum status bench_single(struct bench_io *b, const struct bench_run *run,
                         const struct read_setup *setup, struct err *err) {
    struct group g;
    char what[96];
    read_setup_text(setup, what, sizeof what);
    if (open_group(&g, b, run, what, err) != OK)
        return err->status;
    for (uint32_t i = 0; i < b->n_drives; i++)
        prepare(&g.workers[i], &g, &b->drives[i], i, setup, run->seconds);
    enum status status = run_group(&g, err);
    for (uint32_t i = 0; i < b->n_drives; i++)
        b->drives[i].points[b->drives[i].n_points++] = g.workers[i].result;
    free(g.workers);
    return status;
}

double bench_rate(const struct bench_io *b) {
    double sum = 0, alone = 0;
    for (uint32_t i = 0; i < b->n_drives; i++) {
        const struct bench_drive *d = &b->drives[i];
        sum += d->together.rate;
        alone += d->expert.rate;
    }
    return sum > 0 ? sum : alone;
}

bool bench_sustained_ends(const struct bench_sustained *s, double *first, double *last) {
    uint32_t tenth = s->n / 10;
    if (tenth < 2)
        return false;
    *first = *last = 0;
    for (uint32_t i = 0; i < tenth; i++) {
        *first += s->rates[i] / tenth;
        *last += s->rates[s->n - 1 - i] / tenth;
    }
    return true;
}
