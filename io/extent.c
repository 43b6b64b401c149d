// Where the pieces of a file that somebody wants end up in one block-aligned buffer.
#include "io/reader.h"

#include <assert.h>

static uint64_t round_down(uint64_t n) {
    return n / READER_ALIGN * READER_ALIGN;
}

static uint64_t round_up(uint64_t n) {
    return round_down(n + READER_ALIGN - 1);
}

static bool comes_before(const struct extent *a, const struct extent *b) {
    return a->file != b->file ? a->file < b->file : a->offset < b->offset;
}

// Whether extent e, which starts nowhere before read r, begins in it or in the block after it.
static bool touches(const struct read *r, const struct extent *e) {
    return e->file == r->file && round_down(e->offset) <= r->offset + r->bytes;
}

// Make a read reach the end of extent e. What the read has been asked for so far ends slack bytes
// before its own end.
static void stretch(struct read *r, const struct extent *e) {
    uint64_t wanted_end = r->offset + r->bytes - r->slack;
    uint64_t end = e->offset + e->bytes;
    if (end < wanted_end)
        end = wanted_end;
    r->bytes = round_up(end) - r->offset;
    r->slack = (uint32_t)(r->offset + r->bytes - end);
}

void extents_layout(struct extents_layout *out, const struct extent *extents, uint32_t n) {
    assert(n <= REQUEST_MAX_READS);
    *out = (struct extents_layout){ 0 };
    uint32_t order[REQUEST_MAX_READS]; // of those that are not empty, by file and offset
    uint32_t n_order = 0;
    for (uint32_t i = 0; i < n; i++) {
        // Whoever parsed the header has checked offsets against the file's size.
        assert(extents[i].bytes <= INT64_MAX && extents[i].offset <= INT64_MAX - extents[i].bytes);
        if (extents[i].bytes == 0)
            continue;
        uint32_t at = n_order++;
        for (; at > 0 && comes_before(&extents[i], &extents[order[at - 1]]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (uint32_t i = 0; i < n_order; i++) {
        const struct extent *e = &extents[order[i]];
        struct read *last = out->n_reads > 0 ? &out->reads[out->n_reads - 1] : NULL;
        if (!last || !touches(last, e)) {
            out->bytes += last ? last->bytes : 0;
            last = &out->reads[out->n_reads++];
            *last = (struct read){ .file = e->file,
                                   .offset = round_down(e->offset),
                                   .dst = (unsigned char *)(uintptr_t)out->bytes };
        }
        stretch(last, e);
        out->at[order[i]] = out->bytes + (e->offset - last->offset);
    }
    if (out->n_reads > 0)
        out->bytes += out->reads[out->n_reads - 1].bytes;
}

void request_bind(struct request *request, const struct extents_layout *layout,
                  unsigned char *base) {
    assert((uintptr_t)base % READER_ALIGN == 0);
    request->n_reads = layout->n_reads;
    for (uint32_t i = 0; i < layout->n_reads; i++) {
        request->reads[i] = layout->reads[i];
        request->reads[i].dst = base + (uintptr_t)layout->reads[i].dst;
    }
}
