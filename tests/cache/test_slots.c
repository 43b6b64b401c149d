/* The sentences of cache/slots.h, one by one, over a reader whose every end the test decides.
 * Here: one demand. Several of them, prefetch, giving up: test_slots_sharing.c. What random
 * sequences of all that do: test_slots_random.c. */
#include "tests/cache/slots_bench.h"

/* --- opening -------------------------------------------------------------------------------- */

static void options_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b, 2, 1);
    struct slots *s;
    struct err err = { 0 };
    struct slots_options o = bench_options(&b, 1);
    o.n_slots = 1;
    assert_int_equal(slots_open(&s, &o, &err), ERR_USAGE);
    assert_null(s);
    assert_string_equal(err.text, "1 expert slots: two are the least");
    o = bench_options(&b, 1);
    o.slot_bytes = READER_ALIGN + 512;
    assert_int_equal(slots_open(&s, &o, NULL), ERR_USAGE);
    o = bench_options(&b, 1);
    o.memory += 512;
    assert_int_equal(slots_open(&s, &o, NULL), ERR_USAGE);
    o = bench_options(&b, 0);
    assert_int_equal(slots_open(&s, &o, NULL), ERR_USAGE);
    slots_close(NULL);
    bench_close(&b);
}

static void a_demand_that_cannot_be_is_refused(void **state) {
    (void)state;
    struct bench b;
    struct asked a, more;
    struct demand d;
    uint8_t handed[4];
    bench_open(&b, 4, 1);
    assert_int_equal(slots_demand(b.s, LIST(3, N_EXPERTS), 2, ANY_ORDER, handed, &d, NULL),
                     ERR_USAGE);
    assert_int_equal(slots_demand(b.s, LIST(3, 2), 2, ANY_ORDER, handed, &d, NULL), ERR_USAGE);
    assert_int_equal(slots_demand(b.s, LIST(3, 3), 2, ANY_ORDER, handed, &d, NULL), ERR_USAGE);
    assert_false(d.open);
    NO_READS(&b);
    ASK(&b, &a, ANY_ORDER, 1);
    assert_int_equal(slots_demand(b.s, LIST(2), 1, ANY_ORDER, handed, &more.d, NULL), ERR_USAGE);
    finish(&b, &a);
    ASK(&b, &more, ANY_ORDER, 2);
    finish(&b, &more);
    bench_close(&b);
}

/* --- the drawing ---------------------------------------------------------------------------- */

static void a_demand_or_a_prefetch_makes_an_empty_slot_loading(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    ARE(&b, SLOT_EMPTY, 1, 2);
    ASK(&b, &a, ANY_ORDER, 1);
    assert_true(slots_prefetch(b.s, 2));
    ARE(&b, SLOT_LOADING, 1, 2);
    READS(&b, 1, 2);
    assert_int_equal(b.reader.log[0].priority, READ_DEMAND);
    assert_int_equal(b.reader.log[1].priority, READ_PREFETCH);
    slots_abandon(&a.d);
    bench_close(&b); // takes the prefetch back
}

static void a_read_that_is_done_makes_its_slot_ready(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    ASK(&b, &a, ANY_ORDER, 1);
    fake_start(&b.reader, 0);
    assert_int_equal(next_status(&b, &a), AGAIN);
    end_read(&b, 1);
    struct slot slot = next_is(&b, &a, 1);
    ARE(&b, SLOT_READY, 1);
    release(&b, &slot);
    assert_int_equal(next_status(&b, &a), DONE);
    assert_false(a.d.open);
    assert_int_equal(next_status(&b, &a), DONE);
    ARE(&b, SLOT_READY, 1); // resident from now on
    bench_close(&b);
}

static void ready_slots_are_evicted_oldest_demand_first(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 3, 1);
    FILL(&b, 7, 5, 9);
    FILL(&b, 7); // used again: 5 is the oldest
    ASK(&b, &a, ANY_ORDER, 1);
    ARE(&b, SLOT_EMPTY, 5);
    ARE(&b, SLOT_READY, 7, 9);
    finish(&b, &a);
    ASK(&b, &a, ANY_ORDER, 2);
    ARE(&b, SLOT_EMPTY, 9);
    finish(&b, &a);
    bench_close(&b);
}

