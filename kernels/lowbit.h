/* kernels/lowbit.h - E4M3, E2M1, E8M0 and BF16: codes to values and back; the scales of groups.
 *
 * Every function is pure, integer operations and exact or IEEE float ones, so that C and CUDA give
 * the same bits. They have no branches that a vectorizer minds: a loop over one of them becomes
 * vector code. Rounding is to nearest, ties to even, everywhere. Subnormal floats are numbers like
 * all others (never compile with flush-to-zero).
 *
 *   E4M3  sign, 4 bits of exponent (bias 7), 3 of mantissa; max 448; no infinities
 *   E2M1  sign, 2 bits of exponent (bias 1), 1 of mantissa: 0 .5 1 1.5 2 3 4 6
 *   E8M0  the byte b is 2^(b-127)
 *   BF16  the upper half of a float32
 *
 * What is not a number: weights come from a file that nobody vouches for, and both backends must
 * agree on any byte. So codes have the value that their bits spell: E4M3's NaNs (0x7F, 0xFF) read
 * as ±480, what that exponent and mantissa would be, because a select for it in the innermost loop
 * buys nothing; E8M0's NaN (255) reads as 2^128, which is +inf in float32, so that a damaged scale
 * shows in the output instead of passing for a number. In the other direction no code that stands
 * for NaN is ever emitted: a float NaN is treated as the largest magnitude (E4M3, scales) or as
 * zero (E2M1, after its scale). */
#ifndef SLUICE_KERNELS_LOWBIT_H
#define SLUICE_KERNELS_LOWBIT_H

#include <stdint.h>
#include <string.h>

/* For C, C++ and CUDA alike; kernels/arith.h uses it too. */
#ifdef __CUDACC__
#define ARITH_FN static __host__ __device__ __forceinline__
#else
#define ARITH_FN static inline
#endif

/* --- bits ----------------------------------------------------------------------------------- */

