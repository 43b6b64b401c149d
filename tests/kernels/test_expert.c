/* One expert, against its formula taken a step at a time with the reference's products; its two ways
 * of storing; and that neither threads, tiles nor the choice of rows can be seen. */
#include "kernels/arith.h"
#include "tests/kernels/reference.h"

#define D     256
#define F     128
#define K     3 /* experts a row chooses */
#define LIMIT 2.0f

struct expert {
    struct matrix w1, w3, w2;
};

static struct expert test_expert(struct ops *ops, struct random *r, enum matrix_type type,
                                 uint32_t skew) {
    struct expert e;
    e.w1 = test_matrix(ops, r, type, F, D, skew);
    e.w3 = test_matrix(ops, r, type, F, D, skew + 1);
    e.w2 = test_matrix(ops, r, type, D, F, skew + 2);
    return e;
}

static struct expert_ffn call_of(const struct expert *e, struct mem x, struct mem pick, uint32_t n,
                                 struct mem weights, struct mem y, enum expert_mode mode) {
    struct expert_ffn a = { e->w1, e->w3, e->w2, x, pick, weights, y, n, K, mode, LIMIT };
    return a;
}

/* y [D] of one row, as the formula says. */
static void reference_expert(const struct expert *e, const float *x, float weight, bool exact,
                             float *y) {
    const bool rounded = !exact && e->w1.type >= MATRIX_FP8;
    float a[F];
    for (uint32_t i = 0; i < F; i++) {
        float v = reference_product(&e->w1, i, x, rounded);
        float u = reference_product(&e->w3, i, x, rounded);
        v = fminf(v, LIMIT);
        u = fmaxf(fminf(u, LIMIT), -LIMIT);
        float silu = v / (1.0f + arith_exp(-v)), product = silu * u;
        a[i] = product * weight;
    }
    for (uint32_t i = 0; i < D; i++)
        y[i] = reference_product(&e->w2, i, a, rounded);
}

static struct mem upload_picks(struct ops *ops, const int32_t *pick, uint32_t n) {
    return test_upload(ops, pick, n * sizeof *pick);
}

static void every_type_follows_the_formula(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        struct ops *ops = test_open(2, exact);
        struct random r = { 1 };
        for (int type = MATRIX_F32; type <= MATRIX_FP4; type++) {
            const int32_t pick[] = { 1, 3 + 0, 6 + 2, 12 + 1 };
            struct expert e = test_expert(ops, &r, (enum matrix_type)type, 1);
            struct mem x = test_floats(ops, &r, 5 * D), weights = test_floats(ops, &r, 5 * K);
            struct mem y = test_alloc(ops, 5 * K * D * 4);
            struct expert_ffn a =
                call_of(&e, x, upload_picks(ops, pick, 4), 4, weights, y, EXPERT_STORE);
            expert_ffn(ops, &a);
            for (int i = 0; i < 4; i++) {
                float want[D];
                reference_expert(&e, floats_at(x) + pick[i] / K * D, floats_at(weights)[pick[i]],
                                 exact, want);
                assert_same_bits(floats_at(y) + pick[i] * D, want, D, "expert");
            }
        }
        ops_close(ops);
    }
}

/* The activation must reach both clamps, or the tests above would not see a missing one. */
static void inputs_reach_both_clamps(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    struct random r = { 1 };
    struct expert e = test_expert(ops, &r, MATRIX_FP4, 0);
    struct mem x = test_floats(ops, &r, D);
    int high_v = 0, high_u = 0, low_u = 0, within = 0;
    for (uint32_t i = 0; i < F; i++) {
        float v = reference_product(&e.w1, i, floats_at(x), true);
        float u = reference_product(&e.w3, i, floats_at(x), true);
        high_v += v > LIMIT, high_u += u > LIMIT, low_u += u < -LIMIT;
        within += fabsf(u) < LIMIT && v < LIMIT;
    }
    assert_true(high_v > 3 && high_u > 3 && low_u > 3 && within > 3);
    ops_close(ops);
}

static void without_picks_it_is_the_shared_expert(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 2 };
    struct expert e = test_expert(ops, &r, MATRIX_FP8, 0);
    struct mem x = test_floats(ops, &r, 3 * D), y = test_alloc(ops, 3 * D * 4);
    struct expert_ffn a = call_of(&e, x, mem_none(), 3, mem_none(), y, EXPERT_STORE);
    a.n_chosen = 0;
    expert_ffn(ops, &a);
    for (int i = 0; i < 3; i++) {
        float want[D];
        reference_expert(&e, floats_at(x) + i * D, 1.0f, false, want);
        assert_same_bits(floats_at(y) + i * D, want, D, "shared");
    }
    ops_close(ops);
}

/* Rows of a step choose among four experts; storing and summing later, and adding as experts come by
 * ascending id, give the same sums. One row names an expert twice, as hash layers may. */
