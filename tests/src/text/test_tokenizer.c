#include <pthread.h>
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

#include "src/text/token_decoder.h"
#include "src/text/tokenizer.h"
#include "src/text/tokenizer_make.h"
#include "src/text/utf8.h"

/* V4's tokenizer with its first 2,000 merges; what `tokenizers` makes of texts with it. */
#define V4       "tests/data/tokenizer/v4-2000.json"
#define CASES    "tests/data/tokenizer/cases.jsonl"
#define VARIANTS "tests/data/tokenizer/variants.jsonl"

static struct tokenizer *open_v4(void) {
    struct tokenizer *t;
    struct err err = { .status = OK };
    if (tokenizer_open(&t, V4, &err) != OK)
        fail_msg("%s", err.text);
    return t;
}

static int unhex(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The text of a case; the caller frees it. */
static char *case_text(const json_t *c, size_t *n) {
    const char *hex = json_string_value(json_object_get(c, "hex"));
    assert_non_null(hex);
    *n = strlen(hex) / 2;
    char *text = malloc(*n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < *n; i++)
        text[i] = (char)(unhex(hex[2 * i]) << 4 | unhex(hex[2 * i + 1]));
    return text;
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t n,
                       enum tokenizer_mode mode, const json_t *expected) {
    struct token_ids ids = { .id = NULL };
    assert_int_equal(tokenizer_encode(t, text, n, mode, &ids, NULL), OK);
    bool same = ids.n == json_array_size(expected);
    for (size_t i = 0; same && i < ids.n; i++)
        same = ids.id[i] == json_integer_value(json_array_get(expected, i));
    if (!same)
        fail_msg("another encoding of: %.*s", (int)n, text);
    token_ids_free(&ids);
}

/* Text, encoded and decoded, is itself with its broken bytes replaced. */
static void expect_round_trip(const struct tokenizer *t, const char *text, size_t n,
                              enum tokenizer_mode mode) {
    struct token_ids ids = { .id = NULL };
    struct token_decoder d;
    size_t n_expected = 0, n_decoded = 0, n_part;
    char *expected = malloc(3 * n + 1), *decoded = malloc(3 * n + 1);
    assert_non_null(expected);
    assert_non_null(decoded);
    for (size_t at = 0; at < n;) {
        struct utf8_step step = utf8_next(text + at, n - at);
        bool good = step.kind == UTF8_CHARACTER;
        memcpy(expected + n_expected, good ? text + at : UTF8_REPLACEMENT, good ? step.bytes : 3);
        n_expected += good ? step.bytes : 3;
        at += step.bytes;
    }
    assert_int_equal(tokenizer_encode(t, text, n, mode, &ids, NULL), OK);
    assert_int_equal(token_decoder_open(&d, t, false, NULL), OK);
    for (size_t i = 0; i <= ids.n; i++) {
        const char *part = i < ids.n ? token_decoder_push(&d, ids.id[i], &n_part)
                                     : token_decoder_flush(&d, &n_part);
        assert_int_equal(utf8_valid_bytes(part, n_part), n_part); // never half a character
        assert_true(n_decoded + n_part <= n_expected);
        memcpy(decoded + n_decoded, part, n_part);
        n_decoded += n_part;
    }
    assert_int_equal(n_decoded, n_expected);
    assert_memory_equal(decoded, expected, n_expected);
    token_decoder_close(&d);
    token_ids_free(&ids);
    free(expected);
    free(decoded);
}

static json_t *next_case(FILE *f) {
    static char line[1 << 20];
    return fgets(line, sizeof line, f) ? json_loads(line, 0, NULL) : NULL;
}

static void ids_equal_the_reference_with_and_without_added_tokens(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    FILE *f = fopen(CASES, "r");
    assert_non_null(f);
    int n_cases = 0, n_differ = 0;
    for (json_t *c; (c = next_case(f)); json_decref(c), n_cases++) {
        size_t n;
        char *text = case_text(c, &n);
        const json_t *added = json_object_get(c, "added"), *plain = json_object_get(c, "plain");
        n_differ += plain != NULL;
        expect_ids(t, text, n, TOKENIZER_ADDED, added);
        expect_ids(t, text, n, TOKENIZER_PLAIN, plain ? plain : added);
        expect_round_trip(t, text, n, TOKENIZER_ADDED);
        expect_round_trip(t, text, n, TOKENIZER_PLAIN);
        free(text);
    }
    assert_true(n_cases >= 300 && n_differ >= 50); // the file is what it was
    fclose(f);
    tokenizer_close(t);
}

static struct tokenizer *open_root(const json_t *root, struct err *err) {
    char *text = json_dumps(root, JSON_COMPACT);
    struct tokenizer *t;
    assert_non_null(text);
    tokenizer_parse(&t, text, strlen(text), "changed.json", err);
    free(text);
    return t;
}

/* ["a b", …] as [["a","b"], …]. */
static void merges_to_pairs(json_t *merges) {
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *both = json_string_value(json_array_get(merges, i));
        size_t n = strcspn(both, " ");
        json_array_set_new(merges, i, json_pack("[o, s]", json_stringn(both, n), both + n + 1));
    }
}

