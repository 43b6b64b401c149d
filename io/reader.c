#include "io/reader.h"

#include "io/chunks.h"
#include "io/device.h"
#include "io/disk.h"
#include "io/files.h"
#include "io/trace.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Chunks at the device: large and many enough for the drive, small and few enough for a demand,
// which waits for all that is there already (64 MiB: 19 ms at 3.4 GB/s, two experts of Pro's).
//
// Random experts (35.1 MB each) of a 3 GiB file on ext4 on a virtual drive that reads 3.5 GB/s at
// best, GB/s, O_DIRECT, io_uring with registered files and buffers in huge pages, by
// tests/io/bench_reader.c; in brackets what fio 3.33 reads in the same shape (randread:N, so that
// N blocks make an expert; fixedbufs, registerfiles, shmhuge). Medians of 9 to 20 rounds in turns,
// since a figure by itself moves by 10 % and more from one second to the next:
//
//     chunk      depth 8       16            32            64
//     256 KiB                                2.77 (2.94)
//     512 KiB                  2.74 (3.06)   2.97 (2.82)
//       1 MiB                  3.04 (3.23)   2.95 (3.07)   3.34 (3.26)
//       2 MiB                  3.19 (3.13)   3.38 (3.34)
//       4 MiB    3.18 (3.35)   3.29          3.43 (3.44)
//
// libaio, 1 MiB x 32: 3.18. Without huge pages fio loses a quarter (2.5 of 3.5 at 4 MiB x 32): a
// request to the device holds 254 segments, pages or huge ones. Registered or not makes no
// difference on a drive this slow. pread threads: 1 MiB x 16 2.83, x 32 2.88, 2 MiB x 16 2.97.
#define DEFAULT_CHUNK_BYTES (2u << 20)
#define DEFAULT_DEPTH       32
#define DEFAULT_PREAD_DEPTH 16
#define CHUNK_BYTES_MAX     (256u << 20)

struct reader {
    const struct clock *clock;
    struct disk *disk;
    bool owns_disk;
    uint32_t chunk_bytes, depth;
    struct files files; // fixed from the first submit on
    uint64_t memory_bytes;
    int memory_errno; // why some of it is not registered
    char *describe, *notes;
    char engine_note[512];
    struct event_source *ended_source; // counts requests that have ended
    uint64_t n_returned;               // by reader_next: the control thread's own

    // The mutex is held for a few list operations, never across a system call.
    pthread_mutex_t mutex;
    pthread_cond_t first_submit; // the disk thread leaves the disk alone until all files are there
    bool started, closing;
    struct chunks chunks; // the requests
    uint64_t n_told;      // of those that have ended: to ended_source
    bool wants_wake;      // the disk thread may sleep although the device has room
    uint64_t busy_since_ns;
    uint64_t busy_ns;
    struct trace *trace;   // NULL: nothing is recorded, and the next two stay 0
    uint64_t n_submitted;  // requests
    uint64_t n_recorded;   // of those that have ended
    uint64_t bytes_so_far; // that have come back

    // The disk thread's own.
    struct disk_chunk *batch;    // [depth]
    struct disk_result *results; // [depth]
    uint64_t wait_ns;            // until there is something to try again
    pthread_t thread;
    bool has_thread;
};

// --- the disk's side -----------------------------------------------------------------------------

// The mutex is held: whoever holds it is the one who may put.
static void record_queue(struct reader *r, uint64_t now_ns) {
    struct trace_event event = {
        .ns = now_ns,
        .kind = TRACE_QUEUE,
        .is.queue = { .n_chunks = r->chunks.n_out,
                      .n_requests = (uint32_t)(r->n_submitted - r->chunks.n_ended),
                      .bytes = r->chunks.bytes_out,
                      .bytes_so_far = r->bytes_so_far },
    };
    trace_put(r->trace, TRACE_DISK, &event);
}

