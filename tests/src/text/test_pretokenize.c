#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/text/pattern.h"
#include "src/text/pretokenize.h"
#include "src/text/utf8.h"

#define BYTE_LEVEL                                                                                 \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"      \
    "false}"

/* Pieces joined with '|'. */
struct joined {
    char text[4096];
    size_t n;
    int n_pieces;
    int end_after; /* pieces; 0: never */
};

static enum status join_piece(void *user, const char *piece, size_t n_bytes, struct err *err) {
    struct joined *j = user;
    assert_true(n_bytes > 0);
    j->n += (size_t)snprintf(j->text + j->n, sizeof j->text - j->n, "%s%.*s", j->n ? "|" : "",
                             (int)n_bytes, piece);
    assert_true(j->n < sizeof j->text);
    if (++j->n_pieces == j->end_after)
        return err_set(err, ERR_IO, "enough");
    return OK;
}

static enum status open_json(struct pretokenizer **p, const char *json, struct err *err) {
    json_t *spec = json_loads(json, 0, NULL);
    assert_non_null(spec);
    enum status s = pretokenizer_open(p, spec, "t.json", err);
    json_decref(spec);
    return s;
}

/* A Split with this pattern ({"Regex": …} or {"String": …}) and ByteLevel. */
static enum status open_split(struct pretokenizer **p, const char *kind, const char *pattern,
                              const char *behavior, bool invert, struct err *err) {
    json_error_t e;
    json_t *spec = json_pack_ex(&e, 0, "{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}",
                                "type", "Sequence", "pretokenizers", "type", "Split", "pattern",
                                kind, pattern, "behavior", behavior, "invert", (int)invert, "type",
                                "ByteLevel", "add_prefix_space", 0, "use_regex", 0);
    assert_non_null(spec);
    enum status s = pretokenizer_open(p, spec, "t.json", err);
    json_decref(spec);
    return s;
}

static enum status run(const struct pretokenizer *p, const char *text, size_t n_bytes,
                       struct joined *j, struct err *err) {
    struct pretokenize_scratch *scratch;
    assert_int_equal(pretokenize_scratch_open(&scratch, n_bytes, NULL), OK);
    enum status s = pretokenize(p, scratch, text, n_bytes, join_piece, j, err);
    pretokenize_scratch_close(scratch);
    return s;
}

