/* tools/drive_tuning.h - chunk size and depth for the drives that a checkpoint lies on.
 *
 * What was measured of each (drive_settings.h) makes one setting for the reader that serves all of
 * them: the largest chunk, and the sum of the depths, since each drive has its share of the queue. A
 * drive of which nothing is known counts with the reader's defaults. */
#ifndef SLUICE_TOOLS_DRIVE_TUNING_H
#define SLUICE_TOOLS_DRIVE_TUNING_H

#include "io/status.h"
#include "tools/models.h"
#include "tools/options.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Both 0 where nothing is known of any drive. With o->remeasure every drive is measured first, with
 * progress on stderr (about 12 s each), and what was found is kept: CANCELLED, and errors as measure;
 * without, never fails. */
enum status drive_tuning(const struct options *o, const struct model_dirs *dirs,
                         uint32_t *chunk_bytes, uint32_t *depth, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
