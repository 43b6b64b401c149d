// Requests with priorities, each of which ends exactly once: over every kind of disk.
#include "tests/io/reader_world.h"

#define N_ORDERS 40

// Runs `body` for every engine that is here, direct and buffered where that makes a difference.
static void over_every_disk(void (*body)(struct setup)) {
    for (int engine = 0; engine < ENGINES; engine++) {
        if (!engine_is_here((enum engine)engine)) {
            print_message("not over %s: not to be had here\n", engine_name((enum engine)engine));
            continue;
        }
        body((struct setup){ .engine = (enum engine)engine, .mode = IO_AUTO });
        if (engine == URING || engine == PREAD)
            body((struct setup){ .engine = (enum engine)engine, .mode = IO_BUFFERED });
    }
}

// --- bytes ---------------------------------------------------------------------------------------

static void read_every_offset(struct setup s) {
    enum { AT_ONCE = 32 };
    struct world w;
    world_open(&w, s);
    static struct order orders[AT_ONCE];
    const uint64_t lengths[] = { 1, 700, READER_ALIGN, 2 * CHUNK_BYTES + 3 };
    uint32_t n = 0;
    uint64_t step = s.engine == NULL_DISK ? 1 : 61; // 61: coprime, so that all phases are met
    for (uint64_t offset = 0; offset <= READER_ALIGN; offset += step) {
        order_one(&orders[n], READ_DEMAND, (uint32_t)(offset % 2), 5 * READER_ALIGN + offset,
                  lengths[offset / step % 4]);
        reader_submit(w.reader, &orders[n++].request);
        if (n < AT_ONCE && offset + step <= READER_ALIGN)
            continue;
        for (uint32_t i = 0; i < n; i++) {
            struct request *q = wait_next(w.reader);
            assert_int_equal(q->status, OK);
            assert_true(order_filled(q->owner));
        }
        for (uint32_t i = 0; i < n; i++)
            order_free(&orders[i]);
        n = 0;
    }
    assert_null(reader_next(w.reader));
    world_close(&w);
}

static void extents_at_any_offset_arrive_whole(void **state) {
    (void)state;
    over_every_disk(read_every_offset);
}

static void read_the_end(struct setup s) {
    struct world w;
    world_open(&w, s);
    for (uint64_t bytes = 1; bytes < 2 * CHUNK_BYTES; bytes += 997) {
        struct order o;
        order_one(&o, READ_GATHER, 1, FILE_BYTES - bytes, bytes);
        reader_submit(w.reader, &o.request);
        assert_ptr_equal(wait_next(w.reader), &o.request);
        assert_int_equal(o.request.status, OK);
        assert_true(order_filled(&o));
        order_free(&o);
    }
    world_close(&w);
}

static void file_may_end_inside_a_block(void **state) {
    (void)state;
    over_every_disk(read_the_end);
}

static void read_an_expert(struct setup s) {
    struct world w;
    world_open(&w, s);
    // Six tensors: two that touch, one in the next block, one far away, two in the other file.
    const struct extent extents[] = {
        { 0, 5001, 60000 },   { 0, 65001, 999 }, { 0, 70000, 5 },
        { 0, 900007, 50001 }, { 1, 3, 1 },       { 1, 800000, 200000 }
    };
    struct order o;
    order_make(&o, READ_DEMAND, extents, 6);
    assert_int_equal(o.layout.n_reads, 4);
    reader_submit(w.reader, &o.request);
    assert_ptr_equal(wait_next(w.reader), &o.request);
    assert_int_equal(o.request.status, OK);
    assert_true(order_filled(&o));
    for (uint64_t at = o.layout.bytes; at < o.layout.bytes + READER_ALIGN; at++)
        assert_int_equal(o.memory[at], GARBAGE); // and not a byte behind it
    struct reader_stats stats;
    reader_stats(w.reader, &stats);
    assert_int_equal(stats.bytes[READ_DEMAND], o.layout.bytes); // nothing was read twice
    assert_int_equal(stats.requests[READ_DEMAND], 1);
    assert_int_equal(stats.retries + stats.short_reads + stats.failed + stats.cancelled, 0);
    order_free(&o);
    world_close(&w);
}

static void expert_of_six_extents_is_one_request(void **state) {
    (void)state;
    over_every_disk(read_an_expert);
}

