/* Slots over the real reader: a disk that is done at once, one that fails on purpose, one on a
 * virtual clock, and one with a thread of its own. */
#include "cache/slots.h"
#include "io/disk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define N_EXPERTS  48u
#define N_TENSORS  6u
#define SLOT_BYTES (N_TENSORS * 2u * READER_ALIGN)
#define WAIT_NS    1000000000ull

static const uint64_t tensor_bytes[N_TENSORS] = { 3000, 187, 4096, 256, 5001, 93 };

/* As in a checkpoint: aligned to nothing; the tensors of an even expert follow one another, those of
 * an odd one lie apart. */
static void expert_extents(uint32_t expert, struct extent out[N_TENSORS]) {
    uint64_t offset = 777 + expert * 300000ull;
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        out[i] = (struct extent){ .file = 0, .offset = offset, .bytes = tensor_bytes[i] };
        offset += tensor_bytes[i] + (expert % 2 ? 40000 : 0);
    }
}

static void expert_layout(void *context, uint32_t expert, struct extents_layout *out) {
    (void)context;
    struct extent extents[N_TENSORS];
    expert_extents(expert, extents);
    extents_layout(out, extents, N_TENSORS);
}

static void carries_its_expert(const struct slot *slot) {
    struct extent extents[N_TENSORS];
    struct extents_layout layout;
    unsigned char expected[8192];
    expert_extents(slot->expert, extents);
    expert_layout(NULL, slot->expert, &layout);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        disk_pattern(0, extents[i].offset, expected, extents[i].bytes);
        assert_memory_equal(slot->data + layout.at[i], expected, extents[i].bytes);
    }
}

struct machine {
    struct reader *reader;
    struct slots *s;
    unsigned char *memory;
};

static void machine_open(struct machine *m, uint32_t n_slots, struct disk *disk,
                         const struct clock *clock) {
    uint32_t file;
    struct reader_options reader = { .disk = disk, .clock = clock, .chunk_bytes = 8192 };
    assert_int_equal(reader_open(&m->reader, &reader, NULL), OK);
    assert_int_equal(reader_add_file(m->reader, "shard-1", &file, NULL), OK);
    m->memory = aligned_alloc(READER_ALIGN, n_slots * SLOT_BYTES);
    assert_non_null(m->memory);
    memset(m->memory, 0, n_slots * SLOT_BYTES);
    reader_add_memory(m->reader, m->memory, n_slots * SLOT_BYTES);
    struct slots_options options = { .n_slots = n_slots,
                                     .slot_bytes = SLOT_BYTES,
                                     .memory = m->memory,
                                     .n_experts_total = N_EXPERTS,
                                     .n_layers = 1,
                                     .max_demands = 2,
                                     .reader = m->reader,
                                     .source = { .layout = expert_layout } };
    assert_int_equal(slots_open(&m->s, &options, NULL), OK);
}

static void machine_close(struct machine *m) {
    slots_close(m->s);
    reader_close(m->reader);
    free(m->memory);
}

/* Takes what the demand hands out until it says something else than OK or AGAIN. */
static enum status advance(struct machine *m, struct demand *d, uint32_t *n_handed,
                           struct err *err) {
    for (;;) {
        struct slot slot;
        enum status status = slots_next(d, &slot, err);
        slots_check(m->s);
        if (status == AGAIN) {
            assert_true(event_wait(slots_event(m->s), WAIT_NS));
        } else if (status == OK) {
            carries_its_expert(&slot);
            ++*n_handed;
            slots_release(m->s, &slot, event_now());
        } else {
            return status;
        }
    }
}

/* Two layers of a decode step that share experts, then a pass over everything. */
static const struct {
    uint32_t n;
    uint32_t experts[6];
} steps[] = { { 6, { 1, 4, 9, 16, 25, 36 } },
              { 6, { 1, 4, 10, 17, 36, 47 } },
              { N_EXPERTS, { 0 } } };

