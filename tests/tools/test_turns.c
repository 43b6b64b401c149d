/* Texts that are written at the same time come out one after the other, whole and as early as can be. */
#include "tools/turns.h"

#include "src/random.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

struct shown {
    struct turns turns;
    char text[4096]; // zeros follow it
    size_t n_bytes;
    uint32_t n_calls, fail_at; // the call that fails, from 1
};

static enum status put(struct shown *s, const char *text, size_t n_bytes, struct err *err) {
    if (++s->n_calls == s->fail_at)
        return err_set(err, ERR_IO, "nobody looks");
    assert_true(s->n_bytes + n_bytes < sizeof s->text);
    memcpy(s->text + s->n_bytes, text, n_bytes);
    s->n_bytes += n_bytes;
    return OK;
}

static enum status begin(void *context, uint32_t which, struct err *err) {
    char text[16];
    snprintf(text, sizeof text, "<%u ", which);
    return put(context, text, strlen(text), err);
}

static enum status take(void *context, uint32_t which, const char *text, size_t n_bytes,
                        struct err *err) {
    (void)which;
    return put(context, text, n_bytes, err);
}

static enum status end(void *context, uint32_t which, struct err *err) {
    (void)which;
    return put(context, ">", 1, err);
}

static void open_shown(struct shown *s, uint32_t n) {
    struct turns_stage stage = { begin, take, end, s };
    struct err err = { .status = OK };
    *s = (struct shown){ .fail_at = 0 };
    assert_int_equal(turns_open(&s->turns, n, &stage, &err), OK);
}

static void says(struct shown *s, uint32_t which, const char *text) {
    struct err err = { .status = OK };
    assert_int_equal(turns_take(&s->turns, which, text, strlen(text), &err), OK);
}

static void ends(struct shown *s, uint32_t which) {
    struct err err = { .status = OK };
    assert_int_equal(turns_end(&s->turns, which, &err), OK);
}

static void the_first_streams_and_the_others_wait(void **state) {
    (void)state;
    struct shown s;
    open_shown(&s, 3);
    says(&s, 1, "b");
    assert_string_equal(s.text, "");
    says(&s, 0, "a");
    assert_string_equal(s.text, "<0 a");
    says(&s, 2, "c");
    ends(&s, 2);
    says(&s, 0, "a");
    assert_string_equal(s.text, "<0 aa");
    ends(&s, 0); // the second streams from here on
    assert_string_equal(s.text, "<0 aa><1 b");
    says(&s, 1, "b");
    assert_string_equal(s.text, "<0 aa><1 bb");
    ends(&s, 1); // and the third has ended already
    assert_string_equal(s.text, "<0 aa><1 bb><2 c>");
    turns_close(&s.turns);
}

static void one_that_says_nothing_has_its_turn(void **state) {
    (void)state;
    struct shown s;
    open_shown(&s, 3);
    ends(&s, 1);
    ends(&s, 0);
    assert_string_equal(s.text, "<0 ><1 >");
    ends(&s, 2);
    assert_string_equal(s.text, "<0 ><1 ><2 >");
    turns_close(&s.turns);
}

static void whatever_the_order_the_text_is_the_same(void **state) {
    (void)state;
    for (uint32_t seed = 0; seed < 200; seed++) {
        struct shown s;
        uint32_t left[4] = { 3, 0, 5, 2 }, n_ended = 0;
        bool ended[4] = { false };
        open_shown(&s, 4);
        for (uint64_t i = 0; n_ended < 4; i++) {
            uint32_t which = (uint32_t)(random_uniform(seed, i, 0) * 4);
            if (ended[which])
                continue;
            if (left[which]-- > 0) {
                says(&s, which, "xy");
                continue;
            }
            ends(&s, which);
            ended[which] = true;
            n_ended++;
        }
        assert_string_equal(s.text, "<0 xyxyxy><1 ><2 xyxyxyxyxy><3 xyxy>");
        turns_close(&s.turns);
    }
}

static void after_an_error_nothing_more_is_shown(void **state) {
    (void)state;
    for (uint32_t at = 1; at <= 6; at++) { // begin, take, end of each
        struct shown s;
        uint32_t n_failed = 0;
        open_shown(&s, 2);
        s.fail_at = at;
        for (uint32_t which = 0; which < 2; which++) {
            struct err err = { .status = OK };
            n_failed += turns_take(&s.turns, which, "x", 1, &err) != OK;
            err_clear(&err);
            n_failed += turns_end(&s.turns, which, &err) != OK;
        }
        assert_int_equal(n_failed, 1);
        assert_int_equal(s.n_calls, at);
        turns_close(&s.turns);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_streams_and_the_others_wait),
        cmocka_unit_test(one_that_says_nothing_has_its_turn),
        cmocka_unit_test(whatever_the_order_the_text_is_the_same),
        cmocka_unit_test(after_an_error_nothing_more_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
