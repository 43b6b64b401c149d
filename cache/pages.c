#include "cache/pages.h"

#include <assert.h>
#include <stdlib.h>

enum status pages_open(struct pages *p, uint32_t n_pages, struct err *err) {
    *p = (struct pages){ .first_free = PAGE_NONE };
    p->next = malloc(sizeof *p->next * (size_t)n_pages + 1);
    p->owners = calloc((size_t)n_pages + 1, sizeof *p->owners);
    if (!p->next || !p->owners) {
        pages_close(p);
        return err_set(err, ERR_MEMORY, "no memory for a table of %u KV pages", n_pages);
    }
    p->n_pages = p->n_free = n_pages;
    for (uint32_t i = 0; i < n_pages; i++)
        p->next[i] = i + 1 < n_pages ? i + 1 : PAGE_NONE;
    p->first_free = n_pages ? 0 : PAGE_NONE;
    return OK;
}

void pages_close(struct pages *p) {
    free(p->next);
    free(p->owners);
    *p = (struct pages){ .first_free = PAGE_NONE };
}

uint32_t pages_take(struct pages *p) {
    uint32_t page = p->first_free;
    if (page == PAGE_NONE)
        return PAGE_NONE;
    p->first_free = p->next[page];
    p->n_free--;
    p->owners[page] = 1;
    return page;
}

void pages_share(struct pages *p, uint32_t page) {
    assert(page < p->n_pages && p->owners[page] > 0);
    p->owners[page]++;
}

void pages_drop(struct pages *p, uint32_t page) {
    assert(page < p->n_pages && p->owners[page] > 0);
    if (--p->owners[page])
        return;
    p->next[page] = p->first_free;
    p->first_free = page;
    p->n_free++;
}

void pages_check(const struct pages *p) {
    uint32_t n_free = 0;
    for (uint32_t page = p->first_free; page != PAGE_NONE; page = p->next[page]) {
        assert(page < p->n_pages && p->owners[page] == 0);
        assert(++n_free <= p->n_pages); // a cycle would never end
    }
    assert(n_free == p->n_free);
    uint32_t n_owned = 0;
    for (uint32_t page = 0; page < p->n_pages; page++)
        n_owned += p->owners[page] > 0;
    assert(n_owned + n_free == p->n_pages);
    (void)n_free, (void)n_owned;
}
