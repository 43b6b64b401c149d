// A disk that fails on purpose does so when it is told, and only then.
#include "tests/io/fixture.h"

#include "io/clock.h"

#define DEPTH 8
#define BYTES 4096u

struct faulty_bench {
    struct disk *inner, *disk;
    unsigned char *memory;
    uint64_t n_tags;
};

static void faulty_bench_open(struct faulty_bench *b, const struct disk_faulty_options *options) {
    assert_int_equal(disk_null_open(&b->inner, DEPTH, true, NULL), OK);
    assert_int_equal(disk_faulty_open(&b->disk, b->inner, options, NULL), OK);
    assert_int_equal(b->disk->depth, DEPTH);
    assert_true(b->disk->synchronous && !b->disk->wants_fd);
    assert_int_equal(disk_add_file(b->disk, -1, "imaginary", NULL), OK);
    b->memory = new_memory(BYTES);
}

static void faulty_bench_close(struct faulty_bench *b) {
    disk_close(b->disk);
    disk_close(b->inner);
    free(b->memory);
}

static int32_t read_at(struct faulty_bench *b, uint64_t offset) {
    struct disk_chunk c = { .offset = offset, .bytes = BYTES, .dst = b->memory, .tag = &c };
    memset(b->memory, GARBAGE, BYTES);
    disk_submit(b->disk, &c, 1);
    struct disk_result r;
    assert_int_equal(disk_reap(b->disk, &r, 1, UINT64_MAX), 1);
    assert_ptr_equal(r.tag, &c);
    return r.result;
}

static void without_rules_nothing_fails(void **state) {
    (void)state;
    struct faulty_bench b;
    faulty_bench_open(&b, &(struct disk_faulty_options){ 0 });
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(read_at(&b, i * BYTES), BYTES);
        assert_true(holds(b.memory, 0, i * BYTES, BYTES));
    }
    assert_int_equal(disk_faulty_submitted(b.disk), 100);
    faulty_bench_close(&b);
}

static void nth_chunk_fails_as_often_as_told(void **state) {
    (void)state;
    const enum fault faults[] = { FAULT_EIO, FAULT_EINTR, FAULT_EAGAIN, FAULT_ZERO };
    const int32_t results[] = { -EIO, -EINTR, -EAGAIN, 0 };
    for (int k = 0; k < 4; k++) {
        struct disk_faulty_options options = {
            .n_rules = 1,
            .rules = { { .fault = faults[k], .nth = 3, .times = 2 } },
        };
        struct faulty_bench b;
        faulty_bench_open(&b, &options);
        assert_int_equal(read_at(&b, 0), BYTES);
        assert_int_equal(read_at(&b, 8 * BYTES), BYTES);
        assert_int_equal(read_at(&b, 2 * BYTES), results[k]); // the third
        assert_int_equal(read_at(&b, 0), BYTES);
        assert_int_equal(read_at(&b, 2 * BYTES), results[k]); // the same place again
        assert_int_equal(read_at(&b, 2 * BYTES), BYTES);
        assert_true(holds(b.memory, 0, 2 * BYTES, BYTES));
        faulty_bench_close(&b);
    }
}

static void always_is_always(void **state) {
    (void)state;
    struct disk_faulty_options options = {
        .n_rules = 1,
        .rules = { { .fault = FAULT_EIO, .nth = 1, .times = UINT32_MAX } },
    };
    struct faulty_bench b;
    faulty_bench_open(&b, &options);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(read_at(&b, 4 * BYTES), -EIO);
        assert_int_equal(read_at(&b, 5 * BYTES), BYTES);
    }
    faulty_bench_close(&b);
}

static void first_rule_that_matches_decides(void **state) {
    (void)state;
    struct disk_faulty_options options = {
        .n_rules = 2,
        .rules = { { .fault = FAULT_EINTR, .nth = 1, .times = 1 },
                   { .fault = FAULT_EIO, .nth = 1, .times = 1 } },
    };
    struct faulty_bench b;
    faulty_bench_open(&b, &options);
    assert_int_equal(read_at(&b, 0), -EINTR);
    assert_int_equal(read_at(&b, 0), BYTES);
    faulty_bench_close(&b);
}

static void short_read_leaves_garbage_behind_what_arrived(void **state) {
    (void)state;
    for (uint32_t bytes = 1; bytes < BYTES; bytes += 13) {
        struct disk_faulty_options options = {
            .n_rules = 1,
            .rules = { { .fault = FAULT_SHORT, .nth = 1, .times = 1, .bytes = bytes } },
        };
        struct faulty_bench b;
        faulty_bench_open(&b, &options);
        assert_int_equal(read_at(&b, BYTES), bytes);
        assert_true(holds(b.memory, 0, BYTES, bytes));
        assert_false(holds(b.memory + bytes, 0, BYTES + bytes, BYTES - bytes));
        assert_int_equal(read_at(&b, BYTES), BYTES);
        faulty_bench_close(&b);
    }
}

