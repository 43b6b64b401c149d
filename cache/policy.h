/* cache/policy.h - whom to evict.
 *
 * The policy ranks slots, the cache says which of them may go: policy_victim asks about one slot
 * after the other, first choice first. It knows no experts, no holds and no clock: time is the order
 * of the calls, so the same demands give the same evictions, whatever the disk does meanwhile.
 *
 * What policy.c implements is LRU. Another policy is measured against it by another policy.c behind
 * these functions, and the better one stays. A slot is ranked from its first touch until it is
 * forgotten. policy_open allocates, nothing else does. Control thread only. */
#ifndef SLUICE_CACHE_POLICY_H
#define SLUICE_CACHE_POLICY_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define POLICY_NONE UINT32_MAX

struct policy;

/* Ranks slots 0 .. n_slots - 1, none of them yet. ERR_MEMORY; *out is NULL after a failure. */
enum status policy_open(struct policy **out, uint32_t n_slots, struct err *err);
void policy_close(struct policy *p); /* NULL is fine */

/* A demand uses the slot, or a read begins to fill it. O(1). */
void policy_touch(struct policy *p, uint32_t slot);

/* The slot was emptied: no longer ranked. O(1); a slot that is not ranked is fine. */
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
 * to wait. O(1) and one step for each slot skipped. */
uint32_t policy_victim(struct policy *p, const struct policy_judge *judge);

/* Is it ranked? For checks. */
bool policy_ranked(const struct policy *p, uint32_t slot);

/* Assert that the ranking is whole; for tests and debug builds. */
void policy_check(const struct policy *p);

#ifdef __cplusplus
}
#endif
#endif
