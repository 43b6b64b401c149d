/* The commands of a chat: /reset, /save, /load, /system, and what is none. As in test_chat.c the
 * answers are noise. */
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

static void reset_begins_anew(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT, "--seed", "3");
    chat_ask(&c, "hello there");
    char *one = chat_answer(&c);
    chat_ask(&c, "something else");
    free(chat_answer(&c));
    chat_ask(&c, "/reset");
    chat_ask(&c, "hello there");
    char *other = chat_answer(&c);
    assert_string_equal(one, other);
    assert_int_equal(chat_stats(&c).kept, 0);
    free(one);
    free(other);
    chat_end(&c);
}

static void a_saved_conversation_goes_on(void **state) {
    (void)state;
    struct chat c;
    char line[600];
    CHAT(&c, SHORT, "--seed", "3");
    chat_ask(&c, "/system be brief");
    chat_ask(&c, "hello");
    json_t *before = chat_messages(&c);
    assert_string_equal(message_content(before, 0, "system"), "be brief");
    chat_ask(&c, "/reset"); // the system message stays
    json_t *reset = chat_messages(&c);
    assert_int_equal(json_array_size(reset), 1);
    keep_conversation(before);
    snprintf(line, sizeof line, "/load %s", in_dir(chat_dir, "conversation"));
    chat_ask(&c, line);
    json_t *after = chat_messages(&c);
    assert_true(json_equal(before, after));
    chat_ask(&c, "go on");
    json_decref(after);
    after = chat_messages(&c);
    assert_int_equal(json_array_size(after), json_array_size(before) + 2);
    json_decref(before);
    json_decref(reset);
    json_decref(after);
    chat_end(&c);
}

static void what_is_no_command_is_said_and_not_sent(void **state) {
    (void)state;
    struct chat c;
    CHAT(&c, SHORT);
    chat_ask(&c, "/hlp");
    assert_non_null(strstr(c.p.screen, "did you mean /help"));
    chat_ask(&c, "/load /nowhere/at/all");
    assert_non_null(strstr(c.p.screen, "/nowhere/at/all: "));
    chat_ask(&c, "/save /nowhere/at/all");
    assert_non_null(strstr(c.p.screen, "/nowhere/at/all: "));
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    chat_ask(&c, "   ");
    chat_ask(&c, "/load");
    assert_non_null(strstr(c.p.screen, "which file?"));
    chat_ask(&c, "/usr is what?");
    list = chat_messages(&c);
    assert_string_equal(message_content(list, 0, "user"), "/usr is what?");
    json_decref(list);
    chat_ask(&c, "/reset");
    chat_ask(&c, "/etc/fstab is a file");
    list = chat_messages(&c);
    assert_string_equal(message_content(list, 0, "user"), "/etc/fstab is a file");
    json_decref(list);
    chat_type(&c, "/exit\r");
    assert_int_equal(program_wait(&c.p), 0);
    program_close(&c.p);
}

static void text_of_files_does_not_steer_the_terminal(void **state) {
    (void)state;
    struct chat c;
    write_conversation("hostile", "[{\"role\": \"system\", \"content\": "
                                  "\"\\u001b]0;EVIL\\u0007\\u009b2J\"}]");
    write_conversation("hostile-role", "[{\"role\": \"\\u001b[2J\\u009b\"}]");
    CHAT(&c, SHORT);
    chat_load(&c, "hostile");
    chat_ask(&c, "/system");
    assert_non_null(strstr(c.p.screen, "]0;EVIL"));
    assert_null(strstr(c.p.screen, "\x1b]"));
    assert_null(strstr(c.p.screen, "\xC2\x9B"));
    chat_load(&c, "hostile-role");
    assert_non_null(strstr(c.p.screen, "[2J"));
    assert_null(strstr(c.p.screen, "\x1b[2J"));
    assert_null(strstr(c.p.screen, "\xC2\x9B"));
    chat_end(&c);
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
    chat_ask(&c, "hello");
    chat_load(&c, "long");
    assert_non_null(strstr(c.p.screen, "--ctx"));
    chat_load(&c, "model");
    chat_type(&c, "/load /dev/zero\r");
    usleep(100000);
    chat_type(&c, CTRL_C);
    chat_until(&c, PROMPT);
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(message_content(list, 0, "user"), "hello");
    json_decref(list);
    chat_end(&c);
}

static void the_system_message_stays_where_a_file_has_none(void **state) {
    (void)state;
    struct chat c;
    write_conversation("plain", "[{\"role\": \"user\", \"content\": \"hi\"}]");
    write_conversation("own", "[{\"role\": \"system\", \"content\": \"be long\"}]");
    CHAT(&c, SHORT, "--system", "be brief");
    chat_load(&c, "plain"); // and is answered
    json_t *list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(message_content(list, 0, "system"), "be brief");
    json_decref(list);
    chat_load(&c, "own");
    list = chat_messages(&c);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(message_content(list, 0, "system"), "be long");
    json_decref(list);
    chat_end(&c);
}

static void what_was_saved_stays_until_it_is_saved_anew(void **state) {
    (void)state;
    struct chat c;
    char line[600];
    write_conversation("kept", "precious");
    mkdir(in_dir(chat_dir, "kept.part"), 0700); // so the new one cannot be written
    CHAT(&c, SHORT);
    snprintf(line, sizeof line, "/save %s", in_dir(chat_dir, "kept"));
    chat_ask(&c, line);
    assert_non_null(strstr(c.p.screen, "kept: cannot be written: "));
    size_t n;
    char *kept = program_read(chat_dir, "kept", &n);
    assert_string_equal(kept, "precious");
    free(kept);
    chat_ask(&c, "/save /dev/full");
    assert_non_null(strstr(c.p.screen, "/dev/full: cannot be written"));
    rmdir(in_dir(chat_dir, "kept.part"));
    chat_ask(&c, line);
    assert_non_null(strstr(c.p.screen, "(0 messages saved)"));
    chat_end(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reset_begins_anew),
        cmocka_unit_test(a_saved_conversation_goes_on),
        cmocka_unit_test(what_is_no_command_is_said_and_not_sent),
        cmocka_unit_test(text_of_files_does_not_steer_the_terminal),
        cmocka_unit_test(what_cannot_be_loaded_leaves_the_conversation),
        cmocka_unit_test(the_system_message_stays_where_a_file_has_none),
        cmocka_unit_test(what_was_saved_stays_until_it_is_saved_anew),
    };
    return cmocka_run_group_tests(tests, chat_fixture_make, chat_fixture_remove);
}
