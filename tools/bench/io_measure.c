#include "tools/bench/io_measure.h"

#include "io/files.h"
#include "io/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WAIT_NS       50000000u   // between looks at whether to end
#define STRETCH_NS    3000000000u // a setup too slow for its time gets so much more
#define READS_LEAST   8
#define TRIES_AT_MOST 100

const char *read_shape_name(enum read_shape shape) {
    static const char *const names[] = { "random", "sequential", "expert" };
    return names[shape];
}

void read_setup_text(const struct read_setup *s, char *text, size_t bytes) {
    bool kib = s->block_bytes % (1u << 20) != 0;
    snprintf(text, bytes, "%s %" PRIu32 " %s x %" PRIu32 "%s%s%s", read_shape_name(s->shape),
             s->block_bytes >> (kib ? 10 : 20), kib ? "KiB" : "MiB", s->depth,
             s->ahead == 1 ? ", one alone" : "", s->buffered ? ", buffered" : "",
             s->plain_memory ? ", plain memory" : "");
}

// Room for an expert at any byte.
#define EXPERT_ROOM ((EXPERT_BYTES / READER_ALIGN + 2) * (uint64_t)READER_ALIGN)

uint64_t measure_memory_bytes(const struct read_setup *s) {
    return s->shape == SHAPE_EXPERT ? EXPERTS_AHEAD * EXPERT_ROOM
                                    : (uint64_t)s->depth * s->block_bytes;
}

bool measure_fits(const struct read_setup *s, uint64_t file_bytes) {
    return s->shape == SHAPE_EXPERT ? file_bytes >= EXPERT_BYTES + READER_ALIGN
                                    : file_bytes / s->block_bytes >= 2;
}

// --- what is being counted -----------------------------------------------------------------------

struct counter {
    const struct read_target *target;
    const struct measure_options *options;
    const struct clock *clock;
    struct latency latency;
    uint64_t begin_ns, stop_ns;          // of submitting
    uint64_t n_ended, n_before;          // the first `n_before` reads fill the queue
    uint64_t first_ns, last_ns;          // what counts
    uint64_t bytes, n_reads, span_bytes; // of it
    double cpu_s, machine_s;             // when it began
    uint64_t random;
};

static double process_cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

// user, nice, system, (idle, iowait,) irq, softirq: what drives and encryption cost shows here, and
// whatever else runs.
static double machine_cpu_s(void) {
    uint64_t t[7] = { 0 };
    FILE *f = fopen("/proc/stat", "re");
    if (!f)
        return 0;
    if (fscanf(f,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64,
               &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6]) != 7)
        memset(t, 0, sizeof t);
    fclose(f);
    return (double)(t[0] + t[1] + t[2] + t[5] + t[6]) / (double)sysconf(_SC_CLK_TCK);
}

static void counter_start(struct counter *c, const struct read_target *target,
                          const struct measure_options *options, uint32_t n_before) {
    *c = (struct counter){ .target = target, .options = options, .n_before = n_before };
    c->clock = target->clock ? target->clock : clock_system();
    c->begin_ns = clock_now_ns(c->clock);
    c->stop_ns = c->begin_ns + (uint64_t)(options->seconds * 1e9);
    // Other places every time, so that no cache of the drive's has them from the last run.
    c->random = target->open_disk ? 1 : clock_now_ns(clock_system());
}

static uint64_t random_below(struct counter *c, uint64_t n) {
    uint64_t x = c->random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (x ^ x >> 31) % n;
}

static bool cancelled(const struct counter *c) {
    return c->options->cancelled && c->options->cancelled(c->options->context);
}

// Go on submitting? Until the time is over and there is something to judge by; what is slower than
// that is judged by a single read.
static bool goes_on(const struct counter *c, uint64_t now_ns) {
    if (cancelled(c))
        return false;
    return now_ns < c->stop_ns || c->n_reads == 0 ||
           (c->n_reads < READS_LEAST && now_ns < c->stop_ns + STRETCH_NS);
}

