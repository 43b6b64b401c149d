/* How big everything in a step is: one list, walked once to measure and once to place. */
#include "src/step.h"

#include <stdlib.h>

#define ALIGN_BYTES 64 // a cache line

struct sizes {
    const struct config *c;
    uint64_t n_blocks, rows, spans, tables;
    bool exact, draft, embed_on_disk;
};

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

// Page numbers in the tables of one sequence of max_tokens, all layers, fresh rings included.
static uint64_t table_entries(const struct config *c, uint32_t n_blocks, uint32_t max_tokens,
                              bool exact) {
    struct kv_layout layout;
    kv_layout_init(&layout, c, n_blocks, exact);
    uint64_t rings, total = kv_pages_total(&layout, max_tokens, &rings);
    return total + rings;
}

// Give each buffer its place after `base`; the bytes in all.
static uint64_t place(struct step_buffers *b, struct mem base, const struct sizes *z) {
    const struct config *c = z->c;
    uint64_t R = z->rows, T = least(STEP_TILE, R), G = least(STEP_LOGIT_TILE, R);
    uint64_t narrow = least(STEP_NARROW_ROWS, R);
    uint64_t d = c->d, n = c->n_streams, K = c->n_chosen;
    const struct {
        struct mem *mem;
        uint64_t bytes;
    } list[] = {
        { &b->h, R * n * d * 4 },
        { &b->h2, z->draft ? R * n * d * 4 : 0 },
        { &b->x, R * d * 4 },
        { &b->y, R * d * 4 },
        { &b->shared, R * d * 4 },
        { &b->post, R * n * 4 },
        { &b->comb, R * n * n * 4 },
        { &b->qr, R * c->q_rank * 4 },
        { &b->kv, R * c->head_dim * 4 },
        { &b->fresh, R * kv_entry_bytes(z->exact, c->head_dim, c->rope_dim) },
        { &b->values, R * 2 * (c->head_dim > c->index_dim ? c->head_dim : c->index_dim) * 4 },
        { &b->gates, R * 2 * (c->head_dim > c->index_dim ? c->head_dim : c->index_dim) * 4 },
        { &b->cs_plain, R * c->rope_dim * 4 },
        { &b->cs_yarn, R * c->rope_dim * 4 },
        { &b->token, R * 4 },
        { &b->next, R * 4 },
        { &b->position, R * 4 },
        { &b->embed_rows, z->embed_on_disk ? R * d * 2 : 0 },
        { &b->logits_gate, R * c->n_experts * 4 },
        { &b->experts, R * K * 4 },
        { &b->weights, R * K * 4 },
        { &b->pick, R * K * 4 },
        { &b->parts, narrow * K * d * 4 },
        { &b->ahead_x, narrow * d * 4 },
        { &b->ahead_post, narrow * n * 4 },
        { &b->ahead_comb, narrow * n * n * 4 },
        { &b->ahead_logits, narrow * c->n_experts * 4 },
        { &b->ahead_experts, narrow * prefetch_width(c) * 4 },
        { &b->ahead_weights, narrow * prefetch_width(c) * 4 },
        { &b->q, T * c->n_heads * c->head_dim * 4 },
        { &b->og, T * c->o_groups * c->o_rank * 4 },
        { &b->index_q, T * c->index_heads * c->index_dim * 4 },
        { &b->index_w, T * c->index_heads * 4 },
        { &b->chosen, T * c->index_topk * 4 },
        { &b->logit_row, R * 4 },
        { &b->logit_h, G * n * d * 4 },
        { &b->logit_x, G * d * 4 },
        { &b->logits, G * c->vocab * 4 },
        { &b->tables, z->tables * 4 },
        { &b->rows, z->n_blocks * z->spans * sizeof(struct kv_rows) },
    };
    uint64_t used = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        *list[i].mem = list[i].bytes ? mem_at(base, used) : mem_none();
        used += (list[i].bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    }
    return used;
}

