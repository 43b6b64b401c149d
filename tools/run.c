#include "src/sample.h"
#include "src/schedule.h"
#include "src/stop.h"
#include "src/token_decoder.h"
#include "tools/commands.h"
#include "tools/engine.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// One generation: what it reads from and writes to.
struct run {
    struct engine engine;
    struct sequence *sequence;
    struct sampling sampling;
    struct sampler sampler;
    struct token_decoder decoder;
    struct stop stop;
    char *text; // of the prompt, if it was read from a file
    size_t n_bytes;
    int32_t *prompt;
    uint32_t n_prompt;
    uint32_t n_generated;
    const char *end; // why it ended, for people
    struct err *err;
    int32_t next; // sampled from the last logits
};

static bool cancelled(void *context) {
    (void)context;
    return interrupt_requested(NULL);
}

static void prefill_progress(void *context, uint32_t done, uint32_t total) {
    struct run *r = context;
    (void)total;
    progress_update(&r->engine.progress, done);
}

// The row that wanted logits is the last one: choose what comes after it.
static void choose(void *context, uint32_t index, bool draft, const float *logits) {
    struct run *r = context;
    (void)index, (void)draft;
    struct account *account = sluice_account(r->engine.sluice);
    enum activity before = account_enter(account, ACTIVITY_SAMPLE);
    uint32_t token = 0;
    // The position that is being chosen: the draw depends on it and the seed alone.
    uint64_t position = (uint64_t)r->n_prompt + r->n_generated;
    sampler_draw(&r->sampler, &r->sampling, logits, r->engine.options->seed, position, &token,
                 r->err);
    r->next = (int32_t)token;
    account_enter(account, before);
}

static enum status feed(struct run *r, const int32_t *tokens, uint32_t n, bool prefill,
                        struct err *err) {
    struct feed feed = { .sequence = r->sequence,
                         .tokens = tokens,
                         .n_tokens = n,
                         .n_logits = 1,
                         .chunk = r->engine.options->chunk,
                         .next_token = -1,
                         .logits = choose,
                         .progress = prefill ? prefill_progress : NULL,
                         .cancel = cancelled,
                         .context = r };
    enum status status = schedule_feed(r->engine.step, &feed, err);
    return status == OK ? err->status : status; // choose() may have failed
}

static enum status write_out(const char *text, size_t n, struct err *err) {
    if (n == 0 || (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0))
        return OK;
    err_set(err, ERR_IO, "standard output: cannot be written: %s", strerror(errno));
    // It is said once: main, which looks whether everything got out, has nothing to add.
    __fpurge(stdout);
    clearerr(stdout);
    return err->status;
}

// Tokens come, text goes, until something ends it.
static enum status generate(struct run *r, struct err *err) {
    const struct options *o = r->engine.options;
    int32_t eos = sluice_config(r->engine.sluice)->eos_token;
    enum status status = OK;
    for (;;) {
        if (r->next == eos) {
            r->end = "the model ended the text";
            break;
        }
        size_t n, n_certain;
        const char *text = token_decoder_push(&r->decoder, (uint32_t)r->next, &n);
        const char *certain = stop_push(&r->stop, text, n, &n_certain);
        if ((status = write_out(certain, n_certain, err)) != OK)
            return status;
        r->n_generated++;
        if (r->stop.found) {
            r->end = "a stop string";
            return OK;
        }
        if (o->max_tokens && r->n_generated >= o->max_tokens) {
            r->end = "--max-tokens";
            break;
        }
        if (sequence_length(r->sequence) == sequence_max_tokens(r->sequence)) {
            r->end = "the context is full (--ctx)";
            break;
        }
        int32_t token = r->next;
        if ((status = feed(r, &token, 1, false, err)) != OK)
            break;
    }
    // What was held back is text too, whatever ended it.
    size_t n, n_certain;
    const char *text = token_decoder_flush(&r->decoder, &n);
    const char *certain = stop_push(&r->stop, text, n, &n_certain);
    if (write_out(certain, n_certain, err) == OK) {
        certain = stop_flush(&r->stop, &n_certain);
        write_out(certain, n_certain, err);
    }
    return status == OK ? err->status : status;
}

// The text, before the model: a file that is not there is found at once.
static enum status read_prompt(struct run *r, const struct options *o, struct err *err) {
    if (!o->prompt && !o->file && isatty(STDIN_FILENO))
        return err_set(err, ERR_USAGE,
                       "nothing to continue: give -p TEXT, -f FILE, or a text on standard input");
    if (o->prompt) {
        r->n_bytes = strlen(o->prompt);
        return OK;
    }
    return read_text(o->file ? o->file : "-", &r->text, &r->n_bytes, err);
}

static enum status encode_prompt(struct run *r, struct err *err) {
    const char *text = r->text ? r->text : r->engine.options->prompt;
    uint32_t ctx = sluice_fitted(r->engine.sluice)->ctx;
    enum status status = encode_raw(&r->engine, text, r->n_bytes, &r->prompt, &r->n_prompt, err);
    if (status == OK && r->n_prompt > ctx)
        status = err_set(err, ERR_MEMORY,
                         "the prompt has %u tokens, the context holds %u: a larger --ctx is needed",
                         r->n_prompt, ctx);
    return status;
}

static enum status run(struct run *r, const struct options *o, struct err *err) {
    r->sampling = (struct sampling){ .temperature = (float)o->temperature,
                                     .top_k = o->top_k,
                                     .top_p = (float)o->top_p,
                                     .min_p = (float)o->min_p };
    enum status status = sampling_check(&r->sampling, err);
    if (status == OK)
        status = read_prompt(r, o, err);
    if (status == OK)
        status = engine_open(&r->engine, o, true, false, err);
    if (status == OK)
        status = sampler_open(&r->sampler, sluice_config(r->engine.sluice)->vocab, err);
    if (status == OK)
        status = token_decoder_open(&r->decoder, r->engine.tokenizer, false, err);
    if (status == OK)
        status =
            stop_open(&r->stop, o->stop.items, o->stop.n, token_decoder_longest(&r->decoder), err);
    if (status == OK)
        status = encode_prompt(r, err);
    if (status == OK)
        status = sluice_sequence(r->engine.sluice, &r->sequence, err);
    if (status != OK)
        return status;
    progress_start(&r->engine.progress, "prefill", PROGRESS_TOKENS, r->n_prompt,
                   &r->engine.terminal, clock_system(), stderr);
    status = feed(r, r->prompt, r->n_prompt, true, err);
    progress_clear(&r->engine.progress);
    return status == OK ? generate(r, err) : status;
}

int cmd_run(const struct options *o) {
    struct run r = { .end = "interrupted" };
    struct err err = { .status = OK };
    r.err = &err;
    run(&r, o, &err);
    if (r.sequence) {
        bool failed = err.status != OK && err.status != CANCELLED;
        if (failed)
            r.end = "an error";
        if (r.n_generated && !failed)
            fputc('\n', stdout);
        fflush(stdout);
        fprintf(stderr, "\n%u tokens of prompt, %u generated; ended by: %s\n", r.n_prompt,
                r.n_generated, r.end);
        engine_account(&r.engine, &err);
    }
    sequence_close(r.sequence);
    stop_close(&r.stop);
    token_decoder_close(&r.decoder);
    sampler_close(&r.sampler);
    free(r.prompt);
    free(r.text);
    engine_close(&r.engine);
    return command_error(o, &err);
}
