/* Dense weights that are streamed: the same bits in any memory, the bytes that were planned, faults, steps
 * side by side. */
#include "io/disk.h"
#include "src/engine.h"
#include "src/schedule.h"
#include "src/step.h"
#include "tests/support/checkpoint_fixture.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V        1500 // the head is some panels of the size of a layer
#define N_TOKENS 40

static int32_t tokens[N_TOKENS + 1];

struct logits {
    float trunk[N_TOKENS][V], draft[N_TOKENS][V];
};

static void make_model(const struct make_options *options) {
    for (int32_t i = 0; i <= N_TOKENS; i++)
        tokens[i] = (i * i * 7 + i * 31) % V;
    fixture.small.vocab = V;
    fixture_make(options);
}

static struct sluice_options options_of(uint64_t ram_bytes) {
    static const char *dir;
    dir = fixture.dir;
    return (struct sluice_options){ .dirs = &dir,
                                    .n_dirs = 1,
                                    .ram_bytes = ram_bytes,
                                    .ctx = N_TOKENS,
                                    .chunk = N_TOKENS,
                                    .n_sequences = 2,
                                    .n_narrow_steps = 1,
                                    .n_slots = 3,
                                    .n_threads = 1,
                                    .drafts = true };
}

static struct sluice_fit fit_of(const struct sluice_options *o) {
    struct sluice_fit fit;
    struct err err = { .status = OK };
    if (sluice_fit(o, &fit, &err) != OK && err.status != ERR_MEMORY)
        fail_msg("%s", err.text);
    return fit;
}

// The memory in which as little as can be stays, and that in which everything does.
static uint64_t least_ram(void) {
    struct sluice_options o = options_of(1);
    return fit_of(&o).needed_bytes;
}

static uint64_t ample_ram(void) {
    struct sluice_options o = options_of(1ull << 30);
    return fit_of(&o).used_bytes;
}

static void keep(void *context, uint32_t index, bool draft, const float *logits) {
    struct logits *out = context;
    memcpy((draft ? out->draft : out->trunk)[index], logits, V * sizeof *logits);
}

static struct feed feed_of(struct sequence *sequence, uint32_t chunk, struct logits *out) {
    return (struct feed){ .sequence = sequence,
                          .tokens = tokens,
                          .n_tokens = N_TOKENS,
                          .n_logits = N_TOKENS,
                          .chunk = chunk,
                          .draft = true,
                          .next_token = tokens[N_TOKENS],
                          .logits = keep,
                          .context = out };
}

static struct logits *compute(const struct sluice_options *o, uint32_t chunk) {
    struct logits *out = calloc(1, sizeof *out);
    struct sluice *engine = test_engine(o);
    struct sequence *sequence;
    struct step *step;
    struct err err = { .status = OK };
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    struct feed feed = feed_of(sequence, chunk, out);
    if (schedule_feed(step, &feed, &err) != OK)
        fail_msg("%s", err.text);
    dense_check(&engine->dense);
    slots_check(engine->slots);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    return out;
}

// --- the plan ------------------------------------------------------------------------------------

