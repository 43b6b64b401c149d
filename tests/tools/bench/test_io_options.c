/* The command line of `bench io`, and where what it found is kept. */
#include "tools/bench/io.h"
#include "tools/commands.h"
#include "tools/drive_settings.h"

#include "tests/support/make_checkpoint.h"

#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char *dir;
static struct err err;
static struct options o;

static int make_dir(void **state) {
    (void)state;
    err_clear(&err);
    dir = make_temp_dir();
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

// --- options -------------------------------------------------------------------------------------

#define PARSE(...)                                                                                 \
    parse(sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *), (char *[]){ __VA_ARGS__ })

static enum status parse(size_t argc, char *const *argv) {
    memset(&o, 0xA5, sizeof o); // nothing may depend on what was there
    memset(&o.environment, 0, sizeof o.environment);
    err_clear(&err);
    return options_parse(&o, &bench_io, (int)argc, argv, &err);
}

static void refused(enum status status, const char *text) {
    assert_int_equal(status, ERR_USAGE);
    if (!strstr(err.text, text))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

static void without_options_all_is_measured_and_nothing_written(void **state) {
    (void)state;
    assert_int_equal(PARSE("/a", "/b"), OK);
    assert_int_equal(o.operands.n, 2);
    assert_int_equal(o.write_test_bytes, 0);
    assert_true(o.seconds == 0 && o.sustain == 0);
    assert_int_equal(o.shape, SHAPE_EXPERT);
    assert_int_equal(o.io, IO_AUTO);
    assert_string_equal(o.sysfs, "/sys");
    assert_false(options_given(&o, "shape"));
    assert_null(o.html);
}

static void one_measurement_can_be_asked_for(void **state) {
    (void)state;
    assert_int_equal(PARSE("/a", "--shape", "sequential", "--block", "1M", "--depth", "4",
                           "--seconds", "1.5", "--io", "buffered", "--json"),
                     OK);
    assert_int_equal(o.shape, SHAPE_SEQUENTIAL);
    assert_int_equal(o.block_bytes, 1 << 20);
    assert_int_equal(o.depth, 4);
    assert_true(o.seconds == 1.5);
    assert_true(o.json);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    refused(PARSE("--block", "5000"), "not a multiple of 4K");
    refused(PARSE("--block", "128M"), "out of range");
    refused(PARSE("--write-test", "1M"), "out of range");
    refused(PARSE("--sustain", "0"), "out of range");
    refused(PARSE("--shape", "expert", "--sustain", "60"), "exclude each other");
    refused(PARSE("--depth", "8", "--html", "f"), "exclude each other");
    refused(PARSE("--full", "--unregistered"), "exclude each other");
    refused(PARSE("--ram", "8G"), "no option of this command");
    refused(PARSE("--sustian", "8"), "did you mean --sustain");
}

// --- what is kept --------------------------------------------------------------------------------

static struct drive_setting setting(uint32_t chunk_bytes, uint32_t depth, bool uring) {
    return (struct drive_setting){
        .chunk_bytes = chunk_bytes, .depth = depth, .uring = uring, .rate = 1.5e9
    };
}

static void keeps(const char *folder, const char *key, struct drive_setting s) {
    if (drive_setting_keep(folder, key, &s, &err) != OK)
        fail_msg("%s", err.text);
}

static void what_is_kept_is_found_by_its_key_and_engine(void **state) {
    (void)state;
    struct drive_setting found;
    char folder[512];
    snprintf(folder, sizeof folder, "%s/not/there/yet", dir);
    assert_false(drive_setting_find(folder, "a", true, &found));
    keeps(folder, "a", setting(1 << 20, 16, true));
    keeps(folder, "b > \"c\"", setting(4 << 20, 8, true));
    keeps(folder, "a", setting(2 << 20, 12, false));
    assert_true(drive_setting_find(folder, "a", true, &found));
    assert_int_equal(found.chunk_bytes, 1 << 20);
    assert_int_equal(found.depth, 16);
    assert_true(found.rate == 1.5e9);
    assert_true(drive_setting_find(folder, "b > \"c\"", true, &found));
    assert_int_equal(found.depth, 8);
    assert_true(drive_setting_find(folder, "a", false, &found));
    assert_int_equal(found.depth, 12);
    assert_false(drive_setting_find(folder, "c", true, &found));
    keeps(folder, "a", setting(8 << 20, 9, true)); // measured again
    assert_true(drive_setting_find(folder, "a", true, &found));
    assert_int_equal(found.depth, 9);
}

static void nothing_else_is_left_in_the_folder(void **state) {
    (void)state;
    keeps(dir, "a", setting(1 << 20, 16, true));
    keeps(dir, "a", setting(1 << 20, 17, true));
    DIR *entries = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(entries));)
        n += e->d_name[0] != '.';
    closedir(entries);
    assert_int_equal(n, 1);
}

static void write_settings(const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/drives.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_damaged_file_is_as_good_as_none_and_is_written_anew(void **state) {
    (void)state;
    struct drive_setting found;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"io_uring\": 3}",
        "{\"io_uring\": {\"a\": []}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": 1048576}}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": 1048577, \"depth\": 16}}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": -4096, \"depth\": 16}}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": 1048576, \"depth\": 0}}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": 1048576, \"depth\": 100000}}}",
        "{\"io_uring\": {\"a\": {\"chunk_bytes\": 99999999999, \"depth\": 16}}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_settings(texts[i]);
        if (drive_setting_find(dir, "a", true, &found))
            fail_msg("found something in %s", texts[i]);
        keeps(dir, "a", setting(1 << 20, 16, true));
        assert_true(drive_setting_find(dir, "a", true, &found));
    }
}

static void where_nothing_can_be_kept_it_says_so(void **state) {
    (void)state;
    struct drive_setting s = setting(1 << 20, 16, true);
    assert_int_equal(drive_setting_keep("", "a", &s, &err), ERR_IO);
    assert_non_null(strstr(err.text, "HOME"));
    err_clear(&err);
    assert_int_equal(drive_setting_keep("/dev/null/sluice", "a", &s, &err), ERR_IO);
    assert_non_null(strstr(err.text, "/dev/null/sluice"));
    assert_false(drive_setting_find("", "a", true, &s));
}

static const char *const (*variables)[2];
static char *get(const char *name) {
    for (size_t i = 0; variables[i][0]; i++)
        if (strcmp(variables[i][0], name) == 0)
            return (char *)variables[i][1];
    return NULL;
}

static void the_folder_is_in_the_users_cache(void **state) {
    (void)state;
    static const char *const order[][2] = { { "XDG_CACHE_HOME", "/c" },
                                            { "HOME", "/d" },
                                            { NULL, NULL } };
    static const char *const expected[] = { "/c/sluice", "/d/.cache/sluice", "" };
    struct environment e;
    for (size_t i = 0; i < 3; i++) {
        variables = order + i;
        environment_read(&e, get);
        assert_string_equal(e.cache, expected[i]);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(without_options_all_is_measured_and_nothing_written),
        TEST(one_measurement_can_be_asked_for),
        TEST(what_makes_no_sense_is_refused),
        TEST(what_is_kept_is_found_by_its_key_and_engine),
        TEST(nothing_else_is_left_in_the_folder),
        TEST(a_damaged_file_is_as_good_as_none_and_is_written_anew),
        TEST(where_nothing_can_be_kept_it_says_so),
        TEST(the_folder_is_in_the_users_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
