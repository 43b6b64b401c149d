/* Every form against the scalar one, bit for bit, on fresh random inputs: shapes of Pro and Flash, odd ones,
 * tails, any alignment, every byte that a file may hold. The seed is printed; SLUICE_SEED repeats a run. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/kv.h"
#include "tests/kernels/reference.h"

#include <time.h>

static uint64_t seed;

static const struct cpu_forms *forms[CPU_MAX_FORMS];
static uint32_t n_forms;

/* Equal bits, or neither is a number: what kind of NaN is not promised. */
static void assert_same(const float *got, const float *want, size_t n, const char *form,
                        const char *what) {
    for (size_t i = 0; i < n; i++)
        if (bits_of(got[i]) != bits_of(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s: %s, seed %llu: element %zu is %a, should be %a", form, what,
                     (unsigned long long)seed, i, (double)got[i], (double)want[i]);
}

/* Numbers of any kind, if wild: also tiny, huge, infinite and none. */
static float any_float(struct random *r, bool wild) {
    if (wild && random_below(r, 8) == 0)
        return float_of(random_bits(r));
    return random_float(r);
}
static float *any_floats(struct random *r, size_t n, bool wild) {
    float *p = malloc(n * sizeof *p + 64);
    for (size_t i = 0; i < n; i++)
        p[i] = any_float(r, wild);
    return p;
}
static uint8_t *any_bytes(struct random *r, size_t n) {
    uint8_t *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)random_bits(r);
    return p;
}

/* --- matrices ----------------------------------------------------------------------------------- */

/* As test_matrix; wild: scales of any value too. */
static struct matrix any_matrix(struct ops *ops, struct random *r, enum matrix_type type,
                                uint32_t rows, uint32_t cols, bool wild) {
    struct matrix m = test_matrix(ops, r, type, rows, cols, random_below(r, 64));
    const size_t blocks = (size_t)((rows + 127) / 128) * ((cols + 127) / 128);
    const size_t scales = type == MATRIX_FP4 ? (size_t)rows * cols / 32 : blocks;
    uint8_t *scale = cpu_ptr(m.scale);
    for (size_t i = 0; wild && i < scales; i++)
        if (type == MATRIX_FP4 || type == MATRIX_FP8)
            scale[i] = (uint8_t)random_bits(r);
        else if (type == MATRIX_FP8_F32)
            memcpy(scale + 4 * i, &(float){ any_float(r, true) }, 4);
    return m;
}

/* A backend for each form; all of them compute the same call, whose result lies in y. */
static void each_form_multiplies(const struct matmul *a, struct ops *ops, const char *what) {
    const size_t n = (size_t)a->n_rows * a->w.rows;
    float *want = malloc(n * sizeof *want);
    for (uint32_t i = 0; i < n_forms; i++) {
        memset(cpu_ptr(a->y), 0xFF, n * sizeof *want);
        cpu_of(ops)->forms = forms[i];
        matmul(ops, a);
        if (i == 0)
            memcpy(want, cpu_ptr(a->y), n * sizeof *want);
        else
            assert_same(floats_at(a->y), want, n, forms[i]->name, what);
    }
    free(want);
}

static void multiply(struct random *r, enum matrix_type type, uint32_t rows, uint32_t cols,
                     uint32_t n_rows, uint32_t n_groups, bool exact, bool wild) {
    static const char *const name[] = { "F32", "BF16", "FP8", "FP8_F32", "FP4" };
    char what[100];
    snprintf(what, sizeof what, "%s [%u, %u] in %u groups, %u rows%s%s", name[type], rows, cols,
             n_groups, n_rows, exact ? ", exact" : "", wild ? ", wild" : "");
    struct ops *ops = test_open(2, exact);
    const size_t width = (size_t)cols * n_groups;
    float *x = any_floats(r, n_rows * width, wild);
    struct matmul a = { any_matrix(ops, r, type, rows, cols, wild),
                        test_upload(ops, x, n_rows * width * sizeof *x),
                        test_alloc(ops, (size_t)n_rows * rows * sizeof *x),
                        n_rows,
                        n_groups,
                        true };
    each_form_multiplies(&a, ops, what);
    free(x);
    ops_close(ops);
}

/* The widths of x in Pro and Flash; a few rows of w are as good as all. */
static void matrices_of_real_widths(void **state) {
    (void)state;
    static const uint32_t cols[] = { 7168, 4096, 3072, 2048, 1536, 1024, 16384, 28672 };
    struct random r = { seed };
    for (int type = MATRIX_F32; type <= MATRIX_FP4; type++)
        for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
            multiply(&r, (enum matrix_type)type, 1 + random_below(&r, 40), cols[i],
                     1 + random_below(&r, 7), 1, false, false);
}