static void a_plan_fits_its_room_and_leaves_nothing_out(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    fixture_open();
    const struct checkpoint *cp = &fixture.cp;
    struct dense_plan plan, least;
    dense_plan(&least, cp, checkpoint_n_blocks(cp), 0);
    assert_true(least.n_panels > 1 && least.n_streamed == least.n_units);
    assert_true(least.memory_bytes < least.all_bytes);
    uint64_t before = UINT64_MAX, step = (least.all_bytes - least.memory_bytes) / 40;
    for (uint64_t room = least.memory_bytes; room < least.all_bytes + step; room += step) {
        uint64_t kept = 0, pass = 0;
        dense_plan(&plan, cp, checkpoint_n_blocks(cp), room);
        assert_true(plan.memory_bytes <= room);
        assert_int_equal(plan.all_bytes, least.all_bytes);
        assert_int_equal(plan.n_panels, least.n_panels);
        for (uint32_t unit = 0; unit < plan.n_units; unit++) {
            struct dense_layout layout;
            dense_layout(&layout, &plan, cp, unit, NULL);
            if (!plan.streamed[unit])
                kept += weights_unit_bytes(cp, &plan, unit);
            else if (unit < cp->config.n_layers || unit >= plan.n_blocks)
                pass += layout.bytes;
            assert_true(!plan.streamed[unit] || layout.bytes <= plan.frame_bytes);
        }
        assert_int_equal(plan.bytes_per_pass, pass);
        assert_int_equal(plan.memory_bytes,
                         kept + least.trunk_bytes + least.draft_bytes + 2 * plan.frame_bytes);
        uint64_t streamed = plan.bytes_per_pass + plan.draft_pass;
        assert_true(streamed <= before + before / 4); // (units are not of one size)
        before = streamed;
        for (uint32_t unit = plan.n_blocks; unit < plan.n_units; unit++) // the head stays first
            assert_true(!plan.streamed[unit] || room < least.memory_bytes +
                                                           cp->global[TENSOR_HEAD].bytes +
                                                           64 * plan.n_panels);
    }
    assert_int_equal(plan.n_streamed, 0);
    assert_int_equal(plan.memory_bytes, plan.all_bytes);
    checkpoint_close(&fixture.cp);
}

static void parts_of_a_unit_lie_apart_and_panels_make_up_the_head(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 3 });
    fixture_open();
    const struct checkpoint *cp = &fixture.cp;
    struct dense_plan plan;
    dense_plan(&plan, cp, checkpoint_n_blocks(cp), 0);
    uint64_t at = cp->global[TENSOR_HEAD].offset;
    uint32_t row = 0;
    for (uint32_t i = 0; i < plan.n_panels; i++) {
        struct dense_panel panel = dense_panel(&plan, cp, i);
        assert_int_equal(panel.first_row, row);
        assert_int_equal(panel.place.offset, at);
        row += panel.n_rows;
        at += panel.place.bytes;
    }
    assert_int_equal(row, V);
    assert_int_equal(at, cp->global[TENSOR_HEAD].offset + cp->global[TENSOR_HEAD].bytes);
    for (uint32_t unit = 0; unit < plan.n_units; unit++) {
        struct tensor_place part[DENSE_MAX_PARTS];
        struct dense_layout layout;
        uint32_t n = weights_unit_parts(cp, &plan, unit, part);
        dense_layout(&layout, &plan, cp, unit, NULL);
        assert_int_equal(layout.n_parts, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(layout.at[i] + part[i].bytes <= layout.bytes);
            for (uint32_t k = 0; k < i; k++)
                assert_true(layout.at[i] >= layout.at[k] + part[k].bytes ||
                            layout.at[k] >= layout.at[i] + part[i].bytes);
        }
    }
    checkpoint_close(&fixture.cp);
}

static void less_than_the_least_is_refused_with_its_number(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 1 });
    struct sluice_options o = options_of(least_ram() - 1);
    struct sluice *engine;
    struct err err = { .status = OK };
    assert_int_equal(sluice_open(&engine, &o, &err), ERR_MEMORY);
    uint64_t mib = (least_ram() + (1 << 20) - 1) >> 20;
    char number[32];
    snprintf(number, sizeof number, "--ram %lluM", (unsigned long long)mib);
    assert_non_null(strstr(err.text, number));
    assert_non_null(strstr(err.text, "to stream"));
}

// --- bits ----------------------------------------------------------------------------------------

