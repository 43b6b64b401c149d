/* tests/fuzz/fuzz_answer.c - any text as an answer. The first byte is the mode, the second how the
 * rest is cut. In pieces it gives what it gives as a whole; what the publisher's parser accepts
 * (written here once more, the plain way) gives that parser's message; nothing is lost. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/answer.h"
#include "src/text/json_text.h"
#include "src/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EOS "<｜end▁of▁sentence｜>"

static void check(int holds) {
    if (!holds)
        abort();
}

/* --- ours --- */

static struct text_buffer json_of(const struct answer_parser *p) {
    struct text_buffer json = { .bytes = NULL };
    const struct chat_message message = answer_message(p);
    check(answer_to_json(&message, &json, NULL) == OK);
    check(utf8_valid_bytes(json.bytes, json.n_bytes) == json.n_bytes);
    return json;
}

static void check_events(struct answer_parser *p) {
    struct text_buffer joined[2] = { { .bytes = NULL }, { .bytes = NULL } };
    const struct chat_message message = answer_message(p);
    struct answer_event event;
    size_t n_calls = 0;
    while (answer_next(p, &event)) {
        check(event.kind == ANSWER_CALL || event.text.n_bytes > 0);
        if (event.kind == ANSWER_CALL)
            check(text_equal(event.call.arguments, message.calls[n_calls++].arguments));
        else
            text_buffer_text(&joined[event.kind == ANSWER_CONTENT], event.text);
    }
    check(n_calls == message.n_calls);
    check(text_equal(text_buffer_view(&joined[0]), message.reasoning));
    check(text_equal(text_buffer_view(&joined[1]), message.content));
    text_buffer_free(&joined[0]);
    text_buffer_free(&joined[1]);
}

static struct answer_parser *read_answer(struct text text, enum chat_mode mode, unsigned cut) {
    struct answer_parser *p;
    check(answer_open(&p, mode, NULL) == OK);
    for (size_t at = 0, n; at < text.n_bytes; at += n) {
        cut = cut * 1103515245 + 12345;
        n = cut ? 1 + (cut >> 16) % 40 : text.n_bytes;
        n = n < text.n_bytes - at ? n : text.n_bytes - at;
        // A copy of this size, so that a sanitizer sees a read beyond it.
        char *piece = malloc(n);
        memcpy(piece, text.bytes + at, n);
        check(answer_push(p, piece, n, NULL) == OK);
        free(piece);
    }
    check(answer_finish(p, NULL) == OK);
    check(answer_held(p) == 0);
    return p;
}

/* Without a call, and without the tags of a block that ended, all of the text is in the message. */
static void check_nothing_lost(struct text text, enum chat_mode mode,
                               const struct chat_message *m) {
    static const char end[] = "</｜DSML｜tool_calls>", opening[] = "\n\n<｜DSML｜tool_calls";
    struct text_buffer joined = { .bytes = NULL };
    const size_t n = strlen(opening);
    if (m->n_calls || memmem(text.bytes, text.n_bytes, end, strlen(end)))
        return;
    if (text.n_bytes >= n && !memcmp(text.bytes + text.n_bytes - n, opening, n))
        return;
    text_buffer_text(&joined, m->reasoning);
    if (mode == CHAT_MODE_THINKING && memmem(text.bytes, text.n_bytes, "</think>", 8))
        text_buffer_string(&joined, "</think>");
    text_buffer_text(&joined, m->content);
    if (joined.n_bytes < text.n_bytes)
        text_buffer_string(&joined, EOS);
    check(text_equal(text_buffer_view(&joined), text));
    text_buffer_free(&joined);
}

/* --- the strict parser --- */

struct strict {
    struct text rest; /* of the text */
    struct text_buffer arguments;
    struct text names[64]; /* of a call's parameters */
    struct chat_call calls[64];
    struct text_buffer storage[64];
    size_t n_calls;
    struct chat_message message;
};

static struct text before(struct text t, size_t n) {
    return (struct text){ t.bytes, n };
}

static struct text after(struct text t, size_t n) {
    return (struct text){ t.bytes + n, t.n_bytes - n };
}

static bool has_prefix(struct text t, const char *word) {
    return t.n_bytes >= strlen(word) && !memcmp(t.bytes, word, strlen(word));
}

static bool has_suffix(struct text t, const char *word) {
    return t.n_bytes >= strlen(word) && has_prefix(after(t, t.n_bytes - strlen(word)), word);
}

/* Up to the nearer of two tags; 0, 1, or -1 if the text ends first. */
static int until(struct strict *s, const char *first, const char *second, struct text *out) {
    for (size_t i = 0; i < s->rest.n_bytes; i++) {
        const struct text here = after(s->rest, i);
        const int which = has_prefix(here, first) ? 0 : has_prefix(here, second) ? 1 : -1;
        if (which < 0)
            continue;
        *out = before(s->rest, i);
        s->rest = after(here, strlen(which ? second : first));
        return which;
    }
    *out = s->rest;
    s->rest = after(s->rest, s->rest.n_bytes);
    return -1;
}

