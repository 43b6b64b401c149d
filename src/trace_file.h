/* src/trace_file.h - the timeline of a run as a file that ui.perfetto.dev and chrome://tracing open.
 *
 * The file is JSON in Chrome's trace event format, times in microseconds from trace_file_open on:
 *
 *   control thread   spans: a step (category "step", args step and rows), in it a layer ("layer"),
 *                    in it an activity of the account (the category is the phase). What is no part of
 *                    a step lies beside them. While a person types there is nothing
 *   reads            an asynchronous span for each request (category "read"; demand, gather,
 *                    ahead, prefetch, background) from submission to its end, in it "queued" and
 *                    "active"; args: layer and expert, or dense (a unit of src/dense_plan.h);
 *                    bytes, status
 *   disk             instants: reads that were cancelled or failed
 *   disk queue       counters: chunks at the device, their bytes, requests not ended; and the bytes
 *                    that have come back so far, whose slope is the rate (at most one in a
 *                    millisecond where nothing else changes)
 *
 * tools/trace-summary.py makes figures of it. After traceEvents there is one object more:
 *
 *   "sluice": {"lost_events": 0, "complete": true}
 *
 * lost_events is how many found no room in their ring (each gap is an instant too), complete whether
 * the run came to its end, by Ctrl-C or otherwise.
 *
 *   open --start--> WRITING --every 100 ms, by a thread of its own--> WRITING --finish--> closed
 *
 * The file is whole after each write: of a run that was killed it lacks the last tenth of a second.
 * An error of the disk ends the recording and nothing else: the file is cut back to what is whole,
 * and finish hands the error over. So no answer is lost for its trace. */
#ifndef SLUICE_SRC_TRACE_FILE_H
#define SLUICE_SRC_TRACE_FILE_H

#include "io/clock.h"
#include "io/status.h"
#include "io/trace.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct trace_file;

struct trace_file_options {
    const struct clock *clock; /* NULL: the system's */
    uint32_t ring_events;      /* of each track; 0: the default in trace_file.c */
    bool no_thread;            /* trace_file_write is called instead */
};

/* Make the file, or open one that is there: it keeps what it has until start. ERR_IO, ERR_MEMORY;
 * *out is NULL then. */
enum status trace_file_open(struct trace_file **out, const char *path,
                            const struct trace_file_options *options, struct err *err);

/* Where to record: from open to finish; what comes before start waits in the rings. */
struct trace *trace_file_trace(struct trace_file *f);

/* Write the head, and go on writing. Experts are numbered layer by layer, n_experts in each; layers
 * from n_layers on are draft blocks. ERR_IO, ERR_SYSTEM (no thread). */
enum status trace_file_start(struct trace_file *f, uint32_t n_layers, uint32_t n_experts,
                             struct err *err);

/* Write what has been recorded so far; only with no_thread. */
void trace_file_write(struct trace_file *f);

/* Everything that records is closed: write the rest and close the file. The error that ended the
 * recording, if one did. */
enum status trace_file_finish(struct trace_file *f, struct err *err);

/* How many events found no room; after finish. */
uint64_t trace_file_lost(const struct trace_file *f);

/* Free it. A file that open made and start did not write to is removed. NULL is fine. */
void trace_file_close(struct trace_file *f);

#ifdef __cplusplus
}
#endif
#endif
