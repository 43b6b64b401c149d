/* tools/bench/plain_reads.h - what the drives of a checkpoint give when nothing but reading is done:
 * experts of the model at random, whole, by the engine's reader with the engine's settings, 8 of them
 * queued ahead; more of small ones, so that the device never waits.
 *
 * A look counts the bytes between the end of the first reads and the end of the last within the time:
 * filling the queue and draining it do not count (as io_measure.h has it). Between looks nothing is at
 * the device. */
#ifndef SLUICE_TOOLS_BENCH_PLAIN_READS_H
#define SLUICE_TOOLS_BENCH_PLAIN_READS_H

#include "io/reader.h"

#ifdef __cplusplus
extern "C" {
#endif

struct plain_reads;

/* The checkpoint's own reader: `options` as the engine's. ERR_MEMORY, and as checkpoint_open and
 * reader_open. *out is NULL after a failure. */
enum status plain_reads_open(struct plain_reads **out, const char *const *dirs, uint32_t n_dirs,
                             const struct reader_options *options, struct err *err);
void plain_reads_close(struct plain_reads *p); /* NULL is fine */

/* What one expert (layer * n_experts + id) takes to read, outward rounding included. */
uint64_t plain_reads_bytes(const struct plain_reads *p, uint32_t expert);

/* Read for so long: bytes a second, outward rounding included. A drive too slow for the time is judged
 * by what came first. ERR_MEMORY, errors as request_error; CANCELLED: `cancel` said so. */
enum status plain_reads_look(struct plain_reads *p, double seconds, bool (*cancel)(void *context),
                             void *context, double *rate, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
