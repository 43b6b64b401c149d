/* src/text/pattern.h - a tokenizer file's regular expression, made ready for PCRE2.
 *
 * Hugging Face's `tokenizers` runs these with Oniguruma (Ruby's syntax), trained models depend on
 * what that library does, and PCRE2 differs from it in places: white space (U+180E), escapes
 * (\h, \v, \w, \Z), nested classes, which Unicode it knows. So a pattern is read here, item by
 * item, and written anew in a form that means the same in PCRE2; what has no such form is
 * refused, with the place. Patterns are untrusted: back references, recursion, callouts and
 * verbs are among what is refused.
 *
 * Understood: literals; . [classes] with ranges and [^negation]; \s \S \d \D \p{..} \P{..} \p{^..}
 * with general categories; \r \n \t \f \v \a \e \xHH \x{H} \uHHHH and escaped
 * punctuation; groups ( (?: (?i: (?= (?! (?<= (?<! (?>; alternatives; * + ? {n,m}, lazy and
 * (for * + ?) possessive.
 *
 * UNICODE. Categories are those of Unicode 16, which `tokenizers` has (0.21 to 0.23 at least):
 * what PCRE2's own tables lack (10.42 has Unicode 14) is added from src/text/pattern_unicode.h. */
#ifndef SLUICE_SRC_TEXT_PATTERN_H
#define SLUICE_SRC_TEXT_PATTERN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stddef.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PATTERN_MAX_BYTES 16384

struct pattern {
    pcre2_code *search;   /* finds the next match */
    pcre2_code *anchored; /* matches at the starting position or not at all */
};

/* Compile (to machine code where the system allows it). `where` begins messages: the file and
 * the step. ERR_INPUT, ERR_MEMORY; pattern_close is safe afterwards either way. */
enum status pattern_open(struct pattern *p, const char *regex, size_t n_bytes, const char *where,
                         struct err *err);

/* The same for a pattern that is a plain string. */
enum status pattern_open_literal(struct pattern *p, const char *string, size_t n_bytes,
                                 const char *where, struct err *err);

void pattern_close(struct pattern *p);

#ifdef __cplusplus
}
#endif
#endif
