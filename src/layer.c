/* One layer. Read layer_advance first: it is the whole of it. */
#include "src/step.h"

#include <stdlib.h>
#include <string.h>

static enum status dense_half(struct step *s, const struct layer_weights *w, struct err *err);
static void attention_half(struct step *s, const struct layer_weights *w, struct err *err);
static enum status ask_for_experts(struct step *s, const struct layer_weights *w, struct err *err);
static void compute_expert(struct step *s, const struct slot *slot);
static void finish_experts(struct step *s);
static void write_streams(struct step *s);
static void look(struct step *s, enum tap_point point, struct mem data, uint32_t width,
                 struct err *err);

enum status layer_advance(struct step *s, struct err *err) {
    const struct layer_weights *w = &s->engine->weights.layers[s->layer];
    struct account *account = &s->engine->account;
    const struct config *c = &s->engine->cp.config;
    account_layer(account, s->layer);

    if (s->state != STEP_EXPERTS) {
        struct dense *dense = &s->engine->dense;
        enum status status =
            dense_hold(dense, &s->dense, dense_visit_layer(dense, &s->dense, s->layer), err);
        if (status != OK)
            return status;
        status = dense_half(s, w, err);
        dense_release(dense, &s->dense, status == OK, ops_record(s->engine->ops));
        if (status != OK)
            return status;
    }

    account_enter(account, ACTIVITY_EXPERTS);
    struct slot slot;
    enum status status;
    do {
        while ((status = slots_next(&s->demand, &slot, err)) == OK) {
            account_expert(account, slot.expert);
            compute_expert(s, &slot);
            slots_release(s->engine->slots, &slot, ops_record(s->engine->ops));
            prefetch_more(s);
        }
    } while (status == AGAIN && prefetch_ahead(s));
    if (status != DONE)
        return status; // AGAIN, or an error: this layer goes on from here
    s->demanded = false;

    finish_experts(s);
    look(s, TAP_FFN_OUT, s->b.y, c->d, err);
    write_streams(s);
    prefetch_ahead(s); // if there was nothing to wait for
    look(s, TAP_STREAMS, s->b.h, c->n_streams * c->d, err);
    // On, whatever a tap says: a layer that is done must not be computed again. The trunk's last layer
    // and the draft block's are each followed by a head.
    bool is_last = s->layer + 1 >= c->n_layers;
    s->state = is_last ? STEP_HEAD : STEP_ATTENTION;
    s->layer += !is_last;
    return err->status;
}

// What needs the layer's dense matrices: attention, and the FFN half up to the demand.
static enum status dense_half(struct step *s, const struct layer_weights *w, struct err *err) {
    struct account *account = &s->engine->account;
    uint32_t d = s->engine->cp.config.d;
    if (s->state == STEP_ATTENTION) {
        account_enter(account, ACTIVITY_ATTENTION);
        layer_read_streams(s, &w->hc_attn, w->attn_norm, s->b.x, s->b.post, s->b.comb);
        look(s, TAP_ATTN_IN, s->b.x, d, err);
        attention_half(s, w, err);
        look(s, TAP_ATTN_OUT, s->b.y, d, err);
        write_streams(s);
        s->state = STEP_GATE;
    }
    account_enter(account, ACTIVITY_GATE);
    layer_read_streams(s, &w->hc_ffn, w->ffn_norm, s->b.x, s->b.post, s->b.comb);
    look(s, TAP_FFN_IN, s->b.x, d, err);
    if (err->status == OK && ask_for_experts(s, w, err) == OK)
        s->state = STEP_EXPERTS;
    return err->status;
}

// --- residual streams ------------------------------------------------------------------------

void layer_read_streams(struct step *s, const struct hyper_weights *hc, struct mem norm,
                        struct mem x, struct mem post, struct mem comb) {
    const struct config *c = &s->engine->cp.config;
    struct hc_pre pre = {
        .h = s->b.h,
        .fn = hc->fn,
        .base = hc->base,
        .scale = hc->scale,
        .x = x,
        .post = post,
        .comb = comb,
        .n_rows = s->n_rows,
        .n_streams = c->n_streams,
        .d = c->d,
        .sinkhorn_iters = c->sinkhorn_iters,
        .norm_eps = c->norm_eps,
        .hc_eps = c->hc_eps,
    };
    hc_pre(s->engine->ops, &pre);
    struct rms_norm normalize = {
        .x = x, .weight = norm, .y = x, .n_rows = s->n_rows, .d = c->d, .eps = c->norm_eps
    };
    rms_norm(s->engine->ops, &normalize);
}

