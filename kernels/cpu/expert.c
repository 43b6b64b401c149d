#include "kernels/cpu/panel.h"

#include <omp.h>

/* The two tiles of an expert in the shared scratch: x of the rows that chose it, gathered, and what
 * lies between w1, w3 and w2. Each is floats or codes [n, cols], then their scales. */
struct stage {
    float *values;
    uint32_t cols;
    bool rounded;
    enum product product;
};

static struct stage stage_of(const struct matrix *w, bool exact, void *at) {
    struct stage s;
    s.values = at;
    s.cols = w->cols;
    s.rounded = matrix_rounds_x(w, exact);
    s.product = matrix_product(w, s.rounded);
    return s;
}

static struct tile stage_tile(const struct stage *s, uint32_t n) {
    struct tile t = { 0 };
    t.n_rows = n;
    t.stride = s->cols;
    t.x = s->values;
    if (s->product == PRODUCT_INTEGER) {
        t.code = (const int32_t *)(const void *)s->values;
        t.scale = s->values + (size_t)n * s->cols;
        t.scale_stride = (s->cols + 127) / 128;
    }
    return t;
}

/* Row j of n: x as it is multiplied. x may be where it goes. */
static void stage_round(const struct stage *s, uint32_t n, uint32_t j, const float *x) {
    float *values = s->values + (size_t)j * s->cols;
    if (s->product == PRODUCT_INTEGER)
        tile_round_codes((int32_t *)(void *)values,
                         s->values + (size_t)n * s->cols + (size_t)j * ((s->cols + 127) / 128), x,
                         s->cols);
    else if (s->rounded)
        tile_round(values, x, s->cols);
    else if (values != x)
        memcpy(values, x, s->cols * sizeof(float));
}

/* weight · silu(min(w1 x, limit)) · clamp(w3 x, ±limit) of f rows at … at + m. */
CPU_CLONES static void activate(const struct expert_ffn *a, const uint32_t *pick, uint32_t n,
                                uint32_t at, uint32_t m, float (*v)[PANEL_ROWS],
                                float (*u)[PANEL_ROWS], float *out) {
    const float *weights = cpu_ptr(a->weights);
    for (uint32_t j = 0; j < n; j++) {
        float weight = pick ? weights[pick[j]] : 1.0f;
        for (uint32_t i = 0; i < m; i++)
            out[(size_t)j * a->w1.rows + at + i] = arith_swiglu(v[j][i], u[j][i], a->limit, weight);
    }
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
    // Half of the shared scratch for each stage, so many rows at a time.
    const size_t half = CPU_SHARED_BYTES / 2, wider = tile_row_bytes(d > f ? d : f);
    const uint32_t tile_rows = wider * TILE_ROWS <= half ? TILE_ROWS : (uint32_t)(half / wider);
    assert(d <= CPU_MAX_COLS && f <= CPU_MAX_COLS);
    const struct stage in = stage_of(&a->w1, ops->exact, cpu_shared(c));
    const struct stage mid = stage_of(&a->w2, ops->exact, (unsigned char *)cpu_shared(c) + half);
    const uint32_t f_height = panel_rows(f, c->n_threads);
    const uint32_t d_height = panel_rows(a->w2.rows, c->n_threads);

#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n; first += tile_rows) {
        const uint32_t n = a->n - first < tile_rows ? a->n - first : tile_rows;
        const uint32_t *pick = picks ? picks + first : NULL;
        const struct tile in_tile = stage_tile(&in, n), mid_tile = stage_tile(&mid, n);
        unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
        float(*v)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
        float(*u)[PANEL_ROWS] = v + TILE_ROWS;
#pragma omp for
        for (uint32_t j = 0; j < n; j++)
            stage_round(&in, n, j, x + (size_t)(pick ? pick[j] / a->n_chosen : first + j) * d);
#pragma omp for schedule(dynamic)
        for (uint32_t at = 0; at < f; at += f_height) {
            uint32_t m = f - at < f_height ? f - at : f_height;
            panel_multiply(&a->w1, at, m, in.product, &in_tile, v, scratch);
            panel_multiply(&a->w3, at, m, in.product, &in_tile, u, scratch);
            activate(a, pick, n, at, m, v, u, mid.values);
        }
#pragma omp for
        for (uint32_t j = 0; j < n; j++)
            stage_round(&mid, n, j, mid.values + (size_t)j * f);
#pragma omp for schedule(dynamic)
        for (uint32_t at = 0; at < a->w2.rows; at += d_height) {
            uint32_t m = a->w2.rows - at < d_height ? a->w2.rows - at : d_height;
            panel_multiply(&a->w2, at, m, mid.product, &mid_tile, v, scratch);
            for (uint32_t j = 0; j < n; j++)
                put(a, pick ? pick + j : NULL, first + j, at, m, v[j]);
        }
    }
}
