/* What is read ahead changes when bytes arrive and nothing else; what it was worth is counted. */
#include "io/disk.h"
#include "src/engine.h"
#include "src/step.h"
#include "tests/support/checkpoint_fixture.h"
#include "tests/support/engine.h"
#include "tests/support/shard_disk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define N_TOKENS  60
#define N_PREFILL 40 // in one wide step; the rest one by one
#define ROW_BYTES (GOLDEN_VOCAB * sizeof(float))
#define N_LAYERS  5 // of the committed checkpoint; the first is routed by table
#define N_EXPERTS 6
#define N_CHOSEN  2
#define ALL_SLOTS (N_LAYERS * N_EXPERTS)

static int32_t golden[GOLDEN_TOKENS];
static float *reference;

static int make_reference(void **state) {
    (void)state;
    struct sluice_options o = test_options();
    o.prefetch = PREFETCH_OFF;
    golden_tokens(golden);
    reference = test_logits(&o, 300);
    return 0;
}

static int free_reference(void **state) {
    (void)state;
    free(reference);
    return 0;
}

// --- a run ---------------------------------------------------------------------------------------

struct run {
    struct sluice *engine;
    struct sequence *sequence;
    struct step *step;
};

static void run_open(struct run *r, const struct sluice_options *o) {
    struct err err = { .status = OK };
    r->engine = test_engine(o);
    assert_int_equal(sluice_sequence(r->engine, &r->sequence, &err), OK);
    assert_int_equal(step_open(&r->step, r->engine, &err), OK);
}

static void run_close(struct run *r) {
    step_close(r->step);
    sequence_close(r->sequence);
    sluice_close(r->engine);
}

// What a report says of one kind, over all layers.
static struct prefetch_count total(struct run *r, enum prefetch_kind kind) {
    struct account_report report;
    sluice_report(r->engine, &report);
    for (uint32_t layer = 0; layer < report.n_layers; layer++) {
        const struct prefetch_count *c = &report.prefetch[layer * PREFETCH_KINDS + kind];
        assert_true(c->right <= c->wanted && c->right <= c->predicted);
        assert_int_equal(c->read, c->used + c->in_vain + c->cancelled + c->lost);
    }
    return account_prefetch(&report, kind);
}

static uint64_t all_reads(struct run *r) {
    uint64_t n = 0;
    for (int kind = 0; kind < PREFETCH_KINDS; kind++)
        n += total(r, (enum prefetch_kind)kind).read;
    return n;
}

// What slots and predictions count agrees; nothing of a step that is over is left.
static void balances(struct run *r) {
    struct slots_stats stats;
    slots_check(r->engine->slots);
    slots_stats(r->engine->slots, &stats);
    assert_int_equal(stats.prefetched, all_reads(r));
}

static void keep_last(void *context, uint32_t row, bool draft, const float *logits) {
    (void)row;
    if (!draft)
        memcpy(context, logits, ROW_BYTES);
}

// One step of n rows, however often it fails; returns how often that was.
static uint32_t feed(struct run *r, uint32_t n, bool draft, const struct tap *tap) {
    uint32_t at = sequence_length(r->sequence), n_errors = 0;
    float logits[GOLDEN_VOCAB];
    struct span span = { .sequence = r->sequence,
                         .tokens = golden + at,
                         .n_tokens = n,
                         .n_logits = 1,
                         .next_token = golden[at + n] };
    struct step_options options = {
        .draft = draft, .logits = keep_last, .context = logits, .tap = tap
    };
    struct err err = { .status = OK };
    assert_int_equal(step_begin(r->step, &span, 1, &options, &err), OK);
    while (step_run(r->step, NULL, NULL, &err) != OK) {
        assert_non_null(strstr(err.text, "model-0000"));
        assert_true(++n_errors < 1000);
        slots_check(r->engine->slots);
        err_clear(&err);
    }
    step_commit(r->step);
    if (!tap && memcmp(logits, reference + (size_t)(at + n - 1) * GOLDEN_VOCAB, ROW_BYTES) != 0)
        fail_msg("logits of position %u differ", at + n - 1);
    return n_errors;
}

static uint32_t feed_all(struct run *r, bool draft) {
    uint32_t n_errors = feed(r, N_PREFILL, draft, NULL);
    n_errors += feed(r, 5, draft, NULL); // narrow, and more than one row
    while (sequence_length(r->sequence) < N_TOKENS)
        n_errors += feed(r, 1, draft, NULL);
    balances(r);
    return n_errors;
}