static void step_open(struct machine *m, uint32_t step, uint32_t experts[N_EXPERTS],
                      uint8_t handed[N_EXPERTS], struct demand *out) {
    for (uint32_t i = 0; i < steps[step].n; i++)
        experts[i] = steps[step].n == N_EXPERTS ? i : steps[step].experts[i];
    enum demand_order order = steps[step].n == N_EXPERTS ? IN_ORDER : ANY_ORDER;
    assert_int_equal(slots_demand(m->s, experts, steps[step].n, order, handed, out, NULL), OK);
    slots_check(m->s);
}

/* Runs them all; `expected` is the one error that may come. Returns how often it did. */
static uint32_t run_steps(struct machine *m, enum status expected) {
    uint32_t n_errors = 0;
    for (uint32_t step = 0; step < 3; step++) {
        uint32_t experts[N_EXPERTS], n_handed = 0;
        uint8_t handed[N_EXPERTS];
        struct demand d;
        step_open(m, step, experts, handed, &d);
        struct err err = { 0 };
        for (enum status status; (status = advance(m, &d, &n_handed, &err)) != DONE;) {
            assert_int_equal(status, expected);
            assert_non_null(strstr(err.text, "shard-1"));
            err_clear(&err);
            n_errors++;
        }
        assert_int_equal(n_handed, steps[step].n);
    }
    return n_errors;
}

static void every_slot_carries_its_expert_whatever_their_number(void **state) {
    (void)state;
    for (uint32_t n_slots = 2; n_slots <= N_EXPERTS + 2; n_slots += 3) {
        struct disk *disk;
        struct machine m;
        struct slots_stats stats;
        struct reader_stats read;
        assert_int_equal(disk_null_open(&disk, 16, true, NULL), OK);
        machine_open(&m, n_slots, disk, NULL);
        assert_int_equal(run_steps(&m, OK), 0);
        slots_stats(m.s, &stats);
        reader_stats(m.reader, &read);
        assert_int_equal(stats.demanded, 6 + 6 + N_EXPERTS);
        assert_int_equal(stats.hits + stats.joined + stats.misses, stats.demanded);
        assert_int_equal(read.requests[READ_DEMAND], stats.misses);
        assert_int_equal(read.bytes[READ_DEMAND], stats.miss_bytes); // nothing is read twice
        if (n_slots >= N_EXPERTS)
            assert_int_equal(stats.misses, N_EXPERTS);
        machine_close(&m);
        disk_close(disk);
    }
}

/* Fail the n-th chunk for n = 1, 2, ... until a run has no n-th; each time the error comes as often
 * as the reader could not help it, and the bytes are the right ones in the end. */
static void fail_every_chunk(enum fault fault, uint32_t times, enum status expected,
                             uint32_t n_errors) {
    uint64_t n_struck = 0;
    bool struck = true;
    for (uint64_t n = 1; struck; n++) {
        struct disk *null, *disk;
        struct machine m;
        struct disk_faulty_options faults = {
            .rules = { { .fault = fault, .nth = n, .times = times, .bytes = 1000 } }, .n_rules = 1
        };
        assert_int_equal(disk_null_open(&null, 16, true, NULL), OK);
        assert_int_equal(disk_faulty_open(&disk, null, &faults, NULL), OK);
        machine_open(&m, 5, disk, NULL);
        uint32_t n_told = run_steps(&m, expected);
        struck = disk_faulty_submitted(disk) >= n;
        n_struck += struck;
        assert_int_equal(n_told, struck ? n_errors : 0);
        machine_close(&m); // asserts that nothing is held
        disk_close(disk);
        disk_close(null);
    }
    assert_true(n_struck > 100);
}

static void one_eio_a_short_read_or_an_interruption_is_not_seen(void **state) {
    (void)state;
    fail_every_chunk(FAULT_EIO, 1, OK, 0);
    fail_every_chunk(FAULT_SHORT, 1, OK, 0);
    fail_every_chunk(FAULT_EINTR, 3, OK, 0);
}

static void two_eios_are_an_error_once_and_the_retry_gives_the_same_bytes(void **state) {
    (void)state;
    fail_every_chunk(FAULT_EIO, 2, ERR_IO, 1);
    fail_every_chunk(FAULT_EIO, 4, ERR_IO, 2);
}

