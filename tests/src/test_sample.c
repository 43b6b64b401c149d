#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/arith.h"
#include "src/random.h"
#include "src/sample.h"

static const struct sampling PLAIN = { .temperature = 1, .top_p = 1 };

static uint32_t draw(const float *logits, uint32_t n, struct sampling o, uint64_t seed,
                     uint64_t position) {
    struct sampler s;
    uint32_t token = UINT32_MAX;
    assert_int_equal(sampler_open(&s, n, NULL), OK);
    assert_int_equal(sampler_draw(&s, &o, logits, seed, position, &token, NULL), OK);
    sampler_close(&s);
    return token;
}

/* Which tokens come up in many draws, as bits. */
static uint32_t tokens_drawn(const float *logits, uint32_t n, struct sampling o) {
    struct sampler s;
    uint32_t token, drawn = 0;
    assert_int_equal(sampler_open(&s, n, NULL), OK);
    for (uint64_t position = 0; position < 3000; position++) {
        assert_int_equal(sampler_draw(&s, &o, logits, 5, position, &token, NULL), OK);
        drawn |= 1u << token;
    }
    sampler_close(&s);
    return drawn;
}

static void philox_gives_the_published_vectors(void **state) {
    (void)state;
    // Random123's kat_vectors, philox4x32 with 10 rounds.
    static const uint32_t CASES[3][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
          0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
        { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
          0x94fdcceb, 0x5001e420, 0x24126ea1 },
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        random_philox(CASES[i], CASES[i] + 4, out);
        assert_memory_equal(out, CASES[i] + 6, sizeof out);
    }
}

static void uniform_depends_on_seed_position_and_stream(void **state) {
    (void)state;
    double u = random_uniform(1, 2, 0);
    assert_true(u >= 0 && u < 1);
    assert_true(u == random_uniform(1, 2, 0));
    assert_true(u != random_uniform(2, 2, 0));
    assert_true(u != random_uniform(1, 3, 0));
    assert_true(u != random_uniform(1, 2, 1));
    assert_true(u != random_uniform(1 | (uint64_t)1 << 32, 2, 0));
    assert_true(u != random_uniform(1, 2 | (uint64_t)1 << 32, 0));
}

static void greedy_takes_the_lowest_id_of_equals(void **state) {
    (void)state;
    const float logits[] = { -1, 3, 2, 3, 3 };
    const float zeros[] = { -0.0f, 0.0f, -1 };
    struct sampling greedy = { .temperature = 0, .top_p = 1 };
    assert_int_equal(draw(logits, 5, greedy, 1, 1), 1);
    assert_int_equal(draw(zeros, 3, greedy, 1, 1), 0);
    assert_int_equal(
        draw(logits, 5, (struct sampling){ .temperature = 1e-30f, .top_p = 1, .top_k = 1 }, 1, 1),
        1);
}

/* 24 tokens, some equal, one excluded; compares counts with the softmax by chi-square. */
static void expect_softmax(float temperature, double limit) {
    enum { N = 24, DRAWS = 40000 };
    float logits[N];
    double p[N], sum = 0, chi = 0;
    uint32_t count[N] = { 0 }, token;
    for (int i = 0; i < N; i++) {
        logits[i] = i == 7 ? -INFINITY : (float)(i * 5 % 11) * 0.35f - 2;
        sum += p[i] = exp((double)logits[i] / (double)temperature);
    }
    struct sampler s;
    struct sampling o = { .temperature = temperature, .top_p = 1 };
    assert_int_equal(sampler_open(&s, N, NULL), OK);
    for (uint64_t position = 0; position < DRAWS; position++) {
        assert_int_equal(sampler_draw(&s, &o, logits, 42, position, &token, NULL), OK);
        count[token]++;
    }
    sampler_close(&s);
    assert_int_equal(count[7], 0);
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * p[i] / sum, d = (double)count[i] - expected;
        chi += expected > 0 ? d * d / expected : 0;
    }
    assert_true(chi < limit);
}

static void draws_follow_the_softmax(void **state) {
    (void)state;
    // 22 degrees of freedom: above 40.3 in one case of a hundred, and the seed is fixed.
    expect_softmax(1.0f, 40.3);
    expect_softmax(0.7f, 40.3);
    expect_softmax(3.0f, 40.3);
}

