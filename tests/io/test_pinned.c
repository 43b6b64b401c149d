// Memory for slots and weights: what is refused is told, not an error.
#include "tests/io/fixture.h"

#include "io/pinned.h"

#include <pthread.h>

#define MIB ((uint64_t)1 << 20)

// A number of /proc/self/status, in bytes.
static uint64_t status_bytes(const char *name) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoull(line + strlen(name) + 1, NULL, 10);
    if (f)
        fclose(f);
    return kib * 1024;
}

static void memory_is_aligned_zeroed_and_all_there(void **state) {
    (void)state;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t sizes[] = { 1, page, 2 * MIB - 1, 2 * MIB, 3 * MIB + 5, 130 * MIB };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int huge = 0; huge < 2; huge++) {
            struct pinned p;
            struct pinned_options o = { .bytes = sizes[i], .want_huge = huge };
            uint64_t before = status_bytes("VmRSS");
            assert_int_equal(pinned_open(&p, &o, NULL), OK);
            assert_int_equal((uintptr_t)p.base % (2 * MIB), 0);
            assert_int_equal(p.bytes, (sizes[i] + page - 1) / page * page);
            if (sizes[i] > 100 * MIB)
                assert_true(status_bytes("VmRSS") >= before + 100 * MIB);
            for (uint64_t at = 0; at < p.bytes; at += 509)
                assert_int_equal(p.base[at], 0);
            assert_int_equal(p.base[p.bytes - 1], 0);
            assert_true(p.huge_bytes <= p.bytes);
            assert_false(p.locked);
            // Either in huge pages, or it says why not.
            assert_true(!huge || sizes[i] < 2 * MIB || p.huge_bytes >= p.bytes / 10 * 9 ||
                        strstr(p.note, "huge pages"));
            pinned_close(&p);
            assert_null(p.base);
            pinned_close(&p);
        }
}

struct progress {
    pthread_t thread;
    uint64_t done, total;
    uint32_t n_calls, cancel_at; /* the call that says no; 0: none */
    bool elsewhere, backwards;
};

static bool note_progress(void *context, uint64_t done, uint64_t total) {
    struct progress *p = context;
    p->elsewhere |= !pthread_equal(p->thread, pthread_self());
    p->backwards |= done < p->done || done > total;
    p->done = done;
    p->total = total;
    return ++p->n_calls != p->cancel_at;
}

static void progress_is_told_by_the_calling_thread(void **state) {
    (void)state;
    for (uint32_t n_threads = 0; n_threads < 6; n_threads++) {
        struct progress seen = { .thread = pthread_self() };
        struct pinned p;
        struct pinned_options o = { .bytes = 300 * MIB,
                                    .n_threads = n_threads,
                                    .want_huge = true,
                                    .progress = note_progress,
                                    .context = &seen };
        assert_int_equal(pinned_open(&p, &o, NULL), OK);
        assert_true(seen.n_calls > 0 && !seen.elsewhere && !seen.backwards);
        assert_int_equal(seen.done, p.bytes);
        assert_int_equal(seen.total, p.bytes);
        pinned_close(&p);
    }
}

static void touching_can_be_cancelled(void **state) {
    (void)state;
    for (uint32_t n_threads = 1; n_threads < 4; n_threads++) {
        struct progress seen = { .thread = pthread_self(), .cancel_at = 1 };
        struct err err = { .status = OK };
        struct pinned p;
        struct pinned_options o = {
            .bytes = 300 * MIB, .n_threads = n_threads, .progress = note_progress, .context = &seen
        };
        assert_int_equal(pinned_open(&p, &o, &err), CANCELLED);
        assert_null(p.base);
        assert_int_equal(seen.n_calls, 1); // it is not asked again
        pinned_close(&p);
    }
}

// The sanitizers turn mlock into nothing, to keep the kernel away from their shadow memory.
static void need_a_real_mlock(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("under this sanitizer mlock does nothing\n");
    skip();
#endif
}

