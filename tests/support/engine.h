/* tests/support/engine.h - the committed checkpoint in an engine, and its logits, for tests of src. */
#ifndef SLUICE_TESTS_ENGINE_H
#define SLUICE_TESTS_ENGINE_H

#include "src/sluice.h"

#define GOLDEN_DIR    "tests/data/golden"
#define GOLDEN_VOCAB  256
#define GOLDEN_TOKENS 280

/* The tokens of the committed golden vectors. */
void golden_tokens(int32_t tokens[GOLDEN_TOKENS]);

/* Defaults for tests: small context, three slots, two threads; change what you like. */
struct sluice_options test_options(void);

/* Open or fail the test. */
struct sluice *test_engine(const struct sluice_options *options);

/* Take tokens in, in chunks, and write the logits of each to out [n][GOLDEN_VOCAB] (NULL: not
 * wanted). Fails the test on an error. */
void test_feed(struct step *step, struct sequence *sequence, const int32_t *tokens, uint32_t n,
               uint32_t chunk, float *out);

/* Logits of all golden tokens with these options, chunks of `chunk`; malloced. */
float *test_logits(const struct sluice_options *options, uint32_t chunk);

#endif
