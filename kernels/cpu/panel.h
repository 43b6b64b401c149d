/* kernels/cpu/panel.h - a few rows of a matrix times a tile of rows of x: what matmul, expert_ffn
 * and hyper-connections are made of.
 *
 *              columns →   512     512     512
 *     panel (≤ 32 rows) [ widened to floats, 512 columns at a time, reused for all of the tile ]
 *     tile  (≤ 96 rows) [ x, rounded once for all panels, in the same blocks of columns       ]
 *
 * The sum of one element (row of w, row of x) stays in its 16 lanes over all columns, so neither
 * tile nor panel shows in the bits. Few rows of x meet w as it is read: widened in registers, four
 * whole rows of it at a time, which is what memory likes. FP4 by integers never leaves registers.
 * Called by threads inside a parallel region; nothing is shared but what they read. */
#ifndef SLUICE_KERNELS_CPU_PANEL_H
#define SLUICE_KERNELS_CPU_PANEL_H

#include "kernels/cpu/internal.h"

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

/* n_rows rows of x, `cols` columns, as they are multiplied: blocks of WIDE_COLS columns, each
 * [n_rows, WIDE_STRIDE] floats; or (INTEGER) what round_groups makes of them. */
struct tile {
    void *data; /* tile_row_bytes · n_rows, 64-byte aligned */
    uint32_t n_rows, cols;
    enum product product;
    bool rounded;
};

/* Bytes of one row of a tile, whatever the product; a multiple of 64. */
static inline size_t tile_row_bytes(uint32_t cols) {
    size_t floats = ((size_t)cols + WIDE_COLS - 1) / WIDE_COLS * WIDE_STRIDE * sizeof(float);
    return floats > FP4_ROW_BYTES(cols) ? floats : FP4_ROW_BYTES(cols);
}
/* Rows of a tile where all have n: as equal as may be, whole register tiles (of 6), at most `most`. */
static inline uint32_t tile_rows(uint32_t n, uint32_t most) {
    uint32_t tiles = (n + most - 1) / most, rows = tiles ? (n + tiles - 1) / tiles : 1;
    rows = (rows + 5) / 6 * 6;
    return rows < most ? rows : most;
}
/* Put a row where it belongs, rounded if the tile is. */
void tile_put(const struct tile *t, const struct cpu_forms *forms, uint32_t row, const float *x);

static inline size_t matrix_bytes(enum matrix_type type, size_t elements) {
    return type == MATRIX_F32    ? 4 * elements
           : type == MATRIX_BF16 ? 2 * elements
           : type == MATRIX_FP4  ? elements / 2
                                 : elements;
}
/* Where row `row` of a matrix begins; NULL if there is no such row. */
static inline const uint8_t *matrix_row(const struct matrix *w, uint32_t row) {
    return row < w->rows
               ? (const uint8_t *)cpu_ptr(w->weight) + matrix_bytes(w->type, (size_t)row * w->cols)
               : NULL;
}

/* out[j][i] = W[row + i, :] · x[j, :], i < n_rows ≤ PANEL_ROWS, j < tile->n_rows ≤ TILE_ROWS. What lies
 * in out[j] behind n_rows is garbage. out and `scratch`, PANEL_SCRATCH_BYTES, are this thread's own and
 * 64-byte aligned. ahead: the first of as many rows that this thread will multiply next, which its cache
 * fetches meanwhile, where w is read from memory for few rows of x; or NULL. */
#define PANEL_SCRATCH_BYTES ((size_t)320 << 10)
void panel_multiply(const struct matrix *w, uint32_t row, uint32_t n_rows, const struct tile *tile,
                    const struct cpu_forms *forms, const uint8_t *ahead, float (*out)[PANEL_ROWS],
                    void *scratch);

/* Rows of a panel, so that every thread has a few: more rows share x, fewer spread better. */
static inline uint32_t panel_rows(uint32_t rows, enum product product, int n_threads) {
    const uint32_t threads = (uint32_t)n_threads;
    if (rows / PANEL_ROWS >= 4 * threads)
        return PANEL_ROWS;
    return rows / 16 >= 4 * threads || product == PRODUCT_INTEGER ? 16 : 4;
}
/* Panels that a thread takes at a time: several, so that it knows what comes next. */
static inline int panel_chunk(uint32_t panels, int n_threads) {
    const uint32_t chunk = panels / (8 * (uint32_t)n_threads);
    return chunk < 1 ? 1 : chunk > 16 ? 16 : (int)chunk;
}

#endif