static uint64_t gives_the_reference(const struct sluice_options *o, bool draft) {
    struct run r;
    run_open(&r, o);
    assert_int_equal(feed_all(&r, draft), 0);
    uint64_t n = all_reads(&r);
    run_close(&r);
    return n;
}

// --- the same bits -------------------------------------------------------------------------------

static void logits_do_not_depend_on_prefetch(void **state) {
    (void)state;
    static const uint32_t slots[] = { 2, 5, 12, ALL_SLOTS };
    for (int mode = PREFETCH_AUTO; mode < PREFETCH_MODES; mode++)
        for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
            struct sluice_options o = test_options();
            o.prefetch = (enum prefetch_mode)mode;
            o.n_slots = slots[i];
            o.drafts = i % 2 == 0;
            uint64_t n_read = gives_the_reference(&o, o.drafts);
            if (mode == PREFETCH_OFF)
                assert_int_equal(n_read, 0);
            else if (slots[i] == 5 || slots[i] == 12) // two have no room, and all miss little
                assert_true(n_read > 0);
        }
}

static void logits_do_not_depend_on_prefetch_from_a_slow_disk(void **state) {
    (void)state;
    for (uint32_t n_slots = 4; n_slots <= 16; n_slots += 6) {
        struct disk_model_options model = { .bytes_per_s = 400000000,
                                            .latency_ns = 100000,
                                            .depth = 4 };
        struct disk *disk = shard_disk_open(&model);
        struct sluice_options o = test_options();
        o.prefetch = PREFETCH_AUTO;
        o.n_slots = n_slots;
        o.disk = disk;
        assert_true(gives_the_reference(&o, false) > 0);
        disk_close(disk);
    }
}

static uint32_t with_faults(const struct disk_faulty_options *faults, uint64_t *n_chunks) {
    struct disk *inner, *disk;
    struct err err = { .status = OK };
    struct run r;
    if (disk_uring_open(&inner, 32, &err) != OK) {
        err_clear(&err);
        assert_int_equal(disk_pread_open(&inner, 8, &err), OK);
    }
    assert_int_equal(disk_faulty_open(&disk, inner, faults, &err), OK);
    struct sluice_options o = test_options();
    o.prefetch = PREFETCH_AUTO;
    o.disk = disk;
    o.n_slots = 7;
    run_open(&r, &o);
    uint32_t n_errors = feed(&r, 20, false, NULL);
    n_errors += feed(&r, 1, false, NULL);
    n_errors += feed(&r, 1, false, NULL);
    balances(&r);
    *n_chunks = disk_faulty_submitted(disk);
    run_close(&r);
    disk_close(disk);
    disk_close(inner);
    return n_errors;
}

// A prefetch that fails is nobody's error: whoever needs the expert reads it again. One that a demand
// has joined by then is told, and tried again.
static void a_failed_read_ahead_changes_no_bit(void **state) {
    (void)state;
    uint32_t n_told = 0;
    uint64_t n = 1, n_chunks = 1;
    for (; n_chunks >= n; n++) {
        struct disk_faulty_options faults = {
            .rules = { { .fault = n % 3 ? FAULT_EIO : FAULT_ZERO, .nth = n, .times = 2 } },
            .n_rules = 1
        };
        uint32_t n_errors = with_faults(&faults, &n_chunks);
        assert_true(n_errors <= 2);
        n_told += n_errors > 0;
    }
    assert_true(n > 25);         // those runs did meet it
    assert_true(n_told < n - 2); // and not all of them showed it
}

static void a_storm_of_faults_changes_no_bit(void **state) {
    (void)state;
    uint32_t seen = 0;
    uint64_t n_chunks;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct disk_faulty_options faults = { .seed = seed };
        faults.per_1000[FAULT_EIO] = 150;
        faults.per_1000[FAULT_SHORT] = 200;
        faults.per_1000[FAULT_ZERO] = 30;
        seen += with_faults(&faults, &n_chunks);
    }
    assert_true(seen > 0);
}

static bool every_third_time(void *context) {
    uint32_t *n = context;
    return ++*n % 3 == 0;
}

