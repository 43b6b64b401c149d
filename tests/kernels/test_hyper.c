/* Hyper-connections against the description in double, and the canonical order where it is written
 * down; Sinkhorn's sums; in place; threads and splits. */
#include "kernels/arith.h"
#include "tests/kernels/reference.h"

#define N 4
#define D 320

/* Large enough, and different enough, that one missing or taken for the other shows. */
#define NORM_EPS 0.5f
#define HC_EPS   1e-3f

struct weights {
    struct mem fn, base, scale;
};

/* Trained-like sizes: fn small enough that the sigmoids and the softmax are not saturated. */
static struct weights test_weights(struct ops *ops, struct random *r, uint32_t n, uint32_t rows,
                                   uint32_t n_scales, uint32_t skew) {
    size_t size = (size_t)rows * n * D;
    float *fn = malloc(size * 4), base[128], scale[3];
    for (size_t i = 0; i < size; i++)
        fn[i] = random_float(r) * 0.05f;
    for (uint32_t i = 0; i < rows; i++)
        base[i] = random_float(r);
    for (uint32_t i = 0; i < n_scales; i++)
        scale[i] = 0.5f + 0.25f * (float)i;
    struct weights w;
    w.fn = mem_at(test_alloc(ops, size * 4 + skew), skew);
    w.base = mem_at(test_alloc(ops, rows * 4 + skew), skew);
    w.scale = mem_at(test_alloc(ops, n_scales * 4 + skew), skew);
    ops_upload(ops, w.fn, fn, size * 4);
    ops_upload(ops, w.base, base, rows * 4);
    ops_upload(ops, w.scale, scale, n_scales * 4);
    free(fn);
    return w;
}

static double f32_at(struct mem m, size_t i) {
    float f;
    memcpy(&f, (const uint8_t *)(uintptr_t)m.address + 4 * i, 4);
    return (double)f;
}
static double sigma(double x) {
    return 1 / (1 + exp(-x));
}

/* z = (fn u)·ρ in double. */
static void reference_z(double *z, uint32_t rows, const struct weights *w, const float *u,
                        uint32_t m) {
    double squares = 0;
    for (uint32_t c = 0; c < m; c++)
        squares += (double)u[c] * u[c];
    for (uint32_t i = 0; i < rows; i++) {
        double sum = 0;
        for (uint32_t c = 0; c < m; c++)
            sum += f32_at(w->fn, (size_t)i * m + c) * u[c];
        z[i] = sum / sqrt(squares / m + (double)NORM_EPS);
    }
}

/* pre, post, comb of one row, from the spec. */
static void reference_pre(const struct weights *w, const float *u, uint32_t n, uint32_t iterations,
                          double *pre, double *post, double *comb) {
    double z[128], eps = (double)HC_EPS;
    reference_z(z, (2 + n) * n, w, u, n * D);
    for (uint32_t j = 0; j < n; j++) {
        pre[j] = sigma(z[j] * f32_at(w->scale, 0) + f32_at(w->base, j)) + eps;
        post[j] = 2 * sigma(z[n + j] * f32_at(w->scale, 1) + f32_at(w->base, n + j));
    }
    for (uint32_t i = 0; i < n; i++) {
        double sum = 0;
        for (uint32_t j = 0; j < n; j++) {
            uint32_t at = 2 * n + i * n + j;
            comb[i * n + j] = exp(z[at] * f32_at(w->scale, 2) + f32_at(w->base, at));
            sum += comb[i * n + j];
        }
        for (uint32_t j = 0; j < n; j++)
            comb[i * n + j] = comb[i * n + j] / sum + eps;
    }
    for (uint32_t t = 0; t < iterations; t++) {
        for (uint32_t i = 0; i < n && t; i++) {
            double sum = 0;
            for (uint32_t j = 0; j < n; j++)
                sum += comb[i * n + j];
            for (uint32_t j = 0; j < n; j++)
                comb[i * n + j] /= sum + eps;
        }
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0;
            for (uint32_t i = 0; i < n; i++)
                sum += comb[i * n + j];
            for (uint32_t i = 0; i < n; i++)
                comb[i * n + j] /= sum + eps;
        }
    }
}

static void assert_near(const float *got, const double *want, size_t n, double tolerance) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * (fabs(want[i]) + 1e-3)))
            fail_msg("element %zu is %.9g, should be %.9g", i, (double)got[i], want[i]);
}

