/* The sentences of cache/slots.h on who shares slots: several demands, prefetch; giving up, closing,
 * and what a failed read leaves behind. One demand: test_slots.c. */
#include "tests/cache/slots_bench.h"

/* --- several demands ------------------------------------------------------------------------ */

static void two_demands_share_one_read(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y;
    struct slots_stats stats;
    bench_open(&b, 4, 2);
    ASK(&b, &x, ANY_ORDER, 1, 2);
    ASK(&b, &y, ANY_ORDER, 2, 3);
    READS(&b, 1, 2, 3);
    end_read(&b, 2);
    struct slot for_y = next_is(&b, &y, 2), for_x = next_is(&b, &x, 2);
    assert_int_equal(for_x.index, for_y.index);
    release(&b, &for_x);
    release(&b, &for_y);
    finish(&b, &x);
    finish(&b, &y);
    NO_READS(&b);
    slots_stats(b.s, &stats);
    assert_int_equal(stats.demanded, 4);
    assert_int_equal(stats.misses, 3);
    assert_int_equal(stats.joined, 1);
    assert_int_equal(stats.miss_bytes, 3 * EXPERT_BYTES);
    bench_close(&b);
}

static void the_oldest_demand_is_served_first(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y;
    bench_open(&b, 2, 2);
    ASK(&b, &x, IN_ORDER, 1, 2, 3);
    ASK(&b, &y, ANY_ORDER, 10, 11);
    READS(&b, 1, 2);
    end_read(&b, 1);
    assert_int_equal(next_status(&b, &y), AGAIN); // takes in the end of 1 as well
    use(&b, &x, 1);
    READS(&b, 3);
    end_read(&b, 2);
    use(&b, &x, 2);
    READS(&b, 10);
    finish(&b, &x);
    finish(&b, &y);
    bench_close(&b);
}

static void a_younger_demand_gets_nothing_while_an_older_one_lacks_a_slot(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y, z;
    bench_open(&b, 3, 3);
    FILL(&b, 9);
    ASK(&b, &x, ANY_ORDER, 9);
    struct slot for_x = next_is(&b, &x, 9);
    ASK(&b, &y, IN_ORDER, 1, 2, 3);
    READS(&b, 1, 2); // 9 is held
    ASK(&b, &z, ANY_ORDER, 9, 20);
    use(&b, &z, 9);
    release(&b, &for_x);
    NO_READS(&b); // the place of 9 is free by now; that of 1 comes before it, and y before z
    end_read(&b, 1);
    use(&b, &y, 1);
    READS(&b, 3, 20);
    finish(&b, &x);
    finish(&b, &y);
    finish(&b, &z);
    bench_close(&b);
}

static void what_waits_for_a_younger_demand_yields_to_an_older_one(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y, z;
    bench_open(&b, 2, 3);
    FILL(&b, 1, 2);
    ASK(&b, &x, ANY_ORDER, 1);
    struct slot held = next_is(&b, &x, 1);
    ASK(&b, &y, IN_ORDER, 3);
    READS(&b, 3); // in the place of 2
    fail_read(&b, 3, ERR_IO);
    assert_int_equal(next_status(&b, &y), ERR_IO);
    ASK(&b, &z, ANY_ORDER, 4);
    READS(&b, 4); // y stands still until it is asked again
    end_read(&b, 4);
    assert_int_equal(next_status(&b, &y), AGAIN);
    READS(&b, 3); // the slot of 4 was waiting for z, which is younger
    ARE(&b, SLOT_EMPTY, 4);
    finish(&b, &y);
    finish(&b, &z);
    READS(&b, 4);
    release(&b, &held);
    finish(&b, &x);
    bench_close(&b);
}

