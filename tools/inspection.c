#include "tools/inspection.h"

#include <stdlib.h>
#include <string.h>

const char *weight_kind_name(enum weight_kind kind) {
    static const char *const names[KIND_COUNT] = {
        [KIND_EMBEDDING] = "embedding",
        [KIND_HEAD] = "head",
        [KIND_ATTENTION] = "attention",
        [KIND_COMPRESSOR] = "compressor",
        [KIND_INDEXER] = "indexer",
        [KIND_SHARED_EXPERTS] = "shared experts",
        [KIND_GATES] = "gates",
        [KIND_HYPER] = "hyper-connections",
        [KIND_NORMS] = "norms",
        [KIND_DRAFT] = "draft block",
        [KIND_EXPERTS] = "routed experts",
        [KIND_DRAFT_EXPERTS] = "draft's routed experts",
    };
    return names[kind];
}

/* Of a dense tensor of the trunk; ranges follow the order of enum tensor_id. */
static enum weight_kind kind_of(enum tensor_id id) {
    if (id == TENSOR_EMBED)
        return KIND_EMBEDDING;
    if (id < TENSOR_ATTN_NORM)
        return KIND_HEAD;
    if (id <= TENSOR_FFN_NORM)
        return KIND_NORMS;
    if (id <= TENSOR_HC_FFN_SCALE)
        return KIND_HYPER;
    if (id < TENSOR_COMP_APE)
        return KIND_ATTENTION;
    if (id < TENSOR_INDEX_WQ_B)
        return KIND_COMPRESSOR;
    if (id < TENSOR_GATE)
        return KIND_INDEXER;
    return id < TENSOR_SHARED_W1 ? KIND_GATES : KIND_SHARED_EXPERTS;
}

/* --- spans ----------------------------------------------------------------------------------- */

/* Widen the layer's span in this file, or begin one. */
static bool span_add(struct layer_figures *layer, const struct tensor_place *place) {
    const uint64_t end = place->offset + place->bytes;
    for (uint32_t i = 0; i < layer->n_spans; i++) {
        struct byte_span *span = &layer->spans[i];
        if (span->file != place->file)
            continue;
        span->begin = place->offset < span->begin ? place->offset : span->begin;
        span->end = end > span->end ? end : span->end;
        return true;
    }
    struct byte_span *more = realloc(layer->spans, (layer->n_spans + 1) * sizeof *more);
    if (!more)
        return false;
    layer->spans = more;
    more[layer->n_spans++] = (struct byte_span){ place->file, place->offset, end };
    return true;
}

static int by_file(const void *a, const void *b) {
    const struct byte_span *x = a, *y = b;
    return (x->file > y->file) - (x->file < y->file);
}

/* --- one layer ------------------------------------------------------------------------------- */

/* Sums of what one layer's experts cost to read. */
struct expert_sums {
    uint64_t bytes, read_bytes, reads;
};

static bool add_expert(struct inspection *in, struct layer_figures *layer,
                       const struct expert_place *expert, struct expert_sums *sums) {
    struct extent extents[EXPERT_TENSORS];
    uint64_t bytes = 0, least = UINT64_MAX, most = 0;
    bool one_file = true;
    for (uint32_t i = 0; i < EXPERT_TENSORS; i++) {
        const struct tensor_place *part = &expert->part[i];
        extents[i] = (struct extent){ part->file, part->offset, part->bytes };
        bytes += part->bytes;
        least = part->offset < least ? part->offset : least;
        most = part->offset + part->bytes > most ? part->offset + part->bytes : most;
        one_file &= part->file == expert->part[0].file;
        if (!span_add(layer, part))
            return false;
    }
    struct extents_layout layout;
    extents_layout(&layout, extents, EXPERT_TENSORS);
    for (uint32_t i = 0; i < layout.n_reads; i++)
        sums->read_bytes += layout.reads[i].bytes;
    sums->bytes += bytes;
    sums->reads += layout.n_reads;
    in->n_experts++;
    in->n_adjacent += one_file && most - least == bytes; // no two tensors overlap
    in->expert_bytes = bytes > in->expert_bytes ? bytes : in->expert_bytes;
    in->slot_bytes = layout.bytes > in->slot_bytes ? layout.bytes : in->slot_bytes;
    if (layout.n_reads > in->reads_most)
        in->reads_most = layout.n_reads;
    if (in->reads_least == 0 || layout.n_reads < in->reads_least)
        in->reads_least = layout.n_reads;
    return true;
}

static bool add_layer(struct inspection *in, const struct checkpoint *cp, uint32_t i,
                      struct expert_sums *all) {
    struct layer_figures *layer = &in->layers[i];
    const bool draft = i >= cp->config.n_layers;
    for (int id = 0; id < TENSOR_W1; id++) {
        const struct tensor_place *place = &cp->layers[i][id];
        if (place->bytes == 0)
            continue;
        layer->dense_bytes += place->bytes;
        in->kind_bytes[draft ? KIND_DRAFT : kind_of((enum tensor_id)id)] += place->bytes;
        if (!span_add(layer, place))
            return false;
    }
    struct expert_sums sums = { 0 };
    for (uint32_t e = 0; e < cp->config.n_experts; e++)
        if (!add_expert(in, layer, checkpoint_expert(cp, i, e), &sums))
            return false;
    layer->expert_bytes = sums.bytes;
    in->kind_bytes[draft ? KIND_DRAFT_EXPERTS : KIND_EXPERTS] += sums.bytes;
    if (!draft) { // any choice of K of them: K of the mean
        const uint64_t k = cp->config.n_chosen, n = cp->config.n_experts;
        in->token_experts += (uint32_t)k;
        in->token_bytes += sums.bytes / n * k;
        in->token_read_bytes += sums.read_bytes / n * k;
    }
    qsort(layer->spans, layer->n_spans, sizeof *layer->spans, by_file);
    all->bytes += sums.bytes;
    all->read_bytes += sums.read_bytes;
    all->reads += sums.reads;
    return true;
}

/* --- all ------------------------------------------------------------------------------------- */

enum status inspection_open(struct inspection *in, const struct checkpoint *cp, struct err *err) {
    *in = (struct inspection){ .n_layers = checkpoint_n_blocks(cp) };
    in->layers = calloc(in->n_layers, sizeof *in->layers);
    bool fits = in->layers != NULL;
    struct expert_sums all = { 0 };
    for (uint32_t i = 0; i < in->n_layers && fits; i++)
        fits = add_layer(in, cp, i, &all);
    if (!fits)
        return err_set(err, ERR_MEMORY, "no memory for a table of %u layers", in->n_layers);
    for (int id = 0; id < TENSOR_ATTN_NORM; id++)
        in->kind_bytes[kind_of((enum tensor_id)id)] += cp->global[id].bytes;
    for (int kind = 0; kind < KIND_DRAFT; kind++)
        in->dense_bytes += in->kind_bytes[kind];
    for (uint32_t f = 0; f < cp->n_files; f++)
        in->total_bytes += cp->files[f].bytes;
    if (in->n_experts > 0)
        in->reads_mean = (double)all.reads / (double)in->n_experts;
    if (all.bytes > 0)
        in->overhead = (double)(all.read_bytes - all.bytes) / (double)all.bytes;
    return OK;
}

void inspection_close(struct inspection *in) {
    for (uint32_t i = 0; in->layers && i < in->n_layers; i++)
        free(in->layers[i].spans);
    free(in->layers);
    *in = (struct inspection){ .n_layers = 0 };
}
