#include "tools/progress.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define MS 1000000ull

/* A clock of our own: io/clock.h's interface is all that progress sees. */
struct hand {
    struct clock clock;
    uint64_t now;
};

static uint64_t hand_now(const struct clock *clock) {
    return ((const struct hand *)clock)->now;
}

static struct hand hand;
static struct progress p;
static struct terminal terminal;
static char *drawn;
static size_t drawn_bytes;
static FILE *out;

/* A progress of `total` on a terminal (or not) 80 columns wide, what it draws going to `drawn`. */
static void start(enum progress_unit unit, uint64_t total, bool is_terminal, bool escapes) {
    hand = (struct hand){ .clock = { .now_ns = hand_now }, .now = 1000 * MS };
    terminal = (struct terminal){ .fd = -1, .is_terminal = is_terminal, .escapes = escapes };
    out = open_memstream(&drawn, &drawn_bytes);
    assert_non_null(out);
    progress_start(&p, "prefill", unit, total, &terminal, &hand.clock, out);
}

static void end(void) {
    fclose(out);
    free(drawn);
}

/* Some milliseconds later, so much is done. */
static void after(uint64_t ms, uint64_t done) {
    hand.now += ms * MS;
    progress_update(&p, done);
    fflush(out);
}

static const char *line(uint64_t done, uint32_t columns) {
    static char text[256];
    progress_line(&p, done, columns, text, sizeof text);
    return text;
}

static void nothing_is_drawn_where_there_is_no_terminal(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 1000, false, false);
    for (uint64_t i = 1; i <= 20; i++)
        after(500, 50 * i);
    progress_clear(&p);
    fflush(out);
    assert_int_equal(drawn_bytes, 0);
    end();
}

static void what_is_quick_is_not_drawn(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 1000, true, true);
    after(100, 500);
    after(300, 999);
    progress_clear(&p);
    fflush(out);
    assert_int_equal(drawn_bytes, 0);
    end();
}

static void the_line_is_drawn_at_most_ten_times_a_second(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 100000, true, true);
    for (uint64_t i = 1; i <= 3000; i++)
        after(1, i);
    int n = 0;
    for (const char *c = drawn; *c; c++)
        n += *c == '\r';
    assert_in_range(n, 20, 26); // 2.5 s of the three
    end();
}

static void rate_and_time_left_are_those_of_a_steady_pace(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 8192, true, true);
    for (uint64_t i = 1; i <= 10; i++)
        after(1000, 80 * i);
    assert_string_equal(line(800, 80),
                        "prefill  800 of 8,192 tokens  9 %  80.0 tokens/s  1:32 left");
    end();
}

static void the_rate_follows_a_change_of_pace(void **state) {
    (void)state;
    start(PROGRESS_BYTES, 100000000000, true, true);
    for (uint64_t i = 1; i <= 10; i++)
        after(1000, i * 1000000000);
    assert_true(p.rate > 0.99e9 && p.rate < 1.01e9);
    for (uint64_t i = 1; i <= 30; i++)
        after(1000, 10000000000 + i * 2000000000);
    assert_true(p.rate > 1.99e9 && p.rate < 2.01e9);
    assert_string_equal(line(70000000000, 80),
                        "prefill  70.00 of 100.00 GB  70 %  2.00 GB/s  0:15 left");
    end();
}

static void the_rate_does_not_depend_on_how_often_it_is_asked(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 0, true, true);
    for (uint64_t i = 1; i <= 4000; i++)
        after(1, i);
    double often = p.rate;
    end();
    start(PROGRESS_TOKENS, 0, true, true);
    for (uint64_t i = 1; i <= 4; i++)
        after(1000, 1000 * i);
    assert_true(often > p.rate * 0.99 && often < p.rate * 1.01);
    end();
}

static void an_unknown_total_has_no_percentage_and_no_time_left(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 0, true, true);
    after(1000, 5);
    assert_string_equal(line(5, 80), "prefill  5 tokens  5.00 tokens/s");
    end();
}

static void a_narrow_terminal_gets_whole_items(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 8192, true, true);
    for (uint64_t i = 1; i <= 4; i++)
        after(1000, 80 * i);
    for (uint32_t columns = 20; columns < 80; columns++)
        assert_true(strlen(line(320, columns)) < columns);
    assert_string_equal(line(320, 20), "prefill");
    assert_string_equal(line(320, 40), "prefill  320 of 8,192 tokens  3 %");
    end();
}

static void all_done_says_so_without_a_time_left(void **state) {
    (void)state;
    start(PROGRESS_FILES, 66, true, true);
    after(1000, 66);
    assert_string_equal(line(66, 80), "prefill  66 of 66 files  100 %  66.0 files/s");
    end();
}

static void clearing_erases_what_was_drawn_and_only_that(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 100, true, true);
    after(600, 10);
    size_t before = drawn_bytes;
    assert_true(before > 0);
    progress_clear(&p);
    progress_clear(&p);
    fflush(out);
    assert_string_equal(drawn + before, "\r\x1b[K");
    end();
}

static void without_escapes_the_line_is_padded(void **state) {
    (void)state;
    start(PROGRESS_TOKENS, 100, true, false);
    after(600, 10);
    assert_int_equal(drawn_bytes, 80); // a carriage return and 79 columns
    assert_null(strchr(drawn, '\x1b'));
    progress_clear(&p);
    fflush(out);
    assert_null(strchr(drawn, '\x1b'));
    assert_int_equal(drawn[drawn_bytes - 1], '\r');
    end();
}

static void a_file_is_no_terminal(void **state) {
    (void)state;
    struct environment environment = { .columns = 132 };
    struct terminal t;
    FILE *file = tmpfile();
    assert_non_null(file);
    terminal_open(&t, fileno(file), &environment);
    assert_false(t.is_terminal);
    assert_string_equal(terminal_dim(&t), "");
    assert_string_equal(terminal_plain(&t), "");
    assert_int_equal(terminal_columns(&t), 132);
    fclose(file);
}

static void a_width_is_never_less_than_twenty(void **state) {
    (void)state;
    struct terminal t = { .fd = -1, .columns_told = 3 };
    assert_int_equal(terminal_columns(&t), 20);
    t.columns_told = 0;
    assert_int_equal(terminal_columns(&t), 80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_drawn_where_there_is_no_terminal),
        cmocka_unit_test(what_is_quick_is_not_drawn),
        cmocka_unit_test(the_line_is_drawn_at_most_ten_times_a_second),
        cmocka_unit_test(rate_and_time_left_are_those_of_a_steady_pace),
        cmocka_unit_test(the_rate_follows_a_change_of_pace),
        cmocka_unit_test(the_rate_does_not_depend_on_how_often_it_is_asked),
        cmocka_unit_test(an_unknown_total_has_no_percentage_and_no_time_left),
        cmocka_unit_test(a_narrow_terminal_gets_whole_items),
        cmocka_unit_test(all_done_says_so_without_a_time_left),
        cmocka_unit_test(clearing_erases_what_was_drawn_and_only_that),
        cmocka_unit_test(without_escapes_the_line_is_padded),
        cmocka_unit_test(a_file_is_no_terminal),
        cmocka_unit_test(a_width_is_never_less_than_twenty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
