/* tools/progress.h - one line that says how far a long piece of work has come.
 *
 *   prefill  1,024 of 8,192 tokens  12 %  84.2 tokens/s  1:25 left
 *
 * Drawn on a terminal only, over itself, at most ten times a second, and not before half a second
 * has passed: what is quick needs no progress. Whoever prints to the same terminal calls
 * progress_clear first. One thread. All time comes from the clock. */
#ifndef SLUICE_TOOLS_PROGRESS_H
#define SLUICE_TOOLS_PROGRESS_H

#include "io/clock.h"
#include "tools/terminal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum progress_unit {
    PROGRESS_BYTES, /* "3.20 of 28.70 GB", rates in decimal units */
    PROGRESS_TOKENS,
    PROGRESS_FILES
};

struct progress {
    const struct terminal *terminal;
    const struct clock *clock;
    FILE *out;
    const char *label; /* the caller's; lives as long as the progress */
    enum progress_unit unit;
    uint64_t total; /* 0: not known, then there is no percentage and no time left */
    uint64_t start_ns, drawn_ns;
    uint64_t rate_ns, rate_done; /* the moment, and the amount, that the rate was last taken at */
    double rate;                 /* units per second, smoothed; 0: not known yet */
    bool drawn;                  /* a line is on the terminal now */
};

/* Begin. Draws nothing. */
void progress_start(struct progress *p, const char *label, enum progress_unit unit, uint64_t total,
                    const struct terminal *terminal, const struct clock *clock, FILE *out);

/* `done` of `total` so far; call as often as you like. */
void progress_update(struct progress *p, uint64_t done);

/* Take the line off the terminal; the next update draws it again. */
void progress_clear(struct progress *p);

/* The line as it would be drawn now, no longer than `columns` - 1 characters: what does not fit
 * is left out from the right, whole items only. */
void progress_line(const struct progress *p, uint64_t done, uint32_t columns, char *out,
                   size_t out_bytes);

#ifdef __cplusplus
}
#endif
#endif
