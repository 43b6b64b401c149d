/* tests/io/reader_world.h - a reader over each kind of disk, and two files with known bytes.
 *
 * File 0 is as long as FILE_BYTES, which ends inside a block; file 1 likewise. On disks without
 * files the same bytes are there, and more. */
#ifndef SLUICE_TESTS_IO_READER_WORLD_H
#define SLUICE_TESTS_IO_READER_WORLD_H

#include "tests/io/fixture.h"

#define FILE_BYTES  (1024 * 1024 + 1234)
#define CHUNK_BYTES (4 * READER_ALIGN)
#define DEPTH       6

enum engine { URING, PREAD, NULL_DISK, MODEL, SLOW_DISK, ENGINES };

struct setup {
    enum engine engine;
    enum io_mode mode;
    const struct disk_faulty_options *faults; /* NULL: none */
    uint32_t depth, chunk_bytes;              /* 0: DEPTH, CHUNK_BYTES */
};

struct world {
    struct folder folder;
    char path[2][512];
    struct clock_virtual clock;
    struct disk *inner, *faulty;
    struct reader *reader;
};

static inline const char *engine_name(enum engine engine) {
    const char *names[] = { "uring", "pread", "null", "model", "slow" };
    return names[engine];
}

static inline bool engine_is_here(enum engine engine) {
    struct device_limits limits;
    device_limits(&limits);
    return engine != URING || limits.uring == URING_YES;
}

static inline void world_open_disk(struct world *w, const struct setup *s, uint32_t depth) {
    struct disk_model_options model = { .clock = s->engine == MODEL ? &w->clock : NULL,
                                        .bytes_per_s = 2000000000,
                                        .latency_ns = 80000,
                                        .depth = depth };
    switch (s->engine) {
    case URING:
        if (s->faults)
            assert_int_equal(disk_uring_open(&w->inner, depth, NULL), OK);
        break;
    case PREAD:
        if (s->faults)
            assert_int_equal(disk_pread_open(&w->inner, depth, NULL), OK);
        break;
    case NULL_DISK:
        assert_int_equal(disk_null_open(&w->inner, depth, true, NULL), OK);
        break;
    default:
        assert_int_equal(disk_model_open(&w->inner, &model, NULL), OK);
    }
    if (s->faults)
        assert_int_equal(disk_faulty_open(&w->faulty, w->inner, s->faults, NULL), OK);
}

static inline void world_open(struct world *w, struct setup s) {
    *w = (struct world){ .inner = NULL };
    clock_virtual_init(&w->clock);
    folder_open(&w->folder);
    uint32_t depth = s.depth ? s.depth : DEPTH;
    world_open_disk(w, &s, depth);
    struct reader_options options = {
        .clock = s.engine == MODEL ? &w->clock.clock : NULL,
        .mode = s.mode,
        .disk = w->faulty ? w->faulty : w->inner,
        .chunk_bytes = s.chunk_bytes ? s.chunk_bytes : CHUNK_BYTES,
        .depth = depth,
        .forbid_uring = s.engine == PREAD,
    };
    assert_int_equal(reader_open(&w->reader, &options, NULL), OK);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t file;
        folder_path(&w->folder, i ? "model-00002.safetensors" : "model-00001.safetensors",
                    w->path[i]);
        if (s.engine == URING || s.engine == PREAD)
            write_file(w->path[i], i, FILE_BYTES);
        assert_int_equal(reader_add_file(w->reader, w->path[i], &file, NULL), OK);
        assert_int_equal(file, i);
        assert_string_equal(reader_path(w->reader, file), w->path[i]);
    }
}

static inline void world_close(struct world *w) {
    reader_close(w->reader);
    disk_close(w->faulty);
    disk_close(w->inner);
    folder_close(&w->folder);
}

/* Random extents of both files, at any byte. */
static inline void any_extents(uint64_t *seed, struct extent *extents, uint32_t n,
                               uint64_t max_bytes) {
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bytes = 1 + random_below(seed, max_bytes);
        extents[i] = (struct extent){ .file = (uint32_t)random_below(seed, 2),
                                      .offset = random_below(seed, FILE_BYTES - bytes + 1),
                                      .bytes = bytes };
    }
}

#endif
