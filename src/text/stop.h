/* src/text/stop.h - where generated text ends: strings that stop it, found as it streams.
 *
 * Text goes in as it is generated and comes out once it is certain that no stop string begins in
 * it; a stop string itself, and what follows it, never comes out. The string that is complete first
 * stops (of those that end together, the longest), so which pieces the text arrives in makes no
 * difference. One thread; allocates nothing after stop_open. */
#ifndef SLUICE_SRC_TEXT_STOP_H
#define SLUICE_SRC_TEXT_STOP_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct stop {
    const char *const *strings; /* the caller's */
    uint32_t n_strings;
    size_t longest;
    char *held; /* owned: text that may be the beginning of a stop string */
    size_t n_held;
    char *out; /* owned: what the last call handed out */
    size_t capacity;
    bool found;
};

/* piece_bytes: the longest piece that stop_push will be given. Empty strings are ERR_USAGE. */
enum status stop_open(struct stop *s, const char *const *strings, uint32_t n_strings,
                      size_t piece_bytes, struct err *err);
void stop_close(struct stop *s);

/* Take a piece; returns what is certain now (valid until the next call). After s->found nothing
 * comes out any more. */
const char *stop_push(struct stop *s, const char *piece, size_t n_bytes, size_t *n_out);

/* The end of the text: what was held back. */
const char *stop_flush(struct stop *s, size_t *n_out);

#ifdef __cplusplus
}
#endif
#endif
