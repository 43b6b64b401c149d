/* `sluice run` as a chat, typed on a terminal: turns, what they cost, Ctrl-C, paste, commands. The
 * answers are noise; what counts is which tokens and bytes. Standard output is a file, so that what
 * was answered is known to the byte. */
#include "tests/e2e/program.h"
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

#define PROMPT      "\x1b[?2004h> "
#define CTRL_C      "\x03"
#define CTRL_D      "\x04"
#define SHORT       "--max-tokens", "12"
#define SHORTER     "--max-tokens", "4"
#define PASTE_LINES 50

static char *dir;
static const char *model;

static int make_all(void **state) {
    (void)state;
    static char name[512];
    signal(SIGPIPE, SIG_IGN);
    dir = make_temp_dir();
    assert_non_null(dir);
    snprintf(name, sizeof name, "%s/model", dir);
    model = name;
    return program_run(dir, NULL, ARGUMENTS("mkmodel", "--layers", "2", "--drafts", "none", model));
}

static int remove_all(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

/* --- a chat ----------------------------------------------------------------------------------- */

struct chat {
    struct program p;
    size_t answered; // bytes of `out` that have been looked at
};

#define CHAT(c, ...) open_chat((c), 0, ARGUMENTS("run", "-m", model, "--ctx", "2048", __VA_ARGS__))

static void until(struct chat *c, const char *text) {
    if (!program_until(&c->p, NULL, text))
        fail_msg("it ended before it said %s: %s", text, c->p.screen);
}

static void open_chat(struct chat *c, unsigned columns, const char *const *arguments) {
    *c = (struct chat){ .answered = 0 };
    program_start(
        &c->p, dir,
        &(struct program_options){ .terminal = true, .keyboard = true, .columns = columns },
        arguments);
    until(c, PROMPT);
}

// Type; the screen is what comes after it.
static void type(struct chat *c, const char *text) {
    c->p.n_screen = 0;
    c->p.screen[0] = '\0';
    program_type(&c->p, text);
}

// Type a message or a command, and wait for the next prompt.
static void ask(struct chat *c, const char *text) {
    type(c, text);
    type(c, "\r");
    until(c, PROMPT);
}

// What was answered since the last look; freed by the caller.
static char *answer(struct chat *c) {
    size_t n;
    char *all = program_read(dir, "out", &n);
    assert_true(n >= c->answered);
    memmove(all, all + c->answered, n - c->answered + 1);
    c->answered = n;
    return all;
}

static void end(struct chat *c) {
    type(c, CTRL_D);
    assert_int_equal(program_wait(&c->p), 0);
    assert_non_null(strstr(c->p.screen, "100.0 %")); // the account
    program_close(&c->p);
}

struct stats {
    unsigned prompt, kept, fed, answer;
};

static struct stats stats(struct chat *c) {
    struct stats s = { 0 };
    ask(c, "/stats");
    const char *line = strstr(c->p.screen, "last prompt: ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "last prompt: %u tokens, %u kept, %u taken in; answer: %u",
                            &s.prompt, &s.kept, &s.fed, &s.answer),
                     4);
    assert_int_equal(s.kept + s.fed, s.prompt);
    return s;
}

// The conversation as /save writes it.
static json_t *messages(struct chat *c) {
    char line[600];
    json_error_t error;
    snprintf(line, sizeof line, "/save %s", in_dir(dir, "saved"));
    ask(c, line);
    json_t *saved = json_load_file(in_dir(dir, "saved"), JSON_ALLOW_NUL, &error);
    if (!saved)
        fail_msg("%s", error.text);
    json_t *list = json_incref(json_object_get(saved, "messages"));
    json_decref(saved);
    return list;
}

static const char *content(json_t *list, size_t index, const char *role) {
    json_t *message = json_array_get(list, index);
    assert_non_null(message);
    assert_string_equal(json_string_value(json_object_get(message, "role")), role);
    return json_string_value(json_object_get(message, "content"));
}