static void memory_is_locked_where_that_is_allowed(void **state) {
    (void)state;
    need_a_real_mlock();
    struct device_limits limits;
    device_limits(&limits);
    if (!limits.may_lock && limits.memlock_bytes < 8 * MIB) {
        print_message("RLIMIT_MEMLOCK is below 8 MiB\n");
        skip();
    }
    struct pinned p;
    struct pinned_options o = { .bytes = 4 * MIB, .want_locked = true };
    uint64_t before = status_bytes("VmLck");
    assert_int_equal(pinned_open(&p, &o, NULL), OK);
    assert_true(p.locked);
    assert_string_equal(p.note, "");
    assert_int_equal(status_bytes("VmLck"), before + 4 * MIB);
    pinned_close(&p);
    assert_int_equal(status_bytes("VmLck"), before);
}

static int with_a_limit(void *context) {
    uint64_t limit = *(const uint64_t *)context;
    CHILD_CHECK(limit_memlock(limit) == 0);
    struct pinned p;
    struct pinned_options o = { .bytes = 16 * MIB, .want_locked = true };
    CHILD_CHECK(pinned_open(&p, &o, NULL) == OK);
    CHILD_CHECK(!p.locked && p.base[16 * MIB - 1] == 0);
    CHILD_CHECK(strstr(p.note, limit ? "RLIMIT_MEMLOCK is 8 MiB" : "RLIMIT_MEMLOCK is 0 MiB"));
    CHILD_CHECK(strstr(p.note, "`ulimit -l unlimited` or LimitMEMLOCK=infinity"));
    CHILD_CHECK(strlen(p.note) + 1 < sizeof p.note);
    CHILD_CHECK(status_bytes("VmLck") == 0);
    pinned_close(&p);
    o.bytes = 4 * MIB;
    CHILD_CHECK(pinned_open(&p, &o, NULL) == OK && p.locked == (limit > 0));
    pinned_close(&p);
    return 0;
}

static void limit_is_respected_and_told(void **state) {
    (void)state;
    need_a_real_mlock();
    uint64_t eight_mib = 8 * MIB, none = 0;
    in_child(with_a_limit, &eight_mib);
    in_child(with_a_limit, &none);
}

static void more_than_there_is_is_refused_before_it_is_touched(void **state) {
    (void)state;
    struct device_limits limits;
    device_limits(&limits);
    const uint64_t sizes[] = { limits.available_bytes * 2, UINT64_MAX / 4, UINT64_MAX };
    for (int i = 0; i < 3; i++) {
        struct pinned p;
        struct err err = { .status = OK };
        struct pinned_options o = { .bytes = sizes[i], .want_locked = true, .want_huge = true };
        assert_int_equal(pinned_open(&p, &o, &err), ERR_MEMORY);
        assert_non_null(strstr(err.text, "GiB"));
        assert_null(p.base);
        pinned_close(&p);
    }
}

static void nothing_is_not_a_size(void **state) {
    (void)state;
    struct pinned p;
    struct pinned_options o = { .bytes = 0 };
    assert_int_equal(pinned_open(&p, &o, NULL), ERR_USAGE);
    pinned_close(&p);
}

static int without_address_space(void *context) {
    (void)context;
    struct rlimit limit = { .rlim_cur = status_bytes("VmSize") + 64 * MIB };
    limit.rlim_max = limit.rlim_cur;
    CHILD_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    struct pinned p;
    struct err err = { .status = OK };
    struct pinned_options o = { .bytes = 256 * MIB };
    CHILD_CHECK(pinned_open(&p, &o, &err) == ERR_MEMORY);
    CHILD_CHECK(strstr(err.text, "cannot map"));
    pinned_close(&p);
    return 0;
}

static void address_space_that_is_not_there_is_told(void **state) {
    (void)state;
    in_child(without_address_space, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_zeroed_and_all_there),
        cmocka_unit_test(progress_is_told_by_the_calling_thread),
        cmocka_unit_test(touching_can_be_cancelled),
        cmocka_unit_test(memory_is_locked_where_that_is_allowed),
        cmocka_unit_test(limit_is_respected_and_told),
        cmocka_unit_test(more_than_there_is_is_refused_before_it_is_touched),
        cmocka_unit_test(nothing_is_not_a_size),
        cmocka_unit_test(address_space_that_is_not_there_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
