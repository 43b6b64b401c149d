/* Answers taken apart: the publisher's cases, streaming, and what becomes of malformed ones. */
#include "src/text/answer.h"

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

#define EOS   "<｜end▁of▁sentence｜>"
#define BLOCK "\n\n<｜DSML｜tool_calls>\n"
#define END   "</｜DSML｜tool_calls>"
#define CALL(name, parameters)                                                                     \
    "<｜DSML｜invoke name=\"" name "\">\n" parameters "</｜DSML｜invoke>\n"
#define STRING(name, value)                                                                        \
    "<｜DSML｜parameter name=\"" name "\" string=\"true\">" value "</｜DSML｜parameter>\n"
#define VALUE(name, value)                                                                         \
    "<｜DSML｜parameter name=\"" name "\" string=\"false\">" value "</｜DSML｜parameter>\n"

static struct answer_parser *begin(enum chat_mode mode) {
    struct answer_parser *p;
    assert_int_equal(answer_open(&p, mode, NULL), OK);
    return p;
}

static void push(struct answer_parser *p, const char *piece) {
    assert_int_equal(answer_push(p, piece, strlen(piece), NULL), OK);
}

static void check_text(struct text got, struct text want) {
    if (!text_equal(got, want))
        fail_msg("expected\n%.*s\ngot\n%.*s", (int)want.n_bytes, want.bytes, (int)got.n_bytes,
                 got.bytes);
}

/* --- the whole text, in pieces of every kind --- */

/* Events joined; calls as the names between brackets, so that their place among content shows. */
struct heard {
    struct text_buffer reasoning, content;
    size_t n_calls;
};

static void hear(struct answer_parser *p, struct heard *h) {
    struct answer_event event;
    while (answer_next(p, &event)) {
        if (event.kind == ANSWER_CALL) {
            const struct chat_message message = answer_message(p);
            assert_true(h->n_calls < message.n_calls);
            check_text(event.call.name, message.calls[h->n_calls].name);
            check_text(event.call.arguments, message.calls[h->n_calls].arguments);
            h->n_calls++;
            continue;
        }
        assert_true(event.text.n_bytes > 0);
        text_buffer_text(event.kind == ANSWER_REASONING ? &h->reasoning : &h->content, event.text);
    }
}

/* The message as JSON. piece: bytes at a time; 0: random; 1000000: all at once. */
static struct text_buffer read_in_pieces(struct text text, enum chat_mode mode, size_t piece) {
    struct text_buffer json = { .bytes = NULL };
    struct heard h = { .n_calls = 0 };
    struct answer_parser *p = begin(mode);
    for (size_t at = 0, n; at < text.n_bytes; at += n) {
        n = piece ? piece : 1 + (size_t)rand() % 60;
        n = n < text.n_bytes - at ? n : text.n_bytes - at;
        assert_int_equal(answer_push(p, text.bytes + at, n, NULL), OK);
        if (piece || rand() % 2) // events may also be left for later
            hear(p, &h);
    }
    assert_int_equal(answer_finish(p, NULL), OK);
    hear(p, &h);
    assert_int_equal(answer_held(p), 0);
    const struct chat_message message = answer_message(p);
    check_text(text_buffer_view(&h.reasoning), message.reasoning);
    check_text(text_buffer_view(&h.content), message.content);
    assert_int_equal(h.n_calls, message.n_calls);
    assert_int_equal(message.role, CHAT_ASSISTANT);
    assert_int_equal(answer_to_json(&message, &json, NULL), OK);
    text_buffer_free(&h.reasoning);
    text_buffer_free(&h.content);
    answer_close(p);
    return json;
}

static void check_json(struct text text, enum chat_mode mode, struct text want) {
    static const size_t pieces[] = { 1000000, 1, 2, 3, 7, 0, 0, 0, 0, 0 };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct text_buffer got = read_in_pieces(text, mode, pieces[i]);
        check_text(text_buffer_view(&got), want);
        text_buffer_free(&got);
    }
}

