/* kernels/cpu/fp4_512.h - FP4 by integers in AVX-512, with and without VNNI: fp4_avx512.c and
 * fp4_vnni.c define dot4 and include this.
 *
 * Sixteen rows of w are the 32-bit lanes of a register, four columns of each its bytes:
 *
 *     row's 16 bytes of a group   | c0 c1 c2 c3 | c4 … |   (low nibbles: even columns, high: odd)
 *     16 rows, transposed         quad 0: lane i = bytes 0 … 3 of row i
 *     nibbles looked up           even columns 0 2 4 6, odd columns 1 3 5 7 of 16 rows, value·2 + 12
 *
 * and four columns of x, broadcast, meet 16 rows in one dot4. A group's weights, of 32 rows, stay in 16
 * registers for all rows of x; x comes as three planes of digits (forms.h). */
#ifndef SLUICE_KERNELS_CPU_FP4_512_H
#define SLUICE_KERNELS_CPU_FP4_512_H

#include "kernels/arith.h"
#include "kernels/cpu/forms.h"

#if defined(__AVX512BW__) && defined(FP4_DOT4)
#include <immintrin.h>
#include <string.h>

#define LANES  16 /* rows of a register */
#define QUADS  8  /* four columns each: even 0 … 3, odd 4 … 7 */
#define CHUNK  16 /* groups whose scales are loaded at once: 16 bytes of each row */
#define INLINE static inline __attribute__((always_inline))

/* Σ of four unsigned and four signed bytes in each lane, added to sum. */
INLINE __m512i dot4(__m512i sum, __m512i w, __m512i x) {
    return FP4_DOT4(sum, w, x);
}

/* Four times 16 bytes of four rows each, rows r, r + 4, … of register r: 32-bit words become lanes. */
INLINE void transpose(__m512i q[4]) {
    __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpackhi_epi32(q[0], q[1]);
    __m512i c = _mm512_unpacklo_epi32(q[2], q[3]), d = _mm512_unpackhi_epi32(q[2], q[3]);
    q[0] = _mm512_unpacklo_epi64(a, c);
    q[1] = _mm512_unpackhi_epi64(a, c);
    q[2] = _mm512_unpacklo_epi64(b, d);
    q[3] = _mm512_unpackhi_epi64(b, d);
}

/* 16 rows: the first and the distance to the next, or (where fewer are there: the last comes again) each.
 * Pointers to all of them would not stay in registers. */
struct rows {
    const uint8_t *first;
    size_t stride;
    const uint8_t *each[LANES];
};

INLINE const uint8_t *row_at(const bool whole, const struct rows *rows, int i) {
    return whole ? rows->first + (size_t)i * rows->stride : rows->each[i];
}

INLINE __m512i load_64(const void *p) {
    return _mm512_load_si512(p);
}
INLINE __m128i load_16(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* 16 bytes of each of 16 rows; lane 4k + r comes from 128-bit lane k of register r. */
INLINE void load_16_rows(const bool whole, __m512i q[4], const struct rows *rows, size_t at) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        __m512i v = _mm512_castsi128_si512(load_16(row_at(whole, rows, r) + at));
        v = _mm512_inserti32x4(v, load_16(row_at(whole, rows, 4 + r) + at), 1);
        v = _mm512_inserti32x4(v, load_16(row_at(whole, rows, 8 + r) + at), 2);
        q[r] = _mm512_inserti32x4(v, load_16(row_at(whole, rows, 12 + r) + at), 3);
    }
    transpose(q);
}

/* Low and high nibbles of each byte as value·2 + 12, ready for dot4: even and odd columns. A permutation
 * of 64 bytes (VBMI) looks at six bits, and what else they hold does not matter if the table is there four
 * times over. */
