/* kernels/cpu/loops_kv.h - KV entries, attention, the indexer and the compressor in plain C. The scalar
 * form is made of it, the vector forms in part; see forms.h for what each function does. */
#ifndef SLUICE_KERNELS_CPU_LOOPS_KV_H
#define SLUICE_KERNELS_CPU_LOOPS_KV_H

#include "kernels/arith.h"
#include "kernels/cpu/forms.h"

#include <assert.h>
#include <string.h>

/* Before a loop whose iterations are lanes. */
#ifdef _OPENMP
#define LOOP_LANES _Pragma("omp simd")
#else
#define LOOP_LANES
#endif

/* Columns that share a scale: of an entry (E4M3), of an index key (E2M1). Spec 6. */
#define ENTRY_GROUP 64
#define KEY_GROUP   32

/* code · scale = x · (1/scale), exactly: both are powers of two and normal (lowbit.h). */
static inline float e8m0_inverse(uint8_t code) {
    return e8m0_value((uint8_t)(254 - code));
}

/* --- entries ------------------------------------------------------------------------------------ */

static inline void loop_entry_pack(const float *x, uint32_t c, uint32_t r, unsigned char *entry) {
    size_t coded = c - r, n_groups = coded / ENTRY_GROUP;
    assert(r < c && coded % ENTRY_GROUP == 0);
    unsigned char *scales = entry + coded, *rotary = scales + n_groups;
    for (size_t g = 0; g < n_groups; g++) {
        const float *group = x + g * ENTRY_GROUP;
        uint8_t scale = fp8_scale_code(arith_amax(group, ENTRY_GROUP));
        float inverse = e8m0_inverse(scale);
        unsigned char *codes = entry + g * ENTRY_GROUP;
        scales[g] = scale;
        LOOP_LANES
        for (int i = 0; i < ENTRY_GROUP; i++)
            codes[i] = e4m3_code(group[i] * inverse);
    }
    for (size_t i = 0; i < r; i++) {
        uint16_t code = bf16_code(x[coded + i]);
        memcpy(rotary + 2 * i, &code, sizeof code);
    }
    size_t used = coded + n_groups + 2 * (size_t)r;
    memset(entry + used, 0, kv_entry_bytes(false, c, r) - used);
}

/* The last r, behind codes and scales. */
static inline void loop_unpack_rotary(const unsigned char *entry, uint32_t c, uint32_t r,
                                      float *x) {
    size_t coded = c - r;
    const unsigned char *rotary = entry + coded + coded / ENTRY_GROUP;
    for (size_t i = 0; i < r; i++)
        x[coded + i] = bf16_value(load_u16(rotary + 2 * i));
}

static inline void loop_entry_unpack(const unsigned char *entry, uint32_t c, uint32_t r, float *x) {
    size_t coded = c - r, n_groups = coded / ENTRY_GROUP;
    for (size_t g = 0; g < n_groups; g++) {
        float scale = e8m0_value(entry[coded + g]);
        const unsigned char *codes = entry + g * ENTRY_GROUP;
        float *group = x + g * ENTRY_GROUP;
        LOOP_LANES
        for (int i = 0; i < ENTRY_GROUP; i++)
            group[i] = e4m3_value(codes[i]) * scale;
    }
    loop_unpack_rotary(entry, c, r, x);
}

static inline void loop_key_pack(const float *x, uint32_t ci, unsigned char *key) {
    assert(ci % KEY_GROUP == 0);
    unsigned char *scales = key + ci / 2;
    for (uint32_t g = 0; g < ci / KEY_GROUP; g++) {
        const float *group = x + g * KEY_GROUP;
        uint8_t scale = fp4_scale_code(arith_amax(group, KEY_GROUP));
        float inverse = e8m0_inverse(scale);
        unsigned char *codes = key + g * (KEY_GROUP / 2);
        scales[g] = scale;
        for (int i = 0; i < KEY_GROUP / 2; i++)
            codes[i] = (unsigned char)(e2m1_code(group[2 * i] * inverse) |
                                       e2m1_code(group[2 * i + 1] * inverse) << 4);
    }
}

/* --- attention ---------------------------------------------------------------------------------- */

static inline void loop_scores(float *score, size_t stride, const float *q, uint32_t n_heads,
                               const float *keys, uint32_t n, uint32_t c, float scale) {
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t h = 0; h < n_heads; h++)
            score[i * stride + h] = arith_dot16(q + (size_t)h * c, keys + (size_t)i * c, c) * scale;
}

static inline void loop_most(float *most, const float *score, size_t stride, uint32_t n,
                             uint32_t n_heads) {
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t h = 0; h < n_heads; h++)
            most[h] = score[i * stride + h] > most[h] ? score[i * stride + h] : most[h];
}

static inline void loop_weights(float *__restrict score, size_t stride, uint32_t n,
                                uint32_t n_heads, const float *__restrict most,
                                float *__restrict denominator) {
    for (uint32_t i = 0; i < n; i++) {
        LOOP_LANES
        for (uint32_t h = 0; h < n_heads; h++) {
            score[i * stride + h] = arith_exp(score[i * stride + h] - most[h]);
            denominator[h] += score[i * stride + h];
        }
    }
}