static void other_pre_tokenizers_equal_the_reference_too(void **state) {
    (void)state;
    FILE *f = fopen(VARIANTS, "r");
    assert_non_null(f);
    int n_variants = 0;
    for (json_t *v; (v = next_case(f)); json_decref(v), n_variants++) {
        json_t *root = json_load_file(V4, 0, NULL), *model = json_object_get(root, "model");
        json_object_set(root, "pre_tokenizer", json_object_get(v, "pre_tokenizer"));
        json_object_set(model, "ignore_merges", json_object_get(v, "ignore_merges"));
        if (json_is_true(json_object_get(v, "pairs")))
            merges_to_pairs(json_object_get(model, "merges"));
        struct err err = { .status = OK };
        struct tokenizer *t = open_root(root, &err);
        if (!t)
            fail_msg("%s", err.text);
        const json_t *cases = json_object_get(v, "cases");
        for (size_t i = 0; i < json_array_size(cases); i++) {
            size_t n;
            const json_t *c = json_array_get(cases, i);
            char *text = case_text(c, &n);
            expect_ids(t, text, n, TOKENIZER_ADDED, json_object_get(c, "added"));
            free(text);
        }
        tokenizer_close(t);
        json_decref(root);
    }
    assert_true(n_variants >= 80);
    fclose(f);
}

static size_t count_ids(const struct tokenizer *t, const char *text, enum tokenizer_mode mode) {
    struct token_ids ids = { .id = NULL };
    assert_int_equal(tokenizer_encode(t, text, strlen(text), mode, &ids, NULL), OK);
    size_t n = ids.n;
    token_ids_free(&ids);
    return n;
}

static void plain_text_never_makes_a_control_token(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    static const char *const CONTENT[] = { "<｜begin▁of▁sentence｜>", "<｜User｜>", "</think>",
                                           "｜DSML｜" };
    for (size_t i = 0; i < 4; i++) {
        uint32_t id;
        assert_true(tokenizer_added_id(t, CONTENT[i], &id));
        assert_int_equal(count_ids(t, CONTENT[i], TOKENIZER_ADDED), 1);
        struct token_ids ids = { .id = NULL };
        assert_int_equal(
            tokenizer_encode(t, CONTENT[i], strlen(CONTENT[i]), TOKENIZER_PLAIN, &ids, NULL), OK);
        assert_true(ids.n > 1);
        for (size_t k = 0; k < ids.n; k++)
            assert_true(ids.id[k] != id);
        token_ids_free(&ids);
    }
    tokenizer_close(t);
}

static void tokens_are_looked_up_by_content_and_by_id(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    uint32_t id = 99;
    size_t n;
    assert_true(tokenizer_added_id(t, "<｜begin▁of▁sentence｜>", &id));
    assert_int_equal(id, 0);
    assert_true(tokenizer_is_special(t, id));
    assert_true(tokenizer_added_id(t, "<think>", &id));
    assert_false(tokenizer_is_special(t, id));
    assert_false(tokenizer_added_id(t, "<thin", &id));
    assert_false(tokenizer_added_id(t, "", &id));
    assert_false(tokenizer_added_id(t, "the", &id));
    assert_int_equal(tokenizer_n_ids(t), 3 + 256 + 2000 + 1280);
    assert_null(tokenizer_token_bytes(t, tokenizer_n_ids(t), &n));
    assert_null(tokenizer_token_bytes(t, UINT32_MAX, &n));
    assert_false(tokenizer_is_special(t, UINT32_MAX));
    const char *bytes = tokenizer_token_bytes(t, 259, &n); // the first merge
    assert_int_equal(n, 2);
    assert_memory_equal(bytes, " t", 2);
    tokenizer_close(t);
}

