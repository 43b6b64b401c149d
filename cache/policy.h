/* cache/policy.h - whom to evict.
 *
 * The policy ranks slots, the cache says which of them may go: policy_victim asks about one slot
 * after the other, first choice first. It knows no holds and no clock: time is the order of the
 * calls, so the same demands give the same evictions, whatever the disk does meanwhile.
 *
 * Several policies lie behind these functions, one a file; what runs is POLICY_DEFAULT, the others
 * are there to be measured against it by the same calls (cache/replay.h, `sluice bench cache`). All
 * are O(1) a call, amortized over the demands; policy_open allocates, nothing else does.
 *
 *     UNRANKED --touch--> RANKED --forget--> UNRANKED
 *
 * Control thread only. */
#ifndef SLUICE_CACHE_POLICY_H
#define SLUICE_CACHE_POLICY_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define POLICY_NONE UINT32_MAX

enum policy_kind {
    POLICY_REUSE,   /* by the chance of reuse that was learned: policy_reuse.c */
    POLICY_LRU,     /* the one used longest ago */
    POLICY_LFU,     /* the one used least, counts fading: policy_lfu.c */
    POLICY_TINYLFU, /* LRU, but what is used less than the oldest goes first: policy_tinylfu.c */
    POLICY_S3FIFO,  /* two queues and a memory of what left the first: policy_s3fifo.c */
    POLICY_KINDS
};

/* What runs. Misses as a multiple of Belady's, who knows the future (cache/replay_belady.c), where
 * there is room for so many % of Pro's experts; `sluice bench cache`, made traces:
 *
 *                   an answer, token by token          64 texts in a step, step after step
 *                     2    5   10   15   30   50 %       2    5   10   15   30   50 %
 *   LRU            1.65 1.40 1.60 1.80 2.17 2.03      1.04 1.10 1.23 1.38 2.24 5.41
 *   a pool a layer 1.49 1.34 1.54 1.72 2.10 2.16      1.01 1.03 1.06 1.10 1.33 1.77
 *   TinyLFU        1.81 2.16 2.36 2.54 2.84 2.66      1.04 1.10 1.23 1.38 1.65 1.85
 *   LFU            1.72 1.92 2.05 2.16 2.36 2.15      1.04 1.10 1.23 1.38 1.53 1.96
 *   S3-FIFO        1.58 1.70 1.80 1.77 1.97 1.98      1.04 1.10 1.23 1.38 1.80 2.18
 *   half pinned    2.30 1.64 1.50 1.66 2.02 1.98      1.02 1.05 1.11 1.19 1.65 3.18
 *   reuse          1.44 1.36 1.51 1.66 1.95 1.88      1.01 1.03 1.06 1.10 1.32 1.83
 *
 * Prefill after prefill of 512 tokens: LRU 1.03 1.07 1.15 1.25 1.66 2.99 (nothing is ever found),
 * reuse 1.01 1.01 1.03 1.06 1.14 1.43. Room for a third of one token's experts (0.5 %): LRU finds
 * nothing, reuse 16 %, Belady 28 %. With a pool a layer reuse is no better (1.63 for 1.66, 1.98 for
 * 1.95) and cannot give a layer more than its share. */
#define POLICY_DEFAULT POLICY_REUSE

struct policy_options {
    enum policy_kind kind;
    uint32_t n_slots;
    uint32_t n_layers, n_experts; /* of a layer; expert e of layer l is l * n_experts + e */
};

struct policy;

/* Ranks slots 0 .. n_slots - 1, none of them yet. ERR_MEMORY; *out is NULL after a failure. */
enum status policy_open(struct policy **out, const struct policy_options *options, struct err *err);
void policy_close(struct policy *p); /* NULL is fine */

/* The name of a kind: "LRU". */
const char *policy_name(enum policy_kind kind);

/* A demand of this layer begins: time goes on. What it touches from now on is younger than all
 * that was touched before. */
void policy_demand(struct policy *p, uint32_t layer);

/* All that the layer's next demand will use is known, and touched as predicted as far as it is
 * there: what else of the layer is there has nothing to wait for in that demand. */
void policy_foretell(struct policy *p, uint32_t layer);

enum policy_touch {
    POLICY_USE,     /* a demand uses it, or reads it: counts once a demand, however often said */
    POLICY_PREDICT, /* it is expected to be used by the next demand of its layer */
};

/* The expert in the slot is used, or a read begins to fill the slot with it. */
void policy_touch(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch);

/* The slot was emptied: no longer ranked. A slot that is not ranked is fine. */
void policy_forget(struct policy *p, uint32_t slot);

enum policy_verdict {
    POLICY_TAKE, /* this one */
    POLICY_SKIP, /* it may not go: the next choice */
    POLICY_WAIT  /* it will be free soon, and rather this one later than another one now */
};

struct policy_judge {
    enum policy_verdict (*verdict)(void *context, uint32_t slot);
    void *context;
};

/* The first slot that the judge lets go, still ranked; POLICY_NONE if there is none, or if it says
 * to wait. Every ranked slot is asked about once, if need be: one step for each skipped. Asking
 * changes nothing. */
uint32_t policy_victim(struct policy *p, const struct policy_judge *judge);

/* Is it ranked? For checks. */
bool policy_ranked(const struct policy *p, uint32_t slot);

/* Assert that the ranking is whole; for tests and debug builds. */
void policy_check(const struct policy *p);

#ifdef __cplusplus
}
#endif
#endif
