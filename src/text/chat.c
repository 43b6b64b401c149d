/* src/text/chat.c - see chat.h. The list of messages; JSON comes in by chat_parse.c, the prompt goes out
 * by chat_render.c. */
#include "src/text/chat_parts.h"

#include "src/text/json_text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status chat_open(struct chat **out, struct err *err) {
    *out = calloc(1, sizeof **out);
    return *out ? OK : err_set(err, ERR_MEMORY, "no memory for a conversation");
}

void chat_close(struct chat *c) {
    if (!c)
        return;
    chat_truncate(c, 0);
    free(c->kept);
    free(c);
}

void chat_truncate(struct chat *c, size_t n_messages) {
    while (c->n_messages > n_messages)
        free(c->kept[--c->n_messages].storage);
}

size_t chat_n_messages(const struct chat *c) {
    return c->n_messages;
}

const struct chat_message *chat_message(const struct chat *c, size_t index) {
    assert(index < c->n_messages);
    return &c->kept[index].message;
}

/* --- tools and response formats: JSON within a message --- */

/* What a message's JSON becomes before it is kept. */
struct checked {
    struct text_buffer tools;   /* the list, as Python prints it */
    struct text_buffer schemas; /* its functions, a line each */
    struct text_buffer format;  /* the response format */
};

static void checked_free(struct checked *k) {
    text_buffer_free(&k->tools);
    text_buffer_free(&k->schemas);
    text_buffer_free(&k->format);
}

static enum status check_tools(struct text json, const char *where, struct checked *k,
                               struct err *err) {
    struct json_text j;
    size_t index = 0;
    char name[ERR_TEXT_BYTES];
    snprintf(name, sizeof name, "%s: tools", where);
    enum status status = json_text_parse(&j, json.bytes, json.n_bytes, name, err);
    if (status != OK)
        return status;
    if (j.values[0].kind != JSON_TEXT_ARRAY)
        status = err_set(err, ERR_INPUT, "%s: not a list", name);
    else if (j.values[0].n_items)
        json_text_write(&j, j.values, &k->tools);
    const struct json_text_value *tool = status == OK ? json_text_first(&j, j.values) : NULL;
    for (; tool && status == OK; tool = json_text_next(&j, j.values, tool), index++) {
        const struct json_text_value *function = json_text_get(&j, tool, "function");
        if (!function || function->kind != JSON_TEXT_OBJECT) {
            status = err_set(err, ERR_INPUT, "%s: tool %zu has no \"function\" that is an object",
                             name, index);
            break;
        }
        text_buffer_string(&k->schemas, index ? "\n" : "");
        json_text_write(&j, function, &k->schemas);
    }
    json_text_free(&j);
    return status;
}

/* Null, false, 0, "", [] and {} ask for no format. */
static bool is_nothing(const struct json_text_value *v) {
    switch (v->kind) {
    case JSON_TEXT_NULL:
    case JSON_TEXT_FALSE:
        return true;
    case JSON_TEXT_TRUE:
        return false;
    case JSON_TEXT_INTEGER:
        return text_equal(v->text, text_of("0"));
    case JSON_TEXT_FLOAT:
        return json_text_number(v) == 0;
    case JSON_TEXT_STRING:
        return v->text.n_bytes == 0;
    case JSON_TEXT_ARRAY:
    case JSON_TEXT_OBJECT:
        break;
    }
    return v->n_items == 0;
}

static enum status check_format(struct text json, const char *where, struct checked *k,
                                struct err *err) {
    struct json_text j;
    char name[ERR_TEXT_BYTES];
    snprintf(name, sizeof name, "%s: response_format", where);
    enum status status = json_text_parse(&j, json.bytes, json.n_bytes, name, err);
    if (status != OK)
        return status;
    if (!is_nothing(j.values))
        json_text_write(&j, j.values, &k->format);
    json_text_free(&j);
    return OK;
}

/* --- keeping a message --- */

/* Room for a message's texts has been counted: copy one, and step on. */
static struct text keep_text(char **at, struct text text) {
    struct text kept = { *at, text.n_bytes };
    if (text.n_bytes)
        memcpy(*at, text.bytes, text.n_bytes);
    *at += text.n_bytes;
    return kept;
}

static size_t text_bytes(const struct chat_message *m, const struct checked *k) {
    size_t n = m->content.n_bytes + m->reasoning.n_bytes + m->call_id.n_bytes + k->tools.n_bytes +
               k->schemas.n_bytes + k->format.n_bytes;
    for (size_t i = 0; i < m->n_calls; i++)
        n += m->calls[i].id.n_bytes + m->calls[i].name.n_bytes + m->calls[i].arguments.n_bytes;
    return n;
}

