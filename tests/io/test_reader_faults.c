// Fail the n-th chunk for n = 1, 2, … until a run passes: the right error or none, nothing left out
// at the device, and a retry gives the same bytes.
#include "tests/io/reader_world.h"

static const struct extent expert[] = {
    { 0, 5001, 50000 }, { 0, 200000, 777 }, { 1, 900007, 50001 }, { 1, 3, 20000 }
};
#define N_EXTENTS 4
#define N_CHUNKS  11 /* of CHUNK_BYTES, by the arithmetic of nth_offset below */

// Where the n-th chunk of a request begins: they are cut in the order of its reads.
static bool nth_chunk(const struct request *q, uint64_t n, uint32_t *file, uint64_t *offset) {
    for (uint32_t i = 0; i < q->n_reads; i++)
        for (uint64_t at = 0; at < q->reads[i].bytes; at += CHUNK_BYTES)
            if (--n == 0) {
                *file = q->reads[i].file;
                *offset = q->reads[i].offset + at;
                return true;
            }
    return false;
}

// Runs `body` for every engine, with one rule that strikes the n-th chunk, n = 1, 2, … It returns
// true when the rule came too late to strike.
static void fail_every_chunk(bool (*body)(struct world *, struct order *, uint64_t nth),
                             struct fault_rule rule) {
    for (int engine = 0; engine < ENGINES; engine++) {
        bool passed = !engine_is_here((enum engine)engine);
        uint64_t n = 0;
        while (!passed) {
            rule.nth = ++n;
            struct disk_faulty_options faults = { .n_rules = 1, .rules = { rule } };
            struct world w;
            struct order o;
            world_open(&w, (struct setup){ .engine = (enum engine)engine, .faults = &faults });
            order_make(&o, READ_DEMAND, expert, N_EXTENTS);
            reader_submit(w.reader, &o.request);
            assert_ptr_equal(wait_next(w.reader), &o.request);
            passed = body(&w, &o, n);
            assert_null(reader_next(w.reader));
            order_free(&o);
            world_close(&w);
        }
        assert_true(n == 0 || n == N_CHUNKS + 1);
    }
}

static struct reader_stats stats_of(struct world *w) {
    struct reader_stats stats;
    reader_stats(w->reader, &stats);
    return stats;
}

static bool is_untouched(struct world *w, const struct order *o, uint64_t nth) {
    uint32_t file;
    uint64_t offset;
    if (nth_chunk(&o->request, nth, &file, &offset))
        return false;
    assert_int_equal(o->request.status, OK);
    assert_true(order_filled(o));
    assert_int_equal(stats_of(w).chunks, N_CHUNKS);
    return true;
}

// Asks again for what has failed.
static void expect_recovery(struct world *w, struct order *o) {
    memset(o->memory, GARBAGE, o->layout.bytes);
    reader_submit(w->reader, &o->request);
    assert_ptr_equal(wait_next(w->reader), &o->request);
    assert_int_equal(o->request.status, OK);
    assert_true(order_filled(o));
}

static void expect_failure(struct world *w, const struct order *o, uint64_t nth, enum status status,
                           const char *reason) {
    uint32_t file = 0;
    uint64_t offset = 0;
    assert_true(nth_chunk(&o->request, nth, &file, &offset));
    assert_int_equal(o->request.status, status);
    assert_int_equal(o->request.failed_file, file);
    assert_int_equal(o->request.failed_offset, offset);
    struct err err = { .status = OK };
    char at[64];
    snprintf(at, sizeof at, "at byte %" PRIu64, offset);
    assert_int_equal(request_error(w->reader, &o->request, &err), status);
    assert_int_equal(err.status, status);
    assert_ptr_equal(strstr(err.text, w->path[file]), err.text);
    assert_non_null(strstr(err.text, at));
    assert_non_null(strstr(err.text, reason));
}

static bool survives(struct world *w, struct order *o, uint64_t nth) {
    if (is_untouched(w, o, nth))
        return true;
    assert_int_equal(o->request.status, OK);
    assert_true(order_filled(o));
    assert_int_equal(stats_of(w).chunks, N_CHUNKS + 1);
    expect_recovery(w, o);
    return false;
}

