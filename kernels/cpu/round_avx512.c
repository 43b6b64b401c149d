/* x rounded, in AVX-512: values of E4M3 without their codes. */
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/loops_matrix.h"

#include <immintrin.h>

/* Of 128 columns (m of them, the others are 0): the scale that lowbit.h says. */
static inline float scale_of(const __m512 x[8]) {
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < 8; i++)
        most = _mm512_max_epu32(
            most, _mm512_and_si512(_mm512_castps_si512(x[i]), _mm512_set1_epi32(0x7FFFFFFF)));
    return e8m0_value(fp8_scale_code(bits_float(_mm512_reduce_max_epu32(most))));
}

static inline void load(__m512 x[8], const float *from, uint32_t m) {
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t left = m > 16 * i ? m - 16 * i : 0;
        __mmask16 there = (__mmask16)(left >= 16 ? 0xFFFF : (1u << left) - 1);
        x[i] = _mm512_maskz_loadu_ps(there, from + 16 * i);
    }
}

/* e4m3_value(e4m3_code(x)): clamped, then 20 bits of mantissa rounded off (a carry goes into the exponent),
 * or below 2^-6 to multiples of 2^-9. */
static inline __m512 nearest(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x), sign = _mm512_set1_epi32((int)0x80000000);
    const __m512i a = _mm512_min_epu32(_mm512_andnot_si512(sign, bits),
                                       _mm512_set1_epi32(0x43E00000)); // 448; NaNs lie above it
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(a, 20), _mm512_set1_epi32(1));
    const __m512i normal =
        _mm512_and_si512(_mm512_add_epi32(_mm512_add_epi32(a, _mm512_set1_epi32(0x7FFFF)), last),
                         _mm512_set1_epi32((int)0xFFF00000));
    const __m512 magic = _mm512_set1_ps(16384.0f); // from here on floats are 2^-9 apart
    const __m512 small = _mm512_sub_ps(_mm512_add_ps(_mm512_castsi512_ps(a), magic), magic);
    const __mmask16 is_small = _mm512_cmplt_epu32_mask(a, _mm512_set1_epi32(0x3C800000)); // 2^-6
    const __m512i value = _mm512_mask_mov_epi32(normal, is_small, _mm512_castps_si512(small));
    return _mm512_castsi512_ps(_mm512_or_si512(value, _mm512_and_si512(bits, sign)));
}

void avx512_round(float *dst, const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS) {
        const uint32_t m = n - c < BLOCK_COLS ? n - c : BLOCK_COLS;
        __m512 v[8];
        load(v, x + c, m);
        const float s = scale_of(v);
        const __m512 inverse = _mm512_set1_ps(1.0f / s), scale = _mm512_set1_ps(s);
        for (uint32_t i = 0; i < 8 && 16 * i < m; i++) {
            const uint32_t left = m - 16 * i;
            _mm512_mask_storeu_ps(dst + c + 16 * i,
                                  (__mmask16)(left >= 16 ? 0xFFFF : (1u << left) - 1),
                                  _mm512_mul_ps(nearest(_mm512_mul_ps(v[i], inverse)), scale));
        }
    }
}

/* 16 even and 16 odd columns of 32. */
static inline void split(__m512i *even, __m512i *odd, __m512i a, __m512i b) {
    const __m512i index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *even = _mm512_permutex2var_epi32(a, index, b);
    *odd = _mm512_permutex2var_epi32(a, _mm512_add_epi32(index, _mm512_set1_epi32(1)), b);
}

/* The three digits of 16 integers, as loop_round_digits says. */
static inline void digits(__m128i digit[3], __m512i v) {
    const __m512i half = _mm512_set1_epi32(64);
    const __m512i rest = _mm512_srai_epi32(_mm512_add_epi32(v, half), 7);
    const __m512i most = _mm512_srai_epi32(_mm512_add_epi32(rest, half), 7);
    digit[0] = _mm512_cvtepi32_epi8(_mm512_sub_epi32(v, _mm512_slli_epi32(rest, 7)));
    digit[1] = _mm512_cvtepi32_epi8(_mm512_sub_epi32(rest, _mm512_slli_epi32(most, 7)));
    digit[2] = _mm512_cvtepi32_epi8(most);
}

/* Where the planes of group g of a block lie: of many rows each group by itself, of few four groups
 * together. */
static inline void put_group(struct x_group *group, struct x_block *block, uint32_t g, __m512i a,
                             __m512i b, float scale) {
    const int32_t minus = -12 * _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
    __m512i half[2];
    split(&half[0], &half[1], a, b);
    for (uint32_t odd = 0; odd < 2; odd++) {
        __m128i digit[3];
        digits(digit, half[odd]);
        for (uint32_t plane = 0; plane < 3; plane++)
            _mm_storeu_si128(group ? (__m128i *)(void *)(group->as.bytes.digit[plane] + 16 * odd)
                                   : (__m128i *)(void *)(block->digit[plane][odd] + 16 * g),
                             digit[plane]);
    }
    if (group) {
        group->as.bytes.minus = minus;
        group->scale = scale;
    } else {
        for (uint32_t i = 0; i < 4; i++)
            block->minus[4 * g + i] = minus;
        block->scale = scale;
    }
}

void avx512_round_groups(void *dst, uint32_t row, uint32_t n_rows, const float *x, uint32_t n) {
    const bool few = n_rows <= FP4_FEW_ROWS;
    for (uint32_t c = 0; c < n; c += BLOCK_COLS) {
        const uint32_t m = n - c < BLOCK_COLS ? n - c : BLOCK_COLS;
        struct x_block *block = (struct x_block *)dst + (size_t)c / BLOCK_COLS * n_rows + row;
        struct x_group *group = (struct x_group *)dst + (size_t)c / GROUP_COLS * n_rows + row;
        __m512 v[8];
        load(v, x + c, m);
        const float s = scale_of(v);
        // To integers: 2^9 times what is nearest.
        const __m512 inverse = _mm512_set1_ps(1.0f / s), to_integer = _mm512_set1_ps(512.0f);
        for (uint32_t g = 0; g < (few ? 4 : m / GROUP_COLS); g++) {
            __m512i code[2];
            for (uint32_t i = 0; i < 2; i++)
                code[i] = _mm512_cvttps_epi32(
                    _mm512_mul_ps(nearest(_mm512_mul_ps(v[2 * g + i], inverse)), to_integer));
            put_group(few ? NULL : group + (size_t)g * n_rows, block, g, code[0], code[1],
                      s * 0.0009765625f);
        }
    }
}
