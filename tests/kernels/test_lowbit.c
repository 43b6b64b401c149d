/* The number formats against their definition: every code, and every kind of float. */
#include "kernels/lowbit.h"
#include "tests/kernels/reference.h"

#define STRIDE 2053u /* of 2^32 floats: two million, every exponent, odd mantissas */

static void every_code_has_the_value_its_bits_spell(void **state) {
    (void)state;
    for (int i = 0; i < 256; i++) {
        uint8_t code = (uint8_t)i;
        assert_int_equal(bits_of(e4m3_value(code)), bits_of((float)reference_e4m3(code)));
        assert_int_equal(e4m3_times_512(code), (int)(reference_e4m3(code) * 512));
        assert_int_equal(bits_of(e2m1_value(code & 15)), bits_of((float)reference_e2m1(code & 15)));
        assert_int_equal(bits_of(e2m1_value(code)), bits_of(e2m1_value(code & 15)));
        assert_int_equal(e2m1_times_2(code), (int)(reference_e2m1(code & 15) * 2));
        assert_int_equal(bits_of(e8m0_value(code)), bits_of((float)reference_e8m0(code)));
    }
    assert_true(e4m3_value(0x7F) == 480 && e4m3_value(0xFF) == -480 && e4m3_value(0x7E) == 448);
    assert_true(e8m0_value(0) == 0x1p-127f && isinf(e8m0_value(255)));
    for (uint32_t code = 0; code < 65536; code++)
        assert_int_equal(bits_of(bf16_value((uint16_t)code)), code << 16);
}

static void a_value_has_its_own_code(void **state) {
    (void)state;
    for (int i = 0; i < 256; i++)
        if ((i & 0x7F) != 0x7F)
            assert_int_equal(e4m3_code(e4m3_value((uint8_t)i)), i);
    for (int i = 0; i < 16; i++)
        assert_int_equal(e2m1_code(e2m1_value((uint8_t)i)), i);
    for (uint32_t i = 0; i < 65536; i++)
        if ((i & 0x7FFF) <= 0x7F80)
            assert_int_equal(bf16_code(bf16_value((uint16_t)i)), i);
}

static void floats_round_to_the_nearest_code(void **state) {
    (void)state;
    for (uint64_t u = 0; u < 1ull << 32; u += STRIDE) {
        float x = float_of((uint32_t)u);
        if (!isfinite(x))
            continue;
        if (e4m3_code(x) != reference_e4m3_code((double)x))
            fail_msg("e4m3 of %a: %02x", (double)x, e4m3_code(x));
        if (e2m1_code(x) != reference_e2m1_code((double)x))
            fail_msg("e2m1 of %a: %x", (double)x, e2m1_code(x));
    }
}

/* Between each two neighbours: the middle, and the floats next to it. */
static void halves_go_to_the_even_code(void **state) {
    (void)state;
    for (uint8_t code = 0; code < 0x7E; code++) {
        float middle = (float)((reference_e4m3(code) + reference_e4m3(code + 1)) / 2);
        assert_int_equal(e4m3_code(middle), code % 2 ? code + 1 : code);
        assert_int_equal(e4m3_code(-middle), (code % 2 ? code + 1 : code) | 0x80);
        assert_int_equal(e4m3_code(nextafterf(middle, 0)), code);
        assert_int_equal(e4m3_code(nextafterf(middle, 1000)), code + 1);
    }
    static const struct {
        float x;
        float value;
    } spec[] = { { .25f, 0 }, { .75f, 1 }, { 1.25f, 1 }, { 1.75f, 2 },
                 { 2.5f, 2 }, { 3.5f, 4 }, { 5, 4 } };
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++) {
        assert_true(e2m1_value(e2m1_code(spec[i].x)) == spec[i].value);
        assert_true(e2m1_value(e2m1_code(-spec[i].x)) == -spec[i].value);
    }
}

static void what_is_not_finite_is_clamped(void **state) {
    (void)state;
    static const uint32_t bits[] = { 0x7F800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0x7F7FFFFF };
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        assert_int_equal(e4m3_code(float_of(bits[i])), 0x7E);
        assert_int_equal(e4m3_code(float_of(bits[i] | 0x80000000u)), 0xFE);
        assert_int_equal(fp8_scale_code(float_of(bits[i])), 247);
        assert_int_equal(fp4_scale_code(float_of(bits[i])), 253);
    }
    assert_int_equal(e4m3_code(1e30f), 0x7E);
    assert_int_equal(e4m3_code(463.0f), 0x7E);
    assert_int_equal(e2m1_code(INFINITY), 7);
    assert_int_equal(e2m1_code(-INFINITY), 15);
    assert_int_equal(e2m1_code(NAN) & 7, 0);
}

