/* What of a file is there to be read from the device. */
#include "io/filemap.h"
#include "tests/io/fixture.h"

static struct folder folder;
static char path[512];

static int open_folder(void **state) {
    (void)state;
    folder_open(&folder);
    folder_path(&folder, "file", path);
    return 0;
}
static int close_folder(void **state) {
    (void)state;
    folder_close(&folder);
    return 0;
}

static struct filemap examine(void) {
    struct filemap m;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    filemap_examine(&m, fd);
    close(fd);
    return m;
}

static void a_file_that_was_written_is_all_there(void **state) {
    (void)state;
    write_file(path, 1, (3 << 20) + 5);
    struct filemap m = examine();
    assert_int_equal(m.absent_bytes, 0);
    if (m.known) {
        assert_true(m.whole);
        assert_true(m.n_pieces > 0);
    }
}

static void holes_are_absent(void **state) {
    (void)state;
    write_file(path, 1, 1 << 20);
    assert_int_equal(truncate(path, 3 << 20), 0);
    assert_int_equal(examine().absent_bytes, 2 << 20);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, (5 << 20) - 1), 1);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    uint64_t absent = examine().absent_bytes;
    assert_true(absent >= (3 << 20) && absent < 4 << 20); // all but the block that was written
}

static void what_was_reserved_and_never_written_is_absent(void **state) {
    (void)state;
    write_file(path, 1, 1 << 20);
    int fd = open(path, O_WRONLY);
    bool reserved = fallocate(fd, 0, 1 << 20, 2 << 20) == 0;
    close(fd);
    struct filemap m = examine();
    if (!reserved || !m.known)
        skip();
    assert_int_equal(m.absent_bytes, 2 << 20);
}

static void an_empty_file_lacks_nothing(void **state) {
    (void)state;
    write_file(path, 1, 0);
    struct filemap m = examine();
    assert_int_equal(m.absent_bytes, 0);
    assert_int_equal(m.n_pieces, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_folder, close_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_file_that_was_written_is_all_there),
        TEST(holes_are_absent),
        TEST(what_was_reserved_and_never_written_is_absent),
        TEST(an_empty_file_lacks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
