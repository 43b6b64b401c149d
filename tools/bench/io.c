#include "tools/bench/io.h"

#include "io/clock.h"
#include "io/device.h"
#include "io/reader.h"
#include "tools/bench/io_progress.h"
#include "tools/commands.h"
#include "tools/drive_settings.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLAN_SECONDS     40 // with opening and drawing under a minute
#define SINGLE_SECONDS   2
#define TOGETHER_SECONDS 4

static int cmd_bench_io(const struct options *o);

const struct command bench_io = {
    .name = "bench io",
    .bit = COMMAND_BENCH_IO,
    .summary = "what a drive reads, what slows it, what that means in tokens a second",
    .operands = "[PATH...]",
    .most_operands = OPTION_LIST_MAX,
    .about = "Measure drives: experts as the engine reads them, blocks of all sizes and\n"
             "depths, latencies, several drives at once. Needs no model. A PATH is a file, a\n"
             "block device, or a directory, which is measured through the largest file in it;\n"
             "none is the current directory. Only reads, unless --write-test says otherwise.\n"
             "The chunk size and depth found best are kept, and `sluice run` reads that drive\n"
             "so.",
    .run = cmd_bench_io,
};

struct bench {
    const struct options *o;
    struct bench_io io;
    struct bench_run run;
    struct bench_progress progress;
    struct pinned memory;
    FILE *html;
};

// --- set-up --------------------------------------------------------------------------------------

static void show_writing(void *context, uint64_t bytes) {
    bench_progress_show(context, "writing a test file", bytes);
}

// Now, not after a minute of work; but what an earlier run left there stays until there is a new
// report.
static enum status open_html(struct bench *b, struct err *err) {
    const char *path = b->o->html;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    b->html = fd >= 0 ? fdopen(fd, "w") : NULL;
    return b->html ? OK : err_set(err, ERR_IO, "%s: cannot be made: %s", path, strerror(errno));
}

static enum status open_targets(struct bench *b, struct err *err) {
    static const char *const here[] = { "." };
    const struct options *o = b->o;
    const char *const *paths = o->operands.n ? o->operands.items : here;
    struct target_options options = { .sysfs = o->sysfs,
                                      .write_bytes = o->write_test_bytes,
                                      .cancelled = interrupt_requested,
                                      .progress = show_writing,
                                      .context = &b->progress };
    uint32_t n = o->operands.n ? o->operands.n : 1;
    b->io.drives = calloc(n, sizeof *b->io.drives);
    if (!b->io.drives)
        return err_set(err, ERR_MEMORY, "no memory for %u drives", n);
    enum status status = OK;
    for (; b->io.n_drives < n && status == OK; b->io.n_drives++) {
        struct bench_drive *d = &b->io.drives[b->io.n_drives];
        status = bench_target_open(&d->target, paths[b->io.n_drives], &options, err);
        d->buffered = o->io == IO_BUFFERED ||
                      (o->io == IO_AUTO && d->target.place.device.direct != DIRECT_YES);
    }
    bench_progress_clear(&b->progress);
    return status;
}

// Drives that are measured at once have memory each.
static enum status open_memory(struct bench *b, struct err *err) {
    struct pinned_options options = { .bytes = b->io.n_drives * bench_memory_bytes(),
                                      .want_huge = true };
    enum status status = pinned_open(&b->memory, &options, err);
    b->run.memory = b->memory.base;
    b->run.memory_bytes = b->memory.bytes;
    return status;
}

static void settle(struct bench *b) {
    const struct options *o = b->o;
    struct device_limits limits;
    device_limits(&limits);
    bool uring = o->io_engine != IO_ENGINE_PREAD && limits.uring == URING_YES;
    if (o->io_engine != IO_ENGINE_PREAD && !uring)
        fprintf(stderr, "note: reading with threads: io_uring %s; %s\n", uring_reason(limits.uring),
                uring_remedy(limits.uring));
    b->io.forbid_uring = b->run.forbid_uring = !uring;
    b->io.engine = uring ? "io_uring" : "pread";
    b->io.single = options_given(o, "shape") || options_given(o, "block") ||
                   options_given(o, "depth") || o->unregistered;
    b->run.seconds = o->seconds > 0 ? o->seconds : b->io.single ? SINGLE_SECONDS : PLAN_SECONDS;
    reader_defaults(uring, &b->run.default_chunk_bytes, &b->run.default_depth);
    b->run.full = o->full;
    b->run.cancelled = interrupt_requested;
    b->run.progress = bench_progress_show;
    b->run.context = &b->progress;
}

// --- measuring -----------------------------------------------------------------------------------

