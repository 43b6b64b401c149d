/* src/text/json_text.c - see json_text.h. The reader; the writer is below it. */
#include "src/text/json_text.h"

#include "src/text/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)1 << 30) /* a value takes a byte and a separator: indices fit 32 bits */

struct key {
    struct text text;
    uint32_t index;
};

struct reader {
    const char *text;
    size_t n_bytes;
    size_t at;
    struct json_text *out;
    size_t n_strings; /* bytes of out->strings in use; never more than were read */
    struct key *keys; /* of the objects that are open, the innermost's last */
    size_t n_keys, keys_capacity;
    unsigned depth;
    const char *name;
    struct err *err;
};

static bool refuse(struct reader *r, const char *what) {
    err_set(r->err, ERR_INPUT, "%s: not JSON: %s at byte %zu", r->name, what, r->at);
    return false;
}

static bool no_memory(struct reader *r) {
    err_set(r->err, ERR_MEMORY, "%s: no memory for JSON of %zu bytes", r->name, r->n_bytes);
    return false;
}

/* The byte ahead, or -1 at the end. */
static int ahead(const struct reader *r) {
    return r->at < r->n_bytes ? (unsigned char)r->text[r->at] : -1;
}

static void skip_space(struct reader *r) {
    while (ahead(r) == ' ' || ahead(r) == '\n' || ahead(r) == '\t' || ahead(r) == '\r')
        r->at++;
}

static bool take(struct reader *r, const char *word) {
    const size_t n = strlen(word);
    if (r->n_bytes - r->at < n || memcmp(r->text + r->at, word, n))
        return false;
    r->at += n;
    return true;
}

/* --- values --- */

static bool add(struct reader *r, enum json_text_kind kind, struct text text) {
    struct json_text *j = r->out;
    if (j->n_values == j->capacity) {
        const uint32_t capacity = j->capacity ? 2 * j->capacity : 16;
        struct json_text_value *values = realloc(j->values, capacity * sizeof *values);
        if (!values)
            return no_memory(r);
        j->values = values;
        j->capacity = capacity;
    }
    j->values[j->n_values] =
        (struct json_text_value){ .kind = kind, .end = j->n_values + 1, .text = text };
    j->n_values++;
    return true;
}

/* --- strings --- */

static bool hex4(struct reader *r, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        const int c = ahead(r);
        const int lower = c | 0x20;
        if (c >= '0' && c <= '9')
            *unit = *unit * 16 + (uint32_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f')
            *unit = *unit * 16 + (uint32_t)(lower - 'a' + 10);
        else
            return refuse(r, "not four hexadecimal digits after \\u");
    }
    return true;
}

/* After "\u": one character, of one or two escapes. Six bytes or twelve become at most four. */
static bool read_unicode(struct reader *r) {
    uint32_t unit;
    if (!hex4(r, &unit))
        return false;
    if (unit >= 0xD800 && unit < 0xDC00) {
        const size_t after = r->at;
        uint32_t low;
        if (take(r, "\\u")) {
            if (!hex4(r, &low))
                return false;
            if (low >= 0xDC00 && low < 0xE000)
                unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            else
                r->at = after; // an escape of its own
        }
    }
    if (unit >= 0xD800 && unit < 0xE000)
        unit = 0xFFFD;
    r->n_strings += utf8_encode(unit, r->out->strings + r->n_strings);
    return true;
}

static bool read_escape(struct reader *r) {
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const int c = ahead(r);
    if (c == 'u') {
        r->at++;
        return read_unicode(r);
    }
    const char *found = c > 0 ? strchr(letters, c) : NULL;
    if (!found)
        return refuse(r, "an unknown escape");
    r->at++;
    r->out->strings[r->n_strings++] = meant[found - letters];
    return true;
}

/* What needs no change, up to a quote, a backslash or the end. UTF-8 was checked at the start. */
static void read_run(struct reader *r) {
    const size_t begin = r->at;
    while (ahead(r) >= 0x20 && ahead(r) != '"' && ahead(r) != '\\')
        r->at++;
    memcpy(r->out->strings + r->n_strings, r->text + begin, r->at - begin);
    r->n_strings += r->at - begin;
}

