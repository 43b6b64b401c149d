/* The canonical arithmetic: orders of sums transcribed one lane at a time, and our own functions
 * against the C library's in long double. */
#include "kernels/arith.h"
#include "tests/kernels/reference.h"

#define STRIDE 10007u /* of 2^32 floats: 430,000 of them */

static void t16_is_sixteen_lanes_and_a_tree(void **state) {
    (void)state;
    struct random r = { 1 };
    float a[1024], b[1024];
    for (int i = 0; i < 1024; i++)
        a[i] = random_float(&r), b[i] = random_float(&r);
    for (uint32_t n = 0; n <= 1024; n += n < 80 ? 1 : 59) {
        float want = reference_t16(a, b, n), got = arith_dot16(a, b, n);
        assert_same_bits(&got, &want, 1, "dot");
        want = reference_t16(a, a, n), got = arith_sum16_squares(a, n);
        assert_same_bits(&got, &want, 1, "squares");
    }
    float lanes[16], copy[16];
    memcpy(lanes, a, sizeof lanes), memcpy(copy, a, sizeof copy);
    assert_true(arith_tree16(lanes) == reference_tree(copy));
}

/* A sum that another order would get wrong: the order is what the test sees. */
static void t16_differs_from_a_plain_sum(void **state) {
    (void)state;
    float a[64], one[64];
    struct random r = { 2 };
    int differ = 0;
    for (int trial = 0; trial < 50; trial++) {
        float plain = 0;
        for (int i = 0; i < 64; i++) {
            a[i] = random_float(&r), one[i] = random_float(&r);
            plain = fmaf(a[i], one[i], plain);
        }
        differ += plain != arith_dot16(a, one, 64);
    }
    assert_true(differ > 10);
}

static void the_maximum_counts_magnitudes(void **state) {
    (void)state;
    float x[5] = { -0.0f, 1.5f, -7.25f, 3, 7 };
    assert_true(arith_amax(x, 5) == 7.25f);
    assert_true(arith_amax(x, 1) == 0 && !signbit(arith_amax(x, 1)));
    assert_true(arith_amax(x, 0) == 0);
    x[2] = -INFINITY;
    assert_true(arith_amax(x, 5) == INFINITY);
    x[1] = -NAN;
    assert_true(isnan(arith_amax(x, 5)));
}

static void exp_is_within_an_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (uint64_t u = 0; u < 1ull << 32; u += STRIDE) {
        float x = float_of((uint32_t)u);
        if (isnan(x)) {
            assert_true(isnan(arith_exp(x)));
            continue;
        }
        double e = ulps(arith_exp(x), expl((long double)x));
        worst = e > worst ? e : worst;
    }
    // Where results matter, densely: −110 … 95, with subnormal results and both ends.
    for (int i = -1100000; i < 950000; i++) {
        float x = (float)i * 1e-4f;
        double e = ulps(arith_exp(x), (long double)exp((double)x));
        worst = e > worst ? e : worst;
    }
    print_message("exp: %.3f ulp\n", worst);
    assert_true(worst < 1.0);
}

static void exp_ends_where_it_should(void **state) {
    (void)state;
    assert_int_equal(bits_of(arith_exp(-INFINITY)), 0);
    assert_int_equal(bits_of(arith_exp(-1e30f)), 0);
    assert_int_equal(bits_of(arith_exp(-104.0f)), 0);
    assert_true(arith_exp(-103.5f) == 0x1p-149f);
    assert_true(arith_exp(0.0f) == 1 && arith_exp(-0.0f) == 1);
    assert_true(isfinite(arith_exp(88.72f)));
    assert_true(arith_exp(88.73f) == INFINITY && arith_exp(INFINITY) == INFINITY);
    assert_true(isnan(arith_exp(NAN)) && isnan(arith_exp(-NAN)));
    for (float x = -1e-6f; x < 0; x += 1e-9f) // softmax: no weight above 1
        assert_true(arith_exp(x) <= 1.0f);
}

static void log1p_is_within_half_an_ulp_and_a_bit(void **state) {
    (void)state;
    double worst = 0;
    for (uint64_t u = 0; u < 1ull << 32; u += STRIDE) {
        float x = float_of((uint32_t)u);
        if (!(x > -1) || isinf(x))
            continue;
        double e = ulps(arith_log1p(x), log1pl((long double)x));
        worst = e > worst ? e : worst;
    }
    print_message("log1p: %.4f ulp\n", worst);
    assert_true(worst < 0.501);
    assert_true(arith_log1p(0.0f) == 0 && arith_log1p(INFINITY) == INFINITY);
    assert_true(arith_log1p(-1.0f) == -INFINITY);
    assert_true(isnan(arith_log1p(-2.0f)) && isnan(arith_log1p(NAN)));
}

