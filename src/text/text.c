/* src/text/text.c - see text.h. */
#include "src/text/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct text text_of(const char *string) {
    struct text t = { string, string ? strlen(string) : 0 };
    return t;
}

bool text_equal(struct text a, struct text b) {
    return a.n_bytes == b.n_bytes && (!a.n_bytes || !memcmp(a.bytes, b.bytes, a.n_bytes));
}

bool text_buffer_reserve(struct text_buffer *b, size_t n_bytes) {
    if (b->failed)
        return false;
    if (n_bytes <= b->capacity - b->n_bytes)
        return true;
    // Doubling keeps appends linear; beyond half of the address space nothing is to be had.
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity - b->n_bytes < n_bytes && capacity <= SIZE_MAX / 4)
        capacity *= 2;
    char *bytes = capacity - b->n_bytes < n_bytes ? NULL : realloc(b->bytes, capacity);
    if (!bytes) {
        b->failed = true;
        return false;
    }
    b->bytes = bytes;
    b->capacity = capacity;
    return true;
}

void text_buffer_append(struct text_buffer *b, const char *bytes, size_t n_bytes) {
    if (!n_bytes || !text_buffer_reserve(b, n_bytes))
        return;
    memcpy(b->bytes + b->n_bytes, bytes, n_bytes);
    b->n_bytes += n_bytes;
}

void text_buffer_text(struct text_buffer *b, struct text text) {
    text_buffer_append(b, text.bytes, text.n_bytes);
}

void text_buffer_string(struct text_buffer *b, const char *string) {
    text_buffer_append(b, string, strlen(string));
}

enum status text_buffer_status(const struct text_buffer *b, struct err *err) {
    return b->failed ? err_set(err, ERR_MEMORY, "no memory for a text of %zu bytes", b->n_bytes)
                     : OK;
}

struct text text_buffer_view(const struct text_buffer *b) {
    struct text t = { b->bytes, b->n_bytes };
    return t;
}

void text_buffer_free(struct text_buffer *b) {
    free(b->bytes);
    *b = (struct text_buffer){ .bytes = NULL };
}
