#include "io/chunks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

// EINTR or EAGAIN so many times in a row, without a byte in between, is an error. With the pauses
// below that is about ten seconds of a device that is short of something.
#define TRIES_MAX    100
#define PAUSE_MIN_NS 100000u
#define PAUSE_MAX_NS 100000000u

// A piece of a request that goes to the device as one read, and again until all that is needed of
// it is there.
struct chunk {
    struct request *request; // NULL: free
    struct chunk *next;      // among the free ones, or those to be sent again
    unsigned char *dst;
    uint64_t offset;
    uint32_t file;
    uint32_t bytes, need; // what follows `need` is block rounding
    uint32_t have;        // so far, a multiple of the file's alignment
    uint32_t n_tries;     // in a row that gained nothing: EINTR, EAGAIN
    bool io_retried;      // EIO gets one second try
    bool short_again;     // the last read stopped before the next multiple of the alignment
    uint64_t not_before_ns;
};

// --- lists ---------------------------------------------------------------------------------------

static void queue_append(struct request_queue *q, struct request *request) {
    request->prev = q->last;
    request->next = NULL;
    if (q->last)
        q->last->next = request;
    else
        q->first = request;
    q->last = request;
}

static void queue_remove(struct request_queue *q, struct request *request) {
    if (request->prev)
        request->prev->next = request->next;
    else
        q->first = request->next;
    if (request->next)
        request->next->prev = request->prev;
    else
        q->last = request->prev;
    request->next = request->prev = NULL;
}

static bool has_uncut(const struct request *request) {
    return request->next_read < request->n_reads;
}

static void chunk_free(struct chunks *c, struct chunk *chunk) {
    chunk->request->chunks_out--;
    chunk->request = NULL;
    chunk->next = c->free;
    c->free = chunk;
}

static void chunk_again(struct chunks *c, struct chunk *chunk, uint64_t not_before_ns) {
    chunk->not_before_ns = not_before_ns;
    chunk->next = NULL;
    struct chunk **end = &c->again;
    while (*end)
        end = &(*end)->next;
    *end = chunk;
}

// --- ends ----------------------------------------------------------------------------------------

// Called whenever a request may have lost its last chunk: the one place where requests end.
static void end_if_complete(struct chunks *c, struct request *request) {
    if (request->chunks_out > 0 || has_uncut(request))
        return;
    assert(request->state == REQUEST_QUEUED || request->state == REQUEST_ACTIVE);
    request->state = REQUEST_ENDED;
    queue_append(&c->ended, request);
    c->n_ended++;
}

// Send nothing more of a request.
static void request_stop(struct chunks *c, struct request *request, enum status status) {
    request->status = status;
    if (has_uncut(request))
        queue_remove(&c->waiting[request->priority], request);
    request->next_read = request->n_reads;
    for (struct chunk **at = &c->again; *at;) {
        struct chunk *chunk = *at;
        if (chunk->request != request) {
            at = &chunk->next;
            continue;
        }
        *at = chunk->next;
        chunk_free(c, chunk);
    }
}

static void chunk_fail(struct chunks *c, struct chunk *chunk, enum status status, uint64_t offset,
                       int error) {
    chunk->request->failed_file = chunk->file;
    chunk->request->failed_offset = offset;
    chunk->request->failed_errno = error;
    request_stop(c, chunk->request, status);
    chunk_free(c, chunk);
}

// --- what comes back -----------------------------------------------------------------------------

static uint64_t pause_ns(const struct chunks *c, const struct chunk *chunk, int error) {
    if (error != EAGAIN || !c->pauses)
        return 0;
    uint64_t ns = (uint64_t)PAUSE_MIN_NS << (chunk->n_tries < 16 ? chunk->n_tries : 16);
    return ns < PAUSE_MAX_NS ? ns : PAUSE_MAX_NS;
}

static void chunk_refused(struct chunks *c, struct chunk *chunk, int error, uint64_t now_ns) {
    bool once_more = error == EIO && !chunk->io_retried;
    bool short_of_something = (error == EINTR || error == EAGAIN) && chunk->n_tries < TRIES_MAX;
    if (!once_more && !short_of_something) {
        chunk_fail(c, chunk, ERR_IO, chunk->offset + chunk->have, error);
        return;
    }
    c->stats.retries++;
    chunk_again(c, chunk, now_ns + pause_ns(c, chunk, error));
    chunk->io_retried |= once_more;
    chunk->n_tries += short_of_something;
}

