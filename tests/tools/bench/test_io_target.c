/* What a PATH is measured through, and that nothing is written that was not asked for. */
#include "tools/bench/io_target.h"

#include "tests/support/make_checkpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cmocka.h>

#define MIB (1ull << 20)

static char *dir;
static struct bench_target t;
static struct err err;
static struct target_options options;
static uint64_t cancel_at; // bytes written; 0: never

static uint64_t seen;
static void see(void *context, uint64_t bytes) {
    (void)context;
    seen = bytes;
}
static bool cancelled(void *context) {
    (void)context;
    return cancel_at && seen >= cancel_at;
}

static int make_dir(void **state) {
    (void)state;
    err_clear(&err);
    dir = make_temp_dir();
    t = (struct bench_target){ .made_fd = -1 };
    options = (struct target_options){ .sysfs = "/sys", .cancelled = cancelled, .progress = see };
    seen = cancel_at = 0;
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    bench_target_close(&t);
    remove_temp_dir(dir);
    return 0;
}

static const char *in_dir(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

// Random enough, and really there.
static void make(const char *name, uint64_t bytes) {
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    unsigned char *piece = malloc(MIB);
    assert_non_null(piece);
    for (size_t i = 0; i < MIB; i++)
        piece[i] = (unsigned char)(i * 2654435761u >> 13);
    for (uint64_t done = 0; done < bytes; done += MIB)
        assert_int_equal(write(fd, piece, MIB), MIB);
    free(piece);
    assert_int_equal(fsync(fd), 0);
    close(fd);
}

static int n_entries(void) {
    DIR *entries = opendir(dir);
    int n = -2;
    assert_non_null(entries);
    while (readdir(entries))
        n++;
    closedir(entries);
    return n;
}

static void opens(const char *path) {
    if (bench_target_open(&t, path, &options, &err) != OK)
        fail_msg("%s", err.text);
}

static void refused(const char *path, enum status wanted, const char *text) {
    assert_int_equal(bench_target_open(&t, path, &options, &err), wanted);
    if (!strstr(err.text, text))
        fail_msg("'%s' does not say '%s'", err.text, text);
    err_clear(&err);
}

static void a_directory_is_read_through_its_largest_file(void **state) {
    (void)state;
    make("a", 65 * MIB);
    make("b", 70 * MIB);
    make("c", MIB);
    opens(dir);
    assert_string_equal(t.file, in_dir("b"));
    assert_int_equal(t.place.device.bytes, 70 * MIB);
    assert_true(t.place.key[0] != '\0');
    assert_int_equal(n_entries(), 3);
}

static void links_to_files_count(void **state) {
    (void)state;
    make("blob", 64 * MIB);
    assert_int_equal(mkdir(in_dir("snapshot"), 0755), 0);
    assert_int_equal(symlink("../blob", in_dir("snapshot/shard")), 0);
    assert_int_equal(symlink("../nothing", in_dir("snapshot/broken")), 0);
    char snapshot[512];
    strcpy(snapshot, in_dir("snapshot"));
    opens(snapshot);
    assert_int_equal(t.place.device.bytes, 64 * MIB);
}

static void a_file_is_itself(void **state) {
    (void)state;
    make("a", 64 * MIB);
    opens(in_dir("a"));
    assert_string_equal(t.file, in_dir("a"));
    assert_int_equal(t.made_fd, -1);
}

static void what_cannot_be_measured_is_refused_by_name(void **state) {
    (void)state;
    refused(in_dir("nothing"), ERR_MISSING, "/nothing: No such file");
    refused(dir, ERR_MISSING, "--write-test");
    make("small", 2 * MIB);
    refused(dir, ERR_MISSING, "at least 64 MiB");
    refused(in_dir("small"), ERR_INPUT, "too little to measure with");
    assert_int_equal(truncate(in_dir("small"), 512 * MIB), 0);
    refused(in_dir("small"), ERR_INPUT, "holes or were never written");
    assert_int_equal(mkfifo(in_dir("pipe"), 0644), 0);
    refused(in_dir("pipe"), ERR_INPUT, "not a file");
}

static void a_test_file_is_made_without_a_name_and_of_random_bytes(void **state) {
    (void)state;
    options.write_bytes = 65 * MIB;
    opens(dir);
    assert_int_equal(n_entries(), 0); // while it is there
    assert_true(t.made_fd >= 0);
    assert_int_equal(t.place.device.bytes, 65 * MIB);
    assert_int_equal(seen, 65 * MIB);
    assert_true(t.write_rate > 0);
    // Read through the path that the reader will open; no two blocks alike, none empty.
    uint64_t blocks[16][512], zero[512] = { 0 };
    int fd = open(t.file, O_RDONLY);
    assert_true(fd >= 0);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(pread(fd, blocks[i], 4096, (off_t)(i * 4 * MIB)), 4096);
        assert_memory_not_equal(blocks[i], zero, 4096);
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(blocks[i], blocks[k], 4096);
    }
    close(fd);
    bench_target_close(&t);
    assert_int_equal(n_entries(), 0);
}

static void an_interrupted_test_file_is_gone(void **state) {
    (void)state;
    options.write_bytes = 1024 * MIB;
    cancel_at = 32 * MIB;
    assert_int_equal(bench_target_open(&t, dir, &options, &err), CANCELLED);
    assert_true(seen < 64 * MIB);
    bench_target_close(&t);
    assert_int_equal(n_entries(), 0);
}

static void a_file_is_never_written_to(void **state) {
    (void)state;
    make("a", 64 * MIB);
    struct stat before, after;
    assert_int_equal(stat(in_dir("a"), &before), 0);
    options.write_bytes = 64 * MIB;
    refused(in_dir("a"), ERR_USAGE, "not a directory");
    assert_int_equal(stat(in_dir("a"), &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
    assert_int_equal(n_entries(), 1);
}

static void a_test_file_that_does_not_fit_is_refused_before_a_byte_is_written(void **state) {
    (void)state;
    options.write_bytes = 1ull << 60;
    refused(dir, ERR_IO, "GB are free there");
    assert_int_equal(seen, 0);
}

static void a_directory_that_cannot_be_written_to_is_named(void **state) {
    (void)state;
    options.write_bytes = 64 * MIB;
    refused("/proc", ERR_IO, "/proc: ");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(a_directory_is_read_through_its_largest_file),
        TEST(links_to_files_count),
        TEST(a_file_is_itself),
        TEST(what_cannot_be_measured_is_refused_by_name),
        TEST(a_test_file_is_made_without_a_name_and_of_random_bytes),
        TEST(an_interrupted_test_file_is_gone),
        TEST(a_file_is_never_written_to),
        TEST(a_test_file_that_does_not_fit_is_refused_before_a_byte_is_written),
        TEST(a_directory_that_cannot_be_written_to_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
