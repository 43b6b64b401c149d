#include "kernels/cpu/panel.h"

#include <omp.h>

/* hc_pre, hc_post and the head's mix. The n streams of a row are one vector u of n·d for `fn`, and n
 * vectors of d for everything else. */

#define MAX_STREAMS 8  /* rows of comb live on the stack; published: 4 */
#define CHUNK       64 /* columns of all streams that are mixed at once: they stay in L1 */

/* dots[j, i] = fn[i, :] · u[j, :] for a tile of rows (T16; not yet times ρ). All threads call. */
static void mix_dots(const struct cpu_ops *c, const struct matrix *fn, const float *h, uint32_t n,
                     float *dots) {
    struct tile tile = { 0 };
    tile.n_rows = n;
    tile.stride = fn->cols;
    tile.x = h;
    unsigned char *scratch = cpu_scratch(c, omp_get_thread_num());
    float(*out)[PANEL_ROWS] = (void *)(scratch + PANEL_SCRATCH_BYTES);
#pragma omp for schedule(dynamic)
    for (uint32_t at = 0; at < fn->rows; at += 4) { // few rows, so narrow panels
        uint32_t m = fn->rows - at < 4 ? fn->rows - at : 4;
        panel_multiply(fn, at, m, PRODUCT_T16, &tile, out, scratch);
        for (uint32_t j = 0; j < n; j++)
            memcpy(dots + (size_t)j * fn->rows + at, out[j], m * sizeof(float));
    }
}

/* ρ = 1/sqrt(mean u² + ε). */
CPU_CLONES static float inverse_rms(const float *u, uint32_t n, float eps) {
    return arith_rsqrt(arith_sum16_squares(u, n) / (float)n + eps);
}

/* x = Σ_j pre_j·h_j, j ascending from the first. */
CPU_CLONES static void mix(float *restrict x, const float *h, const float *pre, uint32_t n,
                           uint32_t d) {
    for (uint32_t i = 0; i < d; i++)
        x[i] = pre[0] * h[i];
    for (uint32_t j = 1; j < n; j++) {
        const float *stream = h + (size_t)j * d;
        for (uint32_t i = 0; i < d; i++)
            x[i] = fmaf(pre[j], stream[i], x[i]);
    }
}

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

/* One row of hc_pre, from its dots. */
static void pre_row(const struct hc_pre *a, uint32_t row, const float *dots) {
    const uint32_t n = a->n_streams;
    const float *base = cpu_ptr(a->base), *scale = cpu_ptr(a->scale);
    const float *h = (const float *)cpu_ptr(a->h) + (size_t)row * n * a->d;
    float *post = (float *)cpu_ptr(a->post) + (size_t)row * n;
    float *comb = (float *)cpu_ptr(a->comb) + (size_t)row * n * n;
    float pre[MAX_STREAMS];
    const float rho = inverse_rms(h, n * a->d, a->norm_eps);
    const float scale0 = load_f32(scale), scale1 = load_f32(scale + 1),
                scale2 = load_f32(scale + 2);
    for (uint32_t j = 0; j < n; j++)
        pre[j] = arith_sigmoid(fmaf(dots[j] * rho, scale0, load_f32(base + j))) + a->hc_eps;
    for (uint32_t j = 0; j < n; j++)
        post[j] = 2.0f * arith_sigmoid(fmaf(dots[n + j] * rho, scale1, load_f32(base + n + j)));
    for (uint32_t i = 0; i < n * n; i++)
        comb[i] = fmaf(dots[2 * n + i] * rho, scale2, load_f32(base + 2 * n + i));
    sinkhorn(comb, n, a->sinkhorn_iters, a->hc_eps);
    mix((float *)cpu_ptr(a->x) + (size_t)row * a->d, h, pre, n, a->d);
}

