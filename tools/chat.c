#include "tools/chat.h"

#include "tools/answer_view.h"
#include "tools/chat_line.h"
#include "tools/interrupt.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct talk {
    struct generator *g;
    struct conversation *c;
    const struct terminal *terminal;
    struct generated last; // of the last answer; its ids are the conversation's
    bool has_last, over;
};

// A line for the person, not part of the conversation.
static void __attribute__((format(printf, 2, 3)))
say(const struct talk *t, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs(terminal_dim(t->terminal), stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "%s\n", terminal_plain(t->terminal));
    va_end(arguments);
}

static void complain(const struct talk *t, const struct err *err) {
    say(t, "%s", err->text);
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

// Answer the messages; those from `before` on were said just now.
static void answer(struct talk *t, size_t before) {
    struct answer_view view = { .parser = NULL };
    struct err err = { .status = OK }, end = { .status = OK };
    bool begun = generate_answer(t, &view, &err) == OK || view.parser;
    if (!begun)
        conversation_truncate(t->c, before);
    else if (keep_answer(t, &view, before, &end) != OK && err.status == OK)
        err = end;
    answer_view_close(&view);
    if (err.status != OK && err.status != CANCELLED)
        complain(t, &err);
    bool taken_back = chat_n_messages(t->c->chat) == before;
    if (err.status != OK)
        say(t, taken_back ? "(stopped before the answer began: your message is taken back)"
                          : "(stopped: the answer is what you see)");
    t->over = !interrupt_forgive();
}

// --- commands ------------------------------------------------------------------------------------

static void reset(struct talk *t, const char *argument) {
    const struct chat *chat = t->c->chat;
    bool has_system = chat_n_messages(chat) > 0 && chat_message(chat, 0)->role == CHAT_SYSTEM;
    (void)argument;
    conversation_truncate(t->c, has_system);
    session_reset(&t->g->session);
    say(t, has_system ? "(a new conversation; the system message stays)" : "(a new conversation)");
}

static void think(struct talk *t, const char *argument) {
    static const char *const words[] = { "off", "on", "max" };
    for (int i = 0; i < 3; i++)
        if (strcmp(argument, words[i]) == 0) {
            t->c->mode = i == 0 ? CHAT_MODE_CHAT : CHAT_MODE_THINKING;
            t->c->effort = i == 2 ? CHAT_EFFORT_MAX : CHAT_EFFORT_NONE;
            say(t, "(reasoning: %s)", words[i]);
            return;
        }
    int now = t->c->mode == CHAT_MODE_CHAT ? 0 : t->c->effort == CHAT_EFFORT_MAX ? 2 : 1;
    say(t, "(reasoning: %s; /think off, on or max)", words[now]);
}

static void set_system(struct talk *t, const char *argument) {
    struct err err = { .status = OK };
    if (*argument) {
        if (conversation_set_system(t->c, text_of(argument), &err) == OK)
            say(t, "(system message set)");
        else
            complain(t, &err);
        return;
    }
    const struct chat *chat = t->c->chat;
    if (chat_n_messages(chat) && chat_message(chat, 0)->role == CHAT_SYSTEM)
        say(t, "(system message: %.*s)", (int)chat_message(chat, 0)->content.n_bytes,
            chat_message(chat, 0)->content.bytes);
    else
        say(t, "(no system message; /system TEXT sets one)");
}

static void load(struct talk *t, const char *argument) {
    struct err err = { .status = OK };
    struct chat *chat = NULL;
    char *text = NULL;
    size_t n;
    enum status status = *argument ? read_text(argument, &text, &n, &err)
                                   : err_set(&err, ERR_USAGE, "/load FILE: which file?");
    if (status == OK)
        status = chat_parse(&chat, text, n, argument, &err);
    free(text);
    if (status != OK) {
        complain(t, &err);
        return;
    }
    struct conversation loaded;
    conversation_open(&loaded, chat);
    loaded.mode = t->c->mode;
    loaded.effort = t->c->effort;
    conversation_close(t->c);
    *t->c = loaded;
    size_t n_messages = chat_n_messages(chat);
    say(t, "(%zu messages)", n_messages);
    if (conversation_check(t->c, argument, &err) == OK)
        answer(t, n_messages - 1);
}

static void save(struct talk *t, const char *argument) {
    struct err err = { .status = OK };
    struct text_buffer json = { 0 };
    FILE *file = NULL;
    if (!*argument)
        err_set(&err, ERR_USAGE, "/save FILE: which file?");
    else if (chat_to_json(t->c->chat, &json, &err) == OK && !(file = fopen(argument, "we")))
        err_set(&err, ERR_IO, "%s: cannot be made: %s", argument, strerror(errno));
    bool written = file && fwrite(json.bytes, 1, json.n_bytes, file) == json.n_bytes;
    if (file && (fclose(file) != 0 || !written))
        err_set(&err, ERR_IO, "%s: cannot be written: %s", argument, strerror(errno));
    text_buffer_free(&json);
    if (err.status == OK)
        say(t, "(%zu messages saved)", chat_n_messages(t->c->chat));
    else
        complain(t, &err);
}

static void stats(struct talk *t, const char *argument) {
    const struct session_prefill *p = &t->last.prefill;
    double seconds = (double)t->last.decode_ns / 1e9;
    (void)argument;
    if (t->has_last)
        say(t,
            "last prompt: %u tokens, %u kept, %u taken in; answer: %u tokens, %.2f tokens/s; "
            "ended by: %s",
            p->n_prompt, p->n_kept, p->n_fed, t->last.n_generated,
            seconds > 0 ? t->last.n_generated / seconds : 0, t->last.end);
    say(t, "context: %u of %u tokens", t->g->session.n_tokens, t->g->session.max_tokens);
    engine_account_text(t->g->engine);
}

static void leave(struct talk *t, const char *argument) {
    (void)argument;
    t->over = true;
}

static void help(struct talk *t, const char *argument);

static const struct {
    const char *name, *argument, *about;
    void (*obey)(struct talk *t, const char *argument);
} commands[] = {
    { "/help", "", "this list", help },
    { "/reset", "", "begin anew", reset },
    { "/think", "off|on|max", "answer at once, or reason first", think },
    { "/system", "TEXT", "set the system message", set_system },
    { "/load", "FILE", "go on with a saved conversation", load },
    { "/save", "FILE", "save this one, as JSON", save },
    { "/stats", "", "where time and bytes went", stats },
    { "/exit", "", "end (so does Ctrl-D)", leave },
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void help(struct talk *t, const char *argument) {
    (void)argument;
    for (size_t i = 0; i < N_COMMANDS; i++)
        say(t, "%s%s%s: %s", commands[i].name, *commands[i].argument ? " " : "",
            commands[i].argument, commands[i].about);
    say(t, "Alt-Enter begins a new line, a paste may have many. Ctrl-C stops an answer.");
}

// Bytes of the word that a line begins with, if it looks like a command: "/help", not "/etc/fstab".
static size_t command_word(const char *line, size_t n_bytes) {
    size_t n = n_bytes && line[0] == '/';
    while (n && n < n_bytes && line[n] >= 'a' && line[n] <= 'z')
        n++;
    bool ends = n == n_bytes || isspace((unsigned char)line[n]);
    return n > 1 && ends ? n : 0;
}

static bool is_command(const char *line, size_t n_bytes) {
    size_t n = command_word(line, n_bytes);
    for (size_t i = 0; n && i < N_COMMANDS; i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0)
            return true;
    return false;
}

static void obey(struct talk *t, const char *line, size_t n_word) {
    char word[32];
    const char *names[N_COMMANDS], *argument = line + n_word + strspn(line + n_word, " \t");
    snprintf(word, sizeof word, "%.*s", (int)n_word, line);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(word, names[i]) == 0) {
            commands[i].obey(t, argument);
            return;
        }
    }
    const char *nearest = nearest_word(word, names, N_COMMANDS);
    say(t, "%s is no command (%s%s)", word, nearest ? "did you mean " : "/help lists them",
        nearest ? nearest : "");
}

