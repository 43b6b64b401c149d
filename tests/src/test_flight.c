/* Sequences that decode together, in groups that take turns: the bits of each are those that it has
 * alone, whatever the groups, the slots, the prefetch and the faults; and the disk has more to do. */
#include "io/disk.h"
#include "src/engine.h"
#include "src/flight.h"
#include "src/step.h"
#include "tests/support/engine.h"
#include "tests/support/shard_disk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_MEMBERS 5
#define MOST      24 // tokens that one of them says,
#define LONG      96 // or, where time has to tell, so many
#define ALL_SLOTS 30 // 5 layers of 6 experts

// What a sequence is to take in, and what it says: alone first, then among the others.
struct speaker {
    const int32_t *prompt;
    uint32_t n_prompt, n_wanted; // tokens that it says before it ends
    int32_t alone[LONG], said[LONG];
    uint32_t n_said;
    int32_t chosen;
    struct world *world;
};

struct world {
    struct sluice *engine;
    struct step *wide;
    struct flight *flight;
    struct flight_options options;
    struct speaker speakers[N_MEMBERS];
    uint32_t n_speakers;
    uint32_t most_apart;   // of what two said, at any time, that had as much to say
    uint32_t cancel_after; // looks until it is cancelled
    uint32_t fail_after;   // tokens until next() fails; UINT32_MAX: never
    uint32_t add_after;    // tokens until the last speaker comes; UINT32_MAX: never
    uint32_t n_tokens;
};

static int32_t golden[GOLDEN_TOKENS];
static struct speaker models[N_MEMBERS];

