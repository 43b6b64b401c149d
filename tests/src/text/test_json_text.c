/* JSON as Python reads and writes it. What is expected here, Python 3 printed. */
#include "src/text/json_text.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check_text(struct text got, const char *want) {
    if (!text_equal(got, text_of(want)))
        fail_msg("expected %s, got %.*s", want, (int)got.n_bytes, got.bytes);
}

static void check_written(const char *json, const char *want) {
    struct err err = { .status = OK };
    struct json_text j;
    struct text_buffer out = { .bytes = NULL };
    if (json_text_parse(&j, json, strlen(json), "test", &err) != OK)
        fail_msg("%s: %s", json, err.text);
    json_text_write(&j, j.values, &out);
    assert_int_equal(text_buffer_status(&out, &err), OK);
    check_text(text_buffer_view(&out), want);
    text_buffer_free(&out);
    json_text_free(&j);
}

static void values_are_written_as_python_writes_them(void **state) {
    (void)state;
    static const char *const same[] = {
        "null",
        "true",
        "false",
        "0",
        "-7",
        "\"\"",
        "[]",
        "{}",
        "\"é 数据 🙂\"",
        "[1, [2, []], {\"a\": {\"b\": null}}]",
        "{\"b\": 1, \"a\": 2, \"é\": [true, false]}",
        "123456789012345678901234567890123456789012345678901234567890",
        "-99999999999999999999999999",
        "NaN",
        "Infinity",
        "[-Infinity]",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        check_written(same[i], same[i]);
    check_written(" \t\r\n[ 1 ,2,\n{\"a\":1 , \"b\" :\t2} ] ", "[1, 2, {\"a\": 1, \"b\": 2}]");
    check_written("-0", "0");
    check_written("{ }", "{}");
    check_written("[\n]", "[]");
}

static void strings_are_escaped_as_little_as_python_does(void **state) {
    (void)state;
    check_written("\"\\u00e9\\u6570\\ud83d\\ude42\\/\"", "\"é数🙂/\"");
    check_written("\"\\\"\\\\\\b\\f\\n\\r\\t\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
    check_written("\"\\u0000\\u001F\\u007f\\u2028\"", "\"\\u0000\\u001f\x7f\u2028\"");
    check_written("{\"\\u0061\\n\": 1}", "{\"a\\n\": 1}");
}

static void half_a_surrogate_pair_is_replaced(void **state) {
    (void)state;
    check_written("\"\\ud83d\"", "\"\uFFFD\"");
    check_written("\"\\ude42x\"", "\"\uFFFDx\"");
    check_written("\"\\ud83d\\ud83d\\ude42\"", "\"\uFFFD🙂\"");
    check_written("\"\\ud83d\\u0041\"", "\"\uFFFDA\"");
    check_written("\"\\ud83d\\n\"", "\"\uFFFD\\n\"");
}

static void floats_are_the_shortest_that_read_back_the_same(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        { "0.1", "0.1" },
        { "3.0", "3.0" },
        { "1.50", "1.5" },
        { "-0.0", "-0.0" },
        { "0e5", "0.0" },
        { "1e5", "100000.0" },
        { "1E+2", "100.0" },
        { "0.0001", "0.0001" },
        { "0.00001", "1e-05" },
        { "123456789.125", "123456789.125" },
        { "1e15", "1000000000000000.0" },
        { "9999999999999998.0", "9999999999999998.0" },
        { "1e16", "1e+16" },
        { "12345678901234567890.0", "1.2345678901234567e+19" },
        { "1e22", "1e+22" },
        { "1e100", "1e+100" },
        { "0.30000000000000004", "0.30000000000000004" },
        { "0.1000000000000000055511151231257827", "0.1" },
        { "2.5e-7", "2.5e-07" },
        { "1.7976931348623157e308", "1.7976931348623157e+308" },
        { "2.2250738585072014e-308", "2.2250738585072014e-308" },
        { "2.2250738585072011e-308", "2.225073858507201e-308" },
        { "4.94065645841246544e-324", "5e-324" },
        { "1e-330", "0.0" },
        { "1e400", "Infinity" },
        { "-1e400", "-Infinity" },
        // Powers of two, where the doubles below lie closer than those above.
        { "5.684341886080801486968994140625e-14", "5.684341886080802e-14" },
        { "9007199254740992.0", "9007199254740992.0" },
        { "1.1754943508222875e-38", "1.1754943508222875e-38" },
        { "9.5367431640625e-07", "9.5367431640625e-07" },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        check_written(pairs[i][0], pairs[i][1]);
}

static void every_power_of_two_and_its_neighbours_read_back_the_same(void **state) {
    (void)state;
    char text[JSON_TEXT_FLOAT_BYTES];
    for (int e = -1074; e < 1024; e++) {
        const double power = ldexp(1, e);
        const double near[] = { power, nextafter(power, 0), nextafter(power, INFINITY) };
        for (int i = 0; i < 3; i++) {
            assert_true(json_text_float(near[i], text) == strlen(text));
            assert_true(strtod(text, NULL) == near[i]);
        }
    }
}

static void repeated_key_keeps_its_place_and_takes_the_last_value(void **state) {
    (void)state;
    check_written("{\"a\": 1, \"b\": 2, \"a\": [3, {\"a\": 4}], \"c\": 5, \"a\": 6}",
                  "{\"a\": 6, \"b\": 2, \"c\": 5}");
    check_written("{\"a\": {\"x\": 1, \"x\": 2}, \"\\u0061\": {\"y\": 1, \"x\": 3, \"y\": 2}}",
                  "{\"a\": {\"y\": 2, \"x\": 3}}");
    check_written("[{\"\": 1, \"\": 2}, {\"a\": 1, \"ab\": 2, \"a\\u0000\": 3}]",
                  "[{\"\": 2}, {\"a\": 1, \"ab\": 2, \"a\\u0000\": 3}]");
}

static void members_and_items_are_walked_in_order(void **state) {
    (void)state;
    const char *json = "{\"x\": [10, [11, 12], 13], \"y\": {}, \"x2\": \"s\", \"y\": null}";
    struct json_text j;
    assert_int_equal(json_text_parse(&j, json, strlen(json), "test", NULL), OK);
    assert_int_equal(j.values[0].n_items, 3);
    const struct json_text_value *key = json_text_first(&j, j.values);
    check_text(key->text, "x");
    const struct json_text_value *list = json_text_member(&j, key);
    assert_int_equal(list->n_items, 3);
    const struct json_text_value *item = json_text_first(&j, list);
    check_text(item->text, "10");
    item = json_text_next(&j, list, item);
    assert_int_equal(item->kind, JSON_TEXT_ARRAY);
    item = json_text_next(&j, list, item);
    check_text(item->text, "13");
    assert_null(json_text_next(&j, list, item));
    key = json_text_next(&j, j.values, key);
    check_text(key->text, "y");
    assert_int_equal(json_text_member(&j, key)->kind, JSON_TEXT_NULL);
    key = json_text_next(&j, j.values, key);
    check_text(key->text, "x2");
    assert_null(json_text_next(&j, j.values, key));
    check_text(json_text_get(&j, j.values, "x2")->text, "s");
    assert_null(json_text_get(&j, j.values, "z"));
    assert_null(json_text_get(&j, list, "x"));
    json_text_free(&j);
}

static void what_is_not_json_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        { "", "no value at byte 0" },
        { "  ", "no value at byte 2" },
        { "nul", "no value at byte 0" },
        { "[1, 2", "no , or ] after an item at byte 5" },
        { "[1,]", "no value at byte 3" },
        { "[,1]", "no value at byte 1" },
        { "{\"a\" 1}", "no : after a key at byte 5" },
        { "{\"a\": 1,}", "no key in quotes at byte 8" },
        { "{\"a\": 1", "no , or } after a member at byte 7" },
        { "{1: 2}", "no key in quotes at byte 1" },
        { "\"abc", "a string does not end at byte 4" },
        { "\"a\nb\"", "a control character in a string at byte 2" },
        { "\"\\x\"", "an unknown escape at byte 2" },
        { "\"\\", "an unknown escape at byte 2" },
        { "\"\\u12g4\"", "not four hexadecimal digits after \\u at byte 5" },
        { "\"\\ud83d\\u12\"", "not four hexadecimal digits after \\u at byte 11" },
        { "01", "something after the value at byte 1" },
        { "1 2", "something after the value at byte 2" },
        { "-", "no value at byte 1" },
        { "+1", "no value at byte 0" },
        { ".5", "no value at byte 0" },
        { "1.", "no digit after the point at byte 2" },
        { "1e+", "no digit in the exponent at byte 3" },
        { "\"\xC3\"", "a byte that is not UTF-8 at byte 1" },
        { "\xEF\xBB\xBF{}", "no value at byte 0" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = { .status = OK };
        struct json_text j;
        char want[200] = "f.json: not JSON: ";
        strcat(want, cases[i][1]);
        assert_int_equal(json_text_parse(&j, cases[i][0], strlen(cases[i][0]), "f.json", &err),
                         ERR_INPUT);
        assert_string_equal(err.text, want);
        assert_null(j.values);
        json_text_free(&j);
    }
}

static enum status parse_nested(const char *open, const char *close, size_t depth,
                                struct err *err) {
    struct text_buffer text = { .bytes = NULL };
    struct json_text j;
    for (size_t i = 0; i < depth; i++)
        text_buffer_string(&text, open);
    text_buffer_string(&text, "1");
    for (size_t i = 0; i < depth; i++)
        text_buffer_string(&text, close);
    const enum status status = json_text_parse(&j, text.bytes, text.n_bytes, "deep", err);
    json_text_free(&j);
    text_buffer_free(&text);
    return status;
}

static void brackets_nest_so_deep_and_no_deeper(void **state) {
    (void)state;
    struct err err = { .status = OK };
    assert_int_equal(parse_nested("[", "]", JSON_TEXT_MAX_DEPTH, &err), OK);
    assert_int_equal(parse_nested("{\"\":", "}", JSON_TEXT_MAX_DEPTH, &err), OK);
    assert_int_equal(parse_nested("{\"\":", "}", JSON_TEXT_MAX_DEPTH + 1, NULL), ERR_INPUT);
    assert_int_equal(parse_nested("[", "]", 1000000, &err), ERR_INPUT);
    assert_string_equal(err.text, "deep: not JSON: too many brackets within brackets at byte 512");
}

static void broken_utf8_is_replaced_when_a_string_is_written(void **state) {
    (void)state;
    struct text_buffer out = { .bytes = NULL };
    json_text_write_string(text_of("a\xFF\xE6\x95z\xED\xA0\x80\"\xE6"), &out);
    check_text(text_buffer_view(&out), "\"a\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD\\\"\uFFFD\"");
    text_buffer_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_written_as_python_writes_them),
        cmocka_unit_test(strings_are_escaped_as_little_as_python_does),
        cmocka_unit_test(half_a_surrogate_pair_is_replaced),
        cmocka_unit_test(floats_are_the_shortest_that_read_back_the_same),
        cmocka_unit_test(every_power_of_two_and_its_neighbours_read_back_the_same),
        cmocka_unit_test(repeated_key_keeps_its_place_and_takes_the_last_value),
        cmocka_unit_test(members_and_items_are_walked_in_order),
        cmocka_unit_test(what_is_not_json_is_refused_with_its_place),
        cmocka_unit_test(brackets_nest_so_deep_and_no_deeper),
        cmocka_unit_test(broken_utf8_is_replaced_when_a_string_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
