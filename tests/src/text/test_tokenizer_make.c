#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/text/tokenizer.h"
#include "src/text/tokenizer_make.h"

#define V4 "tests/data/tokenizer/v4-2000.json"

static int make_directory(void **state) {
    const char *base = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/sluice-make-XXXXXX", base ? base : "/tmp");
    char *directory = mkdtemp(path);
    *state = directory ? strdup(directory) : NULL;
    return *state ? 0 : -1;
}

static int remove_directory(void **state) {
    int rc = rmdir(*state);
    free(*state);
    return rc;
}

static struct tokenizer *make(const char *path, uint32_t n_ids) {
    struct tokenizer *t;
    struct err err = { .status = OK };
    if (tokenizer_make(path, n_ids, &err) != OK || tokenizer_open(&t, path, &err) != OK)
        fail_msg("%s", err.text);
    return t;
}

static void every_id_decodes_and_every_text_encodes(void **state) {
    static const uint32_t SIZES[] = { TOKENIZER_MAKE_LEAST, 300, 512, 2048, 40000 };
    static const char TEXT[] = "The people of the world, 12345 \xF0\x9F\x98\x80\n\0\x01x";
    char path[600];
    snprintf(path, sizeof path, "%s/tokenizer.json", (char *)*state);
    size_t n_before = SIZE_MAX;
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        struct tokenizer *t = make(path, SIZES[i]);
        assert_int_equal(tokenizer_n_ids(t), SIZES[i]);
        for (uint32_t id = 0; id < SIZES[i]; id++) {
            size_t n;
            assert_non_null(tokenizer_token_bytes(t, id, &n));
            assert_true(n > 0);
        }
        struct token_ids ids = { .id = NULL };
        assert_int_equal(tokenizer_encode(t, TEXT, sizeof TEXT - 1, TOKENIZER_PLAIN, &ids, NULL),
                         OK);
        assert_true(ids.n > 0 && ids.n <= n_before); // more merges, no more tokens
        n_before = ids.n;
        token_ids_free(&ids);
        tokenizer_close(t);
    }
    assert_true(n_before < sizeof TEXT - 10);
    unlink(path);
}

static void the_chat_tokens_are_there(void **state) {
    static const char *const CONTENT[] = {
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<think>",
        "</think>",
        "｜DSML｜",
        "<｜title｜>",
        "<｜read_url｜>",
    };
    char path[600];
    uint32_t id;
    snprintf(path, sizeof path, "%s/tokenizer.json", (char *)*state);
    struct tokenizer *t = make(path, 300);
    for (size_t i = 0; i < sizeof CONTENT / sizeof CONTENT[0]; i++) {
        assert_true(tokenizer_added_id(t, CONTENT[i], &id));
        assert_true(i > 1 ? id >= 288 : id == i);
        assert_true(tokenizer_is_special(t, id) == (i < 2));
    }
    tokenizer_close(t);
    unlink(path);
}

static char *read_text(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t capacity = 0;
    assert_non_null(f);
    assert_true(getdelim(&text, &capacity, '\0', f) > 0);
    fclose(f);
    return text;
}

static void the_file_depends_on_the_size_alone(void **state) {
    char path[600];
    snprintf(path, sizeof path, "%s/tokenizer.json", (char *)*state);
    assert_int_equal(tokenizer_make(path, 3000, NULL), OK);
    char *first = read_text(path);
    assert_int_equal(tokenizer_make(path, 3000, NULL), OK);
    char *second = read_text(path);
    assert_string_equal(first, second);
    free(first);
    free(second);
    unlink(path);
}

static void the_pre_tokenizer_is_the_published_one(void **state) {
    char path[600];
    snprintf(path, sizeof path, "%s/tokenizer.json", (char *)*state);
    assert_int_equal(tokenizer_make(path, 300, NULL), OK);
    json_t *made = json_load_file(path, 0, NULL), *v4 = json_load_file(V4, 0, NULL);
    static const char *const SAME[] = { "pre_tokenizer", "normalizer", "decoder", "post_processor",
                                        "truncation",    "padding",    "version" };
    for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++) {
        assert_non_null(json_object_get(made, SAME[i]));
        assert_true(json_equal(json_object_get(made, SAME[i]), json_object_get(v4, SAME[i])));
    }
    json_decref(made);
    json_decref(v4);
    unlink(path);
}

static void sizes_out_of_bounds_and_paths_that_fail_are_errors(void **state) {
    (void)state;
    struct err err = { .status = OK };
    assert_int_equal(tokenizer_make("/nonexistent/t.json", 270, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "270"));
    assert_int_equal(tokenizer_make("/nonexistent/t.json", TOKENIZER_MAX_IDS + 1, NULL), ERR_USAGE);
    err_clear(&err);
    assert_int_equal(tokenizer_make("/nonexistent/t.json", 300, &err), ERR_IO);
    assert_non_null(strstr(err.text, "/nonexistent/t.json"));
    if (access("/dev/full", W_OK) == 0)
        assert_int_equal(tokenizer_make("/dev/full", 300, NULL), ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_id_decodes_and_every_text_encodes),
        cmocka_unit_test(the_chat_tokens_are_there),
        cmocka_unit_test(the_file_depends_on_the_size_alone),
        cmocka_unit_test(the_pre_tokenizer_is_the_published_one),
        cmocka_unit_test(sizes_out_of_bounds_and_paths_that_fail_are_errors),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
