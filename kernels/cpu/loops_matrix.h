/* kernels/cpu/loops_matrix.h - matrices in plain C: x rounded, w widened, their products. The scalar
 * form is made of it; the vector forms take from it what the compiler makes vector code of, and the
 * columns that are no whole register. See forms.h for what each function does. */
#ifndef SLUICE_KERNELS_CPU_LOOPS_MATRIX_H
#define SLUICE_KERNELS_CPU_LOOPS_MATRIX_H

#include "kernels/arith.h"
#include "kernels/cpu/forms.h"

#include <string.h>

/* --- x ----------------------------------------------------------------------------------------- */

static inline void loop_round(float *dst, const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS) {
        uint32_t m = n - c < BLOCK_COLS ? n - c : BLOCK_COLS;
        float s = e8m0_value(fp8_scale_code(arith_amax(x + c, m)));
        float inverse = 1.0f / s; // a power of two: x·(1/s) is x/s
        for (uint32_t i = 0; i < m; i++)
            dst[c + i] = e4m3_value(e4m3_code(x[c + i] * inverse)) * s;
    }
}

/* Codes·2^9 of one group, and the scale that its 128 columns have in common. */
static inline void loop_group_codes(int32_t *code, const float *x, float inverse) {
    for (uint32_t i = 0; i < GROUP_COLS; i++)
        code[i] = e4m3_times_512(e4m3_code(x[i] * inverse));
}

static inline void loop_round_groups(void *to, uint32_t row, uint32_t n_rows, const float *x,
                                     uint32_t n) {
    struct x_group *dst = (struct x_group *)to + row;
    for (uint32_t c = 0; c < n; c += GROUP_COLS, dst += n_rows) {
        uint32_t block = c / BLOCK_COLS * BLOCK_COLS;
        float s = e8m0_value(
            fp8_scale_code(arith_amax(x + block, n - block < BLOCK_COLS ? n - block : BLOCK_COLS)));
        loop_group_codes(dst->as.code, x + c, 1.0f / s);
        dst->scale = s * 0.0009765625f;
    }
}

/* As bytes. v = lo + 128·rest, lo in −64 … 63, exactly: shifts of negatives are arithmetic. */
static inline void loop_round_digits(void *to, uint32_t row, uint32_t n_rows, const float *x,
                                     uint32_t n) {
    struct x_group *dst = (struct x_group *)to + row;
    float s = 1.0f, inverse = 1.0f;
    for (uint32_t c = 0; c < n; c += GROUP_COLS, dst += n_rows) {
        int32_t code[GROUP_COLS], sum = 0;
        if (c % BLOCK_COLS == 0) {
            s = e8m0_value(fp8_scale_code(arith_amax(x + c, n - c < BLOCK_COLS ? n - c : 128)));
            inverse = 1.0f / s;
        }
        loop_group_codes(code, x + c, inverse);
        for (uint32_t i = 0; i < GROUP_COLS; i++)
            sum += code[i];
        for (uint32_t half = 0; half < 2; half++)
            for (uint32_t i = 0; i < GROUP_COLS / 2; i++) {
                int32_t v = code[2 * i + half], rest = (v + 64) >> 7, most = (rest + 64) >> 7;
                dst->as.bytes.digit[0][16 * half + i] = (int8_t)(v - rest * 128);
                dst->as.bytes.digit[1][16 * half + i] = (int8_t)(rest - most * 128);
                dst->as.bytes.digit[2][16 * half + i] = (int8_t)most;
            }
        dst->as.bytes.minus = -12 * sum;
        dst->scale = s * 0.0009765625f;
    }
}

/* --- w ----------------------------------------------------------------------------------------- */

static inline void loop_widen_fp8(float *out, const uint8_t *w, float scale, uint32_t n) {
    for (uint32_t c = 0; c < n; c++)
        out[c] = e4m3_value(w[c]) * scale;
}

