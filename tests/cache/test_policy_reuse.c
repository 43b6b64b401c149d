/* What POLICY_REUSE learns, and whom it spares. */
#include "cache/policy.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define N_LAYERS  4
#define N_EXPERTS 100
#define N_SLOTS   300

struct bench {
    struct policy *p;
    uint32_t order[N_SLOTS], n; /* as the slots were asked about */
    uint32_t n_wanted;          /* how many to let it ask about */
};

static enum policy_verdict note(void *context, uint32_t slot) {
    struct bench *b = context;
    b->order[b->n++] = slot;
    return b->n == b->n_wanted ? POLICY_TAKE : POLICY_SKIP;
}

static void setup(struct bench *b) {
    struct policy_options options = {
        .kind = POLICY_REUSE, .n_slots = N_SLOTS, .n_layers = N_LAYERS, .n_experts = N_EXPERTS
    };
    assert_int_equal(policy_open(&b->p, &options, NULL), OK);
}

/* The first n choices are in b->order. */
static void choices(struct bench *b, uint32_t n) {
    struct policy_judge judge = { .verdict = note, .context = b };
    b->n = 0;
    b->n_wanted = n;
    policy_check(b->p);
    policy_victim(b->p, &judge);
    policy_check(b->p);
}

static uint32_t first_choice(struct bench *b) {
    choices(b, 1);
    return b->order[0];
}

static uint32_t id(uint32_t layer, uint32_t expert) {
    return layer * N_EXPERTS + expert;
}

static void a_prediction_that_came_to_nothing_goes_first(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    policy_demand(b.p, 0);
    policy_touch(b.p, 0, id(0, 0), POLICY_USE);
    policy_touch(b.p, 1, id(1, 0), POLICY_PREDICT);
    policy_touch(b.p, 2, id(1, 1), POLICY_PREDICT);
    assert_int_equal(first_choice(&b), 0); // of its own reads before what is expected
    policy_demand(b.p, 1);
    policy_touch(b.p, 2, id(1, 1), POLICY_USE);
    assert_int_equal(first_choice(&b), 1); // its layer has come, and did not want it
    policy_close(b.p);
}

static void what_is_expected_outlasts_what_is_not(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    for (uint32_t slot = 0; slot < 4; slot++) {
        policy_demand(b.p, 2);
        policy_touch(b.p, slot, id(2, slot), POLICY_USE);
    }
    policy_touch(b.p, 0, id(2, 0), POLICY_PREDICT);
    policy_demand(b.p, 1);
    choices(&b, 4);
    assert_int_equal(b.order[3], 0);
    policy_demand(b.p, 2);
    assert_int_equal(first_choice(&b), 0); // it was not used: the oldest again
    policy_close(b.p);
}

static void a_demand_evicts_its_own_last(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    policy_demand(b.p, 0);
    for (uint32_t slot = 0; slot < 5; slot++)
        policy_touch(b.p, slot, id(0, slot), POLICY_USE);
    policy_demand(b.p, 1);
    for (uint32_t slot = 5; slot < 10; slot++)
        policy_touch(b.p, slot, id(1, slot), POLICY_USE);
    policy_touch(b.p, 2, id(0, 2), POLICY_USE);
    choices(&b, 10);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(b.order[i] < 5 && b.order[i] != 2);
    for (uint32_t i = 4; i < 9; i++)
        assert_int_equal(b.order[i], i + 1); // in the order of their touch
    assert_int_equal(b.order[9], 2);
    policy_close(b.p);
}

static void a_wide_pass_streams_through_few_slots(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    for (int step = 0; step < 12; step++) { // these are used by every step
        policy_demand(b.p, 1);
        for (uint32_t slot = 0; slot < 50; slot++)
            policy_touch(b.p, slot, id(1, slot), POLICY_USE);
        policy_demand(b.p, 0);
    }
    policy_demand(b.p, 2);
    uint32_t n_reads = 0;
    for (uint32_t slot = 50; slot < 150; slot++) {
        policy_touch(b.p, slot, id(2, slot - 50), POLICY_USE);
        n_reads++;
        if (first_choice(&b) >= 50)
            break;
    }
    assert_int_equal(n_reads, 16); // AHEAD; then the first of them is the first to go
    assert_int_equal(b.order[0], 50);
    policy_close(b.p);
}

