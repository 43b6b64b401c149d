/* What a window of a timeline says, on made ones; its story is judged by how long an ideal disk takes. */
#include "tools/bench/recording.h"

#include "io/reader.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static struct recording *r;
static struct recording_figures figures;
static struct err err;

static int open_one(void **state) {
    (void)state;
    err_clear(&err);
    return recording_open(&r, &err) != OK;
}
static int close_it(void **state) {
    (void)state;
    recording_close(r);
    return 0;
}

// --- a made timeline -----------------------------------------------------------------------------

static void place_of_step(uint64_t ns, uint32_t step, uint32_t activity, uint32_t layer,
                          uint32_t expert) {
    struct trace_event event = { .ns = ns,
                                 .kind = TRACE_PLACE,
                                 .is.place = { .phase = PHASE_DECODE,
                                               .activity = activity,
                                               .step = step,
                                               .layer = layer,
                                               .n_rows = 1,
                                               .expert = expert } };
    trace_put(recording_trace(r), TRACE_CONTROL, &event);
}
static void place(uint64_t ns, uint32_t activity, uint32_t layer, uint32_t expert) {
    place_of_step(ns, 0, activity, layer, expert);
}
static void enter(uint64_t ns, enum activity activity) {
    place(ns, activity, 0, TRACE_NOWHERE);
}
static void take(uint64_t ns, uint32_t expert) {
    place(ns, ACTIVITY_EXPERTS, 0, expert);
}

static void queue(uint64_t ns, uint32_t n_chunks, uint64_t bytes_so_far) {
    struct trace_event event = { .ns = ns,
                                 .kind = TRACE_QUEUE,
                                 .is.queue = { .n_chunks = n_chunks,
                                               .bytes_so_far = bytes_so_far } };
    trace_put(recording_trace(r), TRACE_DISK, &event);
}

static void ended(uint64_t ns, uint64_t submitted_ns, uint64_t raised_ns, uint64_t label,
                  uint64_t bytes, enum read_priority priority) {
    struct trace_event event = { .ns = ns,
                                 .kind = TRACE_REQUEST,
                                 .is.request = { .submitted_ns = submitted_ns,
                                                 .raised_ns = raised_ns,
                                                 .active_ns = submitted_ns,
                                                 .label = label,
                                                 .bytes = bytes,
                                                 .priority = priority,
                                                 .status = bytes ? OK : CANCELLED } };
    trace_put(recording_trace(r), TRACE_DISK, &event);
}

#define READ_OF(expert) ((expert) + 1)

static void look(uint64_t to_ns) {
    recording_end(r, to_ns);
    recording_figures(r, &figures, &err);
    assert_int_equal(err.status, OK);
    assert_int_equal(recording_lost(r), 0);
}

static void ideal_takes(double rate, double ns, double compute_ns) {
    struct ideal_run run;
    struct ideal_time time;
    recording_story(r, 2, &run);
    assert_int_equal(ideal_replay(&run, rate, &time, &err), OK);
    if (fabs(time.ns - ns) > 1e-6 || fabs(time.compute_ns - compute_ns) > 1e-6)
        fail_msg("%g ns, %g computed", time.ns, time.compute_ns);
    ideal_run_free(&run);
}

// --- figures -------------------------------------------------------------------------------------

// 1000 … 5000: attention, a demand at 1500, waits from 2000 to 4000, computes. The disk is busy from
// 1600 to 3900, its bytes arrive by halves.
static void one_demand(void) {
    enter(500, ACTIVITY_OTHER);
    recording_begin(r, 1000);
    enter(1100, ACTIVITY_ATTENTION);
    enter(1400, ACTIVITY_GATE);
    queue(1600, 4, 0);
    enter(2000, ACTIVITY_WAIT);
    queue(2750, 2, 1000);
    queue(3900, 0, 2000);
    ended(3900, 1500, 1500, READ_OF(7), 2000, READ_DEMAND);
    take(4000, 7);
    enter(4600, ACTIVITY_OTHER);
}

static void times_add_up(void **state) {
    (void)state;
    one_demand();
    look(5000);
    assert_int_equal(figures.ns, 4000);
    assert_int_equal(figures.activity_ns[ACTIVITY_OTHER], 100 + 400);
    assert_int_equal(figures.activity_ns[ACTIVITY_ATTENTION], 300);
    assert_int_equal(figures.activity_ns[ACTIVITY_GATE], 600);
    assert_int_equal(figures.activity_ns[ACTIVITY_WAIT], 2000);
    assert_int_equal(figures.activity_ns[ACTIVITY_EXPERTS], 600);
    assert_int_equal(figures.wait_ns, 2000);
}

static void the_disk_is_idle_while_nothing_is_at_it(void **state) {
    (void)state;
    one_demand();
    look(5000);
    assert_int_equal(figures.idle_ns, 600 + 1100);
    // Asked for at 1500, at the device from 1600 on; back at 3900, taken at 4000.
    assert_int_equal(figures.idle_wanted_ns, 100 + 100);
}

