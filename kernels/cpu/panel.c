#include "kernels/cpu/panel.h"

#include <string.h>

/* Rows of w that few rows of x meet from their first column to the last: streams that are read at once.
 */
#define FEW_ROWS 4

/* What panel_multiply keeps in its scratch. */
struct panel {
    float w[PANEL_ROWS][WIDE_STRIDE];                /* values, or codes alone (BLOCKS) */
    float scale[PANEL_ROWS][WIDE_COLS / BLOCK_COLS]; /* of blocks of 128 */
    float group_scale[PANEL_ROWS]
                     [WIDE_COLS / GROUP_COLS]; /* FP4 that is not multiplied as integers */
    float sums[TILE_ROWS][PANEL_ROWS][16];     /* the lanes */
};
_Static_assert(sizeof(struct panel) <= PANEL_SCRATCH_BYTES, "scratch");
_Static_assert(FP4_SCRATCH_BYTES <= PANEL_SCRATCH_BYTES, "scratch");

/* --- x ---------------------------------------------------------------------------------------- */

void tile_put(const struct tile *t, const struct cpu_forms *forms, uint32_t row, const float *x) {
    if (t->product == PRODUCT_INTEGER) {
        forms->round_groups(t->data, row, t->n_rows, x, t->cols);
        return;
    }
    for (uint32_t first = 0; first < t->cols; first += WIDE_COLS) {
        uint32_t n = t->cols - first < WIDE_COLS ? t->cols - first : WIDE_COLS;
        float *to = (float *)t->data + ((size_t)first / WIDE_COLS * t->n_rows + row) * WIDE_STRIDE;
        if (t->rounded)
            forms->round(to, x + first, n);
        else
            memcpy(to, x + first, n * sizeof(float));
    }
}

/* --- w ---------------------------------------------------------------------------------------- */

/* Scales of columns first … first + n of one row: of each 128 (FP8) or 32 (FP4). */
static void load_scales(float *blocks, float *groups, const struct matrix *w, uint32_t row,
                        uint32_t first, uint32_t n) {
    const uint8_t *scale = cpu_ptr(w->scale);
    const size_t block = (size_t)(row / 128) * ((w->cols + 127) / 128) + first / 128;
    const size_t group = ((size_t)row * w->cols + first) / GROUP_COLS;
    if (w->type == MATRIX_FP4)
        for (uint32_t g = 0; g < n / GROUP_COLS; g++)
            groups[g] = e8m0_value(scale[group + g]);
    for (uint32_t b = 0; b * BLOCK_COLS < n; b++)
        if (w->type == MATRIX_FP8)
            blocks[b] = e8m0_value(scale[block + b]);
        else if (w->type == MATRIX_FP8_F32)
            blocks[b] = load_f32(scale + 4 * (block + b));
}

/* Of a panel's rows; neighbours mostly have the same. */
static void load_panel_scales(struct panel *p, const struct matrix *w, uint32_t row,
                              uint32_t n_rows, uint32_t first, uint32_t n) {
    for (uint32_t i = 0; i < n_rows; i++)
        if (i > 0 && w->type != MATRIX_FP4 && (row + i) % 128 != 0)
            memcpy(p->scale[i], p->scale[i - 1], sizeof p->scale[i]);
        else
            load_scales(p->scale[i], p->group_scale[i], w, row + i, first, n);
}

/* Vector forms widen FP8 by routes on which it is 2^-8 or 2^-120 of its value at first: a scale that cannot
 * make up for that (published ones are below 1) goes through memory, where they look at it. */
static bool may_be_direct(const struct panel *p, const struct matrix *w, uint32_t n_rows,
                          uint32_t n) {
    for (uint32_t i = 0; w->type == MATRIX_FP8 && i < n_rows; i++)
        for (uint32_t b = 0; b * BLOCK_COLS < n; b++)
            if (!(p->scale[i][b] < 0x1p7f))
                return false;
    return true;
}

/* --- products --------------------------------------------------------------------------------- */

