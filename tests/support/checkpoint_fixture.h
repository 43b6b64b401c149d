/* tests/support/checkpoint_fixture.h - a small checkpoint in a directory of its own, for a test.
 *
 * One test at a time: set_up makes an empty directory and a small config, make() writes the
 * checkpoint, and what follows opens it. State is global because cmocka's tests are. */
#ifndef SLUICE_TESTS_SUPPORT_CHECKPOINT_FIXTURE_H
#define SLUICE_TESTS_SUPPORT_CHECKPOINT_FIXTURE_H

#include "src/checkpoint/checkpoint.h"
#include "tests/support/make_checkpoint.h"

#define FIXTURE_SEED 7

struct checkpoint_fixture {
    char *dir;
    struct config small; /* what make() makes */
    struct err err;
    struct checkpoint cp;
};
extern struct checkpoint_fixture fixture;

int fixture_set_up(void **state);
int fixture_tear_down(void **state);
#define FIXTURE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_set_up, fixture_tear_down)

/* Write the checkpoint (options' seed is FIXTURE_SEED); into a new directory. */
void fixture_make(const struct make_options *options);
void fixture_make_anew(const struct make_options *options);

/* dir/name, valid until the next call but three. */
const char *fixture_path(const char *name);

void fixture_make_file(const char *name, const char *text);

/* Open it: the test fails with the message unless it opens; the model is as it was made. */
void fixture_open(void);
void fixture_open_and_compare(void);

/* Every tensor of cp.config's manifest has the bytes that were made, in whatever type it is stored;
 * returns how many there are. */
uint64_t fixture_compare(void);

/* Where an opened checkpoint has a tensor. */
const struct tensor_place *fixture_place(const struct checkpoint *cp,
                                         const struct manifest_entry *entry);

/* Refused with this status, and the message has all of the texts. Whatever was opened is closed. */
#define fixture_refused(status, ...)                                                               \
    fixture_refused_at(status, (const char *const[]){ __VA_ARGS__, NULL }, __FILE__, __LINE__)
void fixture_refused_at(enum status status, const char *const *texts, const char *file, int line);

/* Give a tensor in a shard's header another dtype and shape, as JSON: "BF16", "[64, 128]". */
void fixture_edit(const char *shard, const char *tensor, const char *dtype, const char *shape);

/* A tensor to add (make_options.extra). */
struct manifest_entry fixture_entry(const char *name, enum dtype dtype, uint64_t rows,
                                    uint64_t cols);

#endif
