#include "tests/e2e/chat_fixture.h"

#include "tests/support/make_checkpoint.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

char *chat_dir;
const char *chat_model;

int chat_fixture_make(void **state) {
    (void)state;
    static char name[512];
    signal(SIGPIPE, SIG_IGN);
    chat_dir = make_temp_dir();
    assert_non_null(chat_dir);
    snprintf(name, sizeof name, "%s/model", chat_dir);
    chat_model = name;
    return program_run(chat_dir, NULL,
                       ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", chat_model));
}

int chat_fixture_remove(void **state) {
    (void)state;
    remove_temp_dir(chat_dir);
    return 0;
}

void chat_until(struct chat *c, const char *text) {
    if (!program_until(&c->p, NULL, text))
        fail_msg("it ended before it said %s: %s", text, c->p.screen);
}

void chat_open(struct chat *c, unsigned columns, const char *const *arguments) {
    *c = (struct chat){ .answered = 0 };
    program_start(
        &c->p, chat_dir,
        &(struct program_options){ .terminal = true, .keyboard = true, .columns = columns },
        arguments);
    chat_until(c, PROMPT);
}

// Type; the screen is what comes after it.
void chat_type(struct chat *c, const char *text) {
    c->p.n_screen = 0;
    c->p.screen[0] = '\0';
    program_type(&c->p, text);
}

// Type a message or a command, and wait for the next prompt.
void chat_ask(struct chat *c, const char *text) {
    chat_type(c, text);
    chat_type(c, "\r");
    chat_until(c, PROMPT);
}

// What was answered since the last look; freed by the caller.
char *chat_answer(struct chat *c) {
    size_t n;
    char *all = program_read(chat_dir, "out", &n);
    assert_true(n >= c->answered);
    memmove(all, all + c->answered, n - c->answered + 1);
    c->answered = n;
    return all;
}

void chat_end(struct chat *c) {
    chat_type(c, CTRL_D);
    assert_int_equal(program_wait(&c->p), 0);
    assert_non_null(strstr(c->p.screen, "100.0 %")); // the account
    program_close(&c->p);
}

struct chat_stats chat_stats(struct chat *c) {
    struct chat_stats s = { 0 };
    chat_ask(c, "/stats");
    const char *line = strstr(c->p.screen, "last prompt: ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "last prompt: %u tokens, %u kept, %u taken in; answer: %u",
                            &s.prompt, &s.kept, &s.fed, &s.answer),
                     4);
    assert_int_equal(s.kept + s.fed, s.prompt);
    return s;
}

// The conversation as /save writes it.
json_t *chat_messages(struct chat *c) {
    char line[600];
    json_error_t error;
    snprintf(line, sizeof line, "/save %s", in_dir(chat_dir, "saved"));
    chat_ask(c, line);
    json_t *saved = json_load_file(in_dir(chat_dir, "saved"), JSON_ALLOW_NUL, &error);
    if (!saved)
        fail_msg("%s", error.text);
    json_t *list = json_incref(json_object_get(saved, "messages"));
    json_decref(saved);
    return list;
}

const char *message_content(json_t *list, size_t index, const char *role) {
    json_t *message = json_array_get(list, index);
    assert_non_null(message);
    assert_string_equal(json_string_value(json_object_get(message, "role")), role);
    return json_string_value(json_object_get(message, "content"));
}

/* What a run of its own answers to the conversation that lies in `conversation`; its parsed form. */
json_t *fresh_answer(const char *seed, const char *mode, const char *n_tokens) {
    json_error_t error;
    assert_int_equal(program_run(chat_dir, NULL,
                                 ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", "--messages",
                                           in_dir(chat_dir, "conversation"), "--seed", seed,
                                           "--mode", mode, "--max-tokens", n_tokens, "--json")),
                     0);
    json_t *message = json_load_file(in_dir(chat_dir, "out"), JSON_ALLOW_NUL, &error);
    assert_non_null(message);
    return message;
}

json_t *make_message(const char *role, const char *text) {
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

void keep_conversation(json_t *list) {
    assert_int_equal(json_dump_file(list, in_dir(chat_dir, "conversation"), 0), 0);
}

// It has said something more since the last look.
void chat_until_answering(struct chat *c) {
    size_t n = 0;
    while (n < c->answered + 20) {
        program_until(&c->p, "out", "");
        free(program_read(chat_dir, "out", &n));
    }
}

void write_conversation(const char *name, const char *json) {
    FILE *file = fopen(in_dir(chat_dir, name), "w");
    assert_non_null(file);
    fputs(json, file);
    assert_int_equal(fclose(file), 0);
}

void chat_load(struct chat *c, const char *name) {
    char line[600];
    snprintf(line, sizeof line, "/load %s ", in_dir(chat_dir, name));
    chat_ask(c, line);
}
