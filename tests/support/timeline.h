/* tests/support/timeline.h - a timeline (src/trace_file.h) as tests look at it. Everything here fails
 * the test that calls it. */
#ifndef SLUICE_TESTS_TIMELINE_H
#define SLUICE_TESTS_TIMELINE_H

#include "src/account.h"

#include <jansson.h>

struct timeline {
    uint64_t ns[PHASES][ACTIVITIES]; /* of the control thread */
    uint32_t n_steps[PHASES], n_layers;
    uint32_t n_reads[READ_PRIORITIES], n_ok[READ_PRIORITIES]; /* n_ok: but those of dense weights */
    uint32_t n_dense;
    uint64_t bytes;        /* of the reads */
    uint64_t bytes_so_far; /* by the counter, at the end */
    uint64_t lost_events;
    bool complete;
};

/* Read the file, which must be JSON; freed by the caller. */
json_t *timeline_read(const char *path);

/* A member that is a string, or "". */
const char *timeline_string(const json_t *object, const char *key);

/* Of an event, in nanoseconds. */
uint64_t timeline_ns(const json_t *event);

/* Sum it up. Spans must nest: activities in layers in steps; every span of a read must begin and end
 * once, and lie in the read's. Of a run that was killed spans of the control thread may be open, and
 * end with the last event. */
void timeline_sum(const json_t *root, struct timeline *out);

#endif
