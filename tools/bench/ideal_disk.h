/* tools/bench/ideal_disk.h - how long a run would have taken over an ideal disk: the bound that its
 * time is held against.
 *
 * A run is the control thread's story in its order: so long it computed, then this read was asked
 * for, then that one had to be there. Replayed, what was computed takes as long as it took, reads are
 * asked for at the same points, and the disk is one that has no latency, serves one read at a time at
 * a constant rate, the highest priority first (at once: a lower one is left where it is), within one
 * first come first served. What had to be waited for is there when all its bytes are. So waits shrink
 * or grow with the disk, and nothing else does.
 *
 * Experts of one demand are taken in any order, the first that is there: the first of a run's story
 * need not be the first of the replay's.
 *
 * A run is built by adding to it; an allocation that fails is told by ideal_replay. */
#ifndef SLUICE_TOOLS_BENCH_IDEAL_DISK_H
#define SLUICE_TOOLS_BENCH_IDEAL_DISK_H

#include "io/reader.h"
#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IDEAL_NONE UINT32_MAX /* no request: it was there before the run began */

struct ideal_op;
struct ideal_request;

/* Zeroed it is empty. */
struct ideal_run {
    struct ideal_op *ops;
    struct ideal_request *requests;
    size_t n_ops, ops_room, n_requests, requests_room;
    uint32_t n_groups;
    bool failed;
};

/* A read; its number. It is not submitted yet. */
uint32_t ideal_add_request(struct ideal_run *run, uint64_t bytes);

/* The story. A request is submitted once, before it is raised or needed. */
void ideal_add_compute(struct ideal_run *run, uint64_t ns);
void ideal_add_submit(struct ideal_run *run, uint32_t request, enum read_priority priority);
void ideal_add_raise(struct ideal_run *run, uint32_t request, enum read_priority priority);
void ideal_add_need(struct ideal_run *run, uint32_t request); /* all of it has to be there */
/* One of the experts of a demand (groups are numbered from 0) is taken; in the run it was this one. */
void ideal_add_take(struct ideal_run *run, uint32_t group, uint32_t request);

void ideal_run_free(struct ideal_run *run);

struct ideal_time {
    double ns;         /* of the whole run */
    double compute_ns; /* of it; the same at any rate */
    double wait_ns;    /* the rest */
};

/* At so many bytes a second; a run may be replayed again. ERR_MEMORY. */
enum status ideal_replay(const struct ideal_run *run, double rate, struct ideal_time *out,
                         struct err *err);

#ifdef __cplusplus
}
#endif
#endif