static int32_t best_of(const float *logits) {
    int32_t best = 0;
    for (int32_t i = 1; i < GOLDEN_VOCAB; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static void choose(void *context, const float *logits) {
    ((struct speaker *)context)->chosen = best_of(logits);
}

static void note_apart(struct world *w) {
    for (uint32_t i = 0; i < w->n_speakers; i++)
        for (uint32_t k = 0; k < i; k++) {
            uint32_t a = w->speakers[i].n_said, b = w->speakers[k].n_said;
            uint32_t apart = a > b ? a - b : b - a;
            if (apart > w->most_apart)
                w->most_apart = apart;
        }
}

static struct flight_sequence sequence_of(struct speaker *s);

static enum status next(void *context, int32_t *token, bool *more, struct err *err) {
    struct speaker *s = context;
    struct world *w = s->world;
    s->said[s->n_said++] = *token = s->chosen;
    *more = s->n_said < s->n_wanted;
    note_apart(w);
    if (++w->n_tokens == w->add_after) {
        struct flight_sequence late = sequence_of(&w->speakers[w->n_speakers++]);
        assert_int_equal(flight_add(w->flight, &late, err), OK);
    }
    return w->n_tokens == w->fail_after ? err_set(err, ERR_IO, "nobody listens") : OK;
}

static struct flight_sequence sequence_of(struct speaker *s) {
    return (struct flight_sequence){
        .prompt = s->prompt, .n_prompt = s->n_prompt, .logits = choose, .next = next, .context = s
    };
}

static bool cancel(void *context) {
    return ((struct world *)context)->cancel_after-- == 0;
}

// --- a run ---------------------------------------------------------------------------------------

static struct sluice_options engine_options(uint32_t n_groups) {
    struct sluice_options o = test_options();
    o.n_sequences = N_MEMBERS;
    o.n_narrow_steps = n_groups;
    return o;
}

static void open_world(struct world *w, const struct sluice_options *o, uint32_t n_groups,
                       uint32_t n_speakers) {
    struct err err = { .status = OK };
    *w = (struct world){ .engine = test_engine(o),
                         .n_speakers = n_speakers,
                         .cancel_after = UINT32_MAX,
                         .fail_after = UINT32_MAX,
                         .add_after = UINT32_MAX };
    w->options.n_groups = n_groups;
    assert_int_equal(step_open(&w->wide, w->engine, &err), OK);
    memcpy(w->speakers, models, sizeof models);
    for (uint32_t i = 0; i < N_MEMBERS; i++)
        w->speakers[i].world = w;
}

static void close_world(struct world *w) {
    flight_close(w->flight);
    slots_check(w->engine->slots);
    assert_int_equal(w->engine->kv.pages.n_free, w->engine->kv.pages.n_pages);
    step_close(w->wide);
    sluice_close(w->engine);
}

static void take_off(struct world *w) {
    struct err err = { .status = OK };
    w->options.cancel = cancel;
    w->options.context = w;
    assert_int_equal(flight_open(&w->flight, w->engine, w->wide, &w->options, &err), OK);
    for (uint32_t i = 0; i < w->n_speakers; i++) {
        struct flight_sequence s = sequence_of(&w->speakers[i]);
        assert_int_equal(flight_add(w->flight, &s, &err), OK);
    }
    flight_check(w->flight);
}

static void fly(struct world *w) {
    struct err err = { .status = OK };
    take_off(w);
    if (flight_run(w->flight, &err) != OK)
        fail_msg("%s", err.text);
    flight_check(w->flight);
}

static void all_said_what_they_say_alone(struct world *w) {
    for (uint32_t i = 0; i < w->n_speakers; i++) {
        const struct speaker *s = &w->speakers[i];
        assert_int_equal(s->n_said, s->n_wanted);
        assert_memory_equal(s->said, s->alone, s->n_said * sizeof *s->said);
    }
}

// Alone: a sequence and a step of its own, token by token, nothing of src/flight.c.
static void say_alone(struct speaker *s) {
    struct sluice_options o = test_options();
    struct sluice *engine = test_engine(&o);
    struct sequence *sequence;
    struct step *step;
    float *logits = malloc((size_t)GOLDEN_TOKENS * GOLDEN_VOCAB * sizeof *logits);
    struct err err = { .status = OK };
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    test_feed(step, sequence, s->prompt, s->n_prompt, 300, logits);
    s->alone[0] = best_of(logits + (size_t)(s->n_prompt - 1) * GOLDEN_VOCAB);
    for (uint32_t i = 1; i < LONG; i++) {
        test_feed(step, sequence, &s->alone[i - 1], 1, 1, logits);
        s->alone[i] = best_of(logits);
    }
    free(logits);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
}

static int prepare(void **state) {
    static const uint32_t first[N_MEMBERS] = { 0, 70, 3, 70, 200 };
    static const uint32_t n_prompt[N_MEMBERS] = { 40, 21, 1, 21, 60 }; // two have one prompt
    static const uint32_t n_wanted[N_MEMBERS] = { 14, 9, MOST, 9, 1 };
    (void)state;
    golden_tokens(golden);
    for (uint32_t i = 0; i < N_MEMBERS; i++) {
        models[i] = (struct speaker){ .prompt = golden + first[i],
                                      .n_prompt = n_prompt[i],
                                      .n_wanted = n_wanted[i] };
        say_alone(&models[i]);
    }
    return 0;
}

// --- the same bits -------------------------------------------------------------------------------

static void what_each_says_depends_on_nobody_else(void **state) {
    (void)state;
    static const uint32_t slots[] = { 2, 3, 7, ALL_SLOTS };
    for (uint32_t n_groups = 1; n_groups <= 3; n_groups++)
        for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
            for (int mode = PREFETCH_AUTO; mode <= PREFETCH_OFF; mode++) {
                struct sluice_options o = engine_options(n_groups);
                struct world w;
                o.n_slots = slots[i];
                o.prefetch = (enum prefetch_mode)mode;
                open_world(&w, &o, n_groups, N_MEMBERS);
                w.options.chunk = i % 2 ? 0 : 17; // prompts in one pass, or in several
                fly(&w);
                all_said_what_they_say_alone(&w);
                close_world(&w);
            }
}

// Two slots, two frames for the dense weights that are not in memory, and steps at different layers.
static void the_smallest_memory_is_enough_for_all_groups(void **state) {
    (void)state;
    for (uint32_t n_groups = 1; n_groups <= 3; n_groups++) {
        struct sluice_options o = engine_options(n_groups);
        struct sluice_fit fit;
        struct err err = { .status = OK };
        struct world w;
        o.n_slots = 2;
        assert_int_equal(sluice_fit(&o, &fit, &err), OK);
        o.ram_bytes = fit.needed_bytes;
        open_world(&w, &o, n_groups, N_MEMBERS);
        assert_true(sluice_fitted(w.engine)->dense_streamed_bytes > 0);
        fly(&w);
        all_said_what_they_say_alone(&w);
        close_world(&w);
    }
}

static void more_groups_than_sequences_do_no_harm(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= 2; n++) {
        struct sluice_options o = engine_options(4);
        struct world w;
        open_world(&w, &o, 4, n);
        fly(&w);
        all_said_what_they_say_alone(&w);
        close_world(&w);
    }
}

static void one_that_comes_later_is_taken_in(void **state) {
    (void)state;
    for (uint32_t after = 1; after < 30; after += 7) {
        struct sluice_options o = engine_options(2);
        struct world w;
        open_world(&w, &o, 2, N_MEMBERS - 2);
        w.add_after = after;
        fly(&w);
        assert_int_equal(w.n_speakers, N_MEMBERS - 1);
        all_said_what_they_say_alone(&w);
        close_world(&w);
    }
}

static void groups_that_end_unevenly_are_made_even(void **state) {
    (void)state;
    // Dealt in turn, the first and the third are one group; they outlive the second and the fourth.
    struct sluice_options o = engine_options(2);
    struct world w;
    o.n_slots = ALL_SLOTS;
    open_world(&w, &o, 2, 4);
    static const uint32_t n_wanted[] = { 20, 2, 20, 2 };
    for (uint32_t i = 0; i < 4; i++)
        w.speakers[i].n_wanted = n_wanted[i];
    fly(&w);
    all_said_what_they_say_alone(&w);
    // Steps of two rows until the short ones have ended, and one for both groups to notice; then each
    // of the others has its own: 2 + 2 · 18, had they stayed together 2 + 1 + 18.
    const struct account *account = sluice_account(w.engine);
    assert_int_equal(account->tokens[PHASE_DECODE], 19 + 1 + 19 + 1);
    assert_true(account->steps[PHASE_DECODE] > 2 + 2 * 16);
    assert_int_equal(account->sequences, 4);
    assert_int_equal(account->groups, 2);
    close_world(&w);
}

// --- taking turns --------------------------------------------------------------------------------

static void nobody_is_left_behind_where_all_is_at_hand(void **state) {
    (void)state;
    for (uint32_t n_groups = 2; n_groups <= 4; n_groups++) {
        struct sluice_options o = engine_options(n_groups);
        struct world w;
        o.n_slots = ALL_SLOTS;
        open_world(&w, &o, n_groups, 4);
        for (uint32_t i = 0; i < 4; i++)
            w.speakers[i].n_wanted = MOST;
        fly(&w);
        all_said_what_they_say_alone(&w);
        assert_true(w.most_apart <= 2); // one, and one that was said in the same round
        close_world(&w);
    }
}

static void prompts_share_a_pass(void **state) {
    (void)state;
    struct sluice_options o = engine_options(2);
    struct world w;
    open_world(&w, &o, 2, N_MEMBERS);
    fly(&w);
    const struct account *account = sluice_account(w.engine);
    assert_int_equal(account->steps[PHASE_PREFILL], 1);
    assert_int_equal(account->tokens[PHASE_PREFILL], 40 + 21 + 1 + 21 + 60);
    close_world(&w);
    open_world(&w, &o, 2, N_MEMBERS);
    w.options.chunk = 50; // 143 tokens in passes of 50
    fly(&w);
    assert_int_equal(sluice_account(w.engine)->steps[PHASE_PREFILL], 3);
    close_world(&w);
}

// --- on the virtual clock ------------------------------------------------------------------------

#define UNIT_NS 1000000u // to read one expert

// Stands in for a backend that takes time: the clock moves on where a step shows its buffers.
struct machine {
    struct clock_virtual clock;
    uint64_t attention_ns, expert_ns;
};

static bool moment(void *context, uint32_t layer, enum tap_point point) {
    struct machine *m = context;
    (void)layer;
    if (point == TAP_ATTN_OUT)
        clock_virtual_advance(&m->clock, m->attention_ns);
    if (point == TAP_FFN_OUT)
        clock_virtual_advance(&m->clock, m->expert_ns);
    return false;
}

static bool look_away(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                      uint32_t n_rows, uint32_t width, void *data) {
    (void)context, (void)layer, (void)point, (void)first_row, (void)n_rows, (void)width, (void)data;
    return false;
}

struct timing {
    uint64_t ns, busy_ns;
};

// n_groups 0: as many as turn out to be faster.
static struct timing time_of(uint32_t n_groups, uint32_t n_slots, enum prefetch_mode mode,
                             double attention, uint32_t n_wanted) {
    struct machine machine = { .attention_ns = (uint64_t)(attention * UNIT_NS),
                               .expert_ns = UNIT_NS / 10 };
    struct tap tap = { .context = &machine, .wants = moment, .see = look_away };
    struct sluice_options o = engine_options(n_groups ? n_groups : 2);
    struct sluice_fit fit;
    struct err err = { .status = OK };
    struct world w;
    clock_virtual_init(&machine.clock);
    assert_int_equal(sluice_fit(&o, &fit, &err), OK);
    struct disk_model_options model = { .clock = &machine.clock,
                                        .bytes_per_s = fit.slot_bytes * (1000000000u / UNIT_NS),
                                        .latency_ns = UNIT_NS / 50,
                                        .depth = 2 };
    o.disk = shard_disk_open(&model);
    o.n_slots = n_slots;
    o.prefetch = mode;
    open_world(&w, &o, n_groups, 4);
    w.options.tap = &tap;
    w.options.clock = &machine.clock.clock;
    for (uint32_t i = 0; i < 4; i++)
        w.speakers[i].n_wanted = n_wanted;
    fly(&w);
    all_said_what_they_say_alone(&w);
    struct account_report report;
    sluice_report(w.engine, &report);
    struct timing t = { machine.clock.now, report.reader.busy_ns };
    close_world(&w);
    disk_close(o.disk);
    return t;
}

// Two slots, streamed dense weights or not. A pass over prompts takes no turns: a step that stood still
// meanwhile might have what it waits for.
static void one_that_comes_later_needs_no_more_memory(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 24; i++) {
        struct machine machine = { .attention_ns = UNIT_NS / 2, .expert_ns = UNIT_NS / 10 };
        struct tap tap = { .context = &machine, .wants = moment, .see = look_away };
        struct sluice_options o = engine_options(2 + i % 2);
        struct sluice_fit fit;
        struct err err = { .status = OK };
        struct world w;
        clock_virtual_init(&machine.clock);
        o.n_slots = 2;
        assert_int_equal(sluice_fit(&o, &fit, &err), OK);
        o.ram_bytes = i / 2 % 2 ? fit.needed_bytes : o.ram_bytes;
        struct disk_model_options model = { .clock = &machine.clock,
                                            .bytes_per_s = fit.slot_bytes * (1000000000u / UNIT_NS),
                                            .latency_ns = UNIT_NS / 50,
                                            .depth = 2 };
        o.disk = shard_disk_open(&model);
        open_world(&w, &o, 2 + i % 2, N_MEMBERS - 1);
        w.options.tap = &tap;
        w.options.clock = &machine.clock.clock;
        w.add_after = 5 + 3 * (i / 4);
        w.cancel_after = 100000; // rather than wait forever
        fly(&w);
        assert_int_equal(w.n_speakers, N_MEMBERS);
        all_said_what_they_say_alone(&w);
        close_world(&w);
        disk_close(o.disk);
    }
}