static void write_streams(struct step *s) {
    const struct config *c = &s->engine->cp.config;
    struct hc_post post = {
        .h = s->b.h,
        .x = s->b.y,
        .post = s->b.post,
        .comb = s->b.comb,
        .n_rows = s->n_rows,
        .n_streams = c->n_streams,
        .d = c->d,
    };
    hc_post(s->engine->ops, &post);
}

// --- attention ---------------------------------------------------------------------------------

static void multiply(struct step *s, struct matrix w, struct mem x, struct mem y, uint32_t n_rows) {
    struct matmul a = { .w = w, .x = x, .y = y, .n_rows = n_rows, .n_groups = 1, .quantize = true };
    matmul(s->engine->ops, &a);
}

static void normalize(struct step *s, struct mem x, struct mem weight, uint32_t n_rows,
                      uint32_t d) {
    struct rms_norm a = { .x = x,
                          .weight = weight,
                          .y = x,
                          .n_rows = n_rows,
                          .d = d,
                          .eps = s->engine->cp.config.norm_eps };
    rms_norm(s->engine->ops, &a);
}

// What ops need to find the KV state of the spans in this layer.
static struct kv_view view_of(const struct step *s) {
    const struct kv_store *kv = &s->engine->kv;
    const struct config *c = &s->engine->cp.config;
    return (struct kv_view){
        .pages = kv->memory,
        .tables = s->b.tables,
        .rows = mem_at(s->b.rows, (uint64_t)s->layer * s->max_spans * sizeof(struct kv_rows)),
        .n_seqs = s->n_spans,
        .page_bytes = kv->layout.page_bytes,
        .c = c->head_dim,
        .r = c->rope_dim,
        .index_dim = c->index_dim,
        .ring_entries = kv->layout.ring_entries,
        .history = KV_ROLLBACK + 1,
        .max_seq_rows = s->max_span_rows,
    };
}

static void feed_compressor(struct step *s, const struct compressor_weights *w, uint32_t dim,
                            bool index) {
    const struct config *c = &s->engine->cp.config;
    multiply(s, w->wkv, s->b.x, s->b.values, s->n_rows);
    multiply(s, w->wgate, s->b.x, s->b.gates, s->n_rows);
    struct compress a = {
        .kv = view_of(s),
        .values = s->b.values,
        .gates = s->b.gates,
        .ape = w->ape,
        .norm = w->norm,
        .theta = s->engine->theta_yarn,
        .n_rows = s->n_rows,
        .m = c->ratio[s->layer],
        .dim = dim,
        .r = c->rope_dim,
        .eps = c->norm_eps,
        .index = index,
    };
    compress(s->engine->ops, &a);
}

// The compressed entries that rows first … first+n attend to (CSA).
static void choose_entries(struct step *s, const struct layer_weights *w, struct mem cs,
                           uint32_t first, uint32_t n) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    multiply(s, w->index_wq_b, mem_at(s->b.qr, (uint64_t)first * c->q_rank * 4), s->b.index_q, n);
    struct rotate turn = { .x = s->b.index_q,
                           .cs = cs,
                           .n_rows = n,
                           .n_heads = c->index_heads,
                           .c = c->index_dim,
                           .r = c->rope_dim };
    rotate(ops, &turn);
    struct hadamard mix = { .x = s->b.index_q, .n_rows = n * c->index_heads, .dim = c->index_dim };
    hadamard(ops, &mix);
    multiply(s, w->index_weights, mem_at(s->b.x, (uint64_t)first * c->d * 4), s->b.index_w, n);
    struct index_topk choose = {
        .kv = view_of(s),
        .q = s->b.index_q,
        .weights = s->b.index_w,
        .chosen = s->b.chosen,
        .first_row = first,
        .n_rows = n,
        .n_heads = c->index_heads,
        .m = c->ratio[s->layer],
        .k = c->index_topk,
        .weight_scale = s->engine->index_scale,
    };
    index_topk(ops, &choose);
}

