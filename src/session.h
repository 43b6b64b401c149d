/* src/session.h - one conversation's state in the engine: what it holds, and a way back.
 *
 * A session holds a sequence, the tokens that are in it, and a snapshot taken before the answer (and,
 * while a prompt is taken in, before that).
 * session_prefill makes it hold a prompt, whatever it held before, and takes in only what it must:
 *
 *   what it holds is the prompt's beginning          go on from there
 *   they part not below sequence_rollback_floor      roll back to where they part, go on
 *   they part later than that, but the snapshot      back to the snapshot, rolled back where it is
 *   is not too far                                   longer than what they share; go on
 *   else                                             from the first token
 *
 * (The last token of the prompt is always taken in: its logits are what a prompt is for.) So when a
 * chat's next prompt repeats the answer, the new message alone is computed; when it drops the answer's
 * reasoning, what follows the snapshot. A token's logits depend on the tokens before it and on
 * nothing else, so they are those of a fresh session with the same prompt, bit for bit.
 *
 * Failures and cancelling leave the session usable: it holds the tokens of the steps that were
 * completed, and the next prefill goes on from them.
 *
 * One control thread. Ownership: engine and step are the caller's and outlive the session. */
#ifndef SLUICE_SRC_SESSION_H
#define SLUICE_SRC_SESSION_H

#include "src/routing_trace.h"
#include "src/sluice.h"

#ifdef __cplusplus
extern "C" {
#endif

struct session {
    struct sluice *engine;
    struct step *step;
    struct sequence *sequence;
    struct sequence *snapshot;
    uint32_t snapshot_length; /* its tokens are the first so many of `tokens`; 0: there is none */
    int32_t *tokens;          /* [max_tokens]: those that the sequence holds */
    uint32_t n_tokens;
    uint32_t max_tokens;
    uint64_t n_fed; /* tokens taken in since session_open, answers included */
};

/* What a prompt and the tokens of an answer have in common. */
struct session_feed {
    uint32_t chunk; /* rows of a step; 0: as many as the engine allows */
    /* Logits of the last token: what comes after it. */
    void (*logits)(void *context, const float *logits);
    /* Tokens taken in so far, of those that had to be. NULL: none. */
    void (*progress)(void *context, uint32_t done, uint32_t total);
    bool (*cancel)(void *context); /* NULL: never */
    void *context;
    struct routing_writer *routing; /* append the choices of each step to it, the session being
                                       sequence 0; NULL: no */
};

struct session_prefill {
    uint32_t n_prompt;
    uint32_t n_kept; /* tokens of it that the state had already */
    uint32_t n_fed; /* tokens of it that were taken in; n_prompt − n_kept, if nothing went wrong */
};

/* Empty. ERR_MEMORY. Closable after any result. */
enum status session_open(struct session *s, struct sluice *engine, struct step *step,
                         struct err *err);
void session_close(struct session *s);

/* Forget everything. */
void session_reset(struct session *s);

/* Hold the prompt; the snapshot is then of this moment. *out says what it took, also on failure.
 *   ERR_USAGE    no tokens
 *   ERR_MEMORY   more tokens than the context holds: nothing has changed; or no KV page is left
 *   CANCELLED, and what step_begin and step_run can do */
enum status session_prefill(struct session *s, const int32_t *prompt, uint32_t n_prompt,
                            const struct session_feed *feed, struct session_prefill *out,
                            struct err *err);

/* One token more. Errors: as above; then it is not in. */
enum status session_decode(struct session *s, int32_t token, const struct session_feed *feed,
                           struct err *err);

/* Assert that tokens, sequence and snapshot agree; for tests. */
void session_check(const struct session *s);

#ifdef __cplusplus
}
#endif
#endif
