#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/hub.h"
#include "tests/support/make_checkpoint.h"

static char *cache; // of one test
static char out[4096];
static struct err err;

static int set_up(void **state) {
    (void)state;
    cache = make_temp_dir();
    return cache ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    remove_temp_dir(cache);
    return 0;
}

static void path_of(char *path, const char *tail) {
    snprintf(path, 4096, "%s/%s", cache, tail);
}

static void make_dir(const char *tail) {
    char path[4096];
    path_of(path, tail);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_repo(const char *const *revisions, int n, const char *main_ref) {
    make_dir("models--org--name");
    make_dir("models--org--name/blobs");
    make_dir("models--org--name/refs");
    make_dir("models--org--name/snapshots");
    for (int i = 0; i < n; i++) {
        char tail[300];
        snprintf(tail, sizeof tail, "models--org--name/snapshots/%s", revisions[i]);
        make_dir(tail);
    }
    if (main_ref)
        assert_int_equal(
            make_file(cache, "models--org--name/refs/main", main_ref, strlen(main_ref), NULL), OK);
}

static enum status resolve(const char *model) {
    err_clear(&err);
    return hub_resolve(model, cache, out, sizeof out, &err);
}

static void expect_snapshot(const char *revision) {
    char want[4096], tail[300];
    if (resolve("org/name") != OK)
        fail_msg("%s", err.text);
    snprintf(tail, sizeof tail, "models--org--name/snapshots/%s", revision);
    path_of(want, tail);
    assert_string_equal(out, want);
}

static void a_directory_is_taken_as_it_is(void **state) {
    (void)state;
    assert_int_equal(resolve(cache), OK);
    assert_string_equal(out, cache);
    assert_int_equal(hub_resolve(cache, NULL, out, sizeof out, &err), OK);
    assert_int_equal(hub_resolve(cache, NULL, out, 4, &err), ERR_USAGE);
}

static void refs_main_chooses_among_snapshots(void **state) {
    (void)state;
    const char *const revisions[] = { "aaa111", "bbb222", "ccc333" };
    make_repo(revisions, 3, "bbb222");
    expect_snapshot("bbb222");
}

static void refs_main_may_end_in_a_newline(void **state) {
    (void)state;
    const char *const revisions[] = { "aaa111", "bbb222" };
    make_repo(revisions, 2, "aaa111\n");
    expect_snapshot("aaa111");
}

static void the_only_snapshot_needs_no_ref(void **state) {
    (void)state;
    const char *const revisions[] = { "aaa111" };
    make_repo(revisions, 1, NULL);
    expect_snapshot("aaa111");
}

static void a_ref_that_leads_nowhere_is_passed_over(void **state) {
    (void)state;
    static const char *const refs[] = { "gone", "..", ".", "../../..", "", "a b", "/etc" };
    const char *const revisions[] = { "aaa111" };
    make_repo(revisions, 1, NULL);
    for (size_t i = 0; i < sizeof refs / sizeof *refs; i++) {
        make_file(cache, "models--org--name/refs/main", refs[i], strlen(refs[i]), NULL);
        expect_snapshot("aaa111");
    }
}

static void several_snapshots_without_a_ref_are_listed(void **state) {
    (void)state;
    const char *const revisions[] = { "bbb222", "aaa111" };
    make_repo(revisions, 2, NULL);
    assert_int_equal(resolve("org/name"), ERR_USAGE);
    assert_non_null(strstr(err.text, "aaa111, bbb222"));
}

static void a_cache_without_the_model_says_how_to_get_it(void **state) {
    (void)state;
    assert_int_equal(resolve("org/name"), ERR_MISSING);
    assert_non_null(strstr(err.text, cache));
    assert_non_null(strstr(err.text, "models--org--name"));
    assert_non_null(strstr(err.text, "download org/name"));
    make_repo(NULL, 0, NULL);
    assert_int_equal(resolve("org/name"), ERR_MISSING);
    assert_non_null(strstr(err.text, "holds no snapshot"));
    char path[4096];
    path_of(path, "models--org--name/snapshots");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(resolve("org/name"), ERR_MISSING);
}

static void without_a_cache_the_variables_are_named(void **state) {
    (void)state;
    err_clear(&err);
    assert_int_equal(hub_resolve("org/name", NULL, out, sizeof out, &err), ERR_MISSING);
    assert_non_null(strstr(err.text, "HF_HOME"));
}

static void names_of_another_form_are_directories_that_are_not_there(void **state) {
    (void)state;
    static const char *const models[] = {
        "",     "name",   "/no/such",  "a/b/c", "org/",       "/name",
        "../x", "org/..", "org/na me", "./x",   "org/na\nme",
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        assert_int_equal(resolve(models[i]), ERR_MISSING);
        assert_non_null(strstr(err.text, "no such directory"));
        assert_null(strchr(err.text, '\n'));
    }
}

/* As the hub's client lays it out: snapshots/REV/file -> ../../blobs/HASH. */
static void a_snapshot_of_links_opens_as_a_checkpoint(void **state) {
    (void)state;
    static const char *const files[] = {
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    };
    const char *const revisions[] = { "aaa111" };
    struct config c;
    char from[4096], to[4096], tail[300];
    make_repo(revisions, 1, "aaa111");
    path_of(to, "models--org--name/snapshots/aaa111");
    make_small_config(&c);
    const struct make_options options = { .n_shards = 2 };
    assert_int_equal(make_checkpoint(to, &c, &options, &err), OK);
    for (int i = 0; i < 4; i++) {
        snprintf(tail, sizeof tail, "models--org--name/snapshots/aaa111/%s", files[i]);
        path_of(from, tail);
        snprintf(tail, sizeof tail, "models--org--name/blobs/%d", i);
        path_of(to, tail);
        assert_int_equal(rename(from, to), 0);
        snprintf(tail, sizeof tail, "../../blobs/%d", i);
        assert_int_equal(symlink(tail, from), 0);
    }
    struct checkpoint cp;
    assert_int_equal(resolve("org/name"), OK);
    const char *const dir = out;
    if (checkpoint_open(&cp, &dir, 1, &err) != OK)
        fail_msg("%s", err.text);
    checkpoint_close(&cp);

    // A download that is not complete: the link is there, its blob is not.
    assert_int_equal(unlink(to), 0);
    assert_int_equal(checkpoint_open(&cp, &dir, 1, &err), ERR_MISSING);
    assert_non_null(strstr(err.text, "missing model-00002-of-00002.safetensors"));
    checkpoint_close(&cp);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_directory_is_taken_as_it_is),
        TEST(refs_main_chooses_among_snapshots),
        TEST(refs_main_may_end_in_a_newline),
        TEST(the_only_snapshot_needs_no_ref),
        TEST(a_ref_that_leads_nowhere_is_passed_over),
        TEST(several_snapshots_without_a_ref_are_listed),
        TEST(a_cache_without_the_model_says_how_to_get_it),
        TEST(without_a_cache_the_variables_are_named),
        TEST(names_of_another_form_are_directories_that_are_not_there),
        TEST(a_snapshot_of_links_opens_as_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