static enum status keep(struct chat_kept *out, const struct chat_message *m,
                        const struct checked *k, struct err *err) {
    const size_t calls_bytes = m->n_calls * sizeof *m->calls;
    *out = (struct chat_kept){ .message = *m };
    out->storage = malloc(calls_bytes + text_bytes(m, k) + 1);
    if (!out->storage)
        return err_set(err, ERR_MEMORY, "no memory for a message of %zu bytes", text_bytes(m, k));
    struct chat_call *calls = out->storage;
    char *at = (char *)out->storage + calls_bytes;
    for (size_t i = 0; i < m->n_calls; i++) {
        calls[i].id = keep_text(&at, m->calls[i].id);
        calls[i].name = keep_text(&at, m->calls[i].name);
        calls[i].arguments = keep_text(&at, m->calls[i].arguments);
    }
    out->message.calls = m->n_calls ? calls : NULL;
    out->message.content = keep_text(&at, m->content);
    out->message.reasoning = keep_text(&at, m->reasoning);
    out->message.call_id = keep_text(&at, m->call_id);
    out->message.tools = keep_text(&at, text_buffer_view(&k->tools));
    out->message.response_format = keep_text(&at, text_buffer_view(&k->format));
    out->schemas = keep_text(&at, text_buffer_view(&k->schemas));
    return OK;
}

/* Check a message and make the chat's own copy of it. */
static enum status adopt(struct chat_kept *out, const struct chat_message *m, const char *where,
                         struct err *err) {
    struct checked k = { .tools = { .bytes = NULL } };
    const bool instructs = m->role == CHAT_SYSTEM || m->role == CHAT_DEVELOPER;
    enum status status = OK;
    if (m->role == CHAT_DEVELOPER && !m->content.n_bytes)
        status = err_set(err, ERR_INPUT, "%s: a developer's message has no content", where);
    if (status == OK && m->tools.n_bytes)
        status = check_tools(m->tools, where, &k, err);
    if (status == OK && m->response_format.n_bytes)
        status = check_format(m->response_format, where, &k, err);
    if (status == OK && !instructs && (k.tools.n_bytes || k.format.n_bytes))
        status = err_set(err, ERR_INPUT,
                         "%s: only a system or a developer's message can have %s: the model would "
                         "not see them here",
                         where, k.tools.n_bytes ? "tools" : "a response_format");
    if (status == OK && (k.tools.failed || k.schemas.failed || k.format.failed))
        status = err_set(err, ERR_MEMORY, "%s: no memory for its JSON", where);
    if (status == OK)
        status = keep(out, m, &k, err);
    checked_free(&k);
    return status;
}

static enum status make_room(struct chat *c, struct err *err) {
    if (c->n_messages < c->capacity)
        return OK;
    const size_t capacity = c->capacity ? 2 * c->capacity : 8;
    struct chat_kept *kept = realloc(c->kept, capacity * sizeof *kept);
    if (!kept)
        return err_set(err, ERR_MEMORY, "no memory for %zu messages", capacity);
    c->kept = kept;
    c->capacity = capacity;
    return OK;
}

enum status chat_add(struct chat *c, const struct chat_message *message, const char *name,
                     struct err *err) {
    const struct chat_message given = *message; // it may lie in c->kept, which may move
    char where[ERR_TEXT_BYTES];
    snprintf(where, sizeof where, "%s: message %zu", name, c->n_messages);
    enum status status = make_room(c, err);
    if (status == OK)
        status = adopt(&c->kept[c->n_messages], &given, where, err);
    if (status == OK)
        c->n_messages++;
    return status;
}

enum status chat_append(struct chat *c, const struct chat_message *message, struct err *err) {
    return chat_add(c, message, "conversation", err);
}

/* --- the system message --- */

/* Put a message in the place of the first system message, or first if there is none. */
static enum status set_first_system(struct chat *c, const struct chat_message *changed,
                                    struct chat_kept *old, const char *where, struct err *err) {
    struct chat_kept kept;
    const size_t index = old ? (size_t)(old - c->kept) : 0;
    enum status status = make_room(c, err);
    if (status == OK)
        status = adopt(&kept, changed, where, err);
    if (status != OK)
        return status;
    if (!old && !kept.message.content.n_bytes && !kept.message.tools.n_bytes) {
        free(kept.storage); // it would say nothing
        return OK;
    }
    if (old) {
        free(c->kept[index].storage);
    } else {
        memmove(c->kept + 1, c->kept, c->n_messages * sizeof *c->kept);
        c->n_messages++;
    }
    c->kept[index] = kept;
    return OK;
}

