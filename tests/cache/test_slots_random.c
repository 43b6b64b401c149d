/* Slots under random demands, prefetches, cancels, failures and orders of completion, against a
 * model of what each demand may be told; and the promise that none of that decides what is read. */
#include "tests/cache/slots_bench.h"

#define UNIVERSE    14u /* experts in play: enough to share and to evict */
#define MAX_DEMANDS 3u
#define MAX_HOLDS   64u

static uint32_t draw(uint64_t *seed, uint32_t below) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed >> 16) % below);
}

static uint64_t seed_of(uint64_t n) {
    return (n + 1) * 0x9E3779B97F4A7C15ull;
}

/* A random ascending set; each expert with the chance of one in `rarity`. */
static uint32_t draw_set(uint64_t *seed, uint32_t rarity, uint32_t *out) {
    uint32_t n = 0;
    for (uint32_t expert = 0; expert < UNIVERSE; expert++)
        if (draw(seed, rarity) == 0)
            out[n++] = expert;
    return n;
}

/* --- the model of truth --------------------------------------------------------------------- */

enum expected { IS_NOT_ASKED, IS_AWAITED, IS_HANDED, HAS_FAILED /* not told yet */, IS_TOLD };

struct model_demand {
    struct asked asked;
    enum expected of[UNIVERSE];
    bool error_due;
    uint64_t age;
};

/* Handed out; `slot` carries its expert until `end`, if it was released, or for ever. */
struct hold {
    struct slot slot;
    bool released;
    struct event end;
};

struct world {
    struct bench b;
    uint64_t seed, n_opened;
    struct model_demand demands[MAX_DEMANDS];
    struct hold holds[MAX_HOLDS];
    uint32_t n_holds;
    uint64_t n_read, n_failed; /* requests that ended so */
};

/* A request is about to be taken in by slots: whoever awaits it will have to be told of a failure. */
static void request_fetched(void *context, const struct request *request) {
    struct world *w = context;
    uint32_t expert = (uint32_t)(request->reads[0].offset / EXPERT_BYTES);
    w->n_read += request->status == OK;
    if (request->status == OK || request->status == CANCELLED)
        return;
    w->n_failed++;
    for (uint32_t i = 0; i < MAX_DEMANDS; i++) {
        struct model_demand *m = &w->demands[i];
        if (m->asked.d.open && m->of[expert] == IS_AWAITED) {
            m->of[expert] = HAS_FAILED;
            m->error_due = true;
        }
    }
}

static struct model_demand *oldest(struct world *w) {
    struct model_demand *found = NULL;
    for (uint32_t i = 0; i < MAX_DEMANDS; i++)
        if (w->demands[i].asked.d.open && (!found || w->demands[i].age < found->age))
            found = &w->demands[i];
    return found;
}

/* What holds at any time, whoever did what. */
static void check(struct world *w) {
    slots_check(w->b.s);
    for (uint32_t i = 0; i < w->n_holds;) {
        struct hold *hold = &w->holds[i];
        if (hold->released && event_ready(hold->end)) {
            w->holds[i] = w->holds[--w->n_holds];
            continue;
        }
        assert_int_equal(slots_state(w->b.s, hold->slot.expert), SLOT_READY);
        carries_its_expert(&hold->slot);
        i++;
    }
    const struct reader *r = &w->b.reader;
    for (uint32_t i = 0; i < r->n_in_flight; i++)
        for (uint32_t k = 0; k < i; k++) // single flight
            assert_int_not_equal(r->in_flight[i]->reads[0].offset,
                                 r->in_flight[k]->reads[0].offset);
}

/* --- what may happen ------------------------------------------------------------------------ */

static void do_open(struct world *w) {
    for (uint32_t i = 0; i < MAX_DEMANDS; i++) {
        struct model_demand *m = &w->demands[i];
        if (m->asked.d.open)
            continue;
        uint32_t set[UNIVERSE], n = draw_set(&w->seed, 2 + draw(&w->seed, 3), set);
        ask(&w->b, &m->asked, draw(&w->seed, 2) ? ANY_ORDER : IN_ORDER, set, n);
        m->error_due = false;
        m->age = w->n_opened++;
        memset(m->of, 0, sizeof m->of);
        for (uint32_t k = 0; k < n; k++)
            m->of[set[k]] = IS_AWAITED;
        return;
    }
}

