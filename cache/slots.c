#include "cache/slots.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE          UINT32_MAX
#define CLOSE_WAIT_NS 100000000ull /* between two looks while closing; only a bound on one wait */

/* One slot. */
struct cell {
    enum slot_state state;
    uint32_t expert;
    uint32_t waiting; /* open demands that wait for this expert */
    uint32_t users;   /* times handed out and not released */
    uint32_t n_after;
    struct event after[SLOT_EVENT_SOURCES]; /* of holds that were released: they end there */
    unsigned char *data;
    uint64_t read_bytes;
    bool for_demand;  /* why the read was issued: a miss, or a prefetch */
    bool speculative; /* a prefetch that no demand has asked for so far, and not taken back */
    bool cancelling;  /* reader_cancel was called; the request has not ended yet */
    uint32_t cold_at; /* 1 + its place among the cold ones; 0: not one of them */
    struct request request;
};

/* The caller's byte for each expert of a demand. */
enum mark {
    MARK_WAITS,
    MARK_HANDED,
    MARK_FAILED, /* its load failed; the caller does not know yet */
    MARK_TOLD,   /* the caller knows: asking again retries */
    MARK_STATE = 0x03,
    MARK_RESIDENT = 0x40, /* WAITS, and READY ever since an ANY_ORDER demand was opened */
    MARK_COUNTED = 0x80   /* in the statistics, as a hit, joined, or a miss */
};

/* An open demand's claim on slots. Experts before `cursor` that wait have a slot, LOADING or READY;
 * those from `cursor` on get one in their turn, unless they are resident. */
struct claim {
    bool open;
    bool news; /* a load ended since slots_next last said AGAIN */
    enum demand_order order;
    uint64_t age; /* lower is older */
    const uint32_t *experts;
    uint8_t *marks;
    uint32_t n_experts;
    uint32_t cursor;
    uint32_t first; /* all before it were handed out */
    uint32_t n_handed, n_resident, n_failed /* told ones included */, n_told;
    struct err failure; /* not told yet */
};

struct slots {
    struct slots_options options;
    struct policy *policy;
    struct cell *cells;
    uint32_t *slot_of; /* by expert; NONE */
    uint32_t *free;    /* a stack of the EMPTY slots */
    uint32_t *cold;    /* READY: prefetches taken back too late, and not asked for since */
    uint32_t n_free, n_loading, n_cold;
    struct claim *claims;
    uint32_t *by_age; /* claims that are open, oldest first */
    uint32_t n_claims;
    uint64_t next_age;
    struct event blocked_on; /* the hold whose end lets the oldest unserved demand go on */
    bool cancelled_one;      /* fill_claims asked for a prefetch to be cancelled */
    struct slots_stats stats;
};

static void drain(struct slots *s);
static void advance(struct slots *s);
static void claim_retry(struct slots *s, struct claim *c);
static enum status claim_tell(struct claim *c, struct err *err);
static uint32_t claim_ready(const struct slots *s, const struct claim *c);
static void claim_hand(struct slots *s, struct claim *c, uint32_t position, struct slot *out);
static void claim_wait(struct slots *s, struct claim *c, uint32_t position);
static void claim_close(struct slots *s, struct claim *c);
static uint32_t prefetch_victim(struct slots *s);
static void cold_join(struct slots *s, uint32_t slot);
static void cold_leave(struct slots *s, uint32_t slot);
static void load(struct slots *s, uint32_t slot, uint32_t expert, bool for_demand);
static void load_cancel(struct slots *s, uint32_t slot);
static void cell_evict(struct slots *s, uint32_t slot);
static bool hold_over(struct cell *cell);

static inline enum mark mark_of(const struct claim *c, uint32_t position) {
    return (enum mark)(c->marks[position] & MARK_STATE);
}

static void mark_set(struct claim *c, uint32_t position, enum mark mark) {
    c->marks[position] = (uint8_t)((c->marks[position] & ~MARK_STATE) | mark);
}

/* --- open and close ------------------------------------------------------------------------- */

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
                load_cancel(s, slot);
        for (drain(s); s->n_loading; drain(s))
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

/* --- demands -------------------------------------------------------------------------------- */

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
    drain(s); // what has arrived counts as resident

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
    advance(s);
    return OK;
}

enum status slots_next(struct demand *d, struct slot *out, struct err *err) {
    if (!d->open)
        return DONE;
    struct slots *s = d->slots;
    struct claim *c = &s->claims[d->slot_in_table];
    assert(c->open && c->experts == d->experts);
    drain(s);
    claim_retry(s, c);
    advance(s);
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
    advance(s);
}

