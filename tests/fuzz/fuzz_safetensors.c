/* fuzz_safetensors - a file of any bytes as a shard: its length, its header, what it promises.
 *
 * The input is a whole file. It is also tried as the header's text alone, of a file that is large
 * enough for whatever it promises, which spares the fuzzer the 8 bytes of length. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

/* What safetensors.h promises after each result. */
static void check(const struct safetensors *st, enum status status, const struct err *err,
                  uint64_t file_bytes) {
    MUST(status == err->status);
    MUST((status == OK) == (err->text[0] == 0));
    if (status != OK)
        return;
    uint64_t at = 8;
    MUST(st->end <= file_bytes);
    for (uint32_t i = 0; i < st->n_tensors; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        MUST(t->name && t->dtype && t->n_dims <= SAFETENSORS_MAX_DIMS);
        MUST(t->bytes <= file_bytes && t->offset <= file_bytes - t->bytes);
        MUST(t->bytes == 0 || t->offset >= at);
        if (t->bytes)
            at = t->offset + t->bytes;
    }
    if (st->n_tensors)
        MUST(safetensors_find(st, st->tensors[0].name) == &st->tensors[0]);
    MUST(!safetensors_find(st, "__metadata__"));
    const char *format = safetensors_metadata(st, "format");
    MUST(!format || strlen(format) < file_bytes);
}

static void as_file(const uint8_t *data, size_t size) {
    struct safetensors st;
    struct err err = { .status = OK };
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    const enum status status = safetensors_read(&st, fd, size, "file", &err);
    check(&st, status, &err, size);
    safetensors_close(&st);
    close(fd);
}

static void as_header(const uint8_t *data, size_t size) {
    struct safetensors st;
    struct err err = { .status = OK };
    // A copy of exactly this size, so that reading beyond it is seen.
    char *text = malloc(size ? size : 1);
    memcpy(text, data, size);
    const uint64_t file_bytes = INT64_MAX;
    const enum status status = safetensors_parse(&st, text, size, file_bytes, "header", &err);
    check(&st, status, &err, file_bytes);
    MUST(status != ERR_TRUNCATED);
    safetensors_close(&st);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    as_file(data, size);
    as_header(data, size);
    return 0;
}
