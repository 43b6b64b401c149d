/* src/text/answer.c - see answer.h.
 *
 * All that has come and is not yet certain lies in `input`. In REASONING and CONTENT that is at most
 * the beginning of a tag; among calls it is everything since the last one reported. Each state says
 * which tags end it, looks for them from `scan` on, and moves on or asks for more. */
#include "src/text/answer.h"

#include "src/text/json_text.h"
#include "src/text/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EOS         "<｜end▁of▁sentence｜>"
#define THINK_END   "</think>"
#define DSML        "｜DSML｜"
#define CALLS_BEGIN "\n\n<" DSML "tool_calls"
#define CALLS_END   "</" DSML "tool_calls>"
#define INVOKE      "<" DSML "invoke"
#define INVOKE_END  "</" DSML "invoke"
#define PARAMETER   "<" DSML "parameter"
#define PARAM_END   "/" DSML "parameter" /* its "<" is the end of the value */

enum state {
    IN_REASONING,
    IN_CONTENT,
    CALLS_OPEN,      /* after CALLS_BEGIN: a call, or the end */
    IN_HEAD,         /* after INVOKE: the name */
    IN_PARAMETER,    /* after PARAMETER: name and value */
    PARAMETER_ENDED, /* after PARAM_END: another, or the call's end */
    CALL_CLOSING,    /* after INVOKE_END: its ">" */
    CALL_ENDED       /* after that: another call, or the end */
};

/* A range of `input`, relative to `begin`, which stays where it is while a call is read. */
struct range {
    size_t at;
    size_t n_bytes;
};

struct parameter {
    struct range name, value;
    bool string;
};

/* An event to come: a range of `reasoning` or `content`, or the index of a call. */
struct pending {
    enum answer_event_kind kind;
    struct range range;
};

struct answer_parser {
    enum state state;
    struct text_buffer input;
    size_t begin;   /* first byte that is not yet certain */
    size_t entered; /* what follows the tag that led to this state */
    size_t scan;    /* no tag that ends the state begins before this */
    bool finished;

    struct range name; /* of the call that is being read */
    struct text_buffer parameters;

    struct text_buffer reasoning, content;
    struct text_buffer calls; /* struct chat_call; each one's texts are one block, at name.bytes */
    struct text_buffer pending;
    size_t n_taken; /* of pending */
    bool no_memory;
};

enum status answer_open(struct answer_parser **out, enum chat_mode mode, struct err *err) {
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_set(err, ERR_MEMORY, "no memory to read an answer");
    (*out)->state = mode == CHAT_MODE_THINKING ? IN_REASONING : IN_CONTENT;
    return OK;
}

static size_t n_calls(const struct answer_parser *p) {
    return p->calls.n_bytes / sizeof(struct chat_call);
}

static struct chat_call *call_at(const struct answer_parser *p, size_t index) {
    return (struct chat_call *)(void *)p->calls.bytes + index;
}

void answer_close(struct answer_parser *p) {
    if (!p)
        return;
    for (size_t i = 0; i < n_calls(p); i++)
        free((void *)(uintptr_t)call_at(p, i)->name.bytes);
    text_buffer_free(&p->input);
    text_buffer_free(&p->parameters);
    text_buffer_free(&p->reasoning);
    text_buffer_free(&p->content);
    text_buffer_free(&p->calls);
    text_buffer_free(&p->pending);
    free(p);
}

/* --- what is certain --- */

static void add_pending(struct answer_parser *p, enum answer_event_kind kind, struct range range) {
    struct pending *all = (struct pending *)(void *)p->pending.bytes;
    const size_t n = p->pending.n_bytes / sizeof *all;
    if (n > p->n_taken && all[n - 1].kind == kind && kind != ANSWER_CALL) {
        all[n - 1].range.n_bytes += range.n_bytes;
        return;
    }
    const struct pending one = { .kind = kind, .range = range };
    text_buffer_append(&p->pending, (const char *)&one, sizeof one);
}

/* The text before `end` is certain. */
static void report_text(struct answer_parser *p, size_t end) {
    const bool reasoning = p->state == IN_REASONING;
    struct text_buffer *to = reasoning ? &p->reasoning : &p->content;
    const struct range range = { to->n_bytes, end - p->begin };
    if (!range.n_bytes)
        return;
    text_buffer_append(to, p->input.bytes + p->begin, range.n_bytes);
    add_pending(p, reasoning ? ANSWER_REASONING : ANSWER_CONTENT, range);
    p->begin = end;
}

