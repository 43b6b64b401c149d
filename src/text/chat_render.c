/* src/text/chat_render.c - the prompt of a conversation: chat_render of chat.h.
 *
 * Three steps, as the publisher's encoder does it: messages become turns (tool results and
 * neighbouring user messages are one user turn), turns that thinking mode drops go, the rest is
 * written. Source: the publisher's encoding/encoding_dsv4.py. */
#include "src/text/chat_parts.h"

#include "src/text/json_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BOS             "<｜begin▁of▁sentence｜>"
#define EOS             "<｜end▁of▁sentence｜>"
#define USER            "<｜User｜>"
#define ASSISTANT       "<｜Assistant｜>"
#define LATEST_REMINDER "<｜latest_reminder｜>"
#define THINK           "<think>"
#define THINK_END       "</think>"
#define DSML            "｜DSML｜"

static const char *const task_tokens[] = {
    NULL,           "<｜action｜>", "<｜query｜>",   "<｜authority｜>",
    "<｜domain｜>", "<｜title｜>",  "<｜read_url｜>"
};

static const char effort_max[] =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

static const char tools_begin[] =
    "\n\n## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    "writing a \"<" DSML "tool_calls>\" block like the following:\n\n"
    "<" DSML "tool_calls>\n"
    "<" DSML "invoke name=\"$TOOL_NAME\">\n"
    "<" DSML "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</" DSML
    "parameter>\n"
    "...\n"
    "</" DSML "invoke>\n"
    "<" DSML "invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</" DSML "invoke>\n"
    "</" DSML "tool_calls>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types "
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
    "`string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by " THINK "), you MUST output your complete reasoning "
    "inside " THINK "..." THINK_END " BEFORE any tool calls or final response.\n\n"
    "Otherwise, output directly after " THINK_END " with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";

static const char tools_end[] = "\n\nYou MUST strictly follow the above defined tool name and "
                                "parameter schemas to invoke tool calls.\n";

static const char format_begin[] =
    "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

/* A message, or several that are rendered as one user message. */
struct turn {
    enum chat_role role; /* never CHAT_TOOL */
    enum chat_task task;
    size_t first; /* index of its first message */
    size_t n_messages;
    bool dropped;
};

/* A tool's result, to be put where the order of the calls wants it. */
struct result {
    const struct chat_message *message;
    size_t call;     /* the index of the call that it answers */
    size_t position; /* as they came */
};

struct call_id {
    struct text id;
    size_t call;
};

struct rendering {
    const struct chat *chat;
    enum chat_mode mode;
    bool dropping;
    struct turn *turns;
    size_t n_turns;
    struct turn *last_user; /* or developer; NULL: there is none */
    /* Every message's place: blocks[i] is rendered i-th. Differs from the chat's order in results. */
    const struct chat_message **blocks;
    struct result *results; /* scratch, for one turn */
    struct call_id *ids; /* scratch: the calls of the last assistant message that has any, by id */
    size_t n_ids;

    struct text_buffer text;
    struct text_buffer pieces; /* struct chat_piece, text not yet set */
    size_t *message_at;
};

/* --- writing pieces --- */

static struct chat_piece *last_piece(struct rendering *r) {
    return r->pieces.n_bytes
               ? (struct chat_piece *)(void *)(r->pieces.bytes + r->pieces.n_bytes) - 1
               : NULL;
}

static void put(struct rendering *r, bool control, struct text text) {
    if (!text.n_bytes)
        return;
    text_buffer_text(&r->text, text);
    struct chat_piece *last = last_piece(r);
    if (last && !last->control && !control) {
        last->n_bytes += text.n_bytes;
        return;
    }
    const struct chat_piece piece = { .control = control, .n_bytes = text.n_bytes };
    text_buffer_append(&r->pieces, (const char *)&piece, sizeof piece);
}

static void put_token(struct rendering *r, const char *token) {
    put(r, true, text_of(token));
}

static void put_text(struct rendering *r, struct text text) {
    put(r, false, text);
}

/* The renderer's own words, in which the format's tokens are tokens. */
static void put_words(struct rendering *r, const char *words) {
    static const char *const tokens[] = { DSML, THINK, THINK_END };
    const char *begin = words;
    for (const char *at = words; *at; at++)
        for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
            const size_t n = strlen(tokens[i]);
            if (strncmp(at, tokens[i], n))
                continue;
            put_text(r, (struct text){ begin, (size_t)(at - begin) });
            put_token(r, tokens[i]);
            begin = at + n;
            at = begin - 1;
            break;
        }
    put_text(r, text_of(begin));
}

