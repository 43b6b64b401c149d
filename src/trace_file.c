#include "src/trace_file.h"

#include "io/reader.h"
#include "src/account.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Written ten times a second. In that time a fast drive (7 GB/s, chunks of 2 MiB) makes 400 events of
// the disk, and the smallest model, all in memory (2 layers, 2,000 tokens/s), 3,000 of the control
// thread: 16,384 leave room for a disk that keeps the writer waiting. 1.2 MB a track.
#define WRITE_NS    100000000u
#define RING_EVENTS 16384

#define BUFFER_BYTES (64u << 10)
#define EVENT_BYTES  2048u // more than any event takes, as text: a request is seven lines of 150
#define TAIL_BYTES   128u
#define COUNTER_NS   1000000u // between two looks at the bytes read, where nothing else changes

struct trace_file {
    struct trace *trace;
    const struct clock *clock;
    uint64_t base_ns;

    int fd;
    char *path;
    bool is_new;   // made by us
    bool is_file;  // a regular one: what is behind its tail can be written over
    bool complete; // the run has come to its end
    bool no_thread;
    uint64_t offset;      // of the tail
    struct err err;       // what ended the recording
    uint64_t n_unwritten; // events since then

    // Of the writer, which is the thread, or whoever calls trace_file_write.
    char buffer[BUFFER_BYTES + TAIL_BYTES];
    uint32_t n_bytes, n_buffered; // in it, and so many events
    uint32_t n_layers, n_experts;
    struct trace_place place;         // what is open on the control thread's track
    struct trace_queue queue, latest; // as it was written, and as it is
    uint64_t queue_ns, latest_ns;
    bool has_queue;
    uint64_t n_requests;

    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool has_cond, has_thread, ending;
    pthread_t thread;
};

// --- the file ------------------------------------------------------------------------------------

static bool write_at(struct trace_file *f, const char *data, uint64_t bytes, uint64_t offset) {
    for (uint64_t done = 0; done < bytes;) {
        // What is no regular file has no offsets.
        ssize_t n = f->is_file ? pwrite(f->fd, data + done, bytes - done, (off_t)(offset + done))
                               : write(f->fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n < 0 ? errno : ENOSPC;
            return false;
        }
        done += (uint64_t)n;
    }
    return true;
}

// Always of one length: it is written over what was there, and needs no room on a full disk.
static uint32_t tail_of(const struct trace_file *f, char tail[TAIL_BYTES]) {
    return (uint32_t)snprintf(tail, TAIL_BYTES,
                              "\n],\"sluice\":{\"lost_events\":%20" PRIu64 ",\"complete\":%5s}}\n",
                              trace_lost(f->trace), f->complete ? "true" : "false");
}

// A write failed: whatever came of it is taken back.
static void give_up(struct trace_file *f, int why) {
    char tail[TAIL_BYTES];
    f->complete = false;
    uint32_t n_tail = tail_of(f, tail);
    bool whole = f->is_file && write_at(f, tail, f->offset ? n_tail : 0, f->offset) &&
                 ftruncate(f->fd, (off_t)(f->offset ? f->offset + n_tail : 0)) == 0;
    err_set(&f->err, ERR_IO, "%s: cannot be written at byte %" PRIu64 ": %s: the timeline ends %s",
            f->path, f->offset, strerror(why), whole ? "there" : "there, in a piece of an event");
    f->n_unwritten += f->n_buffered;
}

// What is in the buffer goes to where the tail is, and a tail behind it, in one write.
static void flush(struct trace_file *f) {
    if (f->err.status == OK) {
        uint32_t n_tail = f->is_file || f->complete ? tail_of(f, f->buffer + f->n_bytes) : 0;
        if (write_at(f, f->buffer, f->n_bytes + n_tail, f->offset))
            f->offset += f->n_bytes;
        else
            give_up(f, errno);
    }
    f->n_bytes = f->n_buffered = 0;
}

static void put(struct trace_file *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct trace_file *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(f->buffer + f->n_bytes, BUFFER_BYTES - f->n_bytes, format, args);
    va_end(args);
    f->n_bytes += n > 0 ? (uint32_t)n : 0;
    assert(f->n_bytes < BUFFER_BYTES);
}