static struct text input_text(const struct answer_parser *p, struct range range) {
    const struct text text = { p->input.bytes + p->begin + range.at, range.n_bytes };
    return text;
}

static size_t n_parameters(const struct answer_parser *p) {
    return p->parameters.n_bytes / sizeof(struct parameter);
}

static const struct parameter *parameter_at(const struct answer_parser *p, size_t index) {
    return (const struct parameter *)(const void *)p->parameters.bytes + index;
}

static void write_arguments(const struct answer_parser *p, struct text_buffer *out) {
    text_buffer_string(out, "{");
    for (size_t i = 0; i < n_parameters(p); i++) {
        const struct parameter *parameter = parameter_at(p, i);
        text_buffer_string(out, i ? ", " : "");
        json_text_write_string(input_text(p, parameter->name), out);
        text_buffer_string(out, ": ");
        if (parameter->string)
            json_text_write_string(input_text(p, parameter->value), out);
        else
            text_buffer_text(out, input_text(p, parameter->value));
    }
    text_buffer_string(out, "}");
}

/* The call that was read is whole; it ends before `end`. */
static void report_call(struct answer_parser *p, size_t end) {
    struct text_buffer storage = { .bytes = NULL };
    const struct range index = { n_calls(p), 0 };
    text_buffer_text(&storage, input_text(p, p->name));
    write_arguments(p, &storage);
    if (storage.failed || !text_buffer_reserve(&p->calls, sizeof(struct chat_call))) {
        text_buffer_free(&storage);
        p->no_memory = true;
        return;
    }
    const struct chat_call call = {
        .name = { storage.bytes, p->name.n_bytes },
        .arguments = { storage.bytes + p->name.n_bytes, storage.n_bytes - p->name.n_bytes },
    };
    text_buffer_append(&p->calls, (const char *)&call, sizeof call);
    add_pending(p, ANSWER_CALL, index);
    p->begin = end;
}

/* --- steps: true if the state has changed, false if more has to come --- */

static void enter(struct answer_parser *p, enum state state, size_t at) {
    p->state = state;
    p->entered = p->scan = at;
}

/* Where `tag` begins at or after `from`; the end of the input if it does not. */
static size_t find(const struct answer_parser *p, const char *tag, size_t from) {
    const char *end = p->input.bytes + p->input.n_bytes;
    const char *found = memmem(p->input.bytes + from, p->input.n_bytes - from, tag, strlen(tag));
    return (size_t)((found ? found : end) - p->input.bytes);
}

/* How many of the last bytes, none of them before `from`, may be the beginning of `tag`; with
 * `whole`, all of it. */
static size_t held_for(const struct answer_parser *p, const char *tag, size_t from, bool whole) {
    size_t n = strlen(tag) - (whole ? 0 : 1);
    if (n > p->input.n_bytes - from)
        n = p->input.n_bytes - from;
    while (n && memcmp(p->input.bytes + p->input.n_bytes - n, tag, n))
        n--;
    return n;
}

/* Reasoning and content: all is certain but what may become a tag. */
static bool step_text(struct answer_parser *p) {
    const bool reasoning = p->state == IN_REASONING;
    const char *tag = reasoning ? THINK_END : CALLS_BEGIN;
    const size_t found = find(p, tag, p->scan);
    if (found < p->input.n_bytes) {
        report_text(p, found);
        p->begin = reasoning ? found + strlen(tag) : found; // what opens calls may yet be text
        enter(p, reasoning ? IN_CONTENT : CALLS_OPEN, found + strlen(tag));
        return true;
    }
    const size_t tag_held = held_for(p, tag, p->scan, false);
    const size_t eos_held = held_for(p, EOS, p->scan, true);
    p->scan = p->input.n_bytes - (tag_held > eos_held ? tag_held : eos_held);
    report_text(p, p->scan);
    return false;
}

/* Something stands where it does not belong: it, and what was held back, is text. */
static bool not_a_call(struct answer_parser *p, size_t at) {
    enter(p, IN_CONTENT, at);
    return true;
}

/* Where two tags can follow and nothing else: 0 or 1 for the one that does, -1 for neither, -2 if
 * that is not certain yet. */