static void a_file_that_ends_early_is_told_as_such(void **state) {
    (void)state;
    struct disk *null, *disk;
    struct machine m;
    struct disk_faulty_options faults = {
        .rules = { { .fault = FAULT_ZERO, .nth = 1, .times = UINT32_MAX } }, .n_rules = 1
    };
    assert_int_equal(disk_null_open(&null, 16, true, NULL), OK);
    assert_int_equal(disk_faulty_open(&disk, null, &faults, NULL), OK);
    machine_open(&m, 4, disk, NULL);
    uint32_t experts[N_EXPERTS], n_handed = 0;
    uint8_t handed[N_EXPERTS];
    struct demand d;
    struct err err = { 0 };
    step_open(&m, 0, experts, handed, &d);
    for (int i = 0; i < 3; i++) { // for ever: each time it is asked again
        err_clear(&err);
        assert_int_equal(advance(&m, &d, &n_handed, &err), ERR_TRUNCATED);
        assert_non_null(strstr(err.text, "shard-1"));
    }
    slots_abandon(&d);
    slots_check(m.s);
    machine_close(&m);
    disk_close(disk);
    disk_close(null);
}

/* Three slots and a virtual clock: a pass takes as long as its bytes need, and once the latency. */
static void a_wide_pass_keeps_the_disk_busy(void **state) {
    (void)state;
    struct clock_virtual clock;
    clock_virtual_init(&clock);
    struct disk_model_options options = {
        .clock = &clock, .bytes_per_s = 1000000000, .latency_ns = 20000, .depth = 32
    };
    struct disk *disk;
    struct machine m;
    assert_int_equal(disk_model_open(&disk, &options, NULL), OK);
    machine_open(&m, 3, disk, &clock.clock);
    uint32_t experts[N_EXPERTS], n_handed = 0;
    uint8_t handed[N_EXPERTS];
    struct demand d;
    struct slots_stats stats;
    step_open(&m, 2, experts, handed, &d);
    assert_int_equal(advance(&m, &d, &n_handed, NULL), DONE);
    slots_stats(m.s, &stats);
    assert_int_equal(stats.misses, N_EXPERTS);
    assert_int_equal(clock.now, stats.miss_bytes + options.latency_ns);
    machine_close(&m);
    disk_close(disk);
}

/* A disk with a thread: prefetches and demands, given up and asked again while it works. */
static void a_disk_at_work_beside_us_changes_nothing(void **state) {
    (void)state;
    struct disk_model_options options = { .latency_ns = 20000, .depth = 8 };
    struct disk *disk;
    struct machine m;
    assert_int_equal(disk_model_open(&disk, &options, NULL), OK);
    machine_open(&m, 5, disk, NULL);
    for (uint32_t round = 0; round < 10; round++) {
        uint32_t experts[N_EXPERTS], n_handed = 0;
        uint8_t handed[N_EXPERTS];
        struct demand d;
        for (uint32_t i = 0; i < 6; i++)
            slots_prefetch(m.s, (round * 7 + i * 5) % N_EXPERTS);
        slots_prefetch_cancel(m.s, (round * 7) % N_EXPERTS);
        step_open(&m, round % 2, experts, handed, &d);
        slots_abandon(&d); // some of it is at the device
        slots_check(m.s);
        step_open(&m, round % 2, experts, handed, &d);
        assert_int_equal(advance(&m, &d, &n_handed, NULL), DONE);
        assert_int_equal(n_handed, 6);
    }
    slots_prefetch(m.s, 40);
    machine_close(&m); // with a load under way
    disk_close(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_carries_its_expert_whatever_their_number),
        cmocka_unit_test(one_eio_a_short_read_or_an_interruption_is_not_seen),
        cmocka_unit_test(two_eios_are_an_error_once_and_the_retry_gives_the_same_bytes),
        cmocka_unit_test(a_file_that_ends_early_is_told_as_such),
        cmocka_unit_test(a_wide_pass_keeps_the_disk_busy),
        cmocka_unit_test(a_disk_at_work_beside_us_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
