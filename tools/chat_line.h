/* tools/chat_line.h - a message typed on a terminal: line editing, history, multi-line paste.
 *
 * Editing is libedit's (emacs keys, the arrows, Ctrl-R; ~/.editrc is heeded). A message may have
 * several lines:
 *   - Alt-Enter begins a new one;
 *   - a paste is taken as a whole and not sent before Enter is pressed (bracketed paste, which every
 *     terminal of this century has);
 *   - where the terminal has it not, lines that arrive faster than anyone types are one message too.
 *     Commands are never drawn into a message so: `is_command` tells them.
 *
 * While a message is being typed the terminal is raw, Ctrl-C and Ctrl-Z are keys; between two
 * reads it is as it was, and Ctrl-C is a signal. The screen is where the prompt is drawn, standard
 * input the keyboard. One thread. */
#ifndef SLUICE_TOOLS_CHAT_LINE_H
#define SLUICE_TOOLS_CHAT_LINE_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct chat_line;

struct chat_line_options {
    FILE *screen;
    const char *prompt; /* the caller's */
    bool escapes;       /* the terminal understands escape codes */
    bool (*is_command)(const char *line, size_t n_bytes);
};

/* ERR_SYSTEM: the terminal cannot be used. *out is NULL after a failure. */
enum status chat_line_open(struct chat_line **out, const struct chat_line_options *options,
                           struct err *err);
void chat_line_close(struct chat_line *l); /* NULL is fine */

/* The next message: well-formed UTF-8, without the end of its last line, valid until the next call;
 * it is in the history then, unless it is empty.
 *   DONE       the end of the input: Ctrl-D on an empty line, or the terminal is gone
 *   AGAIN      Ctrl-C: what was typed is dropped
 *   CANCELLED  SIGTERM */
enum status chat_line_read(struct chat_line *l, const char **text, size_t *n_bytes);

#ifdef __cplusplus
}
#endif
#endif
