#include "kernels/cpu/kv.h"

#include <string.h>

/* Columns that share a scale: of an entry (E4M3), of an index key (E2M1). Spec 6. */
#define ENTRY_GROUP 64
#define KEY_GROUP   32

/* --- entries -------------------------------------------------------------------------------- */

/* code · scale = x · (1/scale), exactly: both are powers of two and normal (lowbit.h). */
static inline float e8m0_inverse(uint8_t code) {
    return e8m0_value((uint8_t)(254 - code));
}

CPU_CLONES
void kv_entry_pack(bool exact, const float *x, uint32_t c, uint32_t r, unsigned char *entry) {
    if (exact) {
        memcpy(entry, x, (size_t)c * sizeof *x);
        return;
    }
    size_t coded = c - r, n_groups = coded / ENTRY_GROUP;
    assert(r < c && coded % ENTRY_GROUP == 0);
    unsigned char *scales = entry + coded, *rotary = scales + n_groups;
    for (size_t g = 0; g < n_groups; g++) {
        const float *group = x + g * ENTRY_GROUP;
        uint8_t scale = fp8_scale_code(arith_amax(group, ENTRY_GROUP));
        float inverse = e8m0_inverse(scale);
        unsigned char *codes = entry + g * ENTRY_GROUP;
        scales[g] = scale;
#pragma omp simd
        for (int i = 0; i < ENTRY_GROUP; i++)
            codes[i] = e4m3_code(group[i] * inverse);
    }
    for (size_t i = 0; i < r; i++) {
        uint16_t code = bf16_code(x[coded + i]);
        memcpy(rotary + 2 * i, &code, sizeof code);
    }
    size_t used = coded + n_groups + 2 * (size_t)r;
    memset(entry + used, 0, kv_entry_bytes(false, c, r) - used);
}

CPU_CLONES
void kv_entry_unpack(bool exact, const unsigned char *entry, uint32_t c, uint32_t r, float *x) {
    if (exact) {
        memcpy(x, entry, (size_t)c * sizeof *x);
        return;
    }
    size_t coded = c - r, n_groups = coded / ENTRY_GROUP;
    const unsigned char *scales = entry + coded, *rotary = scales + n_groups;
    for (size_t g = 0; g < n_groups; g++) {
        float scale = e8m0_value(scales[g]);
        const unsigned char *codes = entry + g * ENTRY_GROUP;
        float *group = x + g * ENTRY_GROUP;
#pragma omp simd
        for (int i = 0; i < ENTRY_GROUP; i++)
            group[i] = e4m3_value(codes[i]) * scale;
    }
    for (size_t i = 0; i < r; i++)
        x[coded + i] = bf16_value(load_u16(rotary + 2 * i));
}

void cpu_kv_pack(struct ops *ops, const struct kv_pack *a) {
    const float *kv = cpu_ptr(a->kv);
    unsigned char *entries = cpu_ptr(a->entries);
    uint32_t bytes = kv_entry_bytes(ops->exact, a->c, a->r);
#pragma omp parallel for num_threads(cpu_of(ops)->n_threads) schedule(static) if (a->n_rows > 64)
    for (uint32_t row = 0; row < a->n_rows; row++)
        kv_entry_pack(ops->exact, kv + (size_t)row * a->c, a->c, a->r,
                      entries + (size_t)row * bytes);
}

/* --- index keys ----------------------------------------------------------------------------- */

void index_key_pack(bool exact, const float *x, uint32_t ci, unsigned char *key) {
    if (exact) {
        memcpy(key, x, (size_t)ci * sizeof *x);
        return;
    }
    assert(ci % KEY_GROUP == 0);
    unsigned char *scales = key + ci / 2;
    for (uint32_t g = 0; g < ci / KEY_GROUP; g++) {
        const float *group = x + g * KEY_GROUP;
        uint8_t scale = fp4_scale_code(arith_amax(group, KEY_GROUP));
        float inverse = e8m0_inverse(scale);
        unsigned char *codes = key + g * (KEY_GROUP / 2);
        scales[g] = scale;
        for (int i = 0; i < KEY_GROUP / 2; i++)
            codes[i] = (unsigned char)(e2m1_code(group[2 * i] * inverse) |
                                       e2m1_code(group[2 * i + 1] * inverse) << 4);
    }
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
