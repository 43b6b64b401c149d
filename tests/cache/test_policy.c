/* What every policy promises to the cache, and whom LRU evicts. */
#include "cache/policy.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#define N_SLOTS   8
#define N_LAYERS  2
#define N_EXPERTS 16

/* Lets go what is not in `keep`; waits at `wait_at`; counts what it was asked. */
struct gate {
    uint32_t keep; /* bits */
    uint32_t wait_at;
    uint32_t n_asked;
    uint32_t asked; /* bits */
    bool asked_twice;
};

static enum policy_verdict gate_verdict(void *context, uint32_t slot) {
    struct gate *gate = context;
    gate->n_asked++;
    gate->asked_twice |= gate->asked >> slot & 1;
    gate->asked |= 1u << slot;
    if (slot == gate->wait_at)
        return POLICY_WAIT;
    return gate->keep >> slot & 1 ? POLICY_SKIP : POLICY_TAKE;
}

static uint32_t victim(struct policy *p, struct gate *gate) {
    struct policy_judge judge = { .verdict = gate_verdict, .context = gate };
    gate->n_asked = gate->asked = 0;
    policy_check(p);
    return policy_victim(p, &judge);
}

static struct policy *opened(enum policy_kind kind) {
    struct policy_options options = {
        .kind = kind, .n_slots = N_SLOTS, .n_layers = N_LAYERS, .n_experts = N_EXPERTS
    };
    struct policy *p;
    assert_int_equal(policy_open(&p, &options, NULL), OK);
    return p;
}

/* The expert in a slot is that of its number, where a test does not care. */
static void use(struct policy *p, uint32_t slot) {
    policy_demand(p, 0);
    policy_touch(p, slot, slot, POLICY_USE);
}

#define EACH_POLICY(p)                                                                             \
    for (enum policy_kind kind = 0; kind < POLICY_KINDS; kind++)                                   \
        for (struct policy *p = opened(kind); p; policy_close(p), p = NULL)

static void nothing_is_ranked_at_first(void **state) {
    (void)state;
    EACH_POLICY(p) {
        struct gate gate = { .wait_at = POLICY_NONE };
        assert_int_equal(victim(p, &gate), POLICY_NONE);
        assert_int_equal(gate.n_asked, 0);
        assert_false(policy_ranked(p, 0));
    }
    policy_close(NULL);
}

static void a_forgotten_slot_is_no_choice(void **state) {
    (void)state;
    EACH_POLICY(p) {
        struct gate gate = { .wait_at = POLICY_NONE };
        use(p, 3);
        use(p, 1);
        policy_forget(p, 3);
        policy_forget(p, 3);
        policy_forget(p, 7);
        assert_false(policy_ranked(p, 3));
        assert_int_equal(victim(p, &gate), 1);
        policy_forget(p, 1);
        assert_int_equal(victim(p, &gate), POLICY_NONE);
    }
}

static void what_may_not_go_is_skipped(void **state) {
    (void)state;
    EACH_POLICY(p) {
        struct gate gate = { .wait_at = POLICY_NONE, .keep = 1u << 3 | 1u << 1 };
        use(p, 3);
        use(p, 1);
        use(p, 5);
        assert_int_equal(victim(p, &gate), 5);
        gate.keep |= 1u << 5;
        assert_int_equal(victim(p, &gate), POLICY_NONE);
        assert_int_equal(gate.asked, gate.keep);
        assert_int_equal(gate.n_asked, 3);
    }
}

static void waiting_for_one_spares_those_after_it(void **state) {
    (void)state;
    EACH_POLICY(p) {
        struct gate gate = { .wait_at = POLICY_NONE };
        use(p, 3);
        use(p, 1);
        use(p, 5);
        gate.wait_at = victim(p, &gate);
        assert_int_equal(victim(p, &gate), POLICY_NONE);
        assert_int_equal(gate.n_asked, 1);
    }
}

/* Demands of any kind, predictions, slots emptied: a slot that may go is found, each is asked about
 * once, and asking changes nothing. */