/* What a run of its own answers to the conversation that lies in `conversation`; its parsed form. */
static json_t *fresh_answer(const char *seed, const char *mode, const char *n_tokens) {
    json_error_t error;
    assert_int_equal(program_run(dir, NULL,
                                 ARGUMENTS("run", "-m", model, "--ctx", "2048", "--messages",
                                           in_dir(dir, "conversation"), "--seed", seed, "--mode",
                                           mode, "--max-tokens", n_tokens, "--json")),
                     0);
    json_t *message = json_load_file(in_dir(dir, "out"), JSON_ALLOW_NUL, &error);
    assert_non_null(message);
    return message;
}

static json_t *message(const char *role, const char *text) {
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

static void keep_conversation(json_t *list) {
    assert_int_equal(json_dump_file(list, in_dir(dir, "conversation"), 0), 0);
}

/* --- turns ------------------------------------------------------------------------------------ */

static void a_message_is_answered_as_by_a_run_of_its_own(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "3");
    ask(&c, "hello there");
    char *chat = answer(&c);
    struct stats s = stats(&c);
    assert_int_equal(s.kept, 0);
    assert_int_equal(s.answer, 12);
    end(&c);
    assert_int_equal(program_run(dir, NULL,
                                 ARGUMENTS("run", "-m", model, "--ctx", "2048", "-p", "hello there",
                                           SHORT, "--seed", "3")),
                     0);
    char *once = program_read(dir, "out", NULL);
    assert_string_equal(chat, once);
    assert_true(strlen(once) > 12);
    free(chat);
    free(once);
}

static void answers_stream(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800");
    type(&c, "hello\r");
    size_t n = 0, before = 0;
    int grown = 0;
    while (grown < 3 && !strstr(c.p.screen, PROMPT)) {
        program_until(&c.p, "out", "");
        free(program_read(dir, "out", &n));
        grown += n > before;
        before = n;
    }
    assert_int_equal(grown, 3); // seen three times before the end
    type(&c, CTRL_C);
    until(&c, PROMPT);
    end(&c);
}

static void next_turn_takes_in_the_new_message_alone(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "5");
    ask(&c, "hello there");
    struct stats one = stats(&c);
    ask(&c, "again");
    struct stats two = stats(&c);
    // All but the answer's last token, which nobody had asked what follows it.
    assert_int_equal(two.kept, one.prompt + one.answer - 1);
    ask(&c, "again");
    struct stats three = stats(&c);
    assert_int_equal(three.kept, two.prompt + two.answer - 1);
    assert_int_equal(three.fed, two.fed); // the same message
    end(&c);
}

/* A seed whose first answer is cut into tokens as the tokenizer would cut its text: a saved
 * conversation is then the same tokens. Noise of few tokens often is. */
static void find_plain_seed(char seed[16]) {
    for (int i = 0; i < 200; i++) {
        snprintf(seed, 16, "%d", i);
        assert_int_equal(program_run(dir, NULL,
                                     ARGUMENTS("run", "-m", model, "--ctx", "2048", "-p", "hello",
                                               SHORTER, "--seed", seed)),
                         0);
        size_t n;
        char *text = program_read(dir, "out", &n), *ids;
        FILE *file = fopen(in_dir(dir, "text"), "w");
        fwrite(text, 1, n - 1, file); // without the line's end
        fclose(file);
        free(text);
        assert_int_equal(
            program_run(dir, NULL,
                        ARGUMENTS("tokenize", "-m", model, "--no-added", in_dir(dir, "text"))),
            0);
        ids = program_read(dir, "out", NULL);
        int words = 1;
        for (const char *p = ids; *p; p++)
            words += *p == ' ';
        free(ids);
        if (words == 4)
            return;
    }
    fail_msg("no answer is made of the tokens that its text is cut into");
}

