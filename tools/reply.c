#include "tools/reply.h"

#include <errno.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

enum status chooser_open(struct chooser *c, const struct engine *engine, struct err *err) {
    const struct options *o = engine->options;
    c->seed = o->seed;
    c->sampling = (struct sampling){ .temperature = (float)o->temperature,
                                     .top_k = o->top_k,
                                     .top_p = (float)o->top_p,
                                     .min_p = (float)o->min_p };
    enum status status = sampling_check(&c->sampling, err);
    return status == OK ? sampler_open(&c->sampler, sluice_config(engine->sluice)->vocab, err)
                        : status;
}

void chooser_close(struct chooser *c) {
    sampler_close(&c->sampler);
}

enum status reply_open(struct reply *r, struct engine *engine, struct chooser *chooser,
                       struct err *err) {
    const struct options *o = engine->options;
    uint32_t eos;
    r->engine = engine;
    r->chooser = chooser;
    r->eos[0] = sluice_config(engine->sluice)->eos_token;
    r->eos[1] = !o->raw && tokenizer_added_id(engine->tokenizer, "<｜end▁of▁sentence｜>", &eos)
                    ? (int32_t)eos
                    : -1;
    enum status status = token_decoder_open(&r->decoder, engine->tokenizer, false, err);
    if (status == OK)
        status =
            stop_open(&r->stop, o->stop.items, o->stop.n, token_decoder_longest(&r->decoder), err);
    return status;
}

void reply_close(struct reply *r) {
    stop_close(&r->stop);
    token_decoder_close(&r->decoder);
}

void generated_free(struct generated *g) {
    token_ids_free(&g->ids);
}

void reply_begin(struct reply *r, uint32_t n_prompt, uint32_t max_tokens,
                 const struct text_sink *sink, struct generated *out) {
    size_t n;
    *out = (struct generated){ .end = "an error" };
    r->sink = sink;
    r->out = out;
    r->position = n_prompt;
    r->max_tokens = max_tokens;
    err_clear(&r->drawing);
    // An answer that was given up may have left something behind.
    token_decoder_flush(&r->decoder, &n);
    stop_flush(&r->stop, &n);
    r->stop.found = false;
}

void reply_draw(struct reply *r, const float *logits) {
    struct account *account = sluice_account(r->engine->sluice);
    enum activity before = account_enter(account, ACTIVITY_SAMPLE);
    uint32_t token = 0;
    sampler_draw(&r->chooser->sampler, &r->chooser->sampling, logits, r->chooser->seed, r->position,
                 &token, &r->drawing);
    r->next = (int32_t)token;
    account_enter(account, before);
}

// Text that is certain goes on; what may be the beginning of a stop string waits.
static enum status pass_on(struct reply *r, const char *text, size_t n, struct err *err) {
    size_t n_certain;
    const char *certain = stop_push(&r->stop, text, n, &n_certain);
    return n_certain ? r->sink->take(r->sink->context, certain, n_certain, err) : OK;
}

enum status reply_next(struct reply *r, bool *more, struct err *err) {
    const struct options *o = r->engine->options;
    struct generated *out = r->out;
    enum status status;
    *more = false;
    if (r->drawing.status != OK)
        return err_set(err, r->drawing.status, "%s", r->drawing.text);
    if (r->next == r->eos[0] || r->next == r->eos[1]) {
        out->end = "the model ended the text";
        out->complete = true;
        return OK;
    }
    size_t n;
    const char *text = token_decoder_push(&r->decoder, (uint32_t)r->next, &n);
    if ((status = token_ids_push(&out->ids, (uint32_t)r->next, err)) != OK ||
        (status = pass_on(r, text, n, err)) != OK)
        return status;
    out->n_generated++;
    r->position++;
    if (r->stop.found)
        out->end = "a stop string";
    else if (o->max_tokens && out->n_generated >= o->max_tokens)
        out->end = "--max-tokens";
    else if (r->position > r->max_tokens) // the last one has no place any more
        out->end = "the context is full (--ctx)";
    else
        *more = true;
    return OK;
}

enum status reply_end(struct reply *r, enum status status, struct err *err) {
    struct err rest = { .status = OK };
    size_t n;
    const char *text = token_decoder_flush(&r->decoder, &n);
    pass_on(r, text, n, &rest);
    text = stop_flush(&r->stop, &n);
    if (rest.status == OK && n)
        r->sink->take(r->sink->context, text, n, &rest);
    if (rest.status != OK && status == OK) {
        *err = rest;
        status = rest.status;
    }
    if (r->stop.found)
        r->out->ids.n = 0;
    if (status == CANCELLED)
        r->out->end = "interrupted";
    return status;
}

enum status write_out(const char *text, size_t n_bytes, struct err *err) {
    if (n_bytes == 0 || (fwrite(text, 1, n_bytes, stdout) == n_bytes && fflush(stdout) == 0))
        return OK;
    err_set(err, ERR_IO, "standard output: cannot be written: %s", strerror(errno));
    // It is said once: main, which looks whether everything got out, has nothing to add.
    __fpurge(stdout);
    clearerr(stdout);
    return err->status;
}
