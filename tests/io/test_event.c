// A point on a counter that only grows: asked, waited for, from any thread.
#include "tests/io/fixture.h"

#include "io/event.h"

#include <pthread.h>

static void event_of_no_source_has_happened(void **state) {
    (void)state;
    assert_true(event_ready(event_now()));
    assert_true(event_wait(event_now(), 0));
}

static void event_happens_when_its_source_gets_there(void **state) {
    (void)state;
    struct event_source *s = event_source_new(NULL);
    struct event two = { s, 2 }, five = { s, 5 };
    assert_true(event_ready((struct event){ s, 0 }));
    assert_false(event_ready(two));
    event_source_advance(s, 1);
    assert_false(event_ready(two));
    assert_false(event_wait(two, 0));
    assert_false(event_wait(two, 1000000));
    event_source_advance(s, 3);
    assert_int_equal(event_source_reached(s), 4);
    assert_true(event_ready(two));
    assert_true(event_wait(two, UINT64_MAX));
    assert_false(event_ready(five));
    event_source_free(s);
    event_source_free(NULL);
}

#define STEPS 2000

struct ping_pong {
    struct event_source *there, *back;
};

static void *answer(void *context) {
    struct ping_pong *p = context;
    for (uint64_t i = 1; i <= STEPS; i++) {
        event_wait((struct event){ p->there, i }, UINT64_MAX);
        event_source_advance(p->back, 1);
    }
    return NULL;
}

// A lost wake-up would hang it; each side waits for the other every time.
static void no_wake_up_is_lost_between_threads(void **state) {
    (void)state;
    struct ping_pong p = { event_source_new(NULL), event_source_new(NULL) };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer, &p), 0);
    for (uint64_t i = 1; i <= STEPS; i++) {
        event_source_advance(p.there, 1);
        assert_true(event_wait((struct event){ p.back, i }, 60000000000u));
    }
    pthread_join(thread, NULL);
    event_source_free(p.there);
    event_source_free(p.back);
}

struct waiter {
    struct event event;
    bool happened;
};

static void *wait_for(void *context) {
    struct waiter *w = context;
    w->happened = event_wait(w->event, 60000000000u);
    return NULL;
}

static void all_who_wait_are_woken(void **state) {
    (void)state;
    struct event_source *s = event_source_new(NULL);
    struct waiter waiters[4];
    pthread_t threads[4];
    for (uint64_t i = 0; i < 4; i++) {
        waiters[i] = (struct waiter){ .event = { s, i + 1 } };
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for, &waiters[i]), 0);
    }
    event_source_advance(s, 1);
    event_source_advance(s, 3);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(waiters[i].happened);
    }
    event_source_free(s);
}

// --- a source with a way of its own --------------------------------------------------------------

struct machine {
    struct event_source *source;
    uint32_t n_polls, n_waits;
    uint64_t value, timeout_ns, advance_by;
    bool advance_in_poll;
};

static void machine_poll(void *context) {
    struct machine *m = context;
    m->n_polls++;
    if (m->advance_in_poll)
        event_source_advance(m->source, 1);
}

static void machine_wait(void *context, uint64_t value, uint64_t timeout_ns) {
    struct machine *m = context;
    m->n_waits++;
    m->value = value;
    m->timeout_ns = timeout_ns;
    event_source_advance(m->source, m->advance_by);
}

static struct machine *machine_new(struct machine *m) {
    *m = (struct machine){ 0 };
    struct event_source_hooks hooks = { .poll = machine_poll, .wait = machine_wait, .context = m };
    m->source = event_source_new(&hooks);
    return m;
}

static void source_is_polled_before_it_is_looked_at(void **state) {
    (void)state;
    struct machine m;
    struct event e = { machine_new(&m)->source, 1 };
    assert_false(event_ready(e));
    assert_int_equal(m.n_polls, 1);
    m.advance_in_poll = true;
    assert_true(event_ready(e));
    assert_int_equal(m.n_waits, 0);
    event_source_free(m.source);
}

static void source_waits_in_its_own_way(void **state) {
    (void)state;
    struct machine m;
    struct event e = { machine_new(&m)->source, 3 };
    assert_false(event_wait(e, 0)); // nothing to wait for in no time
    assert_int_equal(m.n_waits, 0);
    m.advance_by = 2;
    assert_false(event_wait(e, 77)); // its time has passed
    assert_int_equal(m.n_waits, 1);
    assert_int_equal(m.value, 3);
    assert_int_equal(m.timeout_ns, 77);
    assert_true(event_wait(e, 77));
    assert_int_equal(m.n_waits, 2);
    assert_true(event_wait(e, 77));
    assert_int_equal(m.n_waits, 2);
    event_source_free(m.source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_of_no_source_has_happened),
        cmocka_unit_test(event_happens_when_its_source_gets_there),
        cmocka_unit_test(no_wake_up_is_lost_between_threads),
        cmocka_unit_test(all_who_wait_are_woken),
        cmocka_unit_test(source_is_polled_before_it_is_looked_at),
        cmocka_unit_test(source_waits_in_its_own_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