static void long_lines_of_one_letter_are_encoded(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    size_t n = 1000000;
    char *text = malloc(n);
    assert_non_null(text);
    static const char LETTERS[] = "a =\n\xFF";
    for (int i = 0; LETTERS[i]; i++) {
        struct token_ids ids = { .id = NULL };
        memset(text, LETTERS[i], n);
        assert_int_equal(tokenizer_encode(t, text, n, TOKENIZER_PLAIN, &ids, NULL), OK);
        assert_true(ids.n > n / 200 && ids.n <= 3 * n);
        token_ids_free(&ids);
    }
    free(text);
    tokenizer_close(t);
}

static void a_failed_encoding_leaves_the_list_as_it_was(void **state) {
    (void)state;
    json_t *root = json_load_file(V4, 0, NULL);
    json_t *steps = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    json_object_set_new(json_object_get(json_array_get(steps, 2), "pattern"), "Regex",
                        json_string("(?:a+)+1|b"));
    struct tokenizer *t = open_root(root, NULL);
    assert_non_null(t);
    struct token_ids ids = { .id = NULL };
    struct err err = { .status = OK };
    char text[2000];
    memset(text, 'a', sizeof text);
    memset(text, 'b', 100); // these become ids before it fails
    assert_int_equal(token_ids_push(&ids, 7, NULL), OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text, TOKENIZER_ADDED, &ids, &err),
                     ERR_INPUT);
    assert_non_null(strstr(err.text, "changed.json"));
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.id[0], 7);
    assert_int_equal(
        tokenizer_encode(t, text, TOKENIZER_MAX_TEXT_BYTES + 1, TOKENIZER_PLAIN, &ids, NULL),
        ERR_INPUT); // too long: not even looked at
    token_ids_free(&ids);
    tokenizer_close(t);
    json_decref(root);
}

static void an_empty_text_has_no_ids(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    struct token_ids ids = { .id = NULL };
    assert_int_equal(tokenizer_encode(t, "", 0, TOKENIZER_ADDED, &ids, NULL), OK);
    assert_int_equal(tokenizer_encode(t, "", 0, TOKENIZER_PLAIN, &ids, NULL), OK);
    assert_int_equal(ids.n, 0);
    token_ids_free(&ids);
    tokenizer_close(t);
}

struct worker {
    const struct tokenizer *t;
    uint64_t sum;
};

static void *encode_often(void *user) {
    struct worker *w = user;
    for (int i = 0; i < 20; i++) {
        struct token_ids ids = { .id = NULL };
        char text[4096];
        for (size_t k = 0; k < sizeof text; k++)
            text[k] = "the cat <think> 123 \n"[(k * k + k / 7) % 21];
        if (tokenizer_encode(w->t, text, sizeof text, TOKENIZER_ADDED, &ids, NULL) != OK)
            return NULL;
        for (size_t k = 0; k < ids.n; k++)
            w->sum = w->sum * 31 + ids.id[k];
        token_ids_free(&ids);
    }
    return NULL;
}

