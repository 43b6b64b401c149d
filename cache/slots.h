/* cache/slots.h - which routed experts are in memory, and who is using them.
 *
 * A slot holds one expert (six tensors; 35.1 MB for Pro) in one block-aligned piece of pinned
 * memory. slots_open takes all of it; nothing here allocates afterwards.
 *
 *   EMPTY --demand, prefetch--> LOADING --read done--> READY --evict--> EMPTY
 *                               LOADING --read failed--> EMPTY; every waiter gets the error
 *                               LOADING --cancelled before all of it was sent--> EMPTY
 *
 * A READY slot may be held, from the moment slots_next hands it out; the hold ends at an event
 * (the last op that uses it is done). A held or LOADING slot is never evicted. One load per
 * expert at a time: a demand joins a load under way.
 *
 * Who gets a slot: first what is EMPTY; then what a prefetch brought that was taken back too late;
 * then what no open demand waits for, in the order of cache/policy.h; then a queued prefetch is
 * cancelled; last, a resident that waits for a younger demand, or for its later turn in an IN_ORDER
 * one, is evicted and read again at its turn. Demands are served oldest first; a younger one gets
 * nothing while an older one lacks a slot, and never what an older one waits for. So two slots
 * always suffice to make progress, for any number of experts and demands, as long as holds end: a
 * caller may keep one slot while it asks for the next.
 *
 * What is evicted depends on logical time (the order of demands, experts ascending within one),
 * never on when a read or an op happens to end: where the slot whose turn it is to go is busy for
 * the moment, its end is awaited. So with one demand at a time, no prefetch, and every slot
 * released before the next is asked for (its event may come later), what is cached, evicted and
 * read, and in which order, is reproducible.
 *
 * Called by the control thread only. What the disk thread has finished is taken in by the next call
 * here, for all demands at once. */
#ifndef SLUICE_CACHE_SLOTS_H
#define SLUICE_CACHE_SLOTS_H

#include "cache/policy.h"
#include "io/event.h"
#include "io/reader.h"
#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum slot_state { SLOT_EMPTY, SLOT_LOADING, SLOT_READY };

/* What a caller sees of a slot it holds. */
struct slot {
    unsigned char *data; /* READER_ALIGN aligned; where each tensor lies in it is in the layout */
    uint32_t expert;     /* layer * n_experts + expert */
    uint32_t index;      /* of the slot */
};

enum demand_order {
    ANY_ORDER, /* decode: residents first (ascending), then as they become READY */
    IN_ORDER   /* wide pass: strictly ascending; reads run ahead by the free slots */
};

/* Where an expert's bytes lie. Returns a layout valid until the next call on this source. */
struct expert_source {
    void *context;
    void (*layout)(void *context, uint32_t expert, struct extents_layout *out);
};

struct slots_options {
    uint32_t n_slots;         /* at least 2 */
    uint64_t slot_bytes;      /* multiple of READER_ALIGN; >= every layout's bytes */
    unsigned char *memory;    /* n_slots * slot_bytes, from the backend; not owned */
    uint32_t n_experts_total; /* layers * experts: ids are below it */
    uint32_t n_layers;        /* the policy's time goes layer by layer */
    enum policy_kind policy;  /* whom to evict; the engine takes POLICY_DEFAULT */
    uint32_t max_demands;     /* that may be open at once: steps in flight */
    struct reader *reader;    /* not owned; requests' owner field is ours */
    struct expert_source source;
    /* Where others use the reader too: a request of theirs has ended. Called while what the reader
     * has finished is taken in; it may not call the slots. NULL: nobody else does. */
    void (*other_ended)(void *context, struct request *request);
    void *other_context;
};

struct slots;
/* ERR_USAGE: options that cannot be; ERR_MEMORY. *out is NULL after a failure. */
enum status slots_open(struct slots **out, const struct slots_options *options, struct err *err);
/* Cancels queued loads, waits for those at the device. No demand may be open, no slot handed out
 * and not released. NULL is fine. */
void slots_close(struct slots *s);

