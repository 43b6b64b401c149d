#include "tools/chat_commands.h"

#include "tools/interrupt.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// --- the conversation's settings -----------------------------------------------------------------

// The message that stays when all others go; NULL: there is none.
static const struct chat_message *system_message(const struct chat *chat) {
    const struct chat_message *first = chat_n_messages(chat) ? chat_message(chat, 0) : NULL;
    return first && first->role == CHAT_SYSTEM ? first : NULL;
}

static void reset(struct talk *t, const char *argument) {
    bool has_system = system_message(t->c->chat);
    (void)argument;
    conversation_truncate(t->c, has_system);
    session_reset(&t->g->session);
    t->has_last = false;
    talk_say(t, has_system ? "(a new conversation; the system message stays)"
                           : "(a new conversation)");
}

static void think(struct talk *t, const char *argument) {
    static const char *const words[] = { "off", "on", "max" };
    for (int i = 0; i < 3; i++)
        if (strcmp(argument, words[i]) == 0) {
            t->c->mode = i == 0 ? CHAT_MODE_CHAT : CHAT_MODE_THINKING;
            t->c->effort = i == 2 ? CHAT_EFFORT_MAX : CHAT_EFFORT_NONE;
            talk_say(t, "(reasoning: %s)", words[i]);
            return;
        }
    int now = t->c->mode == CHAT_MODE_CHAT ? 0 : t->c->effort == CHAT_EFFORT_MAX ? 2 : 1;
    talk_say(t, "(reasoning: %s; /think off, on or max)", words[now]);
}

static void set_system(struct talk *t, const char *argument) {
    struct err err = { .status = OK };
    if (*argument) {
        if (conversation_set_system(t->c, text_of(argument), &err) == OK)
            talk_say(t, "(system message set)");
        else
            talk_complain(t, &err);
        return;
    }
    const struct chat_message *message = system_message(t->c->chat);
    if (message)
        talk_say(t, "(system message: %.*s)", (int)message->content.n_bytes,
                 message->content.bytes);
    else
        talk_say(t, "(no system message; /system TEXT sets one)");
}

// --- files ---------------------------------------------------------------------------------------

// The name that was typed, "~/" being the home directory, as in a shell. "" if none was.
static const char *file_name(const struct talk *t, const char *argument, char *path, size_t bytes) {
    const char *home = t->g->engine->options->environment.home;
    bool in_home = strncmp(argument, "~/", 2) == 0 && *home;
    snprintf(path, bytes, "%s%s", in_home ? home : "", argument + in_home);
    return path;
}

// The system message stays, with its tools, unless the file has one of its own.
static enum status keep_system(const struct talk *t, struct conversation *loaded, bool *kept,
                               struct err *err) {
    const struct chat_message *ours = system_message(t->c->chat);
    *kept = ours && !system_message(loaded->chat);
    if (!*kept)
        return OK;
    enum status status = conversation_set_system(loaded, ours->content, err);
    if (status == OK && ours->tools.n_bytes)
        status =
            chat_set_tools(loaded->chat, ours->tools.bytes, ours->tools.n_bytes, "--tools", err);
    return status;
}

// Before the conversation that is there is given up for one that cannot go on.
static enum status check_length(const struct talk *t, const struct conversation *c,
                                const char *name, struct err *err) {
    struct token_ids ids = { 0 };
    enum status status = conversation_prompt(c, t->g->engine->tokenizer, &ids, err);
    if (status == OK && ids.n > t->g->session.max_tokens)
        status = err_set(err, ERR_MEMORY,
                         "%s: %zu tokens, the context holds %u: a larger --ctx is needed", name,
                         ids.n, t->g->session.max_tokens);
    token_ids_free(&ids);
    return status;
}

static enum status read_conversation(const struct talk *t, const char *name,
                                     struct conversation *loaded, bool *kept, struct err *err) {
    struct chat *chat = NULL;
    char *text;
    size_t n;
    enum status status = read_text(name, &text, &n, err);
    if (status != OK)
        return status;
    status = chat_parse(&chat, text, n, name, err);
    free(text);
    conversation_open(loaded, chat);
    loaded->mode = t->c->mode;
    loaded->effort = t->c->effort;
    if (status == OK)
        status = keep_system(t, loaded, kept, err);
    return status == OK ? check_length(t, loaded, name, err) : status;
}

static void load(struct talk *t, const char *argument) {
    struct err err = { .status = OK }, nothing_to_answer = { .status = OK };
    struct conversation loaded = { .chat = NULL };
    char path[4096];
    bool kept = false;
    const char *name = file_name(t, argument, path, sizeof path);
    if (!*name || strcmp(name, "-") == 0)
        err_set(&err, ERR_USAGE, "/load FILE: which file?");
    else
        read_conversation(t, name, &loaded, &kept, &err);
    if (err.status != OK) {
        conversation_close(&loaded);
        talk_complain(t, &err);
        interrupt_forgive(); // it may have been Ctrl-C
        return;
    }
    conversation_close(t->c);
    *t->c = loaded;
    size_t n = chat_n_messages(loaded.chat);
    talk_say(t, "(%zu message%s%s)", n, n == 1 ? "" : "s",
             kept ? ", the system message that was there before among them" : "");
    if (conversation_check(t->c, name, &nothing_to_answer) == OK)
        talk_answer(t, n); // nothing of it was typed: nothing is taken back
}