static bool read_string(struct reader *r) {
    const size_t begin = r->n_strings;
    r->at++; // the quote
    for (;;) {
        read_run(r);
        if (ahead(r) < 0)
            return refuse(r, "a string does not end");
        if (ahead(r) < 0x20)
            return refuse(r, "a control character in a string");
        if (r->text[r->at++] == '"')
            break;
        if (!read_escape(r))
            return false;
    }
    struct text text = { r->out->strings + begin, r->n_strings - begin };
    return add(r, JSON_TEXT_STRING, text);
}

/* --- numbers --- */

static bool digits(struct reader *r) {
    const size_t begin = r->at;
    while (ahead(r) >= '0' && ahead(r) <= '9')
        r->at++;
    return r->at > begin;
}

/* A number's text, terminated for strtod: the byte that ended the number pays for the NUL. */
static struct text number_text(struct reader *r, size_t begin) {
    struct text text = { r->out->strings + r->n_strings, r->at - begin };
    memcpy(r->out->strings + r->n_strings, r->text + begin, text.n_bytes);
    r->n_strings += text.n_bytes;
    r->out->strings[r->n_strings++] = 0;
    return text;
}

static bool read_number(struct reader *r) {
    const size_t begin = r->at;
    bool whole = true;
    if (take(r, "NaN") || take(r, "Infinity") || take(r, "-Infinity"))
        return add(r, JSON_TEXT_FLOAT, number_text(r, begin));
    take(r, "-");
    if (!take(r, "0") && !digits(r))
        return refuse(r, "no value");
    if (take(r, ".")) {
        whole = false;
        if (!digits(r))
            return refuse(r, "no digit after the point");
    }
    if (take(r, "e") || take(r, "E")) {
        whole = false;
        if (!take(r, "+"))
            take(r, "-");
        if (!digits(r))
            return refuse(r, "no digit in the exponent");
    }
    if (!whole)
        return add(r, JSON_TEXT_FLOAT, number_text(r, begin));
    struct text text = number_text(r, begin);
    return add(r, JSON_TEXT_INTEGER, text_equal(text, text_of("-0")) ? text_of("0") : text);
}

/* --- lists and objects --- */

static bool read_value(struct reader *r);

static bool enter(struct reader *r, enum json_text_kind kind, uint32_t *index) {
    if (r->depth == JSON_TEXT_MAX_DEPTH)
        return refuse(r, "too many brackets within brackets");
    *index = r->out->n_values;
    r->depth++;
    r->at++; // the bracket
    return add(r, kind, text_of(NULL));
}

static bool leave(struct reader *r, uint32_t index, size_t n_items) {
    r->depth--;
    r->out->values[index].n_items = (uint32_t)n_items;
    r->out->values[index].end = r->out->n_values;
    return true;
}

static bool read_array(struct reader *r) {
    uint32_t index;
    size_t n_items = 0;
    if (!enter(r, JSON_TEXT_ARRAY, &index))
        return false;
    skip_space(r);
    if (take(r, "]"))
        return leave(r, index, 0);
    do {
        if (!read_value(r))
            return false;
        n_items++;
        skip_space(r);
    } while (take(r, ","));
    return take(r, "]") ? leave(r, index, n_items) : refuse(r, "no , or ] after an item");
}

static bool add_key(struct reader *r) {
    if (r->n_keys == r->keys_capacity) {
        const size_t capacity = r->keys_capacity ? 2 * r->keys_capacity : 16;
        struct key *keys = realloc(r->keys, capacity * sizeof *keys);
        if (!keys)
            return no_memory(r);
        r->keys = keys;
        r->keys_capacity = capacity;
    }
    const uint32_t index = r->out->n_values - 1;
    r->keys[r->n_keys++] = (struct key){ r->out->values[index].text, index };
    return true;
}

