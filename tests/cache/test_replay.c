/* Replays against figures that can be told by hand, and against a cache that is searched the slow way. */
#include "cache/replay.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct replay_contender lru = { .policy = POLICY_LRU },
                                     reuse = { .policy = POLICY_REUSE };

static void add(struct replay_trace *t, uint32_t layer, const char *ids) {
    uint16_t list[64];
    for (uint32_t i = 0; ids[i]; i++)
        list[i] = (uint16_t)(ids[i] - 'a');
    assert_int_equal(replay_trace_add(t, layer, list, strlen(ids), NULL), OK);
}

static struct replay_trace of_one_layer(const char *uses) {
    struct replay_trace t;
    assert_int_equal(replay_trace_open(&t, 1, 26, NULL), OK);
    for (; *uses; uses++)
        add(&t, 0, (const char[2]){ *uses });
    return t;
}

static uint64_t misses(const struct replay_trace *t, const struct replay_contender *c,
                       uint32_t n_slots) {
    struct replay_result r;
    assert_int_equal(replay(t, c, n_slots, &r, NULL), OK);
    assert_int_equal(r.accesses, t->n_accesses);
    assert_true(r.first <= r.misses && r.misses <= r.accesses);
    return r.misses;
}

static void a_demand_is_distinct_and_ascending(void **state) {
    (void)state;
    struct replay_trace t;
    assert_int_equal(replay_trace_open(&t, 2, 26, NULL), OK);
    add(&t, 1, "cabcaz");
    add(&t, 0, "");
    add(&t, 0, "b");
    assert_int_equal(t.n_demands, 3);
    assert_int_equal(t.n_accesses, 5);
    const uint32_t ids[] = { 26, 27, 28, 51, 1 };
    assert_memory_equal(t.experts, ids, sizeof ids);
    assert_int_equal(t.begin[1], 4);
    assert_int_equal(t.begin[2], 4);
    assert_int_equal(misses(&t, &lru, 2), 5);
    replay_trace_close(&t);
}

static void misses_are_those_of_a_textbook(void **state) {
    (void)state;
    // The reference string of Belady, Nelson and Shedler (1969).
    struct replay_trace t = of_one_layer("abcdabeabcde");
    assert_int_equal(misses(&t, &lru, 3), 10);
    assert_int_equal(misses(&t, &lru, 4), 8);
    assert_int_equal(misses(&t, &replay_contenders[REPLAY_CONTENDERS - 1], 3), 7);
    assert_int_equal(misses(&t, &replay_contenders[REPLAY_CONTENDERS - 1], 4), 6);
    replay_trace_close(&t);
}

static void what_a_demand_has_yet_to_use_stays_for_it(void **state) {
    (void)state;
    struct replay_trace t;
    assert_int_equal(replay_trace_open(&t, 1, 26, NULL), OK);
    add(&t, 0, "c"); // the oldest when the next demand begins, and part of it
    add(&t, 0, "x");
    add(&t, 0, "abc");
    assert_int_equal(misses(&t, &lru, 2), 4);
    add(&t, 0, "vwxyz"); // more than there are slots
    add(&t, 0, "vwxyz");
    for (uint32_t i = 0; i < REPLAY_CONTENDERS; i++)
        misses(&t, &replay_contenders[i], 2);
    replay_trace_close(&t);
}

static uint32_t draw(uint64_t *seed, uint32_t below) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed >> 16) % below);
}

/* Some experts are common, some rare. */
static struct replay_trace drawn(uint64_t seed, uint32_t n_layers, uint32_t n_experts,
                                 uint32_t n_steps, uint32_t n_ids) {
    struct replay_trace t;
    assert_int_equal(replay_trace_open(&t, n_layers, n_experts, NULL), OK);
    for (uint32_t step = 0; step < n_steps; step++)
        for (uint32_t layer = 0; layer < n_layers; layer++) {
            uint16_t ids[64];
            for (uint32_t i = 0; i < n_ids; i++) {
                uint32_t a = draw(&seed, n_experts), b = draw(&seed, n_experts);
                ids[i] = (uint16_t)(a * b / n_experts);
            }
            assert_int_equal(replay_trace_add(&t, layer, ids, n_ids, NULL), OK);
        }
    return t;
}

/* The fewest misses, by trying every victim. */
static uint32_t fewest(const struct replay_trace *t, uint64_t at, uint32_t there,
                       uint32_t n_slots) {
    if (at == t->n_accesses)
        return 0;
    uint32_t bit = 1u << t->experts[at];
    if (there & bit)
        return fewest(t, at + 1, there, n_slots);
    if ((uint32_t)__builtin_popcount(there) < n_slots)
        return 1 + fewest(t, at + 1, there | bit, n_slots);
    uint32_t best = UINT32_MAX;
    for (uint32_t e = 0; e < t->n_experts; e++)
        if (there >> e & 1) {
            uint32_t n = 1 + fewest(t, at + 1, (there & ~(1u << e)) | bit, n_slots);
            best = n < best ? n : best;
        }
    return best;
}

