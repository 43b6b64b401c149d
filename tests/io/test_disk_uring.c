// io_uring: registered files and buffers, and what happens where they, or it, are refused.
#include "tests/io/disk_contract.h"

#include "io/pinned.h"

enum status contract_disk_open(struct disk **out, uint32_t depth, struct err *err) {
    return disk_uring_open(out, depth, err);
}

// Into registered memory, across the seam of two pieces, half outside, and outside.
static void memory_is_read_into_registered_or_not(void **state) {
    (void)state;
    enum { BLOCKS = 32, PART = 10 };
    struct disk_bench b;
    disk_bench_open(&b, 4);
    unsigned char *memory = new_memory((size_t)BLOCKS * READER_ALIGN);
    // The second piece lies before the first: they are looked up by address, not by order.
    int error = disk_add_memory(b.disk, memory + (size_t)PART * READER_ALIGN, PART * READER_ALIGN);
    if (error == EOPNOTSUPP) {
        print_message("this kernel registers buffers only all at once (before 5.19)\n");
        free(memory);
        disk_bench_close(&b);
        skip();
    }
    assert_int_equal(error, 0);
    assert_int_equal(disk_add_memory(b.disk, memory, PART * READER_ALIGN), 0);
    assert_int_equal(b.disk->registered_bytes, 2 * PART * READER_ALIGN);
    for (uint32_t file = 0; file < 2; file++)
        for (uint32_t at = 0; at + 3 <= BLOCKS; at++) {
            memset(memory, GARBAGE, (size_t)BLOCKS * READER_ALIGN);
            uint64_t offset = (uint64_t)(7 + at) * READER_ALIGN;
            unsigned char *dst = memory + (size_t)at * READER_ALIGN;
            assert_int_equal(read_one(b.disk, file, offset, dst, 3 * READER_ALIGN),
                             3 * READER_ALIGN);
            assert_true(holds(dst, file, offset, 3 * READER_ALIGN));
            assert_true(at == 0 || dst[-1] == GARBAGE);
            assert_true(at + 3 == BLOCKS || dst[3 * READER_ALIGN] == GARBAGE);
        }
    free(memory);
    disk_bench_close(&b);
}

static void more_than_a_gib_is_registered_in_pieces(void **state) {
    (void)state;
    struct device_limits limits;
    device_limits(&limits);
    const uint64_t bytes = ((uint64_t)1 << 30) + (4 << 20), seam = (uint64_t)1 << 30;
    if (limits.available_bytes < 3 * bytes || (!limits.may_lock && limits.memlock_bytes < bytes)) {
        print_message("needs 3 GiB of memory, 1 of them locked\n");
        skip();
    }
    struct disk_bench b;
    disk_bench_open(&b, 2);
    struct pinned memory;
    struct pinned_options want = { .bytes = bytes, .want_huge = true };
    assert_int_equal(pinned_open(&memory, &want, NULL), OK);
    int error = disk_add_memory(b.disk, memory.base, memory.bytes);
    if (error != EOPNOTSUPP) {
        assert_int_equal(error, 0);
        assert_int_equal(b.disk->registered_bytes, bytes);
    }
    const uint64_t places[] = { 0, seam - 3 * READER_ALIGN, seam - READER_ALIGN, seam,
                                bytes - 3 * READER_ALIGN };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        unsigned char *dst = memory.base + places[i];
        assert_int_equal(read_one(b.disk, 0, READER_ALIGN, dst, 3 * READER_ALIGN),
                         3 * READER_ALIGN);
        assert_true(holds(dst, 0, READER_ALIGN, 3 * READER_ALIGN));
    }
    disk_bench_close(&b);
    pinned_close(&memory);
}

struct limited {
    struct disk_bench *bench; // files made before
    uint64_t memlock_bytes;
};

// Registered as far as the limit allows; what is not is read all the same.
static int with_little_memlock(void *context) {
    struct limited *l = context;
    CHILD_CHECK(limit_memlock(l->memlock_bytes) == 0);
    struct disk *d;
    struct err err = { .status = OK };
    if (disk_uring_open(&d, 4, &err) != OK) {
        // Kernels that charge the rings themselves: said, and the reader takes threads instead.
        CHILD_CHECK(l->memlock_bytes == 0 && strstr(err.text, "RLIMIT_MEMLOCK"));
        return 0;
    }
    unsigned char *memory = aligned_alloc(READER_ALIGN, 16 << 20);
    CHILD_CHECK(memory);
    int error = disk_add_memory(d, memory, 16 << 20);
    CHILD_CHECK(error == ENOMEM || error == EOPNOTSUPP);
    CHILD_CHECK(d->registered_bytes <= l->memlock_bytes);
    for (uint32_t i = 0; i < 2; i++)
        CHILD_CHECK(disk_add_file(d, l->bench->fd[i], l->bench->path[i], NULL) == OK);
    for (uint32_t i = 0; i < 2; i++) {
        struct disk_chunk c = {
            .file = i, .offset = 8192, .dst = memory, .bytes = 65536, .tag = &c
        };
        struct disk_result r;
        disk_submit(d, &c, 1);
        while (disk_reap(d, &r, 1, A_MINUTE_NS) == 0)
            ;
        CHILD_CHECK(r.result == 65536 && holds(memory, i, 8192, 65536));
    }
    disk_close(d);
    free(memory);
    return 0;
}

