/* Conversations and their prompts: the publisher's cases, and what chat.h promises beyond them. */
#include "src/text/chat.h"

#include "src/text/json_text.h"
#include "io/small_file.h"
#include "tests/support/chat_cases.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct chat *parse_text(struct text json) {
    struct err err = { .status = OK };
    struct chat *c;
    if (chat_parse(&c, json.bytes, json.n_bytes, "test", &err) != OK)
        fail_msg("%s", err.text);
    return c;
}

static struct chat *parse(const char *json) {
    return parse_text(text_of(json));
}

static struct chat_prompt render(const struct chat *c, enum chat_mode mode,
                                 enum chat_effort effort) {
    struct err err = { .status = OK };
    struct chat_prompt p;
    if (chat_render(c, mode, effort, &p, &err) != OK)
        fail_msg("%s", err.text);
    return p;
}

static void check_text(struct text got, const char *want) {
    if (!text_equal(got, text_of(want)))
        fail_msg("expected\n%s\ngot\n%.*s", want, (int)got.n_bytes, got.bytes);
}

static void check_prompt(const struct chat *c, enum chat_mode mode, const char *want) {
    struct chat_prompt p = render(c, mode, CHAT_EFFORT_NONE);
    check_text((struct text){ p.text, p.n_bytes }, want);
    chat_prompt_free(&p);
}

/* A conversation in JSON and its prompt in either mode; NULL: not of interest. */
static void check_rendered(const char *json, const char *chat, const char *thinking) {
    struct chat *c = parse(json);
    if (chat)
        check_prompt(c, CHAT_MODE_CHAT, chat);
    if (thinking)
        check_prompt(c, CHAT_MODE_THINKING, thinking);
    chat_close(c);
}

#define BOS   "<｜begin▁of▁sentence｜>"
#define EOS   "<｜end▁of▁sentence｜>"
#define USER  "<｜User｜>"
#define ASK   "<｜Assistant｜></think>"
#define THINK "<｜Assistant｜><think>"

/* --- the publisher's answers --- */

static void every_golden_conversation_renders_byte_for_byte(void **state) {
    (void)state;
    struct chat_cases cases;
    const struct chat_case *one;
    int n = 0;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (!one->render)
            continue;
        struct chat *c = parse_text(one->messages);
        struct chat_prompt p = render(c, one->mode, one->effort);
        if (!text_equal((struct text){ p.text, p.n_bytes }, one->expected))
            fail_msg("case %d: got\n%s", one->line, p.text);
        chat_prompt_free(&p);
        chat_close(c);
        n++;
    }
    chat_cases_close(&cases);
    assert_int_equal(n, 240);
}

