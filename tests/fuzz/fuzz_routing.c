/* fuzz_routing - any bytes as a routing trace: what is handed out is in bounds, and comes out of the
 * writer as it was. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/routing_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

// A file in memory, under a name of its own.
static int memory_file(char path[64]) {
    const int fd = memfd_create("trace", MFD_CLOEXEC);
    MUST(fd >= 0);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

static void check_step(const struct routing_header *h, const struct routing_step *step,
                       size_t size) {
    MUST(step->n_rows >= 1 && step->offset < size);
    MUST(step->n_blocks == h->n_blocks || step->n_blocks == routing_n_trunk(h));
    for (uint32_t row = 0; row < step->n_rows; row++)
        for (uint32_t block = 0; block < step->n_blocks; block++) {
            const uint16_t *experts = routing_experts(h, step, block, row);
            for (uint32_t k = 0; k < h->n_chosen; k++)
                MUST(experts[k] < h->n_experts && (k == 0 || experts[k] >= experts[k - 1]));
        }
}

static void write_again(struct routing_writer *w, const struct routing_header *h,
                        const struct routing_step *step) {
    const bool draft = step->n_blocks > routing_n_trunk(h);
    const uint32_t n = step->n_rows * h->n_chosen;
    int32_t *experts = malloc(n * sizeof *experts);
    MUST(experts);
    routing_writer_begin(w, step->n_rows, draft);
    for (uint32_t row = 0; row < step->n_rows; row++) {
        const int32_t token = (int32_t)step->token[row];
        routing_writer_rows(w, row, 1, step->sequence[row], step->position[row], &token);
    }
    for (uint32_t block = 0; block < step->n_blocks; block++) {
        for (uint32_t i = 0; i < n; i++)
            experts[i] = routing_experts(h, step, block, 0)[i];
        routing_writer_experts(w, block, experts);
    }
    routing_writer_commit(w);
    free(experts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64], copy_path[64];
    const int fd = memory_file(path), copy = memory_file(copy_path);
    struct routing_reader *r;
    struct routing_writer *w = NULL;
    struct routing_step step;
    struct err err = { .status = OK }, end = { .status = OK };
    uint64_t whole = 0; // bytes of the copy
    MUST(write(fd, data, size) == (ssize_t)size);
    enum status status = routing_reader_open(&r, path, &err);
    MUST((status == OK) == (r != NULL));
    const struct routing_header *h = r ? routing_reader_header(r) : NULL;
    if (h && size < 1 << 16) { // a step of it has no more rows than that
        MUST(routing_writer_open(&w, copy_path, &end) == OK);
        // The buffer of so many rows of the largest model would take 1 GB.
        const uint32_t rows = 1 + (uint32_t)(size / (12 + h->n_chosen));
        MUST(routing_writer_start(w, h, rows, &end) == OK);
    }
    while (status == OK && (status = routing_reader_next(r, &step, &err)) == OK) {
        check_step(h, &step, size);
        if (w)
            write_again(w, h, &step);
    }
    MUST(status == DONE || status == err.status);
    MUST((status == DONE) == (err.text[0] == 0));
    MUST(!strchr(err.text, '\n'));
    if (w) {
        MUST(routing_writer_finish(w, &end) == OK);
        struct stat st;
        MUST(fstat(copy, &st) == 0);
        whole = (uint64_t)st.st_size;
        MUST(whole <= size && (status != DONE || whole == size));
        uint8_t *bytes = malloc(whole);
        MUST(bytes && pread(copy, bytes, whole, 0) == (ssize_t)whole);
        MUST(memcmp(bytes, data, whole) == 0);
        free(bytes);
    }
    routing_writer_close(w);
    routing_reader_close(r);
    close(copy);
    close(fd);
    return 0;
}
