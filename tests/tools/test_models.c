#include "tools/models.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

/* A Hugging Face cache with one model, org/name, of one revision. */
static struct options o;
static char snapshot[PATH_MAX];

static void make_folder(const char *name, char *path, size_t path_bytes) {
    int length = snprintf(path, path_bytes, "%s/%s", o.environment.hub_cache, name);
    assert_in_range(length, 1, path_bytes - 1);
    assert_int_equal(mkdir(path, 0700), 0);
}

static int set_up(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    char path[PATH_MAX];
    snprintf(o.environment.hub_cache, sizeof o.environment.hub_cache, "%s/sluice-models.XXXXXX",
             base ? base : "/tmp");
    assert_non_null(mkdtemp(o.environment.hub_cache));
    make_folder("models--org--name", path, sizeof path);
    make_folder("models--org--name/snapshots", path, sizeof path);
    make_folder("models--org--name/snapshots/abc", snapshot, sizeof snapshot);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", o.environment.hub_cache);
    return system(command);
}

static void directories_and_names_are_resolved_in_order(void **state) {
    (void)state;
    struct text_list names = { .items = { "/tmp", "org/name" }, .n = 2 };
    struct model_dirs dirs;
    struct err err = { .status = OK };
    assert_int_equal(model_dirs_open(&dirs, &o, &names, &err), OK);
    assert_int_equal(dirs.n, 2);
    assert_string_equal(dirs.dirs[0], "/tmp");
    assert_string_equal(dirs.dirs[1], snapshot);
    model_dirs_close(&dirs);
}

static void a_name_that_is_not_there_is_missing(void **state) {
    (void)state;
    struct text_list names = { .items = { "/tmp", "org/other" }, .n = 2 };
    struct model_dirs dirs;
    struct err err = { .status = OK };
    assert_int_equal(model_dirs_open(&dirs, &o, &names, &err), ERR_MISSING);
    assert_non_null(strstr(err.text, "org/other"));
    model_dirs_close(&dirs);
    assert_int_equal(dirs.n, 0);
}

static void without_a_cache_a_name_is_missing_too(void **state) {
    (void)state;
    struct options nowhere = { .environment = { .hub_cache = "" } };
    struct text_list names = { .items = { "org/name" }, .n = 1 };
    struct model_dirs dirs;
    struct err err = { .status = OK };
    assert_int_equal(model_dirs_open(&dirs, &nowhere, &names, &err), ERR_MISSING);
    model_dirs_close(&dirs);
}

static void no_model_at_all_is_a_usage_error(void **state) {
    (void)state;
    struct text_list none = { .n = 0 };
    struct model_dirs dirs;
    struct err err = { .status = OK };
    assert_int_equal(model_dirs_open(&dirs, &o, &none, &err), ERR_USAGE);
    model_dirs_close(&dirs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_and_names_are_resolved_in_order),
        cmocka_unit_test(a_name_that_is_not_there_is_missing),
        cmocka_unit_test(without_a_cache_a_name_is_missing_too),
        cmocka_unit_test(no_model_at_all_is_a_usage_error),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
