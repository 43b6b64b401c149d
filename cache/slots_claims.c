#include "cache/slots_parts.h"

#include <string.h>

/* Where an expert stands in a demand, or NONE. */
static uint32_t claim_position(const struct claim *c, uint32_t expert) {
    uint32_t low = 0, high = c->n_experts;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->experts[middle] < expert)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->n_experts && c->experts[low] == expert ? low : NONE;
}

/* Likewise, if the demand waits for it. */
uint32_t claim_waits(const struct claim *c, uint32_t expert) {
    uint32_t position = claim_position(c, expert);
    return position != NONE && mark_of(c, position) == MARK_WAITS ? position : NONE;
}

/* The demand waits for this expert from now on; it joins a load under way. */
void claim_wait(struct slots *s, struct claim *c, uint32_t position) {
    mark_set(c, position, MARK_WAITS);
    uint32_t slot = s->slot_of[c->experts[position]];
    if (slot == NONE)
        return;
    struct cell *cell = &s->cells[slot];
    cell->waiting++;
    cold_leave(s, slot);
    if (!cell->speculative)
        return;
    cell->speculative = false;
    s->stats.prefetch_used++;
    if (cell->state == SLOT_LOADING)
        reader_promote(s->options.reader, &cell->request, READ_DEMAND);
}

void claim_count(struct slots *s, struct claim *c, uint32_t position) {
    if (c->marks[position] & MARK_COUNTED)
        return;
    c->marks[position] |= MARK_COUNTED;
    if (s->cells[s->slot_of[c->experts[position]]].state == SLOT_READY)
        s->stats.hits++;
    else
        s->stats.joined++;
}

void claim_not_resident(struct claim *c, uint32_t position) {
    if (!(c->marks[position] & MARK_RESIDENT))
        return;
    c->marks[position] &= (uint8_t)~MARK_RESIDENT;
    c->n_resident--;
}

/* The expert to hand out next, or NONE. */
uint32_t claim_ready(const struct slots *s, const struct claim *c) {
    for (uint32_t i = c->first; i < c->n_experts; i++) {
        uint32_t slot = s->slot_of[c->experts[i]];
        bool ready =
            mark_of(c, i) == MARK_WAITS && slot != NONE && s->cells[slot].state == SLOT_READY;
        if (ready && (!c->n_resident || c->marks[i] & MARK_RESIDENT))
            return i;
        if (c->order == IN_ORDER)
            break;
    }
    return NONE;
}

void claim_hand(struct slots *s, struct claim *c, uint32_t position, struct slot *out) {
    uint32_t slot = s->slot_of[c->experts[position]];
    struct cell *cell = &s->cells[slot];
    claim_count(s, c, position);
    claim_not_resident(c, position);
    mark_set(c, position, MARK_HANDED);
    c->n_handed++;
    while (c->first < c->n_experts && mark_of(c, c->first) == MARK_HANDED)
        c->first++;
    cell->waiting--;
    cell->users++;
    *out = (struct slot){ .data = cell->data, .expert = cell->expert, .index = slot };
}

/* The caller gets to know that loads failed. */
enum status claim_tell(struct claim *c, struct err *err) {
    for (uint32_t i = c->first; i < c->n_experts; i++)
        if (mark_of(c, i) == MARK_FAILED) {
            mark_set(c, i, MARK_TOLD);
            c->n_told++;
        }
    enum status status = c->failure.status;
    err_set(err, status, "%s", c->failure.text);
    err_clear(&c->failure);
    return status;
}

/* The caller asks again for what it knows has failed. */
void claim_retry(struct slots *s, struct claim *c) {
    for (uint32_t i = c->first; c->n_told; i++) {
        if (mark_of(c, i) != MARK_TOLD)
            continue;
        c->n_told--;
        c->n_failed--;
        claim_wait(s, c, i);
        if (c->cursor > i)
            c->cursor = i;
    }
}

void claim_close(struct slots *s, struct claim *c) {
    uint32_t entry = (uint32_t)(c - s->claims), i = 0;
    while (s->by_age[i] != entry)
        i++;
    s->n_claims--;
    memmove(&s->by_age[i], &s->by_age[i + 1], (s->n_claims - i) * sizeof s->by_age[0]);
    c->open = false;
}
