/* RMSNorm: the canonical order bit for bit, the value against double, in place, any weight address. */
#include "tests/kernels/reference.h"

static float weight_at(struct mem weight, uint32_t i) {
    uint16_t code;
    memcpy(&code, (const uint8_t *)(uintptr_t)weight.address + 2 * i, 2);
    return float_of((uint32_t)code << 16);
}

static void check(uint32_t d, uint32_t n_rows, bool weighted, uint32_t skew, float eps) {
    struct ops *ops = test_open(2, false);
    struct random r = { d };
    struct mem x = test_floats(ops, &r, (size_t)n_rows * d), y = test_alloc(ops, n_rows * d * 4);
    struct mem weight = test_matrix(ops, &r, MATRIX_BF16, 1, d, skew).weight;
    struct rms_norm a = { x, weighted ? weight : mem_none(), y, n_rows, d, eps };
    rms_norm(ops, &a);
    for (uint32_t i = 0; i < n_rows; i++) {
        const float *xi = floats_at(x) + i * d, *yi = floats_at(y) + i * d;
        float rho = 1.0f / sqrtf(reference_t16(xi, xi, d) / (float)d + eps);
        double mean = 0;
        for (uint32_t c = 0; c < d; c++)
            mean += (double)xi[c] * xi[c] / d;
        for (uint32_t c = 0; c < d; c++) {
            float scaled = xi[c] * rho, want = weighted ? scaled * weight_at(weight, c) : scaled;
            assert_same_bits(&yi[c], &want, 1, "norm");
            double plain = (double)xi[c] / sqrt(mean + (double)eps);
            plain *= weighted ? (double)weight_at(weight, c) : 1;
            assert_true(fabs((double)yi[c] - plain) <= 1e-6 * fabs(plain));
        }
    }
    struct rms_norm in_place = a;
    in_place.y = x;
    rms_norm(ops, &in_place);
    assert_same_bits(floats_at(x), floats_at(y), n_rows * d, "in place");
    ops_close(ops);
}

static void rows_have_mean_square_one_times_the_weight(void **state) {
    (void)state;
    check(256, 5, true, 0, 1e-6f);
    check(7168, 2, true, 0, 1e-6f);
    check(100, 3, true, 0, 1e-6f); // a tail of the lanes
}
static void without_weight_it_is_all_ones(void **state) {
    (void)state;
    check(512, 9, false, 0, 1e-6f);
}
static void weights_lie_at_any_address(void **state) {
    (void)state;
    check(192, 3, true, 1, 1e-6f);
}
static void epsilon_counts(void **state) {
    (void)state;
    check(128, 3, true, 0, 0.5f);
}

static void a_row_of_zeros_stays_zero(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    float zero[128] = { 0 };
    struct mem x = test_upload(ops, zero, sizeof zero);
    struct rms_norm a = { x, mem_none(), x, 1, 128, 1e-6f };
    rms_norm(ops, &a);
    assert_same_bits(floats_at(x), zero, 128, "zeros");
    ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_mean_square_one_times_the_weight),
        cmocka_unit_test(without_weight_it_is_all_ones),
        cmocka_unit_test(weights_lie_at_any_address),
        cmocka_unit_test(epsilon_counts),
        cmocka_unit_test(a_row_of_zeros_stays_zero),
    };
    return each_form_run(tests);
}