static void belady_has_the_fewest_misses_that_can_be(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 40; seed++) {
        struct replay_trace t = drawn(seed * 7919, 1, 6, 13, 1);
        for (uint32_t n_slots = 1; n_slots < 4; n_slots++) {
            struct replay_result r;
            assert_int_equal(replay_belady(&t, n_slots, &r, NULL), OK);
            assert_int_equal(r.misses, fewest(&t, 0, 0, n_slots));
        }
        replay_trace_close(&t);
    }
}

static void nobody_beats_belady(void **state) {
    (void)state;
    struct replay_trace t = drawn(12345, 5, 40, 300, 6);
    static const uint32_t sizes[] = { 1, 2, 3, 10, 40, 100, 200 };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t least = misses(&t, &replay_contenders[REPLAY_CONTENDERS - 1], sizes[s]);
        for (uint32_t i = 0; i < REPLAY_CONTENDERS; i++)
            if (sizes[s] >= 5 || !replay_contenders[i].per_layer) // a slot for each layer
                assert_true(misses(&t, &replay_contenders[i], sizes[s]) >= least);
    }
    replay_trace_close(&t);
}

static void all_that_fits_is_read_once(void **state) {
    (void)state;
    struct replay_trace t = drawn(99, 3, 20, 100, 3);
    for (uint32_t i = 0; i < REPLAY_CONTENDERS; i++) {
        struct replay_result r;
        uint32_t n_slots = replay_contenders[i].pinned > 0 ? 120 : 60;
        assert_int_equal(replay(&t, &replay_contenders[i], n_slots, &r, NULL), OK);
        assert_int_equal(r.misses, r.first);
    }
    replay_trace_close(&t);
}

static void the_same_trace_gives_the_same_misses(void **state) {
    (void)state;
    struct replay_trace t = drawn(5, 6, 64, 200, 4);
    for (uint32_t i = 0; i < REPLAY_CONTENDERS; i++)
        assert_int_equal(misses(&t, &replay_contenders[i], 70),
                         misses(&t, &replay_contenders[i], 70));
    replay_trace_close(&t);
}

/* --- what the default has to be good for ----------------------------------------------------------- */

/* Pass after pass over all experts: nothing but a fixed part can be kept, and that is kept. */
static void a_cyclic_sweep_keeps_a_part_of_it(void **state) {
    (void)state;
    struct replay_trace t;
    uint16_t all[100];
    assert_int_equal(replay_trace_open(&t, 10, 100, NULL), OK);
    for (uint16_t e = 0; e < 100; e++)
        all[e] = e;
    for (uint32_t pass = 0; pass < 20; pass++)
        for (uint32_t layer = 0; layer < 10; layer++)
            assert_int_equal(replay_trace_add(&t, layer, all, 100, NULL), OK);
    assert_int_equal(misses(&t, &lru, 500), t.n_accesses);
    for (uint32_t n_slots = 50; n_slots <= 800; n_slots *= 2) {
        struct replay_result least;
        uint64_t n = misses(&t, &reuse, n_slots);
        assert_int_equal(replay_belady(&t, n_slots, &least, NULL), OK);
        // Of what could be found at best, most is.
        assert_true((t.n_accesses - n) * 10 > (t.n_accesses - least.misses) * 6);
    }
    replay_trace_close(&t);
}

static void below_one_tokens_working_set_something_is_found(void **state) {
    (void)state;
    struct replay_trace t = drawn(77, 30, 128, 400, 6); // about 180 experts a step
    assert_int_equal(misses(&t, &lru, 60), t.n_accesses);
    assert_true(misses(&t, &reuse, 60) * 100 < t.n_accesses * 97);
    replay_trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_demand_is_distinct_and_ascending),
        cmocka_unit_test(misses_are_those_of_a_textbook),
        cmocka_unit_test(what_a_demand_has_yet_to_use_stays_for_it),
        cmocka_unit_test(belady_has_the_fewest_misses_that_can_be),
        cmocka_unit_test(nobody_beats_belady),
        cmocka_unit_test(all_that_fits_is_read_once),
        cmocka_unit_test(the_same_trace_gives_the_same_misses),
        cmocka_unit_test(a_cyclic_sweep_keeps_a_part_of_it),
        cmocka_unit_test(below_one_tokens_working_set_something_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
