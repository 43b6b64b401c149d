/* src/checkpoint/hub.h - `org/name` to the directory of its snapshot in a local Hugging Face cache.
 *
 * Layout: CACHE/models--org--name/{refs/main, snapshots/REV/, blobs/}; a snapshot's files are
 * links to blobs. Nothing is downloaded. The environment is read by tools/, which pass the
 * cache's directory in. */
#ifndef SLUICE_SRC_CHECKPOINT_HUB_H
#define SLUICE_SRC_CHECKPOINT_HUB_H

#include "io/status.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* If `model` names an existing directory it is returned as it is. If it has the form `org/name`
 * it is looked up in `cache` (HF_HUB_CACHE, or HF_HOME/hub; NULL: no cache known): the revision in
 * refs/main, else the only snapshot there is.
 *   ERR_MISSING  which places were looked at, and how to get the model
 *   ERR_USAGE    several snapshots and no refs/main to choose by: they are listed; the path is
 *                longer than out_bytes
 *   ERR_IO       the cache cannot be read */
enum status hub_resolve(const char *model, const char *cache, char *out, size_t out_bytes,
                        struct err *err);

#ifdef __cplusplus
}
#endif
#endif