/* Layer 0 uses its experts in turn, one a step, each every 10th step; layer 1 always draws new ones
 * that never come again. By recency those of layer 1 are the better ones. */
static void it_learns_what_comes_again(void **state) {
    (void)state;
    struct bench b;
    uint32_t slot_of[N_LAYERS * N_EXPERTS], n_slots = 0;
    memset(slot_of, 0xFF, sizeof slot_of);
    setup(&b);
    for (uint32_t step = 0; step < 100; step++)
        for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
            policy_demand(b.p, layer);
            uint32_t expert = layer == 0 ? id(0, step % 10) : id(1, step);
            if (layer > 1)
                continue;
            if (slot_of[expert] == UINT32_MAX)
                slot_of[expert] = n_slots++;
            policy_touch(b.p, slot_of[expert], expert, POLICY_USE);
        }
    policy_demand(b.p, 3);
    choices(&b, 20);
    uint32_t n_once = 0;
    for (uint32_t i = 0; i < 20; i++)
        for (uint32_t step = 0; step < 100; step++)
            n_once += slot_of[id(1, step)] == b.order[i];
    assert_int_equal(n_once, 20);
    policy_close(b.p);
}

/* Of two alike, it keeps the one whose layer comes first. */
static void the_layer_that_has_just_been_goes_before_the_one_that_comes(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    for (int step = 0; step < 40; step++)
        for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
            policy_demand(b.p, layer);
            policy_touch(b.p, layer, id(layer, 7), POLICY_USE);
        }
    policy_demand(b.p, 0);
    policy_touch(b.p, 0, id(0, 7), POLICY_USE);
    policy_demand(b.p, 1);
    policy_touch(b.p, 1, id(1, 7), POLICY_USE);
    choices(&b, 4); // 2 is next, then 3, then 0
    assert_int_equal(b.order[0], 0);
    assert_int_equal(b.order[1], 3);
    assert_int_equal(b.order[2], 2);
    assert_int_equal(b.order[3], 1); // of the demand under way
    policy_close(b.p);
}

/* A layer whose next uses are all known keeps only those for what comes next. */
static void what_is_known_not_to_be_used_next_goes_before_other_layers(void **state) {
    (void)state;
    struct bench b;
    setup(&b);
    for (int step = 0; step < 40; step++)
        for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
            policy_demand(b.p, layer);
            policy_touch(b.p, 2 * layer, id(layer, 7), POLICY_USE);
            policy_touch(b.p, 2 * layer + 1, id(layer, 8), POLICY_USE);
        }
    policy_demand(b.p, 0);
    policy_demand(b.p, 1); // neither of the two is used: 2 is next
    assert_true(first_choice(&b) < 4);
    policy_forget(b.p, 0);
    policy_forget(b.p, 1);
    policy_forget(b.p, 2);
    policy_forget(b.p, 3);
    choices(&b, 4);
    assert_int_equal(b.order[0] / 2, 3); // the layer after the next
    policy_touch(b.p, 4, id(2, 7), POLICY_PREDICT);
    policy_foretell(b.p, 2);
    choices(&b, 4);
    assert_int_equal(b.order[0], 5);
    assert_int_equal(b.order[3], 4);
    policy_demand(b.p, 2); // it has come: that was all
    policy_touch(b.p, 4, id(2, 7), POLICY_USE);
    policy_touch(b.p, 5, id(2, 8), POLICY_USE);
    assert_int_equal(first_choice(&b) / 2, 3);
    policy_close(b.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prediction_that_came_to_nothing_goes_first),
        cmocka_unit_test(what_is_expected_outlasts_what_is_not),
        cmocka_unit_test(a_demand_evicts_its_own_last),
        cmocka_unit_test(a_wide_pass_streams_through_few_slots),
        cmocka_unit_test(it_learns_what_comes_again),
        cmocka_unit_test(the_layer_that_has_just_been_goes_before_the_one_that_comes),
        cmocka_unit_test(what_is_known_not_to_be_used_next_goes_before_other_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