static void every_waiter_gets_the_error_once(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y, z;
    bench_open(&b, 4, 3);
    ASK(&b, &x, ANY_ORDER, 1, 2);
    ASK(&b, &y, ANY_ORDER, 2);
    ASK(&b, &z, ANY_ORDER, 3);
    fail_read(&b, 2, ERR_TRUNCATED);
    assert_int_equal(next_status(&b, &z), AGAIN); // not its own
    assert_int_equal(next_status(&b, &x), ERR_TRUNCATED);
    assert_int_equal(next_status(&b, &x), AGAIN);
    end_read(&b, 2);
    use(&b, &x, 2);
    assert_int_equal(next_status(&b, &y), ERR_TRUNCATED); // even though it is there by now
    use(&b, &y, 2);
    finish(&b, &x);
    finish(&b, &y);
    finish(&b, &z);
    bench_close(&b);
}

/* --- prefetch ------------------------------------------------------------------------------- */

static void prefetch_takes_no_slot_that_a_demand_waits_for_or_lacks(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 3, 1);
    FILL(&b, 1, 2, 3);
    ASK(&b, &a, ANY_ORDER, 1, 2);
    assert_true(slots_prefetch(b.s, 10)); // in the place of 3
    assert_false(slots_prefetch(b.s, 11));
    ARE(&b, SLOT_READY, 1, 2);
    use(&b, &a, 1);
    assert_true(slots_prefetch(b.s, 11)); // nobody waits for 1 any more
    finish(&b, &a);
    fake_end(&b.reader, 0);
    fake_end(&b.reader, 0);
    ASK(&b, &a, IN_ORDER, 20, 21, 22, 23);
    end_read(&b, 20);
    struct slot slot = next_is(&b, &a, 20);
    slots_release(b.s, &slot, op_queued(&b));
    op_done(&b);
    assert_false(slots_prefetch(b.s, 12)); // free, but 23 is to be read there
    ARE(&b, SLOT_LOADING, 21, 22, 23);
    finish(&b, &a);
    bench_close(&b);
}

static void a_demand_joins_a_prefetch_and_raises_its_priority(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    struct slots_stats stats;
    bench_open(&b, 4, 1);
    assert_true(slots_prefetch(b.s, 1));
    assert_true(slots_prefetch(b.s, 1)); // under way already
    assert_true(slots_prefetch(b.s, 2));
    READS(&b, 1, 2);
    ASK(&b, &a, ANY_ORDER, 1);
    NO_READS(&b);
    assert_int_equal(b.reader.in_flight[0]->priority, READ_DEMAND);
    assert_int_equal(b.reader.in_flight[1]->priority, READ_PREFETCH);
    slots_prefetch_cancel(b.s, 1); // somebody waits for it: stays
    end_read(&b, 1);
    use(&b, &a, 1);
    finish(&b, &a);
    slots_prefetch_cancel(b.s, 2);
    slots_stats(b.s, &stats);
    assert_int_equal(stats.prefetched, 2);
    assert_int_equal(stats.prefetch_used, 1);
    assert_int_equal(stats.joined, 1);
    assert_int_equal(stats.misses, 0);
    bench_close(&b);
}

static void a_demand_that_joins_a_cancelled_prefetch_has_it_read_after_all(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    b.reader.slow_cancel = true;
    assert_true(slots_prefetch(b.s, 1));
    slots_prefetch_cancel(b.s, 1);
    assert_false(slots_prefetch(b.s, 1));
    READS(&b, 1);
    ASK(&b, &a, ANY_ORDER, 1);
    end_read(&b, 1); // as cancelled
    assert_int_equal(next_status(&b, &a), AGAIN);
    READS(&b, 1);
    end_read(&b, 1);
    use(&b, &a, 1);
    finish(&b, &a);
    bench_close(&b);
}

static void a_queued_prefetch_gives_its_slot_to_a_demand(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 3, 1);
    for (uint32_t expert = 10; expert < 13; expert++)
        assert_true(slots_prefetch(b.s, expert));
    fake_start(&b.reader, 0);
    b.n_seen = b.reader.n_log;
    ASK(&b, &a, ANY_ORDER, 1, 2, 3);
    READS(&b, 1, 2); // the third slot is being filled by the device
    ARE(&b, SLOT_LOADING, 10, 1, 2);
    end_read(&b, 10);
    assert_int_equal(next_status(&b, &a), AGAIN);
    READS(&b, 3);
    finish(&b, &a);
    bench_close(&b);
}