static void any_memory_gives_the_same_bits(void) {
    uint64_t least = least_ram(), ample = ample_ram();
    struct sluice_options o = options_of(ample);
    struct logits *whole = compute(&o, N_TOKENS);
    assert_true(least < ample && fit_of(&o).dense_streamed_bytes == 0);
    for (int i = 0; i <= 6; i++) {
        o.ram_bytes = least + (ample - least) * (uint64_t)i / 7;
        assert_true(i > 1 || fit_of(&o).dense_streamed_bytes > 0);
        struct logits *streamed = compute(&o, i % 3 == 0 ? N_TOKENS : i % 3 == 1 ? 1 : 17);
        assert_memory_equal(whole, streamed, sizeof *whole);
        free(streamed);
    }
    free(whole);
}

static void logits_do_not_depend_on_what_is_streamed(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    any_memory_gives_the_same_bits();
}

// Tensors at odd offsets, each layer a file, F32 scales (wo_a is converted, and stays).
static void nor_on_where_tensors_lie_and_how_they_are_scaled(void **state) {
    (void)state;
    make_model(&(struct make_options){ .layer_per_shard = true, .gap = 4099, .f32_scales = true });
    any_memory_gives_the_same_bits();
}

// --- bytes ---------------------------------------------------------------------------------------

// Until both frames hold what the next step begins with.
static void settle(struct sluice *engine) {
    struct dense *d = &engine->dense;
    for (int i = 0; i < DENSE_FRAMES; i++)
        for (slots_take_in(engine->slots); d->frame[i].state != FRAME_READY;
             slots_take_in(engine->slots))
            event_wait(reader_event(engine->reader), 100000000);
}

// All of it, but that a margin past the end of a file may be left out; or less, where units come again
// so soon that they are still there.
static void assert_read(const struct dense_stats *before, const struct dense_stats *now,
                        uint64_t bytes, bool less) {
    uint64_t got = now->bytes - before->bytes;
    if (got > bytes || (!less && got + (now->units - before->units) * READER_ALIGN < bytes))
        fail_msg("%llu bytes in %llu units: %llu were planned", (unsigned long long)got,
                 (unsigned long long)(now->units - before->units), (unsigned long long)bytes);
}

static void a_step_reads_what_was_planned(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    uint64_t least = least_ram(), ample = ample_ram();
    for (int i = 0; i < 4; i++) {
        struct sluice_options o = options_of(least + (ample - least) * (uint64_t)i / 9);
        struct sluice *engine = test_engine(&o);
        struct sequence *sequence;
        struct step *step;
        struct err err = { .status = OK };
        struct logits *out = calloc(1, sizeof *out);
        assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
        assert_int_equal(step_open(&step, engine, &err), OK);
        struct feed feed = feed_of(sequence, 1, out);
        bool draft = feed.draft = i % 2;
        const struct dense_plan *plan = &engine->weights.plan;
        uint64_t pass = plan->bytes_per_pass + (draft ? plan->draft_pass : 0);
        feed.n_tokens = feed.n_logits = 5;
        feed.next_token = tokens[5];
        assert_true(plan->n_streamed > DENSE_FRAMES);
        settle(engine);
        struct dense_stats before = engine->dense.stats;
        if (schedule_feed(step, &feed, &err) != OK)
            fail_msg("%s", err.text);
        settle(engine);
        assert_read(&before, &engine->dense.stats, 5 * pass, draft && i > 1);
        // Without logits the head is left where it is.
        uint64_t head = 0;
        uint32_t n_layers = plan->n_streamed;
        for (uint32_t unit = plan->n_blocks; unit < plan->n_units; unit++) {
            struct dense_layout layout;
            dense_layout(&layout, plan, &engine->cp, unit, NULL);
            head += plan->streamed[unit] ? layout.bytes : 0;
            n_layers -= plan->streamed[unit];
        }
        before = engine->dense.stats;
        feed.tokens += 5;
        feed.n_tokens = 3;
        feed.next_token = tokens[8];
        feed.n_logits = 0;
        if (schedule_feed(step, &feed, &err) != OK)
            fail_msg("%s", err.text);
        settle(engine);
        assert_read(&before, &engine->dense.stats, 3 * (pass - (draft ? 2 : 1) * head),
                    n_layers <= DENSE_FRAMES + 1);
        free(out);
        step_close(step);
        sequence_close(sequence);
        sluice_close(engine);
    }
}