static int which(const struct answer_parser *p, const char *const tags[2]) {
    const size_t n = p->input.n_bytes - p->entered;
    int result = -1;
    for (int i = 0; i < 2; i++) {
        const size_t n_tag = strlen(tags[i]);
        if (memcmp(p->input.bytes + p->entered, tags[i], n < n_tag ? n : n_tag))
            continue;
        if (n >= n_tag)
            return i;
        result = -2;
    }
    return result;
}

static bool step_tags(struct answer_parser *p, const char *first, enum state then_first,
                      const char *second, enum state then_second) {
    const char *const tags[2] = { first, second };
    const int i = which(p, tags);
    if (i == -2)
        return false;
    if (i == -1)
        return not_a_call(p, p->entered);
    const size_t after = p->entered + strlen(tags[i]);
    enter(p, i == 0 ? then_first : then_second, after);
    if (p->state == IN_CONTENT)
        p->begin = after; // a block that ended properly
    return true;
}

/* What Python's \s matches. */
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static size_t space_bytes(const char *bytes, size_t n_bytes) {
    size_t at = 0;
    while (at < n_bytes) {
        uint32_t n;
        const struct utf8_step step = utf8_next(bytes + at, n_bytes - at);
        if (step.kind != UTF8_CHARACTER || !is_space(utf8_decode(bytes + at, &n)))
            break;
        at += step.bytes;
    }
    return at;
}

static bool starts(const char *bytes, size_t n_bytes, const char *word) {
    const size_t n = strlen(word);
    return n_bytes >= n && !memcmp(bytes, word, n);
}

static bool ends(const char *bytes, size_t n_bytes, const char *word) {
    const size_t n = strlen(word);
    return n_bytes >= n && !memcmp(bytes + n_bytes - n, word, n);
}

/* A call's head, from INVOKE to the next tag: white space, name="NAME">, a line's end or two. The
 * name may hold anything. */
static bool read_head(struct answer_parser *p, size_t end) {
    static const char open[] = "name=\"", close[] = "\">\n";
    const char *bytes = p->input.bytes + p->entered;
    size_t n = end - p->entered;
    const size_t space = space_bytes(bytes, n);
    bytes += space;
    n -= space;
    if (!starts(bytes, n, open))
        return false;
    bytes += strlen(open);
    n -= strlen(open);
    if (ends(bytes, n, "\">\n\n"))
        n--;
    if (!ends(bytes, n, close))
        return false;
    p->name.at = (size_t)(bytes - (p->input.bytes + p->begin));
    p->name.n_bytes = n - strlen(close);
    return true;
}

/* Not found: the next search begins where the tag may already have begun. */
static bool search_on(struct answer_parser *p, const char *tag) {
    const size_t n = strlen(tag) - 1, n_input = p->input.n_bytes - p->entered;
    p->scan = p->input.n_bytes - (n < n_input ? n : n_input);
    return false;
}

/* Where a call's head ends: at the first PARAMETER or INVOKE_END, by what they have in common, since
 * a search for each would read far beyond the nearer one, again for every call. */
static size_t find_head_end(const struct answer_parser *p, const char **tag) {
    for (size_t at = p->scan;;) {
        const size_t found = find(p, DSML, at);
        const char *bytes = p->input.bytes + found;
        if (found == p->input.n_bytes)
            return found;
        const size_t n_before = found - p->entered, n_after = p->input.n_bytes - found;
        *tag = PARAMETER;
        if (n_before >= 1 && bytes[-1] == '<' && starts(bytes - 1, n_after + 1, PARAMETER))
            return found - 1;
        *tag = INVOKE_END;
        if (n_before >= 2 && bytes[-2] == '<' && starts(bytes - 2, n_after + 2, INVOKE_END))
            return found - 2;
        at = found + strlen(DSML);
    }
}

static bool step_head(struct answer_parser *p) {
    const char *tag = NULL;
    const size_t found = find_head_end(p, &tag);
    if (found == p->input.n_bytes)
        return search_on(p, PARAMETER);
    if (!read_head(p, found))
        return not_a_call(p, found);
    p->parameters.n_bytes = 0;
    enter(p, strcmp(tag, PARAMETER) ? CALL_CLOSING : IN_PARAMETER, found + strlen(tag));
    return true;
}

