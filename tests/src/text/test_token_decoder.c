#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/text/token_decoder.h"
#include "src/text/utf8.h"

#define V4 "tests/data/tokenizer/v4-2000.json"

static int open_tokenizer(void **state) {
    return tokenizer_open((struct tokenizer **)state, V4, NULL) == OK ? 0 : -1;
}

static int close_tokenizer(void **state) {
    tokenizer_close(*state);
    return 0;
}

/* The id of the token that is this one byte. */
static uint32_t byte_token(const struct tokenizer *t, char byte) {
    for (uint32_t id = 0; id < tokenizer_n_ids(t); id++) {
        size_t n;
        const char *bytes = tokenizer_token_bytes(t, id, &n);
        if (n == 1 && bytes[0] == byte)
            return id;
    }
    fail_msg("no token for byte %d", byte);
    return 0;
}

static void expect_text(const char *text, size_t n, const char *expected) {
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
}

static void push_byte(struct token_decoder *d, char byte, const char *expected) {
    size_t n;
    const char *text = token_decoder_push(d, byte_token(d->t, byte), &n);
    expect_text(text, n, expected);
}

static void expect_flush(struct token_decoder *d, const char *expected) {
    size_t n;
    const char *text = token_decoder_flush(d, &n);
    expect_text(text, n, expected);
}

static void a_character_comes_out_with_its_last_byte(void **state) {
    struct token_decoder d;
    assert_int_equal(token_decoder_open(&d, *state, false, NULL), OK);
    push_byte(&d, 'a', "a");
    push_byte(&d, '\xF0', "");
    push_byte(&d, '\x9F', "");
    push_byte(&d, '\x98', "");
    push_byte(&d, '\x80', "\xF0\x9F\x98\x80");
    push_byte(&d, '\xC3', "");
    push_byte(&d, '\xA9', "é");
    expect_flush(&d, "");
    token_decoder_close(&d);
}

static void broken_bytes_become_one_replacement_for_each_subpart(void **state) {
    struct token_decoder d;
    assert_int_equal(token_decoder_open(&d, *state, false, NULL), OK);
    push_byte(&d, '\xE4', "");
    push_byte(&d, '\xBD', "");
    push_byte(&d, 'x', UTF8_REPLACEMENT "x"); // two bytes, one subpart
    push_byte(&d, '\xFF', UTF8_REPLACEMENT);
    push_byte(&d, '\xED', "");
    push_byte(&d, '\xA0', UTF8_REPLACEMENT UTF8_REPLACEMENT); // a surrogate: not even begun
    push_byte(&d, '\xC3', "");
    push_byte(&d, '\xC3', UTF8_REPLACEMENT);
    expect_flush(&d, UTF8_REPLACEMENT);
    expect_flush(&d, "");
    push_byte(&d, 'y', "y");
    token_decoder_close(&d);
}

static void special_tokens_are_text_or_nothing(void **state) {
    struct token_decoder d;
    uint32_t bos, think;
    size_t n;
    assert_true(tokenizer_added_id(*state, "<｜begin▁of▁sentence｜>", &bos));
    assert_true(tokenizer_added_id(*state, "<think>", &think));
    for (int skip = 0; skip < 2; skip++) {
        assert_int_equal(token_decoder_open(&d, *state, skip, NULL), OK);
        push_byte(&d, '\xC3', "");
        const char *text = token_decoder_push(&d, bos, &n);
        expect_text(text, n, skip ? "" : UTF8_REPLACEMENT "<｜begin▁of▁sentence｜>");
        text = token_decoder_push(&d, think, &n); // added, not special
        expect_text(text, n, skip ? UTF8_REPLACEMENT "<think>" : "<think>");
        token_decoder_close(&d);
    }
}

static void an_id_without_a_token_is_nothing(void **state) {
    struct token_decoder d;
    size_t n;
    assert_int_equal(token_decoder_open(&d, *state, false, NULL), OK);
    push_byte(&d, '\xC3', "");
    token_decoder_push(&d, UINT32_MAX, &n);
    assert_int_equal(n, 0);
    token_decoder_push(&d, tokenizer_n_ids(*state), &n);
    assert_int_equal(n, 0);
    push_byte(&d, '\xA9', "é"); // what waited still waits
    token_decoder_close(&d);
}

static void any_ids_give_whole_characters(void **state) {
    struct token_decoder d;
    uint64_t random = 1;
    size_t n, n_replaced = 0;
    assert_int_equal(token_decoder_open(&d, *state, false, NULL), OK);
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        // Mostly bytes, which seldom fit together.
        uint32_t n_ids = random >> 60 ? 259 : tokenizer_n_ids(*state);
        const char *text = token_decoder_push(&d, (uint32_t)(random >> 33) % n_ids, &n);
        assert_int_equal(utf8_valid_bytes(text, n), n);
        n_replaced += n >= 3 && !memcmp(text, UTF8_REPLACEMENT, 3);
    }
    assert_true(n_replaced > 10000);
    token_decoder_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_character_comes_out_with_its_last_byte),
        cmocka_unit_test(broken_bytes_become_one_replacement_for_each_subpart),
        cmocka_unit_test(special_tokens_are_text_or_nothing),
        cmocka_unit_test(an_id_without_a_token_is_nothing),
        cmocka_unit_test(any_ids_give_whole_characters),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
