/* FP4 in AVX-512 with VNNI, whose dot product of bytes is what fp4_512.h is built around. */
#define FP4_DOT4(sum, w, x) _mm512_dpbusd_epi32(sum, w, x)
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/fp4_512.h"
#include "kernels/cpu/index_512.h"

void vnni_fp4(const struct fp4_panel *p) {
    fp4_512(p);
}

void vnni_index_scores(float *score, const struct index_query *q,
                       const unsigned char *const *keys) {
    index_scores_512(score, q, keys);
}
