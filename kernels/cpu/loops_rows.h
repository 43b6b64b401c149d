/* kernels/cpu/loops_rows.h - rows of activations in plain C: norms, rotations, streams. All forms are
 * made of these, compiled for their machine; see forms.h for what each function does. */
#ifndef SLUICE_KERNELS_CPU_LOOPS_ROWS_H
#define SLUICE_KERNELS_CPU_LOOPS_ROWS_H

#include "kernels/arith.h"
#include "kernels/cpu/forms.h"

#include <math.h>
#include <string.h>

/* r = 1/sqrt(Σx²/d + ε), y = (x·r)·w. y may be x. sum: Σx². */
static inline void loop_norm(float *y, const float *x, const uint8_t *weight, uint32_t d, float eps,
                             float sum) {
    float r = arith_rsqrt(sum / (float)d + eps);
    if (!weight)
        for (uint32_t i = 0; i < d; i++)
            y[i] = x[i] * r;
    else
        for (uint32_t i = 0; i < d; i++)
            y[i] = (x[i] * r) * bf16_value(load_u16(weight + 2 * (size_t)i));
}

/* (a + ib)·(cos + i sin), or its conjugate. */
static inline void loop_rotate(float *x, const float *cs, uint32_t r, bool inverse) {
    for (uint32_t i = 0; i < r; i += 2) {
        float a = x[i], b = x[i + 1], cos_i = cs[i], sin_i = inverse ? -cs[i + 1] : cs[i + 1];
        x[i] = fmaf(a, cos_i, -(b * sin_i));
        x[i + 1] = fmaf(a, sin_i, b * cos_i);
    }
}

/* Butterflies 1, 2, …, then ·n^−½. */
static inline void loop_hadamard(float *x, uint32_t n) {
    for (size_t half = 1; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half)
            for (size_t k = i; k < i + half; k++) {
                float a = x[k], b = x[k + half];
                x[k] = a + b;
                x[k + half] = a - b;
            }
    float scale = (float)(1.0 / sqrt((double)n)); // correctly rounded: see kv.h
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* x = Σ_j pre_j·h_j, j ascending from the first. */
static inline void loop_mix(float *__restrict x, const float *__restrict h, const float *pre,
                            uint32_t n_streams, uint32_t d) {
    if (n_streams == 4) { // published: one pass instead of four
        const float *h1 = h + d, *h2 = h1 + d, *h3 = h2 + d;
        float p0 = pre[0], p1 = pre[1], p2 = pre[2], p3 = pre[3];
        for (uint32_t i = 0; i < d; i++)
            x[i] = fmaf(p3, h3[i], fmaf(p2, h2[i], fmaf(p1, h1[i], p0 * h[i])));
        return;
    }
    for (uint32_t i = 0; i < d; i++)
        x[i] = pre[0] * h[i];
    for (uint32_t j = 1; j < n_streams; j++) {
        const float *stream = h + (size_t)j * d;
        for (uint32_t i = 0; i < d; i++)
            x[i] = fmaf(pre[j], stream[i], x[i]);
    }
}

/* In place, so all streams' columns are read before any is written. */
static inline void loop_post(float *h, size_t d, const float *x, const float *post,
                             const float *comb, uint32_t n_streams, uint32_t n) {
    float out[8][POST_COLS];
    for (uint32_t j = 0; j < n_streams; j++) {
        for (uint32_t k = 0; k < n; k++)
            out[j][k] = post[j] * x[k];
        for (uint32_t i = 0; i < n_streams; i++)
            for (uint32_t k = 0; k < n; k++)
                out[j][k] = fmaf(comb[i * n_streams + j], h[i * d + k], out[j][k]);
    }
    for (uint32_t j = 0; j < n_streams; j++)
        memcpy(h + j * d, out[j], n * sizeof(float));
}

static inline void loop_bf16(float *out, const uint8_t *row, uint32_t d) {
    for (uint32_t i = 0; i < d; i++)
        out[i] = bf16_value(load_u16(row + 2 * (size_t)i));
}

static inline void loop_add(float *__restrict h, const float *__restrict e, uint32_t d) {
    for (uint32_t i = 0; i < d; i++)
        h[i] += e[i];
}

/* Routed experts by id from the first, then shared. y may be shared, or parts if there is one. */
static inline void loop_sum(float *y, const float *parts, const float *shared, uint32_t n_parts,
                            uint32_t d) {
    for (uint32_t i = 0; i < d; i++) {
        float sum = parts[i];
        for (uint32_t k = 1; k < n_parts; k++)
            sum += parts[(size_t)k * d + i];
        y[i] = sum + shared[i];
    }
}

#endif