static void any_number_of_rows(void **state) {
    (void)state;
    struct random r = { seed + 1 };
    for (int type = MATRIX_F32; type <= MATRIX_FP4; type++)
        for (uint32_t n = 1; n <= 97; n += n < 14 ? 1 : 1 + random_below(&r, 20))
            multiply(&r, (enum matrix_type)type, 1 + random_below(&r, 70),
                     32 * (1 + random_below(&r, 40)), n, 1, false, n % 3 == 0);
}

static void odd_shapes_and_groups(void **state) {
    (void)state;
    struct random r = { seed + 2 };
    for (int k = 0; k < 40; k++)
        for (int type = MATRIX_F32; type <= MATRIX_FP4; type++) {
            const uint32_t groups = 1 + random_below(&r, 3);
            const uint32_t cols =
                type == MATRIX_FP4 ? 32 * (1 + random_below(&r, 30)) : 1 + random_below(&r, 900);
            multiply(&r, (enum matrix_type)type, groups * (1 + random_below(&r, 150)), cols,
                     1 + random_below(&r, 12), groups, k % 4 == 0, k % 2);
        }
}

static void experts(void **state) {
    (void)state;
    struct random r = { seed + 3 };
    for (int k = 0; k < 8; k++)
        for (int type = MATRIX_FP8; type <= MATRIX_FP4; type++) {
            const uint32_t d = 128 * (1 + random_below(&r, 5)), f = 128 * (1 + random_below(&r, 3));
            const uint32_t n = 1 + random_below(&r, k < 4 ? 4 : 100);
            struct ops *ops = test_open(2, false);
            struct expert_ffn a = {
                .w1 = any_matrix(ops, &r, (enum matrix_type)type, f, d, k % 2),
                .w3 = any_matrix(ops, &r, (enum matrix_type)type, f, d, k % 2),
                .w2 = any_matrix(ops, &r, (enum matrix_type)type, d, f, k % 2),
                .x = test_floats(ops, &r, (size_t)n * d),
                .y = test_alloc(ops, (size_t)n * d * 4),
                .n = n,
                .limit = 10,
            };
            float *want = malloc((size_t)n * d * 4);
            for (uint32_t i = 0; i < n_forms; i++) {
                cpu_of(ops)->forms = forms[i];
                expert_ffn(ops, &a);
                if (i == 0)
                    memcpy(want, floats_at(a.y), (size_t)n * d * 4);
                else
                    assert_same(floats_at(a.y), want, (size_t)n * d, forms[i]->name, "expert");
            }
            free(want);
            ops_close(ops);
        }
}

/* --- x ------------------------------------------------------------------------------------------ */

static void rounding(void **state) {
    (void)state;
    struct random r = { seed + 4 };
    for (int k = 0; k < 300; k++) {
        const uint32_t n = 1 + random_below(&r, 600);
        float *x = any_floats(&r, n, true), want[600], got[600];
        for (uint32_t i = 0; i < n; i++)
            if (k % 3 == 0) // close to what is between two codes, and to the smallest
                x[i] =
                    ldexpf((float)(8 + random_below(&r, 300)) / 16, (int)random_below(&r, 24) - 20);
        forms[0]->round(want, x, n);
        for (uint32_t i = 1; i < n_forms; i++) {
            forms[i]->round(got, x, n);
            assert_same(got, want, n, forms[i]->name, "round");
        }
        free(x);
    }
}

/* Every code with every scale; n that is no whole register. */
static void every_code_and_scale(void **state) {
    (void)state;
    uint8_t code[256 + 7];
    float want[256], got[256];
    for (int i = 0; i < 256; i++)
        code[7 + i] = (uint8_t)i;
    for (int s = 0; s < 256; s++)
        for (uint32_t i = 1; i < n_forms; i++) {
            const float value = e8m0_value((uint8_t)s), scale[] = { value, value };
            for (int type = MATRIX_BF16; type <= MATRIX_FP8_F32; type++) {
                const uint32_t n = type == MATRIX_BF16 ? 120 : 249;
                forms[0]->widen(want, (enum matrix_type)type, code + 7, scale, n);
                forms[i]->widen(got, (enum matrix_type)type, code + 7, scale, n);
                assert_same(got, want, n, forms[i]->name, "widen");
            }
        }
}

/* --- rows, entries, attention -------------------------------------------------------------------- */

