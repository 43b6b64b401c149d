#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/shard_index.h"

static enum status parse(struct shard_index *index, const char *text, struct err *err) {
    *err = (struct err){ 0 };
    return shard_index_parse(index, text, strlen(text), "d/index.json", err);
}

static void expect_refused(const char *text, const char *what) {
    struct shard_index index;
    struct err err;
    if (parse(&index, text, &err) != ERR_INPUT)
        fail_msg("accepted: %s", text);
    assert_non_null(strstr(err.text, "d/index.json"));
    if (!strstr(err.text, what))
        fail_msg("\"%s\" does not say %s", err.text, what);
    shard_index_close(&index);
}

static void tensors_are_listed_with_their_shards(void **state) {
    (void)state;
    struct shard_index index;
    struct err err;
    assert_int_equal(parse(&index,
                           "{\"metadata\": {\"total_size\": 3}, \"weight_map\": {\"b\": \"two\", "
                           "\"a\": \"one\", \"c\": \"two\"}}",
                           &err),
                     OK);
    assert_int_equal(index.n_shards, 2);
    assert_string_equal(index.shards[0], "two");
    assert_string_equal(index.shards[1], "one");
    assert_int_equal(index.n_entries, 3);
    assert_string_equal(index.entries[2].tensor, "c");
    assert_int_equal(index.entries[0].shard, 0);
    assert_int_equal(index.entries[1].shard, 1);
    assert_int_equal(index.entries[2].shard, 0);
    shard_index_close(&index);
    shard_index_close(&index); // closing twice is harmless
}

static void names_that_lead_elsewhere_are_refused(void **state) {
    (void)state;
    static const char *const files[] = {
        "../x", "/etc/passwd", "a/b", "..", ".", "", "x/../../y",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"weight_map\": {\"embed.weight\": \"%s\"}}", files[i]);
        expect_refused(text, "tensor embed.weight is said to lie in");
    }
    char text[600];
    snprintf(text, sizeof text, "{\"weight_map\": {\"embed.weight\": \"%0300d\"}}", 0);
    expect_refused(text, "embed.weight");
}

static void broken_indexes_are_refused(void **state) {
    (void)state;
    expect_refused("", "not JSON");
    expect_refused("{\"weight_map\": {\"a\": \"f\"}", "not JSON");
    expect_refused("[]", "weight_map");
    expect_refused("{}", "weight_map");
    expect_refused("{\"weight_map\": []}", "weight_map");
    expect_refused("{\"weight_map\": {}}", "empty");
    expect_refused("{\"weight_map\": {\"a\": 1}}", "tensor a is not a string");
    expect_refused("{\"weight_map\": {\"a\": \"f\", \"a\": \"g\"}}",
                   "duplicate object key near '\"a\"'");
    const size_t n = 1 << 20;
    char *bomb = malloc(n + 1);
    memset(bomb, '[', n);
    bomb[n] = 0;
    expect_refused(bomb, "not JSON");
    free(bomb);
}

static void more_shards_than_can_be_open_are_refused(void **state) {
    (void)state;
    for (uint32_t n = SHARD_INDEX_MAX_SHARDS; n <= SHARD_INDEX_MAX_SHARDS + 1; n++) {
        char *text = NULL;
        size_t length;
        FILE *out = open_memstream(&text, &length);
        fprintf(out, "{\"weight_map\": {");
        for (uint32_t i = 0; i < n; i++)
            fprintf(out, "%s\"%u\": \"s%u\"", i ? "," : "", i, i);
        fprintf(out, "}}");
        fclose(out);
        struct shard_index index;
        struct err err;
        assert_int_equal(parse(&index, text, &err), n > SHARD_INDEX_MAX_SHARDS ? ERR_INPUT : OK);
        if (n > SHARD_INDEX_MAX_SHARDS)
            assert_non_null(strstr(err.text, "more than 4096 shards"));
        else
            assert_int_equal(index.n_shards, n);
        shard_index_close(&index);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_listed_with_their_shards),
        cmocka_unit_test(names_that_lead_elsewhere_are_refused),
        cmocka_unit_test(broken_indexes_are_refused),
        cmocka_unit_test(more_shards_than_can_be_open_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