static void expect(const char *kind, const char *pattern, const char *behavior, bool invert,
                   const char *text, const char *pieces) {
    struct pretokenizer *p;
    struct joined j = { .n = 0 };
    struct err err = { .status = OK };
    if (open_split(&p, kind, pattern, behavior, invert, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(run(p, text, strlen(text), &j, &err), OK);
    assert_string_equal(j.text, pieces);
    pretokenizer_close(p);
}

static void every_behavior_cuts_as_the_reference_does(void **state) {
    (void)state;
    // From `tokenizers`: Split(pattern, behavior, invert).pre_tokenize_str.
    static const char TEXT[] = "the-final--countdown";
    expect("String", "-", "Removed", false, TEXT, "the|final|countdown");
    expect("String", "-", "Isolated", false, TEXT, "the|-|final|-|-|countdown");
    expect("String", "-", "MergedWithPrevious", false, TEXT, "the-|final-|-|countdown");
    expect("String", "-", "MergedWithNext", false, TEXT, "the|-final|-|-countdown");
    expect("String", "-", "Contiguous", false, TEXT, "the|-|final|--|countdown");
    expect("String", "-", "Removed", true, TEXT, "-|-|-");
    expect("String", "-", "MergedWithPrevious", true, TEXT, "the|-final|-|-countdown");
    expect("String", "-", "MergedWithNext", true, TEXT, "the-|final-|-|countdown");
    expect("Regex", "[a-z]*", "Isolated", false, "ab1c", "ab|1|c");
    expect("Regex", "x*", "Isolated", false, "aé中", "a|é|中");
    expect("Regex", "x*", "Removed", false, "axb", "a|b");
    expect("String", "(?", "Isolated", false, "a(?b", "a|(?|b");
}

static void the_dialect_means_what_oniguruma_means(void **state) {
    (void)state;
    // U+180E is no space, U+0085 is; \v is one character; { without a number is itself.
    expect("Regex", "\\s", "Isolated", false,
           "a\u180Eb\xC2\x85"
           "c",
           "a\u180Eb|\xC2\x85|c");
    expect("Regex", "\\S+", "Isolated", false, "a\u180Eb\u3000c", "a\u180Eb|\u3000|c");
    expect("Regex", "[^\\S\\n]", "Removed", false, "a b\nc", "a|b\nc");
    expect("Regex", "\\v", "Isolated", false, "a\nb\vc", "a\nb|\v|c");
    expect("Regex", "a{b", "Isolated", false, "xa{b", "x|a{b");
    expect("Regex", "a{,2}b", "Isolated", false, "aaab", "a|aab");
    expect("Regex", "a{2}b{1,}", "Isolated", false, "aaabb", "a|aabb");
    expect("Regex", "\\u4e2d|\\x{1F600}|\\x41", "Isolated", false, "A中😀.", "A|中|😀|.");
    expect("Regex", "(?i:'S)|(?<=1)2|3(?!4)", "Isolated", false, "'s12 22 34 35",
           "'s|1|2| 22 34 |3|5");
    expect("Regex", ".", "Contiguous", false, "ab\ncd", "ab|\n|cd");
    expect("Regex", "[\\d\\-x-z]+", "Isolated", false, "a1-yb", "a|1-y|b");
    expect("Regex", "[+&-]", "Isolated", false, "1+2&3-4", "1|+|2|&|3|-|4");
    expect("Regex", "\\P{L}+|\\p{^N}", "Isolated", false, "ab12", "a|b|12");
    expect("Regex", "(?:ab)++|(c)", "Isolated", false, "ababc", "abab|c");
}

static void categories_are_those_of_unicode_16(void **state) {
    (void)state;
    // Letters, a mark, a digit, a sign of Unicode 15, 15.1 and 16: PCRE2 of 14 has none of them.
    expect("Regex", "\\p{L}+", "Isolated", false, ".\U00031350\U0002EBF0\U00010D50.",
           ".|\U00031350\U0002EBF0\U00010D50|.");
    expect("Regex", "\\p{Nd}", "Isolated", false, "a\U00011F50", "a|\U00011F50");
    expect("Regex", "[\\p{M}]", "Isolated", false, "a\u0897", "a|\u0897");
    expect("Regex", "[^\\p{S}]", "Removed", false, "a\U0001FAE9", "\U0001FAE9");
}

static void what_means_something_else_here_is_refused(void **state) {
    (void)state;
    static const char *const REFUSED[] = {
        "\\w",      "\\b",    "\\h",      "\\R",         "\\K",     "\\1",     "(a)\\k<1>",
        "^a",       "a$",     "[a[b]]",   "[a&&b]",      "[]a]",    "[^]a]",   "[a",
        "(a",       "a)",     "a**",      "a{2}{3}",     "*a",      "(?i)a",   "(?R)",
        "(?C1)",    "(*F)",   "(?P<n>a)", "\\p{Han}",    "\\pL",    "\\p{L",   "[\\P{L}]",
        "[\\D]",    "[z-a]",  "[\\d-z]",  "\\xE4",       "\\x{0}",  "\\uD800", "\\x{110000}",
        "a{2}?",    "a{3,2}", "\\",       "\\z",         "[a-z-9]", "[a-",     "(?i:a)\\p{Lu}",
        "a{70000}", "\\é",    "(?<=a*)b", "[[:alpha:]]", "\\x{12",  "[\\",
    };
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        struct pattern p;
        struct err err = { .status = OK };
        if (pattern_open(&p, REFUSED[i], strlen(REFUSED[i]), "t.json: step 3", &err) != ERR_INPUT)
            fail_msg("taken: %s", REFUSED[i]);
        assert_memory_equal(err.text, "t.json: step 3: ", 16);
        pattern_close(&p);
    }
    struct pattern p;
    assert_int_equal(pattern_open(&p, "", 0, "t", NULL), ERR_INPUT);
    char *long_pattern = malloc(PATTERN_MAX_BYTES + 1);
    assert_non_null(long_pattern);
    memset(long_pattern, 'a', PATTERN_MAX_BYTES + 1);
    assert_int_equal(pattern_open(&p, long_pattern, PATTERN_MAX_BYTES + 1, "t", NULL), ERR_INPUT);
    free(long_pattern);
}

static void hostile_patterns_end_with_an_error(void **state) {
    (void)state;
    // Exponential, cubic and quadratic on a long run of one letter.
    static const char *const HOSTILE[] = {
        "(?:a+)+\\d", "(?:a|a)*\\d",
        "a*a*a*\\d",  "(?:a?){30}a{30}\\d",
        "(?=a*)\\d",  "a(?=a*)",
        "(?:a*)*\\d", "(?:(?:(?:a?)?)?)*\\d",
        "a*+\\d",     "(?:a(?=(?:a|b)*c)|a)",
    };
    size_t n = 300000;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'a', n);
    for (size_t i = 0; i < sizeof HOSTILE / sizeof HOSTILE[0]; i++) {
        struct pretokenizer *p;
        struct joined j = { .end_after = 1000 };
        struct err err = { .status = OK };
        assert_int_equal(open_split(&p, "Regex", HOSTILE[i], "Isolated", false, &err), OK);
        assert_int_equal(run(p, text, n, &j, &err), ERR_INPUT);
        assert_non_null(strstr(err.text, "t.json"));
        pretokenizer_close(p);
    }
    free(text);
}

static enum status count_piece(void *user, const char *piece, size_t n_bytes, struct err *err) {
    (void)piece;
    (void)err;
    size_t *longest = user;
    *longest = n_bytes > *longest ? n_bytes : *longest;
    return OK;
}

