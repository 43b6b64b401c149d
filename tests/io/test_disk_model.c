// A disk by formula: done at max(submitted + latency, end of the one before) + bytes / bandwidth.
#include "tests/io/fixture.h"

#include <pthread.h>

#define LATENCY_NS  100000u
#define BYTES_PER_S 1000000000u // a byte a nanosecond
#define DEPTH       8
#define BYTES       4096u

struct model_bench {
    struct clock_virtual clock;
    struct disk *disk;
    struct disk_chunk chunks[DEPTH];
    unsigned char memory[DEPTH][BYTES];
};

static void model_bench_open(struct model_bench *b, struct disk_model_options options) {
    clock_virtual_init(&b->clock);
    options.clock = &b->clock;
    options.depth = DEPTH;
    assert_int_equal(disk_model_open(&b->disk, &options, NULL), OK);
    assert_true(b->disk->synchronous);
    assert_int_equal(disk_add_file(b->disk, -1, "imaginary", NULL), OK);
    for (uint32_t i = 0; i < DEPTH; i++)
        b->chunks[i] = (struct disk_chunk){
            .offset = i * BYTES, .bytes = BYTES, .dst = b->memory[i], .tag = &b->chunks[i]
        };
}

static const struct disk_model_options plain = { .bytes_per_s = BYTES_PER_S,
                                                 .latency_ns = LATENCY_NS };

// The next result is chunk i's.
static void expect(struct model_bench *b, uint32_t i, uint64_t timeout_ns, uint64_t now_ns) {
    struct disk_result r[DEPTH];
    assert_int_equal(disk_reap(b->disk, r, DEPTH, timeout_ns), 1);
    assert_ptr_equal(r[0].tag, &b->chunks[i]);
    assert_int_equal(r[0].result, BYTES);
    assert_true(holds(b->memory[i], 0, b->chunks[i].offset, BYTES));
    assert_int_equal(disk_now_ns(b->disk, &b->clock.clock), now_ns);
}

static void chunks_share_the_link_and_overlap_in_latency(void **state) {
    (void)state;
    struct model_bench b;
    model_bench_open(&b, plain);
    disk_submit(b.disk, b.chunks, 3);
    for (uint32_t i = 0; i < 3; i++) {
        expect(&b, i, UINT64_MAX, LATENCY_NS + (i + 1) * BYTES);
        assert_int_equal(b.clock.now, LATENCY_NS + (i + 1) * BYTES);
    }
    disk_submit(b.disk, b.chunks, 1); // an idle disk: latency again
    expect(&b, 0, UINT64_MAX, 2 * LATENCY_NS + 4 * BYTES);
    disk_close(b.disk);
}

static void waiting_advances_the_clock_no_further_than_asked(void **state) {
    (void)state;
    struct model_bench b;
    model_bench_open(&b, plain);
    disk_submit(b.disk, b.chunks, 1);
    struct disk_result r;
    assert_int_equal(disk_reap(b.disk, &r, 1, 0), 0);
    assert_int_equal(b.clock.now, 0);
    assert_int_equal(disk_reap(b.disk, &r, 1, LATENCY_NS), 0);
    assert_int_equal(b.clock.now, LATENCY_NS);
    expect(&b, 0, BYTES, LATENCY_NS + BYTES);
    assert_int_equal(disk_reap(b.disk, &r, 1, 500), 0); // nothing out: time passes all the same
    assert_int_equal(b.clock.now, LATENCY_NS + BYTES + 500);
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 0); // and nothing to wait for for ever
    assert_int_equal(b.clock.now, LATENCY_NS + BYTES + 500);
    disk_close(b.disk);
}

// The control thread computed for a second; the disk did not wait for it to be told to go on.
static void disk_that_catches_up_goes_from_moment_to_moment(void **state) {
    (void)state;
    struct model_bench b;
    model_bench_open(&b, plain);
    disk_submit(b.disk, b.chunks, 2);
    clock_virtual_advance(&b.clock, 1000000000);
    expect(&b, 0, 0, LATENCY_NS + BYTES);
    disk_submit(b.disk, b.chunks + 2, 1); // starts at the moment of that result
    expect(&b, 1, 0, LATENCY_NS + 2 * BYTES);
    expect(&b, 2, 0, 2 * LATENCY_NS + 2 * BYTES);
    struct disk_result r;
    assert_int_equal(disk_reap(b.disk, &r, 1, 0), 0);
    assert_int_equal(disk_now_ns(b.disk, &b.clock.clock), 1000000000); // caught up
    disk_submit(b.disk, b.chunks, 1);
    expect(&b, 0, UINT64_MAX, 1000000000 + LATENCY_NS + BYTES);
    disk_close(b.disk);
}

