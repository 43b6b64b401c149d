/* tools/drive_settings.h - the chunk size and depth that each drive wants, kept between runs.
 *
 * One JSON file, `drives.json` in sluice's folder of the user's cache, by the drive's key (place.h).
 * `sluice bench io` and `run --remeasure` write it, `run` and `eval` read it. It is a cache: one that
 * is missing or damaged is as good as empty, and is written anew. */
#ifndef SLUICE_TOOLS_DRIVE_SETTINGS_H
#define SLUICE_TOOLS_DRIVE_SETTINGS_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct drive_setting {
    uint32_t chunk_bytes, depth;
    bool uring;  /* measured with io_uring; with pread threads depth means something else */
    double rate; /* bytes a second, experts */
};

/* `directory`: struct environment's cache; "" keeps nothing. False: nothing is known, or what is
 * there is out of bounds. */
bool drive_setting_find(const char *directory, const char *key, bool uring,
                        struct drive_setting *out);

/* ERR_IO: it cannot be written, which costs no more than measuring again. Makes the folder. */
enum status drive_setting_keep(const char *directory, const char *key,
                               const struct drive_setting *setting, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
