/* io/disk.h - a disk as a backend: chunks go out, results come back.
 *
 * A disk knows nothing of requests, priorities or retries: that is the reader's. It takes up to
 * `depth` chunks at a time and returns each exactly once, in any order, with what the device said.
 *
 *   disk_uring_open    io_uring: registered files and buffers; the one that is meant to be used
 *   disk_pread_open    a pool of pread threads, where io_uring is forbidden
 *   disk_null_open     every chunk is done at once: what is left is everybody else's time
 *   disk_model_open    bandwidth, latency and depth by formula, on a virtual clock or in real time
 *   disk_faulty_open   wraps another disk and injects faults
 *
 * Threads: files and memory are added by the thread that opened the disk, before the first submit.
 * disk_submit and disk_reap belong to one thread: the reader's own or, where the disk is
 * `synchronous` (null and modelled disks: no real time passes in them), the control thread.
 * disk_wake may be called by any.
 *
 * Ownership: whoever opens a disk closes it, when no chunk is out. Descriptors and memory stay the
 * caller's and must outlive the disk. A disk serves one reader. */
#ifndef SLUICE_IO_DISK_H
#define SLUICE_IO_DISK_H

#include "io/clock.h"
#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DISK_DEPTH_MAX 1024 /* chunks out at a time; a ring of that size is well within limits */

/* One read: `bytes` from `offset` of a file to `dst`. */
struct disk_chunk {
    uint32_t file; /* in the order of disk_add_file */
    uint32_t bytes;
    uint64_t offset;
    unsigned char *dst;
    void *tag; /* comes back with the result */
};

/* Bytes read (fewer than asked: a short read; 0: nothing is there, the file ends), or -errno. */
struct disk_result {
    void *tag;
    int32_t result;
};

struct disk;

struct disk_ops {
    const char *name; /* "io_uring" */
    /* OK or, with err, why this disk cannot serve the file. */
    enum status (*add_file)(struct disk *d, int fd, const char *path, struct err *err);
    /* 0 or an errno; what was registered before a refusal stays so. NULL: makes no difference. */
    int (*add_memory)(struct disk *d, unsigned char *base, uint64_t bytes);
    void (*submit)(struct disk *d, const struct disk_chunk *chunks, uint32_t n);
    uint32_t (*reap)(struct disk *d, struct disk_result *results, uint32_t max,
                     uint64_t timeout_ns);
    void (*wake)(struct disk *d);                /* NULL in a disk that is synchronous */
    uint64_t (*now_ns)(const struct disk *disk); /* NULL: the reader's clock is right */
    void (*close)(struct disk *d);
};

/* The head of every disk; the rest is its source file's. */
struct disk {
    const struct disk_ops *ops;
    uint32_t depth;            /* the most chunks that may be out */
    bool synchronous;          /* driven by the control thread itself, no thread of its own */
    bool wants_fd;             /* reads real files: disk_add_file needs a descriptor, else -1 */
    uint64_t registered_bytes; /* of the memory added: reads into it pin no pages */
};

static inline enum status disk_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    return d->ops->add_file(d, fd, path, err);
}

static inline int disk_add_memory(struct disk *d, unsigned char *base, uint64_t bytes) {
    return d->ops->add_memory ? d->ops->add_memory(d, base, bytes) : 0;
}

/* Hand chunks to the device; at most depth minus those that are out. Does not wait for the data. */
static inline void disk_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    d->ops->submit(d, chunks, n);
}

/* Up to `max` results. Where there is none yet, wait for one for timeout_ns (UINT64_MAX: without
 * limit), less if disk_wake is called. A synchronous disk returns at once and, on a virtual clock,
 * advances it instead of waiting: to the next result, at most by timeout_ns. */
static inline uint32_t disk_reap(struct disk *d, struct disk_result *results, uint32_t max,
                                 uint64_t timeout_ns) {
    return d->ops->reap(d, results, max, timeout_ns);
}

/* Make a disk_reap under way, or else the next one, return early. */
static inline void disk_wake(struct disk *d) {
    if (d->ops->wake)
        d->ops->wake(d);
}