static void top_k_keeps_the_first_k_candidates(void **state) {
    (void)state;
    const float logits[] = { 1, 2, 1, 2, 1, 1.5f, 1 };
    struct sampling o = PLAIN;
    o.top_k = 1;
    assert_int_equal(tokens_drawn(logits, 7, o), 1u << 1);
    o.top_k = 2;
    assert_int_equal(tokens_drawn(logits, 7, o), 1u << 1 | 1u << 3);
    o.top_k = 4; // of the four equal ones the lowest id
    assert_int_equal(tokens_drawn(logits, 7, o), 1u << 1 | 1u << 3 | 1u << 5 | 1u << 0);
    o.top_k = 7;
    assert_int_equal(tokens_drawn(logits, 7, o), 0x7F);
    o.top_k = 1000;
    assert_int_equal(tokens_drawn(logits, 7, o), 0x7F);
}

static void top_p_keeps_the_shortest_prefix_that_reaches_it(void **state) {
    (void)state;
    const float logits[] = { 0, 0, 0, 0 }; // a quarter each, exactly
    struct sampling o = PLAIN;
    o.top_p = 0;
    assert_int_equal(tokens_drawn(logits, 4, o), 1);
    o.top_p = 0.25f;
    assert_int_equal(tokens_drawn(logits, 4, o), 1);
    o.top_p = 0.2501f;
    assert_int_equal(tokens_drawn(logits, 4, o), 3);
    o.top_p = 0.5f;
    assert_int_equal(tokens_drawn(logits, 4, o), 3);
    o.top_p = 0.99f;
    assert_int_equal(tokens_drawn(logits, 4, o), 15);
    o.top_p = 0.6f;
    o.top_k = 3; // of what top-k left: thirds
    assert_int_equal(tokens_drawn(logits, 4, o), 3);
    o.top_p = 0.7f;
    assert_int_equal(tokens_drawn(logits, 4, o), 7);
}

static void min_p_compares_with_the_highest(void **state) {
    (void)state;
    const float logits[] = { -1, 0, -0.5f, 0 };
    struct sampling o = PLAIN;
    o.min_p = 1;
    assert_int_equal(tokens_drawn(logits, 4, o), 1u << 1 | 1u << 3);
    o.min_p = arith_exp(-0.5f);
    assert_int_equal(tokens_drawn(logits, 4, o), 1u << 1 | 1u << 2 | 1u << 3);
    o.min_p = nextafterf(arith_exp(-0.5f), 1);
    assert_int_equal(tokens_drawn(logits, 4, o), 1u << 1 | 1u << 3);
    o.min_p = 0.6f;
    o.temperature = 0.5f; // exp(-1) is below it
    assert_int_equal(tokens_drawn(logits, 4, o), 1u << 1 | 1u << 3);
    o.temperature = 2; // exp(-0.5) too: 0.6065 is not
    assert_int_equal(tokens_drawn(logits, 4, o), 15);
}

static int by_logit_then_id(const void *x, const void *y, void *logits) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    const float *l = logits;
    return l[a] != l[b] ? (l[a] < l[b] ? 1 : -1) : (a > b) - (a < b);
}

/* The header's definition, with a plain sort. */
static uint32_t draw_by_definition(float *logits, uint32_t n, const struct sampling *o,
                                   uint64_t seed, uint64_t position) {
    uint32_t *id = malloc(n * sizeof *id);
    float *e = malloc(n * sizeof *e);
    assert_non_null(id);
    assert_non_null(e);
    for (uint32_t i = 0; i < n; i++)
        id[i] = i;
    qsort_r(id, n, sizeof *id, by_logit_then_id, logits);
    for (uint32_t i = 0; i < n; i++)
        e[i] = arith_exp((logits[id[i]] - logits[id[0]]) / o->temperature);
    uint32_t kept = o->top_k && o->top_k < n ? o->top_k : n, i;
    double all = 0, sum = 0, running = 0;
    for (i = 0; i < kept; i++)
        all += (double)e[i];
    for (i = 0; i < kept && o->top_p < 1 && !(i && running >= (double)o->top_p * all); i++)
        running += (double)e[i];
    kept = o->top_p < 1 ? i : kept;
    for (i = 0; i < kept && e[i] >= o->min_p; i++)
        sum += (double)e[i];
    kept = i;
    double target = random_uniform(seed, position, 0) * sum;
    running = 0;
    for (i = 0; i + 1 < kept; i++)
        if ((running += (double)e[i]) > target)
            break;
    uint32_t token = id[i];
    free(id);
    free(e);
    return token;
}

