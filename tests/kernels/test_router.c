/* The gate: which experts, in which order, with which weights; ties, bias, hash tables, damage. */
#include "kernels/arith.h"
#include "tests/kernels/reference.h"

#define E 64
#define K 6

/* Route n rows of logits; experts and weights come back to the caller's arrays. */
static void run(const float *logits, const float *bias, const int32_t *table, uint32_t vocab,
                const int32_t *token, uint32_t n, uint32_t threads, int32_t *experts,
                float *weights) {
    struct ops *ops = test_open(threads, false);
    struct route a = { test_upload(ops, logits, n * E * 4),
                       bias ? test_upload(ops, bias, E * 4) : mem_none(),
                       table ? test_upload(ops, table, vocab * K * 4) : mem_none(),
                       table ? test_upload(ops, token, n * 4) : mem_none(),
                       test_alloc(ops, n * K * 4),
                       test_alloc(ops, n * K * 4),
                       n,
                       E,
                       K,
                       2.5f };
    route(ops, &a);
    test_download(ops, experts, a.experts, n * K * 4);
    test_download(ops, weights, a.weights, n * K * 4);
    ops_close(ops);
}

static void random_logits(float *logits, uint32_t n, uint64_t seed) {
    struct random r = { seed };
    for (uint32_t i = 0; i < n; i++)
        logits[i] = random_float(&r);
}

/* Weights of chosen experts: in double, and in the canonical order bit for bit. */
static void check_weights(const float *logits, const int32_t *experts, const float *weights) {
    double sum = 0;
    float a[K], total = 0;
    for (int k = 0; k < K; k++) {
        float s = logits[experts[k]];
        sum += sqrt(fmax((double)s, 0) + log1p(exp(-fabs((double)s))));
        a[k] = sqrtf((s > 0 ? s : 0) + arith_log1p(arith_exp(-fabsf(s))));
        total = k ? total + a[k] : a[k];
    }
    for (int k = 0; k < K; k++) {
        double s = (double)logits[experts[k]];
        double want = sqrt(fmax(s, 0) + log1p(exp(-fabs(s)))) / sum * 2.5;
        assert_true(fabs((double)weights[k] - want) < 2e-6 * want);
        float canonical = a[k] / total * 2.5f;
        assert_same_bits(&weights[k], &canonical, 1, "weight");
    }
}

static void the_highest_are_chosen_and_weigh_by_affinity(void **state) {
    (void)state;
    enum { N = 50 };
    static float logits[N * E];
    int32_t experts[N * K];
    float weights[N * K];
    random_logits(logits, N * E, 1);
    run(logits, NULL, NULL, 0, NULL, N, 2, experts, weights);
    for (int i = 0; i < N; i++) {
        const float *s = logits + i * E;
        const int32_t *chosen = experts + i * K;
        float least = INFINITY;
        for (int k = 0; k < K; k++) {
            assert_true(k == 0 || chosen[k] > chosen[k - 1]);
            least = fminf(least, s[chosen[k]]);
        }
        int above = 0;
        for (int e = 0; e < E; e++)
            above += s[e] >= least;
        assert_int_equal(above, K); // exactly those, affinity being monotone in the logit
        check_weights(s, chosen, weights + i * K);
    }
}

static void equal_scores_go_to_the_lower_id(void **state) {
    (void)state;
    float logits[E], weights[K];
    int32_t experts[K];
    for (int e = 0; e < E; e++)
        logits[e] = e % 8 == 5 ? 2.0f : -1.0f; // eight tie for six places
    run(logits, NULL, NULL, 0, NULL, 1, 1, experts, weights);
    for (int k = 0; k < K; k++) {
        assert_int_equal(experts[k], 8 * k + 5);
        assert_true(fabsf(weights[k] - 2.5f / K) < 1e-6f);
    }
    for (int e = 0; e < E; e++)
        logits[e] = 0;
    run(logits, NULL, NULL, 0, NULL, 1, 1, experts, weights);
    for (int k = 0; k < K; k++)
        assert_int_equal(experts[k], k);
    // Three higher ones come later: of those that tie, the last three leave.
    logits[20] = logits[30] = logits[40] = 1;
    run(logits, NULL, NULL, 0, NULL, 1, 1, experts, weights);
    const int32_t want[K] = { 0, 1, 2, 20, 30, 40 };
    assert_memory_equal(experts, want, sizeof want);
}

