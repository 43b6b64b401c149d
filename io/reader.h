/* io/reader.h - bytes from disk: requests with priorities, each of which ends exactly once.
 *
 * A request is a list of extents (file, offset, length -> address). The reader owns the disk
 * thread, which splits requests into chunks, keeps the device's queue full, resumes short reads,
 * retries what is worth retrying, and hands ended requests back.
 *
 *   IDLE --reader_submit--> QUEUED --first chunk at the device--> ACTIVE --last chunk back--> ENDED
 *                           QUEUED --reader_cancel--> ENDED (CANCELLED)
 *              ACTIVE --reader_cancel while some of it was not sent, none is out--> ENDED (CANCELLED)
 *                                                   ACTIVE --a chunk failed, none is out--> ENDED
 *   ENDED: status is OK, CANCELLED, ERR_IO (EIO, after one retry) or ERR_TRUNCATED (end of file)
 *
 * Of a request that failed or was cancelled no further chunk is sent, and it ends when those at the
 * device are back: once it is returned nobody writes into its memory. EINTR is retried at once,
 * EAGAIN after a growing pause; either a hundred times in a row is an error.
 *
 * Priorities are strict: a chunk of a lower one goes to the device only while no higher one has a
 * chunk waiting; within one, first come first served. A demand so waits for at most the chunks
 * already at the device; and what nobody waits for, a prefetch or below, is kept to few of them: it
 * goes there only while all that is there is an eighth of what there may be (or nothing).
 *
 * O_DIRECT wants block-aligned offsets, lengths and addresses, safetensors align nothing: extents
 * are rounded outwards to READER_ALIGN by extents_layout below, which also says where each
 * tensor's first byte ends up. What lies in the margins is other tensors' bytes and is ignored; a
 * margin may reach past the end of the file, and only the bytes that were asked for must exist.
 *
 * Threads: one control thread calls everything here; the disk thread is the reader's own. Over a
 * disk that is `synchronous` (io/disk.h) there is none: submit, next and the events drive it
 * inline, so that a reader on a virtual clock does the same thing every time. */
#ifndef SLUICE_IO_READER_H
#define SLUICE_IO_READER_H

#include "io/clock.h"
#include "io/event.h"
#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Outward rounding: the largest alignment that O_DIRECT asks for in practice. */
#define READER_ALIGN 4096
/* An expert's six tensors, if nothing lies next to anything. */
#define REQUEST_MAX_READS 6

enum read_priority {
    READ_DEMAND,     /* somebody waits for it */
    READ_GATHER,     /* KV entries of a query under way */
    READ_AHEAD,      /* wanted for sure, and soon: dense weights in the order of their use */
    READ_PREFETCH,   /* probably wanted soon */
    READ_BACKGROUND, /* anything else */
    READ_PRIORITIES
};

enum request_state { REQUEST_IDLE, REQUEST_QUEUED, REQUEST_ACTIVE, REQUEST_ENDED };

/* One contiguous read: `offset`, `bytes` and `dst` are READER_ALIGN aligned (extents_layout makes
 * them so); of the bytes, the last `slack` need not exist in the file (outward rounding), and may
 * or may not be read where they do. */
struct read {
    uint32_t file; /* from reader_add_file */
    uint32_t slack;
    uint64_t offset;
    uint64_t bytes;
    unsigned char *dst;
};

/* Owned by the caller, who must not move, reuse or look into it between submit and the reader_next
 * that returns it. Zeroed at first; it may be submitted again once it has been returned. */
struct request {
    struct read reads[REQUEST_MAX_READS];
    uint32_t n_reads;
    enum read_priority priority;
    void *owner;    /* the caller's, untouched */
    uint64_t label; /* likewise: what a trace calls it; see io/trace.h */
    /* set by the reader */
    enum request_state state;
    enum status status;
    uint64_t bytes_read;  /* from the device, retries and margins included */
    uint64_t active_ns;   /* when its first chunk went to the device; UINT64_MAX: none did */
    uint32_t failed_file; /* of a failure: where */
    uint64_t failed_offset;
    int failed_errno; /* 0: the file ended there */
    /* the reader's own */
    struct request *next, *prev;
    uint32_t chunks_out, next_read;
    uint64_t next_byte, bytes_out;
    uint64_t submitted_ns, raised_ns; /* only where it is traced */
};

/* --- layout ----------------------------------------------------------------------------------- */

/* A piece of a file that somebody wants in memory. */
struct extent {
    uint32_t file;
    uint64_t offset;
    uint64_t bytes;
};

/* Where n extents go in one block-aligned buffer: `reads` (addresses relative to the buffer, in
 * `dst` as an offset from NULL until request_bind) and `at[i]`, the buffer offset of extent i's
 * first byte. Extents that touch, or share a block or neighbouring blocks, become one read. `bytes`
 * is what the buffer needs, a multiple of READER_ALIGN; reads lie in it by file and offset, without
 * gaps. n <= REQUEST_MAX_READS; extents in any order; an empty one takes no room (at[i] is 0). */
struct extents_layout {
    uint32_t n_reads;
    uint64_t bytes;
    struct read reads[REQUEST_MAX_READS];
    uint64_t at[REQUEST_MAX_READS];
};
void extents_layout(struct extents_layout *out, const struct extent *extents, uint32_t n);

/* Fill a request's reads from a layout, for a buffer at `base` (READER_ALIGN aligned). Its other
 * fields are left alone. */