// Given up at the begin, and after each of its first layers: what was read ahead is taken back.
static void an_abandoned_step_leaves_nothing_predicted(void **state) {
    (void)state;
    struct run r;
    struct sluice_options o = test_options();
    o.prefetch = PREFETCH_AUTO;
    o.n_slots = 9;
    run_open(&r, &o);
    struct err err = { .status = OK };
    for (uint32_t turn = 0; turn < 24; turn++) {
        uint32_t at = sequence_length(r.sequence), n = turn % 2 ? 1 : 20, asked = turn;
        struct span span = { .sequence = r.sequence,
                             .tokens = golden + at,
                             .n_tokens = n,
                             .n_logits = 0,
                             .next_token = -1 };
        struct step_options options = { .logits = NULL };
        assert_int_equal(step_begin(r.step, &span, 1, &options, &err), OK);
        for (uint32_t i = 0; i < turn / 3; i++) {
            if (step_run(r.step, every_third_time, &asked, &err) == OK)
                break;
            err_clear(&err);
        }
        step_abandon(r.step);
        balances(&r);
        feed(&r, 1, false, NULL);
    }
    run_close(&r);
}

// --- what is predicted ---------------------------------------------------------------------------

// On a virtual clock no time passes but the disk's, so the same is read, and counted, every time.
static struct prefetch_count virtually(enum prefetch_mode mode, enum prefetch_kind kind,
                                       uint32_t n_slots, struct slots_stats *stats) {
    struct clock_virtual clock;
    struct run r;
    clock_virtual_init(&clock);
    struct disk_model_options model = {
        .clock = &clock, .bytes_per_s = 1000000000, .latency_ns = 100000, .depth = 8
    };
    struct disk *disk = shard_disk_open(&model);
    struct sluice_options o = test_options();
    o.prefetch = mode;
    o.n_slots = n_slots;
    o.disk = disk;
    run_open(&r, &o);
    assert_int_equal(feed_all(&r, false), 0);
    for (int other = 0; other < PREFETCH_KINDS; other++)
        if (other != (int)kind && mode != PREFETCH_AUTO)
            assert_int_equal(total(&r, (enum prefetch_kind)other).predicted, 0);
    struct prefetch_count count = total(&r, kind);
    slots_stats(r.engine->slots, stats);
    run_close(&r);
    disk_close(disk);
    return count;
}

static void with_prefetch_off_nothing_is_read_ahead_and_reads_are_reproducible(void **state) {
    (void)state;
    struct slots_stats first, second;
    struct prefetch_count count = virtually(PREFETCH_OFF, PREFETCH_BY_HASH, 8, &first);
    assert_int_equal(count.predicted, 0);
    assert_int_equal(first.prefetched, 0);
    assert_int_equal(first.joined, 0);
    virtually(PREFETCH_OFF, PREFETCH_BY_HASH, 8, &second);
    assert_memory_equal(&first, &second, sizeof first);
}

static void layers_routed_by_table_are_known_before_the_step(void **state) {
    (void)state;
    struct slots_stats off, on;
    virtually(PREFETCH_OFF, PREFETCH_BY_HASH, 10, &off);
    struct prefetch_count count = virtually(PREFETCH_HASH, PREFETCH_BY_HASH, 10, &on);
    assert_true(count.wanted > 0);
    assert_int_equal(count.right, count.wanted);    // all of them,
    assert_int_equal(count.right, count.predicted); // and no others
    assert_int_equal(count.in_vain + count.cancelled, 0);
    assert_int_equal(on.prefetch_used, count.used);
    assert_int_equal(on.demanded, off.demanded);
    assert_true(count.used > 0 && on.misses < off.misses);
}

static void early_gates_guess_better_than_chance(void **state) {
    (void)state;
    struct slots_stats stats;
    struct prefetch_count count = virtually(PREFETCH_GATE, PREFETCH_BY_GATE, 10, &stats);
    // One row: K of E; five rows want most of them.
    assert_true(count.predicted > 0 && count.used > 0);
    assert_true(count.right * N_EXPERTS * 10 > count.predicted * N_CHOSEN * 13);
    assert_true(count.read < count.predicted); // some were there
    struct slots_stats again;
    struct prefetch_count second = virtually(PREFETCH_GATE, PREFETCH_BY_GATE, 10, &again);
    assert_memory_equal(&count, &second, sizeof count);
    assert_memory_equal(&stats, &again, sizeof stats);
}