// What is there already stays until the new one is whole; but a device or a pipe is written to.
static enum status write_file(const char *name, struct text text, struct err *err) {
    struct stat there;
    char part[4100];
    bool replace = lstat(name, &there) != 0 || S_ISREG(there.st_mode);
    snprintf(part, sizeof part, "%s%s", name, replace ? ".part" : "");
    FILE *file = fopen(part, "we");
    bool made = file && fwrite(text.bytes, 1, text.n_bytes, file) == text.n_bytes;
    int why = errno;
    if (file && fclose(file) != 0 && made) {
        made = false;
        why = errno;
    }
    if (made && replace && rename(part, name) != 0) {
        made = false;
        why = errno;
    }
    if (made)
        return OK;
    err_set(err, ERR_IO, "%s: cannot be written: %s", name, strerror(why));
    if (file && replace)
        unlink(part);
    return err->status;
}

static void save(struct talk *t, const char *argument) {
    struct err err = { .status = OK };
    struct text_buffer json = { 0 };
    char path[4096];
    const char *name = file_name(t, argument, path, sizeof path);
    size_t n = chat_n_messages(t->c->chat);
    if (!*name || strcmp(name, "-") == 0)
        err_set(&err, ERR_USAGE, "/save FILE: which file?");
    else if (chat_to_json(t->c->chat, &json, &err) == OK)
        write_file(name, text_buffer_view(&json), &err);
    text_buffer_free(&json);
    if (err.status == OK)
        talk_say(t, "(%zu message%s saved)", n, n == 1 ? "" : "s");
    else
        talk_complain(t, &err);
}

// --- the rest ------------------------------------------------------------------------------------

static void stats(struct talk *t, const char *argument) {
    const struct session_prefill *p = &t->last.prefill;
    double seconds = (double)t->last.decode_ns / 1e9;
    (void)argument;
    if (t->has_last)
        talk_say(t,
                 "last prompt: %u tokens, %u kept, %u taken in; answer: %u tokens, "
                 "%.2f tokens/s; ended by: %s",
                 p->n_prompt, p->n_kept, p->n_fed, t->last.n_generated,
                 seconds > 0 ? t->last.n_generated / seconds : 0, t->last.end);
    talk_say(t, "context: %u of %u tokens", t->g->session.n_tokens, t->g->session.max_tokens);
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
        talk_say(t, "%s%s%s: %s", commands[i].name, *commands[i].argument ? " " : "",
                 commands[i].argument, commands[i].about);
    talk_say(t, "Alt-Enter begins a new line, a paste may have many. Ctrl-C stops an answer.");
}

// --- which command -------------------------------------------------------------------------------

// Bytes of the word that a line begins with, if it looks like a command: "/help", not "/etc/fstab".
static size_t command_word(const char *line, size_t n_bytes) {
    size_t n = n_bytes && line[0] == '/';
    while (n && n < n_bytes && line[n] >= 'a' && line[n] <= 'z')
        n++;
    bool ends = n == n_bytes || isspace((unsigned char)line[n]);
    return n > 1 && ends ? n : 0;
}

static size_t find_command(const char *line, size_t n_word) {
    size_t i = 0;
    while (i < N_COMMANDS && (n_word == 0 || strlen(commands[i].name) != n_word ||
                              memcmp(commands[i].name, line, n_word) != 0))
        i++;
    return i;
}

bool is_chat_command(const char *line, size_t n_bytes) {
    return find_command(line, command_word(line, n_bytes)) < N_COMMANDS;
}

bool obey_chat_command(struct talk *t, const char *line, size_t n_bytes) {
    size_t n_word = command_word(line, n_bytes), i = find_command(line, n_word);
    if (n_word == 0 || memchr(line, '\n', n_bytes))
        return false;
    const char *argument = line + n_word + strspn(line + n_word, " \t");
    if (i < N_COMMANDS) {
        char *copy = strdup(argument); // without the blanks behind it
        for (size_t n = copy ? strlen(copy) : 0; n && isspace((unsigned char)copy[n - 1]); n--)
            copy[n - 1] = '\0';
        commands[i].obey(t, copy ? copy : argument);
        free(copy);
        return true;
    }
    char word[32];
    const char *names[N_COMMANDS];
    for (i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    snprintf(word, sizeof word, "%.*s", (int)n_word, line);
    const char *nearest = nearest_word(word, names, N_COMMANDS);
    if (!nearest && *argument)
        return false;
    talk_say(t, "%s is no command (%s%s)", word, nearest ? "did you mean " : "/help lists them",
             nearest ? nearest : "");
    return true;
}
