/* src/dense.h - dense weights that have no room in memory, read for every step ahead of their use;
 * private to src/.
 *
 * What is streamed, and in which units, is src/dense_plan.h's. Two frames hold a unit each:
 *
 *   EMPTY --fill--> LOADING --read done--> READY --fill, for another unit--> LOADING
 *                   LOADING --read failed, somebody waits--> FAILED --dense_hold tells it--> EMPTY
 *                   LOADING --read failed, nobody waits--> EMPTY; read again when it is wanted
 *
 * A step visits units in an order that is known when it begins (layers, the head once for each tile
 * of its rows, the draft block, the head again), then the next step begins with the first layer. So
 * what goes where needs no guess: the frames hold, or read, the units that are to be used soonest,
 * by any step under way; a READY one gives way as soon as two others come before it. That goes on
 * between steps: the next one finds the first two there.
 *
 * A unit is held only within one call of step_advance, never while something is awaited: a layer's
 * matrices have all been used when its experts are asked for. So steps that
 * take turns cannot wait for each other, at whatever layers they are; but one that nobody advances
 * keeps its place, and with two of them there may be none for a third. Steps that go through the
 * layers side by side use one read together.
 *
 * Reads have a priority of their own (READ_AHEAD), below demands and above prefetches: a layer's
 * experts come before the next layer's dense weights, which are wanted for sure. What a step waits
 * for is promoted to a demand, and comes after those that are queued by then.
 *
 * Control thread only. Ended reads come by way of the slots, which share the reader. */
#ifndef SLUICE_SRC_DENSE_H
#define SLUICE_SRC_DENSE_H

#include "cache/slots.h"
#include "src/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A step under way, as it goes through the units. The caller's memory, from begin to end. */
struct dense_user {
    struct dense_user *next; /* in order of age */
    uint32_t n_tiles; /* times that the head is used, for the trunk and for the draft block */
    bool draft;
    uint32_t visit; /* the one it is at, or that comes next */
    bool waiting;   /* dense_hold has said AGAIN last */
    bool active;    /* from begin to end */
};

enum frame_state { FRAME_EMPTY, FRAME_LOADING, FRAME_READY, FRAME_FAILED };

struct dense_frame {
    unsigned char *data;
    enum frame_state state;
    uint32_t unit;
    uint32_t n_requests, n_under_way;
    uint32_t failed; /* the first request that failed, or DENSE_MAX_REQUESTS */
    bool held;
    struct event after; /* the last op that reads it */
    struct request request[DENSE_MAX_REQUESTS];
};

struct dense_stats {
    uint64_t units, bytes; /* read, margins included */
    uint64_t failed;       /* units */
};

struct dense {
    struct weights *weights;       /* not owned */
    const struct dense_plan *plan; /* the weights' */
    struct reader *reader;         /* not owned */
    struct slots *slots;           /* likewise */
    const uint32_t *file_of;       /* checkpoint file → reader file; not owned */
    struct dense_frame frame[DENSE_FRAMES];
    bool *failed; /* [n_units] not to be read ahead of need: that went wrong */
    struct dense_user *users;
    struct dense_stats stats;
};

/* Frames lie in memory: DENSE_FRAMES * plan.frame_bytes of the backend's, block-aligned; NULL if
 * nothing is streamed. Begins to read. ERR_MEMORY. */
enum status dense_open(struct dense *d, struct weights *weights, struct slots *slots,
                       struct reader *reader, const uint32_t *file_of, unsigned char *memory,
                       struct err *err);
/* Waits for what is at the device. No user may be active. Before the slots. */
void dense_close(struct dense *d);

/* For the slots: a request that is not theirs has ended. `context` is the struct dense. */
void dense_read_ended(void *context, struct request *request);

/* A step begins; it ends with or without having visited all. */
void dense_begin(struct dense *d, struct dense_user *user, uint32_t n_tiles, bool draft);
void dense_end(struct dense *d, struct dense_user *user);

/* Which visit of a step it is: of a layer's matrices (the draft block's with n_layers), and of a
 * panel of the head for a tile of rows, of the trunk's or of the draft block's. */
uint32_t dense_visit_layer(const struct dense *d, const struct dense_user *user, uint32_t layer);
uint32_t dense_visit_head(const struct dense *d, const struct dense_user *user, bool draft,
                          uint32_t tile, uint32_t panel);

/* Have the visit's unit in memory, until dense_release. Visits do not go back.
 *   OK                     the matrices have their addresses
 *   AGAIN                  not there yet: wait for dense_event, or advance another step
 *   ERR_IO, ERR_TRUNCATED  err names the shard and the offset; nothing is held, asking again
 *                          reads again */
enum status dense_hold(struct dense *d, struct dense_user *user, uint32_t visit, struct err *err);

/* Not held any more; it may go when `after`, the last op that reads it, is done, and the step is past
 * it. Where it is not past it, the same visit is held again later. */
void dense_release(struct dense *d, struct dense_user *user, bool past, struct event after);

/* Ready when dense_hold may say something else than AGAIN. */
struct event dense_event(struct dense *d, const struct dense_user *user);

/* Assert every sentence above that can be seen from inside; for tests and debug builds. */
void dense_check(const struct dense *d);

#ifdef __cplusplus
}
#endif
#endif
