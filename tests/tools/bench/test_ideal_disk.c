/* The bound of a run's time: made runs whose answers can be told by hand. One byte takes one
 * nanosecond. */
#include "tools/bench/ideal_disk.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define RATE 1e9

static struct ideal_run run;

static int clear(void **state) {
    (void)state;
    ideal_run_free(&run);
    return 0;
}

static void assert_near(double is, double want) {
    if (fabs(is - want) > 1e-6)
        fail_msg("%g ns, not %g", is, want);
}

static void takes(double ns, double wait_ns) {
    struct err err = { .status = OK };
    struct ideal_time time;
    assert_int_equal(ideal_replay(&run, RATE, &time, &err), OK);
    assert_near(time.ns, ns);
    assert_near(time.wait_ns, wait_ns);
    assert_near(time.compute_ns, ns - wait_ns);
}

static uint32_t submitted(uint64_t bytes, enum read_priority priority) {
    uint32_t request = ideal_add_request(&run, bytes);
    ideal_add_submit(&run, request, priority);
    return request;
}

static void an_empty_run_takes_no_time(void **state) {
    (void)state;
    takes(0, 0);
}

static void what_is_resident_waits_for_nothing(void **state) {
    (void)state;
    ideal_add_compute(&run, 100);
    ideal_add_take(&run, 0, IDEAL_NONE);
    ideal_add_compute(&run, 40);
    takes(140, 0);
}

static void what_is_needed_at_once_is_waited_for_whole(void **state) {
    (void)state;
    for (uint32_t layer = 0; layer < 3; layer++) {
        uint32_t a = submitted(1000, READ_DEMAND);
        ideal_add_take(&run, layer, a);
        ideal_add_compute(&run, 10);
    }
    takes(3030, 3000);
}

static void arithmetic_hides_what_was_asked_for_before_it(void **state) {
    (void)state;
    uint32_t a = submitted(1000, READ_PREFETCH);
    ideal_add_compute(&run, 1000);
    ideal_add_take(&run, 0, a);
    ideal_add_compute(&run, 7);
    takes(1007, 0);
}

static void what_it_does_not_hide_remains(void **state) {
    (void)state;
    uint32_t a = submitted(1000, READ_DEMAND);
    ideal_add_compute(&run, 300);
    ideal_add_take(&run, 0, a);
    takes(1000, 700);
}

static void two_reads_of_a_demand_come_one_after_the_other(void **state) {
    (void)state;
    uint32_t a = submitted(600, READ_DEMAND), b = submitted(400, READ_DEMAND);
    ideal_add_take(&run, 0, a); // at 600
    ideal_add_compute(&run, 100);
    ideal_add_take(&run, 0, b); // at 1000
    ideal_add_compute(&run, 100);
    takes(1100, 900);
}

// The run took b first; over the ideal disk a comes first, and is computed while b comes.
static void experts_of_a_demand_are_taken_as_they_come(void **state) {
    (void)state;
    uint32_t a = submitted(500, READ_DEMAND), b = submitted(500, READ_DEMAND);
    ideal_add_take(&run, 0, b);
    ideal_add_compute(&run, 500);
    ideal_add_take(&run, 0, a);
    ideal_add_compute(&run, 500);
    takes(1500, 500);
}

static void those_of_another_demand_are_not(void **state) {
    (void)state;
    uint32_t a = submitted(500, READ_DEMAND), b = submitted(500, READ_DEMAND);
    ideal_add_take(&run, 0, b);
    ideal_add_compute(&run, 500);
    ideal_add_take(&run, 1, a);
    ideal_add_compute(&run, 500);
    takes(2000, 1000);
}

static void a_demand_goes_before_a_prefetch_under_way(void **state) {
    (void)state;
    uint32_t early = submitted(1000, READ_PREFETCH);
    ideal_add_compute(&run, 400); // 600 are left
    uint32_t a = submitted(200, READ_DEMAND);
    ideal_add_take(&run, 0, a); // at 600
    ideal_add_compute(&run, 100);
    ideal_add_take(&run, 1, early); // at 1200
    takes(1200, 700);
}

static void a_prefetch_in_vain_costs_nobody_anything(void **state) {
    (void)state;
    submitted(1 << 20, READ_PREFETCH);
    uint32_t a = submitted(200, READ_DEMAND);
    ideal_add_take(&run, 0, a);
    takes(200, 200);
}

static void a_prefetch_that_is_demanded_stands_behind_older_demands(void **state) {
    (void)state;
    uint32_t early = submitted(300, READ_PREFETCH), a = submitted(500, READ_DEMAND);
    ideal_add_raise(&run, early, READ_DEMAND);
    ideal_add_take(&run, 0, a); // at 500
    ideal_add_need(&run, early);
    takes(800, 800);
}

static void what_has_come_is_not_raised(void **state) {
    (void)state;
    uint32_t early = submitted(300, READ_PREFETCH);
    ideal_add_compute(&run, 300);
    ideal_add_raise(&run, early, READ_DEMAND);
    ideal_add_take(&run, 0, early);
    uint32_t a = submitted(500, READ_DEMAND); // it is not read again before this one
    ideal_add_take(&run, 1, a);
    takes(800, 500);
}

static void nothing_is_raised_to_less_than_it_is(void **state) {
    (void)state;
    uint32_t a = submitted(300, READ_DEMAND), b = submitted(500, READ_PREFETCH);
    ideal_add_raise(&run, a, READ_PREFETCH);
    ideal_add_need(&run, a); // at 300
    ideal_add_compute(&run, 100);
    ideal_add_need(&run, b); // at 800
    takes(800, 700);
}

// As where slots are few: the second read begins when the first has been computed.
static void a_read_asked_for_later_comes_later(void **state) {
    (void)state;
    uint32_t a = submitted(500, READ_DEMAND), b = ideal_add_request(&run, 500);
    ideal_add_take(&run, 0, a);
    ideal_add_compute(&run, 100);
    ideal_add_submit(&run, b, READ_DEMAND);
    ideal_add_take(&run, 0, b);
    ideal_add_compute(&run, 100);
    takes(1200, 1000);
}

static void half_the_rate_doubles_the_waits_alone(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct ideal_time time;
    uint32_t a = submitted(500, READ_DEMAND);
    ideal_add_take(&run, 0, a);
    ideal_add_compute(&run, 100);
    takes(600, 500);
    assert_int_equal(ideal_replay(&run, RATE / 2, &time, &err), OK);
    assert_near(time.ns, 1100);
    assert_near(time.wait_ns, 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, clear, clear)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_empty_run_takes_no_time),
        TEST(what_is_resident_waits_for_nothing),
        TEST(what_is_needed_at_once_is_waited_for_whole),
        TEST(arithmetic_hides_what_was_asked_for_before_it),
        TEST(what_it_does_not_hide_remains),
        TEST(two_reads_of_a_demand_come_one_after_the_other),
        TEST(experts_of_a_demand_are_taken_as_they_come),
        TEST(those_of_another_demand_are_not),
        TEST(a_demand_goes_before_a_prefetch_under_way),
        TEST(a_prefetch_in_vain_costs_nobody_anything),
        TEST(a_prefetch_that_is_demanded_stands_behind_older_demands),
        TEST(what_has_come_is_not_raised),
        TEST(nothing_is_raised_to_less_than_it_is),
        TEST(a_read_asked_for_later_comes_later),
        TEST(half_the_rate_doubles_the_waits_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
