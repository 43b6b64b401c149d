/* One measurement of `bench io`, on modelled disks whose rate is known exactly. */
#include "tools/bench/io.h"

#include "io/reader.h"
#include "tools/bench/io_measure.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RATE       2000000000.0
#define LATENCY_NS 100000
#define KIB        1024u
#define MIB        (1024u * 1024u)

struct world {
    struct clock_virtual clock;
    struct disk *inner;
    struct disk_faulty_options faults;
    bool faulty;
    double rate;
    uint32_t n_opened;
    uint64_t cancel_after_ns; // 0: never
};
static struct world w;
static struct read_target target;
static struct read_result result;
static struct err err;

// The bytes do not matter.
static int32_t nothing(void *context, const struct disk_chunk *chunk) {
    (void)context;
    return (int32_t)chunk->bytes;
}

static enum status open_disk(void *context, struct disk **out, uint32_t depth, struct err *e) {
    (void)context;
    struct disk_model_options model = { .clock = &w.clock,
                                        .bytes_per_s = (uint64_t)w.rate,
                                        .latency_ns = LATENCY_NS,
                                        .depth = depth,
                                        .content = nothing };
    w.n_opened++;
    if (!w.faulty)
        return disk_model_open(out, &model, e);
    disk_close(w.inner);
    enum status status = disk_model_open(&w.inner, &model, e);
    return status == OK ? disk_faulty_open(out, w.inner, &w.faults, e) : status;
}

static bool cancelled(void *context) {
    (void)context;
    return w.cancel_after_ns && clock_now_ns(&w.clock.clock) > w.cancel_after_ns;
}

static int open_world(void **state) {
    (void)state;
    w = (struct world){ .rate = RATE };
    clock_virtual_init(&w.clock);
    err_clear(&err);
    struct read_setup largest = { .shape = SHAPE_EXPERT };
    target = (struct read_target){ .path = "/dev/nowhere",
                                   .name = "drive",
                                   .bytes = 1ull << 40,
                                   .memory_bytes = measure_memory_bytes(&largest),
                                   .open_disk = open_disk,
                                   .clock = &w.clock.clock };
    target.memory = aligned_alloc(READER_ALIGN, target.memory_bytes);
    return target.memory == NULL;
}
static int close_world(void **state) {
    (void)state;
    disk_close(w.inner);
    free(target.memory);
    return 0;
}

static enum status run(struct read_setup setup, double seconds) {
    struct measure_options options = { .seconds = seconds, .cancelled = cancelled };
    return measure(&result, &target, &setup, &options, &err);
}

static void assert_near(double value, double wanted, double share) {
    if (!(fabs(value / wanted - 1) <= share))
        fail_msg("%g is not within %g %% of %g", value, 100 * share, wanted);
}

static struct read_setup experts(uint32_t ahead) {
    return (struct read_setup){
        .shape = SHAPE_EXPERT, .block_bytes = MIB, .depth = 16, .ahead = ahead
    };
}

static void one_block_at_a_time_waits_for_each(void **state) {
    (void)state;
    const double each_ns = LATENCY_NS + 64 * KIB / RATE * 1e9;
    assert_int_equal(run((struct read_setup){ SHAPE_RANDOM, 64 * KIB, 1, 0, false, false }, 0.1),
                     OK);
    assert_near(result.rate, 64 * KIB / each_ns * 1e9, 0.001);
    assert_near(result.p50_ns, each_ns, 0.035);
    assert_near(result.most_ns, each_ns, 0.001);
    assert_int_equal(result.bytes, result.n_reads * 64 * KIB);
}

static void a_full_queue_reaches_the_link(void **state) {
    (void)state;
    for (int sequential = 0; sequential < 2; sequential++) {
        struct read_setup setup = {
            sequential ? SHAPE_SEQUENTIAL : SHAPE_RANDOM, 64 * KIB, 32, 0, false, false
        };
        assert_int_equal(run(setup, 0.1), OK);
        assert_near(result.rate, RATE, 0.001);
        assert_near(result.p99_ns, 32 * 64 * KIB / RATE * 1e9, 0.05);
    }
}

