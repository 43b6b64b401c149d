#include "tools/generate.h"

#include "tools/interrupt.h"

enum status generator_open(struct generator *g, struct engine *engine, struct err *err) {
    g->engine = engine;
    enum status status = chooser_open(&g->chooser, engine, err);
    if (status == OK)
        status = reply_open(&g->reply, engine, &g->chooser, err);
    if (status == OK)
        status = session_open(&g->session, engine->sluice, engine->step, err);
    return status;
}

void generator_close(struct generator *g) {
    session_close(&g->session);
    reply_close(&g->reply);
    chooser_close(&g->chooser);
}

// --- what the engine asks ------------------------------------------------------------------------

static void draw(void *context, const float *logits) {
    reply_draw(&((struct generator *)context)->reply, logits);
}

static void prefill_progress(void *context, uint32_t done, uint32_t total) {
    struct generator *g = context;
    g->engine->progress.total = total; // without what the session has already
    progress_update(&g->engine->progress, done);
}

static struct session_feed feed_of(struct generator *g, bool prefill) {
    return (struct session_feed){ .chunk = g->engine->options->chunk,
                                  .logits = draw,
                                  .progress = prefill ? prefill_progress : NULL,
                                  .cancel = interrupt_requested,
                                  .context = g,
                                  .routing = g->engine->routing };
}

// --- one answer ----------------------------------------------------------------------------------

static enum status prefill(struct generator *g, const struct token_ids *prompt,
                           struct generated *out, struct err *err) {
    struct session_feed feed = feed_of(g, true);
    progress_start(&g->engine->progress, "prefill", PROGRESS_TOKENS, prompt->n,
                   &g->engine->terminal, clock_system(), stderr);
    // Ids are below 2^20: the same bits, signed or not.
    enum status status = session_prefill(&g->session, (const int32_t *)prompt->id,
                                         prompt->n < UINT32_MAX ? (uint32_t)prompt->n : UINT32_MAX,
                                         &feed, &out->prefill, err);
    progress_clear(&g->engine->progress);
    return status;
}

// Tokens come, text goes, until something ends it.
static enum status decode(struct generator *g, struct err *err) {
    struct session_feed feed = feed_of(g, false);
    bool more;
    enum status status;
    while ((status = reply_next(&g->reply, &more, err)) == OK && more)
        if ((status = session_decode(&g->session, g->reply.next, &feed, err)) != OK)
            break;
    return status;
}

enum status generate(struct generator *g, const struct token_ids *prompt,
                     const struct text_sink *sink, struct generated *out, struct err *err) {
    reply_begin(&g->reply, (uint32_t)prompt->n, g->session.max_tokens, sink, out);
    enum status status = prefill(g, prompt, out, err);
    if (status == OK) {
        uint64_t start_ns = clock_now_ns(clock_system());
        status = decode(g, err);
        out->decode_ns = clock_now_ns(clock_system()) - start_ns;
    }
    return reply_end(&g->reply, status, err);
}
