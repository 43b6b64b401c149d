#include "cache/slots_parts.h"

/* Give the demand's experts slots and issue their reads, in order, as far as slots go. False if
 * one more is lacking. */
static bool claim_fill(struct slots *s, struct claim *c) {
    for (; c->cursor < c->n_experts; c->cursor++) {
        uint32_t position = c->cursor, expert = c->experts[position], slot = s->slot_of[expert];
        bool waits = mark_of(c, position) == MARK_WAITS;
        if (slot == NONE && waits) {
            slot = claim_slot(s, c, position);
            if (slot == NONE)
                return false;
            slot_load(s, slot, expert, true);
            c->marks[position] |= MARK_COUNTED; // as a miss, once it is read
        } else if (slot != NONE) {
            // Touched again, so that the order of eviction is ascending within the demand.
            policy_touch(s->policy, slot, expert, POLICY_USE);
            if (waits)
                claim_count(s, c, position);
        }
    }
    return true;
}

/* Oldest first. A demand with a load that failed stands still until it is asked again: whether it
 * goes on is the caller's decision. */
static void fill_claims(struct slots *s) {
    s->blocked_on = event_now();
    s->cancelled_one = false;
    for (uint32_t i = 0; i < s->n_claims; i++) {
        struct claim *c = &s->claims[s->by_age[i]];
        if (!c->n_failed && !claim_fill(s, c))
            return;
    }
}

static void slot_load_failed(struct slots *s, struct cell *cell) {
    s->stats.failed++;
    for (uint32_t i = 0; i < s->n_claims; i++) {
        struct claim *c = &s->claims[s->by_age[i]];
        uint32_t position = claim_waits(c, cell->expert);
        if (position == NONE)
            continue;
        mark_set(c, position, MARK_FAILED);
        c->n_failed++;
        c->news = true;
        request_error(s->options.reader, &cell->request, &c->failure); // the first one wins
    }
}

static void slot_empty(struct slots *s, uint32_t slot) {
    struct cell *cell = &s->cells[slot];
    policy_forget(s->policy, slot);
    cold_leave(s, slot);
    s->slot_of[cell->expert] = NONE;
    cell->state = SLOT_EMPTY;
    cell->expert = NONE;
    cell->waiting = 0;
    cell->speculative = cell->cancelling = false;
    s->free[s->n_free++] = slot;
}

void slot_evict(struct slots *s, uint32_t slot) {
    struct cell *cell = &s->cells[slot];
    assert(cell->state == SLOT_READY && !cell->users && !cell->n_after);
    for (uint32_t i = 0; cell->waiting && i < s->n_claims; i++) {
        struct claim *c = &s->claims[s->by_age[i]];
        uint32_t position = claim_waits(c, cell->expert);
        if (position == NONE)
            continue;
        cell->waiting--;
        claim_not_resident(c, position);
        if (c->cursor > position)
            c->cursor = position; // it is read again
    }
    s->stats.evicted++;
    slot_empty(s, slot);
}

/* Polled when the slot's turn to go has come, not before. */
bool slot_hold_over(struct cell *cell) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cell->n_after; i++)
        if (!event_ready(cell->after[i]))
            cell->after[kept++] = cell->after[i];
    cell->n_after = kept;
    return !cell->users && !kept;
}

/* Read an expert into a slot that was taken off the stack of EMPTY ones. */
void slot_load(struct slots *s, uint32_t slot, uint32_t expert, bool for_demand) {
    struct cell *cell = &s->cells[slot];
    const struct expert_source *source = &s->options.source;
    struct extents_layout layout;
    source->layout(source->context, expert, &layout);
    assert(layout.bytes <= s->options.slot_bytes);

    cell->state = SLOT_LOADING;
    cell->expert = expert;
    cell->read_bytes = layout.bytes;
    cell->for_demand = for_demand;
    cell->speculative = !for_demand;
    cell->cancelling = false;
    cell->waiting = 0;
    for (uint32_t i = 0; i < s->n_claims; i++)
        cell->waiting += claim_waits(&s->claims[s->by_age[i]], expert) != NONE;
    s->slot_of[expert] = slot;
    s->n_loading++;
    policy_touch(s->policy, slot, expert, for_demand ? POLICY_USE : POLICY_PREDICT);

    cell->request = (struct request){ .priority = for_demand ? READ_DEMAND : READ_PREFETCH,
                                      .owner = cell,
                                      .label = 1 + (uint64_t)expert };
    request_bind(&cell->request, &layout, cell->data);
    reader_submit(s->options.reader, &cell->request);
}

void slot_load_cancel(struct slots *s, uint32_t slot) {
    struct cell *cell = &s->cells[slot];
    if (cell->cancelling)
        return;
    cell->cancelling = true;
    reader_cancel(s->options.reader, &cell->request);
}

/* A demand that joined a load after it was cancelled has it read after all, in the same slot. */
static void slot_load_cancelled(struct slots *s, struct cell *cell) {
    uint32_t slot = (uint32_t)(cell - s->cells);
    assert(cell->cancelling);
    s->stats.prefetch_cancelled += cell->speculative;
    if (cell->waiting)
        slot_load(s, slot, cell->expert, true);
    else
        slot_empty(s, slot);
}

static bool is_ours(const struct slots *s, const struct request *request) {
    uintptr_t at = (uintptr_t)request, first = (uintptr_t)s->cells;
    return at >= first && at < first + s->options.n_slots * sizeof *s->cells;
}

/* Take in what the reader has finished, whoever waits for it. */
void slots_drain(struct slots *s) {
    for (struct request *request; (request = reader_next(s->options.reader));) {
        if (!is_ours(s, request)) {
            s->options.other_ended(s->options.other_context, request);
            continue;
        }
        struct cell *cell = request->owner;
        assert(cell->state == SLOT_LOADING && request == &cell->request);
        s->n_loading--;
        if (request->status == CANCELLED) {
            slot_load_cancelled(s, cell);
        } else if (request->status != OK) {
            slot_load_failed(s, cell);
            slot_empty(s, (uint32_t)(cell - s->cells));
        } else {
            cell->state = SLOT_READY;
            if (cell->cancelling && cell->speculative)
                cold_join(s, (uint32_t)(cell - s->cells));
            cell->cancelling = false;
            if (cell->for_demand) {
                s->stats.misses++;
                s->stats.miss_bytes += cell->read_bytes;
            }
            for (uint32_t i = 0; cell->waiting && i < s->n_claims; i++) {
                struct claim *c = &s->claims[s->by_age[i]];
                c->news |= claim_waits(c, cell->expert) != NONE;
            }
        }
    }
}

/* A prefetch that had to be cancelled for a demand may have left its slot at once. */
void slots_take_in(struct slots *s) {
    do {
        slots_drain(s);
        fill_claims(s);
    } while (s->cancelled_one);
}
