#include "src/schedule.h"

struct chunk {
    const struct feed *feed;
    const struct step *step;
    uint32_t first, n; // of its tokens
};

static void pass_logits(void *context, uint32_t row, bool draft, const float *logits) {
    const struct chunk *c = context;
    c->feed->logits(c->feed->context, c->first + row, draft, logits);
}

static void pass_experts(void *context, uint32_t layer, const int32_t *experts) {
    const struct chunk *c = context;
    routing_writer_experts(c->feed->routing, layer, experts);
}

static void begin_record(const struct feed *feed, const struct span *span) {
    routing_writer_begin(feed->routing, span->n_tokens, feed->draft);
    routing_writer_rows(feed->routing, 0, span->n_tokens, feed->sequence_number,
                        sequence_length(span->sequence), span->tokens);
}

// Asked at every layer: a step of a large model takes minutes, and its layers are its progress.
static bool between_layers(void *context) {
    const struct chunk *c = context;
    if (c->feed->progress)
        c->feed->progress(c->feed->context, c->first + (uint32_t)(c->n * step_share(c->step)),
                          c->feed->n_tokens);
    return c->feed->cancel && c->feed->cancel(c->feed->context);
}

enum status schedule_feed(struct step *step, const struct feed *feed, struct err *err) {
    uint32_t most = step_max_rows(step), n = feed->n_tokens;
    if (feed->chunk && feed->chunk < most)
        most = feed->chunk;
    for (uint32_t at = 0; at < n;) {
        uint32_t rows = n - at < most ? n - at : most;
        uint32_t first_logit = n - feed->n_logits;
        uint32_t n_logits = at + rows <= first_logit ? 0 : at + rows - first_logit;
        struct chunk chunk = { feed, step, at, rows };
        struct span span = {
            .sequence = feed->sequence,
            .tokens = feed->tokens + at,
            .n_tokens = rows,
            .n_logits = n_logits < rows ? n_logits : rows,
            .next_token = at + rows < n ? feed->tokens[at + rows] : feed->next_token,
        };
        struct step_options options = { .draft = feed->draft,
                                        .logits = feed->logits ? pass_logits : NULL,
                                        .routed = feed->routing ? pass_experts : NULL,
                                        .context = &chunk };
        enum status status = step_begin(step, &span, 1, &options, err);
        if (status != OK)
            return status;
        if (feed->routing)
            begin_record(feed, &span);
        status = step_run(step, between_layers, &chunk, err);
        if (status != OK) {
            step_abandon(step);
            return status;
        }
        step_commit(step);
        if (feed->routing)
            routing_writer_commit(feed->routing);
        at += rows;
        if (feed->progress)
            feed->progress(feed->context, at, n);
    }
    return OK;
}