static void memlock_limit_costs_registration_only(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 1);
    struct limited eight_mib = { &b, 8 << 20 }, none = { &b, 0 };
    in_child(with_little_memlock, &eight_mib);
    in_child(with_little_memlock, &none);
    disk_bench_close(&b);
}

static int where_setup_is_forbidden(void *context) {
    (void)context;
    struct disk *d;
    struct err err = { .status = OK };
    CHILD_CHECK(forbid_call(__NR_io_uring_setup) == 0);
    CHILD_CHECK(disk_uring_open(&d, 4, &err) == ERR_SYSTEM && !d);
    CHILD_CHECK(strstr(err.text, "io_uring is forbidden here (seccomp)"));
    CHILD_CHECK(strstr(err.text, "profile"));
    return 0;
}

static int where_enter_is_forbidden(void *context) {
    (void)context;
    struct disk *d;
    struct err err = { .status = OK };
    CHILD_CHECK(forbid_call(__NR_io_uring_enter) == 0);
    CHILD_CHECK(disk_uring_open(&d, 4, &err) == ERR_SYSTEM && !d);
    CHILD_CHECK(strstr(err.text, "io_uring is forbidden here (seccomp)"));
    return 0;
}

static int where_register_is_forbidden(void *context) {
    (void)context;
    struct disk *d;
    struct err err = { .status = OK };
    CHILD_CHECK(forbid_call(__NR_io_uring_register) == 0);
    CHILD_CHECK(disk_uring_open(&d, 4, &err) == ERR_SYSTEM && !d);
    CHILD_CHECK(strstr(err.text, "io_uring is forbidden here (seccomp)"));
    return 0;
}

static void filter_is_found_out_when_opening(void **state) {
    (void)state;
    in_child(where_setup_is_forbidden, NULL);
    in_child(where_enter_is_forbidden, NULL);
    in_child(where_register_is_forbidden, NULL);
}

static int can_use_uring(void **state) {
    (void)state;
    struct device_limits limits;
    device_limits(&limits);
    if (limits.uring == URING_YES)
        return 0;
    print_message("io_uring %s\n", uring_reason(limits.uring));
    return 1;
}

// The filter comes later than the ring: what was not taken yet comes back, and nothing hangs.
static int where_enter_is_forbidden_later(void *context) {
    struct disk_bench *b = context;
    unsigned char *memory = aligned_alloc(READER_ALIGN, 4 * READER_ALIGN);
    struct disk *d;
    CHILD_CHECK(memory && disk_uring_open(&d, 4, NULL) == OK);
    CHILD_CHECK(disk_add_file(d, b->fd[1], b->path[1], NULL) == OK);
    CHILD_CHECK(read_one(d, 0, 0, memory, READER_ALIGN) == READER_ALIGN);
    CHILD_CHECK(forbid_call(__NR_io_uring_enter) == 0);
    for (int round = 0; round < 3; round++) {
        struct disk_chunk chunks[4];
        bool back[4] = { false };
        for (uint32_t i = 0; i < 4; i++)
            chunks[i] = (struct disk_chunk){ .bytes = READER_ALIGN,
                                             .dst = memory + i * READER_ALIGN,
                                             .tag = &chunks[i] };
        disk_submit(d, chunks, 4);
        for (uint32_t n = 0; n < 4;) {
            struct disk_result r[3];
            uint32_t n_results = disk_reap(d, r, 3, UINT64_MAX);
            for (uint32_t i = 0; i < n_results; i++) {
                uint32_t chunk = (uint32_t)((struct disk_chunk *)r[i].tag - chunks);
                CHILD_CHECK(r[i].result == -EPERM && !back[chunk]);
                back[chunk] = true;
            }
            n += n_results;
        }
        struct disk_result none;
        CHILD_CHECK(disk_reap(d, &none, 1, 1000000) == 0);
    }
    disk_close(d);
    free(memory);
    return 0;
}

static void ring_that_is_refused_later_returns_each_chunk_once(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 1);
    in_child(where_enter_is_forbidden_later, &b);
    disk_bench_close(&b);
}

#define TEST(name) cmocka_unit_test(name)

int main(void) {
    if (can_use_uring(NULL) != 0) {
        const struct CMUnitTest refused[] = { TEST(filter_is_found_out_when_opening) };
        return cmocka_run_group_tests(refused, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS,
        TEST(memory_is_read_into_registered_or_not),
        TEST(more_than_a_gib_is_registered_in_pieces),
        TEST(memlock_limit_costs_registration_only),
        TEST(filter_is_found_out_when_opening),
        TEST(ring_that_is_refused_later_returns_each_chunk_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
