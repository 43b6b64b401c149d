/* tools/turns.h - texts that are written at the same time, shown one after the other.
 *
 *   text `which`: WAITING --all before it have ended--> ITS TURN --turns_end--> shown
 *
 * Whose turn it is is shown as it comes. What the others say is kept until their turn has come; those
 * that have ended by then are shown whole. */
#ifndef SLUICE_TOOLS_TURNS_H
#define SLUICE_TOOLS_TURNS_H

#include "src/text/text.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a text is shown: begin, take as often as there is something, end. The first error is the last
 * call: whoever shows has failed. */
struct turns_stage {
    enum status (*begin)(void *context, uint32_t which, struct err *err);
    enum status (*take)(void *context, uint32_t which, const char *text, size_t n_bytes,
                        struct err *err);
    enum status (*end)(void *context, uint32_t which, struct err *err);
    void *context;
};

struct turns {
    struct turns_stage stage;
    struct turn *texts; /* [n] */
    uint32_t n, now;    /* whose turn it is; n: all have been shown */
    bool begun;         /* the stage knows that text `now` has begun */
    bool failed;
};

/* ERR_MEMORY. Closable after any result; nothing is shown by that. */
enum status turns_open(struct turns *t, uint32_t n, const struct turns_stage *stage,
                       struct err *err);
void turns_close(struct turns *t);

/* More of a text that has not ended, to be shown now or kept. ERR_MEMORY, and the stage's errors. */
enum status turns_take(struct turns *t, uint32_t which, const char *text, size_t n_bytes,
                       struct err *err);
/* It has ended. Errors likewise. */
enum status turns_end(struct turns *t, uint32_t which, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
