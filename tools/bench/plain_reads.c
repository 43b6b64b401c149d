#include "tools/bench/plain_reads.h"

#include "io/pinned.h"
#include "src/random.h"
#include "src/weights.h"

#include <stdlib.h>

#define WAIT_NS     50000000u // between looks at whether to end
#define READS_LEAST 4         // that count

// Reads queued ahead: of as many bytes as are at the device (32 x 2 MiB), so that it is never short of
// chunks; at least eight, as bench io has them, and 64 where an expert is less than a chunk.
#define AHEAD_BYTES (64u << 20)
#define AHEAD_LEAST 8
#define AHEAD_MOST  64

struct plain_reads {
    struct checkpoint cp;
    struct expert_table table;
    struct reader *reader;
    struct pinned memory;
    struct request requests[AHEAD_MOST]; // [n_ahead]
    uint32_t n_ahead, n_out;
    uint64_t seed, n_chosen; // so that no cache of the drive's has them from the last time
};

enum status plain_reads_open(struct plain_reads **out, const char *const *dirs, uint32_t n_dirs,
                             const struct reader_options *options, struct err *err) {
    struct plain_reads *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory to read experts with");
    enum status status = checkpoint_open(&p->cp, dirs, n_dirs, err);
    if (status == OK)
        status = reader_open(&p->reader, options, err);
    if (status == OK) {
        struct dense_plan plan; // nothing of the dense weights is read
        dense_plan(&plan, &p->cp, p->cp.config.n_layers, UINT64_MAX);
        status = expert_table_open(&p->table, &p->cp, &plan, p->reader, err);
    }
    p->seed = clock_now_ns(clock_system());
    if (status == OK) {
        uint64_t n = AHEAD_BYTES / p->table.slot_bytes;
        p->n_ahead = n < AHEAD_LEAST ? AHEAD_LEAST : n > AHEAD_MOST ? AHEAD_MOST : (uint32_t)n;
        return OK;
    }
    plain_reads_close(p);
    *out = NULL;
    return status;
}

void plain_reads_close(struct plain_reads *p) {
    if (!p)
        return;
    reader_close(p->reader);
    expert_table_close(&p->table);
    checkpoint_close(&p->cp);
    pinned_close(&p->memory);
    free(p);
}

uint64_t plain_reads_bytes(const struct plain_reads *p, uint32_t expert) {
    struct extents_layout layout;
    expert_layout((void *)&p->table, expert, &layout);
    return layout.bytes;
}

// Not before the first look: whoever only asks for sizes needs none.
static enum status open_memory(struct plain_reads *p, struct err *err) {
    struct pinned_options pin = { .bytes = p->n_ahead * p->table.slot_bytes,
                                  .want_locked = true,
                                  .want_huge = true };
    if (p->memory.base)
        return OK;
    enum status status = pinned_open(&p->memory, &pin, err);
    if (status == OK)
        reader_add_memory(p->reader, p->memory.base, pin.bytes);
    return status;
}

static void submit(struct plain_reads *p, struct request *request) {
    const struct config *c = &p->cp.config;
    struct extents_layout layout;
    uint64_t n_experts = (uint64_t)c->n_layers * c->n_experts;
    double u = random_uniform(p->seed, p->n_chosen++, 0);
    expert_layout(&p->table, (uint32_t)(u * (double)n_experts), &layout);
    *request = (struct request){ .priority = READ_DEMAND };
    request_bind(request, &layout,
                 p->memory.base + (uint64_t)(request - p->requests) * p->table.slot_bytes);
    reader_submit(p->reader, request);
    p->n_out++;
}

// What counts of a look.
struct count {
    uint64_t stop_ns, first_ns, last_ns;
    uint64_t n_first; // reads that fill the queue, and do not count
    uint64_t n_ended, n, bytes;
};

// A read has ended: does it count, and shall another follow?
static bool goes_on(struct count *c, uint64_t now_ns, uint64_t bytes) {
    c->n_ended++;
    if (c->n_ended == c->n_first)
        c->first_ns = c->last_ns = now_ns;
    else if (c->n_ended > c->n_first && (now_ns <= c->stop_ns || c->n < READS_LEAST)) {
        c->last_ns = now_ns;
        c->n++;
        c->bytes += bytes;
    }
    return now_ns < c->stop_ns || c->n < READS_LEAST;
}

enum status plain_reads_look(struct plain_reads *p, double seconds, bool (*cancel)(void *context),
                             void *context, double *rate, struct err *err) {
    const struct clock *clock = clock_system();
    struct count count = { .stop_ns = clock_now_ns(clock) + (uint64_t)(seconds * 1e9),
                           .n_first = p->n_ahead };
    enum status status = OK;
    *rate = 0;
    if (open_memory(p, err) != OK)
        return err->status;
    for (uint32_t i = 0; i < p->n_ahead; i++)
        submit(p, &p->requests[i]);
    while (p->n_out > 0) {
        event_wait(reader_event(p->reader), WAIT_NS);
        uint64_t now_ns = clock_now_ns(clock);
        if (status == OK && cancel && cancel(context))
            status = err_set(err, CANCELLED, "interrupted");
        for (struct request *q; (q = reader_next(p->reader));) {
            p->n_out--;
            if (q->status != OK && q->status != CANCELLED && status == OK)
                status = request_error(p->reader, q, err);
            if (q->status == OK && goes_on(&count, now_ns, q->bytes_read) && status == OK)
                submit(p, q);
        }
        for (uint32_t i = 0; status != OK && i < p->n_ahead; i++)
            if (p->requests[i].state == REQUEST_QUEUED || p->requests[i].state == REQUEST_ACTIVE)
                reader_cancel(p->reader, &p->requests[i]);
    }
    if (count.n > 0 && count.last_ns > count.first_ns)
        *rate = (double)count.bytes / ((double)(count.last_ns - count.first_ns) * 1e-9);
    return status;
}
