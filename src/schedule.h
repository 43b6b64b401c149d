/* src/schedule.h - which rows make a step.
 *
 * So far one sequence at a time: what it has to take in is cut into steps of at most the engine's
 * chunk. (How it is cut never shows in the result.) */
#ifndef SLUICE_SRC_SCHEDULE_H
#define SLUICE_SRC_SCHEDULE_H

#include "src/routing_trace.h"
#include "src/sluice.h"

#ifdef __cplusplus
extern "C" {
#endif

struct feed {
    struct sequence *sequence;
    const int32_t *tokens;
    uint32_t n_tokens;
    uint32_t n_logits; /* the last so many tokens want logits */
    uint32_t chunk;    /* rows of a step; 0: as many as the engine allows */
    bool draft;        /* run the draft block over all of them; then next_token follows the last */
    int32_t next_token;
    /* Logits of token `index` of `tokens`; NULL: not wanted. */
    void (*logits)(void *context, uint32_t index, bool draft, const float *logits);
    /* Tokens taken in so far: after each step, and within one by the layers it has passed. */
    void (*progress)(void *context, uint32_t done, uint32_t total);
    bool (*cancel)(void *context); /* NULL: never */
    void *context;
    struct routing_writer *routing; /* append the choices of each step to it; NULL: no */
    uint32_t sequence_number;       /* what the sequence is called there */
};

/* Take all tokens in. On an error, or CANCELLED, the sequence holds those of the steps that were
 * completed (sequence_length says how many). Errors: as step_begin and step_run. */
enum status schedule_feed(struct step *step, const struct feed *feed, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