INLINE void look_up(__m512i *even, __m512i *odd, __m512i codes) {
    const __m512i value = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
#ifdef __AVX512VBMI__
    *even = _mm512_permutexvar_epi8(codes, value);
    *odd = _mm512_permutexvar_epi8(_mm512_srli_epi16(codes, 4), value);
#else
    const __m512i low = _mm512_set1_epi8(15);
    *even = _mm512_shuffle_epi8(value, _mm512_and_si512(codes, low));
    *odd = _mm512_shuffle_epi8(value, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
#endif
}

/* A group of 16 rows. */
INLINE void load_group(const bool whole, __m512i w[QUADS], const struct rows *rows, size_t at) {
    __m512i q[4];
    load_16_rows(whole, q, rows, at);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
        look_up(&w[k], &w[4 + k], q[k]);
}

/* Scales of n ≤ CHUNK groups of 16 rows as floats, group by group. E8M0 code 0 is 2^-127, a subnormal:
 * the larger of both bit patterns. */
INLINE void load_scales(const bool whole, float (*scale)[PANEL_ROWS], const struct rows *rows,
                        size_t at, uint32_t n) {
    const __mmask16 mask = (__mmask16)((1u << n) - 1);
    __m512i q[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(mask, row_at(whole, rows, r) + at));
        v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, row_at(whole, rows, 4 + r) + at), 1);
        v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, row_at(whole, rows, 8 + r) + at), 2);
        v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, row_at(whole, rows, 12 + r) + at), 3);
        q[r] = v;
    }
    transpose(q);
    const __m512i exponent = _mm512_set1_epi32(0x7F800000), least = _mm512_set1_epi32(0x00400000);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512i s[4] = { _mm512_slli_epi32(q[k], 23), _mm512_slli_epi32(q[k], 15),
                         _mm512_slli_epi32(q[k], 7), _mm512_srli_epi32(q[k], 1) };
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            _mm512_store_si512(scale[4 * k + i],
                               _mm512_max_epi32(_mm512_and_si512(s[i], exponent), least));
    }
}

/* Four columns of one plane, for all lanes. */
INLINE __m512i broadcast(const int8_t *digits) {
    int32_t word;
    memcpy(&word, digits, sizeof word);
    return _mm512_set1_epi32(word);
}

/* One group of 16 · n_registers rows of w and all rows of x. */
INLINE void multiply_group(const int n_registers, const __m512i (*w)[QUADS], const float *scale,
                           const struct x_group *x, uint32_t n_x, float (*out)[PANEL_ROWS]) {
    for (uint32_t j = 0; j < n_x; j++) {
        __m512i sums[2][3];
#pragma GCC unroll 2
        for (int r = 0; r < n_registers; r++) {
            sums[r][0] = _mm512_set1_epi32(x[j].as.bytes.minus);
            sums[r][1] = sums[r][2] = _mm512_setzero_si512();
        }
#pragma GCC unroll 8
        for (int k = 0; k < QUADS; k++)
#pragma GCC unroll 3
            for (int plane = 0; plane < 3; plane++) {
                const __m512i digits = broadcast(x[j].as.bytes.digit[plane] + 4 * k);
#pragma GCC unroll 2
                for (int r = 0; r < n_registers; r++)
                    sums[r][plane] = dot4(sums[r][plane], w[r][k], digits);
            }
#pragma GCC unroll 2
        for (int r = 0; r < n_registers; r++) {
            __m512i sum = _mm512_add_epi32(sums[r][1], _mm512_slli_epi32(sums[r][2], 7));
            sum = _mm512_add_epi32(sums[r][0], _mm512_slli_epi32(sum, 7));
            __m512 s = _mm512_mul_ps(_mm512_set1_ps(x[j].scale), _mm512_load_ps(scale + LANES * r));
            _mm512_storeu_ps(
                out[j] + LANES * r,
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), s, _mm512_loadu_ps(out[j] + LANES * r)));
        }
    }
}

/* --- few rows of x -------------------------------------------------------------------------------- */

/* Where a weight meets few rows of x, transposing is most of the work. So rows of w are read as they lie,
 * 64 bytes of one at a time (BLOCK groups, 128 columns), which meet the same columns of x; the four lanes of
 * each group are added afterwards, of four rows together. */
#define BLOCK 4

