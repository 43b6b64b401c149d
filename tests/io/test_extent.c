// Extents of any alignment become block-aligned reads into one buffer.
#include "tests/io/fixture.h"

#define BLOCK ((uint64_t)READER_ALIGN)

// Everything that io/reader.h says of a layout.
static void check_layout(const struct extents_layout *l, const struct extent *e, uint32_t n) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < l->n_reads; i++) {
        const struct read *r = &l->reads[i];
        assert_int_equal(r->offset % BLOCK, 0);
        assert_int_equal(r->bytes % BLOCK, 0);
        assert_true(r->bytes > 0 && r->slack < BLOCK);
        assert_int_equal((uintptr_t)r->dst, used);
        used += r->bytes;
        for (uint32_t k = 0; k < i; k++) { // apart by a block at least, or they would be one
            const struct read *other = &l->reads[k];
            assert_true(other->file < r->file ||
                        (other->file == r->file && other->offset + other->bytes < r->offset));
        }
        // Its first block and its last wanted byte are somebody's.
        bool first = false, last = false;
        for (uint32_t k = 0; k < n; k++) {
            uint64_t end = e[k].offset + e[k].bytes;
            if (e[k].file != r->file || e[k].bytes == 0)
                continue;
            first |= e[k].offset / BLOCK * BLOCK == r->offset;
            last |= end == r->offset + r->bytes - r->slack;
            assert_true(end <= r->offset + r->bytes - r->slack ||
                        e[k].offset >= r->offset + r->bytes);
        }
        assert_true(first && last);
    }
    assert_int_equal(used, l->bytes);
    for (uint32_t i = 0; i < n; i++) {
        if (e[i].bytes == 0) {
            assert_int_equal(l->at[i], 0);
            continue;
        }
        uint32_t n_holders = 0;
        for (uint32_t k = 0; k < l->n_reads; k++) {
            const struct read *r = &l->reads[k];
            if (e[i].file != r->file || e[i].offset < r->offset ||
                e[i].offset + e[i].bytes > r->offset + r->bytes)
                continue;
            n_holders++;
            assert_int_equal(l->at[i], (uintptr_t)r->dst + (e[i].offset - r->offset));
        }
        assert_int_equal(n_holders, 1);
    }
}

static void layout(struct extents_layout *l, const struct extent *e, uint32_t n) {
    extents_layout(l, e, n);
    check_layout(l, e, n);
}

static void extent_is_rounded_outwards_at_every_offset(void **state) {
    (void)state;
    const uint64_t lengths[] = { 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 10000 };
    for (uint64_t offset = 0; offset < 2 * BLOCK; offset++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            struct extent e = { .file = 3, .offset = 7 * BLOCK + offset, .bytes = lengths[k] };
            struct extents_layout l;
            layout(&l, &e, 1);
            assert_int_equal(l.n_reads, 1);
            assert_int_equal(l.at[0], offset % BLOCK);
            assert_true(l.bytes < e.bytes + 2 * BLOCK);
        }
}

static void neighbours_become_one_read(void **state) {
    (void)state;
    struct extents_layout l;
    struct extent touching[] = { { 0, 100, 5000 }, { 0, 5100, 9000 }, { 0, 14100, 4 } };
    layout(&l, touching, 3);
    assert_int_equal(l.n_reads, 1);
    struct extent sharing_a_block[] = { { 0, 100, 200 }, { 0, 4000, 9000 } };
    layout(&l, sharing_a_block, 2);
    assert_int_equal(l.n_reads, 1);
    struct extent in_neighbouring_blocks[] = { { 0, 100, 200 }, { 0, 5000, 10 } };
    layout(&l, in_neighbouring_blocks, 2);
    assert_int_equal(l.n_reads, 1);
    assert_int_equal(l.bytes, 2 * BLOCK);
    struct extent a_block_apart[] = { { 0, 100, 200 }, { 0, 2 * BLOCK, 10 } };
    layout(&l, a_block_apart, 2);
    assert_int_equal(l.n_reads, 2);
    assert_int_equal(l.bytes, 2 * BLOCK); // what lies between is not read
    struct extent in_two_files[] = { { 0, 100, 200 }, { 1, 100, 200 } };
    layout(&l, in_two_files, 2);
    assert_int_equal(l.n_reads, 2);
}

