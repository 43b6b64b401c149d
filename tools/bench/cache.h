/* tools/bench/cache.h - `sluice bench cache`: how many experts each cache policy would have read.
 *
 *     made_routing.c   traces that are made
 *     cache_trace.c    a trace, made or recorded: its demands and its statistics
 *     cache_report.c   the table, JSON, the page
 *     cache.c          the command */
#ifndef SLUICE_TOOLS_BENCH_CACHE_H
#define SLUICE_TOOLS_BENCH_CACHE_H

#include "cache/replay.h"
#include "io/status.h"
#include "tools/bench/bench.h"
#include "tools/bench/made_routing.h"
#include "tools/options.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct command bench_cache;

#define BENCH_SIZES 6
extern const double bench_sizes[BENCH_SIZES]; /* shares of the experts that there is room for */

struct bench_trace {
    char name[256];
    uint32_t n_layers, n_experts, n_chosen; /* of a layer; the draft block is a layer */
    uint64_t expert_bytes;
    uint64_t n_steps, n_rows, n_accesses;
    struct replay_trace demands;
    /* Statistics, of layers that route by score. */
    double overlap;   /* of what a token uses: also used by the token before it in its sequence */
    double top_tenth; /* share of the choices that fall on a layer's commonest tenth */
    double lru_15, lru_34,
        lru_token; /* LRU's hits at 15 and 34 %, and just below a token's experts */
    /* Results: hits are accesses less misses. */
    uint32_t n_slots[BENCH_SIZES];
    struct replay_result results[REPLAY_CONTENDERS][BENCH_SIZES];
};

/* --- traces ----------------------------------------------------------------------------------- */

/* All of these leave a trace that bench_trace_close takes, whatever they return. */
enum status bench_trace_made(struct bench_trace *t, enum made_model model, enum made_load load,
                             struct err *err);
/* A recorded one. *is_cut: it ends inside a step, as a run that was killed leaves it; what is whole
 * counts. Errors as routing_reader_open and routing_reader_next. */
enum status bench_trace_recorded(struct bench_trace *t, const char *path, bool *is_cut,
                                 struct err *err);
void bench_trace_close(struct bench_trace *t);

/* Put it to every contender at every size. CANCELLED, ERR_MEMORY. */
enum status bench_trace_replay(struct bench_trace *t, bool (*cancelled)(void *context),
                               struct err *err);

/* Misses as a multiple of Belady's. */
double bench_of_belady(const struct bench_trace *t, int contender, int size);
/* Bytes read for each row. */
double bench_bytes_a_row(const struct bench_trace *t, int contender, int size);

/* --- reporting -------------------------------------------------------------------------------- */

void bench_cache_text(const struct bench_trace *t, FILE *out);
/* False: it cannot be written as JSON (a path that is not UTF-8). */
bool bench_cache_json(const struct bench_trace *traces, uint32_t n, FILE *out);
void bench_cache_html(const struct bench_trace *traces, uint32_t n, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