static void check_message(const char *text, enum chat_mode mode, const char *reasoning,
                          const char *content, const char *calls) {
    struct text_buffer want = { .bytes = NULL };
    text_buffer_string(&want, "{\"role\": \"assistant\", \"content\": ");
    json_text_write_string(text_of(content), &want);
    text_buffer_string(&want, ", \"reasoning_content\": ");
    json_text_write_string(text_of(reasoning), &want);
    text_buffer_string(&want, ", \"tool_calls\": [");
    text_buffer_string(&want, calls);
    text_buffer_string(&want, "]}");
    check_json(text_of(text), mode, text_buffer_view(&want));
    text_buffer_free(&want);
}

/* In chat mode. */
static void check(const char *text, const char *content, const char *calls) {
    check_message(text, CHAT_MODE_CHAT, "", content, calls);
}

#define CALLED(name, arguments)                                                                    \
    "{\"type\": \"function\", \"function\": {\"name\": \"" name "\", \"arguments\": \"" arguments  \
    "\"}}"

/* --- the publisher's answers --- */

static void every_golden_answer_gives_the_publishers_message(void **state) {
    (void)state;
    struct chat_cases cases;
    const struct chat_case *one;
    int n = 0;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (one->render || !one->expected.n_bytes)
            continue;
        check_json(one->text, one->mode, one->expected);
        n++;
    }
    chat_cases_close(&cases);
    assert_int_equal(n, 100);
}

/* Where no call was reported, reasoning, </think>, content and EOS are the text. */
static void check_nothing_lost(const struct chat_case *one) {
    struct text_buffer joined = { .bytes = NULL };
    struct answer_parser *p = begin(one->mode);
    assert_int_equal(answer_push(p, one->text.bytes, one->text.n_bytes, NULL), OK);
    assert_int_equal(answer_finish(p, NULL), OK);
    const struct chat_message m = answer_message(p);
    text_buffer_text(&joined, m.reasoning);
    if (one->mode == CHAT_MODE_THINKING && joined.n_bytes < one->text.n_bytes &&
        !strncmp(one->text.bytes + joined.n_bytes, "</think>", 8))
        text_buffer_string(&joined, "</think>");
    text_buffer_text(&joined, m.content);
    if (joined.n_bytes < one->text.n_bytes)
        text_buffer_string(&joined, EOS);
    if (!m.n_calls)
        check_text(text_buffer_view(&joined), one->text);
    text_buffer_free(&joined);
    answer_close(p);
}

static void what_the_strict_parser_refuses_is_kept(void **state) {
    (void)state;
    struct chat_cases cases;
    const struct chat_case *one;
    int n = 0;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (one->render || one->expected.n_bytes)
            continue;
        struct text_buffer whole = read_in_pieces(one->text, one->mode, 1000000);
        check_json(one->text, one->mode, text_buffer_view(&whole));
        check_nothing_lost(one);
        text_buffer_free(&whole);
        n++;
    }
    chat_cases_close(&cases);
    assert_int_equal(n, 20);
}

