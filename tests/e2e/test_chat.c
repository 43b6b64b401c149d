/* `sluice run` as a chat, typed on a terminal: turns, what they cost, Ctrl-C, paste. The
 * answers are noise; what counts is which tokens and bytes. Standard output is a file, so that what
 * was answered is known to the byte. */
#include "tests/e2e/chat_fixture.h"

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

#define PASTE_LINES 50

/* --- turns ------------------------------------------------------------------------------------ */

static void a_message_is_answered_as_by_a_run_of_its_own(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "3");
    chat_ask(&c, "hello there");
    char *chat = chat_answer(&c);
    struct chat_stats s = chat_stats(&c);
    assert_int_equal(s.kept, 0);
    assert_int_equal(s.answer, 12);
    chat_end(&c);
    assert_int_equal(program_run(chat_dir, NULL,
                                 ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", "-p",
                                           "hello there", SHORT, "--seed", "3")),
                     0);
    char *once = program_read(chat_dir, "out", NULL);
    assert_string_equal(chat, once);
    assert_true(strlen(once) > 12);
    free(chat);
    free(once);
}

static void answers_stream(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800");
    chat_type(&c, "hello\r");
    size_t n = 0, before = 0;
    int grown = 0;
    while (grown < 3 && !strstr(c.p.screen, PROMPT)) {
        program_until(&c.p, "out", "");
        free(program_read(chat_dir, "out", &n));
        grown += n > before;
        before = n;
    }
    assert_int_equal(grown, 3); // seen three times before the end
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    chat_end(&c);
}

static void next_turn_takes_in_the_new_message_alone(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "5");
    chat_ask(&c, "hello there");
    struct chat_stats one = chat_stats(&c);
    chat_ask(&c, "again");
    struct chat_stats two = chat_stats(&c);
    // All but the answer's last token, which nobody had asked what follows it.
    assert_int_equal(two.kept, one.prompt + one.answer - 1);
    chat_ask(&c, "again");
    struct chat_stats three = chat_stats(&c);
    assert_int_equal(three.kept, two.prompt + two.answer - 1);
    assert_int_equal(three.fed, two.fed); // the same message
    chat_end(&c);
}

/* A seed whose first answer is cut into tokens as the tokenizer would cut its text: a saved
 * conversation is then the same tokens. Noise of few tokens often is. */
static void find_plain_seed(char seed[16]) {
    for (int i = 0; i < 200; i++) {
        snprintf(seed, 16, "%d", i);
        assert_int_equal(program_run(chat_dir, NULL,
                                     ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", "-p",
                                               "hello", SHORTER, "--seed", seed)),
                         0);
        size_t n;
        char *text = program_read(chat_dir, "out", &n), *ids;
        FILE *file = fopen(in_dir(chat_dir, "text"), "w");
        fwrite(text, 1, n - 1, file); // without the line's end
        fclose(file);
        free(text);
        assert_int_equal(program_run(chat_dir, NULL,
                                     ARGUMENTS("tokenize", "-m", chat_model, "--no-added",
                                               in_dir(chat_dir, "text"))),
                         0);
        ids = program_read(chat_dir, "out", NULL);
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
    chat_ask(&c, "hello");
    chat_ask(&c, "and you?");
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 4);
    struct chat_stats s = chat_stats(&c);
    assert_true(s.kept > 0);
    chat_end(&c);
    char *second = strdup(message_content(list, 3, "assistant"));
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
    chat_ask(&c, "hello there");
    struct chat_stats one = chat_stats(&c);
    chat_ask(&c, "and you?");
    struct chat_stats two = chat_stats(&c);
    assert_int_equal(two.kept, one.prompt - 1); // all but <think>, which is </think> now
    json_t *list = chat_messages(&c);
    chat_end(&c);
    json_t *last = json_incref(json_array_get(list, 3));
    assert_string_equal(message_content(list, 1, "assistant"), "");
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
    chat_ask(&c, "/think on");
    chat_type(&c, "hello\r");
    chat_until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "\x1b[2m"));
    json_t *list = chat_messages(&c);
    assert_true(json_string_length(json_object_get(json_array_get(list, 1), "reasoning_content")) >
                12);
    char *out = chat_answer(&c);
    assert_string_equal(out, "");
    free(out);
    json_decref(list);
    chat_ask(&c, "/think off");
    chat_ask(&c, "hello");
    out = chat_answer(&c);
    assert_true(strlen(out) > 12);
    free(out);
    chat_end(&c);
}