// A layer's attention takes as long as half an expert's read. One group leaves the disk idle whenever it
// computes; of two, one reads meanwhile.
static void two_groups_leave_the_disk_idle_less_than_one(void **state) {
    (void)state;
    static const uint32_t slots[] = { 2, 4, 8 };
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        struct timing one = time_of(1, slots[i], PREFETCH_OFF, 0.5, MOST);
        struct timing two = time_of(2, slots[i], PREFETCH_OFF, 0.5, MOST);
        double idle_one = 1 - (double)one.busy_ns / (double)one.ns;
        double idle_two = 1 - (double)two.busy_ns / (double)two.ns;
        assert_true(idle_one > 0.1);
        assert_true(idle_two < 0.03);
        assert_true(two.ns < one.ns);
    }
}

static void the_number_of_groups_that_is_faster_is_found(void **state) {
    (void)state;
    // Arithmetic limits, and each group pays for it anew; the disk does.
    static const struct {
        uint32_t n_slots;
        double attention;
    } machines[] = { { ALL_SLOTS, 4 }, { 4, 0.5 } };
    for (size_t i = 0; i < 2; i++) {
        uint64_t ns[3];
        for (uint32_t n_groups = 0; n_groups < 3; n_groups++)
            ns[n_groups] =
                time_of(n_groups, machines[i].n_slots, PREFETCH_OFF, machines[i].attention, LONG)
                    .ns;
        uint64_t best = ns[1] < ns[2] ? ns[1] : ns[2], worst = ns[1] < ns[2] ? ns[2] : ns[1];
        assert_int_equal(best, ns[i + 1]);
        assert_true(ns[0] - best < (worst - best) / 2);
    }
}

