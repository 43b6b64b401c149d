#include "src/text/pattern.h"
#include "src/text/pattern_unicode.h"
#include "src/text/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* White_Space of Unicode, which is Oniguruma's \s; PCRE2's own has U+180E besides. */
static const uint32_t SPACE[][2] = { { 0x09, 0x0D },     { 0x20, 0x20 },     { 0x85, 0x85 },
                                     { 0xA0, 0xA0 },     { 0x1680, 0x1680 }, { 0x2000, 0x200A },
                                     { 0x2028, 0x2029 }, { 0x202F, 0x202F }, { 0x205F, 0x205F },
                                     { 0x3000, 0x3000 } };
#define N_SPACE (sizeof SPACE / sizeof SPACE[0])

struct translation {
    const char *regex;
    size_t n_bytes;
    size_t at;
    const char *where;
    bool ignores_case; /* somewhere there is a (?i: */
    bool names_case;   /* somewhere there is a \p{Lu}, \p{Ll} or \p{Lt} */
    char *out;
    size_t n_out;
    size_t out_capacity;
    struct err *err;
};

static enum status refuse(struct translation *t, const char *what) {
    return err_set(t->err, ERR_INPUT, "%s: pattern, byte %zu: %s is not supported", t->where, t->at,
                   what);
}

/* ---- writing the pattern anew ---- */

static __attribute__((format(printf, 2, 3))) enum status emit(struct translation *t,
                                                              const char *format, ...) {
    if (t->out_capacity - t->n_out < 64) { // no call writes as much
        size_t capacity = t->out_capacity * 2 + 1024;
        char *out = realloc(t->out, capacity);
        if (!out)
            return err_set(t->err, ERR_MEMORY, "%s: no memory for a pattern", t->where);
        t->out = out;
        t->out_capacity = capacity;
    }
    va_list args;
    va_start(args, format);
    t->n_out += (size_t)vsnprintf(t->out + t->n_out, 64, format, args);
    va_end(args);
    return OK;
}

static enum status emit_char(struct translation *t, uint32_t c) {
    bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return plain ? emit(t, "%c", (int)c) : emit(t, "\\x{%" PRIX32 "}", c);
}

static enum status emit_range(struct translation *t, uint32_t first, uint32_t last) {
    if (emit_char(t, first) != OK)
        return ERR_MEMORY;
    if (last == first)
        return OK;
    return emit(t, "-") != OK || emit_char(t, last) != OK ? ERR_MEMORY : OK;
}

/* The inside of a class: white space, or all that is not. */
static enum status emit_space(struct translation *t, bool negated) {
    uint32_t next = 0;
    for (size_t i = 0; i < N_SPACE; i++) {
        enum status s = negated ? emit_range(t, next, SPACE[i][0] - 1)
                                : emit_range(t, SPACE[i][0], SPACE[i][1]);
        if (s != OK)
            return s;
        next = SPACE[i][1] + 1;
    }
    // The surrogates need no care: they are no characters, and never in well-formed text.
    return negated ? emit_range(t, next, 0x10FFFF) : OK;
}

/* The inside of a class: a general category, of one letter or two. */
static enum status emit_category(struct translation *t, const char *category) {
    if (emit(t, "\\p{%s}", category) != OK)
        return ERR_MEMORY;
    size_t n = sizeof UNICODE_ADDITIONS / sizeof UNICODE_ADDITIONS[0];
    for (size_t i = 0; i < n; i++) {
        const struct unicode_addition *a = &UNICODE_ADDITIONS[i];
        if (!strncmp(a->category, category, strlen(category)) &&
            emit_range(t, a->first, a->last) != OK)
            return ERR_MEMORY;
    }
    return OK;
}

/* ---- reading items ---- */

static bool at_end(const struct translation *t) {
    return t->at >= t->n_bytes;
}

static char peek(const struct translation *t, size_t ahead) {
    return t->at + ahead < t->n_bytes ? t->regex[t->at + ahead] : '\0';
}

static uint32_t take_char(struct translation *t) {
    uint32_t n_bytes, c = utf8_decode(t->regex + t->at, &n_bytes);
    t->at += n_bytes;
    return c;
}

