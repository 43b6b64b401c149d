/* S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need", SOSP 2023). A small queue
 * that newcomers pass, a main one, and a memory of who left the small one unused: who comes back soon
 * goes into the main queue at once.
 *
 * The published form looks for a victim by moving what was used on its way from queue to queue. Here
 * asking may change nothing (cache/policy.h), so that is done when a slot comes in: the small queue is
 * brought to its size, the main queue's oldest go round as long as they were used, at most
 * MOVES a time. */
#include "cache/policy_parts.h"

#define SMALL_SHARE 10 // of the slots one in so many: the paper's
#define USES_MOST   3  // likewise
#define MOVES       8

enum queue { SMALL, MAIN, N_QUEUES };

struct s3fifo {
    struct policy policy;
    struct queues queues;
    uint32_t n_small, n_main;
    uint64_t now;
    uint64_t *counted; // by expert: the demand that counted it last
    uint8_t *is_main;  // by slot
    uint8_t *uses;     // by slot, since it came in
    // Who left the small queue last: as many as the main one has room for.
    uint32_t n_left;
    uint32_t *left; // by expert: how many had left before it; 0: not
};

static void s3fifo_arrays(struct policy *p, struct policy_memory *m) {
    struct s3fifo *s = (struct s3fifo *)p;
    uint32_t n_slots = p->options.n_slots, n = p->options.n_layers * p->options.n_experts;
    queues_arrays(&s->queues, n_slots, N_QUEUES, m);
    s->counted = policy_take(m, n, sizeof *s->counted);
    s->left = policy_take(m, n, sizeof *s->left);
    s->is_main = policy_take(m, n_slots, sizeof *s->is_main);
    s->uses = policy_take(m, n_slots, sizeof *s->uses);
}

static void s3fifo_open(struct policy *p) {
    queues_init(&((struct s3fifo *)p)->queues);
}

static void s3fifo_demand(struct policy *p, uint32_t layer) {
    (void)layer;
    ((struct s3fifo *)p)->now++;
}

static void move_to_main(struct s3fifo *s, uint32_t slot) {
    queues_remove(&s->queues, slot);
    queues_append(&s->queues, MAIN, slot);
    s->n_small -= !s->is_main[slot];
    s->n_main += !s->is_main[slot];
    s->is_main[slot] = true;
}

static void settle(struct s3fifo *s) {
    uint32_t n_slots = s->policy.options.n_slots, small = n_slots / SMALL_SHARE;
    for (uint32_t i = 0; i < MOVES && s->n_small > small; i++) {
        uint32_t slot = queues_oldest(&s->queues, SMALL);
        if (s->uses[slot] < 2)
            break;
        s->uses[slot] = 0;
        move_to_main(s, slot);
    }
    for (uint32_t i = 0; i < MOVES && s->n_main; i++) {
        uint32_t slot = queues_oldest(&s->queues, MAIN);
        if (!s->uses[slot])
            break;
        s->uses[slot]--;
        move_to_main(s, slot);
    }
}

static void s3fifo_touch(struct policy *p, uint32_t slot, uint32_t expert,
                         enum policy_touch touch) {
    struct s3fifo *s = (struct s3fifo *)p;
    bool counts = touch == POLICY_USE && s->counted[expert] != s->now + 1;
    if (counts)
        s->counted[expert] = s->now + 1;
    if (queues_has(&s->queues, slot)) {
        s->uses[slot] += counts && s->uses[slot] < USES_MOST;
        return;
    }
    bool comes_back = s->left[expert] && s->n_left - s->left[expert] < p->options.n_slots;
    s->left[expert] = 0;
    s->is_main[slot] = comes_back;
    s->uses[slot] = 0;
    s->n_small += !comes_back;
    s->n_main += comes_back;
    queues_append(&s->queues, comes_back ? MAIN : SMALL, slot);
    settle(s);
}

static void s3fifo_forget(struct policy *p, uint32_t slot) {
    struct s3fifo *s = (struct s3fifo *)p;
    if (!s->is_main[slot])
        s->left[p->expert[slot]] = ++s->n_left;
    s->n_small -= !s->is_main[slot];
    s->n_main -= s->is_main[slot];
    queues_remove(&s->queues, slot);
}

static uint32_t s3fifo_victim(struct policy *p, const struct policy_judge *judge) {
    struct s3fifo *s = (struct s3fifo *)p;
    uint32_t slot;
    bool small_first = s->n_small > p->options.n_slots / SMALL_SHARE;
    if (!queues_search(&s->queues, small_first ? SMALL : MAIN, judge, &slot))
        queues_search(&s->queues, small_first ? MAIN : SMALL, judge, &slot);
    return slot;
}

static void s3fifo_check(const struct policy *p) {
    const struct s3fifo *s = (const struct s3fifo *)p;
    uint32_t n = queues_check(&s->queues);
    assert(n == s->n_small + s->n_main);
    for (uint32_t slot = 0; slot < p->options.n_slots; slot++)
        assert(queues_has(&s->queues, slot) == policy_ranked(p, slot));
    (void)n;
}

const struct policy_functions policy_s3fifo = {
    .name = "S3-FIFO",
    .bytes = sizeof(struct s3fifo),
    .arrays = s3fifo_arrays,
    .open = s3fifo_open,
    .demand = s3fifo_demand,
    .touch = s3fifo_touch,
    .forget = s3fifo_forget,
    .victim = s3fifo_victim,
    .check = s3fifo_check,
};
