/* io/filemap.h - how a file lies on its device: in how many pieces, and what of it is not there.
 *
 * Holes and blocks that were reserved but never written are read without the device: a rate taken
 * from such a file says nothing. Told by FIEMAP; where a file system has none, by the blocks that
 * the file uses. */
#ifndef SLUICE_IO_FILEMAP_H
#define SLUICE_IO_FILEMAP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct filemap {
    bool known;             /* extents were told; else only absent_bytes is, roughly */
    bool whole;             /* all of them: the figures below are not of a beginning */
    uint64_t absent_bytes;  /* holes, and what was never written */
    uint64_t encoded_bytes; /* compressed or encrypted by the file system */
    uint32_t n_pieces;      /* runs of blocks that follow each other on the device */
};

/* Any regular file that is open for reading; writes nothing. */
void filemap_examine(struct filemap *out, int fd);

#ifdef __cplusplus
}
#endif
#endif