// --- faults --------------------------------------------------------------------------------------

// The n-th read meets the fault `times` times; errors that a step told of, and reads in all.
static uint32_t with_fault(enum fault fault, uint64_t n, uint32_t times, enum status expected,
                           const struct logits *reference, uint64_t *n_reads) {
    struct disk *inner, *disk;
    struct err err = { .status = OK };
    struct disk_faulty_options faults = { .rules = { { .fault = fault, .nth = n, .times = times } },
                                          .n_rules = 1 };
    struct logits *out = calloc(1, sizeof *out);
    assert_int_equal(disk_pread_open(&inner, 4, &err), OK);
    assert_int_equal(disk_faulty_open(&disk, inner, &faults, &err), OK);
    struct sluice_options o = options_of(least_ram());
    o.disk = disk;
    o.prefetch = PREFETCH_OFF;
    struct sluice *engine = test_engine(&o);
    struct sequence *sequence;
    struct step *step;
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    uint32_t n_errors = 0;
    struct feed feed = feed_of(sequence, 9, out);
    feed.n_tokens = feed.n_logits = 18;
    feed.next_token = tokens[18];
    while (schedule_feed(step, &feed, &err) != OK) { // abandons; what was committed stays
        assert_int_equal(err.status, expected);
        assert_non_null(strstr(err.text, "model"));
        assert_non_null(strstr(err.text, "byte"));
        assert_null(strchr(err.text, '\n'));
        dense_check(&engine->dense);
        slots_check(engine->slots);
        assert_true(++n_errors < 100);
        uint32_t done = sequence_length(sequence);
        err_clear(&err);
        struct logits *rest = out;
        feed.tokens = tokens + done;
        feed.n_tokens = feed.n_logits = 18 - done;
        feed.context = (char *)rest + done * sizeof rest->trunk[0];
    }
    for (uint32_t i = 0; i < 18; i++) {
        assert_memory_equal(out->trunk[i], reference->trunk[i], sizeof out->trunk[i]);
        assert_memory_equal(out->draft[i], reference->draft[i], sizeof out->draft[i]);
    }
    *n_reads = disk_faulty_submitted(disk);
    free(out);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    disk_close(disk);
    disk_close(inner);
    return n_errors;
}

static void every_read(enum fault fault, uint32_t times, enum status expected) {
    struct sluice_options o = options_of(ample_ram());
    struct logits *reference = compute(&o, N_TOKENS);
    uint64_t n_reads = UINT64_MAX;
    uint32_t told = 0;
    for (uint64_t n = 1; n <= n_reads; n += 3) {
        uint32_t n_errors = with_fault(fault, n, times, expected, reference, &n_reads);
        assert_true(n_errors <= 1); // none: nobody waited for it yet, and it was read again
        told += n_errors;
    }
    assert_true(n_reads > 50 && (expected == OK ? told == 0 : told > 0));
    free(reference);
}

static void an_io_error_is_tried_again_and_does_not_show(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    every_read(FAULT_EIO, 1, OK);
}

static void a_second_io_error_is_told_and_can_be_retried(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    every_read(FAULT_EIO, 2, ERR_IO);
}

static void a_file_that_ends_early_is_told_and_can_be_retried(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    every_read(FAULT_ZERO, 1, ERR_TRUNCATED);
}