/* Hexadecimal digits, at least one, at most `most`; returns how many. */
static int take_hex(struct translation *t, int most, uint32_t *value) {
    int n = 0;
    *value = 0;
    for (; n < most; n++) {
        char c = peek(t, 0);
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        else
            break;
        *value = *value * 16 + digit;
        t->at++;
    }
    return n;
}

/* What follows \x or \u. */
static enum status take_code(struct translation *t, char kind, uint32_t *c) {
    bool good;
    if (kind == 'u') {
        good = take_hex(t, 4, c) == 4;
    } else if (peek(t, 0) == '{') {
        t->at++;
        good = take_hex(t, 6, c) > 0 && peek(t, 0) == '}';
        t->at += good;
    } else {
        good = take_hex(t, 2, c) == 2 && *c < 0x80; // above: a byte, half a character
    }
    if (!good || *c == 0 || *c > 0x10FFFF || (*c >= 0xD800 && *c <= 0xDFFF))
        return refuse(t, "this \\x or \\u escape");
    return OK;
}

enum item_kind { ITEM_CHAR, ITEM_SPACE, ITEM_CATEGORY };

struct item {
    enum item_kind kind;
    bool negated;
    uint32_t c;
    char category[3];
};

/* What follows \p or \P: {L}, {Nd}, {^L}. */
static enum status take_property(struct translation *t, char kind, struct item *item) {
    // Not among them: Mn, Mc, Me (one character moved since Unicode 14), Cf, Co, Cn, scripts.
    static const char CATEGORY[][3] = { "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "N",  "Nd", "Nl",
                                        "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",
                                        "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc" };
    size_t start = t->at;
    item->kind = ITEM_CATEGORY;
    item->negated = kind == 'P';
    t->at += peek(t, 0) == '{';
    if (peek(t, 0) == '^') {
        item->negated = !item->negated;
        t->at++;
    }
    const char *name = t->regex + t->at;
    const char *close = memchr(name, '}', t->n_bytes - t->at);
    size_t n = close ? (size_t)(close - name) : 0;
    for (size_t i = 0; n && i < sizeof CATEGORY / sizeof CATEGORY[0]; i++)
        if (strlen(CATEGORY[i]) == n && !memcmp(CATEGORY[i], name, n)) {
            memcpy(item->category, CATEGORY[i], 3);
            t->names_case |= n == 2 && name[0] == 'L' && strchr("ult", name[1]);
            t->at += n + 1;
            return OK;
        }
    t->at = start;
    return refuse(t, "this \\p{property}");
}

/* What follows a backslash, inside a class or outside. */
static enum status take_escape(struct translation *t, struct item *item) {
    static const char NAMED[] = "rntfvae";
    static const char MEANT[] = "\r\n\t\f\v\a\x1B";
    *item = (struct item){ .kind = ITEM_CHAR };
    if (at_end(t))
        return refuse(t, "a backslash at the end");
    uint32_t c = take_char(t);
    if (c == 'x' || c == 'u')
        return take_code(t, (char)c, &item->c);
    if (c == 'p' || c == 'P')
        return take_property(t, (char)c, item);
    if (c == 's' || c == 'S') {
        item->kind = ITEM_SPACE;
        item->negated = c == 'S';
        return OK;
    }
    if (c == 'd' || c == 'D') {
        *item = (struct item){ .kind = ITEM_CATEGORY, .negated = c == 'D', .category = "Nd" };
        return OK;
    }
    const char *named = c < 0x80 ? strchr(NAMED, (int)c) : NULL;
    item->c = named ? (uint32_t)MEANT[named - NAMED] : c;
    bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if ((letter && !named) || c >= 0x80) {
        t->at--;
        return refuse(t, "this escape");
    }
    return OK;
}

static enum status emit_in_class(struct translation *t, const struct item *item) {
    if (item->kind == ITEM_SPACE)
        return emit_space(t, item->negated);
    if (item->kind == ITEM_CHAR)
        return emit_char(t, item->c);
    // What is not in a category of Unicode 16 is no union of what PCRE2 knows.
    return item->negated ? refuse(t, "a negated category inside [ ]")
                         : emit_category(t, item->category);
}

/* An item outside a class: what is not a character becomes a class of its own. */
static enum status emit_alone(struct translation *t, struct item item) {
    if (item.kind == ITEM_CHAR)
        return emit_char(t, item.c);
    enum status s = emit(t, item.negated ? "[^" : "[");
    item.negated = false;
    if (s == OK)
        s = emit_in_class(t, &item);
    return s == OK ? emit(t, "]") : s;
}