static void selection_and_radix_sort_change_nothing(void **state) {
    (void)state;
    enum { N = 5003 };
    static float logits[N];
    static const uint32_t TOP_K[] = { 0, 1, 40, 1000, N };
    static const float TOP_P[] = { 1, 0.9f, 0.3f }, MIN_P[] = { 0, 0.05f };
    struct sampler s;
    uint32_t token;
    uint64_t position = 0;
    assert_int_equal(sampler_open(&s, N, NULL), OK);
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < N; i++) {
            float x = (float)random_uniform(round, i, 9) * 16 - 10;
            logits[i] = round == 3 ? x * 20 : round == 2 ? floorf(x) : x; // far apart; many equal
            if (round == 1 && i % 5 == 0)
                logits[i] = i % 2 ? -0.0f : -INFINITY;
        }
        for (int c = 0; c < 5 * 3 * 2; c++, position++) {
            struct sampling o = { .temperature = 0.8f,
                                  .top_k = TOP_K[c % 5],
                                  .top_p = TOP_P[c / 5 % 3],
                                  .min_p = MIN_P[c / 15] };
            assert_int_equal(sampler_draw(&s, &o, logits, 3, position, &token, NULL), OK);
            assert_int_equal(token, draw_by_definition(logits, N, &o, 3, position));
        }
    }
    sampler_close(&s);
}

static void a_token_depends_on_seed_and_position_alone(void **state) {
    (void)state;
    enum { N = 64 };
    float logits[N];
    uint32_t forward[200], other = 0;
    for (int i = 0; i < N; i++)
        logits[i] = (float)(i % 7) * 0.1f;
    for (int p = 0; p < 200; p++)
        forward[p] = draw(logits, N, PLAIN, 11, (uint64_t)p);
    struct sampler s;
    assert_int_equal(sampler_open(&s, N, NULL), OK);
    for (int p = 199; p >= 0; p--) { // backwards, one sampler for all
        uint32_t token;
        assert_int_equal(sampler_draw(&s, &PLAIN, logits, 11, (uint64_t)p, &token, NULL), OK);
        assert_int_equal(token, forward[p]);
        other += draw(logits, N, PLAIN, 12, (uint64_t)p) != token;
    }
    sampler_close(&s);
    assert_true(other > 150);
}

static void logits_that_make_no_sense_are_an_error(void **state) {
    (void)state;
    float logits[] = { 1, 2, 3 };
    struct sampling greedy = { .temperature = 0, .top_p = 1 };
    struct sampler s;
    uint32_t token;
    struct err err = { .status = OK };
    assert_int_equal(sampler_open(&s, 3, NULL), OK);
    logits[2] = NAN;
    assert_int_equal(sampler_draw(&s, &PLAIN, logits, 1, 17, &token, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, "position 17"));
    assert_non_null(strstr(err.text, "token 2"));
    assert_int_equal(sampler_draw(&s, &greedy, logits, 1, 1, &token, NULL), ERR_INPUT);
    logits[2] = INFINITY;
    assert_int_equal(sampler_draw(&s, &PLAIN, logits, 1, 1, &token, NULL), ERR_INPUT);
    logits[0] = logits[1] = logits[2] = -INFINITY;
    assert_int_equal(sampler_draw(&s, &PLAIN, logits, 1, 1, &token, NULL), ERR_INPUT);
    logits[1] = -1e30f;
    assert_int_equal(sampler_draw(&s, &PLAIN, logits, 1, 1, &token, NULL), OK);
    assert_int_equal(token, 1);
    sampler_close(&s);
}

static void options_out_of_bounds_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        struct sampling o;
        const char *name;
    } CASES[] = {
        { { .temperature = -1, .top_p = 1 }, "--temperature" },
        { { .temperature = NAN, .top_p = 1 }, "--temperature" },
        { { .temperature = INFINITY, .top_p = 1 }, "--temperature" },
        { { .temperature = 1, .top_p = 1.01f }, "--top-p" },
        { { .temperature = 1, .top_p = NAN }, "--top-p" },
        { { .temperature = 1, .top_p = 1, .min_p = -0.1f }, "--min-p" },
        { { .temperature = 1, .top_p = 1, .min_p = 2 }, "--min-p" },
    };
    assert_int_equal(sampling_check(&PLAIN, NULL), OK);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct err err = { .status = OK };
        assert_int_equal(sampling_check(&CASES[i].o, &err), ERR_USAGE);
        assert_non_null(strstr(err.text, CASES[i].name));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_depends_on_seed_position_and_stream),
        cmocka_unit_test(greedy_takes_the_lowest_id_of_equals),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(top_k_keeps_the_first_k_candidates),
        cmocka_unit_test(top_p_keeps_the_shortest_prefix_that_reaches_it),
        cmocka_unit_test(min_p_compares_with_the_highest),
        cmocka_unit_test(selection_and_radix_sort_change_nothing),
        cmocka_unit_test(a_token_depends_on_seed_and_position_alone),
        cmocka_unit_test(logits_that_make_no_sense_are_an_error),
        cmocka_unit_test(options_out_of_bounds_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
