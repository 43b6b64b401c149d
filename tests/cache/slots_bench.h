/* tests/cache/slots_bench.h - slots over a fake reader, and what the tests of slots say with them.
 *
 * Expert e lies at e * EXPERT_BYTES of the imaginary file, in two reads that meet in the slot. */
#ifndef SLUICE_TESTS_CACHE_SLOTS_BENCH_H
#define SLUICE_TESTS_CACHE_SLOTS_BENCH_H

#include "cache/slots.h"
#include "tests/cache/fake_reader.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define EXPERT_BYTES 8192u
#define SLOT_BYTES   12288u
#define N_EXPERTS    64u

struct bench {
    struct reader reader;
    struct slots *s;
    unsigned char *memory;
    uint32_t n_slots;
    enum policy_kind policy;
    struct event_source *ops; /* a backend's queue */
    uint64_t ops_issued;
    uint32_t n_seen; /* reads that the test has looked at */
};

/* A demand and what it needs to live on. */
struct asked {
    struct demand d;
    uint32_t experts[N_EXPERTS];
    uint8_t handed[N_EXPERTS];
};

static inline void bench_layout(void *context, uint32_t expert, struct extents_layout *out) {
    (void)context;
    *out = (struct extents_layout){ .n_reads = 2, .bytes = EXPERT_BYTES };
    for (uint32_t i = 0; i < 2; i++)
        out->reads[i] = (struct read){ .offset = (uint64_t)expert * EXPERT_BYTES + i * 4096,
                                       .bytes = 4096,
                                       .dst = (unsigned char *)(uintptr_t)(i * 4096) };
}

static inline struct slots_options bench_options(struct bench *b, uint32_t max_demands) {
    return (struct slots_options){ .n_slots = b->n_slots,
                                   .slot_bytes = SLOT_BYTES,
                                   .memory = b->memory,
                                   .n_experts_total = N_EXPERTS,
                                   .n_layers = 1,
                                   .policy = b->policy,
                                   .max_demands = max_demands,
                                   .reader = &b->reader,
                                   .source = { .layout = bench_layout } };
}

static inline void bench_open_policy(struct bench *b, uint32_t n_slots, uint32_t max_demands,
                                     enum policy_kind policy) {
    *b = (struct bench){ .n_slots = n_slots, .policy = policy };
    fake_open(&b->reader);
    b->memory = aligned_alloc(READER_ALIGN, (size_t)n_slots * SLOT_BYTES);
    b->ops = event_source_new(NULL);
    assert_true(b->memory && b->ops);
    struct slots_options options = bench_options(b, max_demands);
    assert_int_equal(slots_open(&b->s, &options, NULL), OK);
    slots_check(b->s);
}

/* With LRU: whose turn it is can be told by looking at the test. */
static inline void bench_open(struct bench *b, uint32_t n_slots, uint32_t max_demands) {
    bench_open_policy(b, n_slots, max_demands, POLICY_LRU);
}

static inline void bench_close(struct bench *b) {
    slots_close(b->s);
    fake_close(&b->reader);
    event_source_free(b->ops);
    free(b->memory);
}

/* The bytes of a slot are those of its expert. */
static inline void carries_its_expert(const struct slot *slot) {
    for (uint64_t at = 0; at < EXPERT_BYTES; at += FAKE_STEP) {
        uint64_t offset;
        memcpy(&offset, slot->data + at, sizeof offset);
        assert_int_equal(offset, (uint64_t)slot->expert * EXPERT_BYTES + at);
    }
}

static inline struct event op_queued(struct bench *b) {
    return (struct event){ b->ops, ++b->ops_issued };
}

static inline void op_done(struct bench *b) {
    assert_true(event_source_reached(b->ops) < b->ops_issued);
    event_source_advance(b->ops, 1);
}

static inline uint32_t in_flight(const struct bench *b, uint32_t expert) {
    return fake_find(&b->reader, (uint64_t)expert * EXPERT_BYTES);
}

static inline void end_read(struct bench *b, uint32_t expert) {
    fake_end(&b->reader, in_flight(b, expert));
}

static inline void fail_read(struct bench *b, uint32_t expert, enum status status) {
    fake_fail(&b->reader, in_flight(b, expert), status);
}

static inline void ask(struct bench *b, struct asked *a, enum demand_order order,
                       const uint32_t *experts, uint32_t n) {
    memcpy(a->experts, experts, n * sizeof *experts);
    assert_int_equal(slots_demand(b->s, a->experts, n, order, a->handed, &a->d, NULL), OK);
    slots_check(b->s);
}

/* Named arguments end here: experts. */
#define LIST(...)                                                                                  \
    (const uint32_t[]) {                                                                           \
        __VA_ARGS__                                                                                \
    }
#define COUNT(...)            (uint32_t)(sizeof(LIST(__VA_ARGS__)) / sizeof(uint32_t))
#define ASK(b, a, order, ...) ask(b, a, order, LIST(__VA_ARGS__), COUNT(__VA_ARGS__))

/* These reads were issued since the last look, in this order, and no others. */
static inline void reads_are(struct bench *b, const uint32_t *experts, uint32_t n) {
    assert_int_equal(b->reader.n_log - b->n_seen, n);
    for (uint32_t i = 0; i < n; i++, b->n_seen++)
        assert_int_equal(b->reader.log[b->n_seen].offset / EXPERT_BYTES, experts[i]);
}
#define READS(b, ...) reads_are(b, LIST(__VA_ARGS__), COUNT(__VA_ARGS__))
#define NO_READS(b)   reads_are(b, NULL, 0)

static inline enum status next_status(struct bench *b, struct asked *a) {
    struct slot slot;
    enum status status = slots_next(&a->d, &slot, NULL);
    slots_check(b->s);
    return status;
}

static inline struct slot next_is(struct bench *b, struct asked *a, uint32_t expert) {
    struct slot slot;
    assert_int_equal(slots_next(&a->d, &slot, NULL), OK);
    slots_check(b->s);
    assert_int_equal(slot.expert, expert);
    carries_its_expert(&slot);
    return slot;
}

static inline void release(struct bench *b, const struct slot *slot) {
    carries_its_expert(slot);
    slots_release(b->s, slot, event_now());
    slots_check(b->s);
}

/* The next is this one, used and released at once. */
static inline void use(struct bench *b, struct asked *a, uint32_t expert) {
    struct slot slot = next_is(b, a, expert);
    release(b, &slot);
}

/* End the demand well: all reads end as they were issued. */
static inline void finish(struct bench *b, struct asked *a) {
    struct slot slot;
    enum status status;
    while ((status = slots_next(&a->d, &slot, NULL)) != DONE) {
        if (status == AGAIN)
            fake_end(&b->reader, 0);
        else
            release(b, &slot);
    }
    slots_check(b->s);
}

/* Make experts resident; the last is the youngest. */
static inline void fill(struct bench *b, const uint32_t *experts, uint32_t n) {
    struct asked a;
    for (uint32_t i = 0; i < n; i++) {
        ask(b, &a, IN_ORDER, &experts[i], 1);
        finish(b, &a);
    }
    b->n_seen = b->reader.n_log;
}
#define FILL(b, ...) fill(b, LIST(__VA_ARGS__), COUNT(__VA_ARGS__))

static inline void state_is(struct bench *b, enum slot_state state, const uint32_t *experts,
                            uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(slots_state(b->s, experts[i]), state);
}
#define ARE(b, state, ...) state_is(b, state, LIST(__VA_ARGS__), COUNT(__VA_ARGS__))

#endif
