/* tools/reply.h - one answer being written: tokens that were drawn become text, until something ends
 * it: the model's end-of-text token, a stop string, --max-tokens, a full context.
 *
 *     reply_begin, then for each token: logits → reply_draw, step done → reply_next; then reply_end
 *
 * Who computes the logits, and of how many answers at a time, is the caller's. */
#ifndef SLUICE_TOOLS_REPLY_H
#define SLUICE_TOOLS_REPLY_H

#include "src/sample.h"
#include "src/session.h"
#include "src/text/stop.h"
#include "src/text/token_decoder.h"
#include "tools/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where text goes; an error of its ends the answer. */
struct text_sink {
    enum status (*take)(void *context, const char *text, size_t n_bytes, struct err *err);
    void *context;
};

/* What became of a prompt. */
struct generated {
    struct session_prefill prefill;
    struct token_ids
        ids; /* of the text, without the token that ended it; none if a stop string cut it */
    uint32_t n_generated; /* tokens of text */
    uint64_t decode_ns;   /* from the first token on */
    bool complete;        /* ended by the model */
    const char *end;      /* what ended it, for people */
};

void generated_free(struct generated *g);

/* How tokens are chosen, of all answers of a run alike. */
struct chooser {
    struct sampling sampling;
    struct sampler sampler;
    uint64_t seed;
};

struct reply {
    struct engine *engine;   /* the caller's, open with its tokenizer */
    struct chooser *chooser; /* likewise */
    struct token_decoder decoder;
    struct stop stop;
    int32_t eos[2]; /* the model's, and the chat format's: usually the same; −1: none */
    /* Of the answer under way. */
    const struct text_sink *sink;
    struct generated *out;
    uint64_t position;   /* of the token that is drawn next */
    uint32_t max_tokens; /* of the context, prompt and answer */
    int32_t next;        /* that was drawn last */
    struct err drawing;  /* a token that could not be drawn */
};

/* sampling_check's and allocation's errors. Closable after any result. */
enum status chooser_open(struct chooser *c, const struct engine *engine, struct err *err);
void chooser_close(struct chooser *c);

/* Zero it first; closable after any result. */
enum status reply_open(struct reply *r, struct engine *engine, struct chooser *chooser,
                       struct err *err);
void reply_close(struct reply *r);

/* The answer to a prompt of n_prompt tokens in a context of max_tokens. *out is begun, and filled in as
 * it goes on; the caller's, to be freed. */
void reply_begin(struct reply *r, uint32_t n_prompt, uint32_t max_tokens,
                 const struct text_sink *sink, struct generated *out);

/* Choose what comes next. The draw depends on the seed and its position in the context alone. */
void reply_draw(struct reply *r, const float *logits);

/* What was drawn is text now; *more: it is to be taken in. Errors of the sink, and of drawing. */
enum status reply_next(struct reply *r, bool *more, struct err *err);

/* What was held back (half a character, the beginning of a stop string) is text too, whatever ended
 * the answer: `status`, which is returned if nothing else fails. */
enum status reply_end(struct reply *r, enum status status, struct err *err);

/* Write to standard output, and out of its buffer. ERR_IO says why not. */
enum status write_out(const char *text, size_t n_bytes, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
