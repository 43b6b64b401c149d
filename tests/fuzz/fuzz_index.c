/* fuzz_index - any text as a model.safetensors.index.json, and its names as tensors' names. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/shard_index.h"
#include "src/checkpoint/tensor_name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct shard_index index;
    struct err err = { .status = OK };
    char *text = malloc(size ? size : 1);
    memcpy(text, data, size);
    const enum status status = shard_index_parse(&index, text, size, "index.json", &err);
    free(text); // names live in the index, not in the text
    MUST(status == err.status);
    MUST((status == OK) == (err.text[0] == 0));
    for (uint32_t i = 0; i < index.n_entries && status == OK; i++) {
        const struct shard_index_entry *entry = &index.entries[i];
        MUST(entry->shard < index.n_shards);
        const struct tensor_name name = tensor_name_parse(entry->tensor);
        MUST(name.kind != NAME_TENSOR || (unsigned)name.id < TENSOR_COUNT);
        MUST(name.block <= 1000000 && name.expert <= 1000000);
    }
    for (uint32_t i = 0; i < index.n_shards && status == OK; i++)
        MUST(*index.shards[i] && !strchr(index.shards[i], '/'));
    shard_index_close(&index);
    return 0;
}
