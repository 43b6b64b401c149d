#include "tools/models.h"

#include "src/checkpoint/hub.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum status model_dirs_open(struct model_dirs *out, const struct options *o,
                            const struct text_list *names, struct err *err) {
    *out = (struct model_dirs){ .n = 0 };
    if (names->n == 0)
        return err_set(err, ERR_USAGE, "no model: name its directory, or org/name, with -m");
    const char *cache = *o->environment.hub_cache ? o->environment.hub_cache : NULL;
    for (uint32_t i = 0; i < names->n; i++) {
        char path[PATH_MAX];
        enum status status = hub_resolve(names->items[i], cache, path, sizeof path, err);
        if (status != OK)
            return status;
        if (!(out->dirs[i] = strdup(path)))
            return err_set(err, ERR_MEMORY, "%s: no memory for its path", path);
        out->n++;
    }
    return OK;
}

void model_dirs_close(struct model_dirs *m) {
    for (uint32_t i = 0; i < m->n; i++)
        free((char *)m->dirs[i]);
    *m = (struct model_dirs){ .n = 0 };
}