/* The first that was not handed out, in an IN_ORDER demand. */
static uint32_t due(const struct model_demand *m) {
    return m->asked.experts[m->asked.d.n_handed];
}

static void check_again(struct world *w, const struct model_demand *m) {
    assert_false(m->error_due);
    assert_true(m->asked.d.n_handed < m->asked.d.n_experts);
    for (uint32_t expert = 0; expert < UNIVERSE; expert++) {
        bool counts = m->asked.d.order == ANY_ORDER || expert == due(m);
        if (counts && m->of[expert] == IS_AWAITED)
            assert_int_not_equal(slots_state(w->b.s, expert), SLOT_READY);
    }
}

static enum status do_next(struct world *w, struct model_demand *m) {
    struct slot slot;
    struct err err = { 0 };
    uint32_t n_before = m->asked.d.n_handed, first = n_before < m->asked.d.n_experts ? due(m) : 0;
    enum status status = slots_next(&m->asked.d, &slot, &err);
    for (uint32_t expert = 0; expert < UNIVERSE; expert++)
        if (m->of[expert] == IS_TOLD)
            m->of[expert] = IS_AWAITED; // it asked again
    switch (status) {
    case OK:
        assert_false(m->error_due);
        assert_true(slot.expert < UNIVERSE && m->of[slot.expert] == IS_AWAITED);
        assert_true(m->asked.d.order == ANY_ORDER || slot.expert == first);
        assert_int_equal(m->asked.d.n_handed, n_before + 1);
        m->of[slot.expert] = IS_HANDED;
        assert_true(w->n_holds < MAX_HOLDS);
        w->holds[w->n_holds++] = (struct hold){ .slot = slot };
        break;
    case AGAIN:
        check_again(w, m);
        break;
    case DONE:
        assert_false(m->asked.d.open);
        assert_int_equal(m->asked.d.n_handed, m->asked.d.n_experts);
        break;
    default:
        assert_true(m->error_due && (status == ERR_IO || status == ERR_TRUNCATED));
        assert_non_null(strstr(err.text, "imaginary shard"));
        m->error_due = false;
        for (uint32_t expert = 0; expert < UNIVERSE; expert++)
            if (m->of[expert] == HAS_FAILED)
                m->of[expert] = IS_TOLD;
    }
    return status;
}

static void do_release(struct world *w, bool at_once) {
    for (uint32_t i = 0; i < w->n_holds; i++) {
        struct hold *hold = &w->holds[(i + draw(&w->seed, w->n_holds)) % w->n_holds];
        if (hold->released)
            continue;
        hold->released = true;
        hold->end = at_once ? event_now() : op_queued(&w->b);
        slots_release(w->b.s, &hold->slot, hold->end);
        return;
    }
}

static void do_end(struct world *w, bool may_fail) {
    struct reader *r = &w->b.reader;
    if (!r->n_in_flight)
        return;
    uint32_t i = draw(&w->seed, r->n_in_flight);
    if (may_fail && draw(&w->seed, 4) == 0)
        fake_fail(r, i, draw(&w->seed, 2) ? ERR_IO : ERR_TRUNCATED);
    else
        fake_end(r, i);
}

/* A prefetch takes nothing that a demand waits for, and nothing while one still lacks a slot. */
static void do_prefetch(struct world *w) {
    bool was_ready[UNIVERSE];
    for (uint32_t expert = 0; expert < UNIVERSE; expert++)
        was_ready[expert] = slots_state(w->b.s, expert) == SLOT_READY;
    uint64_t n_before = w->b.reader.n_submitted;
    uint32_t wanted = draw(&w->seed, UNIVERSE);
    if (!slots_prefetch(w->b.s, wanted))
        return;
    assert_int_not_equal(slots_state(w->b.s, wanted), SLOT_EMPTY);
    enum read_priority last = w->b.reader.log[w->b.reader.n_log - 1].priority;
    if (w->b.reader.n_submitted == n_before || last != READ_PREFETCH)
        return;
    for (uint32_t i = 0; i < MAX_DEMANDS; i++)
        for (uint32_t expert = 0; expert < UNIVERSE; expert++) {
            const struct model_demand *m = &w->demands[i];
            if (!m->asked.d.open || m->of[expert] != IS_AWAITED)
                continue;
            assert_int_not_equal(slots_state(w->b.s, expert), SLOT_EMPTY);
            if (was_ready[expert])
                assert_int_equal(slots_state(w->b.s, expert), SLOT_READY);
        }
}