static void read_past_the_end(struct setup s) {
    if (s.engine != URING && s.engine != PREAD)
        return; // files without end
    struct world w;
    world_open(&w, s);
    for (uint64_t missing = 1; missing < 3 * CHUNK_BYTES; missing += 2777) {
        struct order o;
        order_one(&o, READ_DEMAND, 1, FILE_BYTES - 9000, 9000 + missing);
        reader_submit(w.reader, &o.request);
        assert_ptr_equal(wait_next(w.reader), &o.request);
        assert_int_equal(o.request.status, ERR_TRUNCATED);
        struct err err = { .status = OK };
        assert_int_equal(request_error(w.reader, &o.request, &err), ERR_TRUNCATED);
        assert_non_null(strstr(err.text, w.path[1]));
        assert_true(o.request.failed_offset >= FILE_BYTES); // no byte that is there is missed
        order_free(&o);
    }
    world_close(&w);
}

static void missing_byte_is_an_error(void **state) {
    (void)state;
    over_every_disk(read_past_the_end);
}

static void cut_and_read(struct setup s) {
    if (s.engine != URING && s.engine != PREAD)
        return;
    struct world w;
    world_open(&w, s);
    struct order o;
    order_one(&o, READ_DEMAND, 0, 100, 900000);
    reader_submit(w.reader, &o.request);
    assert_int_equal(wait_next(w.reader)->status, OK);
    assert_int_equal(truncate(w.path[0], 500000), 0);
    reader_submit(w.reader, &o.request);
    assert_ptr_equal(wait_next(w.reader), &o.request);
    assert_int_equal(o.request.status, ERR_TRUNCATED);
    struct err err = { .status = OK };
    request_error(w.reader, &o.request, &err);
    char where[600]; // the place that is missing first depends on which chunk came back first
    snprintf(where, sizeof where, "%s: the file ends at byte ", w.path[0]);
    assert_non_null(strstr(err.text, where));
    assert_true(o.request.failed_offset >= 500000 && o.request.failed_offset < 900100);
    write_file(w.path[0], 0, FILE_BYTES); // the same file, whole again
    reader_submit(w.reader, &o.request);
    assert_int_equal(wait_next(w.reader)->status, OK);
    assert_true(order_filled(&o));
    order_free(&o);
    world_close(&w);
}

static void file_truncated_while_open_is_an_error_then_recovers(void **state) {
    (void)state;
    over_every_disk(cut_and_read);
}

// --- ends ----------------------------------------------------------------------------------------

// Submits, promotes and cancels by chance, and counts the ends of each.
static void live_through_chance(struct setup s, uint64_t seed, bool faults) {
    struct world w;
    world_open(&w, s);
    static struct order orders[N_ORDERS];
    bool out[N_ORDERS] = { false }, cancelled[N_ORDERS] = { false };
    uint64_t n_submitted = 0, n_ended = 0, n_bytes = 0, n_by_status[ERR_SYSTEM + 1] = { 0 };
    for (int step = 0; step < 1500 || n_ended < n_submitted; step++) {
        uint32_t i = (uint32_t)random_below(&seed, N_ORDERS);
        uint32_t what = (uint32_t)random_below(&seed, 8);
        if (what < 4 && !out[i] && step < 1500) {
            struct extent extents[REQUEST_MAX_READS];
            uint32_t n = (uint32_t)random_below(&seed, REQUEST_MAX_READS + 1);
            any_extents(&seed, extents, n, 30000);
            order_make(&orders[i], (enum read_priority)random_below(&seed, READ_PRIORITIES),
                       extents, n);
            reader_submit(w.reader, &orders[i].request);
            out[i] = true;
            cancelled[i] = false;
            n_submitted++;
        } else if (what == 4 && out[i]) {
            reader_promote(w.reader, &orders[i].request,
                           (enum read_priority)random_below(&seed, READ_PRIORITIES));
        } else if (what == 5 && out[i] && random_below(&seed, 3) == 0) {
            reader_cancel(w.reader, &orders[i].request);
            cancelled[i] = true;
        } else if (what == 6 && random_below(&seed, 4) == 0) {
            event_wait(reader_event(w.reader), 2000000);
        }
        reader_check(w.reader);
        for (struct request *q; (q = reader_next(w.reader)); n_ended++) {
            struct order *o = q->owner;
            assert_true(q == &o->request && out[o - orders]);
            assert_int_equal(q->state, REQUEST_ENDED);
            assert_true(q->status != CANCELLED || cancelled[o - orders]);
            assert_true(q->status == OK || q->status == CANCELLED || faults);
            assert_true(q->status != OK || order_filled(o));
            n_by_status[q->status]++;
            n_bytes += q->bytes_read;
            out[o - orders] = false;
            order_free(o);
        }
    }
    struct reader_stats stats;
    reader_stats(w.reader, &stats);
    uint64_t n_ok = 0, n_read = 0;
    for (int p = 0; p < READ_PRIORITIES; p++) {
        n_ok += stats.requests[p];
        n_read += stats.bytes[p];
    }
    assert_int_equal(n_ended, n_submitted);
    assert_int_equal(n_ok, n_by_status[OK]);
    assert_int_equal(stats.cancelled, n_by_status[CANCELLED]);
    assert_int_equal(stats.failed, n_by_status[ERR_IO] + n_by_status[ERR_TRUNCATED]);
    assert_int_equal(n_read, n_bytes);
    assert_true(n_by_status[OK] > 0);
    assert_true(s.engine == NULL_DISK || n_by_status[CANCELLED] > 0); // that one is never busy
    world_close(&w);
}

