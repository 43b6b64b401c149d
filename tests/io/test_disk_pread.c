// The disk of those who may not use io_uring keeps the same contract.
#include "tests/io/disk_contract.h"

enum status contract_disk_open(struct disk **out, uint32_t depth, struct err *err) {
    return disk_pread_open(out, depth, err);
}

static void few_threads_are_a_smaller_depth(void **state) {
    (void)state;
    struct disk *d;
    assert_int_equal(disk_pread_open(&d, 3, NULL), OK);
    assert_int_equal(d->depth, 3);
    disk_close(d);
}

static int without_threads(void *context) {
    (void)context;
    struct disk *d;
    struct err err = { .status = OK };
    CHILD_CHECK(forbid_call(__NR_clone3) == 0 && forbid_call(__NR_clone) == 0);
    CHILD_CHECK(disk_pread_open(&d, 4, &err) == ERR_SYSTEM);
    CHILD_CHECK(d == NULL && strstr(err.text, "thread"));
    return 0;
}

static void no_thread_at_all_is_told(void **state) {
    (void)state;
    in_child(without_threads, NULL);
}

static void memory_need_not_be_registered(void **state) {
    (void)state;
    struct disk *d;
    unsigned char *memory = new_memory(READER_ALIGN);
    assert_int_equal(disk_pread_open(&d, 1, NULL), OK);
    assert_int_equal(disk_add_memory(d, memory, READER_ALIGN), 0);
    assert_int_equal(d->registered_bytes, 0);
    disk_close(d);
    free(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS,
        cmocka_unit_test(few_threads_are_a_smaller_depth),
        cmocka_unit_test(no_thread_at_all_is_told),
        cmocka_unit_test(memory_need_not_be_registered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