/* A set of experts that a layer of a step wants. Owned by the caller, opaque to it; may be moved. */
struct demand {
    struct slots *slots;
    const uint32_t *experts; /* the caller's array: ascending, distinct; valid while open */
    uint32_t n_experts;
    enum demand_order order;
    uint32_t n_handed;      /* handed out so far */
    uint32_t slot_in_table; /* ours */
    bool open;              /* until slots_next says DONE, or slots_abandon */
};

/* Ask for experts (ascending, distinct): what is absent is read, in that order, all at once or in
 * waves where free slots are fewer. Does not block, holds nothing yet: it only keeps prefetches and
 * younger demands away from the slots that it waits for or still lacks.
 * `handed` is n_experts bytes of the caller's, ours while the demand is open.
 * ERR_USAGE: experts out of range, not ascending, or max_demands are open already. */
enum status slots_demand(struct slots *s, const uint32_t *experts, uint32_t n_experts,
                         enum demand_order order, uint8_t *handed, struct demand *out,
                         struct err *err);

/* The next expert of a demand that is READY; held until slots_release.
 *   AGAIN                  none yet: wait on slots_event, or advance another step
 *   DONE                   all have been handed out; the demand is closed
 *   ERR_IO, ERR_TRUNCATED  err names the shard and the offset; nothing of it stays held, the
 *                          demand stays open: asking again retries the load that failed
 * Every demand that waits for a load that fails is told so once, at its next call. Of several
 * loads that failed since the last call the first is told, and all are retried by the next one;
 * until then nothing more is read for this demand. */
enum status slots_next(struct demand *d, struct slot *out, struct err *err);

/* The hold ends when `after`, the last op that reads the slot, is done. One slot's holds end at
 * events of no more than SLOT_EVENT_SOURCES sources: the backends. */
#define SLOT_EVENT_SOURCES 4
void slots_release(struct slots *s, const struct slot *slot, struct event after);

/* Give a demand up: loads that nobody else wants are cancelled; those of which all is at the device
 * become READY residents. What it was handed stays held until released. Closed demands are fine. */
void slots_abandon(struct demand *d);

enum slots_prefetched {
    SLOTS_NO_ROOM, /* no slot is free for it now */
    SLOTS_HELD,    /* there, or under way */
    SLOTS_QUEUED   /* is read now */
};

/* Ask for an expert without waiting for it. It takes only slots that no open demand needs, and none while a
 * demand still lacks one; nor that of another prefetch that is neither used nor taken back. `cancel`
 * takes a prefetch back that no demand has asked for: its slot is EMPTY again, at once while it was
 * queued, when what is at the device is back if some of it was not sent; else what arrives is the first
 * to be evicted. A prefetch that fails leaves no trace but the count: whoever needs it reads again. */
enum slots_prefetched slots_prefetch(struct slots *s, uint32_t expert);
void slots_prefetch_cancel(struct slots *s, uint32_t expert);

/* The experts of a layer that its next demand will ask for have all been named to slots_prefetch as
 * far as they are there: the layer's others may go first. */
void slots_foretell(struct slots *s, uint32_t layer);

/* How much of an expert is there, and how much is at the device. */
struct request_progress slots_progress(struct slots *s, uint32_t expert);

/* Ready when an open demand may get further: a load has ended since slots_next last said AGAIN to
 * it, or a hold ended at its event whose slot a demand needs for its next read. Where every slot is
 * handed out and not released, or waits for another demand, no event will come: advance that step. */
struct event slots_event(struct slots *s);

/* Take in what the reader has finished; as every call here does that may get a demand further. */
void slots_take_in(struct slots *s);

enum slot_state slots_state(const struct slots *s, uint32_t expert);

struct slots_stats {
    uint64_t demanded;   /* experts asked for: hits + joined + misses, if all went well */
    uint64_t hits;       /* READY when its turn came */
    uint64_t joined;     /* under way by then, for a prefetch or another demand */
    uint64_t misses;     /* read for a demand; after an eviction before its turn, again */
    uint64_t miss_bytes; /* of the misses' layouts, margins included */
    uint64_t evicted, failed;
    uint64_t prefetched, prefetch_used, prefetch_cancelled;
};
void slots_stats(const struct slots *s, struct slots_stats *out);

/* Assert every sentence of the drawing above; for tests and debug builds. */
void slots_check(const struct slots *s);

#ifdef __cplusplus
}
#endif
#endif
