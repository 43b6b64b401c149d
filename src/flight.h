/* src/flight.h - several steps in flight: sequences that decode together, in groups that take turns.
 *
 *   flight_add --> PROMPT --all of it is in--> DECODING --next() says so--> ended, and gone
 *
 * flight_run takes the prompts in first: rows of several in one pass, up to `chunk` of them, for a
 * pass reads each expert once, whomever its rows belong to. (For one that comes later, the steps
 * under way are ended, and no others begun.) Then the sequences are dealt to groups as
 * evenly as can be. Each group has a step of its own; they take turns, a layer at a time, so that
 * one computes while the experts of another are read, and the control thread waits when all of them
 * do. When a group's step is done its sequences are asked for their next tokens, those that have
 * ended leave, and if another group is smaller by two or more it gives some of its own away.
 *
 * What comes out for a sequence depends on its tokens alone, bit for bit: neither on the others nor
 * on the number of groups. Nor does any number of slots stop it: demands are served oldest first, and
 * a step lets go of each expert before it asks for the next, so two slots are enough for all groups
 * (cache/slots.h).
 *
 * An error of one group's step stops all where they are, and so does cancelling: err says what it was.
 * Every sequence then holds the tokens of its steps that were completed. flight_run again (err
 * cleared) goes on from there, with the results of an untroubled run; flight_close gives up what was
 * under way. */
#ifndef SLUICE_SRC_FLIGHT_H
#define SLUICE_SRC_FLIGHT_H

#include "src/routing_trace.h"
#include "src/sluice.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Two, from tests/src/bench_flight.c (a virtual clock; the model in models/demo, 50 tokens each,
 * attention of a layer as long as the read of one expert, prefetch off): time of a token against one
 * group, the share of the time that the disk is idle, experts read for a token; last what src/pace.h
 * finds, trials included.
 *
 * sequences             4                               16
 * cache       2 %     5 %    15 %    30 %     2 %     5 %    15 %    30 %
 * one        1.000   1.000   1.000   1.000   1.000   1.000   1.000   1.000
 *   idle      16 %    16 %    19 %    24 %    13 %    13 %    14 %    17 %
 *   reads     25.4    25.2    20.7    15.3    13.2    13.2    11.6     9.2
 * two        0.848   0.849   0.836   0.821   0.879   0.879   0.908   1.112
 *   idle       1 %     1 %     1 %     3 %     1 %     1 %     1 %     1 %
 *   reads     25.4    25.2    21.1    16.1    13.2    13.2    12.2    12.3
 * three      0.849   0.851   0.880   0.860   0.893   0.881   0.921   1.104
 * found      0.876   0.877   0.868   0.856   0.901   0.901   0.924   1.032
 *
 * With prefetch there is less to gain: 0.97 to 0.98 for two groups of four sequences, 0.99 to 1.01 of
 * 16. Each group pays for the dense weights of every layer anew: where the disk waits for arithmetic
 * (attention 4 times a read, 30 % cached, prefetch on) two are 8 % slower, what is found 3 %. The
 * other place for one group are many sequences whose groups crowd each other out of the cache, as on
 * the right. */
#define FLIGHT_GROUPS 2

struct flight_options {
    uint32_t n_groups; /* 0: FLIGHT_GROUPS, or one where that turns out to be faster */
    uint32_t chunk;    /* rows of one pass over prompts; 0: as many as the engine allows */
    struct routing_writer *routing; /* append the choices of each step to it; NULL: no */
    const struct clock *clock;      /* by which it turns out (src/pace.h); NULL: the system's */
    const struct tap *tap;          /* a look into every step; NULL: none */
    /* Tokens of prompts taken in so far, of those that were added. NULL: none. */
    void (*progress)(void *context, uint32_t done, uint32_t total);
    bool (*cancel)(void *context); /* asked at every layer and while waiting; NULL: never */
    void *context;
};

/* A sequence as its owner sees it. */
struct flight_sequence {
    const int32_t *prompt; /* the owner's, until all of it is in */
    uint32_t n_prompt;
    /* Logits of its last token: choose what comes after it. The step is not done yet. */
    void (*logits)(void *context, const float *logits);
    /* Now it is: *token goes in next. *more false: the sequence has ended. An error ends it too, and
     * stops flight_run. */
    enum status (*next)(void *context, int32_t *token, bool *more, struct err *err);
    void *context;
};

struct flight;

/* `wide` is the engine's step for prompts, the caller's, idle whenever flight_run is not under way;
 * groups have steps of their own, as many as sluice_options announced. ERR_MEMORY; *out is NULL then. */
enum status flight_open(struct flight **out, struct sluice *engine, struct step *wide,
                        const struct flight_options *options, struct err *err);
void flight_close(struct flight *f); /* NULL is fine */

/* One sequence more: now, or from within next(). It is called by the number of those before it where
 * choices are recorded.
 *   ERR_USAGE   a prompt without tokens, or n_sequences are under way
 *   ERR_MEMORY  more tokens than the context holds: nothing has changed */
enum status flight_add(struct flight *f, const struct flight_sequence *sequence, struct err *err);

/* Until all have ended. CANCELLED; what step_begin, step_advance and next() can do. */
enum status flight_run(struct flight *f, struct err *err);

/* Tokens that the sequence `number` (of flight_add) holds; 0: it has ended. */
uint32_t flight_length(const struct flight *f, uint32_t number);

/* Assert what is said above; for tests. */
void flight_check(const struct flight *f);

#ifdef __cplusplus
}
#endif
#endif