/* Where the name of a parameter ends: at the first `" string="true">` or `" string="false">`. */
static const char *name_end(const char *bytes, const char *end, bool *string, size_t *n_bytes) {
    static const char tag[] = "\" string=\"", yes[] = "true\">", no[] = "false\">";
    const size_t n_tag = strlen(tag);
    for (;;) {
        const char *at = memmem(bytes, (size_t)(end - bytes), tag, n_tag);
        if (!at)
            return NULL;
        const char *value = at + n_tag;
        *string = starts(value, (size_t)(end - value), yes);
        if (*string || starts(value, (size_t)(end - value), no)) {
            *n_bytes = n_tag + strlen(*string ? yes : no);
            return at;
        }
        bytes = value - 1; // the tag's last quote may begin another
    }
}

/* A parameter, from PARAMETER to PARAM_END: ` name="NAME" string="true">VALUE<`. Name and value may
 * hold anything; one line's end after the "<" is let pass, as by the publisher's parser. */
static bool read_parameter(struct answer_parser *p, size_t found) {
    static const char open[] = " name=\"";
    const char *base = p->input.bytes + p->begin;
    const char *bytes = p->input.bytes + p->entered, *end = p->input.bytes + found;
    struct parameter parameter;
    size_t n_tag;
    if (!starts(bytes, (size_t)(end - bytes), open))
        return false;
    bytes += strlen(open);
    const char *tag = name_end(bytes, end, &parameter.string, &n_tag);
    if (!tag)
        return false;
    const char *value = tag + n_tag;
    if (ends(value, (size_t)(end - value), "<\n"))
        end--;
    if (!ends(value, (size_t)(end - value), "<"))
        return false;
    parameter.name = (struct range){ (size_t)(bytes - base), (size_t)(tag - bytes) };
    parameter.value = (struct range){ (size_t)(value - base), (size_t)(end - 1 - value) };
    text_buffer_append(&p->parameters, (const char *)&parameter, sizeof parameter);
    return true;
}

static bool step_parameter(struct answer_parser *p) {
    const size_t found = find(p, PARAM_END, p->scan);
    if (found == p->input.n_bytes)
        return search_on(p, PARAM_END);
    if (!read_parameter(p, found))
        return not_a_call(p, found);
    enter(p, PARAMETER_ENDED, found + strlen(PARAM_END));
    return true;
}

static int compare_texts(const void *a, const void *b) {
    const struct text *x = a, *y = b;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return x->n_bytes ? memcmp(x->bytes, y->bytes, x->n_bytes) : 0;
}

static bool has_repeated_parameter(struct answer_parser *p) {
    const size_t n = n_parameters(p);
    struct text *names = n > 1 ? malloc(n * sizeof *names) : NULL;
    bool repeated = false;
    if (n > 1 && !names)
        p->no_memory = true;
    if (!names)
        return false;
    for (size_t i = 0; i < n; i++)
        names[i] = input_text(p, parameter_at(p, i)->name);
    qsort(names, n, sizeof *names, compare_texts);
    for (size_t i = 1; i < n; i++)
        repeated |= text_equal(names[i - 1], names[i]);
    free(names);
    return repeated;
}

static bool step_closing(struct answer_parser *p) {
    if (p->entered == p->input.n_bytes)
        return false;
    if (p->input.bytes[p->entered] != '>' || has_repeated_parameter(p))
        return not_a_call(p, p->entered);
    report_call(p, p->entered + 1);
    enter(p, CALL_ENDED, p->entered + 1);
    return true;
}

static bool step(struct answer_parser *p) {
    switch (p->state) {
    case IN_REASONING:
    case IN_CONTENT:
        return step_text(p);
    case CALLS_OPEN:
        return step_tags(p, ">\n" INVOKE, IN_HEAD, ">\n" CALLS_END, IN_CONTENT);
    case IN_HEAD:
        return step_head(p);
    case IN_PARAMETER:
        return step_parameter(p);
    case PARAMETER_ENDED:
        return step_tags(p, ">\n" PARAMETER, IN_PARAMETER, ">\n" INVOKE_END, CALL_CLOSING);
    case CALL_CLOSING:
        return step_closing(p);
    case CALL_ENDED:
        return step_tags(p, "\n" INVOKE, IN_HEAD, "\n" CALLS_END, IN_CONTENT);
    }
    return false;
}

