/* tests/src/text/tokenize_lines.c - lines to ids, for tests/compare_tokenizer.py.
 *
 *   tokenize_lines FILE.json plain|added         lines "hex\n" on stdin -> "id id id\n"
 *   tokenize_lines FILE.json decode              lines "id id id\n" -> "hex\n"
 *   tokenize_lines FILE.json bench FILE.txt      encode the whole file 3 times; MB/s
 *
 * Lines are hexadecimal, so that a text may hold anything, line ends and broken UTF-8 too. */
#include "io/status.h"
#include "src/text/token_decoder.h"
#include "src/text/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int unhex(char c) {
    return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

static void encode_line(const struct tokenizer *t, enum tokenizer_mode mode, char *line, size_t n) {
    struct token_ids ids = { .id = NULL };
    struct err err = { .status = OK };
    for (size_t i = 0; i + 1 < n; i += 2)
        line[i / 2] = (char)(unhex(line[i]) << 4 | unhex(line[i + 1]));
    if (tokenizer_encode(t, line, n / 2, mode, &ids, &err) != OK)
        printf("error: %s", err.text);
    for (size_t i = 0; i < ids.n; i++)
        printf("%s%" PRIu32, i ? " " : "", ids.id[i]);
    putchar('\n');
    token_ids_free(&ids);
}

static void print_hex(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        printf("%02x", (unsigned char)text[i]);
}

static void decode_line(struct token_decoder *d, char *line) {
    size_t n;
    const char *text;
    char *end;
    for (unsigned long id = strtoul(line, &end, 10); end != line; id = strtoul(line, &end, 10)) {
        text = token_decoder_push(d, (uint32_t)id, &n);
        print_hex(text, n);
        line = end;
    }
    text = token_decoder_flush(d, &n);
    print_hex(text, n);
    putchar('\n');
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int bench(const struct tokenizer *t, const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return 1;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(n + 1);
    n = text ? fread(text, 1, n, f) : 0;
    fclose(f);
    for (int i = 0; i < 3; i++) {
        struct token_ids ids = { .id = NULL };
        struct err err = { .status = OK };
        double start = seconds();
        if (tokenizer_encode(t, text, n, TOKENIZER_ADDED, &ids, &err) != OK)
            printf("error: %s\n", err.text);
        double took = seconds() - start;
        printf("%zu bytes, %zu tokens, %.3f s, %.1f MB/s\n", n, ids.n, took,
               (double)n / took / 1e6);
        token_ids_free(&ids);
    }
    free(text);
    return 0;
}

int main(int argc, char **argv) {
    struct tokenizer *t;
    struct err err = { .status = OK };
    if (argc < 3)
        return 2;
    double start = seconds();
    if (tokenizer_open(&t, argv[1], &err) != OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int rc = 0;
    if (argc > 3) {
        printf("opened in %.3f s\n", seconds() - start);
        rc = bench(t, argv[3]);
    } else {
        struct token_decoder d;
        if (token_decoder_open(&d, t, false, &err) != OK)
            return 1;
        char *line = NULL;
        size_t capacity = 0;
        for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
            if (!strcmp(argv[2], "decode"))
                decode_line(&d, line);
            else
                encode_line(t, strcmp(argv[2], "added") ? TOKENIZER_PLAIN : TOKENIZER_ADDED, line,
                            (size_t)n - 1);
        }
        free(line);
        token_decoder_close(&d);
    }
    tokenizer_close(t);
    return rc;
}
