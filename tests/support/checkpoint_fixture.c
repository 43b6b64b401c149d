#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/checkpoint_fixture.h"

struct checkpoint_fixture fixture;

int fixture_set_up(void **state) {
    (void)state;
    memset(&fixture, 0, sizeof fixture);
    make_small_config(&fixture.small);
    fixture.dir = make_temp_dir();
    return fixture.dir ? 0 : -1;
}

int fixture_tear_down(void **state) {
    (void)state;
    remove_temp_dir(fixture.dir);
    return 0;
}

void fixture_make(const struct make_options *options) {
    struct make_options o = *options;
    o.seed = FIXTURE_SEED;
    err_clear(&fixture.err);
    if (make_checkpoint(fixture.dir, &fixture.small, &o, &fixture.err) != OK)
        fail_msg("%s", fixture.err.text);
}

void fixture_make_anew(const struct make_options *options) {
    remove_temp_dir(fixture.dir);
    fixture.dir = make_temp_dir();
    fixture_make(options);
}

const char *fixture_path(const char *name) {
    static char paths[4][4096];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", fixture.dir, name);
    return paths[next];
}

void fixture_make_file(const char *name, const char *text) {
    if (make_file(fixture.dir, name, text, strlen(text), &fixture.err) != OK)
        fail_msg("%s", fixture.err.text);
}

static enum status open_dir(void) {
    const char *const dirs[] = { fixture.dir };
    err_clear(&fixture.err);
    return checkpoint_open(&fixture.cp, dirs, 1, &fixture.err);
}

void fixture_open(void) {
    if (open_dir() != OK)
        fail_msg("%s", fixture.err.text);
}

void fixture_open_and_compare(void) {
    fixture_open();
    assert_int_equal(fixture_compare(), fixture.cp.n_tensors - fixture.cp.n_ignored);
}

void fixture_refused_at(enum status status, const char *const *texts, const char *file, int line) {
    const enum status got = open_dir();
    checkpoint_close(&fixture.cp);
    if (got != status)
        fail_msg("%s:%d: %s: \"%s\"", file, line, status_name(got), fixture.err.text);
    for (; *texts; texts++)
        if (!strstr(fixture.err.text, *texts))
            fail_msg("%s:%d: \"%s\" does not say \"%s\"", file, line, fixture.err.text, *texts);
}

const struct tensor_place *fixture_place(const struct checkpoint *cp,
                                         const struct manifest_entry *entry) {
    if (entry->id < TENSOR_ATTN_NORM)
        return &cp->global[entry->id];
    if (entry->id < TENSOR_W1)
        return &cp->layers[entry->layer][entry->id];
    return &checkpoint_expert(cp, entry->layer, entry->expert)->part[entry->id - TENSOR_W1];
}

static bool same_values(const struct manifest_entry *entry, const struct tensor_place *place,
                        const uint8_t *made, const uint8_t *read) {
    if (place->dtype == entry->dtype)
        return place->bytes == entry->bytes && memcmp(made, read, entry->bytes) == 0;
    bool same = true;
    if (place->dtype == DTYPE_I32 && place->bytes * 2 == entry->bytes)
        for (uint64_t i = 0; i < place->bytes / 4; i++)
            same &= ((const int32_t *)(const void *)read)[i] ==
                    ((const int64_t *)(const void *)made)[i];
    else if (place->dtype == DTYPE_F32 && place->bytes == entry->bytes * 4)
        for (uint64_t i = 0; i < entry->bytes; i++)
            same &= ((const uint32_t *)(const void *)read)[i] == (uint32_t)made[i] << 23;
    else
        same = false;
    return same;
}

static enum status compare_one(void *context, const struct manifest_entry *entry, struct err *err) {
    const struct tensor_place *place = fixture_place(&fixture.cp, entry);
    uint8_t *made = malloc(entry->bytes), *read = malloc(place->bytes + 1);
    make_bytes(&fixture.small, entry, FIXTURE_SEED, made);
    if (checkpoint_read(&fixture.cp, place, 0, read, place->bytes, err) != OK)
        fail_msg("%s", err->text);
    if (!same_values(entry, place, made, read))
        fail_msg("%s has other bytes", entry->name);
    free(made);
    free(read);
    ++*(uint64_t *)context;
    return OK;
}

uint64_t fixture_compare(void) {
    uint64_t n = 0;
    assert_int_equal(manifest_walk(&fixture.cp.config, compare_one, &n, &fixture.err), OK);
    return n;
}

struct manifest_entry fixture_entry(const char *name, enum dtype dtype, uint64_t rows,
                                    uint64_t cols) {
    struct manifest_entry entry = { .dtype = dtype, .n_dims = 2, .shape = { rows, cols } };
    entry.bytes = rows * cols * dtype_bytes(dtype);
    snprintf(entry.name, sizeof entry.name, "%s", name);
    return entry;
}

struct edit {
    const char *tensor, *dtype, *shape;
};

static void apply_edit(json_t *header, void *context) {
    const struct edit *edit = context;
    json_t *tensor = json_object_get(header, edit->tensor);
    assert_non_null(tensor);
    json_object_set_new(tensor, "dtype", json_string(edit->dtype));
    json_object_set_new(tensor, "shape", json_loads(edit->shape, 0, NULL));
}

void fixture_edit(const char *shard, const char *tensor, const char *dtype, const char *shape) {
    struct edit edit = { tensor, dtype, shape };
    if (make_edited(fixture_path(shard), apply_edit, &edit, &fixture.err) != OK)
        fail_msg("%s", fixture.err.text);
}
