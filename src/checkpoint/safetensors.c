#include "src/checkpoint/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Every dtype of the format, so that a tensor that sluice leaves alone is still checked. */
static const struct {
    const char *name;
    uint32_t bits;
} dtypes[] = {
    { "F8_E8M0", 8 },     { "I8", 8 },          { "F8_E4M3", 8 }, { "BF16", 16 },
    { "F32", 32 },        { "U8", 8 },          { "I64", 64 },    { "I32", 32 },
    { "F16", 16 },        { "BOOL", 8 },        { "F8_E5M2", 8 }, { "I16", 16 },
    { "U16", 16 },        { "U32", 32 },        { "U64", 64 },    { "F64", 64 },
    { "C64", 64 },        { "F4", 4 },          { "F6_E2M3", 6 }, { "F6_E3M2", 6 },
    { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
};

/* What is being parsed, and where complaints go. */
struct reading {
    const char *path;
    struct err *err;
    uint64_t data;     /* where the data begins in the file */
    uint64_t max_data; /* 2^63 less that: offsets in the file stay within int64_t */
};

static enum status parse_tensors(struct safetensors *st, const struct reading *r);
static enum status parse_tensor(struct safetensors_tensor *t, const json_t *entry,
                                const struct reading *r);
static enum status check_extents(struct safetensors *st, uint64_t file_bytes,
                                 const struct reading *r);

enum status safetensors_header_length(const uint8_t first[8], uint64_t file_bytes, const char *path,
                                      size_t *out, struct err *err) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | first[i];
    *out = 0;
    if (memcmp(first, "version ", 8) == 0)
        return err_set(err, ERR_INPUT,
                       "%s: a Git LFS pointer, not the weights: run `git lfs pull` there", path);
    if (length < 2 || length > SAFETENSORS_MAX_HEADER)
        return err_set(err, ERR_INPUT,
                       "%s: not a safetensors file: its header would have %llu bytes", path,
                       (unsigned long long)length);
    if (length > file_bytes - 8)
        return err_set(err, ERR_TRUNCATED, "%s: ends inside its header (%llu of %llu bytes)", path,
                       (unsigned long long)file_bytes, (unsigned long long)length + 8);
    *out = (size_t)length;
    return OK;
}

static enum status read_at(int fd, void *dst, size_t bytes, uint64_t offset, const char *path,
                           struct err *err) {
    for (size_t have = 0; have < bytes;) {
        ssize_t got = pread(fd, (char *)dst + have, bytes - have, (off_t)(offset + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, ERR_IO, "%s: cannot read its header: %s", path, strerror(errno));
        if (got == 0)
            return err_set(err, ERR_TRUNCATED, "%s: ends inside its header", path);
        have += (size_t)got;
    }
    return OK;
}

enum status safetensors_read(struct safetensors *st, int fd, uint64_t file_bytes, const char *path,
                             struct err *err) {
    *st = (struct safetensors){ 0 };
    uint8_t first[8];
    size_t length;
    if (file_bytes < sizeof first)
        return err_set(err, ERR_TRUNCATED, "%s: has only %llu bytes", path,
                       (unsigned long long)file_bytes);
    enum status status = read_at(fd, first, sizeof first, 0, path, err);
    if (status == OK)
        status = safetensors_header_length(first, file_bytes, path, &length, err);
    if (status != OK)
        return status;
    char *text = malloc(length);
    if (!text)
        return err_set(err, ERR_MEMORY, "%s: no memory for a header of %zu bytes", path, length);
    status = read_at(fd, text, length, sizeof first, path, err);
    if (status == OK)
        status = safetensors_parse(st, text, length, file_bytes, path, err);
    free(text);
    return status;
}

enum status safetensors_parse(struct safetensors *st, const char *text, size_t length,
                              uint64_t file_bytes, const char *path, struct err *err) {
    *st = (struct safetensors){ 0 };
    const struct reading r = { .path = path,
                               .err = err,
                               .data = 8 + (uint64_t)length,
                               .max_data = INT64_MAX - 8 - (uint64_t)length };
    json_error_t why;
    // The text jansson gives for a duplicate ends in the name. It refuses nesting beyond 2048.
    st->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!st->header)
        return err_set(err, ERR_INPUT, "%s: its header is not JSON: %s (byte %d)", path, why.text,
                       why.position);
    if (!json_is_object(st->header))
        return err_set(err, ERR_INPUT, "%s: its header is not a JSON object", path);
    const json_t *metadata = json_object_get(st->header, "__metadata__");
    if (metadata && !json_is_object(metadata))
        return err_set(err, ERR_INPUT, "%s: its __metadata__ is not an object", path);
    enum status status = parse_tensors(st, &r);
    return status == OK ? check_extents(st, file_bytes, &r) : status;
}