static void the_bias_chooses_but_does_not_weigh(void **state) {
    (void)state;
    float logits[E], bias[E] = { 0 }, weights[K];
    int32_t experts[K];
    random_logits(logits, E, 2);
    for (int k = 0; k < K; k++)
        bias[10 * k + 3] = 1000;
    run(logits, bias, NULL, 0, NULL, 1, 1, experts, weights);
    for (int k = 0; k < K; k++)
        assert_int_equal(experts[k], 10 * k + 3);
    check_weights(logits, experts, weights);
    // A negative one pushes out what the logits would have chosen.
    int32_t plain[K];
    memset(bias, 0, sizeof bias);
    run(logits, NULL, NULL, 0, NULL, 1, 1, plain, weights);
    bias[plain[2]] = -1000;
    run(logits, bias, NULL, 0, NULL, 1, 1, experts, weights);
    for (int k = 0; k < K; k++)
        assert_int_not_equal(experts[k], plain[2]);
}

static void hash_layers_look_the_token_up(void **state) {
    (void)state;
    const int32_t table[2][K] = { { 9, 3, 60, 1, 30, 8 }, { 7, 7, 2, 40, 2, 2 } };
    const int32_t token[3] = { 1, 0, 1 };
    const int32_t want[2][K] = { { 1, 3, 8, 9, 30, 60 }, { 2, 2, 2, 7, 7, 40 } };
    float logits[3 * E], weights[3 * K];
    int32_t experts[3 * K];
    random_logits(logits, 3 * E, 3);
    run(logits, NULL, &table[0][0], 2, token, 3, 2, experts, weights);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(experts + i * K, want[token[i]], sizeof want[0]);
        check_weights(logits + i * E, experts + i * K, weights + i * K); // doubles count twice
    }
}

/* Logits that are no numbers (damaged weights) still name experts that exist, each once. */
static void nan_logits_choose_experts_that_exist(void **state) {
    (void)state;
    float logits[E], weights[K];
    int32_t experts[K];
    for (int kind = 0; kind < 3; kind++) {
        for (int e = 0; e < E; e++)
            logits[e] = kind == 0 ? NAN : kind == 1 ? (e % 2 ? NAN : (float)e) : -INFINITY;
        run(logits, NULL, NULL, 0, NULL, 1, 1, experts, weights);
        for (int k = 0; k < K; k++)
            assert_true(experts[k] >= (k ? experts[k - 1] + 1 : 0) && experts[k] < E);
    }
}

static void extreme_logits_stay_finite(void **state) {
    (void)state;
    float logits[E], weights[K];
    int32_t experts[K];
    for (int e = 0; e < E; e++)
        logits[e] = e < K ? 1e4f : -1e4f;
    run(logits, NULL, NULL, 0, NULL, 1, 1, experts, weights);
    for (int k = 0; k < K; k++)
        assert_true(experts[k] == k && fabsf(weights[k] - 2.5f / K) < 1e-6f);
}

static void threads_cannot_be_seen(void **state) {
    (void)state;
    enum { N = 33 };
    static float logits[N * E];
    int32_t experts[2][N * K];
    float weights[2][N * K];
    random_logits(logits, N * E, 4);
    for (int k = 0; k < 2; k++)
        run(logits, NULL, NULL, 0, NULL, N, k ? 5 : 1, experts[k], weights[k]);
    assert_memory_equal(experts[0], experts[1], sizeof experts[0]);
    assert_same_bits(weights[1], weights[0], N * K, "threads");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_are_chosen_and_weigh_by_affinity),
        cmocka_unit_test(equal_scores_go_to_the_lower_id),
        cmocka_unit_test(the_bias_chooses_but_does_not_weigh),
        cmocka_unit_test(hash_layers_look_the_token_up),
        cmocka_unit_test(nan_logits_choose_experts_that_exist),
        cmocka_unit_test(extreme_logits_stay_finite),
        cmocka_unit_test(threads_cannot_be_seen),
    };
    return each_form_run(tests);
}