// The beginning of every event but the first: its kind, its track, its time.
static void begin(struct trace_file *f, char kind, enum trace_track track, uint64_t ns) {
    uint64_t since = ns > f->base_ns ? ns - f->base_ns : 0;
    put(f, ",\n{\"ph\":\"%c\",\"pid\":1,\"tid\":%d,\"ts\":%" PRIu64 ".%03u", kind, 1 + (int)track,
        since / 1000, (unsigned)(since % 1000));
}

// --- the control thread --------------------------------------------------------------------------

static bool same_step(const struct trace_place *a, const struct trace_place *b) {
    return a->step == b->step && (a->step == TRACE_NOWHERE || a->phase == b->phase);
}

static bool same_layer(const struct trace_place *a, const struct trace_place *b) {
    return same_step(a, b) && a->layer == b->layer;
}

static bool same_activity(const struct trace_place *a, const struct trace_place *b) {
    return same_layer(a, b) && a->activity == b->activity && a->phase == b->phase;
}

static void end_span(struct trace_file *f, uint64_t ns) {
    begin(f, 'E', TRACE_CONTROL, ns);
    put(f, "}");
}

static void begin_spans(struct trace_file *f, const struct trace_place *before,
                        const struct trace_place *now, uint64_t ns) {
    const char *phase = phase_name((enum phase)now->phase);
    if (now->step != TRACE_NOWHERE && !same_step(before, now)) {
        begin(f, 'B', TRACE_CONTROL, ns);
        put(f, ",\"cat\":\"step\",\"name\":\"%s\",\"args\":{\"step\":%u,\"rows\":%u}}", phase,
            now->step, now->n_rows);
    }
    if (now->layer != TRACE_NOWHERE && !same_layer(before, now)) {
        begin(f, 'B', TRACE_CONTROL, ns);
        put(f, ",\"cat\":\"layer\",\"name\":\"layer %u%s\",\"args\":{\"layer\":%u}}", now->layer,
            now->layer < f->n_layers ? "" : " (draft)", now->layer);
    }
    if (now->activity != TRACE_NOWHERE && !same_activity(before, now)) {
        begin(f, 'B', TRACE_CONTROL, ns);
        put(f, ",\"cat\":\"%s\",\"name\":\"%s\"}", phase,
            activity_name((enum activity)now->activity));
    }
}

// From one place to another: end what is over, the innermost first, and begin what is new.
static void move_to(struct trace_file *f, const struct trace_place *now, uint64_t ns) {
    struct trace_place before = f->place;
    if (before.activity != TRACE_NOWHERE && !same_activity(&before, now))
        end_span(f, ns);
    if (before.layer != TRACE_NOWHERE && !same_layer(&before, now))
        end_span(f, ns);
    if (before.step != TRACE_NOWHERE && !same_step(&before, now))
        end_span(f, ns);
    begin_spans(f, &before, now, ns);
    f->place = *now;
}

static const struct trace_place nowhere = { .activity = TRACE_NOWHERE,
                                            .step = TRACE_NOWHERE,
                                            .layer = TRACE_NOWHERE };

// --- the disk ------------------------------------------------------------------------------------

static void put_counter(struct trace_file *f, uint64_t ns, const char *name, const char *of,
                        uint64_t value) {
    begin(f, 'C', TRACE_DISK, ns);
    put(f, ",\"name\":\"%s\",\"args\":{\"%s\":%" PRIu64 "}}", name, of, value);
}

static void put_queue(struct trace_file *f, const struct trace_queue *q, uint64_t ns) {
    const struct trace_queue *before = f->has_queue ? &f->queue : NULL;
    if (!before || before->n_chunks != q->n_chunks)
        put_counter(f, ns, "disk queue", "chunks", q->n_chunks);
    if (!before || before->bytes != q->bytes)
        put_counter(f, ns, "disk in flight", "bytes", q->bytes);
    if (!before || before->n_requests != q->n_requests)
        put_counter(f, ns, "disk requests", "open", q->n_requests);
    if (!before || before->bytes_so_far != q->bytes_so_far)
        put_counter(f, ns, "disk read", "bytes", q->bytes_so_far);
    f->queue = *q;
    f->queue_ns = ns;
    f->has_queue = true;
}

static void see_queue(struct trace_file *f, const struct trace_queue *q, uint64_t ns) {
    f->latest = *q;
    f->latest_ns = ns;
    bool same = f->has_queue && q->n_chunks == f->queue.n_chunks && q->bytes == f->queue.bytes &&
                q->n_requests == f->queue.n_requests;
    if (!same || ns - f->queue_ns >= COUNTER_NS)
        put_queue(f, q, ns);
}

