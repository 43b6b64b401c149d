#include "io/clock.h"

#include <errno.h>
#include <time.h>

#define NS_PER_S 1000000000u

static uint64_t system_now_ns(const struct clock *clock) {
    (void)clock;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); // cannot fail: the clock exists and &t is ours
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

const struct clock *clock_system(void) {
    static const struct clock system = { .now_ns = system_now_ns };
    return &system;
}

uint64_t clock_deadline(const struct clock *clock, uint64_t timeout_ns) {
    uint64_t now = clock_now_ns(clock);
    return timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
}

static uint64_t virtual_now_ns(const struct clock *clock) {
    // `clock` is the first member, so the two addresses are one.
    return ((const struct clock_virtual *)(const void *)clock)->now;
}

void clock_virtual_init(struct clock_virtual *v) {
    *v = (struct clock_virtual){ .clock = { .now_ns = virtual_now_ns } };
}

void clock_virtual_advance(struct clock_virtual *v, uint64_t ns) {
    v->now = ns < UINT64_MAX - v->now ? v->now + ns : UINT64_MAX;
}

int clock_cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    int error = pthread_condattr_init(&attr);
    if (error)
        return error;
    // Conditions wait on the wall clock unless told otherwise, and that one can be set back.
    error = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (!error)
        error = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return error;
}

bool clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns) {
    if (deadline_ns == UINT64_MAX)
        return pthread_cond_wait(cond, mutex) == 0;
    struct timespec t = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
                          .tv_nsec = (long)(deadline_ns % NS_PER_S) };
    return pthread_cond_timedwait(cond, mutex, &t) != ETIMEDOUT;
}
