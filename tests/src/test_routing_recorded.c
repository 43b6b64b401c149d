/* What a feed records is what the gates chose, of the steps that were committed, and recording changes
 * no bit. */
#include "io/disk.h"
#include "src/schedule.h"
#include "tests/support/engine.h"
#include "tests/support/make_checkpoint.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_TOKENS 100
#define N_BLOCKS 6 // five layers and the draft block
#define K        2

static int32_t golden[GOLDEN_TOKENS];
static char *dir, path[512];

// What was chosen for each token.
struct choices {
    int32_t expert[N_BLOCKS][GOLDEN_TOKENS][K];
};
static struct choices tapped;

struct world {
    struct sluice *engine;
    struct sequence *sequence;
    struct step *step;
    struct routing_writer *writer;
    uint32_t cancel_after; // looks
};

static void open_world(struct world *w, const struct sluice_options *options) {
    struct err err = { .status = OK };
    struct account_report report;
    struct routing_header header;
    w->cancel_after = UINT32_MAX;
    w->engine = test_engine(options);
    const struct config *c = sluice_config(w->engine);
    sluice_report(w->engine, &report);
    routing_header_init(&header, c, c->n_layers + sluice_has_draft(w->engine), report.expert_bytes);
    assert_int_equal(sluice_sequence(w->engine, &w->sequence, &err), OK);
    assert_int_equal(step_open(&w->step, w->engine, &err), OK);
    assert_int_equal(routing_writer_open(&w->writer, path, &err), OK);
    assert_int_equal(routing_writer_start(w->writer, &header, step_max_rows(w->step), &err), OK);
}

static void close_world(struct world *w) {
    struct err err = { .status = OK };
    assert_int_equal(routing_writer_finish(w->writer, &err), OK);
    routing_writer_close(w->writer);
    step_close(w->step);
    sequence_close(w->sequence);
    sluice_close(w->engine);
}

static bool cancel(void *context) {
    struct world *w = context;
    return w->cancel_after-- == 0;
}

static void keep(void *context, uint32_t index, bool draft, const float *logits) {
    (void)context, (void)index, (void)draft, (void)logits;
}

// The golden tokens first … first+n−1.
static enum status feed(struct world *w, uint32_t first, uint32_t n, uint32_t chunk, bool draft,
                        uint32_t number) {
    struct err err = { .status = OK };
    struct feed feed = { .sequence = w->sequence,
                         .tokens = golden + first,
                         .n_tokens = n,
                         .chunk = chunk,
                         .draft = draft,
                         .next_token = golden[first + n],
                         .logits = keep,
                         .cancel = cancel,
                         .context = w,
                         .routing = w->writer,
                         .sequence_number = number };
    return schedule_feed(w->step, &feed, &err);
}

// --- what a tap sees -----------------------------------------------------------------------------

static bool wants_experts(void *context, uint32_t layer, enum tap_point point) {
    (void)context, (void)layer;
    return point == TAP_ROUTE_EXPERTS;
}

static bool see_experts(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                        uint32_t n_rows, uint32_t width, void *data) {
    struct choices *all = context;
    assert_int_equal(point, TAP_ROUTE_EXPERTS);
    assert_int_equal(width, K);
    assert_true(layer < N_BLOCKS);
    memcpy(all->expert[layer][first_row], data, n_rows * K * sizeof(int32_t));
    return false;
}

