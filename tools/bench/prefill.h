/* tools/bench/prefill.h - `sluice bench prefill`: prompts of several lengths, each in one step.
 *
 *     prefill.c          the command
 *     prefill_report.c   what is told
 *
 * A pass takes in a fresh prompt of n rows by one step, the last row's logits included; before and
 * after it the disk's rate is measured, and their mean is the pass's. What is told of it:
 *
 *   ideal      bytes of the experts that its rows chose, each once, outward rounding included, less
 *              those that were in memory when it began; dense weights that are streamed are left out,
 *              here and of what was read
 *   disk       how long the disk alone takes for the ideal bytes, and for streamed dense weights
 *   arithmetic the time in which the control thread did not wait
 *   binds      the longer of the two: where it goes over from the disk to arithmetic is the crossover
 *   bound      the pass over an ideal disk (ideal_disk.h) */
#ifndef SLUICE_TOOLS_BENCH_PREFILL_H
#define SLUICE_TOOLS_BENCH_PREFILL_H

#include "tools/bench/bench.h"
#include "tools/bench/meter.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct command bench_prefill;

#define PREFILL_PASSES_MAX 64

struct prefill_pass {
    uint32_t n_rows;
    struct meter_window window;
    struct ideal_time bound;
    double rate;               /* of the disk, bytes a second */
    uint64_t n_chosen, n_held; /* experts that its rows chose; of them in memory at the beginning */
    uint64_t n_again;          /* reads of an expert that had been read in this pass already */
    uint64_t chosen_bytes, ideal_bytes; /* of all that were chosen; less those that were there */
};

struct prefill_result {
    const struct sluice_fit *fit;
    const struct config *config;
    uint64_t expert_bytes;
    const char *model, *engine; /* its directory; reader_describe */
    struct prefill_pass passes[PREFILL_PASSES_MAX];
    uint32_t n_passes;
    bool rate_given, interrupted;
    uint64_t n_lost; /* events of the recording */
};

/* Seconds: of a pass. */
double prefill_disk_s(const struct prefill_pass *p);
double prefill_arithmetic_s(const struct prefill_pass *p);

/* Where arithmetic begins to bind, in rows: between two passes by their distance, in logarithms.
 *   CROSSOVER_FOUND   *rows
 *   CROSSOVER_BELOW   arithmetic binds already in the shortest; CROSSOVER_ABOVE: not even in the longest */
enum crossover { CROSSOVER_FOUND, CROSSOVER_BELOW, CROSSOVER_ABOVE };
enum crossover prefill_crossover(const struct prefill_pass *passes, uint32_t n, double *rows);

/* "32,64": ascending. ERR_USAGE: a list that is none. */
enum status prefill_rows(const char *text, uint32_t rows[PREFILL_PASSES_MAX], uint32_t *n,
                         struct err *err);

void prefill_text(const struct prefill_result *r, FILE *out);
enum status prefill_json(const struct prefill_result *r, FILE *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
