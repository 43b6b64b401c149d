/* cache/pages.h - KV pages: who owns which piece of the KV memory.
 *
 * One pool of equal pages, allocated at start; a page is a number. The bytes belong to the backend
 * (page p begins at p * page_bytes of its memory), so nothing here touches them. A page may have
 * several owners (a forked sequence shares what it had): it is free again when the last lets go,
 * and whoever wants to write a page that others own takes a copy first.
 *
 *   free --pages_take--> owned (1) --pages_share--> owned (n) --pages_drop, n times--> free
 *
 * Called by the control thread only. Nothing is allocated after pages_open. */
#ifndef SLUICE_CACHE_PAGES_H
#define SLUICE_CACHE_PAGES_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PAGE_NONE UINT32_MAX

struct pages {
    uint32_t *next;   /* of the free list, by page */
    uint32_t *owners; /* 0: free */
    uint32_t first_free, n_free, n_pages;
};

enum status pages_open(struct pages *p, uint32_t n_pages, struct err *err); /* ERR_MEMORY */
void pages_close(struct pages *p);

/* Take a free page (the lowest-numbered at first, then the last dropped); PAGE_NONE: none is free. */
uint32_t pages_take(struct pages *p);
void pages_share(struct pages *p, uint32_t page);
void pages_drop(struct pages *p, uint32_t page);

static inline bool pages_shared(const struct pages *p, uint32_t page) {
    return p->owners[page] > 1;
}

/* Assert that every page is either free, once in the list, or owned. */
void pages_check(const struct pages *p);

#ifdef __cplusplus
}
#endif
#endif
