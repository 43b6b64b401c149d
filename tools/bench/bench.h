/* tools/bench/bench.h - `sluice bench WHAT`: the measurements, each a command of its own.
 *
 * A measurement lies in tools/bench/WHAT.c, which defines its `const struct command bench_WHAT`
 * (named "bench WHAT", with a bit in enum command_bit), and is a row of the table in bench.c:
 * dispatch, `sluice bench` and the suggestions follow from it. */
#ifndef SLUICE_TOOLS_BENCH_BENCH_H
#define SLUICE_TOOLS_BENCH_BENCH_H

#include "tools/options.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The measurement of that name ("io"), or NULL. */
const struct command *bench_find(const char *what);

/* `sluice bench`: what can be measured. */
void bench_help(FILE *out);

/* One line for a name that none has. Returns ERR_USAGE. */
enum status bench_unknown(const char *what, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
