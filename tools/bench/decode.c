#include "tools/bench/decode.h"

#include "src/sample.h"
#include "src/schedule.h"
#include "tools/bench/in_groups.h"
#include "tools/commands.h"
#include "tools/interrupt.h"

#include <stdlib.h>
#include <string.h>

#define AHEAD_MOST 256 // tokens that one group can be ahead of another, in one run

static int cmd_bench_decode(const struct options *o);

const struct command bench_decode = {
    .name = "bench decode",
    .bit = COMMAND_BENCH_DECODE,
    .summary = "decoding, against the disk it reads from",
    .operands = "",
    .about = "Take in a prompt, decode, and tell tokens a second, bytes a token, how busy the\n"
             "disk was, and how near to its bound a token's time came: the same computing, the\n"
             "same reads, over an ideal disk of the rate that is measured in turns with it.",
    .run = cmd_bench_decode,
};

struct bench {
    const struct options *o;
    struct meter meter;
    struct sampler sampler;
    struct sequence **sequences; // [n_sequences]
    struct span *spans;          // [n_sequences]
    int32_t *next;               // [n_sequences] the last token of each, which is not in it yet
    char *text;                  // --file
    size_t n_text;
    int32_t *prompt; // [n_sequences][n_prompt]; of a text only one
    uint32_t n_prompt;
    struct in_groups *groups; // --groups; NULL: all in one step
    bool measuring;           // a round
    uint64_t position;        // of sampling
    uint32_t choosing;        // the sequence whose prompt is taken in
    struct decode_result result;
    struct err *err; // of sampling
};

// --- opening -------------------------------------------------------------------------------------

static enum status open_engine(struct bench *b, struct err *err) {
    const struct options *o = b->o;
    if (o->file && read_text(o->file, &b->text, &b->n_text, err) != OK)
        return err->status;
    // Of a text: a byte is a token at most, and there is one before it. A group may be ahead of others.
    uint64_t ctx = (b->text ? b->n_text + 1 : o->n_prompt) + (uint64_t)o->n_tokens +
                   (o->groups > 1 ? AHEAD_MOST : 0);
    if (ctx > UINT32_MAX)
        return err_set(err, ERR_USAGE, "the prompt and %u tokens are no context", o->n_tokens);
    struct meter_options how = { .n_sequences = o->n_sequences,
                                 .ctx = (uint32_t)ctx,
                                 .n_narrow_steps = o->groups > 1 ? o->groups : 0,
                                 .with_tokenizer = b->text != NULL };
    return meter_open(&b->meter, o, &how, err);
}

static enum status open_sequences(struct bench *b, struct err *err) {
    uint32_t n = b->o->n_sequences;
    b->sequences = calloc(n, sizeof *b->sequences);
    b->spans = calloc(n, sizeof *b->spans);
    b->next = calloc(n, sizeof *b->next);
    b->result.rounds = calloc(b->o->n_rounds, sizeof *b->result.rounds);
    b->result.looks = calloc(b->o->n_rounds + 1, sizeof *b->result.looks);
    if (!b->sequences || !b->spans || !b->next || !b->result.rounds || !b->result.looks)
        return err_set(err, ERR_MEMORY, "no memory for %u sequences", n);
    struct sluice *engine = b->meter.engine.sluice;
    enum status status = sampler_open(&b->sampler, sluice_config(engine)->vocab, err);
    for (uint32_t i = 0; i < n && status == OK && b->o->groups == 1; i++)
        status = sluice_sequence(engine, &b->sequences[i], err);
    return status;
}

static enum status open_prompt(struct bench *b, struct err *err) {
    b->n_prompt = b->o->n_prompt;
    if (b->text)
        return encode_raw(&b->meter.engine, b->text, b->n_text, &b->prompt, &b->n_prompt, err);
    b->prompt = calloc((size_t)b->n_prompt * b->o->n_sequences, sizeof *b->prompt);
    if (!b->prompt)
        return err_set(err, ERR_MEMORY, "no memory for a prompt");
    for (uint32_t i = 0; i < b->o->n_sequences; i++)
        meter_prompt(&b->meter, i, b->prompt + (size_t)i * b->n_prompt, b->n_prompt);
    return OK;
}

static const int32_t *prompt_of(const struct bench *b, uint32_t sequence) {
    return b->prompt + (b->text ? 0 : (size_t)sequence * b->n_prompt);
}

