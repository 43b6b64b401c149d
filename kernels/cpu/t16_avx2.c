/* T16 in AVX2: two registers are the 16 lanes of one sum, and may pass over the columns one after the
 * other, since lanes know nothing of each other. */
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/loops_kv.h"
#include "kernels/cpu/loops_matrix.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Rows of w and x whose half sums are in registers: 12 of 16, three of x and one of w. */
#define TILE_W 4
#define TILE_X 3

/* 16 columns of FP8 as two registers, times 2^-8: see t16_avx512.c. */
INLINE void load_fp8(__m256 v[2], const uint8_t *w, __m256 scale) {
    __m256i bits = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
    bits = _mm256_and_si256(_mm256_slli_epi16(bits, 7), _mm256_set1_epi16((short)0xBFFF));
    v[0] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(bits)), scale);
    v[1] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1)), scale);
}

INLINE __m256 load_bf16(const uint8_t *w) {
    const __m128i code = _mm_loadu_si128((const __m128i *)(const void *)w);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(code), 16));
}

INLINE void load_w(__m256 v[2], const enum matrix_type type, const uint8_t *row, uint32_t c,
                   __m256 scale) {
    if (type == MATRIX_F32) {
        v[0] = _mm256_loadu_ps((const float *)(const void *)(row + 4 * (size_t)c));
        v[1] = _mm256_loadu_ps((const float *)(const void *)(row + 4 * (size_t)c + 32));
    } else if (type == MATRIX_BF16) {
        v[0] = load_bf16(row + 2 * (size_t)c);
        v[1] = load_bf16(row + 2 * (size_t)c + 16);
    } else {
        load_fp8(v, row + c, scale);
    }
}

void avx2_widen(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                uint32_t n) {
    uint32_t c = 0;
    if (type == MATRIX_BF16)
        for (; c + 8 <= n; c += 8)
            _mm256_storeu_ps(out + c, load_bf16(w + 2 * (size_t)c));
    if (type != MATRIX_FP8 && type != MATRIX_FP8_F32) {
        loop_widen(out + c, type, w + (type == MATRIX_BF16 ? 2 * (size_t)c : 0), scale, n - c);
        return;
    }
    for (uint32_t block = 0; block < n; block += BLOCK_COLS) {
        const uint32_t end = n - block < BLOCK_COLS ? n : block + BLOCK_COLS;
        const float s = type == MATRIX_FP8 ? scale[block / BLOCK_COLS] : 1.0f;
        for (c = block; c + 16 <= end && s * 256.0f < INFINITY; c += 16) {
            __m256 v[2];
            load_fp8(v, w + c, _mm256_set1_ps(s * 256.0f));
            _mm256_storeu_ps(out + c, v[0]);
            _mm256_storeu_ps(out + c + 8, v[1]);
        }
        loop_widen_fp8(out + c, w + c, s, end - c);
    }
}

/* --- many rows of x: w is floats ------------------------------------------------------------------ */

/* Whole 16 columns of 4 rows of w and nj of x. */
INLINE void tile(const bool scale_sums, const int nj, const float *w, size_t w_stride,
                 const float (*scale)[WIDE_COLS / BLOCK_COLS], const float *x, uint32_t n,
                 float (*sums)[PANEL_ROWS][16]) {
    for (int half = 0; half < 16; half += 8) {
        __m256 acc[TILE_X][TILE_W];
#pragma GCC unroll 3
        for (int j = 0; j < nj; j++)
#pragma GCC unroll 4
            for (int i = 0; i < TILE_W; i++)
                acc[j][i] = scale_sums ? _mm256_setzero_ps() : _mm256_loadu_ps(sums[j][i] + half);
        for (uint32_t c = 0; c < n; c += 16) {
            __m256 of_x[TILE_X];
#pragma GCC unroll 3
            for (int j = 0; j < nj; j++)
                of_x[j] = _mm256_loadu_ps(x + (size_t)j * WIDE_STRIDE + c + half);
#pragma GCC unroll 4
            for (int i = 0; i < TILE_W; i++) {
                const __m256 of_w = _mm256_loadu_ps(w + (size_t)i * w_stride + c + half);
#pragma GCC unroll 3
                for (int j = 0; j < nj; j++)
                    acc[j][i] = _mm256_fmadd_ps(of_w, of_x[j], acc[j][i]);
            }
            if (scale_sums && c % BLOCK_COLS == BLOCK_COLS - 16)
#pragma GCC unroll 3
                for (int j = 0; j < nj; j++)
#pragma GCC unroll 4
                    for (int i = 0; i < TILE_W; i++) {
                        const __m256 s = _mm256_set1_ps(scale[i][c / BLOCK_COLS]);
                        float *to = sums[j][i] + half;
                        _mm256_storeu_ps(to, _mm256_fmadd_ps(acc[j][i], s, _mm256_loadu_ps(to)));
                        acc[j][i] = _mm256_setzero_ps();
                    }
        }
        if (!scale_sums)
#pragma GCC unroll 3
            for (int j = 0; j < nj; j++)
#pragma GCC unroll 4
                for (int i = 0; i < TILE_W; i++)
                    _mm256_storeu_ps(sums[j][i] + half, acc[j][i]);
    }
}