// The last of those that have ended: nobody has taken them before they were told of.
static void record_ended(struct reader *r, uint64_t now_ns) {
    uint64_t n = r->chunks.n_ended - r->n_recorded;
    const struct request *request = r->chunks.ended.last;
    for (uint64_t i = 1; i < n; i++)
        request = request->prev;
    for (; n > 0; n--, request = request->next) {
        struct trace_event event = {
            .ns = now_ns,
            .kind = TRACE_REQUEST,
            .is.request = { .submitted_ns = request->submitted_ns,
                            .raised_ns = request->raised_ns,
                            .active_ns = request->active_ns,
                            .label = request->label,
                            .bytes = request->bytes_read,
                            .priority = request->priority,
                            .status = request->status },
        };
        trace_put(r->trace, TRACE_DISK, &event);
    }
    r->n_recorded = r->chunks.n_ended;
}

// Leave the mutex, then tell those who wait what has ended.
static void unlock_and_tell(struct reader *r) {
    uint64_t n_ended = r->chunks.n_ended - r->n_told;
    r->n_told = r->chunks.n_ended;
    pthread_mutex_unlock(&r->mutex);
    if (n_ended > 0)
        event_source_advance(r->ended_source, n_ended);
}

// Take what has come back, send what there is room for. False: nothing of either.
static bool turn(struct reader *r, uint64_t timeout_ns) {
    uint32_t n_results = disk_reap(r->disk, r->results, r->depth, timeout_ns);
    pthread_mutex_lock(&r->mutex);
    uint64_t now_ns = disk_now_ns(r->disk, r->clock);
    bool was_busy = r->chunks.n_out > 0;
    for (uint32_t i = 0; i < n_results; i++) {
        chunks_done(&r->chunks, &r->results[i], now_ns);
        r->bytes_so_far += r->results[i].result > 0 ? (uint32_t)r->results[i].result : 0;
    }
    uint32_t n_chunks = chunks_fill(&r->chunks, r->batch, now_ns, &r->wait_ns);
    bool is_busy = r->chunks.n_out > 0;
    if (was_busy && !is_busy)
        r->busy_ns += now_ns - r->busy_since_ns;
    if (!was_busy && is_busy)
        r->busy_since_ns = now_ns;
    r->wants_wake = r->chunks.n_out < r->depth;
    if (r->trace && (n_results > 0 || n_chunks > 0)) {
        record_ended(r, now_ns);
        record_queue(r, now_ns);
    }
    unlock_and_tell(r);
    if (n_chunks > 0)
        disk_submit(r->disk, r->batch, n_chunks);
    return n_results > 0 || n_chunks > 0;
}