static void second_turn_equals_a_fresh_run(void **state) {
    (void)state;
    struct chat c;
    char seed[16];
    find_plain_seed(seed);
    CHAT(&c, SHORTER, "--seed", seed);
    ask(&c, "hello");
    ask(&c, "and you?");
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 4);
    struct stats s = stats(&c);
    assert_true(s.kept > 0);
    end(&c);
    char *second = strdup(content(list, 3, "assistant"));
    json_array_remove(list, 3);
    keep_conversation(list);
    json_t *fresh = fresh_answer(seed, "chat", "4");
    assert_string_equal(second, json_string_value(json_object_get(fresh, "content")));
    json_decref(fresh);
    json_decref(list);
    free(second);
}

static void second_turn_of_thinking_goes_on_from_the_snapshot(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "4", "--mode", "thinking");
    ask(&c, "hello there");
    struct stats one = stats(&c);
    ask(&c, "and you?");
    struct stats two = stats(&c);
    assert_int_equal(two.kept, one.prompt - 1); // all but <think>, which is </think> now
    json_t *list = messages(&c);
    end(&c);
    json_t *last = json_incref(json_array_get(list, 3));
    assert_string_equal(content(list, 1, "assistant"), "");
    json_array_remove(list, 3);
    keep_conversation(list);
    json_t *fresh = fresh_answer("4", "thinking", "12");
    assert_true(json_equal(json_object_get(fresh, "reasoning_content"),
                           json_object_get(last, "reasoning_content")));
    json_decref(fresh);
    json_decref(last);
    json_decref(list);
}

static void reasoning_is_dimmed_and_no_answer(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "4");
    ask(&c, "/think on");
    type(&c, "hello\r");
    until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "\x1b[2m"));
    json_t *list = messages(&c);
    assert_true(json_string_length(json_object_get(json_array_get(list, 1), "reasoning_content")) >
                12);
    char *out = answer(&c);
    assert_string_equal(out, "");
    free(out);
    json_decref(list);
    ask(&c, "/think off");
    ask(&c, "hello");
    out = answer(&c);
    assert_true(strlen(out) > 12);
    free(out);
    end(&c);
}

/* --- Ctrl-C ----------------------------------------------------------------------------------- */

// It has said something more since the last look.
static void until_answering(struct chat *c) {
    size_t n = 0;
    while (n < c->answered + 20) {
        program_until(&c->p, "out", "");
        free(program_read(dir, "out", &n));
    }
}

static void ctrl_c_stops_the_answer_and_keeps_the_chat(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800");
    type(&c, "hello\r");
    until_answering(&c);
    type(&c, CTRL_C);
    until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "(stopped: the answer is what you see)"));
    struct stats one = stats(&c);
    assert_true(one.answer > 0 && one.answer < 1800);
    char *shown = answer(&c);
    json_t *list = messages(&c);
    const char *said = content(list, 1, "assistant");
    assert_int_equal(strlen(shown), strlen(said) + 1); // and a line's end
    assert_memory_equal(shown, said, strlen(said));
    free(shown);
    json_decref(list);
    // A second Ctrl-C is a first one again.
    type(&c, "again\r");
    until_answering(&c);
    type(&c, CTRL_C);
    until(&c, PROMPT);
    struct stats two = stats(&c);
    assert_true(two.kept >= one.prompt + one.answer - 1);
    end(&c);
}

