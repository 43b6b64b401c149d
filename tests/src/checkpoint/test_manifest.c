#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "src/checkpoint/config_make.h"
#include "src/checkpoint/manifest.h"
#include "src/checkpoint/tensor_name.h"
#include "tests/support/make_checkpoint.h"

struct sums {
    const struct config *c;
    uint64_t n, bytes, elements[DTYPE_I64 + 1], expert_bytes;
};

static enum status add_up(void *context, const struct manifest_entry *entry, struct err *err) {
    struct sums *s = context;
    (void)err;
    const uint64_t elements = entry->shape[0] * (entry->n_dims > 1 ? entry->shape[1] : 1);
    assert_int_equal(entry->bytes, elements * dtype_bytes(entry->dtype));
    s->n++;
    s->bytes += entry->bytes;
    s->elements[entry->dtype] += elements;
    if (entry->id >= TENSOR_W1)
        s->expert_bytes += entry->bytes;
    return OK;
}

static struct sums sums_of(const struct config *c) {
    struct sums s = { .c = c };
    assert_int_equal(manifest_walk(c, add_up, &s, NULL), OK);
    return s;
}

/* The counts that were published for DeepSeek-V4-Pro-0813 (149,782 tensors; elements by type) hold
 * its trunk and three DSpark stages: blocks like a trunk's window layer, and tensors of their own
 * that the description lists. Whatever is missing or misshaped in our table would break them. */
static void pro_agrees_with_the_published_counts(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(config_preset(&c, "pro", NULL), OK);
    c.draft = DRAFT_NONE;
    const struct sums trunk = sums_of(&c);
    c.draft = DRAFT_MTP;
    c.n_drafts = 3;
    const struct sums all = sums_of(&c);

    // An MTP block's own tensors, which a DSpark stage does not have: 2 FP8 matrices with their
    // scales, 3 norms, 3 of the head.
    const uint64_t d = c.d, mtp_tensors = 10;
    // DSpark's own: main_proj with scale, main_norm, norm, 3 of the head, Markov tables, confidence.
    const uint64_t dspark_tensors = 2 + 1 + 1 + 3 + 2 + 1;
    assert_int_equal(all.n - trunk.n - 3 * mtp_tensors + dspark_tensors, 7009);
    assert_int_equal(all.n - 3 * mtp_tensors + dspark_tensors, 149782);
    assert_int_equal(all.elements[DTYPE_I8] * 2, 1623497637888);
    assert_int_equal(all.elements[DTYPE_F8_E4M3] - 3 * 2 * d * d + d * 3 * d, 23952621568);
    assert_int_equal(all.elements[DTYPE_BF16] - 3 * 3 * d + d + d + 2 * 129280 * 512 + (d + 512),
                     2954820352);
    assert_int_equal(trunk.expert_bytes, 61ull * 384 * 35094528);
}

static void one_expert_of_pro_has_35_megabytes(void **state) {
    (void)state;
    struct config c;
    struct manifest_entry entry;
    assert_int_equal(config_preset(&c, "pro", NULL), OK);
    uint64_t bytes = 0;
    for (int id = TENSOR_W1; id < TENSOR_COUNT; id++) {
        assert_true(manifest_entry(&c, (enum tensor_id)id, 60, 383, &entry));
        bytes += entry.bytes;
    }
    assert_int_equal(bytes, 35094528);
    assert_string_equal(entry.name, "layers.60.ffn.experts.383.w3.scale");
    assert_int_equal(entry.dtype, DTYPE_F8_E8M0);
    assert_int_equal(entry.shape[0], 3072);
    assert_int_equal(entry.shape[1], 7168 / 32);
    assert_false(manifest_entry(&c, TENSOR_W1, 60, 384, &entry));
    assert_true(manifest_entry(&c, TENSOR_W1, 61, 0, &entry));
    assert_string_equal(entry.name, "mtp.0.ffn.experts.0.w1.weight");
    assert_false(manifest_entry(&c, TENSOR_W1, 62, 0, &entry));
}

static void base_experts_are_fp8_in_blocks_with_f32_scales(void **state) {
    (void)state;
    struct config c;
    struct manifest_entry entry;
    make_small_config(&c);
    c.expert_format = EXPERT_FP8;
    c.expert_dim = 256;
    assert_true(manifest_entry(&c, TENSOR_W2, 1, 2, &entry));
    assert_int_equal(entry.dtype, DTYPE_F8_E4M3);
    assert_int_equal(entry.shape[0], 128);
    assert_int_equal(entry.shape[1], 256);
    assert_true(manifest_entry(&c, TENSOR_W2_SCALE, 1, 2, &entry));
    assert_int_equal(entry.dtype, DTYPE_F32);
    assert_int_equal(entry.shape[0], 1);
    assert_int_equal(entry.shape[1], 2);
}

