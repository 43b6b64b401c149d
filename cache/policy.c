#include "cache/policy_parts.h"

#include <stdlib.h>

static const struct policy_functions *const kinds[POLICY_KINDS] = {
    [POLICY_REUSE] = &policy_reuse,   [POLICY_LRU] = &policy_lru,
    [POLICY_LFU] = &policy_lfu,       [POLICY_TINYLFU] = &policy_tinylfu,
    [POLICY_S3FIFO] = &policy_s3fifo,
};

/* All that the policy has, once for its size and once for good. */
static void take_all(struct policy *p, struct policy_memory *m) {
    policy_take(m, 1, p->functions->bytes);
    p->expert = policy_take(m, p->options.n_slots, sizeof *p->expert);
    p->functions->arrays(p, m);
}

static struct policy *policy_new(const struct policy_options *o) {
    const struct policy_functions *functions = kinds[o->kind];
    struct policy_memory none = { NULL, 0 }, m = { NULL, 0 };
    struct policy *sizes = calloc(1, functions->bytes), *p = NULL;
    if (sizes) {
        *sizes = (struct policy){ .functions = functions, .options = *o };
        take_all(sizes, &none);
        p = calloc(1, none.used);
    }
    free(sizes);
    if (!p)
        return NULL;
    *p = (struct policy){ .functions = functions, .options = *o };
    m.block = (char *)p;
    take_all(p, &m);
    return p;
}

enum status policy_open(struct policy **out, const struct policy_options *options,
                        struct err *err) {
    assert(options->kind < POLICY_KINDS && options->n_layers && options->n_experts);
    struct policy *p = *out = policy_new(options);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory to rank %u expert slots", options->n_slots);
    for (uint32_t slot = 0; slot < options->n_slots; slot++)
        p->expert[slot] = POLICY_NONE;
    p->functions->open(p);
    return OK;
}

void policy_close(struct policy *p) {
    free(p); // one block
}

const char *policy_name(enum policy_kind kind) {
    return kinds[kind]->name;
}

void policy_demand(struct policy *p, uint32_t layer) {
    assert(layer < p->options.n_layers);
    if (p->functions->demand)
        p->functions->demand(p, layer);
}

void policy_foretell(struct policy *p, uint32_t layer) {
    assert(layer < p->options.n_layers);
    if (p->functions->foretell)
        p->functions->foretell(p, layer);
}

void policy_touch(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch) {
    assert(slot < p->options.n_slots);
    assert(expert < p->options.n_layers * p->options.n_experts);
    assert(p->expert[slot] == POLICY_NONE || p->expert[slot] == expert);
    p->functions->touch(p, slot, expert, touch);
    p->expert[slot] = expert;
}

void policy_forget(struct policy *p, uint32_t slot) {
    assert(slot < p->options.n_slots);
    if (p->expert[slot] == POLICY_NONE)
        return;
    p->functions->forget(p, slot);
    p->expert[slot] = POLICY_NONE;
}

uint32_t policy_victim(struct policy *p, const struct policy_judge *judge) {
    return p->functions->victim(p, judge);
}

bool policy_ranked(const struct policy *p, uint32_t slot) {
    return p->expert[slot] != POLICY_NONE;
}

void policy_check(const struct policy *p) {
    p->functions->check(p);
}

/* --- parts -------------------------------------------------------------------------------------- */

void *policy_take(struct policy_memory *m, size_t n, size_t size) {
    void *taken = m->block ? m->block + m->used : NULL;
    m->used += (n * size + 15) / 16 * 16;
    return taken;
}

bool queues_search(const struct queues *q, uint32_t queue, const struct policy_judge *judge,
                   uint32_t *slot) {
    for (uint32_t i = queues_oldest(q, queue); i < q->n_slots; i = queues_next(q, i)) {
        enum policy_verdict verdict = judge->verdict(judge->context, i);
        if (verdict == POLICY_SKIP)
            continue;
        *slot = verdict == POLICY_TAKE ? i : POLICY_NONE;
        return true;
    }
    *slot = POLICY_NONE;
    return false;
}

uint32_t queues_check(const struct queues *q) {
    uint32_t in_rings = 0, linked = 0;
    for (uint32_t queue = 0; queue < q->n_queues; queue++)
        for (uint32_t i = queues_oldest(q, queue); i < q->n_slots; i = queues_next(q, i)) {
            assert(q->nodes[q->nodes[i].younger].older == i);
            assert(q->nodes[q->nodes[i].older].younger == i);
            assert(in_rings < q->n_slots);
            in_rings++;
        }
    for (uint32_t slot = 0; slot < q->n_slots; slot++) {
        assert((q->nodes[slot].older == POLICY_NONE) == (q->nodes[slot].younger == POLICY_NONE));
        linked += queues_has(q, slot);
    }
    assert(in_rings == linked);
    (void)linked;
    return in_rings;
}

#define COUNT_MOST  15
#define COUNT_SHARE 8 // experts that one use halves, so that all are done in n / 8 uses

void counts_arrays(struct counts *c, const struct policy_options *o, struct policy_memory *m) {
    uint32_t n = o->n_layers * o->n_experts;
    *c = (struct counts){ .n = n, .cursor = n, .sample = 10 * o->n_slots };
    c->count = policy_take(m, n, sizeof *c->count);
    c->counted = policy_take(m, n, sizeof *c->counted);
}

/* A halving that is under way is ended before the next begins. */
bool counts_use(struct counts *c, uint32_t expert) {
    if (c->counted[expert] == c->now + 1)
        return false;
    c->counted[expert] = c->now + 1;
    if (c->count[expert] < COUNT_MOST)
        c->count[expert]++;
    if (++c->n_uses >= c->sample && c->cursor == c->n)
        c->n_uses = c->cursor = 0;
    for (uint32_t i = 0; i < COUNT_SHARE && c->cursor < c->n; i++)
        c->count[c->cursor++] >>= 1;
    return true;
}
