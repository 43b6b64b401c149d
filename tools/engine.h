/* tools/engine.h - the options of machine and memory, as the engine takes them; used alike by every
 * command that runs the model. */
#ifndef SLUICE_TOOLS_ENGINE_H
#define SLUICE_TOOLS_ENGINE_H

#include "src/routing_trace.h"
#include "src/sluice.h"
#include "src/trace_file.h"
#include "src/text/tokenizer.h"
#include "tools/models.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/terminal.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open engine with what a command needs around it. Zero it first; close after any result. */
struct engine {
    /* Set before engine_open by who wants it. */
    struct trace *record; /* the timeline goes here instead of to a file; not owned */
    uint32_t n_sequences, n_narrow_steps; /* as sluice_options has them */
    /* Set by engine_open. */
    const struct options *options;
    struct model_dirs dirs;
    struct terminal terminal;
    struct progress progress;
    struct tokenizer *tokenizer; /* NULL if it was not asked for */
    FILE *stats;                 /* where the account goes as JSON; NULL if nowhere, or it went */
    struct routing_writer *routing;        /* where the choice of experts goes; NULL: nowhere */
    struct trace_file *trace;              /* where the timeline goes; NULL: nowhere */
    uint32_t read_chunk_bytes, read_depth; /* what the drives want; 0: the reader's defaults */
    struct sluice *sluice;
    struct step *step;
};

/* Open tokenizer (if wanted) and model, with progress on a terminal; print the engine's notes to
 * stderr, each as one line. */
enum status engine_open(struct engine *e, const struct options *o, bool with_tokenizer,
                        bool with_draft, struct err *err);
void engine_close(struct engine *e);

/* The whole of a file, or of standard input ("-"); freed by the caller. ERR_MISSING, ERR_IO, ERR_INPUT
 * (over 256 MiB); CANCELLED if Ctrl-C came instead. Commands read what they are given before they load a model. */
enum status read_text(const char *path, char **text, size_t *n_bytes, struct err *err);

/* The tokenizer.json that one of the directories has. ERR_MISSING, and as tokenizer_open. */
enum status find_tokenizer(const struct model_dirs *dirs, struct tokenizer **out, struct err *err);

/* Are all ids in the model's vocabulary? ERR_INPUT: its tokenizer is another's. */
enum status check_tokens(const struct engine *e, const struct token_ids *ids, struct err *err);

/* BOS, then the text with added tokens off. Freed by the caller. */
enum status encode_raw(const struct engine *e, const char *text, size_t n_bytes, int32_t **tokens,
                       uint32_t *n_tokens, struct err *err);

/* What the account says now, to stderr. */
void engine_account_text(struct engine *e);

/* The account at the end: settings and text to stderr, and JSON to o->stats if it was asked for. */
enum status engine_account(struct engine *e, struct err *err);

/* The recording, if there is one, is at its end. What ended it early is the error of a run that has
 * no other, and a note else. */
enum status engine_recorded(struct engine *e, struct err *err);

/* Close step and model, whose users are closed already, so that every read has ended; then the
 * timeline, if there is one, is at its end. Errors as above; lost events are a note. */
enum status engine_traced(struct engine *e, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