static bool resumes(struct world *w, struct order *o, uint64_t nth) {
    // A chunk that needs no more than what arrived is none the worse
    assert_int_equal(o->request.status, OK);
    assert_true(order_filled(o));
    bool short_one = stats_of(w).short_reads > 0;
    assert_int_equal(stats_of(w).chunks, N_CHUNKS + short_one);
    expect_recovery(w, o);
    return nth > N_CHUNKS;
}

static bool reports_io_error(struct world *w, struct order *o, uint64_t nth) {
    if (is_untouched(w, o, nth))
        return true;
    expect_failure(w, o, nth, ERR_IO, "Input/output error");
    assert_int_equal(o->request.failed_errno, EIO);
    assert_int_equal(stats_of(w).failed, 1);
    assert_int_equal(stats_of(w).retries, 1);
    expect_recovery(w, o);
    return false;
}

static bool reports_io_error_every_time(struct world *w, struct order *o, uint64_t nth) {
    if (is_untouched(w, o, nth))
        return true;
    for (int i = 0; i < 3; i++) {
        expect_failure(w, o, nth, ERR_IO, "Input/output error");
        reader_submit(w->reader, &o->request);
        assert_ptr_equal(wait_next(w->reader), &o->request);
    }
    expect_failure(w, o, nth, ERR_IO, "Input/output error");
    return false;
}

static bool reports_truncation(struct world *w, struct order *o, uint64_t nth) {
    if (is_untouched(w, o, nth))
        return true;
    expect_failure(w, o, nth, ERR_TRUNCATED, "the file ends");
    assert_int_equal(o->request.failed_errno, 0);
    expect_recovery(w, o);
    return false;
}

static void one_io_error_is_survived(void **state) {
    (void)state;
    fail_every_chunk(survives, (struct fault_rule){ .fault = FAULT_EIO, .times = 1 });
}

static void two_io_errors_are_reported_with_file_and_offset(void **state) {
    (void)state;
    fail_every_chunk(reports_io_error, (struct fault_rule){ .fault = FAULT_EIO, .times = 2 });
}

static void broken_block_is_reported_every_time(void **state) {
    (void)state;
    fail_every_chunk(reports_io_error_every_time,
                     (struct fault_rule){ .fault = FAULT_EIO, .times = UINT32_MAX });
}

static void interruption_and_shortage_are_survived(void **state) {
    (void)state;
    fail_every_chunk(survives, (struct fault_rule){ .fault = FAULT_EINTR, .times = 1 });
    fail_every_chunk(survives, (struct fault_rule){ .fault = FAULT_EAGAIN, .times = 1 });
}

static void no_bytes_are_a_truncated_file(void **state) {
    (void)state;
    fail_every_chunk(reports_truncation, (struct fault_rule){ .fault = FAULT_ZERO, .times = 1 });
}

