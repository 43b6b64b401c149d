/* cache/replay.h - what a cache would have missed: demands, recorded or made, put to a policy.
 *
 * No files, no model, no disk: a trace is a list of demands (the distinct experts of one layer of one
 * step, ascending), and what is replayed calls the policies as the slots do: the demand begins,
 * what is resident is touched, then expert by expert the absent ones take a slot. Every read is taken
 * to be done before the next is issued. */
#ifndef SLUICE_CACHE_REPLAY_H
#define SLUICE_CACHE_REPLAY_H

#include "cache/policy.h"
#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct replay_trace {
    uint32_t n_layers, n_experts; /* of a layer; an expert's id is layer * n_experts + e */
    uint32_t n_demands;
    uint64_t n_accesses;
    uint64_t *begin;   /* [n_demands + 1]: where each demand's experts are */
    uint32_t *experts; /* [n_accesses] */
    uint64_t demands_max, accesses_max;
    uint8_t *wanted; /* [n_experts]: of the demand that is added */
};

/* ERR_MEMORY. replay_trace_close is safe after any return. */
enum status replay_trace_open(struct replay_trace *t, uint32_t n_layers, uint32_t n_experts,
                              struct err *err);
void replay_trace_close(struct replay_trace *t);

/* One demand: n ids within the layer, in any order, any of them more than once. ERR_MEMORY. */
enum status replay_trace_add(struct replay_trace *t, uint32_t layer, const uint16_t *ids,
                             uint64_t n, struct err *err);

/* Who is compared. */
struct replay_contender {
    const char *name;
    enum policy_kind policy;
    bool belady; /* no policy: evicts what is needed latest, which nobody can know */
    bool
        per_layer; /* every layer has its share of the slots to itself; without one it has no hits */
    double pinned; /* this share of the slots holds the experts used most in the whole trace */
};

#define REPLAY_CONTENDERS 8
extern const struct replay_contender
    replay_contenders[REPLAY_CONTENDERS]; /* Belady's is the last */

struct replay_result {
    uint64_t accesses, misses;
    uint64_t first; /* of the misses: experts that had never been asked for */
};

/* n_slots at least 1. ERR_MEMORY. */
enum status replay(const struct replay_trace *t, const struct replay_contender *contender,
                   uint32_t n_slots, struct replay_result *out, struct err *err);

/* The fewest misses that n_slots allow where every demanded expert has to be in a slot: Belady's MIN
 * (1966), O(n log n). ERR_MEMORY. */
enum status replay_belady(const struct replay_trace *t, uint32_t n_slots, struct replay_result *out,
                          struct err *err);

#ifdef __cplusplus
}
#endif
#endif
