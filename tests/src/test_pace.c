/* The number of groups that is faster is found, kept while it is, and given up when it is not. */
#include "src/pace.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define N_SEQUENCES 4

struct run {
    struct pace pace;
    uint64_t now_ns;
    uint64_t cost_ns[3]; // of a token, by groups in use
    uint32_t n_used[3];  // tokens, likewise
    uint32_t n_changes;
};

static struct run begin(uint64_t with_one, uint64_t with_two) {
    struct run r = { .cost_ns = { 0, with_one, with_two } };
    pace_init(&r.pace, 2);
    return r;
}

// n tokens of each sequence, a step of the group that is at it: two rows of two groups, or four.
static void decode(struct run *r, uint32_t n, uint32_t n_sequences) {
    for (uint32_t done = 0; done < n * n_sequences;) {
        uint32_t groups = r->pace.now, rows = n_sequences / groups;
        r->now_ns += rows * r->cost_ns[groups];
        r->n_used[groups] += rows;
        done += rows;
        r->n_changes += pace_tokens(&r->pace, rows, n_sequences, r->now_ns) != groups;
    }
}

// What is in use but for a trial.
static uint32_t steady(const struct run *r) {
    return r->pace.trial ? 3 - r->pace.now : r->pace.now;
}

static void short_answers_see_no_trial(void **state) {
    (void)state;
    struct run r = begin(1, 1000);
    decode(&r, PACE_FIRST * PACE_WINDOW, N_SEQUENCES);
    assert_int_equal(r.n_changes, 0);
    assert_int_equal(r.pace.now, 2);
}

static void one_group_is_found_where_it_is_faster(void **state) {
    (void)state;
    struct run r = begin(900, 1000);
    decode(&r, 200, N_SEQUENCES);
    assert_int_equal(steady(&r), 1);
    // From the first trial on: a look at two now and then is all that is lost.
    assert_true(r.n_used[2] < 200 * N_SEQUENCES / 4);
}

static void trials_that_fail_become_rare(void **state) {
    (void)state;
    struct run r = begin(1200, 1000);
    decode(&r, 2000, N_SEQUENCES);
    assert_int_equal(steady(&r), 2);
    assert_true(r.n_changes >= 2 * 4 && r.n_changes <= 2 * 8);
    assert_true(r.n_used[1] < 2000 * N_SEQUENCES / 20);
}

static void trials_are_never_rarer_than_that(void **state) {
    (void)state;
    struct run r = begin(1200, 1000);
    decode(&r, 2 * PACE_LAST * PACE_WINDOW, N_SEQUENCES);
    r.n_changes = 0;
    decode(&r, 4 * (PACE_LAST + 2) * PACE_WINDOW, N_SEQUENCES);
    assert_true(r.n_changes >= 2 * 3);
}

static void a_gain_within_the_noise_changes_nothing(void **state) {
    (void)state;
    struct run r = begin(980, 1000);
    decode(&r, 1000, N_SEQUENCES);
    assert_int_equal(steady(&r), 2);
}

static void what_was_faster_is_tried_again_when_it_may_be_slower(void **state) {
    (void)state;
    struct run r = begin(500, 1000);
    decode(&r, 300, N_SEQUENCES);
    assert_int_equal(steady(&r), 1);
    assert_true(r.pace.patience > PACE_FIRST); // two groups were tried again, in vain
    r.cost_ns[1] = 2000;
    decode(&r, PACE_LAST * PACE_WINDOW * 2, N_SEQUENCES);
    assert_int_equal(steady(&r), 2);
}

static void after_a_change_it_is_patient_anew_no_more_than_at_first(void **state) {
    (void)state;
    struct run r = begin(1200, 1000);
    decode(&r, 300, N_SEQUENCES);
    assert_true(r.pace.patience > PACE_FIRST);
    r.cost_ns[1] = 500;
    while (r.pace.now == 2 || r.pace.trial)
        decode(&r, 1, N_SEQUENCES);
    assert_int_equal(r.pace.patience, PACE_FIRST);
}

// The first token of each sequence after a change may cost what it likes: here, what a window does.
static void a_change_itself_is_not_measured(void **state) {
    (void)state;
    struct run r = begin(900 * PACE_WINDOW, 1000);
    while (!r.pace.trial)
        decode(&r, 1, N_SEQUENCES);
    if (r.pace.n_settling > 0)
        decode(&r, 1, N_SEQUENCES);
    r.cost_ns[1] = 900;
    decode(&r, PACE_WINDOW, N_SEQUENCES);
    assert_false(r.pace.trial);
    assert_int_equal(r.pace.now, 1);
}

static void sequences_that_go_end_a_trial(void **state) {
    (void)state;
    struct run r = begin(500, 1000);
    decode(&r, PACE_FIRST * PACE_WINDOW + 3, N_SEQUENCES);
    assert_true(r.pace.trial);
    assert_int_equal(r.pace.now, 1);
    decode(&r, 1, N_SEQUENCES - 2);
    assert_false(r.pace.trial);
    assert_int_equal(r.pace.now, 2);
    decode(&r, 100, N_SEQUENCES - 2); // and another one comes
    assert_int_equal(steady(&r), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_answers_see_no_trial),
        cmocka_unit_test(one_group_is_found_where_it_is_faster),
        cmocka_unit_test(trials_that_fail_become_rare),
        cmocka_unit_test(trials_are_never_rarer_than_that),
        cmocka_unit_test(a_gain_within_the_noise_changes_nothing),
        cmocka_unit_test(what_was_faster_is_tried_again_when_it_may_be_slower),
        cmocka_unit_test(after_a_change_it_is_patient_anew_no_more_than_at_first),
        cmocka_unit_test(a_change_itself_is_not_measured),
        cmocka_unit_test(sequences_that_go_end_a_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