static void a_wrong_guess_is_taken_back(void **state) {
    (void)state;
    struct slots_stats stats;
    struct prefetch_count count = virtually(PREFETCH_GATE, PREFETCH_BY_GATE, ALL_SLOTS / 2, &stats);
    assert_true(count.in_vain + count.cancelled > 0);
    assert_int_equal(count.in_vain + count.cancelled + count.lost, count.read - count.used);
}

// The disk has one chunk at a time, and between two demands no time passes: nothing ever arrives early.
static void early_gates_rest_where_there_is_nothing_to_hide_reads_in(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct run r;
    clock_virtual_init(&clock);
    struct disk_model_options model = { .clock = &clock, .bytes_per_s = 1000000000, .depth = 1 };
    struct disk *disk = shard_disk_open(&model);
    struct sluice_options o = test_options();
    o.prefetch = PREFETCH_GATE;
    o.n_slots = 10;
    o.disk = disk;
    run_open(&r, &o);
    while (sequence_length(r.sequence) < 60)
        feed(&r, 1, false, NULL);
    uint64_t early = total(&r, PREFETCH_BY_GATE).predicted;
    while (sequence_length(r.sequence) < 210)
        feed(&r, 1, false, NULL);
    uint64_t before = total(&r, PREFETCH_BY_GATE).predicted;
    while (sequence_length(r.sequence) < 270)
        feed(&r, 1, false, NULL);
    uint64_t late = total(&r, PREFETCH_BY_GATE).predicted - before;
    assert_true(late > 0); // tried again now and then
    assert_true(late * 2 < early);
    balances(&r);
    run_close(&r);
    disk_close(disk);
}

// --- wide steps ----------------------------------------------------------------------------------

// Which experts rows choose, whatever the gate says: the first two, in one layer.
struct narrowing {
    uint32_t layer;
};

static bool at_routing(void *context, uint32_t layer, enum tap_point point) {
    const struct narrowing *n = context;
    return layer == n->layer && point == TAP_ROUTE_EXPERTS;
}

static bool the_first_two(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                          uint32_t n_rows, uint32_t width, void *data) {
    (void)context, (void)layer, (void)point, (void)first_row;
    int32_t *experts = data;
    for (uint32_t i = 0; i < n_rows * width; i++)
        experts[i] = (int32_t)(i % width);
    return true;
}

static void all_of_a_layer_is_asked_for_where_the_one_before_wanted_nearly_all(void **state) {
    (void)state;
    struct run r;
    struct account_report report;
    struct narrowing narrowing = { .layer = 2 };
    struct tap tap = { .context = &narrowing, .wants = at_routing, .see = the_first_two };
    struct sluice_options o = test_options();
    o.prefetch = PREFETCH_SWEEP;
    o.n_slots = ALL_SLOTS;
    run_open(&r, &o);
    feed(&r, STEP_NARROW_ROWS, false, NULL); // narrow
    assert_int_equal(total(&r, PREFETCH_BY_SWEEP).predicted, 0);
    feed(&r, N_PREFILL, false, &tap);
    sluice_report(r.engine, &report);
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        // After layer 2, which wanted two of six, nothing; before layer 0 there is none.
        uint32_t expected = layer == 0 || layer == 3 ? 0 : N_EXPERTS;
        assert_int_equal(report.prefetch[layer * PREFETCH_KINDS + PREFETCH_BY_SWEEP].predicted,
                         expected);
    }
    balances(&r);
    run_close(&r);
}

static void a_sweep_reads_hardly_more_than_without(void **state) {
    (void)state;
    struct slots_stats off, on;
    virtually(PREFETCH_OFF, PREFETCH_BY_SWEEP, N_EXPERTS + 4, &off);
    struct prefetch_count count = virtually(PREFETCH_SWEEP, PREFETCH_BY_SWEEP, N_EXPERTS + 4, &on);
    assert_true(count.used > 0);
    assert_int_equal(count.in_vain + count.cancelled, count.read - count.used - count.lost);
    // What is evicted depends on when it was asked for: a few reads more or less.
    assert_true(on.misses + on.prefetched <=
                off.misses + off.misses / 20 + count.in_vain + count.lost);
}

// --- wide steps, several layers routed by table --------------------------------------------------

#define TABLE_LAYERS 5 // of the made checkpoint, all of them; the committed one has one
#define WIDE_STEPS   6

// Experts that were asked for when the layer before them had been computed, and those further on.
struct ahead {
    const struct sluice *engine;
    uint32_t n_next, n_further;
};

