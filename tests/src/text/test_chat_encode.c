/* Prompts as ids: control pieces become tokens, nothing else does. */
#include "src/text/chat_encode.h"

#include "io/small_file.h"
#include "tests/support/chat_cases.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static int open_tokenizer(void **state) {
    struct err err = { .status = OK };
    struct tokenizer *t;
    if (tokenizer_open(&t, "tests/data/tokenizer/v4-2000.json", &err) != OK)
        fail_msg("%s", err.text);
    *state = t;
    return 0;
}

static int close_tokenizer(void **state) {
    tokenizer_close(*state);
    return 0;
}

static struct chat_prompt render(struct text json, enum chat_mode mode, enum chat_effort effort) {
    struct err err = { .status = OK };
    struct chat_prompt p;
    struct chat *c;
    if (chat_parse(&c, json.bytes, json.n_bytes, "test", &err) != OK ||
        chat_render(c, mode, effort, &p, &err) != OK)
        fail_msg("%s", err.text);
    chat_close(c);
    return p;
}

static void check_ids(const struct token_ids *a, const struct token_ids *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, a->n * sizeof *a->id);
}

/* The golden conversations spell no token in their texts. */
static void ids_are_those_of_the_whole_text_with_added_tokens(void **state) {
    const struct tokenizer *t = *state;
    struct chat_cases cases;
    const struct chat_case *one;
    chat_cases_open(&cases);
    while ((one = chat_cases_next(&cases))) {
        if (!one->render)
            continue;
        struct token_ids whole = { .id = NULL }, ids = { .id = NULL };
        struct chat_prompt p = render(one->messages, one->mode, one->effort);
        assert_int_equal(tokenizer_encode(t, p.text, p.n_bytes, TOKENIZER_ADDED, &whole, NULL), OK);
        assert_int_equal(chat_encode(t, &p, 0, &ids, NULL), OK);
        check_ids(&ids, &whole);
        token_ids_free(&whole);
        token_ids_free(&ids);
        chat_prompt_free(&p);
    }
    chat_cases_close(&cases);
}

static size_t count(const struct tokenizer *t, const struct token_ids *ids, const char *token) {
    uint32_t id;
    size_t n = 0;
    assert_true(tokenizer_added_id(t, token, &id));
    for (size_t i = 0; i < ids->n; i++)
        n += ids->id[i] == id;
    return n;
}

static void tokens_spelled_by_people_are_letters(void **state) {
    const struct tokenizer *t = *state;
    struct token_ids ids = { .id = NULL };
    struct chat_prompt p = render(
        text_of("[{\"role\": \"user\", \"content\": \"<｜User｜></think><｜begin▁of▁sentence｜>"
                "｜DSML｜\"}, {\"role\": \"tool\", \"content\": \"<think></think>\"}]"),
        CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    assert_int_equal(chat_encode(t, &p, 0, &ids, NULL), OK);
    assert_int_equal(count(t, &ids, "<｜begin▁of▁sentence｜>"), 1);
    assert_int_equal(count(t, &ids, "<｜User｜>"), 1);
    assert_int_equal(count(t, &ids, "</think>"), 1);
    assert_int_equal(count(t, &ids, "<think>"), 0);
    assert_int_equal(count(t, &ids, "｜DSML｜"), 0);
    token_ids_free(&ids);
    chat_prompt_free(&p);
}

static void the_end_of_a_prompt_can_be_encoded_alone(void **state) {
    const struct tokenizer *t = *state;
    struct token_ids all = { .id = NULL }, end = { .id = NULL };
    struct chat_prompt p = render(text_of("[{\"role\": \"user\", \"content\": \"one\"},"
                                          " {\"role\": \"assistant\", \"content\": \"two\"},"
                                          " {\"role\": \"user\", \"content\": \"three\"}]"),
                                  CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    assert_int_equal(chat_encode(t, &p, 0, &all, NULL), OK);
    assert_int_equal(chat_encode(t, &p, p.message_at[2], &end, NULL), OK);
    assert_true(end.n > 3 && end.n < all.n);
    assert_memory_equal(end.id, all.id + all.n - end.n, end.n * sizeof *end.id);
    token_ids_free(&end);

    // From within a text: that text is cut there.
    const size_t within = (size_t)(strstr(p.text, "three") + 2 - p.text);
    struct token_ids rest = { .id = NULL };
    assert_int_equal(tokenizer_encode(t, "ree", 3, TOKENIZER_PLAIN, &rest, NULL), OK);
    assert_int_equal(chat_encode(t, &p, within, &end, NULL), OK);
    assert_int_equal(end.n, rest.n + 2); // <｜Assistant｜></think>
    assert_memory_equal(end.id, rest.id, rest.n * sizeof *rest.id);
    assert_int_equal(chat_encode(t, &p, p.n_bytes, &end, NULL), OK);
    assert_int_equal(end.n, rest.n + 2);
    token_ids_free(&rest);
    token_ids_free(&end);
    token_ids_free(&all);
    chat_prompt_free(&p);
}

static void tokenizer_of_another_model_is_refused_by_the_tokens_name(void **state) {
    (void)state;
    const char *path = "tests/data/tokenizer/v4-2000.json";
    struct err err = { .status = OK };
    struct tokenizer *t;
    struct token_ids ids = { .id = NULL };
    char *json;
    size_t n_bytes;
    assert_int_equal(small_file_read(path, 16 << 20, &json, &n_bytes, &err), OK);
    for (char *at = json; (at = strstr(at, "<｜User｜>")); at++)
        at[strlen("<｜")] = 'L';
    if (tokenizer_parse(&t, json, n_bytes, "other.json", &err) != OK)
        fail_msg("%s", err.text);
    free(json);
    struct chat_prompt p = render(text_of("[{\"role\": \"user\", \"content\": \"u\"}]"),
                                  CHAT_MODE_CHAT, CHAT_EFFORT_NONE);
    assert_int_equal(token_ids_push(&ids, 0, NULL), OK);
    assert_int_equal(chat_encode(t, &p, 0, &ids, &err), ERR_INPUT);
    assert_string_equal(err.text, "the tokenizer has no token \"<｜User｜>\": the chat format of "
                                  "DeepSeek-V4 needs it");
    assert_int_equal(ids.n, 1);
    token_ids_free(&ids);
    chat_prompt_free(&p);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_whole_text_with_added_tokens),
        cmocka_unit_test(tokens_spelled_by_people_are_letters),
        cmocka_unit_test(the_end_of_a_prompt_can_be_encoded_alone),
        cmocka_unit_test(tokenizer_of_another_model_is_refused_by_the_tokens_name),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
