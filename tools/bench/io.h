/* tools/bench/io.h - `sluice bench io`: what is measured of drives, and what was found.
 *
 *     io_target.c                       a PATH: which file, and where it lies
 *     io_measure.c                      one measurement
 *     io_plan.c                         which ones, in what order; the chunk and depth that a drive wants
 *     io_together.c                     several drives at once
 *     io_findings.c                     what slows a drive, where it can be told
 *     io_meaning.c                      tokens a second, seconds for a sweep
 *     io_text.c, io_json.c, io_html.c   the report
 *     io.c                              the command
 *
 * All that a report needs is in struct bench_io; whatever was not measured (Ctrl-C, no time, not
 * asked for) has a rate of 0. */
#ifndef SLUICE_TOOLS_BENCH_IO_H
#define SLUICE_TOOLS_BENCH_IO_H

#include "io/pinned.h"
#include "io/status.h"
#include "tools/bench/bench.h"
#include "tools/bench/io_measure.h"
#include "tools/bench/io_target.h"
#include "tools/options.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct command bench_io;

#define BENCH_POINTS_MAX     256
#define BENCH_CANDIDATES_MAX 32
#define BENCH_FINALISTS_MAX  4
#define BENCH_ROUNDS         5
#define BENCH_FINDINGS_MAX   16
#define BENCH_SPANS_MAX      600 /* of a sustained run: a plot has no more columns */

/* A way to read experts, and how fast it was: once, and where it came into the last choice the
 * median of that many turns more. */
struct bench_candidate {
    uint32_t chunk_bytes, depth;
    double rate;
    double turns[BENCH_ROUNDS];
    uint32_t n_turns;
};

struct bench_sustained {
    double span_s;
    double rates[BENCH_SPANS_MAX];
    double celsius[BENCH_SPANS_MAX]; /* 0: not told */
    uint32_t n;
};

struct bench_drive {
    struct bench_target target;
    bool buffered; /* O_DIRECT is not to be had there: all is read through the page cache */
    /* The grid: RANDOM and SEQUENTIAL. */
    struct read_result points[BENCH_POINTS_MAX];
    uint32_t n_points, n_skipped; /* skipped: there was no time */
    /* Experts. */
    struct bench_candidate candidates[BENCH_CANDIDATES_MAX];
    uint32_t n_candidates;
    uint32_t chunk_bytes, depth;     /* chosen; 0: not yet */
    double tuned_rate, default_rate; /* medians of the turns: chosen, and the engine's default */
    struct read_result expert;       /* as chosen: the rate that all conclusions are drawn from */
    struct read_result alone;        /* an expert that is waited for, with nothing else queued */
    struct read_result buffered_expert, plain_expert;
    /* Together with the other drives, or for long. */
    struct read_result together;
    struct bench_sustained sustained;
    double celsius_before, celsius_after; /* 0: not told */
    char findings[BENCH_FINDINGS_MAX][320];
    uint32_t n_findings;
};

struct bench_io {
    struct bench_drive *drives;
    uint32_t n_drives;
    bool single;      /* one measurement of each, as the command line says, and no more */
    bool interrupted; /* Ctrl-C: not all was measured */
    double took_s;
    bool forbid_uring;
    const char *engine; /* "io_uring", "pread" */
};

/* --- measuring -------------------------------------------------------------------------------- */

struct bench_run {
    double seconds; /* about how long, for one drive */
    bool forbid_uring;
    bool full; /* the grid also buffered, and with memory that is not registered */
    uint32_t default_chunk_bytes, default_depth; /* the engine's */
    bool (*cancelled)(void *context);
    /* What is being measured now, and how many bytes of it were read; NULL: nobody wants to know. */
    void (*progress)(void *context, const char *what, uint64_t bytes);
    void *context;
    unsigned char *memory;
    uint64_t memory_bytes;
    struct read_target base; /* tests: open_disk, context and clock of every measurement */
};

/* The room that any measurement of a plan takes. */
uint64_t bench_memory_bytes(void);

/* All that is measured of one drive alone; the most telling first. CANCELLED leaves in *d what was
 * measured. Errors as measure. */
enum status bench_plan(struct bench_drive *d, const struct bench_run *run, struct err *err);

/* Only the part that finds chunk and depth: what `run --remeasure` does. */
enum status bench_tune(struct bench_drive *d, const struct bench_run *run, struct err *err);

/* The best of the candidates that have had turns: the engine's default unless another is more than
 * 2 % faster; then of those within 1 % of the fastest the one with the fewest bytes at the device,
 * since a demand waits for what is there. Index, or UINT32_MAX if there is none. */
uint32_t bench_choose(const struct bench_candidate *candidates, uint32_t n,
                      uint32_t default_chunk_bytes, uint32_t default_depth);

/* Read experts from all drives at once, each as it was measured best; `memory` is n_drives times
 * bench_memory_bytes. With `spans` the rates over time are kept. */
enum status bench_together(struct bench_io *b, const struct bench_run *run, double seconds,
                           bool spans, struct err *err);

/* One measurement of each drive, all at once. */
enum status bench_single(struct bench_io *b, const struct bench_run *run,
                         const struct read_setup *setup, struct err *err);

/* The rate that conclusions are drawn from: of one drive, or of all together. 0: none. */
double bench_rate(const struct bench_io *b);

/* --- the grid, for reports -------------------------------------------------------------------- */

/* One of its tables: a shape, and how it was read. */
struct bench_table {
    enum read_shape shape;
    bool buffered, plain_memory;
};
#define BENCH_TABLES 8

/* All of them; those as the engine reads first. */
void bench_tables(const struct bench_drive *d, struct bench_table tables[BENCH_TABLES]);
/* "random", "sequential, buffered, plain memory". */
void bench_table_text(const struct bench_drive *d, const struct bench_table *table, char *text,
                      size_t bytes);

bool bench_is_in(const struct read_result *r, const struct bench_table *table);

/* How many depths it has: below 3, single points that no table or plot is made of. */
uint32_t bench_table_depths(const struct bench_drive *d, const struct bench_table *table);

/* --- reporting -------------------------------------------------------------------------------- */

struct bench_words {
    char text[64];
};

/* "512 KiB", "2 MiB". */
struct bench_words bench_block_words(uint64_t bytes);

/* Fill in the findings: sentences, the weightiest first. */
void bench_findings(struct bench_io *b, uint32_t drive);

void bench_text(const struct bench_io *b, FILE *out);
/* False: it cannot be written as JSON (a path that is not UTF-8). */
bool bench_json(const struct bench_io *b, FILE *out);
void bench_html(const struct bench_io *b, FILE *out);

/* First and last tenth of a sustained run, bytes a second; false: too short to tell. */
bool bench_sustained_ends(const struct bench_sustained *s, double *first, double *last);

#ifdef __cplusplus
}
#endif
#endif
