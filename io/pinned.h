/* io/pinned.h - memory for slots and weights: huge pages, locked, touched in parallel.
 *
 * One arena is one mapping. It asks for transparent huge pages, faults every page in from several
 * threads (first touch of 100 GB takes minutes from one), and locks it (mlock) so that a read's
 * destination cannot be swapped. What the system refuses is left out and told, not an error:
 * an ordinary user with the usual 8 MiB RLIMIT_MEMLOCK gets unlocked memory and a note.
 *
 * Owned by the caller; opened and closed by one thread, used by any. */
#ifndef SLUICE_IO_PINNED_H
#define SLUICE_IO_PINNED_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pinned_options {
    uint64_t bytes;     /* at least 1 */
    uint32_t n_threads; /* for the first touch; 0: as many as the machine has cores */
    bool want_locked;   /* mlock; the limit of this process is respected, not raised */
    bool want_huge;     /* madvise(MADV_HUGEPAGE) */
    /* Called now and then with the bytes faulted in so far, from the calling thread; false cancels.
     * NULL: not called. */
    bool (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
};

struct pinned {
    unsigned char *base; /* 2 MiB aligned; zeroed; NULL when closed */
    uint64_t bytes;      /* rounded up to whole pages */
    bool locked;
    uint64_t huge_bytes; /* of it in huge pages when it was opened (from smaps) */
    char note[320];      /* "" or what was lost and how to get it back, for people */
};

/* ERR_MEMORY if the address space or the memory is not there: more than MemAvailable, or than the
 * control group's limit leaves, is refused before a page is touched. CANCELLED by progress. Safe to
 * close after any result. */
enum status pinned_open(struct pinned *p, const struct pinned_options *options, struct err *err);
void pinned_close(struct pinned *p);

#ifdef __cplusplus
}
#endif
#endif