void slots_abandon(struct demand *d) {
    if (!d->open)
        return;
    d->open = false;
    struct slots *s = d->slots;
    struct claim *c = &s->claims[d->slot_in_table];
    drain(s);
    for (uint32_t i = 0; i < c->n_experts; i++) {
        uint32_t slot = s->slot_of[c->experts[i]];
        if (mark_of(c, i) != MARK_WAITS || slot == NONE)
            continue;
        struct cell *cell = &s->cells[slot];
        cell->waiting--;
        if (cell->state == SLOT_LOADING && !cell->waiting)
            load_cancel(s, slot);
    }
    claim_close(s, c);
    advance(s);
}

bool slots_prefetch(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    advance(s);
    uint32_t slot = s->slot_of[expert];
    if (slot != NONE) {
        if (s->cells[slot].cancelling)
            return false;
        policy_touch(s->policy, slot, expert, POLICY_PREDICT);
        cold_leave(s, slot); // predicted again: as good as any resident
        return true;
    }
    for (uint32_t i = 0; i < s->n_claims; i++) {
        const struct claim *c = &s->claims[s->by_age[i]];
        if (c->cursor < c->n_experts)
            return false;
    }
    if (!s->n_free) {
        uint32_t victim = prefetch_victim(s);
        if (victim == NONE)
            return false;
        cell_evict(s, victim);
    }
    s->stats.prefetched++;
    load(s, s->free[--s->n_free], expert, false);
    return true;
}

