#include "kernels/cpu/panel.h"

#define BLOCK_COLS 128              /* one scale of FP8 weights, one of x; 8 columns in each lane */
#define WIDE_COLS  (4 * BLOCK_COLS) /* widened at once: long enough for the prefetchers */
#define GROUP_COLS 32               /* one scale of FP4 weights */

/* What panel_multiply keeps in its scratch. */
struct panel {
    union {
        float w[PANEL_ROWS][WIDE_COLS];      /* values, or codes alone (PRODUCT_BLOCKS) */
        int32_t code[PANEL_ROWS][WIDE_COLS]; /* PRODUCT_INTEGER: values · 2 */
    };
    float scale[PANEL_ROWS][WIDE_COLS / GROUP_COLS]; /* of blocks or groups, where not in w */
    float sums[TILE_ROWS][PANEL_ROWS][16];           /* the lanes; INTEGER: acc in the first */
};
_Static_assert(sizeof(struct panel) <= PANEL_SCRATCH_BYTES, "scratch");

/* --- x ---------------------------------------------------------------------------------------- */

CPU_CLONES void tile_round(float *dst, const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS) {
        uint32_t m = n - c < BLOCK_COLS ? n - c : BLOCK_COLS;
        float s = e8m0_value(fp8_scale_code(arith_amax(x + c, m)));
        float inverse = 1.0f / s; // a power of two: x·(1/s) is x/s
        for (uint32_t i = 0; i < m; i++)
            dst[c + i] = e4m3_value(e4m3_code(x[c + i] * inverse)) * s;
    }
}

CPU_CLONES void tile_round_codes(int32_t *code, float *scale, const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS) {
        uint32_t m = n - c < BLOCK_COLS ? n - c : BLOCK_COLS;
        float s = e8m0_value(fp8_scale_code(arith_amax(x + c, m)));
        float inverse = 1.0f / s;
        for (uint32_t i = 0; i < m; i++)
            code[c + i] = e4m3_times_512(e4m3_code(x[c + i] * inverse));
        scale[c / BLOCK_COLS] = s;
    }
}

/* --- w: columns first … first + n of one row, widened ------------------------------------------ */

CPU_INLINE void widen_bf16(float *out, const uint8_t *weight, uint32_t n) {
    for (uint32_t c = 0; c < n; c++)
        out[c] = bf16_value(load_u16(weight + 2 * c));
}

CPU_INLINE void widen_fp8(float *out, const uint8_t *weight, uint32_t n, float s) {
    for (uint32_t c = 0; c < n; c++)
        out[c] = e4m3_value(weight[c]) * s;
}

/* Functions of their own, here and below, since the vectorizer believes `restrict` of arguments
 * only; and FP4 in two steps, bytes first, since it does not mix their width with that of floats. */
CPU_CLONES static void widen_fp4(float *restrict out, const uint8_t *restrict weight,
                                 const float *restrict scale, uint32_t n) {
    uint8_t nibble[WIDE_COLS];
    for (uint32_t c = 0; c < n / 2; c++) {
        nibble[2 * c] = weight[c] & 15;
        nibble[2 * c + 1] = weight[c] >> 4;
    }
    for (uint32_t c = 0; c < n; c++)
        out[c] = e2m1_value(nibble[c]) * scale[c / GROUP_COLS];
}

CPU_CLONES static void widen_fp4_codes(int32_t *restrict out, const uint8_t *restrict weight,
                                       uint32_t n) {
    int8_t even[WIDE_COLS / 2], odd[WIDE_COLS / 2];
    for (uint32_t c = 0; c < n / 2; c++) {
        even[c] = e2m1_times_2(weight[c] & 15);
        odd[c] = e2m1_times_2(weight[c] >> 4);
    }
    for (uint32_t c = 0; c < n / 2; c++) {
        out[2 * c] = even[c];
        out[2 * c + 1] = odd[c];
    }
}