static void bytes_arrive_evenly_between_two_looks(void **state) {
    (void)state;
    one_demand();
    look(5000);
    assert_true(fabs(figures.bytes - 2000) < 1e-6);
    assert_true(fabs(figures.wait_bytes - (2000 - 1000 * 400 / 1150.)) < 1e-6);
}

static void a_window_counts_what_is_in_it_alone(void **state) {
    (void)state;
    one_demand();
    look(5000);
    recording_begin(r, 5000);
    enter(5100, ACTIVITY_ATTENTION);
    queue(5200, 1, 2000);
    queue(5300, 0, 2500);
    ended(5300, 5200, 5200, READ_OF(3), 500, READ_PREFETCH);
    look(5400);
    assert_int_equal(figures.ns, 400);
    assert_int_equal(figures.activity_ns[ACTIVITY_OTHER], 100); // where it was before
    assert_int_equal(figures.activity_ns[ACTIVITY_ATTENTION], 300);
    assert_int_equal(figures.idle_ns, 300);
    assert_int_equal(figures.wait_ns, 0);
    assert_true(fabs(figures.bytes - 500) < 1e-6 && figures.wait_bytes == 0);
}

static void many_looks_lose_no_bytes_and_no_idle_time(void **state) {
    (void)state;
    enter(0, ACTIVITY_WAIT);
    recording_begin(r, 0);
    for (uint32_t i = 0; i < 1000; i++) // 1000 chunks of 1000 bytes, one each microsecond
        queue(i * 1000, 1 + i % 3, i * 1000);
    queue(1000000, 0, 1000000);
    queue(1500000, 2, 1000000);
    look(2000000);
    assert_int_equal(figures.idle_ns, 500000);
    assert_true(fabs(figures.bytes - 1e6) < 1e-6 && fabs(figures.wait_bytes - 1e6) < 1e-6);
}

static void reads_of_the_same_expert_are_counted(void **state) {
    (void)state;
    uint64_t n;
    recording_begin(r, 0);
    ended(10, 1, 1, READ_OF(3), 100, READ_DEMAND);
    ended(20, 2, 2, READ_OF(4), 100, READ_DEMAND);
    ended(30, 3, 3, READ_OF(3), 100, READ_PREFETCH);
    ended(31, 3, 3, READ_OF(4), 0, READ_PREFETCH); // cancelled
    ended(40, 4, 4, READ_OF(3), 100, READ_DEMAND);
    ended(50, 5, 5, 0, 100, READ_DEMAND);
    ended(60, 6, 6, 0, 100, READ_DEMAND); // no experts
    look(100);
    assert_int_equal(recording_again(r, 10, &n, &err), OK);
    assert_int_equal(n, 2);
    recording_begin(r, 100);
    ended(110, 101, 101, READ_OF(3), 100, READ_DEMAND);
    look(200);
    assert_int_equal(recording_again(r, 10, &n, &err), OK);
    assert_int_equal(n, 0);
}

// --- stories -------------------------------------------------------------------------------------

static void what_was_computed_stays_and_waits_shrink(void **state) {
    (void)state;
    one_demand();
    look(5000);
    // Asked for after 500 of computing; 500 later it is wanted, 1000 are left to be computed.
    ideal_takes(1e9, 500 + 2000 + 1000, 2000);
    ideal_takes(4e9, 2000, 2000); // all is hidden
}

static void an_expert_that_was_there_is_not_waited_for(void **state) {
    (void)state;
    enter(0, ACTIVITY_GATE);
    recording_begin(r, 0);
    take(100, 5);
    enter(200, ACTIVITY_OTHER);
    look(300);
    ideal_takes(1, 300, 300);
}

static void a_read_ahead_is_behind_demands_until_it_is_demanded(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    take(200, 1); // asked for at 100, after the other was read ahead from 50 on
    enter(300, ACTIVITY_ATTENTION);
    place(500, ACTIVITY_EXPERTS, 1, 2);
    enter(600, ACTIVITY_OTHER);
    ended(150, 100, 100, READ_OF(1), 400, READ_DEMAND);
    ended(490, 50, 400, READ_OF(2), 400, READ_DEMAND);
    look(600);
    // 50 bytes of the second, then the first until 500; 100 are computed, 200 more, while the rest of
    // the second comes: at 850.
    ideal_takes(1e9, 500 + 100 + 200 + 50 + 100, 600);
}

static void what_was_cancelled_is_not_read(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    take(200, 1);
    enter(300, ACTIVITY_OTHER);
    ended(60, 50, 50, READ_OF(9), 0, READ_DEMAND);
    ended(150, 100, 100, READ_OF(1), 400, READ_DEMAND);
    look(300);
    ideal_takes(1e9, 600, 300);
}

static void the_last_read_of_an_expert_counts(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    take(100, 1);
    enter(200, ACTIVITY_ATTENTION);
    place(600, ACTIVITY_EXPERTS, 1, 1); // it has been evicted, and read again
    enter(700, ACTIVITY_OTHER);
    ended(90, 10, 10, READ_OF(1), 90, READ_DEMAND);
    ended(590, 300, 300, READ_OF(1), 1000, READ_DEMAND);
    look(700);
    ideal_takes(1e9, 300 + 1000 + 100, 700);
}

