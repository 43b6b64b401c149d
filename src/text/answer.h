/* src/text/answer.h - what the model says, taken apart as it streams: reasoning, content, calls.
 *
 * Text goes in as it is generated, in pieces cut anywhere; events come out as soon as they are
 * certain, and nothing reported is ever taken back. The message at the end, and the events joined,
 * are the same for every way of cutting the text.
 *
 *   REASONING --</think>--> CONTENT --⏎⏎<｜DSML｜tool_calls--> CALLS
 *   (thinking mode            ^                                 |
 *    begins here)             +---- </｜DSML｜tool_calls>, or ----+
 *                                   anything that does not belong there
 *
 * WHAT IS WELL-FORMED (the publisher's strict parser accepts it) gives exactly that parser's
 * result: reasoning up to </think>; content up to EOS or the calls; a call is a name and
 * parameters, of which string="true" ones become JSON strings and others are taken as written;
 * EOS, then nothing. The line between a call's name and its first parameter, or its end, may be
 * empty.
 *
 * WHAT IS NOT is kept, as text. The rules, which need no look ahead but for what is held back:
 *   1. EOS ends the answer only as the very last thing in it (it is then no text). Followed by
 *      anything it is text like any other. Without EOS the answer ends where the text ends.
 *   2. Without </think>, all is reasoning: calls inside it are only thought of, not made. Once
 *      content has begun, other special tokens in it (<think>, </think>, ｜DSML｜) are text.
 *   3. A call is reported when its </｜DSML｜invoke> has come and all of it is well-formed: it stays
 *      reported whatever follows. (If the text ends just before that tag's ">", that will do.)
 *   4. What does not belong where calls are (no invoke where one should begin, a name or a parameter
 *      out of form, a parameter twice, the end of the text) ends the block of calls. Everything
 *      from the block's opening "⏎⏎<｜DSML｜tool_calls", or from the end of its last reported call,
 *      is then content, byte for byte, and reading goes on as CONTENT after it: text may follow,
 *      and a new block. The tags of a block that ended properly are nobody's text.
 *   5. A text that ends in "⏎⏎<｜DSML｜tool_calls" ends before it (as for the publisher).
 * Calls come after content in the message, so of a malformed answer the order between them is not
 * kept; of a well-formed one there is nothing to lose. One exception to "exactly that parser's
 * result": it also takes a text that ends right after a call's opening or after a parameter's line,
 * and reports that call without the rest. Here such a call is not whole, so it is text (rule 4).
 *
 * Bytes, not characters: an event is cut within a character only where the input was, or where the
 * input is not UTF-8. Ownership: the parser owns all texts that it hands out. One thread at a time.
 * Time and memory are linear in the answer. */
#ifndef SLUICE_SRC_TEXT_ANSWER_H
#define SLUICE_SRC_TEXT_ANSWER_H

#include "io/status.h"
#include "src/text/chat.h"
#include "src/text/text.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum answer_event_kind {
    ANSWER_REASONING, /* more of the reasoning: text */
    ANSWER_CONTENT,   /* more of the content: text */
    ANSWER_CALL       /* a call, whole: call */
};

struct answer_event {
    enum answer_event_kind kind;
    struct text text;      /* never empty for REASONING and CONTENT */
    struct chat_call call; /* id is empty; arguments are {"key": value, …} in their order */
};

struct answer_parser;

/* `mode`: that of the prompt. On failure (ERR_MEMORY) *out is NULL. */
enum status answer_open(struct answer_parser **out, enum chat_mode mode, struct err *err);
void answer_close(struct answer_parser *p); /* NULL is fine */

/* Take a piece of the answer. ERR_MEMORY is the only error; the parser is then of no more use. Not
 * after answer_finish. */
enum status answer_push(struct answer_parser *p, const char *piece, size_t n_bytes,
                        struct err *err);

/* The text has ended: what was held back becomes certain. Take the last events, then the message. */
enum status answer_finish(struct answer_parser *p, struct err *err);

/* The next event of those that are certain; false if there is none until more is pushed. An event's
 * texts are valid until the next call with this parser. Events of one kind that follow each other
 * between two pushes are one. Need not be called: the message is complete without. */
bool answer_next(struct answer_parser *p, struct answer_event *event);

/* Bytes that have come and are not yet certain. Large while a call is being written: a sign of life
 * for a display. */
size_t answer_held(const struct answer_parser *p);
bool answer_in_calls(const struct answer_parser *p); /* a block of calls is open */

/* The message so far (whole after answer_finish): an assistant's, for chat_append. Its texts are
 * the parser's, valid until the next answer_push or answer_finish, or answer_close. */
struct chat_message answer_message(const struct answer_parser *p);

/* Append a message as the publisher's parser prints it, without a newline:
 * {"role": "assistant", "content": "…", "reasoning_content": "…", "tool_calls": […]}. Bytes that
 * are not UTF-8 become U+FFFD. */
enum status answer_to_json(const struct chat_message *message, struct text_buffer *out,
                           struct err *err);

#ifdef __cplusplus
}
#endif
#endif
