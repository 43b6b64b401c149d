// Direct or buffered: decided per file from the mode and from what is found out.
#include "tests/io/fixture.h"

#include "io/files.h"

#define FILE_BYTES (16 * READER_ALIGN + 100)

static struct folder folder;
static char paths[3][512];
static bool direct_here;

static int make_files(void **state) {
    (void)state;
    folder_open(&folder);
    for (uint32_t i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "shard-%u", i);
        write_file(folder_path(&folder, name, paths[i]), i, FILE_BYTES);
    }
    direct_here = is_direct(paths[0]);
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    folder_close(&folder);
    return 0;
}

static void need_direct(void) {
    if (!direct_here) {
        print_message("no O_DIRECT below %s\n", folder.path);
        skip();
    }
}

static const char *described(const struct files *files) {
    static char text[64];
    files_describe(files, text, sizeof text);
    return text;
}

static const char *noted(const struct files *files) {
    static char text[4096];
    files_notes(files, text, sizeof text);
    return text;
}

static void check_file(const struct file *file, bool direct) {
    assert_int_equal(file->direct, direct);
    assert_int_equal((fcntl(file->fd, F_GETFL) & O_DIRECT) != 0, direct);
    assert_int_equal(fcntl(file->fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(file->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(file->align_bytes, direct ? file->device.align_bytes : 1);
}

static void mode_decides_for_each_file(void **state) {
    (void)state;
    need_direct();
    const enum io_mode modes[] = { IO_DIRECT, IO_AUTO, IO_BUFFERED };
    for (int m = 0; m < 3; m++) {
        struct files files;
        files_init(&files, modes[m], 0);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(files_add(&files, paths[i], NULL), OK);
            assert_string_equal(files.file[i].path, paths[i]);
            check_file(&files.file[i], modes[m] != IO_BUFFERED);
        }
        assert_int_equal(files.total_bytes, 3 * FILE_BYTES);
        assert_string_equal(described(&files), m < 2 ? "O_DIRECT" : "page cache");
        assert_string_equal(noted(&files), "");
        files_close(&files);
    }
}

static void all_are_buffered_as_long_as_all_fit_in_ram(void **state) {
    (void)state;
    need_direct();
    struct files files;
    files_init(&files, IO_AUTO, 2 * FILE_BYTES);
    assert_int_equal(files_add(&files, paths[0], NULL), OK);
    check_file(&files.file[0], false);
    assert_int_equal(files_add(&files, paths[1], NULL), OK);
    check_file(&files.file[0], false);
    check_file(&files.file[1], false);
    assert_string_equal(described(&files), "page cache");
    assert_string_equal(noted(&files), ""); // wanted so: nothing is lost
    assert_int_equal(files_add(&files, paths[2], NULL), OK);
    for (int i = 0; i < 3; i++)
        check_file(&files.file[i], true);
    assert_string_equal(described(&files), "O_DIRECT");
    files_close(&files);
}

static void refused_file_is_an_error_or_buffered_with_a_note(void **state) {
    (void)state;
    need_direct();
    struct files files;
    struct err err = { .status = OK };
    files_init(&files, IO_DIRECT, 0);
    assert_int_equal(files_add(&files, paths[0], NULL), OK);
    assert_int_equal(files_add(&files, "/proc/version", &err), ERR_IO);
    assert_non_null(strstr(err.text, "/proc/version: O_DIRECT is refused (proc)"));
    assert_non_null(strstr(err.text, "--io auto"));
    assert_int_equal(files.n, 1);
    assert_int_equal(files.total_bytes, FILE_BYTES);
    assert_int_equal(files_add(&files, paths[1], NULL), OK); // goes on without it
    files_close(&files);

    files_init(&files, IO_AUTO, 0);
    assert_int_equal(files_add(&files, "/proc/version", NULL), OK);
    assert_int_equal(files_add(&files, paths[0], NULL), OK);
    assert_int_equal(files_add(&files, "/proc/meminfo", NULL), OK);
    check_file(&files.file[0], false);
    check_file(&files.file[1], true);
    assert_string_equal(described(&files), "O_DIRECT (1 of 3 files)");
    const char *note = noted(&files);
    assert_non_null(strstr(note, "/proc/version and 1 more: proc refuses O_DIRECT"));
    assert_ptr_equal(strchr(note, '\n'), note + strlen(note) - 1); // one line for both
    files_close(&files);
}

static void silently_buffered_file_is_an_error_or_noted(void **state) {
    (void)state;
    const char *path = "/dev/shm/sluice-test-files";
    struct device d;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, 1 << 20) != 0 || device_examine(&d, path, NULL) != OK ||
        d.direct != DIRECT_BUFFERED) {
        if (fd >= 0)
            close(fd), unlink(path);
        print_message("no tmpfs that takes O_DIRECT (6.6 and later) at /dev/shm\n");
        skip();
    }
    close(fd);
    struct files files;
    struct err err = { .status = OK };
    files_init(&files, IO_DIRECT, 0);
    assert_int_equal(files_add(&files, path, &err), ERR_IO);
    assert_non_null(strstr(err.text, "reads through the page cache all the same"));
    files_close(&files);
    files_init(&files, IO_AUTO, 0);
    assert_int_equal(files_add(&files, path, NULL), OK);
    check_file(&files.file[0], false);
    assert_non_null(strstr(noted(&files), "tmpfs takes O_DIRECT but"));
    files_close(&files);
    unlink(path);
}

static void what_cannot_be_opened_is_named(void **state) {
    (void)state;
    struct files files;
    char path[512];
    files_init(&files, IO_AUTO, 0);
    struct err err = { .status = OK };
    assert_int_equal(files_add(&files, folder_path(&folder, "shard-9", path), &err), ERR_MISSING);
    assert_non_null(strstr(err.text, path));
    err_clear(&err);
    assert_int_equal(files_add(&files, folder.path, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, folder.path));
    assert_int_equal(files.n, 0);
    files_close(&files);
}

static void disk_without_files_needs_only_names(void **state) {
    (void)state;
    struct files files;
    files_init(&files, IO_DIRECT, 0);
    assert_int_equal(files_add_name(&files, "imaginary", NULL), OK);
    assert_string_equal(files.file[0].path, "imaginary");
    assert_int_equal(files.file[0].fd, -1);
    assert_int_equal(files.file[0].align_bytes, 1);
    files_close(&files);
    files_close(&files); // closed is closed
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_decides_for_each_file),
        cmocka_unit_test(all_are_buffered_as_long_as_all_fit_in_ram),
        cmocka_unit_test(refused_file_is_an_error_or_buffered_with_a_note),
        cmocka_unit_test(silently_buffered_file_is_an_error_or_noted),
        cmocka_unit_test(what_cannot_be_opened_is_named),
        cmocka_unit_test(disk_without_files_needs_only_names),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
