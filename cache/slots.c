#include "cache/slots_parts.h"

#include <stdlib.h>

#define CLOSE_WAIT_NS 100000000ull /* between two looks while closing; only a bound on one wait */

/* --- open and close --------------------------------------------------------------------------- */

static enum status options_check(const struct slots_options *o, struct err *err) {
    if (o->n_slots < 2)
        return err_set(err, ERR_USAGE, "%u expert slots: two are the least", o->n_slots);
    if (!o->slot_bytes || o->slot_bytes % READER_ALIGN)
        return err_set(err, ERR_USAGE, "expert slots of %llu bytes: not a multiple of %d",
                       (unsigned long long)o->slot_bytes, READER_ALIGN);
    if (!o->memory || (uintptr_t)o->memory % READER_ALIGN)
        return err_set(err, ERR_USAGE, "memory of the expert slots is not aligned to %d bytes",
                       READER_ALIGN);
    if (!o->n_experts_total || o->n_experts_total == NONE || !o->max_demands)
        return err_set(err, ERR_USAGE, "expert slots without experts or without demands");
    if (!o->n_layers || o->n_experts_total % o->n_layers)
        return err_set(err, ERR_USAGE, "%u experts in %u layers", o->n_experts_total, o->n_layers);
    return OK;
}

enum status slots_open(struct slots **out, const struct slots_options *options, struct err *err) {
    *out = NULL;
    enum status status = options_check(options, err);
    if (status != OK)
        return status;
    assert(options->reader && options->source.layout);
    struct slots *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ERR_MEMORY, "no memory for the table of expert slots");
    s->options = *options; // slots_close is safe from here on
    s->cells = calloc(options->n_slots, sizeof *s->cells);
    s->free = malloc(options->n_slots * sizeof *s->free);
    s->cold = malloc(options->n_slots * sizeof *s->cold);
    s->slot_of = malloc(options->n_experts_total * sizeof *s->slot_of);
    s->claims = calloc(options->max_demands, sizeof *s->claims);
    s->by_age = malloc(options->max_demands * sizeof *s->by_age);
    if (!s->cells || !s->free || !s->cold || !s->slot_of || !s->claims || !s->by_age) {
        status = err_set(err, ERR_MEMORY, "no memory for the table of %u expert slots",
                         options->n_slots);
        goto fail;
    }
    struct policy_options policy = { .kind = options->policy,
                                     .n_slots = options->n_slots,
                                     .n_layers = options->n_layers,
                                     .n_experts = options->n_experts_total / options->n_layers };
    status = policy_open(&s->policy, &policy, err);
    if (status != OK)
        goto fail;
    for (uint32_t expert = 0; expert < options->n_experts_total; expert++)
        s->slot_of[expert] = NONE;
    for (uint32_t slot = options->n_slots; slot-- > 0;) {
        s->cells[slot].data = options->memory + slot * options->slot_bytes;
        s->cells[slot].expert = NONE;
        s->free[s->n_free++] = slot; // the lowest on top
    }
    *out = s;
    return OK;
fail:
    slots_close(s);
    return status;
}

void slots_close(struct slots *s) {
    if (!s)
        return;
    assert(s->n_claims == 0);
    if (s->n_loading) {
        for (uint32_t slot = 0; slot < s->options.n_slots; slot++)
            if (s->cells[slot].state == SLOT_LOADING)
                slot_load_cancel(s, slot);
        for (slots_drain(s); s->n_loading; slots_drain(s))
            event_wait(reader_event(s->options.reader), CLOSE_WAIT_NS);
    }
    for (uint32_t slot = 0; s->cells && slot < s->options.n_slots; slot++)
        assert(s->cells[slot].users == 0);
    policy_close(s->policy);
    free(s->cells);
    free(s->free);
    free(s->cold);
    free(s->slot_of);
    free(s->claims);
    free(s->by_age);
    free(s);
}

/* --- demands ---------------------------------------------------------------------------------- */

enum status slots_demand(struct slots *s, const uint32_t *experts, uint32_t n_experts,
                         enum demand_order order, uint8_t *handed, struct demand *out,
                         struct err *err) {
    *out = (struct demand){ .slots = s };
    for (uint32_t i = 0; i < n_experts; i++) {
        if (experts[i] >= s->options.n_experts_total)
            return err_set(err, ERR_USAGE, "expert %u was asked for: there are %u", experts[i],
                           s->options.n_experts_total);
        if (i && experts[i] <= experts[i - 1])
            return err_set(err, ERR_USAGE, "experts asked for are not ascending: %u after %u",
                           experts[i], experts[i - 1]);
    }
    if (s->n_claims == s->options.max_demands)
        return err_set(err, ERR_USAGE, "%u demands are open, the most that were announced",
                       s->n_claims);
    slots_drain(s); // what has arrived counts as resident

    uint32_t entry = 0;
    while (s->claims[entry].open)
        entry++;
    struct claim *c = &s->claims[entry];
    *c = (struct claim){ .open = true,
                         .order = order,
                         .age = s->next_age++,
                         .experts = experts,
                         .marks = handed,
                         .n_experts = n_experts };
    s->by_age[s->n_claims++] = entry;
    s->stats.demanded += n_experts;
    if (n_experts) // the experts of one demand are of one layer
        policy_demand(s->policy, experts[0] / (s->options.n_experts_total / s->options.n_layers));
    for (uint32_t i = 0; i < n_experts; i++) {
        handed[i] = MARK_WAITS;
        claim_wait(s, c, i);
        uint32_t slot = s->slot_of[experts[i]];
        if (slot == NONE)
            continue;
        // What this demand is going to use is younger than whatever it does not use.
        policy_touch(s->policy, slot, experts[i], POLICY_USE);
        if (order == ANY_ORDER && s->cells[slot].state == SLOT_READY) {
            handed[i] |= MARK_RESIDENT;
            c->n_resident++;
        }
    }
    *out = (struct demand){ .slots = s,
                            .experts = experts,
                            .n_experts = n_experts,
                            .order = order,
                            .slot_in_table = entry,
                            .open = true };
    slots_take_in(s);
    return OK;
}

