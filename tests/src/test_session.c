/* A session takes in what it must and no more, and what comes out is what a fresh one gives. */
#include "src/random.h"
#include "src/session.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#define N_TURNS 15 // arithmetic is 20 times slower there
#else
#define N_TURNS 60
#endif
#define CTX GOLDEN_TOKENS

struct world {
    struct sluice *engine;
    struct step *step;
    struct session session, fresh;
    int32_t tokens[GOLDEN_TOKENS]; // a conversation; tests write other tokens where they part
    float logits[GOLDEN_VOCAB];    // the last that came out
    uint32_t n_logits;             // how often some came out
    uint32_t cancel_after;         // looks until the run is cancelled
    uint32_t chunk;
};

static int open_world(void **state) {
    static struct world w;
    struct sluice_options options = test_options();
    struct err err = { .status = OK };
    options.n_sequences = 2;
    options.ctx = CTX;
    w = (struct world){ .engine = test_engine(&options), .cancel_after = UINT32_MAX };
    golden_tokens(w.tokens);
    assert_int_equal(step_open(&w.step, w.engine, &err), OK);
    assert_int_equal(session_open(&w.session, w.engine, w.step, &err), OK);
    assert_int_equal(session_open(&w.fresh, w.engine, w.step, &err), OK);
    *state = &w;
    return 0;
}

static int close_world(void **state) {
    struct world *w = *state;
    session_close(&w->fresh);
    session_close(&w->session);
    step_close(w->step);
    sluice_close(w->engine);
    return 0;
}

static void keep_logits(void *context, const float *logits) {
    struct world *w = context;
    memcpy(w->logits, logits, sizeof w->logits);
    w->n_logits++;
}

static bool cancel(void *context) {
    struct world *w = context;
    return w->cancel_after-- == 0;
}

static struct session_feed feed_of(struct world *w) {
    return (struct session_feed){
        .chunk = w->chunk, .logits = keep_logits, .cancel = cancel, .context = w
    };
}

static void assert_as_fresh(struct world *w, const int32_t *prompt, uint32_t n) {
    float logits[GOLDEN_VOCAB];
    struct session_prefill p;
    struct err err = { .status = OK };
    memcpy(logits, w->logits, sizeof logits);
    struct session_feed feed = feed_of(w);
    feed.cancel = NULL;
    session_reset(&w->fresh);
    assert_int_equal(session_prefill(&w->fresh, prompt, n, &feed, &p, &err), OK);
    assert_int_equal(p.n_fed, n);
    assert_memory_equal(logits, w->logits, sizeof logits);
}

// The prompt goes in; so many of its tokens had to.
static void prefill(struct world *w, const int32_t *prompt, uint32_t n, uint32_t wanted_fed) {
    struct session_prefill p;
    struct err err = { .status = OK };
    struct session_feed feed = feed_of(w);
    uint64_t fed = w->session.n_fed, kept = sluice_account(w->session.engine)->kept;
    uint32_t n_logits = w->n_logits;
    if (session_prefill(&w->session, prompt, n, &feed, &p, &err) != OK)
        fail_msg("%s", err.text);
    session_check(&w->session);
    assert_int_equal(p.n_prompt, n);
    assert_int_equal(p.n_fed, wanted_fed);
    assert_int_equal(p.n_kept, n - wanted_fed);
    assert_int_equal(sluice_account(w->session.engine)->kept - kept, p.n_kept);
    assert_int_equal(w->session.n_fed - fed, wanted_fed);
    assert_int_equal(w->n_logits - n_logits, 1);
    assert_as_fresh(w, prompt, n);
}

// An answer of n tokens, those that follow in `tokens`.
static void answer(struct world *w, const int32_t *tokens, uint32_t n) {
    struct err err = { .status = OK };
    struct session_feed feed = feed_of(w);
    for (uint32_t i = 0; i < n; i++)
        if (session_decode(&w->session, tokens[i], &feed, &err) != OK)
            fail_msg("%s", err.text);
    session_check(&w->session);
}

static void other_token(int32_t *token) {
    *token = (*token + 1) % GOLDEN_VOCAB;
}

static void first_prompt_is_taken_in_whole(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 40, 40);
}

static void next_turn_takes_in_the_new_message_alone(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 40, 40);
    answer(w, w->tokens + 40, 30);
    prefill(w, w->tokens, 100, 30);
    answer(w, w->tokens + 100, 12);
    prefill(w, w->tokens, 113, 1);
}

