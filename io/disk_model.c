// A disk by formula: one link that chunks cross one after the other, and a latency before it.
#include "io/disk.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

// A chunk at the device. The link serves in the order of submission and latency is the same for
// all, so chunks are done in that order too: the chunks out are a ring.
struct model_chunk {
    struct disk_chunk chunk;
    uint64_t done_ns;
};

struct model_disk {
    struct disk disk;
    struct disk_model_options options;
    uint32_t n_files;
    struct model_chunk *out; // [depth], ring
    uint32_t first, n_out;
    uint64_t local_ns;     // the disk's own time, behind the clock while it catches up
    uint64_t link_free_ns; // when the link has carried what was submitted so far

    // Only where it sleeps in real time: disk_wake ends the sleep.
    bool real_time;
    bool woken;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

static struct model_disk *model_of(struct disk *d) {
    return (struct model_disk *)d;
}

static const struct clock *model_clock(const struct model_disk *model) {
    return model->real_time ? clock_system() : &model->options.clock->clock;
}

static uint64_t transfer_ns(const struct model_disk *model, uint32_t bytes) {
    uint64_t rate = model->options.bytes_per_s;
    // Below 2^32 bytes times 10^9 fits in 64 bits; rounded up, so that time always passes.
    return rate ? ((uint64_t)bytes * 1000000000u + rate - 1) / rate : 0;
}

static int32_t content_of(const struct model_disk *model, const struct disk_chunk *chunk) {
    if (model->options.content)
        return model->options.content(model->options.context, chunk);
    disk_pattern(chunk->file, chunk->offset, chunk->dst, chunk->bytes);
    return (int32_t)chunk->bytes;
}

static enum status model_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    (void)fd, (void)path, (void)err;
    model_of(d)->n_files++;
    return OK;
}

static void model_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    struct model_disk *model = model_of(d);
    assert(n <= d->depth - model->n_out);
    if (model->real_time)
        model->local_ns = clock_now_ns(clock_system());
    for (uint32_t i = 0; i < n; i++) {
        assert(chunks[i].file < model->n_files);
        uint64_t ready_ns = model->local_ns + model->options.latency_ns;
        uint64_t start_ns = ready_ns > model->link_free_ns ? ready_ns : model->link_free_ns;
        model->link_free_ns = start_ns + transfer_ns(model, chunks[i].bytes);
        model->out[(model->first + model->n_out) % d->depth] =
            (struct model_chunk){ .chunk = chunks[i], .done_ns = model->link_free_ns };
        model->n_out++;
    }
}

// What is done at the first moment that has something done and is not after `now_ns`.
static uint32_t take_done(struct model_disk *model, struct disk_result *results, uint32_t max,
                          uint64_t now_ns) {
    uint32_t n = 0;
    while (n < max && model->n_out > 0) {
        const struct model_chunk *c = &model->out[model->first];
        if (c->done_ns > now_ns || (n > 0 && c->done_ns > model->local_ns))
            break;
        if (c->done_ns > model->local_ns)
            model->local_ns = c->done_ns;
        results[n++] =
            (struct disk_result){ .tag = c->chunk.tag, .result = content_of(model, &c->chunk) };
        model->first = (model->first + 1) % model->disk.depth;
        model->n_out--;
    }
    if (n == 0)
        model->local_ns = now_ns; // caught up
    return n;
}

static uint32_t reap_virtual(struct model_disk *model, struct disk_result *results, uint32_t max,
                             uint64_t timeout_ns) {
    struct clock_virtual *clock = model->options.clock;
    uint32_t n = take_done(model, results, max, clock->now);
    if (n > 0 || timeout_ns == 0)
        return n;
    if (model->n_out == 0 && timeout_ns == UINT64_MAX)
        return 0; // nothing will ever happen, and there is no end to advance to
    uint64_t until_ns = clock_deadline(&clock->clock, timeout_ns);
    if (model->n_out > 0 && model->out[model->first].done_ns < until_ns)
        until_ns = model->out[model->first].done_ns;
    clock_virtual_advance(clock, until_ns - clock->now);
    return take_done(model, results, max, clock->now);
}

static uint32_t reap_real(struct model_disk *model, struct disk_result *results, uint32_t max,
                          uint64_t timeout_ns) {
    uint64_t deadline_ns = clock_deadline(clock_system(), timeout_ns);
    uint64_t next_ns = model->n_out > 0 ? model->out[model->first].done_ns : UINT64_MAX;
    pthread_mutex_lock(&model->mutex);
    while (!model->woken && clock_cond_wait(&model->cond, &model->mutex,
                                            next_ns < deadline_ns ? next_ns : deadline_ns))
        ;
    model->woken = false;
    pthread_mutex_unlock(&model->mutex);

    uint64_t now_ns = clock_now_ns(clock_system());
    uint32_t n = 0, more;
    while (n < max && (more = take_done(model, results + n, max - n, now_ns)) > 0)
        n += more;
    return n;
}

static uint32_t model_reap(struct disk *d, struct disk_result *results, uint32_t max,
                           uint64_t timeout_ns) {
    struct model_disk *model = model_of(d);
    return model->real_time ? reap_real(model, results, max, timeout_ns)
                            : reap_virtual(model, results, max, timeout_ns);
}

static void model_wake(struct disk *d) {
    struct model_disk *model = model_of(d);
    if (!model->real_time)
        return; // its own thread is the only one
    pthread_mutex_lock(&model->mutex);
    model->woken = true;
    pthread_cond_signal(&model->cond);
    pthread_mutex_unlock(&model->mutex);
}

static uint64_t model_now_ns(const struct disk *d) {
    const struct model_disk *model = (const struct model_disk *)d;
    return model->real_time ? clock_now_ns(clock_system()) : model->local_ns;
}

static void model_close(struct disk *d) {
    struct model_disk *model = model_of(d);
    assert(model->n_out == 0);
    if (model->real_time) {
        pthread_cond_destroy(&model->cond);
        pthread_mutex_destroy(&model->mutex);
    }
    free(model->out);
    free(model);
}

enum status disk_model_open(struct disk **out, const struct disk_model_options *options,
                            struct err *err) {
    static const struct disk_ops ops = {
        .name = "modelled disk",
        .add_file = model_add_file,
        .submit = model_submit,
        .reap = model_reap,
        .wake = model_wake,
        .now_ns = model_now_ns,
        .close = model_close,
    };
    *out = NULL;
    if (options->depth < 1 || options->depth > DISK_DEPTH_MAX)
        return err_set(err, ERR_USAGE, "depth %u is not within 1 to %d", options->depth,
                       DISK_DEPTH_MAX);
    struct model_disk *model = malloc(sizeof *model);
    struct model_chunk *ring = calloc(options->depth, sizeof *ring);
    if (!model || !ring) {
        free(model);
        free(ring);
        return err_set(err, ERR_MEMORY, "no memory for a modelled disk");
    }
    *model = (struct model_disk){
        .disk = { .ops = &ops, .depth = options->depth, .synchronous = options->clock != NULL },
        .options = *options,
        .out = ring,
        .real_time = options->clock == NULL,
    };
    model->local_ns = clock_now_ns(model_clock(model));
    if (model->real_time) {
        pthread_mutex_init(&model->mutex, NULL); // a plain mutex: cannot fail on Linux
        if (clock_cond_init(&model->cond) != 0) {
            pthread_mutex_destroy(&model->mutex);
            free(ring);
            free(model);
            return err_set(err, ERR_SYSTEM, "no condition variable for a modelled disk");
        }
    }
    *out = &model->disk;
    return OK;
}
