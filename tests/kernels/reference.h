/* tests/kernels/reference.h - what the tests of the arithmetic compare with: number formats from their
 * definition, rounding by search, and the canonical orders transcribed one element at a time.
 * Shares no code with kernels/ but the declarations. Slow, and meant to be read. */
#ifndef SLUICE_TESTS_KERNELS_REFERENCE_H
#define SLUICE_TESTS_KERNELS_REFERENCE_H

#include "kernels/cpu/cpu.h"
#include "tests/kernels/each_form.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* --- random numbers, the same on every machine ------------------------------------------------ */

struct random {
    uint64_t state;
};
static inline uint32_t random_bits(struct random *r) { // splitmix64
    uint64_t z = (r->state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}
static inline uint32_t random_below(struct random *r, uint32_t n) {
    return (uint32_t)((uint64_t)random_bits(r) * n >> 32);
}
/* Activations: bell-shaped, with a large one now and then. */
static inline float random_float(struct random *r) {
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += random_bits(r) / 4294967296.0 - 0.5;
    return (float)(random_below(r, 40) ? sum * 2 : sum * 60);
}

static inline uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* --- number formats from their definition ----------------------------------------------------- */

static inline double reference_e4m3(uint8_t code) { // NaNs read as ±480
    int e = code >> 3 & 15, m = code & 7;
    double v = e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m / 8.0, -6);
    return code & 0x80 ? -v : v;
}
static inline double reference_e2m1(uint8_t nibble) {
    static const double value[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };
    return nibble & 8 ? -value[nibble & 7] : value[nibble & 7];
}
static inline double reference_e8m0(uint8_t code) { // 255 is +inf in float32
    return code == 255 ? INFINITY : ldexp(1, code - 127);
}
/* The code among 0 … most whose value is nearest to |x| (clamped), ties to the even code; then the
 * sign. */
static inline uint8_t reference_nearest(double x, double (*value)(uint8_t), int most,
                                        int sign_bit) {
    double a = fmin(fabs(x), value((uint8_t)most));
    int best = 0;
    for (int code = 1; code <= most; code++) {
        double here = fabs(value((uint8_t)code) - a), there = fabs(value((uint8_t)best) - a);
        if (here < there || (here == there && code % 2 == 0))
            best = code;
        if (here > there)
            break; // values ascend: it only gets further from here
    }
    return (uint8_t)(signbit(x) ? best | sign_bit : best);
}
static inline uint8_t reference_e4m3_code(double x) {
    return reference_nearest(x, reference_e4m3, 0x7E, 0x80);
}
static inline uint8_t reference_e2m1_code(double x) {
    return reference_nearest(x, reference_e2m1, 7, 8);
}
/* 2^⌈log2(max(amax, least)/most)⌉ by trying powers; the quotient is a float's, as published. */
static inline double reference_scale(float amax, float least, float most) {
    float q = (amax > least ? amax : least) / most;
    double s = ldexp(1, -140);
    while (s < (double)q)
        s *= 2;
    return s;
}
static inline double reference_fp8_scale(float amax) {
    return reference_scale(amax, 1e-4f, 448.0f);
}
static inline double reference_fp4_scale(float amax) {
    return reference_scale(amax, 6.0f * 0x1p-126f, 6.0f);
}

/* --- q(x): codes' values and scales, groups of `group` (E4M3) ---------------------------------- */

static inline void reference_round(double *value, double *scale, const float *x, uint32_t n,
                                   uint32_t group) {
    for (uint32_t c = 0; c < n; c++) {
        uint32_t from = c / group * group, to = from + group < n ? from + group : n;
        float amax = 0;
        for (uint32_t i = from; i < to; i++)
            amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        scale[c] = reference_fp8_scale(amax);
        value[c] = reference_e4m3(reference_e4m3_code((double)x[c] / scale[c]));
    }
}

/* --- sums ------------------------------------------------------------------------------------- */