typedef void tile_function(const float *w, size_t w_stride,
                           const float (*scale)[WIDE_COLS / BLOCK_COLS], const float *x, uint32_t n,
                           float (*sums)[PANEL_ROWS][16]);
#define TILE(name, scale_sums, nj)                                                                 \
    static void name(const float *w, size_t w_stride, const float(*scale)[WIDE_COLS / BLOCK_COLS], \
                     const float *x, uint32_t n, float(*sums)[PANEL_ROWS][16]) {                   \
        tile(scale_sums, nj, w, w_stride, scale, x, n, sums);                                      \
    }
TILE(plain_1, false, 1)
TILE(plain_2, false, 2)
TILE(plain_3, false, 3)
TILE(scaled_1, true, 1)
TILE(scaled_2, true, 2)
TILE(scaled_3, true, 3)
static tile_function *const functions[2][TILE_X] = { { plain_1, plain_2, plain_3 },
                                                     { scaled_1, scaled_2, scaled_3 } };

/* --- one row of x: w as it is read ---------------------------------------------------------------- */

/* Whole 16 columns of 4 rows of w; where there are fewer the last one is read again. */
INLINE void row(const enum matrix_type type, const struct t16_block *b, uint32_t first, uint32_t j,
                uint32_t n) {
    const uint8_t *w[TILE_W];
    const float *scale[TILE_W], *x = b->x + (size_t)j * WIDE_STRIDE;
    static const float none[WIDE_COLS / BLOCK_COLS];
    const size_t lines = TILE_W * (type == MATRIX_F32 ? 4 : type == MATRIX_BF16 ? 2 : 1);
    __m256 acc[TILE_W][2];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < TILE_W; i++) {
        const uint32_t at = first + i < b->n_rows ? first + i : b->n_rows - 1;
        w[i] = b->w + at * b->w_stride;
        scale[i] = b->scale ? b->scale[at] : none;
        for (int half = 0; half < 2; half++)
            acc[i][half] = b->scale_sums ? _mm256_setzero_ps()
                                         : _mm256_loadu_ps(b->sums[j][first + i] + 8 * half);
    }
    for (uint32_t c = 0; c < n; c += 16) {
        const __m256 x0 = _mm256_loadu_ps(x + c), x1 = _mm256_loadu_ps(x + c + 8);
        if (b->ahead && c % 64 == 0) // as many cache lines as 64 columns of four rows take
            for (size_t i = 0; i < lines; i++)
                _mm_prefetch((const char *)b->ahead + c * lines + 64 * i, _MM_HINT_T1);
#pragma GCC unroll 4
        for (int i = 0; i < TILE_W; i++) {
            const float up = type == MATRIX_FP8 ? scale[i][c / BLOCK_COLS] * 256.0f : 256.0f;
            __m256 v[2];
            load_w(v, type, w[i], c, _mm256_set1_ps(up));
            acc[i][0] = _mm256_fmadd_ps(v[0], x0, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(v[1], x1, acc[i][1]);
        }
        if (b->scale_sums && c % BLOCK_COLS == BLOCK_COLS - 16)
#pragma GCC unroll 4
            for (uint32_t i = 0; i < TILE_W; i++)
                for (int half = 0; half < 2; half++) {
                    float *to = b->sums[j][first + i] + 8 * half;
                    _mm256_storeu_ps(to, _mm256_fmadd_ps(acc[i][half],
                                                         _mm256_set1_ps(scale[i][c / BLOCK_COLS]),
                                                         _mm256_loadu_ps(to)));
                    acc[i][half] = _mm256_setzero_ps();
                }
    }
    if (!b->scale_sums)
#pragma GCC unroll 4
        for (uint32_t i = 0; i < TILE_W; i++)
            for (int half = 0; half < 2; half++)
                _mm256_storeu_ps(b->sums[j][first + i] + 8 * half, acc[i][half]);
}

