#include "tools/bench/prefill.h"

#include "tools/commands.h"
#include "tools/interrupt.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX (1u << 16) // as --chunk has it

static int cmd_bench_prefill(const struct options *o);

const struct command bench_prefill = {
    .name = "bench prefill",
    .bit = COMMAND_BENCH_PREFILL,
    .summary = "taking in prompts of several lengths, against the disk",
    .operands = "",
    .about = "Take in prompts, each by one step, and tell tokens a second, whether anything\n"
             "was read twice, the disk's rate meanwhile against what it gives alone, and from\n"
             "how many rows on arithmetic is what limits.",
    .run = cmd_bench_prefill,
};

struct bench {
    const struct options *o;
    struct meter meter;
    int32_t *tokens;     // [rows[n_lengths - 1]]
    bool *held, *chosen; // [all experts]: at the beginning of a pass; by its rows
    uint32_t rows[PREFILL_PASSES_MAX], n_lengths;
    uint32_t n_rows; // of the pass under way
    struct prefill_result result;
};

enum status prefill_rows(const char *text, uint32_t rows[PREFILL_PASSES_MAX], uint32_t *n,
                         struct err *err) {
    for (*n = 0;; text++) {
        char *end;
        errno = 0;
        unsigned long value = isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : 0;
        if (value < 1 || value > ROWS_MAX || errno || (*end && *end != ','))
            return err_set(err, ERR_USAGE,
                           "--rows: a list of whole numbers from 1 to %u, such as 32,64,128",
                           ROWS_MAX);
        if (*n > 0 && value <= rows[*n - 1])
            return err_set(err, ERR_USAGE, "--rows: %lu after %u: ascending, please", value,
                           rows[*n - 1]);
        if (*n == PREFILL_PASSES_MAX)
            return err_set(err, ERR_USAGE, "--rows: more than %d lengths", PREFILL_PASSES_MAX);
        rows[(*n)++] = (uint32_t)value;
        text = end;
        if (!*text)
            return OK;
    }
}

static uint32_t n_experts(const struct bench *b) {
    const struct config *c = sluice_config(b->meter.engine.sluice);
    return c->n_layers * c->n_experts;
}

static enum status open_all(struct bench *b, struct err *err) {
    if (prefill_rows(b->o->rows, b->rows, &b->n_lengths, err) != OK)
        return err->status;
    uint32_t most = b->rows[b->n_lengths - 1];
    struct meter_options how = { .n_sequences = 1, .ctx = most, .chunk = most };
    enum status status = meter_open(&b->meter, b->o, &how, err);
    if (status != OK)
        return status;
    b->tokens = calloc(most, sizeof *b->tokens);
    b->held = calloc(n_experts(b), sizeof *b->held);
    b->chosen = calloc(n_experts(b), sizeof *b->chosen);
    return b->tokens && b->held && b->chosen
               ? OK
               : err_set(err, ERR_MEMORY, "no memory for a prompt of %u tokens", most);
}

static void close_all(struct bench *b) {
    for (uint32_t i = 0; i < b->result.n_passes; i++)
        ideal_run_free(&b->result.passes[i].window.story);
    meter_close(&b->meter);
    free(b->tokens);
    free(b->held);
    free(b->chosen);
}

// --- a pass --------------------------------------------------------------------------------------

static void mark_chosen(void *context, uint32_t layer, const int32_t *experts) {
    struct bench *b = context;
    const struct config *c = sluice_config(b->meter.engine.sluice);
    for (uint32_t i = 0; i < b->n_rows * c->n_chosen; i++)
        b->chosen[layer * c->n_experts + (uint32_t)experts[i]] = true;
}

static void count_ideal(const struct bench *b, struct prefill_pass *pass) {
    for (uint32_t e = 0; e < n_experts(b); e++) {
        pass->n_chosen += b->chosen[e];
        pass->n_held += b->chosen[e] && b->held[e];
        uint64_t bytes = b->chosen[e] ? plain_reads_bytes(b->meter.plain, e) : 0;
        pass->chosen_bytes += bytes;
        pass->ideal_bytes += b->held[e] ? 0 : bytes;
    }
}

