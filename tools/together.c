#include "tools/together.h"

#include "src/flight.h"
#include "tools/interrupt.h"

#include <stdlib.h>

struct together;

struct voice {
    struct together *together;
    uint32_t which;
    struct text_sink sink;
    struct reply reply;
    bool ended;
};

struct together {
    struct engine *engine;
    struct chooser chooser;
    struct turns turns;
    struct flight *flight;
    struct voice *voices; // [n]
    uint32_t n;
};

// --- what the engine asks ------------------------------------------------------------------------

static void progress(void *context, uint32_t done, uint32_t total) {
    struct together *t = context;
    if (done < total)
        progress_update(&t->engine->progress, done);
    else
        progress_clear(&t->engine->progress);
}

static void draw(void *context, const float *logits) {
    reply_draw(&((struct voice *)context)->reply, logits);
}

static enum status take(void *context, const char *text, size_t n_bytes, struct err *err) {
    const struct voice *v = context;
    return turns_take(&v->together->turns, v->which, text, n_bytes, err);
}

static enum status end(struct voice *v, enum status status, struct err *err) {
    status = reply_end(&v->reply, status, err);
    v->ended = true;
    struct err why = { .status = OK };
    if (turns_end(&v->together->turns, v->which, &why) != OK &&
        (status == OK || status == CANCELLED)) {
        *err = why;
        status = why.status;
    }
    return status;
}

static enum status next(void *context, int32_t *token, bool *more, struct err *err) {
    struct voice *v = context;
    enum status status = reply_next(&v->reply, more, err);
    *token = v->reply.next;
    return status == OK && !*more ? end(v, OK, err) : status;
}

// --- all of them ---------------------------------------------------------------------------------

static enum status open(struct together *t, const struct token_ids *const *prompts,
                        const struct turns_stage *stage, struct generated *out, struct err *err) {
    const struct options *o = t->engine->options;
    uint32_t ctx = sluice_fitted(t->engine->sluice)->ctx;
    struct flight_options options = { .n_groups = o->groups,
                                      .chunk = o->chunk,
                                      .routing = t->engine->routing,
                                      .progress = progress,
                                      .cancel = interrupt_requested,
                                      .context = t };
    for (uint32_t i = 0; i < t->n; i++)
        if (prompts[i]->n > ctx)
            return err_set(err, ERR_MEMORY,
                           "prompt %u has %zu tokens, the context holds %u: a larger --ctx is "
                           "needed",
                           i + 1, prompts[i]->n, ctx);
    t->voices = calloc(t->n, sizeof *t->voices);
    enum status status = t->voices ? turns_open(&t->turns, t->n, stage, err)
                                   : err_set(err, ERR_MEMORY, "no memory for %u answers", t->n);
    if (status == OK)
        status = chooser_open(&t->chooser, t->engine, err);
    if (status == OK)
        status = flight_open(&t->flight, t->engine->sluice, t->engine->step, &options, err);
    for (uint32_t i = 0; i < t->n && status == OK; i++) {
        struct voice *v = &t->voices[i];
        *v = (struct voice){ .together = t, .which = i, .sink = { take, v } };
        status = reply_open(&v->reply, t->engine, &t->chooser, err);
        if (status != OK)
            break;
        reply_begin(&v->reply, (uint32_t)prompts[i]->n, ctx, &v->sink, &out[i]);
        // Ids are below 2^20: the same bits, signed or not.
        struct flight_sequence sequence = { .prompt = (const int32_t *)prompts[i]->id,
                                            .n_prompt = (uint32_t)prompts[i]->n,
                                            .logits = draw,
                                            .next = next,
                                            .context = v };
        status = flight_add(t->flight, &sequence, err);
    }
    return status;
}

static void close_all(struct together *t) {
    flight_close(t->flight);
    for (uint32_t i = 0; t->voices && i < t->n; i++)
        reply_close(&t->voices[i].reply);
    free(t->voices);
    chooser_close(&t->chooser);
    turns_close(&t->turns);
}

enum status answer_together(struct engine *engine, const struct token_ids *const *prompts,
                            uint32_t n, const struct turns_stage *stage, struct generated *out,
                            bool *began, struct err *err) {
    struct together t = { .engine = engine, .n = n };
    uint64_t n_tokens = 0;
    enum status status = open(&t, prompts, stage, out, err);
    if (status == OK) {
        *began = true;
        for (uint32_t i = 0; i < n; i++)
            n_tokens += prompts[i]->n;
        progress_start(&engine->progress, "prefill", PROGRESS_TOKENS, n_tokens, &engine->terminal,
                       clock_system(), stderr);
        status = flight_run(t.flight, err);
        progress_clear(&engine->progress);
        // What those that were stopped have said, they have said.
        for (uint32_t i = 0; i < n; i++)
            if (!t.voices[i].ended)
                end(&t.voices[i], status, err);
        status = err->status;
    }
    close_all(&t);
    return status;
}