static void live_through_chance_well(struct setup s) {
    live_through_chance(s, 1, false);
}

static void every_request_ends_exactly_once(void **state) {
    (void)state;
    over_every_disk(live_through_chance_well);
}

static void live_through_chance_badly(struct setup s) {
    struct disk_faulty_options faults = {
        .seed = 11,
        .per_1000 = { [FAULT_EIO] = 40,
                      [FAULT_EINTR] = 60,
                      [FAULT_EAGAIN] = 30,
                      [FAULT_SHORT] = 100,
                      [FAULT_ZERO] = 5 },
    };
    s.faults = &faults;
    live_through_chance(s, 2, true);
}

static void every_request_ends_exactly_once_over_a_faulty_disk(void **state) {
    (void)state;
    over_every_disk(live_through_chance_badly);
}

static void leave_in_the_middle(struct setup s) {
    for (uint32_t n = 0; n < N_ORDERS; n += 13) {
        struct world w;
        world_open(&w, s);
        static struct order orders[N_ORDERS];
        for (uint32_t i = 0; i < n; i++) {
            order_one(&orders[i], (enum read_priority)(i % READ_PRIORITIES), i % 2, 77, 500000);
            reader_submit(w.reader, &orders[i].request);
        }
        world_close(&w); // before anybody has asked for one of them
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(orders[i].request.state, REQUEST_ENDED);
            assert_true(orders[i].request.status == CANCELLED ||
                        (orders[i].request.status == OK && order_filled(&orders[i])));
            order_free(&orders[i]);
        }
    }
}

static void close_ends_what_is_queued_and_waits_for_the_rest(void **state) {
    (void)state;
    over_every_disk(leave_in_the_middle);
}

static void submit_nothing(struct setup s) {
    struct world w;
    world_open(&w, s);
    struct request nothing = { .n_reads = 0, .priority = READ_BACKGROUND };
    for (int i = 0; i < 3; i++) {
        reader_submit(w.reader, &nothing);
        assert_ptr_equal(wait_next(w.reader), &nothing);
        assert_int_equal(nothing.status, OK);
    }
    world_close(&w);
}

static void empty_request_ends_too(void **state) {
    (void)state;
    over_every_disk(submit_nothing);
}

static void look_at_events(struct setup s) {
    struct world w;
    world_open(&w, s);
    assert_false(event_ready(reader_event(w.reader)));
    assert_false(event_wait(reader_event(w.reader), 1000));
    assert_null(reader_next(w.reader));
    struct order o[3];
    for (int i = 0; i < 3; i++) {
        order_one(&o[i], READ_DEMAND, 0, 10, 50000);
        reader_submit(w.reader, &o[i].request);
    }
    for (int i = 0; i < 3; i++) {
        while (!event_wait(reader_event(w.reader), 1000000))
            ;
        assert_true(event_ready(reader_event(w.reader)));
        assert_non_null(reader_next(w.reader)); // ready means that there is one
    }
    assert_false(event_ready(reader_event(w.reader)));
    assert_null(reader_next(w.reader));
    for (int i = 0; i < 3; i++)
        order_free(&o[i]);
    world_close(&w);
}