static void within_a_demand_the_lowest_expert_is_the_oldest(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    FILL(&b, 2, 4);
    ASK(&b, &a, ANY_ORDER, 1, 2, 3, 4); // 2 and 4 are handed out first, 3 is read before 1
    use(&b, &a, 2);
    use(&b, &a, 4);
    end_read(&b, 3);
    use(&b, &a, 3);
    finish(&b, &a);
    FILL(&b, 11);
    ARE(&b, SLOT_EMPTY, 1);
    FILL(&b, 12);
    ARE(&b, SLOT_EMPTY, 2);
    FILL(&b, 13);
    ARE(&b, SLOT_EMPTY, 3);
    ARE(&b, SLOT_READY, 4);
    bench_close(&b);
}

static void a_failed_read_empties_its_slot_and_is_told(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    struct slot slot;
    struct err err = { 0 };
    bench_open(&b, 4, 1);
    ASK(&b, &a, ANY_ORDER, 1, 2);
    READS(&b, 1, 2);
    fail_read(&b, 2, ERR_IO);
    assert_int_equal(slots_next(&a.d, &slot, &err), ERR_IO);
    assert_string_equal(err.text, "imaginary shard: cannot read at 16384");
    slots_check(b.s);
    ARE(&b, SLOT_EMPTY, 2);
    NO_READS(&b); // whether to go on is the caller's decision
    assert_true(a.d.open);
    assert_int_equal(next_status(&b, &a), AGAIN); // told once; asking again retries
    READS(&b, 2);
    end_read(&b, 2);
    use(&b, &a, 2);
    finish(&b, &a);
    bench_close(&b);
}

static void after_an_error_nothing_more_is_read_until_asked_again(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 2, 1);
    ASK(&b, &a, IN_ORDER, 1, 2, 3, 4);
    READS(&b, 1, 2);
    fail_read(&b, 1, ERR_IO);
    assert_int_equal(next_status(&b, &a), ERR_IO);
    NO_READS(&b); // neither 1 again, nor 3 in its place
    assert_int_equal(next_status(&b, &a), AGAIN);
    READS(&b, 1);
    finish(&b, &a);
    READS(&b, 3, 4);
    bench_close(&b);
}

static void a_queued_load_is_cancelled_and_empties_its_slot(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b, 4, 1);
    assert_true(slots_prefetch(b.s, 1));
    assert_true(slots_prefetch(b.s, 2));
    fake_start(&b.reader, 1);
    slots_prefetch_cancel(b.s, 1);
    slots_prefetch_cancel(b.s, 2);
    slots_prefetch_cancel(b.s, 3); // not there: fine
    assert_true(slots_prefetch(b.s, 4));
    slots_check(b.s);
    ARE(&b, SLOT_EMPTY, 1);
    ARE(&b, SLOT_LOADING, 2); // it was at the device already
    end_read(&b, 2);
    end_read(&b, 4);
    assert_true(slots_prefetch(b.s, 2));
    ARE(&b, SLOT_READY, 2, 4);
    slots_prefetch_cancel(b.s, 2); // too late: fine
    ARE(&b, SLOT_READY, 2);
    bench_close(&b);
}

/* --- holds ---------------------------------------------------------------------------------- */

static void a_held_or_loading_slot_is_never_evicted(void **state) {
    (void)state;
    struct bench b;
    struct asked a, other;
    bench_open(&b, 2, 2);
    FILL(&b, 1);
    ASK(&b, &a, ANY_ORDER, 1, 2);
    struct slot held = next_is(&b, &a, 1);
    fake_start(&b.reader, 0);
    ASK(&b, &other, ANY_ORDER, 3);
    assert_int_equal(next_status(&b, &other), AGAIN);
    assert_false(slots_prefetch(b.s, 4));
    ARE(&b, SLOT_READY, 1);
    ARE(&b, SLOT_LOADING, 2);
    READS(&b, 2);
    release(&b, &held);
    READS(&b, 3);
    finish(&b, &other);
    finish(&b, &a);
    bench_close(&b);
}

