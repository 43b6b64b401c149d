/* src/checkpoint/shard_index.h - model.safetensors.index.json: which shard holds which tensor.
 *
 *     {"metadata": {…}, "weight_map": {tensor name: file name, …}}
 *
 * Untrusted: a file name must be a plain name, so that no index reaches outside the directories
 * it was found with. The texts point into the parsed file and live until shard_index_close. */
#ifndef SLUICE_SRC_CHECKPOINT_SHARD_INDEX_H
#define SLUICE_SRC_CHECKPOINT_SHARD_INDEX_H

#include "io/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHARD_INDEX_MAX_BYTES  (64u << 20) /* Pro's has 12 MB */
#define SHARD_INDEX_MAX_SHARDS 4096u       /* each is an open file; Pro has 64 or 66 */

struct shard_index_entry {
    const char *tensor;
    uint32_t shard; /* index into shards */
};

struct json_t; /* jansson's */

struct shard_index {
    const char **shards; /* distinct file names, in order of first mention */
    uint32_t n_shards;
    struct shard_index_entry *entries; /* in the file's order */
    uint32_t n_entries;
    struct json_t *root;
};

/* Parse an index (`path` is for messages). ERR_INPUT: not JSON, no weight_map, a name given twice,
 * a file name that is no plain name, too many shards; ERR_MEMORY. Close is due after any result. */
enum status shard_index_parse(struct shard_index *index, const char *text, size_t length,
                              const char *path, struct err *err);
void shard_index_close(struct shard_index *index);

#ifdef __cplusplus
}
#endif
#endif
