/* A step: rows through the layers. The public story is sluice.h's; the states are in step.h. */
#include "src/step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_SLICE_NS 50000000 // how long a wait goes on before cancellation is looked at again

static enum status open_for(struct step **out, struct sluice *engine, uint32_t max_rows,
                            struct err *err) {
    struct step *s = *out = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ERR_MEMORY, "no memory for a step");
    s->engine = engine;
    s->max_rows = max_rows;
    s->max_spans = engine->n_sequences;
    if (step_buffers_open(s, err) != OK) {
        step_close(s);
        *out = NULL;
        return err->status;
    }
    return OK;
}

enum status step_open(struct step **out, struct sluice *engine, struct err *err) {
    return open_for(out, engine, engine->chunk, err);
}

enum status step_open_narrow(struct step **out, struct sluice *engine, struct err *err) {
    return open_for(out, engine, engine->n_sequences, err);
}

uint32_t step_max_rows(const struct step *s) {
    return s->max_rows;
}

void step_close(struct step *s) {
    if (!s)
        return;
    step_abandon(s);
    step_buffers_close(s);
    free(s);
}

// --- begin -------------------------------------------------------------------------------------

static enum status check_spans(const struct step *s, const struct span *spans, uint32_t n_spans,
                               const struct step_options *options, struct err *err) {
    const struct config *c = &s->engine->cp.config;
    bool has_draft = s->engine->weights.n_blocks > c->n_layers;
    uint64_t n_rows = 0;
    if (n_spans == 0 || n_spans > s->max_spans)
        return err_set(err, ERR_USAGE, "a step of %u sequences: 1 to %u are possible", n_spans,
                       s->max_spans);
    if (options->draft && !has_draft)
        return err_set(err, ERR_USAGE, "this engine was opened without a draft block");
    for (uint32_t i = 0; i < n_spans; i++) {
        const struct span *span = &spans[i];
        n_rows += span->n_tokens;
        if (span->n_tokens == 0 || span->n_logits > span->n_tokens || n_rows > s->max_rows)
            return err_set(err, ERR_USAGE,
                           "sequence %u of the step brings %u rows, %u with logits: a step holds "
                           "1 to %u rows",
                           i, span->n_tokens, span->n_logits, s->max_rows);
        for (uint32_t k = 0; k < span->n_tokens; k++)
            if (span->tokens[k] < 0 || (uint32_t)span->tokens[k] >= c->vocab)
                return err_set(err, ERR_USAGE, "token %d is not in the vocabulary of %u",
                               span->tokens[k], c->vocab);
        if (!options->draft)
            continue;
        if (span->next_token < 0 || (uint32_t)span->next_token >= c->vocab ||
            !sequence_draft_current(span->sequence, span->tokens[0]))
            return err_set(err, ERR_USAGE,
                           "the draft block must see every position, each with the token after "
                           "it");
    }
    return OK;
}

static void fill_rows(struct step *s) {
    s->n_rows = s->n_logits = s->max_span_rows = 0;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        const struct span *span = &s->spans[i];
        uint32_t start = sequence_length(span->sequence);
        for (uint32_t k = 0; k < span->n_tokens; k++) {
            uint32_t row = s->n_rows + k;
            s->token[row] = span->tokens[k];
            s->next[row] = k + 1 < span->n_tokens ? span->tokens[k + 1] : span->next_token;
            s->position[row] = (int32_t)(start + k);
            if (k >= span->n_tokens - span->n_logits)
                s->logit_row[s->n_logits++] = (int32_t)row;
        }
        s->n_rows += span->n_tokens;
        if (s->max_span_rows < span->n_tokens)
            s->max_span_rows = span->n_tokens;
    }
}

static uint32_t put_table(struct step *s, const struct sequence *sequence, uint32_t layer,
                          enum kv_kind kind, bool write) {
    uint32_t n, begin = s->n_tables;
    const uint32_t *page = sequence_pages(sequence, layer, kind, write, &n);
    assert(s->n_tables + n <= s->max_tables);
    memcpy(s->tables + s->n_tables, page, n * sizeof *page);
    s->n_tables += n;
    return begin;
}

// Rings are written where they are read unless the step has fresh pages for them.
static void put_ring(struct step *s, const struct sequence *sequence, uint32_t layer,
                     enum kv_kind kind, uint32_t *read, uint32_t *write) {
    uint32_t n;
    *read = *write = put_table(s, sequence, layer, kind, false);
    if (sequence_pages(sequence, layer, kind, true, &n) !=
        sequence_pages(sequence, layer, kind, false, &n))
        *write = put_table(s, sequence, layer, kind, true);
}

