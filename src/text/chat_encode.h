/* src/text/chat_encode.h - a rendered conversation as token ids.
 *
 * Control pieces become the ids of their tokens, text is encoded with added tokens off: nothing
 * that a user, a file or a tool wrote can become a control token. Ids equal those of the whole
 * prompt encoded with TOKENIZER_ADDED wherever no text spells a special token. */
#ifndef SLUICE_SRC_TEXT_CHAT_ENCODE_H
#define SLUICE_SRC_TEXT_CHAT_ENCODE_H

#include "io/status.h"
#include "src/text/chat.h"
#include "src/text/tokenizer.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Append the ids of the prompt from byte `from` on (0: all of it; chat_prompt.message_at: from a
 * message on). `from` may lie within a text piece, which is then cut there, but not within a
 * control piece. On failure `out` holds what it held before.
 *   ERR_INPUT   the tokenizer lacks one of the format's tokens (err names it), or tokenizer_encode
 *               refuses the text
 *   ERR_MEMORY */
enum status chat_encode(const struct tokenizer *t, const struct chat_prompt *prompt, size_t from,
                        struct token_ids *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
