/* T16 in AVX-512: a register is the 16 lanes of one sum. */
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/loops_matrix.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Rows of w and of x whose sums are in registers at once. 4 × 6 = 24 of them leave room for four of w
 * and one of x, and need 10 loads for 24 products, where two loads go with two products. */
#define TILE_W 4
#define TILE_X 6

/* What a tile reads w from: a pointer for each row. Where there are fewer than 4 the last one is read
 * again, and the sum is of no use. */
struct tile_rows {
    const uint8_t *at[TILE_W];
    const float *scale[TILE_W];
    const uint8_t *ahead; /* and what it prefetches meanwhile; or NULL */
};

/* FP8 to float by two routes. Either way the value is too small by a power of two at first; the scale, one
 * too, makes up for it, and their product is rounded once, as in scalar.
 *
 *   by half  an E4M3 byte is an FP16 number times 2^-8: sign-extend, shift by 7, clear the bit between
 *            sign and exponent, convert. No machine minds.
 *   by bits  a float times 2^-120: likewise by 20. The smallest codes are subnormal floats, which Intel's
 *            multipliers take more than a hundred cycles for, and AMD's some; but AMD's multiply-add takes
 *            none, while it converts only 1.2 registers of FP16 in a cycle: 33 against 50 GB/s (Zen 5, one
 *            core, from L2). */
#define BY_HALF_SCALE 0x1p8f
#define BY_BITS_SCALE 0x1p120f

INLINE void load_by_half(__m512 v[2], const uint8_t *w, __m512 scale) {
    __m512i bits = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)w));
    bits = _mm512_and_si512(_mm512_slli_epi16(bits, 7), _mm512_set1_epi16((short)0xBFFF));
    v[0] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(bits)), scale);
    v[1] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1)), scale);
}

INLINE void load_by_bits(__m512 v[2], const uint8_t *w, __m512 scale) {
    const __m512 none = _mm512_set1_ps(-0.0f); // what changes no product, zeros included
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512i bits = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)w + i));
        bits = _mm512_and_si512(_mm512_slli_epi32(bits, 20), _mm512_set1_epi32((int)0x87F00000));
        v[i] = _mm512_fmadd_ps(_mm512_castsi512_ps(bits), scale, none);
    }
}

INLINE void load_fp8(const bool by_bits, __m512 v[2], const uint8_t *w, __m512 scale) {
    if (by_bits)
        load_by_bits(v, w, scale);
    else
        load_by_half(v, w, scale);
}

INLINE __m512 load_bf16(const uint8_t *w) {
    __m256i code = _mm256_loadu_si256((const __m256i *)(const void *)w);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(code), 16));
}

/* Columns c … c + 31 of row i. */
INLINE void load_w(const bool by_bits, __m512 v[2], const enum matrix_type type, const uint8_t *row,
                   uint32_t c, __m512 scale) {
    if (type == MATRIX_F32) {
        v[0] = _mm512_loadu_ps(row + 4 * (size_t)c);
        v[1] = _mm512_loadu_ps(row + 4 * (size_t)c + 64);
    } else if (type == MATRIX_BF16) {
        v[0] = load_bf16(row + 2 * (size_t)c);
        v[1] = load_bf16(row + 2 * (size_t)c + 32);
    } else {
        load_fp8(by_bits, v, row + c, scale);
    }
}

INLINE void widen(const bool by_bits, float *out, enum matrix_type type, const uint8_t *w,
                  const float *scale, uint32_t n) {
    uint32_t c = 0;
    if (type == MATRIX_BF16)
        for (; c + 16 <= n; c += 16)
            _mm512_storeu_ps(out + c, load_bf16(w + 2 * (size_t)c));
    if (type != MATRIX_FP8 && type != MATRIX_FP8_F32) {
        loop_widen(out + c, type, w + (type == MATRIX_BF16 ? 2 * (size_t)c : 0), scale, n - c);
        return;
    }
    const float up = by_bits ? BY_BITS_SCALE : BY_HALF_SCALE;
    for (uint32_t block = 0; block < n; block += BLOCK_COLS) {
        const uint32_t end = n - block < BLOCK_COLS ? n : block + BLOCK_COLS;
        const float s = type == MATRIX_FP8 ? scale[block / BLOCK_COLS] : 1.0f;
        for (c = block; c + 32 <= end && s * up < INFINITY; c += 32) {
            __m512 v[2];
            load_fp8(by_bits, v, w + c, _mm512_set1_ps(s * up));
            _mm512_storeu_ps(out + c, v[0]);
            _mm512_storeu_ps(out + c + 16, v[1]);
        }
        loop_widen_fp8(out + c, w + c, s, end - c);
    }
}

void avx512_widen(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                  uint32_t n) {
    widen(false, out, type, w, scale, n);
}
void avx512_widen_by_bits(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                          uint32_t n) {
    widen(true, out, type, w, scale, n);
}

