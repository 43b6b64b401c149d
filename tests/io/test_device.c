// What a path lies on, and what this process may do: found out, not assumed.
#include "tests/io/fixture.h"

#define FILE_BYTES (64 * READER_ALIGN + 100)

static struct folder folder;

static int open_folder(void **state) {
    (void)state;
    folder_open(&folder);
    return 0;
}

static int close_folder(void **state) {
    (void)state;
    folder_close(&folder);
    return 0;
}

static const char *a_file(char path[512]) {
    write_file(folder_path(&folder, "file", path), 0, FILE_BYTES);
    return path;
}

static bool root_mount_is_listed(void) {
    FILE *mounts = fopen("/proc/self/mountinfo", "r");
    char line[4096];
    bool listed = false;
    while (mounts && fgets(line, sizeof line, mounts))
        listed |= strstr(line, " / / ") != NULL;
    if (mounts)
        fclose(mounts);
    return listed;
}

static void file_is_described(void **state) {
    (void)state;
    char path[512];
    struct device d;
    assert_int_equal(device_examine(&d, a_file(path), NULL), OK);
    assert_int_equal(d.bytes, FILE_BYTES);
    if (root_mount_is_listed()) // in a bare chroot it is not, and the file system is unknown
        assert_string_not_equal(d.filesystem, "");
    print_message("%s on %s: %s, %u-byte alignment, largest request %u KiB\n", d.filesystem,
                  d.block_device[0] ? d.block_device : "no block device",
                  d.direct == DIRECT_YES       ? "direct"
                  : d.direct == DIRECT_REFUSED ? "O_DIRECT refused"
                                               : "buffered all the same",
                  d.align_bytes, d.max_request_bytes >> 10);
    if (d.direct == DIRECT_REFUSED) {
        assert_int_equal(d.align_bytes, 0);
    } else {
        assert_true(d.align_bytes > 0 && d.align_bytes <= READER_ALIGN);
        assert_int_equal(READER_ALIGN % d.align_bytes, 0);
    }
    if (d.block_device[0]) {
        char sys[512];
        snprintf(sys, sizeof sys, "/sys/block/%s", d.block_device);
        assert_int_equal(access(sys, F_OK), 0); // a whole disk, never a partition
    }
}

static void what_is_no_file_is_refused_by_name(void **state) {
    (void)state;
    char path[512];
    struct device d;
    struct err err = { .status = OK };
    assert_int_equal(device_examine(&d, folder_path(&folder, "nothing", path), &err), ERR_MISSING);
    assert_non_null(strstr(err.text, path));
    err_clear(&err);
    assert_int_equal(device_examine(&d, folder.path, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, folder.path));
    err_clear(&err);
    assert_int_equal(mkfifo(folder_path(&folder, "pipe", path), 0600), 0);
    assert_int_equal(device_examine(&d, path, &err), ERR_INPUT); // and does not wait for a writer
    assert_non_null(strstr(err.text, path));
}

static void descriptor_comes_back_as_it_was(void **state) {
    (void)state;
    char path[512];
    int fd = open(a_file(path), O_RDONLY);
    int flags = fcntl(fd, F_GETFL);
    assert_int_equal(lseek(fd, 77, SEEK_SET), 77);
    struct device d;
    assert_int_equal(device_examine_fd(&d, fd, path, NULL), OK);
    assert_int_equal(fcntl(fd, F_GETFL), flags);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 77);
    close(fd);
}

static void file_that_is_empty_or_small_can_be_examined(void **state) {
    (void)state;
    char path[512];
    const uint64_t sizes[] = { 0, 1, READER_ALIGN - 1, READER_ALIGN, 2 * READER_ALIGN + 1 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct device d;
        write_file(folder_path(&folder, "small", path), 0, sizes[i]);
        assert_int_equal(device_examine(&d, path, NULL), OK);
        assert_int_equal(d.bytes, sizes[i]);
    }
}

// The evidence itself: a buffered descriptor leaves what it read in the cache, a direct one does
// not. A file system that buffers under O_DIRECT looks like the first.
static void reads_through_the_cache_are_found_out(void **state) {
    (void)state;
    char path[512];
    if (!is_direct(a_file(path))) {
        print_message("no O_DIRECT below %s\n", folder.path);
        skip();
    }
    bool known = false;
    int fd = open(path, O_RDONLY | O_DIRECT);
    assert_false(device_reads_are_cached(fd, FILE_BYTES, &known));
    assert_true(known);
    close(fd);
    fd = open(path, O_RDONLY);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    assert_true(device_reads_are_cached(fd, FILE_BYTES, &known));
    assert_true(known);
    posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL); // with read-ahead, too
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    assert_true(device_reads_are_cached(fd, FILE_BYTES, &known));
    close(fd);
}

