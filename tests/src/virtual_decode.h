/* tests/src/virtual_decode.h - decoding on a virtual clock: what a token takes on a machine made up of
 * a modelled disk and of layers that take a given time. The same figures whatever else this machine
 * does, and whatever it is. */
#ifndef SLUICE_TESTS_SRC_VIRTUAL_DECODE_H
#define SLUICE_TESTS_SRC_VIRTUAL_DECODE_H

#include "src/account.h"

#include <stdbool.h>
#include <stdint.h>

/* The unit of time is what the disk takes to read one expert. As with Pro, it is read in several
 * chunks, and two experts may be at the device. */
#define VIRTUAL_UNIT_NS 1000000u

struct virtual_decode {
    const char *dir; /* the checkpoint */
    const int32_t *tokens;
    uint32_t n_tokens, n_prefill; /* the first ones are one step; the others are decoded */
    uint32_t slots_percent;       /* of the experts have a slot */
    enum prefetch_mode prefetch;
    double attention, expert; /* units: a layer's attention; the arithmetic of one expert */
    /* The first so many decoded tokens choose at random in the layers routed by score, whatever the
     * gate says; UINT32_MAX: all of them do, and in prefill, too. */
    uint32_t n_random;
};

struct virtual_decode_result {            /* of the decoded tokens */
    double ns_per_token, reads_per_token; /* experts' worth of bytes */
    double there;                     /* of the experts wanted, in memory when their turn came */
    struct prefetch_count gate, last; /* of all layers; of them, the last quarter of the tokens */
};

/* Ends the program with a message if the model cannot be run. */
struct virtual_decode_result virtual_decode(const struct virtual_decode *d);

#endif