static void publishers_own_tests_pass(void **state) {
    (void)state;
    const char *const names[] = { "1", "3" };
    struct err err = { .status = OK };
    char path[200], *input, *output;
    size_t n_input, n_output;
    if (access("../shared/golden/chat/test_input_1.json", R_OK) != 0) {
        print_message(
            "../shared/golden/chat is not there: the publisher's own tests are not run\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "../shared/golden/chat/test_input_%s.json", names[i]);
        assert_int_equal(small_file_read(path, 1 << 20, &input, &n_input, &err), OK);
        snprintf(path, sizeof path, "../shared/golden/chat/test_output_%s.txt", names[i]);
        assert_int_equal(small_file_read(path, 1 << 20, &output, &n_output, &err), OK);
        struct chat *c = parse_text((struct text){ input, n_input });
        check_prompt(c, CHAT_MODE_THINKING, output);
        chat_close(c);
        free(input);
        free(output);
    }
}

/* --- pieces --- */

static bool is_token(const struct chat_piece *piece) {
    static const char *const tokens[] = {
        BOS,
        EOS,
        USER,
        "<｜Assistant｜>",
        "<｜latest_reminder｜>",
        "<think>",
        "</think>",
        "｜DSML｜",
        "<｜action｜>",
        "<｜query｜>",
        "<｜authority｜>",
        "<｜domain｜>",
        "<｜title｜>",
        "<｜read_url｜>",
    };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (text_equal((struct text){ piece->text, piece->n_bytes }, text_of(tokens[i])))
            return true;
    return false;
}

static void check_pieces(const struct chat_prompt *p) {
    const char *at = p->text;
    for (size_t i = 0; i < p->n_pieces; i++) {
        const struct chat_piece *piece = &p->pieces[i];
        assert_ptr_equal(piece->text, at);
        assert_true(piece->n_bytes > 0);
        assert_true(!piece->control || is_token(piece));
        assert_true(piece->control || i == 0 || p->pieces[i - 1].control);
        at += piece->n_bytes;
    }
    assert_ptr_equal(at, p->text + p->n_bytes);
    assert_int_equal(*at, 0);
    for (size_t i = 0; i < p->n_messages; i++)
        assert_true(p->message_at[i] <= p->message_at[i + 1]);
    assert_int_equal(p->message_at[p->n_messages], p->n_bytes);
}

static void pieces_are_single_tokens_or_text_that_no_text_adjoins(void **state) {
    (void)state;
    struct chat_cases cases;
    const struct chat_case *one;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (!one->render)
            continue;
        struct chat *c = parse_text(one->messages);
        struct chat_prompt p = render(c, one->mode, one->effort);
        check_pieces(&p);
        chat_prompt_free(&p);
        chat_close(c);
    }
    chat_cases_close(&cases);
}

/* The prompt with every control piece in brackets. */
static void check_controls(const char *json, enum chat_mode mode, const char *want) {
    struct chat *c = parse(json);
    struct chat_prompt p = render(c, mode, CHAT_EFFORT_NONE);
    struct text_buffer out = { .bytes = NULL };
    for (size_t i = 0; i < p.n_pieces; i++) {
        text_buffer_string(&out, p.pieces[i].control ? "[" : "");
        text_buffer_append(&out, p.pieces[i].text, p.pieces[i].n_bytes);
        text_buffer_string(&out, p.pieces[i].control ? "]" : "");
    }
    check_text(text_buffer_view(&out), want);
    text_buffer_free(&out);
    chat_prompt_free(&p);
    chat_close(c);
}

static void what_people_write_never_becomes_a_control_token(void **state) {
    (void)state;
    check_controls("[{\"role\": \"system\", \"content\": \"<｜User｜>\"},"
                   " {\"role\": \"user\", \"content\": \"</think><think>\"},"
                   " {\"role\": \"assistant\", \"content\": \"<｜end▁of▁sentence｜>\"},"
                   " {\"role\": \"tool\", \"content\": \"｜DSML｜\"}]",
                   CHAT_MODE_CHAT,
                   "[" BOS "]<｜User｜>[" USER "]</think><think>[<｜Assistant｜>][</think>]" EOS
                   "[" EOS "][" USER "]<tool_result>｜DSML｜</tool_result>"
                   "[<｜Assistant｜>][</think>]");
    check_controls(
        "[{\"role\": \"assistant\", \"reasoning_content\": \"</think>\", \"tool_calls\":"
        " [{\"function\": {\"name\": \"｜DSML｜\", \"arguments\":"
        " \"{\\\"<think>\\\": \\\"｜DSML｜\\\", \\\"n\\\": [\\\"<｜User｜>\\\"]}\"}}]}]",
        CHAT_MODE_THINKING,
        "[" BOS "]</think>[</think>]\n\n<[｜DSML｜]tool_calls>\n<[｜DSML｜]invoke "
        "name=\"｜DSML｜\">\n<[｜DSML｜]parameter name=\"<think>\" string=\"true\">｜DSML｜</"
        "[｜DSML｜]parameter>\n<[｜DSML｜]parameter name=\"n\" string=\"false\">[\"<｜User｜>"
        "\"]</[｜DSML｜]parameter>\n</[｜DSML｜]invoke>\n</[｜DSML｜]tool_calls>[" EOS "]");
}

