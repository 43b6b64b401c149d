/* io/file_fill.h - write one large file of known size, at the drive's speed.
 *
 * The contents come from a callback that can produce any range, so several threads make and write
 * ranges side by side: while some wait for the drive others compute. O_DIRECT where it is to be
 * had: the page cache would cost more time than making the bytes. Space is reserved before the
 * first byte, so that a full drive is found out at once.
 *
 * The caller's thread sleeps until the file is complete and on the device; only `progress` runs on
 * it. After an error, and after a cancel, the file is gone. */
#ifndef SLUICE_IO_FILE_FILL_H
#define SLUICE_IO_FILE_FILL_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct file_fill {
    const char *path; /* must not exist */
    uint64_t bytes;
    uint32_t n_threads; /* at least 1 */
    /* Bytes [from, from + n) of the file into dst; called by any of the threads. */
    void (*fill)(void *context, uint64_t from, unsigned char *dst, uint64_t n);
    /* Bytes written so far; false ends the work with CANCELLED. NULL: nobody asks. */
    bool (*progress)(void *context, uint64_t done);
    void *context;
};

/* ERR_IO: it cannot be created, or a write failed (path, offset, reason); ERR_MEMORY; ERR_SYSTEM:
 * no threads; CANCELLED. */
enum status file_fill(const struct file_fill *job, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