static void groups_on_the_virtual_clock_do_the_same_every_time(void **state) {
    (void)state;
    for (uint32_t n_slots = 2; n_slots <= 16; n_slots += 7) {
        struct timing first = time_of(n_slots == 9 ? 0 : 2, n_slots, PREFETCH_AUTO, 0.5, LONG);
        struct timing again = time_of(n_slots == 9 ? 0 : 2, n_slots, PREFETCH_AUTO, 0.5, LONG);
        assert_int_equal(first.ns, again.ns);
        assert_int_equal(first.busy_ns, again.busy_ns);
    }
}

// --- interrupted ---------------------------------------------------------------------------------

static void cancelled_at_any_moment_it_goes_on_from_there(void **state) {
    (void)state;
    for (uint32_t after = 0; after < 130; after += 5) {
        struct sluice_options o = engine_options(2);
        struct world w;
        struct err err = { .status = OK };
        o.n_slots = 5;
        open_world(&w, &o, 2, N_MEMBERS);
        w.options.chunk = 50;
        w.cancel_after = after;
        take_off(&w);
        assert_int_equal(flight_run(w.flight, &err), CANCELLED);
        flight_check(w.flight);
        err_clear(&err);
        if (after % 2) { // given up instead
            close_world(&w);
            continue;
        }
        w.cancel_after = UINT32_MAX;
        if (flight_run(w.flight, &err) != OK)
            fail_msg("%s", err.text);
        all_said_what_they_say_alone(&w);
        close_world(&w);
    }
}

