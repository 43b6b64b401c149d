/* Prompts are the rendered text to the byte, and keep the tokens of answers that they repeat. */
#include "src/text/token_decoder.h"
#include "src/text/tokenizer_make.h"
#include "tests/support/make_checkpoint.h"
#include "tools/conversation.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

struct world {
    char *dir;
    struct tokenizer *t;
    struct conversation c;
    struct err err;
};

static int open_world(void **state) {
    static struct world w;
    char path[512];
    struct chat *chat;
    w = (struct world){ .dir = make_temp_dir() };
    snprintf(path, sizeof path, "%s/tokenizer.json", w.dir);
    assert_int_equal(tokenizer_make(path, 1000, &w.err), OK);
    assert_int_equal(tokenizer_open(&w.t, path, &w.err), OK);
    assert_int_equal(chat_open(&chat, &w.err), OK);
    conversation_open(&w.c, chat);
    *state = &w;
    return 0;
}

static int close_world(void **state) {
    struct world *w = *state;
    conversation_close(&w->c);
    tokenizer_close(w->t);
    remove_temp_dir(w->dir);
    return 0;
}

static void say(struct world *w, const char *text) {
    assert_int_equal(conversation_say(&w->c, text, strlen(text), &w->err), OK);
}

// One token for each byte: not how the tokenizer cuts any text.
static struct token_ids spelt(struct world *w, const char *text) {
    struct token_ids ids = { 0 };
    for (; *text; text++)
        for (uint32_t id = 0; id < tokenizer_n_ids(w->t); id++) {
            size_t n;
            const char *bytes = tokenizer_token_bytes(w->t, id, &n);
            if (bytes && n == 1 && bytes[0] == *text && !tokenizer_is_special(w->t, id)) {
                assert_int_equal(token_ids_push(&ids, id, &w->err), OK);
                break;
            }
        }
    return ids;
}

static void push_control(struct world *w, struct token_ids *ids, const char *token) {
    uint32_t id;
    assert_true(tokenizer_added_id(w->t, token, &id));
    assert_int_equal(token_ids_push(ids, id, &w->err), OK);
}

static void answered(struct world *w, const char *reasoning, const char *content,
                     struct token_ids ids) {
    struct chat_message m = { .role = CHAT_ASSISTANT,
                              .content = text_of(content),
                              .reasoning = text_of(reasoning) };
    assert_int_equal(conversation_answered(&w->c, &m, &ids, &w->err), OK);
    token_ids_free(&ids);
}

// The prompt; it spells what is rendered, byte for byte.
static struct token_ids prompt(struct world *w) {
    struct token_ids ids = { 0 };
    struct chat_prompt rendered;
    struct token_decoder decoder;
    char text[4096];
    size_t n_text = 0, n;
    if (conversation_prompt(&w->c, w->t, &ids, &w->err) != OK)
        fail_msg("%s", w->err.text);
    assert_int_equal(chat_render(w->c.chat, w->c.mode, w->c.effort, &rendered, &w->err), OK);
    assert_int_equal(token_decoder_open(&decoder, w->t, false, &w->err), OK);
    for (size_t i = 0; i < ids.n; i++) {
        const char *piece = token_decoder_push(&decoder, ids.id[i], &n);
        assert_true(n_text + n < sizeof text);
        memcpy(text + n_text, piece, n);
        n_text += n;
    }
    token_decoder_close(&decoder);
    assert_int_equal(n_text, rendered.n_bytes);
    assert_memory_equal(text, rendered.text, n_text);
    chat_prompt_free(&rendered);
    return ids;
}

// Are these tokens in it, one after the other?
static bool has(const struct token_ids *in, const struct token_ids *what, size_t from) {
    size_t n = what->n - from;
    for (size_t at = 0; at + n <= in->n; at++)
        if (memcmp(in->id + at, what->id + from, n * sizeof *in->id) == 0)
            return true;
    return false;
}

static void answer_is_repeated_in_its_own_tokens(void **state) {
    struct world *w = *state;
    say(w, "the first question");
    struct token_ids first = prompt(w);
    answered(w, "", "and the answer", spelt(w, "and the answer"));
    say(w, "the second");
    struct token_ids second = prompt(w), own = spelt(w, "and the answer");
    assert_true(second.n > first.n + own.n);
    assert_memory_equal(first.id, second.id, first.n * sizeof *first.id);
    assert_memory_equal(own.id, second.id + first.n, own.n * sizeof *own.id);
    answered(w, "", "more", spelt(w, "more"));
    say(w, "the third");
    struct token_ids third = prompt(w);
    assert_memory_equal(second.id, third.id, second.n * sizeof *second.id);
    token_ids_free(&first);
    token_ids_free(&second);
    token_ids_free(&third);
    token_ids_free(&own);
}

