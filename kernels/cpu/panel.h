/* kernels/cpu/panel.h - a few rows of a matrix times a tile of rows of x: what matmul, expert_ffn
 * and hyper-connections are made of.
 *
 *              columns →   128     128     128
 *     panel (≤ 16 rows) [ widened to floats, 512 columns at a time, reused for all of the tile ]
 *     tile  (≤ 64 rows) [ x, rounded once for all panels                                      ]
 *
 * The sum of one element (row of w, row of x) stays in its 16 lanes over all columns, so neither
 * tile nor panel shows in the bits. Called by threads inside a parallel region; nothing is shared
 * but what they read. */
#ifndef SLUICE_KERNELS_CPU_PANEL_H
#define SLUICE_KERNELS_CPU_PANEL_H

#include "kernels/cpu/internal.h"

#define PANEL_ROWS 16 /* 16 × 512 floats: 32 KiB, the widened weights lie in L1 */
#define TILE_ROWS  64 /* widening costs a fourth of multiplying by 4 rows; 64 make it vanish */

/* How a matrix is multiplied (arith.h, first three rows of the table). */
enum product {
    PRODUCT_T16,    /* floats, one sum over all columns */
    PRODUCT_BLOCKS, /* floats, 128 columns at a time, then their scale: MATRIX_FP8_F32 */
    PRODUCT_INTEGER /* integers, 32 columns at a time: MATRIX_FP4, x rounded */
};

/* Is x rounded before it meets such a matrix, and how are they multiplied. */
static inline bool matrix_rounds_x(const struct matrix *w, bool exact) {
    return !exact && w->type != MATRIX_F32 && w->type != MATRIX_BF16;
}
static inline enum product matrix_product(const struct matrix *w, bool rounded) {
    if (w->type == MATRIX_FP8_F32)
        return PRODUCT_BLOCKS;
    return w->type == MATRIX_FP4 && rounded ? PRODUCT_INTEGER : PRODUCT_T16;
}

/* A tile of rows of x, ready to be multiplied. */
struct tile {
    uint32_t n_rows;
    size_t stride;       /* from row to row, in elements of x or code */
    const float *x;      /* T16, BLOCKS: x, or q(x), the code times its scale */
    const int32_t *code; /* INTEGER: codes · 2^9 … */
    const float *scale;  /* … and the scale of each 128 of them */
    size_t scale_stride;
};

/* q(x) of one row of n columns, in groups of 128 (the last may be short). dst may be x. */
void tile_round(float *dst, const float *x, uint32_t n);
/* The same, as codes · 2^9 and scales [⌈n/128⌉]. */
void tile_round_codes(int32_t *code, float *scale, const float *x, uint32_t n);

/* Bytes of one row of a tile of n columns: floats or codes, and scales. */
static inline size_t tile_row_bytes(uint32_t n) {
    return ((size_t)n + (n + 127) / 128) * 4;
}

/* out[j][i] = W[row + i, :] · x[j, :], i < n_rows ≤ PANEL_ROWS, j < tile->n_rows ≤ TILE_ROWS.
 * `scratch`: PANEL_SCRATCH_BYTES of this thread's own, 64-byte aligned. */
#define PANEL_SCRATCH_BYTES ((size_t)128 << 10)
void panel_multiply(const struct matrix *w, uint32_t row, uint32_t n_rows, enum product product,
                    const struct tile *tile, float (*out)[PANEL_ROWS], void *scratch);

/* Rows of a panel, so that every thread has a few: more rows share x, fewer spread better. */
static inline uint32_t panel_rows(uint32_t rows, int n_threads) {
    return rows / PANEL_ROWS >= 4 * (uint32_t)n_threads ? PANEL_ROWS : 4;
}

#endif