static void one_that_may_go_is_always_found(void **state) {
    (void)state;
    srand(1);
    EACH_POLICY(p) {
        uint32_t expert[N_SLOTS], ranked = 0;
        uint64_t where = 0; // experts that are in a slot
        for (int step = 0; step < 20000; step++) {
            uint32_t slot = (uint32_t)rand() % N_SLOTS, layer = (uint32_t)rand() % N_LAYERS;
            enum policy_touch touch = rand() % 4 ? POLICY_USE : POLICY_PREDICT;
            if (rand() % 2)
                policy_demand(p, layer);
            if (rand() % 4 == 0) {
                policy_forget(p, slot);
                where &= ranked >> slot & 1 ? ~(1ull << expert[slot]) : where;
                ranked &= ~(1u << slot);
            } else if (ranked >> slot & 1) {
                policy_touch(p, slot, expert[slot], touch);
            } else {
                do
                    expert[slot] = layer * N_EXPERTS + (uint32_t)rand() % N_EXPERTS;
                while (where >> expert[slot] & 1);
                where |= 1ull << expert[slot];
                ranked |= 1u << slot;
                policy_touch(p, slot, expert[slot], touch);
            }
            for (uint32_t i = 0; i < N_SLOTS; i++)
                assert_int_equal(policy_ranked(p, i), ranked >> i & 1);
            struct gate gate = { .wait_at = POLICY_NONE, .keep = (uint32_t)rand() & 0xFF };
            uint32_t found = victim(p, &gate);
            assert_false(gate.asked_twice);
            assert_int_equal(gate.asked & ~ranked, 0);
            if (ranked & ~gate.keep)
                assert_true((ranked & ~gate.keep) >> found & 1);
            else
                assert_int_equal(found, POLICY_NONE);
            assert_int_equal(victim(p, &gate), found);
        }
    }
}

/* --- LRU ---------------------------------------------------------------------------------------- */

static void the_slot_touched_longest_ago_goes_first(void **state) {
    (void)state;
    struct policy *p = opened(POLICY_LRU);
    struct gate gate = { .wait_at = POLICY_NONE };
    use(p, 3);
    use(p, 1);
    use(p, 5);
    assert_int_equal(victim(p, &gate), 3);
    use(p, 3);
    assert_int_equal(victim(p, &gate), 1);
    assert_int_equal(gate.n_asked, 1);
    policy_close(p);
}

/* Against times of last touch in an array. */
static void lru_agrees_with_a_list_of_times(void **state) {
    (void)state;
    struct policy *p = opened(POLICY_LRU);
    uint64_t touched[N_SLOTS] = { 0 }, time = 0;
    srand(1);
    for (int step = 0; step < 20000; step++) {
        uint32_t slot = (uint32_t)rand() % N_SLOTS;
        if (rand() % 4) {
            use(p, slot);
            touched[slot] = ++time;
        } else {
            policy_forget(p, slot);
            touched[slot] = 0;
        }
        struct gate gate = { .wait_at = POLICY_NONE, .keep = (uint32_t)rand() & 0xFF };
        uint32_t oldest = POLICY_NONE;
        for (uint32_t i = 0; i < N_SLOTS; i++)
            if (touched[i] && !(gate.keep >> i & 1))
                if (oldest == POLICY_NONE || touched[i] < touched[oldest])
                    oldest = i;
        assert_int_equal(victim(p, &gate), oldest);
    }
    policy_close(p);
}

/* --- those it is measured against ---------------------------------------------------------------- */

static void of_two_the_one_used_more_stays(void **state) {
    (void)state;
    static const enum policy_kind kinds[] = { POLICY_REUSE, POLICY_LFU };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct policy *p = opened(kinds[i]);
        struct gate gate = { .wait_at = POLICY_NONE };
        for (int n = 0; n < 6; n++)
            use(p, 2);
        use(p, 4); // later, but once
        policy_demand(p, 1);
        assert_int_equal(victim(p, &gate), 4);
        policy_close(p);
    }
}

/* A count is of experts, not of slots: it is remembered while they are away. */
static void who_was_used_less_than_the_oldest_passes_through(void **state) {
    (void)state;
    struct policy *p = opened(POLICY_TINYLFU);
    struct gate gate = { .wait_at = POLICY_NONE };
    for (int n = 0; n < 3; n++)
        use(p, 0);
    use(p, 1);
    assert_int_equal(victim(p, &gate), 1); // though 0 is older
    policy_forget(p, 1);
    for (int n = 0; n < 3; n++) {
        use(p, 1);
        policy_forget(p, 1);
    }
    use(p, 1);
    assert_int_equal(victim(p, &gate), 0);
    policy_close(p);
}

static void who_comes_back_soon_leaves_the_small_queue(void **state) {
    (void)state;
    struct policy *p = opened(POLICY_S3FIFO); // of 8 slots none is the small queue's share
    struct gate gate = { .wait_at = POLICY_NONE };
    use(p, 5);
    policy_forget(p, 5);
    use(p, 5); // into the main queue
    use(p, 6); // into the small one
    assert_int_equal(victim(p, &gate), 6);
    policy_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_ranked_at_first),
        cmocka_unit_test(a_forgotten_slot_is_no_choice),
        cmocka_unit_test(what_may_not_go_is_skipped),
        cmocka_unit_test(waiting_for_one_spares_those_after_it),
        cmocka_unit_test(one_that_may_go_is_always_found),
        cmocka_unit_test(the_slot_touched_longest_ago_goes_first),
        cmocka_unit_test(lru_agrees_with_a_list_of_times),
        cmocka_unit_test(of_two_the_one_used_more_stays),
        cmocka_unit_test(who_was_used_less_than_the_oldest_passes_through),
        cmocka_unit_test(who_comes_back_soon_leaves_the_small_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
