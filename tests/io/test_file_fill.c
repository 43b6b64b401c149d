#include "io/file_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static char dir[64], path[96];

static int make_dir(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.30s/file_fill.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}
static int remove_dir(void **state) {
    (void)state;
    unlink(path);
    return rmdir(dir);
}

/* Every byte says where it belongs. */
static unsigned char byte_at(uint64_t offset) {
    return (unsigned char)(offset * 0x9E3779B97F4A7C15u >> 56);
}
static void fill(void *context, uint64_t from, unsigned char *dst, uint64_t n) {
    (void)context;
    for (uint64_t i = 0; i < n; i++)
        dst[i] = byte_at(from + i);
}

struct watching {
    uint64_t last, stop_at;
    uint32_t calls;
};
static bool watch(void *context, uint64_t done) {
    struct watching *w = context;
    assert_true(done >= w->last);
    w->last = done;
    w->calls++;
    return done < w->stop_at;
}

static void fills_every_byte_for_any_size_and_thread_count(void **state) {
    (void)state;
    static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, MIB, 5 * MIB + 3 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint32_t n_threads = 1; n_threads <= 5; n_threads += 2) {
            struct err err = { .status = OK };
            const struct file_fill job = {
                .path = path, .bytes = sizes[i], .n_threads = n_threads, .fill = fill
            };
            assert_int_equal(file_fill(&job, &err), OK);
            struct stat st;
            assert_int_equal(stat(path, &st), 0);
            assert_int_equal(st.st_size, sizes[i]);
            unsigned char *bytes = malloc(sizes[i] + 1);
            FILE *file = fopen(path, "rb");
            assert_int_equal(fread(bytes, 1, sizes[i] + 1, file), sizes[i]);
            fclose(file);
            for (uint64_t b = 0; b < sizes[i]; b++)
                if (bytes[b] != byte_at(b))
                    fail_msg("byte %lu of %lu is wrong", (unsigned long)b, (unsigned long)sizes[i]);
            free(bytes);
            unlink(path);
        }
    }
}

static void existing_file_is_refused_and_left_alone(void **state) {
    (void)state;
    FILE *file = fopen(path, "w");
    fputs("precious", file);
    fclose(file);
    struct err err = { .status = OK };
    const struct file_fill job = { .path = path, .bytes = 100, .n_threads = 1, .fill = fill };
    assert_int_equal(file_fill(&job, &err), ERR_IO);
    assert_non_null(strstr(err.text, path));
    char text[16] = "";
    file = fopen(path, "r");
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "precious");
    unlink(path);
}

static void progress_ends_at_the_size(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct watching w = { .stop_at = UINT64_MAX };
    const struct file_fill job = { .path = path,
                                   .bytes = 9 * MIB + 5,
                                   .n_threads = 3,
                                   .fill = fill,
                                   .progress = watch,
                                   .context = &w };
    assert_int_equal(file_fill(&job, &err), OK);
    assert_int_equal(w.last, 9 * MIB + 5);
    unlink(path);
}

static void cancelled_file_is_removed(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct watching w = { .stop_at = 1 };
    const struct file_fill job = { .path = path,
                                   .bytes = 64 * MIB,
                                   .n_threads = 2,
                                   .fill = fill,
                                   .progress = watch,
                                   .context = &w };
    assert_int_equal(file_fill(&job, &err), CANCELLED);
    assert_true(w.last < 64 * MIB);
    assert_int_equal(access(path, F_OK), -1);
}

/* A limit on file sizes is a disk that is full, as far as writing is concerned. */
static void file_that_does_not_fit_is_removed_and_the_reason_told(void **state) {
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = { .rlim_cur = 2 * MIB, .rlim_max = before.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct err err = { .status = OK };
    const struct file_fill job = { .path = path, .bytes = 8 * MIB, .n_threads = 3, .fill = fill };
    const enum status status = file_fill(&job, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, strerror(EFBIG)));
    assert_int_equal(access(path, F_OK), -1);
}

static void directory_that_is_not_there_is_named(void **state) {
    (void)state;
    struct err err = { .status = OK };
    const struct file_fill job = {
        .path = "/nowhere/at/all", .bytes = 1, .n_threads = 1, .fill = fill
    };
    assert_int_equal(file_fill(&job, &err), ERR_IO);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_every_byte_for_any_size_and_thread_count),
        cmocka_unit_test(existing_file_is_refused_and_left_alone),
        cmocka_unit_test(progress_ends_at_the_size),
        cmocka_unit_test(cancelled_file_is_removed),
        cmocka_unit_test(file_that_does_not_fit_is_removed_and_the_reason_told),
        cmocka_unit_test(directory_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
