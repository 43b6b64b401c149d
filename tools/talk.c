#include "tools/talk.h"

#include "tools/answer_view.h"
#include "tools/interrupt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

// --- beside the conversation ---------------------------------------------------------------------

void talk_say(const struct talk *t, const char *format, ...) {
    va_list arguments;
    char *line;
    struct text_buffer harmless = { 0 };
    bool held_c2 = false;
    va_start(arguments, format);
    int n = vasprintf(&line, format, arguments);
    va_end(arguments);
    if (n < 0)
        return;
    terminal_harmless(&held_c2, (struct text){ line, (size_t)n }, &harmless);
    fprintf(stderr, "%s%.*s%s\n", terminal_dim(t->terminal), (int)harmless.n_bytes, harmless.bytes,
            terminal_plain(t->terminal));
    text_buffer_free(&harmless);
    free(line);
}

void talk_complain(const struct talk *t, const struct err *err) {
    talk_say(t, "%s", err->text);
}

// --- a turn --------------------------------------------------------------------------------------

/* The answer as it was shown becomes a message, whatever ended it; without a word the messages from
 * `before` on are taken back. */
static enum status keep_answer(struct talk *t, struct answer_view *view, size_t before,
                               struct err *err) {
    struct chat_message message;
    bool said = t->last.n_generated > 0 || t->last.complete;
    enum status status = said ? answer_view_finish(view, &message, err) : OK;
    if (said && conversation_answered(t->c, &message, &t->last.ids, err) == OK)
        return status;
    conversation_truncate(t->c, before);
    return err->status;
}

static enum status generate_answer(struct talk *t, struct answer_view *view, struct err *err) {
    struct text_sink sink = { answer_view_take, view };
    struct token_ids prompt = { 0 };
    enum status status = conversation_prompt(t->c, t->g->engine->tokenizer, &prompt, err);
    if (status == OK)
        status = check_tokens(t->g->engine, &prompt, err);
    if (status == OK)
        status = answer_view_open(view, conversation_answer_mode(t->c), t->terminal, false, err);
    if (status == OK) {
        generated_free(&t->last);
        status = generate(t->g, &prompt, &sink, &t->last, err);
        t->has_last = true;
    }
    token_ids_free(&prompt);
    return status;
}

void talk_answer(struct talk *t, size_t before) {
    struct answer_view view = { .parser = NULL };
    struct err err = { .status = OK }, end = { .status = OK };
    size_t asked = chat_n_messages(t->c->chat);
    bool begun = generate_answer(t, &view, &err) == OK || view.parser;
    if (!begun)
        conversation_truncate(t->c, before);
    else if (keep_answer(t, &view, before, &end) != OK && err.status == OK)
        err = end;
    answer_view_close(&view);
    if (err.status != OK && err.status != CANCELLED)
        talk_complain(t, &err);
    size_t now = chat_n_messages(t->c->chat);
    if (err.status != OK)
        talk_say(t, "%s",
                 now > asked   ? "(stopped: the answer is what you see)"
                 : now < asked ? "(stopped before the answer began: your message is taken back)"
                               : "(stopped before the answer began)");
    t->over = !interrupt_forgive();
}