/* In two steps, bytes first: the vectorizer does not mix their width with that of floats. */
static inline void loop_widen_fp4(float *__restrict out, const uint8_t *__restrict w,
                                  const float *__restrict scale, uint32_t n) {
    uint8_t nibble[WIDE_COLS];
    for (uint32_t c = 0; c < n / 2; c++) {
        nibble[2 * c] = w[c] & 15;
        nibble[2 * c + 1] = w[c] >> 4;
    }
    for (uint32_t c = 0; c < n; c++)
        out[c] = e2m1_value(nibble[c]) * scale[c / GROUP_COLS];
}

static inline void loop_widen(float *out, enum matrix_type type, const uint8_t *w,
                              const float *scale, uint32_t n) {
    switch (type) {
    case MATRIX_F32:
        memcpy(out, w, 4 * (size_t)n);
        break;
    case MATRIX_BF16:
        for (uint32_t c = 0; c < n; c++)
            out[c] = bf16_value(load_u16(w + 2 * c));
        break;
    case MATRIX_FP8:
    case MATRIX_FP8_F32:
        for (uint32_t c = 0; c < n; c += BLOCK_COLS)
            loop_widen_fp8(out + c, w + c, type == MATRIX_FP8 ? scale[c / BLOCK_COLS] : 1.0f,
                           n - c < BLOCK_COLS ? n - c : BLOCK_COLS);
        break;
    case MATRIX_FP4:
        loop_widen_fp4(out, w, scale, n);
        break;
    }
}

/* --- T16 --------------------------------------------------------------------------------------- */

/* One element of w as t16 multiplies it. */
static inline float loop_t16_weight(const struct t16_block *b, uint32_t i, uint32_t c) {
    const uint8_t *w = b->w + i * b->w_stride;
    switch (b->type) {
    case MATRIX_F32:
        return load_f32(w + 4 * (size_t)c);
    case MATRIX_BF16:
        return bf16_value(load_u16(w + 2 * (size_t)c));
    case MATRIX_FP8:
        return e4m3_value(w[c]) * b->scale[i][c / BLOCK_COLS];
    default:
        return e4m3_value(w[c]);
    }
}

/* Columns from … n of one row of w and one of x, one by one. Where 128 columns have a scale, `from` is
 * a multiple of 128, and less than 128 are left. */
static inline void loop_t16_columns(const struct t16_block *b, uint32_t i, uint32_t j,
                                    uint32_t from) {
    const float *x = b->x + (size_t)j * WIDE_STRIDE;
    float lanes[16] = { 0 }, *sums = b->sums[j][i], *to = b->scale_sums ? lanes : sums;
    for (uint32_t c = from; c < b->n; c++)
        to[c % 16] = fmaf(loop_t16_weight(b, i, c), x[c], to[c % 16]);
    for (uint32_t l = 0; l < 16 && b->scale_sums; l++)
        sums[l] = fmaf(lanes[l], b->scale[i][from / BLOCK_COLS], sums[l]);
}

static inline void loop_t16_rest(const struct t16_block *b, uint32_t from) {
    for (uint32_t j = 0; from < b->n && j < b->n_x; j++)
        for (uint32_t i = 0; i < b->n_rows; i++)
            loop_t16_columns(b, i, j, from);
}

/* 128 columns of four rows of widened w and nj of x. What gcc makes vector code of: the loop over the
 * 16 lanes outside, over a fixed number of columns inside, sums in locals. The other way round it keeps
 * them in memory. */
static inline void loop_t16_floats(const int nj, const float *__restrict w, size_t w_stride,
                                   const float *__restrict x, float (*__restrict sums)[16]) {
    for (uint32_t lane = 0; lane < 16; lane++) {
        float t[4][4];
        for (int j = 0; j < nj; j++)
            for (int i = 0; i < 4; i++)
                t[j][i] = sums[j * PANEL_ROWS + i][lane];
        for (size_t c = 0; c < BLOCK_COLS; c += 16)
            for (int j = 0; j < nj; j++)
                for (int i = 0; i < 4; i++)
                    t[j][i] = fmaf(w[(size_t)i * w_stride + c + lane],
                                   x[(size_t)j * WIDE_STRIDE + c + lane], t[j][i]);
        for (int j = 0; j < nj; j++)
            for (int i = 0; i < 4; i++)
                sums[j * PANEL_ROWS + i][lane] = t[j][i];
    }
}