// Cut off while in use: one clear error for each try, and never an endless row of reads.
static void a_shard_truncated_meanwhile_is_named_at_every_try(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 1 });
    struct sluice_options o = options_of(least_ram());
    struct sluice *engine = test_engine(&o);
    struct sequence *sequence;
    struct step *step;
    struct err err = { .status = OK };
    struct logits *out = calloc(1, sizeof *out);
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    struct feed feed = feed_of(sequence, 1, out);
    feed.n_tokens = feed.n_logits = 1;
    feed.next_token = tokens[1];
    assert_int_equal(schedule_feed(step, &feed, &err), OK);
    const struct checkpoint_file *file = &engine->cp.files[0];
    assert_int_equal(truncate(file->path, (off_t)file->bytes / 2), 0);
    feed.tokens++;
    feed.next_token = tokens[2];
    for (int try = 0; try < 3; try++) {
        schedule_feed(step, &feed, &err);
        if (err.status != ERR_TRUNCATED || !strstr(err.text, "the file ends at byte"))
            fail_msg("%s", err.text);
        assert_int_equal(sequence_length(sequence), 1);
        dense_check(&engine->dense);
        err_clear(&err);
    }
    free(out);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
}

// --- steps side by side --------------------------------------------------------------------------

struct side {
    struct step *step;
    struct sequence *sequence;
    struct logits logits;
    uint32_t done, n; // tokens; of the step under way
};

static void keep_side(void *context, uint32_t row, bool draft, const float *logits) {
    struct side *side = context;
    keep(&side->logits, side->done + row, draft, logits);
}

static void begin_side(struct side *side, uint32_t n) {
    struct err err = { .status = OK };
    struct span span = { .sequence = side->sequence,
                         .tokens = tokens + side->done,
                         .n_tokens = n,
                         .n_logits = n,
                         .next_token = tokens[side->done + n] };
    struct step_options options = { .draft = true, .logits = keep_side, .context = side };
    side->n = n;
    if (step_begin(side->step, &span, 1, &options, &err) != OK)
        fail_msg("%s", err.text);
}

// Two steps, at whatever layers chance takes them to; now and then one is given up.
static void steps_at_different_layers_do_not_wait_for_each_other(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    struct sluice_options o = options_of(ample_ram());
    struct logits *reference = compute(&o, N_TOKENS);
    for (uint32_t seed = 0; seed < 6; seed++) {
        o = options_of(least_ram() + (seed % 2 ? (ample_ram() - least_ram()) / 3 : 0));
        struct sluice *engine = test_engine(&o);
        struct side *side = calloc(2, sizeof *side);
        struct err err = { .status = OK };
        uint64_t random = seed;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(sluice_sequence(engine, &side[i].sequence, &err), OK);
            assert_int_equal(step_open(&side[i].step, engine, &err), OK);
        }
        int idle = 0;
        while (side[0].done < N_TOKENS || side[1].done < N_TOKENS) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            struct side *s = &side[random >> 63];
            if (s->done == N_TOKENS)
                continue;
            uint32_t left = N_TOKENS - s->done, n = 1 + (uint32_t)(random >> 40) % 19;
            if (s->n == 0)
                begin_side(s, n < left ? n : left);
            enum status status = step_advance(s->step, &err);
            if (status == OK) {
                step_commit(s->step);
                s->done += s->n;
                s->n = 0;
            } else if ((random >> 20) % 64 == 0) {
                step_abandon(s->step);
                s->n = 0;
            } else {
                assert_int_equal(status, AGAIN);
                event_wait(step_event(s->step), 1000000);
            }
            dense_check(&engine->dense);
            assert_true(++idle < 200000);
        }
        for (int i = 0; i < 2; i++) {
            assert_memory_equal(&side[i].logits, reference, sizeof *reference);
            step_close(side[i].step);
            sequence_close(side[i].sequence);
        }
        free(side);
        sluice_close(engine);
    }
    free(reference);
}

// --- reads that fail ahead of need ---------------------------------------------------------------

// Least memory, from a drive whose first chunk fails so often; that has been tried, ahead of need.
struct unlucky {
    struct disk *inner, *disk;
    struct sluice *engine;
    struct side side[2];
};

