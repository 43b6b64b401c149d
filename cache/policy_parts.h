/* cache/policy_parts.h - what the policies are made of; for cache/policy*.c alone.
 *
 * A policy is a struct that begins with struct policy, and a row of functions. Queues of slots run
 * through one array of nodes: a slot is in one queue at most, so n_slots nodes do for all of them. */
#ifndef SLUICE_CACHE_POLICY_PARTS_H
#define SLUICE_CACHE_POLICY_PARTS_H

#include "cache/policy.h"

#include <assert.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A block of memory from which arrays are taken in turn; without a block it only counts. */
struct policy_memory {
    char *block;
    size_t used;
};
void *policy_take(struct policy_memory *m, size_t n, size_t size);

struct policy_functions {
    const char *name;
    size_t bytes; /* of the struct */
    void (*arrays)(struct policy *p, struct policy_memory *m);
    void (*open)(struct policy *p);                     /* all is zero, and the arrays are there */
    void (*demand)(struct policy *p, uint32_t layer);   /* NULL: time is nothing to it */
    void (*foretell)(struct policy *p, uint32_t layer); /* NULL: likewise */
    void (*touch)(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch);
    void (*forget)(struct policy *p, uint32_t slot); /* of a slot that is ranked */
    uint32_t (*victim)(struct policy *p, const struct policy_judge *judge);
    void (*check)(const struct policy *p);
};

struct policy {
    const struct policy_functions *functions;
    struct policy_options options;
    uint32_t *expert; /* by slot: POLICY_NONE if it is not ranked */
};

extern const struct policy_functions policy_lru, policy_lfu, policy_tinylfu, policy_s3fifo,
    policy_reuse;

/* --- queues of slots -------------------------------------------------------------------------- */

struct node {
    uint32_t older, younger; /* POLICY_NONE: in no queue */
};

/* Rings through nodes [n_slots + n_queues]: queue q's anchor is node n_slots + q; after it comes the
 * oldest, before it the youngest. */
struct queues {
    struct node *nodes;
    uint32_t n_slots, n_queues;
};

static inline void queues_arrays(struct queues *q, uint32_t n_slots, uint32_t n_queues,
                                 struct policy_memory *m) {
    *q = (struct queues){ (struct node *)policy_take(m, n_slots + n_queues, sizeof(struct node)),
                          n_slots, n_queues };
}

static inline void queues_init(struct queues *q) {
    for (uint32_t i = 0; i < q->n_slots; i++)
        q->nodes[i] = (struct node){ POLICY_NONE, POLICY_NONE };
    for (uint32_t i = q->n_slots; i < q->n_slots + q->n_queues; i++)
        q->nodes[i] = (struct node){ i, i };
}

static inline bool queues_has(const struct queues *q, uint32_t slot) {
    return q->nodes[slot].older != POLICY_NONE;
}

static inline void queues_remove(struct queues *q, uint32_t slot) {
    struct node node = q->nodes[slot];
    if (node.older == POLICY_NONE)
        return;
    q->nodes[node.older].younger = node.younger;
    q->nodes[node.younger].older = node.older;
    q->nodes[slot] = (struct node){ POLICY_NONE, POLICY_NONE };
}

/* As the youngest. */
static inline void queues_append(struct queues *q, uint32_t queue, uint32_t slot) {
    uint32_t anchor = q->n_slots + queue, youngest = q->nodes[anchor].older;
    assert(!queues_has(q, slot));
    q->nodes[slot] = (struct node){ .older = youngest, .younger = anchor };
    q->nodes[youngest].younger = slot;
    q->nodes[anchor].older = slot;
}

/* The oldest, or the next younger one; an index from n_slots on: none. */
static inline uint32_t queues_oldest(const struct queues *q, uint32_t queue) {
    return q->nodes[q->n_slots + queue].younger;
}
static inline uint32_t queues_next(const struct queues *q, uint32_t slot) {
    return q->nodes[slot].younger;
}

/* Ask about a queue's slots, the oldest first. True: the search has ended, with *slot. */
bool queues_search(const struct queues *q, uint32_t queue, const struct policy_judge *judge,
                   uint32_t *slot);

/* Assert that each queue is a ring; returns how many slots are in all of them. */
uint32_t queues_check(const struct queues *q);

/* --- counts of use ---------------------------------------------------------------------------- */

/* How often each expert was used, to 15, halved for all when the sum of uses since the last time is
 * ten times the slots: TinyLFU's "reset" (Einziger, Friedman, Manes 2017), but with a counter for
 * every expert instead of a sketch, as there are so few of them. The halving is spread: each touch
 * does its share of the experts. */
struct counts {
    uint8_t *count;
    uint32_t n, sample, n_uses, cursor;
    uint64_t now;      /* demands so far */
    uint64_t *counted; /* by expert: now + 1 when it was counted last */
};

void counts_arrays(struct counts *c, const struct policy_options *o, struct policy_memory *m);

/* Once a demand; false: it was counted already. */
bool counts_use(struct counts *c, uint32_t expert);

#ifdef __cplusplus
}
#endif
#endif