/* Four keys between a load and a store of o. */
static inline void loop_values(float *o, const float *e, size_t stride, uint32_t n_heads,
                               const float *keys, uint32_t n, uint32_t c) {
    for (uint32_t h = 0; h < n_heads; h++) {
        float *__restrict sum = o + (size_t)h * c;
        uint32_t i = 0;
        for (; i + 4 <= n; i += 4) {
            const float *k0 = keys + (size_t)i * c, *k1 = k0 + c, *k2 = k1 + c, *k3 = k2 + c;
            const float *at = e + i * stride + h;
            float e0 = at[0], e1 = at[stride], e2 = at[2 * stride], e3 = at[3 * stride];
            LOOP_LANES
            for (uint32_t d = 0; d < c; d++)
                sum[d] = fmaf(e3, k3[d], fmaf(e2, k2[d], fmaf(e1, k1[d], fmaf(e0, k0[d], sum[d]))));
        }
        for (; i < n; i++) {
            const float *key = keys + (size_t)i * c;
            float weight = e[i * stride + h];
            LOOP_LANES
            for (uint32_t d = 0; d < c; d++)
                sum[d] = fmaf(weight, key[d], sum[d]);
        }
    }
}

static inline void loop_divide(float *o, const float *x, float by, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        o[i] = x[i] / by;
}

/* --- the indexer -------------------------------------------------------------------------------- */

static inline void loop_query(struct index_query *to, const float *q) {
    for (size_t group = 0; group < (size_t)to->n_heads * to->n_groups; group++) {
        const float *x = q + group * KEY_GROUP;
        uint8_t scale = fp4_scale_code(arith_amax(x, KEY_GROUP));
        float inverse = e8m0_inverse(scale); // normal: see lowbit.h
        int8_t *code = to->code + group * KEY_GROUP;
        int32_t sum = 0;
        to->scale[group] = e8m0_value(scale);
        for (size_t i = 0; i < KEY_GROUP / 2; i++) {
            code[i] = e2m1_times_2(e2m1_code(x[2 * i] * inverse));
            code[KEY_GROUP / 2 + i] = e2m1_times_2(e2m1_code(x[2 * i + 1] * inverse));
            sum += code[i] + code[KEY_GROUP / 2 + i];
        }
        to->minus[group] = -12 * sum;
    }
}

/* score = seq over heads of w_h · relu(q_h·key), where q·key is, group by group from +0,
 * acc = fmaf((float)Σ, (s_q·s_k)·2^-2, acc): codes are doubled on both sides. Starting from −0 makes
 * the first fmaf the first product, whatever its sign: that is what seq says. */
static inline void loop_index_scores(float *score, const struct index_query *q,
                                     const unsigned char *const *keys) {
    for (uint32_t j = 0; j < KEY_LANES; j++)
        score[j] = -0.0f;
    for (uint32_t h = 0; h < q->n_heads; h++) {
        float acc[KEY_LANES] = { 0 };
        for (uint32_t g = 0; g < q->n_groups; g++) {
            const int8_t *code = q->code + ((size_t)h * q->n_groups + g) * KEY_GROUP;
            float s_q = q->scale[(size_t)h * q->n_groups + g];
            for (uint32_t j = 0; j < KEY_LANES; j++) {
                const unsigned char *key = keys[j] + (size_t)g * (KEY_GROUP / 2);
                float s_k = e8m0_value(keys[j][(size_t)q->n_groups * (KEY_GROUP / 2) + g]);
                int32_t sum = 0;
                for (uint32_t i = 0; i < KEY_GROUP / 2; i++)
                    sum += code[i] * e2m1_times_2(key[i] & 15) +
                           code[KEY_GROUP / 2 + i] * e2m1_times_2(key[i] >> 4);
                acc[j] = fmaf((float)sum, s_q * s_k * 0.25f, acc[j]);
            }
        }
        for (uint32_t j = 0; j < KEY_LANES; j++)
            score[j] = fmaf(q->weight[h], acc[j] > 0.0f ? acc[j] : 0.0f, score[j]);
    }
}

/* --- the compressor ----------------------------------------------------------------------------- */

/* The softmax's weight of g and of what was before it, both relative to the larger.
 *     g ≤ M: e = exp(g−M), S += e,             N = fmaf(e, kv, N)
 *     else:  r = exp(M−g), S = fmaf(S, r, 1),  N = fmaf(N, r, kv),  M = g
 * Both are computed and one is chosen, so that channels become vector lanes. */
static inline void loop_feed(float *__restrict max, float *__restrict sum,
                             float *__restrict weighted, const float *kv, const float *gate,
                             const unsigned char *ape, uint32_t n) {
    LOOP_LANES
    for (uint32_t i = 0; i < n; i++) {
        float g = gate[i] + load_f32(ape + 4 * (size_t)i), m = max[i];
        bool below = g <= m;
        float e = arith_exp(below ? g - m : m - g);
        float sum_below = sum[i] + e, sum_above = fmaf(sum[i], e, 1.0f);
        float weighted_below = fmaf(e, kv[i], weighted[i]);
        float weighted_above = fmaf(weighted[i], e, kv[i]);
        sum[i] = below ? sum_below : sum_above;
        weighted[i] = below ? weighted_below : weighted_above;
        max[i] = below ? m : g;
    }
}

static inline void loop_quotient(float *x, const float *weighted, const float *sum, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        x[i] = weighted[i] / sum[i];
}

#endif