static struct unlucky *open_unlucky(uint32_t times) {
    struct unlucky *u = calloc(1, sizeof *u);
    struct err err = { .status = OK };
    struct disk_faulty_options faults = {
        .rules = { { .fault = FAULT_EIO, .nth = 1, .times = times } }, .n_rules = 1
    };
    assert_int_equal(disk_pread_open(&u->inner, 4, &err), OK);
    assert_int_equal(disk_faulty_open(&u->disk, u->inner, &faults, &err), OK);
    struct sluice_options o = options_of(least_ram());
    o.disk = u->disk;
    o.prefetch = PREFETCH_OFF;
    u->engine = test_engine(&o);
    const struct dense *d = &u->engine->dense;
    for (int i = 0; d->stats.failed + d->stats.units < DENSE_FRAMES; i++) {
        assert_true(i < 1000);
        event_wait(reader_event(u->engine->reader), 10000000);
        slots_take_in(u->engine->slots);
    }
    assert_int_equal(d->stats.failed, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sluice_sequence(u->engine, &u->side[i].sequence, &err), OK);
        assert_int_equal(step_open(&u->side[i].step, u->engine, &err), OK);
    }
    return u;
}

static void close_unlucky(struct unlucky *u) {
    for (int i = 0; i < 2; i++) {
        step_close(u->side[i].step);
        sequence_close(u->side[i].sequence);
    }
    sluice_close(u->engine);
    disk_close(u->disk);
    disk_close(u->inner);
    free(u);
}

static bool finish_side(struct unlucky *u, struct side *s, uint32_t *n_errors) {
    struct err err = { .status = OK };
    enum status status = step_advance(s->step, &err);
    dense_check(&u->engine->dense);
    if (status == OK)
        step_commit(s->step);
    else if (status == AGAIN)
        event_wait(step_event(s->step), 1000000);
    else
        ++*n_errors;
    err_clear(&err);
    return status == OK;
}

static void what_failed_ahead_of_need_is_read_again_when_it_is_needed_and_not_before(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    struct sluice_options o = options_of(ample_ram());
    struct logits *reference = compute(&o, N_TOKENS);
    struct unlucky *u = open_unlucky(4);
    const struct dense *d = &u->engine->dense;
    struct err err = { .status = OK };
    uint32_t n_errors = 0;
    for (int i = 0; i < 5; i++) {
        begin_side(&u->side[0], 1);
        for (int frame = 0; frame < DENSE_FRAMES; frame++)
            assert_int_not_equal(d->frame[frame].state, FRAME_LOADING);
        step_abandon(u->side[0].step);
    }
    // It fails once more, and who has waited for it is gone before it is told.
    begin_side(&u->side[0], 1);
    assert_int_equal(step_advance(u->side[0].step, &err), AGAIN);
    for (int i = 0; d->stats.failed < 2; i++) {
        assert_true(i < 1000);
        event_wait(reader_event(u->engine->reader), 10000000);
        slots_take_in(u->engine->slots);
    }
    step_abandon(u->side[0].step);
    dense_check(d);
    begin_side(&u->side[0], 1);
    for (int i = 0; !finish_side(u, &u->side[0], &n_errors); i++)
        assert_true(i < 5000);
    assert_int_equal(n_errors, 0);
    assert_memory_equal(u->side[0].logits.trunk[0], reference->trunk[0],
                        sizeof reference->trunk[0]);
    close_unlucky(u);
    free(reference);
}

// It fails again where one step, the younger, waits for it, or both.
static void one_of_those_that_wait_is_told_and_the_others_have_it_read_again(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    struct sluice_options o = options_of(ample_ram());
    struct logits *reference = compute(&o, N_TOKENS);
    for (int n_waiting = 1; n_waiting <= 2; n_waiting++) {
        struct unlucky *u = open_unlucky(4);
        uint32_t n_errors = 0;
        bool done[2] = { false }, told[2] = { false };
        begin_side(&u->side[0], 1);
        begin_side(&u->side[1], 1);
        for (int i = 0; !done[0] || !done[1]; i++) {
            assert_true(i < 5000);
            for (int k = 1; k >= 0; k--) {
                // Who has been told does not try again until the other has gone on without.
                bool rests =
                    k == 0 && n_waiting == 1 ? !done[1] : n_waiting == 2 && told[k] && !done[!k];
                uint32_t before = n_errors;
                if (!done[k] && !rests)
                    done[k] = finish_side(u, &u->side[k], &n_errors);
                told[k] |= n_errors > before;
            }
        }
        assert_int_equal(n_errors, 1);
        for (int i = 0; i < 2; i++)
            assert_memory_equal(u->side[i].logits.trunk[0], reference->trunk[0],
                                sizeof reference->trunk[0]);
        close_unlucky(u);
    }
    free(reference);
}

