#include "cache/slots_parts.h"

/* A demand looks for a slot for the expert at `position`. */
struct search {
    struct slots *s;
    const struct claim *claim;
    uint32_t position;
    uint32_t loading;      /* the youngest load that nobody waits for and that may go; or NONE */
    uint32_t n_cancelling; /* such loads that are going already */
    bool own_first;        /* the slot whose turn it is waits to be handed to this demand */
    bool op_first;         /* the slot whose turn it is is in use by an op */
};

/* Who waits for the expert in a slot, as the searching demand sees it. */
enum waiter {
    WAITER_OLDER, /* an older demand */
    WAITER_OWN,   /* this one, before `position`, and no older one */
    WAITER_AFTER  /* only younger demands, or this one later: they have to yield */
};

/* ANY_ORDER hands out whatever is there: all of its own come before what is not.
 *
 * This and the walk over slots that may not go cost 7 us for an expert at worst (a pass over 384
 * experts in 300 slots that hold most of them); its read takes 5 ms. */
static enum waiter first_waiter(const struct search *search, uint32_t expert) {
    const struct slots *s = search->s;
    for (uint32_t i = 0;; i++) {
        const struct claim *c = &s->claims[s->by_age[i]];
        uint32_t position = claim_waits(c, expert);
        if (c == search->claim) {
            bool before = c->order == ANY_ORDER || position < search->position;
            return position != NONE && before ? WAITER_OWN : WAITER_AFTER;
        }
        if (position != NONE)
            return WAITER_OLDER;
    }
}

static enum policy_verdict search_verdict(void *context, uint32_t slot) {
    struct search *search = context;
    struct cell *cell = &search->s->cells[slot];
    if (cell->state == SLOT_LOADING && !cell->waiting) {
        if (cell->cancelling)
            search->n_cancelling++;
        else
            search->loading = slot;
        return POLICY_SKIP;
    }
    if (cell->users)
        return POLICY_SKIP; // the caller may keep it until it has the next
    if (cell->waiting) {
        // What this demand is about to be handed is the next to be free. To take another that
        // happens to be free by now would make reads depend on the clock.
        search->own_first = first_waiter(search, cell->expert) == WAITER_OWN;
        return search->own_first ? POLICY_WAIT : POLICY_SKIP;
    }
    if (!slot_hold_over(cell)) {
        search->s->blocked_on = cell->after[0];
        search->op_first = true;
        return POLICY_WAIT;
    }
    return POLICY_TAKE;
}

/* A resident that waits for a younger demand or for its own later turn: of these the one that is
 * needed last. */
static uint32_t yielding_victim(const struct search *search) {
    struct slots *s = search->s;
    for (uint32_t a = s->n_claims; a-- > 0;) {
        const struct claim *c = &s->claims[s->by_age[a]];
        for (uint32_t i = c->n_experts; i-- > 0;) {
            uint32_t slot = s->slot_of[c->experts[i]];
            if (mark_of(c, i) != MARK_WAITS || slot == NONE)
                continue;
            struct cell *cell = &s->cells[slot];
            if (cell->state != SLOT_READY || cell->users)
                continue;
            if (first_waiter(search, cell->expert) != WAITER_AFTER)
                continue;
            if (slot_hold_over(cell))
                return slot;
            s->blocked_on = cell->after[0];
            return NONE;
        }
        if (c == search->claim)
            break;
    }
    return NONE;
}

static uint32_t n_lacking(const struct slots *s, const struct claim *c) {
    uint32_t n = 0;
    for (uint32_t i = c->cursor; i < c->n_experts; i++)
        n += mark_of(c, i) == MARK_WAITS && s->slot_of[c->experts[i]] == NONE;
    return n;
}

/* An EMPTY slot for a demand, or NONE: it has to wait. */
uint32_t claim_slot(struct slots *s, const struct claim *c, uint32_t position) {
    if (!s->n_free && s->n_cold)
        slot_evict(s, s->cold[s->n_cold - 1]);
    if (s->n_free)
        return s->free[--s->n_free];
    struct search search = { .s = s, .claim = c, .position = position, .loading = NONE };
    struct policy_judge judge = { .verdict = search_verdict, .context = &search };
    uint32_t victim = policy_victim(s->policy, &judge);
    if (victim == NONE) {
        if (search.op_first)
            return NONE;
        if (search.loading != NONE && search.n_cancelling < n_lacking(s, c)) {
            slot_load_cancel(s, search.loading); // the youngest has hardly reached the device
            s->cancelled_one = true;
        } else if (search.loading == NONE && !search.n_cancelling && !search.own_first) {
            victim = yielding_victim(&search);
        }
        if (victim == NONE)
            return NONE;
    }
    slot_evict(s, victim);
    return s->free[--s->n_free];
}

static enum policy_verdict prefetch_verdict(void *context, uint32_t slot) {
    struct cell *cell = &((struct slots *)context)->cells[slot];
    bool idle = cell->state == SLOT_READY && !cell->waiting && !cell->users && slot_hold_over(cell);
    return idle && !cell->speculative ? POLICY_TAKE : POLICY_SKIP;
}

uint32_t slots_prefetch_victim(struct slots *s) {
    struct policy_judge judge = { .verdict = prefetch_verdict, .context = s };
    if (s->n_cold)
        return s->cold[s->n_cold - 1];
    return policy_victim(s->policy, &judge);
}

/* Cold slots go before anything that the policy ranks: nobody has used them, or they would not be
 * cold, so none of them is held. Their order does not matter. */
void cold_join(struct slots *s, uint32_t slot) {
    s->cells[slot].speculative = false;
    s->cold[s->n_cold++] = slot;
    s->cells[slot].cold_at = s->n_cold;
}

void cold_leave(struct slots *s, uint32_t slot) {
    uint32_t at = s->cells[slot].cold_at;
    if (!at)
        return;
    s->cells[slot].cold_at = 0;
    uint32_t last = s->cold[--s->n_cold];
    if (last == slot)
        return;
    s->cold[at - 1] = last;
    s->cells[last].cold_at = at;
}
