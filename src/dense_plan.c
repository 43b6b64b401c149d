#include "src/dense_plan.h"

#include "src/weights.h"

#include <assert.h>
#include <stdlib.h>

// --- layouts -------------------------------------------------------------------------------------

struct part {
    struct extent extent;
    uint32_t number;
};

static int by_place(const void *a, const void *b) {
    const struct extent *x = &((const struct part *)a)->extent;
    const struct extent *y = &((const struct part *)b)->extent;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

void dense_layout(struct dense_layout *out, const struct dense_plan *plan,
                  const struct checkpoint *cp, uint32_t unit, const uint32_t *file_of) {
    struct tensor_place place[DENSE_MAX_PARTS];
    struct part part[DENSE_MAX_PARTS];
    uint32_t n = weights_unit_parts(cp, plan, unit, place);
    *out = (struct dense_layout){ .n_parts = n };
    for (uint32_t i = 0; i < n; i++)
        part[i] = (struct part){ { .file = file_of ? file_of[place[i].file] : place[i].file,
                                   .offset = place[i].offset,
                                   .bytes = place[i].bytes },
                                 i };
    qsort(part, n, sizeof *part, by_place);
    for (uint32_t first = 0; first < n; first += REQUEST_MAX_READS) {
        uint32_t n_here = n - first < REQUEST_MAX_READS ? n - first : REQUEST_MAX_READS;
        struct extents_layout *request = &out->request[out->n_requests];
        struct extent extent[REQUEST_MAX_READS];
        for (uint32_t i = 0; i < n_here; i++)
            extent[i] = part[first + i].extent;
        extents_layout(request, extent, n_here);
        for (uint32_t i = 0; i < n_here; i++)
            out->at[part[first + i].number] = out->bytes + request->at[i];
        out->request_at[out->n_requests++] = out->bytes;
        out->bytes += request->bytes;
    }
}

struct dense_panel dense_panel(const struct dense_plan *plan, const struct checkpoint *cp,
                               uint32_t panel) {
    uint32_t vocab = cp->config.vocab, first = panel * plan->panel_rows;
    uint32_t n_rows = vocab - first < plan->panel_rows ? vocab - first : plan->panel_rows;
    struct tensor_place place = cp->global[TENSOR_HEAD];
    uint64_t row_bytes = place.bytes / vocab;
    place.offset += first * row_bytes;
    place.bytes = n_rows * row_bytes;
    return (struct dense_panel){ .first_row = first, .n_rows = n_rows, .place = place };
}

// --- the plan ------------------------------------------------------------------------------------

static uint64_t read_bytes(const struct dense_plan *p, const struct checkpoint *cp, uint32_t unit) {
    struct dense_layout layout;
    dense_layout(&layout, p, cp, unit, NULL);
    return layout.bytes;
}

// As few panels as make none larger than the largest layer, all of one size.
static void cut_head(struct dense_plan *p, const struct checkpoint *cp) {
    uint64_t head = cp->global[TENSOR_HEAD].bytes, largest = 0;
    for (uint32_t layer = 0; layer < p->n_blocks; layer++) {
        uint64_t bytes = read_bytes(p, cp, layer);
        if (bytes > largest)
            largest = bytes;
    }
    uint64_t most = largest > 4 * READER_ALIGN ? largest - 2 * READER_ALIGN : 2 * READER_ALIGN;
    uint64_t n_panels = (head + most - 1) / most;
    if (n_panels > DENSE_MAX_PANELS)
        n_panels = DENSE_MAX_PANELS;
    if (n_panels < 1)
        n_panels = 1;
    uint32_t vocab = cp->config.vocab;
    p->panel_rows = (uint32_t)((vocab + n_panels - 1) / n_panels);
    p->n_panels = (vocab + p->panel_rows - 1) / p->panel_rows; // rounding up may have saved one
    p->n_units = p->n_blocks + p->n_panels;
}

static void sum_up(struct dense_plan *p, const struct checkpoint *cp) {
    uint32_t n_layers = cp->config.n_layers;
    p->trunk_bytes = weights_global_bytes(cp);
    p->draft_bytes = p->bytes_per_pass = p->draft_pass = 0;
    p->n_streamed = 0;
    for (uint32_t unit = 0; unit < p->n_units; unit++) {
        bool draft = unit >= n_layers && unit < p->n_blocks, head = unit >= p->n_blocks;
        uint64_t bytes = head ? 0 : weights_fixed_bytes(cp, unit);
        if (!p->streamed[unit])
            bytes += weights_unit_bytes(cp, p, unit);
        *(draft ? &p->draft_bytes : &p->trunk_bytes) += bytes;
        if (!p->streamed[unit])
            continue;
        p->n_streamed++;
        uint64_t read = read_bytes(p, cp, unit);
        p->bytes_per_pass += draft ? 0 : read;
        p->draft_pass += head || unit == n_layers ? read : 0;
    }
    if (p->n_streamed == 0)
        p->frame_bytes = 0;
    p->memory_bytes = p->trunk_bytes + p->draft_bytes + DENSE_FRAMES * p->frame_bytes;
}

// Keep unit `unit` if that fits in what is left of *room.
static void keep_one(struct dense_plan *p, const struct checkpoint *cp, uint32_t unit,
                     uint64_t *room) {
    uint64_t bytes = weights_unit_bytes(cp, p, unit);
    if (!p->streamed[unit] || bytes > *room)
        return;
    p->streamed[unit] = false;
    *room -= bytes;
}

// The head first, then layers, evenly spread; then whatever still fits.
static void keep(struct dense_plan *p, const struct checkpoint *cp, uint64_t room) {
    uint64_t all = 0, seen = 0;
    for (uint32_t unit = p->n_blocks; unit < p->n_units; unit++)
        keep_one(p, cp, unit, &room);
    for (uint32_t layer = 0; layer < p->n_blocks; layer++)
        all += weights_unit_bytes(cp, p, layer);
    const uint64_t share = room;
    for (uint32_t layer = 0; layer < p->n_blocks; layer++) {
        uint64_t bytes = weights_unit_bytes(cp, p, layer);
        seen += bytes;
        if ((double)(share - room + bytes) <= (double)share / (double)all * (double)seen)
            keep_one(p, cp, layer, &room);
    }
    for (uint32_t layer = 0; layer < p->n_blocks; layer++)
        keep_one(p, cp, layer, &room);
}

void dense_plan(struct dense_plan *p, const struct checkpoint *cp, uint32_t n_blocks,
                uint64_t room_bytes) {
    *p = (struct dense_plan){ .n_blocks = n_blocks };
    cut_head(p, cp);
    sum_up(p, cp);
    p->all_bytes = p->memory_bytes;
    if (p->all_bytes <= room_bytes)
        return;
    for (uint32_t unit = 0; unit < p->n_units; unit++) {
        uint64_t bytes = read_bytes(p, cp, unit);
        if (p->frame_bytes < bytes)
            p->frame_bytes = bytes;
        p->streamed[unit] = true;
    }
    sum_up(p, cp);
    if (p->memory_bytes < room_bytes)
        keep(p, cp, room_bytes - p->memory_bytes);
    sum_up(p, cp);
    // A model smaller than two frames and its margins gains nothing.
    if (p->memory_bytes >= p->all_bytes) {
        for (uint32_t unit = 0; unit < p->n_units; unit++)
            p->streamed[unit] = false;
        sum_up(p, cp);
    }
}