static bool strict_parameter(struct strict *s, size_t n) {
    static const char yes[] = "\" string=\"true\">", no[] = "\" string=\"false\">";
    struct text all, value = text_of(NULL);
    bool string = false;
    if (until(s, "/｜DSML｜parameter", "/｜DSML｜parameter", &all) || !has_prefix(all, " name=\""))
        return false;
    all = after(all, 7);
    for (size_t i = 0; i < all.n_bytes && !value.bytes; i++) {
        const struct text here = after(all, i);
        string = has_prefix(here, yes);
        if (!string && !has_prefix(here, no))
            continue;
        value = after(here, strlen(string ? yes : no));
        s->names[n] = before(all, i);
    }
    if (has_suffix(value, "<\n"))
        value.n_bytes--;
    if (!value.bytes || !has_suffix(value, "<"))
        return false;
    value.n_bytes--;
    for (size_t i = 0; i < n; i++)
        if (text_equal(s->names[i], s->names[n]))
            return false;
    text_buffer_string(&s->arguments, n ? ", " : "");
    json_text_write_string(s->names[n], &s->arguments);
    text_buffer_string(&s->arguments, ": ");
    if (string)
        json_text_write_string(value, &s->arguments);
    else
        text_buffer_text(&s->arguments, value);
    return true;
}

/* ASCII white space only: an input with other kinds is left to the unit tests. */
static bool strict_name(struct text head, struct text *name) {
    while (head.n_bytes && strchr(" \t\n\r\f\v\x1c\x1d\x1e\x1f", head.bytes[0]) && head.bytes[0])
        head = after(head, 1);
    if (!has_prefix(head, "name=\""))
        return false;
    head = after(head, 6);
    if (has_suffix(head, "\">\n\n"))
        head.n_bytes--;
    if (!has_suffix(head, "\">\n"))
        return false;
    *name = before(head, head.n_bytes - 3);
    return true;
}

static bool strict_call(struct strict *s) {
    static const char parameter[] = "<｜DSML｜parameter", end[] = "</｜DSML｜invoke";
    struct chat_call *call = &s->calls[s->n_calls];
    struct text between;
    size_t n = 0;
    int which = until(s, parameter, end, &between);
    if (s->n_calls == 63 || which < 0 || !strict_name(between, &call->name))
        return false;
    s->arguments = (struct text_buffer){ .bytes = NULL };
    text_buffer_string(&s->arguments, "{");
    while (which == 0 && n < 63) {
        if (!strict_parameter(s, n++))
            break;
        which = until(s, parameter, end, &between);
        if (!text_equal(between, text_of(">\n")))
            which = -1;
    }
    text_buffer_string(&s->arguments, "}");
    s->storage[s->n_calls++] = s->arguments;
    call->arguments = text_buffer_view(&s->arguments);
    return which == 1;
}

static bool strict_calls(struct strict *s) {
    struct text between;
    while (s->rest.n_bytes) {
        const int which = until(s, "<｜DSML｜invoke", "</｜DSML｜tool_calls>", &between);
        if (which < 0 || !text_equal(between, text_of(">\n")))
            return false;
        if (which == 1)
            break;
        if (!strict_call(s))
            return false;
    }
    return !s->rest.n_bytes || text_equal(s->rest, text_of(EOS));
}

static bool clean(struct text t) {
    static const char *const tokens[] = { EOS, "<｜begin▁of▁sentence｜>", "<think>", "</think>",
                                          "｜DSML｜" };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (t.n_bytes && memmem(t.bytes, t.n_bytes, tokens[i], strlen(tokens[i])))
            return false;
    return true;
}

static bool strict_answer(struct strict *s, enum chat_mode mode) {
    static const char opening[] = "\n\n<｜DSML｜tool_calls";
    if (mode == CHAT_MODE_THINKING && until(s, "</think>", opening, &s->message.reasoning) != 0)
        return false;
    const int which = until(s, EOS, opening, &s->message.content);
    if (which == 1 ? !strict_calls(s) : which < 0 || s->rest.n_bytes)
        return false;
    s->message.calls = s->calls;
    s->message.n_calls = s->n_calls;
    return clean(s->message.content) && clean(s->message.reasoning);
}

static void check_strict(struct text text, enum chat_mode mode, struct text ours) {
    static struct strict s; // too large for some stacks
    struct text_buffer json = { .bytes = NULL };
    memset(&s, 0, sizeof s);
    s.rest = text;
    s.message.role = CHAT_ASSISTANT;
    if (strict_answer(&s, mode)) {
        check(answer_to_json(&s.message, &json, NULL) == OK);
        check(text_equal(text_buffer_view(&json), ours));
    }
    text_buffer_free(&json);
    for (size_t i = 0; i < s.n_calls; i++)
        text_buffer_free(&s.storage[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const enum chat_mode mode = data[0] & 1 ? CHAT_MODE_THINKING : CHAT_MODE_CHAT;
    const struct text text = { (const char *)data + 2, size - 2 };
    struct answer_parser *whole = read_answer(text, mode, 0);
    struct answer_parser *pieces = read_answer(text, mode, data[1]);
    struct text_buffer json = json_of(whole), other = json_of(pieces);
    const struct chat_message message = answer_message(whole);
    check(text_equal(text_buffer_view(&json), text_buffer_view(&other)));
    check_nothing_lost(text, mode, &message);
    check_strict(text, mode, text_buffer_view(&json));
    check_events(pieces);
    text_buffer_free(&json);
    text_buffer_free(&other);
    answer_close(whole);
    answer_close(pieces);
    return 0;
}
