/* src/checkpoint/checkpoint_plan.h - which tensor goes where in a checkpoint that is about to be written.
 *
 * The inverse of checkpoint.h, without a byte of weights: shards, their headers, the index. As in
 * the published files nothing is aligned, and an expert's six tensors follow each other.
 *
 * Memory: about 40 bytes a tensor and the headers' text, from open to close. Immutable in between. */
#ifndef SLUICE_SRC_CHECKPOINT_CHECKPOINT_PLAN_H
#define SLUICE_SRC_CHECKPOINT_CHECKPOINT_PLAN_H

#include "src/checkpoint/manifest.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A tensor in its shard; manifest_entry(config, id, layer, expert) says the rest. */
struct planned_tensor {
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
    uint32_t layer;
    uint16_t expert;
    uint16_t id; /* enum tensor_id */
};

#define PLANNED_NAME_BYTES 64

struct planned_shard {
    char name[PLANNED_NAME_BYTES]; /* "model-00001-of-00064.safetensors" */
    uint32_t first, n_tensors;     /* in checkpoint_plan.tensors */
    uint64_t bytes;                /* of the whole file */
    char *header;                  /* length, JSON: what stands before the tensors */
    uint64_t header_bytes;
};

struct checkpoint_plan {
    struct config config;
    struct planned_tensor *tensors; /* in the order of manifest_walk, so ascending in each shard */
    uint32_t n_tensors;
    struct planned_shard *shards;
    uint32_t n_shards;
    uint64_t bytes;        /* of all shards */
    uint64_t tensor_bytes; /* of all tensors */
};

/* Plan the files of a config.
 *   n_shards 0  as published: the embedding, each layer, norm and head, each draft block has a file
 *   n_shards N  N files of nearly the same size, cut between any two tensors: an expert on a cut
 *               lies in two files, as in re-sharded copies
 * ERR_USAGE: more shards than tensors (or than a file name counts); ERR_MEMORY. Close is due after
 * any result. */
enum status checkpoint_plan_open(struct checkpoint_plan *plan, const struct config *c,
                                 uint32_t n_shards, struct err *err);
void checkpoint_plan_close(struct checkpoint_plan *plan);

/* The text of model.safetensors.index.json; the caller frees it. NULL: out of memory. */
char *checkpoint_plan_index(const struct checkpoint_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