static int tap_all(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    struct err err = { .status = OK };
    struct sequence *sequence;
    struct step *step;
    golden_tokens(golden);
    o.drafts = true;
    struct sluice *engine = test_engine(&o);
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    struct tap tap = { .context = &tapped, .wants = wants_experts, .see = see_experts };
    struct step_options options = { .draft = true, .tap = &tap };
    struct span span = { .sequence = sequence,
                         .tokens = golden,
                         .n_tokens = GOLDEN_TOKENS - 1,
                         .next_token = golden[GOLDEN_TOKENS - 1] };
    assert_int_equal(step_begin(step, &span, 1, &options, &err), OK);
    assert_int_equal(step_run(step, NULL, NULL, &err), OK);
    step_commit(step);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(path, sizeof path, "%s/trace", dir);
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

// The trace has the tokens 0 … n−1 in steps of at most `chunk` rows, and the tap's experts for each;
// those before `drafted` with the draft block.
static void assert_recorded(uint32_t n, uint32_t chunk, uint32_t drafted, uint32_t n_blocks) {
    struct routing_reader *r;
    struct routing_step step;
    struct err err = { .status = OK };
    enum status status;
    uint32_t at = 0;
    assert_int_equal(routing_reader_open(&r, path, &err), OK);
    const struct routing_header *h = routing_reader_header(r);
    assert_int_equal(h->n_blocks, n_blocks);
    assert_int_equal(h->n_experts, 6);
    assert_int_equal(h->n_chosen, K);
    assert_int_equal(h->kind[0], ROUTING_HASH);
    assert_int_equal(h->kind[1], 0);
    assert_int_equal(h->kind[4], 0);
    assert_int_equal(routing_n_trunk(h), 5);
    while ((status = routing_reader_next(r, &step, &err)) == OK) {
        assert_true(step.n_rows <= chunk);
        assert_int_equal(step.n_blocks, at < drafted ? 6 : 5);
        for (uint32_t row = 0; row < step.n_rows; row++, at++) {
            assert_int_equal(step.sequence[row], 17);
            assert_int_equal(step.position[row], at);
            assert_int_equal(step.token[row], golden[at]);
            for (uint32_t block = 0; block < step.n_blocks; block++)
                for (uint32_t k = 0; k < K; k++)
                    assert_int_equal(routing_experts(h, &step, block, row)[k],
                                     tapped.expert[block][at][k]);
        }
    }
    assert_int_equal(status, DONE);
    assert_int_equal(at, n);
    routing_reader_close(r);
}

static void what_is_recorded_is_what_a_tap_sees(void **state) {
    (void)state;
    static const uint32_t chunks[] = { 1, 7, 64, 300 };
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (uint32_t slots = 2; slots <= 36; slots += 34) {
            struct sluice_options o = test_options();
            struct world w;
            o.n_slots = slots;
            open_world(&w, &o);
            assert_int_equal(feed(&w, 0, N_TOKENS, chunks[i], false, 17), OK);
            close_world(&w);
            assert_recorded(N_TOKENS, chunks[i], 0, 5);
        }
}

static void the_draft_block_is_recorded_where_it_runs(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    struct world w;
    o.drafts = true;
    open_world(&w, &o);
    assert_int_equal(feed(&w, 0, 50, 20, true, 17), OK);
    assert_int_equal(feed(&w, 50, 30, 20, false, 17), OK);
    close_world(&w);
    assert_recorded(80, 20, 50, 6);
}

// Cancelled at its n-th look, for every n, and then gone on with: each token is there once.
static void only_what_was_committed_is_recorded(void **state) {
    (void)state;
    uint32_t n_cancelled = 0;
    struct sluice_options o = test_options();
    o.n_slots = 36;
    for (uint32_t looks = 0;; looks++) {
        struct world w;
        open_world(&w, &o);
        w.cancel_after = looks;
        enum status status = feed(&w, 0, 30, 10, false, 17);
        uint32_t at = sequence_length(w.sequence);
        assert_int_equal(status, at < 30 ? CANCELLED : OK);
        w.cancel_after = UINT32_MAX;
        if (looks % 2 == 0 && at < 30)
            assert_int_equal(feed(&w, at, 30 - at, 10, false, 17), OK);
        close_world(&w);
        assert_recorded(looks % 2 == 0 ? 30 : at, 10, 0, 5);
        if (status == OK)
            break;
        n_cancelled++;
    }
    assert_true(n_cancelled > 20); // at least once a layer
}

static void a_step_that_a_disk_ended_is_not_recorded(void **state) {
    (void)state;
    for (uint64_t nth = 1; nth < 40; nth += 3) {
        struct disk_faulty_options faults = {
            .rules = { { .fault = FAULT_EIO, .nth = nth, .times = 2 } }, .n_rules = 1
        };
        struct disk *inner, *disk;
        struct err err = { .status = OK };
        struct world w;
        assert_int_equal(disk_pread_open(&inner, 8, &err), OK);
        assert_int_equal(disk_faulty_open(&disk, inner, &faults, &err), OK);
        struct sluice_options o = test_options();
        o.disk = disk;
        o.prefetch = PREFETCH_OFF; // a read ahead that fails is nobody's error
        open_world(&w, &o);
        assert_int_equal(feed(&w, 0, 12, 4, false, 17), ERR_IO);
        uint32_t at = sequence_length(w.sequence);
        assert_true(at < 12);
        assert_int_equal(feed(&w, at, 12 - at, 4, false, 17), OK);
        close_world(&w);
        disk_close(disk);
        disk_close(inner);
        assert_recorded(12, 4, 0, 5);
    }
}

static void copy_logits(void *context, uint32_t index, bool draft, const float *logits) {
    (void)draft;
    memcpy((float *)context + (size_t)index * GOLDEN_VOCAB, logits, GOLDEN_VOCAB * sizeof *logits);
}

static void recording_changes_no_bit(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    float *plain = test_logits(&o, 64), *recorded = calloc(GOLDEN_TOKENS * GOLDEN_VOCAB, 4);
    struct world w;
    struct err err = { .status = OK };
    open_world(&w, &o);
    struct feed feed = { .sequence = w.sequence,
                         .tokens = golden,
                         .n_tokens = GOLDEN_TOKENS,
                         .n_logits = GOLDEN_TOKENS,
                         .chunk = 64,
                         .next_token = -1,
                         .logits = copy_logits,
                         .context = recorded,
                         .routing = w.writer };
    assert_int_equal(schedule_feed(w.step, &feed, &err), OK);
    close_world(&w);
    assert_memory_equal(plain, recorded, GOLDEN_TOKENS * GOLDEN_VOCAB * sizeof *plain);
    free(plain);
    free(recorded);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_recorded_is_what_a_tap_sees),
        cmocka_unit_test(the_draft_block_is_recorded_where_it_runs),
        cmocka_unit_test(only_what_was_committed_is_recorded),
        cmocka_unit_test(a_step_that_a_disk_ended_is_not_recorded),
        cmocka_unit_test(recording_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, tap_all, remove_all);
}