static void check_pre(uint32_t n, uint32_t n_rows, uint32_t iterations, uint32_t skew) {
    struct ops *ops = test_open(2, false);
    struct random r = { n };
    struct weights w = test_weights(ops, &r, n, (2 + n) * n, 3, skew);
    struct mem h = test_floats(ops, &r, (size_t)n_rows * n * D);
    struct mem x = test_alloc(ops, n_rows * D * 4), post = test_alloc(ops, n_rows * n * 4);
    struct mem comb = test_alloc(ops, n_rows * n * n * 4);
    struct hc_pre a = { h,      w.fn, w.base, w.scale,    x,        post,  comb,
                        n_rows, n,    D,      iterations, NORM_EPS, HC_EPS };
    hc_pre(ops, &a);
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *u = floats_at(h) + row * n * D;
        double want_pre[8], want_post[8], want_comb[64], want_x[D];
        reference_pre(&w, u, n, iterations, want_pre, want_post, want_comb);
        for (uint32_t c = 0; c < D; c++) {
            want_x[c] = 0;
            for (uint32_t j = 0; j < n; j++)
                want_x[c] += want_pre[j] * (double)u[j * D + c];
        }
        assert_near(floats_at(post) + row * n, want_post, n, 2e-5);
        assert_near(floats_at(comb) + row * n * n, want_comb, n * n, 2e-5);
        for (uint32_t c = 0; c < D; c++) { // terms may cancel
            double size = 0;
            for (uint32_t j = 0; j < n; j++)
                size += fabs(want_pre[j] * (double)u[j * D + c]);
            assert_true(fabs((double)floats_at(x)[row * D + c] - want_x[c]) < 2e-5 * size);
        }
    }
    ops_close(ops);
}

static void pre_follows_the_description(void **state) {
    (void)state;
    check_pre(4, 5, 20, 0);
    check_pre(4, 67, 3, 2);
    check_pre(2, 3, 20, 0);
    check_pre(1, 3, 20, 0);
    check_pre(8, 3, 1, 0);
}

/* Rows and columns of comb sum to 1 after twenty rounds; the columns were the last to be divided. */
static void sinkhorn_balances_rows_and_columns(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    struct random r = { 9 };
    struct weights w = test_weights(ops, &r, N, (2 + N) * N, 3, 0);
    struct mem h = test_floats(ops, &r, N * D), x = test_alloc(ops, D * 4);
    struct mem post = test_alloc(ops, N * 4), comb = test_alloc(ops, N * N * 4);
    struct hc_pre a = { h, w.fn, w.base, w.scale, x, post, comb, 1, N, D, 20, NORM_EPS, 1e-6f };
    hc_pre(ops, &a);
    for (int i = 0; i < N; i++) {
        float row = 0, column = 0;
        for (int j = 0; j < N; j++)
            row += floats_at(comb)[i * N + j], column += floats_at(comb)[j * N + i];
        assert_true(fabsf(column - 1) < 5e-6f && fabsf(row - 1) < 1e-2f);
    }
    ops_close(ops);
}

/* Down to the last bit, one operation at a time. */
static void pre_has_the_canonical_order(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 10 };
    struct weights w = test_weights(ops, &r, N, (2 + N) * N, 3, 0);
    struct mem h = test_floats(ops, &r, N * D), x = test_alloc(ops, D * 4);
    struct mem post = test_alloc(ops, N * 4), comb = test_alloc(ops, N * N * 4);
    struct hc_pre a = { h, w.fn, w.base, w.scale, x, post, comb, 1, N, D, 1, NORM_EPS, HC_EPS };
    hc_pre(ops, &a);
    const float *u = floats_at(h), *scale = floats_at(w.scale), *base = floats_at(w.base);
    float rho = 1.0f / sqrtf(reference_t16(u, u, N * D) / (float)(N * D) + NORM_EPS), t[24], pre[N];
    for (int i = 0; i < 24; i++) {
        float z = reference_t16(floats_at(w.fn) + i * N * D, u, N * D) * rho;
        t[i] = fmaf(z, scale[i < N ? 0 : i < 2 * N ? 1 : 2], base[i]);
    }
    for (int j = 0; j < N; j++) {
        pre[j] = 1.0f / (1.0f + arith_exp(-t[j])) + HC_EPS;
        float want = 2.0f * (1.0f / (1.0f + arith_exp(-t[N + j])));
        assert_same_bits(floats_at(post) + j, &want, 1, "post");
    }
    float c[N][N];
    for (int i = 0; i < N; i++) {
        float *row = t + 2 * N + i * N, most = fmaxf(fmaxf(row[0], row[1]), fmaxf(row[2], row[3]));
        for (int j = 0; j < N; j++)
            c[i][j] = arith_exp(row[j] - most);
        float sum = ((c[i][0] + c[i][1]) + c[i][2]) + c[i][3];
        for (int j = 0; j < N; j++)
            c[i][j] = c[i][j] / sum + HC_EPS;
    }
    for (int j = 0; j < N; j++) {
        float sum = (((c[0][j] + c[1][j]) + c[2][j]) + c[3][j]) + HC_EPS;
        for (int i = 0; i < N; i++)
            c[i][j] /= sum;
    }
    assert_same_bits(floats_at(comb), &c[0][0], N * N, "comb");
    for (int i = 0; i < D; i++) {
        float want = pre[0] * u[i];
        for (int j = 1; j < N; j++)
            want = fmaf(pre[j], u[j * D + i], want);
        assert_same_bits(floats_at(x) + i, &want, 1, "x");
    }
    ops_close(ops);
}

