#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/text/bpe.h"

#define MAX_BYTES 3000

/* A small generator of its own, so that failures repeat. */
static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* The rule, word for word: the lowest rank, the leftmost of equals. */
static size_t merge_naively(const struct bpe *b, const char *piece, size_t n, uint32_t *id) {
    for (size_t i = 0; i < n; i++)
        id[i] = b->byte_id[(unsigned char)piece[i]];
    for (;;) {
        uint32_t best_rank = BPE_NONE;
        size_t best = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t slot = 0; slot <= b->pair_mask; slot++) {
                const struct bpe_pair *p = &b->pair[slot];
                if (p->rank < best_rank && p->left == id[i] && p->right == id[i + 1]) {
                    best_rank = p->rank;
                    best = i;
                }
            }
        if (best_rank == BPE_NONE)
            return n;
        id[best] = b->merged_id[best_rank];
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        n--;
    }
}

/* Merges of random tokens in random order: ranks may lie below those of their parts, and several
 * merges make the same token, so that a rank's pairs come up out of order. */
static void open_random(struct bpe *b, uint32_t n_letters, uint32_t n_merges, uint64_t seed) {
    assert_int_equal(bpe_open(b, n_merges, NULL), OK);
    for (uint32_t i = 0; i < 256; i++)
        b->byte_id[i] = i;
    for (uint32_t i = 0; i < n_merges; i++) {
        // Each side is a letter or the token of any merge, one that comes later too.
        uint32_t side[2];
        for (int s = 0; s < 2; s++)
            side[s] = next_random(&seed) % 2 ? 'a' + next_random(&seed) % n_letters
                                             : 256 + next_random(&seed) % (n_merges / 2);
        bpe_add_merge(b, side[0], side[1], 256 + next_random(&seed) % (n_merges / 2));
    }
}

static void expect_naive(struct bpe_scratch *s, const struct bpe *b, const char *piece, size_t n) {
    static uint32_t expected[MAX_BYTES];
    const uint32_t *ids;
    size_t n_ids, n_expected = merge_naively(b, piece, n, expected);
    assert_int_equal(bpe_encode(s, piece, n, &ids, &n_ids, NULL), OK);
    assert_int_equal(n_ids, n_expected);
    assert_memory_equal(ids, expected, n_ids * sizeof *ids);
}

static void short_and_long_pieces_merge_by_the_rule(void **state) {
    (void)state;
    char piece[MAX_BYTES];
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct bpe b;
        struct bpe_scratch *s;
        uint64_t r = seed * 77;
        uint32_t n_letters = 1 + (uint32_t)(seed % 3);
        open_random(&b, n_letters, 24, seed);
        assert_int_equal(bpe_scratch_open(&s, &b, NULL), OK);
        for (int i = 0; i < 6; i++) {
            size_t n = i % 2 ? 1 + next_random(&r) % BPE_SHORT_BYTES
                             : BPE_SHORT_BYTES + 1 + next_random(&r) % 200;
            for (size_t k = 0; k < n; k++)
                piece[k] = (char)('a' + next_random(&r) % n_letters);
            expect_naive(s, &b, piece, n); // the same scratch again and again
        }
        bpe_scratch_close(s);
        bpe_close(&b);
    }
}

static void lengths_around_the_short_limit_agree(void **state) {
    (void)state;
    struct bpe b;
    struct bpe_scratch *s;
    char piece[MAX_BYTES];
    memset(piece, 'a', sizeof piece);
    assert_int_equal(bpe_open(&b, 3, NULL), OK);
    for (uint32_t i = 0; i < 256; i++)
        b.byte_id[i] = i;
    assert_int_equal(bpe_add_merge(&b, 'a', 'a', 300), BPE_NONE);
    assert_int_equal(bpe_add_merge(&b, 300, 300, 301), BPE_NONE);
    assert_int_equal(bpe_add_merge(&b, 300, 'a', 302), BPE_NONE);
    assert_int_equal(bpe_scratch_open(&s, &b, NULL), OK);
    for (size_t n = BPE_SHORT_BYTES - 3; n < BPE_SHORT_BYTES + 9; n++)
        expect_naive(s, &b, piece, n);
    bpe_scratch_close(s);
    bpe_close(&b);
}

static void a_repeated_merge_is_reported_and_not_added(void **state) {
    (void)state;
    struct bpe b;
    assert_int_equal(bpe_open(&b, 3, NULL), OK);
    assert_int_equal(bpe_add_merge(&b, 1, 2, 3), BPE_NONE);
    assert_int_equal(bpe_add_merge(&b, 2, 1, 4), BPE_NONE);
    assert_int_equal(bpe_add_merge(&b, 1, 2, 5), 0);
    assert_int_equal(b.n_merges, 2);
    bpe_close(&b);
}

static void without_merges_bytes_stay_bytes(void **state) {
    (void)state;
    struct bpe b;
    struct bpe_scratch *s;
    const uint32_t *ids;
    size_t n_ids;
    char piece[MAX_BYTES];
    assert_int_equal(bpe_open(&b, 0, NULL), OK);
    for (uint32_t i = 0; i < 256; i++)
        b.byte_id[i] = 255 - i;
    memset(piece, 'x', sizeof piece);
    assert_int_equal(bpe_scratch_open(&s, &b, NULL), OK);
    assert_int_equal(bpe_encode(s, piece, MAX_BYTES, &ids, &n_ids, NULL), OK);
    assert_int_equal(n_ids, MAX_BYTES);
    for (size_t i = 0; i < n_ids; i++)
        assert_int_equal(ids[i], 255 - 'x');
    bpe_scratch_close(s);
    bpe_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_and_long_pieces_merge_by_the_rule),
        cmocka_unit_test(lengths_around_the_short_limit_agree),
        cmocka_unit_test(a_repeated_merge_is_reported_and_not_added),
        cmocka_unit_test(without_merges_bytes_stay_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