/* One character or escape of a class. */
static enum status take_class_item(struct translation *t, struct item *item) {
    if (peek(t, 0) == '[')
        return refuse(t, "[ inside [ ]");
    if (peek(t, 0) == '&' && peek(t, 1) == '&')
        return refuse(t, "&& inside [ ]");
    if (peek(t, 0) == '\\') {
        t->at++;
        return take_escape(t, item);
    }
    *item = (struct item){ .kind = ITEM_CHAR, .c = take_char(t) };
    return OK;
}

/* After an opening bracket, to its closing one. */
static enum status translate_class(struct translation *t) {
    bool negated = peek(t, 0) == '^';
    t->at += negated;
    if (peek(t, 0) == ']')
        return refuse(t, "] first in [ ]");
    enum status s = emit(t, negated ? "[^" : "[");
    while (s == OK && peek(t, 0) != ']') {
        if (at_end(t))
            return refuse(t, "[ without ]");
        struct item first, last;
        s = take_class_item(t, &first);
        if (s != OK || peek(t, 0) != '-' || peek(t, 1) == ']') {
            s = s == OK ? emit_in_class(t, &first) : s;
            continue;
        }
        t->at++; // the hyphen of a range
        if (at_end(t))
            return refuse(t, "[ without ]");
        s = take_class_item(t, &last);
        if (s == OK && (first.kind != ITEM_CHAR || last.kind != ITEM_CHAR || first.c > last.c))
            s = refuse(t, "this range inside [ ]");
        if (s == OK)
            s = emit_range(t, first.c, last.c);
        if (s == OK && peek(t, 0) == '-' && peek(t, 1) != ']')
            s = refuse(t, "a hyphen after a range"); // Ruby and Perl differ
    }
    t->at++;
    return s == OK ? emit(t, "]") : s;
}

/* After an opening parenthesis: what kind of group it is. */
static enum status translate_group(struct translation *t) {
    static const char *const KIND[] = { "?:", "?i:", "?=", "?!", "?<=", "?<!", "?>" };
    for (size_t i = 0; i < sizeof KIND / sizeof KIND[0]; i++) {
        size_t n = strlen(KIND[i]);
        if (t->n_bytes - t->at >= n && !memcmp(t->regex + t->at, KIND[i], n)) {
            t->at += n;
            t->ignores_case |= i == 1;
            return emit(t, "(%s", KIND[i]);
        }
    }
    if (peek(t, 0) == '?' || peek(t, 0) == '*')
        return refuse(t, "this kind of group");
    return emit(t, "(?:"); // nothing refers to what a group captured
}

/* {n}, {n,}, {n,m} or {,m}; returns false, and takes nothing, if it is none of these. */
static bool take_bounds(struct translation *t, uint32_t *least, uint32_t *most, bool *endless) {
    size_t i = 1;
    uint64_t bound[2] = { 0, 0 };
    int digits[2] = { 0, 0 };
    bool comma = false;
    for (;; i++) {
        char c = peek(t, i);
        if (c >= '0' && c <= '9' && digits[comma] < 6) {
            bound[comma] = bound[comma] * 10 + (uint64_t)(c - '0');
            digits[comma]++;
        } else if (c == ',' && !comma) {
            comma = true;
        } else {
            break;
        }
    }
    if (peek(t, i) != '}' || !(digits[0] || digits[1]))
        return false;
    *least = (uint32_t)bound[0];
    *most = (uint32_t)bound[comma];
    *endless = comma && !digits[1];
    t->at += i + 1;
    return true;
}

/* A quantifier, if one stands here, after an item or a group. */
static enum status translate_quantifier(struct translation *t) {
    char c = peek(t, 0);
    uint32_t least, most;
    bool endless, bounds = c == '{' && take_bounds(t, &least, &most, &endless);
    if (bounds) {
        if (!endless && least > most)
            return refuse(t, "this {n,m}"); // possessive in Ruby
        enum status s = endless ? emit(t, "{%" PRIu32 ",}", least)
                                : emit(t, "{%" PRIu32 ",%" PRIu32 "}", least, most);
        if (s != OK)
            return s;
        if (peek(t, 0) == '?' && !endless && least == most)
            return refuse(t, "{n}?");
    } else if (c == '*' || c == '+' || c == '?') {
        t->at++;
        if (emit(t, "%c", c) != OK)
            return ERR_MEMORY;
    } else {
        return OK;
    }
    if (peek(t, 0) == '?' || (!bounds && peek(t, 0) == '+')) // lazy; possessive
        if (emit(t, "%c", t->regex[t->at++]) != OK)
            return ERR_MEMORY;
    c = peek(t, 0);
    uint32_t ignored;
    if (c == '*' || c == '+' || c == '?' ||
        (c == '{' && take_bounds(t, &ignored, &ignored, &endless)))
        return refuse(t, "a quantifier after a quantifier");
    return OK;
}