static inline float reference_tree(const float *lane) {
    float a[8], b[4], c[2];
    for (int i = 0; i < 8; i++)
        a[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        b[i] = a[i] + a[i + 4];
    for (int i = 0; i < 2; i++)
        c[i] = b[i] + b[i + 2];
    return c[0] + c[1];
}
static inline float reference_t16(const float *a, const float *b, uint32_t n) {
    float lane[16];
    for (uint32_t l = 0; l < 16; l++) {
        lane[l] = 0.0f;
        for (uint32_t c = l; c < n; c += 16)
            lane[l] = fmaf(a[c], b[c], lane[l]);
    }
    return reference_tree(lane);
}

/* --- a matrix, and its product with one row --------------------------------------------------- */

/* Code and scale of one element: its value is their product. */
static inline double reference_weight(const struct matrix *w, uint32_t row, uint32_t col,
                                      double *scale) {
    const uint8_t *weight = (const uint8_t *)(uintptr_t)w->weight.address;
    const uint8_t *s = (const uint8_t *)(uintptr_t)w->scale.address;
    size_t at = (size_t)row * w->cols + col;
    size_t block = (size_t)(row / 128) * ((w->cols + 127) / 128) + col / 128;
    float f = 0;
    uint16_t h = 0;
    *scale = 1;
    switch (w->type) {
    case MATRIX_F32:
        memcpy(&f, weight + 4 * at, 4);
        return (double)f;
    case MATRIX_BF16:
        memcpy(&h, weight + 2 * at, 2);
        return (double)float_of((uint32_t)h << 16);
    case MATRIX_FP8:
        *scale = reference_e8m0(s[block]);
        return reference_e4m3(weight[at]);
    case MATRIX_FP8_F32:
        memcpy(&f, s + 4 * block, 4);
        *scale = (double)f;
        return reference_e4m3(weight[at]);
    case MATRIX_FP4:
        *scale = reference_e8m0(s[at / 32]);
        return reference_e2m1(col % 2 ? weight[at / 2] >> 4 : weight[at / 2] & 15);
    }
    return 0;
}

/* One element of W q(x), in the canonical order. */
static inline float reference_product(const struct matrix *w, uint32_t row, const float *x,
                                      bool rounded) {
    const uint32_t n = w->cols;
    double *value = malloc(n * sizeof *value), *scale = malloc(n * sizeof *scale);
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b), y = 0;
    if (rounded)
        reference_round(value, scale, x, n, 128);
    for (uint32_t c = 0; c < n; c++)
        a[c] = rounded ? (float)value[c] * (float)scale[c] : x[c];
    if (w->type == MATRIX_FP4 && rounded) {
        for (uint32_t g = 0; g < n / 32; g++) {
            int64_t sum = 0;
            double s_w = 0;
            for (uint32_t c = 32 * g; c < 32 * (g + 1); c++)
                sum += (int64_t)(value[c] * 512) * (int64_t)(reference_weight(w, row, c, &s_w) * 2);
            y = fmaf((float)sum, (float)(scale[32 * g] * s_w / 1024), y);
        }
    } else if (w->type == MATRIX_FP8_F32) {
        float total[16] = { 0 };
        for (uint32_t block = 0; block < n; block += 128) {
            float lane[16] = { 0 };
            double s_w = 0;
            for (uint32_t c = block; c < block + 128 && c < n; c++)
                lane[c % 16] = fmaf(a[c], (float)reference_weight(w, row, c, &s_w), lane[c % 16]);
            for (int l = 0; l < 16; l++)
                total[l] = fmaf(lane[l], (float)s_w, total[l]);
        }
        y = reference_tree(total);
    } else {
        for (uint32_t c = 0; c < n; c++) {
            double s_w, code = reference_weight(w, row, c, &s_w);
            b[c] = (float)code * (float)s_w;
        }
        y = reference_t16(a, b, n);
    }
    free(value), free(scale), free(a), free(b);
    return y;
}

/* The same without an order: double. */
static inline double reference_product_double(const struct matrix *w, uint32_t row, const float *x,
                                              bool rounded) {
    double *value = malloc(w->cols * sizeof *value), *scale = malloc(w->cols * sizeof *scale);
    double sum = 0, s_w;
    if (rounded)
        reference_round(value, scale, x, w->cols, 128);
    for (uint32_t c = 0; c < w->cols; c++) {
        double code = reference_weight(w, row, c, &s_w);
        sum += (rounded ? value[c] * scale[c] : (double)x[c]) * code * s_w;
    }
    free(value), free(scale);
    return sum;
}

/* --- a backend and its memory ----------------------------------------------------------------- */