enum status slots_next(struct demand *d, struct slot *out, struct err *err) {
    if (!d->open)
        return DONE;
    struct slots *s = d->slots;
    struct claim *c = &s->claims[d->slot_in_table];
    assert(c->open && c->experts == d->experts);
    slots_drain(s);
    claim_retry(s, c);
    slots_take_in(s);
    if (c->failure.status != OK)
        return claim_tell(c, err);
    if (c->n_handed == c->n_experts) {
        claim_close(s, c);
        d->open = false;
        return DONE;
    }
    uint32_t position = claim_ready(s, c);
    if (position == NONE) {
        c->news = false;
        return AGAIN;
    }
    claim_hand(s, c, position, out);
    d->n_handed = c->n_handed;
    return OK;
}

/* Of two points on one counter only the later matters. */
void slots_release(struct slots *s, const struct slot *slot, struct event after) {
    assert(slot->index < s->options.n_slots);
    struct cell *cell = &s->cells[slot->index];
    assert(cell->state == SLOT_READY && cell->expert == slot->expert && cell->users > 0);
    cell->users--;
    if (!event_ready(after)) {
        uint32_t i = 0;
        while (i < cell->n_after && cell->after[i].source != after.source)
            i++;
        assert(i < SLOT_EVENT_SOURCES);
        if (i == cell->n_after)
            cell->after[cell->n_after++] = after;
        else if (cell->after[i].value < after.value)
            cell->after[i] = after;
    }
    slots_take_in(s);
}

void slots_abandon(struct demand *d) {
    if (!d->open)
        return;
    d->open = false;
    struct slots *s = d->slots;
    struct claim *c = &s->claims[d->slot_in_table];
    slots_drain(s);
    for (uint32_t i = 0; i < c->n_experts; i++) {
        uint32_t slot = s->slot_of[c->experts[i]];
        if (mark_of(c, i) != MARK_WAITS || slot == NONE)
            continue;
        struct cell *cell = &s->cells[slot];
        cell->waiting--;
        if (cell->state == SLOT_LOADING && !cell->waiting)
            slot_load_cancel(s, slot);
    }
    claim_close(s, c);
    slots_take_in(s);
}

enum slots_prefetched slots_prefetch(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    slots_take_in(s);
    uint32_t slot = s->slot_of[expert];
    if (slot != NONE) {
        if (s->cells[slot].cancelling)
            return SLOTS_NO_ROOM;
        policy_touch(s->policy, slot, expert, POLICY_PREDICT);
        cold_leave(s, slot); // predicted again: as good as any resident
        return SLOTS_HELD;
    }
    for (uint32_t i = 0; i < s->n_claims; i++) {
        const struct claim *c = &s->claims[s->by_age[i]];
        if (c->cursor < c->n_experts)
            return SLOTS_NO_ROOM;
    }
    if (!s->n_free) {
        uint32_t victim = slots_prefetch_victim(s);
        if (victim == NONE)
            return SLOTS_NO_ROOM;
        slot_evict(s, victim);
    }
    s->stats.prefetched++;
    slot_load(s, s->free[--s->n_free], expert, false);
    return SLOTS_QUEUED;
}

void slots_prefetch_cancel(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    slots_take_in(s);
    uint32_t slot = s->slot_of[expert];
    if (slot == NONE || !s->cells[slot].speculative)
        return;
    if (s->cells[slot].state == SLOT_LOADING)
        slot_load_cancel(s, slot);
    else
        cold_join(s, slot);
    slots_take_in(s); // a read that was only queued has ended by that
}

struct event slots_event(struct slots *s) {
    for (uint32_t i = 0; i < s->n_claims; i++)
        if (s->claims[s->by_age[i]].news)
            return event_now();
    // A read that could be issued is worth waking up for before one that will end.
    if (s->blocked_on.source)
        return s->blocked_on;
    return reader_event(s->options.reader);
}

void slots_foretell(struct slots *s, uint32_t layer) {
    policy_foretell(s->policy, layer);
}

struct request_progress slots_progress(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    slots_drain(s);
    uint32_t slot = s->slot_of[expert];
    if (slot == NONE)
        return (struct request_progress){ 0, 0 };
    const struct cell *cell = &s->cells[slot];
    if (cell->state == SLOT_READY)
        return (struct request_progress){ cell->read_bytes, 0 };
    return reader_progress(s->options.reader, &cell->request);
}

enum slot_state slots_state(const struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    uint32_t slot = s->slot_of[expert];
    return slot == NONE ? SLOT_EMPTY : s->cells[slot].state;
}

void slots_stats(const struct slots *s, struct slots_stats *out) {
    *out = s->stats;
}
