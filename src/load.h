/* src/load.h - many tensors from disk to memory of the backend, at the drive's rate; private to src/.
 *
 * Reads in file order with several requests under way, straight past the page cache where that is
 * possible, through a few stage buffers: 28.7 GB for Pro at every start. Neighbouring tensors share
 * reads; what lies between tensors is skipped where it is long enough to be worth it. */
#ifndef SLUICE_SRC_LOAD_H
#define SLUICE_SRC_LOAD_H

#include "io/reader.h"
#include "kernels/ops.h"
#include "src/checkpoint/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One tensor, as it is stored, and where it goes. */
struct load_item {
    struct tensor_place place;
    struct mem to; /* place.bytes */
};

struct load_options {
    enum io_mode io;
    bool forbid_uring;
    /* Bytes of items that have arrived since the last call; from the calling thread. Returns false to
     * cancel. NULL: not. */
    bool (*progress)(void *context, uint64_t bytes);
    void *context;
};

/* Read all items; sorts them. ERR_IO, ERR_TRUNCATED, ERR_SYSTEM, ERR_MEMORY, CANCELLED. */
enum status load_items(const struct checkpoint *cp, struct ops *ops, struct load_item *items,
                       uint32_t n_items, const struct load_options *options, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
