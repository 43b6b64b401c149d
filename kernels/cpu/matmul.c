#include "kernels/cpu/panel.h"

#include <omp.h>

/* Rows first … first + n of x, in the shared scratch: a tile for each group, one behind the other. */
static struct tile group_tile(const struct matmul *a, bool rounded, uint32_t n, uint32_t group,
                              void *shared) {
    struct tile t = { .n_rows = n, .cols = a->w.cols, .rounded = rounded };
    t.data = (unsigned char *)shared + (size_t)group * n * tile_row_bytes(a->w.cols);
    t.product = matrix_product(&a->w, rounded);
    return t;
}

void cpu_matmul(struct ops *ops, const struct matmul *a) {
    struct cpu_ops *c = cpu_of(ops);
    const float *x = cpu_ptr(a->x);
    float *y = cpu_ptr(a->y);
    void *shared = cpu_shared(c);
    const bool rounded = a->quantize && matrix_rounds_x(&a->w, ops->exact);
    const uint32_t group_rows = a->w.rows / a->n_groups;
    const uint32_t height = panel_rows(a->w.rows, matrix_product(&a->w, rounded), c->n_threads);
    const uint32_t group_panels = (group_rows + height - 1) / height;
    const int chunk = panel_chunk(a->n_groups * group_panels, c->n_threads);
    const size_t row_bytes = a->n_groups * tile_row_bytes(a->w.cols);
    const size_t fit = CPU_SHARED_BYTES / row_bytes;
    const uint32_t most = tile_rows(a->n_rows, fit < TILE_ROWS ? (uint32_t)fit : TILE_ROWS);
    assert(fit > 0);

#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n_rows; first += most) {
        const uint32_t n = a->n_rows - first < most ? a->n_rows - first : most;
#pragma omp for
        for (uint32_t i = 0; i < n * a->n_groups; i++) {
            const struct tile t = group_tile(a, rounded, n, i % a->n_groups, shared);
            tile_put(&t, c->forms, i / a->n_groups,
                     x + ((size_t)first * a->n_groups + i) * a->w.cols);
        }
        unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
        float(*out)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
#pragma omp for schedule(dynamic, chunk)
        for (uint32_t i = 0; i < a->n_groups * group_panels; i++) {
            const uint32_t group = i / group_panels, at = i % group_panels * height;
            const uint32_t m = group_rows - at < height ? group_rows - at : height;
            const struct tile t = group_tile(a, rounded, n, group, shared);
            const uint32_t row = group * group_rows + at;
            panel_multiply(&a->w, row, m, &t, c->forms, matrix_row(&a->w, row + m), out, scratch);
            for (uint32_t j = 0; j < n; j++)
                memcpy(y + (size_t)(first + j) * a->w.rows + row, out[j], m * sizeof(float));
        }
    }
}