static int compare_keys(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    const size_t n = x->text.n_bytes < y->text.n_bytes ? x->text.n_bytes : y->text.n_bytes;
    const int order = n ? memcmp(x->text.bytes, y->text.bytes, n) : 0;
    if (order || x->text.n_bytes != y->text.n_bytes)
        return order ? order : x->text.n_bytes < y->text.n_bytes ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Of a repeated key the last value counts, at the first one's place: as in a Python dict. Takes the
 * keys from `begin` on; returns how many are left. */
static size_t resolve_keys(struct reader *r, size_t begin) {
    struct json_text_value *values = r->out->values;
    size_t n_left = r->n_keys - begin;
    if (n_left > 1)
        qsort(r->keys + begin, n_left, sizeof *r->keys, compare_keys);
    for (size_t first = begin, i = begin + 1; i < r->n_keys; i++) {
        if (!text_equal(r->keys[i].text, r->keys[first].text)) {
            first = i;
            continue;
        }
        values[r->keys[first].index].member = values[r->keys[i].index].member;
        values[r->keys[i].index].replaced = true;
        n_left--;
    }
    r->n_keys = begin;
    return n_left;
}

static bool read_member(struct reader *r) {
    skip_space(r);
    const uint32_t key = r->out->n_values;
    if (ahead(r) != '"')
        return refuse(r, "no key in quotes");
    if (!read_string(r) || !add_key(r))
        return false;
    skip_space(r);
    if (!take(r, ":"))
        return refuse(r, "no : after a key");
    r->out->values[key].member = r->out->n_values;
    if (!read_value(r))
        return false;
    r->out->values[key].end = r->out->n_values;
    return true;
}

static bool read_object(struct reader *r) {
    uint32_t index;
    const size_t begin = r->n_keys;
    if (!enter(r, JSON_TEXT_OBJECT, &index))
        return false;
    skip_space(r);
    if (take(r, "}"))
        return leave(r, index, 0);
    do {
        if (!read_member(r))
            return false;
        skip_space(r);
    } while (take(r, ","));
    return take(r, "}") ? leave(r, index, resolve_keys(r, begin))
                        : refuse(r, "no , or } after a member");
}

static bool read_value(struct reader *r) {
    skip_space(r);
    switch (ahead(r)) {
    case '{':
        return read_object(r);
    case '[':
        return read_array(r);
    case '"':
        return read_string(r);
    }
    if (take(r, "null"))
        return add(r, JSON_TEXT_NULL, text_of(NULL));
    if (take(r, "true"))
        return add(r, JSON_TEXT_TRUE, text_of(NULL));
    if (take(r, "false"))
        return add(r, JSON_TEXT_FALSE, text_of(NULL));
    return read_number(r);
}

static bool read_document(struct reader *r) {
    if (r->n_bytes > MAX_BYTES)
        return refuse(r, "more than 1 GiB");
    r->at = utf8_valid_bytes(r->text, r->n_bytes);
    if (r->at < r->n_bytes)
        return refuse(r, "a byte that is not UTF-8");
    r->at = 0;
    r->out->strings = malloc(r->n_bytes + 1);
    if (!r->out->strings)
        return no_memory(r);
    if (!read_value(r))
        return false;
    skip_space(r);
    return r->at == r->n_bytes || refuse(r, "something after the value");
}

enum status json_text_parse(struct json_text *out, const char *text, size_t n_bytes,
                            const char *name, struct err *err) {
    struct err local = { .status = OK };
    struct reader r = { .text = text, .n_bytes = n_bytes, .out = out, .name = name, .err = &local };
    *out = (struct json_text){ .values = NULL };
    const bool read = read_document(&r);
    free(r.keys);
    if (read)
        return OK;
    json_text_free(out);
    return err_set(err, local.status, "%s", local.text);
}

void json_text_free(struct json_text *j) {
    free(j->values);
    free(j->strings);
    *j = (struct json_text){ .values = NULL };
}

/* --- walking --- */

static const struct json_text_value *at_index(const struct json_text *j, uint32_t index,
                                              const struct json_text_value *parent) {
    while (index < parent->end && j->values[index].replaced)
        index = j->values[index].end;
    return index < parent->end ? &j->values[index] : NULL;
}

const struct json_text_value *json_text_first(const struct json_text *j,
                                              const struct json_text_value *parent) {
    return at_index(j, (uint32_t)(parent - j->values) + 1, parent);
}

const struct json_text_value *json_text_next(const struct json_text *j,
                                             const struct json_text_value *parent,
                                             const struct json_text_value *v) {
    return at_index(j, v->end, parent);
}

const struct json_text_value *json_text_member(const struct json_text *j,
                                               const struct json_text_value *key) {
    return &j->values[key->member];
}

const struct json_text_value *json_text_get(const struct json_text *j,
                                            const struct json_text_value *object, const char *key) {
    if (object->kind != JSON_TEXT_OBJECT)
        return NULL;
    const struct json_text_value *k = json_text_first(j, object);
    while (k && !text_equal(k->text, text_of(key)))
        k = json_text_next(j, object, k);
    return k ? json_text_member(j, k) : NULL;
}
