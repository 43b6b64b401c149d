/* tools/bench/io_target.h - what a PATH of `sluice bench io` is measured through.
 *
 *   a file, a block device   itself; only ever read
 *   a directory              the largest file in it; or with --write-test one that is made, of random
 *                            bytes, and has no name: it is gone with the process, however that ends */
#ifndef SLUICE_TOOLS_BENCH_IO_TARGET_H
#define SLUICE_TOOLS_BENCH_IO_TARGET_H

#include "io/status.h"
#include "tools/place.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TARGET_BYTES_LEAST (64ull << 20) /* an expert and a bit; more is better: see findings */

struct bench_target {
    const char *path;         /* as it was given */
    char file[PATH_MAX];      /* to open */
    char name[PATH_MAX + 64]; /* for people */
    int made_fd;              /* of a file that was made; -1 */
    double write_rate;        /* bytes a second, of making it, flushed to the device; 0 */
    struct place place;
};

struct target_options {
    const char *sysfs;
    uint64_t write_bytes; /* 0: nothing is written */
    bool (*cancelled)(void *context);
    void (*progress)(void *context, uint64_t bytes); /* written */
    void *context;
};

/* ERR_MISSING: no such path, no file in the directory; ERR_INPUT: too small, or mostly holes;
 * ERR_USAGE: a file where one was to be made; ERR_IO: no room, cannot be written; CANCELLED.
 * Close after any result. */
enum status bench_target_open(struct bench_target *t, const char *path,
                              const struct target_options *options, struct err *err);
void bench_target_close(struct bench_target *t);

/* The largest regular file of a directory that may be read; false if there is none. */
bool bench_largest_file(const char *directory, char out[PATH_MAX]);

#ifdef __cplusplus
}
#endif
#endif