static void an_owner_that_fails_stops_all_and_ends_its_own(void **state) {
    (void)state;
    for (uint32_t after = 1; after < 30; after += 3) {
        struct sluice_options o = engine_options(2);
        struct world w;
        struct err err = { .status = OK };
        open_world(&w, &o, 2, N_MEMBERS);
        w.fail_after = after;
        take_off(&w);
        assert_int_equal(flight_run(w.flight, &err), ERR_IO);
        assert_string_equal(err.text, "nobody listens");
        flight_check(w.flight);
        err_clear(&err);
        assert_int_equal(flight_run(w.flight, &err), OK); // the others go on
        uint32_t n_whole = 0;
        for (uint32_t i = 0; i < w.n_speakers; i++) {
            const struct speaker *s = &w.speakers[i];
            n_whole += s->n_said == s->n_wanted;
            assert_memory_equal(s->said, s->alone, s->n_said * sizeof *s->said);
        }
        assert_true(n_whole >= N_MEMBERS - 1);
        close_world(&w);
    }
}

struct outcome {
    uint32_t n_errors;
    uint64_t n_chunks;
};

static void fly_through(const struct disk_faulty_options *faults, enum prefetch_mode mode,
                        struct outcome *out) {
    struct disk *inner, *disk;
    struct err err = { .status = OK };
    struct sluice_options o = engine_options(2);
    struct world w;
    if (disk_uring_open(&inner, 32, &err) != OK) {
        err_clear(&err);
        assert_int_equal(disk_pread_open(&inner, 8, &err), OK);
    }
    assert_int_equal(disk_faulty_open(&disk, inner, faults, &err), OK);
    o.disk = disk;
    o.prefetch = mode;
    o.n_slots = 7;
    open_world(&w, &o, 2, N_MEMBERS);
    for (uint32_t i = 0; i < N_MEMBERS; i++)
        if (w.speakers[i].n_wanted > 4)
            w.speakers[i].n_wanted = 4;
    take_off(&w);
    *out = (struct outcome){ 0 };
    enum status status;
    while ((status = flight_run(w.flight, &err)) != OK) {
        assert_true(status == ERR_IO || status == ERR_TRUNCATED);
        assert_non_null(strstr(err.text, "model-0000")); // the shard is named,
        assert_non_null(strstr(err.text, "byte"));       // and the place
        assert_true(++out->n_errors < 1000);
        flight_check(w.flight);
        slots_check(w.engine->slots);
        err_clear(&err);
    }
    all_said_what_they_say_alone(&w);
    out->n_chunks = disk_faulty_submitted(disk);
    close_world(&w);
    disk_close(disk);
    disk_close(inner);
}