static void event_is_ready_when_a_request_can_be_had(void **state) {
    (void)state;
    over_every_disk(look_at_events);
}

// --- priorities, with the device held up by a chunk that stalls ----------------------------------

static const struct disk_faulty_options first_stalls = {
    .n_rules = 1, .rules = { { .fault = FAULT_STALL, .nth = 1, .times = 1 } }
};

// One chunk at a time, and the first does not come back until it is released.
static void hold_up(struct world *w, struct setup s, struct order *first) {
    s.faults = &first_stalls;
    s.depth = 1;
    world_open(w, s);
    order_one(first, READ_BACKGROUND, 0, 0, 10);
    reader_submit(w->reader, &first->request);
    while (disk_faulty_submitted(w->faulty) == 0)
        event_wait(reader_event(w->reader), 100000);
}

static void serve_in_order(struct setup s) {
    struct world w;
    struct order first, o[8];
    hold_up(&w, s, &first);
    const enum read_priority priorities[] = { READ_BACKGROUND, READ_PREFETCH,  READ_PREFETCH,
                                              READ_GATHER,     READ_DEMAND,    READ_DEMAND,
                                              READ_GATHER,     READ_BACKGROUND };
    const int served[] = { 4, 5, 2, 3, 6, 1, 0, 7 }; // 2 is promoted to a demand
    for (int i = 0; i < 8; i++) {
        order_one(&o[i], priorities[i], 1, (uint64_t)i * 50000, 40000);
        reader_submit(w.reader, &o[i].request);
    }
    reader_promote(w.reader, &o[2].request, READ_DEMAND);
    disk_faulty_release(w.faulty);
    assert_ptr_equal(wait_next(w.reader), &first.request);
    for (int i = 0; i < 8; i++)
        assert_ptr_equal(wait_next(w.reader), &o[served[i]].request);
    for (int i = 0; i < 8; i++) {
        assert_true(order_filled(&o[i]));
        order_free(&o[i]);
    }
    order_free(&first);
    world_close(&w);
}

static void priorities_are_strict_and_equals_are_served_in_turn(void **state) {
    (void)state;
    over_every_disk(serve_in_order);
}

// A prefetch stands at the device and another one leaves room behind it. Promoted, it goes at once.
static void promote_past_a_prefetch(struct setup s) {
    struct world w;
    struct order first, second;
    s.faults = &first_stalls;
    world_open(&w, s);
    order_one(&first, READ_PREFETCH, 0, 0, CHUNK_BYTES);
    order_one(&second, READ_PREFETCH, 1, 0, CHUNK_BYTES);
    reader_submit(w.reader, &first.request);
    reader_submit(w.reader, &second.request);
    for (int i = 0; i < 5; i++) {
        assert_false(event_wait(reader_event(w.reader), 1000000));
        assert_true(disk_faulty_submitted(w.faulty) <= 1);
    }
    reader_promote(w.reader, &second.request, READ_DEMAND);
    assert_ptr_equal(wait_next(w.reader), &second.request);
    assert_true(order_filled(&second));
    disk_faulty_release(w.faulty);
    assert_ptr_equal(wait_next(w.reader), &first.request);
    order_free(&first);
    order_free(&second);
    world_close(&w);
}

static void a_promoted_prefetch_goes_where_others_must_leave_room(void **state) {
    (void)state;
    over_every_disk(promote_past_a_prefetch);
}

// What has been read of a request, and what is at the device: all but the chunk that stalls.
static void look_at_progress(struct setup s) {
    struct world w;
    struct order o;
    s.faults = &first_stalls;
    world_open(&w, s);
    order_one(&o, READ_DEMAND, 0, 0, 3 * CHUNK_BYTES);
    reader_submit(w.reader, &o.request);
    struct request_progress p;
    do {
        event_wait(reader_event(w.reader), 1000000);
        p = reader_progress(w.reader, &o.request);
        assert_true(p.bytes_read + p.bytes_out <= 3 * CHUNK_BYTES);
    } while (p.bytes_read < 2 * CHUNK_BYTES);
    assert_int_equal(p.bytes_out, CHUNK_BYTES);
    disk_faulty_release(w.faulty);
    while (!event_wait(reader_event(w.reader), 1000000))
        ;
    p = reader_progress(w.reader, &o.request); // ended, not returned
    assert_int_equal(p.bytes_read, 3 * CHUNK_BYTES);
    assert_int_equal(p.bytes_out, 0);
    assert_ptr_equal(wait_next(w.reader), &o.request);
    order_free(&o);
    world_close(&w);
}

