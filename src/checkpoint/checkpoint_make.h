/* src/checkpoint/checkpoint_make.h - write a random checkpoint in the published form, at the drive's speed.
 *
 *   nothing --checkpoint_make--> *.mkmodel files --all written and synced--> renamed, config.json last
 *
 * Until the last moment every file has the suffix `.mkmodel`, so a run that was killed leaves nothing
 * that looks like a checkpoint; the next run into the same directory clears such remains away. A
 * run that fails or is cancelled removes what it wrote itself. A directory that holds anything else
 * is refused: nothing is ever overwritten.
 *
 * Shards are written by several threads with O_DIRECT (through the page cache where that is
 * refused), their space reserved first. The same plan and seed give the same bytes for any number
 * of threads. Blocks until done; callbacks run on the calling thread. */
#ifndef SLUICE_SRC_CHECKPOINT_CHECKPOINT_MAKE_H
#define SLUICE_SRC_CHECKPOINT_CHECKPOINT_MAKE_H

#include "src/checkpoint/checkpoint_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A small file that lies beside the shards, tokenizer.json and the like: its bytes, or who writes
 * them to a path, from nothing. */
struct companion_file {
    const char *name;
    const char *bytes; /* NULL: */
    uint64_t n_bytes;
    enum status (*write)(const struct config *c, const char *path, struct err *err);
};

struct checkpoint_make_options {
    uint64_t seed;
    uint32_t n_threads; /* 0: one for each core, and two that wait for the drive */
    const struct companion_file *companions; /* config.json and the index are written in any case */
    uint32_t n_companions;
    /* Called a few times a second and more, bytes of shards; false ends the run (CANCELLED). */
    bool (*progress)(void *context, uint64_t done, uint64_t total);
    /* Bytes that an ordinary user may still write under `dir`; NULL: asks the file system. */
    uint64_t (*free_bytes)(void *context, const char *dir);
    void *context;
};

/* Write the plan into `dir`, which is made if it does not exist, parents included.
 *   ERR_USAGE   `dir` is not empty
 *   ERR_SYSTEM  "needs X, has Y": too little free space, found before anything was written; no
 *               threads
 *   ERR_IO      it cannot be written, or the drive filled up in the meantime
 *   ERR_MEMORY
 *   CANCELLED   progress said so */
enum status checkpoint_make(const char *dir, const struct checkpoint_plan *plan,
                            const struct checkpoint_make_options *options, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