/* As many cache lines of what lies ahead as columns c … c + 31 of four rows take. */
INLINE void prefetch(const uint8_t *ahead, const enum matrix_type type, uint32_t c) {
    const uint32_t bytes = type == MATRIX_F32 ? 4 : type == MATRIX_BF16 ? 2 : 1;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < TILE_W * bytes / 2; i++)
        _mm_prefetch((const char *)ahead + (size_t)c * bytes * TILE_W + 64 * i, _MM_HINT_T1);
}

/* All whole 32 columns of 4 rows of w and nj of x. sums: of the first of both. */
INLINE void tile(const bool by_bits, const enum matrix_type type, const bool scale_sums,
                 const int nj, const struct tile_rows *w, const float *x, uint32_t n,
                 float (*sums)[PANEL_ROWS][16]) {
    const float up = by_bits ? BY_BITS_SCALE : BY_HALF_SCALE;
    __m512 acc[TILE_X][TILE_W];
#pragma GCC unroll 8
    for (int j = 0; j < nj; j++)
#pragma GCC unroll 8
        for (int i = 0; i < TILE_W; i++)
            acc[j][i] = scale_sums ? _mm512_setzero_ps() : _mm512_loadu_ps(sums[j][i]);
    for (uint32_t block = 0; block < n; block += BLOCK_COLS) {
        const uint32_t end = n - block < BLOCK_COLS ? n : block + BLOCK_COLS;
        __m512 scale[TILE_W];
#pragma GCC unroll 8
        for (int i = 0; i < TILE_W; i++)
            scale[i] =
                _mm512_set1_ps(type == MATRIX_FP8 ? w->scale[i][block / BLOCK_COLS] * up : up);
        for (uint32_t c = block; c < end; c += 32) {
            if (nj <= AVX512_DIRECT_ROWS && w->ahead)
                prefetch(w->ahead, type, c);
            if (nj == 1) { // narrow w, one row: widen four rows, then multiply
                __m512 x0 = _mm512_loadu_ps(x + c), x1 = _mm512_loadu_ps(x + c + 16);
#pragma GCC unroll 8
                for (int i = 0; i < TILE_W; i++) {
                    __m512 v[2];
                    load_w(by_bits, v, type, w->at[i], c, scale[i]);
                    acc[0][i] = _mm512_fmadd_ps(v[0], x0, acc[0][i]);
                    acc[0][i] = _mm512_fmadd_ps(v[1], x1, acc[0][i]);
                }
                continue;
            }
            __m512 v[TILE_W][2];
#pragma GCC unroll 8
            for (int i = 0; i < TILE_W; i++)
                load_w(by_bits, v[i], type, w->at[i], c, scale[i]);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
                for (int j = 0; j < nj; j++) {
                    __m512 xj = _mm512_loadu_ps(x + (size_t)j * WIDE_STRIDE + c + 16 * half);
#pragma GCC unroll 8
                    for (int i = 0; i < TILE_W; i++)
                        acc[j][i] = _mm512_fmadd_ps(v[i][half], xj, acc[j][i]);
                }
        }
        if (scale_sums && end - block == BLOCK_COLS) {
#pragma GCC unroll 8
            for (int j = 0; j < nj; j++)
#pragma GCC unroll 8
                for (int i = 0; i < TILE_W; i++) {
                    __m512 s = _mm512_set1_ps(w->scale[i][block / BLOCK_COLS]);
                    __m512 sum = _mm512_fmadd_ps(acc[j][i], s, _mm512_loadu_ps(sums[j][i]));
                    _mm512_storeu_ps(sums[j][i], sum);
                    acc[j][i] = _mm512_setzero_ps();
                }
        }
    }
    if (!scale_sums)
#pragma GCC unroll 8
        for (int j = 0; j < nj; j++)
#pragma GCC unroll 8
            for (int i = 0; i < TILE_W; i++)
                _mm512_storeu_ps(sums[j][i], acc[j][i]);
}

/* One function for each combination that occurs: registers are chosen when it is compiled. */
typedef void tile_function(const struct tile_rows *w, const float *x, uint32_t n,
                           float (*sums)[PANEL_ROWS][16]);
#define TILE(name, by_bits, type, scale_sums, nj)                                                  \
    static void name(const struct tile_rows *w, const float *x, uint32_t n,                        \
                     float(*sums)[PANEL_ROWS][16]) {                                               \
        tile(by_bits, type, scale_sums, nj, w, x, n, sums);                                        \
    }