// The second layer's expert is there first; it is not computed before the first layer's.
static void layers_of_a_step_are_computed_one_after_the_other(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    take(200, 1);
    place(300, ACTIVITY_EXPERTS, 1, 2);
    ended(150, 50, 50, READ_OF(2), 100, READ_DEMAND);
    ended(190, 60, 60, READ_OF(1), 1000, READ_DEMAND);
    look(400);
    ideal_takes(1e9, 50 + 100 + 1000 + 100 + 100, 400);
}

// An expert of another step lies between two of a demand, which are taken as they come.
static void steps_in_flight_have_demands_of_their_own(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    take(200, 1);
    place_of_step(300, 1, ACTIVITY_EXPERTS, 0, 3); // it was there
    take(400, 2);
    ended(190, 60, 60, READ_OF(1), 1000, READ_DEMAND);
    ended(390, 50, 50, READ_OF(2), 100, READ_DEMAND);
    look(500);
    // The second at 150, the first at 1150: 200, 100 and 100 are computed before that.
    ideal_takes(1e9, 50 + 100 + 1000 + 100, 500);
}

static void a_wait_for_something_else_needs_what_came_in_it(void **state) {
    (void)state;
    enter(0, ACTIVITY_ATTENTION);
    recording_begin(r, 0);
    enter(100, ACTIVITY_WAIT);
    enter(900, ACTIVITY_ATTENTION);
    ended(800, 50, 50, 0, 300, READ_DEMAND);
    ended(950, 60, 60, 0, 5000, READ_DEMAND); // nobody waited
    look(1000);
    ideal_takes(1e9, 50 + 300 + 100, 200);
}

#define DENSE(unit) (TRACE_LABEL_DENSE | (unit))

// Of two layers: unit 2 is the head's. All are read ahead, one after the other.
static void dense_weights_are_needed_where_they_are_used(void **state) {
    (void)state;
    enter(0, ACTIVITY_OTHER);
    recording_begin(r, 0);
    place(100, ACTIVITY_WAIT_DENSE, 0, TRACE_NOWHERE);
    place(450, ACTIVITY_ATTENTION, 0, TRACE_NOWHERE);
    place(650, ACTIVITY_ATTENTION, 1, TRACE_NOWHERE);
    place(850, ACTIVITY_HEAD, TRACE_NOWHERE, TRACE_NOWHERE);
    ended(440, 10, 110, DENSE(0), 390, READ_DEMAND);
    ended(550, 20, 20, DENSE(1), 100, READ_AHEAD);
    ended(840, 30, 30, DENSE(2), 600, READ_AHEAD);
    look(1000);
    assert_int_equal(figures.wait_ns, 350);
    // The first is there at 400; 200 are computed, while 100 + 100 come; 200 more, and 300 are left.
    ideal_takes(1e9, 400 + 200 + 200 + 300 + 150, 650);
}

// They go before experts that are read ahead, whether or not they are demanded in the end.
static void dense_weights_go_before_guesses(void **state) {
    (void)state;
    enter(0, ACTIVITY_OTHER);
    recording_begin(r, 0);
    place(200, ACTIVITY_ATTENTION, 0, TRACE_NOWHERE);
    ended(200, 20, 199, DENSE(0), 100, READ_DEMAND);
    ended(290, 10, 10, READ_OF(5), 400, READ_PREFETCH);
    look(300);
    ideal_takes(1e9, 300, 300);
}

static void dense_weights_of_the_next_step_are_not_waited_for(void **state) {
    (void)state;
    enter(0, ACTIVITY_OTHER);
    recording_begin(r, 0);
    place(100, ACTIVITY_HEAD, TRACE_NOWHERE, TRACE_NOWHERE);
    ended(80, 10, 10, DENSE(2), 50, READ_AHEAD);
    ended(90, 20, 20, DENSE(0), 1000, READ_AHEAD);
    look(200);
    ideal_takes(1e9, 200, 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_one, close_it)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(times_add_up),
        TEST(the_disk_is_idle_while_nothing_is_at_it),
        TEST(bytes_arrive_evenly_between_two_looks),
        TEST(a_window_counts_what_is_in_it_alone),
        TEST(many_looks_lose_no_bytes_and_no_idle_time),
        TEST(reads_of_the_same_expert_are_counted),
        TEST(what_was_computed_stays_and_waits_shrink),
        TEST(an_expert_that_was_there_is_not_waited_for),
        TEST(a_read_ahead_is_behind_demands_until_it_is_demanded),
        TEST(what_was_cancelled_is_not_read),
        TEST(the_last_read_of_an_expert_counts),
        TEST(layers_of_a_step_are_computed_one_after_the_other),
        TEST(steps_in_flight_have_demands_of_their_own),
        TEST(a_wait_for_something_else_needs_what_came_in_it),
        TEST(dense_weights_are_needed_where_they_are_used),
        TEST(dense_weights_go_before_guesses),
        TEST(dense_weights_of_the_next_step_are_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
