// Every chunk is done at once.
#include "tests/io/fixture.h"

static void pattern_depends_on_file_and_offset_alone(void **state) {
    (void)state;
    unsigned char whole[5000], piece[5000];
    disk_pattern(2, 1000, whole, sizeof whole);
    uint64_t seed = 1;
    for (int i = 0; i < 500; i++) {
        size_t from = random_below(&seed, sizeof whole), n = random_below(&seed, 40);
        n = n < sizeof whole - from ? n : sizeof whole - from;
        memset(piece, GARBAGE, sizeof piece);
        disk_pattern(2, 1000 + from, piece, n);
        assert_memory_equal(piece, whole + from, n);
        assert_int_equal(piece[n], GARBAGE);
    }
    disk_pattern(3, 1000, piece, sizeof piece);
    assert_memory_not_equal(piece, whole, 64);
    disk_pattern(2, 1008, piece, sizeof piece);
    assert_memory_not_equal(piece, whole, 64);
}

static void chunks_are_done_at_once_and_come_back_once(void **state) {
    (void)state;
    struct disk *d;
    assert_int_equal(disk_null_open(&d, 4, true, NULL), OK);
    assert_true(d->synchronous && !d->wants_fd);
    assert_int_equal(disk_add_file(d, -1, "no such file", NULL), OK);
    assert_int_equal(disk_add_file(d, -1, "another", NULL), OK);
    unsigned char memory[4][100];
    struct disk_chunk chunks[4];
    for (uint32_t i = 0; i < 4; i++)
        chunks[i] = (struct disk_chunk){
            .file = i % 2, .offset = i * 1000, .bytes = 100, .dst = memory[i], .tag = &chunks[i]
        };
    for (int round = 0; round < 3; round++) {
        memset(memory, GARBAGE, sizeof memory);
        disk_submit(d, chunks, 4);
        struct disk_result r[4];
        uint32_t n = disk_reap(d, r, 3, UINT64_MAX);
        assert_int_equal(n, 3);
        assert_int_equal(disk_reap(d, r + 3, 3, 0), 1);
        for (uint32_t i = 0; i < 4; i++) {
            assert_ptr_equal(r[i].tag, &chunks[i]);
            assert_int_equal(r[i].result, 100);
            assert_true(holds(memory[i], chunks[i].file, chunks[i].offset, 100));
        }
        assert_int_equal(disk_reap(d, r, 3, UINT64_MAX), 0); // nothing out: does not wait
    }
    disk_close(d);
}

static void without_a_pattern_memory_stays_as_it_was(void **state) {
    (void)state;
    struct disk *d;
    assert_int_equal(disk_null_open(&d, 1, false, NULL), OK);
    assert_int_equal(disk_add_file(d, -1, "no such file", NULL), OK);
    unsigned char memory[100], garbage[100];
    memset(memory, GARBAGE, sizeof memory);
    memset(garbage, GARBAGE, sizeof garbage);
    struct disk_chunk c = { .bytes = 100, .dst = memory, .tag = &c };
    struct disk_result r;
    disk_submit(d, &c, 1);
    assert_int_equal(disk_reap(d, &r, 1, 0), 1);
    assert_int_equal(r.result, 100);
    assert_memory_equal(memory, garbage, sizeof memory);
    disk_close(d);
}

static void depth_out_of_bounds_is_refused(void **state) {
    (void)state;
    struct disk *d;
    assert_int_equal(disk_null_open(&d, 0, true, NULL), ERR_USAGE);
    assert_null(d);
    assert_int_equal(disk_null_open(&d, DISK_DEPTH_MAX + 1, true, NULL), ERR_USAGE);
    assert_int_equal(disk_null_open(&d, DISK_DEPTH_MAX, true, NULL), OK);
    disk_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pattern_depends_on_file_and_offset_alone),
        cmocka_unit_test(chunks_are_done_at_once_and_come_back_once),
        cmocka_unit_test(without_a_pattern_memory_stays_as_it_was),
        cmocka_unit_test(depth_out_of_bounds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
