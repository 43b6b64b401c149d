#include "kernels/cpu/panel.h"

#include <omp.h>

/* hc_pre, hc_post and the head's mix. The n streams of a row are one vector u of n·d for `fn`, and n
 * vectors of d for everything else. */

#define MAX_STREAMS 8 /* rows of comb live on the stack; published: 4 */
#define MAX_DOTS    ((2 + MAX_STREAMS) * MAX_STREAMS)
/* Of a thread's scratch: the panel's, and what it puts out. */
#define PANEL_BYTES (PANEL_SCRATCH_BYTES + TILE_ROWS * PANEL_ROWS * sizeof(float))
/* Rows of u that a thread multiplies with `fn` at a time, each 118 KB for Pro: fn, 2.75 MB, is then read
 * once for twelve. */
#define TAKE_ROWS 12

/* comb [n,n]: softmax over the second index, then columns and rows by turns made to sum to 1. */
static void sinkhorn(float *comb, uint32_t n, uint32_t iterations, float eps) {
    for (uint32_t i = 0; i < n; i++) {
        float *row = comb + i * n, most = row[0], sum;
        for (uint32_t j = 1; j < n; j++)
            most = row[j] > most ? row[j] : most;
        for (uint32_t j = 0; j < n; j++)
            row[j] = arith_exp(row[j] - most);
        sum = row[0];
        for (uint32_t j = 1; j < n; j++)
            sum += row[j];
        for (uint32_t j = 0; j < n; j++)
            row[j] = row[j] / sum + eps;
    }
    for (uint32_t t = 0; t < iterations; t++) {
        for (uint32_t i = 0; t > 0 && i < n; i++) { // the softmax was the first round's rows
            float sum = comb[i * n];
            for (uint32_t j = 1; j < n; j++)
                sum += comb[i * n + j];
            for (uint32_t j = 0; j < n; j++)
                comb[i * n + j] /= sum + eps;
        }
        for (uint32_t j = 0; j < n; j++) {
            float sum = comb[j];
            for (uint32_t i = 1; i < n; i++)
                sum += comb[i * n + j];
            for (uint32_t i = 0; i < n; i++)
                comb[i * n + j] /= sum + eps;
        }
    }
}

/* ρ = 1/sqrt(mean u² + ε). */
static float inverse_rms(const struct cpu_forms *forms, const float *u, uint32_t n, float eps) {
    return arith_rsqrt(forms->sum_squares(u, n) / (float)n + eps);
}

/* One row of hc_pre, from its dots. */
static void pre_row(const struct hc_pre *a, const struct cpu_forms *forms, uint32_t row,
                    const float *dots) {
    const uint32_t n = a->n_streams;
    const float *base = cpu_ptr(a->base), *scale = cpu_ptr(a->scale);
    const float *h = (const float *)cpu_ptr(a->h) + (size_t)row * n * a->d;
    float *post = (float *)cpu_ptr(a->post) + (size_t)row * n;
    float *comb = (float *)cpu_ptr(a->comb) + (size_t)row * n * n;
    float pre[MAX_STREAMS];
    const float rho = inverse_rms(forms, h, n * a->d, a->norm_eps);
    const float scale0 = load_f32(scale), scale1 = load_f32(scale + 1),
                scale2 = load_f32(scale + 2);
    for (uint32_t j = 0; j < n; j++)
        pre[j] = arith_sigmoid(fmaf(dots[j] * rho, scale0, load_f32(base + j))) + a->hc_eps;
    for (uint32_t j = 0; j < n; j++)
        post[j] = 2.0f * arith_sigmoid(fmaf(dots[n + j] * rho, scale1, load_f32(base + n + j)));
    for (uint32_t i = 0; i < n * n; i++)
        comb[i] = fmaf(dots[2 * n + i] * rho, scale2, load_f32(base + 2 * n + i));
    sinkhorn(comb, n, a->sinkhorn_iters, a->hc_eps);
    forms->mix((float *)cpu_ptr(a->x) + (size_t)row * a->d, h, pre, n, a->d);
}

static void head_row(const struct hc_head *a, const struct cpu_forms *forms, uint32_t row,
                     const float *dots) {
    const uint32_t n = a->n_streams;
    const float *base = cpu_ptr(a->base), *scale = cpu_ptr(a->scale);
    const float *h = (const float *)cpu_ptr(a->h) + (size_t)row * n * a->d;
    float pre[MAX_STREAMS];
    const float rho = inverse_rms(forms, h, n * a->d, a->norm_eps);
    for (uint32_t j = 0; j < n; j++)
        pre[j] =
            arith_sigmoid(fmaf(dots[j] * rho, load_f32(scale), load_f32(base + j))) + a->hc_eps;
    forms->mix((float *)cpu_ptr(a->x) + (size_t)row * a->d, h, pre, n, a->d);
}

/* What both read sides do: dots[i] = fn[i, :] · u (T16; not yet times ρ), then the row's own function. */
struct read_side {
    struct matrix fn;
    const float *h;
    uint32_t n_rows;
    const struct hc_pre *pre; /* one of these */
    const struct hc_head *head;
};

static void finish_row(const struct read_side *s, const struct cpu_forms *forms, uint32_t row,
                       const float *dots) {
    if (s->pre)
        pre_row(s->pre, forms, row, dots);
    else
        head_row(s->head, forms, row, dots);
}

