/* Matrices of every type, against the canonical order element by element (bit for bit) and against
 * double; and that nothing of how the work is split can be seen. */
#include "tests/kernels/reference.h"

#define MAX_ROWS 130

static const char *const type_name[] = { "F32", "BF16", "FP8", "FP8_F32", "FP4" };

static struct matmul call_of(struct matrix w, struct mem x, struct mem y, uint32_t n_rows,
                             uint32_t n_groups, bool quantize) {
    struct matmul a = { w, x, y, n_rows, n_groups, quantize };
    return a;
}

/* All of y against the reference; rounding is what ops.h says: FP8 forms, never in exact mode. */
static void check(struct ops *ops, const struct matmul *a) {
    const uint32_t rows = a->w.rows, width = a->w.cols * a->n_groups;
    const bool rounded = a->quantize && !ops->exact && a->w.type >= MATRIX_FP8;
    float *got = malloc((size_t)a->n_rows * rows * sizeof *got);
    matmul(ops, a);
    test_download(ops, got, a->y, (size_t)a->n_rows * rows * sizeof *got);
    for (uint32_t i = 0; i < a->n_rows; i++)
        for (uint32_t row = 0; row < rows; row++) {
            const float *x =
                floats_at(a->x) + (size_t)i * width + row / (rows / a->n_groups) * a->w.cols;
            float want = reference_product(&a->w, row, x, rounded), y = got[(size_t)i * rows + row];
            if (bits_of(y) != bits_of(want))
                fail_msg("%s %ux%u, %u rows, row %u of x, %u of w: %a, should be %a",
                         type_name[a->w.type], rows, a->w.cols, a->n_rows, i, row, (double)y,
                         (double)want);
        }
    free(got);
}

/* Shapes: whole blocks, blocks cut short in both directions, columns that end inside a lane round,
 * fewer rows than a panel, and more columns than are widened at once. */
static const struct shape {
    uint32_t rows, cols, n_rows;
} shapes[] = { { 16, 128, 1 },  { 130, 256, 3 }, { 5, 192, 5 },      { 37, 640, 4 },
               { 20, 1184, 2 }, { 9, 96, 66 },   { 1, 32, MAX_ROWS } };

static void every_type_sums_in_the_canonical_order(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        struct ops *ops = test_open(2, exact);
        struct random r = { 1 };
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int type = MATRIX_F32; type <= MATRIX_FP4; type++)
                for (int quantize = 0; quantize < 2; quantize++) {
                    const struct shape *s = &shapes[i];
                    struct matrix w = test_matrix(ops, &r, (enum matrix_type)type, s->rows, s->cols,
                                                  (uint32_t)(i % 2 * 3));
                    struct mem x = test_floats(ops, &r, (size_t)s->n_rows * s->cols);
                    struct mem y = test_alloc(ops, (size_t)s->n_rows * s->rows * 4);
                    struct matmul a = call_of(w, x, y, s->n_rows, 1, quantize);
                    check(ops, &a);
                }
        ops_close(ops);
    }
}

/* Columns that are no multiple of 16 (no checkpoint has them; nothing should depend on it). */
static void columns_may_end_anywhere(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 2 };
    for (uint32_t cols = 1; cols < 300; cols += cols < 20 ? 1 : 37)
        for (int type = MATRIX_F32; type <= MATRIX_FP8_F32; type++) {
            struct matrix w = test_matrix(ops, &r, (enum matrix_type)type, 6, cols, 1);
            struct mem x = test_floats(ops, &r, 5 * (size_t)cols), y = test_alloc(ops, 5 * 6 * 4);
            struct matmul a = call_of(w, x, y, 5, 1, true);
            check(ops, &a);
        }
    ops_close(ops);
}

/* wo_a: every group of rows reads its own columns; -Base's, and rounded ones, too. */
static void groups_of_rows_read_their_own_columns(void **state) {
    (void)state;
    struct ops *ops = test_open(3, false);
    struct random r = { 3 };
    for (int type = MATRIX_F32; type <= MATRIX_FP4; type++)
        for (int quantize = 0; quantize < 2; quantize++) {
            const uint32_t groups = 4, rows = 4 * 19, cols = 160;
            struct matrix w = test_matrix(ops, &r, (enum matrix_type)type, rows, cols, 5);
            struct mem x = test_floats(ops, &r, 7 * groups * cols);
            struct mem y = test_alloc(ops, 7 * rows * 4);
            struct matmul a = call_of(w, x, y, 7, groups, quantize);
            check(ops, &a);
        }
    ops_close(ops);
}

/* The order is a choice, the value is not: against double, relative to the sum of magnitudes. */
static void results_are_those_of_double(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 4 };
    for (int type = MATRIX_F32; type <= MATRIX_FP4; type++)
        for (int quantize = 0; quantize < 2; quantize++) {
            const uint32_t rows = 24, cols = 1024, n = 3;
            struct matrix w = test_matrix(ops, &r, (enum matrix_type)type, rows, cols, 0);
            struct mem x = test_floats(ops, &r, n * cols), y = test_alloc(ops, n * rows * 4);
            struct matmul a = call_of(w, x, y, n, 1, quantize);
            matmul(ops, &a);
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t row = 0; row < rows; row++) {
                    const float *xi = floats_at(x) + i * cols;
                    double magnitude = 0, s_w;
                    for (uint32_t c = 0; c < cols; c++) {
                        double code = reference_weight(&w, row, c, &s_w);
                        magnitude += fabs((double)xi[c] * code * s_w);
                    }
                    double want =
                        reference_product_double(&w, row, xi, quantize && type >= MATRIX_FP8);
                    assert_true(fabs((double)floats_at(y)[i * rows + row] - want) <
                                1e-5 * magnitude);
                }
        }
    ops_close(ops);
}

