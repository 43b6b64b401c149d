/* FP4 by integers in AVX2: as fp4_512.h, with eight rows of w as lanes. Without VNNI, pairs of bytes are
 * added in 16 bits: eight of them, each at most 2·24·64, stay below 2^15. */
#include "kernels/arith.h"
#include "kernels/cpu/avx2.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES  8
#define QUADS  8 /* four columns each: even 0 … 3, odd 4 … 7 */

/* Eight rows' 16 bytes of a group as value·2 + 12. */
INLINE void load_group(__m256i w[QUADS], const uint8_t *const *row, size_t at) {
    const __m256i value = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m256i low = _mm256_set1_epi8(15);
    __m256i v[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        v[r] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(row[r] + at))),
            _mm_loadu_si128((const __m128i *)(const void *)(row[4 + r] + at)), 1);
    const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    const __m256i q[4] = { _mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c),
                           _mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d) };
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        w[k] = _mm256_shuffle_epi8(value, _mm256_and_si256(q[k], low));
        w[4 + k] = _mm256_shuffle_epi8(value, _mm256_and_si256(_mm256_srli_epi16(q[k], 4), low));
    }
}

/* E8M0 of eight rows. */
INLINE __m256 load_scales(const uint8_t *const *row, size_t at) {
    const __m256i code = _mm256_setr_epi32(row[0][at], row[1][at], row[2][at], row[3][at],
                                           row[4][at], row[5][at], row[6][at], row[7][at]);
    return _mm256_castsi256_ps(
        _mm256_max_epi32(_mm256_slli_epi32(code, 23), _mm256_set1_epi32(0x00400000)));
}

/* Σ over a group of w and one plane of digits, 32 bytes. */
INLINE __m256i dot_group(const __m256i w[QUADS], const int8_t *digits) {
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int k = 0; k < QUADS; k++) {
        int32_t word;
        memcpy(&word, digits + 4 * k, sizeof word);
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[k], _mm256_set1_epi32(word)));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

void avx2_fp4(const struct fp4_panel *p) {
    for (uint32_t j = 0; j < p->n_x; j++)
        memset(p->out[j], 0, sizeof p->out[j]);
    for (uint32_t first = 0; first < p->n_rows; first += LANES) {
        const uint8_t *row[LANES], *scale[LANES]; // rows that are not there: the last, again
        for (uint32_t i = 0; i < LANES; i++) {
            const size_t at = first + i < p->n_rows ? first + i : p->n_rows - 1;
            row[i] = p->w + at * p->n_groups * (GROUP_COLS / 2);
            scale[i] = p->scale + at * p->n_groups;
        }
        for (uint32_t g = 0; g < p->n_groups; g++) {
            const struct x_group *x = (const struct x_group *)p->x + (size_t)g * p->n_x;
            const __m256 s_w = load_scales(scale, g);
            __m256i w[QUADS];
            if (p->ahead && g % 4 == 0) // as many cache lines as are read here in four groups
                for (size_t i = 0; i < LANES; i++)
                    _mm_prefetch((const char *)p->ahead +
                                     ((size_t)first * p->n_groups + (size_t)g * LANES) * 16 +
                                     64 * i,
                                 _MM_HINT_T1);
            load_group(w, row, (size_t)g * (GROUP_COLS / 2));
            for (uint32_t j = 0; j < p->n_x; j++) {
                const int8_t(*digit)[GROUP_COLS] = x[j].as.bytes.digit;
                __m256i sum = _mm256_slli_epi32(dot_group(w, digit[2]), 7);
                sum = _mm256_slli_epi32(_mm256_add_epi32(sum, dot_group(w, digit[1])), 7);
                sum = _mm256_add_epi32(sum, dot_group(w, digit[0]));
                sum = _mm256_add_epi32(sum, _mm256_set1_epi32(x[j].as.bytes.minus));
                float *out = p->out[j] + first;
                _mm256_storeu_ps(out,
                                 _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum),
                                                 _mm256_mul_ps(_mm256_set1_ps(x[j].scale), s_w),
                                                 _mm256_loadu_ps(out)));
            }
        }
    }
}

/* --- the indexer ------------------------------------------------------------------------------------ */

/* Eight keys are lanes. Heads whose sums are kept while the keys' groups pass by: 2 KiB. */
#define HEADS 64

static void scores_of_8(float *score, const struct index_query *q,
                        const unsigned char *const *keys) {
    __m256 total = _mm256_set1_ps(-0.0f), acc[HEADS];
    const size_t scales = (size_t)q->n_groups * (GROUP_COLS / 2);
    for (uint32_t first = 0; first < q->n_heads; first += HEADS) {
        const uint32_t n = q->n_heads - first < HEADS ? q->n_heads - first : HEADS;
        for (uint32_t h = 0; h < n; h++)
            acc[h] = _mm256_setzero_ps();
        for (uint32_t g = 0; g < q->n_groups; g++) {
            const __m256 s_k = load_scales(keys, scales + g);
            __m256i w[QUADS];
            load_group(w, keys, (size_t)g * (GROUP_COLS / 2));
            for (uint32_t h = 0; h < n; h++) {
                const size_t group = (size_t)(first + h) * q->n_groups + g;
                const __m256i sum = _mm256_add_epi32(dot_group(w, q->code + group * GROUP_COLS),
                                                     _mm256_set1_epi32(q->minus[group]));
                const __m256 s = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(q->scale[group]), s_k),
                                               _mm256_set1_ps(0.25f));
                acc[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), s, acc[h]);
            }
        }
        for (uint32_t h = 0; h < n; h++)
            total = _mm256_fmadd_ps(_mm256_set1_ps(q->weight[first + h]),
                                    _mm256_max_ps(acc[h], _mm256_setzero_ps()), total);
    }
    _mm256_storeu_ps(score, total);
}

void avx2_index_scores(float *score, const struct index_query *q,
                       const unsigned char *const *keys) {
    for (uint32_t j = 0; j < KEY_LANES; j += LANES)
        scores_of_8(score + j, q, keys + j);
}