static void answer_without_its_reasoning_goes_on_from_the_snapshot(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 60, 60);
    answer(w, w->tokens + 60, 40);
    other_token(&w->tokens[60]); // what follows the prompt is another text now
    prefill(w, w->tokens, 90, 30);
}

static void snapshot_is_rolled_back_where_the_prompt_ends_otherwise(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 60, 60);
    answer(w, w->tokens + 60, 40);
    other_token(&w->tokens[59]); // <think>, which is </think> now
    prefill(w, w->tokens, 90, 31);
    answer(w, w->tokens + 90, 20);
    other_token(&w->tokens[89]); // and of the next snapshot again
    prefill(w, w->tokens, 95, 6);
}

static void an_end_that_parts_is_rolled_back(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 50, 50);
    answer(w, w->tokens + 50, 30);
    other_token(&w->tokens[75]);
    prefill(w, w->tokens, 100, 25);
}

static void rollback_behind_the_snapshot_leaves_none(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 50, 50);
    answer(w, w->tokens + 50, 2);
    other_token(&w->tokens[48]);
    prefill(w, w->tokens, 80, 32);
    answer(w, w->tokens + 80, 20);
    other_token(&w->tokens[81]);
    prefill(w, w->tokens, 90, 10); // from the second snapshot, of this prompt
}

static void what_parts_early_begins_anew(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 60, 60);
    answer(w, w->tokens + 60, 40);
    other_token(&w->tokens[20]);
    prefill(w, w->tokens, 90, 90);
}

static void same_prompt_again_takes_in_its_last_token(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 40, 40);
    prefill(w, w->tokens, 40, 1);
    answer(w, w->tokens + 40, 100);
    prefill(w, w->tokens, 40, 1); // regenerate: back to the snapshot
}

static void reset_forgets_everything(void **state) {
    struct world *w = *state;
    prefill(w, w->tokens, 40, 40);
    session_reset(&w->session);
    session_check(&w->session);
    prefill(w, w->tokens, 40, 40);
}

static void cancelled_prefill_goes_on_where_it_was(void **state) {
    struct world *w = *state;
    struct session_prefill p;
    struct err err = { .status = OK };
    w->chunk = 10;
    w->cancel_after = 20; // looks: it asks at least once a layer
    struct session_feed feed = feed_of(w);
    assert_int_equal(session_prefill(&w->session, w->tokens, 100, &feed, &p, &err), CANCELLED);
    session_check(&w->session);
    assert_int_equal(w->n_logits, 0);
    assert_true(p.n_fed > 0 && p.n_fed < 100 && p.n_fed % 10 == 0);
    assert_int_equal(p.n_fed, w->session.n_tokens);
    w->cancel_after = UINT32_MAX;
    prefill(w, w->tokens, 100, 100 - p.n_fed);
}

static void cancelled_second_prefill_keeps_its_way_back(void **state) {
    struct world *w = *state;
    struct session_prefill p;
    struct err err = { .status = OK };
    prefill(w, w->tokens, 60, 60);
    answer(w, w->tokens + 60, 20);
    w->chunk = 10;
    w->cancel_after = 20;
    other_token(&w->tokens[62]);
    struct session_feed feed = feed_of(w);
    assert_int_equal(session_prefill(&w->session, w->tokens, 200, &feed, &p, &err), CANCELLED);
    session_check(&w->session);
    assert_int_equal(p.n_kept, 60);
    w->cancel_after = UINT32_MAX;
    other_token(&w->tokens[61]); // a third text: the first snapshot is its beginning still
    prefill(w, w->tokens, 120, 60);
}

static void cancelled_prompt_leaves_the_last_answer(void **state) {
    struct world *w = *state;
    struct session_prefill p;
    struct err err = { .status = OK };
    prefill(w, w->tokens, 60, 60);
    answer(w, w->tokens + 60, 40);
    w->chunk = 10;
    w->cancel_after = 20;
    struct session_feed feed = feed_of(w);
    assert_int_equal(session_prefill(&w->session, w->tokens, 200, &feed, &p, &err), CANCELLED);
    session_check(&w->session);
    assert_true(p.n_fed >= 10);
    w->cancel_after = UINT32_MAX;
    other_token(&w->tokens[100]); // another message instead
    prefill(w, w->tokens, 120, 20);
}

