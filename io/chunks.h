/* io/chunks.h - requests and their chunks: what goes to the device next, and what becomes of what
 * comes back. The reader without its thread, its lock and its disk.
 *
 * A request that has been submitted is
 *   waiting   in the queue of its priority, while some of it has not been cut into chunks
 * and each of its chunks is
 *   out       at the device, from chunks_fill to chunks_done
 *   again     to be sent once more: after a short read, EINTR, EAGAIN or a first EIO
 * When neither it nor a chunk of it is any of these, it has ended: see io/reader.h for how.
 *
 * Memory: all chunks there can be are allocated at open. Nothing here locks or waits. */
#ifndef SLUICE_IO_CHUNKS_H
#define SLUICE_IO_CHUNKS_H

#include "io/disk.h"
#include "io/files.h"
#include "io/reader.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct chunk;

struct request_queue {
    struct request *first, *last;
};

struct chunks {
    const struct files *files; /* for the alignment that a short read goes on from */
    uint32_t chunk_bytes, depth;
    bool pauses; /* wait between tries after EAGAIN; not where no time passes */
    struct request_queue waiting[READ_PRIORITIES];
    struct request_queue ended; /* and not taken yet */
    uint64_t n_ended;           /* so far */
    struct chunk *chunk;        /* [n_chunks] */
    uint32_t n_chunks;
    struct chunk *free;
    struct chunk *again; /* first come first served */
    uint32_t n_out;
    uint64_t bytes_out;        /* asked for by the chunks that are out */
    struct reader_stats stats; /* all but busy_ns */
};

/* ERR_MEMORY. Closable after any result. */
enum status chunks_open(struct chunks *c, const struct files *files, uint32_t chunk_bytes,
                        uint32_t depth, bool pauses, struct err *err);
void chunks_close(struct chunks *c);

/* What reader_submit, reader_promote and reader_cancel promise. */
void chunks_submit(struct chunks *c, struct request *request);
void chunks_promote(struct chunks *c, struct request *request, enum read_priority priority);
void chunks_cancel(struct chunks *c, struct request *request);

/* Send nothing more of any request: they end when what is out has come back. */
void chunks_cancel_all(struct chunks *c);

/* Fill `batch` with what goes to the device now, up to `depth` out; returns how many. *wait_ns is
 * how long until a chunk that pauses can go, UINT64_MAX if none does. */
uint32_t chunks_fill(struct chunks *c, struct disk_chunk *batch, uint64_t now_ns,
                     uint64_t *wait_ns);

/* A chunk of chunks_fill has come back. */
void chunks_done(struct chunks *c, const struct disk_result *result, uint64_t now_ns);

/* The next request that has ended, or NULL. */
struct request *chunks_take_ended(struct chunks *c);

/* Assert every sentence above. */
void chunks_check(const struct chunks *c);

#ifdef __cplusplus
}
#endif
#endif
