/* tests/io/disk_contract.h - what io/disk.h promises of a disk that reads real files.
 *
 * Included by one test program for each such disk, which defines contract_disk_open. */
#ifndef SLUICE_TESTS_IO_DISK_CONTRACT_H
#define SLUICE_TESTS_IO_DISK_CONTRACT_H

#include "tests/io/fixture.h"

#include "io/clock.h"

#include <pthread.h>
#include <sys/mman.h>

enum status contract_disk_open(struct disk **out, uint32_t depth, struct err *err);

#define A_MINUTE_NS 60000000000u
#define FILE_BYTES  (3 * 1024 * 1024 + 1234)

struct disk_bench {
    struct folder folder;
    char path[2][512];
    int fd[2];
    struct disk *disk;
};

static void disk_bench_open(struct disk_bench *b, uint32_t depth) {
    folder_open(&b->folder);
    assert_int_equal(contract_disk_open(&b->disk, depth, NULL), OK);
    for (uint32_t i = 0; i < 2; i++) {
        folder_path(&b->folder, i ? "one" : "zero", b->path[i]);
        write_file(b->path[i], i, FILE_BYTES);
        // 0 is direct where that is to be had, 1 is buffered.
        b->fd[i] = open(b->path[i], O_RDONLY | (i == 0 && is_direct(b->path[0]) ? O_DIRECT : 0));
        assert_true(b->fd[i] >= 0);
        assert_int_equal(disk_add_file(b->disk, b->fd[i], b->path[i], NULL), OK);
    }
}

static void disk_bench_close(struct disk_bench *b) {
    disk_close(b->disk);
    for (uint32_t i = 0; i < 2; i++)
        close(b->fd[i]);
    folder_close(&b->folder);
}

/* The next result, waited for. */
static struct disk_result wait_result(struct disk *d) {
    struct disk_result r;
    uint64_t deadline = clock_deadline(clock_system(), A_MINUTE_NS);
    while (disk_reap(d, &r, 1, A_MINUTE_NS) == 0)
        assert_true(clock_now_ns(clock_system()) < deadline);
    return r;
}

static int32_t read_one(struct disk *d, uint32_t file, uint64_t offset, unsigned char *dst,
                        uint32_t bytes) {
    struct disk_chunk c = { .file = file, .offset = offset, .dst = dst, .bytes = bytes, .tag = &c };
    disk_submit(d, &c, 1);
    struct disk_result r = wait_result(d);
    assert_ptr_equal(r.tag, &c);
    return r.result;
}

static void every_chunk_comes_back_once_with_its_bytes(void **state) {
    (void)state;
    enum { DEPTH = 8, BYTES = 5 * READER_ALIGN, CHUNKS = 500 };
    struct disk_bench b;
    disk_bench_open(&b, DEPTH);
    unsigned char *memory = new_memory((size_t)DEPTH * BYTES);
    struct disk_chunk chunks[DEPTH];
    bool out[DEPTH] = { false };
    uint64_t seed = 1;
    for (uint32_t n_sent = 0, n_back = 0; n_back < CHUNKS;) {
        struct disk_chunk batch[DEPTH];
        uint32_t n = 0;
        for (uint32_t i = 0; i < DEPTH && n_sent < CHUNKS; i++) {
            if (out[i] || random_below(&seed, 3) == 0)
                continue;
            chunks[i] = (struct disk_chunk){
                .file = (uint32_t)random_below(&seed, 2),
                .offset = random_below(&seed, FILE_BYTES / READER_ALIGN - 5) * READER_ALIGN,
                .bytes = (uint32_t)(1 + random_below(&seed, 5)) * READER_ALIGN,
                .dst = memory + (size_t)i * BYTES,
                .tag = &chunks[i],
            };
            memset(chunks[i].dst, GARBAGE, BYTES);
            batch[n++] = chunks[i];
            out[i] = true;
            n_sent++;
        }
        disk_submit(b.disk, batch, n);
        struct disk_result results[DEPTH];
        uint32_t n_results = disk_reap(b.disk, results, DEPTH, n_sent > n_back ? A_MINUTE_NS : 0);
        for (uint32_t i = 0; i < n_results; i++) {
            const struct disk_chunk *c = results[i].tag;
            assert_true(out[c - chunks]);
            out[c - chunks] = false;
            assert_int_equal(results[i].result, c->bytes);
            assert_true(holds(c->dst, c->file, c->offset, c->bytes));
        }
        n_back += n_results;
    }
    assert_int_equal(disk_reap(b.disk, &(struct disk_result){ 0 }, 1, 0), 0);
    free(memory);
    disk_bench_close(&b);
}

