/* src/text/json_text.h - JSON read and written exactly as Python's json module does it.
 *
 * The chat format shows the model JSON as json.dumps(value, ensure_ascii=False) prints it, and a
 * byte more or less is another prompt. jansson keeps neither integers beyond 64 bits nor Python's
 * form of floats, so this is a reader and a writer of our own, for that purpose only:
 *   - separators ", " and ": "; keys in their order; of a repeated key the last value counts, at
 *     the first one's place; non-ASCII text as it is
 *   - integers of any size as written (but -0 is 0, as for Python)
 *   - floats as the shortest decimal that reads back the same, in repr's form: 1e-05, 1e+16, 0.1,
 *     3.0; beyond the range: Infinity. NaN, Infinity and -Infinity are read, as Python does
 *   - an escaped surrogate without its other half is U+FFFD (Python keeps it and then fails to
 *     write it)
 *
 * The text is untrusted: UTF-8 and nesting (at most JSON_TEXT_MAX_DEPTH) are checked. Time is
 * linear in it, but for the sort that finds repeated keys; memory at most some 60 times its bytes (a list of digits).
 * A parsed document is never changed: any number of threads may read it. */
#ifndef SLUICE_SRC_TEXT_JSON_TEXT_H
#define SLUICE_SRC_TEXT_JSON_TEXT_H

#include "io/status.h"
#include "src/text/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JSON_TEXT_MAX_DEPTH 512 /* brackets within brackets; real schemas stay below 30 */

enum json_text_kind {
    JSON_TEXT_NULL,
    JSON_TEXT_FALSE,
    JSON_TEXT_TRUE,
    JSON_TEXT_INTEGER,
    JSON_TEXT_FLOAT,
    JSON_TEXT_STRING,
    JSON_TEXT_ARRAY,
    JSON_TEXT_OBJECT
};

/* A value in a document; documents hold all values in the order of the text. */
struct json_text_value {
    enum json_text_kind kind;
    bool replaced;    /* a key that comes again later: no member of its object any more */
    uint32_t n_items; /* of an array; members of an object, repeated keys counted once */
    uint32_t end;     /* index of the first value after this one and all that it contains */
    uint32_t member;  /* of a key: the index of the value that counts */
    struct text text; /* STRING: decoded; INTEGER: its digits; FLOAT: as written */
};

struct json_text {
    struct json_text_value *values; /* owned; the document is values[0] */
    uint32_t n_values;
    uint32_t capacity;
    char *strings; /* owned: what texts point into */
};

/* Read a document. On failure *out is all zero.
 *   ERR_INPUT   not JSON, not UTF-8, too deep or too large: "NAME: not JSON: … at byte N"
 *   ERR_MEMORY */
enum status json_text_parse(struct json_text *out, const char *text, size_t n_bytes,
                            const char *name, struct err *err);
void json_text_free(struct json_text *j); /* all zero is fine */

/* The items of an array, the members of an object:
 *     for (v = json_text_first(j, a); v; v = json_text_next(j, a, v))
 * For an object v is the key (a STRING) and json_text_member its value. NULL: no (more) items. */
const struct json_text_value *json_text_first(const struct json_text *j,
                                              const struct json_text_value *parent);
const struct json_text_value *json_text_next(const struct json_text *j,
                                             const struct json_text_value *parent,
                                             const struct json_text_value *v);
const struct json_text_value *json_text_member(const struct json_text *j,
                                               const struct json_text_value *key);

/* The value of a key; NULL if there is none, or `object` is no object. */
const struct json_text_value *json_text_get(const struct json_text *j,
                                            const struct json_text_value *object, const char *key);

/* A FLOAT as a double; beyond the range it is infinite. */
double json_text_number(const struct json_text_value *value);

/* Append a value as Python prints it. */
void json_text_write(const struct json_text *j, const struct json_text_value *value,
                     struct text_buffer *out);

/* Append a string in quotes, escaped; bytes that are not UTF-8 become U+FFFD. */
void json_text_write_string(struct text text, struct text_buffer *out);

#define JSON_TEXT_FLOAT_BYTES 40

/* Python's repr of a float: "0.1", "1e-05", "Infinity", "NaN"; returns its length. */
size_t json_text_float(double value, char out[JSON_TEXT_FLOAT_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