/* Time as the disk sees it. A modelled disk that catches up with its clock hands out results one
 * moment after another; this is the moment of the last ones. */
static inline uint64_t disk_now_ns(const struct disk *d, const struct clock *clock) {
    return d->ops->now_ns ? d->ops->now_ns(d) : clock_now_ns(clock);
}

/* NULL is fine. */
static inline void disk_close(struct disk *d) {
    if (d)
        d->ops->close(d);
}

/* --- real disks ------------------------------------------------------------------------------- */

/* ERR_SYSTEM, with the reason (see device_limits), where io_uring is not to be had. */
enum status disk_uring_open(struct disk **out, uint32_t depth, struct err *err);

/* `depth` threads, each in one pread. ERR_SYSTEM where they are not to be had. */
enum status disk_pread_open(struct disk **out, uint32_t depth, struct err *err);

/* --- disks without a device ------------------------------------------------------------------- */

/* The bytes that null and modelled disks serve where nobody says otherwise: a function of file
 * and offset alone, so that a test can tell what has to arrive. */
void disk_pattern(uint32_t file, uint64_t offset, unsigned char *dst, size_t bytes);

/* Serves files without end. With `pattern`, memory is filled by disk_pattern; without, it is left
 * as it was (to measure what costs time besides the disk). Synchronous. */
enum status disk_null_open(struct disk **out, uint32_t depth, bool pattern, struct err *err);

struct disk_model_options {
    /* Time that passes in disk_reap, for a disk that is synchronous; NULL: in real time, the disk
     * sleeps (a slow disk for tests of the whole program). Not owned. */
    struct clock_virtual *clock;
    uint64_t bytes_per_s; /* of the link, which chunks cross one after the other; 0: no limit */
    uint64_t latency_ns;  /* from submission to the first byte; overlaps between chunks */
    uint32_t depth;
    /* What a chunk contains: bytes stored in dst, or -errno, as disk_result has it; NULL: files
     * without end of disk_pattern. Called in disk_reap when the chunk is done. */
    int32_t (*content)(void *context, const struct disk_chunk *chunk);
    void *context;
};

/* A chunk submitted at t is done at max(t + latency, end of the one before) + bytes / bandwidth. A
 * chunk that is submitted right after a result was reaped starts at the moment of that result, even
 * where the virtual clock has moved on in between: the control thread computed meanwhile, and the
 * disk of a real machine would not have waited for it. */
enum status disk_model_open(struct disk **out, const struct disk_model_options *options,
                            struct err *err);

/* --- faults ----------------------------------------------------------------------------------- */

enum fault {
    FAULT_EIO,   /* -EIO */
    FAULT_EINTR, /* -EINTR */
    FAULT_EAGAIN,
    FAULT_SHORT, /* `bytes` of it arrive, what follows in memory is overwritten */
    FAULT_ZERO,  /* 0 bytes: as if the file had been truncated */
    FAULT_STALL, /* out for ever: until disk_faulty_release */
    FAULTS
};

/* The n-th chunk submitted (from 1) fails `times` times: counted over what is submitted again for
 * the same place; UINT32_MAX: always. */
struct fault_rule {
    enum fault fault;
    uint64_t nth;
    uint32_t times;
    uint32_t bytes; /* FAULT_SHORT */
};

#define DISK_FAULTY_RULES 8

struct disk_faulty_options {
    struct fault_rule rules[DISK_FAULTY_RULES]; /* of those that match, the first decides */
    uint32_t n_rules;
    /* Faults by chance for what no rule matches: in so many of 1000 chunks; a short read then ends
     * anywhere. Not STALL. The same seed and the same chunks give the same faults. */
    uint32_t per_1000[FAULTS];
    uint64_t seed;
};

/* Synchronous if `inner` is. Closing it leaves `inner` open, which stays the caller's. */
enum status disk_faulty_open(struct disk **out, struct disk *inner,
                             const struct disk_faulty_options *options, struct err *err);
uint64_t disk_faulty_submitted(const struct disk *d); /* chunks so far; any thread */
void disk_faulty_release(struct disk *d);             /* stalled chunks go on; any thread */

#ifdef __cplusplus
}
#endif
#endif
