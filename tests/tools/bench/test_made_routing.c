/* Traces that are made: they are traces, the same every time, and look like what others measured. */
#include "tools/bench/cache.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t hash_of(enum made_load load, uint64_t seed) {
    struct made_routing *m;
    struct routing_step step;
    uint64_t hash = 1469598103934665603ull;
    assert_int_equal(made_routing_open(&m, MADE_FLASH, load, seed, NULL), OK);
    for (int i = 0; i < 6 && made_routing_next(m, &step) == OK; i++) {
        size_t n = (size_t)step.n_rows * step.n_blocks * made_routing_header(m)->n_chosen;
        for (size_t j = 0; j < n; j++)
            hash = (hash ^ step.experts[j]) * 1099511628211ull;
    }
    made_routing_close(m);
    return hash;
}

static void a_seed_makes_the_same_trace_every_time(void **state) {
    (void)state;
    for (enum made_load load = 0; load < MADE_LOADS; load++) {
        assert_int_equal(hash_of(load, 1), hash_of(load, 1));
        assert_int_not_equal(hash_of(load, 1), hash_of(load, 2));
    }
}

/* As cache and statistics read them: src/routing_trace.h. */
static void they_keep_the_form_of_a_recorded_trace(void **state) {
    (void)state;
    for (enum made_load load = 0; load < MADE_LOADS; load++) {
        struct made_routing *m;
        struct routing_step step;
        uint32_t last[256] = { 0 }; // position of a sequence, and 1
        assert_int_equal(made_routing_open(&m, MADE_FLASH, load, 1, NULL), OK);
        const struct routing_header *h = made_routing_header(m);
        for (int i = 0; i < 6 && made_routing_next(m, &step) == OK; i++) {
            assert_int_equal(step.n_blocks, h->n_blocks);
            for (uint32_t row = 0; row < step.n_rows; row++) {
                assert_true(step.sequence[row] < 256);
                assert_int_equal(step.position[row], last[step.sequence[row]]++);
                for (uint32_t block = 0; block < step.n_blocks; block++) {
                    const uint16_t *chosen = routing_experts(h, &step, block, row);
                    for (uint32_t k = 0; k < h->n_chosen; k++) {
                        assert_true(chosen[k] < h->n_experts);
                        assert_true(k == 0 || chosen[k] > chosen[k - 1]);
                    }
                }
            }
        }
        made_routing_close(m);
    }
}

static void a_hash_layers_experts_follow_from_the_token(void **state) {
    (void)state;
    struct made_routing *m;
    struct routing_step step;
    assert_int_equal(made_routing_open(&m, MADE_FLASH, MADE_PREFILL, 1, NULL), OK);
    const struct routing_header *h = made_routing_header(m);
    uint32_t n_same = 0;
    assert_int_equal(made_routing_next(m, &step), OK);
    for (uint32_t a = 0; a < step.n_rows; a++)
        for (uint32_t b = a + 1; b < step.n_rows; b++)
            for (uint32_t block = 0; block < h->n_blocks && h->kind[block] & ROUTING_HASH; block++)
                if (step.token[a] == step.token[b]) {
                    assert_memory_equal(routing_experts(h, &step, block, a),
                                        routing_experts(h, &step, block, b),
                                        h->n_chosen * sizeof(uint16_t));
                    n_same++;
                }
    assert_true(n_same > 0);
    made_routing_close(m);
}

static bool never(void *context) {
    (void)context;
    return false;
}

static void a_chat_of_pro_looks_like_what_others_measured(void **state) {
    (void)state;
    struct bench_trace t;
    assert_int_equal(bench_trace_made(&t, MADE_PRO, MADE_CHAT, NULL), OK);
    assert_int_equal(bench_trace_replay(&t, never, NULL), OK);
    assert_true(t.overlap >= 0.35 && t.overlap <= 0.43);
    assert_true(t.lru_15 >= 0.46 && t.lru_15 <= 0.68);
    assert_true(t.lru_34 >= 0.78 && t.lru_34 <= 0.84);
    assert_true(t.lru_token < 0.005);
    // The default is no worse than LRU anywhere, and finds something where LRU does not.
    for (int size = 0; size < BENCH_SIZES; size++)
        for (int c = 0; c < REPLAY_CONTENDERS; c++)
            if (replay_contenders[c].policy == POLICY_DEFAULT && !replay_contenders[c].belady) {
                assert_true(t.results[c][size].misses <= t.results[0][size].misses);
                assert_true(bench_of_belady(&t, c, size) >= 1);
            }
    bench_trace_close(&t);
}

static bool at_once(void *context) {
    (void)context;
    return true;
}

static void a_replay_can_be_cancelled(void **state) {
    (void)state;
    struct bench_trace t;
    assert_int_equal(bench_trace_made(&t, MADE_FLASH, MADE_PREFILL, NULL), OK);
    assert_int_equal(bench_trace_replay(&t, at_once, NULL), CANCELLED);
    bench_trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_makes_the_same_trace_every_time),
        cmocka_unit_test(they_keep_the_form_of_a_recorded_trace),
        cmocka_unit_test(a_hash_layers_experts_follow_from_the_token),
        cmocka_unit_test(a_chat_of_pro_looks_like_what_others_measured),
        cmocka_unit_test(a_replay_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
