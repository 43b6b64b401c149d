/* The CPU backend as a device: memory, copies, events, threads, errors. */
#include "kernels/cpu/internal.h"
#include "tests/kernels/reference.h"

static void bytes_cross_and_come_back(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    uint8_t out[300], back[300] = { 0 };
    for (int i = 0; i < 300; i++)
        out[i] = (uint8_t)(i * 7);
    struct mem m = test_upload(ops, out, sizeof out), copy = test_alloc(ops, sizeof out);
    memset(out, 0, sizeof out); // the source may be reused at once
    ops_copy(ops, copy, m, 300);
    test_download(ops, back, copy, sizeof back);
    for (int i = 0; i < 300; i++)
        assert_int_equal(back[i], (uint8_t)(i * 7));
    ops_copy(ops, mem_at(copy, 10), copy, 100); // overlapping
    test_download(ops, back, mem_at(copy, 10), 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(back[i], (uint8_t)(i * 7));
    ops_close(ops);
}

static void memory_is_aligned_and_distinct(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    const uint64_t sizes[] = { 0, 1, 63, 64, 65, 4096, (4u << 20) + 5 };
    struct mem m[7];
    for (int i = 0; i < 7; i++) {
        m[i] = test_alloc(ops, sizes[i]);
        assert_true(m[i].address && m[i].address % 64 == 0);
        for (int k = 0; k < i; k++)
            assert_true(m[k].address + sizes[k] <= m[i].address ||
                        m[i].address + sizes[i] <= m[k].address);
        if (sizes[i])
            memset(cpu_ptr(m[i]), 1, sizes[i]);
    }
    ops_release(ops, m[3]); // from the middle, the newest, the oldest; "none" is fine
    ops_release(ops, m[6]);
    ops_release(ops, m[0]);
    ops_release(ops, mem_none());
    ops_close(ops); // frees the rest (the sanitizer watches)
}

static void what_does_not_fit_is_an_error_and_nothing_else(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    struct err err = { 0 };
    struct mem m = { 1 };
    assert_int_equal(ops_alloc(ops, UINT64_MAX, &m, &err), ERR_MEMORY);
    assert_int_equal(err.status, ERR_MEMORY);
    assert_true(m.address == 0 && strlen(err.text) > 0);
    err_clear(&err);
    assert_int_equal(ops_alloc(ops, UINT64_MAX - 100, &m, &err), ERR_MEMORY);
    m = test_alloc(ops, 100);
    ops_release(ops, m);
    ops_close(ops);
}

static void host_memory_can_be_computed_from(void **state) {
    (void)state;
    struct ops *ops = test_open(1, false);
    struct pinned_options options = { .bytes = 1 << 20, .n_threads = 1 };
    struct pinned slot = { 0 };
    struct err err = { 0 };
    assert_int_equal(ops_host_alloc(ops, &options, &slot, &err), OK);
    memset(slot.base, 0, 4 * 128);
    float one = 1.5f, y[2];
    memcpy(slot.base + 4 * 128, &one, 4); // w = [0 …] and [1.5, 0 …]
    memset(slot.base + 4 * 129, 0, 4 * 127);
    struct random r = { 1 };
    struct matrix w = { MATRIX_F32, 2, 128, ops_host_mem(ops, slot.base), mem_none() };
    struct mem x = test_floats(ops, &r, 128);
    struct matmul a = { w, x, test_alloc(ops, 8), 1, 1, false };
    matmul(ops, &a);
    test_download(ops, y, a.y, 8);
    assert_true(y[0] == 0 && y[1] == 1.5f * floats_at(x)[0]);
    ops_host_release(ops, &slot);
    assert_null(slot.base);
    ops_close(ops);
}

static void ops_are_done_when_they_return(void **state) {
    (void)state;
    struct ops *ops = test_open(2, false);
    struct event e = ops_record(ops);
    assert_true(event_ready(e) && event_wait(e, 0));
    ops_close(ops);
}

static void it_opens_with_any_number_of_threads(void **state) {
    (void)state;
    for (uint32_t n = 0; n < 40; n += 13) {
        struct ops *ops = test_open(n, n % 2);
        assert_string_equal(ops->table->name, "cpu");
        assert_true(ops->exact == n % 2);
        assert_true(n == 0 ? cpu_of(ops)->n_threads >= 1 : cpu_of(ops)->n_threads == (int)n);
        ops_close(ops);
    }
    ops_close(NULL);
}

/* Threads' scratch and the shared one do not overlap. */
static void scratch_is_each_threads_own(void **state) {
    (void)state;
    struct ops *ops = test_open(3, false);
    const struct cpu_ops *c = cpu_of(ops);
    for (int t = 0; t < 3; t++)
        memset(cpu_scratch(c, t), t + 1, CPU_THREAD_BYTES);
    memset(cpu_shared(c), 9, CPU_SHARED_BYTES);
    for (int t = 0; t < 3; t++) {
        const uint8_t *p = cpu_scratch(c, t);
        assert_true((uintptr_t)p % 64 == 0 && p[0] == t + 1 && p[CPU_THREAD_BYTES - 1] == t + 1);
    }
    ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_cross_and_come_back),
        cmocka_unit_test(memory_is_aligned_and_distinct),
        cmocka_unit_test(what_does_not_fit_is_an_error_and_nothing_else),
        cmocka_unit_test(host_memory_can_be_computed_from),
        cmocka_unit_test(ops_are_done_when_they_return),
        cmocka_unit_test(it_opens_with_any_number_of_threads),
        cmocka_unit_test(scratch_is_each_threads_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
