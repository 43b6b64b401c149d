#include "kernels/cpu/kv.h"

#include <string.h>

/* --- entries -------------------------------------------------------------------------------- */

void kv_entry_pack(const struct cpu_forms *forms, bool exact, const float *x, uint32_t c,
                   uint32_t r, unsigned char *entry) {
    if (exact)
        memcpy(entry, x, (size_t)c * sizeof *x);
    else
        forms->entry_pack(x, c, r, entry);
}

void kv_entry_unpack(const struct cpu_forms *forms, bool exact, const unsigned char *entry,
                     uint32_t c, uint32_t r, float *x) {
    if (exact)
        memcpy(x, entry, (size_t)c * sizeof *x);
    else
        forms->entry_unpack(entry, c, r, x);
}

void index_key_pack(const struct cpu_forms *forms, bool exact, const float *x, uint32_t ci,
                    unsigned char *key) {
    if (exact)
        memcpy(key, x, (size_t)ci * sizeof *x);
    else
        forms->key_pack(x, ci, key);
}

void cpu_kv_pack(struct ops *ops, const struct kv_pack *a) {
    const float *kv = cpu_ptr(a->kv);
    unsigned char *entries = cpu_ptr(a->entries);
    uint32_t bytes = kv_entry_bytes(ops->exact, a->c, a->r);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads) schedule(static) if (a->n_rows > 64)
    for (uint32_t row = 0; row < a->n_rows; row++)
        kv_entry_pack(cpu_of(ops)->forms, ops->exact, kv + (size_t)row * a->c, a->c, a->r,
                      entries + (size_t)row * bytes);
}

/* --- the window ----------------------------------------------------------------------------- */

/* One sequence. Its new ring holds positions end − ring_entries … end − 1: those of the step, and,
 * carried over, those before it that a rollback may still need. Each position has a slot of its own
 * among these, so nothing is overwritten before it is read. */
static void store_window(const struct window_store *a, const struct kv_pages *pages,
                         const struct kv_rows *s, uint32_t bytes) {
    const unsigned char *entries = cpu_ptr(a->entries);
    struct kv_shape shape = kv_shape(bytes, a->kv.page_bytes);
    uint32_t ring = a->kv.ring_entries, end = s->start + s->n_rows;
    uint32_t first = end > ring ? end - ring : 0;
    if (s->window_write == s->window_read && first < s->start)
        first = s->start; // in place: what is to be kept lies there already
    for (uint32_t position = first; position < end; position++) {
        unsigned char *to = kv_at(pages, shape, s->window_write, position % ring);
        const unsigned char *from =
            position < s->start ? kv_at(pages, shape, s->window_read, position % ring)
                                : entries + (size_t)(s->first_row + position - s->start) * bytes;
        if (to != from) // tables may share pages
            memcpy(to, from, bytes);
    }
}

void cpu_window_store(struct ops *ops, const struct window_store *a) {
    struct kv_pages pages = kv_pages_of(&a->kv);
    uint32_t bytes = kv_entry_bytes(ops->exact, a->kv.c, a->kv.r);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads) schedule(static) if (pages.n_seqs > 8)
    for (uint32_t i = 0; i < pages.n_seqs; i++)
        store_window(a, &pages, &pages.seqs[i], bytes);
}