static void chunk_arrived(struct chunks *c, struct chunk *chunk, uint32_t bytes, uint64_t now_ns) {
    uint32_t align = c->files->file[chunk->file].align_bytes;
    uint32_t before = chunk->have, got = before + bytes;
    assert(bytes <= chunk->bytes - before);
    chunk->request->bytes_read += bytes;
    if (got >= chunk->need) {
        chunk_free(c, chunk);
        return;
    }
    c->stats.short_reads++;
    chunk->have = got - got % align; // O_DIRECT goes on from a multiple of the alignment
    bool gained = chunk->have > before;
    if (bytes == 0 || (!gained && chunk->short_again)) {
        // Nothing, or twice the same part of a block: the file ends there. No third time.
        chunk_fail(c, chunk, ERR_TRUNCATED, chunk->offset + got, 0);
        return;
    }
    chunk->short_again = !gained;
    chunk->n_tries = 0;
    chunk_again(c, chunk, now_ns);
}

void chunks_done(struct chunks *c, const struct disk_result *result, uint64_t now_ns) {
    struct chunk *chunk = result->tag;
    struct request *request = chunk->request;
    assert(c->n_out > 0 && request);
    c->n_out--;
    c->bytes_out -= chunk->bytes - chunk->have;
    request->bytes_out -= chunk->bytes - chunk->have;
    if (request->status != OK) { // it failed already, or everything is being cancelled
        request->bytes_read += result->result > 0 ? (uint32_t)result->result : 0;
        chunk_free(c, chunk);
    } else if (result->result < 0) {
        chunk_refused(c, chunk, -result->result, now_ns);
    } else {
        chunk_arrived(c, chunk, (uint32_t)result->result, now_ns);
    }
    end_if_complete(c, request);
}

struct request *chunks_take_ended(struct chunks *c) {
    struct request *request = c->ended.first;
    if (!request)
        return NULL;
    queue_remove(&c->ended, request);
    c->stats.bytes[request->priority] += request->bytes_read;
    c->stats.requests[request->priority] += request->status == OK;
    c->stats.cancelled += request->status == CANCELLED;
    c->stats.failed += request->status != OK && request->status != CANCELLED;
    return request;
}

// --- what goes out -------------------------------------------------------------------------------

// Bytes of a read that go to the device: of the slack only what shares a block with the rest.
static uint64_t read_span(const struct read *read) {
    return (read->bytes - read->slack + READER_ALIGN - 1) / READER_ALIGN * READER_ALIGN;
}

static void skip_empty_reads(struct request *request) {
    while (has_uncut(request) && read_span(&request->reads[request->next_read]) == 0)
        request->next_read++;
}

static struct chunk *chunk_cut(struct chunks *c, struct request *request, uint64_t now_ns) {
    const struct read *read = &request->reads[request->next_read];
    uint64_t from = request->next_byte, left = read_span(read) - from;
    uint64_t needed = read->bytes - read->slack - from;
    uint32_t bytes = left < c->chunk_bytes ? (uint32_t)left : c->chunk_bytes;
    struct chunk *chunk = c->free;
    assert(chunk); // see chunks_open
    c->free = chunk->next;
    *chunk = (struct chunk){
        .request = request,
        .dst = read->dst + from,
        .offset = read->offset + from,
        .file = read->file,
        .bytes = bytes,
        .need = needed < bytes ? (uint32_t)needed : bytes,
    };
    if (request->state == REQUEST_QUEUED)
        request->active_ns = now_ns;
    request->state = REQUEST_ACTIVE;
    request->chunks_out++;
    request->next_byte += bytes;
    if (bytes == left) {
        request->next_byte = 0;
        request->next_read++;
        skip_empty_reads(request);
        if (!has_uncut(request))
            queue_remove(&c->waiting[request->priority], request);
    }
    return chunk;
}

// Of the chunks to be sent again: the first of the highest priority, by what points to it.
static struct chunk **best_again(struct chunks *c) {
    struct chunk **best = NULL;
    for (struct chunk **at = &c->again; *at; at = &(*at)->next)
        if (!best || (*at)->request->priority < (*best)->request->priority)
            best = at;
    return best;
}