static void keep_setting(const struct bench *b, const struct bench_drive *d) {
    struct err err = { .status = OK };
    struct drive_setting setting = { .chunk_bytes = d->chunk_bytes,
                                     .depth = d->depth,
                                     .uring = !b->run.forbid_uring,
                                     .rate = d->tuned_rate };
    if (d->buffered && d->target.place.device.direct == DIRECT_YES)
        return; // asked for: not how the engine reads it
    if (d->depth &&
        drive_setting_keep(b->o->environment.cache, d->target.place.key, &setting, &err) != OK)
        fprintf(stderr, "note: what was found of %s is not kept for `sluice run`: %s\n",
                d->target.path, err.text);
}

static enum status measure_single(struct bench *b, struct err *err) {
    const struct options *o = b->o;
    struct read_setup setup = { .shape = o->shape,
                                .block_bytes = (uint32_t)o->block_bytes,
                                .depth = o->depth,
                                .ahead = EXPERTS_AHEAD,
                                .plain_memory = o->unregistered };
    if (!setup.block_bytes)
        setup.block_bytes = b->run.default_chunk_bytes;
    if (!setup.depth)
        setup.depth = b->run.default_depth;
    if (measure_memory_bytes(&setup) > bench_memory_bytes())
        return err_set(err, ERR_USAGE, "--block times --depth is more than %d MiB",
                       (int)(bench_memory_bytes() >> 20));
    for (uint32_t i = 0; i < b->io.n_drives; i++)
        if (!measure_fits(&setup, b->io.drives[i].target.place.device.bytes))
            return err_set(err, ERR_INPUT, "%s: smaller than two blocks",
                           b->io.drives[i].target.name);
    return bench_single(&b->io, &b->run, &setup, err);
}

static enum status measure_all(struct bench *b, struct err *err) {
    enum status status = OK;
    for (uint32_t i = 0; i < b->io.n_drives && status == OK; i++) {
        status = bench_plan(&b->io.drives[i], &b->run, err);
        keep_setting(b, &b->io.drives[i]);
    }
    double sustain = b->o->sustain;
    if (status != OK || (b->io.n_drives == 1 && sustain <= 0))
        return status;
    double scale = b->run.seconds < PLAN_SECONDS ? b->run.seconds / PLAN_SECONDS : 1;
    return bench_together(&b->io, &b->run, sustain > 0 ? sustain : TOGETHER_SECONDS * scale,
                          sustain > 0, err);
}

static enum status measure_targets(struct bench *b, struct err *err) {
    uint64_t begin_ns = clock_now_ns(clock_system());
    enum status status = b->io.single ? measure_single(b, err) : measure_all(b, err);
    b->io.took_s = (double)(clock_now_ns(clock_system()) - begin_ns) * 1e-9;
    b->io.interrupted = status == CANCELLED;
    bench_progress_clear(&b->progress);
    for (uint32_t i = 0; i < b->io.n_drives; i++)
        bench_findings(&b->io, i);
    return status;
}

// --- reporting -----------------------------------------------------------------------------------

static bool is_anything(const struct bench_io *io) {
    for (uint32_t i = 0; i < io->n_drives; i++)
        if (io->drives[i].n_candidates > 0 || io->drives[i].n_points > 0)
            return true;
    return false;
}

static enum status report(struct bench *b, struct err *err) {
    if (b->o->json && !bench_json(&b->io, stdout))
        return err_set(err, ERR_INPUT,
                       "this cannot be written as JSON (a path that is not UTF-8?)");
    if (!b->o->json)
        bench_text(&b->io, stdout);
    if (!b->html)
        return OK;
    bool whole = ftruncate(fileno(b->html), 0) == 0;
    bench_html(&b->io, b->html);
    whole &= fflush(b->html) == 0 && !ferror(b->html);
    return whole ? OK
                 : err_set(err, ERR_IO, "%s: cannot be written: %s", b->o->html, strerror(errno));
}

static int cmd_bench_io(const struct options *o) {
    struct err err = { .status = OK };
    struct bench b = { .o = o };
    bench_progress_open(&b.progress, &o->environment);
    settle(&b);
    enum status status = OK;
    if (o->html)
        status = open_html(&b, &err);
    if (status == OK)
        status = open_targets(&b, &err);
    if (status == OK)
        status = open_memory(&b, &err);
    if (status == OK)
        status = measure_targets(&b, &err);
    // After Ctrl-C too: what was measured until then. An error of the report is worth telling.
    struct err unwritten = { .status = OK };
    if ((status == OK || status == CANCELLED) && is_anything(&b.io) && report(&b, &unwritten) != OK)
        err = unwritten;
    for (uint32_t i = 0; i < b.io.n_drives; i++)
        bench_target_close(&b.io.drives[i].target);
    free(b.io.drives);
    pinned_close(&b.memory);
    if (b.html)
        fclose(b.html);
    return command_error(o, &err);
}
