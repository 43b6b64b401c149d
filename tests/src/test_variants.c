/* Checkpoints in other forms than the committed one: -Base, Flash's layer list, drafts of other kinds. */
#include "src/schedule.h"
#include "tests/support/checkpoint_fixture.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_TOKENS 150 // past a group of 128
#define V        64  // of make_small_config

struct logits {
    float trunk[N_TOKENS][V], draft[N_TOKENS][V];
};

static void keep(void *context, uint32_t index, bool draft, const float *logits) {
    struct logits *out = context;
    memcpy((draft ? out->draft : out->trunk)[index], logits, V * sizeof *logits);
}

// All tokens through the checkpoint in `dir`, trunk and draft block.
static struct logits *compute_in(const char *dir, uint32_t chunk, bool exact) {
    int32_t tokens[N_TOKENS + 1];
    struct sluice_options o = { .dirs = &dir,
                                .n_dirs = 1,
                                .ram_bytes = 2ull << 30,
                                .ctx = N_TOKENS,
                                .chunk = N_TOKENS,
                                .n_slots = 2 + chunk % 4,
                                .n_threads = 1,
                                .exact = exact,
                                .drafts = true };
    struct logits *out = calloc(1, sizeof *out);
    struct sluice *engine = test_engine(&o);
    struct sequence *sequence;
    struct step *step;
    struct err err = { .status = OK };
    for (int32_t i = 0; i <= N_TOKENS; i++)
        tokens[i] = (i * i * 7 + i * 3) % V;
    struct feed feed = { .tokens = tokens,
                         .n_tokens = N_TOKENS,
                         .n_logits = N_TOKENS,
                         .chunk = chunk,
                         .draft = true,
                         .next_token = tokens[N_TOKENS],
                         .logits = keep,
                         .context = out };
    assert_int_equal(sluice_sequence(engine, &feed.sequence, &err), OK);
    sequence = feed.sequence;
    assert_int_equal(step_open(&step, engine, &err), OK);
    if (schedule_feed(step, &feed, &err) != OK)
        fail_msg("%s", err.text);
    step_close(step);
    sequence_close(sequence);
    sluice_close(engine);
    for (int i = 0; i < N_TOKENS; i++)
        for (int k = 0; k < V; k++)
            assert_true(isfinite(out->trunk[i][k]) && isfinite(out->draft[i][k]));
    return out;
}

static struct logits *compute(uint32_t chunk, bool exact) {
    return compute_in(fixture.dir, chunk, exact);
}

static void assert_same_and_free(struct logits *a, struct logits *b) {
    assert_memory_equal(a, b, sizeof *a);
    free(b);
}

static void chunks_do_not_show(void) {
    struct logits *whole = compute(N_TOKENS, false);
    assert_same_and_free(whole, compute(1, false));
    assert_same_and_free(whole, compute(7, false));
    assert_same_and_free(whole, compute(33, false));
    free(whole);
}

// --- -Base -----------------------------------------------------------------------------------------

static void base_does_not_depend_on_the_chunk(void **state) {
    (void)state;
    fixture.small.expert_format = EXPERT_FP8; // F32 scales that are no powers of two
    fixture_make(&(struct make_options){ .n_shards = 2, .f32_scales = true });
    chunks_do_not_show();
}

// What is a power of two is one in either type: the codes of all matrices, wo_a's as BF16 included.
static void scales_of_either_type_give_the_same_bits(void **state) {
    (void)state;
    fixture_make(&(struct make_options){ .n_shards = 2 });
    struct logits *e8m0 = compute(64, false);
    fixture_make_anew(&(struct make_options){ .n_shards = 2, .f32_scales = true });
    assert_same_and_free(e8m0, compute(64, false));
    fixture_make_anew(&(struct make_options){ .n_shards = 2, .u8 = true, .i32_table = true });
    assert_same_and_free(e8m0, compute(64, false));
    free(e8m0);
}

static void write_at(const struct checkpoint *cp, const struct tensor_place *place,
                     const void *bytes) {
    int fd = open(cp->files[place->file].path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, place->bytes, (off_t)place->offset), place->bytes);
    close(fd);
}

// Matrix `part` of an expert: codes of E2M1 that depend on where they are, all scales `scale`.
static void write_expert_matrix(const struct checkpoint *cp, uint32_t layer, uint32_t expert,
                                int part, int scale_exponent) {
    static const uint8_t e4m3_of[8] = { 0x00, 0x30, 0x38, 0x3C, 0x40, 0x44, 0x48, 0x4C };
    const struct tensor_place *place = checkpoint_expert(cp, layer, expert)->part + part;
    bool fp4 = place->dtype == DTYPE_I8;
    uint64_t n = place->bytes * (fp4 ? 2 : 1);
    uint8_t *codes = calloc(1, place->bytes), *scales = calloc(1, place[1].bytes);
    uint64_t random = layer * 1000 + expert * 10 + (uint64_t)part + 1;
    for (uint64_t i = 0; i < n; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint8_t code = (uint8_t)(random >> 60);
        if (fp4)
            codes[i / 2] |= (uint8_t)(code << 4 * (i % 2));
        else
            codes[i] = (uint8_t)(e4m3_of[code & 7] | (code & 8) << 4);
    }
    float scale = ldexpf(1, scale_exponent);
    for (uint64_t i = 0; i < place[1].bytes; i += fp4 ? 1 : 4)
        if (fp4)
            scales[i] = (uint8_t)(127 + scale_exponent);
        else
            memcpy(scales + i, &scale, 4);
    write_at(cp, place, codes);
    write_at(cp, place + 1, scales);
    free(codes);
    free(scales);
}

