/* io/clock.h - the only place that reads time.
 *
 * Everything that measures or waits takes a `const struct clock *`. The system clock is
 * CLOCK_MONOTONIC; a virtual clock stands still until somebody advances it, so that schedules,
 * caches and disks can be run through years in a second, with the same result every time. */
#ifndef SLUICE_IO_CLOCK_H
#define SLUICE_IO_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct clock {
    uint64_t (*now_ns)(const struct clock *clock); /* never goes back; any thread */
};

/* The machine's monotonic clock. */
const struct clock *clock_system(void);

static inline uint64_t clock_now_ns(const struct clock *clock) {
    return clock->now_ns(clock);
}

/* The moment timeout_ns from now; UINT64_MAX, "never", where that is past the end of time. */
uint64_t clock_deadline(const struct clock *clock, uint64_t timeout_ns);

/* A clock that moves only when told; owned by the caller, used by one thread. */
struct clock_virtual {
    struct clock clock; /* pass &v->clock */
    uint64_t now;
};
void clock_virtual_init(struct clock_virtual *v);
void clock_virtual_advance(struct clock_virtual *v, uint64_t ns);

/* --- waiting for other threads, in the system's time ------------------------------------------ */

/* A condition that clock_cond_wait can wait on; 0 or an errno. */
int clock_cond_init(pthread_cond_t *cond);

/* Wait for a signal, or until the system clock shows deadline_ns (UINT64_MAX: without limit). May
 * return early, like pthread_cond_wait; false: the deadline has passed. */
bool clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns);

#ifdef __cplusplus
}
#endif
#endif