static void put_label(struct trace_file *f, const struct trace_request *r) {
    if (r->label == 0 || f->n_experts == 0)
        return;
    if (r->label & TRACE_LABEL_DENSE) {
        put(f, "\"dense\":%" PRIu64 ",", r->label ^ TRACE_LABEL_DENSE);
        return;
    }
    put(f, "\"layer\":%" PRIu64 ",\"expert\":%" PRIu64 ",", (r->label - 1) / f->n_experts,
        (r->label - 1) % f->n_experts);
}

// A begin or an end of a span that is no thread's: spans with one id are one inside the other.
static void async(struct trace_file *f, char kind, uint64_t ns, const char *name) {
    begin(f, kind, TRACE_DISK, ns);
    put(f, ",\"cat\":\"read\",\"id\":\"0x%" PRIx64 "\",\"name\":\"%s\"", f->n_requests, name);
}

static void put_request(struct trace_file *f, const struct trace_request *r, uint64_t ns) {
    static const char *const names[READ_PRIORITIES] = { "demand", "gather", "ahead", "prefetch",
                                                        "background" };
    bool was_active = r->active_ns != UINT64_MAX;
    uint64_t queued_until = was_active ? r->active_ns : ns;
    const char *status = status_name((enum status)r->status);
    f->n_requests++;
    async(f, 'b', r->submitted_ns, names[r->priority]);
    put(f, ",\"args\":{");
    put_label(f, r);
    put(f, "\"bytes\":%" PRIu64 ",\"status\":\"%s\"}}", r->bytes, status);
    async(f, 'b', r->submitted_ns, "queued");
    put(f, "}");
    async(f, 'e', queued_until, "queued");
    put(f, "}");
    if (was_active) {
        async(f, 'b', queued_until, "active");
        put(f, "}");
        async(f, 'e', ns, "active");
        put(f, "}");
    }
    async(f, 'e', ns, names[r->priority]);
    put(f, "}");
    if (r->status == OK)
        return;
    begin(f, 'i', TRACE_DISK, ns);
    put(f, ",\"s\":\"t\",\"name\":\"read %s\",\"args\":{",
        r->status == CANCELLED ? "cancelled" : "failed");
    put_label(f, r);
    put(f, "\"status\":\"%s\"}}", status);
}

// --- writing -------------------------------------------------------------------------------------

static void put_event(struct trace_file *f, enum trace_track track,
                      const struct trace_event *event) {
    if (event->n_lost > 0) {
        begin(f, 'i', track, event->ns);
        put(f, ",\"s\":\"t\",\"name\":\"events lost\",\"args\":{\"n\":%u}}", event->n_lost);
    }
    switch ((enum trace_kind)event->kind) {
    case TRACE_PLACE:
        move_to(f, &event->is.place, event->ns);
        break;
    case TRACE_QUEUE:
        see_queue(f, &event->is.queue, event->ns);
        break;
    case TRACE_REQUEST:
        put_request(f, &event->is.request, event->ns);
        break;
    }
}

void trace_file_write(struct trace_file *f) {
    struct trace_event event;
    for (int track = 0; track < TRACE_TRACKS; track++)
        while (trace_take(f->trace, (enum trace_track)track, &event)) {
            if (f->err.status != OK) {
                f->n_unwritten++;
                continue;
            }
            put_event(f, (enum trace_track)track, &event);
            f->n_buffered++;
            if (f->n_bytes > BUFFER_BYTES - EVENT_BYTES)
                flush(f);
        }
    if (f->n_bytes > 0)
        flush(f);
}

static void *writer(void *context) {
    struct trace_file *f = context;
    pthread_mutex_lock(&f->mutex);
    while (!f->ending) {
        clock_cond_wait(&f->cond, &f->mutex, clock_deadline(clock_system(), WRITE_NS));
        pthread_mutex_unlock(&f->mutex);
        trace_file_write(f);
        pthread_mutex_lock(&f->mutex);
    }
    pthread_mutex_unlock(&f->mutex);
    return NULL;
}

static enum status start_thread(struct trace_file *f, struct err *err) {
    sigset_t all, before; // signals are the program's, and interrupt no write
    pthread_mutex_init(&f->mutex, NULL);
    int error = clock_cond_init(&f->cond);
    f->has_cond = error == 0;
    if (!error) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&f->thread, NULL, writer, f);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (error)
        return err_set(err, ERR_SYSTEM, "%s: cannot start the thread that writes it: %s", f->path,
                       strerror(error));
    f->has_thread = true;
    pthread_setname_np(f->thread, "sluice-trace");
    return OK;
}

