/* Fail the n-th read of a run, for every n, and compare bits: either nothing shows, or the step says
 * which shard and where, nothing stays held, and trying again gives the logits of an untroubled run. */
#include "io/disk.h"
#include "src/engine.h"
#include "tests/support/engine.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_io_error_is_tried_again_and_does_not_show),
        cmocka_unit_test(a_second_io_error_is_told_and_can_be_retried),
        cmocka_unit_test(short_reads_do_not_show),
        cmocka_unit_test(interrupted_reads_do_not_show),
        cmocka_unit_test(a_file_that_ends_early_is_told),
        cmocka_unit_test(a_storm_of_faults_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, make_reference, free_reference);
}
