/* FP4 in AVX-512 without VNNI: pairs of bytes into 16 bits, which hold 2·24·64, pairs of those into 32. */
#define FP4_DOT4(sum, w, x)                                                                        \
    _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)))
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/fp4_512.h"
#include "kernels/cpu/index_512.h"

void avx512_fp4(const struct fp4_panel *p) {
    fp4_512(p);
}

void avx512_index_scores(float *score, const struct index_query *q,
                         const unsigned char *const *keys) {
    index_scores_512(score, q, keys);
}
