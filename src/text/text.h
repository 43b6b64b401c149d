/* src/text/text.h - text with a length: borrowed (struct text) and growing (struct text_buffer).
 *
 * Texts of a conversation may hold any byte, NUL included, so none of them is a C string.
 *
 * A text_buffer that cannot grow remembers it and takes nothing more: a writer appends without
 * looking and asks once at the end (text_buffer_status). One thread at a time. */
#ifndef SLUICE_SRC_TEXT_TEXT_H
#define SLUICE_SRC_TEXT_TEXT_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed; {NULL, 0} is the empty text. */
struct text {
    const char *bytes;
    size_t n_bytes;
};

/* A text from a C string; NULL gives the empty one. */
struct text text_of(const char *string);
bool text_equal(struct text a, struct text b);

/* Begin with {0}. `bytes` may move with every append; it is not terminated. */
struct text_buffer {
    char *bytes; /* owned */
    size_t n_bytes;
    size_t capacity;
    bool failed; /* some append found no memory: the content is worthless */
};

/* Room for n_bytes more, to be written at bytes + n_bytes by the caller; false if there is none. */
bool text_buffer_reserve(struct text_buffer *b, size_t n_bytes);
void text_buffer_append(struct text_buffer *b, const char *bytes, size_t n_bytes);
void text_buffer_text(struct text_buffer *b, struct text text);
void text_buffer_string(struct text_buffer *b, const char *string);

/* OK, or ERR_MEMORY if an append failed. */
enum status text_buffer_status(const struct text_buffer *b, struct err *err);

/* What the buffer holds, valid until it is changed. */
struct text text_buffer_view(const struct text_buffer *b);
void text_buffer_free(struct text_buffer *b); /* back to {0} */

#ifdef __cplusplus
}
#endif
#endif