static void what_follows_a_stopped_answer_equals_a_fresh_run(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1500", "--mode", "thinking", "--seed", "8");
    type(&c, "hello there\r");
    until(&c, "\x1b[2m"); // it reasons
    type(&c, CTRL_C);
    until(&c, PROMPT);
    json_t *list = messages(&c);
    if (json_array_size(list) == 0) { // stopped before the first word
        ask(&c, "hello there");
        json_decref(list);
        list = messages(&c);
    }
    type(&c, "and you?\r");
    until(&c, "\x1b[2m");
    type(&c, CTRL_C);
    until(&c, PROMPT);
    json_array_append_new(list, message("user", "and you?"));
    keep_conversation(list);
    json_decref(list);
    list = messages(&c);
    end(&c);
    json_t *fresh = fresh_answer("8", "thinking", "12"); // twelve tokens of it
    const char *whole = json_string_value(json_object_get(fresh, "reasoning_content"));
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    const char *said = json_string_value(json_object_get(last, "reasoning_content"));
    if (said) { // one is the other's beginning
        size_t n = strlen(said) < strlen(whole) ? strlen(said) : strlen(whole);
        assert_memory_equal(said, whole, n > 3 ? n - 3 : 0); // but for half a character
    }
    json_decref(fresh);
    json_decref(list);
}

static void a_message_that_was_not_answered_is_taken_back(void **state) {
    (void)state;
    struct chat c;
    char text[3000], *p = text;
    while (p < text + 2900)
        p += sprintf(p, "one and two ");
    CHAT(&c, SHORT, "--chunk", "1", "--seed", "3");
    type(&c, text);
    type(&c, "\r");
    until(&c, "\x1b[?2004l"); // it has been taken
    type(&c, CTRL_C);
    until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "taken back"));
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    ask(&c, "hello there");
    char *then = answer(&c);
    ask(&c, "/reset");
    ask(&c, "hello there");
    char *anew = answer(&c);
    assert_string_equal(then, anew);
    free(then);
    free(anew);
    end(&c);
}

static void ctrl_c_drops_what_is_being_typed(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    type(&c, "no, wait");
    until(&c, "no, wait");
    type(&c, CTRL_C);
    until(&c, PROMPT);
    ask(&c, "hello");
    json_t *list = messages(&c);
    assert_string_equal(content(list, 0, "user"), "hello");
    json_decref(list);
    end(&c);
}

static void termination_ends_the_chat_at_any_moment(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800");
    kill(c.p.pid, SIGTERM);
    assert_int_equal(program_wait(&c.p), 130);
    assert_non_null(strstr(c.p.screen, "100.0 %"));
    program_close(&c.p);
    CHAT(&c, "--max-tokens", "1800");
    type(&c, "hello\r");
    until_answering(&c);
    kill(c.p.pid, SIGTERM);
    assert_int_equal(program_wait(&c.p), 130);
    assert_non_null(strstr(c.p.screen, "100.0 %"));
    program_close(&c.p);
}

static void what_is_typed_during_an_answer_counts_after_it(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "300");
    type(&c, "hello\r");
    until_answering(&c);
    type(&c, "again\r");
    until(&c, PROMPT "again");
    until_answering(&c);
    type(&c, CTRL_D);
    assert_int_equal(program_wait(&c.p), 0);
    assert_non_null(strstr(c.p.screen, "100.0 %"));
    program_close(&c.p);
}

/* --- typing ----------------------------------------------------------------------------------- */

static char *pasted_lines(const char *before, const char *after) {
    char *text = malloc(PASTE_LINES * 40), *p = text;
    p += sprintf(p, "%s", before);
    for (int i = 0; i < PASTE_LINES; i++)
        p += sprintf(p, "line %d, é, of a paste\r", i);
    sprintf(p, "%s", after);
    return text;
}

static void assert_one_pasted_message(struct chat *c) {
    json_t *list = messages(c);
    assert_int_equal(json_array_size(list), 2);
    const char *text = content(list, 0, "user");
    int lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, PASTE_LINES - 1);
    assert_non_null(strstr(text, "line 0, é, of a paste\nline 1,"));
    assert_non_null(strstr(text, "line 49, é, of a paste"));
    json_decref(list);
}

