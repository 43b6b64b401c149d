#include "tests/support/chat_cases.h"

#include "io/small_file.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

void chat_cases_open(struct chat_cases *c) {
    struct err err = { .status = OK };
    *c = (struct chat_cases){ .file = NULL };
    if (small_file_read("tests/data/chat/cases.jsonl", 16 << 20, &c->file, &c->n_bytes, &err) != OK)
        fail_msg("%s", err.text);
}

static void forget(struct chat_cases *c) {
    json_text_free(&c->json);
    text_buffer_free(&c->written[0]);
    text_buffer_free(&c->written[1]);
}

void chat_cases_close(struct chat_cases *c) {
    forget(c);
    free(c->file);
}

static struct text string(const struct chat_cases *c, const char *key) {
    const struct json_text_value *v = json_text_get(&c->json, c->json.values, key);
    return v && v->kind == JSON_TEXT_STRING ? v->text : text_of(NULL);
}

static struct text written(struct chat_cases *c, int i, const char *key) {
    const struct json_text_value *v = json_text_get(&c->json, c->json.values, key);
    if (v && v->kind != JSON_TEXT_NULL)
        json_text_write(&c->json, v, &c->written[i]);
    return text_buffer_view(&c->written[i]);
}

const struct chat_case *chat_cases_next(struct chat_cases *c) {
    struct err err = { .status = OK };
    struct chat_case *one = &c->one;
    if (c->at >= c->n_bytes)
        return NULL;
    forget(c);
    const char *line = c->file + c->at, *end = strchr(line, '\n');
    assert_non_null(end);
    c->at += (size_t)(end - line) + 1;
    if (json_text_parse(&c->json, line, (size_t)(end - line), "case", &err) != OK)
        fail_msg("%s", err.text);
    *one = (struct chat_case){ .line = one->line + 1 };
    one->render = text_equal(string(c, "kind"), text_of("render"));
    const bool thinking = text_equal(string(c, "mode"), text_of("thinking"));
    one->mode = thinking ? CHAT_MODE_THINKING : CHAT_MODE_CHAT;
    if (text_equal(string(c, "effort"), text_of("high")))
        one->effort = CHAT_EFFORT_HIGH;
    if (text_equal(string(c, "effort"), text_of("max")))
        one->effort = CHAT_EFFORT_MAX;
    one->messages = written(c, 0, "messages");
    one->text = string(c, "text");
    one->expected = one->render ? string(c, "expected") : written(c, 1, "expected");
    return one;
}
