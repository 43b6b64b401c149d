/* src/text/added.h - added tokens: fixed strings that become one id wherever they stand in a text.
 *
 * Found before any pattern runs: at the leftmost place, the longest there. As in `tokenizers`
 * there are two classes: those that the file marks `normalized: false` are found first, in the
 * whole text, the others in what is left; V4 has both. Does not change after added_sort: any
 * number of threads may search. */
#ifndef SLUICE_SRC_TEXT_ADDED_H
#define SLUICE_SRC_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bounds the time at one place of the text. V4's longest has 55 bytes. */
#define ADDED_MAX_BYTES 255

struct added_token {
    const char *content; /* owned by the caller */
    uint32_t n_bytes;    /* 1 to ADDED_MAX_BYTES */
    uint32_t id;
};

struct added {
    struct added_token *token; /* ascending by content, after added_sort */
    uint32_t n;
    uint32_t capacity;
    uint32_t first[257]; /* tokens that begin with byte b are first[b] .. first[b + 1] - 1 */
};

/* Begin with {0}. ERR_MEMORY. */
enum status added_push(struct added *a, struct added_token token, struct err *err);
void added_close(struct added *a);

/* After the last push. Returns a token whose content another one has too, or NULL. */
const struct added_token *added_sort(struct added *a);

/* The token with exactly this content, or NULL. */
const struct added_token *added_find(const struct added *a, const char *content, size_t n_bytes);

/* The first token in the text at or after `at`, and where it begins; NULL if there is none. */
const struct added_token *added_next(const struct added *a, const char *text, size_t n_bytes,
                                     size_t at, size_t *begins);

#ifdef __cplusplus
}
#endif
#endif
