#include "src/budget.h"
#include "src/sequence.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

// --- how it is split -----------------------------------------------------------------------------

static struct checkpoint cp;

static int open_checkpoint(void **state) {
    static const char *const dirs[] = { GOLDEN_DIR "/checkpoint" };
    struct err err = { .status = OK };
    (void)state;
    return checkpoint_open(&cp, dirs, 1, &err) == OK ? 0 : -1;
}

static int close_checkpoint(void **state) {
    (void)state;
    checkpoint_close(&cp);
    return 0;
}

static enum status split(const struct sluice_options *o, uint64_t has, struct sluice_fit *fit) {
    struct err err = { .status = OK };
    uint32_t n_pages;
    return budget_split(&cp, o, has, fit, &n_pages, &err);
}

static void parts_never_exceed_what_there_is(void **state) {
    (void)state;
    struct sluice_options o = { .ctx = 2048, .chunk = 64 };
    struct sluice_fit fit;
    split(&o, 1 << 20, &fit);
    uint64_t needed = fit.needed_bytes;
    assert_int_equal(split(&o, needed - 1, &fit), ERR_MEMORY);
    for (uint64_t more = 0; more < 20; more++) {
        uint64_t has = needed + more * 100000;
        assert_int_equal(split(&o, has, &fit), OK);
        assert_true(fit.used_bytes <= has);
        assert_true(fit.n_slots >= 2 && fit.n_slots <= fit.n_experts);
        assert_true(fit.embed_on_disk == (fit.embed_bytes == 0));
        assert_true(fit.embed_on_disk || fit.n_slots == fit.n_experts);
        assert_int_equal(fit.needed_bytes, needed);
    }
    assert_int_equal(split(&o, needed, &fit), OK);
    assert_int_equal(fit.n_slots, 2);
    assert_int_equal(split(&o, 8ull << 30, &fit), OK);
    assert_int_equal(fit.n_slots, fit.n_experts);
    assert_false(fit.embed_on_disk);
}

static void the_default_context_shrinks_before_anything_is_refused(void **state) {
    (void)state;
    struct sluice_options o = { .chunk = 64 };
    struct sluice_fit fit, small;
    assert_int_equal(split(&o, 8ull << 30, &fit), OK);
    assert_int_equal(fit.ctx, SLUICE_DEFAULT_CTX);
    assert_int_equal(split(&o, fit.needed_bytes - 1, &small), OK);
    assert_true(small.ctx < fit.ctx);
    o.ctx = SLUICE_DEFAULT_CTX; // asked for: then it is that or nothing
    assert_int_equal(split(&o, fit.needed_bytes - 1, &small), ERR_MEMORY);
    o.ctx = cp.config.max_positions + 1;
    assert_int_equal(split(&o, 8ull << 30, &small), ERR_USAGE);
}

static void kv_pages_grow_with_the_context_and_sequences(void **state) {
    (void)state;
    struct kv_layout layout;
    uint64_t rings, other;
    kv_layout_init(&layout, &cp.config, cp.config.n_layers, false);
    uint64_t empty = kv_pages_total(&layout, 0, &rings);
    assert_int_equal(empty, rings); // without tokens there are rings only
    uint64_t pages = kv_pages_total(&layout, 100000, &other);
    assert_int_equal(rings, other);
    // What the entries need without any rounding: ⌊T/m⌋ of each layer, 264 bytes and 68.
    double bytes = 0;
    for (uint32_t layer = 0; layer < cp.config.n_layers; layer++) {
        uint32_t m = cp.config.ratio[layer];
        if (m)
            bytes += 100000 / m * 264.0;
        if (m == 4)
            bytes += 100000 / m * 68.0;
    }
    double got = (double)(pages - rings) * layout.page_bytes;
    assert_true(got > bytes && got < 1.08 * bytes);
    struct sluice_options one = { .ctx = 8192 }, three = { .ctx = 8192, .n_sequences = 3 };
    struct sluice_fit a, b;
    assert_int_equal(split(&one, 8ull << 30, &a), OK);
    assert_int_equal(split(&three, 8ull << 30, &b), OK);
    assert_true(b.kv_bytes > 2 * a.kv_bytes && b.kv_bytes <= 3 * a.kv_bytes);
}

static void narrow_steps_are_paid_for(void **state) {
    (void)state;
    struct sluice_options one = { .ctx = 2048, .chunk = 64, .n_sequences = 4 }, three = one;
    struct sluice_fit a, b;
    three.n_narrow_steps = 2;
    assert_int_equal(split(&one, 8ull << 30, &a), OK);
    assert_int_equal(split(&three, 8ull << 30, &b), OK);
    uint64_t more = b.scratch_bytes - a.scratch_bytes;
    // Two of four rows: some buffers are of 64 rows in the wide one, none is of less than four.
    assert_true(more > 0 && more < a.scratch_bytes);
    assert_int_equal(more % 2, 0);
    assert_int_equal(b.needed_bytes - a.needed_bytes, more);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_never_exceed_what_there_is),
        cmocka_unit_test(the_default_context_shrinks_before_anything_is_refused),
        cmocka_unit_test(kv_pages_grow_with_the_context_and_sequences),
        cmocka_unit_test(narrow_steps_are_paid_for),
    };
    return cmocka_run_group_tests(tests, open_checkpoint, close_checkpoint);
}
