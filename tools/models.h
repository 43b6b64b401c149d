/* tools/models.h - the directories that -m means.
 *
 * Each -m is a directory, or `org/name` in the local Hugging Face cache (src/checkpoint/hub.h). */
#ifndef SLUICE_TOOLS_MODELS_H
#define SLUICE_TOOLS_MODELS_H

#include "io/status.h"
#include "tools/options.h"

#ifdef __cplusplus
extern "C" {
#endif

struct model_dirs {
    const char *dirs[OPTION_LIST_MAX]; /* as checkpoint_open and sluice_open take them */
    uint32_t n;
};

/* Resolve names (o->models, or o->operands for inspect) against o->environment's cache.
 * ERR_USAGE if there are none; ERR_MISSING as hub_resolve says. Can be closed after any result. */
enum status model_dirs_open(struct model_dirs *out, const struct options *o,
                            const struct text_list *names, struct err *err);
void model_dirs_close(struct model_dirs *m);

#ifdef __cplusplus
}
#endif
#endif
