#include "io/event.h"

#include "io/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct event_source {
    struct event_source_hooks hooks;
    _Atomic uint64_t reached;
    atomic_uint n_waiters; // so that advancing takes no lock while nobody waits
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

struct event_source *event_source_new(const struct event_source_hooks *hooks) {
    struct event_source *s = malloc(sizeof *s);
    if (!s)
        return NULL;
    *s = (struct event_source){ .hooks = hooks ? *hooks : (struct event_source_hooks){ 0 } };
    pthread_mutex_init(&s->mutex, NULL); // a plain mutex: cannot fail on Linux
    if (clock_cond_init(&s->cond) != 0) {
        pthread_mutex_destroy(&s->mutex);
        free(s);
        return NULL;
    }
    return s;
}

void event_source_free(struct event_source *s) {
    if (!s)
        return;
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

uint64_t event_source_reached(const struct event_source *s) {
    return atomic_load(&s->reached);
}

// Either the waiter's look at `reached` comes after our add, or our look at `n_waiters` comes
// after its increment (both are sequentially consistent), so no wake-up is lost.
void event_source_advance(struct event_source *s, uint64_t by) {
    atomic_fetch_add(&s->reached, by);
    if (atomic_load(&s->n_waiters) == 0)
        return;
    pthread_mutex_lock(&s->mutex);
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->mutex);
}

bool event_ready(struct event e) {
    if (!e.source)
        return true;
    if (atomic_load(&e.source->reached) >= e.value)
        return true;
    if (!e.source->hooks.poll)
        return false;
    e.source->hooks.poll(e.source->hooks.context);
    return atomic_load(&e.source->reached) >= e.value;
}

static void wait_for_signal(struct event_source *s, uint64_t value, uint64_t timeout_ns) {
    uint64_t deadline_ns = clock_deadline(clock_system(), timeout_ns);
    atomic_fetch_add(&s->n_waiters, 1);
    pthread_mutex_lock(&s->mutex);
    while (atomic_load(&s->reached) < value && clock_cond_wait(&s->cond, &s->mutex, deadline_ns))
        ;
    pthread_mutex_unlock(&s->mutex);
    atomic_fetch_sub(&s->n_waiters, 1);
}

bool event_wait(struct event e, uint64_t timeout_ns) {
    if (event_ready(e))
        return true;
    if (timeout_ns == 0)
        return false;
    if (e.source->hooks.wait)
        e.source->hooks.wait(e.source->hooks.context, e.value, timeout_ns);
    else
        wait_for_signal(e.source, e.value, timeout_ns);
    return event_ready(e);
}
