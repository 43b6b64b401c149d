/* kernels/cpu/kv.h - how the CPU's ops reach KV state, and the two forms it has in memory: an entry
 * (window or compressed) and an index key. Internal to kernels/cpu.
 *
 * All functions are pure but for what they write through their last pointer; any thread. Addresses
 * inside pages have no alignment to speak of (an entry is 584 bytes), so bytes are moved by memcpy
 * and load_*. Nothing is checked beyond asserts: tables and positions are the caller's own. */
#ifndef SLUICE_KERNELS_CPU_KV_H
#define SLUICE_KERNELS_CPU_KV_H

#include "kernels/cpu/internal.h"

/* --- where things lie ----------------------------------------------------------------------- */

/* A kv_view with its handles resolved. */
struct kv_pages {
    unsigned char *base;
    const uint32_t *tables;
    const struct kv_rows *seqs;
    uint32_t n_seqs, page_bytes;
};
static inline struct kv_pages kv_pages_of(const struct kv_view *v) {
    struct kv_pages p;
    p.base = (unsigned char *)cpu_ptr(v->pages);
    p.tables = (const uint32_t *)cpu_ptr(v->tables);
    p.seqs = (const struct kv_rows *)cpu_ptr(v->rows);
    p.n_seqs = v->n_seqs;
    p.page_bytes = v->page_bytes;
    return p;
}

/* The i-th entry that the table at `table` reaches. */
static inline unsigned char *kv_at(const struct kv_pages *p, struct kv_shape s, uint32_t table,
                                   uint32_t i) {
    assert(s.per_page > 0);
    uint64_t page = p->tables[table + i / s.per_page];
    return p->base + page * p->page_bytes + kv_offset(s, i % s.per_page);
}

/* The sequence that a row of the step belongs to. A sequence without rows is never it. */
static inline const struct kv_rows *kv_rows_of(const struct kv_pages *p, uint32_t row) {
    uint32_t low = 0, high = p->n_seqs; // the last one with first_row <= row lies in [low, high)
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (p->seqs[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    const struct kv_rows *s = &p->seqs[low];
    assert(row >= s->first_row && row - s->first_row < s->n_rows);
    return s;
}
/* Its position in that sequence. */
static inline uint32_t kv_position(const struct kv_rows *s, uint32_t row) {
    return s->start + (row - s->first_row);
}

/* --- forms ---------------------------------------------------------------------------------- */

/* An entry of c floats, as kv_entry_bytes says: FP8 in groups of 64, BF16 for the last r, the
 * padding zero. */
void kv_entry_pack(const struct cpu_forms *forms, bool exact, const float *x, uint32_t c,
                   uint32_t r, unsigned char *entry);
void kv_entry_unpack(const struct cpu_forms *forms, bool exact, const unsigned char *entry,
                     uint32_t c, uint32_t r, float *x);

/* An index key of ci floats, as index_key_bytes says: FP4 in groups of 32. */
void index_key_pack(const struct cpu_forms *forms, bool exact, const float *x, uint32_t ci,
                    unsigned char *key);

/* n^−½ as a float: correctly rounded, however it is arrived at (double has bits to spare). */
static inline float inverse_root(uint32_t n) {
    return (float)(1.0 / sqrt((double)n));
}

#endif