/* The same where each 128 columns have a scale: lanes from +0, which then join the others. */
static inline void loop_t16_scaled(const struct t16_block *b, const float *w, size_t w_stride,
                                   uint32_t i, uint32_t j, uint32_t c) {
    float lanes[4][16] = { { 0 } };
    loop_t16_floats(1, w, w_stride, b->x + (size_t)j * WIDE_STRIDE + c, lanes);
    for (uint32_t k = 0; k < 4; k++)
        for (uint32_t l = 0; l < 16; l++)
            b->sums[j][i + k][l] =
                fmaf(lanes[k][l], b->scale[i + k][c / BLOCK_COLS], b->sums[j][i + k][l]);
}

/* Of widened w only, whose rows go up to a multiple of 4. */
static inline void loop_t16(const struct t16_block *b) {
    const size_t w_stride = b->w_stride / sizeof(float);
    const uint32_t whole = b->n / BLOCK_COLS * BLOCK_COLS;
    for (uint32_t c = 0; c < whole; c += BLOCK_COLS)
        for (uint32_t j = 0; j < b->n_x; j += 4)
            for (uint32_t i = 0; i < b->n_rows; i += 4) {
                const float *w = (const float *)(const void *)b->w + i * w_stride + c;
                const float *x = b->x + (size_t)j * WIDE_STRIDE + c;
                uint32_t nj = b->n_x - j < 4 ? b->n_x - j : 4;
                if (!b->scale_sums && nj == 4)
                    loop_t16_floats(4, w, w_stride, x, &b->sums[j][i]);
                for (uint32_t k = 0; k < nj && (b->scale_sums || nj < 4); k++)
                    if (b->scale_sums)
                        loop_t16_scaled(b, w, w_stride, i, j + k, c);
                    else
                        loop_t16_floats(1, w, w_stride, x + k * (size_t)WIDE_STRIDE,
                                        &b->sums[j + k][i]);
            }
    loop_t16_rest(b, whole);
}

static inline void loop_fold(float *out, const float (*sums)[16], uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        float lanes[16];
        memcpy(lanes, sums[i], sizeof lanes);
        out[i] = arith_tree16(lanes);
    }
}

/* --- FP4 by integers ---------------------------------------------------------------------------- */

static inline void loop_fp4(const struct fp4_panel *p) {
    for (uint32_t j = 0; j < p->n_x; j++)
        memset(p->out[j], 0, sizeof p->out[j]);
    for (uint32_t i = 0; i < p->n_rows; i++)
        for (uint32_t g = 0; g < p->n_groups; g++) {
            const uint8_t *codes = p->w + ((size_t)i * p->n_groups + g) * (GROUP_COLS / 2);
            const float s_w = e8m0_value(p->scale[(size_t)i * p->n_groups + g]);
            int32_t w[GROUP_COLS];
            for (uint32_t c = 0; c < GROUP_COLS / 2; c++) {
                w[2 * c] = e2m1_times_2(codes[c] & 15);
                w[2 * c + 1] = e2m1_times_2(codes[c] >> 4);
            }
            for (uint32_t j = 0; j < p->n_x; j++) {
                const struct x_group *x = (const struct x_group *)p->x + (size_t)g * p->n_x + j;
                int32_t sum = 0;
                for (uint32_t c = 0; c < GROUP_COLS; c++)
                    sum += x->as.code[c] * w[c];
                p->out[j][i] = fmaf((float)sum, x->scale * s_w, p->out[j][i]);
            }
        }
}

/* --- an expert's activation --------------------------------------------------------------------- */

static inline void loop_swiglu(float *out, const float *v, const float *u, uint32_t n, float limit,
                               float weight) {
    for (uint32_t i = 0; i < n; i++)
        out[i] = arith_swiglu(v[i], u[i], limit, weight);
}

#endif
