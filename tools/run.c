#include "tools/answer_view.h"
#include "tools/chat.h"
#include "tools/commands.h"
#include "tools/conversation.h"
#include "tools/engine.h"
#include "tools/generate.h"
#include "tools/interrupt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What is asked, and what becomes of it.
struct run {
    struct engine engine;
    struct generator generator;
    char *text; // of the prompt, if it was read from a file
    const char *prompt;
    size_t n_bytes;
    struct conversation conversation; // without --raw
    struct token_ids ids;             // of the prompt
    struct generated generated;
    bool began; // there is something to account for
};

// --- what is asked: before the model, so that a file that is not there is found at once ----------

static bool has_prompt(const struct options *o) {
    return o->prompt || o->file || o->messages || !isatty(STDIN_FILENO);
}

static enum status read_prompt(struct run *r, const struct options *o, struct err *err) {
    if (!has_prompt(o))
        return err_set(err, ERR_USAGE,
                       "nothing to continue: give -p TEXT, -f FILE, or a text on standard input");
    r->prompt = o->prompt;
    r->n_bytes = o->prompt ? strlen(o->prompt) : 0;
    if (o->prompt)
        return OK;
    enum status status = read_text(o->file ? o->file : "-", &r->text, &r->n_bytes, err);
    r->prompt = r->text;
    return status;
}

// Two texts cannot both come from it.
static enum status check_stdin(const struct options *o, struct err *err) {
    const char *files[] = { o->file, o->messages, o->tools };
    bool prompt = !o->prompt && !o->file && !o->messages && !isatty(STDIN_FILENO);
    uint32_t n = prompt;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        n += files[i] && strcmp(files[i], "-") == 0;
    return n < 2 ? OK
                 : err_set(err, ERR_USAGE, "standard input can be one of them only%s",
                           prompt ? ": the prompt is read from it, since there is no -p" : "");
}

static enum status read_messages(struct run *r, const struct options *o, struct err *err) {
    const char *name = strcmp(o->messages, "-") == 0 ? "standard input" : o->messages;
    struct chat *chat;
    enum status status = read_text(o->messages, &r->text, &r->n_bytes, err);
    if (status == OK)
        status = chat_parse(&chat, r->text, r->n_bytes, name, err);
    if (status != OK)
        return status;
    conversation_open(&r->conversation, chat);
    return conversation_check(&r->conversation, name, err);
}

static enum status read_message(struct run *r, const struct options *o, struct err *err) {
    struct chat *chat;
    enum status status = chat_open(&chat, err);
    if (status != OK)
        return status;
    conversation_open(&r->conversation, chat);
    if (!has_prompt(o)) // a chat: it comes later
        return OK;
    status = read_prompt(r, o, err);
    if (status == OK && r->n_bytes == 0)
        status = err_set(err, ERR_USAGE, "%s: empty: nobody has asked anything",
                         o->prompt                              ? "-p"
                         : o->file && strcmp(o->file, "-") != 0 ? o->file
                                                                : "standard input");
    return status == OK ? conversation_say(&r->conversation, r->prompt, r->n_bytes, err) : status;
}

static enum status read_tools(struct run *r, const struct options *o, struct err *err) {
    const char *name = strcmp(o->tools, "-") == 0 ? "standard input" : o->tools;
    char *json;
    size_t n;
    enum status status = read_text(o->tools, &json, &n, err);
    if (status == OK)
        status = chat_set_tools(r->conversation.chat, json, n, name, err);
    free(json);
    return status;
}

static enum status read_conversation(struct run *r, const struct options *o, struct err *err) {
    enum status status = o->messages ? read_messages(r, o, err) : read_message(r, o, err);
    r->conversation.mode = o->mode;
    r->conversation.effort = o->effort;
    if (status == OK && o->system)
        status = conversation_set_system(&r->conversation, text_of(o->system), err);
    return status == OK && o->tools ? read_tools(r, o, err) : status;
}

// --- one answer ----------------------------------------------------------------------------------

