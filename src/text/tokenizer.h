/* src/text/tokenizer.h - text to token ids and back: byte-level BPE from a Hugging Face tokenizer.json.
 *
 * Encoding, in this order: bytes that are not UTF-8 become U+FFFD; added tokens are found in the
 * text (src/text/added.h), if asked; what lies between is cut into pieces by the file's own patterns
 * (src/text/pretokenize.h); each piece is merged by rank (src/text/bpe.h). The ids equal those of Hugging
 * Face's `tokenizers`: tests/compare_tokenizer.py. The file's post-processor, truncation and
 * padding are ignored: BOS is put in by whoever wants it, by id. Back to text:
 * src/text/token_decoder.h.
 *
 * ADDED TOKENS. Text from users and files must not be able to produce control tokens: it is
 * encoded with TOKENIZER_PLAIN, where "<think>" is seven letters. Only the renderer's own text is
 * encoded with TOKENIZER_ADDED, or its tokens looked up with tokenizer_added_id.
 *
 * Ownership: a struct tokenizer owns all it hands out; it lives from tokenizer_open to
 * tokenizer_close. Threads: it is never changed after tokenizer_open, so any number of threads
 * may use one; all scratch belongs to the call. Time and memory of a call are linear in the text
 * up to a logarithm, one line of 10 MB included.
 *
 * The file is not trusted: every id, merge and pattern is checked, what is not understood is
 * refused (one line: the file, the place, what was found), never guessed. */
#ifndef SLUICE_SRC_TEXT_TOKENIZER_H
#define SLUICE_SRC_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits on an untrusted file; V4's has 6.4 MB, 129,280 ids and 127,741 merges. */
#define TOKENIZER_MAX_FILE_BYTES ((size_t)256 << 20)
#define TOKENIZER_MAX_IDS        (1u << 20)
#define TOKENIZER_MAX_TEXT_BYTES ((size_t)1 << 30) /* positions in a text are 32 bits */

struct tokenizer;

/* Read a tokenizer.json. On failure *out is NULL.
 *   ERR_MISSING             there is no such file
 *   ERR_IO, ERR_SYSTEM      it cannot be read
 *   ERR_INPUT               no regular file, not JSON, not byte-level BPE, contradicts itself, or
 *                           asks for what sluice does not support; err names the place
 *   ERR_MEMORY */
enum status tokenizer_open(struct tokenizer **out, const char *path, struct err *err);

/* The same from memory; `path` is only for messages. */
enum status tokenizer_parse(struct tokenizer **out, const char *json, size_t n_bytes,
                            const char *path, struct err *err);

void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Ids are below this; some below it may be unused. (The model's vocab_size may be larger.) */
uint32_t tokenizer_n_ids(const struct tokenizer *t);

/* The id of an added token by its exact text ("<｜begin▁of▁sentence｜>"); false if there is none. */
bool tokenizer_added_id(const struct tokenizer *t, const char *content, uint32_t *id);

/* What a token stands for: bytes, not always whole characters. NULL if no token has this id. */
const char *tokenizer_token_bytes(const struct tokenizer *t, uint32_t id, size_t *n_bytes);

/* The largest number of bytes that a token has. */
size_t tokenizer_longest_token(const struct tokenizer *t);

/* Added, and marked "special" in the file. */
bool tokenizer_is_special(const struct tokenizer *t, uint32_t id);

/* A growable list of ids. Begin with {0}; free with token_ids_free. */
struct token_ids {
    uint32_t *id;
    size_t n;
    size_t capacity;
};

enum status token_ids_push(struct token_ids *ids, uint32_t id, struct err *err);
void token_ids_free(struct token_ids *ids);

enum tokenizer_mode {
    TOKENIZER_PLAIN, /* text from users and files: no added token is recognized */
    TOKENIZER_ADDED  /* added tokens in the text become their ids */
};

/* Append the ids of a text. On failure `out` holds what it held before.
 *   ERR_INPUT   the text is too long, or a pattern of the file takes more than linear time on it
 *   ERR_MEMORY */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes,
                             enum tokenizer_mode mode, struct token_ids *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