ARITH_FN uint32_t float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
ARITH_FN float bits_float(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Loads from any address: tensors lie where the shard put them. */
ARITH_FN uint16_t load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
ARITH_FN uint32_t load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
ARITH_FN float load_f32(const void *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* --- codes to values ------------------------------------------------------------------------ */

ARITH_FN float e4m3_value(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80) << 24;
    uint32_t magnitude = (uint32_t)(code & 0x7F) << 20;  // exponent and mantissa, in float's place
    float normal = bits_float(magnitude + (120u << 23)); // bias 7 becomes 127
    // Below 2^-6 the leading 1 is not there: give it one (exponent 121 = 2^-6), take it off again.
    float subnormal = bits_float(magnitude + (121u << 23)) - 0.015625f;
    float value = magnitude < (1u << 23) ? subnormal : normal;
    return bits_float(float_bits(value) | sign);
}

/* The value times 2^9: an integer below 2^18. */
ARITH_FN int32_t e4m3_times_512(uint8_t code) {
    return (int32_t)(e4m3_value(code) * 512.0f);
}

/* The low four bits count. */
ARITH_FN float e2m1_value(uint8_t nibble) {
    uint32_t sign = (uint32_t)(nibble & 8) << 28;
    uint32_t magnitude = (uint32_t)(nibble & 7) << 22;
    float normal = bits_float(magnitude + (126u << 23)); // bias 1 becomes 127
    float subnormal = bits_float(magnitude + (127u << 23)) - 1.0f;
    float value = magnitude < (1u << 23) ? subnormal : normal;
    return bits_float(float_bits(value) | sign);
}

/* The value times 2: 0 1 2 3 4 6 8 12 and negatives. In bytes, of which a register holds 64. */
ARITH_FN int8_t e2m1_times_2(uint8_t nibble) {
    uint8_t m = nibble & 7;
    uint8_t value = m + (m > 4 ? m - 4 : 0) + (m == 7 ? 2 : 0);
    return (int8_t)(nibble & 8 ? -value : value);
}

/* 0 is 2^-127 (a subnormal float, exact), 255 is +inf. */
ARITH_FN float e8m0_value(uint8_t code) {
    return bits_float(code ? (uint32_t)code << 23 : 0x00400000u);
}

ARITH_FN float bf16_value(uint16_t code) {
    return bits_float((uint32_t)code << 16);
}

/* --- values to codes ------------------------------------------------------------------------ */

/* Clamped to ±448. */
ARITH_FN uint8_t e4m3_code(float x) {
    uint32_t bits = float_bits(x);
    uint32_t sign = bits >> 24 & 0x80;
    uint32_t a = bits & 0x7FFFFFFFu;
    uint32_t limit = 0x43E00000u; // 448; NaNs lie above it
    uint32_t clamped = a < limit ? a : limit;
    // Normal: drop 20 bits of mantissa; a carry goes into the exponent, where it belongs.
    uint32_t normal = (clamped + 0x7FFFFu + (clamped >> 20 & 1)) >> 20;
    // Below 2^-6 codes are multiples of 2^-9, the distance of floats from 2^14 on: add rounds.
    uint32_t subnormal = float_bits(bits_float(clamped) + 16384.0f) - 0x46800000u;
    uint32_t code = clamped < 0x3C800000u ? subnormal : normal - (120u << 3);
    return (uint8_t)(code | sign);
}

/* Clamped to ±6; ties to the even code: .25 → 0, .75 → 1, 1.25 → 1, 1.75 → 2, 2.5 → 2, 3.5 → 4,
 * 5 → 4. */
ARITH_FN uint8_t e2m1_code(float x) {
    uint32_t bits = float_bits(x);
    float a = bits_float(bits & 0x7FFFFFFFu);
    uint32_t code = (uint32_t)(a > 0.25f) + (uint32_t)(a >= 0.75f) + (uint32_t)(a > 1.25f) +
                    (uint32_t)(a >= 1.75f) + (uint32_t)(a > 2.5f) + (uint32_t)(a >= 3.5f) +
                    (uint32_t)(a > 5.0f);
    return (uint8_t)(code | (bits >> 28 & 8));
}

/* NaN stays NaN (quiet), what is too large becomes infinite. */
ARITH_FN uint16_t bf16_code(float x) {
    uint32_t bits = float_bits(x);
    uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
    uint32_t nan = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

/* --- scales --------------------------------------------------------------------------------- */

/* The E8M0 byte of 2^⌈log2 q⌉ for a normal q > 0, read off exponent and mantissa: log() would need
 * to be exact at the powers of two. */
ARITH_FN uint8_t e8m0_ceil_code(float q) {
    uint32_t bits = float_bits(q);
    return (uint8_t)((bits >> 23) + (uint32_t)((bits & 0x7FFFFFu) != 0));
}

/* Scale of a group of E4M3 codes whose largest |x| is amax: s = 2^⌈log2(max(amax, 1e-4)/448)⌉.
 * The quotient is a float32 division, as published. Infinite and NaN count as the largest finite
 * float; so the byte lies in 105 … 247, and s and 1/s are normal. Spec 3. */
ARITH_FN uint8_t fp8_scale_code(float amax) {
    uint32_t bits = float_bits(amax) & 0x7FFFFFFFu;
    float a = bits_float(bits < 0x7F7FFFFFu ? bits : 0x7F7FFFFFu);
    return e8m0_ceil_code((a > 1e-4f ? a : 1e-4f) / 448.0f);
}

/* Scale of a group of E2M1 codes: s = 2^⌈log2(max(amax, 6·2^-126)/6)⌉, byte in 1 … 253. */
ARITH_FN uint8_t fp4_scale_code(float amax) {
    uint32_t bits = float_bits(amax) & 0x7FFFFFFFu;
    float a = bits_float(bits < 0x7F7FFFFFu ? bits : 0x7F7FFFFFu);
    float least = bits_float(0x01C00000u); // 6·2^-126 = 1.5·2^-124
    return e8m0_ceil_code((a > least ? a : least) / 6.0f);
}

#endif
