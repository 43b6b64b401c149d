/* Ops that move rows or add them: embed, gather_rows, add_to_streams, moe_sum. */
#include "tests/kernels/reference.h"

#define D 320

static void embedding_fills_every_stream(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 1 };
    const int32_t id[] = { 6, 0, 6, 3 };
    struct matrix table = test_matrix(ops, &r, MATRIX_BF16, 7, D, 1); // at an odd address
    struct mem h = test_alloc(ops, 4 * 4 * D * 4);
    struct embed a = { table.weight, test_upload(ops, id, sizeof id), h, 4, 4, D };
    embed(ops, &a);
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t j = 0; j < 4; j++)
            for (uint32_t c = 0; c < D; c++) {
                double s;
                float want = (float)reference_weight(&table, (uint32_t)id[i], c, &s);
                assert_same_bits(floats_at(h) + (i * 4 + j) * D + c, &want, 1, "embed");
            }
    ops_close(ops);
}

static void gather_copies_the_rows_it_is_told(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 2 };
    const int32_t row[] = { 4, 4, 0, 2 };
    struct mem x = test_floats(ops, &r, 5 * D), y = test_alloc(ops, 4 * D * 4);
    struct gather_rows a = { x, test_upload(ops, row, sizeof row), y, 4, D };
    gather_rows(ops, &a);
    for (int i = 0; i < 4; i++)
        assert_same_bits(floats_at(y) + i * D, floats_at(x) + row[i] * D, D, "gather");
    ops_close(ops);
}

static void every_stream_gets_the_same_added(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct random r = { 3 };
    struct mem h = test_floats(ops, &r, 3 * 4 * D), e = test_floats(ops, &r, 3 * D);
    float before[3 * 4 * D];
    test_download(ops, before, h, sizeof before);
    struct add_to_streams a = { h, e, 3, 4, D };
    add_to_streams(ops, &a);
    for (int i = 0; i < 3 * 4 * D; i++) {
        float want = before[i] + floats_at(e)[i / (4 * D) * D + i % D];
        assert_same_bits(floats_at(h) + i, &want, 1, "add");
    }
    ops_close(ops);
}

static void parts_are_summed_in_order_and_shared_comes_last(void **state) {
    (void)state;
    for (uint32_t parts = 1; parts <= 6; parts += 5)
        for (int in_place = 0; in_place < 2; in_place++) {
            struct ops *ops = test_open(2, false);
            struct random r = { 4 };
            struct mem p = test_floats(ops, &r, 5 * parts * D), s = test_floats(ops, &r, 5 * D);
            struct mem y = in_place ? s : test_alloc(ops, 5 * D * 4);
            float shared[5 * D];
            test_download(ops, shared, s, sizeof shared);
            struct moe_sum a = { p, s, y, 5, parts, D };
            moe_sum(ops, &a);
            for (uint32_t i = 0; i < 5 * D; i++) {
                const float *part = floats_at(p) + i / D * parts * D + i % D;
                float want = part[0];
                for (uint32_t k = 1; k < parts; k++)
                    want += part[k * D];
                want += shared[i];
                assert_same_bits(floats_at(y) + i, &want, 1, "sum");
            }
            ops_close(ops);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_fills_every_stream),
        cmocka_unit_test(gather_copies_the_rows_it_is_told),
        cmocka_unit_test(every_stream_gets_the_same_added),
        cmocka_unit_test(parts_are_summed_in_order_and_shared_comes_last),
    };
    return each_form_run(tests);
}
