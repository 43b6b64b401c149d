/* src/checkpoint/safetensors.h - one file's header, distrusted.
 *
 * A safetensors file is 8 bytes of little-endian header length, a JSON header
 * (name -> {dtype, shape, data_offsets: [begin, end]}, offsets from the end of the header, and an
 * optional __metadata__), then the data. After OK every tensor has a known dtype, its shape and
 * its extent agree, its extent lies inside the file and overlaps no other. Holes are allowed.
 * Nothing aligns a tensor to anything.
 *
 * Memory: the parsed header (about 1 KB a tensor) lives until safetensors_close; name and dtype
 * point into it. No shared state: one object, one thread. */
#ifndef SLUICE_SRC_CHECKPOINT_SAFETENSORS_H
#define SLUICE_SRC_CHECKPOINT_SAFETENSORS_H

#include "io/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SAFETENSORS_MAX_HEADER 100000000u /* bytes, the format's own limit; Pro's: 0.3 MB */
#define SAFETENSORS_MAX_DIMS   8

struct safetensors_tensor {
    const char *name;
    const char *dtype; /* as the file spells it: "BF16", "F8_E4M3", … one the format knows */
    uint32_t n_dims;   /* 0: a scalar */
    uint64_t shape[SAFETENSORS_MAX_DIMS];
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
};

struct json_t; /* jansson's */

struct safetensors {
    struct safetensors_tensor *tensors; /* ascending by offset */
    uint32_t n_tensors;
    uint64_t end; /* where the last tensor ends: the file must be this long; 0 if not known */
    struct json_t *header;
};

/* The length of the header text, from a file's first 8 bytes, checked against the format's limit
 * (ERR_INPUT) and the file's size (ERR_TRUNCATED). A Git LFS pointer is told apart by name. */
enum status safetensors_header_length(const uint8_t first[8], uint64_t file_bytes, const char *path,
                                      size_t *out, struct err *err);

/* Parse a header: its text, which begins at byte 8 of a file of file_bytes; `path` is for messages.
 *   ERR_INPUT      not JSON, names given twice, an unknown dtype, a shape that does not match its
 *                  extent, begin after end, two extents that overlap: file and tensor are named
 *   ERR_TRUNCATED  well formed, but the file ends before st->end: err names the first tensor
 *                  that is cut
 *   ERR_MEMORY
 * safetensors_close is safe, and due, after any result. */
enum status safetensors_parse(struct safetensors *st, const char *text, size_t length,
                              uint64_t file_bytes, const char *path, struct err *err);

/* Both, of an open file of file_bytes. Also ERR_IO. */
enum status safetensors_read(struct safetensors *st, int fd, uint64_t file_bytes, const char *path,
                             struct err *err);

/* A tensor by its exact name (linear: for files of few tensors), NULL if there is none; a value of
 * __metadata__, NULL likewise. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *st, const char *name);
const char *safetensors_metadata(const struct safetensors *st, const char *key);

void safetensors_close(struct safetensors *st);

#ifdef __cplusplus
}
#endif
#endif
