#include "kernels/cpu/panel.h"

#include <omp.h>

/* The two tiles of an expert in the shared scratch, half of it each: x of the rows that chose it, and
 * what lies between w1, w3 and w2. The latter is computed as rows of floats (`mid`, behind its tile),
 * and then rounded. */
#define HALF (CPU_SHARED_BYTES / 2)

static struct tile tile_of(const struct matrix *w, bool exact, uint32_t n, void *data) {
    struct tile t = { .data = data, .n_rows = n, .cols = w->cols };
    t.rounded = matrix_rounds_x(w, exact);
    t.product = matrix_product(w, t.rounded);
    return t;
}

/* weight · silu(min(w1 x, limit)) · clamp(w3 x, ±limit) of f rows at … at + m. */
static void activate(const struct expert_ffn *a, const struct cpu_forms *forms,
                     const uint32_t *pick, uint32_t n, uint32_t at, uint32_t m,
                     float (*v)[PANEL_ROWS], float (*u)[PANEL_ROWS], float *out) {
    const float *weights = cpu_ptr(a->weights);
    for (uint32_t j = 0; j < n; j++)
        forms->swiglu(out + (size_t)j * a->w1.rows + at, v[j], u[j], m, a->limit,
                      pick ? weights[pick[j]] : 1.0f);
}

/* Put m values of row j where the mode says. */
static void put(const struct expert_ffn *a, const uint32_t *pick, uint32_t row, uint32_t at,
                uint32_t m, const float *v) {
    float *y = cpu_ptr(a->y);
    const uint32_t d = a->w2.rows;
    if (!pick || a->mode == EXPERT_STORE || *pick % a->n_chosen == 0) {
        uint32_t to = !pick ? row : a->mode == EXPERT_STORE ? *pick : *pick / a->n_chosen;
        memcpy(y + (size_t)to * d + at, v, m * sizeof(float));
        return;
    }
    y += (size_t)(*pick / a->n_chosen) * d + at;
    for (uint32_t i = 0; i < m; i++)
        y[i] += v[i];
}

void cpu_expert_ffn(struct ops *ops, const struct expert_ffn *a) {
    struct cpu_ops *c = cpu_of(ops);
    const float *x = cpu_ptr(a->x);
    const uint32_t *picks = cpu_ptr(a->pick);
    const uint32_t d = a->w1.cols, f = a->w1.rows;
    assert(a->w3.type == a->w1.type && a->w3.rows == f && a->w2.cols == f);
    assert(d <= CPU_MAX_COLS && f <= CPU_MAX_COLS);
    const size_t in_bytes = tile_row_bytes(d), mid_bytes = tile_row_bytes(f) + f * sizeof(float);
    const size_t fit = HALF / (in_bytes > mid_bytes ? in_bytes : mid_bytes);
    const uint32_t most = tile_rows(a->n, fit < TILE_ROWS ? (uint32_t)fit : TILE_ROWS);
    const struct tile whole_in = tile_of(&a->w1, ops->exact, most, cpu_shared(c));
    const struct tile whole_mid =
        tile_of(&a->w2, ops->exact, most, (unsigned char *)cpu_shared(c) + HALF);
    float *mid = (float *)(void *)((unsigned char *)whole_mid.data + most * tile_row_bytes(f));
    const uint32_t f_height = panel_rows(f, whole_in.product, c->n_threads);
    const uint32_t d_height = panel_rows(a->w2.rows, whole_mid.product, c->n_threads);
    const int f_chunk = panel_chunk(f / f_height, c->n_threads);
    const int d_chunk = panel_chunk(a->w2.rows / d_height, c->n_threads);
    assert(fit > 0);

#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n; first += most) {
        const uint32_t n = a->n - first < most ? a->n - first : most;
        const uint32_t *pick = picks ? picks + first : NULL;
        struct tile in_tile = whole_in, mid_tile = whole_mid;
        in_tile.n_rows = mid_tile.n_rows = n;
        unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
        float(*v)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
        float(*u)[PANEL_ROWS] = v + TILE_ROWS;
#pragma omp for
        for (uint32_t j = 0; j < n; j++)
            tile_put(&in_tile, c->forms, j,
                     x + (size_t)(pick ? pick[j] / a->n_chosen : first + j) * d);
#pragma omp for schedule(dynamic, f_chunk)
        for (uint32_t at = 0; at < f; at += f_height) {
            uint32_t m = f - at < f_height ? f - at : f_height;
            panel_multiply(&a->w1, at, m, &in_tile, c->forms, matrix_row(&a->w3, at), v, scratch);
            panel_multiply(&a->w3, at, m, &in_tile, c->forms, matrix_row(&a->w1, at + m), u,
                           scratch);
            activate(a, c->forms, pick, n, at, m, v, u, mid);
        }
#pragma omp for
        for (uint32_t j = 0; j < n; j++)
            tile_put(&mid_tile, c->forms, j, mid + (size_t)j * f);
#pragma omp for schedule(dynamic, d_chunk)
        for (uint32_t at = 0; at < a->w2.rows; at += d_height) {
            uint32_t m = a->w2.rows - at < d_height ? a->w2.rows - at : d_height;
            panel_multiply(&a->w2, at, m, &mid_tile, c->forms, matrix_row(&a->w2, at + m), v,
                           scratch);
            for (uint32_t j = 0; j < n; j++)
                put(a, pick ? pick + j : NULL, first + j, at, m, v[j]);
        }
    }
}
