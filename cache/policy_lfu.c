/* LFU with aging: a queue of slots for each count of use, the least used goes first, of those the one
 * touched longest ago. Counts are kept for experts that have left, too, and fade (struct counts). */
#include "cache/policy_parts.h"

#define N_COUNTS 16

struct lfu {
    struct policy policy;
    struct queues queues; // one for each count
    struct counts counts;
    uint32_t *slot_of; // by expert: POLICY_NONE
};

static void lfu_arrays(struct policy *p, struct policy_memory *m) {
    struct lfu *l = (struct lfu *)p;
    queues_arrays(&l->queues, p->options.n_slots, N_COUNTS, m);
    counts_arrays(&l->counts, &p->options, m);
    l->slot_of = policy_take(m, l->counts.n, sizeof *l->slot_of);
}

static void lfu_open(struct policy *p) {
    struct lfu *l = (struct lfu *)p;
    queues_init(&l->queues);
    for (uint32_t expert = 0; expert < l->counts.n; expert++)
        l->slot_of[expert] = POLICY_NONE;
}

static void lfu_demand(struct policy *p, uint32_t layer) {
    (void)layer;
    ((struct lfu *)p)->counts.now++;
}

static void count(struct lfu *l, uint32_t expert) {
    uint32_t first = l->counts.cursor;
    if (!counts_use(&l->counts, expert))
        return;
    for (uint32_t e = first; e < l->counts.cursor; e++) // these have faded
        if (l->slot_of[e] != POLICY_NONE) {
            queues_remove(&l->queues, l->slot_of[e]);
            queues_append(&l->queues, l->counts.count[e], l->slot_of[e]);
        }
}

static void lfu_touch(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch) {
    struct lfu *l = (struct lfu *)p;
    l->slot_of[expert] = slot;
    if (touch == POLICY_USE)
        count(l, expert);
    queues_remove(&l->queues, slot);
    queues_append(&l->queues, l->counts.count[expert], slot);
}

static void lfu_forget(struct policy *p, uint32_t slot) {
    struct lfu *l = (struct lfu *)p;
    l->slot_of[p->expert[slot]] = POLICY_NONE;
    queues_remove(&l->queues, slot);
}

static uint32_t lfu_victim(struct policy *p, const struct policy_judge *judge) {
    struct lfu *l = (struct lfu *)p;
    uint32_t slot = POLICY_NONE;
    for (uint32_t queue = 0; queue < N_COUNTS; queue++)
        if (queues_search(&l->queues, queue, judge, &slot))
            break;
    return slot;
}

static void lfu_check(const struct policy *p) {
    const struct lfu *l = (const struct lfu *)p;
    queues_check(&l->queues);
    for (uint32_t slot = 0; slot < p->options.n_slots; slot++)
        assert(queues_has(&l->queues, slot) == policy_ranked(p, slot));
    for (uint32_t e = 0; e < p->options.n_layers * p->options.n_experts; e++)
        assert(l->slot_of[e] == POLICY_NONE || p->expert[l->slot_of[e]] == e);
}

const struct policy_functions policy_lfu = {
    .name = "LFU, aging",
    .bytes = sizeof(struct lfu),
    .arrays = lfu_arrays,
    .open = lfu_open,
    .demand = lfu_demand,
    .touch = lfu_touch,
    .forget = lfu_forget,
    .victim = lfu_victim,
    .check = lfu_check,
};
