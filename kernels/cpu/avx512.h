/* kernels/cpu/avx512.h - the functions that are written by hand in AVX-512, for form_avx512.c; and what
 * they share. See forms.h. */
#ifndef SLUICE_KERNELS_CPU_AVX512_H
#define SLUICE_KERNELS_CPU_AVX512_H

#include "kernels/cpu/forms.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of x for which w is widened in registers; up to twice as many take w twice (the second time from L1),
 * beyond that it is widened once, in memory. */
#define AVX512_DIRECT_ROWS 4

/* Up to so many rows of x, FP4 is read row by row. x is then [blocks of 128 columns, rows] of these. */
#define FP4_FEW_ROWS 2
struct x_block {
    int8_t digit[3][2][64]; /* planes; even and odd columns of four groups */
    int32_t minus[16];      /* of each group, four times */
    float scale;
    float none[15]; /* to whole cache lines */
};

void avx512_round(float *dst, const float *x, uint32_t n);
void avx512_round_groups(void *dst, uint32_t row, uint32_t n_rows, const float *x, uint32_t n);
void avx512_widen(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                  uint32_t n);
void avx512_t16(const struct t16_block *b);
void avx512_widen_by_bits(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                          uint32_t n);
void avx512_t16_by_bits(const struct t16_block *b);
void avx512_fold(float *out, const float (*sums)[16], uint32_t n);
void avx512_fp4(const struct fp4_panel *p);
void vnni_fp4(const struct fp4_panel *p);
void avx512_entry_unpack(const unsigned char *entry, uint32_t c, uint32_t r, float *x);
void avx512_scores(float *score, size_t stride, const float *q, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c, float scale);
void avx512_values(float *o, const float *e, size_t stride, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c);
void avx512_index_scores(float *score, const struct index_query *q,
                         const unsigned char *const *keys);
void vnni_index_scores(float *score, const struct index_query *q, const unsigned char *const *keys);

#ifdef __cplusplus
}
#endif

#ifdef __AVX512F__
#include <immintrin.h>

/* arith_tree16 of 16 registers at once: lane i is the sum of lanes[i]. Each step adds the halves of two
 * registers and packs both results into one. */
static inline __attribute__((always_inline)) __m512 avx512_tree(const __m512 lanes[16]) {
    __m512 by_4[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 a = lanes[i], b = lanes[i + 4], c = lanes[i + 8], d = lanes[i + 12];
        const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), // +8
                                        _mm512_shuffle_f32x4(a, b, 0xEE));
        const __m512 cd =
            _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
        by_4[i] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), // +4
                                _mm512_shuffle_f32x4(ab, cd, 0xDD));
    }
    const __m512 low = _mm512_add_ps(_mm512_shuffle_ps(by_4[0], by_4[1], 0x44), // +2
                                     _mm512_shuffle_ps(by_4[0], by_4[1], 0xEE));
    const __m512 high = _mm512_add_ps(_mm512_shuffle_ps(by_4[2], by_4[3], 0x44),
                                      _mm512_shuffle_ps(by_4[2], by_4[3], 0xEE));
    return _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x88), // +1
                         _mm512_shuffle_ps(low, high, 0xDD));
}
#endif
#endif
