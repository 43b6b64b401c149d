/* src/text/token_decoder.h - ids to text as they come, never half a character.
 *
 * Bytes that may still become a character wait for the next token; what cannot become one is
 * U+FFFD (src/text/utf8.h). All texts handed out, joined, are what decoding all ids at once gives.
 * Never fails: an id without a token is nothing. One thread at a time; nothing is allocated
 * after token_decoder_open. */
#ifndef SLUICE_SRC_TEXT_TOKEN_DECODER_H
#define SLUICE_SRC_TEXT_TOKEN_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/status.h"
#include "src/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct token_decoder {
    const struct tokenizer *t; /* must outlive the decoder */
    bool skip_special;         /* special tokens become nothing instead of their text */
    size_t n_waiting;          /* bytes of `input`: the beginning of a character, 0 to 3 */
    char *input;               /* owned; room for those and any one token */
    char *text;                /* owned; room for what they can become */
};

/* ERR_MEMORY. token_decoder_close is safe afterwards either way. */
enum status token_decoder_open(struct token_decoder *d, const struct tokenizer *t,
                               bool skip_special, struct err *err);
void token_decoder_close(struct token_decoder *d);

/* The longest text, in bytes, that one push can hand out. */
size_t token_decoder_longest(const struct token_decoder *d);

/* The text that a token completes: well-formed UTF-8, not terminated, valid until the next call.
 * May be empty. */
const char *token_decoder_push(struct token_decoder *d, uint32_t id, size_t *n_bytes);

/* The end: U+FFFD if half a character is waiting, else nothing. The decoder may be used again. */
const char *token_decoder_flush(struct token_decoder *d, size_t *n_bytes);

#ifdef __cplusplus
}
#endif
#endif