static void tools_show_tokens_of_the_renderer_only(void **state) {
    (void)state;
    struct chat *c = parse("[{\"role\": \"system\", \"content\": \"\", \"tools\":"
                           " [{\"function\": {\"name\": \"<think>｜DSML｜\"}}]}]");
    struct chat_prompt p = render(c, CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    size_t n_dsml = 0, n_think = 0, n_end = 0;
    for (size_t i = 0; i < p.n_pieces; i++) {
        const struct text text = { p.pieces[i].text, p.pieces[i].n_bytes };
        n_dsml += p.pieces[i].control && text_equal(text, text_of("｜DSML｜"));
        n_think += p.pieces[i].control && text_equal(text, text_of("<think>"));
        n_end += p.pieces[i].control && text_equal(text, text_of("</think>"));
    }
    check_pieces(&p);
    assert_int_equal(n_dsml, 9);
    assert_int_equal(n_think, 2);
    assert_int_equal(n_end, 2);
    assert_non_null(strstr(p.text, "\n\n{\"name\": \"<think>｜DSML｜\"}\n\nYou MUST"));
    chat_prompt_free(&p);
    chat_close(c);
}

/* --- messages --- */

static void content_may_come_in_parts(void **state) {
    (void)state;
    check_rendered("[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"},"
                   " {\"type\": \"image_url\", \"image_url\": {}}, {\"text\": \"\", \"type\": "
                   "\"text\"}]}, {\"role\": \"tool\", \"content\": []}]",
                   BOS USER "a\n\n[Unsupported image_url]\n\n\n\n<tool_result></tool_result>" ASK,
                   NULL);
}

static void user_and_tool_messages_join_unless_a_task_parts_them(void **state) {
    (void)state;
    check_rendered("[{\"role\": \"user\", \"content\": \"a\"},"
                   " {\"role\": \"user\", \"content\": \"b\", \"task\": \"title\"},"
                   " {\"role\": \"user\", \"content\": \"c\", \"task\": \"query\"}]",
                   BOS USER "a\n\nb\n\nc" ASK, NULL);
    check_rendered("[{\"role\": \"user\", \"content\": \"a\", \"task\": \"title\"},"
                   " {\"role\": \"tool\", \"content\": \"r\", \"task\": \"action\"},"
                   " {\"role\": \"user\", \"content\": \"b\", \"task\": \"action\"}]",
                   BOS USER "a\n\n<tool_result>r</tool_result>" USER "b" ASK "<｜action｜>",
                   BOS USER "a\n\n<tool_result>r</tool_result>" USER "b" THINK "<｜action｜>");
}

#define CALLED(ids) "{\"role\": \"assistant\", \"tool_calls\": [" ids "]}"
#define CALL(id)    "{\"id\": \"" id "\", \"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}"
#define RESULT(id, text)                                                                           \
    "{\"role\": \"tool\", \"tool_call_id\": \"" id "\", \"content\": \"" text "\"}"