static void rows(void **state) {
    (void)state;
    struct random r = { seed + 5 };
    static const uint32_t dims[] = { 7168, 4096, 1536, 512, 64, 30, 1001 };
    for (int k = 0; k < 7; k++) {
        const uint32_t d = dims[k];
        float *x = any_floats(&r, 4 * (size_t)d, false), *got = malloc(d * 4),
              *want = malloc(d * 4);
        uint8_t *weight = any_bytes(&r, 2 * (size_t)d);
        const float pre[4] = { 0.5f, -1.25f, 2, 0.1f };
        for (uint32_t i = 1; i < n_forms; i++) {
            const struct cpu_forms *f = forms[i], *s = forms[0];
            s->norm(want, x, weight, d, 1e-6f);
            f->norm(got, x, weight, d, 1e-6f);
            assert_same(got, want, d, f->name, "norm");
            *want = s->sum_squares(x, d);
            *got = f->sum_squares(x, d);
            assert_same(got, want, 1, f->name, "sum of squares");
            s->mix(want, x, pre, 4, d);
            f->mix(got, x, pre, 4, d);
            assert_same(got, want, d, f->name, "mix");
            s->swiglu(want, x, x + d, d, 10, 0.3f);
            f->swiglu(got, x, x + d, d, 10, 0.3f);
            assert_same(got, want, d, f->name, "swiglu");
            s->bf16(want, weight, d);
            f->bf16(got, weight, d);
            assert_same(got, want, d, f->name, "bf16");
            s->divide(want, x, 3.7f, d);
            f->divide(got, x, 3.7f, d);
            assert_same(got, want, d, f->name, "divide");
        }
        free(x), free(got), free(want), free(weight);
    }
}

static void entries(void **state) {
    (void)state;
    struct random r = { seed + 6 };
    static const uint32_t c[] = { 512, 128, 66 + 64 }, rot[] = { 64, 64, 66 };
    for (int k = 0; k < 60; k++) {
        const uint32_t dim = c[k % 3], bytes = kv_entry_bytes(false, dim, rot[k % 3]);
        unsigned char want[700], got[700];
        uint8_t *damaged = any_bytes(&r, bytes + 1);
        float *x = any_floats(&r, dim, k % 2), a[512], b[512];
        forms[0]->entry_pack(x, dim, rot[k % 3], want);
        for (uint32_t i = 1; i < n_forms; i++) {
            forms[i]->entry_pack(x, dim, rot[k % 3], got);
            assert_memory_equal(got, want, bytes);
            const unsigned char *entry = k % 4 ? want : damaged + 1;
            forms[0]->entry_unpack(entry, dim, rot[k % 3], a);
            forms[i]->entry_unpack(entry, dim, rot[k % 3], b);
            assert_same(b, a, dim, forms[i]->name, "unpack");
        }
        free(x), free(damaged);
    }
}

static void attention_of_real_and_odd_shapes(void **state) {
    (void)state;
    struct random r = { seed + 7 };
    static const uint32_t dims[] = { 512, 128, 130, 66 };
    for (int k = 0; k < 24; k++) {
        const uint32_t c = dims[k % 4], heads = 1 + random_below(&r, 64),
                       n = 1 + random_below(&r, 32);
        const size_t stride = (heads + 15) / 16 * 16;
        float *q = any_floats(&r, (size_t)heads * c, false),
              *keys = any_floats(&r, (size_t)n * c, false);
        float *score[2], *o[2], most[2][64], sums[2][64];
        for (int i = 0; i < 2; i++) {
            score[i] = calloc(n * stride, 4);
            o[i] = malloc((size_t)heads * c * 4);
        }
        for (uint32_t i = 0; i < n_forms; i++) {
            const int at = i > 0;
            for (uint32_t h = 0; h < 64; h++)
                most[at][h] = -INFINITY, sums[at][h] = -0.0f;
            for (size_t d = 0; d < (size_t)heads * c; d++)
                o[at][d] = -0.0f;
            forms[i]->scores(score[at], stride, q, heads, keys, n, c, 0.01f);
            forms[i]->most(most[at], score[at], stride, n, heads);
            forms[i]->weights(score[at], stride, n, heads, most[at], sums[at]);
            forms[i]->values(o[at], score[at], stride, heads, keys, n, c);
            if (i == 0)
                continue;
            for (uint32_t j = 0; j < n; j++)
                assert_same(score[1] + j * stride, score[0] + j * stride, heads, forms[i]->name,
                            "scores");
            assert_same(sums[1], sums[0], heads, forms[i]->name, "denominators");
            assert_same(o[1], o[0], (size_t)heads * c, forms[i]->name, "values");
        }
        for (int i = 0; i < 2; i++)
            free(score[i]), free(o[i]);
        free(q), free(keys);
    }
}

