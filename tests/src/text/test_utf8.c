#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/text/utf8.h"

static void every_code_point_is_a_character_and_comes_back(void **state) {
    (void)state;
    for (uint32_t c = 1; c <= 0x10FFFF; c++) {
        char text[UTF8_MAX_BYTES];
        uint32_t n, n_decoded;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        n = utf8_encode(c, text);
        struct utf8_step step = utf8_next(text, n);
        assert_int_equal(step.kind, UTF8_CHARACTER);
        assert_int_equal(step.bytes, n);
        assert_int_equal(utf8_decode(text, &n_decoded), c);
        assert_int_equal(n_decoded, n);
    }
}

static void each_maximal_subpart_is_replaced_once(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum utf8_kind kind;
        uint32_t bytes;
    } CASES[] = {
        { "\x80 ", UTF8_BROKEN, 1 },            // a continuation alone
        { "\xC0\xAF", UTF8_BROKEN, 1 },         // overlong, two bytes
        { "\xC1\x80", UTF8_BROKEN, 1 },         // the same
        { "\xE0\x9F\x80", UTF8_BROKEN, 1 },     // overlong, three bytes
        { "\xED\xA0\x80", UTF8_BROKEN, 1 },     // a surrogate
        { "\xF0\x8F\xBF\xBF", UTF8_BROKEN, 1 }, // overlong, four bytes
        { "\xF4\x90\x80\x80", UTF8_BROKEN, 1 }, // above U+10FFFF
        { "\xF5\x80\x80\x80", UTF8_BROKEN, 1 }, // no character begins so
        { "\xFF ", UTF8_BROKEN, 1 },            // never
        { "\xC3 ", UTF8_BROKEN, 1 },            // the second byte is missing
        { "\xE4\xBD ", UTF8_BROKEN, 2 },        // the third byte is missing
        { "\xF0\x9F\x98 ", UTF8_BROKEN, 3 },    // the fourth byte is missing
        { "\xF0\x9F ", UTF8_BROKEN, 2 },
        { "\xC3", UTF8_CUT, 1 },
        { "\xE4\xBD", UTF8_CUT, 2 },
        { "\xF0\x9F\x98", UTF8_CUT, 3 },
        { "\xF0", UTF8_CUT, 1 },
        { "\xED\x9F\xBF", UTF8_CHARACTER, 3 }, // the last before the surrogates
        { "\xEE\x80\x80", UTF8_CHARACTER, 3 }, // the first after them
        { "\xF4\x8F\xBF\xBF", UTF8_CHARACTER, 4 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct utf8_step step = utf8_next(CASES[i].text, strlen(CASES[i].text));
        assert_int_equal(step.kind, CASES[i].kind);
        assert_int_equal(step.bytes, CASES[i].bytes);
    }
}

static void valid_bytes_ends_before_the_first_broken_one(void **state) {
    (void)state;
    char text[64];
    for (size_t n = 0; n < 40; n++)
        for (size_t broken = 0; broken <= n; broken++) {
            memset(text, 'a', sizeof text);
            if (broken < n)
                text[broken] = '\xFF';
            assert_int_equal(utf8_valid_bytes(text, n), broken);
        }
    assert_int_equal(utf8_valid_bytes("aaaaaaa\xC3\xA9", 9), 9);
    assert_int_equal(utf8_valid_bytes("aaaaaaa\xC3\xA9", 8), 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_a_character_and_comes_back),
        cmocka_unit_test(each_maximal_subpart_is_replaced_once),
        cmocka_unit_test(valid_bytes_ends_before_the_first_broken_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