static void multiply_integers(const struct matrix *w, uint32_t row, uint32_t n_rows,
                              const struct tile *tile, const struct cpu_forms *forms,
                              const uint8_t *ahead, float (*out)[PANEL_ROWS], void *scratch) {
    struct fp4_panel p = {
        .w = matrix_row(w, row),
        .scale = (const uint8_t *)cpu_ptr(w->scale) + (size_t)row * w->cols / GROUP_COLS,
        .x = tile->data,
        .n_rows = n_rows,
        .n_x = tile->n_rows,
        .n_groups = w->cols / GROUP_COLS,
        .ahead = ahead,
        .out = out,
        .scratch = scratch,
    };
    forms->fp4(&p);
}

/* Columns first … first + n of rows row … row + n_rows, into sums of the panel's rows i … */
static void multiply_columns(struct panel *p, const struct matrix *w, uint32_t row, uint32_t i,
                             uint32_t n_rows, const struct tile *tile,
                             const struct cpu_forms *forms, const uint8_t *ahead, uint32_t first,
                             uint32_t n) {
    const uint8_t *weight = matrix_row(w, row);
    const size_t stride = matrix_bytes(w->type, w->cols), at = matrix_bytes(w->type, first);
    struct t16_block b = {
        .scale = (const float(*)[WIDE_COLS / BLOCK_COLS]) p->scale,
        .scale_sums = tile->product == PRODUCT_BLOCKS,
        .x = (const float *)tile->data + (size_t)first / WIDE_COLS * tile->n_rows * WIDE_STRIDE,
        .n_rows = n_rows,
        .n_x = tile->n_rows,
        .n = n,
        .sums = (void *)p->sums[0][i],
        .ahead = ahead ? ahead + at * n_rows : NULL,
    };
    load_panel_scales(p, w, row, n_rows, first, n);
    if (w->type != MATRIX_FP4 && tile->n_rows <= forms->direct_rows &&
        may_be_direct(p, w, n_rows, n)) {
        b.type = w->type;
        b.w = weight + at;
        b.w_stride = stride;
    } else {
        for (uint32_t k = 0; k < n_rows; k++)
            forms->widen(p->w[k], w->type, weight + k * stride + at,
                         w->type == MATRIX_FP4 ? p->group_scale[k] : p->scale[k], n);
        for (uint32_t k = n_rows; k < (n_rows + 3) / 4 * 4; k++) // read along with the others
            memset(p->w[k], 0, n * sizeof(float));
        b.type = MATRIX_F32;
        b.widened = true;
        b.w = (const uint8_t *)p->w;
        b.w_stride = sizeof p->w[0];
        b.ahead = NULL;
    }
    forms->t16(&b);
}

void panel_multiply(const struct matrix *w, uint32_t row, uint32_t n_rows, const struct tile *tile,
                    const struct cpu_forms *forms, const uint8_t *ahead, float (*out)[PANEL_ROWS],
                    void *scratch) {
    assert(n_rows <= PANEL_ROWS && tile->n_rows <= TILE_ROWS && row + n_rows <= w->rows);
    if (tile->product == PRODUCT_INTEGER) {
        multiply_integers(w, row, n_rows, tile, forms, ahead, out, scratch);
        return;
    }
    struct panel *p = scratch;
    const uint32_t height = tile->n_rows <= forms->direct_rows ? FEW_ROWS : PANEL_ROWS;
    memset(p->sums, 0, tile->n_rows * sizeof p->sums[0]);
    for (uint32_t i = 0; i < n_rows; i += height) {
        const uint8_t *next = i + height < n_rows ? matrix_row(w, row + i + height) : ahead;
        for (uint32_t first = 0; first < w->cols; first += WIDE_COLS)
            multiply_columns(p, w, row + i, i, n_rows - i < height ? n_rows - i : height, tile,
                             forms, next, first,
                             w->cols - first < WIDE_COLS ? w->cols - first : WIDE_COLS);
    }
    for (uint32_t j = 0; j < tile->n_rows; j++)
        forms->fold(out[j], (const float(*)[16])p->sums[j], n_rows);
}
