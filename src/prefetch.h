/* src/prefetch.h - what the next layers will want, asked for ahead of need; private to src/.
 *
 *   layers routed by table    known from the token ids: asked for when the step begins, in wide steps
 *                             while the layer before is computed
 *   layers routed by score    narrow steps: while a layer's experts are awaited, the gates of the
 *                             next ones run on the streams as they are, and the experts they name
 *                             are asked for
 *                             wide steps: where the rows want nearly all experts of a layer, all of
 *                             the next one, in file order, before its gate has run
 *
 * What is predicted waits in a list of its layer and becomes prefetches (cache/slots.h) as slots
 * allow, nearest layer first; a demand goes before it everywhere. When a layer's own gate has
 * chosen, what was wrong is taken back: cancelled while queued, else the first to be evicted.
 * Predictions never reach a result: they decide what is read early, nothing else. Each is judged by what
 * of it was there when it was wanted: where a layer gained nothing by it lately it is suspended, and
 * tried again now and then.
 *
 *   step_begin       → prefetch_begin
 *   gate has chosen  → prefetch_judge, slots_demand, prefetch_demanded
 *   waiting, or the layer's end → prefetch_ahead
 *   a slot was let go → prefetch_more
 *   commit, abandon  → prefetch_end
 *
 * Belongs to a step. prefetch_open allocates, nothing else does. Control thread only. */
#ifndef SLUICE_SRC_PREFETCH_H
#define SLUICE_SRC_PREFETCH_H

#include "io/status.h"
#include "src/checkpoint/config.h"
#include "src/prefetch_count.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct step;
struct prefetch;

/* ERR_MEMORY. *out is NULL after a failure. */
enum status prefetch_open(struct prefetch **out, const struct config *c, uint32_t n_blocks,
                          enum prefetch_mode mode, struct err *err);
void prefetch_close(struct prefetch *p); /* NULL is fine */
/* What prefetch_open takes, for the fit check; and the most experts that one row's early gate
 * names, which is what the step's buffers for it are sized by. */
uint64_t prefetch_bytes(const struct config *c, uint32_t n_blocks);
uint32_t prefetch_width(const struct config *c);

/* The rows are there: ask for what the layers routed by table will want. */
void prefetch_begin(struct step *s);

/* The gate of the step's layer has chosen s->wanted: count, and take back what was wrong. */
void prefetch_judge(struct step *s, uint32_t n_wanted);

/* Its experts have been demanded. */
void prefetch_demanded(struct step *s, uint32_t n_wanted);

/* Predict from this layer's streams, once a layer. True: it took time, and bytes may have arrived
 * meanwhile. */
bool prefetch_ahead(struct step *s);

/* Ask for more of what has been predicted, as far as slots go. */
void prefetch_more(struct step *s);

/* The step is over: take back what was predicted for layers that it did not reach. */
void prefetch_end(struct step *s);

#ifdef __cplusplus
}
#endif
#endif