static void index_scores_of_any_keys(void **state) {
    (void)state;
    struct random r = { seed + 8 };
    for (int k = 0; k < 16; k++) {
        const uint32_t heads = k < 8 ? 64 : 1 + random_below(&r, 130),
                       groups = k < 8 ? 4 : 1 + (uint32_t)k % 4;
        const uint32_t bytes = groups * 17;
        float *q = any_floats(&r, (size_t)heads * groups * 32, k % 2);
        float *weight = any_floats(&r, heads, false), want[KEY_LANES], got[KEY_LANES];
        uint8_t *keys = any_bytes(&r, KEY_LANES * (size_t)bytes);
        const unsigned char *key[KEY_LANES];
        for (uint32_t j = 0; j < KEY_LANES; j++)
            key[j] = keys + (size_t)(KEY_LANES - 1 - j) * bytes;
        struct index_query query = { heads,
                                     groups,
                                     weight,
                                     malloc(heads * groups * 4),
                                     malloc(heads * groups * 32),
                                     malloc(heads * groups * 4) };
        for (uint32_t i = 0; i < n_forms; i++) {
            forms[i]->query(&query, q);
            forms[i]->index_scores(i ? got : want, &query, key);
            if (i)
                assert_same(got, want, KEY_LANES, forms[i]->name, "index scores");
        }
        free(query.scale), free(query.code), free(query.minus);
        free(q), free(weight), free(keys);
    }
}

static void compressor_items(void **state) {
    (void)state;
    struct random r = { seed + 9 };
    for (int k = 0; k < 10; k++) {
        const uint32_t n = 1 + random_below(&r, 100);
        float *kv = any_floats(&r, n, k % 2), *gate = any_floats(&r, n, false);
        uint8_t *ape = (uint8_t *)any_floats(&r, n + 1, false);
        float set[2][3][100];
        for (uint32_t i = 0; i < n_forms; i++) {
            float(*s)[100] = set[i > 0];
            for (uint32_t c = 0; c < n; c++)
                s[0][c] = -INFINITY, s[1][c] = s[2][c] = 0;
            for (int item = 0; item < 3; item++)
                forms[i]->feed(s[0], s[1], s[2], kv, gate, ape + item, n);
            for (int v = 0; v < 3 && i > 0; v++)
                assert_same(s[v], set[0][v], n, forms[i]->name, "compressor");
        }
        free(kv), free(gate), free(ape);
    }
}

/* --- choosing ------------------------------------------------------------------------------------ */

static void what_the_machine_lacks_is_refused(void **state) {
    (void)state;
    for (int isa = CPU_AUTO; isa <= CPU_AVX512; isa++) {
        const struct cpu_options options = { .n_threads = 1, .isa = (enum cpu_isa)isa };
        struct ops *ops = NULL;
        struct err err = { 0 };
        enum status status = cpu_open(&ops, &options, &err);
        const uint32_t least = isa == CPU_AVX512 ? 3 : isa == CPU_AVX2 ? 2 : 1;
        assert_int_equal(status, n_forms >= least ? OK : ERR_USAGE);
        if (status == OK && isa == CPU_SCALAR)
            assert_string_equal(cpu_form_name(ops), "scalar");
        if (status == OK && isa == CPU_AVX2)
            assert_string_equal(cpu_form_name(ops), "avx2");
        if (status == OK && isa == CPU_AUTO)
            assert_string_equal(cpu_form_name(ops), forms[n_forms - 1]->name);
        if (status != OK)
            assert_true(ops == NULL && strstr(err.text, "--cpu"));
        ops_close(ops);
    }
}

int main(void) {
    const char *given = getenv("SLUICE_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    n_forms = cpu_forms_here(forms);
    print_message("SLUICE_SEED=%llu; forms:", (unsigned long long)seed);
    for (uint32_t i = 0; i < n_forms; i++)
        print_message(" %s;", forms[i]->name);
    print_message("\n");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_of_real_widths),
        cmocka_unit_test(any_number_of_rows),
        cmocka_unit_test(odd_shapes_and_groups),
        cmocka_unit_test(experts),
        cmocka_unit_test(rounding),
        cmocka_unit_test(every_code_and_scale),
        cmocka_unit_test(rows),
        cmocka_unit_test(entries),
        cmocka_unit_test(attention_of_real_and_odd_shapes),
        cmocka_unit_test(index_scores_of_any_keys),
        cmocka_unit_test(compressor_items),
        cmocka_unit_test(what_the_machine_lacks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