/* --- step 1: turns --- */

static bool joins(const struct turn *before, const struct chat_message *m) {
    if (!before || before->role != CHAT_USER)
        return false;
    return m->role == CHAT_TOOL || (m->role == CHAT_USER && before->task == CHAT_TASK_NONE);
}

static void form_turns(struct rendering *r) {
    for (size_t i = 0; i < r->chat->n_messages; i++) {
        const struct chat_message *m = &r->chat->kept[i].message;
        const bool tool = m->role == CHAT_TOOL;
        r->blocks[i] = m;
        if (joins(r->n_turns ? &r->turns[r->n_turns - 1] : NULL, m)) {
            r->turns[r->n_turns - 1].n_messages++; // its own task is lost
            continue;
        }
        r->turns[r->n_turns++] = (struct turn){
            .role = tool ? CHAT_USER : m->role,
            .task = tool ? CHAT_TASK_NONE : m->task,
            .first = i,
            .n_messages = 1,
        };
    }
}

/* --- step 2: tool results in the order of their calls --- */

static int compare_ids(const void *a, const void *b) {
    const struct call_id *x = a, *y = b;
    const size_t n = x->id.n_bytes < y->id.n_bytes ? x->id.n_bytes : y->id.n_bytes;
    const int order = n ? memcmp(x->id.bytes, y->id.bytes, n) : 0;
    if (order || x->id.n_bytes != y->id.n_bytes)
        return order ? order : x->id.n_bytes < y->id.n_bytes ? -1 : 1;
    return x->call < y->call ? -1 : x->call > y->call;
}

static void learn_calls(struct rendering *r, const struct chat_message *m) {
    size_t n = 0;
    for (size_t i = 0; i < m->n_calls; i++)
        if (m->calls[i].id.n_bytes)
            r->ids[n++] = (struct call_id){ m->calls[i].id, i };
    if (n)
        qsort(r->ids, n, sizeof *r->ids, compare_ids);
    r->n_ids = n;
}