/* The last answer in the publisher's own test prompts is the last message of their input. */
static void publishers_own_tests_are_read_back(void **state) {
    (void)state;
    static const char marker[] = "<｜Assistant｜><think>";
    const char *const names[] = { "1", "3" };
    if (access("../shared/golden/chat/test_input_1.json", R_OK) != 0) {
        print_message(
            "../shared/golden/chat is not there: the publisher's own tests are not run\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        char path[200], *input, *output;
        size_t n_input, n_output;
        struct chat *c;
        snprintf(path, sizeof path, "../shared/golden/chat/test_input_%s.json", names[i]);
        assert_int_equal(small_file_read(path, 1 << 20, &input, &n_input, NULL), OK);
        snprintf(path, sizeof path, "../shared/golden/chat/test_output_%s.txt", names[i]);
        assert_int_equal(small_file_read(path, 1 << 20, &output, &n_output, NULL), OK);
        assert_int_equal(chat_parse(&c, input, n_input, path, NULL), OK);
        const char *last = NULL;
        for (const char *at = output; (at = strstr(at, marker)); last = at)
            at += strlen(marker);
        assert_non_null(last);
        const struct chat_message *m = chat_message(c, chat_n_messages(c) - 1);
        struct text_buffer want = { .bytes = NULL };
        assert_int_equal(answer_to_json(m, &want, NULL), OK);
        check_json(text_of(last), CHAT_MODE_THINKING, text_buffer_view(&want));
        text_buffer_free(&want);
        chat_close(c);
        free(input);
        free(output);
    }
}

/* --- well-formed --- */

static void calls_come_with_names_and_arguments(void **state) {
    (void)state;
    check("so:" BLOCK CALL("f", STRING("a", "x\"y\n") VALUE("b", "[1,  2]")) CALL("g", "")
              CALL("h", "\n") END EOS,
          "so:",
          CALLED("f", "{\\\"a\\\": \\\"x\\\\\\\"y\\\\n\\\", \\\"b\\\": [1,  2]}") ", " CALLED(
              "g", "{}") ", " CALLED("h", "{}"));
    check(BLOCK END EOS, "", "");
    // The publisher's parser lets these pass: no space, spaces, an empty line, a value's line end.
    check(BLOCK "<｜DSML｜invokename=\"f\">\n</｜DSML｜invoke>\n"
                "<｜DSML｜invoke\u3000\n\tname=\"g\">\n\n" STRING("a", "")
                    VALUE("b", "") "</｜DSML｜invoke>\n" END,
          "", CALLED("f", "{}") ", " CALLED("g", "{\\\"a\\\": \\\"\\\", \\\"b\\\": }"));
    check(BLOCK CALL("f", "<｜DSML｜parameter name=\"a\" string=\"true\">v<\n/｜DSML｜parameter>\n")
              END,
          "", CALLED("f", "{\\\"a\\\": \\\"v\\\"}"));
}

static void names_and_values_may_hold_anything(void **state) {
    (void)state;
    check(BLOCK CALL("f\">\n<", STRING("a\" string=\"no", EOS "</think>" BLOCK "<｜DSML｜parameter "
                                                              "</｜DSML｜invoke>\n" END)) END EOS,
          "",
          CALLED("f\\\">\\n<",
                 "{\\\"a\\\\\\\" string=\\\\\\\"no\\\": \\\"<｜end▁of▁sentence｜></think>\\\\n\\\\n"
                 "<｜DSML｜tool_calls>\\\\n<｜DSML｜parameter </｜DSML｜invoke>\\\\n"
                 "</｜DSML｜tool_calls>\\\"}"));
    check(BLOCK CALL("f", STRING("a\" string=", "true\">x")) END, "",
          CALLED("f", "{\\\"a\\\\\\\" string=\\\": \\\"true\\\\\\\">x\\\"}"));
}

static void reasoning_ends_at_its_tag(void **state) {
    (void)state;
    check_message("why</think>so" EOS, CHAT_MODE_THINKING, "why", "so", "");
    check_message("</think>", CHAT_MODE_THINKING, "", "", "");
    check_message("a</think>" BLOCK CALL("f", "") END EOS, CHAT_MODE_THINKING, "a", "",
                  CALLED("f", "{}"));
    check_message("why</think>so" EOS, CHAT_MODE_CHAT, "", "why</think>so", "");
}

/* --- malformed: the rules of answer.h by their numbers --- */

static void eos_ends_only_as_the_last_thing(void **state) { // rule 1
    (void)state;
    check("a" EOS, "a", "");
    check("a", "a", "");
    check("a" EOS "b" EOS, "a" EOS "b", "");
    check("a" EOS EOS, "a" EOS, "");
    check(EOS "\n", EOS "\n", "");
    check("a<｜end▁of▁sentence", "a<｜end▁of▁sentence", "");
    check(BLOCK CALL("f", "") END EOS " more" EOS, EOS " more", CALLED("f", "{}"));
    check_message("hm" EOS, CHAT_MODE_THINKING, "hm", "", "");
    check_message("hm" EOS "</think>a" EOS, CHAT_MODE_THINKING, "hm" EOS, "a", "");
    check("", "", "");
}

static void without_its_tag_all_is_reasoning(void **state) { // rule 2
    (void)state;
    check_message("I could" BLOCK CALL("f", "") END EOS, CHAT_MODE_THINKING,
                  "I could" BLOCK CALL("f", "") END, "", "");
    check_message("</thin", CHAT_MODE_THINKING, "</thin", "", "");
    check_message("x" BLOCK "</think>y", CHAT_MODE_THINKING, "x" BLOCK, "y", "");
    check("<think>a</think>b｜DSML｜", "<think>a</think>b｜DSML｜", "");
}

static void a_whole_call_stays_reported(void **state) { // rule 3
    (void)state;
    check("a" BLOCK CALL("f", "") "garbage", "a\ngarbage", CALLED("f", "{}"));
    check("a" BLOCK CALL("f", "") CALL("g", STRING("x", "1") "oops"),
          "a\n" CALL("g", STRING("x", "1") "oops"), CALLED("f", "{}"));
    check(BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>", "", CALLED("f", "{}"));
    check(BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke", "", CALLED("f", "{}"));
    check(BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke" EOS,
          BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke", "");
    check(BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invok",
          BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invok", "");
    check(BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoked>",
          BLOCK "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoked>", "");
}

static void check_is_text(const char *text) {
    char with_eos[600];
    check(text, text, "");
    snprintf(with_eos, sizeof with_eos, "%s" EOS, text);
    check(with_eos, text, "");
}

static void what_does_not_belong_among_calls_is_text(void **state) { // rule 4
    (void)state;
    check_is_text("\n\n<｜DSML｜tool_calls> ");
    check_is_text("\n\n<｜DSML｜tool_calls>\n");
    check_is_text("\n\n<｜DSML｜tool_calls>\n<｜DSML｜");
    check_is_text(BLOCK "\n" CALL("f", "") END);
    check_is_text(BLOCK "<｜DSML｜parameter");
    check_is_text(BLOCK "<｜DSML｜invoke name=f>\n</｜DSML｜invoke>\n" END);
    check_is_text(BLOCK "<｜DSML｜invoke name=\"f\"></｜DSML｜invoke>\n" END);
    check_is_text(BLOCK "<｜DSML｜invoke name=\">\n</｜DSML｜invoke>\n" END);
    check_is_text(BLOCK "<｜DSML｜invoke name=\"f\">\n\n\n</｜DSML｜invoke>\n" END);
    check_is_text(BLOCK CALL("f", "<｜DSML｜parameter name=\"a\">1</｜DSML｜parameter>\n") END);
    check_is_text(BLOCK CALL(
        "f", "<｜DSML｜parameter name=\"a\" string=\"maybe\">1</｜DSML｜parameter>\n") END);
    check_is_text(BLOCK CALL(
        "f", "<｜DSML｜parametername=\"a\" string=\"true\">1</｜DSML｜parameter>\n") END);
    check_is_text(
        BLOCK CALL("f", "<｜DSML｜parameter name=\"a\" string=\"true\">/｜DSML｜parameter>\n") END);
    check_is_text(BLOCK CALL("f", STRING("a", "1") "\n") END);
    check_is_text(BLOCK CALL("f", STRING("a", "1") VALUE("b", "2") STRING("a", "3")) END);
    // Not whole, though the publisher's parser would report it.
    check_is_text(BLOCK "<｜DSML｜invoke name=\"f\">\n");
    check_is_text(BLOCK "<｜DSML｜invoke name=\"f\">\n" STRING("a", "1"));
}

static void reading_goes_on_after_what_was_text(void **state) { // rule 4
    (void)state;
    check(BLOCK "no" BLOCK CALL("f", "") END " and" BLOCK CALL("g", "") END EOS, BLOCK "no and",
          CALLED("f", "{}") ", " CALLED("g", "{}"));
    check("\n\n<｜DSML｜tool_calls" BLOCK CALL("f", "") END, "\n\n<｜DSML｜tool_calls",
          CALLED("f", "{}"));
    check(BLOCK CALL("f", STRING("a", "1") VALUE("a", "2")) BLOCK CALL("g", "") END,
          BLOCK CALL("f", STRING("a", "1") VALUE("a", "2")), CALLED("g", "{}"));
    check("\n\n\n\n<｜DSML｜tool_calls>\n" CALL("f", "") END, "\n\n", CALLED("f", "{}"));
}

static void an_opening_alone_is_nothing(void **state) { // rule 5
    (void)state;
    check("a\n\n<｜DSML｜tool_calls", "a", "");
    check("a\n\n<｜DSML｜tool_calls" EOS, "a\n\n<｜DSML｜tool_calls", "");
    check("a\n\n<｜DSML｜tool_call", "a\n\n<｜DSML｜tool_call", "");
}

/* --- streaming --- */

static void check_event(struct answer_parser *p, enum answer_event_kind kind, const char *text) {
    struct answer_event event;
    assert_true(answer_next(p, &event));
    assert_int_equal(event.kind, kind);
    check_text(kind == ANSWER_CALL ? event.call.name : event.text, text_of(text));
}

static void check_silence(struct answer_parser *p) {
    struct answer_event event;
    assert_false(answer_next(p, &event));
}

static void pieces_come_as_soon_as_they_are_certain(void **state) {
    (void)state;
    struct answer_parser *p = begin(CHAT_MODE_THINKING);
    check_silence(p);
    push(p, "Let me");
    check_event(p, ANSWER_REASONING, "Let me");
    push(p, " see <");
    check_event(p, ANSWER_REASONING, " see ");
    check_silence(p);
    assert_int_equal(answer_held(p), 1);
    push(p, "/thin");
    check_silence(p);
    push(p, "g></think>Yes\n");
    check_event(p, ANSWER_REASONING, "</thing>");
    check_event(p, ANSWER_CONTENT, "Yes");
    push(p, "\n");
    check_silence(p);
    push(p, "\n<｜DSML｜tool_calls");
    check_event(p, ANSWER_CONTENT, "\n");
    assert_true(answer_in_calls(p));
    push(p, ">\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke");
    check_silence(p);
    assert_true(answer_held(p) > 50);
    push(p, ">");
    check_event(p, ANSWER_CALL, "f");
    assert_int_equal(answer_held(p), 0);
    push(p, "\n" CALL("g", "") END);
    check_event(p, ANSWER_CALL, "g");
    assert_false(answer_in_calls(p));
    push(p, EOS);
    check_silence(p);
    push(p, "");
    check_silence(p);
    assert_int_equal(answer_finish(p, NULL), OK);
    check_silence(p);
    answer_close(p);
    answer_close(NULL);
}

static void events_keep_the_order_in_which_things_came(void **state) {
    (void)state;
    struct answer_parser *p = begin(CHAT_MODE_THINKING);
    push(p, "r</think>a" BLOCK CALL("f", "") END "b" BLOCK CALL("g", "") END "c");
    push(p, "d");
    assert_int_equal(answer_finish(p, NULL), OK);
    check_event(p, ANSWER_REASONING, "r");
    check_event(p, ANSWER_CONTENT, "a");
    check_event(p, ANSWER_CALL, "f");
    check_event(p, ANSWER_CONTENT, "b");
    check_event(p, ANSWER_CALL, "g");
    check_event(p, ANSWER_CONTENT, "cd");
    check_silence(p);
    answer_close(p);
}

static void message_can_be_asked_for_at_any_time(void **state) {
    (void)state;
    struct answer_parser *p = begin(CHAT_MODE_CHAT);
    check_text(answer_message(p).content, text_of(""));
    push(p, "ab\n\n<");
    check_text(answer_message(p).content, text_of("ab"));
    push(p, "｜DSML｜tool_calls>\n" CALL("f", "") CALL("g", ""));
    assert_int_equal(answer_message(p).n_calls, 2);
    answer_close(p); // interrupted: what was certain has been read
}

static void message_can_be_appended_to_the_chat_and_reads_back(void **state) {
    (void)state;
    const char *text =
        "think</think>done" BLOCK CALL("f", STRING("a", "x") VALUE("b", "{\"c\": [1.0]}")) END EOS;
    struct chat *c;
    struct chat_prompt prompt;
    struct answer_parser *p = begin(CHAT_MODE_THINKING);
    push(p, text);
    assert_int_equal(answer_finish(p, NULL), OK);
    const struct chat_message message = answer_message(p);
    assert_int_equal(chat_open(&c, NULL), OK);
    assert_int_equal(chat_append(c, &message, NULL), OK);
    answer_close(p);
    assert_int_equal(chat_render(c, CHAT_MODE_THINKING, CHAT_EFFORT_NONE, &prompt, NULL), OK);
    assert_string_equal(prompt.text + prompt.message_at[0], text);
    chat_prompt_free(&prompt);
    chat_close(c);
}

static void bytes_that_are_not_utf8_are_kept_and_replaced_in_json(void **state) {
    (void)state;
    const char text[] = "a\0\xFF\xE6\x95" BLOCK CALL("f\xFE", STRING("k", "\xED\xA0\x80")) END;
    struct answer_parser *p = begin(CHAT_MODE_CHAT);
    assert_int_equal(answer_push(p, text, sizeof text - 1, NULL), OK);
    assert_int_equal(answer_finish(p, NULL), OK);
    check_text(answer_message(p).content, (struct text){ "a\0\xFF\xE6\x95", 5 });
    answer_close(p);
    check_json((struct text){ text, sizeof text - 1 }, CHAT_MODE_CHAT,
               text_of("{\"role\": \"assistant\", \"content\": \"a\\u0000\uFFFD\uFFFD\", "
                       "\"reasoning_content\": \"\", \"tool_calls\": [" CALLED(
                           "f\uFFFD", "{\\\"k\\\": \\\"\uFFFD\uFFFD\uFFFD\\\"}") "]}"));
}

/* A quadratic parser would be at this for minutes. */
static void many_openings_and_parameters_are_read_in_linear_time(void **state) {
    (void)state;
    static const char *const units[] = {
        BLOCK "<｜DSML｜invoke<｜DSML｜parameter", // a head that fails, again and again
        BLOCK CALL("f", "") END,
        EOS,
        "\n\n<｜DSML｜tool_call",
    };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        struct answer_parser *p = begin(CHAT_MODE_CHAT);
        struct text_buffer text = { .bytes = NULL };
        while (text.n_bytes < 2000000)
            text_buffer_string(&text, units[i]);
        assert_int_equal(answer_push(p, text.bytes, text.n_bytes, NULL), OK);
        assert_int_equal(answer_finish(p, NULL), OK);
        text_buffer_free(&text);
        answer_close(p);
    }
    struct answer_parser *p = begin(CHAT_MODE_CHAT);
    char parameter[200];
    push(p, BLOCK "<｜DSML｜invoke name=\"f\">\n");
    for (int i = 0; i < 20000; i++) {
        snprintf(parameter, sizeof parameter,
                 "<｜DSML｜parameter name=\"%d\" string=\"true\"></｜DSML｜parameter>\n", i);
        push(p, parameter);
    }
    push(p, "</｜DSML｜invoke>");
    assert_int_equal(answer_message(p).n_calls, 1);
    answer_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_answer_gives_the_publishers_message),
        cmocka_unit_test(what_the_strict_parser_refuses_is_kept),
        cmocka_unit_test(publishers_own_tests_are_read_back),
        cmocka_unit_test(calls_come_with_names_and_arguments),
        cmocka_unit_test(names_and_values_may_hold_anything),
        cmocka_unit_test(reasoning_ends_at_its_tag),
        cmocka_unit_test(eos_ends_only_as_the_last_thing),
        cmocka_unit_test(without_its_tag_all_is_reasoning),
        cmocka_unit_test(a_whole_call_stays_reported),
        cmocka_unit_test(what_does_not_belong_among_calls_is_text),
        cmocka_unit_test(reading_goes_on_after_what_was_text),
        cmocka_unit_test(an_opening_alone_is_nothing),
        cmocka_unit_test(pieces_come_as_soon_as_they_are_certain),
        cmocka_unit_test(events_keep_the_order_in_which_things_came),
        cmocka_unit_test(message_can_be_asked_for_at_any_time),
        cmocka_unit_test(message_can_be_appended_to_the_chat_and_reads_back),
        cmocka_unit_test(bytes_that_are_not_utf8_are_kept_and_replaced_in_json),
        cmocka_unit_test(many_openings_and_parameters_are_read_in_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
