/* LRU with admission by frequency, as in TinyLFU (Einziger, Friedman, Manes 2017): whoever comes in is
 * compared with the oldest. If it was used less often, it goes into a queue that is emptied first;
 * else into the main one. Every demanded expert has to be in a slot for a moment, so nobody is turned
 * away at the door. A use of what is in the first queue compares anew. */
#include "cache/policy_parts.h"

enum queue { PASSING, MAIN, N_QUEUES };

struct tinylfu {
    struct policy policy;
    struct queues queues;
    struct counts counts;
    uint8_t *is_main; // by slot
};

static void tinylfu_arrays(struct policy *p, struct policy_memory *m) {
    struct tinylfu *t = (struct tinylfu *)p;
    queues_arrays(&t->queues, p->options.n_slots, N_QUEUES, m);
    counts_arrays(&t->counts, &p->options, m);
    t->is_main = policy_take(m, p->options.n_slots, sizeof *t->is_main);
}

static void tinylfu_open(struct policy *p) {
    queues_init(&((struct tinylfu *)p)->queues);
}

static void tinylfu_demand(struct policy *p, uint32_t layer) {
    (void)layer;
    ((struct tinylfu *)p)->counts.now++;
}

/* The main queue takes all until something had to go. */
static bool admitted(const struct tinylfu *t, uint32_t expert) {
    uint32_t oldest = queues_oldest(&t->queues, MAIN);
    if (oldest >= t->policy.options.n_slots)
        return true;
    return t->counts.count[expert] >= t->counts.count[t->policy.expert[oldest]];
}

static void tinylfu_touch(struct policy *p, uint32_t slot, uint32_t expert,
                          enum policy_touch touch) {
    struct tinylfu *t = (struct tinylfu *)p;
    if (touch == POLICY_USE)
        counts_use(&t->counts, expert);
    bool was_main = queues_has(&t->queues, slot) && t->is_main[slot];
    queues_remove(&t->queues, slot);
    t->is_main[slot] = was_main || admitted(t, expert);
    queues_append(&t->queues, t->is_main[slot] ? MAIN : PASSING, slot);
}

static void tinylfu_forget(struct policy *p, uint32_t slot) {
    queues_remove(&((struct tinylfu *)p)->queues, slot);
}

static uint32_t tinylfu_victim(struct policy *p, const struct policy_judge *judge) {
    struct tinylfu *t = (struct tinylfu *)p;
    uint32_t slot;
    if (!queues_search(&t->queues, PASSING, judge, &slot))
        queues_search(&t->queues, MAIN, judge, &slot);
    return slot;
}

static void tinylfu_check(const struct policy *p) {
    const struct tinylfu *t = (const struct tinylfu *)p;
    queues_check(&t->queues);
    for (uint32_t slot = 0; slot < p->options.n_slots; slot++)
        assert(queues_has(&t->queues, slot) == policy_ranked(p, slot));
}

const struct policy_functions policy_tinylfu = {
    .name = "LRU, TinyLFU",
    .bytes = sizeof(struct tinylfu),
    .arrays = tinylfu_arrays,
    .open = tinylfu_open,
    .demand = tinylfu_demand,
    .touch = tinylfu_touch,
    .forget = tinylfu_forget,
    .victim = tinylfu_victim,
    .check = tinylfu_check,
};
