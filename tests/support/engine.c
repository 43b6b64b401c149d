#include "tests/support/engine.h"

#include "src/checkpoint/safetensors.h"
#include "src/schedule.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void golden_tokens(int32_t tokens[GOLDEN_TOKENS]) {
    const char *path = GOLDEN_DIR "/expected.exact.safetensors";
    struct safetensors st;
    struct stat info;
    struct err err = { .status = OK };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &info) == 0);
    if (safetensors_read(&st, fd, (uint64_t)info.st_size, path, &err) != OK)
        fail_msg("%s", err.text);
    const struct safetensors_tensor *t = safetensors_find(&st, "tokens");
    assert_int_equal(t->bytes, GOLDEN_TOKENS * 4);
    assert_int_equal(pread(fd, tokens, t->bytes, (off_t)t->offset), t->bytes);
    safetensors_close(&st);
    close(fd);
}

struct sluice_options test_options(void) {
    static const char *const dirs[] = { GOLDEN_DIR "/checkpoint" };
    return (struct sluice_options){ .dirs = dirs,
                                    .n_dirs = 1,
                                    .ram_bytes = 2ull << 30,
                                    .ctx = 320,
                                    .chunk = 300,
                                    .n_slots = 3,
                                    .n_threads = 2 };
}

struct sluice *test_engine(const struct sluice_options *options) {
    struct sluice *engine;
    struct err err = { .status = OK };
    if (sluice_open(&engine, options, &err) != OK)
        fail_msg("%s", err.text);
    return engine;
}

static void keep(void *context, uint32_t index, bool draft, const float *logits) {
    float *out = context;
    if (!draft)
        memcpy(out + (size_t)index * GOLDEN_VOCAB, logits, GOLDEN_VOCAB * sizeof *out);
}

void test_feed(struct step *step, struct sequence *sequence, const int32_t *tokens, uint32_t n,
               uint32_t chunk, float *out) {
    struct err err = { .status = OK };
    struct feed feed = { .sequence = sequence,
                         .tokens = tokens,
                         .n_tokens = n,
                         .n_logits = out ? n : 0,
                         .chunk = chunk,
                         .next_token = -1,
                         .logits = keep,
                         .context = out };
    if (n > 0 && schedule_feed(step, &feed, &err) != OK)
        fail_msg("%s", err.text);
}

float *test_logits(const struct sluice_options *options, uint32_t chunk) {
    int32_t tokens[GOLDEN_TOKENS];
    struct sluice *engine = test_engine(options);
    struct sequence *sequence;
    struct step *step;
    struct err err = { .status = OK };
    float *out = calloc(GOLDEN_TOKENS * GOLDEN_VOCAB, sizeof *out);
    golden_tokens(tokens);
    assert_int_equal(sluice_sequence(engine, &sequence, &err), OK);
    assert_int_equal(step_open(&step, engine, &err), OK);
    test_feed(step, sequence, tokens, GOLDEN_TOKENS, chunk, out);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    return out;
}