// Queries of rows first … first+n, attention, and the way back to the residual: y.
static void attend(struct step *s, const struct layer_weights *w, struct mem cs_all, uint32_t first,
                   uint32_t n, struct err *err) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    uint32_t m = c->ratio[s->layer];
    struct mem cs = mem_at(cs_all, (uint64_t)first * c->rope_dim * 4);

    multiply(s, w->wq_b, mem_at(s->b.qr, (uint64_t)first * c->q_rank * 4), s->b.q, n);
    normalize(s, s->b.q, mem_none(), n * c->n_heads, c->head_dim);
    struct rotate turn = { .x = s->b.q,
                           .cs = cs,
                           .n_rows = n,
                           .n_heads = c->n_heads,
                           .c = c->head_dim,
                           .r = c->rope_dim };
    rotate(ops, &turn);
    if (m == 4) {
        choose_entries(s, w, cs, first, n);
        layer_tap(s, s->layer, TAP_INDEX_CHOSEN, s->b.chosen, first, n, c->index_topk, err);
    }
    struct attention look_back = {
        .kv = view_of(s),
        .q = s->b.q,
        .o = s->b.q,
        .fresh = s->b.fresh,
        .sink = w->sink,
        .chosen = m == 4 ? s->b.chosen : mem_none(),
        .first_row = first,
        .n_rows = n,
        .n_heads = c->n_heads,
        .window = c->window,
        .m = m,
        .k = c->index_topk,
    };
    attention(ops, &look_back);
    turn.inverse = true;
    rotate(ops, &turn);

    struct matmul to_groups = {
        .w = w->wo_a, .x = s->b.q, .y = s->b.og, .n_rows = n, .n_groups = c->o_groups
    };
    matmul(ops, &to_groups);
    multiply(s, w->wo_b, s->b.og, mem_at(s->b.y, (uint64_t)first * c->d * 4), n);
}

static void attention_half(struct step *s, const struct layer_weights *w, struct err *err) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    uint32_t m = c->ratio[s->layer];
    struct mem cs = m ? s->b.cs_yarn : s->b.cs_plain;

    multiply(s, w->wq_a, s->b.x, s->b.qr, s->n_rows);
    normalize(s, s->b.qr, w->q_norm, s->n_rows, c->q_rank);

    // This step's keys (which are the values too), and what compressors make of them.
    multiply(s, w->wkv, s->b.x, s->b.kv, s->n_rows);
    normalize(s, s->b.kv, w->kv_norm, s->n_rows, c->head_dim);
    struct rotate turn = { .x = s->b.kv,
                           .cs = cs,
                           .n_rows = s->n_rows,
                           .n_heads = 1,
                           .c = c->head_dim,
                           .r = c->rope_dim };
    rotate(ops, &turn);
    struct kv_pack pack = { .kv = s->b.kv,
                            .entries = s->b.fresh,
                            .n_rows = s->n_rows,
                            .c = c->head_dim,
                            .r = c->rope_dim };
    kv_pack(ops, &pack);
    if (m > 0)
        feed_compressor(s, &w->compressor, c->head_dim, false);
    if (m == 4)
        feed_compressor(s, &w->index_compressor, c->index_dim, true);

    for (uint32_t first = 0; first < s->n_rows; first += STEP_TILE) {
        uint32_t n = s->n_rows - first < STEP_TILE ? s->n_rows - first : STEP_TILE;
        attend(s, w, cs, first, n, err);
    }
    struct window_store store = { .kv = view_of(s), .entries = s->b.fresh };
    window_store(ops, &store);
}

// --- experts -----------------------------------------------------------------------------------

static bool is_narrow(const struct step *s) {
    return s->n_rows <= STEP_NARROW_ROWS;
}

// Sort the choices by expert: pick[pick_begin[e] …] are the places (row·K + k) that want e.
static uint32_t sort_choices(struct step *s) {
    const struct config *c = &s->engine->cp.config;
    uint32_t n = s->n_rows * c->n_chosen, n_wanted = 0;
    memset(s->pick_begin, 0, (c->n_experts + 1) * sizeof *s->pick_begin);
    for (uint32_t i = 0; i < n; i++)
        s->pick_begin[s->experts[i] + 1]++;
    for (uint32_t e = 0; e < c->n_experts; e++) {
        if (s->pick_begin[e + 1])
            s->wanted[n_wanted++] = s->layer * c->n_experts + e;
        s->pick_begin[e + 1] += s->pick_begin[e];
    }
    for (uint32_t i = 0; i < n; i++) // ascending i: rows ascending within an expert
        s->pick[s->pick_begin[s->experts[i]]++] = (int32_t)i;
    for (uint32_t e = c->n_experts; e > 0; e--) // undo the advance of the line above
        s->pick_begin[e] = s->pick_begin[e - 1];
    s->pick_begin[0] = 0;
    return n_wanted;
}

