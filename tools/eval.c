#include "src/schedule.h"
#include "tools/commands.h"
#include "tools/engine.h"
#include "tools/interrupt.h"
#include "tools/logits_file.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum status eval_tokens(struct engine *e, const char *text, size_t n_bytes, struct err *err);
static enum status eval_text(struct engine *e, const char *text, size_t n_bytes, struct err *err);

int cmd_eval(const struct options *o) {
    struct engine e = { 0 };
    struct err err = { .status = OK };
    bool draft = o->tokens && o->mtp;
    char *text; // or token ids; before the model: a file that is not there is found at once
    size_t n_bytes;
    enum status status = read_text(o->tokens ? o->tokens : o->file, &text, &n_bytes, &err);
    if (status == OK)
        status = engine_open(&e, o, !o->tokens, draft, &err);
    if (status == OK)
        status =
            o->tokens ? eval_tokens(&e, text, n_bytes, &err) : eval_text(&e, text, n_bytes, &err);
    if (e.step && (status == OK || status == CANCELLED))
        engine_account(&e, &err);
    engine_recorded(&e, &err);
    engine_traced(&e, &err);
    engine_close(&e);
    free(text);
    return command_error(o, &err);
}

static bool cancelled(void *context) {
    (void)context;
    return interrupt_requested(NULL);
}

// --- logits of a list of tokens ------------------------------------------------------------------

struct dump {
    struct engine *engine;
    struct logits_file file;
    uint32_t base; // position of the feed's first token
    uint32_t total;
    struct err *err; // the first write that failed ends the run at the next look
};

static void dump_logits(void *context, uint32_t index, bool draft, const float *logits) {
    struct dump *d = context;
    if (d->err->status == OK)
        logits_file_write(&d->file, draft, d->base + index, logits, d->err);
}

static void dump_progress(void *context, uint32_t done, uint32_t total) {
    struct dump *d = context;
    (void)total;
    progress_update(&d->engine->progress, d->base + done);
}

static bool dump_cancelled(void *context) {
    const struct dump *d = context;
    return d->err->status != OK || interrupt_requested(NULL);
}

// Ids separated by white space.
static enum status parse_tokens(const char *path, const char *text, size_t n_bytes,
                                const struct config *c, int32_t **tokens, uint32_t *n,
                                struct err *err) {
    size_t capacity = 0;
    *tokens = NULL;
    *n = 0;
    const char *at = text;
    while (err->status == OK) {
        while (isspace((unsigned char)*at))
            at++;
        if (at == text + n_bytes)
            break;
        char *end;
        errno = 0;
        long long id = strtoll(at, &end, 10);
        if (end == at || (*end && !isspace((unsigned char)*end)) || errno || id < 0 ||
            id >= c->vocab) {
            int word = (int)strcspn(at, " \t\r\n\v\f");
            err_set(err, ERR_INPUT, "%s: byte %zu: not a token id from 0 to %u: %.*s", path,
                    (size_t)(at - text), c->vocab - 1, word < 20 ? word : 20, at);
            break;
        }
        if (*n == capacity) {
            capacity = capacity ? capacity * 2 : 4096;
            int32_t *larger = realloc(*tokens, capacity * sizeof **tokens);
            if (!larger) {
                err_set(err, ERR_MEMORY, "%s: no memory for its tokens", path);
                break;
            }
            *tokens = larger;
        }
        (*tokens)[(*n)++] = (int32_t)id;
        at = end;
    }
    if (err->status == OK && *n == 0)
        err_set(err, ERR_INPUT, "%s: no tokens in it", path);
    return err->status;
}

// One stretch of tokens, all of them by steps of at most `chunk`.
static enum status feed_part(struct dump *d, struct sequence *sequence, const int32_t *tokens,
                             uint32_t from, uint32_t to, uint32_t chunk, bool draft,
                             struct err *err) {
    if (from >= to)
        return OK;
    d->base = from;
    struct feed feed = {
        .sequence = sequence,
        .tokens = tokens + from,
        .n_tokens = to - from,
        .n_logits = to - from,
        .chunk = chunk,
        .draft = draft,
        .next_token = to < d->total ? tokens[to] : -1,
        .logits = dump_logits,
        .progress = dump_progress,
        .cancel = dump_cancelled,
        .context = d,
        .routing = d->engine->routing,
    };
    enum status status = schedule_feed(d->engine->step, &feed, err);
    return status == OK ? err->status : status;
}

