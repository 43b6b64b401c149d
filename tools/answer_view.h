/* tools/answer_view.h - an answer as it is shown while it streams, and the message that it makes.
 *
 * Content goes to standard output. Reasoning goes to standard error, dimmed on a terminal, and so do
 * calls once they are whole: what a pipe gets is the answer alone. With --json nothing is shown; the
 * message is printed at the end.
 *
 * Random or hostile text must not steer a terminal: where one of the two is a terminal, control
 * characters but for line ends and tabs become U+FFFD there. A file or a pipe gets every byte. */
#ifndef SLUICE_TOOLS_ANSWER_VIEW_H
#define SLUICE_TOOLS_ANSWER_VIEW_H

#include "src/text/answer.h"
#include "tools/terminal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct answer_view {
    struct answer_parser *parser;
    const struct terminal *terminal; /* of standard error */
    bool out_is_terminal;
    bool quiet;     /* nothing streams */
    bool reasoning; /* the last that was shown was reasoning: it is dimmed now */
    bool shown;     /* some content */
    char last;      /* its last byte */
    bool held_c2;   /* a byte that may begin a control character of two */
};

/* Begin an answer. ERR_MEMORY. Closable after any result. */
enum status answer_view_open(struct answer_view *v, enum chat_mode mode,
                             const struct terminal *terminal, bool quiet, struct err *err);
void answer_view_close(struct answer_view *v);

/* A piece of text: the take() of a text_sink, whose context is the view. ERR_IO, ERR_MEMORY. */
enum status answer_view_take(void *view, const char *text, size_t n_bytes, struct err *err);

/* The text has ended: show the rest, and end the last line. *message is the view's. */
enum status answer_view_finish(struct answer_view *v, struct chat_message *message,
                               struct err *err);

#ifdef __cplusplus
}
#endif
#endif