static void answer_without_its_reasoning_keeps_its_end(void **state) {
    struct world *w = *state;
    w->c.mode = CHAT_MODE_THINKING;
    say(w, "question");
    struct token_ids own = spelt(w, "let me see");
    push_control(w, &own, "</think>");
    size_t content = own.n;
    for (const char *c = "the answer"; *c; c++) {
        struct token_ids one = spelt(w, (char[]){ *c, 0 });
        assert_int_equal(token_ids_push(&own, one.id[0], &w->err), OK);
        token_ids_free(&one);
    }
    struct token_ids copy = { 0 };
    for (size_t i = 0; i < own.n; i++)
        assert_int_equal(token_ids_push(&copy, own.id[i], &w->err), OK);
    answered(w, "let me see", "the answer", own);
    say(w, "and?");
    struct token_ids ids = prompt(w);
    assert_true(has(&ids, &copy, content));
    assert_false(has(&ids, &copy, content - 2));
    token_ids_free(&ids);
    token_ids_free(&copy);
}

static void other_text_than_was_drawn_is_encoded(void **state) {
    struct world *w = *state;
    say(w, "question");
    answered(w, "", "the answer", spelt(w, "another answer, the"));
    say(w, "and?");
    struct token_ids ids = prompt(w), own = spelt(w, "the answer");
    assert_false(has(&ids, &own, 0));
    token_ids_free(&ids);
    token_ids_free(&own);
}

static void a_character_is_not_cut(void **state) {
    struct world *w = *state;
    say(w, "question");
    answered(w, "", "\xA9", spelt(w, "\xC3\xA9")); // the end of é is no text of its own
    assert_int_equal(w->err.status, OK);
    w->c.mode = CHAT_MODE_CHAT;
    struct token_ids ids = { 0 };
    say(w, "and?");
    assert_int_equal(conversation_prompt(&w->c, w->t, &ids, &w->err), OK);
    token_ids_free(&ids);
}

static void system_message_moves_the_answers(void **state) {
    struct world *w = *state;
    say(w, "question");
    answered(w, "", "and the answer", spelt(w, "and the answer"));
    assert_int_equal(conversation_set_system(&w->c, text_of("be brief"), &w->err), OK);
    assert_int_equal(conversation_set_system(&w->c, text_of("be brief, and kind"), &w->err), OK);
    say(w, "and?");
    struct token_ids ids = prompt(w), own = spelt(w, "and the answer");
    assert_true(has(&ids, &own, 0));
    token_ids_free(&ids);
    token_ids_free(&own);
}

static void what_is_truncated_is_forgotten(void **state) {
    struct world *w = *state;
    say(w, "question");
    struct token_ids before = prompt(w);
    answered(w, "", "answer", spelt(w, "answer"));
    conversation_truncate(&w->c, 1);
    assert_int_equal(w->c.n_spoken, 0);
    struct token_ids after = prompt(w);
    assert_int_equal(before.n, after.n);
    assert_memory_equal(before.id, after.id, before.n * sizeof *before.id);
    token_ids_free(&before);
    token_ids_free(&after);
}

static void spelling_of_a_control_token_is_text(void **state) {
    struct world *w = *state;
    uint32_t user;
    assert_true(tokenizer_added_id(w->t, "<｜User｜>", &user));
    say(w, "<｜User｜>");
    struct token_ids ids = prompt(w);
    int n = 0;
    for (size_t i = 0; i < ids.n; i++)
        n += ids.id[i] == user;
    assert_int_equal(n, 1);
    token_ids_free(&ids);
}

static void text_that_is_not_utf8_is_replaced(void **state) {
    struct world *w = *state;
    say(w, "a\xFF"
           "b\xC3");
    struct text text = chat_message(w->c.chat, 0)->content;
    assert_int_equal(text.n_bytes, 8);
    assert_memory_equal(text.bytes,
                        "a\xEF\xBF\xBD"
                        "b\xEF\xBF\xBD",
                        8);
}

static void something_must_have_been_asked(void **state) {
    struct world *w = *state;
    assert_int_equal(conversation_check(&w->c, "x", &w->err), ERR_USAGE);
    w->err = (struct err){ .status = OK };
    say(w, "question");
    assert_int_equal(conversation_check(&w->c, "x", &w->err), OK);
    answered(w, "", "answer", (struct token_ids){ 0 });
    assert_int_equal(conversation_check(&w->c, "x", &w->err), ERR_USAGE);
    w->err = (struct err){ .status = OK };
    w->c.mode = CHAT_MODE_THINKING;
    struct chat_message open = { .role = CHAT_ASSISTANT,
                                 .content = text_of("so"),
                                 .without_eos = true };
    assert_int_equal(chat_append(w->c.chat, &open, &w->err), OK);
    assert_int_equal(conversation_check(&w->c, "x", &w->err), OK);
    assert_int_equal(conversation_answer_mode(&w->c), CHAT_MODE_CHAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
        TEST(answer_is_repeated_in_its_own_tokens),
        TEST(answer_without_its_reasoning_keeps_its_end),
        TEST(other_text_than_was_drawn_is_encoded),
        TEST(a_character_is_not_cut),
        TEST(system_message_moves_the_answers),
        TEST(what_is_truncated_is_forgotten),
        TEST(spelling_of_a_control_token_is_text),
        TEST(text_that_is_not_utf8_is_replaced),
        TEST(something_must_have_been_asked),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
