#include "src/text/pretokenize.h"
#include "src/text/pattern.h"
#include "src/text/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What ByteLevel splits with when its use_regex is set: GPT-2's pattern. */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* One attempt's steps, as PCRE2 counts them, per byte of its window and at least. A sound
 * pattern needs about 2 per byte: \s*[\r\n]+ on a run of spaces goes there and back. */
#define STEPS_PER_BYTE 16
#define STEPS_LEAST    10000
/* The budget for attempts that leave the window, in bytes of window per byte of text. A sound
 * match is charged up to 5.4 times its length (windows grow by 4), by each of V4's 3 patterns. */
#define BUDGET_PER_BYTE 64
#define BUDGET_LEAST    (1 << 20)

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
static const char *const BEHAVIOR[] = { "Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous" };
#define N_BEHAVIORS (sizeof BEHAVIOR / sizeof BEHAVIOR[0])

struct step {
    struct pattern pattern;
    enum behavior behavior;
    bool invert; /* what matches counts as a gap, and a gap as a match */
};

struct pretokenizer {
    char *path;
    struct step step[PRETOKENIZE_MAX_STEPS];
    int n_steps;
    int prefix_before; /* the step before which " " is put in front of a piece; -1: nowhere */
};

struct pretokenize_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    uint64_t budget;
};

/* ---- from JSON ---- */

static enum status need_bool(const json_t *spec, const char *key, bool *value, const char *where,
                             struct err *err) {
    const json_t *v = json_object_get(spec, key);
    if (!json_is_boolean(v))
        return err_set(err, ERR_INPUT, "%s: \"%s\" must be true or false", where, key);
    *value = json_is_true(v);
    return OK;
}