static void progress_of_a_request_can_be_seen(void **state) {
    (void)state;
    over_every_disk(look_at_progress);
}

static void cancel_some(struct setup s) {
    struct world w;
    struct order first, o[3];
    hold_up(&w, s, &first);
    for (int i = 0; i < 3; i++) {
        order_one(&o[i], READ_PREFETCH, 1, (uint64_t)i * 50000, 40000);
        reader_submit(w.reader, &o[i].request);
    }
    reader_cancel(w.reader, &first.request); // all of it is at the device: ends as it would have
    reader_cancel(w.reader, &o[1].request);
    reader_cancel(w.reader, &o[1].request);               // once more changes nothing
    assert_ptr_equal(wait_next(w.reader), &o[1].request); // while the device still stands
    assert_int_equal(o[1].request.status, CANCELLED);
    assert_int_equal(o[1].request.bytes_read, 0);
    assert_int_equal(o[1].memory[0], GARBAGE);
    struct err err = { .status = OK };
    assert_int_equal(request_error(w.reader, &o[1].request, &err), CANCELLED);
    assert_null(reader_next(w.reader));
    disk_faulty_release(w.faulty);
    struct request *rest[] = { &first.request, &o[0].request, &o[2].request };
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(wait_next(w.reader), rest[i]);
        assert_int_equal(rest[i]->status, OK);
        assert_true(order_filled(rest[i]->owner));
    }
    reader_submit(w.reader, &o[1].request); // it can be asked for again
    assert_ptr_equal(wait_next(w.reader), &o[1].request);
    assert_true(order_filled(&o[1]));
    for (int i = 0; i < 3; i++)
        order_free(&o[i]);
    order_free(&first);
    world_close(&w);
}

static void queued_request_can_be_cancelled_one_at_the_device_cannot(void **state) {
    (void)state;
    over_every_disk(cancel_some);
}

// --- time ----------------------------------------------------------------------------------------

static uint32_t count_threads(void) {
    uint32_t n = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *e; (e = readdir(tasks));)
        n += e->d_name[0] != '.';
    closedir(tasks);
    return n;
}

static void model_on_a_virtual_clock_needs_no_thread_and_no_time(void **state) {
    (void)state;
    uint64_t took[2], n_chunks[2];
    uint32_t n_threads = count_threads();
    for (int round = 0; round < 2; round++) {
        struct world w;
        world_open(&w, (struct setup){ .engine = MODEL });
        assert_int_equal(count_threads(), n_threads);
        static struct order orders[N_ORDERS];
        for (uint32_t i = 0; i < N_ORDERS; i++) {
            order_one(&orders[i], READ_DEMAND, 0, 0, 1000000);
            reader_submit(w.reader, &orders[i].request);
        }
        for (uint32_t i = 0; i < N_ORDERS; i++) {
            assert_true(event_wait(reader_event(w.reader), UINT64_MAX)); // the disk is the clock
            assert_ptr_equal(reader_next(w.reader), &orders[i].request);
        }
        struct reader_stats stats;
        reader_stats(w.reader, &stats);
        assert_int_equal(stats.busy_ns, w.clock.now);
        took[round] = w.clock.now;
        n_chunks[round] = stats.chunks;
        for (uint32_t i = 0; i < N_ORDERS; i++)
            order_free(&orders[i]);
        world_close(&w);
    }
    assert_int_equal(took[0], took[1]);
    assert_int_equal(n_chunks[0], n_chunks[1]);
    // Bound by latency: six chunks of 16 KiB in each 80 us and the link's time for one of them.
    assert_true(took[0] > n_chunks[0] / DEPTH * 80000);
    assert_true(took[0] < n_chunks[0] / DEPTH * 90000);
}