static void threads_share_one_tokenizer(void **state) {
    (void)state;
    struct tokenizer *t = open_v4();
    pthread_t thread[3];
    struct worker worker[3];
    for (int i = 0; i < 3; i++) {
        worker[i] = (struct worker){ .t = t };
        assert_int_equal(pthread_create(&thread[i], NULL, encode_often, &worker[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    assert_true(worker[0].sum != 0);
    assert_true(worker[0].sum == worker[1].sum && worker[0].sum == worker[2].sum);
    tokenizer_close(t);
}

/* ---- files that are not what they claim to be ---- */

/* A small tokenizer as text; the caller frees it. */
static char *small_file(void) {
    const char *base = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/sluice-tokenizer-XXXXXX", base ? base : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tokenizer_make(path, 290, NULL), OK);
    json_t *root = json_load_file(path, 0, NULL);
    unlink(path);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    assert_non_null(text);
    return text;
}

/* The small file with one place changed; `from` must stand in it. */
static enum status open_changed(const char *from, const char *to, struct err *err) {
    char *text = small_file(), *at = strstr(text, from);
    if (!at)
        fail_msg("not in the file: %s", from);
    char *changed = NULL;
    assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    struct tokenizer *t;
    enum status s = tokenizer_parse(&t, changed, strlen(changed), "small.json", err);
    assert_true((s == OK) == (t != NULL));
    tokenizer_close(t);
    free(changed);
    free(text);
    return s;
}

static void what_does_not_fit_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *part;
    } BAD[] = {
        { "\"Ġt\":259", "\"Ġt\":260", "two tokens have the id 260" },
        { "\"Ġt\":259", "\"Ġt\":-1", "the id of \"Ġt\"" },
        { "\"Ġt\":259", "\"Ġt\":1048576", "the id of \"Ġt\"" },
        { "\"Ġt\":259", "\"Ġt\":9223372036854775807", "the id of \"Ġt\"" },
        { "\"Ġt\":259", "\"Ġt\":259.0", "the id of \"Ġt\"" },
        { "\"Ġt\":259", "\"Ġt\":\"259\"", "the id of \"Ġt\"" },
        { "\"Ġt\":259", "\"\":259", "empty text" },
        { "\"Ġt\":259", "\"Ġth\":259", "duplicate object key" },
        { "\"Ġt\":259", "\"Ġu\":259", "merge 0 (\"Ġ\" and \"t\") makes a token" },
        { "\"A\":", "\"AAAA\":", "no token for the byte 0x41" },
        { "\"Ġ t\"", "\"Ġ tx\"", "merge 0 is of \"tx\"" },
        { "\"Ġ t\"", "\"Ġt\"", "merge 0 is not a pair" },
        { "\"Ġ t\"", "\"Ġ  t\"", "merge 0 is not a pair" },
        { "\"Ġ t\"", "[\"Ġ\"]", "merge 0 is not a pair" },
        { "\"Ġ t\"", "[\"Ġ\",3]", "merge 0 is not a pair" },
        { "\"Ġ t\"", "7", "merge 0 is not a pair" },
        { "\"Ġ t\",", "\"Ġ t\",\"Ġ t\",", "merge 1 (\"Ġ\" and \"t\") repeats merge 0" },
        { "\"merges\":[", "\"merges\":{},\"m\":[", "model.merges must be a list" },
        { "\"vocab\":{", "\"vocab\":[],\"v\":{", "model.vocab must be an object" },
        { "\"type\":\"BPE\"", "\"type\":\"Unigram\"", "not of type \"BPE\"" },
        { "\"dropout\":null", "\"dropout\":0.1", "model.dropout" },
        { "\"byte_fallback\":false", "\"byte_fallback\":true", "model.byte_fallback" },
        { "\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix" },
        { "\"byte_fallback\":false", "\"ignore_merges\":1", "model.ignore_merges" },
        { "\"normalizers\":[]", "\"normalizers\":[{\"type\":\"NFC\"}]", "normalizer" },
        { "{\"type\":\"Sequence\",\"normalizers\":[]}", "{\"type\":\"NFKC\"}", "NFKC" },
        { "\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Fuse\"", "Fuse" },
        { "\"id\":1,", "\"id\":5,", "in model.vocab it has 1" },
        { "\"id\":280,", "\"id\":277,", "another token has its id, 277" },
        { "\"id\":280,", "\"id\":2000000,", "must be a number from 0 to" },
        { "\"content\":\"<think>\"", "\"content\":\"\"", "entry 5" },
        { "\"content\":\"<think>\"", "\"content\":1", "entry 5" },
        { "\"content\":\"<think>\"", "\"content\":\"</think>\"", "twice" },
        { "\"lstrip\":false", "\"lstrip\":true", "\"lstrip\" is not supported" },
        { "\"single_word\":false", "\"single_word\":true", "\"single_word\" is not supported" },
        { "\"special\":true", "\"special\":1", "\"special\" must be" },
        { "\"added_tokens\":[", "\"added_tokens\":{},\"a\":[", "added_tokens must be a list" },
        { "\"pre_tokenizer\":", "\"pre\":", "pre_tokenizer" },
        { "\\\\p{N}{1,3}", "\\\\p{N}{1,3", "" }, // a literal brace: not refused
        { "\\\\p{N}{1,3}", "(a", "step 0 (Split): bad pattern" },
        { "\\\\p{N}{1,3}", "\\\\w", "byte 1: this escape" },
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct err err = { .status = OK };
        enum status s = open_changed(BAD[i].from, BAD[i].to, &err);
        if (s != (*BAD[i].part ? ERR_INPUT : OK) || !strstr(err.text, BAD[i].part) ||
            (s != OK && strncmp(err.text, "small.json: ", 12)))
            fail_msg("%s -> %s: %s", BAD[i].from, BAD[i].to, err.text);
    }
}

static void contents_of_both_classes_may_not_repeat(void **state) {
    (void)state;
    struct err err = { .status = OK };
    // <think> is of the normalized class, padding is not.
    assert_int_equal(open_changed("\"content\":\"<think>\"", "\"content\":\"<｜▁pad▁｜>\"", &err),
                     ERR_INPUT);
    assert_non_null(strstr(err.text, "<｜▁pad▁｜>"));
}

static void a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    char *text = small_file();
    size_t n = strlen(text);
    for (size_t end = 0; end < n; end += end < 200 ? 1 : 37) {
        struct tokenizer *t;
        struct err err = { .status = OK };
        assert_int_equal(tokenizer_parse(&t, text, end, "small.json", &err), ERR_INPUT);
        assert_non_null(strstr(err.text, "small.json: line "));
        assert_null(t);
    }
    free(text);
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    size_t n = 1000000;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, '[', n);
    struct tokenizer *t;
    assert_int_equal(tokenizer_parse(&t, text, n, "deep.json", NULL), ERR_INPUT);
    free(text);
    assert_int_equal(tokenizer_parse(&t, "[]", 2, "list.json", NULL), ERR_INPUT);
    assert_int_equal(tokenizer_parse(&t, "{}", 2, "empty.json", NULL), ERR_INPUT);
}

