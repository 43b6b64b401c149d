/* Attention in AVX-512: entries unpacked, scores by T16, values. */
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/loops_kv.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* --- entries ------------------------------------------------------------------------------------- */

/* By half: see t16_avx512.c. Scales of entries that we packed are at most 2^120; what is larger goes the
 * plain way. */
void avx512_entry_unpack(const unsigned char *entry, uint32_t c, uint32_t r, float *x) {
    const size_t coded = c - r;
    for (size_t g = 0; g < coded / ENTRY_GROUP; g++)
        if (!(e8m0_value(entry[coded + g]) < 0x1p119f)) {
            loop_entry_unpack(entry, c, r, x);
            return;
        }
    for (size_t g = 0; g < coded / ENTRY_GROUP; g++) {
        const __m512 scale = _mm512_set1_ps(e8m0_value(entry[coded + g]) * 256.0f);
        for (size_t i = g * ENTRY_GROUP; i < (g + 1) * ENTRY_GROUP; i += 32) {
            __m512i bits = _mm512_cvtepi8_epi16(
                _mm256_loadu_si256((const __m256i *)(const void *)(entry + i)));
            bits = _mm512_and_si512(_mm512_slli_epi16(bits, 7), _mm512_set1_epi16((short)0xBFFF));
            const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
            const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
            _mm512_storeu_ps(x + i, _mm512_mul_ps(low, scale));
            _mm512_storeu_ps(x + i + 16, _mm512_mul_ps(high, scale));
        }
    }
    loop_unpack_rotary(entry, c, r, x);
}

/* --- scores -------------------------------------------------------------------------------------- */

/* Four keys and four heads: 16 sums, whose lanes are added all at once. */
#define TILE 4

INLINE __mmask16 mask_of(uint32_t n) {
    return (__mmask16)(n >= 16 ? 0xFFFF : (1u << n) - 1);
}

void avx512_scores(float *score, size_t stride, const float *q, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c, float scale) {
    const __mmask16 rest = mask_of(c % 16);
    for (uint32_t h = 0; h < n_heads; h += TILE)
        for (uint32_t i = 0; i < n; i += TILE) {
            const float *head[TILE], *key[TILE]; // where there are fewer, the last comes again
            for (uint32_t k = 0; k < TILE; k++) {
                head[k] = q + (size_t)(h + k < n_heads ? h + k : n_heads - 1) * c;
                key[k] = keys + (size_t)(i + k < n ? i + k : n - 1) * c;
            }
            __m512 sums[TILE * TILE];
#pragma GCC unroll 16
            for (int k = 0; k < TILE * TILE; k++)
                sums[k] = _mm512_setzero_ps();
            uint32_t d = 0;
            for (; d + 16 <= c; d += 16) {
                __m512 of_head[TILE];
#pragma GCC unroll 4
                for (int b = 0; b < TILE; b++)
                    of_head[b] = _mm512_loadu_ps(head[b] + d);
#pragma GCC unroll 4
                for (int a = 0; a < TILE; a++) {
                    const __m512 of_key = _mm512_loadu_ps(key[a] + d);
#pragma GCC unroll 4
                    for (int b = 0; b < TILE; b++)
                        sums[TILE * a + b] =
                            _mm512_fmadd_ps(of_head[b], of_key, sums[TILE * a + b]);
                }
            }
            if (rest) // lanes that no column reaches stay as they are
#pragma GCC unroll 16
                for (int k = 0; k < TILE * TILE; k++)
                    sums[k] = _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(rest, head[k % TILE] + d),
                                                    _mm512_maskz_loadu_ps(rest, key[k / TILE] + d),
                                                    sums[k], rest);
            float dots[TILE][TILE];
            _mm512_storeu_ps(dots, _mm512_mul_ps(avx512_tree(sums), _mm512_set1_ps(scale)));
            for (uint32_t a = 0; a < TILE && i + a < n; a++)
                memcpy(score + (i + a) * stride + h, dots[a], sizeof dots[a]);
        }
}

/* --- values -------------------------------------------------------------------------------------- */

/* nh heads and nv registers of columns; of the last register, `mask`. */
INLINE void values(const int nh, const int nv, __mmask16 mask, float *o, const float *e,
                   size_t stride, const float *keys, uint32_t n, uint32_t c) {
    __m512 sums[TILE][TILE];
#pragma GCC unroll 4
    for (int h = 0; h < nh; h++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            sums[h][v] = _mm512_maskz_loadu_ps(mask, o + (size_t)h * c + 16 * v);
    for (uint32_t i = 0; i < n; i++) {
        __m512 key[TILE];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            key[v] = _mm512_maskz_loadu_ps(mask, keys + (size_t)i * c + 16 * v);
#pragma GCC unroll 4
        for (int h = 0; h < nh; h++) {
            const __m512 weight = _mm512_set1_ps(e[i * stride + (size_t)h]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                sums[h][v] = _mm512_fmadd_ps(weight, key[v], sums[h][v]);
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < nh; h++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            _mm512_mask_storeu_ps(o + (size_t)h * c + 16 * v, mask, sums[h][v]);
}

void avx512_values(float *o, const float *e, size_t stride, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c) {
    for (uint32_t h = 0; h < n_heads; h += n_heads - h >= TILE ? TILE : 1) {
        const bool four = n_heads - h >= TILE;
        float *to = o + (size_t)h * c;
        uint32_t d = 0;
        for (; d + 64 <= c; d += 64)
            if (four)
                values(TILE, 4, 0xFFFF, to + d, e + h, stride, keys + d, n, c);
            else
                values(1, 4, 0xFFFF, to + d, e + h, stride, keys + d, n, c);
        for (; d < c; d += 16)
            if (four)
                values(TILE, 1, mask_of(c - d), to + d, e + h, stride, keys + d, n, c);
            else
                values(1, 1, mask_of(c - d), to + d, e + h, stride, keys + d, n, c);
    }
}