static void bf16_rounds_to_even_and_keeps_nan(void **state) {
    (void)state;
    for (uint64_t u = 0; u < 1ull << 32; u += STRIDE) {
        float x = float_of((uint32_t)u);
        uint16_t low = (uint16_t)(u >> 16), code = bf16_code(x);
        if (isnan(x)) {
            assert_true(isnan(float_of((uint32_t)code << 16)));
            continue;
        }
        // The two BF16 values around x: the nearer one; the even one from the middle.
        uint32_t rest = (uint32_t)u & 0xFFFF;
        bool up = rest > 0x8000 || (rest == 0x8000 && low % 2);
        assert_int_equal(code, (uint16_t)(low + up));
    }
    assert_int_equal(bf16_code(float_of(0x3F808000)), 0x3F80); // halves
    assert_int_equal(bf16_code(float_of(0x3F818000)), 0x3F82);
    assert_int_equal(bf16_code(float_of(0x7F7FFFFF)), 0x7F80); // too large: infinite
    assert_true(isnan(float_of((uint32_t)bf16_code(float_of(0x7F800001)) << 16)));
}

static void scales_are_the_power_of_two_above(void **state) {
    (void)state;
    for (uint64_t u = 0; u < 0x7F800000; u += STRIDE) {
        float amax = float_of((uint32_t)u);
        assert_true((double)e8m0_value(fp8_scale_code(amax)) == reference_fp8_scale(amax));
        assert_true((double)e8m0_value(fp4_scale_code(amax)) == reference_fp4_scale(amax));
    }
    assert_int_equal(fp8_scale_code(0), 105); // 1e-4 / 448 < 2^-22
    assert_int_equal(fp4_scale_code(0), 1);
    for (int e = -13; e < 60; e++) { // at the powers themselves, and one float further
        float at = ldexpf(448, e);
        assert_int_equal(fp8_scale_code(at), 127 + e);
        assert_int_equal(fp8_scale_code(nextafterf(at, INFINITY)),
                         127 + e + (nextafterf(at, INFINITY) / 448 > ldexpf(1, e)));
        assert_int_equal(fp4_scale_code(ldexpf(6, e)), 127 + e);
    }
    assert_int_equal(fp8_scale_code(-3.0f), fp8_scale_code(3.0f));
}

/* A group's largest element reaches the top octave of codes, and never needs the clamp. */
static void a_scaled_group_fits(void **state) {
    (void)state;
    struct random r = { 1 };
    for (int i = 0; i < 100000; i++) {
        float amax = fabsf(random_float(&r)) + 1e-3f;
        float top = amax / e8m0_value(fp8_scale_code(amax));
        assert_true(top <= 448.001f && top > 223.9f);
        top = amax / e8m0_value(fp4_scale_code(amax));
        assert_true(top <= 6.00001f && top > 2.9999f);
    }
}

static void loads_take_any_address(void **state) {
    (void)state;
    uint8_t bytes[16];
    for (uint8_t i = 0; i < 16; i++)
        bytes[i] = i;
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(load_u16(bytes + i), i | (i + 1) << 8);
        assert_int_equal(load_u32(bytes + i), i | (i + 1) << 8 | (i + 2) << 16 | (i + 3) << 24);
        assert_int_equal(bits_of(load_f32(bytes + i)), load_u32(bytes + i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_the_value_its_bits_spell),
        cmocka_unit_test(a_value_has_its_own_code),
        cmocka_unit_test(floats_round_to_the_nearest_code),
        cmocka_unit_test(halves_go_to_the_even_code),
        cmocka_unit_test(what_is_not_finite_is_clamped),
        cmocka_unit_test(bf16_rounds_to_even_and_keeps_nan),
        cmocka_unit_test(scales_are_the_power_of_two_above),
        cmocka_unit_test(a_scaled_group_fits),
        cmocka_unit_test(loads_take_any_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