/* --- Ctrl-C ----------------------------------------------------------------------------------- */

static void ctrl_c_stops_the_answer_and_keeps_the_chat(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800");
    chat_type(&c, "hello\r");
    chat_until_answering(&c);
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "(stopped: the answer is what you see)"));
    struct chat_stats one = chat_stats(&c);
    assert_true(one.answer > 0 && one.answer < 1800);
    char *shown = chat_answer(&c);
    json_t *list = chat_messages(&c);
    const char *said = message_content(list, 1, "assistant");
    assert_int_equal(strlen(shown), strlen(said) + 1); // and a line's end
    assert_memory_equal(shown, said, strlen(said));
    free(shown);
    json_decref(list);
    // A second Ctrl-C is a first one again.
    chat_type(&c, "again\r");
    chat_until_answering(&c);
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    struct chat_stats two = chat_stats(&c);
    assert_true(two.kept >= one.prompt + one.answer - 1);
    chat_end(&c);
}

static void what_follows_a_stopped_answer_equals_a_fresh_run(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1500", "--mode", "thinking", "--seed", "8");
    chat_type(&c, "hello there\r");
    chat_until(&c, "\x1b[2m"); // it reasons
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    json_t *list = chat_messages(&c);
    if (json_array_size(list) == 0) { // stopped before the first word
        chat_ask(&c, "hello there");
        json_decref(list);
        list = chat_messages(&c);
    }
    chat_type(&c, "and you?\r");
    chat_until(&c, "\x1b[2m");
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    json_array_append_new(list, make_message("user", "and you?"));
    keep_conversation(list);
    json_decref(list);
    list = chat_messages(&c);
    chat_end(&c);
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
    chat_type(&c, text);
    chat_type(&c, "\r");
    chat_until(&c, "\x1b[?2004l"); // it has been taken
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    assert_non_null(strstr(c.p.screen, "taken back"));
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    chat_ask(&c, "hello there");
    char *then = chat_answer(&c);
    chat_ask(&c, "/reset");
    chat_ask(&c, "hello there");
    char *anew = chat_answer(&c);
    assert_string_equal(then, anew);
    free(then);
    free(anew);
    chat_end(&c);
}

static void ctrl_c_drops_what_is_being_typed(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    chat_type(&c, "no, wait");
    chat_until(&c, "no, wait");
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    chat_ask(&c, "hello");
    json_t *list = chat_messages(&c);
    assert_string_equal(message_content(list, 0, "user"), "hello");
    json_decref(list);
    chat_end(&c);
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
    chat_type(&c, "hello\r");
    chat_until_answering(&c);
    kill(c.p.pid, SIGTERM);
    assert_int_equal(program_wait(&c.p), 130);
    assert_non_null(strstr(c.p.screen, "100.0 %"));
    program_close(&c.p);
}

static void what_is_typed_during_an_answer_counts_after_it(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "300");
    chat_type(&c, "hello\r");
    chat_until_answering(&c);
    chat_type(&c, "again\r");
    chat_until(&c, PROMPT "again");
    chat_until_answering(&c);
    chat_type(&c, CTRL_D);
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
    json_t *list = chat_messages(c);
    assert_int_equal(json_array_size(list), 2);
    const char *text = message_content(list, 0, "user");
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
    chat_open(&c, columns,
              ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", SHORT, "--seed", "3"));
    chat_type(&c, marked);
    chat_until(&c, "line 49");
    chat_ask(&c, "");
    assert_one_pasted_message(&c);
    char *one = chat_answer(&c);
    chat_ask(&c, "/reset");
    chat_type(&c, unmarked); // its last line's end sends it
    chat_until(&c, PROMPT);
    assert_one_pasted_message(&c);
    char *other = chat_answer(&c);
    assert_string_equal(one, other);
    free(one);
    free(other);
    free(marked);
    free(unmarked);
    chat_end(&c);
}