static void end_of_the_file_is_a_short_read_then_none(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 2);
    unsigned char *memory = new_memory(4 * READER_ALIGN);
    const uint64_t last = FILE_BYTES / READER_ALIGN * READER_ALIGN;
    for (uint32_t file = 0; file < 2; file++) {
        assert_int_equal(read_one(b.disk, file, last - READER_ALIGN, memory, 4 * READER_ALIGN),
                         READER_ALIGN + FILE_BYTES - last);
        assert_true(holds(memory, file, last - READER_ALIGN, READER_ALIGN + FILE_BYTES - last));
        assert_int_equal(read_one(b.disk, file, last + READER_ALIGN, memory, READER_ALIGN), 0);
    }
    free(memory);
    disk_bench_close(&b);
}

static void what_the_kernel_refuses_comes_back_as_its_errno(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 2);
    void *nowhere = mmap(NULL, READER_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(nowhere != MAP_FAILED);
    for (uint32_t file = 0; file < 2; file++)
        assert_int_equal(read_one(b.disk, file, 0, nowhere, READER_ALIGN), -EFAULT);
    munmap(nowhere, READER_ALIGN);
    unsigned char *memory = new_memory(READER_ALIGN);
    assert_int_equal(read_one(b.disk, 1, 0, memory, READER_ALIGN), READER_ALIGN); // and goes on
    free(memory);
    disk_bench_close(&b);
}

static void reap_waits_no_longer_than_asked(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 2);
    struct disk_result r;
    assert_int_equal(disk_reap(b.disk, &r, 1, 0), 0);
    uint64_t start = clock_now_ns(clock_system());
    assert_int_equal(disk_reap(b.disk, &r, 1, 3000000), 0);
    assert_true(clock_now_ns(clock_system()) - start >= 2900000); // it did wait
    disk_bench_close(&b);
}

static void wake_before_a_reap_is_not_lost(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 2);
    struct disk_result r;
    for (int i = 0; i < 20; i++) {
        disk_wake(b.disk);
        disk_wake(b.disk);
        uint64_t start = clock_now_ns(clock_system());
        assert_int_equal(disk_reap(b.disk, &r, 1, A_MINUTE_NS), 0);
        assert_true(clock_now_ns(clock_system()) - start < A_MINUTE_NS);
    }
    uint64_t start = clock_now_ns(clock_system());
    assert_int_equal(disk_reap(b.disk, &r, 1, 1000000), 0);      // both were one, and used up:
    assert_true(clock_now_ns(clock_system()) - start >= 900000); // it waited
    disk_bench_close(&b);
}

static void *wake_it(void *disk) {
    struct timespec t = { .tv_nsec = 2000000 };
    nanosleep(&t, NULL);
    disk_wake(disk);
    return NULL;
}

static void wake_ends_a_reap_under_way(void **state) {
    (void)state;
    struct disk_bench b;
    disk_bench_open(&b, 2);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wake_it, b.disk), 0);
        struct disk_result r;
        assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 0);
        pthread_join(thread, NULL);
    }
    disk_bench_close(&b);
}

static void depth_out_of_bounds_is_refused(void **state) {
    (void)state;
    struct disk *d;
    const uint32_t depths[] = { 0, DISK_DEPTH_MAX + 1, UINT32_MAX };
    for (int i = 0; i < 3; i++) {
        struct err err = { .status = OK };
        assert_int_equal(contract_disk_open(&d, depths[i], &err), ERR_USAGE);
        assert_null(d);
        assert_non_null(strstr(err.text, "depth"));
    }
    assert_int_equal(contract_disk_open(&d, 1, NULL), OK);
    assert_int_equal(d->depth, 1);
    disk_close(d);
    disk_close(NULL);
}

#define CONTRACT_TESTS                                                                             \
    cmocka_unit_test(every_chunk_comes_back_once_with_its_bytes),                                  \
        cmocka_unit_test(end_of_the_file_is_a_short_read_then_none),                               \
        cmocka_unit_test(what_the_kernel_refuses_comes_back_as_its_errno),                         \
        cmocka_unit_test(reap_waits_no_longer_than_asked),                                         \
        cmocka_unit_test(wake_before_a_reap_is_not_lost),                                          \
        cmocka_unit_test(wake_ends_a_reap_under_way),                                              \
        cmocka_unit_test(depth_out_of_bounds_is_refused)

#endif