// What nobody waits for leaves room: a demand waits for all that is at the device by then, so there
// is no more of anything there than keeps the drive near its rate. An eighth, 8 MiB by default, is
// 2.4 ms at 3.4 GB/s. Rate of random experts by chunks of 2 MiB at the device (a virtual drive,
// medians of 5 rounds in turns, GB/s): 1 3.11, 2 3.23, 4 3.28, 8 3.31, 16 3.35, 32 3.47.
#define AHEAD_SHARE 8

static bool has_room(const struct chunks *c, uint32_t priority) {
    uint64_t ahead = (uint64_t)c->depth * c->chunk_bytes / AHEAD_SHARE;
    if (priority < READ_PREFETCH || c->n_out == 0)
        return c->n_out < c->depth;
    return c->n_out < c->depth && c->bytes_out < ahead;
}

// The chunk that goes to the device next, or NULL. One that pauses after EAGAIN holds up those of
// its priority and below: the device has just said that it is short of something.
static struct chunk *next_chunk(struct chunks *c, uint64_t now_ns, uint64_t *wait_ns) {
    uint32_t priority = 0;
    while (priority < READ_PRIORITIES && !c->waiting[priority].first)
        priority++;
    struct chunk **again = best_again(c);
    if (again && (uint32_t)(*again)->request->priority <= priority) {
        struct chunk *chunk = *again;
        if (!has_room(c, chunk->request->priority))
            return NULL;
        if (chunk->not_before_ns > now_ns) {
            *wait_ns = chunk->not_before_ns - now_ns;
            return NULL;
        }
        *again = chunk->next;
        return chunk;
    }
    if (priority == READ_PRIORITIES || !has_room(c, priority))
        return NULL;
    return chunk_cut(c, c->waiting[priority].first, now_ns);
}

uint32_t chunks_fill(struct chunks *c, struct disk_chunk *batch, uint64_t now_ns,
                     uint64_t *wait_ns) {
    uint32_t n = 0;
    *wait_ns = UINT64_MAX;
    while (c->n_out < c->depth) {
        struct chunk *chunk = next_chunk(c, now_ns, wait_ns);
        if (!chunk)
            break;
        batch[n++] = (struct disk_chunk){ .file = chunk->file,
                                          .bytes = chunk->bytes - chunk->have,
                                          .offset = chunk->offset + chunk->have,
                                          .dst = chunk->dst + chunk->have,
                                          .tag = chunk };
        c->n_out++;
        c->bytes_out += batch[n - 1].bytes;
        chunk->request->bytes_out += batch[n - 1].bytes;
    }
    c->stats.chunks += n;
    return n;
}

// --- requests ------------------------------------------------------------------------------------

static void assert_sound(const struct chunks *c, const struct request *request) {
    assert(request->state == REQUEST_IDLE || request->state == REQUEST_ENDED);
    assert(request->n_reads <= REQUEST_MAX_READS);
    assert((uint32_t)request->priority < READ_PRIORITIES);
    for (uint32_t i = 0; i < request->n_reads; i++) {
        const struct read *read = &request->reads[i];
        assert(read->file < c->files->n);
        assert(read->offset % READER_ALIGN == 0 && read->bytes % READER_ALIGN == 0);
        assert((uintptr_t)read->dst % READER_ALIGN == 0);
        assert(read->slack <= read->bytes);
        assert(read->bytes <= INT64_MAX && read->offset <= INT64_MAX - read->bytes);
    }
}

void chunks_submit(struct chunks *c, struct request *request) {
    assert_sound(c, request);
    request->state = REQUEST_QUEUED;
    request->status = OK;
    request->bytes_read = request->bytes_out = request->failed_offset = request->next_byte = 0;
    request->active_ns = UINT64_MAX;
    request->failed_file = request->chunks_out = request->next_read = 0;
    request->failed_errno = 0;
    request->next = request->prev = NULL;
    skip_empty_reads(request);
    if (has_uncut(request))
        queue_append(&c->waiting[request->priority], request);
    else
        end_if_complete(c, request);
}