static void blocks_have_what_their_kind_has(void **state) {
    (void)state;
    struct config c;
    struct manifest_entry entry;
    make_small_config(&c); // 128 hash, 4, 0, 4, draft 0
    const struct {
        enum tensor_id id;
        bool in[5];
    } cases[] = {
        { TENSOR_COMP_APE, { 1, 1, 0, 1, 0 } },   { TENSOR_INDEX_WQ_B, { 0, 1, 0, 1, 0 } },
        { TENSOR_GATE_TABLE, { 1, 0, 0, 0, 0 } }, { TENSOR_GATE_BIAS, { 0, 1, 1, 1, 1 } },
        { TENSOR_MTP_E_PROJ, { 0, 0, 0, 0, 1 } }, { TENSOR_WQ_A, { 1, 1, 1, 1, 1 } },
        { TENSOR_SHARED_W1, { 1, 1, 1, 1, 1 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t layer = 0; layer < 5; layer++)
            assert_int_equal(manifest_entry(&c, cases[i].id, layer, 0, &entry), cases[i].in[layer]);
    assert_true(manifest_entry(&c, TENSOR_COMP_APE, 0, 0, &entry));
    assert_int_equal(entry.shape[0], 128);
    assert_int_equal(entry.shape[1], c.head_dim);
    assert_true(manifest_entry(&c, TENSOR_COMP_APE, 1, 0, &entry));
    assert_int_equal(entry.shape[0], 4);
    assert_int_equal(entry.shape[1], 2 * c.head_dim);
    assert_false(manifest_entry(&c, TENSOR_EMBED, 1, 0, &entry));
    assert_false(manifest_entry(&c, TENSOR_WQ_A, 1, 1, &entry));
    assert_false(manifest_entry(&c, TENSOR_COUNT, 0, 0, &entry));
    c.draft = DRAFT_DSPARK;
    assert_false(manifest_entry(&c, TENSOR_WQ_A, 4, 0, &entry));
    c.draft = DRAFT_MTP;
    c.n_hash_layers = 5; // the rule of layer L+i holds for draft blocks too
    assert_true(manifest_entry(&c, TENSOR_GATE_TABLE, 4, 0, &entry));
}

static enum status parse_back(void *context, const struct manifest_entry *entry, struct err *err) {
    const struct config *c = context;
    (void)err;
    for (enum make_names names = NAMES_PUBLISHED; names <= NAMES_V3; names++) {
        char spelled[256];
        make_spelling(entry->name, names, spelled, sizeof spelled);
        const struct tensor_name name = tensor_name_parse(spelled);
        if (name.kind != NAME_TENSOR || name.id != entry->id || name.expert != entry->expert)
            fail_msg("%s is not %s", spelled, entry->name);
        const uint32_t layer = name.where == BLOCK_DRAFT ? c->n_layers + name.block : name.block;
        assert_int_equal(layer, entry->layer);
        assert_int_equal(name.where == BLOCK_NONE, entry->id < TENSOR_ATTN_NORM);
    }
    return OK;
}

static void every_name_is_parsed_in_every_spelling(void **state) {
    (void)state;
    struct config c;
    make_small_config(&c);
    c.n_layers = 12;
    c.n_experts = 101;
    memset(c.ratio, 0, sizeof c.ratio);
    c.ratio[10] = 4;
    assert_int_equal(manifest_walk(&c, parse_back, &c, NULL), OK);
}

static enum status stop_at_third(void *context, const struct manifest_entry *entry,
                                 struct err *err) {
    (void)entry;
    return ++*(int *)context == 3 ? err_set(err, CANCELLED, "enough") : OK;
}

static void a_visitor_can_end_the_walk(void **state) {
    (void)state;
    struct config c;
    struct err err = { 0 };
    int n = 0;
    make_small_config(&c);
    assert_int_equal(manifest_walk(&c, stop_at_third, &n, &err), CANCELLED);
    assert_int_equal(n, 3);
    assert_string_equal(err.text, "enough");
}

static void scales_are_told_from_other_tensors(void **state) {
    (void)state;
    for (int id = 0; id < TENSOR_COUNT; id++) {
        const char *suffix = manifest_suffix((enum tensor_id)id);
        const char *end = strrchr(suffix, '.');
        assert_int_equal(manifest_is_scale((enum tensor_id)id), end && strcmp(end, ".scale") == 0);
    }
}

static void dtypes_have_names_and_sizes(void **state) {
    (void)state;
    static const struct {
        enum dtype dtype;
        const char *name;
        uint64_t bytes;
    } cases[] = {
        { DTYPE_F32, "F32", 4 },         { DTYPE_BF16, "BF16", 2 }, { DTYPE_F8_E4M3, "F8_E4M3", 1 },
        { DTYPE_F8_E8M0, "F8_E8M0", 1 }, { DTYPE_I8, "I8", 1 },     { DTYPE_I32, "I32", 4 },
        { DTYPE_I64, "I64", 8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(dtype_name(cases[i].dtype), cases[i].name);
        assert_int_equal(dtype_bytes(cases[i].dtype), cases[i].bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pro_agrees_with_the_published_counts),
        cmocka_unit_test(one_expert_of_pro_has_35_megabytes),
        cmocka_unit_test(base_experts_are_fp8_in_blocks_with_f32_scales),
        cmocka_unit_test(blocks_have_what_their_kind_has),
        cmocka_unit_test(every_name_is_parsed_in_every_spelling),
        cmocka_unit_test(a_visitor_can_end_the_walk),
        cmocka_unit_test(scales_are_told_from_other_tensors),
        cmocka_unit_test(dtypes_have_names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