static enum status eval_tokens(struct engine *e, const char *text, size_t n_bytes,
                               struct err *err) {
    const struct options *o = e->options;
    const struct config *c = sluice_config(e->sluice);
    uint32_t ctx = sluice_fitted(e->sluice)->ctx;
    int32_t *tokens;
    uint32_t n;
    struct sequence *sequence = NULL;
    struct dump d = { .engine = e, .file = { .fd = -1 }, .err = err };
    enum status status = parse_tokens(o->tokens, text, n_bytes, c, &tokens, &n, err);
    if (status == OK && o->mtp && n < 2)
        status = err_set(err, ERR_INPUT, "%s: --mtp needs two tokens or more", o->tokens);
    if (status == OK && n > ctx)
        status = err_set(err, ERR_MEMORY,
                         "%s: %u tokens, the context holds %u: a larger --ctx is needed", o->tokens,
                         n, ctx);
    if (status == OK)
        status = logits_file_open(&d.file, o->logits, n, c->vocab, o->mtp, err);
    if (status == OK)
        status = sluice_sequence(e->sluice, &sequence, err);
    if (status == OK) {
        progress_start(&e->progress, "eval", PROGRESS_TOKENS, n, &e->terminal, clock_system(),
                       stderr);
        d.total = n;
        // The draft block sees positions whose next token is known: all but the last.
        uint32_t drafted = o->mtp ? n - 1 : 0;
        uint32_t prefill = o->decode_from < n ? o->decode_from : n;
        uint32_t cut[] = { 0, 0, 0, n };
        cut[1] = o->mtp && prefill > drafted ? drafted : prefill;
        cut[2] = o->mtp ? drafted : n;
        for (int i = 0; i < 3 && status == OK; i++)
            status = feed_part(&d, sequence, tokens, cut[i], cut[i + 1],
                               cut[i] >= prefill ? 1 : o->chunk, cut[i] < drafted, err);
        progress_clear(&e->progress);
    }
    if (status == OK)
        status = logits_file_finish(&d.file, err);
    logits_file_close(&d.file);
    sequence_close(sequence);
    free(tokens);
    return status;
}

// --- perplexity of a text ------------------------------------------------------------------------

// Windows begin with BOS and overlap by half; what an earlier window has scored is context only.
struct scoring {
    struct engine *engine;
    const int32_t *tokens; // of the window under way
    uint32_t vocab;
    uint32_t window; // which one that is
    uint64_t scored, total;
    double sum;  // of -ln p
    bool broken; // logits that are no numbers
};

static void score(void *context, uint32_t index, bool draft, const float *logits) {
    struct scoring *s = context;
    (void)draft;
    float most = logits[0];
    for (uint32_t i = 1; i < s->vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    double sum = 0;
    for (uint32_t i = 0; i < s->vocab; i++)
        sum += exp((double)logits[i] - most);
    double loss = log(sum) - ((double)logits[s->tokens[index + 1]] - most);
    s->broken |= !isfinite(loss);
    s->sum += loss;
    s->scored++;
    progress_update(&s->engine->progress, s->scored);
}

static enum status score_window(struct scoring *s, struct sequence *sequence, uint32_t n,
                                uint32_t n_scored, struct err *err) {
    struct feed feed = { .sequence = sequence,
                         .tokens = s->tokens,
                         .n_tokens = n - 1,
                         .n_logits = n_scored,
                         .chunk = s->engine->options->chunk,
                         .next_token = -1,
                         .logits = score,
                         .cancel = cancelled,
                         .context = s,
                         .routing = s->engine->routing,
                         .sequence_number = s->window };
    enum status status = sequence_rollback(sequence, 0, err);
    return status == OK ? schedule_feed(s->engine->step, &feed, err) : status;
}

static enum status eval_text(struct engine *e, const char *text, size_t n_bytes, struct err *err) {
    const struct options *o = e->options;
    int32_t *tokens = NULL, *window = NULL;
    uint32_t n = 0, w = o->window;
    struct sequence *sequence = NULL;
    enum status status = encode_raw(e, text, n_bytes, &tokens, &n, err);
    if (status == OK && n < 2)
        status = err_set(err, ERR_INPUT, "%s: no text in it", o->file);
    if (status == OK && w - 1 > sluice_fitted(e->sluice)->ctx)
        status = err_set(err, ERR_USAGE, "--window %u does not fit in --ctx %u", w,
                         sluice_fitted(e->sluice)->ctx);
    if (status == OK)
        status = sluice_sequence(e->sluice, &sequence, err);
    window = malloc(w * sizeof *window);
    if (status == OK && !window)
        status = err_set(err, ERR_MEMORY, "no memory for a window");
    struct scoring s = {
        .engine = e, .tokens = window, .vocab = sluice_config(e->sluice)->vocab, .total = n - 1
    };
    progress_start(&e->progress, "eval", PROGRESS_TOKENS, s.total, &e->terminal, clock_system(),
                   stderr);
    // tokens[0] is BOS; tokens[1 …] the text. A window is BOS and w−1 tokens of it.
    for (uint32_t begin = 1; status == OK && s.scored < s.total; begin += w / 2) {
        uint32_t length = n - begin < w - 1 ? n - begin : w - 1;
        window[0] = tokens[0];
        memcpy(window + 1, tokens + begin, length * sizeof *window);
        uint32_t done = (uint32_t)s.scored + 1 - begin; // of this window, by those before
        status = score_window(&s, sequence, length + 1, length - done, err);
        s.window++;
    }
    progress_clear(&e->progress);
    if (status == OK && s.broken)
        status = err_set(err, ERR_INPUT,
                         "%s: the model's logits are not numbers: its weights are "
                         "damaged",
                         e->dirs.dirs[0]);
    if (s.scored && !s.broken)
        printf("perplexity %.6f  (%.6f nats a token, %.4f bits a byte, %llu tokens%s)\n",
               exp(s.sum / (double)s.scored), s.sum / (double)s.scored,
               s.sum / log(2) / (double)n_bytes * ((double)s.total / (double)s.scored),
               (unsigned long long)s.scored, s.scored < s.total ? ", interrupted" : "");
    sequence_close(sequence);
    free(window);
    free(tokens);
    return status;
}
