// A disk that costs nothing: every chunk is done at once.
#include "io/disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct null_disk {
    struct disk disk;
    bool pattern;
    uint32_t n_files;
    uint32_t n_done;
    struct disk_result *done; // [depth], submitted and not yet reaped
};

// splitmix64: every 8 bytes of a file are the mix of where they lie.
static uint64_t pattern_word(uint32_t file, uint64_t word) {
    uint64_t x = ((uint64_t)file << 56 ^ word) + 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

void disk_pattern(uint32_t file, uint64_t offset, unsigned char *dst, size_t bytes) {
    while (bytes > 0) {
        uint64_t word = pattern_word(file, offset / 8);
        size_t from = offset % 8, n = 8 - from < bytes ? 8 - from : bytes;
        memcpy(dst, (const unsigned char *)&word + from, n);
        dst += n;
        offset += n;
        bytes -= n;
    }
}

static enum status null_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    (void)fd, (void)path, (void)err;
    ((struct null_disk *)d)->n_files++;
    return OK;
}

static void null_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    struct null_disk *null = (struct null_disk *)d;
    assert(n <= d->depth - null->n_done);
    for (uint32_t i = 0; i < n; i++) {
        assert(chunks[i].file < null->n_files);
        if (null->pattern)
            disk_pattern(chunks[i].file, chunks[i].offset, chunks[i].dst, chunks[i].bytes);
        null->done[null->n_done++] =
            (struct disk_result){ .tag = chunks[i].tag, .result = (int32_t)chunks[i].bytes };
    }
}

static uint32_t null_reap(struct disk *d, struct disk_result *results, uint32_t max,
                          uint64_t timeout_ns) {
    (void)timeout_ns; // there is never anything to wait for
    struct null_disk *null = (struct null_disk *)d;
    uint32_t n = null->n_done < max ? null->n_done : max;
    memcpy(results, null->done, n * sizeof *results);
    memmove(null->done, null->done + n, (null->n_done - n) * sizeof *null->done);
    null->n_done -= n;
    return n;
}

static void null_close(struct disk *d) {
    struct null_disk *null = (struct null_disk *)d;
    free(null->done);
    free(null);
}

enum status disk_null_open(struct disk **out, uint32_t depth, bool pattern, struct err *err) {
    static const struct disk_ops ops = {
        .name = "null disk",
        .add_file = null_add_file,
        .submit = null_submit,
        .reap = null_reap,
        .close = null_close,
    };
    *out = NULL;
    if (depth < 1 || depth > DISK_DEPTH_MAX)
        return err_set(err, ERR_USAGE, "depth %u is not within 1 to %d", depth, DISK_DEPTH_MAX);
    struct null_disk *null = calloc(1, sizeof *null);
    struct disk_result *done = calloc(depth, sizeof *done);
    if (!null || !done) {
        free(null);
        free(done);
        return err_set(err, ERR_MEMORY, "no memory for a null disk");
    }
    *null = (struct null_disk){
        .disk = { .ops = &ops, .depth = depth, .synchronous = true },
        .pattern = pattern,
        .done = done,
    };
    *out = &null->disk;
    return OK;
}