static void paste_of_fifty_lines(unsigned columns) {
    struct chat c;
    char *marked = pasted_lines("\x1b[200~", "\x1b[201~"), *unmarked = pasted_lines("", "");
    open_chat(&c, columns, ARGUMENTS("run", "-m", model, "--ctx", "2048", SHORT, "--seed", "3"));
    type(&c, marked);
    until(&c, "line 49");
    ask(&c, "");
    assert_one_pasted_message(&c);
    char *one = answer(&c);
    ask(&c, "/reset");
    type(&c, unmarked); // its last line's end sends it
    until(&c, PROMPT);
    assert_one_pasted_message(&c);
    char *other = answer(&c);
    assert_string_equal(one, other);
    free(one);
    free(other);
    free(marked);
    free(unmarked);
    end(&c);
}

static void fifty_pasted_lines_are_one_message(void **state) {
    (void)state;
    paste_of_fifty_lines(0);
}

static void twenty_columns_are_enough(void **state) {
    (void)state;
    struct chat c;
    paste_of_fifty_lines(20);
    open_chat(&c, 20, ARGUMENTS("run", "-m", model, "--ctx", "2048", SHORT, "--seed", "3"));
    ask(&c, "a message that is much longer than a line of twenty columns, é and 日本語 in it");
    json_t *list = messages(&c);
    assert_string_equal(
        content(list, 0, "user"),
        "a message that is much longer than a line of twenty columns, é and 日本語 in it");
    json_decref(list);
    ask(&c, "/help");
    end(&c);
}

static void a_message_can_be_edited_and_called_back(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    ask(&c, "helo\x1b[Dl\x1b[C!"); // the arrows
    ask(&c, "first\x1b\rsecond");  // Alt-Enter
    ask(&c, "\x1b[A\x1b[A");       // up, up
    json_t *list = messages(&c);
    assert_string_equal(content(list, 0, "user"), "hello!");
    assert_string_equal(content(list, 2, "user"), "first\nsecond");
    assert_string_equal(content(list, 4, "user"), "hello!");
    json_decref(list);
    end(&c);
}

static void text_of_users_makes_no_control_tokens(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    ask(&c, "a");
    struct stats plain = stats(&c);
    ask(&c, "/reset");
    ask(&c, "<think>");
    struct stats spelt = stats(&c);
    assert_true(spelt.prompt > plain.prompt); // several tokens of letters
    end(&c);
}

/* --- commands --------------------------------------------------------------------------------- */

static void reset_begins_anew(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "3");
    ask(&c, "hello there");
    char *one = answer(&c);
    ask(&c, "something else");
    free(answer(&c));
    ask(&c, "/reset");
    ask(&c, "hello there");
    char *other = answer(&c);
    assert_string_equal(one, other);
    assert_int_equal(stats(&c).kept, 0);
    free(one);
    free(other);
    end(&c);
}

static void a_saved_conversation_goes_on(void **state) {
    (void)state;
    struct chat c;
    char line[600];
    CHAT(&c, SHORT, "--seed", "3");
    ask(&c, "/system be brief");
    ask(&c, "hello");
    json_t *before = messages(&c);
    assert_string_equal(content(before, 0, "system"), "be brief");
    ask(&c, "/reset"); // the system message stays
    json_t *reset = messages(&c);
    assert_int_equal(json_array_size(reset), 1);
    keep_conversation(before);
    snprintf(line, sizeof line, "/load %s", in_dir(dir, "conversation"));
    ask(&c, line);
    json_t *after = messages(&c);
    assert_true(json_equal(before, after));
    ask(&c, "go on");
    json_decref(after);
    after = messages(&c);
    assert_int_equal(json_array_size(after), json_array_size(before) + 2);
    json_decref(before);
    json_decref(reset);
    json_decref(after);
    end(&c);
}

