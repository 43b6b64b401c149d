#include "cache/slots_parts.h"

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