static void results_of_one_moment_come_together(void **state) {
    (void)state;
    struct model_bench b;
    model_bench_open(&b, (struct disk_model_options){ .latency_ns = LATENCY_NS }); // no limit
    disk_submit(b.disk, b.chunks, 3);
    struct disk_result r[DEPTH];
    assert_int_equal(disk_reap(b.disk, r, 2, UINT64_MAX), 2);
    assert_int_equal(disk_reap(b.disk, r, DEPTH, UINT64_MAX), 1);
    assert_int_equal(b.clock.now, LATENCY_NS);
    disk_close(b.disk);
}

static void slow_link_never_takes_no_time(void **state) {
    (void)state;
    struct model_bench b;
    model_bench_open(&b, (struct disk_model_options){ .bytes_per_s = 3 });
    disk_submit(b.disk, b.chunks, 1);
    expect(&b, 0, UINT64_MAX, (BYTES * 1000000000ull + 2) / 3);
    disk_close(b.disk);
}

static int32_t some_content(void *context, const struct disk_chunk *chunk) {
    ++*(uint32_t *)context;
    if (chunk->offset == BYTES)
        return -EIO;
    memset(chunk->dst, 7, 100);
    return 100;
}

static void content_may_come_from_elsewhere(void **state) {
    (void)state;
    struct model_bench b;
    uint32_t n_calls = 0;
    struct disk_model_options options = plain;
    options.content = some_content;
    options.context = &n_calls;
    model_bench_open(&b, options);
    disk_submit(b.disk, b.chunks, 2);
    assert_int_equal(n_calls, 0); // when it is done, not before
    struct disk_result r;
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 1);
    assert_int_equal(r.result, 100);
    assert_int_equal(b.memory[0][99], 7);
    assert_int_equal(disk_reap(b.disk, &r, 1, UINT64_MAX), 1);
    assert_int_equal(r.result, -EIO);
    assert_int_equal(n_calls, 2);
    disk_close(b.disk);
}

// --- in real time --------------------------------------------------------------------------------

static void *wake_it(void *disk) {
    disk_wake(disk);
    return NULL;
}

static void slow_disk_takes_its_time_and_can_be_woken(void **state) {
    (void)state;
    struct disk *d;
    struct disk_model_options options = { .latency_ns = 3000000, .depth = 2 };
    assert_int_equal(disk_model_open(&d, &options, NULL), OK);
    assert_false(d->synchronous);
    assert_int_equal(disk_add_file(d, -1, "imaginary", NULL), OK);
    unsigned char memory[BYTES];
    struct disk_chunk c = { .bytes = BYTES, .dst = memory, .tag = &c };
    struct disk_result r;
    uint64_t start = clock_now_ns(clock_system());
    disk_submit(d, &c, 1);
    uint32_t n = 0;
    while (n == 0)
        n = disk_reap(d, &r, 1, UINT64_MAX);
    assert_true(clock_now_ns(clock_system()) - start >= options.latency_ns);
    assert_true(holds(memory, 0, 0, BYTES));

    assert_int_equal(disk_reap(d, &r, 1, 0), 0);
    assert_int_equal(disk_reap(d, &r, 1, 1000000), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_it, d), 0);
    assert_int_equal(disk_reap(d, &r, 1, UINT64_MAX), 0);
    pthread_join(thread, NULL);
    disk_close(d);
}

static void depth_out_of_bounds_is_refused(void **state) {
    (void)state;
    struct disk *d;
    struct disk_model_options options = { .depth = 0 };
    assert_int_equal(disk_model_open(&d, &options, NULL), ERR_USAGE);
    assert_null(d);
    options.depth = DISK_DEPTH_MAX + 1;
    assert_int_equal(disk_model_open(&d, &options, NULL), ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_share_the_link_and_overlap_in_latency),
        cmocka_unit_test(waiting_advances_the_clock_no_further_than_asked),
        cmocka_unit_test(disk_that_catches_up_goes_from_moment_to_moment),
        cmocka_unit_test(results_of_one_moment_come_together),
        cmocka_unit_test(slow_link_never_takes_no_time),
        cmocka_unit_test(content_may_come_from_elsewhere),
        cmocka_unit_test(slow_disk_takes_its_time_and_can_be_woken),
        cmocka_unit_test(depth_out_of_bounds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