static void a_read_that_fails_in_one_group_is_told_and_can_be_retried(void **state) {
    (void)state;
    struct outcome outcome = { .n_chunks = UINT64_MAX };
    uint32_t n_told = 0;
    uint64_t n = 1;
    for (; outcome.n_chunks >= n; n += 1 + n / 8) {
        struct disk_faulty_options faults = {
            .rules = { { .fault = n % 2 ? FAULT_EIO : FAULT_ZERO, .nth = n, .times = 2 } },
            .n_rules = 1
        };
        fly_through(&faults, PREFETCH_OFF, &outcome);
        // One expert's load; both groups may have waited for it, and twice.
        assert_true(outcome.n_errors <= 4);
        n_told += outcome.n_errors > 0;
    }
    assert_true(n > 25);
    assert_true(n_told > 5);
}

static void a_storm_of_faults_changes_no_bit(void **state) {
    (void)state;
    uint32_t seen = 0;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct disk_faulty_options faults = { .seed = seed };
        struct outcome outcome;
        faults.per_1000[FAULT_EIO] = 150;
        faults.per_1000[FAULT_SHORT] = 200;
        faults.per_1000[FAULT_EINTR] = 100;
        faults.per_1000[FAULT_ZERO] = 8;
        fly_through(&faults, PREFETCH_AUTO, &outcome);
        seen += outcome.n_errors;
    }
    assert_true(seen > 0);
}

// --- what is refused -----------------------------------------------------------------------------

static void prompts_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct sluice_options o = engine_options(2);
    struct world w;
    struct err err = { .status = OK };
    o.ctx = 50;
    open_world(&w, &o, 2, 4);
    take_off(&w);
    struct flight_sequence s = sequence_of(&w.speakers[4]);
    s.n_prompt = 0;
    assert_int_equal(flight_add(w.flight, &s, &err), ERR_USAGE);
    err_clear(&err);
    s.n_prompt = 51;
    assert_int_equal(flight_add(w.flight, &s, &err), ERR_MEMORY);
    assert_non_null(strstr(err.text, "--ctx"));
    err_clear(&err);
    s.n_prompt = 50;
    assert_int_equal(flight_add(w.flight, &s, &err), OK);
    assert_int_equal(flight_add(w.flight, &s, &err), ERR_USAGE); // one too many
    err_clear(&err);
    flight_check(w.flight);
    assert_int_equal(flight_length(w.flight, 4), 0);
    close_world(&w);
}

// --- what is recorded ----------------------------------------------------------------------------

