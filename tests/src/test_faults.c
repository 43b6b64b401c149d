/* Fail the n-th read of a run, for every n, and compare bits: either nothing shows, or the step says
 * which shard and where, nothing stays held, and trying again gives the logits of an untroubled run. */
#include "io/disk.h"
#include "src/engine.h"
#include "tests/support/engine.h"
#include "tests/support/shard_disk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define N_TOKENS  22
#define ROW_BYTES (GOLDEN_VOCAB * sizeof(float))

static int32_t golden[GOLDEN_TOKENS];
static float *reference;

static int make_reference(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    golden_tokens(golden);
    reference = test_logits(&o, 300);
    return 0;
}

static int free_reference(void **state) {
    (void)state;
    free(reference);
    return 0;
}

enum recovery { TRY_AGAIN, ABANDON, RECOVERIES };

struct outcome {
    uint32_t n_errors;
    enum status status; // of the last error
    uint64_t n_chunks;
};

static void keep_last(void *context, uint32_t row, bool draft, const float *logits) {
    (void)row, (void)draft;
    memcpy(context, logits, ROW_BYTES);
}

// A span through the layers, however often it fails; most tokens in one wide step, then one by one.
static void persist(struct sluice *engine, struct step *step, struct sequence *sequence, uint32_t n,
                    enum recovery recovery, struct outcome *out) {
    uint32_t at = sequence_length(sequence);
    float logits[GOLDEN_VOCAB];
    struct span span = {
        .sequence = sequence, .tokens = golden + at, .n_tokens = n, .n_logits = 1, .next_token = -1
    };
    struct step_options options = { .logits = keep_last, .context = logits };
    struct err err = { .status = OK };
    assert_int_equal(step_begin(step, &span, 1, &options, &err), OK);
    enum status status;
    while ((status = step_run(step, NULL, NULL, &err)) != OK) {
        out->n_errors++;
        out->status = status;
        assert_non_null(strstr(err.text, "model-0000")); // the shard is named,
        assert_non_null(strstr(err.text, "byte"));       // and the place
        assert_null(strchr(err.text, '\n'));
        slots_check(engine->slots);
        err_clear(&err);
        assert_true(out->n_errors < 1000);
        if (recovery == ABANDON) {
            step_abandon(step);
            assert_int_equal(sequence_length(sequence), at);
            sequence_check(sequence);
            assert_int_equal(step_begin(step, &span, 1, &options, &err), OK);
        }
    }
    step_commit(step);
    slots_check(engine->slots);
    if (memcmp(logits, reference + (size_t)(at + n - 1) * GOLDEN_VOCAB, ROW_BYTES) != 0)
        fail_msg("logits of position %u differ after %u errors", at + n - 1, out->n_errors);
}

static void run(const struct disk_faulty_options *faults, enum recovery recovery, bool forbid_uring,
                struct outcome *out) {
    struct disk *inner, *disk;
    struct err err = { .status = OK };
    *out = (struct outcome){ 0 };
    if (forbid_uring || disk_uring_open(&inner, 32, &err) != OK) {
        err_clear(&err);
        assert_int_equal(disk_pread_open(&inner, 8, &err), OK);
    }
    assert_int_equal(disk_faulty_open(&disk, inner, faults, &err), OK);
    struct sluice_options o = test_options();
    o.disk = disk;
    o.prefetch =
        PREFETCH_OFF; // every read is a demand's, and its failure told: see test_prefetch.c
    o.n_slots = 5;
    struct sluice *engine = test_engine(&o);
    struct sequence *sequence;
    struct step *step;
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    persist(engine, step, sequence, N_TOKENS - 2, recovery, out);
    persist(engine, step, sequence, 1, recovery, out);
    persist(engine, step, sequence, 1, recovery, out);
    out->n_chunks = disk_faulty_submitted(disk);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    disk_close(disk);
    disk_close(inner);
}