static enum status answer(struct run *r, const struct text_sink *sink, struct err *err) {
    uint32_t ctx = sluice_fitted(r->engine.sluice)->ctx;
    if (r->ids.n > ctx)
        return err_set(err, ERR_MEMORY,
                       "the prompt has %zu tokens, the context holds %u: a larger --ctx is needed",
                       r->ids.n, ctx);
    r->began = true;
    return generate(&r->generator, &r->ids, sink, &r->generated, err);
}

static enum status take_raw(void *context, const char *text, size_t n_bytes, struct err *err) {
    (void)context;
    return write_out(text, n_bytes, err);
}

static enum status continue_text(struct run *r, struct err *err) {
    struct text_sink sink = { take_raw, NULL };
    int32_t *tokens;
    uint32_t n;
    enum status status = encode_raw(&r->engine, r->prompt, r->n_bytes, &tokens, &n, err);
    if (status != OK)
        return status;
    r->ids = (struct token_ids){ (uint32_t *)tokens, n, n };
    status = answer(r, &sink, err);
    if (r->generated.n_generated && (status == OK || status == CANCELLED))
        fputc('\n', stdout);
    return status;
}

static enum status print_message(const struct chat_message *message, struct err *err) {
    struct text_buffer json = { 0 };
    enum status status = answer_to_json(message, &json, err);
    text_buffer_string(&json, "\n");
    if (status == OK)
        status = text_buffer_status(&json, err);
    if (status == OK)
        status = write_out(json.bytes, json.n_bytes, err);
    text_buffer_free(&json);
    return status;
}

static enum status answer_message_once(struct run *r, const struct options *o, struct err *err) {
    struct answer_view view = { .parser = NULL };
    struct text_sink sink = { answer_view_take, &view };
    struct chat_message message;
    struct err end = { .status = OK };
    enum status status = conversation_prompt(&r->conversation, r->engine.tokenizer, &r->ids, err);
    if (status == OK)
        status = check_tokens(&r->engine, &r->ids, err);
    if (status == OK)
        status = answer_view_open(&view, conversation_answer_mode(&r->conversation),
                                  &r->engine.terminal, o->json, err);
    if (status == OK)
        status = answer(r, &sink, err);
    // What an interrupted answer has said, it has said.
    if ((status == OK || status == CANCELLED) &&
        (answer_view_finish(&view, &message, &end) != OK ||
         (o->json && print_message(&message, &end) != OK))) {
        *err = end;
        status = end.status;
    }
    answer_view_close(&view);
    return status;
}

// --- the command ---------------------------------------------------------------------------------

static enum status run(struct run *r, const struct options *o, struct err *err) {
    bool chat = !o->raw && !has_prompt(o);
    if (chat && o->json)
        return err_set(err, ERR_USAGE, "--json prints one answer as a message: ask with -p or -f");
    if (chat && !isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO))
        return err_set(err, ERR_USAGE, "a chat needs a terminal to be shown on; or ask with -p");
    enum status status = check_stdin(o, err);
    if (status == OK)
        status = o->raw ? read_prompt(r, o, err) : read_conversation(r, o, err);
    if (status == OK)
        status = engine_open(&r->engine, o, true, false, err);
    if (status == OK)
        status = generator_open(&r->generator, &r->engine, err);
    if (status != OK)
        return status;
    if (chat) {
        r->began = true;
        return chat_run(&r->generator, &r->conversation, err);
    }
    return o->raw ? continue_text(r, err) : answer_message_once(r, o, err);
}

static void print_end(struct run *r, const struct options *o, struct err *err) {
    fflush(stdout);
    if (o->raw || has_prompt(o))
        fprintf(stderr, "\n%zu tokens of prompt, %u generated; ended by: %s\n", r->ids.n,
                r->generated.n_generated, r->generated.end);
    engine_account(&r->engine, err);
}

int cmd_run(const struct options *o) {
    struct run r = { .began = false };
    struct err err = { .status = OK };
    run(&r, o, &err);
    if (r.began)
        print_end(&r, o, &err);
    engine_recorded(&r.engine, &err);
    generated_free(&r.generated);
    generator_close(&r.generator);
    token_ids_free(&r.ids);
    conversation_close(&r.conversation);
    engine_traced(&r.engine, &err);
    free(r.text);
    engine_close(&r.engine);
    return command_error(o, &err);
}