static void *disk_thread(void *context) {
    struct reader *r = context;
    pthread_mutex_lock(&r->mutex);
    while (!r->started && !r->closing)
        pthread_cond_wait(&r->first_submit, &r->mutex);
    while (!r->closing || r->chunks.n_out > 0) {
        uint64_t timeout_ns = r->wait_ns;
        pthread_mutex_unlock(&r->mutex);
        turn(r, timeout_ns);
        pthread_mutex_lock(&r->mutex);
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

// A disk without a thread of its own is driven by whoever looks, waits or submits.
static void catch_up(void *context) {
    struct reader *r = context;
    while (turn(r, 0))
        ;
}

static void wait_inline(void *context, uint64_t value, uint64_t timeout_ns) {
    struct reader *r = context;
    uint64_t deadline_ns = clock_deadline(r->clock, timeout_ns);
    while (event_source_reached(r->ended_source) < value) {
        uint64_t now_ns = clock_now_ns(r->clock);
        if (now_ns >= deadline_ns ||
            !turn(r, deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns - now_ns))
            return;
    }
}

// --- requests ------------------------------------------------------------------------------------

void reader_submit(struct reader *r, struct request *request) {
    if (r->disk->synchronous)
        catch_up(r); // what was sent earlier is served first, up to now
    pthread_mutex_lock(&r->mutex);
    bool first = !r->started;
    bool wake = r->wants_wake && r->started;
    r->started = true;
    if (wake)
        r->wants_wake = false; // once is enough, however many requests follow
    chunks_submit(&r->chunks, request);
    if (r->trace) {
        request->submitted_ns = request->raised_ns = disk_now_ns(r->disk, r->clock);
        r->n_submitted++;
        record_ended(r, request->submitted_ns); // one that wants nothing has
    }
    unlock_and_tell(r);

    if (r->disk->synchronous)
        catch_up(r);
    else if (first)
        pthread_cond_signal(&r->first_submit);
    else if (wake)
        disk_wake(r->disk);
}

void reader_promote(struct reader *r, struct request *request, enum read_priority priority) {
    if (r->disk->synchronous)
        catch_up(r);
    pthread_mutex_lock(&r->mutex);
    enum read_priority before = request->priority;
    chunks_promote(&r->chunks, request, priority);
    if (r->trace && request->priority != before)
        request->raised_ns = disk_now_ns(r->disk, r->clock);
    bool wake = r->wants_wake && r->started; // there may be room for it that a prefetch must leave
    if (wake)
        r->wants_wake = false;
    pthread_mutex_unlock(&r->mutex);
    if (r->disk->synchronous)
        catch_up(r);
    else if (wake)
        disk_wake(r->disk);
}

void reader_cancel(struct reader *r, struct request *request) {
    if (r->disk->synchronous)
        catch_up(r);
    pthread_mutex_lock(&r->mutex);
    chunks_cancel(&r->chunks, request);
    if (r->trace)
        record_ended(r, disk_now_ns(r->disk, r->clock));
    unlock_and_tell(r);
}

struct request_progress reader_progress(struct reader *r, const struct request *request) {
    if (r->disk->synchronous)
        catch_up(r);
    pthread_mutex_lock(&r->mutex);
    struct request_progress progress = { request->bytes_read, request->bytes_out };
    pthread_mutex_unlock(&r->mutex);
    return progress;
}

struct request *reader_next(struct reader *r) {
    if (r->disk->synchronous)
        catch_up(r);
    if (event_source_reached(r->ended_source) == r->n_returned)
        return NULL;
    pthread_mutex_lock(&r->mutex);
    struct request *request = chunks_take_ended(&r->chunks);
    pthread_mutex_unlock(&r->mutex);
    assert(request);
    r->n_returned++;
    return request;
}

struct event reader_event(struct reader *r) {
    return (struct event){ .source = r->ended_source, .value = r->n_returned + 1 };
}

void reader_stats(struct reader *r, struct reader_stats *out) {
    pthread_mutex_lock(&r->mutex);
    *out = r->chunks.stats;
    out->busy_ns = r->busy_ns;
    if (r->chunks.n_out > 0)
        out->busy_ns += disk_now_ns(r->disk, r->clock) - r->busy_since_ns;
    pthread_mutex_unlock(&r->mutex);
}

// --- for people ----------------------------------------------------------------------------------

const char *reader_path(const struct reader *r, uint32_t file) {
    assert(file < r->files.n);
    return r->files.file[file].path;
}

enum status request_error(const struct reader *r, const struct request *request, struct err *err) {
    assert(request->state == REQUEST_ENDED);
    if (request->status == OK)
        return OK;
    if (request->status == CANCELLED)
        return err_set(err, CANCELLED, "a read was cancelled");
    const char *path = reader_path(r, request->failed_file);
    uint64_t offset = request->failed_offset;
    if (request->status == ERR_TRUNCATED)
        return err_set(err, ERR_TRUNCATED,
                       "%s: the file ends at byte %" PRIu64
                       ", inside what was to be read: an incomplete download, or it was changed "
                       "while in use; fetch it again",
                       path, offset);
    return err_set(err, ERR_IO, "%s: cannot read at byte %" PRIu64 ": %s%s", path, offset,
                   strerror(request->failed_errno),
                   request->failed_errno == EIO
                       ? " (tried twice): the drive or its file system is damaged, see `dmesg`"
                       : "");
}

static void append(char **text, const char *more) {
    size_t used = *text ? strlen(*text) : 0;
    char *longer = realloc(*text, used + strlen(more) + 1);
    if (!longer)
        return; // a note less
    strcpy(longer + used, more);
    *text = longer;
}

static void note_memory(struct reader *r) {
    if (r->memory_errno == 0)
        return;
    struct device_limits limits;
    device_limits(&limits);
    char text[400], limit[48] = "unlimited";
    if (limits.memlock_bytes != UINT64_MAX)
        snprintf(limit, sizeof limit, "%.4g MiB", (double)limits.memlock_bytes / (1 << 20));
    if (r->memory_errno == EOPNOTSUPP)
        snprintf(text, sizeof text,
                 "buffers are not registered (kernels from 5.19 on have what it takes): every read "
                 "pins its pages, which costs CPU time\n");
    else if (r->memory_errno == ENOMEM && !limits.may_lock)
        snprintf(text, sizeof text,
                 "RLIMIT_MEMLOCK is %s: %.1f of %.1f GiB of buffers are registered, reads into the "
                 "rest pin their pages each time, which costs CPU time; raise it with `ulimit -l "
                 "unlimited` or LimitMEMLOCK=infinity\n",
                 limit, (double)r->disk->registered_bytes / (1 << 30),
                 (double)r->memory_bytes / (1 << 30));
    else
        snprintf(text, sizeof text,
                 "%.1f of %.1f GiB of buffers are registered (%s): reads into the rest pin their "
                 "pages each time, which costs CPU time\n",
                 (double)r->disk->registered_bytes / (1 << 30), (double)r->memory_bytes / (1 << 30),
                 strerror(r->memory_errno));
    append(&r->notes, text);
}

static void describe(struct reader *r) {
    char text[2 * 4096 + 1024], how[64];
    free(r->describe);
    free(r->notes);
    r->describe = r->notes = NULL;
    bool kib = r->chunk_bytes % (1u << 20) != 0;
    snprintf(text, sizeof text, "%s, ", r->disk->ops->name);
    append(&r->describe, text);
    if (r->disk->wants_fd) {
        files_describe(&r->files, how, sizeof how);
        append(&r->describe, how);
        append(&r->describe, r->disk->registered_bytes == 0 ? ", "
                             : r->disk->registered_bytes < r->memory_bytes
                                 ? ", some registered buffers, "
                                 : ", registered buffers, ");
    }
    snprintf(text, sizeof text, "%" PRIu32 " x %" PRIu32 " %s", r->depth,
             r->chunk_bytes >> (kib ? 10 : 20), kib ? "KiB" : "MiB");
    append(&r->describe, text);

    append(&r->notes, r->engine_note);
    if (r->disk->wants_fd) {
        files_notes(&r->files, text, sizeof text);
        append(&r->notes, text);
    }
    note_memory(r);
}

const char *reader_describe(const struct reader *r) {
    return r->describe ? r->describe : "";
}

const char *reader_notes(const struct reader *r) {
    return r->notes ? r->notes : "";
}

// --- open, close ---------------------------------------------------------------------------------

void reader_defaults(bool uring, uint32_t *chunk_bytes, uint32_t *depth) {
    *chunk_bytes = DEFAULT_CHUNK_BYTES;
    *depth = uring ? DEFAULT_DEPTH : DEFAULT_PREAD_DEPTH;
}

static enum status check_options(const struct reader_options *o, struct err *err) {
    if (o->chunk_bytes % READER_ALIGN != 0 || o->chunk_bytes > CHUNK_BYTES_MAX)
        return err_set(err, ERR_USAGE,
                       "a chunk of %" PRIu32 " bytes is not a multiple of %d up to %u MiB",
                       o->chunk_bytes, READER_ALIGN, CHUNK_BYTES_MAX >> 20);
    if (o->depth > DISK_DEPTH_MAX)
        return err_set(err, ERR_USAGE, "a depth of %" PRIu32 " is more than %d", o->depth,
                       DISK_DEPTH_MAX);
    return OK;
}

static enum status open_disk(struct reader *r, const struct reader_options *o, struct err *err) {
    if (o->disk) {
        r->disk = o->disk;
        return OK;
    }
    r->owns_disk = true;
    struct err why = { .status = OK };
    if (!o->forbid_uring &&
        disk_uring_open(&r->disk, o->depth ? o->depth : DEFAULT_DEPTH, &why) == OK)
        return OK;
    enum status status = disk_pread_open(&r->disk, o->depth ? o->depth : DEFAULT_PREAD_DEPTH, err);
    if (status == OK && !o->forbid_uring)
        snprintf(r->engine_note, sizeof r->engine_note,
                 "reading with %" PRIu32 " threads: %.400s\n", r->disk->depth, why.text);
    return status;
}

static int start_thread(struct reader *r) {
    sigset_t all, before; // signals are the program's, and interrupt no read
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&r->thread, NULL, disk_thread, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    r->has_thread = error == 0;
    if (r->has_thread)
        pthread_setname_np(r->thread, "sluice-disk");
    return error;
}

enum status reader_open(struct reader **out, const struct reader_options *options,
                        struct err *err) {
    *out = NULL;
    enum status status = check_options(options, err);
    if (status != OK)
        return status;
    struct reader *r = malloc(sizeof *r);
    if (!r)
        return err_set(err, ERR_MEMORY, "no memory for a reader");
    *r = (struct reader){
        .clock = options->clock ? options->clock : clock_system(),
        .trace = options->trace,
        .chunk_bytes = options->chunk_bytes ? options->chunk_bytes : DEFAULT_CHUNK_BYTES,
        .wait_ns = 0, // the first turn finds what the first submit left
        .wants_wake = true,
    };
    pthread_mutex_init(&r->mutex, NULL); // plain: cannot fail on Linux
    pthread_cond_init(&r->first_submit, NULL);
    files_init(&r->files, options->mode, options->ram_bytes);
    status = open_disk(r, options, err);
    if (status != OK)
        goto fail;
    r->depth = options->depth ? options->depth : DEFAULT_DEPTH;
    r->depth = r->depth < r->disk->depth ? r->depth : r->disk->depth;

    status =
        chunks_open(&r->chunks, &r->files, r->chunk_bytes, r->depth, !r->disk->synchronous, err);
    if (status != OK)
        goto fail;
    r->batch = calloc(r->depth, sizeof *r->batch);
    r->results = calloc(r->depth, sizeof *r->results);
    struct event_source_hooks hooks = { .poll = catch_up, .wait = wait_inline, .context = r };
    r->ended_source = event_source_new(r->disk->synchronous ? &hooks : NULL);
    if (!r->batch || !r->results || !r->ended_source) {
        status = err_set(err, ERR_MEMORY, "no memory for a reader");
        goto fail;
    }
    int error = r->disk->synchronous ? 0 : start_thread(r);
    if (error) {
        status = err_set(err, ERR_SYSTEM, "cannot start the disk thread: %s", strerror(error));
        goto fail;
    }
    describe(r);
    *out = r;
    return OK;
fail:
    reader_close(r);
    return status;
}

void reader_close(struct reader *r) {
    if (!r)
        return;
    pthread_mutex_lock(&r->mutex);
    r->closing = true;
    chunks_cancel_all(&r->chunks);
    if (r->trace && r->n_submitted > 0)
        record_ended(r, disk_now_ns(r->disk, r->clock));
    pthread_mutex_unlock(&r->mutex);
    pthread_cond_signal(&r->first_submit);
    if (r->has_thread) {
        disk_wake(r->disk);
        pthread_join(r->thread, NULL);
    }
    while (r->chunks.n_out > 0) // driven inline: what is at the device still has to come back
        turn(r, UINT64_MAX);
    if (r->owns_disk)
        disk_close(r->disk);
    files_close(&r->files);
    event_source_free(r->ended_source);
    pthread_cond_destroy(&r->first_submit);
    pthread_mutex_destroy(&r->mutex);
    chunks_close(&r->chunks);
    free(r->batch);
    free(r->results);
    free(r->describe);
    free(r->notes);
    free(r);
}

enum status reader_add_file(struct reader *r, const char *path, uint32_t *file, struct err *err) {
    assert(!r->started);
    enum status status =
        r->disk->wants_fd ? files_add(&r->files, path, err) : files_add_name(&r->files, path, err);
    if (status != OK)
        return status;
    status = disk_add_file(r->disk, r->files.file[r->files.n - 1].fd, path, err);
    if (status != OK) {
        files_remove_last(&r->files);
        return status;
    }
    *file = r->files.n - 1;
    describe(r);
    return OK;
}

void reader_add_memory(struct reader *r, unsigned char *base, uint64_t bytes) {
    assert(!r->started);
    int error = disk_add_memory(r->disk, base, bytes);
    r->memory_bytes += bytes;
    r->memory_errno = r->memory_errno ? r->memory_errno : error;
    describe(r);
}

void reader_check(struct reader *r) {
    pthread_mutex_lock(&r->mutex);
    chunks_check(&r->chunks);
    pthread_mutex_unlock(&r->mutex);
}
