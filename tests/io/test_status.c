// One line that says what went wrong; the first one wins.
#include "tests/io/fixture.h"

#include "io/status.h"

static void first_error_wins(void **state) {
    (void)state;
    struct err err = { .status = OK };
    assert_int_equal(err_set(&err, ERR_IO, "disk %d", 1), ERR_IO);
    assert_int_equal(err_set(&err, ERR_INPUT, "disk %d", 2), ERR_IO);
    assert_int_equal(err.status, ERR_IO);
    assert_string_equal(err.text, "disk 1");
    err_clear(&err);
    assert_int_equal(err.status, OK);
    assert_string_equal(err.text, "");
    assert_int_equal(err_set(&err, ERR_INPUT, "disk %d", 2), ERR_INPUT);
    assert_string_equal(err.text, "disk 2");
}

static void nobody_needs_to_ask_for_the_text(void **state) {
    (void)state;
    assert_int_equal(err_set(NULL, ERR_MEMORY, "%s", "lost"), ERR_MEMORY);
}

static void long_text_is_cut_on_a_whole_character(void **state) {
    (void)state;
    // Three-byte characters at every phase: the cut meets each of their bytes.
    for (int lead = 0; lead < 3; lead++) {
        char path[3 * ERR_TEXT_BYTES + 4] = "";
        memset(path, 'x', (size_t)lead);
        for (int i = 0; i < ERR_TEXT_BYTES; i++)
            strcat(path, "\xe4\xb8\xad");
        struct err err = { .status = OK };
        err_set(&err, ERR_IO, "%s", path);
        size_t length = strlen(err.text);
        assert_true(length < ERR_TEXT_BYTES);
        assert_true(length > ERR_TEXT_BYTES - 8);
        assert_string_equal(err.text + length - 3, "\xe2\x80\xa6");
        assert_int_equal((length - 3 - (size_t)lead) % 3, 0);
    }
}

static void text_that_just_fits_is_whole(void **state) {
    (void)state;
    char path[ERR_TEXT_BYTES];
    memset(path, 'y', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    struct err err = { .status = OK };
    err_set(&err, ERR_IO, "%s", path);
    assert_string_equal(err.text, path);
}

static void control_characters_do_not_reach_a_terminal(void **state) {
    (void)state;
    struct err err = { .status = OK };
    err_set(&err, ERR_IO, "%s", "a\x1b[2Jb\nc\x7f");
    assert_string_equal(err.text, "a?[2Jb?c?");
    err_clear(&err);
    err_set(&err, ERR_IO, "%s", "a\xC2\x9B 31m \xC2\xA0\xC3\x9F"); // C1 is two bytes; ß is not C1
    assert_string_equal(err.text, "a?? 31m \xC2\xA0\xC3\x9F");
}

static void every_status_has_a_name_of_its_own(void **state) {
    (void)state;
    for (int a = OK; a <= ERR_SYSTEM; a++) {
        assert_string_not_equal(status_name((enum status)a), "unknown status");
        for (int b = OK; b < a; b++)
            assert_string_not_equal(status_name((enum status)a), status_name((enum status)b));
    }
    assert_string_equal(status_name((enum status)(ERR_SYSTEM + 1)), "unknown status");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(nobody_needs_to_ask_for_the_text),
        cmocka_unit_test(long_text_is_cut_on_a_whole_character),
        cmocka_unit_test(text_that_just_fits_is_whole),
        cmocka_unit_test(control_characters_do_not_reach_a_terminal),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
