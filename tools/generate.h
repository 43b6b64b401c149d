/* tools/generate.h - one answer after the other: a prompt goes in, tokens are drawn, text comes out.
 *
 * The session (src/session.h) keeps what it has computed, so a prompt that begins as the last one
 * did costs only what is new. What ends an answer: tools/reply.h, and Ctrl-C. */
#ifndef SLUICE_TOOLS_GENERATE_H
#define SLUICE_TOOLS_GENERATE_H

#include "src/session.h"
#include "tools/engine.h"
#include "tools/reply.h"

#ifdef __cplusplus
extern "C" {
#endif

struct generator {
    struct engine *engine; /* the caller's, open with its tokenizer */
    struct session session;
    struct chooser chooser;
    struct reply reply;
};

/* sampling_check's and allocation's errors. Zero it first; closable after any result. */
enum status generator_open(struct generator *g, struct engine *engine, struct err *err);
void generator_close(struct generator *g);

/* Answer a prompt. *out is filled in whatever happens, and the caller's to free (generated_free).
 * Errors: as session_prefill; CANCELLED. */
enum status generate(struct generator *g, const struct token_ids *prompt,
                     const struct text_sink *sink, struct generated *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
