/* cache/slots_parts.h - what the slots are made of; for cache/slots*.c alone.
 *
 *     slots.c           the interface: open, close, what callers ask
 *     slots_claims.c    one demand: which of its experts wait, are handed out, have failed
 *     slots_victims.c   whose turn it is to go: for a demand, for a prefetch; the cold ones
 *     slots_loads.c     going on: reads issued and taken in, slots filled, emptied, evicted
 *     slots_check.c     every sentence of slots.h that can be seen from inside, asserted */
#ifndef SLUICE_CACHE_SLOTS_PARTS_H
#define SLUICE_CACHE_SLOTS_PARTS_H

#include "cache/slots.h"

#include <assert.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NONE UINT32_MAX

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

static inline enum mark mark_of(const struct claim *c, uint32_t position) {
    return (enum mark)(c->marks[position] & MARK_STATE);
}

static inline void mark_set(struct claim *c, uint32_t position, enum mark mark) {
    c->marks[position] = (uint8_t)((c->marks[position] & ~MARK_STATE) | mark);
}

/* --- slots_claims.c --------------------------------------------------------------------------- */

/* The position of an expert that the demand waits for, or NONE. */
uint32_t claim_waits(const struct claim *c, uint32_t expert);
void claim_wait(struct slots *s, struct claim *c, uint32_t position); /* from now on */
/* In the statistics: as a hit, or as having joined a load. */
void claim_count(struct slots *s, struct claim *c, uint32_t position);
void claim_not_resident(struct claim *c, uint32_t position);        /* any more */
uint32_t claim_ready(const struct slots *s, const struct claim *c); /* to hand out next, or NONE */
void claim_hand(struct slots *s, struct claim *c, uint32_t position, struct slot *out);
enum status claim_tell(struct claim *c, struct err *err); /* the caller that loads failed */
void claim_retry(struct slots *s, struct claim *c);       /* what the caller knows has failed */
void claim_close(struct slots *s, struct claim *c);

/* --- slots_victims.c -------------------------------------------------------------------------- */

/* A slot for the expert at `position`, off the stack of EMPTY ones; NONE: not now. */
uint32_t claim_slot(struct slots *s, const struct claim *c, uint32_t position);
uint32_t slots_prefetch_victim(struct slots *s); /* or NONE */
void cold_join(struct slots *s, uint32_t slot);
void cold_leave(struct slots *s, uint32_t slot); /* if it is one of them */

/* --- slots_loads.c ---------------------------------------------------------------------------- */

/* Into a slot that was taken off the stack of EMPTY ones. */
void slot_load(struct slots *s, uint32_t slot, uint32_t expert, bool for_demand);
void slot_load_cancel(struct slots *s, uint32_t slot);
void slot_evict(struct slots *s, uint32_t slot);
bool slot_hold_over(struct cell *cell);
void slots_drain(struct slots *s); /* slots_take_in without issuing anything */

#ifdef __cplusplus
}
#endif
#endif