/* Four rows' lanes of four groups: 128-bit lane g becomes the sums of rows 0, 1, 2, 3 in group g. */
INLINE __m512i add_lanes(const __m512i rows[4]) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                        _mm512_unpackhi_epi32(rows[0], rows[1]));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                        _mm512_unpackhi_epi32(rows[2], rows[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* What 16 rows of w make of a block: lanes of sums[j][i] are rows 4i … 4i + 3 of each group. */
struct few_sums {
    __m512i sums[FP4_FEW_ROWS][4];
    const float (*scale)[PANEL_ROWS]; /* of each group, 16 rows of w */
    const struct x_block *x;
    float (*out)[PANEL_ROWS];
    uint32_t n; /* groups, at most BLOCK */
};

/* 16 rows of w from byte `at` on. */
INLINE void multiply_few(const bool whole, const int n_x, const struct rows *rows, size_t at,
                         struct few_sums *to) {
    const struct x_block *x = to->x;
    const __mmask8 there = (__mmask8)((1u << 2 * to->n) - 1); // 16 bytes are two words of 64 bits
#pragma GCC unroll 4
    for (int four = 0; four < 4; four++) {
        __m512i even[4], odd[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            const uint8_t *row = row_at(whole, rows, 4 * four + r) + at;
            look_up(&even[r], &odd[r], _mm512_maskz_loadu_epi64(there, row));
        }
#pragma GCC unroll 4
        for (int j = 0; j < n_x; j++) {
            __m512i lanes[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                __m512i sum = dot4(_mm512_setzero_si512(), even[r], load_64(x[j].digit[2][0]));
                sum = dot4(sum, odd[r], load_64(x[j].digit[2][1]));
                sum = dot4(_mm512_slli_epi32(sum, 7), even[r], load_64(x[j].digit[1][0]));
                sum = dot4(sum, odd[r], load_64(x[j].digit[1][1]));
                sum = dot4(_mm512_slli_epi32(sum, 7), even[r], load_64(x[j].digit[0][0]));
                lanes[r] = dot4(sum, odd[r], load_64(x[j].digit[0][1]));
            }
            to->sums[j][four] = _mm512_add_epi32(add_lanes(lanes), load_64(x[j].minus));
        }
    }
}

/* Groups ascending, into 16 rows' results. */
INLINE void finish_few(const int n_x, const struct few_sums *from) {
#pragma GCC unroll 4
    for (int j = 0; j < n_x; j++) { // lanes are groups' rows; rows of each group is what is wanted
        const __m512i *sums = from->sums[j];
        const __m512i a = _mm512_shuffle_i32x4(sums[0], sums[1], 0x44),
                      b = _mm512_shuffle_i32x4(sums[2], sums[3], 0x44),
                      c = _mm512_shuffle_i32x4(sums[0], sums[1], 0xEE),
                      d = _mm512_shuffle_i32x4(sums[2], sums[3], 0xEE);
        const __m512i group[BLOCK] = { _mm512_shuffle_i32x4(a, b, 0x88),
                                       _mm512_shuffle_i32x4(a, b, 0xDD),
                                       _mm512_shuffle_i32x4(c, d, 0x88),
                                       _mm512_shuffle_i32x4(c, d, 0xDD) };
        const __m512 s = _mm512_set1_ps(from->x[j].scale);
        __m512 acc = _mm512_loadu_ps(from->out[j]);
#pragma GCC unroll 4
        for (uint32_t g = 0; g < BLOCK; g++)
            if (g < from->n)
                acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(group[g]),
                                      _mm512_mul_ps(s, _mm512_load_ps(from->scale[g])), acc);
        _mm512_storeu_ps(from->out[j], acc);
    }
}

/* Rows first … of the panel, at most 16. */
INLINE struct rows rows_of(const uint8_t *w, size_t stride, uint32_t first, uint32_t n_rows) {
    struct rows rows = { .first = w + first * stride, .stride = stride };
    for (uint32_t i = 0; i < LANES; i++)
        rows.each[i] = w + (first + i < n_rows ? first + i : n_rows - 1) * stride;
    return rows;
}

/* n groups from `first` on, whose scales are loaded. */
INLINE void many(const bool whole, const int n_registers, const struct fp4_panel *p,
                 const struct rows *codes, const float (*scale)[PANEL_ROWS], uint32_t first,
                 uint32_t n) {
    for (uint32_t g = 0; g < n; g++) {
        const size_t at = (size_t)(first + g) * (GROUP_COLS / 2);
        __m512i w[2][QUADS];
#pragma GCC unroll 2
        for (int r = 0; r < n_registers; r++)
            load_group(whole, w[r], &codes[r], at);
        multiply_group(n_registers, (const __m512i(*)[QUADS])w, scale[g],
                       (const struct x_group *)p->x + (size_t)(first + g) * p->n_x, p->n_x, p->out);
    }
}

/* Sums wait until the next ones are under way: the last steps of each are a chain, which would stop the
 * processor's window. */
INLINE void few(const bool whole, const int n_registers, const int n_x, const struct fp4_panel *p,
                const struct rows *codes, const float (*scale)[PANEL_ROWS], uint32_t first,
                uint32_t n) {
    struct few_sums now, before = { .n = 0 };
    for (uint32_t g = 0; g < n; g += BLOCK) {
        const size_t at = (size_t)(first + g) * (GROUP_COLS / 2);
        if (p->ahead) // as many cache lines as are read here
#pragma GCC unroll 16
            for (size_t i = 0; i < (size_t)n_registers * LANES; i++)
                _mm_prefetch((const char *)p->ahead + n_registers * LANES * at + 64 * i,
                             _MM_HINT_T0);
        now.n = n - g < BLOCK ? n - g : BLOCK;
        now.x = (const struct x_block *)p->x + (size_t)(first + g) / BLOCK * p->n_x;
#pragma GCC unroll 2
        for (int r = 0; r < n_registers; r++) {
            now.scale = (const float(*)[PANEL_ROWS])(const void *)(scale[g] + LANES * r);
            now.out = (float(*)[PANEL_ROWS])(void *)(p->out[0] + LANES * r);
            multiply_few(whole, n_x, &codes[r], at, &now);
            if (before.n)
                finish_few(n_x, &before);
            before = now;
        }
    }
    finish_few(n_x, &before);
}

/* n_x: rows of x, if they are few. */
INLINE void panel(const bool whole, const int n_registers, const int n_x,
                  const struct fp4_panel *p) {
    const size_t row_bytes = (size_t)p->n_groups * (GROUP_COLS / 2);
    const struct rows codes[2] = { rows_of(p->w, row_bytes, 0, p->n_rows),
                                   rows_of(p->w, row_bytes, LANES, p->n_rows) };
    const struct rows scales[2] = { rows_of(p->scale, p->n_groups, 0, p->n_rows),
                                    rows_of(p->scale, p->n_groups, LANES, p->n_rows) };
    float(*scale)[PANEL_ROWS] = p->scratch; // [CHUNK]
    for (uint32_t j = 0; j < p->n_x; j++)
        memset(p->out[j], 0, sizeof p->out[j]);
    for (uint32_t first = 0; first < p->n_groups; first += CHUNK) {
        const uint32_t n = p->n_groups - first < CHUNK ? p->n_groups - first : CHUNK;
        for (int r = 0; r < n_registers; r++)
            load_scales(whole, (float(*)[PANEL_ROWS])(void *)(scale[0] + LANES * r), &scales[r],
                        first, n);
        if (n_x)
            few(whole, n_registers, n_x, p, codes, (const float(*)[PANEL_ROWS])scale, first, n);
        else
            many(whole, n_registers, p, codes, (const float(*)[PANEL_ROWS])scale, first, n);
    }
}

INLINE void fp4_512(const struct fp4_panel *p) {
    const bool whole = p->n_rows % LANES == 0;
    const int registers = p->n_rows > LANES ? 2 : 1;
    // One function with whole constants for what is common, one for all else.
    if (whole && registers == 2 && p->n_x == 1)
        panel(true, 2, 1, p);
    else if (whole && registers == 2 && p->n_x == 2)
        panel(true, 2, 2, p);
    else if (whole && registers == 2)
        panel(true, 2, 0, p);
    else if (p->n_x == 1)
        registers == 2 ? panel(false, 2, 1, p) : panel(false, 1, 1, p);
    else if (p->n_x == 2)
        registers == 2 ? panel(false, 2, 2, p) : panel(false, 1, 2, p);
    else
        registers == 2 ? panel(false, 2, 0, p) : panel(false, 1, 0, p);
}
#endif
#endif