static void check_end(const char *json, const char *want) {
    struct chat *c = parse(json);
    struct chat_prompt p = render(c, CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    assert_true(p.n_bytes >= strlen(want));
    assert_string_equal(p.text + p.n_bytes - strlen(want), want);
    chat_prompt_free(&p);
    chat_close(c);
}

#define R(text) "<tool_result>" text "</tool_result>"

static void tool_results_follow_the_order_of_their_calls(void **state) {
    (void)state;
    check_end("[" CALLED(CALL("a") "," CALL("b") "," CALL("c")) "," RESULT("c", "3") "," RESULT(
                  "a", "1") ",{\"role\": \"user\", \"content\": \"u\"}," RESULT("b", "2") "]",
              USER R("1") "\n\n" R("2") "\n\nu\n\n" R("3") ASK);
    // An id that nobody called ties with the first; equals stay as they came.
    check_end("[" CALLED(CALL("a") "," CALL("b")) "," RESULT("b", "3") "," RESULT(
                  "x", "1") "," RESULT("a", "2") "," RESULT("", "2b") "]",
              USER R("1") "\n\n" R("2") "\n\n" R("2b") "\n\n" R("3") ASK);
    // Of an id that was called twice the last place counts.
    check_end("[" CALLED(CALL("a") "," CALL("b") "," CALL("a")) "," RESULT("a", "2") "," RESULT(
                  "b", "1") "]",
              USER R("1") "\n\n" R("2") ASK);
    // Calls without ids order nothing, and calls before them are forgotten.
    check_end("[" CALLED(CALL("a") "," CALL("b")) "," CALLED(CALL("")) "," RESULT(
                  "b", "1") "," RESULT("a", "2") "]",
              USER R("1") "\n\n" R("2") ASK);
    check_end("[" CALLED(CALL("a") "," CALL("b")) ",{\"role\": \"assistant\"}," RESULT(
                  "b", "2") "," RESULT("a", "1") "]",
              USER R("1") "\n\n" R("2") ASK);
}

static void arguments_that_are_no_object_are_shown_as_they_are(void **state) {
    (void)state;
    static const char *const cases[][2] = { { "", "" },
                                            { "{\\\"a\\\": ", "{\"a\": " },
                                            { "[1, 2]", "[1, 2]" },
                                            { " 7", " 7" },
                                            { "say \\\"hi\\\"\\n", "say \"hi\"\n" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[300], want[300];
        snprintf(json, sizeof json,
                 "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\","
                 " \"arguments\": \"%s\"}}]}]",
                 cases[i][0]);
        snprintf(want, sizeof want,
                 "invoke name=\"f\">\n<｜DSML｜parameter name=\"arguments\" string=\"true\">%s"
                 "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>" EOS,
                 cases[i][1]);
        check_end(json, want);
    }
}

static void parameters_are_json_as_python_prints_it(void **state) {
    (void)state;
    check_end("[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\","
              " \"arguments\": \"{\\\"a\\\":1,\\\"b\\\":[1.50,{}],\\\"a\\\":\\\"<x>\\\","
              "\\\"c\\\":99999999999999999999}\"}}]}]",
              "name=\"f\">\n"
              "<｜DSML｜parameter name=\"a\" string=\"true\"><x></｜DSML｜parameter>\n"
              "<｜DSML｜parameter name=\"b\" string=\"false\">[1.5, {}]</｜DSML｜parameter>\n"
              "<｜DSML｜parameter name=\"c\" string=\"false\">99999999999999999999"
              "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>" EOS);
}

static void empty_response_formats_and_lists_of_tools_are_none(void **state) {
    (void)state;
    static const char *const nothing[] = { "null", "{}", "[]", "\"\"", "0", "0.0", "false" };
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        char json[200];
        snprintf(json, sizeof json,
                 "[{\"role\": \"system\", \"content\": \"s\", \"tools\": %s, \"response_format\":"
                 " %s}]",
                 i == 0 ? "null" : "[]", nothing[i]);
        check_rendered(json, BOS "s", BOS "s");
    }
    check_rendered("[{\"role\": \"developer\", \"content\": \"d\", \"response_format\": 0.5}]",
                   BOS USER "d\n\n## Response Format:\n\nYou MUST strictly adhere to the following "
                            "schema to reply:\n0.5" ASK,
                   NULL);
}

static void thinking_mode_forgets_what_came_before_the_last_question(void **state) {
    (void)state;
    const char *json =
        "[{\"role\": \"developer\", \"content\": \"d\"},"
        " {\"role\": \"user\", \"content\": \"u\"},"
        " {\"role\": \"assistant\", \"reasoning_content\": \"r\", \"content\": \"a\"},"
        " {\"role\": \"user\", \"content\": \"v\"},"
        " {\"role\": \"assistant\", \"reasoning_content\": \"s\", \"content\": \"b\"}]";
    check_rendered(json, BOS USER "d" USER "u" ASK "a" EOS USER "v" ASK "b" EOS,
                   BOS USER "u" ASK "a" EOS USER "v" THINK "s</think>b" EOS);
}

static void empty_conversation_is_the_first_token(void **state) {
    (void)state;
    check_rendered("[]", BOS, BOS);
    struct chat *c = parse("{\"messages\": []}");
    struct chat_prompt p = render(c, CHAT_MODE_THINKING, CHAT_EFFORT_MAX);
    assert_string_equal(p.text, BOS);
    assert_int_equal(p.message_at[0], p.n_bytes);
    chat_prompt_free(&p);
    chat_close(c);
}

static void texts_may_hold_nul(void **state) {
    (void)state;
    struct chat *c = parse("[{\"role\": \"user\", \"content\": \"a\\u0000b\"}]");
    struct chat_prompt p = render(c, CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    assert_int_equal(p.n_bytes, strlen(BOS USER ASK) + 3);
    assert_memory_equal(p.text, BOS USER "a\0b" ASK, p.n_bytes);
    chat_prompt_free(&p);
    chat_close(c);
}

static void check_places(const char *json, enum chat_mode mode, const char *const *want) {
    struct chat *c = parse(json);
    struct chat_prompt p = render(c, mode, CHAT_EFFORT_MAX);
    for (size_t i = 0; i < p.n_messages; i++) {
        const struct text got = { p.text + p.message_at[i], p.message_at[i + 1] - p.message_at[i] };
        check_text(got, want[i]);
    }
    chat_prompt_free(&p);
    chat_close(c);
}

static void prompt_says_where_each_message_begins(void **state) {
    (void)state;
    check_places("[{\"role\": \"system\", \"content\": \"s\"},"
                 " {\"role\": \"developer\", \"content\": \"d\"},"
                 " {\"role\": \"latest_reminder\", \"content\": \"l\"},"
                 " {\"role\": \"user\", \"content\": \"u\"},"
                 " {\"role\": \"user\", \"content\": \"v\"},"
                 " {\"role\": \"assistant\", \"content\": \"a\"}]",
                 CHAT_MODE_THINKING,
                 (const char *const[]){ "s", "", "<｜latest_reminder｜>l", USER "u", "\n\nv" THINK,
                                        "</think>a" EOS });
}

/* --- tools beside the messages --- */

static void tools_beside_the_messages_belong_to_the_first_system_message(void **state) {
    (void)state;
    const char *tools = "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]";
    const char *system = "{\"role\": \"system\", \"content\": \"\", \"tools\": ";
    const char *user = "{\"role\": \"user\", \"content\": \"u\"}";
    char beside[600], within[600];
    // There is none: one comes first.
    snprintf(beside, sizeof beside, "{\"messages\": [%s], \"tools\": %s}", user, tools);
    snprintf(within, sizeof within, "[%s%s}, %s]", system, tools, user);
    struct chat *c = parse(within);
    struct chat_prompt p = render(c, CHAT_MODE_THINKING, CHAT_EFFORT_NONE);
    check_rendered(beside, NULL, p.text);
    // There is one, though not at the beginning, and it has others.
    snprintf(beside, sizeof beside, "{\"tools\": %s, \"messages\": [%s, %s[{\"function\": {}}]}]}",
             tools, user, system);
    snprintf(within, sizeof within, "[%s, %s%s}]", user, system, tools);
    chat_prompt_free(&p);
    chat_close(c);
    c = parse(within);
    p = render(c, CHAT_MODE_THINKING, CHAT_EFFORT_NONE);
    check_rendered(beside, NULL, p.text);
    chat_prompt_free(&p);
    chat_close(c);
    check_rendered("{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}], \"tools\": []}",
                   BOS USER "u" ASK, NULL);
}

/* --- errors --- */

static void errors_name_the_message(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        { "[1", "not JSON: no , or ] after an item at byte 2" },
        { "{}", "neither a list of messages nor {\"messages\": [...]}" },
        { "{\"messages\": {}}", "neither a list of messages nor {\"messages\": [...]}" },
        { "3", "neither a list of messages nor {\"messages\": [...]}" },
        { "[{\"role\": \"user\", \"content\": \"\"}, 1]", "message 1: not an object" },
        { "[{\"content\": \"\"}]", "message 0: no role" },
        { "[{\"role\": \"robot\", \"content\": \"\"}]", "message 0: unknown role \"robot\"" },
        { "[{\"role\": 1}]", "message 0: role is not a string" },
        { "[{\"role\": \"user\"}]", "message 0: no content" },
        { "[{\"role\": \"tool\", \"content\": null}]", "message 0: no content" },
        { "[{\"role\": \"latest_reminder\"}]", "message 0: no content" },
        { "[{\"role\": \"developer\", \"content\": \"\"}]",
          "message 0: a developer's message has no content" },
        { "[{\"role\": \"user\", \"content\": 5}]",
          "message 0: its content is neither a string nor a list of parts" },
        { "[{\"role\": \"user\", \"content\": [\"x\"]}]",
          "message 0: a part of its content has no type" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]",
          "message 0: a part of its content has type text and no text" },
        { "[{\"role\": \"user\", \"content\": \"\", \"task\": \"jump\"}]",
          "message 0: unknown task \"jump\"" },
        { "[{\"role\": \"assistant\", \"reasoning_content\": []}]",
          "message 0: reasoning_content is not a string" },
        { "[{\"role\": \"assistant\", \"wo_eos\": 1}]",
          "message 0: wo_eos is neither true nor false" },
        { "[{\"role\": \"assistant\", \"tool_calls\": {}}]",
          "message 0: tool_calls is not a list" },
        { "[{\"role\": \"assistant\", \"tool_calls\": [{}]}]",
          "message 0: one of its tool_calls has no function" },
        { "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"arguments\": \"\"}}]}]",
          "message 0: one of its tool_calls has no name that is a string" },
        { "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\","
          " \"arguments\": {}}}]}]",
          "message 0: one of its tool_calls has no arguments that are a string of JSON" },
        { "[{\"role\": \"assistant\", \"tool_calls\": [{\"id\": 1, \"function\": {\"name\": \"f\","
          " \"arguments\": \"\"}}]}]",
          "message 0: one of its tool_calls has an id that is not a string" },
        { "[{\"role\": \"tool\", \"content\": \"\", \"tool_call_id\": 3}]",
          "message 0: tool_call_id is not a string" },
        { "[{\"role\": \"system\", \"tools\": {\"a\": 1}}]", "message 0: tools: not a list" },
        { "[{\"role\": \"system\", \"tools\": [{\"function\": {}}, {}]}]",
          "message 0: tools: tool 1 has no \"function\" that is an object" },
        { "[{\"role\": \"user\", \"content\": \"\", \"tools\": [{\"function\": {}}]}]",
          "message 0: only a system or a developer's message can have tools: the model would not "
          "see "
          "them here" },
        { "{\"messages\": [], \"tools\": 1}", "tools: not a list" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = { .status = OK };
        struct chat *c;
        char want[300] = "f.json: ";
        strcat(want, cases[i][1]);
        assert_int_equal(chat_parse(&c, cases[i][0], strlen(cases[i][0]), "f.json", &err),
                         ERR_INPUT);
        assert_null(c);
        assert_string_equal(err.text, want);
    }
}

/* --- turn by turn --- */

static void append(struct chat *c, enum chat_role role, const char *content) {
    const struct chat_message m = { .role = role, .content = text_of(content) };
    assert_int_equal(chat_append(c, &m, NULL), OK);
}

static void a_chat_grows_and_shrinks_turn_by_turn(void **state) {
    (void)state;
    struct chat *c;
    assert_int_equal(chat_open(&c, NULL), OK);
    for (int i = 0; i < 20; i++) {
        append(c, CHAT_USER, "u");
        append(c, CHAT_ASSISTANT, "a");
    }
    chat_truncate(c, 2);
    append(c, CHAT_USER, "v");
    assert_int_equal(chat_n_messages(c), 3);
    check_text(chat_message(c, 2)->content, "v");
    check_prompt(c, CHAT_MODE_CHAT, BOS USER "u" ASK "a" EOS USER "v" ASK);

    // A message of the chat itself, often enough that the list has to move.
    for (int i = 0; i < 40; i++)
        assert_int_equal(chat_append(c, chat_message(c, 0), NULL), OK);
    check_text(chat_message(c, 42)->content, "u");
    chat_truncate(c, 3);

    // A system message: put first, then changed where it is; it says nothing, it is not there.
    assert_int_equal(chat_set_system(c, text_of("be brief"), NULL), OK);
    assert_int_equal(chat_set_system(c, text_of("be kind"), NULL), OK);
    check_prompt(c, CHAT_MODE_CHAT, BOS "be kind" USER "u" ASK "a" EOS USER "v" ASK);
    assert_int_equal(chat_n_messages(c), 4);
    chat_truncate(c, 0);
    assert_int_equal(chat_set_system(c, text_of(""), NULL), OK);
    assert_int_equal(chat_set_tools(c, "[]", 2, "tools.json", NULL), OK);
    assert_int_equal(chat_n_messages(c), 0);
    chat_close(c);
    chat_close(NULL);
}

static void what_is_refused_leaves_the_chat_as_it_was(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct chat *c = parse("[{\"role\": \"system\", \"content\": \"s\"},"
                           " {\"role\": \"user\", \"content\": \"u\"}]");
    const struct chat_message bad = { .role = CHAT_DEVELOPER, .tools = text_of("[") };
    assert_int_equal(chat_append(c, &bad, &err), ERR_INPUT);
    assert_string_equal(err.text, "conversation: message 2: a developer's message has no content");
    err_clear(&err);
    assert_int_equal(chat_set_tools(c, "[{}]", 4, "t.json", &err), ERR_INPUT);
    assert_string_equal(err.text, "t.json: tools: tool 0 has no \"function\" that is an object");
    assert_int_equal(chat_set_tools(c, "", 0, "t.json", NULL), ERR_INPUT);
    check_prompt(c, CHAT_MODE_CHAT, BOS "s" USER "u" ASK);
    chat_close(c);
}

static void an_unfinished_answer_is_to_be_continued(void **state) {
    (void)state;
    struct chat *c;
    assert_int_equal(chat_open(&c, NULL), OK);
    append(c, CHAT_USER, "u");
    const struct chat_message m = { .role = CHAT_ASSISTANT,
                                    .content = text_of("a"),
                                    .reasoning = text_of("r"),
                                    .without_eos = true };
    assert_int_equal(chat_append(c, &m, NULL), OK);
    check_prompt(c, CHAT_MODE_THINKING, BOS USER "u" THINK "r</think>a");
    check_prompt(c, CHAT_MODE_CHAT, BOS USER "u" ASK "a");
    chat_close(c);
}

/* --- back to JSON --- */

static void check_same_prompts(const struct chat *a, const struct chat *b) {
    for (int mode = CHAT_MODE_CHAT; mode <= CHAT_MODE_THINKING; mode++) {
        struct chat_prompt p = render(a, (enum chat_mode)mode, CHAT_EFFORT_NONE);
        struct chat_prompt q = render(b, (enum chat_mode)mode, CHAT_EFFORT_NONE);
        assert_true(
            text_equal((struct text){ p.text, p.n_bytes }, (struct text){ q.text, q.n_bytes }));
        chat_prompt_free(&p);
        chat_prompt_free(&q);
    }
}

static void a_saved_conversation_loads_as_the_same(void **state) {
    (void)state;
    struct chat_cases cases;
    const struct chat_case *one;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (!one->render)
            continue;
        struct text_buffer saved = { .bytes = NULL }, again = { .bytes = NULL };
        struct chat *c = parse_text(one->messages);
        assert_int_equal(chat_to_json(c, &saved, NULL), OK);
        struct chat *loaded = parse_text(text_buffer_view(&saved));
        check_same_prompts(c, loaded);
        assert_int_equal(chat_to_json(loaded, &again, NULL), OK);
        assert_true(text_equal(text_buffer_view(&saved), text_buffer_view(&again)));
        text_buffer_free(&saved);
        text_buffer_free(&again);
        chat_close(loaded);
        chat_close(c);
    }
    chat_cases_close(&cases);
}