TILE(f32_1, false, MATRIX_F32, false, 1)
TILE(f32_2, false, MATRIX_F32, false, 2)
TILE(f32_3, false, MATRIX_F32, false, 3)
TILE(f32_4, false, MATRIX_F32, false, 4)
TILE(f32_5, false, MATRIX_F32, false, 5)
TILE(f32_6, false, MATRIX_F32, false, 6)
TILE(f32_scaled_1, false, MATRIX_F32, true, 1)
TILE(f32_scaled_2, false, MATRIX_F32, true, 2)
TILE(f32_scaled_3, false, MATRIX_F32, true, 3)
TILE(f32_scaled_4, false, MATRIX_F32, true, 4)
TILE(f32_scaled_5, false, MATRIX_F32, true, 5)
TILE(f32_scaled_6, false, MATRIX_F32, true, 6)
TILE(bf16_1, false, MATRIX_BF16, false, 1)
TILE(bf16_2, false, MATRIX_BF16, false, 2)
TILE(bf16_3, false, MATRIX_BF16, false, 3)
TILE(bf16_4, false, MATRIX_BF16, false, 4)
TILE(half_1, false, MATRIX_FP8, false, 1)
TILE(half_2, false, MATRIX_FP8, false, 2)
TILE(half_3, false, MATRIX_FP8, false, 3)
TILE(half_4, false, MATRIX_FP8, false, 4)
TILE(half_scaled_1, false, MATRIX_FP8_F32, true, 1)
TILE(half_scaled_2, false, MATRIX_FP8_F32, true, 2)
TILE(half_scaled_3, false, MATRIX_FP8_F32, true, 3)
TILE(half_scaled_4, false, MATRIX_FP8_F32, true, 4)
TILE(bits_1, true, MATRIX_FP8, false, 1)
TILE(bits_2, true, MATRIX_FP8, false, 2)
TILE(bits_3, true, MATRIX_FP8, false, 3)
TILE(bits_4, true, MATRIX_FP8, false, 4)
TILE(bits_scaled_1, true, MATRIX_FP8_F32, true, 1)
TILE(bits_scaled_2, true, MATRIX_FP8_F32, true, 2)
TILE(bits_scaled_3, true, MATRIX_FP8_F32, true, 3)
TILE(bits_scaled_4, true, MATRIX_FP8_F32, true, 4)

static tile_function *const widened[2][TILE_X] = {
    { f32_1, f32_2, f32_3, f32_4, f32_5, f32_6 },
    { f32_scaled_1, f32_scaled_2, f32_scaled_3, f32_scaled_4, f32_scaled_5, f32_scaled_6 },
};
static tile_function *const bf16[] = { bf16_1, bf16_2, bf16_3, bf16_4 };
static tile_function *const fp8[2][2][AVX512_DIRECT_ROWS] = {
    { { half_1, half_2, half_3, half_4 },
      { half_scaled_1, half_scaled_2, half_scaled_3, half_scaled_4 } },
    { { bits_1, bits_2, bits_3, bits_4 },
      { bits_scaled_1, bits_scaled_2, bits_scaled_3, bits_scaled_4 } },
};

static void multiply(const struct t16_block *b, bool by_bits) {
    const bool narrow = b->type != MATRIX_F32;
    const uint32_t step = b->scale_sums ? BLOCK_COLS : 32, whole = b->n / step * step;
    tile_function *const *functions = !narrow                  ? widened[b->scale_sums]
                                      : b->type == MATRIX_BF16 ? bf16
                                                               : fp8[by_bits][b->scale_sums];
    const uint32_t tile_x = narrow ? AVX512_DIRECT_ROWS : TILE_X;
    static const float none[WIDE_COLS / BLOCK_COLS];
    for (uint32_t j = 0; j < b->n_x; j += tile_x) {
        const uint32_t nj = b->n_x - j < tile_x ? b->n_x - j : tile_x;
        for (uint32_t i = 0; i < b->n_rows; i += TILE_W) {
            struct tile_rows w = { .ahead = i == 0 && j == 0 ? b->ahead : NULL };
            for (uint32_t k = 0; k < TILE_W; k++) {
                uint32_t row = i + k < b->n_rows ? i + k : b->n_rows - 1;
                w.at[k] = b->w + row * b->w_stride;
                w.scale[k] = b->scale ? b->scale[row] : none;
            }
            functions[nj - 1](&w, b->x + (size_t)j * WIDE_STRIDE, whole, (void *)b->sums[j][i]);
        }
    }
    loop_t16_rest(b, whole);
}

void avx512_t16(const struct t16_block *b) {
    multiply(b, false);
}
void avx512_t16_by_bits(const struct t16_block *b) {
    multiply(b, true);
}

void avx512_fold(float *out, const float (*sums)[16], uint32_t n) {
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 lanes[16];
#pragma GCC unroll 16
        for (int k = 0; k < 16; k++)
            lanes[k] = _mm512_loadu_ps(sums[i + (uint32_t)k]);
        _mm512_storeu_ps(out + i, avx512_tree(lanes));
    }
    loop_fold(out + i, sums + i, n - i);
}
