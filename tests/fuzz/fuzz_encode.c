/* tests/fuzz/fuzz_encode.c - any text: encoded and decoded it is itself, its broken bytes replaced;
 * ids as text: decoded they are whole characters. Run from the repository's root. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/token_decoder.h"
#include "src/text/tokenizer.h"
#include "src/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tokenizer *tokenizer; // opened once; every input only reads it

static void check(int holds) {
    if (!holds)
        abort();
}

static void open_once(void) {
    struct err err = { .status = OK };
    if (tokenizer || tokenizer_open(&tokenizer, "tests/data/tokenizer/v4-2000.json", &err) == OK)
        return;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

static size_t replace(const char *text, size_t n_bytes, char *out) {
    size_t n = 0;
    for (size_t at = 0; at < n_bytes;) {
        struct utf8_step step = utf8_next(text + at, n_bytes - at);
        bool good = step.kind == UTF8_CHARACTER;
        size_t n_part = good ? step.bytes : 3;
        memcpy(out + n, good ? text + at : UTF8_REPLACEMENT, n_part);
        n += n_part;
        at += step.bytes;
    }
    return n;
}

/* Everything that ids decode to, the end included; each part whole characters. */
static size_t decode(const uint32_t *id, size_t n_ids, char *out, size_t capacity) {
    struct token_decoder d;
    size_t n = 0, n_part;
    check(token_decoder_open(&d, tokenizer, false, NULL) == OK);
    for (size_t i = 0; i <= n_ids; i++) {
        const char *part =
            i < n_ids ? token_decoder_push(&d, id[i], &n_part) : token_decoder_flush(&d, &n_part);
        check(utf8_valid_bytes(part, n_part) == n_part);
        check(n_part <= capacity - n);
        memcpy(out + n, part, n_part);
        n += n_part;
    }
    token_decoder_close(&d);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_once();
    const char *text = (const char *)data;
    size_t capacity = 3 * size + 1;
    char *expected = malloc(capacity), *decoded = malloc(capacity);
    check(expected && decoded);
    size_t n_expected = replace(text, size, expected);
    for (int mode = TOKENIZER_PLAIN; mode <= TOKENIZER_ADDED; mode++) {
        struct token_ids ids = { .id = NULL };
        check(tokenizer_encode(tokenizer, text, size, mode, &ids, NULL) == OK);
        check(decode(ids.id, ids.n, decoded, capacity) == n_expected);
        check(!memcmp(decoded, expected, n_expected));
        token_ids_free(&ids);
    }
    free(expected);
    free(decoded);

    size_t n_ids = size / 2;
    uint32_t *id = malloc(n_ids * sizeof *id + 1);
    char *out = malloc(n_ids * 600 + 4); // the longest token has under 200 bytes, all may be broken
    check(id && out);
    for (size_t i = 0; i < n_ids; i++)
        id[i] = (uint32_t)(data[2 * i] << 8 | data[2 * i + 1]) % (tokenizer_n_ids(tokenizer) + 2);
    decode(id, n_ids, out, n_ids * 600 + 4);
    free(id);
    free(out);
    return 0;
}