static void fifty_pasted_lines_are_one_message(void **state) {
    (void)state;
    paste_of_fifty_lines(0);
}

static void twenty_columns_are_enough(void **state) {
    (void)state;
    struct chat c;
    paste_of_fifty_lines(20);
    chat_open(&c, 20, ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", SHORT, "--seed", "3"));
    chat_ask(&c, "a message that is much longer than a line of twenty columns, é and 日本語 in it");
    json_t *list = chat_messages(&c);
    assert_string_equal(
        message_content(list, 0, "user"),
        "a message that is much longer than a line of twenty columns, é and 日本語 in it");
    json_decref(list);
    chat_ask(&c, "/help");
    chat_end(&c);
}

static void a_message_can_be_edited_and_called_back(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    chat_ask(&c, "helo\x1b[Dl\x1b[C!"); // the arrows
    chat_ask(&c, "first\x1b\rsecond");  // Alt-Enter
    chat_ask(&c, "\x1b[A\x1b[A");       // up, up
    json_t *list = chat_messages(&c);
    assert_string_equal(message_content(list, 0, "user"), "hello!");
    assert_string_equal(message_content(list, 2, "user"), "first\nsecond");
    assert_string_equal(message_content(list, 4, "user"), "hello!");
    json_decref(list);
    chat_end(&c);
}

static void text_of_users_makes_no_control_tokens(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    chat_ask(&c, "a");
    struct chat_stats plain = chat_stats(&c);
    chat_ask(&c, "/reset");
    chat_ask(&c, "<think>");
    struct chat_stats spelt = chat_stats(&c);
    assert_true(spelt.prompt > plain.prompt); // several tokens of letters
    chat_end(&c);
}

/* --- commands --------------------------------------------------------------------------------- */

static void ctrl_c_pressed_twice_is_one(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, "--max-tokens", "1800", "--seed", "3");
    for (int i = 0; i < 5; i++) {
        chat_type(&c, "hello\r");
        chat_until_answering(&c);
        chat_type(&c, CTRL_C);
        kill(c.p.pid, SIGINT); // at once
        chat_until(&c, PROMPT);
    }
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    chat_ask(&c, "/help");
    chat_end(&c);
}

static void a_paste_without_end_can_be_dropped(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    chat_type(&c, "\x1b[200~no end");
    usleep(100000); // Ctrl-C is typed, not pasted
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    chat_ask(&c, "hello");
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(message_content(list, 0, "user"), "hello");
    json_decref(list);
    chat_end(&c);
}

static void a_full_context_is_said_and_reset_helps(void **state) {
    (void)state;
    struct chat c;
    chat_open(&c, 0, ARGUMENTS("run", "-m", chat_model, "--ctx", "24", "--seed", "3"));
    chat_ask(&c, "hello");
    assert_int_equal(chat_stats(&c).answer, 24 - chat_stats(&c).prompt + 1);
    chat_ask(&c, "again");
    assert_non_null(strstr(c.p.screen, "--ctx"));
    assert_non_null(strstr(c.p.screen, "taken back"));
    chat_ask(&c, "/reset");
    free(chat_answer(&c));
    chat_ask(&c, "hello");
    char *text = chat_answer(&c);
    assert_true(strlen(text) > 1);
    free(text);
    chat_end(&c);
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
        cmocka_unit_test(ctrl_c_pressed_twice_is_one),
        cmocka_unit_test(a_paste_without_end_can_be_dropped),
        cmocka_unit_test(a_full_context_is_said_and_reset_helps),
    };
    return cmocka_run_group_tests(tests, chat_fixture_make, chat_fixture_remove);
}
