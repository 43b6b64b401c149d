#include "tools/generate.h"

#include "tools/interrupt.h"

#include <errno.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

enum status generator_open(struct generator *g, struct engine *engine, struct err *err) {
    const struct options *o = engine->options;
    uint32_t eos;
    g->engine = engine;
    g->sampling = (struct sampling){ .temperature = (float)o->temperature,
                                     .top_k = o->top_k,
                                     .top_p = (float)o->top_p,
                                     .min_p = (float)o->min_p };
    g->eos[0] = sluice_config(engine->sluice)->eos_token;
    g->eos[1] = !o->raw && tokenizer_added_id(engine->tokenizer, "<｜end▁of▁sentence｜>", &eos)
                    ? (int32_t)eos
                    : -1;
    enum status status = sampling_check(&g->sampling, err);
    if (status == OK)
        status = sampler_open(&g->sampler, sluice_config(engine->sluice)->vocab, err);
    if (status == OK)
        status = token_decoder_open(&g->decoder, engine->tokenizer, false, err);
    if (status == OK)
        status =
            stop_open(&g->stop, o->stop.items, o->stop.n, token_decoder_longest(&g->decoder), err);
    if (status == OK)
        status = session_open(&g->session, engine->sluice, engine->step, err);
    return status;
}

void generator_close(struct generator *g) {
    session_close(&g->session);
    stop_close(&g->stop);
    token_decoder_close(&g->decoder);
    sampler_close(&g->sampler);
}

void generated_free(struct generated *g) {
    token_ids_free(&g->ids);
}

// --- what the engine asks ------------------------------------------------------------------------

static bool cancelled(void *context) {
    (void)context;
    return interrupt_requested(NULL);
}

static void prefill_progress(void *context, uint32_t done, uint32_t total) {
    struct generator *g = context;
    g->engine->progress.total = total; // without what the session has already
    progress_update(&g->engine->progress, done);
}

// Choose what comes next. The draw depends on the seed and its position in the context alone.
static void choose(void *context, const float *logits) {
    struct generator *g = context;
    struct account *account = sluice_account(g->engine->sluice);
    enum activity before = account_enter(account, ACTIVITY_SAMPLE);
    uint32_t token = 0;
    sampler_draw(&g->sampler, &g->sampling, logits, g->engine->options->seed, g->position, &token,
                 g->err);
    g->next = (int32_t)token;
    account_enter(account, before);
}

static struct session_feed feed_of(struct generator *g, bool prefill) {
    return (struct session_feed){ .chunk = g->engine->options->chunk,
                                  .logits = choose,
                                  .progress = prefill ? prefill_progress : NULL,
                                  .cancel = cancelled,
                                  .context = g,
                                  .routing = g->engine->routing };
}

// --- one answer ----------------------------------------------------------------------------------

static enum status prefill(struct generator *g, const struct token_ids *prompt,
                           struct generated *out, struct err *err) {
    struct session_feed feed = feed_of(g, true);
    g->position = prompt->n;
    progress_start(&g->engine->progress, "prefill", PROGRESS_TOKENS, prompt->n,
                   &g->engine->terminal, clock_system(), stderr);
    // Ids are below 2^20: the same bits, signed or not.
    enum status status = session_prefill(&g->session, (const int32_t *)prompt->id,
                                         prompt->n < UINT32_MAX ? (uint32_t)prompt->n : UINT32_MAX,
                                         &feed, &out->prefill, err);
    progress_clear(&g->engine->progress);
    return status == OK ? err->status : status; // choose() may have failed
}

// Text that is certain goes on; what may be the beginning of a stop string waits.
static enum status pass_on(struct generator *g, const char *text, size_t n,
                           const struct text_sink *sink, struct err *err) {
    size_t n_certain;
    const char *certain = stop_push(&g->stop, text, n, &n_certain);
    return n_certain ? sink->take(sink->context, certain, n_certain, err) : OK;
}

// Tokens come, text goes, until something ends it.
static enum status decode(struct generator *g, const struct text_sink *sink, struct generated *out,
                          struct err *err) {
    const struct options *o = g->engine->options;
    struct session_feed feed = feed_of(g, false);
    enum status status;
    for (;;) {
        if (g->next == g->eos[0] || g->next == g->eos[1]) {
            out->end = "the model ended the text";
            out->complete = true;
            return OK;
        }
        size_t n;
        const char *text = token_decoder_push(&g->decoder, (uint32_t)g->next, &n);
        if ((status = token_ids_push(&out->ids, (uint32_t)g->next, err)) != OK ||
            (status = pass_on(g, text, n, sink, err)) != OK)
            return status;
        out->n_generated++;
        g->position++;
        if (g->stop.found) {
            out->end = "a stop string";
            return OK;
        }
        if (o->max_tokens && out->n_generated >= o->max_tokens) {
            out->end = "--max-tokens";
            return OK;
        }
        if (g->session.n_tokens == g->session.max_tokens) {
            out->end = "the context is full (--ctx)";
            return OK;
        }
        if ((status = session_decode(&g->session, g->next, &feed, err)) != OK ||
            (status = err->status) != OK) // choose() may have failed
            return status;
    }
}

// What was held back is text too, whatever ended the answer.
static enum status pass_on_the_rest(struct generator *g, const struct text_sink *sink,
                                    struct err *err) {
    size_t n;
    const char *text = token_decoder_flush(&g->decoder, &n);
    enum status status = pass_on(g, text, n, sink, err);
    text = stop_flush(&g->stop, &n);
    return status == OK && n ? sink->take(sink->context, text, n, err) : status;
}

enum status generate(struct generator *g, const struct token_ids *prompt,
                     const struct text_sink *sink, struct generated *out, struct err *err) {
    struct err rest = { .status = OK };
    size_t n;
    *out = (struct generated){ .end = "an error" };
    g->err = err;
    // An answer that was given up may have left something behind.
    token_decoder_flush(&g->decoder, &n);
    stop_flush(&g->stop, &n);
    g->stop.found = false;
    enum status status = prefill(g, prompt, out, err);
    if (status == OK) {
        uint64_t start_ns = clock_now_ns(clock_system());
        status = decode(g, sink, out, err);
        out->decode_ns = clock_now_ns(clock_system()) - start_ns;
        if (pass_on_the_rest(g, sink, &rest) != OK && status == OK) {
            *err = rest;
            status = rest.status;
        }
    }
    if (g->stop.found)
        out->ids.n = 0;
    if (status == CANCELLED)
        out->end = "interrupted";
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
