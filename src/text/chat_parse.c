/* src/text/chat_parse.c - a conversation out of JSON: chat_parse of chat.h. */
#include "src/text/chat_parts.h"

#include "src/text/json_text.h"

#include <stdio.h>
#include <stdlib.h>

/* A message under way: where errors are said to be, and texts that the JSON does not hold as such. */
struct reading {
    const struct json_text *j;
    const struct json_text_value *json; /* the message */
    struct chat_message message;
    struct text_buffer content; /* parts, joined */
    struct text_buffer tools, format;
    struct chat_call *calls;
    const char *name;
    size_t index;
    struct err *err;
};

static enum status refuse(const struct reading *r, const char *what) {
    return err_set(r->err, ERR_INPUT, "%s: message %zu: %s", r->name, r->index, what);
}

/* A member of the message; null counts as absent. */
static const struct json_text_value *get(const struct reading *r, const char *key) {
    const struct json_text_value *v = json_text_get(r->j, r->json, key);
    return v && v->kind != JSON_TEXT_NULL ? v : NULL;
}

static enum status get_string(const struct reading *r, const char *key, struct text *out) {
    const struct json_text_value *v = get(r, key);
    if (v && v->kind != JSON_TEXT_STRING)
        return err_set(r->err, ERR_INPUT, "%s: message %zu: %s is not a string", r->name, r->index,
                       key);
    if (v)
        *out = v->text;
    return OK;
}

/* As it may be quoted in an error: not too much of it. */
static int shown(struct text text) {
    return text.n_bytes < 60 ? (int)text.n_bytes : 60;
}

/* --- content --- */

static enum status read_part(struct reading *r, const struct json_text_value *part) {
    const struct json_text_value *type = json_text_get(r->j, part, "type");
    if (!type || type->kind != JSON_TEXT_STRING)
        return refuse(r, "a part of its content has no type");
    if (!text_equal(type->text, text_of("text"))) {
        text_buffer_string(&r->content, "[Unsupported ");
        text_buffer_text(&r->content, type->text);
        text_buffer_string(&r->content, "]");
        return OK;
    }
    const struct json_text_value *text = json_text_get(r->j, part, "text");
    if (!text || text->kind != JSON_TEXT_STRING)
        return refuse(r, "a part of its content has type text and no text");
    text_buffer_text(&r->content, text->text);
    return OK;
}

static enum status read_content(struct reading *r) {
    const struct json_text_value *content = get(r, "content"), *part;
    const enum chat_role role = r->message.role;
    if (!content)
        return role == CHAT_SYSTEM || role == CHAT_ASSISTANT ? OK : refuse(r, "no content");
    if (content->kind != JSON_TEXT_ARRAY)
        return content->kind == JSON_TEXT_STRING
                   ? get_string(r, "content", &r->message.content)
                   : refuse(r, "its content is neither a string nor a list of parts");
    bool first = true;
    for (part = json_text_first(r->j, content); part; part = json_text_next(r->j, content, part)) {
        text_buffer_string(&r->content, first ? "" : "\n\n");
        if (read_part(r, part) != OK)
            return ERR_INPUT;
        first = false;
    }
    r->message.content = text_buffer_view(&r->content);
    return OK;
}

/* --- calls --- */

static enum status read_call(struct reading *r, const struct json_text_value *json,
                             struct chat_call *call) {
    const struct json_text_value *function = json_text_get(r->j, json, "function"), *v;
    if (!function || function->kind != JSON_TEXT_OBJECT)
        return refuse(r, "one of its tool_calls has no function");
    v = json_text_get(r->j, function, "name");
    if (!v || v->kind != JSON_TEXT_STRING)
        return refuse(r, "one of its tool_calls has no name that is a string");
    call->name = v->text;
    v = json_text_get(r->j, function, "arguments");
    if (!v || v->kind != JSON_TEXT_STRING)
        return refuse(r, "one of its tool_calls has no arguments that are a string of JSON");
    call->arguments = v->text;
    v = json_text_get(r->j, json, "id");
    if (!v || v->kind == JSON_TEXT_NULL)
        v = json_text_get(r->j, function, "id");
    if (v && v->kind != JSON_TEXT_NULL && v->kind != JSON_TEXT_STRING)
        return refuse(r, "one of its tool_calls has an id that is not a string");
    call->id = v ? v->text : text_of(NULL);
    return OK;
}

static enum status read_calls(struct reading *r) {
    const struct json_text_value *list = get(r, "tool_calls"), *v;
    size_t n = 0;
    if (!list)
        return OK;
    if (list->kind != JSON_TEXT_ARRAY)
        return refuse(r, "tool_calls is not a list");
    r->calls = calloc((size_t)list->n_items + 1, sizeof *r->calls);
    if (!r->calls)
        return err_set(r->err, ERR_MEMORY, "%s: no memory for %u tool_calls", r->name,
                       (unsigned)list->n_items);
    for (v = json_text_first(r->j, list); v; v = json_text_next(r->j, list, v))
        if (read_call(r, v, &r->calls[n++]) != OK)
            return ERR_INPUT;
    r->message.calls = r->calls;
    r->message.n_calls = n;
    return OK;
}