void avx2_t16(const struct t16_block *b) {
    const uint32_t step = b->scale_sums ? BLOCK_COLS : 16, whole = b->n / step * step;
    for (uint32_t j = 0; j < b->n_x; j += b->type == MATRIX_F32 ? TILE_X : 1)
        for (uint32_t i = 0; i < b->n_rows; i += TILE_W)
            switch (b->type) {
            case MATRIX_BF16:
                row(MATRIX_BF16, b, i, j, whole);
                break;
            case MATRIX_FP8:
                row(MATRIX_FP8, b, i, j, whole);
                break;
            case MATRIX_FP8_F32:
                row(MATRIX_FP8_F32, b, i, j, whole);
                break;
            default:
                if (!b->widened) // as it lies in memory, rows ending where they end
                    for (uint32_t k = j; k < b->n_x && k < j + TILE_X; k++)
                        row(MATRIX_F32, b, i, k, whole);
                else
                    functions[b->scale_sums][(b->n_x - j < TILE_X ? b->n_x - j : TILE_X) - 1](
                        (const float *)(const void *)(b->w + i * b->w_stride), b->w_stride / 4,
                        b->scale + i, b->x + (size_t)j * WIDE_STRIDE, whole, (void *)b->sums[j][i]);
            }
    loop_t16_rest(b, whole);
}

/* --- lanes added ----------------------------------------------------------------------------------- */

/* arith_tree16 of four sums: +8, +4; then, transposed, +2 and +1. */
INLINE __m128 tree_of_4(const __m256 low[4], const __m256 high[4]) {
    __m128 v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256 by_8 = _mm256_add_ps(low[i], high[i]);
        v[i] = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps(by_8, 1));
    }
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
    return _mm_add_ps(_mm_add_ps(v[0], v[2]), _mm_add_ps(v[1], v[3]));
}

void avx2_fold(float *out, const float (*sums)[16], uint32_t n) {
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256 low[4], high[4];
        for (uint32_t k = 0; k < 4; k++) {
            low[k] = _mm256_loadu_ps(sums[i + k]);
            high[k] = _mm256_loadu_ps(sums[i + k] + 8);
        }
        _mm_storeu_ps(out + i, tree_of_4(low, high));
    }
    loop_fold(out + i, sums + i, n - i);
}

float avx2_sum_squares(const float *x, uint32_t n) {
    __m256 low = _mm256_setzero_ps(), high = low;
    uint32_t c = 0;
    for (; c + 16 <= n; c += 16) {
        const __m256 a = _mm256_loadu_ps(x + c), b = _mm256_loadu_ps(x + c + 8);
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    float lanes[16];
    _mm256_storeu_ps(lanes, low);
    _mm256_storeu_ps(lanes + 8, high);
    for (uint32_t l = 0; c + l < n; l++)
        lanes[l] = fmaf(x[c + l], x[c + l], lanes[l]);
    return arith_tree16(lanes);
}

/* --- attention -------------------------------------------------------------------------------------- */

void avx2_entry_unpack(const unsigned char *entry, uint32_t c, uint32_t r, float *x) {
    const size_t coded = c - r;
    for (size_t g = 0; g < coded / ENTRY_GROUP; g++) {
        const float scale = e8m0_value(entry[coded + g]);
        avx2_widen(x + g * ENTRY_GROUP, MATRIX_FP8, entry + g * ENTRY_GROUP, &scale, ENTRY_GROUP);
    }
    loop_unpack_rotary(entry, c, r, x);
}

/* Four heads and a key. */
void avx2_scores(float *score, size_t stride, const float *q, uint32_t n_heads, const float *keys,
                 uint32_t n, uint32_t c, float scale) {
    const uint32_t whole = c / 16 * 16;
    for (uint32_t h = 0; h < n_heads; h += 4) {
        const float *head[4]; // where there are fewer, the last comes again
        for (uint32_t k = 0; k < 4; k++)
            head[k] = q + (size_t)(h + k < n_heads ? h + k : n_heads - 1) * c;
        for (uint32_t i = 0; i < n; i++) {
            const float *key = keys + (size_t)i * c;
            __m256 low[4], high[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                low[k] = high[k] = _mm256_setzero_ps();
            for (uint32_t d = 0; d < whole; d += 16) {
                const __m256 a = _mm256_loadu_ps(key + d), b = _mm256_loadu_ps(key + d + 8);
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) {
                    low[k] = _mm256_fmadd_ps(_mm256_loadu_ps(head[k] + d), a, low[k]);
                    high[k] = _mm256_fmadd_ps(_mm256_loadu_ps(head[k] + d + 8), b, high[k]);
                }
            }
            for (int k = 0; k < 4 && whole < c; k++) {
                float lanes[16];
                _mm256_storeu_ps(lanes, low[k]);
                _mm256_storeu_ps(lanes + 8, high[k]);
                for (uint32_t l = 0; whole + l < c; l++)
                    lanes[l] = fmaf(head[k][whole + l], key[whole + l], lanes[l]);
                low[k] = _mm256_loadu_ps(lanes);
                high[k] = _mm256_loadu_ps(lanes + 8);
            }
            _mm_storeu_ps(score + i * stride + h,
                          _mm_mul_ps(tree_of_4(low, high), _mm_set1_ps(scale)));
        }
    }
}