static void saved_messages_are_in_openais_form(void **state) {
    (void)state;
    struct text_buffer saved = { .bytes = NULL };
    struct chat *c =
        parse("[{\"role\":\"system\",\"tools\":[{\"function\":{}}]},"
              "{\"role\":\"user\",\"content\":\"u\",\"task\":\"query\",\"name\":\"x\"},"
              "{\"role\":\"assistant\",\"reasoning_content\":\"r\",\"tool_calls\":[{\"id\":\"i\","
              "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}],\"wo_eos\":true},"
              "{\"role\":\"tool\",\"content\":\"\\u0000\",\"tool_call_id\":\"i\"}]");
    assert_int_equal(chat_to_json(c, &saved, NULL), OK);
    check_text(text_buffer_view(&saved),
               "{\"messages\": [\n"
               "{\"role\": \"system\", \"content\": \"\", \"tools\": [{\"function\": {}}]},\n"
               "{\"role\": \"user\", \"content\": \"u\", \"task\": \"query\"},\n"
               "{\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"r\", "
               "\"tool_calls\": [{\"id\": \"i\", \"type\": \"function\", \"function\": {\"name\": "
               "\"f\", \"arguments\": \"{}\"}}], \"wo_eos\": true},\n"
               "{\"role\": \"tool\", \"tool_call_id\": \"i\", \"content\": \"\\u0000\"}\n"
               "]}\n");
    text_buffer_free(&saved);
    chat_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_conversation_renders_byte_for_byte),
        cmocka_unit_test(publishers_own_tests_pass),
        cmocka_unit_test(pieces_are_single_tokens_or_text_that_no_text_adjoins),
        cmocka_unit_test(what_people_write_never_becomes_a_control_token),
        cmocka_unit_test(tools_show_tokens_of_the_renderer_only),
        cmocka_unit_test(content_may_come_in_parts),
        cmocka_unit_test(user_and_tool_messages_join_unless_a_task_parts_them),
        cmocka_unit_test(tool_results_follow_the_order_of_their_calls),
        cmocka_unit_test(arguments_that_are_no_object_are_shown_as_they_are),
        cmocka_unit_test(parameters_are_json_as_python_prints_it),
        cmocka_unit_test(empty_response_formats_and_lists_of_tools_are_none),
        cmocka_unit_test(thinking_mode_forgets_what_came_before_the_last_question),
        cmocka_unit_test(empty_conversation_is_the_first_token),
        cmocka_unit_test(texts_may_hold_nul),
        cmocka_unit_test(prompt_says_where_each_message_begins),
        cmocka_unit_test(tools_beside_the_messages_belong_to_the_first_system_message),
        cmocka_unit_test(errors_name_the_message),
        cmocka_unit_test(a_chat_grows_and_shrinks_turn_by_turn),
        cmocka_unit_test(what_is_refused_leaves_the_chat_as_it_was),
        cmocka_unit_test(an_unfinished_answer_is_to_be_continued),
        cmocka_unit_test(a_saved_conversation_loads_as_the_same),
        cmocka_unit_test(saved_messages_are_in_openais_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