/* A run of n spaces, then a word: what \s+(?!\S) makes of it depends on the far end. */
static void matches_longer_than_the_window_are_found_whole(void **state) {
    (void)state;
    struct pretokenizer *p;
    assert_int_equal(open_split(&p, "Regex", "\\s*\\n|\\s+(?!\\S)|\\s|é+", "Isolated", false, NULL),
                     OK);
    for (size_t n = PRETOKENIZE_WINDOW - 8; n < PRETOKENIZE_WINDOW * 40; n += n < 1100 ? 1 : 7777) {
        size_t n_bytes = 3 * n + 2, longest = 0;
        char *text = malloc(n_bytes);
        assert_non_null(text);
        memset(text, ' ', n);
        text[n] = 'x';
        for (size_t i = 0; i < n; i++)
            memcpy(text + n + 1 + 2 * i, "é", 2);
        text[3 * n + 1] = 'y';
        struct pretokenize_scratch *scratch;
        assert_int_equal(pretokenize_scratch_open(&scratch, n_bytes, NULL), OK);
        assert_int_equal(pretokenize(p, scratch, text, n + 1, count_piece, &longest, NULL), OK);
        assert_int_equal(longest, n - 1); // one space is left for the word
        text[n] = '\n';
        assert_int_equal(pretokenize(p, scratch, text, n + 1, count_piece, &longest, NULL), OK);
        assert_int_equal(longest, n + 1);
        assert_int_equal(
            pretokenize(p, scratch, text + n, n_bytes - n, count_piece, &longest, NULL), OK);
        assert_int_equal(longest, 2 * n);
        pretokenize_scratch_close(scratch);
        free(text);
    }
    pretokenizer_close(p);
}

static void byte_level_alone_can_split_and_prefix(void **state) {
    (void)state;
    struct pretokenizer *p;
    struct joined j = { .n = 0 };
    assert_int_equal(open_json(&p, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", NULL), OK);
    assert_int_equal(run(p, "I'm 3  x", 8, &j, NULL), OK);
    assert_string_equal(j.text, " I|'m| 3| | x");
    pretokenizer_close(p);
    j = (struct joined){ .n = 0 };
    assert_int_equal(open_json(&p, BYTE_LEVEL, NULL), OK);
    assert_int_equal(run(p, "I'm 3", 5, &j, NULL), OK);
    assert_string_equal(j.text, "I'm 3");
    pretokenizer_close(p);
}

static void the_callers_error_ends_the_walk(void **state) {
    (void)state;
    struct pretokenizer *p;
    struct joined j = { .end_after = 2 };
    struct err err = { .status = OK };
    assert_int_equal(open_split(&p, "Regex", "\\s", "Isolated", false, NULL), OK);
    assert_int_equal(run(p, "a b c d", 7, &j, &err), ERR_IO);
    assert_string_equal(j.text, "a| ");
    assert_string_equal(err.text, "enough");
    pretokenizer_close(p);
}

static void other_pre_tokenizers_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
    } CASES[] = {
        { "{\"type\":\"Whitespace\"}", "Whitespace" },
        { "{}", "no type" },
        { "[]", "no type" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[]}", "1 to 16 steps" },
        { "{\"type\":\"Sequence\"}", "1 to 16 steps" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL "," BYTE_LEVEL "]}", "step 0" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," BYTE_LEVEL "]}",
          "Digits" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
          "\"a\"},\"behavior\":\"Isolated\",\"invert\":false}]}",
          "ByteLevel" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
          "\"a\"},\"behavior\":\"Melted\",\"invert\":false}," BYTE_LEVEL "]}",
          "Melted" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
          "\"a\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
          "invert" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":\"a\","
          "\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL "]}",
          "pattern must be" },
        { "{\"type\":\"ByteLevel\",\"add_prefix_space\":1}", "add_prefix_space" },
        { "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":0}", "use_regex" },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct pretokenizer *p;
        struct err err = { .status = OK };
        assert_int_equal(open_json(&p, CASES[i].json, &err), ERR_INPUT);
        assert_null(p);
        if (!strstr(err.text, CASES[i].part) || !strstr(err.text, "t.json"))
            fail_msg("%s: %s", CASES[i].json, err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_behavior_cuts_as_the_reference_does),
        cmocka_unit_test(the_dialect_means_what_oniguruma_means),
        cmocka_unit_test(categories_are_those_of_unicode_16),
        cmocka_unit_test(what_means_something_else_here_is_refused),
        cmocka_unit_test(hostile_patterns_end_with_an_error),
        cmocka_unit_test(matches_longer_than_the_window_are_found_whole),
        cmocka_unit_test(byte_level_alone_can_split_and_prefix),
        cmocka_unit_test(the_callers_error_ends_the_walk),
        cmocka_unit_test(other_pre_tokenizers_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