static uint64_t host_bytes(const struct sizes *z) {
    const struct config *c = z->c;
    uint64_t R = z->rows;
    return R * 4 * 4 + R * c->n_chosen * 8 + (uint64_t)c->n_experts * 16 +
           (z->embed_on_disk ? R * c->d * 2 : 0) + least(STEP_LOGIT_TILE, R) * c->vocab * 4 +
           z->tables * 4 + z->n_blocks * z->spans * sizeof(struct kv_rows) +
           prefetch_bytes(c, (uint32_t)z->n_blocks);
}

uint64_t step_bytes(const struct config *c, uint32_t n_blocks, uint32_t max_rows,
                    uint32_t max_spans, uint32_t max_tokens, bool exact, bool draft,
                    bool embed_on_disk) {
    struct step_buffers none = { .arena = mem_none() };
    struct sizes z = {
        .c = c,
        .n_blocks = n_blocks,
        .rows = max_rows,
        .spans = max_spans,
        .tables = table_entries(c, n_blocks, max_tokens, exact) * max_spans,
        .exact = exact,
        .draft = draft,
        .embed_on_disk = embed_on_disk,
    };
    return place(&none, mem_none(), &z) + host_bytes(&z);
}

enum status step_buffers_open(struct step *s, struct err *err) {
    struct sluice *engine = s->engine;
    const struct config *c = &engine->cp.config;
    struct sizes z = {
        .c = c,
        .n_blocks = engine->weights.n_blocks,
        .rows = s->max_rows,
        .spans = s->max_spans,
        .tables = table_entries(c, engine->weights.n_blocks, engine->fit.ctx, engine->ops->exact) *
                  s->max_spans,
        .exact = engine->ops->exact,
        .draft = engine->weights.n_blocks > c->n_layers,
        .embed_on_disk = engine->fit.embed_on_disk,
    };
    uint64_t bytes = place(&s->b, mem_none(), &z);
    if (ops_alloc(engine->ops, bytes, &s->b.arena, err) != OK)
        return err->status;
    place(&s->b, s->b.arena, &z);

    size_t R = s->max_rows, choices = R * c->n_chosen;
    s->max_tables = (uint32_t)z.tables;
    s->spans = calloc(s->max_spans, sizeof *s->spans);
    s->token = calloc(R, sizeof *s->token);
    s->next = calloc(R, sizeof *s->next);
    s->position = calloc(R, sizeof *s->position);
    s->logit_row = calloc(R, sizeof *s->logit_row);
    s->experts = calloc(choices, sizeof *s->experts);
    s->pick = calloc(choices, sizeof *s->pick);
    s->pick_begin = calloc((size_t)c->n_experts + 1, sizeof *s->pick_begin);
    s->wanted = calloc(c->n_experts, sizeof *s->wanted);
    s->handed = calloc(c->n_experts, 1);
    s->embed_host = z.embed_on_disk ? malloc(R * c->d * 2) : NULL;
    s->logits = malloc(least(STEP_LOGIT_TILE, R) * c->vocab * sizeof *s->logits);
    s->tables = malloc(z.tables * sizeof *s->tables);
    s->rows = calloc(z.n_blocks * z.spans, sizeof *s->rows);
    if (!s->spans || !s->token || !s->next || !s->position || !s->logit_row || !s->experts ||
        !s->pick || !s->pick_begin || !s->wanted || !s->handed ||
        (z.embed_on_disk && !s->embed_host) || !s->logits || !s->tables || !s->rows)
        return err_set(err, ERR_MEMORY, "no memory for a step of %u rows", s->max_rows);
    return prefetch_open(&s->prefetch, c, engine->weights.n_blocks, engine->prefetch, err);
}

void step_buffers_close(struct step *s) {
    if (s->b.arena.address)
        ops_release(s->engine->ops, s->b.arena);
    s->b.arena = mem_none();
    prefetch_close(s->prefetch);
    free(s->spans);
    free(s->token);
    free(s->next);
    free(s->position);
    free(s->logit_row);
    free(s->experts);
    free(s->pick);
    free(s->pick_begin);
    free(s->wanted);
    free(s->handed);
    free(s->embed_host);
    free(s->logits);
    free(s->tables);
    free(s->rows);
}