/* --- a message --- */

static enum status read_role(struct reading *r) {
    struct text role = text_of(NULL);
    if (r->json->kind != JSON_TEXT_OBJECT)
        return refuse(r, "not an object");
    if (!get(r, "role"))
        return refuse(r, "no role");
    if (get_string(r, "role", &role) != OK)
        return ERR_INPUT;
    if (!chat_role_of(role, &r->message.role))
        return err_set(r->err, ERR_INPUT, "%s: message %zu: unknown role \"%.*s\"", r->name,
                       r->index, shown(role), role.bytes);
    return OK;
}

static enum status read_task(struct reading *r) {
    struct text task = text_of(NULL);
    if (get_string(r, "task", &task) != OK)
        return ERR_INPUT;
    if (get(r, "task") && !chat_task_of(task, &r->message.task))
        return err_set(r->err, ERR_INPUT, "%s: message %zu: unknown task \"%.*s\"", r->name,
                       r->index, shown(task), task.bytes);
    return OK;
}

static enum status read_assistant(struct reading *r) {
    const struct json_text_value *v = get(r, "wo_eos");
    if (v && v->kind != JSON_TEXT_TRUE && v->kind != JSON_TEXT_FALSE)
        return refuse(r, "wo_eos is neither true nor false");
    r->message.without_eos = v && v->kind == JSON_TEXT_TRUE;
    if (get_string(r, "reasoning_content", &r->message.reasoning) != OK)
        return ERR_INPUT;
    return read_calls(r);
}

/* JSON within the message, as text: chat_add reads it again, as it does what programs give. */
static struct text json_of(struct reading *r, const char *key, struct text_buffer *out) {
    const struct json_text_value *v = get(r, key);
    if (v)
        json_text_write(r->j, v, out);
    return text_buffer_view(out);
}

static enum status read_message(struct reading *r) {
    enum status status = read_role(r);
    if (status == OK)
        status = read_content(r);
    if (status == OK)
        status = read_task(r);
    if (status == OK && r->message.role == CHAT_ASSISTANT)
        status = read_assistant(r);
    if (status == OK && r->message.role == CHAT_TOOL)
        status = get_string(r, "tool_call_id", &r->message.call_id);
    if (status != OK)
        return status;
    r->message.tools = json_of(r, "tools", &r->tools);
    r->message.response_format = json_of(r, "response_format", &r->format);
    if (r->content.failed || r->tools.failed || r->format.failed)
        return err_set(r->err, ERR_MEMORY, "%s: no memory for message %zu", r->name, r->index);
    return OK;
}

static enum status add_message(struct chat *c, const struct json_text *j,
                               const struct json_text_value *json, const char *name,
                               struct err *err) {
    struct reading r = { .j = j, .json = json, .name = name, .index = c->n_messages, .err = err };
    enum status status = read_message(&r);
    if (status == OK)
        status = chat_add(c, &r.message, name, err);
    text_buffer_free(&r.content);
    text_buffer_free(&r.tools);
    text_buffer_free(&r.format);
    free(r.calls);
    return status;
}

/* --- the whole --- */

static enum status add_tools(struct chat *c, const struct json_text *j, const char *name,
                             struct err *err) {
    const struct json_text_value *tools = json_text_get(j, j->values, "tools");
    struct text_buffer json = { .bytes = NULL };
    if (!tools || tools->kind == JSON_TEXT_NULL ||
        (tools->kind == JSON_TEXT_ARRAY && !tools->n_items))
        return OK;
    json_text_write(j, tools, &json);
    enum status status = text_buffer_status(&json, err);
    if (status == OK)
        status = chat_set_tools(c, json.bytes, json.n_bytes, name, err);
    text_buffer_free(&json);
    return status;
}

static enum status add_all(struct chat *c, const struct json_text *j, const char *name,
                           struct err *err) {
    const struct json_text_value *list = j->values, *v;
    if (list->kind == JSON_TEXT_OBJECT)
        list = json_text_get(j, list, "messages");
    if (!list || list->kind != JSON_TEXT_ARRAY)
        return err_set(err, ERR_INPUT, "%s: neither a list of messages nor {\"messages\": [...]}",
                       name);
    for (v = json_text_first(j, list); v; v = json_text_next(j, list, v)) {
        const enum status status = add_message(c, j, v, name, err);
        if (status != OK)
            return status;
    }
    return add_tools(c, j, name, err);
}

enum status chat_parse(struct chat **out, const char *json, size_t n_bytes, const char *name,
                       struct err *err) {
    struct json_text j;
    *out = NULL;
    enum status status = json_text_parse(&j, json, n_bytes, name, err);
    if (status != OK)
        return status;
    status = chat_open(out, err);
    if (status == OK)
        status = add_all(*out, &j, name, err);
    if (status != OK) {
        chat_close(*out);
        *out = NULL;
    }
    json_text_free(&j);
    return status;
}