static void random_action(struct world *w) {
    struct model_demand *any = &w->demands[draw(&w->seed, MAX_DEMANDS)];
    struct model_demand *first = oldest(w);
    bool was_ready[UNIVERSE];
    for (uint32_t expert = 0; expert < UNIVERSE; expert++)
        was_ready[expert] = slots_state(w->b.s, expert) == SLOT_READY;
    switch (draw(&w->seed, 16)) {
    case 0:
    case 1:
        do_open(w);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        if (any->asked.d.open && w->n_holds < MAX_HOLDS)
            do_next(w, any);
        break;
    case 6:
    case 7:
    case 8:
        do_release(w, draw(&w->seed, 2));
        break;
    case 9:
    case 10:
        do_end(w, true);
        break;
    case 11:
        if (w->b.reader.n_in_flight)
            fake_start(&w->b.reader, draw(&w->seed, w->b.reader.n_in_flight));
        break;
    case 12:
        if (event_source_reached(w->b.ops) < w->b.ops_issued)
            op_done(&w->b);
        break;
    case 13:
        do_prefetch(w);
        break;
    case 14:
        slots_prefetch_cancel(w->b.s, draw(&w->seed, UNIVERSE));
        break;
    case 15:
        if (any->asked.d.open && draw(&w->seed, 4) == 0)
            slots_abandon(&any->asked.d);
        break;
    }
    check(w);
    // Nobody takes from the oldest demand what it is about to be handed.
    if (first && first->asked.d.open && first->asked.d.order == ANY_ORDER)
        for (uint32_t expert = 0; expert < UNIVERSE; expert++)
            if (first->of[expert] == IS_AWAITED && was_ready[expert])
                assert_int_equal(slots_state(w->b.s, expert), SLOT_READY);
}

/* --- every demand gets to its end ----------------------------------------------------------- */

/* All demands say AGAIN, nothing is handed out and not released: then there is an event to wait
 * for, and it comes by itself: a read ends, or an op. */
static void wait_for_event(struct world *w) {
    struct event event = slots_event(w->b.s);
    if (event_ready(event))
        return;
    if (event.source == w->b.ops) {
        while (!event_ready(event))
            op_done(&w->b);
    } else {
        assert_true(w->b.reader.n_in_flight > 0);
        do_end(w, false);
        assert_true(event_ready(event));
    }
}

/* Likewise, where the others may have news but are not asked: whatever can end ends. */
static void let_time_pass(struct world *w) {
    while (event_source_reached(w->b.ops) < w->b.ops_issued)
        op_done(&w->b);
    do_end(w, false);
}

/* Either in turn, or only ever the oldest, which depends on no other's progress. */
static void run_to_the_end(struct world *w, bool oldest_only) {
    uint32_t n_idle = 0;
    for (uint32_t turn = 0; oldest(w); turn++) {
        for (uint32_t i = 0; i <= MAX_HOLDS; i++)
            if (w->n_holds)
                do_release(w, draw(&w->seed, 2));
        check(w);
        struct model_demand *m = oldest_only ? oldest(w) : &w->demands[turn % MAX_DEMANDS];
        if (!m->asked.d.open)
            continue;
        n_idle = do_next(w, m) == AGAIN ? n_idle + 1 : 0;
        check(w);
        if (oldest_only && n_idle)
            let_time_pass(w);
        else if (n_idle >= MAX_DEMANDS)
            wait_for_event(w);
        assert_true(n_idle < 50); // more than reads and ops can be under way
    }
}

static void check_stats(struct world *w) {
    struct slots_stats stats;
    uint64_t n_ready = 0;
    slots_stats(w->b.s, &stats);
    for (uint32_t expert = 0; expert < UNIVERSE; expert++)
        n_ready += slots_state(w->b.s, expert) == SLOT_READY;
    assert_int_equal(w->n_read, stats.evicted + n_ready);
    assert_int_equal(w->n_failed, stats.failed);
    assert_int_equal(stats.miss_bytes, stats.misses * EXPERT_BYTES);
    assert_true(stats.misses <= w->n_read);
    assert_true(stats.prefetch_used + stats.prefetch_cancelled <= stats.prefetched);
}

