/* One result: logits depend on a sequence's tokens alone, bit for bit. */
#include "src/schedule.h"
#include "src/sequence.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define ROW_BYTES (GOLDEN_VOCAB * sizeof(float))

static float *reference; // of the golden tokens, in one step
static int32_t golden[GOLDEN_TOKENS];

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

static void assert_rows(const float *got, uint32_t first, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (memcmp(got + (size_t)i * GOLDEN_VOCAB, reference + (size_t)(first + i) * GOLDEN_VOCAB,
                   ROW_BYTES) != 0)
            fail_msg("logits of position %u differ", first + i);
}

static void assert_same(const struct sluice_options *o, uint32_t chunk) {
    float *logits = test_logits(o, chunk);
    assert_rows(logits, 0, GOLDEN_TOKENS);
    free(logits);
}

static void logits_do_not_depend_on_the_chunk(void **state) {
    (void)state;
    static const uint32_t chunks[] = { 1, 2, 7, 8, 9, 16, 17, 64, 128, 279 };
    struct sluice_options o = test_options();
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        assert_same(&o, chunks[i]);
}

static void logits_do_not_depend_on_the_cache(void **state) {
    (void)state;
    static const uint32_t slots[] = { 2, 4, 7, 30 };
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        struct sluice_options o = test_options();
        o.n_slots = slots[i];
        assert_same(&o, 40);
        assert_same(&o, 5);
    }
}

static void logits_do_not_depend_on_threads(void **state) {
    (void)state;
    static const uint32_t threads[] = { 1, 3, 5 };
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        struct sluice_options o = test_options();
        o.n_threads = threads[i];
        assert_same(&o, 64);
    }
}

static void logits_do_not_depend_on_how_bytes_are_read(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    o.io = IO_BUFFERED;
    assert_same(&o, 64);
    o.io = IO_DIRECT;
    assert_same(&o, 64);
    o.forbid_uring = true;
    assert_same(&o, 64);
    o.io = IO_BUFFERED;
    assert_same(&o, 64);
}

static void logits_do_not_depend_on_the_embedding_s_place(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    struct sluice_fit fit;
    struct err err = { .status = OK };
    assert_int_equal(sluice_fit(&o, &fit, &err), OK);
    assert_false(fit.embed_on_disk);
    o.ram_bytes = fit.needed_bytes; // exactly: nothing is left for the table
    assert_int_equal(sluice_fit(&o, &fit, &err), OK);
    assert_true(fit.embed_on_disk);
    assert_same(&o, 64);
}

struct ragged {
    float *logits[3];
    uint32_t row_of[3], first_position[3], n[3];
};

static void keep_ragged(void *context, uint32_t row, bool draft, const float *logits) {
    struct ragged *r = context;
    (void)draft;
    for (int i = 0; i < 3; i++)
        if (row >= r->row_of[i] && row < r->row_of[i] + r->n[i])
            memcpy(r->logits[i] +
                       (size_t)(r->first_position[i] + row - r->row_of[i]) * GOLDEN_VOCAB,
                   logits, ROW_BYTES);
}