static void a_hold_ends_at_its_event(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 2, 1);
    FILL(&b, 1, 2);
    ASK(&b, &a, IN_ORDER, 1, 2, 3, 4);
    struct slot one = next_is(&b, &a, 1);
    slots_release(b.s, &one, op_queued(&b));
    struct slot two = next_is(&b, &a, 2);
    slots_release(b.s, &two, op_queued(&b));
    assert_int_equal(next_status(&b, &a), AGAIN);
    NO_READS(&b);
    carries_its_expert(&one);
    struct event event = slots_event(b.s); // no read is under way: it is the op that is awaited
    assert_false(event_ready(event));
    op_done(&b);
    assert_true(event_ready(event));
    assert_int_equal(next_status(&b, &a), AGAIN);
    READS(&b, 3);
    ARE(&b, SLOT_READY, 2);
    op_done(&b);
    finish(&b, &a);
    bench_close(&b);
}

static void of_several_holds_all_have_to_end(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y, z;
    bench_open(&b, 2, 2);
    FILL(&b, 1, 2);
    struct event_source *card = event_source_new(NULL);
    ASK(&b, &x, ANY_ORDER, 1);
    ASK(&b, &y, ANY_ORDER, 1);
    struct slot for_x = next_is(&b, &x, 1), for_y = next_is(&b, &y, 1);
    assert_int_equal(for_x.index, for_y.index);
    slots_release(b.s, &for_x, op_queued(&b));
    slots_release(b.s, &for_y, (struct event){ card, 1 });
    finish(&b, &x);
    finish(&b, &y);
    FILL(&b, 2); // 1 is the oldest
    ASK(&b, &z, ANY_ORDER, 3);
    NO_READS(&b);
    op_done(&b);
    assert_int_equal(next_status(&b, &z), AGAIN);
    NO_READS(&b);
    event_source_advance(card, 1);
    assert_int_equal(next_status(&b, &z), AGAIN);
    READS(&b, 3);
    ARE(&b, SLOT_EMPTY, 1);
    finish(&b, &z);
    bench_close(&b);
    event_source_free(card);
}

/* --- demands -------------------------------------------------------------------------------- */

static void holds_may_be_released_in_any_order_of_their_events(void **state) {
    (void)state;
    struct bench b;
    struct asked x, y, z;
    bench_open(&b, 2, 3);
    FILL(&b, 1, 2);
    ASK(&b, &x, ANY_ORDER, 1);
    ASK(&b, &y, ANY_ORDER, 1);
    struct slot for_x = next_is(&b, &x, 1), for_y = next_is(&b, &y, 1);
    struct event first = op_queued(&b), second = op_queued(&b);
    slots_release(b.s, &for_y, second);
    slots_release(b.s, &for_x, first);
    finish(&b, &x);
    finish(&b, &y);
    FILL(&b, 2);
    ASK(&b, &z, ANY_ORDER, 3);
    op_done(&b);
    assert_int_equal(next_status(&b, &z), AGAIN);
    NO_READS(&b);
    op_done(&b);
    finish(&b, &z);
    READS(&b, 3);
    bench_close(&b);
}

static void a_demand_does_not_block_and_holds_nothing(void **state) {
    (void)state;
    struct bench b;
    struct asked a, other;
    bench_open(&b, 2, 2);
    FILL(&b, 1, 2);
    ASK(&b, &a, ANY_ORDER, 1, 2);
    slots_abandon(&a.d);
    slots_abandon(&a.d); // closed: fine
    ASK(&b, &other, ANY_ORDER, 3, 4);
    READS(&b, 3, 4); // both were free to go
    finish(&b, &other);
    bench_close(&b);
}

static void an_empty_demand_is_done_at_once(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 2, 1);
    assert_int_equal(slots_demand(b.s, NULL, 0, IN_ORDER, NULL, &a.d, NULL), OK);
    assert_int_equal(next_status(&b, &a), DONE);
    bench_close(&b);
}

static void all_misses_are_queued_at_once_ascending(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 6, 1);
    FILL(&b, 3, 30, 31, 5, 32, 33); // 3 and 5 are old, but wanted: the others go
    ASK(&b, &a, ANY_ORDER, 1, 3, 4, 5, 8, 9);
    READS(&b, 1, 4, 8, 9);
    ARE(&b, SLOT_EMPTY, 30, 31, 32, 33);
    finish(&b, &a);
    NO_READS(&b);
    bench_close(&b);
}

