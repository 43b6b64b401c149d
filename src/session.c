#include "src/session.h"

#include "src/schedule.h"
#include "src/sequence.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum status session_open(struct session *s, struct sluice *engine, struct step *step,
                         struct err *err) {
    *s = (struct session){ .engine = engine, .step = step };
    if (sluice_sequence(engine, &s->sequence, err) != OK ||
        sluice_sequence(engine, &s->snapshot, err) != OK)
        return err->status;
    s->max_tokens = sequence_max_tokens(s->sequence);
    s->tokens = malloc(s->max_tokens * sizeof *s->tokens);
    if (!s->tokens)
        return err_set(err, ERR_MEMORY, "no memory for the %u tokens of a session", s->max_tokens);
    return OK;
}

void session_close(struct session *s) {
    sequence_close(s->snapshot);
    sequence_close(s->sequence);
    free(s->tokens);
    *s = (struct session){ .step = NULL };
}

// --- going back ----------------------------------------------------------------------------------

static void roll_back(struct sequence *sequence, uint32_t length) {
    struct err err = { .status = OK };
    enum status status = sequence_rollback(sequence, length, &err);
    assert(status == OK); // nobody asks for less than the floor here
    (void)status;
}

static void forget_snapshot(struct session *s) {
    roll_back(s->snapshot, 0);
    s->snapshot_length = 0;
}

void session_reset(struct session *s) {
    forget_snapshot(s);
    roll_back(s->sequence, 0);
    s->n_tokens = 0;
}

// The snapshot holds what the state holds now, and shares its pages until one of them is written.
static void take_snapshot(struct session *s) {
    sequence_restore(s->snapshot, s->sequence);
    s->snapshot_length = s->n_tokens;
}

static uint32_t shared_tokens(const struct session *s, const int32_t *prompt, uint32_t n_prompt) {
    uint32_t most = n_prompt - 1; // the last one is to give its logits
    if (most > s->n_tokens)
        most = s->n_tokens;
    uint32_t n = 0;
    while (n < most && s->tokens[n] == prompt[n])
        n++;
    return n;
}

// Leave of what the state holds as many of the first `shared` tokens as there is a way back to.
static void go_back(struct session *s, uint32_t shared) {
    uint32_t keep = shared < s->snapshot_length ? shared : s->snapshot_length;
    if (shared == s->n_tokens)
        return;
    if (shared >= sequence_rollback_floor(s->sequence)) {
        roll_back(s->sequence, shared);
        if (s->snapshot_length > shared)
            forget_snapshot(s);
        s->n_tokens = shared;
    } else if (keep > 0 && keep >= sequence_rollback_floor(s->snapshot)) {
        roll_back(s->snapshot, keep);
        sequence_restore(s->sequence, s->snapshot);
        s->snapshot_length = s->n_tokens = keep;
    } else {
        session_reset(s);
    }
}

// --- going on ------------------------------------------------------------------------------------

struct passage {
    const struct session_feed *feed;
};

static void pass_logits(void *context, uint32_t index, bool draft, const float *logits) {
    const struct passage *p = context;
    (void)index, (void)draft;
    p->feed->logits(p->feed->context, logits);
}

static void pass_progress(void *context, uint32_t done, uint32_t total) {
    const struct passage *p = context;
    if (p->feed->progress)
        p->feed->progress(p->feed->context, done, total);
}

static bool pass_cancel(void *context) {
    const struct passage *p = context;
    return p->feed->cancel && p->feed->cancel(p->feed->context);
}

// Whatever becomes of it, the session knows afterwards what the sequence holds.
static enum status take_in(struct session *s, const int32_t *tokens, uint32_t n,
                           const struct session_feed *how, struct err *err) {
    struct passage passage = { how };
    struct feed feed = { .sequence = s->sequence,
                         .tokens = tokens,
                         .n_tokens = n,
                         .n_logits = 1,
                         .chunk = how->chunk,
                         .next_token = -1,
                         .logits = pass_logits,
                         .progress = pass_progress,
                         .cancel = pass_cancel,
                         .context = &passage,
                         .routing = how->routing };
    enum status status = schedule_feed(s->step, &feed, err);
    uint32_t taken = sequence_length(s->sequence) - s->n_tokens;
    memcpy(s->tokens + s->n_tokens, tokens, taken * sizeof *tokens);
    s->n_tokens += taken;
    s->n_fed += taken;
    return status;
}

enum status session_prefill(struct session *s, const int32_t *prompt, uint32_t n_prompt,
                            const struct session_feed *feed, struct session_prefill *out,
                            struct err *err) {
    *out = (struct session_prefill){ .n_prompt = n_prompt };
    if (n_prompt == 0)
        return err_set(err, ERR_USAGE, "a prompt without tokens");
    if (n_prompt > s->max_tokens)
        return err_set(err, ERR_MEMORY,
                       "the prompt has %u tokens, the context holds %u: a larger --ctx is needed",
                       n_prompt, s->max_tokens);
    go_back(s, shared_tokens(s, prompt, n_prompt));
    // A prompt that is given up may leave no way back: then the next one begins here.
    if (s->n_tokens > s->snapshot_length)
        take_snapshot(s);
    out->n_kept = s->n_tokens;
    sluice_account(s->engine)->kept += out->n_kept;
    enum status status = take_in(s, prompt + s->n_tokens, n_prompt - s->n_tokens, feed, err);
    out->n_fed = s->n_tokens - out->n_kept;
    if (status == OK)
        take_snapshot(s);
    return status;
}

enum status session_decode(struct session *s, int32_t token, const struct session_feed *feed,
                           struct err *err) {
    return take_in(s, &token, 1, feed, err);
}

void session_check(const struct session *s) {
    assert(s->n_tokens == sequence_length(s->sequence));
    assert(s->n_tokens <= s->max_tokens);
    assert(s->snapshot_length == sequence_length(s->snapshot));
    assert(s->snapshot_length <= s->n_tokens);
    sequence_check(s->sequence);
    sequence_check(s->snapshot);
}