static enum status run_step(struct bench *b, struct sequence *sequence, struct err *err) {
    struct step *step = b->meter.engine.step;
    struct step_options options = { .routed = mark_chosen, .context = b };
    struct span span = { .sequence = sequence,
                         .tokens = b->tokens,
                         .n_tokens = b->n_rows,
                         .n_logits = 1, // what comes next: a prompt is taken in for it
                         .next_token = -1 };
    enum status status = step_begin(step, &span, 1, &options, err);
    if (status != OK)
        return status;
    status = step_run(step, meter_cancelled, &b->meter, err);
    if (status == OK)
        step_commit(step);
    else
        step_abandon(step);
    return status;
}

static enum status run_pass(struct bench *b, struct prefill_pass *pass, struct err *err) {
    struct sluice *engine = b->meter.engine.sluice;
    struct sequence *sequence;
    enum status status = sluice_sequence(engine, &sequence, err);
    if (status != OK)
        return status;
    *pass = (struct prefill_pass){ .n_rows = b->n_rows };
    memset(b->chosen, 0, n_experts(b) * sizeof *b->chosen);
    for (uint32_t e = 0; e < n_experts(b); e++)
        b->held[e] = sluice_holds(engine, e);
    meter_prompt(&b->meter, b->result.n_passes, b->tokens, b->n_rows);
    meter_begin(&b->meter);
    status = run_step(b, sequence, err);
    if (status == OK)
        status = meter_end(&b->meter, &pass->window, err);
    sequence_close(sequence);
    if (status == OK)
        status = recording_again(b->meter.recording, n_experts(b), &pass->n_again, err);
    if (status == OK)
        count_ideal(b, pass);
    return status;
}

static enum status run_passes(struct bench *b, struct err *err) {
    struct prefill_result *r = &b->result;
    struct progress *progress = &b->meter.engine.progress;
    double before, after;
    uint64_t done = 0, all = 0;
    for (uint32_t i = 0; i < b->n_lengths; i++)
        all += b->rows[i];
    progress_start(progress, "prefill", PROGRESS_TOKENS, all, &b->meter.engine.terminal,
                   clock_system(), stderr);
    enum status status = meter_rate(&b->meter, &before, err);
    while (r->n_passes < b->n_lengths && status == OK) {
        struct prefill_pass *pass = &r->passes[r->n_passes];
        b->n_rows = b->rows[r->n_passes];
        status = run_pass(b, pass, err);
        if (status != OK)
            break;
        r->n_passes++;
        status = meter_rate(&b->meter, &after, err);
        pass->rate = status == OK ? (before + after) / 2 : before; // the last look may be missing
        before = after;
        progress_update(progress, done += b->n_rows);
    }
    progress_clear(progress);
    return status;
}

// --- the command ---------------------------------------------------------------------------------

static enum status report(struct bench *b, struct err *err) {
    struct account_report now;
    struct prefill_result *r = &b->result;
    sluice_report(b->meter.engine.sluice, &now);
    r->fit = sluice_fitted(b->meter.engine.sluice);
    r->config = sluice_config(b->meter.engine.sluice);
    r->expert_bytes = now.expert_bytes;
    r->model = b->meter.engine.dirs.dirs[0];
    r->engine = now.engine;
    r->n_lost = recording_lost(b->meter.recording);
    for (uint32_t i = 0; i < r->n_passes; i++) {
        struct prefill_pass *pass = &r->passes[i];
        if (ideal_replay(&pass->window.story, pass->rate, &pass->bound, err) != OK)
            return err->status;
    }
    if (b->o->json)
        return prefill_json(r, stdout, err);
    prefill_text(r, stdout);
    return OK;
}

int cmd_bench_prefill(const struct options *o) {
    struct bench *b = calloc(1, sizeof *b);
    struct err err = { .status = OK };
    if (!b) {
        err_set(&err, ERR_MEMORY, "no memory to measure with");
        return command_error(o, &err);
    }
    b->o = o;
    b->result.rate_given = o->disk_rate > 0;
    enum status status = open_all(b, &err);
    if (status == OK)
        status = run_passes(b, &err);
    // After Ctrl-C too: the passes that came to their end.
    struct err unwritten = { .status = OK };
    b->result.interrupted = status == CANCELLED;
    if ((status == OK || status == CANCELLED) && b->result.n_passes > 0 &&
        report(b, &unwritten) != OK)
        err = unwritten;
    close_all(b);
    free(b);
    return command_error(o, &err);
}
