// Time is read in one place, and a virtual clock moves only when told.
#include "tests/io/fixture.h"

#include "io/clock.h"

static void system_clock_never_goes_back(void **state) {
    (void)state;
    uint64_t before = clock_now_ns(clock_system());
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_now_ns(clock_system());
        assert_true(now >= before);
        before = now;
    }
}

static void virtual_clock_moves_only_when_told(void **state) {
    (void)state;
    struct clock_virtual v;
    clock_virtual_init(&v);
    assert_int_equal(clock_now_ns(&v.clock), 0);
    assert_int_equal(clock_now_ns(&v.clock), 0);
    clock_virtual_advance(&v, 5);
    clock_virtual_advance(&v, 7);
    assert_int_equal(clock_now_ns(&v.clock), 12);
    struct clock_virtual other;
    clock_virtual_init(&other);
    assert_int_equal(clock_now_ns(&other.clock), 0);
    assert_int_equal(clock_now_ns(&v.clock), 12);
}

static void time_ends_at_the_largest_number(void **state) {
    (void)state;
    struct clock_virtual v;
    clock_virtual_init(&v);
    clock_virtual_advance(&v, 100);
    assert_int_equal(clock_deadline(&v.clock, 50), 150);
    assert_true(clock_deadline(&v.clock, UINT64_MAX) == UINT64_MAX);
    assert_true(clock_deadline(&v.clock, UINT64_MAX - 50) == UINT64_MAX);
    clock_virtual_advance(&v, UINT64_MAX - 1);
    assert_true(clock_now_ns(&v.clock) == UINT64_MAX);
}

static void wait_ends_at_its_deadline(void **state) {
    (void)state;
    pthread_cond_t cond;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    assert_int_equal(clock_cond_init(&cond), 0);
    pthread_mutex_lock(&mutex);
    uint64_t deadline = clock_deadline(clock_system(), 2000000);
    while (clock_cond_wait(&cond, &mutex, deadline))
        ;
    assert_true(clock_now_ns(clock_system()) >= deadline);
    assert_false(clock_cond_wait(&cond, &mutex, deadline)); // long past: at once
    pthread_mutex_unlock(&mutex);
    pthread_cond_destroy(&cond);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(system_clock_never_goes_back),
        cmocka_unit_test(virtual_clock_moves_only_when_told),
        cmocka_unit_test(time_ends_at_the_largest_number),
        cmocka_unit_test(wait_ends_at_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
