/* io/trace.h - the timeline of a run while it is recorded: events of one size, in rings.
 *
 * Every track is a ring with one producer and one consumer. The producer is whoever the track is
 * about; the consumer turns events into a file as they come (src/trace_file.h).
 *
 *   TRACE_CONTROL   the control thread, through the account: where it is from a moment on
 *   TRACE_DISK      whoever holds the reader's mutex: its queue, and requests that have ended
 *
 * Putting an event takes no lock, waits for nothing and allocates nothing; where the ring is full
 * the event is lost and counted, and the next one that finds room says how many were lost before
 * it. Where nothing is recorded there is no struct trace: whoever would put asks for NULL first.
 *
 * An event of the control track is a state, not a begin or an end, and one of a request has all of
 * its life: whatever is lost, what is left makes sense by itself. */
#ifndef SLUICE_IO_TRACE_H
#define SLUICE_IO_TRACE_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum trace_track { TRACE_CONTROL, TRACE_DISK, TRACE_TRACKS };

enum trace_kind { TRACE_PLACE, TRACE_QUEUE, TRACE_REQUEST };

#define TRACE_LABEL_DENSE (UINT64_C(1) << 63)

#define TRACE_NOWHERE UINT32_MAX /* of a place: in no activity, step or layer, with no expert */

/* From ns on, the control thread is here: numbers of src/account.h, and its own of steps. */
struct trace_place {
    uint32_t phase, activity;
    uint32_t step, layer;
    uint32_t n_rows; /* of the step */
    uint32_t expert; /* that has been handed out and is computed from here on */
};

/* From ns on, this is at the device. */
struct trace_queue {
    uint32_t n_chunks;
    uint32_t n_requests;   /* submitted and not ended */
    uint64_t bytes;        /* of the chunks */
    uint64_t bytes_so_far; /* that have come back since the reader was opened */
};

/* At ns, a request has ended: numbers of io/reader.h and io/status.h. */
struct trace_request {
    uint64_t submitted_ns;
    uint64_t raised_ns; /* since when it had the priority that it ended with */
    uint64_t active_ns; /* when its first chunk went to the device; UINT64_MAX: none ever did */
    uint64_t label;     /* of the request: 1 + the expert's number; TRACE_LABEL_DENSE and a unit of
                           dense weights; 0: something else */
    uint64_t bytes;     /* from the device */
    uint32_t priority, status;
};

struct trace_event {
    uint64_t ns;     /* of io/clock.h; in a track they never go back */
    uint32_t kind;   /* enum trace_kind */
    uint32_t n_lost; /* events of this track, directly before this one; set by trace_put */
    union {
        struct trace_place place;
        struct trace_queue queue;
        struct trace_request request;
    } is;
};

struct trace;

/* Rings of n_events each, rounded up to a power of two; all the memory there will be. ERR_MEMORY:
 * *out is NULL. */
enum status trace_open(struct trace **out, uint32_t n_events, struct err *err);
void trace_close(struct trace *t); /* NULL is fine */

/* The track's producer: append a copy, or count it as lost. */
void trace_put(struct trace *t, enum trace_track track, const struct trace_event *event);

/* The consumer: the oldest event; false: there is none. */
bool trace_take(struct trace *t, enum trace_track track, struct trace_event *out);

/* Events lost so far, on all tracks; any thread. */
uint64_t trace_lost(const struct trace *t);

#ifdef __cplusplus
}
#endif
#endif