static void filling_and_draining_the_queue_do_not_count(void **state) {
    (void)state;
    // A window of no more than a few turns of the queue: the rate is the same.
    assert_int_equal(run((struct read_setup){ SHAPE_RANDOM, MIB, 32, 0, false, false }, 0.05), OK);
    assert_near(result.rate, RATE, 0.001);
}

static void experts_reach_the_link_less_their_rounding(void **state) {
    (void)state;
    const double rounded = EXPERT_BYTES / READER_ALIGN * READER_ALIGN + READER_ALIGN;
    assert_int_equal(run(experts(EXPERTS_AHEAD), 1), OK);
    assert_near(result.rate, RATE * EXPERT_BYTES / rounded, 0.005);
    assert_near(result.p50_ns, EXPERTS_AHEAD * rounded / RATE * 1e9, 0.05);
}

static void an_expert_alone_takes_its_own_time(void **state) {
    (void)state;
    assert_int_equal(run(experts(1), 1), OK);
    assert_near(result.p50_ns, LATENCY_NS + EXPERT_BYTES / RATE * 1e9, 0.05);
}

static void a_setup_too_slow_for_its_time_gets_more_of_it(void **state) {
    (void)state;
    assert_int_equal(run(experts(EXPERTS_AHEAD), 0.1), OK); // eight experts take 0.14 s
    assert_true(result.n_reads >= 4);
    assert_near(result.rate, RATE, 0.01);
}

static void the_rate_over_time_has_a_value_for_every_span(void **state) {
    (void)state;
    double rates[64];
    struct rate_series series = { .span_s = 0.25, .rates = rates, .room = 64 };
    struct measure_options options = { .seconds = 5, .series = &series };
    struct read_setup setup = experts(EXPERTS_AHEAD);
    assert_int_equal(measure(&result, &target, &setup, &options, &err), OK);
    assert_in_range(series.n, 18, 20);
    double sum = 0;
    for (uint32_t i = 0; i < series.n; i++)
        sum += rates[i] / series.n;
    assert_near(sum, RATE, 0.02);
}

static void an_end_that_was_asked_for_keeps_what_was_measured(void **state) {
    (void)state;
    const struct read_setup setups[] = { { SHAPE_RANDOM, MIB, 16, 0, false, false }, experts(8) };
    for (int i = 0; i < 2; i++) {
        w.cancel_after_ns = clock_now_ns(&w.clock.clock) + 500000000;
        err_clear(&err);
        assert_int_equal(run(setups[i], 3600), CANCELLED);
        assert_near(result.rate, RATE, 0.02);
        assert_true(clock_now_ns(&w.clock.clock) < w.cancel_after_ns + 1000000000);
    }
}