static bool look_ahead(void *context, uint32_t layer, enum tap_point point) {
    struct ahead *a = context;
    const struct config *c = &a->engine->cp.config;
    for (uint32_t l = layer + 1; point == TAP_FFN_OUT && l < c->n_layers; l++)
        for (uint32_t e = 0; e < c->n_experts; e++)
            if (slots_state(a->engine->slots, l * c->n_experts + e) != SLOT_EMPTY)
                (*(l == layer + 1 ? &a->n_next : &a->n_further))++;
    return false;
}

// Each wants all experts; the first finds none and is looked at. On the virtual clock.
static struct slots_stats wide_steps(uint32_t n_slots, struct ahead *a) {
    struct clock_virtual clock;
    struct slots_stats stats;
    struct err err = { .status = OK };
    struct run r;
    const char *dir = fixture.dir;
    int32_t tokens[N_PREFILL];
    clock_virtual_init(&clock);
    struct disk_model_options model = {
        .clock = &clock, .bytes_per_s = 1000000000, .latency_ns = 100000, .depth = 8
    };
    struct sluice_options o = test_options();
    o.dirs = &dir;
    o.prefetch = PREFETCH_HASH;
    o.n_slots = n_slots;
    o.disk = shard_disk_open(&model);
    run_open(&r, &o);
    *a = (struct ahead){ .engine = r.engine };
    struct tap tap = { .context = a, .wants = look_ahead };
    for (int32_t n = 0; n < WIDE_STEPS; n++) {
        for (int32_t i = 0; i < N_PREFILL; i++)
            tokens[i] = (n * 31 + i * 7) % (int32_t)fixture.small.vocab;
        struct span span = {
            .sequence = r.sequence, .tokens = tokens, .n_tokens = N_PREFILL, .next_token = -1
        };
        struct step_options options = { .tap = n == 0 ? &tap : NULL };
        assert_int_equal(step_begin(r.step, &span, 1, &options, &err), OK);
        assert_int_equal(step_run(r.step, NULL, NULL, &err), OK);
        step_commit(r.step);
    }
    balances(&r);
    slots_stats(r.engine->slots, &stats);
    run_close(&r);
    disk_close(o.disk);
    return stats;
}

// All tables at once would evict what the layers before them are about to use.
static void tables_are_read_ahead_of_the_next_layer_only(void **state) {
    (void)state;
    struct ahead a;
    const uint32_t n_experts = fixture.small.n_experts, n_all = TABLE_LAYERS * n_experts;
    fixture.small.n_layers = fixture.small.n_hash_layers = TABLE_LAYERS;
    fixture_make(&(struct make_options){ .n_shards = 1 });
    for (uint32_t n_slots = n_experts + 2; n_slots <= n_all; n_slots += 6) {
        struct slots_stats stats = wide_steps(n_slots, &a);
        assert_int_equal(a.n_next, n_all - n_experts);
        assert_int_equal(a.n_further, 0);
        assert_int_equal(stats.demanded, WIDE_STEPS * n_all);
        if (n_slots > n_all / 2) // what is there is found again
            assert_true(stats.misses + stats.prefetched < stats.demanded);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_do_not_depend_on_prefetch),
        cmocka_unit_test(logits_do_not_depend_on_prefetch_from_a_slow_disk),
        cmocka_unit_test(a_failed_read_ahead_changes_no_bit),
        cmocka_unit_test(a_storm_of_faults_changes_no_bit),
        cmocka_unit_test(an_abandoned_step_leaves_nothing_predicted),
        cmocka_unit_test(with_prefetch_off_nothing_is_read_ahead_and_reads_are_reproducible),
        cmocka_unit_test(layers_routed_by_table_are_known_before_the_step),
        cmocka_unit_test(early_gates_guess_better_than_chance),
        cmocka_unit_test(a_wrong_guess_is_taken_back),
        cmocka_unit_test(early_gates_rest_where_there_is_nothing_to_hide_reads_in),
        cmocka_unit_test(all_of_a_layer_is_asked_for_where_the_one_before_wanted_nearly_all),
        cmocka_unit_test(a_sweep_reads_hardly_more_than_without),
        FIXTURE_TEST(tables_are_read_ahead_of_the_next_layer_only),
    };
    return cmocka_run_group_tests(tests, make_reference, free_reference);
}