// The same experts in whatever form the checkpoint stores them.
static void write_experts(void) {
    fixture_open();
    const struct config *c = &fixture.cp.config;
    for (uint32_t layer = 0; layer < checkpoint_n_blocks(&fixture.cp); layer++)
        for (uint32_t expert = 0; expert < c->n_experts; expert++)
            for (int part = 0; part < EXPERT_TENSORS; part += 2)
                write_expert_matrix(&fixture.cp, layer, expert, part, -5 + part);
    checkpoint_close(&fixture.cp);
}

// Every E2M1 value is one of E4M3: the two forms are the same model, but for the order of sums.
static void fp8_experts_compute_what_fp4_experts_do(void **state) {
    (void)state;
    fixture_make(&(struct make_options){ .n_shards = 2 });
    write_experts();
    struct logits *fp4 = compute(64, true);
    fixture.small.expert_format = EXPERT_FP8;
    fixture_make_anew(&(struct make_options){ .n_shards = 2 });
    write_experts();
    struct logits *fp8 = compute(64, true);
    double difference = 0, size = 0;
    for (int i = 0; i < N_TOKENS; i++)
        for (int k = 0; k < V; k++) {
            double a = fp4->trunk[i][k] - fp8->trunk[i][k], b = fp4->draft[i][k] - fp8->draft[i][k];
            difference += a * a + b * b;
            size += fp4->trunk[i][k] * fp4->trunk[i][k];
        }
    assert_true(size > 0 && sqrt(difference / size) < 1e-5);
    free(fp4);
    free(fp8);
}

static bool is_w3_scale(const struct manifest_entry *entry, void *context) {
    return strcmp(entry->name, context) == 0;
}

static void an_expert_of_two_kinds_is_refused(void **state) {
    (void)state;
    static char routed[] = "layers.2.ffn.experts.3.w3.scale",
                shared[] = "layers.2.ffn.shared_experts.w3.scale";
    char *const names[] = { routed, shared };
    fixture.small.expert_format = EXPERT_FP8;
    for (int i = 0; i < 2; i++) {
        // Scales of the routed experts are F32 by default, those of the shared one E8M0.
        struct manifest_entry other = fixture_entry(names[i], i ? DTYPE_F32 : DTYPE_F8_E8M0, 1, 1);
        struct make_options make = { .n_shards = 1,
                                     .leave_out = is_w3_scale,
                                     .context = names[i],
                                     .extra = &other,
                                     .n_extra = 1 };
        fixture_make_anew(&make);
        const char *dir = fixture.dir;
        struct sluice_options o = { .dirs = &dir, .n_dirs = 1, .ram_bytes = 2ull << 30 };
        struct sluice *engine;
        struct err err = { .status = OK };
        assert_int_equal(sluice_open(&engine, &o, &err), ERR_INPUT);
        assert_null(engine);
        assert_non_null(strstr(err.text, "layer 2"));
        assert_non_null(strstr(err.text, "w3"));
    }
}

// --- layers ----------------------------------------------------------------------------------------

static void flash_s_layers_do_not_depend_on_the_chunk(void **state) {
    (void)state;
    static const uint32_t ratio[] = { 0, 0, 4, 128, 0 };
    memcpy(fixture.small.ratio, ratio, sizeof ratio);
    fixture.small.index_topk = 200; // more than there ever are
    fixture_make(&(struct make_options){ .n_shards = 2 });
    chunks_do_not_show();
}

// A draft block with a compressor and an indexer, its experts by table; rows of the table that name
// an expert twice are among the random ones (3 of 5, 64 rows).
static void a_draft_block_of_another_kind_does_not_depend_on_the_chunk(void **state) {
    (void)state;
    fixture.small.ratio[fixture.small.n_layers] = 4;
    fixture.small.n_hash_layers = fixture.small.n_layers + 1;
    fixture.small.n_chosen = 3;
    fixture_make(&(struct make_options){ .n_shards = 2 });
    chunks_do_not_show();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(base_does_not_depend_on_the_chunk),
        FIXTURE_TEST(scales_of_either_type_give_the_same_bits),
        FIXTURE_TEST(fp8_experts_compute_what_fp4_experts_do),
        FIXTURE_TEST(an_expert_of_two_kinds_is_refused),
        FIXTURE_TEST(flash_s_layers_do_not_depend_on_the_chunk),
        FIXTURE_TEST(a_draft_block_of_another_kind_does_not_depend_on_the_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