static void stop_thread(struct trace_file *f) {
    if (f->has_thread) {
        pthread_mutex_lock(&f->mutex);
        f->ending = true;
        pthread_cond_signal(&f->cond);
        pthread_mutex_unlock(&f->mutex);
        pthread_join(f->thread, NULL);
    }
    f->has_thread = false;
}

// --- open, start, finish, close ------------------------------------------------------------------

enum status trace_file_open(struct trace_file **out, const char *path,
                            const struct trace_file_options *options, struct err *err) {
    struct stat st;
    uint32_t n_events = options->ring_events ? options->ring_events : RING_EVENTS;
    struct trace_file *f = *out = calloc(1, sizeof *f);
    if (!f)
        return err_set(err, ERR_MEMORY, "%s: no memory for a timeline", path);
    f->fd = -1;
    f->place = nowhere;
    f->clock = options->clock ? options->clock : clock_system();
    f->base_ns = clock_now_ns(f->clock);
    f->no_thread = options->no_thread;
    f->path = strdup(path);
    if (!f->path || trace_open(&f->trace, n_events, err) != OK) {
        err_set(err, ERR_MEMORY, "%s: no memory for a timeline", path);
        goto fail;
    }
    bool is_new = lstat(path, &st) != 0;
    // Not cut to nothing yet: whatever is there stays if no run comes of it.
    f->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        err_set(err, ERR_IO, "%s: cannot be made: %s", path, strerror(errno));
        goto fail;
    }
    f->is_new = is_new;
    f->is_file = fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode);
    return OK;
fail:
    trace_file_close(f);
    *out = NULL;
    return err->status;
}

struct trace *trace_file_trace(struct trace_file *f) {
    return f->trace;
}

static void put_head(struct trace_file *f) {
    static const char *const names[TRACE_TRACKS] = { "control thread", "disk" };
    put(f,
        "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"layers\":%u,\"experts\":%u},"
        "\"traceEvents\":[\n"
        "{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"sluice\"}"
        "}",
        f->n_layers, f->n_experts);
    for (int i = 0; i < TRACE_TRACKS; i++)
        put(f,
            ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"%"
            "s\"}}"
            ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_sort_index\","
            "\"args\":{\"sort_index\":%d}}",
            i + 1, names[i], i + 1, i);
}

enum status trace_file_start(struct trace_file *f, uint32_t n_layers, uint32_t n_experts,
                             struct err *err) {
    f->n_layers = n_layers;
    f->n_experts = n_experts;
    if (f->is_file && ftruncate(f->fd, 0) != 0)
        return err_set(err, ERR_IO, "%s: cannot be emptied: %s", f->path, strerror(errno));
    f->is_new = false;
    put_head(f);
    flush(f);
    if (f->err.status != OK) { // handed over now, not by finish
        err_set(err, f->err.status, "%s", f->err.text);
        err_clear(&f->err);
        return err->status;
    }
    return f->no_thread ? OK : start_thread(f, err);
}

enum status trace_file_finish(struct trace_file *f, struct err *err) {
    stop_thread(f);
    if (f->offset > 0) { // started
        trace_file_write(f);
        if (f->has_queue && f->latest_ns != f->queue_ns)
            put_queue(f, &f->latest, f->latest_ns);
        move_to(f, &nowhere, clock_now_ns(f->clock));
        f->complete = f->err.status == OK;
        flush(f);
    }
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) != 0) // where a disk on a network says that it is full
        err_set(&f->err, ERR_IO, "%s: cannot be written: %s", f->path, strerror(errno));
    if (f->err.status == OK)
        return OK;
    return f->n_unwritten ? err_set(err, f->err.status, "%s; %" PRIu64 " events are not in it",
                                    f->err.text, f->n_unwritten)
                          : err_set(err, f->err.status, "%s", f->err.text);
}

uint64_t trace_file_lost(const struct trace_file *f) {
    return trace_lost(f->trace);
}

void trace_file_close(struct trace_file *f) {
    if (!f)
        return;
    stop_thread(f);
    if (f->has_cond)
        pthread_cond_destroy(&f->cond);
    if (f->fd >= 0)
        close(f->fd);
    if (f->is_new && f->is_file)
        unlink(f->path);
    trace_close(f->trace);
    free(f->path);
    free(f);
}
