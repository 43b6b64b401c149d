#include "tools/chat.h"

#include "tools/chat_commands.h"
#include "tools/chat_line.h"
#include "tools/interrupt.h"

#include <string.h>
#include <unistd.h>

static void take_message(struct talk *t, const char *text, size_t n_bytes) {
    struct err err = { .status = OK };
    size_t before = chat_n_messages(t->c->chat);
    if (strspn(text, " \t\n") == n_bytes || obey_chat_command(t, text, n_bytes))
        return;
    if (conversation_say(t->c, text, n_bytes, &err) == OK)
        talk_answer(t, before);
    else
        talk_complain(t, &err);
}

enum status chat_run(struct generator *g, struct conversation *c, struct err *err) {
    struct talk t = { .g = g, .c = c, .terminal = &g->engine->terminal };
    struct chat_line_options options = {
        .screen = t.terminal->is_terminal ? stderr : stdout,
        .prompt = "> ",
        .escapes = t.terminal->escapes,
        .is_command = is_chat_command,
    };
    struct chat_line *line;
    if (chat_line_open(&line, &options, err) != OK)
        return err->status;
    talk_say(&t, "/help lists commands, Ctrl-D ends.");
    while (!t.over) {
        const char *text;
        size_t n_bytes;
        account_pause(sluice_account(g->engine->sluice));
        enum status status = chat_line_read(line, &text, &n_bytes);
        account_resume(sluice_account(g->engine->sluice));
        if (status == AGAIN)
            continue;
        if (status != OK)
            break;
        take_message(&t, text, n_bytes);
    }
    chat_line_close(line);
    generated_free(&t.last);
    // Ctrl-C has been heeded; an end that was asked for has not.
    return interrupt_forgive() ? OK : err_set(err, CANCELLED, "interrupted");
}
