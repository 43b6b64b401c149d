#include "tools/question.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool has_question(const struct options *o) {
    return o->prompts.n || o->file || o->messages || !isatty(STDIN_FILENO);
}

// Two texts cannot both come from it.
static enum status check_stdin(const struct options *o, struct err *err) {
    const char *files[] = { o->file, o->messages, o->tools };
    bool prompt = !o->prompts.n && !o->file && !o->messages && !isatty(STDIN_FILENO);
    uint32_t n = prompt;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        n += files[i] && strcmp(files[i], "-") == 0;
    return n < 2 ? OK
                 : err_set(err, ERR_USAGE, "standard input can be one of them only%s",
                           prompt ? ": the prompt is read from it, since there is no -p" : "");
}

// --- one of them ---------------------------------------------------------------------------------

static enum status read_prompt(struct question *q, const struct options *o, const char *prompt,
                               struct err *err) {
    if (!has_question(o))
        return err_set(err, ERR_USAGE,
                       "nothing to continue: give -p TEXT, -f FILE, or a text on standard input");
    q->prompt = prompt;
    q->n_bytes = prompt ? strlen(prompt) : 0;
    if (prompt)
        return OK;
    enum status status = read_text(o->file ? o->file : "-", &q->text, &q->n_bytes, err);
    q->prompt = q->text;
    return status;
}

static enum status read_messages(struct question *q, const struct options *o, struct err *err) {
    const char *name = strcmp(o->messages, "-") == 0 ? "standard input" : o->messages;
    struct chat *chat;
    enum status status = read_text(o->messages, &q->text, &q->n_bytes, err);
    if (status == OK)
        status = chat_parse(&chat, q->text, q->n_bytes, name, err);
    if (status != OK)
        return status;
    conversation_open(&q->conversation, chat);
    return conversation_check(&q->conversation, name, err);
}

static enum status read_message(struct question *q, const struct options *o, const char *prompt,
                                struct err *err) {
    struct chat *chat;
    enum status status = chat_open(&chat, err);
    if (status != OK)
        return status;
    conversation_open(&q->conversation, chat);
    if (!has_question(o)) // a chat: it comes later
        return OK;
    status = read_prompt(q, o, prompt, err);
    if (status == OK && q->n_bytes == 0)
        status = err_set(err, ERR_USAGE, "%s: empty: nobody has asked anything",
                         prompt                                 ? "-p"
                         : o->file && strcmp(o->file, "-") != 0 ? o->file
                                                                : "standard input");
    return status == OK ? conversation_say(&q->conversation, q->prompt, q->n_bytes, err) : status;
}

// --- all of them ---------------------------------------------------------------------------------

static enum status read_tools(struct question *questions, uint32_t n, const struct options *o,
                              struct err *err) {
    const char *name = strcmp(o->tools, "-") == 0 ? "standard input" : o->tools;
    char *json;
    size_t n_bytes;
    enum status status = read_text(o->tools, &json, &n_bytes, err);
    for (uint32_t i = 0; i < n && status == OK; i++)
        status = chat_set_tools(questions[i].conversation.chat, json, n_bytes, name, err);
    free(json);
    return status;
}

enum status questions_read(struct question **out, uint32_t *n, const struct options *o,
                           struct err *err) {
    *out = NULL;
    *n = o->prompts.n ? o->prompts.n : 1;
    enum status status = check_stdin(o, err);
    if (status == OK && !(*out = calloc(*n, sizeof **out)))
        status = err_set(err, ERR_MEMORY, "no memory for %u prompts", *n);
    for (uint32_t i = 0; i < *n && status == OK; i++) {
        struct question *q = *out + i;
        const char *prompt = o->prompts.n ? o->prompts.items[i] : NULL;
        status = o->raw        ? read_prompt(q, o, prompt, err)
                 : o->messages ? read_messages(q, o, err)
                               : read_message(q, o, prompt, err);
        q->conversation.mode = o->mode;
        q->conversation.effort = o->effort;
        if (status == OK && o->system)
            status = conversation_set_system(&q->conversation, text_of(o->system), err);
    }
    return status == OK && o->tools ? read_tools(*out, *n, o, err) : status;
}

void questions_free(struct question *questions, uint32_t n) {
    for (uint32_t i = 0; questions && i < n; i++) {
        token_ids_free(&questions[i].ids);
        conversation_close(&questions[i].conversation);
        free(questions[i].text);
    }
    free(questions);
}

enum status question_encode(struct question *q, const struct engine *e, struct err *err) {
    if (e->options->raw) {
        int32_t *tokens;
        uint32_t n;
        enum status status = encode_raw(e, q->prompt, q->n_bytes, &tokens, &n, err);
        if (status == OK)
            q->ids = (struct token_ids){ (uint32_t *)tokens, n, n };
        return status;
    }
    enum status status = conversation_prompt(&q->conversation, e->tokenizer, &q->ids, err);
    return status == OK ? check_tokens(e, &q->ids, err) : status;
}