static void sincos_holds_out_to_the_last_position(void **state) {
    (void)state;
    double worst = 0;
    float s, c;
    for (uint64_t u = 0; u < 1ull << 32; u += STRIDE) {
        float x = float_of((uint32_t)u);
        if (!(fabsf(x) < 0x1p30f))
            continue;
        arith_sincos(x, &s, &c);
        worst = fmax(worst, ulps(s, sinl((long double)x)));
        worst = fmax(worst, ulps(c, cosl((long double)x)));
    }
    // The floats nearest to multiples of π/2: where a poor reduction has nothing left.
    for (int k = 1; k < 1300000; k += 7) {
        float x = (float)((double)k * 1.5707963267948966);
        arith_sincos(x, &s, &c);
        worst = fmax(worst, ulps(s, sinl((long double)x)));
        worst = fmax(worst, ulps(c, cosl((long double)x)));
    }
    print_message("sin, cos: %.4f ulp\n", worst);
    assert_true(worst < 0.501);
    arith_sincos(0.0f, &s, &c);
    assert_true(s == 0 && c == 1);
    arith_sincos(INFINITY, &s, &c);
    assert_true(isnan(s) && isnan(c));
    arith_sincos(NAN, &s, &c);
    assert_true(isnan(s) && isnan(c));
}

static void pow_is_good_for_a_float_and_more(void **state) {
    (void)state;
    struct random r = { 3 };
    for (int i = 0; i < 200000; i++) {
        double x = exp((random_bits(&r) / 4294967296.0 - 0.5) * 60);
        double y = (random_bits(&r) / 4294967296.0 - 0.5) * 20;
        long double want = powl((long double)x, (long double)y);
        if (want > 1e300L || want < 1e-300L)
            continue;
        long double error = fabsl(((long double)arith_pow(x, y) - want) / want);
        assert_true(error < 1e-15L * (1 + fabsl((long double)y * logl((long double)x))));
    }
    // What it is for: base^(2i/r), rounded to float.
    for (int b = 0; b < 2; b++)
        for (int d = 2; d <= 256; d += 2)
            for (int i = 0; i < d / 2; i++) {
                float y = (float)(2 * i) / (float)d;
                double base = b ? 160000 : 10000;
                assert_true((float)arith_pow(base, (double)y) ==
                            (float)powl((long double)base, (long double)y));
            }
    assert_true(arith_pow(10000, 0) == 1 && arith_pow(1, 5) == 1);
    assert_true(arith_pow(1e300, 2) == INFINITY && arith_pow(1e300, -2) == 0);
    assert_true(isnan(arith_pow(0, 1)) && isnan(arith_pow(-2, 2)) && isnan(arith_pow(NAN, 1)));
}

static void sigmoid_softplus_and_swiglu_follow(void **state) {
    (void)state;
    for (int i = -17000; i < 20000;
         i++) { // below, e^−x overflows and the sigmoid is 0: see the end
        float x = (float)i * 0.005f;
        long double lx = (long double)x, e = expl(-lx);
        assert_true(ulps(arith_sigmoid(x), 1 / (1 + e)) < 3);
        assert_true(ulps(arith_softplus(x), fmaxl(lx, 0) + log1pl(expl(-fabsl(lx)))) < 2.0);
        float v = x, u = -0.25f * x, limit = 10, weight = 0.3f;
        long double cv = fminl(lx, 10), cu = fmaxl(fminl((long double)u, 10), -10);
        long double want = cv / (1 + expl(-cv)) * cu * (long double)weight;
        assert_true(ulps(arith_swiglu(v, u, limit, weight), want) < 4);
    }
    assert_true(arith_softplus(-200) == 0 && arith_softplus(200) == 200);
    assert_true(arith_softplus(INFINITY) == INFINITY && arith_softplus(-INFINITY) == 0);
    assert_true(arith_sigmoid(-200) == 0 && arith_sigmoid(200) == 1);
    assert_true(arith_swiglu(1e30f, 1e30f, 10, 1) == arith_swiglu(10, 10, 10, 1));
    assert_true(arith_swiglu(-200, 1, 10, 1) == 0); // silu of −∞ is 0, not NaN
}

static void fp4_scales_keep_the_range(void **state) {
    (void)state;
    for (int s = 105; s <= 247; s++)
        for (int w = 0; w < 255; w++) {
            float got = arith_fp4_scale(e8m0_value((uint8_t)s), e8m0_value((uint8_t)w));
            assert_true(got == (float)ldexp(1, s + w - 254 - 10));
        }
    assert_true(arith_rsqrt(0.25f) == 2 && arith_rsqrt(0) == INFINITY);
}

/* -ffp-contract=off is part of the arithmetic: a × b + c is two roundings unless it says fmaf. */
static void products_are_not_contracted(void **state) {
    (void)state;
    volatile float a = 1 + 0x1p-12f, c = -1;
    float plain = a * a + c, fused = fmaf(a, a, c);
    assert_true(plain == 0x1p-11f && fused == 0x1p-11f + 0x1p-24f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t16_is_sixteen_lanes_and_a_tree),
        cmocka_unit_test(t16_differs_from_a_plain_sum),
        cmocka_unit_test(the_maximum_counts_magnitudes),
        cmocka_unit_test(exp_is_within_an_ulp),
        cmocka_unit_test(exp_ends_where_it_should),
        cmocka_unit_test(log1p_is_within_half_an_ulp_and_a_bit),
        cmocka_unit_test(sincos_holds_out_to_the_last_position),
        cmocka_unit_test(pow_is_good_for_a_float_and_more),
        cmocka_unit_test(sigmoid_softplus_and_swiglu_follow),
        cmocka_unit_test(fp4_scales_keep_the_range),
        cmocka_unit_test(products_are_not_contracted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