static void head_row(const struct hc_head *a, uint32_t row, const float *dots) {
    const uint32_t n = a->n_streams;
    const float *base = cpu_ptr(a->base), *scale = cpu_ptr(a->scale);
    const float *h = (const float *)cpu_ptr(a->h) + (size_t)row * n * a->d;
    float pre[MAX_STREAMS];
    const float rho = inverse_rms(h, n * a->d, a->norm_eps);
    for (uint32_t j = 0; j < n; j++)
        pre[j] =
            arith_sigmoid(fmaf(dots[j] * rho, load_f32(scale), load_f32(base + j))) + a->hc_eps;
    mix((float *)cpu_ptr(a->x) + (size_t)row * a->d, h, pre, n, a->d);
}

static struct matrix fn_matrix(struct mem fn, uint32_t rows, uint32_t cols) {
    struct matrix m = { MATRIX_F32, rows, cols, fn, mem_none() };
    return m;
}

void cpu_hc_pre(struct ops *ops, const struct hc_pre *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const uint32_t n = a->n_streams, width = n * a->d;
    const struct matrix fn = fn_matrix(a->fn, (2 + n) * n, width);
    const float *h = cpu_ptr(a->h);
    float *dots = cpu_shared(c);
    assert(n <= MAX_STREAMS);
#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n_rows; first += TILE_ROWS) {
        uint32_t rows = a->n_rows - first < TILE_ROWS ? a->n_rows - first : TILE_ROWS;
        mix_dots(c, &fn, h + (size_t)first * width, rows, dots);
#pragma omp for
        for (uint32_t j = 0; j < rows; j++)
            pre_row(a, first + j, dots + (size_t)j * fn.rows);
    }
}

void cpu_hc_head(struct ops *ops, const struct hc_head *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const uint32_t n = a->n_streams, width = n * a->d;
    const struct matrix fn = fn_matrix(a->fn, n, width);
    const float *h = cpu_ptr(a->h);
    float *dots = cpu_shared(c);
    assert(n <= MAX_STREAMS);
#pragma omp parallel num_threads(c->n_threads)
    for (uint32_t first = 0; first < a->n_rows; first += TILE_ROWS) {
        uint32_t rows = a->n_rows - first < TILE_ROWS ? a->n_rows - first : TILE_ROWS;
        mix_dots(c, &fn, h + (size_t)first * width, rows, dots);
#pragma omp for
        for (uint32_t j = 0; j < rows; j++)
            head_row(a, first + j, dots + (size_t)j * fn.rows);
    }
}

/* n columns (≤ CHUNK) of one row's streams, in place: so all of them are read before any is written. */
CPU_CLONES static void post_chunk(float *h, size_t d, const float *x, const float *post,
                                  const float *comb, uint32_t n_streams, uint32_t n) {
    float out[MAX_STREAMS][CHUNK];
    for (uint32_t j = 0; j < n_streams; j++) {
        for (uint32_t k = 0; k < n; k++)
            out[j][k] = post[j] * x[k];
        for (uint32_t i = 0; i < n_streams; i++)
            for (uint32_t k = 0; k < n; k++)
                out[j][k] = fmaf(comb[i * n_streams + j], h[i * d + k], out[j][k]);
    }
    for (uint32_t j = 0; j < n_streams; j++)
        memcpy(h + j * d, out[j], n * sizeof(float));
}

void cpu_hc_post(struct ops *ops, const struct hc_post *a) {
    const struct cpu_ops *c = cpu_of(ops);
    const uint32_t n = a->n_streams, d = a->d, chunks = (d + CHUNK - 1) / CHUNK;
    float *h = cpu_ptr(a->h);
    const float *x = cpu_ptr(a->x), *post = cpu_ptr(a->post), *comb = cpu_ptr(a->comb);
    assert(n <= MAX_STREAMS);
#pragma omp parallel for num_threads(c->n_threads)
    for (uint64_t i = 0; i < (uint64_t)a->n_rows * chunks; i++) {
        uint64_t row = i / chunks;
        uint32_t at = (uint32_t)(i % chunks) * CHUNK;
        post_chunk(h + row * n * d + at, d, x + row * d + at, post + row * n, comb + row * n * n, n,
                   d - at < CHUNK ? d - at : CHUNK);
    }
}
