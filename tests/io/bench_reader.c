/* tests/io/bench_reader.c - GB/s through the reader, as experts are read.
 *
 *     bench_reader FILE [CHUNK_KIB [DEPTH [direct|buffered [uring|pread [SECONDS
 *                  [registered|plain]]]]]]
 *
 * Random reads of 35.1 MB (an expert of Pro: 8577 blocks) from FILE into pinned memory, eight
 * requests queued ahead as a layer's demand would have them. Prints one line: what the reader says
 * of itself, GB/s, and the CPU time of this process as a share of one core. */
#include "io/pinned.h"
#include "io/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define EXPERT_BYTES (8577u * READER_ALIGN)
#define N_REQUESTS   8

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static const char *arg(int argc, char **argv, int i, const char *otherwise) {
    return i < argc ? argv[i] : otherwise;
}

static int die(const struct err *err) {
    fprintf(stderr, "bench_reader: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: bench_reader FILE [CHUNK_KIB [DEPTH [direct|buffered [uring|pread "
                        "[SECONDS [registered|plain]]]]]]\n");
        return 2;
    }
    struct reader_options options = {
        .chunk_bytes = (uint32_t)atoi(arg(argc, argv, 2, "0")) << 10,
        .depth = (uint32_t)atoi(arg(argc, argv, 3, "0")),
        .mode = strcmp(arg(argc, argv, 4, "direct"), "direct") == 0 ? IO_DIRECT : IO_BUFFERED,
        .forbid_uring = strcmp(arg(argc, argv, 5, "uring"), "pread") == 0,
    };
    double seconds = atof(arg(argc, argv, 6, "2"));
    bool registered = strcmp(arg(argc, argv, 7, "registered"), "registered") == 0;

    struct err err = { .status = OK };
    struct pinned memory;
    struct reader *reader;
    struct pinned_options want = { .bytes = (uint64_t)N_REQUESTS * EXPERT_BYTES,
                                   .want_huge = true };
    if (pinned_open(&memory, &want, &err) != OK || reader_open(&reader, &options, &err) != OK)
        return die(&err);
    uint32_t file;
    if (reader_add_file(reader, argv[1], &file, &err) != OK)
        return die(&err);
    if (registered)
        reader_add_memory(reader, memory.base, memory.bytes);
    FILE *f = fopen(argv[1], "rb");
    uint64_t n_blocks = 0;
    if (f && fseek(f, 0, SEEK_END) == 0)
        n_blocks = (uint64_t)ftell(f) / READER_ALIGN;
    if (f)
        fclose(f);
    if (n_blocks <= EXPERT_BYTES / READER_ALIGN) {
        fprintf(stderr, "bench_reader: %s: shorter than an expert\n", argv[1]);
        return 1;
    }

    struct request requests[N_REQUESTS] = { 0 };
    uint64_t bytes = 0, random = clock_now_ns(clock_system()); // other places every time
    uint64_t start = clock_now_ns(clock_system()), now = start;
    double cpu = cpu_seconds();
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        requests[i].owner = &requests[i];
    for (uint32_t next = 0; now - start < (uint64_t)(seconds * 1e9) || n_out > 0;) {
        bool time_left = now - start < (uint64_t)(seconds * 1e9);
        while (time_left && n_out < N_REQUESTS) {
            struct request *q = &requests[next];
            if (q->state != REQUEST_IDLE)
                break; // requests end out of order; this slot is still being read
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint64_t block = (random >> 20) % (n_blocks - EXPERT_BYTES / READER_ALIGN);
            q->n_reads = 1;
            q->reads[0] = (struct read){ .file = file,
                                         .offset = block * READER_ALIGN,
                                         .bytes = EXPERT_BYTES,
                                         .dst = memory.base + (uint64_t)next * EXPERT_BYTES };
            reader_submit(reader, q);
            next = (next + 1) % N_REQUESTS;
            n_out++;
        }
        event_wait(reader_event(reader), UINT64_MAX);
        for (struct request *q; (q = reader_next(reader));) {
            if (request_error(reader, q, &err) != OK)
                return die(&err);
            bytes += q->bytes_read;
            q->state = REQUEST_IDLE;
            n_out--;
        }
        now = clock_now_ns(clock_system());
    }
    double took = (double)(now - start) * 1e-9;
    printf("%.3f GB/s  cpu %.0f%%  %s\n%s", (double)bytes / took * 1e-9,
           100.0 * (cpu_seconds() - cpu) / took, reader_describe(reader), reader_notes(reader));
    reader_close(reader);
    pinned_close(&memory);
    return 0;
}