/* --- pieces in, events out --- */

/* Forget what has been reported. Little is left but while calls are read, and then nothing is
 * forgotten until one of them has ended: all moves together are linear in the answer. */
static void forget(struct answer_parser *p) {
    if (!p->begin)
        return;
    p->input.n_bytes -= p->begin;
    memmove(p->input.bytes, p->input.bytes + p->begin, p->input.n_bytes);
    p->entered = p->entered > p->begin ? p->entered - p->begin : 0;
    p->scan -= p->begin;
    p->begin = 0;
}

static enum status check_memory(struct answer_parser *p, struct err *err) {
    p->no_memory = p->no_memory || p->input.failed || p->parameters.failed || p->reasoning.failed ||
                   p->content.failed || p->calls.failed || p->pending.failed;
    return p->no_memory ? err_set(err, ERR_MEMORY, "no memory for an answer this long") : OK;
}

enum status answer_push(struct answer_parser *p, const char *piece, size_t n_bytes,
                        struct err *err) {
    assert(!p->finished);
    text_buffer_append(&p->input, piece, n_bytes);
    if (p->input.n_bytes && !p->input.failed)
        while (!p->no_memory && step(p))
            ;
    if (check_memory(p, err) != OK)
        return ERR_MEMORY;
    forget(p);
    return OK;
}

enum status answer_finish(struct answer_parser *p, struct err *err) {
    size_t end = p->input.n_bytes;
    assert(!p->finished);
    p->finished = true;
    if (end && ends(p->input.bytes + p->begin, end - p->begin, EOS))
        end -= strlen(EOS);
    if (p->state == CALL_CLOSING && p->entered == end && !has_repeated_parameter(p))
        report_call(p, end);
    if (p->state == CALLS_OPEN && p->entered == end)
        p->begin = end;
    if (p->state != IN_REASONING)
        p->state = IN_CONTENT;
    if (!p->no_memory)
        report_text(p, end);
    p->begin = p->input.n_bytes;
    return check_memory(p, err);
}

bool answer_next(struct answer_parser *p, struct answer_event *event) {
    const struct pending *all = (const struct pending *)(const void *)p->pending.bytes;
    if (p->n_taken == p->pending.n_bytes / sizeof *all) {
        p->n_taken = p->pending.n_bytes = 0;
        return false;
    }
    const struct pending *one = &all[p->n_taken++];
    *event = (struct answer_event){ .kind = one->kind };
    if (one->kind == ANSWER_CALL) {
        event->call = *call_at(p, one->range.at);
    } else {
        const bool reasoning = one->kind == ANSWER_REASONING;
        event->text.bytes = (reasoning ? p->reasoning.bytes : p->content.bytes) + one->range.at;
        event->text.n_bytes = one->range.n_bytes;
    }
    return true;
}

size_t answer_held(const struct answer_parser *p) {
    return p->input.n_bytes - p->begin;
}

bool answer_in_calls(const struct answer_parser *p) {
    return p->state != IN_REASONING && p->state != IN_CONTENT;
}

/* --- the message --- */

struct chat_message answer_message(const struct answer_parser *p) {
    const struct chat_message message = {
        .role = CHAT_ASSISTANT,
        .content = text_buffer_view(&p->content),
        .reasoning = text_buffer_view(&p->reasoning),
        .calls = n_calls(p) ? call_at(p, 0) : NULL,
        .n_calls = n_calls(p),
    };
    return message;
}

enum status answer_to_json(const struct chat_message *message, struct text_buffer *out,
                           struct err *err) {
    text_buffer_string(out, "{\"role\": \"assistant\", \"content\": ");
    json_text_write_string(message->content, out);
    text_buffer_string(out, ", \"reasoning_content\": ");
    json_text_write_string(message->reasoning, out);
    text_buffer_string(out, ", \"tool_calls\": [");
    for (size_t i = 0; i < message->n_calls; i++) {
        text_buffer_string(out, i ? ", " : "");
        text_buffer_string(out, "{\"type\": \"function\", \"function\": {\"name\": ");
        json_text_write_string(message->calls[i].name, out);
        text_buffer_string(out, ", \"arguments\": ");
        json_text_write_string(message->calls[i].arguments, out);
        text_buffer_string(out, "}}");
    }
    text_buffer_string(out, "]}");
    return text_buffer_status(out, err);
}
