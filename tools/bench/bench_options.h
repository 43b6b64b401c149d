/* tools/bench/bench_options.h - the rows of the table of options that only measurements take: the end
 * of what options_row walks over, and what contradicts itself among them. */
#ifndef SLUICE_TOOLS_BENCH_BENCH_OPTIONS_H
#define SLUICE_TOOLS_BENCH_BENCH_OPTIONS_H

#include "tools/options.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Row i of them, or NULL after the last. */
const struct option_row *bench_options_row(size_t i);

/* For options_check: OK for every command that is no measurement. */
enum status bench_options_check(const struct options *o, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
