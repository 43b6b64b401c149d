/* src/pace.h - how many groups are faster: found by trying, and tried again now and then; private to
 * src/.
 *
 *   STEADY --so many windows--> TRIAL, with the other number of groups
 *   TRIAL --faster by more than PACE_GAIN--> STEADY with that number
 *         --not--> STEADY with the one before, for twice as many windows
 *
 * A window is PACE_WINDOW tokens of each sequence; what is compared are two that follow each other,
 * so that a drive that slows down over minutes does not decide. After a change the first token of
 * each is left out: groups are being formed anew. When sequences come or go the window begins anew,
 * and a trial is given up.
 *
 * Counts and times only: no clock is read here, nothing allocated. */
#ifndef SLUICE_SRC_PACE_H
#define SLUICE_SRC_PACE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PACE_WINDOW 8    /* tokens: a drive's rate varies by 10 % from one second to the next */
#define PACE_FIRST  2    /* windows before the first trial: short answers are not worth one */
#define PACE_LAST   64   /* windows between trials, at most */
#define PACE_GAIN   0.03 /* less is noise */

struct pace {
    uint32_t most, now; /* groups: the alternative to one, and those in use */
    bool trial;
    double before;     /* time of a token in the window before the trial */
    uint32_t patience; /* windows until the next trial, after one that failed twice as many */
    uint32_t left;     /* of them */
    uint32_t n_sequences;
    uint32_t n_settling; /* tokens that do not count yet */
    uint32_t n_tokens;   /* in the window */
    uint64_t since_ns;   /* its beginning */
};

/* Begin with `most` groups. */
void pace_init(struct pace *p, uint32_t most);

/* So many tokens more at now_ns, of n_sequences that are under way; returns the groups to use. */
uint32_t pace_tokens(struct pace *p, uint32_t n_tokens, uint32_t n_sequences, uint64_t now_ns);

#ifdef __cplusplus
}
#endif
#endif