static void no_more_prefetches_are_cancelled_than_slots_are_lacking(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    for (uint32_t expert = 10; expert < 14; expert++)
        assert_true(slots_prefetch(b.s, expert));
    b.reader.slow_cancel = true;
    ASK(&b, &a, ANY_ORDER, 1, 2);
    assert_int_equal(b.reader.n_cancelled, 2);
    for (int i = 0; i < 3; i++) // asking again does not ask for more
        assert_int_equal(next_status(&b, &a), AGAIN);
    assert_int_equal(b.reader.n_cancelled, 2);
    end_read(&b, 13); // as cancelled
    end_read(&b, 12);
    assert_int_equal(next_status(&b, &a), AGAIN);
    ARE(&b, SLOT_LOADING, 10, 11, 1, 2); // those first in the queue go on
    finish(&b, &a);
    ARE(&b, SLOT_READY, 10, 11);
    bench_close(&b);
}

static void a_prefetch_goes_before_a_resident_further_along(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 2, 1);
    FILL(&b, 8);
    assert_true(slots_prefetch(b.s, 20));
    b.reader.slow_cancel = true;
    ASK(&b, &a, IN_ORDER, 1, 8);
    ARE(&b, SLOT_READY, 8);
    end_read(&b, 20); // as cancelled
    assert_int_equal(next_status(&b, &a), AGAIN);
    READS(&b, 20, 1);
    finish(&b, &a);
    NO_READS(&b);
    bench_close(&b);
}

static void a_prefetched_resident_is_as_young_as_if_it_were_used(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b, 3, 1);
    FILL(&b, 1, 2, 3);
    assert_true(slots_prefetch(b.s, 1));
    NO_READS(&b);
    assert_true(slots_prefetch(b.s, 4));
    ARE(&b, SLOT_READY, 1, 3);
    ARE(&b, SLOT_EMPTY, 2);
    bench_close(&b);
}

static void a_prefetch_taken_back_too_late_is_the_first_to_go(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    FILL(&b, 1, 2);
    assert_true(slots_prefetch(b.s, 10));
    assert_true(slots_prefetch(b.s, 11));
    fake_start(&b.reader, in_flight(&b, 10));
    end_read(&b, 11);
    slots_prefetch_cancel(b.s, 10); // at the device
    slots_prefetch_cancel(b.s, 11); // there
    slots_prefetch_cancel(b.s, 1);  // a resident is no prefetch
    end_read(&b, 10);
    ASK(&b, &a, ANY_ORDER, 3, 4);
    finish(&b, &a);
    ARE(&b, SLOT_READY, 1, 2, 3, 4);
    ARE(&b, SLOT_EMPTY, 10, 11);
    bench_close(&b);
}

static void a_prefetch_that_was_sent_in_part_leaves_its_slot_when_that_is_back(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    struct slots_stats stats;
    bench_open(&b, 3, 1);
    b.reader.cuts_active = true;
    assert_true(slots_prefetch(b.s, 10));
    assert_true(slots_prefetch(b.s, 11));
    assert_true(slots_prefetch(b.s, 12));
    for (uint32_t expert = 10; expert < 13; expert++)
        fake_start(&b.reader, in_flight(&b, expert));
    slots_prefetch_cancel(b.s, 10);
    slots_prefetch_cancel(b.s, 11);
    ARE(&b, SLOT_LOADING, 10, 11, 12);
    ASK(&b, &a, ANY_ORDER, 11); // after all
    end_read(&b, 10);           // as cancelled
    end_read(&b, 11);
    assert_int_equal(slots_progress(b.s, 10).bytes_out, 0); // takes in what has ended
    ARE(&b, SLOT_LOADING, 11, 12);                          // 11 anew
    ARE(&b, SLOT_EMPTY, 10);
    end_read(&b, 12);
    finish(&b, &a);
    ARE(&b, SLOT_READY, 11, 12);
    slots_stats(b.s, &stats);
    assert_int_equal(stats.prefetch_cancelled, 1);
    assert_int_equal(stats.misses, 1);
    bench_close(&b);
}