static void disk_works_on_while_the_control_thread_computes(void **state) {
    (void)state;
    struct world w;
    world_open(&w, (struct setup){ .engine = MODEL });
    struct order o[4];
    for (int i = 0; i < 4; i++) {
        order_one(&o[i], READ_DEMAND, 0, 0, 1000000);
        reader_submit(w.reader, &o[i].request);
    }
    clock_virtual_advance(&w.clock, 1000000000); // far longer than it takes to read them
    for (int i = 0; i < 4; i++) {
        assert_ptr_equal(reader_next(w.reader), &o[i].request); // without a wait
        order_free(&o[i]);
    }
    assert_int_equal(w.clock.now, 1000000000);
    struct reader_stats stats;
    reader_stats(w.reader, &stats);
    assert_true(stats.busy_ns > 1000000 && stats.busy_ns < 10000000); // not for the whole second
    world_close(&w);
}

// What is asked for now is not served in the past, nor taken back from there.
static void disk_catches_up_before_it_is_told_anything_new(void **state) {
    (void)state;
    struct world w;
    world_open(&w, (struct setup){ .engine = MODEL, .depth = 1 });
    struct order first, second, third;
    order_one(&first, READ_BACKGROUND, 0, 0, 100000);
    order_one(&second, READ_BACKGROUND, 0, 0, 100000);
    order_one(&third, READ_DEMAND, 1, 0, 10);
    reader_submit(w.reader, &first.request);
    reader_submit(w.reader, &second.request);
    clock_virtual_advance(&w.clock, 1000000000); // both are done long since
    reader_cancel(w.reader, &second.request);    // too late
    assert_ptr_equal(reader_next(w.reader), &first.request);
    assert_ptr_equal(reader_next(w.reader), &second.request);
    assert_int_equal(second.request.status, OK);

    reader_submit(w.reader, &first.request);
    reader_submit(w.reader, &second.request);
    clock_virtual_advance(&w.clock, 1000000000);
    reader_submit(w.reader, &third.request);
    assert_ptr_equal(reader_next(w.reader), &first.request);
    assert_ptr_equal(reader_next(w.reader), &second.request);
    assert_null(reader_next(w.reader)); // the third is on its way only now
    assert_ptr_equal(wait_next(w.reader), &third.request);
    assert_true(w.clock.now > 2000000000);

    reader_submit(w.reader, &first.request);
    reader_submit(w.reader, &second.request);
    third.request.priority = READ_BACKGROUND;
    reader_submit(w.reader, &third.request);
    clock_virtual_advance(&w.clock, 1000000000);
    reader_promote(w.reader, &third.request, READ_DEMAND); // too late as well
    assert_ptr_equal(reader_next(w.reader), &first.request);
    assert_ptr_equal(reader_next(w.reader), &second.request);
    assert_ptr_equal(reader_next(w.reader), &third.request);
    order_free(&first);
    order_free(&second);
    order_free(&third);
    world_close(&w);
}

static void wait_ends_in_virtual_time(void **state) {
    (void)state;
    struct world w;
    world_open(&w, (struct setup){ .engine = MODEL });
    struct order o;
    order_one(&o, READ_DEMAND, 0, 0, 1000000);
    reader_submit(w.reader, &o.request);
    assert_false(event_wait(reader_event(w.reader), 50000));
    assert_int_equal(w.clock.now, 50000);
    assert_true(event_wait(reader_event(w.reader), UINT64_MAX));
    assert_ptr_equal(reader_next(w.reader), &o.request);
    uint64_t now = w.clock.now;
    assert_false(event_wait(reader_event(w.reader), 12345)); // nothing is under way
    assert_int_equal(w.clock.now, now + 12345);
    assert_false(event_wait(reader_event(w.reader), UINT64_MAX)); // does not hang
    order_free(&o);
    world_close(&w);
}

// --- for people, and refusals --------------------------------------------------------------------

