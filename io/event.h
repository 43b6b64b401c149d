/* io/event.h - something that will have happened: a read that ended, an op that is done.
 *
 * An event is a point on a counter that only grows. A source (the reader, a backend's queue) owns
 * the counter and advances it; whoever holds the event can ask or wait. An event is a value: copy
 * it freely, nothing to free; it must not outlive its source.
 *
 *     { NULL, 0 }      has happened: what a backend that computes at once returns
 *     { source, v }    has happened once the source has reached v */
#ifndef SLUICE_IO_EVENT_H
#define SLUICE_IO_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_source;

struct event {
    struct event_source *source;
    uint64_t value;
};

static inline struct event event_now(void) {
    struct event e = { 0, 0 };
    return e;
}

/* Has it happened? Never blocks; any thread. */
bool event_ready(struct event e);

/* Wait until it has happened or timeout_ns have passed (UINT64_MAX: no limit); true if it has
 * happened. The control thread waits in short slices so that it sees a cancellation; nothing else
 * should need a limit. */
bool event_wait(struct event e, uint64_t timeout_ns);

/* --- for those who own a source --------------------------------------------------------------- */

/* A source's own way to wait, where the default (a mutex and a condition) does not fit: a modelled
 * disk advances its virtual clock here, a GPU queue asks its driver. NULL members: the default. */
struct event_source_hooks {
    /* Before every look at the counter. */
    void (*poll)(void *context);
    /* Return once the source has reached `value` or timeout_ns have passed, in the source's time
     * (UINT64_MAX: no limit); earlier only where nothing is under way that could advance it. */
    void (*wait)(void *context, uint64_t value, uint64_t timeout_ns);
    void *context;
};

/* NULL hooks: the default for both. Returns NULL where there is no memory. */
struct event_source *event_source_new(const struct event_source_hooks *hooks);
void event_source_free(struct event_source *s); /* nobody may be waiting; NULL is fine */

uint64_t event_source_reached(const struct event_source *s);    /* as it is, without a poll */
void event_source_advance(struct event_source *s, uint64_t by); /* wakes waiters; any thread */

#ifdef __cplusplus
}
#endif
#endif