/* Rows of fn from … from + n times a tile, into dots [tile rows, fn.rows]. */
static void multiply(const struct read_side *s, const struct cpu_forms *forms, uint32_t from,
                     uint32_t n, const struct tile *tile, float *dots, unsigned char *scratch) {
    float(*out)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
    panel_multiply(&s->fn, from, n, tile, forms, matrix_row(&s->fn, from + n), out, scratch);
    for (uint32_t j = 0; j < tile->n_rows; j++)
        memcpy(dots + (size_t)j * s->fn.rows + from, out[j], n * sizeof(float));
}

/* Many rows: each thread takes a few from the first step to the last. */
static void read_rows(const struct read_side *s, const struct cpu_ops *c, uint32_t first,
                      uint32_t n, unsigned char *scratch) {
    struct tile tile = { .n_rows = n, .cols = s->fn.cols, .product = PRODUCT_T16 };
    float *dots = (float *)(void *)(scratch + PANEL_BYTES);
    tile.data = scratch + PANEL_BYTES + TAKE_ROWS * MAX_DOTS * sizeof(float);
    for (uint32_t j = 0; j < n; j++)
        tile_put(&tile, c->forms, j, s->h + (size_t)(first + j) * s->fn.cols);
    for (uint32_t from = 0; from < s->fn.rows; from += PANEL_ROWS)
        multiply(s, c->forms, from, s->fn.rows - from < PANEL_ROWS ? s->fn.rows - from : PANEL_ROWS,
                 &tile, dots, scratch);
    for (uint32_t j = 0; j < n; j++)
        finish_row(s, c->forms, first + j, dots + (size_t)j * s->fn.rows);
}

/* Few: the threads share the rows of fn. */
static void read_together(const struct read_side *s, const struct cpu_ops *c) {
    struct tile tile = { .n_rows = s->n_rows, .cols = s->fn.cols, .product = PRODUCT_T16 };
    float *dots = cpu_shared(c);
    tile.data = dots + TAKE_ROWS * MAX_DOTS;
#pragma omp parallel num_threads(c->n_threads)
    {
        unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
#pragma omp for
        for (uint32_t j = 0; j < s->n_rows; j++)
            tile_put(&tile, c->forms, j, s->h + (size_t)j * s->fn.cols);
#pragma omp for schedule(dynamic)
        for (uint32_t at = 0; at < s->fn.rows; at += 4) // few rows, so narrow panels
            multiply(s, c->forms, at, s->fn.rows - at < 4 ? s->fn.rows - at : 4, &tile, dots,
                     scratch);
#pragma omp for
        for (uint32_t j = 0; j < s->n_rows; j++)
            finish_row(s, c->forms, j, dots + (size_t)j * s->fn.rows);
    }
}

static void read_side(const struct cpu_ops *c, const struct read_side *s) {
    const size_t room = CPU_THREAD_BYTES - PANEL_BYTES - TAKE_ROWS * MAX_DOTS * sizeof(float);
    const size_t fit = room / tile_row_bytes(s->fn.cols);
    const uint32_t few = fit < TAKE_ROWS ? (uint32_t)fit : TAKE_ROWS;
    assert(fit > 0 && s->fn.rows <= MAX_DOTS);
    if (s->n_rows < 2 * (uint32_t)c->n_threads && s->n_rows <= few) {
        read_together(s, c);
        return;
    }
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic)
    for (uint32_t first = 0; first < s->n_rows; first += few)
        read_rows(s, c, first, s->n_rows - first < few ? s->n_rows - first : few,
                  cpu_scratch(c, omp_get_thread_num()));
}

void cpu_hc_pre(struct ops *ops, const struct hc_pre *a) {
    const uint32_t n = a->n_streams;
    const struct read_side s = {
        .fn = { MATRIX_F32, (2 + n) * n, n * a->d, a->fn, mem_none() },
        .h = cpu_ptr(a->h),
        .n_rows = a->n_rows,
        .pre = a,
    };
    assert(n <= MAX_STREAMS);
    read_side(cpu_of(ops), &s);
}

void cpu_hc_head(struct ops *ops, const struct hc_head *a) {
    const uint32_t n = a->n_streams;
    const struct read_side s = {
        .fn = { MATRIX_F32, n, n * a->d, a->fn, mem_none() },
        .h = cpu_ptr(a->h),
        .n_rows = a->n_rows,
        .head = a,
    };
    assert(n <= MAX_STREAMS);
    read_side(cpu_of(ops), &s);
}

void cpu_hc_post(struct ops *ops, const struct hc_post *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const uint32_t n = a->n_streams, d = a->d, chunks = (d + POST_COLS - 1) / POST_COLS;
    float *h = cpu_ptr(a->h);
    const float *x = cpu_ptr(a->x), *post = cpu_ptr(a->post), *comb = cpu_ptr(a->comb);
    assert(n <= MAX_STREAMS);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint64_t i = 0; i < (uint64_t)a->n_rows * chunks; i++) {
        uint64_t row = i / chunks;
        uint32_t at = (uint32_t)(i % chunks) * POST_COLS;
        c->forms->post(h + row * n * d + at, d, x + row * d + at, post + row * n,
                       comb + row * n * n, n, d - at < POST_COLS ? d - at : POST_COLS);
    }
}
