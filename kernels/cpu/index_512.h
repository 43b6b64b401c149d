/* kernels/cpu/index_512.h - index scores in AVX-512, with and without VNNI: 16 keys are lanes, as rows of w
 * are in fp4_512.h, and a head's query is broadcast. */
#ifndef SLUICE_KERNELS_CPU_INDEX_512_H
#define SLUICE_KERNELS_CPU_INDEX_512_H

#include "kernels/cpu/fp4_512.h"

#if defined(__AVX512BW__) && defined(FP4_DOT4)

/* Heads whose sums are kept while the keys' groups pass by: 4 KiB. */
#define HEADS 64

/* Scales of group g of 16 keys. */
INLINE __m512 key_scales(const unsigned char *const *keys, size_t at) {
    uint32_t code[KEY_LANES];
    for (int j = 0; j < KEY_LANES; j++)
        code[j] = (uint32_t)keys[j][at] << 23;
    return _mm512_castsi512_ps(
        _mm512_max_epi32(_mm512_loadu_si512(code), _mm512_set1_epi32(0x00400000)));
}

/* Groups ascending: acc = fmaf((float)Σ, (s_q·s_k)·2^-2, acc). */
INLINE void add_group(const __m512i w[QUADS], __m512 k_scale, const struct index_query *q,
                      uint32_t first, uint32_t n, uint32_t g, __m512 *acc) {
    for (uint32_t h = 0; h < n; h++) {
        const size_t group = (size_t)(first + h) * q->n_groups + g;
        const int8_t *code = q->code + group * GROUP_COLS;
        __m512i sum = _mm512_set1_epi32(q->minus[group]), other = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int k = 0; k < QUADS; k += 2) {
            sum = dot4(sum, w[k], broadcast(code + 4 * k));
            other = dot4(other, w[k + 1], broadcast(code + 4 * k + 4));
        }
        const __m512 s = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(q->scale[group]), k_scale),
                                       _mm512_set1_ps(0.25f));
        acc[h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sum, other)), s, acc[h]);
    }
}

/* seq over heads, from −0: see loop_index_scores. */
INLINE void index_scores_512(float *score, const struct index_query *q,
                             const unsigned char *const *keys) {
    struct rows rows;
    memcpy(rows.each, keys, sizeof rows.each);
    __m512 total = _mm512_set1_ps(-0.0f), acc[HEADS];
    for (uint32_t first = 0; first < q->n_heads; first += HEADS) {
        const uint32_t n = q->n_heads - first < HEADS ? q->n_heads - first : HEADS;
        for (uint32_t h = 0; h < n; h++)
            acc[h] = _mm512_setzero_ps();
        for (uint32_t g = 0; g < q->n_groups; g++) {
            __m512i w[QUADS];
            load_group(false, w, &rows, (size_t)g * (GROUP_COLS / 2));
            add_group(w, key_scales(keys, (size_t)q->n_groups * (GROUP_COLS / 2) + g), q, first, n,
                      g, acc);
        }
        for (uint32_t h = 0; h < n; h++)
            total = _mm512_fmadd_ps(_mm512_set1_ps(q->weight[first + h]),
                                    _mm512_max_ps(acc[h], _mm512_setzero_ps()), total);
    }
    _mm512_storeu_ps(score, total);
}
#endif
#endif
