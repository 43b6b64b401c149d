/* Rotary tables against exact angles of the rounded product, rotation against its formula, and that
 * the inverse undoes it and leaves the other dims alone. */
#include "tests/kernels/reference.h"

#define R 64
#define C 128

static struct mem test_table(struct ops *ops, const int32_t *position, uint32_t n, float *theta) {
    for (int i = 0; i < R / 2; i++)
        theta[i] = (float)pow(160000, -2.0 * i / R);
    struct mem cs = test_alloc(ops, n * R * 4);
    struct rope_table a = { test_upload(ops, position, n * 4), test_upload(ops, theta, R / 2 * 4),
                            cs, n, R };
    rope_table(ops, &a);
    return cs;
}

static void tables_hold_cos_and_sin_of_one_rounded_product(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    const int32_t position[] = { 0, 1, 127, 65536, 1048575, 999983 };
    float theta[R / 2];
    const float *cs = floats_at(test_table(ops, position, 6, theta));
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < R / 2; k++) {
            float angle = (float)position[i] * theta[k];
            assert_true(ulps(cs[(i * R / 2 + k) * 2], cosl((long double)angle)) < 0.501);
            assert_true(ulps(cs[(i * R / 2 + k) * 2 + 1], sinl((long double)angle)) < 0.501);
        }
    assert_true(cs[0] == 1 && cs[1] == 0);
    ops_close(ops);
}

static void pairs_turn_and_turn_back(void **state) {
    (void)state;
    const int32_t position[] = { 0, 5, 1048575 };
    const uint32_t heads = 3, n = 3;
    float theta[R / 2], before[3 * 3 * C];
    struct ops *ops = test_open(2, false);
    struct random r = { 1 };
    struct mem cs = test_table(ops, position, n, theta), x = test_floats(ops, &r, n * heads * C);
    test_download(ops, before, x, sizeof before);
    struct rotate a = { x, cs, n, heads, C, R, false };
    rotate(ops, &a);
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < C; i += 2) {
                const uint32_t at = (row * heads + h) * C + i;
                float want[2] = { before[at], before[at + 1] };
                if (i >= C - R) {
                    const float *pair = floats_at(cs) + row * R + (i - (C - R));
                    float bs = before[at + 1] * pair[1], bc = before[at + 1] * pair[0];
                    want[0] = fmaf(before[at], pair[0], -bs);
                    want[1] = fmaf(before[at], pair[1], bc);
                }
                assert_same_bits(floats_at(x) + at, want, 2, "rotation");
            }
    a.inverse = true;
    rotate(ops, &a);
    for (uint32_t i = 0; i < n * heads * C; i++)
        assert_true(fabsf(floats_at(x)[i] - before[i]) <= 1e-5f * (1 + fabsf(before[i])));
    ops_close(ops);
}

static void threads_and_row_splits_cannot_be_seen(void **state) {
    (void)state;
    enum { ROWS = 40, HEADS = 2 };
    int32_t position[ROWS];
    float theta[R / 2], want[ROWS * HEADS * C];
    for (int i = 0; i < ROWS; i++)
        position[i] = i * 7919;
    for (int k = 0; k < 2; k++) {
        struct ops *ops = test_open(k ? 5 : 1, false);
        struct random r = { 2 };
        struct mem cs = test_table(ops, position, ROWS, theta);
        struct mem x = test_floats(ops, &r, ROWS * HEADS * C);
        for (uint32_t i = 0; i < ROWS; i += k ? 1 : ROWS) {
            struct rotate a = {
                mem_at(x, i * HEADS * C * 4), mem_at(cs, i * R * 4), k ? 1 : ROWS, HEADS, C, R, true
            };
            rotate(ops, &a);
        }
        if (k == 0)
            test_download(ops, want, x, sizeof want);
        else
            assert_same_bits(floats_at(x), want, ROWS * HEADS * C, "split");
        ops_close(ops);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_hold_cos_and_sin_of_one_rounded_product),
        cmocka_unit_test(pairs_turn_and_turn_back),
        cmocka_unit_test(threads_and_row_splits_cannot_be_seen),
    };
    return each_form_run(tests);
}
