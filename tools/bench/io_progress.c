#include "tools/bench/io_progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void bench_progress_open(struct bench_progress *p, const struct environment *environment) {
    *p = (struct bench_progress){ .what = "" };
    terminal_open(&p->terminal, STDERR_FILENO, environment);
}

void bench_progress_show(void *context, const char *what, uint64_t bytes) {
    struct bench_progress *p = context;
    if (strcmp(p->what, what) != 0) {
        // The line stays, so that many short measurements do not make it flicker.
        uint64_t drawn_ns = p->progress.drawn_ns, start_ns = p->progress.start_ns;
        bool first = p->what[0] == '\0', drawn = p->progress.drawn;
        snprintf(p->what, sizeof p->what, "%s", what);
        progress_start(&p->progress, p->what, PROGRESS_BYTES, 0, &p->terminal, clock_system(),
                       stderr);
        if (!first) {
            p->progress.start_ns = start_ns;
            p->progress.drawn_ns = drawn_ns;
            p->progress.drawn = drawn;
        }
    }
    progress_update(&p->progress, bytes);
}

void bench_progress_clear(struct bench_progress *p) {
    if (p->what[0])
        progress_clear(&p->progress);
}