/* comb's first index is the stream that is read; post·x first, then i ascending; all in place. */
static void post_mixes_streams_in_order(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= 8; n *= 2) {
        const uint32_t n_rows = 5;
        struct ops *ops = test_open(2, false);
        struct random r = { 11 };
        struct mem h = test_floats(ops, &r, n_rows * n * D), x = test_floats(ops, &r, n_rows * D);
        struct mem post = test_floats(ops, &r, n_rows * n),
                   comb = test_floats(ops, &r, n_rows * n * n);
        float *before = malloc(n_rows * n * D * 4);
        memcpy(before, floats_at(h), n_rows * n * D * 4);
        struct hc_post a = { h, x, post, comb, n_rows, n, D };
        hc_post(ops, &a);
        for (uint32_t row = 0; row < n_rows; row++)
            for (uint32_t j = 0; j < n; j++)
                for (uint32_t c = 0; c < D; c++) {
                    float want = floats_at(post)[row * n + j] * floats_at(x)[row * D + c];
                    for (uint32_t i = 0; i < n; i++)
                        want = fmaf(floats_at(comb)[(row * n + i) * n + j],
                                    before[(row * n + i) * D + c], want);
                    assert_same_bits(floats_at(h) + (row * n + j) * D + c, &want, 1, "post");
                }
        free(before);
        ops_close(ops);
    }
}

static void head_mixes_without_normalizing(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 12 };
    struct weights w = test_weights(ops, &r, N, N, 1, 3);
    const uint32_t n_rows = 66;
    struct mem h = test_floats(ops, &r, n_rows * N * D), x = test_alloc(ops, n_rows * D * 4);
    struct hc_head a = { h, w.fn, w.base, w.scale, x, n_rows, N, D, NORM_EPS, HC_EPS };
    hc_head(ops, &a);
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *u = floats_at(h) + row * N * D;
        double z[N];
        reference_z(z, N, &w, u, N * D);
        for (uint32_t c = 0; c < D; c++) {
            double want = 0, size = 0;
            for (uint32_t j = 0; j < N; j++) {
                double pre = sigma(z[j] * f32_at(w.scale, 0) + f32_at(w.base, j)) + (double)HC_EPS;
                want += pre * (double)u[j * D + c], size += fabs(pre * (double)u[j * D + c]);
            }
            assert_true(fabs((double)floats_at(x)[row * D + c] - want) < 2e-5 * size);
        }
    }
    ops_close(ops);
}

static void threads_and_row_splits_cannot_be_seen(void **state) {
    (void)state;
    enum { ROWS = 70 };
    float *want[4] = { 0 };
    static const size_t sizes[4] = { ROWS * D, ROWS * N, ROWS * N * N, ROWS * N * D };
    for (int k = 0; k < 3; k++) {
        static const uint32_t threads[] = { 1, 2, 5 }, step[] = { ROWS, 1, 33 };
        struct ops *ops = test_open(threads[k], false);
        struct random r = { 13 };
        struct weights w = test_weights(ops, &r, N, (2 + N) * N, 3, (uint32_t)k);
        struct mem h = test_floats(ops, &r, ROWS * N * D), x = test_alloc(ops, ROWS * D * 4);
        struct mem post = test_alloc(ops, ROWS * N * 4), comb = test_alloc(ops, ROWS * N * N * 4);
        for (uint32_t i = 0; i < ROWS; i += step[k]) {
            uint32_t n = ROWS - i < step[k] ? ROWS - i : step[k];
            struct hc_pre pre = { mem_at(h, i * N * D * 4),
                                  w.fn,
                                  w.base,
                                  w.scale,
                                  mem_at(x, i * D * 4),
                                  mem_at(post, i * N * 4),
                                  mem_at(comb, i * N * N * 4),
                                  n,
                                  N,
                                  D,
                                  20,
                                  NORM_EPS,
                                  HC_EPS };
            hc_pre(ops, &pre);
            struct hc_post back = { pre.h, pre.x, pre.post, pre.comb, n, N, D };
            hc_post(ops, &back);
        }
        const struct mem out[4] = { x, post, comb, h };
        for (int i = 0; i < 4; i++) {
            if (k == 0) {
                want[i] = malloc(sizes[i] * 4);
                memcpy(want[i], floats_at(out[i]), sizes[i] * 4);
            } else {
                assert_same_bits(floats_at(out[i]), want[i], sizes[i], "split");
            }
        }
        ops_close(ops);
    }
    for (int i = 0; i < 4; i++)
        free(want[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pre_follows_the_description),
        cmocka_unit_test(sinkhorn_balances_rows_and_columns),
        cmocka_unit_test(pre_has_the_canonical_order),
        cmocka_unit_test(post_mixes_streams_in_order),
        cmocka_unit_test(head_mixes_without_normalizing),
        cmocka_unit_test(threads_and_row_splits_cannot_be_seen),
    };
    return each_form_run(tests);
}