// "sequence position token: experts" of every row, sorted: the order of steps depends on the clock.
static int by_text(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static char *recorded_rows(uint32_t n_groups) {
    char path[] = "/tmp/sluice-flight.XXXXXX";
    struct sluice_options o = engine_options(n_groups);
    struct world w;
    struct err err = { .status = OK };
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    o.n_slots = 5;
    open_world(&w, &o, n_groups, N_MEMBERS);
    struct routing_header header;
    routing_header_init(&header, sluice_config(w.engine), sluice_config(w.engine)->n_layers, 1);
    assert_int_equal(routing_writer_open(&w.options.routing, path, &err), OK);
    assert_int_equal(routing_writer_start(w.options.routing, &header, step_max_rows(w.wide), &err),
                     OK);
    w.options.chunk = 50;
    fly(&w);
    assert_int_equal(routing_writer_finish(w.options.routing, &err), OK);
    close_world(&w);
    routing_writer_close(w.options.routing);

    struct routing_reader *r;
    struct routing_step step;
    char *lines[512], *all;
    size_t n = 0, n_bytes;
    uint32_t n_rows_of[N_MEMBERS] = { 0 };
    enum status status;
    assert_int_equal(routing_reader_open(&r, path, &err), OK);
    while ((status = routing_reader_next(r, &step, &err)) == OK)
        for (uint32_t row = 0; row < step.n_rows; row++) {
            FILE *text = open_memstream(&lines[n++], &n_bytes);
            assert_true(text && n < 512);
            assert_true(step.sequence[row] < N_MEMBERS);
            n_rows_of[step.sequence[row]]++;
            fprintf(text, "%u %u %u:", step.sequence[row], step.position[row], step.token[row]);
            for (uint32_t block = 0; block < step.n_blocks; block++)
                for (uint32_t k = 0; k < 2; k++)
                    fprintf(text, " %u", routing_experts(&header, &step, block, row)[k]);
            fputc('\n', text);
            fclose(text);
        }
    assert_int_equal(status, DONE);
    routing_reader_close(r);
    unlink(path);
    // Every token of every prompt, and all that was said but the last ones.
    assert_int_equal(n, 40 + 21 + 1 + 21 + 60 + 13 + 8 + MOST - 1 + 8 + 0);
    for (uint32_t i = 0; i < N_MEMBERS; i++)
        assert_int_equal(n_rows_of[i], models[i].n_prompt + models[i].n_wanted - 1);
    qsort(lines, n, sizeof *lines, by_text);
    FILE *text = open_memstream(&all, &n_bytes);
    for (size_t i = 0; i < n; i++) {
        fputs(lines[i], text);
        free(lines[i]);
    }
    fclose(text);
    return all;
}

static void choices_are_recorded_of_every_row_whatever_the_groups(void **state) {
    (void)state;
    char *one = recorded_rows(1);
    for (uint32_t n_groups = 2; n_groups <= 3; n_groups++) {
        char *other = recorded_rows(n_groups);
        assert_string_equal(one, other);
        free(other);
    }
    free(one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_each_says_depends_on_nobody_else),
        cmocka_unit_test(the_smallest_memory_is_enough_for_all_groups),
        cmocka_unit_test(more_groups_than_sequences_do_no_harm),
        cmocka_unit_test(one_that_comes_later_is_taken_in),
        cmocka_unit_test(groups_that_end_unevenly_are_made_even),
        cmocka_unit_test(nobody_is_left_behind_where_all_is_at_hand),
        cmocka_unit_test(prompts_share_a_pass),
        cmocka_unit_test(one_that_comes_later_needs_no_more_memory),
        cmocka_unit_test(two_groups_leave_the_disk_idle_less_than_one),
        cmocka_unit_test(the_number_of_groups_that_is_faster_is_found),
        cmocka_unit_test(groups_on_the_virtual_clock_do_the_same_every_time),
        cmocka_unit_test(cancelled_at_any_moment_it_goes_on_from_there),
        cmocka_unit_test(an_owner_that_fails_stops_all_and_ends_its_own),
        cmocka_unit_test(a_read_that_fails_in_one_group_is_told_and_can_be_retried),
        cmocka_unit_test(a_storm_of_faults_changes_no_bit),
        cmocka_unit_test(prompts_that_cannot_be_are_refused),
        cmocka_unit_test(choices_are_recorded_of_every_row_whatever_the_groups),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
