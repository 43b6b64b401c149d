/* src/text/tokenizer_make.h - a working tokenizer.json of any size, for checkpoints with random weights.
 *
 * In the published form: byte-level BPE, V4's pre-tokenizer, its control tokens. Ids: BOS 0, EOS 1,
 * padding 2, the 256 bytes from 3 on, then merges (the commonest English words, then made-up ones of
 * two and three syllables) and, at the end, the chat format's tokens. So every id below n_ids
 * decodes to something, and any text encodes. A function of n_ids alone. */
#ifndef SLUICE_SRC_TEXT_TOKENIZER_MAKE_H
#define SLUICE_SRC_TEXT_TOKENIZER_MAKE_H

#include <stdint.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes and control tokens, no merges. The most is TOKENIZER_MAX_IDS. */
#define TOKENIZER_MAKE_LEAST 271

/* Write the file, replacing one that is there.
 *   ERR_USAGE   n_ids is out of bounds
 *   ERR_IO      err says what the system said
 *   ERR_MEMORY */
enum status tokenizer_make(const char *path, uint32_t n_ids, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
