/* tests/support/golden.h - run a golden checkpoint and compare with what the publisher's code computes.
 *
 * A golden directory holds checkpoint/ and some of expected.{exact,fp32,bf16}.safetensors: tokens,
 * logits, the residual streams after each layer, the gate's and the indexer's choices. Errors are,
 * per position, |a-b| / |b| over the flattened row. */
#ifndef SLUICE_TESTS_GOLDEN_H
#define SLUICE_TESTS_GOLDEN_H

#include "src/sluice.h"

#define GOLDEN_MAX_ROWS 64 /* things compared: hidden of each block, logits, mtp.logits */

struct golden_measure {
    char name[48];
    uint32_t n; /* positions compared */
    double median, largest;
    double share_1e5; /* of positions below 1e-5 */
    bool is_head;     /* logits from given streams, or end to end */
};

struct golden_result {
    uint32_t n_tokens, prompt;
    struct golden_measure rows[GOLDEN_MAX_ROWS];
    uint32_t n_rows;
    uint64_t sets, sets_equal;         /* experts of a row, entries chosen for a row */
    double median, largest, share_1e5; /* over all layers' positions */
    double top1;                       /* share of positions whose most likely token agrees */
    double weights_largest;            /* of |a-b| over routing weights where the sets agree */
};

enum golden_mode {
    GOLDEN_EXACT,  /* comparison 1: exact mode against expected.exact, end to end */
    GOLDEN_LAYERS, /* comparison 2: quantized against expected.fp32, each layer given its input */
    GOLDEN_END,    /* comparison 3: quantized against expected.fp32, end to end */
    GOLDEN_BF16    /* comparison 4: quantized against expected.bf16, end to end */
};

/* Feed the tokens in chunks of `chunk` (the draft block runs over the prompt). ERR_MISSING if the
 * directory has no such expected file. */
enum status golden_run(const char *dir, enum golden_mode mode, uint32_t chunk,
                       struct golden_result *out, struct err *err);

/* The README's bounds. NULL if they hold, else which does not. */
const char *golden_verdict(enum golden_mode mode, const struct golden_result *r);

#endif