// The gate's choice becomes a demand; the shared expert is computed while its reads begin.
static enum status ask_for_experts(struct step *s, const struct layer_weights *w, struct err *err) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    multiply(s, w->gate, s->b.x, s->b.logits_gate, s->n_rows);
    bool hash = w->gate_table.address != 0;
    struct route choose = {
        .logits = s->b.logits_gate,
        .bias = hash ? mem_none() : w->gate_bias,
        .table = hash ? w->gate_table : mem_none(),
        .token = s->layer < c->n_layers ? s->b.token : s->b.next,
        .experts = s->b.experts,
        .weights = s->b.weights,
        .n_rows = s->n_rows,
        .n_experts = c->n_experts,
        .n_chosen = c->n_chosen,
        .route_scale = c->route_scale,
    };
    route(ops, &choose);
    look(s, TAP_ROUTE_EXPERTS, s->b.experts, c->n_chosen, err);
    look(s, TAP_ROUTE_WEIGHTS, s->b.weights, c->n_chosen, err);
    uint32_t n_choices = s->n_rows * c->n_chosen;
    if (ops_download(ops, s->experts, s->b.experts, n_choices * sizeof *s->experts, err) != OK)
        return err->status;
    if (s->options.routed)
        s->options.routed(s->options.context, s->layer, s->experts);
    uint32_t n_wanted = sort_choices(s);
    prefetch_judge(s, n_wanted);
    if (slots_demand(s->engine->slots, s->wanted, n_wanted, is_narrow(s) ? ANY_ORDER : IN_ORDER,
                     s->handed, &s->demand, err) != OK)
        return err->status;
    s->demanded = true;

    ops_upload(ops, s->b.pick, s->pick, n_choices * sizeof *s->pick);
    struct expert_ffn shared = {
        .w1 = w->shared_w1,
        .w3 = w->shared_w3,
        .w2 = w->shared_w2,
        .x = s->b.x,
        .y = s->b.shared,
        .n = s->n_rows,
        .limit = c->swiglu_limit,
    };
    expert_ffn(ops, &shared);
    prefetch_demanded(s, n_wanted);
    return OK;
}

static void compute_expert(struct step *s, const struct slot *slot) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    uint32_t e = slot->expert - s->layer * c->n_experts;
    struct expert_ffn a = {
        .x = s->b.x,
        .pick = mem_at(s->b.pick, s->pick_begin[e] * sizeof *s->pick),
        .weights = s->b.weights,
        .y = is_narrow(s) ? s->b.parts : s->b.y,
        .n = s->pick_begin[e + 1] - s->pick_begin[e],
        .n_chosen = c->n_chosen,
        .mode = is_narrow(s) ? EXPERT_STORE : EXPERT_ADD,
        .limit = c->swiglu_limit,
    };
    expert_matrices(&s->engine->experts, slot->expert, ops_host_mem(ops, slot->data), &a.w1, &a.w3,
                    &a.w2);
    expert_ffn(ops, &a);
}

static void finish_experts(struct step *s) {
    const struct config *c = &s->engine->cp.config;
    struct moe_sum sum = {
        .parts = is_narrow(s) ? s->b.parts : s->b.y,
        .shared = s->b.shared,
        .y = s->b.y,
        .n_rows = s->n_rows,
        .n_parts = is_narrow(s) ? c->n_chosen : 1,
        .d = c->d,
    };
    moe_sum(s->engine->ops, &sum);
}

// --- head and draft ----------------------------------------------------------------------------

// The rows of a tile as the head multiplies them: logit_x.
static void head_input(struct step *s, bool draft, uint32_t first, uint32_t n) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    const struct weights *w = &s->engine->weights;
    const struct hyper_weights *hc = draft ? &w->layers[s->layer].hc_head : &w->hc_head;
    struct gather_rows gather = { .x = s->b.h,
                                  .row = mem_at(s->b.logit_row, first * 4),
                                  .y = s->b.logit_h,
                                  .n = n,
                                  .width = c->n_streams * c->d };
    gather_rows(ops, &gather);
    struct hc_head mix = {
        .h = s->b.logit_h,
        .fn = hc->fn,
        .base = hc->base,
        .scale = hc->scale,
        .x = s->b.logit_x,
        .n_rows = n,
        .n_streams = c->n_streams,
        .d = c->d,
        .norm_eps = c->norm_eps,
        .hc_eps = c->hc_eps,
    };
    hc_head(ops, &mix);
    normalize(s, s->b.logit_x, draft ? w->layers[s->layer].norm : w->norm, n, c->d);
}