/* 130 rows at once, on one thread or seven, or in pieces: the same bits. */
static void threads_and_row_splits_cannot_be_seen(void **state) {
    (void)state;
    const uint32_t rows = 150, cols = 384, n = MAX_ROWS;
    for (int type = MATRIX_F32; type <= MATRIX_FP4; type++) {
        float *want = malloc((size_t)n * rows * 4);
        static const uint32_t threads[] = { 1, 2, 3, 7 }, step[] = { n, 1, 17, 64 };
        for (int k = 0; k < 4; k++) {
            struct ops *ops = test_open(threads[k], false);
            struct random r = { 5 };
            struct matrix w = test_matrix(ops, &r, (enum matrix_type)type, rows, cols, 1);
            struct mem x = test_floats(ops, &r, (size_t)n * cols);
            struct mem y = test_alloc(ops, (size_t)n * rows * 4);
            for (uint32_t i = 0; i < n; i += step[k]) {
                struct matmul a =
                    call_of(w, mem_at(x, (uint64_t)i * cols * 4), mem_at(y, (uint64_t)i * rows * 4),
                            n - i < step[k] ? n - i : step[k], 1, true);
                matmul(ops, &a);
            }
            if (k == 0)
                test_download(ops, want, y, (size_t)n * rows * 4);
            else
                assert_same_bits(floats_at(y), want, (size_t)n * rows, type_name[type]);
            ops_close(ops);
        }
        free(want);
    }
}

/* A tile shrinks when its rows are wide; Pro's widest x is 65536, this one leaves room for 30. */
static void wide_rows_make_small_tiles(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 6 };
    const uint32_t cols = 128 * 1024, rows = 3, n = 37;
    struct matrix w = test_matrix(ops, &r, MATRIX_FP8, rows, cols, 0);
    struct mem x = test_floats(ops, &r, (size_t)n * cols), y = test_alloc(ops, n * rows * 4);
    struct matmul a = call_of(w, x, y, n, 1, true);
    matmul(ops, &a);
    for (uint32_t i = 0; i < n; i += 9) {
        float want = reference_product(&w, i % rows, floats_at(x) + (size_t)i * cols, true);
        assert_same_bits(floats_at(y) + (size_t)i * rows + i % rows, &want, 1, "wide");
    }
    ops_close(ops);
}

/* Bytes that no checkpoint should hold: NaN codes read as ±480, a NaN scale shows as no number. */
static void damaged_bytes_have_one_meaning(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    uint8_t code[128], scale = 127;
    float x[128], y;
    for (int i = 0; i < 128; i++)
        code[i] = 0x7F, x[i] = 1;
    struct matrix w = { MATRIX_FP8, 1, 128, test_upload(ops, code, 128),
                        test_upload(ops, &scale, 1) };
    struct matmul a = call_of(w, test_upload(ops, x, sizeof x), test_alloc(ops, 4), 1, 1, true);
    matmul(ops, &a);
    test_download(ops, &y, a.y, 4);
    assert_true(y == 480 * 128);
    scale = 255;
    ops_upload(ops, w.scale, &scale, 1);
    matmul(ops, &a);
    test_download(ops, &y, a.y, 4);
    assert_false(isfinite(y));
    ops_close(ops);
}

/* Largest codes and scales everywhere: the integer sums hold, and so does the last scale. */
static void extreme_fp4_sums_are_exact(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    uint8_t code[16], scale = 10;
    float x[32], y;
    memset(code, 0x77, sizeof code); // 6 and 6
    for (int i = 0; i < 32; i++)
        x[i] = 448 * 0x1p100f;
    struct matrix w = { MATRIX_FP4, 1, 32, test_upload(ops, code, 16),
                        test_upload(ops, &scale, 1) };
    struct matmul a = call_of(w, test_upload(ops, x, sizeof x), test_alloc(ops, 4), 1, 1, true);
    matmul(ops, &a);
    test_download(ops, &y, a.y, 4);
    assert_true(y == 32 * 6 * 448 * 0x1p-17f);
    ops_close(ops);
}

static void no_rows_is_nothing_to_do(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 7 };
    struct matrix w = test_matrix(ops, &r, MATRIX_FP8, 8, 128, 0);
    struct matmul a = call_of(w, test_alloc(ops, 0), test_alloc(ops, 0), 0, 1, true);
    matmul(ops, &a);
    ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_sums_in_the_canonical_order),
        cmocka_unit_test(columns_may_end_anywhere),
        cmocka_unit_test(groups_of_rows_read_their_own_columns),
        cmocka_unit_test(results_are_those_of_double),
        cmocka_unit_test(threads_and_row_splits_cannot_be_seen),
        cmocka_unit_test(wide_rows_make_small_tiles),
        cmocka_unit_test(damaged_bytes_have_one_meaning),
        cmocka_unit_test(extreme_fp4_sums_are_exact),
        cmocka_unit_test(no_rows_is_nothing_to_do),
    };
    return each_form_run(tests);
}