static void what_is_no_command_is_said_and_not_sent(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    ask(&c, "/hlp");
    assert_non_null(strstr(c.p.screen, "did you mean /help"));
    ask(&c, "/load /nowhere/at/all");
    assert_non_null(strstr(c.p.screen, "/nowhere/at/all: "));
    ask(&c, "/save /nowhere/at/all");
    assert_non_null(strstr(c.p.screen, "/nowhere/at/all: "));
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    ask(&c, "   ");
    ask(&c, "/load");
    assert_non_null(strstr(c.p.screen, "which file?"));
    ask(&c, "/usr is what?");
    list = messages(&c);
    assert_string_equal(content(list, 0, "user"), "/usr is what?");
    json_decref(list);
    ask(&c, "/reset");
    ask(&c, "/etc/fstab is a file");
    list = messages(&c);
    assert_string_equal(content(list, 0, "user"), "/etc/fstab is a file");
    json_decref(list);
    type(&c, "/exit\r");
    assert_int_equal(program_wait(&c.p), 0);
    program_close(&c.p);
}

static void write_conversation(const char *name, const char *json) {
    FILE *file = fopen(in_dir(dir, name), "w");
    assert_non_null(file);
    fputs(json, file);
    assert_int_equal(fclose(file), 0);
}

static void load(struct chat *c, const char *name) {
    char line[600];
    snprintf(line, sizeof line, "/load %s ", in_dir(dir, name));
    ask(c, line);
}

static void ctrl_c_pressed_twice_is_one(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800", "--seed", "3");
    for (int i = 0; i < 5; i++) {
        type(&c, "hello\r");
        until_answering(&c);
        type(&c, CTRL_C);
        kill(c.p.pid, SIGINT); // at once
        until(&c, PROMPT);
    }
    type(&c, CTRL_C);
    until(&c, PROMPT);
    ask(&c, "/help");
    end(&c);
}

static void a_paste_without_end_can_be_dropped(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    type(&c, "\x1b[200~no end");
    usleep(100000); // Ctrl-C is typed, not pasted
    type(&c, CTRL_C);
    until(&c, PROMPT);
    ask(&c, "hello");
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(content(list, 0, "user"), "hello");
    json_decref(list);
    end(&c);
}

static void text_of_files_does_not_steer_the_terminal(void **state) {
    (void)state;
    struct chat c;
    write_conversation("hostile", "[{\"role\": \"system\", \"content\": "
                                  "\"\\u001b]0;EVIL\\u0007\\u009b2J\"}]");
    write_conversation("hostile-role", "[{\"role\": \"\\u001b[2J\\u009b\"}]");
    CHAT(&c, SHORT);
    load(&c, "hostile");
    ask(&c, "/system");
    assert_non_null(strstr(c.p.screen, "]0;EVIL"));
    assert_null(strstr(c.p.screen, "\x1b]"));
    assert_null(strstr(c.p.screen, "\xC2\x9B"));
    load(&c, "hostile-role");
    assert_non_null(strstr(c.p.screen, "[2J"));
    assert_null(strstr(c.p.screen, "\x1b[2J"));
    assert_null(strstr(c.p.screen, "\xC2\x9B"));
    end(&c);
}

static void what_cannot_be_loaded_leaves_the_conversation(void **state) {
    (void)state;
    struct chat c;
    char *words = malloc(1 << 17), *p = words;
    p += sprintf(p, "[{\"role\": \"user\", \"content\": \"");
    while (p < words + 100000)
        p += sprintf(p, "one and two ");
    strcpy(p, "\"}]");
    write_conversation("long", words);
    free(words);
    CHAT(&c, SHORT);
    ask(&c, "hello");
    load(&c, "long");
    assert_non_null(strstr(c.p.screen, "--ctx"));
    load(&c, "model");
    type(&c, "/load /dev/zero\r");
    usleep(100000);
    type(&c, CTRL_C);
    until(&c, PROMPT);
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(content(list, 0, "user"), "hello");
    json_decref(list);
    end(&c);
}