static void cancelled_token_is_not_in(void **state) {
    struct world *w = *state;
    struct err err = { .status = OK };
    prefill(w, w->tokens, 40, 40);
    answer(w, w->tokens + 40, 5);
    struct session_feed feed = feed_of(w);
    w->cancel_after = 1;
    assert_int_equal(session_decode(&w->session, w->tokens[45], &feed, &err), CANCELLED);
    session_check(&w->session);
    assert_int_equal(w->session.n_tokens, 45);
    w->cancel_after = UINT32_MAX;
    prefill(w, w->tokens, 60, 15);
}

static void prompt_larger_than_the_context_changes_nothing(void **state) {
    struct world *w = *state;
    struct session_prefill p;
    struct err err = { .status = OK };
    int32_t tokens[CTX + 1] = { 0 };
    prefill(w, w->tokens, 40, 40);
    struct session_feed feed = feed_of(w);
    assert_int_equal(session_prefill(&w->session, tokens, CTX + 1, &feed, &p, &err), ERR_MEMORY);
    assert_non_null(strstr(err.text, "--ctx"));
    session_check(&w->session);
    prefill(w, w->tokens, 60, 20);
    prefill(w, w->tokens, CTX, CTX - 60);
    err = (struct err){ .status = OK };
    assert_int_equal(session_decode(&w->session, 5, &feed, &err), ERR_MEMORY);
    session_check(&w->session);
}

static void prompt_without_tokens_is_refused(void **state) {
    struct world *w = *state;
    struct session_prefill p;
    struct err err = { .status = OK };
    struct session_feed feed = feed_of(w);
    assert_int_equal(session_prefill(&w->session, w->tokens, 0, &feed, &p, &err), ERR_USAGE);
}

static uint32_t draw(uint64_t i, uint32_t stream, uint32_t n) {
    return (uint32_t)(random_uniform(3, i, stream) * n);
}

// Prompts that part anywhere, answers of any length, cancelled now and then: always as fresh.
static void any_conversation_equals_a_fresh_one(void **state) {
    struct world *w = *state;
    for (uint64_t i = 0; i < N_TURNS; i++) {
        uint32_t held = w->session.n_tokens, kind = draw(i, 0, 4);
        uint32_t part = held;
        if (held > 0 && kind == 1)
            part = held - 1 - draw(i, 1, held < 12 ? held : 12);
        else if (held > 0 && kind == 2)
            part = draw(i, 1, held);
        uint32_t n = part + 1 + draw(i, 2, 40);
        if (n + 20 > CTX)
            n = 30;
        if (part < n)
            other_token(&w->tokens[part]);
        struct session_prefill p;
        struct err err = { .status = OK };
        w->chunk = 1 + draw(i, 3, 30);
        w->cancel_after = draw(i, 4, 3) ? UINT32_MAX : 8;
        struct session_feed feed = feed_of(w);
        enum status status = session_prefill(&w->session, w->tokens, n, &feed, &p, &err);
        assert_true(status == OK || status == CANCELLED);
        session_check(&w->session);
        if (part < n && part > 0)
            assert_true(p.n_kept <= part);
        w->cancel_after = UINT32_MAX;
        if (status == CANCELLED)
            continue;
        assert_as_fresh(w, w->tokens, n);
        answer(w, w->tokens + n, draw(i, 5, 20));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
        TEST(first_prompt_is_taken_in_whole),
        TEST(next_turn_takes_in_the_new_message_alone),
        TEST(answer_without_its_reasoning_goes_on_from_the_snapshot),
        TEST(snapshot_is_rolled_back_where_the_prompt_ends_otherwise),
        TEST(an_end_that_parts_is_rolled_back),
        TEST(rollback_behind_the_snapshot_leaves_none),
        TEST(what_parts_early_begins_anew),
        TEST(same_prompt_again_takes_in_its_last_token),
        TEST(reset_forgets_everything),
        TEST(cancelled_prefill_goes_on_where_it_was),
        TEST(cancelled_second_prefill_keeps_its_way_back),
        TEST(cancelled_prompt_leaves_the_last_answer),
        TEST(cancelled_token_is_not_in),
        TEST(prompt_larger_than_the_context_changes_nothing),
        TEST(prompt_without_tokens_is_refused),
        TEST(any_conversation_equals_a_fresh_one),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