static void close_spans(struct counter *c, uint64_t now_ns) {
    struct rate_series *s = c->options->series;
    while (s && s->n < s->room &&
           (double)(now_ns - c->first_ns) * 1e-9 >= (double)(s->n + 1) * s->span_s) {
        s->rates[s->n++] = (double)c->span_bytes / s->span_s;
        c->span_bytes = 0;
        if (s->on_span)
            s->on_span(s->context, s->n - 1);
    }
}

// A read came back. Those after the last moment of the time are not counted.
static void count(struct counter *c, uint64_t now_ns, uint64_t submitted_ns, uint64_t bytes) {
    c->n_ended++;
    if (c->n_ended <= c->n_before) {
        if (c->n_ended == c->n_before) {
            c->first_ns = c->last_ns = now_ns;
            c->cpu_s = process_cpu_s();
            c->machine_s = machine_cpu_s();
        }
        return;
    }
    if (now_ns > c->stop_ns && c->n_reads >= READS_LEAST)
        return;
    close_spans(c, now_ns);
    c->span_bytes += bytes;
    c->bytes += bytes;
    c->n_reads++;
    c->last_ns = now_ns;
    latency_add(&c->latency, now_ns - submitted_ns);
    if (c->options->progress)
        c->options->progress(c->options->context, c->bytes);
}

static void counter_result(const struct counter *c, const struct read_setup *setup,
                           struct read_result *out) {
    double seconds = (double)(c->last_ns - c->first_ns) * 1e-9;
    out->setup = *setup;
    if (c->n_reads == 0 || seconds <= 0)
        return;
    out->seconds = seconds;
    out->bytes = c->bytes;
    out->n_reads = c->n_reads;
    out->rate = (double)c->bytes / seconds;
    out->cpu_s = process_cpu_s() - c->cpu_s;
    out->machine_s = machine_cpu_s() - c->machine_s;
    out->p50_ns = latency_percentile(&c->latency, 0.5);
    out->p90_ns = latency_percentile(&c->latency, 0.9);
    out->p99_ns = latency_percentile(&c->latency, 0.99);
    out->p999_ns = latency_percentile(&c->latency, 0.999);
    out->most_ns = (double)c->latency.most_ns;
}

static const char *name_of(const struct read_target *t) {
    return t->name ? t->name : t->path;
}

// --- blocks --------------------------------------------------------------------------------------

struct block {
    struct disk_chunk chunk;
    uint64_t submitted_ns;
    uint32_t n_tries;
};

struct blocks {
    struct counter counter;
    const struct read_setup *setup;
    struct files files;
    struct disk *disk;
    struct block *block; // [depth]
    struct block **free; // [n_free]
    uint32_t n_free;
    struct disk_chunk *batch;
    struct disk_result *results;
    uint64_t n_places, next_place;
};

static enum status open_disk(const struct read_target *t, uint32_t depth, struct disk **out,
                             struct err *err) {
    if (t->open_disk)
        return t->open_disk(t->context, out, depth, err);
    struct err why = { .status = OK };
    if (!t->forbid_uring && disk_uring_open(out, depth, &why) == OK)
        return OK;
    return disk_pread_open(out, depth, err);
}

