#include "io/trace.h"

#include <stdatomic.h>
#include <stdlib.h>

// Apart by a cache line each: the two threads write different ones.
struct ring {
    _Alignas(64) _Atomic uint64_t n_put; // the producer's
    uint64_t n_lost_before;              // since the last that found room
    _Atomic uint64_t n_lost;
    _Alignas(64) _Atomic uint64_t n_taken; // the consumer's
    struct trace_event *events;            // [n_events]
};

struct trace {
    uint64_t mask; // n_events - 1
    struct ring ring[TRACE_TRACKS];
};

enum status trace_open(struct trace **out, uint32_t n_events, struct err *err) {
    uint64_t n = 2;
    while (n < n_events)
        n *= 2;
    struct trace *t = *out = aligned_alloc(64, sizeof *t);
    if (!t)
        return err_set(err, ERR_MEMORY, "no memory for a trace");
    *t = (struct trace){ .mask = n - 1 };
    for (int track = 0; track < TRACE_TRACKS; track++) {
        t->ring[track].events = calloc(n, sizeof *t->ring[track].events);
        if (!t->ring[track].events) {
            trace_close(t);
            *out = NULL;
            return err_set(err, ERR_MEMORY, "no memory for a trace of %llu events",
                           (unsigned long long)n);
        }
    }
    return OK;
}

void trace_close(struct trace *t) {
    for (int track = 0; t && track < TRACE_TRACKS; track++)
        free(t->ring[track].events);
    free(t);
}

void trace_put(struct trace *t, enum trace_track track, const struct trace_event *event) {
    struct ring *r = &t->ring[track];
    uint64_t at = atomic_load_explicit(&r->n_put, memory_order_relaxed);
    // Acquire: what the consumer has read it has read before we write there.
    if (at - atomic_load_explicit(&r->n_taken, memory_order_acquire) > t->mask) {
        r->n_lost_before++;
        atomic_fetch_add_explicit(&r->n_lost, 1, memory_order_relaxed);
        return;
    }
    struct trace_event *to = &r->events[at & t->mask];
    *to = *event;
    to->n_lost = r->n_lost_before < UINT32_MAX ? (uint32_t)r->n_lost_before : UINT32_MAX;
    r->n_lost_before = 0;
    atomic_store_explicit(&r->n_put, at + 1, memory_order_release);
}

bool trace_take(struct trace *t, enum trace_track track, struct trace_event *out) {
    struct ring *r = &t->ring[track];
    uint64_t at = atomic_load_explicit(&r->n_taken, memory_order_relaxed);
    if (at == atomic_load_explicit(&r->n_put, memory_order_acquire))
        return false;
    *out = r->events[at & t->mask];
    atomic_store_explicit(&r->n_taken, at + 1, memory_order_release);
    return true;
}

uint64_t trace_lost(const struct trace *t) {
    uint64_t n = 0;
    for (int track = 0; track < TRACE_TRACKS; track++)
        n += atomic_load_explicit(&t->ring[track].n_lost, memory_order_relaxed);
    return n;
}
