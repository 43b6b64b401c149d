#include "src/text/stop.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

// What comes out of a text in pieces of the given size (0: random sizes).
static void run(const char *const *strings, uint32_t n, const char *text, size_t piece, char *out,
                bool *found) {
    struct stop s;
    struct err err = { .status = OK };
    size_t length = strlen(text), used = 0, n_out;
    assert_int_equal(stop_open(&s, strings, n, 64, &err), OK);
    for (size_t at = 0; at < length;) {
        size_t take = piece ? piece : 1 + (size_t)rand() % 7;
        take = take < length - at ? take : length - at;
        const char *certain = stop_push(&s, text + at, take, &n_out);
        memcpy(out + used, certain, n_out);
        used += n_out;
        at += take;
    }
    *found = s.found;
    const char *rest = stop_flush(&s, &n_out);
    memcpy(out + used, rest, n_out);
    out[used + n_out] = 0;
    stop_close(&s);
}

static void check(const char *const *strings, uint32_t n, const char *text, const char *want,
                  bool stops) {
    char out[512];
    bool found;
    for (size_t piece = 0; piece < 20; piece++) {
        run(strings, n, text, piece, out, &found);
        assert_string_equal(out, want);
        assert_int_equal(found, stops);
    }
}

static void text_ends_before_the_stop_string(void **state) {
    (void)state;
    const char *const one[] = { "END" };
    check(one, 1, "all is well END of it", "all is well ", true);
    check(one, 1, "ENDless", "", true);
    check(one, 1, "the EN", "the EN", false); // only its beginning: text after all
    check(one, 1, "EENEND", "EEN", true);
}

static void the_string_that_is_complete_first_stops(void **state) {
    (void)state;
    const char *const two[] = { "abc", "b" };
    check(two, 2, "xabcx", "xa", true);
    const char *const nested[] = { "aab", "ab" };
    check(nested, 2, "zaab", "z", true); // both end here: the longer one
    const char *const newline[] = { "\n\n", "\nUser:" };
    check(newline, 2, "yes\nUser: no", "yes", true);
    check(newline, 2, "a\nb\nc", "a\nb\nc", false);
}

static void without_stop_strings_text_passes_through(void **state) {
    (void)state;
    check(NULL, 0, "anything", "anything", false);
}

static void an_empty_stop_string_is_refused(void **state) {
    (void)state;
    const char *const empty[] = { "x", "" };
    struct stop s;
    struct err err = { .status = OK };
    assert_int_equal(stop_open(&s, empty, 2, 16, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "--stop"));
    stop_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_before_the_stop_string),
        cmocka_unit_test(the_string_that_is_complete_first_stops),
        cmocka_unit_test(without_stop_strings_text_passes_through),
        cmocka_unit_test(an_empty_stop_string_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
