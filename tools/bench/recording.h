/* tools/bench/recording.h - the timeline of a stretch of a run (io/trace.h), kept in memory: what it
 * says of the disk while it was wanted, and the run as an ideal disk would have it.
 *
 *     recording_open ── its trace goes into the engine's options
 *       recording_begin ─ … recording_take, often enough … ─ recording_end      a window
 *         recording_figures, recording_story                                    of that window
 *
 * A window lies between two moments when no expert is awaited. The rings hold what happens between
 * two calls of recording_take; recording_lost says whether they did.
 *
 * The control thread awaits bytes while it is in ACTIVITY_WAIT or ACTIVITY_WAIT_DENSE. The disk is
 * idle while no chunk is at the device. Something is wanted while the control thread waits, or a read
 * has been submitted and has not ended. Bytes are taken to arrive evenly between two looks at their
 * counter, from when the device got busy: so what was under way when a wait began counts for what came
 * after. */
#ifndef SLUICE_TOOLS_BENCH_RECORDING_H
#define SLUICE_TOOLS_BENCH_RECORDING_H

#include "io/trace.h"
#include "src/account.h"
#include "tools/bench/ideal_disk.h"

#ifdef __cplusplus
extern "C" {
#endif

struct recording;

/* ERR_MEMORY; *out is NULL then. */
enum status recording_open(struct recording **out, struct err *err);
void recording_close(struct recording *r); /* after whoever records in it; NULL is fine */
struct trace *recording_trace(struct recording *r);

void recording_begin(struct recording *r, uint64_t now_ns); /* forgets the window before */
void recording_take(struct recording *r);
void recording_end(struct recording *r, uint64_t now_ns);

/* Is anything at the device now? Takes what has happened by now. */
bool recording_busy(struct recording *r);

/* Events that found no room, or no memory, since recording_open. */
uint64_t recording_lost(const struct recording *r);

struct recording_figures {
    uint64_t ns; /* of the window; the next four are parts of it */
    uint64_t wait_ns, idle_ns, idle_wanted_ns;
    uint64_t activity_ns[ACTIVITIES]; /* their sum is ns, but for pauses */
    double bytes, wait_bytes;         /* that arrived, and of them while bytes were awaited */
};
void recording_figures(const struct recording *r, struct recording_figures *out, struct err *err);

/* Reads that ended well of experts (labelled 1 to n_experts) that had been read in the window already.
 * ERR_MEMORY. */
enum status recording_again(const struct recording *r, uint32_t n_experts, uint64_t *n,
                            struct err *err);

/* The window as a story: what the control thread computed, the reads that it asked for, and what it
 * took of them. An expert that was taken is that of the last read of it that had ended. Attention in a
 * layer needs the dense weights that had been read for it by then, the head those that are no layer's
 * (src/dense_plan.h numbers them). A wait needs the demands that ended in it and are neither. Freed by
 * the caller. */
void recording_story(const struct recording *r, uint32_t n_layers, struct ideal_run *out);

#ifdef __cplusplus
}
#endif
#endif