// --- cancelling, going back ----------------------------------------------------------------------

static bool after_some_calls(void *context) {
    return --*(int *)context < 0;
}

static void a_cancelled_step_goes_on_or_is_given_up(void **state) {
    (void)state;
    make_model(&(struct make_options){ .n_shards = 2 });
    struct sluice_options o = options_of(ample_ram());
    struct logits *reference = compute(&o, N_TOKENS);
    o = options_of(least_ram());
    struct sluice *engine = test_engine(&o);
    struct side *side = calloc(1, sizeof *side);
    struct err err = { .status = OK };
    assert_int_equal(sluice_sequence(engine, &side->sequence, &err), OK);
    assert_int_equal(step_open(&side->step, engine, &err), OK);
    uint32_t cancelled = 0;
    for (int calls = 0; side->done < N_TOKENS; calls++) {
        int left = calls % 11;
        if (side->n == 0)
            begin_side(side, 5);
        if (step_run(side->step, after_some_calls, &left, &err) == OK) {
            step_commit(side->step);
            side->done += 5;
            side->n = 0;
            continue;
        }
        assert_int_equal(err.status, CANCELLED);
        err_clear(&err);
        dense_check(&engine->dense);
        if (++cancelled % 2 == 0) {
            step_abandon(side->step);
            side->n = 0;
        }
    }
    assert_true(cancelled > 20);
    assert_memory_equal(&side->logits, reference, sizeof *reference);

    // Back to the start by way of a fork: the same again.
    struct sequence *fork;
    assert_int_equal(sequence_rollback(side->sequence, 0, &err), OK);
    assert_int_equal(sequence_fork(&fork, side->sequence, &err), OK);
    struct logits *again = calloc(1, sizeof *again);
    struct feed feed = feed_of(fork, 11, again);
    if (schedule_feed(side->step, &feed, &err) != OK)
        fail_msg("%s", err.text);
    assert_memory_equal(again, reference, sizeof *reference);
    sequence_close(fork);
    step_close(side->step);
    sequence_close(side->sequence);
    sluice_close(engine);
    free(again);
    free(side);
    free(reference);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_plan_fits_its_room_and_leaves_nothing_out),
        FIXTURE_TEST(parts_of_a_unit_lie_apart_and_panels_make_up_the_head),
        FIXTURE_TEST(less_than_the_least_is_refused_with_its_number),
        FIXTURE_TEST(logits_do_not_depend_on_what_is_streamed),
        FIXTURE_TEST(nor_on_where_tensors_lie_and_how_they_are_scaled),
        FIXTURE_TEST(a_step_reads_what_was_planned),
        FIXTURE_TEST(an_io_error_is_tried_again_and_does_not_show),
        FIXTURE_TEST(a_second_io_error_is_told_and_can_be_retried),
        FIXTURE_TEST(a_file_that_ends_early_is_told_and_can_be_retried),
        FIXTURE_TEST(a_shard_truncated_meanwhile_is_named_at_every_try),
        FIXTURE_TEST(steps_at_different_layers_do_not_wait_for_each_other),
        FIXTURE_TEST(what_failed_ahead_of_need_is_read_again_when_it_is_needed_and_not_before),
        FIXTURE_TEST(one_of_those_that_wait_is_told_and_the_others_have_it_read_again),
        FIXTURE_TEST(a_cancelled_step_goes_on_or_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
