/* src/budget.h - --ram split into parts, or the number that would do; private to src/.
 *
 * In this order: dense weights, KV for ctx tokens of each sequence, scratch of its steps, overhead
 * of the process, and slots with what is left. A long context therefore never starves a running
 * cache later: it is paid for before the cache is sized.
 *
 * Where dense weights do not fit beside two slots (and the default context has shrunk as far as it
 * may), some are streamed (src/dense_plan.h). Then slots get what one token's experts of a layer
 * take, so that all of them are asked for at once, and everything else goes to dense weights: a
 * byte of them is a byte less to read for every token, while so few slots find next to nothing
 * again. */
#ifndef SLUICE_SRC_BUDGET_H
#define SLUICE_SRC_BUDGET_H

#include "src/checkpoint/checkpoint.h"
#include "src/sluice.h"

/* Fill *fit for an open checkpoint. has_bytes of RAM are to be used (options->ram_bytes, or what is
 * free). ERR_MEMORY with the whole sum if that is not enough. KV pages: see kv_pages_total. */
enum status budget_split(const struct checkpoint *cp, const struct sluice_options *options,
                         uint64_t has_bytes, struct sluice_fit *fit, uint32_t *n_kv_pages,
                         struct err *err);

#endif