static void stalled_chunk_stays_out_until_released(void **state) {
    (void)state;
    struct disk_faulty_options options = {
        .n_rules = 1,
        .rules = { { .fault = FAULT_STALL, .nth = 1, .times = 1 } },
    };
    struct faulty_bench b;
    faulty_bench_open(&b, &options);
    struct disk_chunk stalled = { .bytes = BYTES, .dst = b.memory, .tag = &stalled };
    disk_submit(b.disk, &stalled, 1);
    struct disk_result r;
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 0);
    unsigned char *other = new_memory(BYTES);
    struct disk_chunk c = { .offset = BYTES, .bytes = BYTES, .dst = other, .tag = &c };
    disk_submit(b.disk, &c, 1);
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 1);
    assert_ptr_equal(r.tag, &c);
    assert_int_equal(b.memory[0], GARBAGE);
    disk_faulty_release(b.disk);
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 1);
    assert_ptr_equal(r.tag, &stalled);
    assert_true(holds(b.memory, 0, 0, BYTES));
    free(other);
    faulty_bench_close(&b);
}

static void same_seed_gives_the_same_faults(void **state) {
    (void)state;
    struct disk_faulty_options options = {
        .per_1000 = { [FAULT_EIO] = 100, [FAULT_SHORT] = 100, [FAULT_EAGAIN] = 50 },
    };
    int32_t results[3][300];
    for (int round = 0; round < 3; round++) {
        struct faulty_bench b;
        options.seed = round == 2 ? 5 : 4;
        faulty_bench_open(&b, &options);
        for (uint64_t i = 0; i < 300; i++)
            results[round][i] = read_at(&b, i * BYTES);
        faulty_bench_close(&b);
    }
    assert_memory_equal(results[0], results[1], sizeof results[0]);
    assert_memory_not_equal(results[0], results[2], sizeof results[0]);
    int n_io = 0, n_again = 0, n_short = 0;
    for (int i = 0; i < 300; i++) {
        n_io += results[0][i] == -EIO;
        n_again += results[0][i] == -EAGAIN;
        n_short += results[0][i] >= 0 && results[0][i] < (int32_t)BYTES;
    }
    assert_true(n_io > 10 && n_io < 60);
    assert_true(n_short > 10 && n_short < 60);
    assert_true(n_again > 2 && n_again < 40);
}

static void disk_behind_keeps_its_time(void **state) {
    (void)state;
    struct clock_virtual clock;
    clock_virtual_init(&clock);
    struct disk_model_options model = { .clock = &clock, .latency_ns = 1000, .depth = DEPTH };
    struct disk *inner, *d;
    assert_int_equal(disk_model_open(&inner, &model, NULL), OK);
    assert_int_equal(disk_faulty_open(&d, inner, &(struct disk_faulty_options){ 0 }, NULL), OK);
    assert_int_equal(disk_add_file(d, -1, "imaginary", NULL), OK);
    unsigned char *memory = new_memory(BYTES);
    struct disk_chunk c = { .bytes = BYTES, .dst = memory, .tag = &c };
    struct disk_result r;
    disk_submit(d, &c, 1);
    clock_virtual_advance(&clock, 5000);
    assert_int_equal(disk_reap(d, &r, 1, 0), 1);
    assert_int_equal(disk_now_ns(d, &clock.clock), 1000);
    free(memory);
    disk_close(d);
    disk_close(inner);
}

static void too_many_rules_are_refused(void **state) {
    (void)state;
    struct disk *inner, *d;
    assert_int_equal(disk_null_open(&inner, 1, true, NULL), OK);
    struct disk_faulty_options options = { .n_rules = DISK_FAULTY_RULES + 1 };
    assert_int_equal(disk_faulty_open(&d, inner, &options, NULL), ERR_USAGE);
    assert_null(d);
    disk_close(inner);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rules_nothing_fails),
        cmocka_unit_test(nth_chunk_fails_as_often_as_told),
        cmocka_unit_test(always_is_always),
        cmocka_unit_test(first_rule_that_matches_decides),
        cmocka_unit_test(short_read_leaves_garbage_behind_what_arrived),
        cmocka_unit_test(stalled_chunk_stays_out_until_released),
        cmocka_unit_test(same_seed_gives_the_same_faults),
        cmocka_unit_test(disk_behind_keeps_its_time),
        cmocka_unit_test(too_many_rules_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
