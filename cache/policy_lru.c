/* LRU: the slot touched longest ago goes first. */
#include "cache/policy_parts.h"

struct lru {
    struct policy policy;
    struct queues queue;
};

static void lru_arrays(struct policy *p, struct policy_memory *m) {
    queues_arrays(&((struct lru *)p)->queue, p->options.n_slots, 1, m);
}

static void lru_open(struct policy *p) {
    queues_init(&((struct lru *)p)->queue);
}

static void lru_touch(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch) {
    struct lru *l = (struct lru *)p;
    (void)expert, (void)touch;
    queues_remove(&l->queue, slot);
    queues_append(&l->queue, 0, slot);
}

static void lru_forget(struct policy *p, uint32_t slot) {
    queues_remove(&((struct lru *)p)->queue, slot);
}

static uint32_t lru_victim(struct policy *p, const struct policy_judge *judge) {
    uint32_t slot;
    queues_search(&((struct lru *)p)->queue, 0, judge, &slot);
    return slot;
}

static void lru_check(const struct policy *p) {
    const struct lru *l = (const struct lru *)p;
    queues_check(&l->queue);
    for (uint32_t slot = 0; slot < p->options.n_slots; slot++)
        assert(queues_has(&l->queue, slot) == policy_ranked(p, slot));
}

const struct policy_functions policy_lru = {
    .name = "LRU",
    .bytes = sizeof(struct lru),
    .arrays = lru_arrays,
    .open = lru_open,
    .touch = lru_touch,
    .forget = lru_forget,
    .victim = lru_victim,
    .check = lru_check,
};