static struct chat_kept *first_system(struct chat *c) {
    for (size_t i = 0; i < c->n_messages; i++)
        if (c->kept[i].message.role == CHAT_SYSTEM)
            return &c->kept[i];
    return NULL;
}

enum status chat_set_system(struct chat *c, struct text content, struct err *err) {
    struct chat_kept *old = first_system(c);
    struct chat_message m = { .role = CHAT_SYSTEM };
    if (old)
        m = old->message;
    m.content = content;
    return set_first_system(c, &m, old, "conversation: the system message", err);
}

enum status chat_set_tools(struct chat *c, const char *json, size_t n_bytes, const char *name,
                           struct err *err) {
    struct chat_kept *old = first_system(c);
    struct chat_message m = { .role = CHAT_SYSTEM };
    if (old)
        m = old->message;
    // No byte at all is no JSON, where a message without tools would do.
    m.tools = n_bytes ? (struct text){ json, n_bytes } : text_of(" ");
    return set_first_system(c, &m, old, name, err);
}

/* --- back to JSON --- */

static void write_key(struct text_buffer *out, const char *key) {
    text_buffer_string(out, ", ");
    json_text_write_string(text_of(key), out);
    text_buffer_string(out, ": ");
}

static void write_text(struct text_buffer *out, const char *key, struct text text) {
    write_key(out, key);
    json_text_write_string(text, out);
}

static void write_calls(struct text_buffer *out, const struct chat_message *m) {
    write_key(out, "tool_calls");
    for (size_t i = 0; i < m->n_calls; i++) {
        const struct chat_call *call = &m->calls[i];
        text_buffer_string(out, i ? ", {" : "[{");
        if (call->id.n_bytes) {
            text_buffer_string(out, "\"id\": ");
            json_text_write_string(call->id, out);
            text_buffer_string(out, ", ");
        }
        text_buffer_string(out, "\"type\": \"function\", \"function\": {\"name\": ");
        json_text_write_string(call->name, out);
        write_text(out, "arguments", call->arguments);
        text_buffer_string(out, "}}");
    }
    text_buffer_string(out, "]");
}

static void write_message(struct text_buffer *out, const struct chat_message *m) {
    text_buffer_string(out, "{\"role\": ");
    json_text_write_string(text_of(chat_role_name(m->role)), out);
    if (m->role == CHAT_TOOL)
        write_text(out, "tool_call_id", m->call_id);
    write_text(out, "content", m->content);
    if (m->role == CHAT_ASSISTANT && m->reasoning.n_bytes)
        write_text(out, "reasoning_content", m->reasoning);
    if (m->role == CHAT_ASSISTANT && m->n_calls)
        write_calls(out, m);
    if (m->tools.n_bytes) {
        write_key(out, "tools");
        text_buffer_text(out, m->tools);
    }
    if (m->response_format.n_bytes) {
        write_key(out, "response_format");
        text_buffer_text(out, m->response_format);
    }
    if (m->task != CHAT_TASK_NONE)
        write_text(out, "task", text_of(chat_task_name(m->task)));
    if (m->role == CHAT_ASSISTANT && m->without_eos) {
        write_key(out, "wo_eos");
        text_buffer_string(out, "true");
    }
    text_buffer_string(out, "}");
}

/* A line for each message: easy to read, and to compare. */
enum status chat_to_json(const struct chat *c, struct text_buffer *out, struct err *err) {
    text_buffer_string(out, "{\"messages\": [");
    for (size_t i = 0; i < c->n_messages; i++) {
        text_buffer_string(out, i ? ",\n" : "\n");
        write_message(out, &c->kept[i].message);
    }
    text_buffer_string(out, c->n_messages ? "\n]}\n" : "]}\n");
    return text_buffer_status(out, err);
}

static const char *const role_names[] = { "system", "user",      "assistant",
                                          "tool",   "developer", "latest_reminder" };
static const char *const task_names[] = { "",       "action", "query",   "authority",
                                          "domain", "title",  "read_url" };

const char *chat_role_name(enum chat_role role) {
    return role_names[role];
}

const char *chat_task_name(enum chat_task task) {
    return task_names[task];
}

bool chat_role_of(struct text name, enum chat_role *role) {
    for (int i = 0; i <= CHAT_LATEST_REMINDER; i++)
        if (text_equal(name, text_of(role_names[i]))) {
            *role = (enum chat_role)i;
            return true;
        }
    return false;
}

bool chat_task_of(struct text name, enum chat_task *task) {
    for (int i = CHAT_TASK_ACTION; i <= CHAT_TASK_READ_URL; i++)
        if (text_equal(name, text_of(task_names[i]))) {
            *task = (enum chat_task)i;
            return true;
        }
    return false;
}