static void order_of_the_extents_does_not_matter(void **state) {
    (void)state;
    struct extent up[] = { { 0, 10, 20 }, { 0, 90000, 8000 }, { 1, 50, 60 }, { 1, 98000, 1 } };
    struct extent down[] = { up[3], up[1], up[2], up[0] };
    struct extents_layout a, b;
    layout(&a, up, 4);
    layout(&b, down, 4);
    assert_int_equal(a.n_reads, b.n_reads);
    assert_memory_equal(a.reads, b.reads, sizeof a.reads);
    assert_int_equal(a.at[0], b.at[3]);
    assert_int_equal(a.at[3], b.at[0]);
}

static void empty_extents_take_no_room(void **state) {
    (void)state;
    struct extent e[] = { { 0, 5000, 0 }, { 0, 9000, 10 }, { 7, 0, 0 } };
    struct extents_layout l;
    layout(&l, e, 3);
    assert_int_equal(l.n_reads, 1);
    assert_int_equal(l.bytes, BLOCK);
    assert_int_equal(l.at[0], 0);
    layout(&l, e, 1);
    assert_int_equal(l.n_reads, 0);
    assert_int_equal(l.bytes, 0);
    layout(&l, e, 0);
    assert_int_equal(l.bytes, 0);
}

static void one_extent_may_lie_in_another(void **state) {
    (void)state;
    struct extent e[] = { { 0, 100, 20000 }, { 0, 200, 300 }, { 0, 100, 20000 } };
    struct extents_layout l;
    layout(&l, e, 3);
    assert_int_equal(l.n_reads, 1);
    assert_int_equal(l.at[0], l.at[2]);
    assert_int_equal(l.at[1], l.at[0] + 100);
}

static void offsets_beyond_32_bits_are_kept(void **state) {
    (void)state;
    struct extent e[] = { { 65, 822000000123u, 11010048 }, { 65, 900000000001u, 5000000000u } };
    struct extents_layout l;
    layout(&l, e, 2);
    assert_int_equal(l.reads[0].offset, 822000000123u / BLOCK * BLOCK);
    assert_true(l.bytes > 5000000000u);
}

static void layouts_by_chance_are_sound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        struct extent e[REQUEST_MAX_READS];
        uint32_t n = (uint32_t)random_below(&seed, REQUEST_MAX_READS + 1);
        for (uint32_t i = 0; i < n; i++)
            e[i] = (struct extent){ .file = (uint32_t)random_below(&seed, 2),
                                    .offset = random_below(&seed, 60000),
                                    .bytes = random_below(&seed, 15000) };
        struct extents_layout l;
        layout(&l, e, n);
    }
}

static void request_is_bound_to_a_buffer(void **state) {
    (void)state;
    struct extent e[] = { { 0, 10, 20 }, { 0, 90000, 8000 } };
    struct extents_layout l;
    layout(&l, e, 2);
    unsigned char *memory = new_memory(l.bytes);
    struct request q = { .priority = READ_PREFETCH, .owner = &l };
    request_bind(&q, &l, memory);
    assert_int_equal(q.n_reads, 2);
    assert_ptr_equal(q.reads[0].dst, memory);
    assert_ptr_equal(q.reads[1].dst, memory + BLOCK);
    assert_int_equal(q.reads[1].slack, l.reads[1].slack);
    assert_int_equal(q.priority, READ_PREFETCH);
    assert_ptr_equal(q.owner, &l);
    free(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extent_is_rounded_outwards_at_every_offset),
        cmocka_unit_test(neighbours_become_one_read),
        cmocka_unit_test(order_of_the_extents_does_not_matter),
        cmocka_unit_test(empty_extents_take_no_room),
        cmocka_unit_test(one_extent_may_lie_in_another),
        cmocka_unit_test(offsets_beyond_32_bits_are_kept),
        cmocka_unit_test(layouts_by_chance_are_sound),
        cmocka_unit_test(request_is_bound_to_a_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