static void a_file_that_cannot_be_read_is_named(void **state) {
    (void)state;
    struct tokenizer *t;
    struct err err = { .status = OK };
    assert_int_equal(tokenizer_open(&t, "/nonexistent/tokenizer.json", &err), ERR_MISSING);
    assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
    assert_null(t);
    assert_int_equal(tokenizer_open(&t, "/", NULL), ERR_INPUT);
    assert_null(t);
    tokenizer_close(NULL);
}

/* ---- added tokens ---- */

static void the_leftmost_longest_added_token_wins(void **state) {
    (void)state;
    // In place of two control tokens: one that begins another.
    char *text = small_file();
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    json_t *list = json_object_get(root, "added_tokens");
    static const struct {
        size_t index;
        const char *content;
    } NEW[] = { { 3, "<a" }, { 4, "<a>b" }, { 5, "a>" }, { 6, "xy" } };
    for (size_t i = 0; i < 4; i++)
        json_object_set_new(json_array_get(list, NEW[i].index), "content",
                            json_string(NEW[i].content));
    // "xy" is searched for before the others, which are `normalized`.
    json_object_set_new(json_array_get(list, 6), "normalized", json_false());
    struct tokenizer *t = open_root(root, NULL);
    assert_non_null(t);
    static const struct {
        const char *text;
        uint32_t ids[4];
        size_t n;
    } FOUND[] = {
        { "<a>b", { 279 }, 1 },                // longer than <a
        { "<a>", { 278, 32 }, 2 },             // <a, then >: leftmost before a>
        { "<a>xyb", { 278, 32, 281, 68 }, 4 }, // xy cuts <a>b
        { "a>", { 280 }, 1 },
        { "xyxyx", { 281, 281, 90 }, 3 },
    };
    for (size_t i = 0; i < sizeof FOUND / sizeof FOUND[0]; i++) {
        struct token_ids ids = { .id = NULL };
        assert_int_equal(
            tokenizer_encode(t, FOUND[i].text, strlen(FOUND[i].text), TOKENIZER_ADDED, &ids, NULL),
            OK);
        assert_int_equal(ids.n, FOUND[i].n);
        assert_memory_equal(ids.id, FOUND[i].ids, ids.n * sizeof *ids.id);
        token_ids_free(&ids);
    }
    tokenizer_close(t);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_the_reference_with_and_without_added_tokens),
        cmocka_unit_test(other_pre_tokenizers_equal_the_reference_too),
        cmocka_unit_test(plain_text_never_makes_a_control_token),
        cmocka_unit_test(tokens_are_looked_up_by_content_and_by_id),
        cmocka_unit_test(long_lines_of_one_letter_are_encoded),
        cmocka_unit_test(a_failed_encoding_leaves_the_list_as_it_was),
        cmocka_unit_test(an_empty_text_has_no_ids),
        cmocka_unit_test(threads_share_one_tokenizer),
        cmocka_unit_test(what_does_not_fit_is_refused_with_its_place),
        cmocka_unit_test(contents_of_both_classes_may_not_repeat),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(the_leftmost_longest_added_token_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