void chunks_promote(struct chunks *c, struct request *request, enum read_priority priority) {
    assert(request->state != REQUEST_IDLE);
    if (request->state == REQUEST_ENDED || priority >= request->priority)
        return;
    if (has_uncut(request)) {
        queue_remove(&c->waiting[request->priority], request);
        queue_append(&c->waiting[priority], request);
    }
    request->priority = priority;
}

void chunks_cancel(struct chunks *c, struct request *request) {
    assert(request->state != REQUEST_IDLE);
    if (request->state == REQUEST_ENDED || !has_uncut(request))
        return;
    request_stop(c, request, CANCELLED);
    end_if_complete(c, request);
}

void chunks_cancel_all(struct chunks *c) {
    for (uint32_t priority = 0; priority < READ_PRIORITIES; priority++)
        while (c->waiting[priority].first) {
            struct request *request = c->waiting[priority].first;
            request_stop(c, request, CANCELLED);
            end_if_complete(c, request);
        }
    while (c->again) {
        struct request *request = c->again->request;
        request_stop(c, request, CANCELLED);
        end_if_complete(c, request);
    }
}

// --- open, close, check --------------------------------------------------------------------------

enum status chunks_open(struct chunks *c, const struct files *files, uint32_t chunk_bytes,
                        uint32_t depth, bool pauses, struct err *err) {
    *c = (struct chunks){
        .files = files, .chunk_bytes = chunk_bytes, .depth = depth, .pauses = pauses
    };
    // A chunk is cut only while none of its priority or above is to be sent again. So of each
    // priority and those below it there are at most `depth` chunks more than of those below it.
    c->n_chunks = READ_PRIORITIES * depth;
    c->chunk = calloc(c->n_chunks, sizeof *c->chunk);
    if (!c->chunk)
        return err_set(err, ERR_MEMORY, "no memory for %u chunks", c->n_chunks);
    for (uint32_t i = c->n_chunks; i-- > 0;) {
        c->chunk[i].next = c->free;
        c->free = &c->chunk[i];
    }
    return OK;
}

void chunks_close(struct chunks *c) {
    assert(c->n_out == 0);
    free(c->chunk);
    *c = (struct chunks){ 0 };
}

static void check_queue(const struct request_queue *q) {
    const struct request *before = NULL;
    for (const struct request *request = q->first; request; request = request->next) {
        assert(request->prev == before);
        before = request;
    }
    assert(q->last == before);
}

void chunks_check(const struct chunks *c) {
    for (uint32_t priority = 0; priority < READ_PRIORITIES; priority++) {
        check_queue(&c->waiting[priority]);
        for (const struct request *q = c->waiting[priority].first; q; q = q->next) {
            assert((uint32_t)q->priority == priority && q->status == OK && has_uncut(q));
            assert(q->state == REQUEST_ACTIVE || q->state == REQUEST_QUEUED);
            assert(q->state == REQUEST_ACTIVE || (q->chunks_out == 0 && q->next_byte == 0));
        }
    }
    check_queue(&c->ended);
    for (const struct request *q = c->ended.first; q; q = q->next) {
        assert(q->state == REQUEST_ENDED && q->chunks_out == 0 && !has_uncut(q));
        assert((q->status == ERR_IO) == (q->failed_errno != 0));
    }
    uint32_t n_free = 0, n_again = 0, n_used = 0;
    uint64_t bytes_out = 0;
    for (const struct chunk *chunk = c->free; chunk; chunk = chunk->next, n_free++)
        assert(!chunk->request);
    for (const struct chunk *chunk = c->again; chunk; chunk = chunk->next, n_again++) {
        assert(chunk->request && chunk->request->status == OK && chunk->have < chunk->need);
        bytes_out -= chunk->bytes - chunk->have;
    }
    for (uint32_t i = 0; i < c->n_chunks; i++) {
        const struct chunk *chunk = &c->chunk[i];
        if (!chunk->request)
            continue;
        n_used++;
        bytes_out += chunk->bytes - chunk->have;
        assert(chunk->request->state == REQUEST_ACTIVE && chunk->request->chunks_out > 0);
        assert(chunk->have % c->files->file[chunk->file].align_bytes == 0);
        assert(chunk->need <= chunk->bytes && chunk->bytes <= c->chunk_bytes);
    }
    assert(n_free + n_used == c->n_chunks);
    assert(n_again + c->n_out == n_used && c->n_out <= c->depth);
    assert(bytes_out == c->bytes_out);
}