static void more_misses_than_slots_are_read_in_waves(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 3, 1);
    ASK(&b, &a, ANY_ORDER, 1, 2, 3, 4, 5, 6);
    READS(&b, 1, 2, 3);
    end_read(&b, 1);
    struct slot slot = next_is(&b, &a, 1);
    NO_READS(&b);
    release(&b, &slot);
    READS(&b, 4);
    finish(&b, &a);
    READS(&b, 5, 6);
    bench_close(&b);
}

static void any_order_hands_out_residents_first_then_what_has_arrived(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 8, 1);
    FILL(&b, 9, 4);
    ASK(&b, &a, ANY_ORDER, 1, 2, 4, 7, 9);
    end_read(&b, 1); // arrived before anybody asked
    use(&b, &a, 4);
    use(&b, &a, 9);
    use(&b, &a, 1);
    end_read(&b, 7);
    use(&b, &a, 7);
    assert_int_equal(next_status(&b, &a), AGAIN);
    end_read(&b, 2);
    use(&b, &a, 2);
    assert_int_equal(next_status(&b, &a), DONE);
    bench_close(&b);
}

static void in_order_is_strictly_ascending(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 8, 1);
    FILL(&b, 4, 2);
    ASK(&b, &a, IN_ORDER, 1, 2, 3, 4);
    READS(&b, 1, 3);
    assert_int_equal(next_status(&b, &a), AGAIN);
    end_read(&b, 3);
    assert_int_equal(next_status(&b, &a), AGAIN);
    end_read(&b, 1);
    for (uint32_t expert = 1; expert <= 4; expert++)
        use(&b, &a, expert);
    assert_int_equal(next_status(&b, &a), DONE);
    bench_close(&b);
}

static void in_order_reads_run_ahead_by_the_free_slots(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 4, 1);
    ASK(&b, &a, IN_ORDER, 0, 1, 2, 3, 4, 5, 6, 7);
    READS(&b, 0, 1, 2, 3);
    for (uint32_t expert = 0; expert < 4; expert++) {
        end_read(&b, expert);
        use(&b, &a, expert);
        READS(&b, expert + 4);
    }
    finish(&b, &a);
    bench_close(&b);
}

static void a_resident_further_along_is_kept_while_another_slot_will_do(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 3, 1);
    FILL(&b, 8, 30, 31); // 8 is the oldest, and wanted
    ASK(&b, &a, IN_ORDER, 1, 2, 3, 8);
    READS(&b, 1, 2);
    finish(&b, &a);
    READS(&b, 3);
    bench_close(&b);
}

static void a_resident_further_along_yields_where_nothing_else_is_left(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    struct slots_stats stats;
    bench_open(&b, 2, 1);
    FILL(&b, 8, 9);
    ASK(&b, &a, IN_ORDER, 1, 2, 8, 9);
    READS(&b, 1); // in the place of 9, which is needed last
    ARE(&b, SLOT_READY, 8);
    ARE(&b, SLOT_EMPTY, 9);
    end_read(&b, 1);
    use(&b, &a, 1);
    READS(&b, 2);
    ARE(&b, SLOT_READY, 8);
    end_read(&b, 2);
    use(&b, &a, 2);
    READS(&b, 9);
    use(&b, &a, 8);
    finish(&b, &a);
    NO_READS(&b);
    slots_stats(b.s, &stats);
    assert_int_equal(stats.demanded, 2 + 4);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 2 + 3);
    bench_close(&b);
}

static void any_order_evicts_no_resident_before_its_turn(void **state) {
    (void)state;
    struct bench b;
    struct asked a;
    bench_open(&b, 2, 1);
    FILL(&b, 8, 9);
    ASK(&b, &a, ANY_ORDER, 1, 2, 8, 9);
    NO_READS(&b); // 8 and 9 are handed out first
    use(&b, &a, 8);
    READS(&b, 1);
    use(&b, &a, 9);
    READS(&b, 2);
    finish(&b, &a);
    NO_READS(&b);
    bench_close(&b);
}

/* --- two slots ------------------------------------------------------------------------------ */

/* Whatever is resident, in both orders, the reads ending first or last come first; the caller keeps
 * one slot while it asks for the next, or none. */
