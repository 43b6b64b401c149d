/* tools/bench/in_groups.h - sequences that decode in several groups (src/flight.h), a stretch at a time.
 *
 * A stretch ends when so many tokens have come of all sequences together; the steps under way stay
 * where they are, and the next stretch goes on with them. */
#ifndef SLUICE_TOOLS_BENCH_IN_GROUPS_H
#define SLUICE_TOOLS_BENCH_IN_GROUPS_H

#include "io/status.h"
#include "src/flight.h"

#ifdef __cplusplus
extern "C" {
#endif

struct in_groups;

struct in_groups_options {
    uint32_t n_sequences, n_groups;
    /* A token of sequence i from its logits. */
    int32_t (*choose)(void *context, uint32_t i, const float *logits);
    bool (*cancel)(void *context); /* asked at every layer and while waiting */
    void *context;
};

/* The engine was opened for as many sequences and steps. ERR_MEMORY; *out is NULL then. */
enum status in_groups_open(struct in_groups **out, struct sluice *engine, struct step *wide,
                           const struct in_groups_options *options, struct err *err);
void in_groups_close(struct in_groups *g); /* NULL is fine */

/* The next sequence's prompt; the caller's until the first stretch is over. Errors as flight_add. */
enum status in_groups_add(struct in_groups *g, const int32_t *prompt, uint32_t n, struct err *err);

/* Until n more tokens have been chosen, those that follow the prompts among them; or a few more: a
 * step of a group gives one to each of its sequences. CANCELLED by cancel; errors as flight_run. */
enum status in_groups_run(struct in_groups *g, uint32_t n, uint32_t *n_chosen, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