// Logits of n rows for the panels from s->head_panel on; those of a panel lie side by side.
static enum status head_panels(struct step *s, bool draft, uint32_t n, struct err *err) {
    struct sluice *engine = s->engine;
    uint32_t vocab = engine->cp.config.vocab, panel_rows = engine->weights.plan.panel_rows;
    for (; s->head_panel < engine->weights.plan.n_panels; s->head_panel++) {
        const struct matrix *w = &engine->weights.head[s->head_panel];
        uint32_t at = s->head_panel * panel_rows;
        enum status status = dense_hold(
            &engine->dense, &s->dense,
            dense_visit_head(&engine->dense, &s->dense, draft, s->head_tile, s->head_panel), err);
        if (status != OK)
            return status;
        account_enter(&engine->account, ACTIVITY_HEAD);
        struct mem y = mem_at(s->b.logits, (uint64_t)n * at * 4);
        multiply(s, *w, s->b.logit_x, y, n);
        for (uint32_t i = 0; i < n && status == OK; i++)
            status = ops_download(engine->ops, s->logits + (uint64_t)i * vocab + at,
                                  mem_at(y, (uint64_t)i * w->rows * 4), w->rows * 4ull, err);
        dense_release(&engine->dense, &s->dense, status == OK, ops_record(engine->ops));
        if (status != OK)
            return status;
    }
    return OK;
}

enum status layer_head(struct step *s, struct err *err) {
    const struct config *c = &s->engine->cp.config;
    bool draft = s->layer >= c->n_layers;
    account_layer(&s->engine->account, TRACE_NOWHERE);
    account_enter(&s->engine->account, ACTIVITY_HEAD);
    for (; s->head_tile * STEP_LOGIT_TILE < s->n_logits; s->head_tile++) {
        uint32_t first = s->head_tile * STEP_LOGIT_TILE;
        uint32_t n = s->n_logits - first < STEP_LOGIT_TILE ? s->n_logits - first : STEP_LOGIT_TILE;
        if (s->head_panel == 0)
            head_input(s, draft, first, n);
        enum status status = head_panels(s, draft, n, err);
        if (status != OK)
            return status;
        for (uint32_t i = 0; i < n && s->options.logits; i++)
            s->options.logits(s->options.context, (uint32_t)s->logit_row[first + i], draft,
                              s->logits + (uint64_t)i * c->vocab);
        s->head_panel = 0;
    }
    s->head_tile = 0; // the draft block has a head too
    return OK;
}

// h'_j = e_proj RMSNorm(embed(next token)) + h_proj RMSNorm(h_j). Source: MTPBlock.forward.
enum status layer_draft_input(struct step *s, struct err *err) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    const struct layer_weights *w = &s->engine->weights.layers[c->n_layers];
    struct dense *dense = &s->engine->dense;
    account_enter(&s->engine->account, ACTIVITY_ATTENTION);
    enum status status =
        dense_hold(dense, &s->dense, dense_visit_layer(dense, &s->dense, c->n_layers), err);
    if (status != OK)
        return status;
    if (step_embed(s, s->next, s->b.next, s->b.x, 1, err) != OK) {
        dense_release(dense, &s->dense, false, event_now());
        return err->status;
    }
    normalize(s, s->b.x, w->enorm, s->n_rows, c->d);
    multiply(s, w->e_proj, s->b.x, s->b.y, s->n_rows);
    normalize(s, s->b.h, w->hnorm, s->n_rows * c->n_streams, c->d);
    multiply(s, w->h_proj, s->b.h, s->b.h2, s->n_rows * c->n_streams);
    struct mem swap = s->b.h;
    s->b.h = s->b.h2;
    s->b.h2 = swap;
    struct add_to_streams add = {
        .h = s->b.h, .e = s->b.y, .n_rows = s->n_rows, .n_streams = c->n_streams, .d = c->d
    };
    add_to_streams(ops, &add);
    dense_release(dense, &s->dense, false, ops_record(ops)); // its layer comes next
    return OK;
}

// --- taps --------------------------------------------------------------------------------------

enum status layer_tap(struct step *s, uint32_t layer, enum tap_point point, struct mem data,
                      uint32_t first_row, uint32_t n_rows, uint32_t width, struct err *err) {
    const struct tap *tap = s->options.tap;
    if (!tap || !tap->wants(tap->context, layer, point))
        return OK;
    uint64_t bytes = (uint64_t)n_rows * width * 4;
    void *host = malloc(bytes); // comparing is not the token loop
    if (!host)
        return err_set(err, ERR_MEMORY, "no memory to look at %u rows", n_rows);
    if (ops_download(s->engine->ops, host, data, bytes, err) == OK &&
        tap->see(tap->context, layer, point, first_row, n_rows, width, host))
        ops_upload(s->engine->ops, data, host, bytes);
    free(host);
    return err->status;
}

static void look(struct step *s, enum tap_point point, struct mem data, uint32_t width,
                 struct err *err) {
    layer_tap(s, s->layer, point, data, 0, s->n_rows, width, err);
}