static enum status blocks_open(struct blocks *b, struct err *err) {
    const struct read_target *t = b->counter.target;
    const struct read_setup *s = b->setup;
    files_init(&b->files, s->buffered ? IO_BUFFERED : IO_DIRECT, 0);
    enum status status = open_disk(t, s->depth, &b->disk, err);
    if (status == OK)
        status = b->disk->wants_fd ? files_add(&b->files, t->path, err)
                                   : files_add_name(&b->files, t->path, err);
    if (status == OK)
        status = disk_add_file(b->disk, b->files.file[0].fd, t->path, err);
    if (status != OK)
        return status;
    if (s->buffered && b->files.file[0].fd >= 0)
        posix_fadvise(b->files.file[0].fd, 0, 0, POSIX_FADV_DONTNEED);
    if (s->buffered && b->files.file[0].fd >= 0 && s->shape == SHAPE_SEQUENTIAL)
        posix_fadvise(b->files.file[0].fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (!s->plain_memory) // a refusal costs speed only, and shows in the figure
        disk_add_memory(b->disk, t->memory, measure_memory_bytes(s));
    b->block = calloc(s->depth, sizeof *b->block);
    b->free = calloc(s->depth, sizeof *b->free);
    b->batch = calloc(s->depth, sizeof *b->batch);
    b->results = calloc(s->depth, sizeof *b->results);
    if (!b->block || !b->free || !b->batch || !b->results)
        return err_set(err, ERR_MEMORY, "no memory for a queue of %u reads", s->depth);
    for (uint32_t i = 0; i < s->depth; i++) {
        b->block[i].chunk = (struct disk_chunk){ .bytes = s->block_bytes,
                                                 .dst = t->memory + (uint64_t)i * s->block_bytes,
                                                 .tag = &b->block[i] };
        b->free[b->n_free++] = &b->block[i];
    }
    b->n_places = t->bytes / s->block_bytes;
    b->next_place = random_below(&b->counter, b->n_places);
    return OK;
}

static void blocks_close(struct blocks *b) {
    disk_close(b->disk);
    files_close(&b->files);
    free(b->block);
    free(b->free);
    free(b->batch);
    free(b->results);
}

static void blocks_submit(struct blocks *b, uint64_t now_ns) {
    uint32_t n = 0;
    while (b->n_free > 0) {
        struct block *block = b->free[--b->n_free];
        uint64_t place = b->setup->shape == SHAPE_RANDOM ? random_below(&b->counter, b->n_places)
                                                         : b->next_place++ % b->n_places;
        block->chunk.offset = place * b->setup->block_bytes;
        block->submitted_ns = now_ns;
        block->n_tries = 0;
        b->batch[n++] = block->chunk;
    }
    disk_submit(b->disk, b->batch, n);
}

// A block came back: whole, to be asked for again, or an error.
static enum status block_ended(struct blocks *b, struct block *block, int32_t result,
                               uint64_t now_ns, struct err *err) {
    const struct read_target *t = b->counter.target;
    if ((result == -EINTR || result == -EAGAIN) && ++block->n_tries < TRIES_AT_MOST) {
        disk_submit(b->disk, &block->chunk, 1);
        return OK;
    }
    b->free[b->n_free++] = block;
    if (result < 0)
        return err_set(err, ERR_IO, "%s: cannot read at byte %" PRIu64 ": %s", name_of(t),
                       block->chunk.offset, strerror(-result));
    if ((uint32_t)result < block->chunk.bytes && !b->setup->buffered)
        return err_set(err, ERR_TRUNCATED,
                       "%s: ends at byte %" PRIu64 ": it was changed while it was measured",
                       name_of(t), block->chunk.offset + (uint32_t)result);
    count(&b->counter, now_ns, block->submitted_ns, (uint32_t)result);
    return OK;
}

static enum status blocks_run(struct blocks *b, struct err *err) {
    enum status status = OK;
    uint64_t now_ns = clock_now_ns(b->counter.clock);
    while (true) {
        if (status == OK && b->n_free > 0 && goes_on(&b->counter, now_ns))
            blocks_submit(b, now_ns);
        if (b->n_free == b->setup->depth)
            return status;
        uint32_t n = disk_reap(b->disk, b->results, b->setup->depth, WAIT_NS);
        now_ns = disk_now_ns(b->disk, b->counter.clock);
        for (uint32_t i = 0; i < n; i++) {
            enum status ended =
                block_ended(b, b->results[i].tag, b->results[i].result, now_ns, err);
            status = status == OK ? ended : status; // and the rest comes back all the same
        }
    }
}

static enum status measure_blocks(struct read_result *out, const struct read_target *target,
                                  const struct read_setup *setup,
                                  const struct measure_options *options, struct err *err) {
    struct blocks *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(err, ERR_MEMORY, "no memory to measure with");
    b->setup = setup;
    counter_start(&b->counter, target, options, setup->depth);
    enum status status = blocks_open(b, err);
    if (status == OK) {
        counter_start(&b->counter, target, options, setup->depth); // opening took its time
        status = blocks_run(b, err);
        counter_result(&b->counter, setup, out);
        out->registered = b->disk->registered_bytes > 0;
    }
    blocks_close(b);
    free(b);
    return status;
}

// --- experts -------------------------------------------------------------------------------------

struct expert {
    struct request request;
    uint64_t submitted_ns;
    bool is_out;
};

struct experts {
    struct counter counter;
    const struct read_setup *setup;
    struct disk *disk;
    struct reader *reader;
    uint32_t file, n_out;
    struct expert expert[EXPERTS_AHEAD];
};

static enum status experts_open(struct experts *x, struct err *err) {
    const struct read_target *t = x->counter.target;
    const struct read_setup *s = x->setup;
    struct reader_options options = { .clock = t->clock,
                                      .mode = s->buffered ? IO_BUFFERED : IO_DIRECT,
                                      .chunk_bytes = s->block_bytes,
                                      .depth = s->depth,
                                      .forbid_uring = t->forbid_uring };
    if (t->open_disk && t->open_disk(t->context, &x->disk, s->depth, err) != OK)
        return err->status;
    options.disk = x->disk;
    enum status status = reader_open(&x->reader, &options, err);
    if (status == OK)
        status = reader_add_file(x->reader, t->path, &x->file, err);
    if (status == OK && !s->plain_memory)
        reader_add_memory(x->reader, t->memory, measure_memory_bytes(s));
    return status;
}

static void expert_submit(struct experts *x, uint32_t i, uint64_t now_ns) {
    const struct read_target *t = x->counter.target;
    struct extent extent = { .file = x->file, .bytes = EXPERT_BYTES };
    struct extents_layout layout;
    struct expert *e = &x->expert[i];
    extent.offset = random_below(&x->counter, t->bytes - EXPERT_BYTES);
    extents_layout(&layout, &extent, 1);
    e->request = (struct request){ .priority = READ_DEMAND, .owner = e };
    e->submitted_ns = now_ns;
    request_bind(&e->request, &layout, t->memory + i * EXPERT_ROOM);
    reader_submit(x->reader, &e->request);
    e->is_out = true;
    x->n_out++;
}

static enum status experts_run(struct experts *x, struct err *err) {
    enum status status = OK;
    uint64_t now_ns = clock_now_ns(x->counter.clock);
    for (uint32_t i = 0; i < x->setup->ahead; i++)
        expert_submit(x, i, now_ns);
    while (x->n_out > 0) {
        event_wait(reader_event(x->reader), WAIT_NS);
        now_ns = clock_now_ns(x->counter.clock);
        for (struct request *q; (q = reader_next(x->reader));) {
            struct expert *e = q->owner;
            e->is_out = false;
            x->n_out--;
            if (q->status != OK && q->status != CANCELLED && status == OK)
                status = request_error(x->reader, q, err);
            if (q->status == OK)
                count(&x->counter, now_ns, e->submitted_ns, EXPERT_BYTES);
            if (status == OK && goes_on(&x->counter, now_ns))
                expert_submit(x, (uint32_t)(e - x->expert), now_ns);
        }
        // What is still queued is of no more use: end quickly.
        if (status != OK || cancelled(&x->counter))
            for (uint32_t i = 0; i < x->setup->ahead; i++)
                if (x->expert[i].is_out)
                    reader_cancel(x->reader, &x->expert[i].request);
    }
    return status;
}

static enum status measure_experts(struct read_result *out, const struct read_target *target,
                                   const struct read_setup *setup,
                                   const struct measure_options *options, struct err *err) {
    struct experts *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(err, ERR_MEMORY, "no memory to measure with");
    x->setup = setup;
    counter_start(&x->counter, target, options, setup->ahead);
    enum status status = experts_open(x, err);
    if (status == OK) {
        counter_start(&x->counter, target, options, setup->ahead);
        status = experts_run(x, err);
        counter_result(&x->counter, setup, out);
        out->registered = strstr(reader_describe(x->reader), ", registered buffers") != NULL;
    }
    reader_close(x->reader);
    disk_close(x->disk);
    free(x);
    return status;
}

enum status measure(struct read_result *out, const struct read_target *target,
                    const struct read_setup *setup, const struct measure_options *options,
                    struct err *err) {
    *out = (struct read_result){ .setup = *setup };
    enum status status = setup->shape == SHAPE_EXPERT
                             ? measure_experts(out, target, setup, options, err)
                             : measure_blocks(out, target, setup, options, err);
    if (status == OK && options->cancelled && options->cancelled(options->context))
        return err_set(err, CANCELLED, "interrupted");
    return status;
}
