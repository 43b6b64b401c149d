/* src/text/pretokenize.h - a text into the pieces that BPE merges within: the file's `pre_tokenizer`.
 *
 * A sequence of Split steps and a ByteLevel step at the end, as V4's file has it. Each step cuts
 * every piece of the one before it; a pattern sees its own piece only, as in `tokenizers`.
 *
 * HOSTILE PATTERNS. A pattern is matched within a window of PRETOKENIZE_WINDOW bytes; an attempt
 * that would look beyond it is repeated from that one position with a larger window and charged
 * to a budget linear in the text; the steps of one attempt are limited in proportion to its
 * window. So a pattern takes linear time or ends as ERR_INPUT: no backtracking, no quadratic
 * scan, however it is written.
 *
 * A struct pretokenizer does not change after it is opened: any number of threads may use one. */
#ifndef SLUICE_SRC_TEXT_PRETOKENIZE_H
#define SLUICE_SRC_TEXT_PRETOKENIZE_H

#include <jansson.h>
#include <stddef.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PRETOKENIZE_MAX_STEPS 16
/* Longer than nearly every piece, short enough that a pattern which fails at each position of
 * it costs little: 1024 positions x 26,384 steps at worst. */
#define PRETOKENIZE_WINDOW 1024

struct pretokenizer;

/* From the file's `pre_tokenizer` value. ERR_INPUT names `path` and the step; ERR_MEMORY. */
enum status pretokenizer_open(struct pretokenizer **out, const json_t *spec, const char *path,
                              struct err *err);
void pretokenizer_close(struct pretokenizer *p); /* NULL is fine */

/* Called with each piece, in order, never empty; the bytes are valid during the call only. Any
 * status but OK ends the walk and is returned. */
typedef enum status (*pretokenize_piece)(void *user, const char *piece, size_t n_bytes,
                                         struct err *err);

/* What one thread needs to run the patterns; reused from text to text. */
struct pretokenize_scratch;
enum status pretokenize_scratch_open(struct pretokenize_scratch **out, size_t text_bytes,
                                     struct err *err);
void pretokenize_scratch_close(struct pretokenize_scratch *s); /* NULL is fine */

/* Cut well-formed UTF-8. `text_bytes` of the scratch bounds what one scratch may be asked to cut
 * in all: the budget comes from it. */
enum status pretokenize(const struct pretokenizer *p, struct pretokenize_scratch *scratch,
                        const char *text, size_t n_bytes, pretokenize_piece piece, void *user,
                        struct err *err);

#ifdef __cplusplus
}
#endif
#endif