void slots_prefetch_cancel(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    advance(s);
    uint32_t slot = s->slot_of[expert];
    if (slot == NONE || !s->cells[slot].speculative)
        return;
    if (s->cells[slot].state == SLOT_LOADING)
        load_cancel(s, slot);
    else
        cold_join(s, slot);
    advance(s); // a read that was only queued has ended by that
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

void slots_take_in(struct slots *s) {
    advance(s);
}

void slots_foretell(struct slots *s, uint32_t layer) {
    policy_foretell(s->policy, layer);
}

struct request_progress slots_progress(struct slots *s, uint32_t expert) {
    assert(expert < s->options.n_experts_total);
    drain(s);
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

/* --- one demand ----------------------------------------------------------------------------- */

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
static uint32_t claim_waits(const struct claim *c, uint32_t expert) {
    uint32_t position = claim_position(c, expert);
    return position != NONE && mark_of(c, position) == MARK_WAITS ? position : NONE;
}

/* The demand waits for this expert from now on; it joins a load under way. */
static void claim_wait(struct slots *s, struct claim *c, uint32_t position) {
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

static void claim_count(struct slots *s, struct claim *c, uint32_t position) {
    if (c->marks[position] & MARK_COUNTED)
        return;
    c->marks[position] |= MARK_COUNTED;
    if (s->cells[s->slot_of[c->experts[position]]].state == SLOT_READY)
        s->stats.hits++;
    else
        s->stats.joined++;
}

static void claim_not_resident(struct claim *c, uint32_t position) {
    if (!(c->marks[position] & MARK_RESIDENT))
        return;
    c->marks[position] &= (uint8_t)~MARK_RESIDENT;
    c->n_resident--;
}

/* The expert to hand out next, or NONE. */
static uint32_t claim_ready(const struct slots *s, const struct claim *c) {
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

static void claim_hand(struct slots *s, struct claim *c, uint32_t position, struct slot *out) {
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
static enum status claim_tell(struct claim *c, struct err *err) {
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
static void claim_retry(struct slots *s, struct claim *c) {
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

static void claim_close(struct slots *s, struct claim *c) {
    uint32_t entry = (uint32_t)(c - s->claims), i = 0;
    while (s->by_age[i] != entry)
        i++;
    s->n_claims--;
    memmove(&s->by_age[i], &s->by_age[i + 1], (s->n_claims - i) * sizeof s->by_age[0]);
    c->open = false;
}

/* --- whose turn it is to go ----------------------------------------------------------------- */

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
    if (!hold_over(cell)) {
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
            if (hold_over(cell))
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
static uint32_t slot_for(struct slots *s, const struct claim *c, uint32_t position) {
    if (!s->n_free && s->n_cold)
        cell_evict(s, s->cold[s->n_cold - 1]);
    if (s->n_free)
        return s->free[--s->n_free];
    struct search search = { .s = s, .claim = c, .position = position, .loading = NONE };
    struct policy_judge judge = { .verdict = search_verdict, .context = &search };
    uint32_t victim = policy_victim(s->policy, &judge);
    if (victim == NONE) {
        if (search.op_first)
            return NONE;
        if (search.loading != NONE && search.n_cancelling < n_lacking(s, c)) {
            load_cancel(s, search.loading); // the youngest has hardly reached the device
            s->cancelled_one = true;
        } else if (search.loading == NONE && !search.n_cancelling && !search.own_first) {
            victim = yielding_victim(&search);
        }
        if (victim == NONE)
            return NONE;
    }
    cell_evict(s, victim);
    return s->free[--s->n_free];
}

static enum policy_verdict prefetch_verdict(void *context, uint32_t slot) {
    struct cell *cell = &((struct slots *)context)->cells[slot];
    bool idle = cell->state == SLOT_READY && !cell->waiting && !cell->users && hold_over(cell);
    return idle && !cell->speculative ? POLICY_TAKE : POLICY_SKIP;
}

static uint32_t prefetch_victim(struct slots *s) {
    struct policy_judge judge = { .verdict = prefetch_verdict, .context = s };
    if (s->n_cold)
        return s->cold[s->n_cold - 1];
    return policy_victim(s->policy, &judge);
}

/* Cold slots go before anything that the policy ranks: nobody has used them, or they would not be
 * cold, so none of them is held. Their order does not matter. */
static void cold_join(struct slots *s, uint32_t slot) {
    s->cells[slot].speculative = false;
    s->cold[s->n_cold++] = slot;
    s->cells[slot].cold_at = s->n_cold;
}

static void cold_leave(struct slots *s, uint32_t slot) {
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

/* --- going on ------------------------------------------------------------------------------- */

/* Give the demand's experts slots and issue their reads, in order, as far as slots go. False if
 * one more is lacking. */
static bool claim_fill(struct slots *s, struct claim *c) {
    for (; c->cursor < c->n_experts; c->cursor++) {
        uint32_t position = c->cursor, expert = c->experts[position], slot = s->slot_of[expert];
        bool waits = mark_of(c, position) == MARK_WAITS;
        if (slot == NONE && waits) {
            slot = slot_for(s, c, position);
            if (slot == NONE)
                return false;
            load(s, slot, expert, true);
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

static void load_failed(struct slots *s, struct cell *cell) {
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

static void cell_empty(struct slots *s, uint32_t slot) {
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

static void cell_evict(struct slots *s, uint32_t slot) {
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
    cell_empty(s, slot);
}

/* Polled when the slot's turn to go has come, not before. */
static bool hold_over(struct cell *cell) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cell->n_after; i++)
        if (!event_ready(cell->after[i]))
            cell->after[kept++] = cell->after[i];
    cell->n_after = kept;
    return !cell->users && !kept;
}

/* Read an expert into a slot that was taken off the stack of EMPTY ones. */
static void load(struct slots *s, uint32_t slot, uint32_t expert, bool for_demand) {
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

static void load_cancel(struct slots *s, uint32_t slot) {
    struct cell *cell = &s->cells[slot];
    if (cell->cancelling)
        return;
    cell->cancelling = true;
    reader_cancel(s->options.reader, &cell->request);
}

/* A demand that joined a load after it was cancelled has it read after all, in the same slot. */
static void load_cancelled(struct slots *s, struct cell *cell) {
    uint32_t slot = (uint32_t)(cell - s->cells);
    assert(cell->cancelling);
    s->stats.prefetch_cancelled += cell->speculative;
    if (cell->waiting)
        load(s, slot, cell->expert, true);
    else
        cell_empty(s, slot);
}

static bool is_ours(const struct slots *s, const struct request *request) {
    uintptr_t at = (uintptr_t)request, first = (uintptr_t)s->cells;
    return at >= first && at < first + s->options.n_slots * sizeof *s->cells;
}

/* Take in what the reader has finished, whoever waits for it. */
static void drain(struct slots *s) {
    for (struct request *request; (request = reader_next(s->options.reader));) {
        if (!is_ours(s, request)) {
            s->options.other_ended(s->options.other_context, request);
            continue;
        }
        struct cell *cell = request->owner;
        assert(cell->state == SLOT_LOADING && request == &cell->request);
        s->n_loading--;
        if (request->status == CANCELLED) {
            load_cancelled(s, cell);
        } else if (request->status != OK) {
            load_failed(s, cell);
            cell_empty(s, (uint32_t)(cell - s->cells));
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
static void advance(struct slots *s) {
    do {
        drain(s);
        fill_claims(s);
    } while (s->cancelled_one);
}

/* --- checks --------------------------------------------------------------------------------- */

static void check_cell(const struct slots *s, uint32_t slot) {
    const struct cell *cell = &s->cells[slot];
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < s->n_claims; i++)
        waiting += claim_waits(&s->claims[s->by_age[i]], cell->expert) != NONE;
    assert(cell->waiting == (cell->state == SLOT_EMPTY ? 0 : waiting));
    assert(policy_ranked(s->policy, slot) == (cell->state != SLOT_EMPTY));
    assert(cell->n_after <= SLOT_EVENT_SOURCES);
    switch (cell->state) {
    case SLOT_EMPTY:
        assert(cell->expert == NONE && !cell->users && !cell->n_after);
        assert(!cell->speculative && !cell->cancelling);
        break;
    case SLOT_LOADING: // never held
        assert(s->slot_of[cell->expert] == slot && !cell->users && !cell->n_after);
        assert(!(cell->speculative && cell->waiting));
        break;
    case SLOT_READY:
        assert(s->slot_of[cell->expert] == slot && !cell->cancelling);
        assert(!(cell->speculative && (cell->waiting || cell->users)));
        break;
    }
    if (cell->cold_at) {
        assert(cell->state == SLOT_READY && !cell->speculative);
        assert(!cell->waiting && !cell->users && !cell->n_after);
        assert(cell->cold_at <= s->n_cold && s->cold[cell->cold_at - 1] == slot);
    }
    (void)waiting;
}

static void check_claim(const struct slots *s, const struct claim *c) {
    uint32_t handed = 0, resident = 0, failed = 0, told = 0;
    assert(c->open && c->cursor <= c->n_experts && c->first <= c->n_experts);
    for (uint32_t i = 0; i < c->n_experts; i++) {
        enum mark mark = mark_of(c, i);
        uint32_t slot = s->slot_of[c->experts[i]];
        assert(i == 0 || c->experts[i] > c->experts[i - 1]);
        assert(i >= c->first || mark == MARK_HANDED);
        assert(i != c->first || mark != MARK_HANDED);
        assert(c->order != IN_ORDER || mark != MARK_HANDED || i < c->first);
        assert(mark != MARK_WAITS || i >= c->cursor || slot != NONE);
        if (c->marks[i] & MARK_RESIDENT)
            assert(mark == MARK_WAITS && s->cells[slot].state == SLOT_READY);
        handed += mark == MARK_HANDED;
        resident += (c->marks[i] & MARK_RESIDENT) != 0;
        failed += mark == MARK_FAILED || mark == MARK_TOLD;
        told += mark == MARK_TOLD;
    }
    assert(c->n_handed == handed && c->n_resident == resident);
    assert(c->n_failed == failed && c->n_told == told);
    assert((c->failure.status != OK) == (failed > told));
    (void)handed, (void)resident, (void)failed, (void)told;
}

void slots_check(const struct slots *s) {
    uint32_t n_slots = s->options.n_slots, n_in[SLOT_READY + 1] = { 0 }, n_found = 0, n_open = 0;
    uint32_t n_cold = 0;
    for (uint32_t slot = 0; slot < n_slots; slot++) {
        check_cell(s, slot);
        n_in[s->cells[slot].state]++;
        n_cold += s->cells[slot].cold_at != 0;
    }
    for (uint32_t expert = 0; expert < s->options.n_experts_total; expert++)
        if (s->slot_of[expert] != NONE) { // one slot for an expert, one expert in a slot
            assert(s->cells[s->slot_of[expert]].expert == expert);
            n_found++;
        }
    assert(n_found == n_in[SLOT_LOADING] + n_in[SLOT_READY]);
    assert(n_cold == s->n_cold);
    assert(n_in[SLOT_LOADING] == s->n_loading && n_in[SLOT_EMPTY] == s->n_free);
    for (uint32_t i = 0; i < s->n_free; i++)
        assert(s->cells[s->free[i]].state == SLOT_EMPTY);
    for (uint32_t i = 0; i < s->n_claims; i++) {
        check_claim(s, &s->claims[s->by_age[i]]);
        assert(i == 0 || s->claims[s->by_age[i]].age > s->claims[s->by_age[i - 1]].age);
    }
    for (uint32_t entry = 0; entry < s->options.max_demands; entry++)
        n_open += s->claims[entry].open;
    assert(n_open == s->n_claims);
    policy_check(s->policy);
    (void)n_found, (void)n_open, (void)n_cold;
}
