/* src/prefetch_count.h - which predictions are made, and what became of them. */
#ifndef SLUICE_SRC_PREFETCH_COUNT_H
#define SLUICE_SRC_PREFETCH_COUNT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The parts of prefetching, one at a time to compare them. */
enum prefetch_mode {
    PREFETCH_AUTO, /* all of them: src/prefetch.c has the figures */
    PREFETCH_OFF,
    PREFETCH_HASH,  /* layers routed by table: known from the token ids */
    PREFETCH_GATE,  /* layers routed by score: their gates run early, in narrow steps */
    PREFETCH_SWEEP, /* where rows want nearly all experts of a layer: all of the next one, too */
    PREFETCH_MODES
};

enum prefetch_kind { PREFETCH_BY_HASH, PREFETCH_BY_GATE, PREFETCH_BY_SWEEP, PREFETCH_KINDS };

/* Steps that had a prediction for the layer, and those in which it was left alone because reading
 * ahead had gained nothing there lately. Then experts, counted when the layer's own gate has chosen,
 * over the steps that had a prediction: right / predicted is the accuracy, right / wanted the
 * coverage, in_vain / read the waste. Every read ends up in one of used, in_vain, cancelled, lost. */
struct prefetch_count {
    uint64_t steps, suspended;
    uint64_t wanted;    /* by the layer */
    uint64_t predicted; /* resident ones included */
    uint64_t right;     /* of them, wanted */
    uint64_t read;      /* of those predicted: were not there, and a read was queued */
    uint64_t used;      /* of the reads: wanted, and there or under way */
    uint64_t in_vain;   /* not wanted, and at the device or there already */
    uint64_t cancelled; /* not wanted, and taken back in time */
    uint64_t lost;      /* failed, or given up for a demand that needed the slot */
};

#ifdef __cplusplus
}
#endif
#endif