// The n-th read meets the fault `times` times, n = 1, 2, … until a run has no n-th read.
static void every_read(enum fault fault, uint32_t times, uint32_t bytes, uint32_t errors,
                       enum status status) {
    for (uint64_t n = 1;; n++) {
        struct disk_faulty_options faults = {
            .rules = { { .fault = fault, .nth = n, .times = times, .bytes = bytes } }, .n_rules = 1
        };
        struct outcome outcome;
        run(&faults, n % RECOVERIES, n % 5 == 0, &outcome);
        if (outcome.n_chunks < n) {
            assert_int_equal(outcome.n_errors, 0);
            assert_true(n > 25); // the runs before this one did meet it
            return;
        }
        assert_int_equal(outcome.n_errors, errors);
        if (errors)
            assert_int_equal(outcome.status, status);
    }
}

static void an_io_error_is_tried_again_and_does_not_show(void **state) {
    (void)state;
    every_read(FAULT_EIO, 1, 0, 0, OK);
}

static void a_second_io_error_is_told_and_can_be_retried(void **state) {
    (void)state;
    every_read(FAULT_EIO, 2, 0, 1, ERR_IO);
}

static void short_reads_do_not_show(void **state) {
    (void)state;
    every_read(FAULT_SHORT, 3, 4096, 0, OK);
    every_read(FAULT_SHORT, 2, 10000, 0, OK);
}

static void interrupted_reads_do_not_show(void **state) {
    (void)state;
    every_read(FAULT_EINTR, 4, 0, 0, OK);
    every_read(FAULT_EAGAIN, 3, 0, 0, OK);
}

static void a_file_that_ends_early_is_told(void **state) {
    (void)state;
    every_read(FAULT_ZERO, 1, 0, 1, ERR_TRUNCATED);
}

static void a_storm_of_faults_changes_no_bit(void **state) {
    (void)state;
    uint32_t seen = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct disk_faulty_options faults = { .seed = seed };
        struct outcome outcome;
        faults.per_1000[FAULT_EIO] = 150;
        faults.per_1000[FAULT_SHORT] = 200;
        faults.per_1000[FAULT_EINTR] = 100;
        faults.per_1000[FAULT_ZERO] = 8;
        run(&faults, seed % RECOVERIES, false, &outcome);
        seen += outcome.n_errors;
    }
    assert_true(seen > 0);
}

// --- a long run ----------------------------------------------------------------------------------

#define N_LONG 270

// A prompt in steps of 30 and then token by token, from few slots, prefetch and all; how often errors
// were told.
static uint32_t long_run(struct sluice *engine, bool (*cancel)(void *context), void *context) {
    struct sequence *sequence;
    struct step *step;
    struct err err = { .status = OK };
    float logits[GOLDEN_VOCAB];
    uint32_t n_errors = 0;
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    for (uint32_t at = 0, n; at < N_LONG; at += n) {
        n = at < 120 ? 30 : 1;
        struct span span = { .sequence = sequence,
                             .tokens = golden + at,
                             .n_tokens = n,
                             .n_logits = 1,
                             .next_token = -1 };
        struct step_options options = { .logits = keep_last, .context = logits };
        assert_int_equal(step_begin(step, &span, 1, &options, &err), OK);
        while (step_run(step, cancel, context, &err) != OK) {
            assert_true(++n_errors < 100);
            err_clear(&err);
        }
        step_commit(step);
        if (memcmp(logits, reference + (size_t)(at + n - 1) * GOLDEN_VOCAB, ROW_BYTES) != 0)
            fail_msg("logits of position %u differ", at + n - 1);
    }
    slots_check(engine->slots);
    step_close(step);
    sequence_close(sequence);
    return n_errors;
}

