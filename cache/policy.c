#include "cache/policy.h"

#include <assert.h>
#include <stdlib.h>

/* LRU: a ring through all ranked slots, oldest touch to youngest. Node n_slots is the ring's
 * anchor: after it comes the oldest, before it the youngest. */
struct node {
    uint32_t older, younger; /* POLICY_NONE: not ranked */
};

struct policy {
    uint32_t n_slots;
    struct node nodes[];
};

enum status policy_open(struct policy **out, uint32_t n_slots, struct err *err) {
    *out = NULL;
    struct policy *p = malloc(sizeof *p + ((size_t)n_slots + 1) * sizeof p->nodes[0]);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory to rank %u expert slots", n_slots);
    p->n_slots = n_slots;
    for (uint32_t slot = 0; slot < n_slots; slot++)
        p->nodes[slot] = (struct node){ POLICY_NONE, POLICY_NONE };
    p->nodes[n_slots] = (struct node){ n_slots, n_slots };
    *out = p;
    return OK;
}

void policy_close(struct policy *p) {
    free(p);
}

void policy_touch(struct policy *p, uint32_t slot) {
    policy_forget(p, slot);
    uint32_t anchor = p->n_slots;
    uint32_t youngest = p->nodes[anchor].older;
    p->nodes[slot] = (struct node){ .older = youngest, .younger = anchor };
    p->nodes[youngest].younger = slot;
    p->nodes[anchor].older = slot;
}

void policy_forget(struct policy *p, uint32_t slot) {
    assert(slot < p->n_slots);
    struct node node = p->nodes[slot];
    if (node.older == POLICY_NONE)
        return;
    p->nodes[node.older].younger = node.younger;
    p->nodes[node.younger].older = node.older;
    p->nodes[slot] = (struct node){ POLICY_NONE, POLICY_NONE };
}

uint32_t policy_victim(struct policy *p, const struct policy_judge *judge) {
    uint32_t anchor = p->n_slots;
    for (uint32_t slot = p->nodes[anchor].younger; slot != anchor; slot = p->nodes[slot].younger) {
        enum policy_verdict verdict = judge->verdict(judge->context, slot);
        if (verdict == POLICY_TAKE)
            return slot;
        if (verdict == POLICY_WAIT)
            break;
    }
    return POLICY_NONE;
}

bool policy_ranked(const struct policy *p, uint32_t slot) {
    return p->nodes[slot].older != POLICY_NONE;
}

void policy_check(const struct policy *p) {
    uint32_t anchor = p->n_slots, in_ring = 0, ranked = 0;
    for (uint32_t slot = p->nodes[anchor].younger; slot != anchor; slot = p->nodes[slot].younger) {
        assert(slot < p->n_slots);
        assert(p->nodes[p->nodes[slot].younger].older == slot);
        assert(p->nodes[p->nodes[slot].older].younger == slot);
        assert(in_ring < p->n_slots);
        in_ring++;
    }
    for (uint32_t slot = 0; slot < p->n_slots; slot++) {
        assert((p->nodes[slot].older == POLICY_NONE) == (p->nodes[slot].younger == POLICY_NONE));
        ranked += p->nodes[slot].older != POLICY_NONE;
    }
    assert(in_ring == ranked);
    (void)in_ring, (void)ranked;
}