static void reader_says_how_it_works(void **state) {
    (void)state;
    struct world w;
    world_open(&w, (struct setup){ .engine = NULL_DISK, .chunk_bytes = 2 << 20, .depth = 32 });
    assert_string_equal(reader_describe(w.reader), "null disk, 32 x 2 MiB");
    assert_string_equal(reader_notes(w.reader), "");
    world_close(&w);

    world_open(&w, (struct setup){ .engine = PREAD, .mode = IO_BUFFERED });
    assert_string_equal(reader_describe(w.reader), "pread threads, page cache, 6 x 16 KiB");
    assert_string_equal(reader_notes(w.reader), ""); // asked for: nothing is lost
    world_close(&w);

    if (!engine_is_here(URING))
        return;
    world_open(&w, (struct setup){ .engine = URING, .mode = IO_AUTO });
    if (!is_direct(w.path[0])) {
        world_close(&w);
        return;
    }
    assert_string_equal(reader_describe(w.reader), "io_uring, O_DIRECT, 6 x 16 KiB");
    struct order o;
    order_one(&o, READ_DEMAND, 0, 0, 1000000);
    reader_add_memory(w.reader, o.memory, o.layout.bytes);
    struct device_limits limits;
    device_limits(&limits);
    if (limits.may_lock) {
        assert_string_equal(reader_describe(w.reader),
                            "io_uring, O_DIRECT, registered buffers, 6 x 16 KiB");
        assert_string_equal(reader_notes(w.reader), "");
    }
    reader_submit(w.reader, &o.request);
    assert_int_equal(wait_next(w.reader)->status, OK);
    assert_true(order_filled(&o));
    world_close(&w);
    order_free(&o);
}

static void options_out_of_bounds_are_refused(void **state) {
    (void)state;
    const struct reader_options bad[] = {
        { .chunk_bytes = 1000 },
        { .chunk_bytes = READER_ALIGN + 512 },
        { .chunk_bytes = 512u << 20 },
        { .depth = DISK_DEPTH_MAX + 1 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct reader *r = (struct reader *)&i;
        struct err err = { .status = OK };
        assert_int_equal(reader_open(&r, &bad[i], &err), ERR_USAGE);
        assert_null(r);
        assert_string_not_equal(err.text, "");
        assert_int_equal(reader_open(&r, &bad[i], NULL), ERR_USAGE);
    }
    reader_close(NULL);
}

static void file_that_cannot_be_added_leaves_the_others(void **state) {
    (void)state;
    struct world w;
    uint32_t file = 77;
    world_open(&w, (struct setup){ .engine = PREAD, .mode = IO_BUFFERED });
    struct err err = { .status = OK };
    assert_int_equal(reader_add_file(w.reader, "/no/such/shard", &file, &err), ERR_MISSING);
    assert_non_null(strstr(err.text, "/no/such/shard"));
    assert_int_equal(file, 77);
    assert_int_equal(reader_add_file(w.reader, w.path[1], &file, NULL), OK);
    assert_int_equal(file, 2);
    struct order o;
    order_one(&o, READ_DEMAND, 1, 5, 5000);
    reader_submit(w.reader, &o.request);
    assert_int_equal(wait_next(w.reader)->status, OK);
    assert_true(order_filled(&o));
    order_free(&o);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extents_at_any_offset_arrive_whole),
        cmocka_unit_test(file_may_end_inside_a_block),
        cmocka_unit_test(expert_of_six_extents_is_one_request),
        cmocka_unit_test(missing_byte_is_an_error),
        cmocka_unit_test(file_truncated_while_open_is_an_error_then_recovers),
        cmocka_unit_test(every_request_ends_exactly_once),
        cmocka_unit_test(every_request_ends_exactly_once_over_a_faulty_disk),
        cmocka_unit_test(close_ends_what_is_queued_and_waits_for_the_rest),
        cmocka_unit_test(empty_request_ends_too),
        cmocka_unit_test(event_is_ready_when_a_request_can_be_had),
        cmocka_unit_test(priorities_are_strict_and_equals_are_served_in_turn),
        cmocka_unit_test(a_promoted_prefetch_goes_where_others_must_leave_room),
        cmocka_unit_test(progress_of_a_request_can_be_seen),
        cmocka_unit_test(queued_request_can_be_cancelled_one_at_the_device_cannot),
        cmocka_unit_test(model_on_a_virtual_clock_needs_no_thread_and_no_time),
        cmocka_unit_test(disk_works_on_while_the_control_thread_computes),
        cmocka_unit_test(disk_catches_up_before_it_is_told_anything_new),
        cmocka_unit_test(wait_ends_in_virtual_time),
        cmocka_unit_test(reader_says_how_it_works),
        cmocka_unit_test(options_out_of_bounds_are_refused),
        cmocka_unit_test(file_that_cannot_be_added_leaves_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