static void one_read_in_a_thousand_that_fails_changes_no_bit(void **state) {
    (void)state;
    uint64_t n_chunks = 0, n_retries = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct disk_faulty_options faults = { .seed = seed };
        struct disk *inner, *disk;
        struct err err = { .status = OK };
        faults.per_1000[FAULT_EIO] = 1;
        if (disk_uring_open(&inner, 32, &err) != OK) {
            err_clear(&err);
            assert_int_equal(disk_pread_open(&inner, 8, &err), OK);
        }
        assert_int_equal(disk_faulty_open(&disk, inner, &faults, &err), OK);
        struct sluice_options o = test_options();
        o.disk = disk;
        o.prefetch = PREFETCH_AUTO;
        o.n_slots = 3;
        o.n_threads = 1;
        struct sluice *engine = test_engine(&o);
        assert_int_equal(long_run(engine, NULL, NULL), 0); // the second try succeeds
        struct account_report report;
        sluice_report(engine, &report);
        assert_int_equal(report.reader.failed, 0);
        n_retries += report.reader.retries;
        n_chunks += disk_faulty_submitted(disk);
        sluice_close(engine);
        disk_close(disk);
        disk_close(inner);
    }
    assert_true(n_chunks > 3000);
    assert_true(n_retries > 0);
}

// --- a drive that stands still -------------------------------------------------------------------

struct stall {
    struct clock_virtual clock;
    struct disk *disk;
    uint64_t since_ns; // 0: not yet
    bool give_up;      // instead of waiting
    uint32_t n_looks;
};

// The step waits in slices, and asks in between: after five seconds of them the drive goes on.
static bool stands_still(void *context) {
    struct stall *s = context;
    if (disk_faulty_submitted(s->disk) < 100)
        return false;
    if (!s->since_ns)
        s->since_ns = s->clock.now;
    s->n_looks++;
    if (s->clock.now - s->since_ns < 5000000000u)
        return false;
    disk_faulty_release(s->disk);
    bool give_up = s->give_up;
    s->give_up = false;
    return give_up;
}

static void stalls_for_five_seconds(bool give_up, uint32_t n_errors) {
    struct stall s = { .give_up = give_up };
    struct disk *inner;
    struct err err = { .status = OK };
    struct disk_faulty_options faults = {
        .rules = { { .fault = FAULT_STALL, .nth = 100, .times = 1 } }, .n_rules = 1
    };
    clock_virtual_init(&s.clock);
    struct disk_model_options model = {
        .clock = &s.clock, .bytes_per_s = 1000000000, .latency_ns = 100000, .depth = 8
    };
    inner = shard_disk_open(&model);
    assert_int_equal(disk_faulty_open(&s.disk, inner, &faults, &err), OK);
    struct sluice_options o = test_options();
    o.disk = s.disk;
    o.prefetch = PREFETCH_OFF;
    o.n_slots = 3;
    o.n_threads = 1;
    struct sluice *engine = test_engine(&o);
    assert_int_equal(long_run(engine, stands_still, &s), n_errors);
    struct account_report report;
    sluice_report(engine, &report);
    assert_true(report.reader.busy_ns >= 5000000000u); // the drive's time
    assert_true(s.n_looks > 20);                       // whoever wants to leave can
    assert_int_equal(report.reader.failed + report.reader.retries, 0);
    sluice_close(engine);
    disk_close(s.disk);
    disk_close(inner);
}

static void a_drive_that_stalls_for_five_seconds_is_waited_for(void **state) {
    (void)state;
    stalls_for_five_seconds(false, 0);
}

static void a_step_that_waits_for_a_stalled_drive_can_be_left_and_gone_on_with(void **state) {
    (void)state;
    stalls_for_five_seconds(true, 1); // CANCELLED, once
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_io_error_is_tried_again_and_does_not_show),
        cmocka_unit_test(a_second_io_error_is_told_and_can_be_retried),
        cmocka_unit_test(short_reads_do_not_show),
        cmocka_unit_test(interrupted_reads_do_not_show),
        cmocka_unit_test(a_file_that_ends_early_is_told),
        cmocka_unit_test(a_storm_of_faults_changes_no_bit),
        cmocka_unit_test(one_read_in_a_thousand_that_fails_changes_no_bit),
        cmocka_unit_test(a_drive_that_stalls_for_five_seconds_is_waited_for),
        cmocka_unit_test(a_step_that_waits_for_a_stalled_drive_can_be_left_and_gone_on_with),
    };
    return cmocka_run_group_tests(tests, make_reference, free_reference);
}
