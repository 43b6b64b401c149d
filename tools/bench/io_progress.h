/* tools/bench/io_progress.h - what is being measured now, in one line on a terminal. */
#ifndef SLUICE_TOOLS_BENCH_IO_PROGRESS_H
#define SLUICE_TOOLS_BENCH_IO_PROGRESS_H

#include "tools/progress.h"
#include "tools/terminal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct bench_progress {
    struct terminal terminal;
    struct progress progress;
    char what[96];
};

void bench_progress_open(struct bench_progress *p, const struct environment *environment);
/* A callback of struct bench_run; context is the struct bench_progress. */
void bench_progress_show(void *context, const char *what, uint64_t bytes);
void bench_progress_clear(struct bench_progress *p);

#ifdef __cplusplus
}
#endif
#endif
