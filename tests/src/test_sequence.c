/* Whose pages are whose: sequences without arithmetic, in models of any size. */
#include "src/sequence.h"
#include "tests/support/make_checkpoint.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

// --- a backend that has no memory ------------------------------------------------------------------

static enum status no_alloc(struct ops *ops, uint64_t bytes, struct mem *out, struct err *err) {
    (void)ops, (void)bytes, (void)err;
    *out = (struct mem){ 1 << 20 };
    return OK;
}

static void no_release(struct ops *ops, struct mem m) {
    (void)ops, (void)m;
}

static void no_copy(struct ops *ops, struct mem dst, struct mem src, uint64_t bytes) {
    (void)ops, (void)dst, (void)src, (void)bytes;
}

static const struct ops_table no_table = { .alloc = no_alloc,
                                           .release = no_release,
                                           .copy = no_copy };
static struct ops no_ops = { .table = &no_table };

static struct config config; // of the model under test
static struct kv_layout layout;
static struct kv_store store;
static struct err err;

// The shapes that decide how many pages there are; layers as Pro's.
static void make_pro(uint32_t n_layers) {
    make_small_config(&config);
    config.n_layers = n_layers;
    config.head_dim = 512;
    config.rope_dim = 64;
    config.window = 128;
    config.index_dim = 128;
    for (uint32_t layer = 0; layer < n_layers; layer++)
        config.ratio[layer] = layer < 2 || layer % 2 ? 128 : 4;
    kv_layout_init(&layout, &config, n_layers, false);
}

static void open_store(uint32_t max_tokens, uint32_t n_sequences) {
    uint64_t n = kv_pages_enough(&layout, max_tokens, n_sequences);
    err_clear(&err);
    assert_int_equal(kv_store_open(&store, &no_ops, &layout, (uint32_t)n, &err), OK);
}

static void grow(struct sequence *s, uint32_t n) {
    if (sequence_begin(s, n, &err) != OK)
        fail_msg("%u tokens after %u: %s", n, sequence_length(s), err.text);
    sequence_commit(s, NULL);
    sequence_check(s);
}

// --- what the budget promises ----------------------------------------------------------------------

// All grow to the full, in wide steps at once: every ring is double until they end.
static void sequences_of_full_length_fit_in_wide_steps_at_once(void **state) {
    (void)state;
    static const uint32_t lengths[] = { 20, 4096, 53760, 1 << 20 };
    struct sequence *s[3];
    make_pro(61);
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        open_store(lengths[k], 3);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(sequence_open(&s[i], &store, lengths[k], &err), OK);
            grow(s[i], lengths[k] - 10);
        }
        for (int i = 0; i < 3; i++)
            if (sequence_begin(s[i], 10, &err) != OK)
                fail_msg("%s", err.text);
        for (int i = 0; i < 3; i++) {
            sequence_commit(s[i], NULL);
            sequence_close(s[i]);
        }
        pages_check(&store.pages);
        assert_int_equal(store.pages.n_free, store.pages.n_pages);
        kv_store_close(&store);
    }
}

// A snapshot at any place of a page, its sequence back by r and on by a narrow and a wide step.
static void a_snapshot_fits_beside_a_sequence_of_full_length(void **state) {
    (void)state;
    make_pro(61);
    for (uint32_t at = 6720 - 20; at < 6720 + 20; at++)
        for (uint32_t back = 0; back <= KV_ROLLBACK; back += 4) {
            struct sequence *s, *snapshot;
            uint32_t full = at + 16;
            open_store(full, 1);
            assert_int_equal(sequence_open(&s, &store, full, &err), OK);
            grow(s, at);
            assert_int_equal(sequence_fork(&snapshot, s, &err), OK);
            assert_int_equal(sequence_rollback(s, at - back, &err), OK);
            grow(s, 1);
            grow(s, full - sequence_length(s));
            sequence_check(snapshot);
            sequence_close(s);
            sequence_close(snapshot);
            assert_int_equal(store.pages.n_free, store.pages.n_pages);
            kv_store_close(&store);
        }
}

static void no_page_left_is_told_and_changes_nothing(void **state) {
    (void)state;
    struct sequence *s, *other;
    uint32_t taken[4096], n_taken = 0;
    make_pro(4);
    open_store(1000, 1);
    assert_true(store.pages.n_pages < 4096);
    assert_int_equal(sequence_open(&s, &store, 1000, &err), OK);
    grow(s, 700);
    assert_int_equal(sequence_fork(&other, s, &err), OK); // so that nothing of s is its own
    while (store.pages.n_free > 3)                        // enough to begin with
        taken[n_taken++] = pages_take(&store.pages);
    for (uint32_t n = 1; n <= 12; n += 11) { // in place, and to fresh pages
        uint32_t floor = sequence_rollback_floor(s);
        assert_int_equal(sequence_begin(s, n, &err), ERR_MEMORY);
        err_clear(&err);
        sequence_check(s);
        assert_int_equal(sequence_length(s), 700);
        assert_int_equal(sequence_rollback_floor(s), floor);
    }
    while (n_taken)
        pages_drop(&store.pages, taken[--n_taken]);
    grow(s, 1);
    grow(s, 12);
    sequence_close(other);
    sequence_close(s);
    pages_check(&store.pages);
    assert_int_equal(store.pages.n_free, store.pages.n_pages);
    kv_store_close(&store);
}

// --- what the draft block has seen -----------------------------------------------------------------

static void the_draft_block_goes_on_only_with_the_token_it_was_given(void **state) {
    (void)state;
    struct sequence *s;
    int32_t next[20];
    make_pro(4);
    open_store(1000, 1);
    for (int32_t i = 0; i < 20; i++)
        next[i] = 101 + i;
    assert_int_equal(sequence_open(&s, &store, 1000, &err), OK);
    assert_true(sequence_draft_current(s, 7)); // an empty one with anything
    assert_int_equal(sequence_begin(s, 20, &err), OK);
    sequence_commit(s, next);
    assert_true(sequence_draft_current(s, 120));
    assert_false(sequence_draft_current(s, 119));
    for (uint32_t length = 20; length >= 20 - KV_ROLLBACK; length--) {
        assert_int_equal(sequence_rollback(s, length, &err), OK);
        assert_true(sequence_draft_current(s, 100 + (int32_t)length));
        assert_false(sequence_draft_current(s, 101 + (int32_t)length));
    }
    grow(s, 3); // without it
    assert_false(sequence_draft_current(s, 112));
    assert_int_equal(sequence_rollback(s, 20 - KV_ROLLBACK, &err), OK);
    assert_true(sequence_draft_current(s, 112));
    sequence_close(s);
    kv_store_close(&store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_of_full_length_fit_in_wide_steps_at_once),
        cmocka_unit_test(a_snapshot_fits_beside_a_sequence_of_full_length),
        cmocka_unit_test(no_page_left_is_told_and_changes_nothing),
        cmocka_unit_test(the_draft_block_goes_on_only_with_the_token_it_was_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