static void progress_of_a_load_is_the_request_s(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b, 3, 1);
    assert_true(slots_prefetch(b.s, 10));
    assert_int_equal(slots_progress(b.s, 9).bytes_read + slots_progress(b.s, 9).bytes_out, 0);
    assert_int_equal(slots_progress(b.s, 10).bytes_out, 0);
    fake_start(&b.reader, in_flight(&b, 10));
    assert_int_equal(slots_progress(b.s, 10).bytes_out, FAKE_STEP);
    end_read(&b, 10);
    assert_int_equal(slots_progress(b.s, 10).bytes_out, 0); // and it is taken in by that
    ARE(&b, SLOT_READY, 10);
    assert_true(slots_progress(b.s, 10).bytes_read > FAKE_STEP);
    bench_close(&b);
}

static void a_prefetch_takes_no_slot_of_another(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b, 3, 1);
    FILL(&b, 1);
    assert_true(slots_prefetch(b.s, 10));
    assert_true(slots_prefetch(b.s, 11));
    assert_true(slots_prefetch(b.s, 12)); // in the place of 1
    for (uint32_t expert = 10; expert < 13; expert++)
        end_read(&b, expert);
    assert_false(slots_prefetch(b.s, 13));
    slots_prefetch_cancel(b.s, 11);
    assert_true(slots_prefetch(b.s, 13)); // in the place of 11
    ARE(&b, SLOT_READY, 10, 12);
    ARE(&b, SLOT_EMPTY, 11);
    bench_close(&b);
}

static void a_failed_prefetch_is_nobodys_error(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    struct slots_stats stats;
    bench_open(&b, 2, 1);
    assert_true(slots_prefetch(b.s, 1));
    fail_read(&b, 1, ERR_IO);
    ASK(&b, &a, ANY_ORDER, 1);
    READS(&b, 1, 1);
    finish(&b, &a);
    slots_stats(b.s, &stats);
    assert_int_equal(stats.failed, 1);
    assert_int_equal(stats.misses, 1);
    bench_close(&b);
}

/* --- giving up, waiting, closing ------------------------------------------------------------ */

static void abandoning_cancels_what_is_queued_and_nobody_else_wants(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y;
    bench_open(&b, 5, 2);
    FILL(&b, 9);
    ASK(&b, &x, ANY_ORDER, 1, 2, 3, 9);
    ASK(&b, &y, ANY_ORDER, 3);
    READS(&b, 1, 2, 3);
    fake_start(&b.reader, 0);
    struct slot held = next_is(&b, &x, 9);
    slots_abandon(&x.d);
    slots_check(b.s);
    assert_int_equal(next_status(&b, &x), DONE);
    ARE(&b, SLOT_LOADING, 1, 3); // at the device; wanted by y
    NO_READS(&b);
    ARE(&b, SLOT_EMPTY, 2);
    end_read(&b, 1);
    end_read(&b, 3);
    use(&b, &y, 3);
    finish(&b, &y);
    ARE(&b, SLOT_READY, 1, 3, 9);
    release(&b, &held);
    bench_close(&b);
}

static void the_event_comes_when_a_read_ends(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y;
    bench_open(&b, 4, 2);
    ASK(&b, &x, ANY_ORDER, 1);
    ASK(&b, &y, ANY_ORDER, 2);
    assert_int_equal(next_status(&b, &x), AGAIN);
    assert_int_equal(next_status(&b, &y), AGAIN);
    struct event event = slots_event(b.s);
    assert_false(event_ready(event));
    end_read(&b, 1);
    assert_true(event_ready(event));
    // y takes in the end of x's read: x still has to get to know of it.
    assert_int_equal(next_status(&b, &y), AGAIN);
    assert_true(event_ready(slots_event(b.s)));
    use(&b, &x, 1);
    finish(&b, &x);
    assert_false(event_ready(slots_event(b.s)));
    ASK(&b, &x, ANY_ORDER, 3);
    fail_read(&b, 2, ERR_IO);
    assert_int_equal(next_status(&b, &x), AGAIN); // likewise with an error
    assert_true(event_ready(slots_event(b.s)));
    assert_int_equal(next_status(&b, &y), ERR_IO);
    finish(&b, &y);
    finish(&b, &x);
    bench_close(&b);
}