static void fill_tables(struct step *s) {
    uint32_t n_blocks = s->engine->weights.n_blocks;
    s->n_tables = 0;
    for (uint32_t layer = 0; layer < n_blocks; layer++) {
        uint32_t row = 0;
        for (uint32_t i = 0; i < s->n_spans; i++) {
            const struct span *span = &s->spans[i];
            struct kv_rows *r = &s->rows[layer * s->max_spans + i];
            *r = (struct kv_rows){ .first_row = row,
                                   .n_rows = span->n_tokens,
                                   .start = sequence_length(span->sequence) };
            put_ring(s, span->sequence, layer, KV_WINDOW, &r->window_read, &r->window_write);
            put_ring(s, span->sequence, layer, KV_STATE, &r->state_read, &r->state_write);
            put_ring(s, span->sequence, layer, KV_INDEX_STATE, &r->index_state_read,
                     &r->index_state_write);
            r->entries = put_table(s, span->sequence, layer, KV_ENTRIES, false);
            r->keys = put_table(s, span->sequence, layer, KV_KEYS, false);
            row += span->n_tokens;
        }
    }
    struct ops *ops = s->engine->ops;
    ops_upload(ops, s->b.tables, s->tables, s->n_tables * sizeof *s->tables);
    ops_upload(ops, s->b.rows, s->rows, (uint64_t)n_blocks * s->max_spans * sizeof *s->rows);
}

static void upload_rows(struct step *s) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    ops_upload(ops, s->b.token, s->token, s->n_rows * 4);
    ops_upload(ops, s->b.next, s->next, s->n_rows * 4);
    ops_upload(ops, s->b.position, s->position, s->n_rows * 4);
    ops_upload(ops, s->b.logit_row, s->logit_row, s->n_logits * 4);
    struct rope_table table = { .position = s->b.position,
                                .theta = s->engine->theta_plain,
                                .cs = s->b.cs_plain,
                                .n_rows = s->n_rows,
                                .r = c->rope_dim };
    rope_table(ops, &table);
    table.theta = s->engine->theta_yarn;
    table.cs = s->b.cs_yarn;
    rope_table(ops, &table);
}

enum status step_begin(struct step *s, const struct span *spans, uint32_t n_spans,
                       const struct step_options *options, struct err *err) {
    assert(s->state == STEP_IDLE);
    enum status status = check_spans(s, spans, n_spans, options, err);
    if (status != OK)
        return status;
    for (uint32_t i = 0; i < n_spans; i++) {
        status = sequence_begin(spans[i].sequence, spans[i].n_tokens, err);
        if (status != OK) {
            while (i-- > 0)
                sequence_abandon(spans[i].sequence, false);
            return status;
        }
        s->spans[i] = spans[i];
    }
    s->n_spans = n_spans;
    s->options = *options;
    fill_rows(s);
    fill_tables(s);
    upload_rows(s);
    s->phase = s->max_span_rows > 1 ? PHASE_PREFILL : PHASE_DECODE;
    s->number = s->engine->n_steps++;
    s->layer = 0;
    s->demanded = false;
    s->state = STEP_EMBED;
    account_phase(&s->engine->account, s->phase);
    s->head_tile = s->head_panel = 0;
    dense_begin(&s->engine->dense, &s->dense, (s->n_logits + STEP_LOGIT_TILE - 1) / STEP_LOGIT_TILE,
                options->draft);
    prefetch_begin(s);
    return OK;
}

enum status step_embed(struct step *s, const int32_t *host_token, struct mem token, struct mem h,
                       uint32_t n_streams, struct err *err) {
    const struct config *c = &s->engine->cp.config;
    const struct weights *w = &s->engine->weights;
    struct embed a = { .table = w->embed,
                       .id = token,
                       .h = h,
                       .n_rows = s->n_rows,
                       .n_streams = n_streams,
                       .d = c->d };
    if (s->embed_host) { // rows of the table stay on disk: fetch those that are wanted, in row order
        enum activity before = account_enter(&s->engine->account, ACTIVITY_WAIT);
        enum status status = weights_embed_rows(w, host_token, s->n_rows, s->embed_host, err);
        account_enter(&s->engine->account, before);
        if (status != OK)
            return status;
        ops_upload(s->engine->ops, s->b.embed_rows, s->embed_host, (uint64_t)s->n_rows * c->d * 2);
        a.table = s->b.embed_rows;
        for (uint32_t row = 0; row < s->n_rows; row++)
            s->pick[row] = (int32_t)row;
        ops_upload(s->engine->ops, s->b.pick, s->pick, s->n_rows * 4);
        a.id = s->b.pick;
    }
    embed(s->engine->ops, &a);
    return OK;
}

// --- advance -----------------------------------------------------------------------------------