static inline struct ops *test_open(uint32_t n_threads, bool exact) {
    struct cpu_options options = { .n_threads = n_threads, .exact = exact };
    struct ops *ops = NULL;
    struct err err = { 0 };
    assert_int_equal(cpu_open(&ops, &options, &err), OK);
    each_form_use(ops);
    return ops;
}
static inline struct mem test_alloc(struct ops *ops, size_t bytes) {
    struct mem m;
    struct err err = { 0 };
    assert_int_equal(ops_alloc(ops, bytes, &m, &err), OK);
    return m;
}
static inline struct mem test_upload(struct ops *ops, const void *p, size_t bytes) {
    struct mem m = test_alloc(ops, bytes);
    ops_upload(ops, m, p, bytes);
    return m;
}
static inline void test_download(struct ops *ops, void *p, struct mem m, size_t bytes) {
    struct err err = { 0 };
    assert_int_equal(ops_download(ops, p, m, bytes, &err), OK);
}
static inline struct mem test_floats(struct ops *ops, struct random *r, size_t n) {
    float *p = malloc(n * sizeof *p + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = random_float(r);
    struct mem m = test_upload(ops, p, n * sizeof *p);
    free(p);
    return m;
}
static inline const float *floats_at(struct mem m) { // tests of the CPU may look
    return (const float *)(uintptr_t)m.address;
}

/* A random matrix whose tensors begin `skew` bytes behind an aligned address. Every code occurs. */
static inline struct matrix test_matrix(struct ops *ops, struct random *r, enum matrix_type type,
                                        uint32_t rows, uint32_t cols, uint32_t skew) {
    size_t n = (size_t)rows * cols, blocks = (size_t)((rows + 127) / 128) * ((cols + 127) / 128);
    size_t bytes = type == MATRIX_F32    ? 4 * n
                   : type == MATRIX_BF16 ? 2 * n
                   : type == MATRIX_FP4  ? n / 2
                                         : n;
    size_t scale_bytes = type == MATRIX_FP4       ? n / 32
                         : type == MATRIX_FP8     ? blocks
                         : type == MATRIX_FP8_F32 ? 4 * blocks
                                                  : 0;
    uint8_t *w = malloc(bytes + 1), *s = malloc(scale_bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        w[i] = (uint8_t)random_bits(r);
    for (size_t i = 0; i < n && type <= MATRIX_BF16; i++) {
        uint32_t u = bits_of(random_float(r));
        memcpy(w + (type == MATRIX_F32 ? 4 : 2) * i, (uint8_t *)&u + (type == MATRIX_F32 ? 0 : 2),
               type == MATRIX_F32 ? 4 : 2);
    }
    for (size_t i = 0; i < scale_bytes; i++)
        s[i] = (uint8_t)(112 + random_below(r, 12));
    for (size_t i = 0; i < scale_bytes / 4 && type == MATRIX_FP8_F32; i++) {
        float f = (float)(1 + random_below(r, 1000)) / 3000.0f;
        memcpy(s + 4 * i, &f, 4);
    }
    struct matrix m = { type, rows, cols, mem_none(), mem_none() };
    m.weight = mem_at(test_alloc(ops, bytes + skew), skew);
    ops_upload(ops, m.weight, w, bytes);
    if (scale_bytes) {
        m.scale = mem_at(test_alloc(ops, scale_bytes + skew), skew);
        ops_upload(ops, m.scale, s, scale_bytes);
    }
    free(w), free(s);
    return m;
}

/* Bit for bit, NaNs included; says where the first difference is. */
static inline void assert_same_bits(const float *got, const float *want, size_t n,
                                    const char *what) {
    for (size_t i = 0; i < n; i++)
        if (bits_of(got[i]) != bits_of(want[i]))
            fail_msg("%s: element %zu is %a, should be %a", what, i, (double)got[i],
                     (double)want[i]);
}

/* |got − want| in units of the last place of want (a float's; subnormals have the least float's). */
static inline double ulps(float got, long double want) {
    if (isinf(got) || isinf((float)want))
        return got == (float)want ? 0 : INFINITY;
    int e;
    (void)frexpl(want, &e);
    return (double)fabsl(((long double)got - want) / ldexpl(1, (e < -125 ? -125 : e) - 24));
}

#endif
