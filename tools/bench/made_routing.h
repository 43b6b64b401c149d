/* tools/bench/made_routing.h - routing traces that are made, not recorded: for caches that are to be
 * measured at the size of Pro and Flash where nobody has a recording at hand.
 *
 * A layer of score routing gives each expert the logit
 *     base + topic + drift + token + rest
 * normal variables of different scope: base is the layer's own preference, topic that of the text's
 * subject, drift changes within some tens of tokens, token is the same wherever that token stands,
 * rest is drawn for each position anew. The highest are chosen. A layer of hash routing takes them
 * from the token alone. Tokens follow Zipf's law: the commonest are the same everywhere, the others
 * the subject's own.
 *
 * How much each scope weighs was fitted to what others published (made_routing.c has the table); how
 * well, `sluice bench cache` shows beside every trace. All of it is a function of the seed. */
#ifndef SLUICE_TOOLS_BENCH_MADE_ROUTING_H
#define SLUICE_TOOLS_BENCH_MADE_ROUTING_H

#include "io/status.h"
#include "src/routing_trace.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum made_model { MADE_PRO, MADE_FLASH, MADE_MODELS };

enum made_load {
    MADE_CHAT,    /* conversations of several turns: a prefill, an answer; then another subject */
    MADE_LONG,    /* one prompt, one long answer */
    MADE_PREFILL, /* prefill after prefill of 512 rows, unlike texts */
    MADE_BATCH,   /* 64 sequences that decode in one step, unlike texts */
    MADE_SEVERAL, /* four sequences that decode in one step; each ends and another begins */
    MADE_LOADS
};

/* "Pro, chat": what a table says of it. */
const char *made_model_name(enum made_model model);
const char *made_load_name(enum made_load load);

struct made_routing;

/* ERR_MEMORY; *out is NULL then. */
enum status made_routing_open(struct made_routing **out, enum made_model model, enum made_load load,
                              uint64_t seed, struct err *err);
void made_routing_close(struct made_routing *m); /* NULL is fine */

const struct routing_header *made_routing_header(const struct made_routing *m);

/* The next step, valid until the next call; DONE after the last one. */
enum status made_routing_next(struct made_routing *m, struct routing_step *out);

#ifdef __cplusplus
}
#endif
#endif