static enum status split_open(struct step *step, const json_t *spec, const char *where,
                              struct err *err) {
    const char *behavior = json_string_value(json_object_get(spec, "behavior"));
    size_t b = 0;
    while (b < N_BEHAVIORS && (!behavior || strcmp(behavior, BEHAVIOR[b])))
        b++;
    if (b == N_BEHAVIORS)
        return err_set(err, ERR_INPUT, "%s: behavior \"%s\" is unknown", where,
                       behavior ? behavior : "");
    step->behavior = (enum behavior)b;
    if (need_bool(spec, "invert", &step->invert, where, err) != OK)
        return ERR_INPUT;
    const json_t *pattern = json_object_get(spec, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *string = json_object_get(pattern, "String");
    if (json_is_string(regex) && !string)
        return pattern_open(&step->pattern, json_string_value(regex), json_string_length(regex),
                            where, err);
    if (json_is_string(string) && !regex)
        return pattern_open_literal(&step->pattern, json_string_value(string),
                                    json_string_length(string), where, err);
    return err_set(err, ERR_INPUT, "%s: pattern must be {\"Regex\": …} or {\"String\": …}", where);
}

/* The last step: it would map bytes to letters, which BPE here does by itself. */
static enum status byte_level_open(struct pretokenizer *p, const json_t *spec, const char *where,
                                   struct err *err) {
    bool prefix = false, use_regex = true;
    if (need_bool(spec, "add_prefix_space", &prefix, where, err) != OK)
        return ERR_INPUT;
    if (json_object_get(spec, "use_regex") &&
        need_bool(spec, "use_regex", &use_regex, where, err) != OK)
        return ERR_INPUT;
    p->prefix_before = prefix ? p->n_steps : -1;
    if (!use_regex)
        return OK;
    struct step *step = &p->step[p->n_steps++];
    step->behavior = ISOLATED;
    return pattern_open(&step->pattern, GPT2_PATTERN, strlen(GPT2_PATTERN), where, err);
}

static enum status steps_open(struct pretokenizer *p, const json_t *list, size_t n,
                              struct err *err) {
    for (size_t i = 0; i < n; i++) {
        const json_t *spec = json_is_array(list) ? json_array_get(list, i) : list;
        const char *type = json_string_value(json_object_get(spec, "type"));
        char where[512];
        snprintf(where, sizeof where, "%s: pre_tokenizer, step %zu (%.32s)", p->path, i,
                 type ? type : "no type");
        bool last = i + 1 == n;
        if (!type || strcmp(type, last ? "ByteLevel" : "Split"))
            return err_set(err, ERR_INPUT,
                           "%s: sluice knows Split steps with ByteLevel as the last", where);
        // ByteLevel may add one step: the array has room for it.
        enum status s = last ? byte_level_open(p, spec, where, err)
                             : split_open(&p->step[p->n_steps++], spec, where, err);
        if (s != OK)
            return s;
    }
    return OK;
}

enum status pretokenizer_open(struct pretokenizer **out, const json_t *spec, const char *path,
                              struct err *err) {
    enum status s;
    struct pretokenizer *p = *out = calloc(1, sizeof *p);
    if (!p || !(p->path = strdup(path))) {
        s = err_set(err, ERR_MEMORY, "%s: no memory for its pre_tokenizer", path);
        goto fail;
    }
    p->prefix_before = -1;
    const char *type = json_string_value(json_object_get(spec, "type"));
    const json_t *list = json_object_get(spec, "pretokenizers");
    size_t n = 1;
    if (type && !strcmp(type, "Sequence")) {
        n = json_array_size(list);
        if (n < 1 || n > PRETOKENIZE_MAX_STEPS) {
            s = err_set(err, ERR_INPUT, "%s: pre_tokenizer must have 1 to %d steps, it has %zu",
                        path, PRETOKENIZE_MAX_STEPS, n);
            goto fail;
        }
    } else {
        list = spec;
    }
    s = steps_open(p, list, n, err);
    if (s == OK)
        return OK;
fail:
    pretokenizer_close(p);
    *out = NULL;
    return s;
}

void pretokenizer_close(struct pretokenizer *p) {
    if (!p)
        return;
    for (int i = 0; i < p->n_steps; i++)
        pattern_close(&p->step[i].pattern);
    free(p->path);
    free(p);
}

enum status pretokenize_scratch_open(struct pretokenize_scratch **out, size_t text_bytes,
                                     struct err *err) {
    struct pretokenize_scratch *s = *out = calloc(1, sizeof *s);
    if (s) {
        s->budget = (uint64_t)text_bytes * BUDGET_PER_BYTE + BUDGET_LEAST;
        s->match = pcre2_match_data_create(1, NULL);
        s->context = pcre2_match_context_create(NULL);
        s->stack = pcre2_jit_stack_create(32 << 10, 1 << 20, NULL);
    }
    if (!s || !s->match || !s->context) { // without a JIT there is no stack, and no need for one
        pretokenize_scratch_close(s);
        *out = NULL;
        return err_set(err, ERR_MEMORY, "no memory to encode a text");
    }
    if (s->stack)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    pcre2_set_heap_limit(s->context, 64 << 10); // KiB; the interpreter's only
    return OK;
}

void pretokenize_scratch_close(struct pretokenize_scratch *s) {
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    free(s);
}

/* ---- finding matches ---- */

struct walk {
    const struct pretokenizer *p;
    struct pretokenize_scratch *scratch;
    pretokenize_piece piece;
    void *user;
    struct err *err;
};

enum found { FOUND, NOT_FOUND, CUT_BY_WINDOW, FAILED };

struct range {
    size_t begin, end;
};

/* The largest whole number of characters within `n_bytes` of the text. */
static size_t whole_characters(const char *text, size_t n_bytes, size_t end) {
    if (end >= n_bytes)
        return n_bytes;
    while (((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    return end;
}

/* One run of PCRE2 on text[0..end), looking from `at` on. */
static enum found run(struct walk *w, const pcre2_code *code, const char *text, size_t end,
                      size_t at, bool end_is_real, struct range *m) {
    struct pretokenize_scratch *s = w->scratch;
    uint64_t steps = (uint64_t)(end - at) * STEPS_PER_BYTE + STEPS_LEAST;
    pcre2_set_match_limit(s->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    int rc = pcre2_match(code, (PCRE2_SPTR)text, end, at,
                         PCRE2_NO_UTF_CHECK | (end_is_real ? 0 : PCRE2_PARTIAL_HARD), s->match,
                         s->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return NOT_FOUND;
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(s->match);
    *m = (struct range){ offsets[0], offsets[1] };
    if (rc == PCRE2_ERROR_PARTIAL)
        return CUT_BY_WINDOW;
    if (rc >= 0)
        return FOUND;
    char message[160] = "";
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)message, sizeof message);
    err_set(w->err, ERR_INPUT, "%s: a pattern of its pre_tokenizer fails on this text: %s",
            w->p->path, message);
    return FAILED;
}

/* An attempt that began at `at` and wants to look past the window: does it match? */
static enum found run_wide(struct walk *w, const struct step *step, const char *text,
                           size_t n_bytes, size_t at, struct range *m) {
    for (size_t window = PRETOKENIZE_WINDOW * 4;; window *= 4) {
        size_t end = whole_characters(text, n_bytes, at + window);
        if (w->scratch->budget < end - at) {
            err_set(w->err, ERR_INPUT,
                    "%s: a pattern of its pre_tokenizer takes more than linear time on this text",
                    w->p->path);
            return FAILED;
        }
        w->scratch->budget -= end - at;
        enum found f = run(w, step->pattern.anchored, text, end, at, end == n_bytes, m);
        if (f != CUT_BY_WINDOW)
            return f;
    }
}

/* The next match in text[0..n_bytes) that begins at `at` or later. */
static enum found find(struct walk *w, const struct step *step, const char *text, size_t n_bytes,
                       size_t at, struct range *m) {
    for (;;) {
        size_t end = whole_characters(text, n_bytes, at + PRETOKENIZE_WINDOW);
        bool end_is_real = end == n_bytes;
        enum found f = run(w, step->pattern.search, text, end, at, end_is_real, m);
        if (f == FAILED || end_is_real)
            return f;
        if (f == NOT_FOUND || m->begin == end) { // what begins at the window's end is seen next
            at = end;
            continue;
        }
        if (f == FOUND)
            return f;
        at = m->begin;
        f = run_wide(w, step, text, n_bytes, at, m);
        if (f != NOT_FOUND)
            return f;
        uint32_t n;
        utf8_decode(text + at, &n);
        at += n;
    }
}

/* ---- cutting ---- */

static enum status cut(struct walk *w, int step, const char *text, size_t n_bytes);

static enum status pass_on(struct walk *w, int next_step, const char *text, struct range r) {
    return r.begin == r.end ? OK : cut(w, next_step, text + r.begin, r.end - r.begin);
}

/* What a behavior makes of the matches and the gaps between them, as they come: pieces are held
 * back while the next part may still join them. */
struct joiner {
    struct walk *w;
    int step;
    const char *text;
    struct range held;
    bool holds;
    bool held_matches; /* the last part was a match */
};

static enum status joiner_flush(struct joiner *j) {
    bool holds = j->holds;
    j->holds = false;
    return holds ? pass_on(j->w, j->step + 1, j->text, j->held) : OK;
}

/* Of two parts in a row, do they stay one piece? */
static bool joins(enum behavior behavior, bool held_matches, bool matches) {
    switch (behavior) {
    case MERGED_WITH_PREVIOUS:
        return matches && !held_matches;
    case MERGED_WITH_NEXT:
        return held_matches && !matches;
    case CONTIGUOUS:
        return matches == held_matches;
    default:
        return false;
    }
}

static enum status joiner_add(struct joiner *j, struct range part, bool matches) {
    const struct step *step = &j->w->p->step[j->step];
    matches ^= step->invert;
    if (step->behavior == REMOVED)
        return matches ? OK : pass_on(j->w, j->step + 1, j->text, part);
    if (j->holds && joins(step->behavior, j->held_matches, matches)) {
        j->held.end = part.end;
    } else {
        enum status s = joiner_flush(j);
        if (s != OK)
            return s;
        j->held = part;
        j->holds = true;
    }
    j->held_matches = matches;
    return OK;
}

static enum status cut_by_pattern(struct walk *w, int step, const char *text, size_t n_bytes) {
    struct joiner j = { .w = w, .step = step, .text = text };
    size_t done = 0, at = 0; // what is handed on; where to look
    bool matched = false;
    enum status s = OK;
    while (s == OK && at <= n_bytes) {
        struct range m;
        enum found f = find(w, &w->p->step[step], text, n_bytes, at, &m);
        if (f == FAILED)
            return ERR_INPUT;
        if (f == NOT_FOUND)
            break;
        if (m.begin == m.end && matched && m.end == done) {
            // An empty match right behind the last one does not count.
            uint32_t n = 1;
            if (at < n_bytes)
                utf8_decode(text + at, &n);
            at += n;
            continue;
        }
        if (m.begin > done)
            s = joiner_add(&j, (struct range){ done, m.begin }, false);
        if (s == OK)
            s = joiner_add(&j, m, true);
        done = at = m.end;
        matched = true;
    }
    if (s == OK && done < n_bytes)
        s = joiner_add(&j, (struct range){ done, n_bytes }, false);
    return s == OK ? joiner_flush(&j) : s;
}

static enum status cut_prefixed(struct walk *w, int step, const char *text, size_t n_bytes) {
    char *copy = malloc(n_bytes + 1);
    if (!copy)
        return err_set(w->err, ERR_MEMORY, "no memory to encode a text");
    copy[0] = ' ';
    memcpy(copy + 1, text, n_bytes);
    enum status s = step < w->p->n_steps ? cut_by_pattern(w, step, copy, n_bytes + 1)
                                         : w->piece(w->user, copy, n_bytes + 1, w->err);
    free(copy);
    return s;
}

static enum status cut(struct walk *w, int step, const char *text, size_t n_bytes) {
    if (step == w->p->prefix_before && text[0] != ' ')
        return cut_prefixed(w, step, text, n_bytes);
    if (step < w->p->n_steps)
        return cut_by_pattern(w, step, text, n_bytes);
    return w->piece(w->user, text, n_bytes, w->err);
}

enum status pretokenize(const struct pretokenizer *p, struct pretokenize_scratch *scratch,
                        const char *text, size_t n_bytes, pretokenize_piece piece, void *user,
                        struct err *err) {
    struct walk w = { .p = p, .scratch = scratch, .piece = piece, .user = user, .err = err };
    return n_bytes ? cut(&w, 0, text, n_bytes) : OK;
}
