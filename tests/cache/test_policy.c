/* Whom to evict: LRU, as the judge allows. */
#include "cache/policy.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#define N_SLOTS 8

/* Lets go what is not in `keep`; waits at `wait_at`; counts what it was asked. */
struct gate {
    uint32_t keep; /* bits */
    uint32_t wait_at;
    uint32_t n_asked;
};

static enum policy_verdict gate_verdict(void *context, uint32_t slot) {
    struct gate *gate = context;
    gate->n_asked++;
    if (slot == gate->wait_at)
        return POLICY_WAIT;
    return gate->keep >> slot & 1 ? POLICY_SKIP : POLICY_TAKE;
}

static uint32_t victim(struct policy *p, struct gate *gate) {
    struct policy_judge judge = { .verdict = gate_verdict, .context = gate };
    gate->n_asked = 0;
    policy_check(p);
    return policy_victim(p, &judge);
}

static int open_policy(void **state) {
    struct policy *p;
    if (policy_open(&p, N_SLOTS, NULL) != OK)
        return -1;
    *state = p;
    return 0;
}

static int close_policy(void **state) {
    policy_close(*state);
    return 0;
}

static void nothing_is_ranked_at_first(void **state) {
    struct gate gate = { .wait_at = POLICY_NONE };
    assert_int_equal(victim(*state, &gate), POLICY_NONE);
    assert_int_equal(gate.n_asked, 0);
    assert_false(policy_ranked(*state, 0));
}

static void the_slot_touched_longest_ago_goes_first(void **state) {
    struct gate gate = { .wait_at = POLICY_NONE };
    policy_touch(*state, 3);
    policy_touch(*state, 1);
    policy_touch(*state, 5);
    assert_int_equal(victim(*state, &gate), 3);
    policy_touch(*state, 3);
    assert_int_equal(victim(*state, &gate), 1);
    assert_int_equal(victim(*state, &gate), 1); // asking changes nothing
    assert_int_equal(gate.n_asked, 1);
}

static void a_forgotten_slot_is_no_choice(void **state) {
    struct gate gate = { .wait_at = POLICY_NONE };
    policy_touch(*state, 3);
    policy_touch(*state, 1);
    policy_forget(*state, 3);
    policy_forget(*state, 3);
    policy_forget(*state, 7);
    assert_false(policy_ranked(*state, 3));
    assert_int_equal(victim(*state, &gate), 1);
    policy_forget(*state, 1);
    assert_int_equal(victim(*state, &gate), POLICY_NONE);
}

static void what_may_not_go_is_skipped(void **state) {
    struct gate gate = { .wait_at = POLICY_NONE, .keep = 1u << 3 | 1u << 1 };
    policy_touch(*state, 3);
    policy_touch(*state, 1);
    policy_touch(*state, 5);
    assert_int_equal(victim(*state, &gate), 5);
    assert_int_equal(gate.n_asked, 3);
    gate.keep |= 1u << 5;
    assert_int_equal(victim(*state, &gate), POLICY_NONE);
}

static void waiting_for_one_spares_those_after_it(void **state) {
    struct gate gate = { .wait_at = 1, .keep = 1u << 3 };
    policy_touch(*state, 3);
    policy_touch(*state, 1);
    policy_touch(*state, 5);
    assert_int_equal(victim(*state, &gate), POLICY_NONE);
    assert_int_equal(gate.n_asked, 2);
}

/* Against times of last touch in an array. */
static void agrees_with_a_list_of_times(void **state) {
    uint64_t touched[N_SLOTS] = { 0 }, time = 0;
    srand(1);
    for (int step = 0; step < 20000; step++) {
        uint32_t slot = (uint32_t)rand() % N_SLOTS;
        if (rand() % 4) {
            policy_touch(*state, slot);
            touched[slot] = ++time;
        } else {
            policy_forget(*state, slot);
            touched[slot] = 0;
        }
        struct gate gate = { .wait_at = POLICY_NONE, .keep = (uint32_t)rand() & 0xFF };
        uint32_t oldest = POLICY_NONE;
        for (uint32_t i = 0; i < N_SLOTS; i++) {
            assert_int_equal(policy_ranked(*state, i), touched[i] != 0);
            if (touched[i] && !(gate.keep >> i & 1))
                if (oldest == POLICY_NONE || touched[i] < touched[oldest])
                    oldest = i;
        }
        assert_int_equal(victim(*state, &gate), oldest);
    }
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_policy, close_policy)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_ranked_at_first),
        TEST(the_slot_touched_longest_ago_goes_first),
        TEST(a_forgotten_slot_is_no_choice),
        TEST(what_may_not_go_is_skipped),
        TEST(waiting_for_one_spares_those_after_it),
        TEST(agrees_with_a_list_of_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