static void two_slots_suffice_for_any_number_of_experts(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= 40; n++)
        for (int way = 0; way < 8; way++) {
            struct bench b;
            struct asked a;
            uint32_t all[40], n_handed = 0;
            bool keeps = way & 2;
            bench_open(&b, 2, 1);
            FILL(&b, 63, n / 2);
            for (uint32_t i = 0; i < n; i++)
                all[i] = i;
            ask(&b, &a, way & 1 ? ANY_ORDER : IN_ORDER, all, n);
            struct slot slot, kept = { 0 };
            for (enum status status; (status = slots_next(&a.d, &slot, NULL)) != DONE;) {
                slots_check(b.s);
                if (status == AGAIN) {
                    assert_true(b.reader.n_in_flight > 0);
                    fake_end(&b.reader, way & 4 ? b.reader.n_in_flight - 1 : 0);
                    continue;
                }
                assert_int_equal(status, OK);
                if (keeps && n_handed)
                    release(&b, &kept);
                kept = slot;
                n_handed++;
                if (!keeps)
                    release(&b, &kept);
            }
            if (keeps)
                release(&b, &kept);
            assert_int_equal(n_handed, n);
            bench_close(&b);
        }
}

/* Each step asks for its next while the other has what it was given in the two slots. */
static void two_slots_suffice_for_several_demands(void **state) {
    (void)state;
    struct bench b;
    struct asked a[3];
    bench_open(&b, 2, 3);
    ASK(&b, &a[0], IN_ORDER, 1, 2, 3, 4, 5);
    ASK(&b, &a[1], ANY_ORDER, 1, 5, 6, 7);
    ASK(&b, &a[2], IN_ORDER, 2, 3, 8, 9);
    uint32_t n_handed = 0;
    for (uint32_t n_open = 3, turn = 0, idle = 0; n_open; turn++) {
        struct asked *one = &a[turn % 3];
        struct slot slot;
        bool was_open = one->d.open;
        enum status status = slots_next(&one->d, &slot, NULL);
        slots_check(b.s);
        idle = status == AGAIN ? idle + 1 : 0;
        if (status == OK) {
            n_handed++;
            release(&b, &slot);
        } else if (status == DONE && was_open) {
            n_open--;
        } else if (idle && b.reader.n_in_flight) {
            fake_end(&b.reader, b.reader.n_in_flight - 1);
        }
        assert_true(idle < 10);
    }
    assert_int_equal(n_handed, 5 + 4 + 4);
    bench_close(&b);
}

int main(void) {
#define TEST(f) cmocka_unit_test(f)
    const struct CMUnitTest tests[] = {
        TEST(options_that_cannot_be_are_refused),
        TEST(a_demand_that_cannot_be_is_refused),
        TEST(a_demand_or_a_prefetch_makes_an_empty_slot_loading),
        TEST(a_read_that_is_done_makes_its_slot_ready),
        TEST(ready_slots_are_evicted_oldest_demand_first),
        TEST(within_a_demand_the_lowest_expert_is_the_oldest),
        TEST(a_failed_read_empties_its_slot_and_is_told),
        TEST(after_an_error_nothing_more_is_read_until_asked_again),
        TEST(a_queued_load_is_cancelled_and_empties_its_slot),
        TEST(a_held_or_loading_slot_is_never_evicted),
        TEST(a_hold_ends_at_its_event),
        TEST(of_several_holds_all_have_to_end),
        TEST(holds_may_be_released_in_any_order_of_their_events),
        TEST(a_demand_does_not_block_and_holds_nothing),
        TEST(an_empty_demand_is_done_at_once),
        TEST(all_misses_are_queued_at_once_ascending),
        TEST(more_misses_than_slots_are_read_in_waves),
        TEST(any_order_hands_out_residents_first_then_what_has_arrived),
        TEST(in_order_is_strictly_ascending),
        TEST(in_order_reads_run_ahead_by_the_free_slots),
        TEST(a_resident_further_along_is_kept_while_another_slot_will_do),
        TEST(a_resident_further_along_yields_where_nothing_else_is_left),
        TEST(any_order_evicts_no_resident_before_its_turn),
        TEST(two_slots_suffice_for_any_number_of_experts),
        TEST(two_slots_suffice_for_several_demands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