static void world_close(struct world *w) {
    while (event_source_reached(w->b.ops) < w->b.ops_issued)
        op_done(&w->b);
    for (uint32_t i = 0; i <= MAX_HOLDS; i++)
        if (w->n_holds)
            do_release(w, true);
    check(w);
    assert_int_equal(w->n_holds, 0);
    check_stats(w);
    while (w->b.reader.n_in_flight)
        do_end(w, false);
    bench_close(&w->b);
}

static void no_sequence_of_events_breaks_a_promise(void **state) {
    (void)state;
    for (uint64_t n = 0; n < 4000; n++) {
        static struct world w; // too big for a stack
        w = (struct world){ .seed = seed_of(n) };
        bench_open_policy(&w.b, 2 + (uint32_t)(n % 7), MAX_DEMANDS, n / 7 % POLICY_KINDS);
        w.b.reader.fetched = request_fetched;
        w.b.reader.context = &w;
        w.b.reader.slow_cancel = n % 2;
        w.b.reader.cuts_active = n % 3 == 0;
        for (uint32_t step = 0; step < 120; step++)
            random_action(&w);
        run_to_the_end(&w, n % 3 == 0);
        world_close(&w);
    }
}

/* --- what is read does not depend on the clock ---------------------------------------------- */

/* Demands drawn from `seed`; `luck` decides in which order reads end, and when ops do. Returns the
 * reads that were issued, each with the slot it went to. */
static struct fake_log *run_with_luck(uint64_t seed, uint64_t luck, uint32_t n_slots,
                                      enum policy_kind policy, uint32_t *n_reads) {
    struct bench b;
    bench_open_policy(&b, n_slots, 1, policy);
    for (uint32_t step = 0; step < 12; step++) {
        struct asked a;
        uint32_t set[UNIVERSE], n = draw_set(&seed, 2 + draw(&seed, 3), set);
        ask(&b, &a, draw(&seed, 3) ? ANY_ORDER : IN_ORDER, set, n);
        struct slot slot;
        for (enum status status; (status = slots_next(&a.d, &slot, NULL)) != DONE;) {
            slots_check(b.s);
            if (status == OK) {
                slots_release(b.s, &slot, draw(&luck, 3) ? op_queued(&b) : event_now());
                continue;
            }
            bool ops = event_source_reached(b.ops) < b.ops_issued;
            assert_true(ops || b.reader.n_in_flight);
            if (ops && (!b.reader.n_in_flight || draw(&luck, 2)))
                op_done(&b);
            else
                fake_end(&b.reader, draw(&luck, b.reader.n_in_flight));
        }
    }
    while (event_source_reached(b.ops) < b.ops_issued)
        op_done(&b);
    // The log names slots by their place in the memory, which another run has elsewhere.
    struct fake_log *log = b.reader.log;
    *n_reads = b.reader.n_log;
    for (uint32_t i = 0; i < *n_reads; i++)
        log[i].dst = (unsigned char *)(log[i].dst - b.memory);
    b.reader.log = NULL;
    bench_close(&b);
    return log;
}

static void what_is_read_and_evicted_depends_on_demands_only(void **state) {
    (void)state;
    for (uint64_t n = 0; n < 400; n++) {
        uint32_t n_slots = 2 + (uint32_t)(n % 7), n_first;
        enum policy_kind kind = n / 7 % POLICY_KINDS;
        struct fake_log *first = run_with_luck(seed_of(n), seed_of(0), n_slots, kind, &n_first);
        for (uint64_t luck = 1; luck < 6; luck++) {
            uint32_t n_reads;
            struct fake_log *log =
                run_with_luck(seed_of(n), seed_of(luck), n_slots, kind, &n_reads);
            assert_int_equal(n_reads, n_first);
            for (uint32_t i = 0; i < n_reads; i++) { // expert and slot: so also who had to go
                assert_int_equal(log[i].offset, first[i].offset);
                assert_ptr_equal(log[i].dst, first[i].dst);
            }
            free(log);
        }
        free(first);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_sequence_of_events_breaks_a_promise),
        cmocka_unit_test(what_is_read_and_evicted_depends_on_demands_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
