#include "tools/bench/cache.h"

#include "tools/commands.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cmd_bench_cache(const struct options *o);

const struct command bench_cache = {
    .name = "bench cache",
    .bit = COMMAND_BENCH_CACHE,
    .summary = "which experts each cache policy would have to read",
    .operands = "",
    .about = "Replay which experts tokens chose through caches of 2 to 50 % of the experts,\n"
             "under several policies and the best there can be (Belady's, which knows the\n"
             "future). Traces are written by `sluice run --record-routing FILE`; without one\n"
             "they are made for Pro and Flash, with the statistics that others published.",
    .run = cmd_bench_cache,
};

struct bench {
    const struct options *o;
    struct bench_trace *traces;
    uint32_t n, n_done; // made or read; and replayed
    FILE *html;
};

// Now, not after a minute of work; but what an earlier run left there stays until there is a new page.
static enum status open_html(struct bench *b, struct err *err) {
    int fd = open(b->o->html, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    b->html = fd >= 0 ? fdopen(fd, "w") : NULL;
    return b->html ? OK
                   : err_set(err, ERR_IO, "%s: cannot be made: %s", b->o->html, strerror(errno));
}

static enum status take(struct bench *b, uint32_t i, struct err *err) {
    struct bench_trace *t = &b->traces[b->n++];
    struct err cut = { .status = OK };
    bool is_cut = false;
    if (!b->o->routing.n)
        return bench_trace_made(t, i / MADE_LOADS, i % MADE_LOADS, err);
    enum status status = bench_trace_recorded(t, b->o->routing.items[i], &is_cut, &cut);
    if (is_cut)
        fprintf(stderr, "note: %s\n", cut.text);
    return status == OK ? OK : err_set(err, status, "%s", cut.text);
}

// One after the other, each shown as soon as it is known.
static enum status replay_all(struct bench *b, struct err *err) {
    uint32_t n = b->o->routing.n ? b->o->routing.n : MADE_MODELS * MADE_LOADS;
    b->traces = calloc(n, sizeof *b->traces);
    if (!b->traces)
        return err_set(err, ERR_MEMORY, "no memory for %u traces", n);
    enum status status = OK;
    for (uint32_t i = 0; i < n && status == OK; i++) {
        status = take(b, i, err);
        if (status == OK)
            status = bench_trace_replay(&b->traces[i], interrupt_requested, err);
        if (status != OK)
            break;
        replay_trace_close(&b->traces[i].demands);
        b->n_done++;
        if (!b->o->json) {
            bench_cache_text(&b->traces[i], stdout);
            fflush(stdout);
        }
    }
    return status;
}

static enum status report(struct bench *b, struct err *err) {
    if (b->o->json && !bench_cache_json(b->traces, b->n_done, stdout))
        return err_set(err, ERR_INPUT,
                       "this cannot be written as JSON (a path that is not UTF-8?)");
    if (!b->html)
        return OK;
    bool whole = ftruncate(fileno(b->html), 0) == 0;
    bench_cache_html(b->traces, b->n_done, b->html);
    whole &= fflush(b->html) == 0 && !ferror(b->html);
    return whole ? OK
                 : err_set(err, ERR_IO, "%s: cannot be written: %s", b->o->html, strerror(errno));
}

static int cmd_bench_cache(const struct options *o) {
    struct err err = { .status = OK }, unwritten = { .status = OK };
    struct bench b = { .o = o };
    enum status status = o->html ? open_html(&b, &err) : OK;
    if (status == OK)
        status = replay_all(&b, &err);
    if (status == CANCELLED)
        err.status = CANCELLED;
    // After Ctrl-C too: what is known by then.
    if (b.n_done && (status == OK || status == CANCELLED) && report(&b, &unwritten) != OK)
        err = unwritten;
    for (uint32_t i = 0; i < b.n; i++)
        bench_trace_close(&b.traces[i]);
    free(b.traces);
    if (b.html)
        fclose(b.html);
    return command_error(o, &err);
}