static void close_all(struct bench *b) {
    in_groups_close(b->groups);
    for (uint32_t i = 0; b->sequences && i < b->o->n_sequences; i++)
        sequence_close(b->sequences[i]);
    for (uint32_t i = 0; i < b->result.n_rounds; i++)
        ideal_run_free(&b->result.rounds[i].window.story);
    sampler_close(&b->sampler);
    meter_close(&b->meter);
    free(b->sequences);
    free(b->spans);
    free(b->next);
    free(b->text);
    free(b->prompt);
    free(b->result.rounds);
    free(b->result.looks);
}

// --- running -------------------------------------------------------------------------------------

// Greedily, as `run --temperature 0` does.
static void choose(struct bench *b, uint32_t sequence, const float *logits) {
    static const struct sampling greedy = { .temperature = 0, .top_p = 1 };
    struct account *account = sluice_account(b->meter.engine.sluice);
    enum activity before = account_enter(account, ACTIVITY_SAMPLE);
    uint32_t token = 0;
    sampler_draw(&b->sampler, &greedy, logits, 0, b->position, &token, b->err);
    b->next[sequence] = (int32_t)token;
    account_enter(account, before);
}

static void choose_first(void *context, uint32_t index, bool draft, const float *logits) {
    struct bench *b = context;
    (void)index;
    (void)draft;
    choose(b, b->choosing, logits);
}

static void choose_next(void *context, uint32_t row, bool draft, const float *logits) {
    (void)draft;
    choose(context, row, logits);
}

static bool idle_cancelled(void *context) {
    struct bench *b = context;
    return meter_idle_cancelled(&b->meter);
}

static void show_prompt(void *context, uint32_t done, uint32_t total) {
    struct bench *b = context;
    (void)total;
    progress_update(&b->meter.engine.progress, (uint64_t)b->choosing * b->n_prompt + done);
}

static enum status take_in_prompts(struct bench *b, struct err *err) {
    struct progress *progress = &b->meter.engine.progress;
    uint64_t begin_ns = clock_now_ns(clock_system());
    enum status status = OK;
    progress_start(progress, "prompts", PROGRESS_TOKENS, (uint64_t)b->n_prompt * b->o->n_sequences,
                   &b->meter.engine.terminal, clock_system(), stderr);
    for (uint32_t i = 0; i < b->o->n_sequences && status == OK; i++) {
        b->choosing = i;
        struct feed feed = { .sequence = b->sequences[i],
                             .tokens = prompt_of(b, i),
                             .n_tokens = b->n_prompt,
                             .n_logits = 1,
                             .logits = choose_first,
                             .progress = show_prompt,
                             .cancel = idle_cancelled,
                             .context = b };
        status = schedule_feed(b->meter.engine.step, &feed, err);
        status = status == OK ? err->status : status;
    }
    progress_clear(progress);
    b->position = b->n_prompt;
    b->result.prompt_s = (double)(clock_now_ns(clock_system()) - begin_ns) * 1e-9;
    return status;
}

// --- in several groups ---------------------------------------------------------------------------

static int32_t choose_of(void *context, uint32_t sequence, const float *logits) {
    struct bench *b = context;
    choose(b, sequence, logits);
    return b->next[sequence];
}

static bool groups_cancelled(void *context) {
    struct bench *b = context;
    return b->err->status != OK || // of sampling
           (b->measuring ? meter_cancelled(&b->meter) : meter_idle_cancelled(&b->meter));
}

static enum status take_in_by_groups(struct bench *b, struct err *err) {
    struct in_groups_options options = { .n_sequences = b->o->n_sequences,
                                         .n_groups = b->o->groups,
                                         .choose = choose_of,
                                         .cancel = groups_cancelled,
                                         .context = b };
    uint64_t begin_ns = clock_now_ns(clock_system());
    uint32_t n_chosen;
    enum status status =
        in_groups_open(&b->groups, b->meter.engine.sluice, b->meter.engine.step, &options, err);
    for (uint32_t i = 0; i < b->o->n_sequences && status == OK; i++)
        status = in_groups_add(b->groups, prompt_of(b, i), b->n_prompt, err);
    if (status == OK)
        status = in_groups_run(b->groups, b->o->n_sequences, &n_chosen, err);
    b->result.prompt_s = (double)(clock_now_ns(clock_system()) - begin_ns) * 1e-9;
    return status;
}

// --- rounds --------------------------------------------------------------------------------------

// A token more of every sequence, in one step.
static enum status decode_step(struct bench *b, struct err *err) {
    struct step *step = b->meter.engine.step;
    uint32_t n = b->o->n_sequences;
    struct step_options options = { .logits = choose_next, .context = b };
    for (uint32_t i = 0; i < n; i++)
        b->spans[i] = (struct span){
            .sequence = b->sequences[i],
            .tokens = &b->next[i],
            .n_tokens = 1,
            .n_logits = 1,
            .next_token = -1,
        };
    enum status status = step_begin(step, b->spans, n, &options, err);
    if (status != OK)
        return status;
    status = step_run(step, meter_cancelled, &b->meter, err);
    if (status != OK) {
        step_abandon(step);
        return status;
    }
    step_commit(step);
    b->position++;
    return err->status; // choose() may have failed
}

