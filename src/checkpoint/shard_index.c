#include "src/checkpoint/shard_index.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool plain_name(const char *name) {
    return *name && strlen(name) <= NAME_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* The number of a shard's name, given out in order of first mention. `numbers` maps names to
 * numbers: a hostile index may name thousands of shards a million times. */
static enum status number_of(struct shard_index *index, json_t *numbers, const char *file,
                             const char *path, uint32_t *out, struct err *err) {
    const json_t *known = json_object_get(numbers, file);
    if (known) {
        *out = (uint32_t)json_integer_value(known);
        return OK;
    }
    if (index->n_shards == SHARD_INDEX_MAX_SHARDS)
        return err_set(err, ERR_INPUT, "%s: names more than %u shards", path,
                       SHARD_INDEX_MAX_SHARDS);
    *out = index->n_shards;
    if (json_object_set_new(numbers, file, json_integer(*out)) != 0)
        return err_set(err, ERR_MEMORY, "%s: no memory for its shards", path);
    index->shards[index->n_shards++] = file;
    return OK;
}

static enum status fill(struct shard_index *index, json_t *map, json_t *numbers, const char *path,
                        struct err *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file)
            return err_set(err, ERR_INPUT, "%s: the file of tensor %s is not a string", path,
                           tensor);
        if (!plain_name(file))
            return err_set(err, ERR_INPUT,
                           "%s: tensor %s is said to lie in \"%s\", which is no plain file name",
                           path, tensor, file);
        struct shard_index_entry *entry = &index->entries[index->n_entries];
        entry->tensor = tensor;
        enum status status = number_of(index, numbers, file, path, &entry->shard, err);
        if (status != OK)
            return status;
        index->n_entries++;
    }
    return OK;
}

enum status shard_index_parse(struct shard_index *index, const char *text, size_t length,
                              const char *path, struct err *err) {
    *index = (struct shard_index){ 0 };
    json_error_t why;
    index->root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!index->root)
        return err_set(err, ERR_INPUT, "%s: not JSON: %s (line %d)", path, why.text, why.line);
    json_t *map = json_object_get(index->root, "weight_map");
    if (!json_is_object(map))
        return err_set(err, ERR_INPUT, "%s: has no \"weight_map\" object", path);
    const size_t n = json_object_size(map);
    if (n == 0)
        return err_set(err, ERR_INPUT, "%s: its \"weight_map\" is empty", path);
    index->entries = malloc(n * sizeof *index->entries);
    index->shards = malloc(SHARD_INDEX_MAX_SHARDS * sizeof *index->shards);
    json_t *numbers = json_object();
    enum status status = index->entries && index->shards && numbers
                             ? fill(index, map, numbers, path, err)
                             : err_set(err, ERR_MEMORY, "%s: no memory for %zu names", path, n);
    json_decref(numbers);
    return status;
}

void shard_index_close(struct shard_index *index) {
    free(index->shards);
    free(index->entries);
    json_decref(index->root);
    *index = (struct shard_index){ 0 };
}
