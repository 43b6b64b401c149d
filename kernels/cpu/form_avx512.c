/* The AVX-512 forms, with VNNI and without. Where no function is written by hand, the plain loop,
 * compiled for the machine. */
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/loops_kv.h"
#include "kernels/cpu/loops_matrix.h"
#include "kernels/cpu/loops_rows.h"

#if !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "the Makefile compiles *_avx512.c for AVX-512"
#endif

static float sum_squares(const float *x, uint32_t n) {
    __m512 lanes = _mm512_setzero_ps();
    uint32_t c = 0;
    for (; c + 16 <= n; c += 16) {
        __m512 v = _mm512_loadu_ps(x + c);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    float each[16];
    _mm512_storeu_ps(each, lanes);
    for (uint32_t l = 0; c + l < n; l++)
        each[l] = fmaf(x[c + l], x[c + l], each[l]);
    return arith_tree16(each);
}

static void norm(float *y, const float *x, const uint8_t *weight, uint32_t d, float eps) {
    loop_norm(y, x, weight, d, eps, sum_squares(x, d));
}

static uint32_t read_memory(const unsigned char *memory, size_t bytes) {
    __m512i words[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                         _mm512_setzero_si512() };
    for (size_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            words[k] = _mm512_xor_si512(words[k], _mm512_loadu_si512(memory + i + 64 * k));
    uint32_t word[16], all = 0;
    _mm512_storeu_si512(word, _mm512_xor_si512(_mm512_xor_si512(words[0], words[1]),
                                               _mm512_xor_si512(words[2], words[3])));
    for (int k = 0; k < 16; k++)
        all ^= word[k];
    return all;
}

static void peak(float *values, uint64_t rounds) {
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 sums[PEAK_LANES / 16];
#pragma GCC unroll 12
    for (int k = 0; k < PEAK_LANES / 16; k++)
        sums[k] = _mm512_loadu_ps(values + 16 * k);
    for (uint64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int k = 0; k < PEAK_LANES / 16; k++)
            sums[k] = _mm512_fmadd_ps(sums[k], half, half);
#pragma GCC unroll 12
    for (int k = 0; k < PEAK_LANES / 16; k++)
        _mm512_storeu_ps(values + 16 * k, sums[k]);
}

#define FORMS(form_name, by_bytes, route)                                                          \
    {                                                                                              \
        .name = form_name, .round = avx512_round, .round_groups = avx512_round_groups,             \
        .widen = avx512_widen##route, .direct_rows = 2 * AVX512_DIRECT_ROWS,                       \
        .t16 = avx512_t16##route, .fold = avx512_fold, .fp4 = by_bytes##_fp4,                      \
        .swiglu = loop_swiglu, .norm = norm, .sum_squares = sum_squares, .rotate = loop_rotate,    \
        .hadamard = loop_hadamard, .mix = loop_mix, .post = loop_post, .bf16 = loop_bf16,          \
        .add = loop_add, .sum = loop_sum, .entry_pack = loop_entry_pack,                           \
        .entry_unpack = avx512_entry_unpack, .key_pack = loop_key_pack, .scores = avx512_scores,   \
        .most = loop_most, .weights = loop_weights, .values = avx512_values,                       \
        .divide = loop_divide, .query = loop_query, .index_scores = by_bytes##_index_scores,       \
        .feed = loop_feed, .quotient = loop_quotient, .read = read_memory, .peak = peak,           \
    }

const struct cpu_forms cpu_forms_avx512 = FORMS("avx512", avx512, );
const struct cpu_forms cpu_forms_vnni = FORMS("avx512+vnni", vnni, );
const struct cpu_forms cpu_forms_zen = FORMS("avx512+vnni, AMD", vnni, _by_bits);