static void the_system_message_stays_where_a_file_has_none(void **state) {
    (void)state;
    struct chat c;
    write_conversation("plain", "[{\"role\": \"user\", \"content\": \"hi\"}]");
    write_conversation("own", "[{\"role\": \"system\", \"content\": \"be long\"}]");
    CHAT(&c, SHORT, "--system", "be brief");
    load(&c, "plain"); // and is answered
    json_t *list = messages(&c);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(content(list, 0, "system"), "be brief");
    json_decref(list);
    load(&c, "own");
    list = messages(&c);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(content(list, 0, "system"), "be long");
    json_decref(list);
    end(&c);
}

static void what_was_saved_stays_until_it_is_saved_anew(void **state) {
    (void)state;
    struct chat c;
    char line[600];
    write_conversation("kept", "precious");
    mkdir(in_dir(dir, "kept.part"), 0700); // so the new one cannot be written
    CHAT(&c, SHORT);
    snprintf(line, sizeof line, "/save %s", in_dir(dir, "kept"));
    ask(&c, line);
    assert_non_null(strstr(c.p.screen, "kept: cannot be written: "));
    size_t n;
    char *kept = program_read(dir, "kept", &n);
    assert_string_equal(kept, "precious");
    free(kept);
    ask(&c, "/save /dev/full");
    assert_non_null(strstr(c.p.screen, "/dev/full: cannot be written"));
    rmdir(in_dir(dir, "kept.part"));
    ask(&c, line);
    assert_non_null(strstr(c.p.screen, "(0 messages saved)"));
    end(&c);
}

static void a_full_context_is_said_and_reset_helps(void **state) {
    (void)state;
    struct chat c;
    open_chat(&c, 0, ARGUMENTS("run", "-m", model, "--ctx", "24", "--seed", "3"));
    ask(&c, "hello");
    assert_int_equal(stats(&c).answer, 24 - stats(&c).prompt + 1);
    ask(&c, "again");
    assert_non_null(strstr(c.p.screen, "--ctx"));
    assert_non_null(strstr(c.p.screen, "taken back"));
    ask(&c, "/reset");
    free(answer(&c));
    ask(&c, "hello");
    char *text = answer(&c);
    assert_true(strlen(text) > 1);
    free(text);
    end(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_answered_as_by_a_run_of_its_own),
        cmocka_unit_test(answers_stream),
        cmocka_unit_test(next_turn_takes_in_the_new_message_alone),
        cmocka_unit_test(second_turn_equals_a_fresh_run),
        cmocka_unit_test(second_turn_of_thinking_goes_on_from_the_snapshot),
        cmocka_unit_test(reasoning_is_dimmed_and_no_answer),
        cmocka_unit_test(ctrl_c_stops_the_answer_and_keeps_the_chat),
        cmocka_unit_test(what_follows_a_stopped_answer_equals_a_fresh_run),
        cmocka_unit_test(a_message_that_was_not_answered_is_taken_back),
        cmocka_unit_test(ctrl_c_drops_what_is_being_typed),
        cmocka_unit_test(termination_ends_the_chat_at_any_moment),
        cmocka_unit_test(what_is_typed_during_an_answer_counts_after_it),
        cmocka_unit_test(fifty_pasted_lines_are_one_message),
        cmocka_unit_test(twenty_columns_are_enough),
        cmocka_unit_test(a_message_can_be_edited_and_called_back),
        cmocka_unit_test(text_of_users_makes_no_control_tokens),
        cmocka_unit_test(reset_begins_anew),
        cmocka_unit_test(a_saved_conversation_goes_on),
        cmocka_unit_test(what_is_no_command_is_said_and_not_sent),
        cmocka_unit_test(ctrl_c_pressed_twice_is_one),
        cmocka_unit_test(a_paste_without_end_can_be_dropped),
        cmocka_unit_test(text_of_files_does_not_steer_the_terminal),
        cmocka_unit_test(what_cannot_be_loaded_leaves_the_conversation),
        cmocka_unit_test(the_system_message_stays_where_a_file_has_none),
        cmocka_unit_test(what_was_saved_stays_until_it_is_saved_anew),
        cmocka_unit_test(a_full_context_is_said_and_reset_helps),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
