#include "tools/drive_tuning.h"

#include "io/device.h"
#include "io/disk.h"
#include "tools/bench/io.h"
#include "tools/bench/io_progress.h"
#include "tools/drive_settings.h"
#include "tools/interrupt.h"

#include <stdlib.h>
#include <string.h>

#define TUNE_SECONDS 30 // windows of 0.3 s, of which the search takes 40: a drive's 12 seconds

#define SYSFS "/sys"

// --- measuring anew ------------------------------------------------------------------------------

static enum status tune(const struct options *o, struct bench_drive *d, bool uring,
                        struct err *err) {
    struct bench_progress progress;
    struct pinned memory = { .base = NULL };
    struct pinned_options want = { .bytes = bench_memory_bytes(), .want_huge = true };
    enum status status = pinned_open(&memory, &want, err);
    bench_progress_open(&progress, &o->environment);
    struct bench_run run = { .seconds = TUNE_SECONDS,
                             .forbid_uring = !uring,
                             .cancelled = interrupt_requested,
                             .progress = bench_progress_show,
                             .context = &progress,
                             .memory = memory.base,
                             .memory_bytes = memory.bytes };
    reader_defaults(uring, &run.default_chunk_bytes, &run.default_depth);
    d->buffered = d->target.place.device.direct != DIRECT_YES;
    if (status == OK)
        status = bench_tune(d, &run, err);
    bench_progress_clear(&progress);
    pinned_close(&memory);
    return status;
}

// Measure the drive of a directory, and keep what was found.
static enum status remeasure(const struct options *o, const char *dir, bool uring,
                             struct err *err) {
    struct bench_drive *d = calloc(1, sizeof *d);
    struct target_options options = { .sysfs = SYSFS };
    if (!d)
        return err_set(err, ERR_MEMORY, "no memory to measure %s with", dir);
    enum status status = bench_target_open(&d->target, dir, &options, err);
    if (status == OK)
        status = tune(o, d, uring, err);
    if (status == OK && d->depth) {
        struct err unkept = { .status = OK };
        struct drive_setting setting = {
            .chunk_bytes = d->chunk_bytes, .depth = d->depth, .uring = uring, .rate = d->tuned_rate
        };
        if (drive_setting_keep(o->environment.cache, d->target.place.key, &setting, &unkept) != OK)
            fprintf(stderr, "note: what was found of %s is not kept: %s\n", dir, unkept.text);
        fprintf(stderr, "%s: %.2f GB/s in chunks of %u KiB x %u\n", dir, d->tuned_rate * 1e-9,
                d->chunk_bytes >> 10, d->depth);
    }
    bench_target_close(&d->target);
    free(d);
    return status;
}

// A checkpoint too small to measure a drive by is no reason not to run it.
static enum status measure_or_say_why_not(const struct options *o, const char *dir, bool uring,
                                          struct err *err) {
    struct err why = { .status = OK };
    enum status status = remeasure(o, dir, uring, &why);
    if (status != ERR_MISSING && status != ERR_INPUT)
        return status == OK ? OK : err_set(err, status, "%s", why.text);
    fprintf(stderr, "note: not measured: %s\n", why.text);
    return OK;
}

// --- what is known -------------------------------------------------------------------------------

struct known {
    char keys[OPTION_LIST_MAX][PLACE_KEY_BYTES];
    uint32_t n;
};

// A drive that several directories lie on counts once.
static bool is_new(struct known *k, const char *key) {
    for (uint32_t i = 0; i < k->n; i++)
        if (strcmp(k->keys[i], key) == 0)
            return false;
    strcpy(k->keys[k->n++], key);
    return true;
}

static enum status gather(const struct options *o, const struct model_dirs *dirs, bool uring,
                          struct known *known, uint32_t *chunk_bytes, uint32_t *depth,
                          struct err *err) {
    uint32_t default_chunk, default_depth, n_found = 0;
    reader_defaults(uring, &default_chunk, &default_depth);
    for (uint32_t i = 0; i < dirs->n; i++) {
        struct place place;
        struct drive_setting setting = { .chunk_bytes = default_chunk, .depth = default_depth };
        char file[PATH_MAX];
        if (!bench_largest_file(dirs->dirs[i], file) ||
            place_locate(&place, file, SYSFS, NULL) != OK || !is_new(known, place.key))
            continue; // what is wrong with it will be told by those who need it
        enum status status =
            o->remeasure ? measure_or_say_why_not(o, dirs->dirs[i], uring, err) : OK;
        if (status != OK)
            return status;
        n_found += drive_setting_find(o->environment.cache, place.key, uring, &setting);
        *chunk_bytes = setting.chunk_bytes > *chunk_bytes ? setting.chunk_bytes : *chunk_bytes;
        *depth += setting.depth;
    }
    if (n_found == 0)
        *chunk_bytes = *depth = 0;
    *depth = *depth > DISK_DEPTH_MAX ? DISK_DEPTH_MAX : *depth;
    return OK;
}

enum status drive_tuning(const struct options *o, const struct model_dirs *dirs,
                         uint32_t *chunk_bytes, uint32_t *depth, struct err *err) {
    struct device_limits limits;
    struct known *known = calloc(1, sizeof *known);
    *chunk_bytes = *depth = 0;
    if (!known)
        return OK; // the defaults will do
    device_limits(&limits);
    bool uring = o->io_engine != IO_ENGINE_PREAD && limits.uring == URING_YES;
    enum status status = gather(o, dirs, uring, known, chunk_bytes, depth, err);
    free(known);
    return status;
}