CPU_INLINE void widen(struct panel *p, uint32_t i, const struct matrix *w, uint32_t row,
                      enum product product, uint32_t first, uint32_t n) {
    const uint8_t *weight = cpu_ptr(w->weight), *scale = cpu_ptr(w->scale);
    uint64_t at = (uint64_t)row * w->cols + first;
    uint64_t block = (uint64_t)(row / 128) * ((w->cols + 127) / 128) + first / 128;
    uint64_t group = at / GROUP_COLS;
    switch (w->type) {
    case MATRIX_F32:
        memcpy(p->w[i], weight + 4 * at, 4 * (size_t)n);
        break;
    case MATRIX_BF16:
        widen_bf16(p->w[i], weight + 2 * at, n);
        break;
    case MATRIX_FP8:
        for (uint32_t c = 0; c < n; c += BLOCK_COLS)
            widen_fp8(p->w[i] + c, weight + at + c, n - c < BLOCK_COLS ? n - c : BLOCK_COLS,
                      e8m0_value(scale[block + c / BLOCK_COLS]));
        break;
    case MATRIX_FP8_F32:
        widen_fp8(p->w[i], weight + at, n, 1.0f);
        for (uint32_t b = 0; b * BLOCK_COLS < n; b++)
            p->scale[i][b] = load_f32(scale + 4 * (block + b));
        break;
    case MATRIX_FP4:
        for (uint32_t g = 0; g < n / GROUP_COLS; g++)
            p->scale[i][g] = e8m0_value(scale[group + g]);
        if (product == PRODUCT_INTEGER)
            widen_fp4_codes(p->code[i], weight + at / 2, n);
        else
            widen_fp4(p->w[i], weight + at / 2, p->scale[i], n);
        break;
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* 128 columns of four rows of w and nj of x: T16's lanes, 4·nj sums at a time. */
CPU_INLINE void block_t16(const int nj, const float *restrict w, const float *restrict x,
                          size_t stride, float (*restrict sums)[16]) {
    for (uint32_t lane = 0; lane < 16; lane++) {
        float t[4][4];
        for (int j = 0; j < nj; j++)
            for (int i = 0; i < 4; i++)
                t[j][i] = sums[j * PANEL_ROWS + i][lane];
        for (size_t c = 0; c < BLOCK_COLS; c += 16)
            for (int j = 0; j < nj; j++)
                for (int i = 0; i < 4; i++)
                    t[j][i] = fmaf(w[(size_t)i * WIDE_COLS + c + lane],
                                   x[(size_t)j * stride + c + lane], t[j][i]);
        for (int j = 0; j < nj; j++)
            for (int i = 0; i < 4; i++)
                sums[j * PANEL_ROWS + i][lane] = t[j][i];
    }
}

CPU_CLONES static void block_4_rows(const float *restrict w, const float *restrict x, size_t stride,
                                    float (*restrict sums)[16]) {
    block_t16(4, w, x, stride, sums);
}
CPU_CLONES static void block_1_row(const float *restrict w, const float *restrict x,
                                   float (*restrict sums)[16]) {
    block_t16(1, w, x, 0, sums);
}

/* Columns at, at + 1, … (n ≤ 128 of them) of the widened panel, four rows of it from i on, and rows
 * j … j + nj of x, into sums[j][i]. */
CPU_INLINE void multiply_block(const struct panel *p, uint32_t i, uint32_t at, uint32_t n,
                               const float *x, size_t stride, uint32_t nj, float (*sums)[16]) {
    if (n == BLOCK_COLS && nj == 4)
        block_4_rows(p->w[i] + at, x, stride, sums);
    else if (n == BLOCK_COLS)
        for (uint32_t j = 0; j < nj; j++)
            block_1_row(p->w[i] + at, x + j * stride, sums + j * PANEL_ROWS);
    else // the last columns, where they are no multiple of 128
        for (uint32_t j = 0; j < nj; j++)
            for (uint32_t k = 0; k < 4; k++)
                for (uint32_t c = 0; c < n; c++) {
                    float *lane = &sums[j * PANEL_ROWS + k][c % 16];
                    *lane = fmaf(p->w[i + k][at + c], x[j * stride + c], *lane);
                }
}

/* n widened columns of the panel (n_rows a multiple of 4) and all rows of the tile; x is the tile's
 * first row at the first of these columns. */
CPU_INLINE void multiply_floats(struct panel *p, uint32_t n_rows, const struct tile *tile,
                                const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS)
        for (uint32_t j = 0; j < tile->n_rows; j += 4)
            for (uint32_t i = 0; i < n_rows; i += 4)
                multiply_block(p, i, c, n - c < BLOCK_COLS ? n - c : BLOCK_COLS,
                               x + j * tile->stride + c, tile->stride,
                               tile->n_rows - j < 4 ? tile->n_rows - j : 4, &p->sums[j][i]);
}

/* The same where each 128 columns have a scale: lanes from +0, which then join the others. */
CPU_INLINE void multiply_scaled(struct panel *p, uint32_t n_rows, const struct tile *tile,
                                const float *x, uint32_t n) {
    for (uint32_t c = 0; c < n; c += BLOCK_COLS)
        for (uint32_t j = 0; j < tile->n_rows; j++)
            for (uint32_t i = 0; i < n_rows; i += 4) {
                float lanes[4][16] = { 0 };
                multiply_block(p, i, c, n - c < BLOCK_COLS ? n - c : BLOCK_COLS,
                               x + j * tile->stride + c, tile->stride, 1, lanes);
                for (uint32_t k = 0; k < 4; k++)
                    for (uint32_t l = 0; l < 16; l++)
                        p->sums[j][i + k][l] = fmaf(lanes[k][l], p->scale[i + k][c / BLOCK_COLS],
                                                    p->sums[j][i + k][l]);
            }
}

/* One row of w and one of x: n_groups ascending groups of 32 columns, an exact sum each, then acc. */
CPU_CLONES static float add_groups(float acc, const int32_t *restrict w, const int32_t *restrict x,
                                   const float *restrict scale, const float *restrict x_scale,
                                   uint32_t n_groups) {
    for (uint32_t g = 0; g < n_groups; g++) {
        int32_t sum = 0;
        for (size_t c = 0; c < GROUP_COLS; c++)
            sum += x[(size_t)g * GROUP_COLS + c] * w[(size_t)g * GROUP_COLS + c];
        float s = arith_fp4_scale(x_scale[g * GROUP_COLS / BLOCK_COLS], scale[g]);
        acc = fmaf((float)sum, s, acc);
    }
    return acc;
}

CPU_INLINE void multiply_codes(struct panel *p, uint32_t n_rows, const struct tile *tile,
                               uint32_t first, uint32_t n) {
    for (uint32_t j = 0; j < tile->n_rows; j++)
        for (uint32_t i = 0; i < n_rows; i++)
            p->sums[j][i][0] = add_groups(
                p->sums[j][i][0], p->code[i], tile->code + j * tile->stride + first, p->scale[i],
                tile->scale + j * tile->scale_stride + first / BLOCK_COLS, n / GROUP_COLS);
}

CPU_CLONES void panel_multiply(const struct matrix *w, uint32_t row, uint32_t n_rows,
                               enum product product, const struct tile *tile,
                               float (*out)[PANEL_ROWS], void *scratch) {
    assert(n_rows <= PANEL_ROWS && tile->n_rows <= TILE_ROWS && row + n_rows <= w->rows);
    struct panel *p = scratch;
    uint32_t padded =
        (n_rows + 3) / 4 * 4; // kernels take four rows: those that are not there are 0
    memset(p->sums, 0, tile->n_rows * sizeof p->sums[0]);
    for (uint32_t i = n_rows; i < padded; i++) {
        memset(p->w[i], 0, sizeof p->w[i]);
        memset(p->scale[i], 0, sizeof p->scale[i]);
    }

    for (uint32_t first = 0; first < w->cols; first += WIDE_COLS) {
        uint32_t n = w->cols - first < WIDE_COLS ? w->cols - first : WIDE_COLS;
        for (uint32_t i = 0; i < n_rows; i++)
            widen(p, i, w, row + i, product, first, n);
        if (product == PRODUCT_INTEGER)
            multiply_codes(p, padded, tile, first, n);
        else if (product == PRODUCT_BLOCKS)
            multiply_scaled(p, padded, tile, tile->x + first, n);
        else
            multiply_floats(p, padded, tile, tile->x + first, n);
    }

    for (uint32_t j = 0; j < tile->n_rows; j++)
        for (uint32_t i = 0; i < n_rows; i++)
            out[j][i] = product == PRODUCT_INTEGER ? p->sums[j][i][0] : arith_tree16(p->sums[j][i]);
}