static void refused(enum status status, enum status wanted, const char *text) {
    assert_int_equal(status, wanted);
    if (!strstr(err.text, text) || !strstr(err.text, w.faulty ? "" : "drive"))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

static void an_error_of_the_nth_read_is_told_for_every_n(void **state) {
    (void)state;
    w.faulty = true;
    for (uint32_t n = 1; n <= 40; n++)
        for (int shape = 0; shape < 2; shape++) {
            w.faults = (struct disk_faulty_options){
                .rules = { { .fault = FAULT_EIO, .nth = n, .times = UINT32_MAX } }, .n_rules = 1
            };
            err_clear(&err);
            refused(run(shape ? experts(8)
                              : (struct read_setup){ SHAPE_RANDOM, MIB, 8, 0, false, false },
                        1),
                    ERR_IO, "cannot read at byte");
            assert_int_equal(err.status, ERR_IO);
        }
}

static void a_file_that_ends_early_is_told(void **state) {
    (void)state;
    w.faulty = true;
    w.faults = (struct disk_faulty_options){
        .rules = { { .fault = FAULT_ZERO, .nth = 9, .times = UINT32_MAX } }, .n_rules = 1
    };
    refused(run((struct read_setup){ SHAPE_RANDOM, MIB, 8, 0, false, false }, 1), ERR_TRUNCATED,
            "changed while it was measured");
    err_clear(&err);
    refused(run(experts(8), 1), ERR_TRUNCATED, "ends at byte");
}

static void interrupted_reads_are_asked_for_again(void **state) {
    (void)state;
    w.faulty = true;
    w.faults =
        (struct disk_faulty_options){ .per_1000 = { [FAULT_EINTR] = 100, [FAULT_EAGAIN] = 100 },
                                      .seed = 3 };
    assert_int_equal(run((struct read_setup){ SHAPE_RANDOM, MIB, 8, 0, false, false }, 0.5), OK);
    assert_true(result.rate > 0);
}

static void what_does_not_fit_a_file_is_known_before(void **state) {
    (void)state;
    struct read_setup setup = { SHAPE_RANDOM, 4 * MIB, 1, 0, false, false }, expert = experts(1);
    assert_false(measure_fits(&setup, 8 * MIB - 1));
    assert_true(measure_fits(&setup, 8 * MIB));
    assert_false(measure_fits(&expert, EXPERT_BYTES));
    assert_true(measure_fits(&expert, 64 * MIB));
}

// --- the plan ------------------------------------------------------------------------------------

static struct bench_drive *new_drive(uint64_t bytes) {
    struct bench_drive *d = calloc(1, sizeof *d);
    assert_non_null(d);
    snprintf(d->target.file, sizeof d->target.file, "/dev/nowhere");
    snprintf(d->target.name, sizeof d->target.name, "drive");
    d->target.place.device.bytes = bytes;
    return d;
}

static struct bench_run new_run(double seconds) {
    struct bench_run r = { .seconds = seconds,
                           .default_chunk_bytes = 2 * MIB,
                           .default_depth = 32,
                           .cancelled = cancelled,
                           .base = { .open_disk = open_disk, .clock = &w.clock.clock } };
    r.memory_bytes = bench_memory_bytes();
    r.memory = aligned_alloc(READER_ALIGN, r.memory_bytes);
    assert_non_null(r.memory);
    return r;
}

static void a_plan_measures_all_and_keeps_to_its_time(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(1ull << 40);
    struct bench_run r = new_run(200);
    if (bench_plan(d, &r, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(d->n_skipped, 0);
    assert_true(d->n_points > 40);
    assert_near(d->expert.rate, RATE, 0.01);
    assert_near(d->default_rate, RATE, 0.01);
    // Every setting reaches this link: then the default stays.
    assert_int_equal(d->chunk_bytes, 2 * MIB);
    assert_int_equal(d->depth, 32);
    assert_true(d->alone.rate > 0 && d->plain_expert.rate > 0 && d->buffered_expert.rate > 0);
    assert_true(clock_now_ns(&w.clock.clock) < 280ull * 1000000000);
    free(r.memory);
    free(d);
}

static void a_full_plan_measures_the_whole_product(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(1ull << 40);
    struct bench_run r = new_run(100);
    r.full = true;
    assert_int_equal(bench_plan(d, &r, &err), OK);
    assert_int_equal(d->n_skipped, 0);
    struct bench_table tables[BENCH_TABLES];
    bench_tables(d, tables);
    uint32_t n = 0, in[BENCH_TABLES] = { 0 };
    for (int i = 0; i < BENCH_TABLES; i++) {
        for (uint32_t k = 0; k < d->n_points; k++)
            in[i] += bench_is_in(&d->points[k], &tables[i]);
        assert_int_equal(in[i], in[i & 1]); // each as many as the first of its shape
        assert_true(in[i] >= 9);
        n += in[i];
    }
    assert_int_equal(n, d->n_points);
    free(r.memory);
    free(d);
}

static void a_plan_that_has_no_time_leaves_points_out_and_says_so(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(1ull << 40);
    struct bench_run r = new_run(1);
    assert_int_equal(bench_plan(d, &r, &err), OK);
    assert_true(d->expert.rate > 0 && d->depth > 0);
    assert_true(d->n_skipped > 0);
    free(r.memory);
    free(d);
}

static void a_drive_too_slow_for_the_time_is_measured_all_the_same(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(1ull << 40);
    struct bench_run r = new_run(10);
    w.rate = 10e6; // an expert takes 3.5 seconds
    assert_int_equal(bench_plan(d, &r, &err), OK);
    assert_near(d->expert.rate, 10e6, 0.05);
    assert_int_equal(d->chunk_bytes, 2 * MIB);
    assert_int_equal(d->depth, 32);
    assert_true(d->n_skipped > 40);
    assert_true(clock_now_ns(&w.clock.clock) < 400ull * 1000000000);
    free(r.memory);
    free(d);
}

static void a_plan_that_is_interrupted_keeps_what_it_has(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(1ull << 40);
    struct bench_run r = new_run(100);
    w.cancel_after_ns = 8ull * 1000000000;
    assert_int_equal(bench_plan(d, &r, &err), CANCELLED);
    assert_true(d->candidates[0].rate > 0);
    assert_int_equal(d->depth, 0); // nothing was chosen, so nothing is kept
    free(r.memory);
    free(d);
}

static void a_small_file_is_measured_in_what_fits_it(void **state) {
    (void)state;
    struct bench_drive *d = new_drive(TARGET_BYTES_LEAST);
    struct bench_run r = new_run(100);
    assert_int_equal(bench_plan(d, &r, &err), OK);
    assert_true(d->expert.rate > 0);
    free(r.memory);
    free(d);
}

static struct bench_candidate turns(uint32_t chunk_bytes, uint32_t depth, double rate) {
    return (
        struct bench_candidate){ chunk_bytes, depth, rate, { rate, rate * 0.5, rate * 1.5 }, 3 };
}

static void the_default_stays_unless_another_is_clearly_faster(void **state) {
    (void)state;
    struct bench_candidate c[] = { turns(2 * MIB, 32, 3.0), turns(MIB, 16, 3.05) };
    assert_int_equal(bench_choose(c, 2, 2 * MIB, 32), 0);
    c[1] = turns(MIB, 16, 3.2);
    assert_int_equal(bench_choose(c, 2, 2 * MIB, 32), 1);
}

static void of_equals_the_one_with_the_least_at_the_device_is_chosen(void **state) {
    (void)state;
    struct bench_candidate c[] = { turns(2 * MIB, 32, 3.0), turns(8 * MIB, 16, 4.0),
                                   turns(MIB, 16, 3.97), turns(512 * KIB, 16, 3.9) };
    assert_int_equal(bench_choose(c, 4, 2 * MIB, 32), 2);
}

static void without_turns_nothing_is_chosen(void **state) {
    (void)state;
    struct bench_candidate c[] = { { 2 * MIB, 32, 3.0, { 0 }, 0 } };
    assert_int_equal(bench_choose(c, 1, 2 * MIB, 32), UINT32_MAX);
}

// --- several at once -----------------------------------------------------------------------------

// Disks of 500 MB/s in real time, for threads of their own; the second one that is opened may fail.
struct real_disks {
    pthread_mutex_t mutex;
    struct disk *inner[4];
    uint32_t n;
    bool second_fails;
};

static enum status open_real_disk(void *context, struct disk **out, uint32_t depth, struct err *e) {
    struct real_disks *disks = context;
    struct disk_model_options model = { .bytes_per_s = 500000000,
                                        .depth = depth,
                                        .content = nothing };
    struct disk_faulty_options faults = {
        .rules = { { .fault = FAULT_EIO, .nth = 100, .times = UINT32_MAX } }
    };
    struct disk *inner;
    enum status status = disk_model_open(&inner, &model, e);
    if (status != OK)
        return status;
    pthread_mutex_lock(&disks->mutex);
    faults.n_rules = disks->second_fails && disks->n == 1;
    disks->inner[disks->n++] = inner;
    pthread_mutex_unlock(&disks->mutex);
    return disk_faulty_open(out, inner, &faults, e);
}

static void with_two_drives(bool second_fails, double seconds, bool interrupted) {
    struct real_disks disks = { .mutex = PTHREAD_MUTEX_INITIALIZER, .second_fails = second_fails };
    struct bench_run r = { .cancelled = interrupted ? cancelled : NULL,
                           .base = { .open_disk = open_real_disk, .context = &disks } };
    struct bench_io io = { .n_drives = 2, .drives = calloc(2, sizeof *io.drives) };
    r.memory = aligned_alloc(READER_ALIGN, 2 * bench_memory_bytes());
    assert_true(io.drives && r.memory);
    for (int i = 0; i < 2; i++) {
        struct bench_drive *d = &io.drives[i];
        snprintf(d->target.file, sizeof d->target.file, "/dev/nowhere%d", i);
        d->target.place.device.bytes = 1ull << 40;
        d->chunk_bytes = MIB;
        d->depth = 8;
    }
    enum status status = bench_together(&io, &r, seconds, true, &err);
    if (second_fails) {
        assert_int_equal(status, ERR_IO);
        assert_non_null(strstr(err.text, "cannot read at byte"));
    } else {
        assert_int_equal(status, interrupted ? CANCELLED : OK);
        for (int i = 0; i < 2 && !interrupted; i++) {
            assert_true(io.drives[i].together.rate > 0);
            assert_true(io.drives[i].sustained.n > 0);
        }
    }
    for (uint32_t i = 0; i < disks.n; i++)
        disk_close(disks.inner[i]);
    free(io.drives);
    free(r.memory);
}

static void drives_are_read_at_once(void **state) {
    (void)state;
    with_two_drives(false, 1.5, false);
}

static void an_error_of_one_drive_ends_all(void **state) {
    (void)state;
    with_two_drives(true, 3600, false); // or this test does not end
}

static void an_end_that_was_asked_for_ends_all(void **state) {
    (void)state;
    w.cancel_after_ns = 1;
    clock_virtual_advance(&w.clock, 2);
    with_two_drives(false, 3600, true);
}

// --- percentiles ---------------------------------------------------------------------------------

static void percentiles_are_within_three_percent(void **state) {
    (void)state;
    struct latency *l = calloc(1, sizeof *l);
    assert_non_null(l);
    assert_true(latency_percentile(l, 0.5) == 0);
    for (uint64_t ns = 1; ns <= 1000000; ns++)
        latency_add(l, ns);
    const double shares[] = { 0.001, 0.01, 0.5, 0.9, 0.99, 0.999 };
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        assert_near(latency_percentile(l, shares[i]), shares[i] * 1e6, 0.032);
    assert_true(latency_percentile(l, 1) == 1e6);
    latency_add(l, UINT64_MAX);
    assert_true(latency_percentile(l, 1) >= 0x1p63);
    free(l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(one_block_at_a_time_waits_for_each),
        TEST(a_full_queue_reaches_the_link),
        TEST(filling_and_draining_the_queue_do_not_count),
        TEST(experts_reach_the_link_less_their_rounding),
        TEST(an_expert_alone_takes_its_own_time),
        TEST(a_setup_too_slow_for_its_time_gets_more_of_it),
        TEST(the_rate_over_time_has_a_value_for_every_span),
        TEST(an_end_that_was_asked_for_keeps_what_was_measured),
        TEST(an_error_of_the_nth_read_is_told_for_every_n),
        TEST(a_file_that_ends_early_is_told),
        TEST(interrupted_reads_are_asked_for_again),
        TEST(what_does_not_fit_a_file_is_known_before),
        TEST(a_plan_measures_all_and_keeps_to_its_time),
        TEST(a_full_plan_measures_the_whole_product),
        TEST(a_plan_that_has_no_time_leaves_points_out_and_says_so),
        TEST(a_drive_too_slow_for_the_time_is_measured_all_the_same),
        TEST(a_plan_that_is_interrupted_keeps_what_it_has),
        TEST(a_small_file_is_measured_in_what_fits_it),
        TEST(the_default_stays_unless_another_is_clearly_faster),
        TEST(of_equals_the_one_with_the_least_at_the_device_is_chosen),
        TEST(without_turns_nothing_is_chosen),
        TEST(drives_are_read_at_once),
        TEST(an_error_of_one_drive_ends_all),
        TEST(an_end_that_was_asked_for_ends_all),
        TEST(percentiles_are_within_three_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
