#include "tools/bench/bench.h"

#include "tools/bench/cache.h"
#include "tools/bench/decode.h"
#include "tools/bench/io.h"
#include "tools/bench/kernels.h"
#include "tools/bench/prefill.h"

#include <string.h>

// Ends with NULL.
static const struct command *const measurements[] = { &bench_io,     &bench_kernels, &bench_cache,
                                                      &bench_decode, &bench_prefill, NULL };

#define NAME_OFFSET (sizeof "bench " - 1) // of WHAT in a command's name
#define NAMES_MAX   16

const struct command *bench_find(const char *what) {
    for (size_t i = 0; measurements[i]; i++)
        if (strcmp(measurements[i]->name + NAME_OFFSET, what) == 0)
            return measurements[i];
    return NULL;
}

void bench_help(FILE *out) {
    fputs("usage: sluice bench WHAT [options]\n\n", out);
    for (size_t i = 0; measurements[i]; i++)
        fprintf(out, "  %-10s %s\n", measurements[i]->name + NAME_OFFSET, measurements[i]->summary);
    fputs("\n  sluice bench WHAT --help   its options\n", out);
}

enum status bench_unknown(const char *what, struct err *err) {
    const char *names[NAMES_MAX] = { NULL };
    size_t n = 0;
    for (; measurements[n] && n < NAMES_MAX; n++)
        names[n] = measurements[n]->name + NAME_OFFSET;
    const char *nearest = nearest_word(what, names, n);
    return nearest ? err_set(err, ERR_USAGE, "unknown measurement '%s' (did you mean '%s'?)", what,
                             nearest)
                   : err_set(err, ERR_USAGE, "unknown measurement '%s' (`sluice bench` lists them)",
                             what);
}
