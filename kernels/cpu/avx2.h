/* kernels/cpu/avx2.h - the functions that are written by hand in AVX2, for form_avx2.c. See forms.h. */
#ifndef SLUICE_KERNELS_CPU_AVX2_H
#define SLUICE_KERNELS_CPU_AVX2_H

#include "kernels/cpu/forms.h"

#ifdef __cplusplus
extern "C" {
#endif

void avx2_widen(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                uint32_t n);
void avx2_t16(const struct t16_block *b);
void avx2_fold(float *out, const float (*sums)[16], uint32_t n);
void avx2_fp4(const struct fp4_panel *p);
void avx2_index_scores(float *score, const struct index_query *q, const unsigned char *const *keys);
void avx2_entry_unpack(const unsigned char *entry, uint32_t c, uint32_t r, float *x);
void avx2_scores(float *score, size_t stride, const float *q, uint32_t n_heads, const float *keys,
                 uint32_t n, uint32_t c, float scale);
float avx2_sum_squares(const float *x, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
