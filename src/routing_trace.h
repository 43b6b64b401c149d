/* src/routing_trace.h - which experts every token chose, as a file: written by `sluice run` and `eval`
 * (--record-routing FILE), read by what measures caches and prefetch (tools/plot-routing.py too).
 *
 * The format, version 1. Numbers are unsigned and little-endian, nothing is padded:
 *
 *   header      8  "slroute\n"
 *               4  version: 1
 *               4  B: blocks, the layers of the trunk and then the draft block, if it was loaded
 *               4  E: experts of a block
 *               4  K: experts that a row chooses in each
 *               8  bytes of one expert in the checkpoint: what a miss reads
 *               B  kind of each block, a byte: 1 its experts follow from the token alone (hash),
 *                  2 it is a draft block; or-ed
 *   then steps, each
 *               4  R: rows, at least 1
 *               4  b: blocks that were run: all of B, or all but the draft block
 *          R × 12  sequence, position, token of each row, 4 bytes each
 *   b × R × K × w  experts: block by block, in it row by row, in it K ids, ascending (a hash table
 *                  may name one twice); w is 1 where E is at most 256, else 2
 *
 * One decoded token of Pro: 752 bytes. A step is in the file once it is committed; what was
 * cancelled or abandoned never is. Steps come in the order in which they were run. A sequence's
 * positions ascend from 0; one that is not above the last of its sequence says that it was rolled
 * back to there. In a draft block, row and token are those of the trunk: it routes by what follows.
 *
 * After each step the file is whole, so a run that was killed leaves one that ends with, at worst,
 * a piece of a step: the reader hands out all before it, then says so. */
#ifndef SLUICE_SRC_ROUTING_TRACE_H
#define SLUICE_SRC_ROUTING_TRACE_H

#include "io/status.h"
#include "src/checkpoint/config.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ROUTING_VERSION     1
#define ROUTING_MAX_EXPERTS 65536     /* ids are 2 bytes at most; a config's are below 4097 */
#define ROUTING_MAX_ROWS    (1 << 20) /* of a step: 16 times the largest --chunk */

enum routing_kind { ROUTING_HASH = 1, ROUTING_DRAFT = 2 };

struct routing_header {
    uint32_t n_blocks, n_experts, n_chosen;
    uint64_t expert_bytes;
    uint8_t kind[CONFIG_MAX_LAYERS]; /* enum routing_kind, or-ed; of n_blocks */
};

/* Of a model that runs the first n_blocks blocks, trunk and then draft block. */
void routing_header_init(struct routing_header *h, const struct config *c, uint32_t n_blocks,
                         uint64_t expert_bytes);

/* How many blocks the trunk has. */
uint32_t routing_n_trunk(const struct routing_header *h);

/* --- writing ----------------------------------------------------------------------------------
 *
 *   open --start--> STARTED --begin, rows, experts of each block ascending--> commit --> STARTED
 *
 * A begin without a commit before it forgets what was gathered: that step was abandoned. All memory
 * is taken by start. An error of the disk ends the recording and nothing else: it is kept, what
 * follows does nothing, the file ends after the last step that is whole, and finish hands the
 * error over. So no answer is lost for its trace. One thread. */

struct routing_writer;

/* Make the file, or open one that is there: it keeps what it has until start. ERR_IO, ERR_MEMORY;
 * *out is NULL then. */
enum status routing_writer_open(struct routing_writer **out, const char *path, struct err *err);

/* Write the header; steps will have at most max_rows rows. ERR_IO, ERR_MEMORY. */
enum status routing_writer_start(struct routing_writer *w, const struct routing_header *header,
                                 uint32_t max_rows, struct err *err);

/* A step of n_rows rows, with the draft block or without. */
void routing_writer_begin(struct routing_writer *w, uint32_t n_rows, bool draft);
/* Its rows first … first+n−1: neighbours in one sequence, from `position` on. */
void routing_writer_rows(struct routing_writer *w, uint32_t first, uint32_t n, uint32_t sequence,
                         uint32_t position, const int32_t *tokens);
/* What its rows chose in a block: [n_rows][K], ascending, ids within the block. A block that is
 * retried may say so again. */
void routing_writer_experts(struct routing_writer *w, uint32_t block, const int32_t *experts);
/* Append it. */
void routing_writer_commit(struct routing_writer *w);

/* Close the file; the error that ended the recording, if one did. To be closed still. */
enum status routing_writer_finish(struct routing_writer *w, struct err *err);

/* Free it. A file that open made and start did not write to is removed. NULL is fine. */
void routing_writer_close(struct routing_writer *w);

/* --- reading ----------------------------------------------------------------------------------
 *
 * The file is nobody's to trust: everything is checked before it is used, and memory is taken for
 * no more than the file has. After OK every id is below n_experts. */

struct routing_reader;

struct routing_step {
    uint64_t offset; /* in the file */
    uint32_t n_rows, n_blocks;
    const uint32_t *sequence, *position, *token; /* [n_rows] */
    const uint16_t *experts;                     /* [n_blocks][n_rows][K] */
};

/* Open, and read the header.
 *   ERR_MISSING    there is no such file
 *   ERR_INPUT      no regular file, no trace, one of another version, or a header that cannot be
 *   ERR_TRUNCATED  it ends inside the header
 *   ERR_IO, ERR_MEMORY, ERR_SYSTEM
 * *out is NULL after an error. */
enum status routing_reader_open(struct routing_reader **out, const char *path, struct err *err);
void routing_reader_close(struct routing_reader *r); /* NULL is fine */

const struct routing_header *routing_reader_header(const struct routing_reader *r);

/* The next step; it is the reader's, and valid until the next call.
 *   OK
 *   DONE           the file ended with the step before
 *   ERR_TRUNCATED  it ends inside this one: the text has its offset, and how many are whole
 *   ERR_INPUT      a step that cannot be, with its offset
 *   ERR_IO, ERR_MEMORY
 * After an error only close is left to do. */
enum status routing_reader_next(struct routing_reader *r, struct routing_step *out,
                                struct err *err);

/* The K experts of a row in a block. */
static inline const uint16_t *routing_experts(const struct routing_header *h,
                                              const struct routing_step *step, uint32_t block,
                                              uint32_t row) {
    return step->experts + ((uint64_t)block * step->n_rows + row) * h->n_chosen;
}

#ifdef __cplusplus
}
#endif
#endif
