#include "src/text/stop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum status stop_open(struct stop *s, const char *const *strings, uint32_t n_strings,
                      size_t piece_bytes, struct err *err) {
    *s = (struct stop){ .strings = strings, .n_strings = n_strings };
    for (uint32_t i = 0; i < n_strings; i++) {
        size_t n = strlen(strings[i]);
        if (n == 0)
            return err_set(err, ERR_USAGE, "--stop: an empty string stops nothing");
        if (n > s->longest)
            s->longest = n;
    }
    s->capacity = s->longest + piece_bytes;
    s->held = malloc(s->longest + 1);
    s->out = malloc(s->capacity + 1);
    if (!s->held || !s->out)
        return err_set(err, ERR_MEMORY, "no memory for stop strings");
    return OK;
}

void stop_close(struct stop *s) {
    free(s->held);
    free(s->out);
    *s = (struct stop){ .held = NULL };
}

// The longest stop string that the held text ends with; 0: none.
static size_t ends_with(const struct stop *s) {
    size_t longest = 0;
    for (uint32_t i = 0; i < s->n_strings; i++) {
        size_t n = strlen(s->strings[i]);
        if (n > longest && n <= s->n_held && memcmp(s->held + s->n_held - n, s->strings[i], n) == 0)
            longest = n;
    }
    return longest;
}

// May the held text, from `at` on, be the beginning of a stop string?
static bool may_begin(const struct stop *s, size_t at) {
    size_t n = s->n_held - at;
    for (uint32_t i = 0; i < s->n_strings; i++)
        if (strlen(s->strings[i]) > n && memcmp(s->held + at, s->strings[i], n) == 0)
            return true;
    return false;
}

static void hand_out(struct stop *s, size_t n, size_t *n_out) {
    assert(*n_out + n <= s->capacity);
    memcpy(s->out + *n_out, s->held, n);
    *n_out += n;
    s->n_held -= n;
    memmove(s->held, s->held + n, s->n_held);
}

const char *stop_push(struct stop *s, const char *piece, size_t n_bytes, size_t *n_out) {
    *n_out = 0;
    if (s->n_strings == 0) {
        *n_out = n_bytes;
        return piece;
    }
    for (size_t i = 0; i < n_bytes && !s->found; i++) {
        s->held[s->n_held++] = piece[i];
        size_t stop = ends_with(s);
        if (stop) {
            hand_out(s, s->n_held - stop, n_out);
            s->n_held = 0;
            s->found = true;
            break;
        }
        size_t certain = 0;
        while (certain < s->n_held && !may_begin(s, certain))
            certain++;
        hand_out(s, certain, n_out);
    }
    return s->out;
}

const char *stop_flush(struct stop *s, size_t *n_out) {
    *n_out = 0;
    if (s->n_strings == 0)
        return "";
    hand_out(s, s->n_held, n_out);
    return s->out;
}
