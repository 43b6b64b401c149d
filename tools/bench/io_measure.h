/* tools/bench/io_measure.h - one measurement: how fast one file is read in one way.
 *
 * Three shapes. RANDOM and SEQUENTIAL drive the disk itself (io/disk.h), so many blocks at the
 * device, as any benchmark of drives does. EXPERT goes through the reader as the engine does: pieces
 * of 35.1 MB (an expert of Pro) at any byte, cut into chunks, several of them queued ahead.
 *
 * What counts is between the end of the first reads and the end of the last one within the time:
 * filling the queue and draining it do not. Bytes are those that were wanted; rounding to blocks is
 * the price of reading them. */
#ifndef SLUICE_TOOLS_BENCH_IO_MEASURE_H
#define SLUICE_TOOLS_BENCH_IO_MEASURE_H

#include "io/clock.h"
#include "io/disk.h"
#include "io/status.h"
#include "tools/latency.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Pro's, three matrices of 3072 x 7168: a code of 4 bits each, a scale of 8 bits for 32. */
#define EXPERT_BYTES  35094528u
#define EXPERTS_AHEAD 8 /* 281 MB: more than is ever at the device, so that it never waits */

enum read_shape { SHAPE_RANDOM, SHAPE_SEQUENTIAL, SHAPE_EXPERT };
const char *read_shape_name(enum read_shape shape);

struct read_setup {
    enum read_shape shape;
    uint32_t block_bytes; /* of one read; EXPERT: a chunk's */
    uint32_t depth;       /* reads at the device */
    uint32_t ahead;       /* EXPERT: how many are queued; 1 is one that is waited for */
    bool buffered;        /* through the page cache, emptied of the file first */
    bool plain_memory;    /* not registered with the ring */
};

/* "random 1 MiB x 32", "…, buffered", "…, plain memory". */
void read_setup_text(const struct read_setup *setup, char *text, size_t bytes);

struct read_target {
    const char *path; /* to open */
    const char *name; /* for people; NULL: path */
    uint64_t bytes;   /* at least EXPERT_BYTES and a block */
    bool forbid_uring;
    unsigned char *memory; /* READER_ALIGN aligned */
    uint64_t memory_bytes; /* measure_memory_bytes of the largest setup */
    /* Tests: a disk of their own, opened anew for each measurement and closed after it, and its
     * clock. NULL: the real ones. */
    enum status (*open_disk)(void *context, struct disk **out, uint32_t depth, struct err *err);
    void *context;
    const struct clock *clock;
};

/* The rate of each of `n` equal spans of the measured time. */
struct rate_series {
    double span_s;
    double *rates; /* [room] the caller's */
    uint32_t n, room;
    void (*on_span)(void *context, uint32_t i); /* rates[i] is there; NULL */
    void *context;
};

struct read_result {
    struct read_setup setup;
    double seconds, rate; /* bytes a second */
    uint64_t bytes, n_reads;
    bool registered;  /* memory, as it came out: a small RLIMIT_MEMLOCK forbids it */
    double cpu_s;     /* of this process, of one core, meanwhile */
    double machine_s; /* of all that ran on this machine meanwhile, interrupts included */
    double p50_ns, p90_ns, p99_ns, p999_ns, most_ns; /* from submission to result */
};

/* How long, and who may end it early. */
struct measure_options {
    double seconds;
    bool (*cancelled)(void *context); /* asked often; NULL: nobody */
    void *context;
    struct rate_series *series;                      /* NULL: none */
    void (*progress)(void *context, uint64_t bytes); /* in this measurement; NULL */
};

uint64_t measure_memory_bytes(const struct read_setup *setup);

/* Does a file of that size suffice? A measurement wants two places to read from. */
bool measure_fits(const struct read_setup *setup, uint64_t file_bytes);

/* CANCELLED: *out is what was measured until then (rate 0 if nothing). ERR_IO, ERR_TRUNCATED: err
 * names the file and the place; ERR_SYSTEM, ERR_MEMORY, ERR_USAGE as reader_open. */
enum status measure(struct read_result *out, const struct read_target *target,
                    const struct read_setup *setup, const struct measure_options *options,
                    struct err *err);

#ifdef __cplusplus
}
#endif
#endif