/* The call of an id: the last, if several have it; the first call of all if none has. */
static size_t call_of(const struct rendering *r, struct text id) {
    const struct call_id wanted = { id, SIZE_MAX };
    size_t low = 0, high = r->n_ids; // ids below `low` sort before what is wanted
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (compare_ids(&r->ids[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low && text_equal(r->ids[low - 1].id, id) ? r->ids[low - 1].call : 0;
}

static int compare_results(const void *a, const void *b) {
    const struct result *x = a, *y = b;
    if (x->call != y->call)
        return x->call < y->call ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

/* Results change places among themselves; text between them stays where it is. */
static void order_results(struct rendering *r, const struct turn *turn) {
    const struct chat_message **block = r->blocks + turn->first;
    size_t n = 0;
    for (size_t i = 0; i < turn->n_messages; i++)
        if (block[i]->role == CHAT_TOOL) {
            r->results[n] = (struct result){ block[i], call_of(r, block[i]->call_id), n };
            n++;
        }
    if (n < 2)
        return;
    qsort(r->results, n, sizeof *r->results, compare_results);
    n = 0;
    for (size_t i = 0; i < turn->n_messages; i++)
        if (block[i]->role == CHAT_TOOL)
            block[i] = r->results[n++].message;
}

static void order_all_results(struct rendering *r) {
    for (size_t i = 0; i < r->n_turns; i++) {
        const struct turn *turn = &r->turns[i];
        const struct chat_message *m = r->blocks[turn->first];
        if (turn->role == CHAT_ASSISTANT && m->n_calls)
            learn_calls(r, m);
        else if (turn->role == CHAT_USER && r->n_ids)
            order_results(r, turn);
    }
}

/* --- step 3: what thinking mode drops --- */

static void drop(struct rendering *r) {
    r->dropping = true;
    for (size_t i = 0; i < r->chat->n_messages; i++)
        if (r->chat->kept[i].message.tools.n_bytes)
            r->dropping = false;
    for (size_t i = 0; i < r->n_turns; i++)
        if (r->turns[i].role == CHAT_USER || r->turns[i].role == CHAT_DEVELOPER)
            r->last_user = &r->turns[i];
    if (!r->dropping || r->mode != CHAT_MODE_THINKING)
        return;
    for (struct turn *turn = r->turns; r->last_user && turn < r->last_user; turn++)
        turn->dropped = turn->role == CHAT_DEVELOPER;
}

/* --- step 4: writing --- */

static void put_tools_and_format(struct rendering *r, const struct chat_kept *kept) {
    if (kept->message.tools.n_bytes) {
        put_words(r, tools_begin);
        put_text(r, kept->schemas);
        put_words(r, tools_end);
    }
    if (kept->message.response_format.n_bytes) {
        put_words(r, format_begin);
        put_text(r, kept->message.response_format);
    }
}

static void put_user(struct rendering *r, const struct turn *turn) {
    put_token(r, USER);
    for (size_t i = turn->first; i < turn->first + turn->n_messages; i++) {
        const struct chat_message *m = r->blocks[i];
        if (i > turn->first) {
            r->message_at[i] = r->text.n_bytes;
            put_words(r, "\n\n");
        }
        put_words(r, m->role == CHAT_TOOL ? "<tool_result>" : "");
        put_text(r, m->content);
        put_words(r, m->role == CHAT_TOOL ? "</tool_result>" : "");
    }
}

static void put_parameter(struct rendering *r, struct text name, bool string, struct text value) {
    put_words(r, "<" DSML "parameter name=\"");
    put_text(r, name);
    put_words(r, string ? "\" string=\"true\">" : "\" string=\"false\">");
    put_text(r, value);
    put_words(r, "</" DSML "parameter>");
}

static enum status put_parameters(struct rendering *r, const struct json_text *j, struct err *err) {
    const struct json_text_value *key, *first = json_text_first(j, j->values);
    struct text_buffer json = { .bytes = NULL };
    for (key = first; key; key = json_text_next(j, j->values, key)) {
        const struct json_text_value *value = json_text_member(j, key);
        const bool string = value->kind == JSON_TEXT_STRING;
        json.n_bytes = 0;
        if (!string)
            json_text_write(j, value, &json);
        put_words(r, key == first ? "" : "\n");
        put_parameter(r, key->text, string, string ? value->text : text_buffer_view(&json));
    }
    const enum status status = text_buffer_status(&json, err);
    text_buffer_free(&json);
    return status;
}

static enum status put_arguments(struct rendering *r, struct text arguments, struct err *err) {
    struct json_text j;
    enum status status = json_text_parse(&j, arguments.bytes, arguments.n_bytes, "arguments", NULL);
    if (status == ERR_MEMORY)
        return err_set(err, status, "no memory for the arguments of a call");
    if (status == OK && j.values[0].kind == JSON_TEXT_OBJECT)
        status = put_parameters(r, &j, err);
    else { // the model is shown what is no object as it is
        put_parameter(r, text_of("arguments"), true, arguments);
        status = OK;
    }
    json_text_free(&j);
    return status;
}

static enum status put_calls(struct rendering *r, const struct chat_message *m, struct err *err) {
    if (!m->n_calls)
        return OK;
    put_words(r, "\n\n<" DSML "tool_calls>");
    for (size_t i = 0; i < m->n_calls; i++) {
        put_words(r, "\n<" DSML "invoke name=\"");
        put_text(r, m->calls[i].name);
        put_words(r, "\">\n");
        const enum status status = put_arguments(r, m->calls[i].arguments, err);
        if (status != OK)
            return status;
        put_words(r, "\n</" DSML "invoke>");
    }
    put_words(r, "\n</" DSML "tool_calls>");
    return OK;
}

/* Reasoning is shown where it is kept, and where the turn before did not ask for a task. */
static enum status put_assistant(struct rendering *r, const struct turn *turn,
                                 const struct turn *before, struct err *err) {
    const struct chat_message *m = r->blocks[turn->first];
    const bool kept = !r->dropping || !r->last_user || turn > r->last_user;
    if (r->mode == CHAT_MODE_THINKING && kept && (!before || before->task == CHAT_TASK_NONE)) {
        put_text(r, m->reasoning);
        put_token(r, THINK_END);
    }
    put_text(r, m->content);
    const enum status status = put_calls(r, m, err);
    if (!m->without_eos)
        put_token(r, EOS);
    return status;
}

static enum status put_turn(struct rendering *r, const struct turn *turn, const struct turn *before,
                            struct err *err) {
    const struct chat_kept *kept = &r->chat->kept[turn->first];
    switch (turn->role) {
    case CHAT_USER:
        put_user(r, turn);
        return OK;
    case CHAT_ASSISTANT:
        return put_assistant(r, turn, before, err);
    case CHAT_LATEST_REMINDER:
        put_token(r, LATEST_REMINDER);
        put_text(r, kept->message.content);
        return OK;
    case CHAT_DEVELOPER:
        put_token(r, USER);
        break;
    case CHAT_SYSTEM:
        break;
    case CHAT_TOOL:
        assert(!"tool messages are part of user turns");
    }
    put_text(r, kept->message.content);
    put_tools_and_format(r, kept);
    return OK;
}

/* What leads from a turn to the answer, if one follows. */
static void put_transition(struct rendering *r, const struct turn *turn, const struct turn *next) {
    const bool thinking = r->mode == CHAT_MODE_THINKING;
    if (next && next->role != CHAT_ASSISTANT && next->role != CHAT_LATEST_REMINDER)
        return;
    if (turn->task != CHAT_TASK_NONE) {
        if (turn->task == CHAT_TASK_ACTION) {
            put_token(r, ASSISTANT);
            put_token(r, thinking ? THINK : THINK_END);
        }
        put_token(r, task_tokens[turn->task]);
    } else if (turn->role == CHAT_USER || turn->role == CHAT_DEVELOPER) {
        put_token(r, ASSISTANT);
        put_token(r, thinking && (!r->dropping || turn == r->last_user) ? THINK : THINK_END);
    }
}

static enum status put_all(struct rendering *r, enum chat_effort effort, struct err *err) {
    const struct turn *before = NULL;
    put_token(r, BOS);
    if (r->n_turns && r->mode == CHAT_MODE_THINKING && effort == CHAT_EFFORT_MAX)
        put_words(r, effort_max);
    for (struct turn *turn = r->turns, *end = turn + r->n_turns; turn < end; turn++) {
        r->message_at[turn->first] = r->text.n_bytes;
        if (turn->dropped)
            continue;
        const enum status status = put_turn(r, turn, before, err);
        if (status != OK)
            return status;
        const struct turn *next = turn + 1;
        while (next < end && next->dropped)
            next++;
        put_transition(r, turn, next < end ? next : NULL);
        before = turn;
    }
    r->message_at[r->chat->n_messages] = r->text.n_bytes;
    text_buffer_append(&r->text, "", 1); // the NUL
    return r->text.failed || r->pieces.failed
               ? err_set(err, ERR_MEMORY, "no memory for a prompt of %zu bytes", r->text.n_bytes)
               : OK;
}

/* --- the whole --- */

static enum status rendering_open(struct rendering *r, struct err *err) {
    const size_t n = r->chat->n_messages;
    size_t most_calls = 0;
    for (size_t i = 0; i < n; i++)
        if (r->chat->kept[i].message.n_calls > most_calls)
            most_calls = r->chat->kept[i].message.n_calls;
    r->turns = calloc(n + 1, sizeof *r->turns);
    r->blocks = calloc(n + 1, sizeof *r->blocks);
    r->results = calloc(n + 1, sizeof *r->results);
    r->ids = calloc(most_calls + 1, sizeof *r->ids);
    r->message_at = calloc(n + 1, sizeof *r->message_at);
    return r->turns && r->blocks && r->results && r->ids && r->message_at
               ? OK
               : err_set(err, ERR_MEMORY, "no memory to render %zu messages", n);
}

static void rendering_close(struct rendering *r) {
    free(r->turns);
    free(r->blocks);
    free(r->results);
    free(r->ids);
    free(r->message_at);
    text_buffer_free(&r->text);
    text_buffer_free(&r->pieces);
}

/* Hand the buffers over; the text lies still now, so pieces can point into it. */
static void hand_over(struct rendering *r, struct chat_prompt *out) {
    out->text = r->text.bytes;
    out->n_bytes = r->text.n_bytes - 1;
    out->pieces = (struct chat_piece *)(void *)r->pieces.bytes;
    out->n_pieces = r->pieces.n_bytes / sizeof *out->pieces;
    out->message_at = r->message_at;
    out->n_messages = r->chat->n_messages;
    const char *at = out->text;
    for (size_t i = 0; i < out->n_pieces; i++) {
        out->pieces[i].text = at;
        at += out->pieces[i].n_bytes;
    }
    r->text = r->pieces = (struct text_buffer){ .bytes = NULL };
    r->message_at = NULL;
}

enum status chat_render(const struct chat *c, enum chat_mode mode, enum chat_effort effort,
                        struct chat_prompt *out, struct err *err) {
    struct rendering r = { .chat = c, .mode = mode };
    *out = (struct chat_prompt){ .text = NULL };
    enum status status = rendering_open(&r, err);
    if (status == OK) {
        form_turns(&r);
        order_all_results(&r);
        drop(&r);
        status = put_all(&r, effort, err);
    }
    if (status == OK)
        hand_over(&r, out);
    rendering_close(&r);
    return status;
}

void chat_prompt_free(struct chat_prompt *p) {
    free(p->text);
    free(p->pieces);
    free(p->message_at);
    *p = (struct chat_prompt){ .text = NULL };
}
