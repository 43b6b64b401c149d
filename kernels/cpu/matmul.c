#include "kernels/cpu/panel.h"

#include <omp.h>

/* A tile of rows of x in the shared scratch, rounded as this product wants it: floats or codes from
 * the start, scales behind them. For matrices that do not round, the rows as they are. */
static struct tile tile_in(const struct matmul *a, const float *x, uint32_t first, uint32_t n,
                           bool rounded, enum product product, void *shared) {
    size_t width = (size_t)a->n_groups * a->w.cols;
    struct tile t = { 0 };
    t.n_rows = n;
    t.stride = width;
    t.x = rounded ? shared : x + first * width;
    if (product == PRODUCT_INTEGER) {
        t.code = shared;
        t.scale = (const float *)shared + n * width;
        t.scale_stride = (size_t)a->n_groups * ((a->w.cols + 127) / 128);
    }
    return t;
}

/* Round one group's columns of one row. Groups of 128 begin anew with each of wo_a's groups. */
static void round_part(const struct matmul *a, const float *x, const struct tile *t, uint32_t row,
                       uint32_t group, enum product product, float *shared) {
    size_t at = row * t->stride + (size_t)group * a->w.cols;
    if (product == PRODUCT_INTEGER) {
        size_t scales = row * t->scale_stride + group * (t->scale_stride / a->n_groups);
        tile_round_codes((int32_t *)(void *)shared + at, shared + t->n_rows * t->stride + scales,
                         x + at, a->w.cols);
    } else {
        tile_round(shared + at, x + at, a->w.cols);
    }
}

void cpu_matmul(struct ops *ops, const struct matmul *a) {
    struct cpu_ops *c = cpu_of(ops);
    const float *x = cpu_ptr(a->x);
    float *y = cpu_ptr(a->y), *shared = cpu_shared(c);
    const bool rounded = a->quantize && matrix_rounds_x(&a->w, ops->exact);
    const enum product product = matrix_product(&a->w, rounded);
    const uint32_t group_rows = a->w.rows / a->n_groups;
    const uint32_t height = panel_rows(a->w.rows, c->n_threads);
    const uint32_t group_panels = (group_rows + height - 1) / height;
    const size_t row_bytes = a->n_groups * tile_row_bytes(a->w.cols);
    const uint32_t most = row_bytes * TILE_ROWS <= CPU_SHARED_BYTES
                              ? TILE_ROWS
                              : (uint32_t)(CPU_SHARED_BYTES / row_bytes);
    assert(!rounded || (size_t)a->n_groups * a->w.cols <= CPU_MAX_COLS);
    const uint32_t tile_rows = rounded ? most : TILE_ROWS;

#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n_rows; first += tile_rows) {
        const uint32_t n = a->n_rows - first < tile_rows ? a->n_rows - first : tile_rows;
        const struct tile tile = tile_in(a, x, first, n, rounded, product, shared);
        if (rounded) {
#pragma omp for
            for (uint32_t i = 0; i < n * a->n_groups; i++)
                round_part(a, x + first * tile.stride, &tile, i / a->n_groups, i % a->n_groups,
                           product, shared);
        }
        unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
        float(*out)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
#pragma omp for schedule(dynamic)
        for (uint32_t i = 0; i < a->n_groups * group_panels; i++) {
            uint32_t group = i / group_panels, at = i % group_panels * height;
            uint32_t m = group_rows - at < height ? group_rows - at : height;
            struct tile part = tile;
            if (product == PRODUCT_INTEGER) {
                part.code += (size_t)group * a->w.cols;
                part.scale += group * (tile.scale_stride / a->n_groups);
            } else {
                part.x += (size_t)group * a->w.cols;
            }
            panel_multiply(&a->w, group * group_rows + at, m, product, &part, out, scratch);
            for (uint32_t j = 0; j < n; j++)
                memcpy(y + (size_t)(first + j) * a->w.rows + group * group_rows + at, out[j],
                       m * sizeof(float));
        }
    }
}