static void cached_file_is_not_mistaken_for_a_buffered_one(void **state) {
    (void)state;
    char path[512], block[READER_ALIGN];
    if (!is_direct(a_file(path)))
        skip();
    int fd = open(path, O_RDONLY);
    for (uint64_t at = 0; at < FILE_BYTES; at += sizeof block)
        assert_true(pread(fd, block, sizeof block, (off_t)at) > 0);
    struct device d;
    assert_int_equal(device_examine_fd(&d, fd, path, NULL), OK);
    assert_int_equal(d.direct, DIRECT_YES);
    close(fd);
}

static void memory_is_no_disk(void **state) {
    (void)state;
    struct device d;
    const char *path = "/dev/shm/sluice-test-device";
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, 1 << 20) != 0 || device_examine(&d, path, NULL) != OK ||
        strcmp(d.filesystem, "tmpfs") != 0) {
        if (fd >= 0)
            close(fd), unlink(path);
        print_message("no tmpfs at /dev/shm\n");
        skip();
    }
    assert_true(d.direct == DIRECT_BUFFERED || d.direct == DIRECT_REFUSED);
    assert_string_equal(d.block_device, "");
    close(fd);
    unlink(path);
}

static void refusal_has_its_reason(void **state) {
    (void)state;
    struct device d;
    assert_int_equal(device_examine(&d, "/proc/version", NULL), OK);
    assert_int_equal(d.direct, DIRECT_REFUSED);
    assert_int_equal(d.align_bytes, 0);
    assert_int_not_equal(d.direct_errno, 0);
    assert_string_equal(d.filesystem, "proc");
}

// --- limits of this process ----------------------------------------------------------------------

static void limits_are_those_of_this_process(void **state) {
    (void)state;
    struct device_limits limits;
    struct rlimit limit;
    device_limits(&limits);
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    assert_true(limits.memlock_bytes ==
                (limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur));
    uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES), page = (uint64_t)sysconf(_SC_PAGESIZE);
    assert_true(limits.available_bytes > 0 && limits.available_bytes <= pages * page);
    print_message("memlock %" PRIu64 " KiB%s, io_uring %s, %.1f GiB available\n",
                  limits.memlock_bytes >> 10, limits.may_lock ? " (CAP_IPC_LOCK)" : "",
                  uring_reason(limits.uring), (double)limits.available_bytes / (1 << 30));
}

static int with_less(void *context) {
    (void)context;
    struct device_limits limits;
    CHILD_CHECK(limit_memlock(8 << 20) == 0);
    device_limits(&limits);
    CHILD_CHECK(limits.memlock_bytes == 8 << 20 && !limits.may_lock);
    CHILD_CHECK(forbid_call(__NR_io_uring_setup) == 0);
    device_limits(&limits);
    CHILD_CHECK(limits.uring == URING_SECCOMP || limits.uring == URING_SYSCTL);
    CHILD_CHECK(limits.uring_errno == EPERM);
    return 0;
}

static void less_is_noticed(void **state) {
    (void)state;
    in_child(with_less, NULL);
}

static void every_state_of_io_uring_has_words(void **state) {
    (void)state;
    assert_int_equal(uring_state_of(0), URING_YES);
    assert_int_equal(uring_state_of(ENOSYS), URING_NO_KERNEL);
    assert_int_equal(uring_state_of(ENOMEM), URING_MEMLOCK);
    assert_int_equal(uring_state_of(EMFILE), URING_ERROR);
    for (int s = URING_YES; s <= URING_ERROR; s++) {
        assert_string_not_equal(uring_reason((enum uring_state)s), "");
        assert_true((s == URING_YES) == (uring_remedy((enum uring_state)s)[0] == '\0'));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_is_described),
        cmocka_unit_test(what_is_no_file_is_refused_by_name),
        cmocka_unit_test(descriptor_comes_back_as_it_was),
        cmocka_unit_test(file_that_is_empty_or_small_can_be_examined),
        cmocka_unit_test(reads_through_the_cache_are_found_out),
        cmocka_unit_test(cached_file_is_not_mistaken_for_a_buffered_one),
        cmocka_unit_test(memory_is_no_disk),
        cmocka_unit_test(refusal_has_its_reason),
        cmocka_unit_test(limits_are_those_of_this_process),
        cmocka_unit_test(less_is_noticed),
        cmocka_unit_test(every_state_of_io_uring_has_words),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