static enum status parse_tensors(struct safetensors *st, const struct reading *r) {
    const size_t n = json_object_size(st->header);
    st->tensors = malloc((n ? n : 1) * sizeof *st->tensors);
    if (!st->tensors)
        return err_set(r->err, ERR_MEMORY, "%s: no memory for %zu tensors", r->path, n);
    const char *name;
    json_t *entry;
    json_object_foreach(st->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct safetensors_tensor *t = &st->tensors[st->n_tensors];
        *t = (struct safetensors_tensor){ .name = name };
        if (parse_tensor(t, entry, r) != OK)
            return ERR_INPUT;
        st->n_tensors++;
    }
    return OK;
}

/* ---- one tensor ---- */

static enum status complain(const struct safetensors_tensor *t, const char *what,
                            const struct reading *r) {
    return err_set(r->err, ERR_INPUT, "%s: tensor %s: %s", r->path, t->name, what);
}

/* A size or an offset. What JSON can hold beyond int64 jansson has refused already. */
static bool size_value(const json_t *value, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* Bytes that the shape asks for; false if they are no whole number, or beyond 64 bits. */
static bool shape_bytes(const struct safetensors_tensor *t, uint32_t bits, uint64_t *out) {
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (t->shape[i] == 0)
            elements = 0; // first: [2^62, 2^62, 0] has no elements and overflows nothing
    for (uint32_t i = 0; i < t->n_dims && elements; i++)
        if (__builtin_mul_overflow(elements, t->shape[i], &elements))
            return false;
    if (__builtin_mul_overflow(elements, (uint64_t)bits, &elements) || elements % 8 != 0)
        return false;
    *out = elements / 8;
    return true;
}

static enum status parse_tensor(struct safetensors_tensor *t, const json_t *entry,
                                const struct reading *r) {
    if (!json_is_object(entry))
        return complain(t, "its entry is not an object", r);

    t->dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!t->dtype)
        return complain(t, "has no dtype", r);
    uint32_t bits = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes && !bits; i++)
        if (strcmp(dtypes[i].name, t->dtype) == 0)
            bits = dtypes[i].bits;
    if (!bits)
        return err_set(r->err, ERR_INPUT, "%s: tensor %s: unknown dtype \"%s\"", r->path, t->name,
                       t->dtype);

    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return complain(t, "its shape is no list of up to 8 sizes", r);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!size_value(json_array_get(shape, i), &t->shape[i]))
            return complain(t, "a size in its shape is not a whole number", r);

    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end, bytes;
    if (json_array_size(offsets) != 2 || !size_value(json_array_get(offsets, 0), &begin) ||
        !size_value(json_array_get(offsets, 1), &end))
        return complain(t, "its data_offsets are no pair of whole numbers", r);
    if (begin > end)
        return complain(t, "its data begin after they end", r);
    if (end > r->max_data)
        return complain(t, "its data lie beyond 2^63", r);
    if (!shape_bytes(t, bits, &bytes) || bytes != end - begin)
        return err_set(r->err, ERR_INPUT,
                       "%s: tensor %s: its shape and dtype do not make %llu bytes", r->path,
                       t->name, (unsigned long long)(end - begin));
    t->offset = r->data + begin;
    t->bytes = bytes;
    return OK;
}

/* ---- all tensors of a file ---- */

static int by_offset(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); // the empty ones first
}

/* Sorts; no two may share a byte, none may lie outside. Overlap comes first: it is a lie of the
 * header's, while a file that is merely short may still be downloading. */
static enum status check_extents(struct safetensors *st, uint64_t file_bytes,
                                 const struct reading *r) {
    bool sorted = true; // as published files are
    for (uint32_t i = 1; i < st->n_tensors && sorted; i++)
        sorted = by_offset(&st->tensors[i - 1], &st->tensors[i]) <= 0;
    if (!sorted)
        qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_offset);

    const struct safetensors_tensor *last = NULL; // of those that hold bytes
    for (uint32_t i = 0; i < st->n_tensors; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        if (last && t->bytes && t->offset < last->offset + last->bytes)
            return err_set(r->err, ERR_INPUT, "%s: tensors %s and %s overlap at byte %llu", r->path,
                           last->name, t->name, (unsigned long long)t->offset);
        if (t->bytes)
            last = t;
        if (t->offset + t->bytes > st->end)
            st->end = t->offset + t->bytes;
    }
    for (uint32_t i = 0; i < st->n_tensors && st->end > file_bytes; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        if (t->offset + t->bytes > file_bytes)
            return err_set(r->err, ERR_TRUNCATED,
                           "%s: truncated: %llu of %llu bytes, tensor %s is cut", r->path,
                           (unsigned long long)file_bytes, (unsigned long long)st->end, t->name);
    }
    return OK;
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *st, const char *name) {
    for (uint32_t i = 0; i < st->n_tensors; i++)
        if (strcmp(st->tensors[i].name, name) == 0)
            return &st->tensors[i];
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *st, const char *key) {
    return json_string_value(json_object_get(json_object_get(st->header, "__metadata__"), key));
}

void safetensors_close(struct safetensors *st) {
    free(st->tensors);
    json_decref(st->header);
    *st = (struct safetensors){ 0 };
}
