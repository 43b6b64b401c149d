/* Rings of events: what was put is taken in order, and what found no room is counted. */
#include "io/trace.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

static struct trace_event event_at(uint64_t ns) {
    return (struct trace_event){ .ns = ns,
                                 .kind = TRACE_QUEUE,
                                 .n_lost = 77, // not the producer's to say
                                 .is.queue = { .bytes = 3 * ns } };
}

static void put(struct trace *t, enum trace_track track, uint64_t ns) {
    struct trace_event event = event_at(ns);
    trace_put(t, track, &event);
}

static void take(struct trace *t, enum trace_track track, uint64_t ns, uint32_t n_lost) {
    struct trace_event event;
    assert_true(trace_take(t, track, &event));
    assert_int_equal(event.ns, ns);
    assert_int_equal(event.is.queue.bytes, 3 * ns);
    assert_int_equal(event.n_lost, n_lost);
}

static void events_come_out_as_they_went_in(void **state) {
    (void)state;
    struct trace *t;
    struct trace_event event;
    assert_int_equal(trace_open(&t, 4, NULL), OK);
    assert_false(trace_take(t, TRACE_DISK, &event));
    for (uint64_t i = 0; i < 100; i++) { // many times round
        put(t, TRACE_DISK, i);
        put(t, TRACE_DISK, 1000 + i);
        put(t, TRACE_CONTROL, 2000 + i);
        take(t, TRACE_DISK, i, 0);
        take(t, TRACE_DISK, 1000 + i, 0);
        assert_false(trace_take(t, TRACE_DISK, &event)); // tracks are apart
        take(t, TRACE_CONTROL, 2000 + i, 0);
    }
    assert_int_equal(trace_lost(t), 0);
    trace_close(t);
    trace_close(NULL);
}

static void a_full_ring_loses_what_comes_and_says_so(void **state) {
    (void)state;
    struct trace *t;
    assert_int_equal(trace_open(&t, 3, NULL), OK); // which makes four
    for (uint64_t i = 0; i < 9; i++)
        put(t, TRACE_CONTROL, i);
    put(t, TRACE_DISK, 50);
    assert_int_equal(trace_lost(t), 5);
    for (uint64_t i = 0; i < 4; i++)
        take(t, TRACE_CONTROL, i, 0);
    put(t, TRACE_CONTROL, 20); // the five are between the last and this one
    put(t, TRACE_CONTROL, 21);
    take(t, TRACE_CONTROL, 20, 5);
    take(t, TRACE_CONTROL, 21, 0);
    take(t, TRACE_DISK, 50, 0);
    assert_int_equal(trace_lost(t), 5);
    trace_close(t);
}

#define N_EVENTS 200000

static void *put_many(void *context) {
    for (uint64_t i = 1; i <= N_EVENTS; i++)
        put(context, TRACE_DISK, i);
    return NULL;
}

/* One thread puts, another takes: nothing is torn, doubled or lost without being counted. */
static void two_threads_share_a_ring(void **state) {
    (void)state;
    struct trace *t;
    struct trace_event event;
    pthread_t thread;
    uint64_t last = 0, n_taken = 0;
    assert_int_equal(trace_open(&t, 64, NULL), OK);
    assert_int_equal(pthread_create(&thread, NULL, put_many, t), 0);
    bool over = false;
    while (n_taken + trace_lost(t) < N_EVENTS || !over) {
        over = n_taken + trace_lost(t) >= N_EVENTS;
        while (trace_take(t, TRACE_DISK, &event)) {
            assert_int_equal(event.is.queue.bytes, 3 * event.ns);
            assert_int_equal(event.ns, last + 1 + event.n_lost);
            last = event.ns;
            n_taken++;
        }
        sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(n_taken + trace_lost(t), N_EVENTS);
    assert_true(n_taken >= 64);
    trace_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_out_as_they_went_in),
        cmocka_unit_test(a_full_ring_loses_what_comes_and_says_so),
        cmocka_unit_test(two_threads_share_a_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