static void adding_by_id_is_storing_and_summing(void **state) {
    (void)state;
    enum { ROWS = 70, EXPERTS = 4 };
    struct ops *ops = test_open(2, false);
    struct random r = { 3 };
    struct expert e[EXPERTS];
    int32_t choice[ROWS][K];
    for (int i = 0; i < EXPERTS; i++)
        e[i] = test_expert(ops, &r, MATRIX_FP4, 0);
    for (int i = 0; i < ROWS; i++) {
        int left_out = i % EXPERTS, k = 0;
        for (int id = 0; id < EXPERTS; id++)
            if (id != left_out)
                choice[i][k++] = id;
    }
    choice[7][0] = choice[7][1] = choice[7][2];
    struct mem x = test_floats(ops, &r, ROWS * D), weights = test_floats(ops, &r, ROWS * K);
    struct mem parts = test_alloc(ops, ROWS * K * D * 4), sum = test_alloc(ops, ROWS * D * 4);
    struct mem shared = test_floats(ops, &r, ROWS * D), added = test_alloc(ops, ROWS * D * 4);
    for (int id = 0; id < EXPERTS; id++) {
        int32_t pick[ROWS * K];
        uint32_t n = 0;
        for (int32_t i = 0; i < ROWS * K; i++)
            if (choice[i / K][i % K] == id)
                pick[n++] = i;
        struct mem picks = upload_picks(ops, pick, n);
        struct expert_ffn store = call_of(&e[id], x, picks, n, weights, parts, EXPERT_STORE);
        struct expert_ffn add = call_of(&e[id], x, picks, n, weights, added, EXPERT_ADD);
        expert_ffn(ops, &store);
        expert_ffn(ops, &add);
    }
    struct moe_sum of_parts = { parts, shared, sum, ROWS, K, D };
    struct moe_sum of_added = { added, shared, added, ROWS, 1, D };
    moe_sum(ops, &of_parts);
    moe_sum(ops, &of_added);
    assert_same_bits(floats_at(added), floats_at(sum), ROWS * D, "sum");
    for (int i = 0; i < ROWS * D; i++) { // routed by id, then shared
        const float *p = floats_at(parts) + i / D * K * D + i % D;
        float want = ((p[0] + p[D]) + p[2 * D]) + floats_at(shared)[i];
        assert_same_bits(floats_at(sum) + i, &want, 1, "order");
    }
    ops_close(ops);
}

static void threads_and_row_splits_cannot_be_seen(void **state) {
    (void)state;
    enum { ROWS = 67 };
    for (int type = MATRIX_FP8; type <= MATRIX_FP4; type++) {
        float *want = malloc(ROWS * D * 4);
        static const uint32_t threads[] = { 1, 2, 5 }, step[] = { ROWS, 1, 30 };
        for (int k = 0; k < 3; k++) {
            struct ops *ops = test_open(threads[k], false);
            struct random r = { 4 };
            struct expert e = test_expert(ops, &r, (enum matrix_type)type, (uint32_t)k);
            struct mem x = test_floats(ops, &r, ROWS * D), weights = test_floats(ops, &r, ROWS * K);
            struct mem y = test_alloc(ops, ROWS * D * 4);
            int32_t pick[ROWS];
            for (int i = 0; i < ROWS; i++)
                pick[i] = i * K;
            struct mem picks = upload_picks(ops, pick, ROWS);
            for (uint32_t i = 0; i < ROWS; i += step[k]) {
                struct expert_ffn a =
                    call_of(&e, x, mem_at(picks, i * 4), ROWS - i < step[k] ? ROWS - i : step[k],
                            weights, y, EXPERT_ADD);
                expert_ffn(ops, &a);
            }
            if (k == 0)
                test_download(ops, want, y, ROWS * D * 4);
            else
                assert_same_bits(floats_at(y), want, ROWS * D, "split");
            ops_close(ops);
        }
        free(want);
    }
}

/* A row of d that leaves room for few in the shared scratch. */
static void wide_experts_take_fewer_rows_at_a_time(void **state) {
    (void)state;
    const uint32_t d = 64 * 1024, f = 128, n = 40;
    struct ops *ops = test_open(2, false);
    struct random r = { 5 };
    struct matrix w1 = test_matrix(ops, &r, MATRIX_FP4, f, d, 0);
    struct matrix w3 = test_matrix(ops, &r, MATRIX_FP4, f, d, 0);
    struct matrix w2 = test_matrix(ops, &r, MATRIX_FP4, d, f, 0);
    struct mem x = test_floats(ops, &r, (size_t)n * d), y = test_alloc(ops, (size_t)n * d * 4);
    struct mem one = test_alloc(ops, (size_t)d * 4);
    struct expert_ffn all = { w1, w3, w2, x, mem_none(), mem_none(), y, n, 0, EXPERT_STORE, LIMIT };
    expert_ffn(ops, &all);
    for (uint32_t i = 0; i < n; i += 13) {
        struct expert_ffn a = all;
        a.x = mem_at(x, (uint64_t)i * d * 4), a.y = one, a.n = 1;
        expert_ffn(ops, &a);
        assert_same_bits(floats_at(y) + (size_t)i * d, floats_at(one), d, "wide");
    }
    ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_follows_the_formula),
        cmocka_unit_test(inputs_reach_both_clamps),
        cmocka_unit_test(without_picks_it_is_the_shared_expert),
        cmocka_unit_test(adding_by_id_is_storing_and_summing),
        cmocka_unit_test(threads_and_row_splits_cannot_be_seen),
        cmocka_unit_test(wide_experts_take_fewer_rows_at_a_time),
    };
    return each_form_run(tests);
}
