/* io/files.h - the files that a reader reads, and how each one is opened.
 *
 * Direct or buffered is decided here, per file, from the mode and from what io/device.h finds out:
 *
 *   IO_DIRECT    O_DIRECT, or the file is refused
 *   IO_BUFFERED  through the page cache
 *   IO_AUTO      direct where it is to be had, unless all the files added so far fit in ram_bytes:
 *                then all are buffered; the file that makes them not fit turns all to direct
 *
 * Files are added before the first read, by one thread; nothing changes afterwards. */
#ifndef SLUICE_IO_FILES_H
#define SLUICE_IO_FILES_H

#include "io/device.h"
#include "io/reader.h"
#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct file {
    char *path;
    int fd;               /* -1 where the disk reads no real files */
    uint32_t align_bytes; /* a read that came back short goes on from a multiple of it */
    bool direct;
    struct device device;
};

struct files {
    struct file *file;
    uint32_t n;
    enum io_mode mode;
    uint64_t ram_bytes;
    uint64_t total_bytes;
};

void files_init(struct files *files, enum io_mode mode, uint64_t ram_bytes);
void files_close(struct files *files);

/* Open a file and decide how it is read. ERR_MISSING, ERR_INPUT, ERR_IO, ERR_MEMORY. */
enum status files_add(struct files *files, const char *path, struct err *err);

/* Only remember a name: for disks that have no files. ERR_MEMORY. */
enum status files_add_name(struct files *files, const char *path, struct err *err);

/* Take back the file added last. */
void files_remove_last(struct files *files);

/* "O_DIRECT", "page cache", or how many are which: for reader_describe. */
void files_describe(const struct files *files, char *text, size_t bytes);

/* What is lost by files that are not direct although the mode would have them so, a line per
 * cause; "" if nothing. */
void files_notes(const struct files *files, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
