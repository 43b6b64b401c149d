/* io/small_file.h - a small text file (config.json, an index) whole in memory.
 *
 * For files that a checkpoint brings along and that nobody vouches for: what is no regular file
 * or is larger than its kind can be is refused before memory is taken for it. */
#ifndef SLUICE_IO_SMALL_FILE_H
#define SLUICE_IO_SMALL_FILE_H

#include "io/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Read all of `path`. *text is malloc'd, ends in a NUL that *length does not count, and is the
 * caller's to free; NULL after an error.
 *   ERR_MISSING  there is no such file
 *   ERR_INPUT    no regular file, or larger than max_bytes
 *   ERR_IO       it cannot be opened or read (ERR_SYSTEM: out of file descriptors)
 *   ERR_MEMORY   */
enum status small_file_read(const char *path, size_t max_bytes, char **text, size_t *length,
                            struct err *err);

/* Open a regular file for reading; its descriptor and size. A FIFO or a device under the name of
 * a shard is refused instead of waited for. Same errors; *fd is -1 after one. */
enum status regular_file_open(const char *path, int *fd, uint64_t *bytes, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