void request_bind(struct request *request, const struct extents_layout *layout,
                  unsigned char *base);

/* --- the reader ------------------------------------------------------------------------------- */

enum io_mode {
    IO_AUTO,    /* direct, unless everything fits in the page cache or direct is not to be had */
    IO_DIRECT,  /* O_DIRECT or an error */
    IO_BUFFERED /* through the page cache */
};

struct disk;  /* io/disk.h: what carries chunks out */
struct trace; /* io/trace.h */

struct reader_options {
    const struct clock *clock; /* NULL: the system's; with a modelled disk, that disk's */
    enum io_mode mode;
    struct disk *disk;    /* NULL: io_uring, or pread threads where it is forbidden; else one of
                             the caller's (null, modelled, faulty), closed after the reader */
    uint32_t chunk_bytes; /* multiple of READER_ALIGN; 0: the default measured in reader.c */
    uint32_t depth;       /* chunks at the device; 0: the default measured in reader.c */
    bool forbid_uring;    /* tests, and --io-engine pread */
    uint64_t ram_bytes;   /* IO_AUTO: read buffered if all files together fit in here; 0: never */
    struct trace *trace;  /* record queue and requests here; NULL: nowhere. Not owned */
};

/* What 0 stands for as chunk_bytes and depth: measured in reader.c. `sluice bench io` finds out what
 * a drive would rather have. */
void reader_defaults(bool uring, uint32_t *chunk_bytes, uint32_t *depth);

struct reader;

/* ERR_USAGE for a chunk size or a depth out of bounds, ERR_MEMORY, ERR_SYSTEM where not even
 * threads are to be had. *out is NULL after a failure. */
enum status reader_open(struct reader **out, const struct reader_options *options, struct err *err);
/* Cancels what is queued, waits for what is at the device, joins the thread. Requests that have not
 * been returned are ENDED and the caller's again. NULL is fine. */
void reader_close(struct reader *r);

/* Open a file for reading and return its number (0, 1, …). Before the first submit. ERR_MISSING,
 * ERR_IO, ERR_INPUT (not a regular file or a block device). In IO_DIRECT, ERR_IO where O_DIRECT is
 * refused or goes through the page cache all the same; in IO_AUTO such a file is read buffered,
 * with a note. A disk that has no files (null, modelled) takes any path. */
enum status reader_add_file(struct reader *r, const char *path, uint32_t *file, struct err *err);

/* Tell the kernel about memory that requests will point into (registered buffers: no page
 * pinning per read). Before the first submit; it must stay until the reader is closed. A refusal
 * costs speed only and is noted. */
void reader_add_memory(struct reader *r, unsigned char *base, uint64_t bytes);

/* Queue a request. Never blocks, never fails: failures end the request. */
void reader_submit(struct reader *r, struct request *request);

/* Raise the priority of a request that has been submitted (a demand joins a prefetch): it comes
 * after those that are waiting in that priority already. Nothing happens if it has ended, or has
 * that priority or a higher one. */
void reader_promote(struct reader *r, struct request *request, enum read_priority priority);

/* Ask for a request to end early: what has not been sent of it never is, and it ends as CANCELLED,
 * at once while still QUEUED, else when what is at the device is back. Once all of it has been sent it
 * ends as it would have. Either way reader_next returns it, once. */
void reader_cancel(struct reader *r, struct request *request);

/* How much of a request that has been submitted is there, and at the device; of one that has ended
 * but was not returned yet, all that was read. */
struct request_progress {
    uint64_t bytes_read, bytes_out;
};
struct request_progress reader_progress(struct reader *r, const struct request *request);

/* The next request that has ended, or NULL. */
struct request *reader_next(struct reader *r);

/* Ready when reader_next has something to return that it has not returned yet. */
struct event reader_event(struct reader *r);

/* Why a request that ended did not end OK, in one line: path, offset, reason, what to do. Returns
 * its status. */
enum status request_error(const struct reader *r, const struct request *request, struct err *err);

/* Path of a file, as it was added. */
const char *reader_path(const struct reader *r, uint32_t file);

struct reader_stats {
    /* Of requests that reader_next has returned: what their owners count of them is the same at any
     * moment. */
    uint64_t requests[READ_PRIORITIES]; /* ended OK, by the priority they had at the end */
    uint64_t bytes[READ_PRIORITIES];    /* from the device for all that ended, margins included */
    uint64_t failed, cancelled;

    /* Of all. */
    uint64_t chunks;      /* reads sent to the device, second tries included */
    uint64_t retries;     /* of them, after EINTR, EAGAIN or EIO */
    uint64_t short_reads; /* results with fewer bytes than were wanted */
    uint64_t busy_ns;     /* with at least one chunk at the device */
};
/* Totals since open; a consistent copy. */
void reader_stats(struct reader *r, struct reader_stats *out);

/* How this reader works, for people: "io_uring, O_DIRECT, registered buffers, 32 x 512 KiB", and,
 * a line each, what was lost and how to get it back ("" if nothing). Complete once the files and
 * the memory have been added; valid until the next of them, or close. */
const char *reader_describe(const struct reader *r);
const char *reader_notes(const struct reader *r);

/* Assert every sentence above that can be seen from inside; for tests and debug builds. */
void reader_check(struct reader *r);

#ifdef __cplusplus
}
#endif
#endif