static enum status translate_item(struct translation *t) {
    struct item item = { .kind = ITEM_CHAR };
    uint32_t c = take_char(t);
    enum status s;
    switch (c) {
    case '(':
        return translate_group(t);
    case '|':
        return emit(t, "|");
    case '*':
    case '+':
    case '?':
        t->at--;
        return refuse(t, "a quantifier with nothing before it");
    case '^':
    case '$':
        t->at--;
        return refuse(t, "^ or $");
    case ')':
        s = emit(t, ")");
        break;
    case '.':
        s = emit(t, "[^\\n]");
        break;
    case '[':
        s = translate_class(t);
        break;
    case '\\':
        s = take_escape(t, &item);
        s = s == OK ? emit_alone(t, item) : s;
        break;
    default:
        item.c = c;
        s = emit_alone(t, item);
    }
    return s == OK ? translate_quantifier(t) : s;
}

/* ---- compiling ---- */

static enum status compile(pcre2_code **out, const char *regex, size_t n_bytes, uint32_t options,
                           const char *where, struct err *err) {
    int code;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return err_set(err, ERR_MEMORY, "%s: no memory for a pattern", where);
    pcre2_set_parens_nest_limit(context, 50); // V4's deepest is 1
    *out = pcre2_compile((PCRE2_SPTR)regex, n_bytes, options | PCRE2_UTF | PCRE2_NO_UTF_CHECK,
                         &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!*out) {
        char message[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return err_set(err, ERR_INPUT, "%s: bad pattern: %s", where, message);
    }
    // Where the system forbids it (no executable memory), the interpreter does the same, slower.
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    return OK;
}

static enum status compile_both(struct pattern *p, const char *regex, size_t n_bytes,
                                uint32_t options, const char *where, struct err *err) {
    enum status s = compile(&p->search, regex, n_bytes, options, where, err);
    if (s == OK)
        s = compile(&p->anchored, regex, n_bytes, options | PCRE2_ANCHORED, where, err);
    if (s != OK)
        pattern_close(p);
    return s;
}

static enum status check_size(size_t n_bytes, const char *where, struct err *err) {
    if (n_bytes == 0 || n_bytes > PATTERN_MAX_BYTES)
        return err_set(err, ERR_INPUT, "%s: pattern of %zu bytes: must be 1 to %d", where, n_bytes,
                       PATTERN_MAX_BYTES);
    return OK;
}

enum status pattern_open(struct pattern *p, const char *regex, size_t n_bytes, const char *where,
                         struct err *err) {
    *p = (struct pattern){ NULL, NULL };
    enum status s = check_size(n_bytes, where, err);
    struct translation t = { .regex = regex, .n_bytes = n_bytes, .where = where, .err = err };
    while (s == OK && !at_end(&t))
        s = translate_item(&t);
    if (s == OK && t.ignores_case && t.names_case)
        s = refuse(&t, "\\p{Lu}, \\p{Ll} or \\p{Lt} together with (?i:");
    if (s == OK)
        s = compile_both(p, t.out, t.n_out, PCRE2_UCP, where, err);
    free(t.out);
    return s;
}

enum status pattern_open_literal(struct pattern *p, const char *string, size_t n_bytes,
                                 const char *where, struct err *err) {
    *p = (struct pattern){ NULL, NULL };
    enum status s = check_size(n_bytes, where, err);
    return s == OK ? compile_both(p, string, n_bytes, PCRE2_LITERAL, where, err) : s;
}

void pattern_close(struct pattern *p) {
    pcre2_code_free(p->search); // NULL is fine
    pcre2_code_free(p->anchored);
    *p = (struct pattern){ NULL, NULL };
}
