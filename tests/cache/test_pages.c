#include "cache/pages.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

static void pages_are_handed_out_once_and_run_out(void **state) {
    (void)state;
    struct pages p;
    struct err err = { .status = OK };
    bool seen[5] = { false };
    assert_int_equal(pages_open(&p, 5, &err), OK);
    for (int i = 0; i < 5; i++) {
        uint32_t page = pages_take(&p);
        assert_true(page < 5 && !seen[page]);
        seen[page] = true;
    }
    assert_int_equal(pages_take(&p), PAGE_NONE);
    pages_check(&p);
    pages_drop(&p, 3);
    assert_int_equal(pages_take(&p), 3);
    pages_close(&p);
}

static void a_shared_page_is_free_when_its_last_owner_lets_go(void **state) {
    (void)state;
    struct pages p;
    struct err err = { .status = OK };
    assert_int_equal(pages_open(&p, 2, &err), OK);
    uint32_t page = pages_take(&p);
    assert_false(pages_shared(&p, page));
    pages_share(&p, page);
    pages_share(&p, page);
    assert_true(pages_shared(&p, page));
    pages_drop(&p, page);
    pages_drop(&p, page);
    assert_false(pages_shared(&p, page));
    assert_int_equal(p.n_free, 1);
    pages_drop(&p, page);
    assert_int_equal(p.n_free, 2);
    pages_check(&p);
    pages_close(&p);
}

static void an_empty_pool_has_nothing_to_give(void **state) {
    (void)state;
    struct pages p;
    struct err err = { .status = OK };
    assert_int_equal(pages_open(&p, 0, &err), OK);
    assert_int_equal(pages_take(&p), PAGE_NONE);
    pages_check(&p);
    pages_close(&p);
}

static void random_owners_never_lose_a_page(void **state) {
    (void)state;
    enum { N = 17, OWNERS = 400 };
    struct pages p;
    struct err err = { .status = OK };
    uint32_t owned[OWNERS], n = 0;
    assert_int_equal(pages_open(&p, N, &err), OK);
    srand(3);
    for (int i = 0; i < 20000; i++) {
        uint32_t dice = (uint32_t)rand() % 3;
        if (dice == 0 && n < OWNERS) {
            uint32_t page = pages_take(&p);
            if (page != PAGE_NONE)
                owned[n++] = page;
        } else if (dice == 1 && n > 0 && n < OWNERS) {
            uint32_t page = owned[(uint32_t)rand() % n];
            pages_share(&p, page);
            owned[n++] = page;
        } else if (n > 0) {
            uint32_t at = (uint32_t)rand() % n;
            pages_drop(&p, owned[at]);
            owned[at] = owned[--n];
        }
        if (i % 100 == 0)
            pages_check(&p);
    }
    while (n > 0)
        pages_drop(&p, owned[--n]);
    assert_int_equal(p.n_free, N);
    pages_check(&p);
    pages_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_handed_out_once_and_run_out),
        cmocka_unit_test(a_shared_page_is_free_when_its_last_owner_lets_go),
        cmocka_unit_test(an_empty_pool_has_nothing_to_give),
        cmocka_unit_test(random_owners_never_lose_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