static enum status look(struct bench *b, struct err *err) {
    struct decode_result *d = &b->result;
    if (d->rate_given)
        return OK;
    enum status status = meter_rate(&b->meter, &d->looks[d->n_looks], err);
    d->n_looks += status == OK;
    return status;
}

static enum status run_round(struct bench *b, uint32_t n_steps, struct err *err) {
    struct decode_round *round = &b->result.rounds[b->result.n_rounds];
    round->n_tokens = n_steps * b->o->n_sequences;
    b->measuring = true;
    meter_begin(&b->meter);
    if (b->groups && in_groups_run(b->groups, round->n_tokens, &round->n_tokens, err) != OK)
        return err->status;
    for (uint32_t i = 0; i < n_steps && !b->groups; i++)
        if (decode_step(b, err) != OK)
            return err->status;
    b->measuring = false;
    if (meter_end(&b->meter, &round->window, err) == OK)
        b->result.n_rounds++;
    return err->status;
}

// So many of the tokens in each round that all have nearly as many.
static enum status run_rounds(struct bench *b, struct err *err) {
    uint32_t n_tokens = b->o->n_tokens;
    uint32_t n = b->o->n_rounds < n_tokens ? b->o->n_rounds : n_tokens;
    struct progress *progress = &b->meter.engine.progress;
    enum status status = look(b, err);
    progress_start(progress, "decoding", PROGRESS_TOKENS, n_tokens, &b->meter.engine.terminal,
                   clock_system(), stderr);
    for (uint32_t i = 0; i < n && status == OK; i++) {
        uint32_t from = (uint32_t)((uint64_t)n_tokens * i / n);
        uint32_t to = (uint32_t)((uint64_t)n_tokens * (i + 1) / n);
        status = run_round(b, to - from, err);
        progress_update(progress, to);
        if (status == OK)
            status = look(b, err);
    }
    progress_clear(progress);
    return status;
}

// --- bounds --------------------------------------------------------------------------------------

static enum status find_bounds(struct bench *b, struct err *err) {
    struct decode_result *d = &b->result;
    enum status status = OK;
    for (uint32_t i = 0; i < d->n_rounds && status == OK; i++) {
        struct decode_round *round = &d->rounds[i];
        if (d->rate_given)
            round->rate = b->o->disk_rate * 1e9;
        else // the look after the last round may be missing
            round->rate = (d->looks[i] + d->looks[i + 1 < d->n_looks ? i + 1 : i]) / 2;
        status = ideal_replay(&round->window.story, round->rate, &round->bound, err);
    }
    return status;
}

static enum status report(struct bench *b, struct err *err) {
    struct account_report now;
    struct decode_result *d = &b->result;
    sluice_report(b->meter.engine.sluice, &now);
    d->fit = sluice_fitted(b->meter.engine.sluice);
    d->config = sluice_config(b->meter.engine.sluice);
    d->expert_bytes = now.expert_bytes;
    d->model = b->meter.engine.dirs.dirs[0];
    d->engine = now.engine;
    d->n_prompt = b->n_prompt;
    d->n_sequences = b->o->n_sequences;
    d->n_groups = b->o->groups;
    d->n_lost = recording_lost(b->meter.recording);
    if (find_bounds(b, err) != OK)
        return err->status;
    return b->o->json ? decode_json(d, stdout, err) : decode_text(d, stdout, err);
}

int cmd_bench_decode(const struct options *o) {
    struct bench b = { .o = o, .result.rate_given = o->disk_rate > 0 };
    struct err err = { .status = OK };
    b.err = &err;
    enum status status = open_engine(&b, &err);
    if (status == OK)
        status = open_sequences(&b, &err);
    if (status == OK)
        status = open_prompt(&b, &err);
    if (status == OK)
        status = o->groups > 1 ? take_in_by_groups(&b, &err) : take_in_prompts(&b, &err);
    if (status == OK)
        status = run_rounds(&b, &err);
    // After Ctrl-C too: the rounds that came to their end.
    struct err unwritten = { .status = OK };
    b.result.interrupted = status == CANCELLED;
    if ((status == OK || status == CANCELLED) && b.result.n_rounds > 0 &&
        report(&b, &unwritten) != OK)
        err = unwritten;
    close_all(&b);
    return command_error(o, &err);
}