// Three sequences at different places, in steps of random spans, now and then without one of them.
static void logits_do_not_depend_on_other_sequences(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    struct err err = { .status = OK };
    o.n_sequences = 3;
    struct sluice *engine = test_engine(&o);
    struct sequence *sequences[3];
    struct ragged r;
    struct step *step;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sluice_sequence(engine, &sequences[i], &err), OK);
        r.logits[i] = calloc(GOLDEN_TOKENS, ROW_BYTES);
    }
    assert_int_equal(step_open(&step, engine, &err), OK);
    srand(7);
    for (int done = 0; done < 3;) {
        struct span spans[3];
        uint32_t n_spans = 0, rows = 0;
        done = 0;
        for (int i = 0; i < 3; i++) {
            uint32_t at = sequence_length(sequences[i]), left = GOLDEN_TOKENS - at;
            uint32_t n = rand() % 4 == 0 ? 1 + (uint32_t)rand() % 60 : (uint32_t)rand() % 9;
            n = n < left ? n : left;
            r.n[i] = n;
            r.row_of[i] = rows;
            r.first_position[i] = at;
            done += left == 0;
            if (n == 0)
                continue;
            spans[n_spans++] = (struct span){ .sequence = sequences[i],
                                              .tokens = golden + at,
                                              .n_tokens = n,
                                              .n_logits = n,
                                              .next_token = -1 };
            rows += n;
        }
        if (n_spans == 0)
            continue;
        struct step_options options = { .logits = keep_ragged, .context = &r };
        assert_int_equal(step_begin(step, spans, n_spans, &options, &err), OK);
        assert_int_equal(step_run(step, NULL, NULL, &err), OK);
        step_commit(step);
        for (int i = 0; i < 3; i++)
            sequence_check(sequences[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_rows(r.logits[i], 0, GOLDEN_TOKENS);
        free(r.logits[i]);
        sequence_close(sequences[i]);
    }
    step_close(step);
    sluice_close(engine);
}

// --- rollback, fork, snapshot, abandon -----------------------------------------------------------

struct fixture {
    struct sluice *engine;
    struct step *step;
    struct sequence *base;
    float row[16 * GOLDEN_VOCAB];
};

static void open_fixture(struct fixture *f) {
    struct sluice_options o = test_options();
    struct err err = { .status = OK };
    o.n_sequences = 4;
    o.n_slots = 30;
    f->engine = test_engine(&o);
    assert_int_equal(sluice_sequence(f->engine, &f->base, &err), OK);
    assert_int_equal(step_open(&f->step, f->engine, &err), OK);
}

static void close_fixture(struct fixture *f) {
    sequence_close(f->base);
    step_close(f->step);
    sluice_close(f->engine);
}

// The lengths around edges: window 16, rings of 16 + 8 entries and more, groups of 4 and 128.
static bool is_edge(uint32_t length) {
    return length <= 34 || (length >= 118 && length <= 140) || length >= 246;
}

static void continues_as_the_reference(struct fixture *f, struct sequence *s) {
    uint32_t at = sequence_length(s);
    uint32_t n = at + 5 <= GOLDEN_TOKENS ? 5 : GOLDEN_TOKENS - at;
    test_feed(f->step, s, golden + at, n, 2, f->row);
    assert_rows(f->row, at, n);
    sequence_check(s);
}

static void rollback_leaves_no_trace_at_any_offset(void **state) {
    (void)state;
    static const int32_t wrong[KV_ROLLBACK] = { 9, 200, 31, 77, 5, 140, 66, 251 };
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    for (uint32_t length = 1; length < 262; length++) {
        test_feed(f.step, f.base, golden + length - 1, 1, 1, NULL);
        if (!is_edge(length))
            continue;
        for (uint32_t r = 1; r <= KV_ROLLBACK; r++) {
            struct sequence *s;
            assert_int_equal(sequence_fork(&s, f.base, &err), OK);
            test_feed(f.step, s, wrong, r, r % 3 + 1, NULL);
            assert_int_equal(sequence_rollback(s, length, &err), OK);
            assert_int_equal(sequence_length(s), length);
            sequence_check(s);
            if (r == KV_ROLLBACK || length % 3 == r % 3)
                continues_as_the_reference(&f, s);
            sequence_close(s);
        }
    }
    close_fixture(&f);
}

static void fork_and_snapshot_share_until_written(void **state) {
    (void)state;
    static const int32_t wrong[] = { 8, 250, 17, 90, 90, 3, 122, 60, 61, 62, 199, 1 };
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    for (uint32_t length = 1; length < 262; length++) {
        test_feed(f.step, f.base, golden + length - 1, 1, 1, NULL);
        if (!is_edge(length) || length % 2)
            continue;
        struct sequence *snapshot, *other;
        assert_int_equal(sequence_fork(&snapshot, f.base, &err), OK);
        assert_int_equal(sequence_fork(&other, snapshot, &err), OK);
        test_feed(f.step, other, wrong, 12, length % 4 ? 12 : 5, NULL); // wide and narrow steps
        sequence_check(other);
        sequence_restore(other, snapshot);
        continues_as_the_reference(&f, other);
        continues_as_the_reference(&f, snapshot); // it was a sequence all along
        sequence_close(other);
        sequence_close(snapshot);
    }
    close_fixture(&f);
}

static void an_abandoned_step_leaves_the_sequence_as_it_was(void **state) {
    (void)state;
    static const int32_t wrong[24] = { 4, 9, 44, 200, 201, 7, 7, 7, 90, 12, 13, 14 };
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    for (uint32_t length = 1; length < 262; length++) {
        test_feed(f.step, f.base, golden + length - 1, 1, 1, f.row);
        assert_rows(f.row, length - 1, 1);
        if (!is_edge(length))
            continue;
        uint32_t n = length % 3 == 0 ? 24 : 1 + length % KV_ROLLBACK;
        struct span span = { .sequence = f.base, .tokens = wrong, .n_tokens = n, .next_token = -1 };
        struct step_options options = { .logits = NULL };
        assert_int_equal(step_begin(f.step, &span, 1, &options, &err), OK);
        assert_int_equal(step_run(f.step, NULL, NULL, &err), OK);
        step_abandon(f.step);
        assert_int_equal(sequence_length(f.base), length);
        sequence_check(f.base);
    }
    close_fixture(&f);
}

static void rollback_further_than_promised_is_refused(void **state) {
    (void)state;
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    test_feed(f.step, f.base, golden, 40, 40, NULL);
    assert_int_equal(sequence_rollback_floor(f.base), 40 - KV_ROLLBACK);
    assert_int_equal(sequence_rollback(f.base, 40 - KV_ROLLBACK - 1, &err), ERR_USAGE);
    err_clear(&err);
    assert_int_equal(sequence_rollback(f.base, 41, &err), ERR_USAGE);
    err_clear(&err);
    assert_int_equal(sequence_rollback(f.base, 0, &err), OK); // starting over is always possible
    test_feed(f.step, f.base, golden, 16, 5, f.row);
    assert_rows(f.row, 0, 16);
    close_fixture(&f);
}

static void keep_last(void *context, uint32_t row, bool draft, const float *logits) {
    (void)row, (void)draft;
    memcpy(context, logits, ROW_BYTES);
}

static bool every_other_time(void *context) {
    uint32_t *n = context;
    return ++*n % 2 == 0;
}

// Cancelled again and again, also while experts are awaited; nothing goes on under an old error.
static void going_on_after_an_interruption_repeats_no_layer(void **state) {
    (void)state;
    static float last[GOLDEN_VOCAB];
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    for (uint32_t at = 0, asked = 0; at < 60; at += 20) {
        struct span span = { .sequence = f.base,
                             .tokens = golden + at,
                             .n_tokens = 20,
                             .n_logits = 1,
                             .next_token = -1 };
        struct step_options options = { .logits = keep_last, .context = last };
        uint32_t times = 0;
        err_clear(&err);
        assert_int_equal(step_begin(f.step, &span, 1, &options, &err), OK);
        while (step_run(f.step, every_other_time, &asked, &err) != OK) {
            uint32_t before = asked;
            assert_int_equal(step_run(f.step, every_other_time, &asked, &err), CANCELLED);
            assert_int_equal(step_advance(f.step, &err), CANCELLED);
            assert_int_equal(asked, before);
            err_clear(&err);
            assert_true(++times < 100000);
        }
        step_commit(f.step);
        assert_rows(last, at + 19, 1);
    }
    close_fixture(&f);
}

static bool cancel_at(void *context, const char *what, uint64_t done, uint64_t total) {
    (void)done, (void)total;
    return strcmp(what, context) != 0;
}

static void opening_ends_when_it_is_cancelled(void **state) {
    (void)state;
    char loading[] = "loading dense weights", touching[] = "making memory ready";
    char *const stages[] = { loading, touching };
    for (int i = 0; i < 2; i++) {
        struct sluice_options o = test_options();
        struct sluice *engine;
        struct err err = { .status = OK };
        o.progress = cancel_at;
        o.context = stages[i];
        assert_int_equal(sluice_open(&engine, &o, &err), CANCELLED);
        assert_null(engine);
    }
}

// --- refusals ------------------------------------------------------------------------------------

static void what_cannot_be_a_step_is_refused(void **state) {
    (void)state;
    struct fixture f;
    struct err err = { .status = OK };
    open_fixture(&f);
    int32_t bad[] = { 1, 256, 2 }, negative[] = { -1 };
    struct step_options options = { .logits = NULL };
    struct span span = { .sequence = f.base, .tokens = bad, .n_tokens = 3, .next_token = -1 };
    assert_int_equal(step_begin(f.step, &span, 1, &options, &err), ERR_USAGE);
    err_clear(&err);
    span.tokens = negative;
    span.n_tokens = 1;
    assert_int_equal(step_begin(f.step, &span, 1, &options, &err), ERR_USAGE);
    err_clear(&err);
    span.tokens = golden;
    options.draft = true; // opened without
    assert_int_equal(step_begin(f.step, &span, 1, &options, &err), ERR_USAGE);
    err_clear(&err);
    options.draft = false;
    test_feed(f.step, f.base, golden, 280, 300, NULL);
    test_feed(f.step, f.base, golden, 40, 40, NULL); // --ctx 320 is full now
    span.n_tokens = 1;
    assert_int_equal(step_begin(f.step, &span, 1, &options, &err), ERR_MEMORY);
    assert_non_null(strstr(err.text, "--ctx"));
    sequence_check(f.base);
    close_fixture(&f);
}

static void what_does_not_fit_is_refused_with_the_number_that_would(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    struct sluice *engine;
    struct sluice_fit fit;
    struct err err = { .status = OK };
    o.n_slots = 0;
    o.ram_bytes = 100 << 20;
    assert_int_equal(sluice_open(&engine, &o, &err), ERR_MEMORY);
    assert_null(engine);
    const char *at = strstr(err.text, "--ram ");
    while (at && strstr(at + 1, "--ram "))
        at = strstr(at + 1, "--ram ");
    assert_non_null(at);
    uint64_t suggested = strtoull(at + 6, NULL, 10) << 20;
    err_clear(&err);
    o.ram_bytes = suggested;
    assert_int_equal(sluice_fit(&o, &fit, &err), OK);
    o.ram_bytes = suggested - (1 << 20);
    assert_int_equal(sluice_fit(&o, &fit, &err), ERR_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_do_not_depend_on_the_chunk),
        cmocka_unit_test(logits_do_not_depend_on_the_cache),
        cmocka_unit_test(logits_do_not_depend_on_threads),
        cmocka_unit_test(logits_do_not_depend_on_how_bytes_are_read),
        cmocka_unit_test(logits_do_not_depend_on_the_embedding_s_place),
        cmocka_unit_test(logits_do_not_depend_on_other_sequences),
        cmocka_unit_test(rollback_leaves_no_trace_at_any_offset),
        cmocka_unit_test(fork_and_snapshot_share_until_written),
        cmocka_unit_test(an_abandoned_step_leaves_the_sequence_as_it_was),
        cmocka_unit_test(rollback_further_than_promised_is_refused),
        cmocka_unit_test(going_on_after_an_interruption_repeats_no_layer),
        cmocka_unit_test(opening_ends_when_it_is_cancelled),
        cmocka_unit_test(what_cannot_be_a_step_is_refused),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_number_that_would),
    };
    return cmocka_run_group_tests(tests, make_reference, free_reference);
}
