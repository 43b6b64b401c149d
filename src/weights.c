#include "src/weights.h"

#include "kernels/lowbit.h"
#include "src/load.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

// --- a place in the arena for each tensor ----------------------------------------------------

// Tensors are read to multiples of 64 bytes: a cache line, and more than any op asks for.
#define TENSOR_ALIGN     64
#define STAGE_BYTES      (4u << 20) // of a tensor that is converted on the way
#define MATRIX_TILE_COLS 128

static uint64_t aligned(uint64_t bytes) {
    return (bytes + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
}

static uint64_t ceil_div(uint64_t a, uint64_t b) {
    return (a + b - 1) / b;
}

// wo_a is used as BF16. With E8M0 scales the product of code and scale is exact in BF16, so the
// codes stay; with F32 scales it has to be rounded once, here.
static bool becomes_bf16(const struct checkpoint *cp, uint32_t layer, int id) {
    return id == TENSOR_WO_A && cp->layers[layer][TENSOR_WO_A_SCALE].dtype == DTYPE_F32;
}

// Bytes a tensor takes in memory: as stored, but for the two that are converted.
static uint64_t memory_bytes(const struct checkpoint *cp, uint32_t layer, int id) {
    const struct tensor_place *place = &cp->layers[layer][id];
    if (becomes_bf16(cp, layer, id))
        return place->bytes * 2;
    if (id == TENSOR_GATE_TABLE && place->dtype == DTYPE_I64)
        return place->bytes / 2;
    return place->bytes;
}

// --- reading -----------------------------------------------------------------------------------

struct loader {
    struct weights *w;
    const struct weights_options *options;
    unsigned char *stage;    // STAGE_BYTES, for the tensors that are converted
    struct load_item *items; // all others: read at the end, in file order
    uint32_t n_items, max_items;
    uint64_t used; // of the arena
    uint64_t done, total;
};

static enum status report(struct loader *l, uint64_t bytes, struct err *err) {
    l->done += bytes;
    if (l->options->progress && !l->options->progress(l->options->context, l->done, l->total))
        return err_set(err, CANCELLED, "cancelled while loading weights");
    return OK;
}

static struct mem take(struct loader *l, uint64_t bytes) {
    struct mem m = mem_at(l->w->arena, l->used);
    l->used += aligned(bytes);
    return m;
}

// A tensor as it is stored: it has its place now, and is read with all others.
static struct mem plain(struct loader *l, const struct tensor_place *place) {
    struct mem to = take(l, place->bytes);
    assert(l->n_items < l->max_items);
    l->items[l->n_items++] = (struct load_item){ *place, to };
    return to;
}

// The routing table of a hash layer: I64 or I32 on disk, I32 in memory, every id checked, since ops
// index with it.
static enum status read_table(struct loader *l, const struct tensor_place *place, uint32_t layer,
                              struct mem *out, struct err *err) {
    const struct checkpoint *cp = l->w->cp;
    uint64_t item = place->dtype == DTYPE_I64 ? 8 : 4;
    uint64_t total = place->bytes / item;
    *out = take(l, total * 4);
    for (uint64_t at = 0; at < total;) {
        uint64_t n = total - at < STAGE_BYTES / 8 ? total - at : STAGE_BYTES / 8;
        enum status status = checkpoint_read(cp, place, at * item, l->stage, n * item, err);
        if (status != OK)
            return status;
        for (uint64_t i = 0; i < n; i++) {
            int64_t id = 0;
            if (item == 8) {
                memcpy(&id, l->stage + i * 8, 8);
            } else {
                int32_t narrow;
                memcpy(&narrow, l->stage + i * 4, 4);
                id = narrow;
            }
            if (id < 0 || id >= cp->config.n_experts)
                return err_set(err, ERR_INPUT,
                               "%s: layer %u: the routing table (tid2eid) names expert %lld of "
                               "%u at entry %llu",
                               cp->files[place->file].path, layer, (long long)id,
                               cp->config.n_experts, (unsigned long long)(at + i));
            int32_t stored = (int32_t)id; // in place: 4 bytes never overtake 8
            memcpy(l->stage + i * 4, &stored, 4);
        }
        ops_upload(l->w->ops, mem_at(*out, at * 4), l->stage, n * 4);
        if ((status = report(l, n * item, err)) != OK)
            return status;
        at += n;
    }
    return OK;
}

// An FP8 matrix with F32 scales as BF16: each product rounded to nearest, once.
static enum status read_as_bf16(struct loader *l, const struct tensor_place *place,
                                const struct tensor_place *scale, uint64_t rows, uint64_t cols,
                                struct mem *out, struct err *err) {
    *out = take(l, rows * cols * 2);
    uint64_t blocks = ceil_div(cols, MATRIX_TILE_COLS);
    float *scales = malloc(blocks * sizeof *scales);
    uint16_t *line = malloc(cols * sizeof *line);
    enum status status = scales && line ? OK : err_set(err, ERR_MEMORY, "no memory for one row");
    for (uint64_t row = 0; row < rows && status == OK; row++) {
        status = checkpoint_read(l->w->cp, place, row * cols, l->stage, cols, err);
        if (status == OK && row % MATRIX_TILE_COLS == 0)
            status = checkpoint_read(l->w->cp, scale, row / MATRIX_TILE_COLS * blocks * 4, scales,
                                     blocks * 4, err);
        if (status != OK)
            break;
        for (uint64_t col = 0; col < cols; col++)
            line[col] = bf16_code(e4m3_value(l->stage[col]) * scales[col / MATRIX_TILE_COLS]);
        ops_upload(l->w->ops, mem_at(*out, row * cols * 2), line, cols * 2);
        status = report(l, cols, err);
    }
    free(scales);
    free(line);
    return status;
}

// --- from tensors to the structures that layers use --------------------------------------------

static struct matrix matrix_of(const struct tensor_place *weight, const struct tensor_place *scale,
                               struct mem w, struct mem s, uint64_t rows, uint64_t cols) {
    enum matrix_type type = MATRIX_F32;
    if (weight->dtype == DTYPE_BF16)
        type = MATRIX_BF16;
    else if (weight->dtype == DTYPE_I8)
        type = MATRIX_FP4;
    else if (weight->dtype == DTYPE_F8_E4M3)
        type = scale->dtype == DTYPE_F32 ? MATRIX_FP8_F32 : MATRIX_FP8;
    return (struct matrix){
        .type = type, .rows = (uint32_t)rows, .cols = (uint32_t)cols, .weight = w, .scale = s
    };
}

// Where each tensor id goes in struct layer_weights. A matrix's scale follows it in tensor_id.
struct binding {
    enum tensor_id id;
    bool matrix, has_scale;
    size_t offset;
};
#define VECTOR(id, field)                                                                          \
    { id, false, false, offsetof(struct layer_weights, field) }
#define PLAIN(id, field)                                                                           \
    { id, true, false, offsetof(struct layer_weights, field) }
#define QUANTIZED(id, field)                                                                       \
    { id, true, true, offsetof(struct layer_weights, field) }
static const struct binding bindings[] = {
    VECTOR(TENSOR_ATTN_NORM, attn_norm),
    VECTOR(TENSOR_FFN_NORM, ffn_norm),
    VECTOR(TENSOR_HC_ATTN_FN, hc_attn.fn),
    VECTOR(TENSOR_HC_ATTN_BASE, hc_attn.base),
    VECTOR(TENSOR_HC_ATTN_SCALE, hc_attn.scale),
    VECTOR(TENSOR_HC_FFN_FN, hc_ffn.fn),
    VECTOR(TENSOR_HC_FFN_BASE, hc_ffn.base),
    VECTOR(TENSOR_HC_FFN_SCALE, hc_ffn.scale),
    VECTOR(TENSOR_ATTN_SINK, sink),
    QUANTIZED(TENSOR_WQ_A, wq_a),
    VECTOR(TENSOR_Q_NORM, q_norm),
    QUANTIZED(TENSOR_WQ_B, wq_b),
    QUANTIZED(TENSOR_WKV, wkv),
    VECTOR(TENSOR_KV_NORM, kv_norm),
    QUANTIZED(TENSOR_WO_A, wo_a),
    QUANTIZED(TENSOR_WO_B, wo_b),
    VECTOR(TENSOR_COMP_APE, compressor.ape),
    PLAIN(TENSOR_COMP_WKV, compressor.wkv),
    PLAIN(TENSOR_COMP_WGATE, compressor.wgate),
    VECTOR(TENSOR_COMP_NORM, compressor.norm),
    QUANTIZED(TENSOR_INDEX_WQ_B, index_wq_b),
    PLAIN(TENSOR_INDEX_WEIGHTS, index_weights),
    VECTOR(TENSOR_INDEX_COMP_APE, index_compressor.ape),
    PLAIN(TENSOR_INDEX_COMP_WKV, index_compressor.wkv),
    PLAIN(TENSOR_INDEX_COMP_WGATE, index_compressor.wgate),
    VECTOR(TENSOR_INDEX_COMP_NORM, index_compressor.norm),
    PLAIN(TENSOR_GATE, gate),
    VECTOR(TENSOR_GATE_TABLE, gate_table),
    VECTOR(TENSOR_GATE_BIAS, gate_bias),
    QUANTIZED(TENSOR_SHARED_W1, shared_w1),
    QUANTIZED(TENSOR_SHARED_W2, shared_w2),
    QUANTIZED(TENSOR_SHARED_W3, shared_w3),
    QUANTIZED(TENSOR_MTP_E_PROJ, e_proj),
    QUANTIZED(TENSOR_MTP_H_PROJ, h_proj),
    VECTOR(TENSOR_MTP_ENORM, enorm),
    VECTOR(TENSOR_MTP_HNORM, hnorm),
    VECTOR(TENSOR_MTP_NORM, norm),
    VECTOR(TENSOR_MTP_HC_HEAD_FN, hc_head.fn),
    VECTOR(TENSOR_MTP_HC_HEAD_BASE, hc_head.base),
    VECTOR(TENSOR_MTP_HC_HEAD_SCALE, hc_head.scale),
};
#define N_BINDINGS (sizeof bindings / sizeof *bindings)

// --- units that may be streamed ------------------------------------------------------------------

// Matrices but the gate's, which runs out of turn, and those that are converted.
static bool may_stream(const struct checkpoint *cp, uint32_t layer, const struct binding *b) {
    return b->matrix && b->id != TENSOR_GATE && cp->layers[layer][b->id].bytes > 0 &&
           !becomes_bf16(cp, layer, b->id);
}

uint64_t weights_fixed_bytes(const struct checkpoint *cp, uint32_t layer) {
    uint64_t bytes = 0;
    for (int id = TENSOR_ATTN_NORM; id < TENSOR_W1; id++)
        bytes += aligned(memory_bytes(cp, layer, id));
    for (size_t i = 0; i < N_BINDINGS; i++) {
        const struct binding *b = &bindings[i];
        if (!may_stream(cp, layer, b))
            continue;
        bytes -= aligned(memory_bytes(cp, layer, b->id));
        bytes -= b->has_scale ? aligned(memory_bytes(cp, layer, b->id + 1)) : 0;
    }
    return bytes;
}

uint64_t weights_global_bytes(const struct checkpoint *cp) {
    uint64_t bytes = 0;
    for (int id = TENSOR_NORM; id < TENSOR_ATTN_NORM; id++)
        bytes += aligned(cp->global[id].bytes);
    return bytes;
}

uint32_t weights_unit_parts(const struct checkpoint *cp, const struct dense_plan *plan,
                            uint32_t unit, struct tensor_place part[DENSE_MAX_PARTS]) {
    uint32_t n = 0;
    if (unit >= plan->n_blocks) {
        part[n++] = dense_panel(plan, cp, unit - plan->n_blocks).place;
        return n;
    }
    for (size_t i = 0; i < N_BINDINGS; i++) {
        const struct binding *b = &bindings[i];
        if (!may_stream(cp, unit, b))
            continue;
        assert(n + 2 <= DENSE_MAX_PARTS);
        part[n++] = cp->layers[unit][b->id];
        if (b->has_scale)
            part[n++] = cp->layers[unit][b->id + 1];
    }
    return n;
}

uint64_t weights_unit_bytes(const struct checkpoint *cp, const struct dense_plan *plan,
                            uint32_t unit) {
    struct tensor_place part[DENSE_MAX_PARTS];
    uint64_t bytes = 0;
    for (uint32_t i = weights_unit_parts(cp, plan, unit, part); i-- > 0;)
        bytes += aligned(part[i].bytes);
    return bytes;
}

void weights_unit_place(struct weights *w, uint32_t unit, const struct mem *at) {
    uint32_t n = 0;
    assert(w->plan.streamed[unit]);
    if (unit >= w->n_blocks) {
        w->head[unit - w->n_blocks].weight = at ? at[0] : mem_none();
        return;
    }
    for (size_t i = 0; i < N_BINDINGS; i++) {
        const struct binding *b = &bindings[i];
        if (!may_stream(w->cp, unit, b))
            continue;
        struct matrix *m = (void *)((char *)&w->layers[unit] + b->offset);
        m->weight = at ? at[n] : mem_none();
        n++;
        if (!b->has_scale)
            continue;
        m->scale = at ? at[n] : mem_none();
        n++;
    }
}

// --- loading -------------------------------------------------------------------------------------

static enum status load_binding(struct loader *l, uint32_t layer, const struct binding *b,
                                struct err *err) {
    const struct checkpoint *cp = l->w->cp;
    const struct tensor_place *place = &cp->layers[layer][b->id];
    void *field = (char *)&l->w->layers[layer] + b->offset;
    if (place->bytes == 0)
        return OK; // this kind of layer has none: the reader has checked which must be there
    if (!b->matrix) {
        if (b->id == TENSOR_GATE_TABLE)
            return read_table(l, place, layer, field, err);
        *(struct mem *)field = plain(l, place);
        return OK;
    }
    struct manifest_entry entry;
    manifest_entry(&cp->config, b->id, layer, 0, &entry);
    const struct tensor_place *scale = b->has_scale ? &cp->layers[layer][b->id + 1] : NULL;
    if (becomes_bf16(cp, layer, b->id)) {
        struct mem weight = mem_none();
        enum status status =
            read_as_bf16(l, place, scale, entry.shape[0], entry.shape[1], &weight, err);
        if (status == OK)
            *(struct matrix *)field = (struct matrix){ .type = MATRIX_BF16,
                                                       .rows = (uint32_t)entry.shape[0],
                                                       .cols = (uint32_t)entry.shape[1],
                                                       .weight = weight };
        return status;
    }
    struct mem weight = mem_none(), scales = mem_none();
    if (!l->w->plan.streamed[layer] || !may_stream(cp, layer, b)) {
        weight = plain(l, place);
        scales = scale ? plain(l, scale) : mem_none();
    }
    *(struct matrix *)field =
        matrix_of(place, scale, weight, scales, entry.shape[0], entry.shape[1]);
    return OK;
}

static void bind_globals(struct loader *l) {
    struct weights *w = l->w;
    const struct tensor_place *global = w->cp->global;
    if (!l->options->embed_on_disk)
        w->embed = plain(l, &global[TENSOR_EMBED]);
    else // rows are fetched one by one: what the kernel would read ahead is not wanted
        posix_fadvise(w->cp->files[global[TENSOR_EMBED].file].fd, 0, 0, POSIX_FADV_RANDOM);
    for (uint32_t i = 0; i < w->plan.n_panels; i++) {
        struct dense_panel panel = dense_panel(&w->plan, w->cp, i);
        bool streamed = w->plan.streamed[w->n_blocks + i];
        struct mem weight = streamed ? mem_none() : plain(l, &panel.place);
        w->head[i] = matrix_of(&global[TENSOR_HEAD], NULL, weight, mem_none(), panel.n_rows,
                               w->cp->config.d);
    }
    w->norm = plain(l, &global[TENSOR_NORM]);
    w->hc_head.fn = plain(l, &global[TENSOR_HC_HEAD_FN]);
    w->hc_head.base = plain(l, &global[TENSOR_HC_HEAD_BASE]);
    w->hc_head.scale = plain(l, &global[TENSOR_HC_HEAD_SCALE]);
}

static bool arrived(void *context, uint64_t bytes) {
    struct loader *l = context;
    return report(l, bytes, NULL) == OK;
}

static enum status load_all(struct loader *l, struct err *err) {
    enum status status = OK;
    bind_globals(l);
    for (uint32_t layer = 0; layer < l->w->n_blocks && status == OK; layer++)
        for (size_t i = 0; i < N_BINDINGS && status == OK; i++)
            status = load_binding(l, layer, &bindings[i], err);
    struct load_options read = { .io = l->options->io,
                                 .forbid_uring = l->options->forbid_uring,
                                 .progress = arrived,
                                 .context = l };
    if (status == OK)
        status = load_items(l->w->cp, l->w->ops, l->items, l->n_items, &read, err);
    return status;
}

// w1 and w3 of an expert are multiplied with one rounding of x, in one op: files may store an expert's
// scales in either type, but these two must agree.
static enum status check_pair(const struct checkpoint *cp, const struct tensor_place *w1_scale,
                              const struct tensor_place *w3_scale, uint32_t layer, const char *what,
                              struct err *err) {
    if (w1_scale->dtype == w3_scale->dtype)
        return OK;
    return err_set(
        err, ERR_INPUT, "%s: layer %u: %s has scales of type %s for w1, and of type %s for w3",
        cp->files[w3_scale->file].path, layer, what, dtype_name((enum dtype)w1_scale->dtype),
        dtype_name((enum dtype)w3_scale->dtype));
}

static enum status check_experts(const struct checkpoint *cp, uint32_t n_blocks, struct err *err) {
    enum status status = OK;
    for (uint32_t layer = 0; layer < n_blocks && status == OK; layer++) {
        const struct tensor_place *dense = cp->layers[layer];
        status = check_pair(cp, &dense[TENSOR_SHARED_W1_SCALE], &dense[TENSOR_SHARED_W3_SCALE],
                            layer, "the shared expert", err);
        for (uint32_t e = 0; e < cp->config.n_experts && status == OK; e++) {
            const struct tensor_place *part = checkpoint_expert(cp, layer, e)->part;
            status = check_pair(cp, &part[1], &part[5], layer, "a routed expert", err);
        }
    }
    return status;
}

enum status weights_load(struct weights *w, const struct checkpoint *cp, struct ops *ops,
                         const struct weights_options *options, struct err *err) {
    *w = (struct weights){ .cp = cp, .ops = ops, .plan = *options->plan };
    w->n_blocks = w->plan.n_blocks;
    if (check_experts(cp, w->n_blocks, err) != OK)
        return err->status;
    struct loader l = { .w = w, .options = options };
    l.total = w->plan.trunk_bytes + w->plan.draft_bytes +
              (options->embed_on_disk ? 0 : aligned(cp->global[TENSOR_EMBED].bytes));
    l.max_items = TENSOR_ATTN_NORM + w->plan.n_panels + w->n_blocks * TENSOR_W1;
    l.items = malloc(l.max_items * sizeof *l.items);
    l.stage = malloc(STAGE_BYTES);
    w->layers = calloc(w->n_blocks, sizeof *w->layers);
    w->head = calloc(w->plan.n_panels, sizeof *w->head);
    enum status status = l.stage && l.items && w->layers && w->head
                             ? ops_alloc(ops, l.total, &w->arena, err)
                             : err_set(err, ERR_MEMORY, "no memory to load weights with");
    if (status == OK)
        status = load_all(&l, err);
    free(l.items);
    free(l.stage);
    if (status != OK)
        weights_close(w);
    return status;
}

void weights_close(struct weights *w) {
    if (w->arena.address)
        ops_release(w->ops, w->arena);
    free(w->layers);
    free(w->head);
    *w = (struct weights){ .cp = NULL };
}

enum status weights_embed_rows(const struct weights *w, const int32_t *token, uint32_t n,
                               unsigned char *rows, struct err *err) {
    uint64_t row_bytes = (uint64_t)w->cp->config.d * 2;
    for (uint32_t i = 0; i < n; i++) {
        enum status status =
            checkpoint_read(w->cp, &w->cp->global[TENSOR_EMBED], (uint64_t)token[i] * row_bytes,
                            rows + i * row_bytes, row_bytes, err);
        if (status != OK)
            return status;
    }
    return OK;
}

// --- routed experts ------------------------------------------------------------------------------

static void layout_of(const struct checkpoint *cp, const uint32_t *file_of, uint32_t expert,
                      struct extents_layout *out) {
    const struct expert_place *place = &cp->experts[expert];
    struct extent extents[EXPERT_TENSORS];
    for (int i = 0; i < EXPERT_TENSORS; i++)
        extents[i] = (struct extent){
            .file = file_of ? file_of[place->part[i].file] : place->part[i].file,
            .offset = place->part[i].offset,
            .bytes = place->part[i].bytes,
        };
    extents_layout(out, extents, EXPERT_TENSORS);
}

void expert_layout(void *context, uint32_t expert, struct extents_layout *out) {
    const struct expert_table *t = context;
    layout_of(t->cp, t->file_of, expert, out);
}

uint64_t expert_slot_bytes(const struct checkpoint *cp, uint32_t n_blocks) {
    uint64_t largest = 0;
    for (uint32_t expert = 0; expert < n_blocks * cp->config.n_experts; expert++) {
        struct extents_layout layout;
        layout_of(cp, NULL, expert, &layout);
        if (layout.bytes > largest)
            largest = layout.bytes;
    }
    return largest;
}

enum status expert_table_open(struct expert_table *t, const struct checkpoint *cp,
                              const struct dense_plan *plan, struct reader *reader,
                              struct err *err) {
    uint32_t n_blocks = plan->n_blocks;
    *t = (struct expert_table){ .cp = cp, .n_blocks = n_blocks };
    t->file_of = malloc(cp->n_files * sizeof *t->file_of);
    bool *wanted = calloc(cp->n_files, sizeof *wanted);
    enum status status =
        t->file_of && wanted ? OK : err_set(err, ERR_MEMORY, "no memory for a table of files");
    uint32_t n_experts = n_blocks * cp->config.n_experts;
    for (uint32_t expert = 0; expert < n_experts && status == OK; expert++)
        for (int i = 0; i < EXPERT_TENSORS; i++)
            wanted[cp->experts[expert].part[i].file] = true;
    for (uint32_t unit = 0; unit < plan->n_units && status == OK; unit++) {
        struct tensor_place part[DENSE_MAX_PARTS];
        uint32_t n = plan->streamed[unit] ? weights_unit_parts(cp, plan, unit, part) : 0;
        while (n-- > 0)
            wanted[part[n].file] = true;
    }
    for (uint32_t file = 0; file < cp->n_files && status == OK; file++)
        if (wanted[file])
            status = reader_add_file(reader, cp->files[file].path, &t->file_of[file], err);
    free(wanted);
    if (status != OK) {
        expert_table_close(t);
        return status;
    }
    t->slot_bytes = expert_slot_bytes(cp, n_blocks);
    for (int i = 0; i < EXPERT_TENSORS; i++)
        t->expert_bytes += cp->experts[0].part[i].bytes;
    return OK;
}

void expert_table_close(struct expert_table *t) {
    free(t->file_of);
    *t = (struct expert_table){ .cp = NULL };
}

void expert_matrices(const struct expert_table *t, uint32_t expert, struct mem data,
                     struct matrix *w1, struct matrix *w3, struct matrix *w2) {
    struct extents_layout layout;
    layout_of(t->cp, t->file_of, expert, &layout);
    const struct tensor_place *part = t->cp->experts[expert].part;
    uint32_t d = t->cp->config.d, f = t->cp->config.expert_dim;
    *w1 =
        matrix_of(&part[0], &part[1], mem_at(data, layout.at[0]), mem_at(data, layout.at[1]), f, d);
    *w2 =
        matrix_of(&part[2], &part[3], mem_at(data, layout.at[2]), mem_at(data, layout.at[3]), d, f);
    *w3 =
        matrix_of(&part[4], &part[5], mem_at(data, layout.at[4]), mem_at(data, layout.at[5]), f, d);
}