// --- the chat ------------------------------------------------------------------------------------

static void take_message(struct talk *t, const char *text, size_t n_bytes) {
    struct err err = { .status = OK };
    size_t before = chat_n_messages(t->c->chat), n_word = command_word(text, n_bytes);
    if (n_word && !memchr(text, '\n', n_bytes)) {
        obey(t, text, n_word);
        return;
    }
    if (conversation_say(t->c, text, n_bytes, &err) == OK)
        answer(t, before);
    else
        complain(t, &err);
}

enum status chat_run(struct generator *g, struct conversation *c, struct err *err) {
    struct talk t = { .g = g, .c = c, .terminal = &g->engine->terminal };
    struct chat_line_options options = {
        .screen = t.terminal->is_terminal ? stderr : stdout,
        .prompt = "> ",
        .escapes = t.terminal->escapes,
        .is_command = is_command,
    };
    struct chat_line *line;
    if (chat_line_open(&line, &options, err) != OK)
        return err->status;
    say(&t, "/help lists commands, Ctrl-D ends.");
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
        if (n_bytes > 0)
            take_message(&t, text, n_bytes);
    }
    chat_line_close(line);
    generated_free(&t.last);
    // Ctrl-C has been heeded; an end that was asked for has not.
    return interrupt_forgive() ? OK : err_set(err, CANCELLED, "interrupted");
}