static void short_reads_are_resumed(void **state) {
    (void)state;
    const uint32_t lengths[] = { 1, 511, 512, 4096, 4097, 8191 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        fail_every_chunk(
            resumes, (struct fault_rule){ .fault = FAULT_SHORT, .times = 1, .bytes = lengths[i] });
}

// One chunk, a short read of every length. The faulty disk overwrites what it takes away.
static void short_read_of_any_length_is_resumed(void **state) {
    (void)state;
    for (int engine = 0; engine < ENGINES; engine++)
        for (uint32_t bytes = 1; bytes < CHUNK_BYTES && engine_is_here((enum engine)engine);
             bytes += engine == NULL_DISK ? 61 : 1021) {
            struct disk_faulty_options faults = {
                .n_rules = 1,
                .rules = { { .fault = FAULT_SHORT, .nth = 1, .times = 1, .bytes = bytes } },
            };
            struct world w;
            struct order o;
            world_open(&w, (struct setup){ .engine = (enum engine)engine, .faults = &faults });
            order_one(&o, READ_DEMAND, 1, 3 * READER_ALIGN, CHUNK_BYTES);
            reader_submit(w.reader, &o.request);
            assert_int_equal(wait_next(w.reader)->status, OK);
            assert_true(order_filled(&o));
            assert_int_equal(stats_of(&w).short_reads, 1);
            assert_int_equal(stats_of(&w).chunks, 2);
            order_free(&o);
            world_close(&w);
        }
}

static void device_that_is_always_short_is_given_up(void **state) {
    (void)state;
    const enum fault faults_[] = { FAULT_EINTR, FAULT_EAGAIN };
    const int errors[] = { EINTR, EAGAIN };
    for (int k = 0; k < 2; k++) { // inline: in real time EAGAIN is waited for, ten seconds
        struct disk_faulty_options faults = {
            .n_rules = 1, .rules = { { .fault = faults_[k], .nth = 2, .times = UINT32_MAX } }
        };
        struct world w;
        struct order o;
        world_open(&w, (struct setup){ .engine = MODEL, .faults = &faults });
        order_make(&o, READ_DEMAND, expert, N_EXTENTS);
        reader_submit(w.reader, &o.request);
        assert_ptr_equal(wait_next(w.reader), &o.request);
        expect_failure(&w, &o, 2, ERR_IO, strerror(errors[k]));
        order_free(&o);
        world_close(&w);
    }
}

static void nothing_more_is_sent_of_a_request_that_failed(void **state) {
    (void)state;
    for (int engine = 0; engine < ENGINES; engine++) {
        if (!engine_is_here((enum engine)engine))
            continue;
        struct disk_faulty_options faults = {
            .n_rules = 1, .rules = { { .fault = FAULT_EIO, .nth = 1, .times = UINT32_MAX } }
        };
        struct world w;
        struct order o, other;
        world_open(&w,
                   (struct setup){ .engine = (enum engine)engine, .faults = &faults, .depth = 1 });
        order_make(&o, READ_DEMAND, expert, N_EXTENTS);
        order_one(&other, READ_DEMAND, 1, 500000, 10);
        reader_submit(w.reader, &o.request);
        reader_submit(w.reader, &other.request);
        assert_ptr_equal(wait_next(w.reader), &o.request);
        assert_int_equal(o.request.status, ERR_IO);
        assert_ptr_equal(wait_next(w.reader), &other.request); // which is no worse for it
        assert_int_equal(other.request.status, OK);
        assert_true(order_filled(&other));
        assert_int_equal(disk_faulty_submitted(w.faulty), 3); // twice the first, once the other
        order_free(&o);
        order_free(&other);
        world_close(&w);
    }
}

// A chunk of the failed request is still at the device, which may write into its memory: the
// request is not handed back before that chunk is.
static void failed_request_is_not_returned_while_a_chunk_is_out(void **state) {
    (void)state;
    for (int engine = 0; engine < ENGINES; engine++) {
        if (!engine_is_here((enum engine)engine))
            continue;
        struct disk_faulty_options faults = {
            .n_rules = 2,
            .rules = { { .fault = FAULT_STALL, .nth = 2, .times = 1 },
                       { .fault = FAULT_EIO, .nth = 1, .times = UINT32_MAX } },
        };
        struct world w;
        struct order o;
        world_open(&w, (struct setup){ .engine = (enum engine)engine, .faults = &faults });
        order_make(&o, READ_DEMAND, expert, N_EXTENTS);
        reader_submit(w.reader, &o.request);
        struct reader_stats stats;
        do {
            event_wait(reader_event(w.reader), 1000000);
            assert_null(reader_next(w.reader));
            reader_check(w.reader);
            stats = stats_of(&w);
        } while (stats.retries == 0);
        for (int i = 0; i < 3; i++) {
            assert_false(event_wait(reader_event(w.reader), 1000000));
            assert_null(reader_next(w.reader));
        }
        disk_faulty_release(w.faulty);
        assert_ptr_equal(wait_next(w.reader), &o.request);
        expect_failure(&w, &o, 1, ERR_IO, "Input/output error");
        order_free(&o);
        world_close(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_io_error_is_survived),
        cmocka_unit_test(two_io_errors_are_reported_with_file_and_offset),
        cmocka_unit_test(broken_block_is_reported_every_time),
        cmocka_unit_test(interruption_and_shortage_are_survived),
        cmocka_unit_test(no_bytes_are_a_truncated_file),
        cmocka_unit_test(short_reads_are_resumed),
        cmocka_unit_test(short_read_of_any_length_is_resumed),
        cmocka_unit_test(device_that_is_always_short_is_given_up),
        cmocka_unit_test(nothing_more_is_sent_of_a_request_that_failed),
        cmocka_unit_test(failed_request_is_not_returned_while_a_chunk_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
