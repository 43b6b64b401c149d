/* src/text/utf8.h - UTF-8 as it comes from users, files and tokens: possibly broken.
 *
 * One rule decides what a broken byte becomes, here and in the decoder: each maximal subpart of
 * an ill-formed sequence is one U+FFFD (Unicode, section 3.9; what Python's errors="replace" and
 * Rust's from_utf8_lossy do). Surrogates, overlong forms and values above U+10FFFF are ill-formed.
 * Pure functions; no state, no allocation, any thread. */
#ifndef SLUICE_SRC_TEXT_UTF8_H
#define SLUICE_SRC_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UTF8_MAX_BYTES   4
#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

enum utf8_kind {
    UTF8_CHARACTER, /* `bytes` bytes are one character */
    UTF8_BROKEN,    /* `bytes` bytes (1 to 3) are to be replaced by one U+FFFD */
    UTF8_CUT        /* all of `bytes` bytes begin a character that the text does not finish */
};

struct utf8_step {
    enum utf8_kind kind;
    uint32_t bytes;
};

/* What the text begins with; n_bytes > 0. */
struct utf8_step utf8_next(const char *text, size_t n_bytes);

/* How many bytes from the start are well-formed, whole characters. */
size_t utf8_valid_bytes(const char *text, size_t n_bytes);

/* The code point of a well-formed character, and how long it is. */
uint32_t utf8_decode(const char *text, uint32_t *n_bytes);

/* Write a code point (no surrogate, at most U+10FFFF); returns its length, 1 to 4. */
uint32_t utf8_encode(uint32_t code_point, char out[UTF8_MAX_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
