/* tools/generate.h - one answer after the other: a prompt goes in, tokens are drawn, text comes out.
 *
 * The session (src/session.h) keeps what it has computed, so a prompt that begins as the last one
 * did costs only what is new. Each answer ends with the model's end-of-text token, a stop string,
 * --max-tokens, a full context, or Ctrl-C; text that was held back (half a character, the beginning
 * of a stop string) comes out then. */
#ifndef SLUICE_TOOLS_GENERATE_H
#define SLUICE_TOOLS_GENERATE_H

#include "src/sample.h"
#include "src/session.h"
#include "src/text/stop.h"
#include "src/text/token_decoder.h"
#include "tools/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

struct generator {
    struct engine *engine; /* the caller's, open with its tokenizer */
    struct session session;
    struct sampling sampling;
    struct sampler sampler;
    struct token_decoder decoder;
    struct stop stop;
    int32_t eos[2]; /* the model's, and the chat format's: usually the same; −1: none */
    /* Of the answer under way. */
    struct err *err; /* a token that could not be drawn */
    uint64_t position;
    int32_t next; /* drawn from the last logits */
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

/* Where text goes; an error of its ends the answer. */
struct text_sink {
    enum status (*take)(void *context, const char *text, size_t n_bytes, struct err *err);
    void *context;
};

/* sampling_check's and allocation's errors. Zero it first; closable after any result. */
enum status generator_open(struct generator *g, struct engine *engine, struct err *err);
void generator_close(struct generator *g);

/* Answer a prompt. *out is filled in whatever happens, and the caller's to free (generated_free).
 * Errors: as session_prefill; CANCELLED. */
enum status generate(struct generator *g, const struct token_ids *prompt,
                     const struct text_sink *sink, struct generated *out, struct err *err);
void generated_free(struct generated *g);

/* Write to standard output, and out of its buffer. ERR_IO says why not. */
enum status write_out(const char *text, size_t n_bytes, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
