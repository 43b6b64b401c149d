/* tools/bench/meter.h - an engine that is measured, and the disk beside it: what `bench decode` and
 * `bench prefill` have in common.
 *
 *     meter_open
 *       meter_rate                     a look at the disk alone, between steps
 *       meter_begin … meter_end        a window of the engine's work
 *       meter_rate
 *     meter_close
 *
 * Looks and windows alternate, so that what moves the disk's rate moves both. */
#ifndef SLUICE_TOOLS_BENCH_METER_H
#define SLUICE_TOOLS_BENCH_METER_H

#include "tools/bench/ideal_disk.h"
#include "tools/bench/plain_reads.h"
#include "tools/bench/recording.h"
#include "tools/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

struct meter {
    struct options settings; /* as the engine was opened */
    struct engine engine;
    struct recording *recording;
    struct plain_reads *plain;
    struct account_report before; /* of the window under way */
    uint64_t begin_ns;
};

/* How the engine is to be: the rest is as the command line says. */
struct meter_options {
    uint32_t n_sequences, n_narrow_steps; /* as sluice_options has them */
    uint32_t ctx, chunk;                  /* chunk 0: the engine's own */
    bool with_tokenizer;
};

/* Errors as engine_open and plain_reads_open. Close after any result; zero it first. */
enum status meter_open(struct meter *m, const struct options *o, const struct meter_options *how,
                       struct err *err);
void meter_close(struct meter *m);

/* Bytes a second: --disk-rate, or a look, when what the engine reads has come. CANCELLED, errors as plain_reads_look. */
enum status meter_rate(struct meter *m, double *rate, struct err *err);

/* What happened in a window. */
struct meter_window {
    struct recording_figures figures;
    struct ideal_run story; /* freed with ideal_run_free */
    uint64_t demanded, hits;
    uint64_t bytes, dense_bytes; /* read from disk, and of them dense weights */
    uint64_t kernel_bytes;       /* by /proc/self/io: of the whole process */
};

void meter_begin(struct meter *m);
enum status meter_end(struct meter *m, struct meter_window *out, struct err *err);

/* For step_run and schedule_feed: was Ctrl-C pressed? Keeps the recording from overflowing; context is
 * the meter. meter_idle_cancelled forgets what it takes: between windows. */
bool meter_cancelled(void *context);
bool meter_idle_cancelled(void *context);

/* Token ids, a different list for each sequence; the first is the model's bos, if it has one. */
void meter_prompt(const struct meter *m, uint32_t sequence, int32_t *tokens, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