// One state further. DONE: finished.
static enum status move(struct step *s, struct err *err) {
    const struct config *c = &s->engine->cp.config;
    enum status status;
    switch (s->state) {
    case STEP_EMBED:
        account_enter(&s->engine->account, ACTIVITY_ATTENTION);
        status = step_embed(s, s->token, s->b.token, s->b.h, c->n_streams, err);
        if (status == OK)
            status = layer_tap(s, TAP_EMBEDDING, TAP_STREAMS, s->b.h, 0, s->n_rows,
                               c->n_streams * c->d, err);
        if (status == OK)
            s->state = STEP_ATTENTION;
        return status;
    case STEP_ATTENTION:
    case STEP_GATE:
    case STEP_EXPERTS:
        return layer_advance(s, err);
    case STEP_HEAD:
        status = layer_head(s, err);
        if (status != OK)
            return status;
        s->state = s->options.draft && s->layer < c->n_layers ? STEP_DRAFT : STEP_FINISHED;
        return OK;
    case STEP_DRAFT:
        status = layer_draft_input(s, err);
        if (status != OK)
            return status;
        s->layer = c->n_layers;
        s->state = STEP_ATTENTION;
        return OK;
    case STEP_FINISHED:
        return DONE;
    case STEP_IDLE:
        break;
    }
    assert(!"a step that was not begun");
    return DONE;
}

// The control thread is with this step; what it did before.
static enum activity take_up(const struct step *s) {
    struct account *account = &s->engine->account;
    account_phase(account, s->phase);
    account_step(account, s->number, s->n_rows);
    return account_enter(account, ACTIVITY_OTHER);
}

static void put_down(const struct step *s, enum activity before) {
    account_step(&s->engine->account, TRACE_NOWHERE, 0);
    account_enter(&s->engine->account, before);
}

enum status step_advance(struct step *s, struct err *err) {
    if (err->status != OK)
        return err->status; // an old error would be taken for one of this call
    enum activity before = take_up(s);
    enum status status;
    while ((status = move(s, err)) == OK)
        ;
    put_down(s, before);
    return status == DONE ? OK : status;
}

enum status step_layer(struct step *s, struct err *err) {
    if (err->status != OK)
        return err->status; // as in step_advance
    enum activity before = take_up(s);
    enum status status = move(s, err);
    put_down(s, before);
    return status;
}

struct event step_event(struct step *s) {
    return s->dense.waiting ? dense_event(&s->engine->dense, &s->dense)
                            : slots_event(s->engine->slots);
}

void step_wait(struct step *s, uint64_t timeout_ns) {
    struct account *account = &s->engine->account;
    enum activity before = account->activity;
    account_phase(account, s->phase);
    account_step(account, s->number, s->n_rows);
    account_layer(account, s->state == STEP_HEAD ? TRACE_NOWHERE : s->layer);
    account_enter(account, s->dense.waiting ? ACTIVITY_WAIT_DENSE : ACTIVITY_WAIT);
    event_wait(step_event(s), timeout_ns);
    put_down(s, before);
}

enum status step_run(struct step *s, bool (*cancel)(void *context), void *context,
                     struct err *err) {
    if (err->status != OK)
        return err->status; // as in step_advance
    enum activity before = take_up(s);
    enum status status;
    for (;;) {
        status = cancel && cancel(context) ? err_set(err, CANCELLED, "cancelled") : move(s, err);
        if (status == AGAIN) {
            account_enter(&s->engine->account,
                          s->dense.waiting ? ACTIVITY_WAIT_DENSE : ACTIVITY_WAIT);
            event_wait(step_event(s), WAIT_SLICE_NS);
        } else if (status != OK) {
            break;
        }
    }
    put_down(s, before);
    return status == DONE ? OK : status;
}

double step_share(const struct step *s) {
    const struct config *c = &s->engine->cp.config;
    if (s->state == STEP_IDLE)
        return 0;
    return (double)s->layer / (c->n_layers + (s->options.draft ? 1 : 0));
}

// --- end ---------------------------------------------------------------------------------------

void step_commit(struct step *s) {
    assert(s->state == STEP_FINISHED);
    const int32_t *next = s->next;
    for (uint32_t i = 0; i < s->n_spans; next += s->spans[i++].n_tokens)
        sequence_commit(s->spans[i].sequence, s->options.draft ? next : NULL);
    prefetch_end(s);
    dense_end(&s->engine->dense, &s->dense);
    s->engine->account.tokens[s->phase] += s->n_rows;
    s->engine->account.steps[s->phase]++;
    s->state = STEP_IDLE;
}

void step_abandon(struct step *s) {
    if (s->state == STEP_IDLE)
        return;
    if (s->demanded)
        slots_abandon(&s->demand);
    s->demanded = false;
    prefetch_end(s);
    dense_end(&s->engine->dense, &s->dense);
    for (uint32_t i = 0; i < s->n_spans; i++)
        sequence_abandon(s->spans[i].sequence, s->state > STEP_EMBED);
    s->state = STEP_IDLE;
}
