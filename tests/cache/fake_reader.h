/* tests/cache/fake_reader.h - a reader without a disk: the test says which request ends, and how.
 *
 * It stands in for io/reader.c behind io/reader.h: include it in one test program, whose own
 * symbols come before those of the library. The file is imaginary: the eight bytes at any multiple
 * of FAKE_STEP hold their own offset in it, so that a slot can be asked what it carries. From
 * submit on, what lies in the buffer is garbage until the request ends well. */
#ifndef SLUICE_TESTS_CACHE_FAKE_READER_H
#define SLUICE_TESTS_CACHE_FAKE_READER_H

#include "io/event.h"
#include "io/reader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_STEP 1024
#define FAKE_MAX  512

struct fake_log {
    uint64_t offset;
    unsigned char *dst;
    enum read_priority priority;
};

struct reader {
    struct request *in_flight[FAKE_MAX]; /* submitted and not ended, in that order */
    uint32_t n_in_flight;
    struct request *ended[FAKE_MAX]; /* not fetched by reader_next yet */
    uint32_t n_ended;
    struct event_source *ends;
    uint64_t n_fetched;
    bool slow_cancel; /* a cancelled request ends when the test says, not at once */
    bool
        cuts_active; /* one that is at the device in part can be cancelled, too, and ends likewise */
    uint64_t n_submitted, n_promoted, n_cancelled;
    struct fake_log *log; /* every submit, if the test wants it */
    uint32_t n_log, log_max;
    /* Called for each request that reader_next is about to return. */
    void (*fetched)(void *context, const struct request *request);
    void *context;
};

static inline void fake_open(struct reader *r) {
    *r = (struct reader){ .ends = event_source_new(NULL) };
    assert(r->ends);
}

static inline void fake_close(struct reader *r) {
    assert(r->n_in_flight == 0 && r->n_ended == 0);
    event_source_free(r->ends);
    free(r->log);
}

static inline void fake_end_as(struct reader *r, uint32_t i, enum status status) {
    assert(i < r->n_in_flight && r->n_ended < FAKE_MAX);
    struct request *request = r->in_flight[i];
    if (request->chunks_out && (request->state == REQUEST_QUEUED || r->cuts_active))
        status = CANCELLED;
    r->n_in_flight--;
    memmove(&r->in_flight[i], &r->in_flight[i + 1], (r->n_in_flight - i) * sizeof r->in_flight[0]);
    for (uint32_t k = 0; status == OK && k < request->n_reads; k++)
        for (uint64_t at = 0; at < request->reads[k].bytes; at += FAKE_STEP) {
            uint64_t offset = request->reads[k].offset + at;
            memcpy(request->reads[k].dst + at, &offset, sizeof offset);
        }
    request->state = REQUEST_ENDED;
    request->status = status;
    request->failed_offset = request->reads[0].offset;
    r->ended[r->n_ended++] = request;
    event_source_advance(r->ends, 1);
}

/* The i-th of those in flight is read; its first chunk is at the device; it fails. */
static inline void fake_end(struct reader *r, uint32_t i) {
    fake_end_as(r, i, OK);
}
static inline void fake_start(struct reader *r, uint32_t i) {
    assert(i < r->n_in_flight);
    if (!r->in_flight[i]->chunks_out)
        r->in_flight[i]->state = REQUEST_ACTIVE;
}
static inline void fake_fail(struct reader *r, uint32_t i, enum status status) {
    fake_end_as(r, i, status);
}

/* Which of those in flight reads from this offset; FAKE_MAX: none. */
static inline uint32_t fake_find(const struct reader *r, uint64_t offset) {
    for (uint32_t i = 0; i < r->n_in_flight; i++)
        if (r->in_flight[i]->reads[0].offset == offset)
            return i;
    return FAKE_MAX;
}

/* --- io/reader.h ---------------------------------------------------------------------------- */

void request_bind(struct request *request, const struct extents_layout *layout,
                  unsigned char *base) {
    request->n_reads = layout->n_reads;
    for (uint32_t i = 0; i < layout->n_reads; i++) {
        request->reads[i] = layout->reads[i];
        request->reads[i].dst = base + (uintptr_t)layout->reads[i].dst;
    }
}

void reader_submit(struct reader *r, struct request *request) {
    assert(request->state != REQUEST_QUEUED && request->state != REQUEST_ACTIVE);
    assert(r->n_in_flight < FAKE_MAX);
    for (uint32_t k = 0; k < request->n_reads; k++)
        for (uint64_t at = 0; at < request->reads[k].bytes; at += FAKE_STEP)
            memset(request->reads[k].dst + at, 0xEE, 8);
    request->state = REQUEST_QUEUED;
    request->chunks_out = 0; // here: 1 once it is to be cancelled
    r->in_flight[r->n_in_flight++] = request;
    r->n_submitted++;
    if (r->n_log == r->log_max) {
        r->log_max = r->log_max ? 2 * r->log_max : 64;
        r->log = realloc(r->log, r->log_max * sizeof *r->log);
        assert(r->log);
    }
    r->log[r->n_log++] =
        (struct fake_log){ request->reads[0].offset, request->reads[0].dst, request->priority };
}

void reader_promote(struct reader *r, struct request *request, enum read_priority priority) {
    request->priority = priority;
    r->n_promoted++;
}

void reader_cancel(struct reader *r, struct request *request) {
    bool is_active = request->state == REQUEST_ACTIVE && r->cuts_active;
    if (request->state != REQUEST_QUEUED && !is_active)
        return;
    uint32_t i = 0;
    while (r->in_flight[i] != request)
        i++;
    r->n_cancelled++;
    request->chunks_out = 1;
    if (!r->slow_cancel && !is_active)
        fake_end_as(r, i, CANCELLED);
}

struct request_progress reader_progress(struct reader *r, const struct request *request) {
    (void)r;
    return (struct request_progress){ 0, request->state == REQUEST_ACTIVE ? FAKE_STEP : 0 };
}

struct request *reader_next(struct reader *r) {
    if (!r->n_ended)
        return NULL;
    struct request *request = r->ended[0];
    r->n_ended--;
    memmove(&r->ended[0], &r->ended[1], r->n_ended * sizeof r->ended[0]);
    r->n_fetched++;
    if (r->fetched)
        r->fetched(r->context, request);
    return request;
}

struct event reader_event(struct reader *r) {
    return (struct event){ r->ends, r->n_fetched + 1 };
}

enum status request_error(const struct reader *r, const struct request *request, struct err *err) {
    (void)r;
    return err_set(err, request->status, "imaginary shard: cannot read at %llu",
                   (unsigned long long)request->failed_offset);
}

#endif
