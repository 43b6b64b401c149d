#include "src/text/added.h"

#include <stdlib.h>
#include <string.h>

enum status added_push(struct added *a, struct added_token token, struct err *err) {
    if (a->n == a->capacity) {
        uint32_t capacity = a->capacity ? a->capacity * 2 : 64;
        struct added_token *bigger = realloc(a->token, capacity * sizeof *bigger);
        if (!bigger)
            return err_set(err, ERR_MEMORY, "no memory for the tokenizer's added tokens");
        a->token = bigger;
        a->capacity = capacity;
    }
    a->token[a->n++] = token;
    return OK;
}

void added_close(struct added *a) {
    free(a->token);
    *a = (struct added){ .token = NULL };
}

static int compare_bytes(const char *x, size_t n_x, const char *y, size_t n_y) {
    int order = memcmp(x, y, n_x < n_y ? n_x : n_y);
    return order ? order : (n_x > n_y) - (n_x < n_y);
}

static int compare_tokens(const void *x, const void *y) {
    const struct added_token *a = x, *b = y;
    return compare_bytes(a->content, a->n_bytes, b->content, b->n_bytes);
}

const struct added_token *added_sort(struct added *a) {
    if (a->n)
        qsort(a->token, a->n, sizeof *a->token, compare_tokens);
    uint32_t i = 0;
    for (int byte = 0; byte < 256; byte++) {
        a->first[byte] = i;
        while (i < a->n && (unsigned char)a->token[i].content[0] == byte)
            i++;
    }
    a->first[256] = a->n;
    for (i = 1; i < a->n; i++)
        if (compare_tokens(&a->token[i - 1], &a->token[i]) == 0)
            return &a->token[i];
    return NULL;
}

const struct added_token *added_find(const struct added *a, const char *content, size_t n_bytes) {
    uint32_t low = 0, high = a->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct added_token *t = &a->token[middle];
        int order = compare_bytes(t->content, t->n_bytes, content, n_bytes);
        if (order == 0)
            return t;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Within [low, high), whose tokens share their first `depth` bytes: those that go on with `byte`.
 * One that ends there sorts before all that go on. */
static void narrow(const struct added *a, uint32_t depth, unsigned char byte, uint32_t *low,
                   uint32_t *high) {
    uint32_t bound[2];
    for (int upper = 0; upper < 2; upper++) {
        uint32_t from = *low, to = *high;
        while (from < to) {
            uint32_t middle = from + (to - from) / 2;
            const struct added_token *t = &a->token[middle];
            int next = t->n_bytes > depth ? (unsigned char)t->content[depth] : -1;
            if (next < byte + upper)
                from = middle + 1;
            else
                to = middle;
        }
        bound[upper] = from;
    }
    *low = bound[0];
    *high = bound[1];
}

/* The longest token that begins exactly here. */
static const struct added_token *longest_at(const struct added *a, const char *text, size_t left) {
    uint32_t low = a->first[(unsigned char)text[0]], high = a->first[(unsigned char)text[0] + 1];
    const struct added_token *longest = NULL;
    for (uint32_t depth = 1; low < high; depth++) {
        if (a->token[low].n_bytes == depth) // it sorts first among those that share these bytes
            longest = &a->token[low];
        if (depth == left)
            break;
        narrow(a, depth, (unsigned char)text[depth], &low, &high);
    }
    return longest;
}

const struct added_token *added_next(const struct added *a, const char *text, size_t n_bytes,
                                     size_t at, size_t *begins) {
    for (; a->n && at < n_bytes; at++) {
        unsigned char byte = (unsigned char)text[at];
        if (a->first[byte] == a->first[byte + 1])
            continue;
        const struct added_token *t = longest_at(a, text + at, n_bytes - at);
        if (t) {
            *begins = at;
            return t;
        }
    }
    return NULL;
}
