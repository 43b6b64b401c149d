/* tests/fuzz/fuzz_tokenizer.c - any bytes as a tokenizer.json: refused in one line, or a tokenizer
 * that encodes and decodes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/token_decoder.h"
#include "src/text/tokenizer.h"
#include "src/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds) {
    if (!holds)
        abort();
}

static void decode(const struct tokenizer *t, const uint32_t *id, size_t n_ids) {
    struct token_decoder d;
    check(token_decoder_open(&d, t, n_ids & 1, NULL) == OK);
    for (size_t i = 0; i < n_ids; i++) {
        size_t n;
        const char *text = token_decoder_push(&d, id[i], &n);
        check(utf8_valid_bytes(text, n) == n);
    }
    token_decoder_close(&d);
}

static void encode(const struct tokenizer *t, const char *text, size_t n_bytes) {
    for (int mode = TOKENIZER_PLAIN; mode <= TOKENIZER_ADDED; mode++) {
        struct token_ids ids = { .id = NULL };
        struct err err = { .status = OK };
        enum status s = tokenizer_encode(t, text, n_bytes, mode, &ids, &err);
        check(s == OK || (s == ERR_INPUT && err.text[0] && ids.n == 0)); // a hostile pattern
        for (size_t i = 0; i < ids.n; i++) {
            size_t n;
            check(tokenizer_token_bytes(t, ids.id[i], &n) && n > 0);
        }
        decode(t, ids.id, ids.n);
        token_ids_free(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char TEXT[] = "The cat's 12345 </think>\r\n\t x <a>b\xE4\xBD\xA0\xE5\xA5\xBD\xFF"
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct tokenizer *t;
    struct err err = { .status = OK };
    enum status s = tokenizer_parse(&t, (const char *)data, size, "fuzz.json", &err);
    check((s == OK) == (t != NULL));
    check(s == OK || (err.status == s && !strncmp(err.text, "fuzz.json: ", 11)));
    check(!strchr(err.text, '\n'));
    if (!t)
        return 0;
    encode(t, TEXT, sizeof TEXT - 1);
    char run[6000]; // longer than the window within which patterns are matched
    memset(run, size & 1 ? ' ' : 'a', sizeof run);
    run[sizeof run - 1] = 'x';
    encode(t, run, sizeof run);
    encode(t, (const char *)data, size < 2000 ? size : 2000);
    for (uint32_t id = 0; id < tokenizer_n_ids(t); id += 97)
        decode(t, &id, 1);
    tokenizer_close(t);
    return 0;
}