static void closing_takes_back_what_is_queued(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    ASK(&b, &a, ANY_ORDER, 1, 2);
    assert_true(slots_prefetch(b.s, 3));
    fake_start(&b.reader, 0);
    slots_abandon(&a.d);
    fake_end(&b.reader, 0);
    bench_close(&b);
    assert_int_equal(b.reader.n_cancelled, 2);
}

/* --- fail the n-th -------------------------------------------------------------------------- */

/* Three layers of a decode step and a wide pass; the n-th read fails, in both ways. Each time: the
 * error once, nothing of it held, and the retry gives what would have come. */
static void any_one_read_may_fail(void **state) {
    (void)state;
    static const uint32_t wanted[][6] = { { 1, 5, 9, 12, 17, 30 },
                                          { 2, 5, 9, 20, 21, 22 },
                                          { 0, 1, 2, 3, 4, 5 } };
    uint64_t n = 1, n_reads = 0;
    for (bool failed = true; failed; n++) {
        struct bench b;
        struct asked a;
        enum status kind = n % 2 ? ERR_IO : ERR_TRUNCATED;
        failed = false;
        bench_open(&b, 4, 1);
        for (uint32_t layer = 0; layer < 3; layer++) {
            uint32_t n_handed = 0, n_errors = 0;
            bool fails_here = false;
            struct slot slot;
            ask(&b, &a, layer == 2 ? IN_ORDER : ANY_ORDER, wanted[layer], 6);
            for (enum status status; (status = slots_next(&a.d, &slot, NULL)) != DONE;) {
                slots_check(b.s);
                if (status == OK) {
                    n_handed++;
                    release(&b, &slot);
                } else if (status == AGAIN) {
                    uint64_t nth = b.reader.n_submitted - b.reader.n_in_flight + 1;
                    bool fail = nth == n && !failed;
                    failed |= fail;
                    fails_here |= fail;
                    if (fail)
                        fake_fail(&b.reader, 0, kind);
                    else
                        fake_end(&b.reader, 0);
                } else {
                    assert_int_equal(status, kind);
                    n_errors++;
                }
            }
            assert_int_equal(n_handed, 6);
            assert_int_equal(n_errors, fails_here);
        }
        n_reads = b.reader.n_submitted;
        bench_close(&b);
    }
    assert_int_equal(n - 2, n_reads); // each read of a run failed once
}

int main(void) {
#define TEST(f) cmocka_unit_test(f)
    const struct CMUnitTest tests[] = {
        TEST(two_demands_share_one_read),
        TEST(the_oldest_demand_is_served_first),
        TEST(a_younger_demand_gets_nothing_while_an_older_one_lacks_a_slot),
        TEST(what_waits_for_a_younger_demand_yields_to_an_older_one),
        TEST(every_waiter_gets_the_error_once),
        TEST(prefetch_takes_no_slot_that_a_demand_waits_for_or_lacks),
        TEST(a_demand_joins_a_prefetch_and_raises_its_priority),
        TEST(a_demand_that_joins_a_cancelled_prefetch_has_it_read_after_all),
        TEST(a_queued_prefetch_gives_its_slot_to_a_demand),
        TEST(no_more_prefetches_are_cancelled_than_slots_are_lacking),
        TEST(a_prefetch_goes_before_a_resident_further_along),
        TEST(a_prefetched_resident_is_as_young_as_if_it_were_used),
        TEST(a_prefetch_taken_back_too_late_is_the_first_to_go),
        TEST(a_prefetch_that_was_sent_in_part_leaves_its_slot_when_that_is_back),
        TEST(progress_of_a_load_is_the_request_s),
        TEST(a_prefetch_takes_no_slot_of_another),
        TEST(a_failed_prefetch_is_nobodys_error),
        TEST(abandoning_cancels_what_is_queued_and_nobody_else_wants),
        TEST(the_event_comes_when_a_read_ends),
        TEST(closing_takes_back_what_is_queued),
        TEST(any_one_read_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
