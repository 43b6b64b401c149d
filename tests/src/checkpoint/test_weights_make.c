#include "src/checkpoint/weights_make.h"

#include "kernels/lowbit.h"
#include "src/checkpoint/config_make.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEED 7

static struct config demo;
static struct weights_make *weights;

static int open_demo(void **state) {
    (void)state;
    return config_preset(&demo, "demo", NULL) != OK ||
           weights_make_open(&weights, &demo, SEED, NULL) != OK;
}
static int close_demo(void **state) {
    (void)state;
    weights_make_close(weights);
    return 0;
}

static struct manifest_entry entry_of(enum tensor_id id, uint32_t layer, uint32_t expert) {
    struct manifest_entry entry;
    assert_true(manifest_entry(&demo, id, layer, expert, &entry));
    return entry;
}

/* All bytes of a tensor; the caller frees them. */
static unsigned char *tensor(enum tensor_id id, uint32_t layer, uint32_t expert) {
    const struct manifest_entry entry = entry_of(id, layer, expert);
    unsigned char *bytes = malloc(entry.bytes);
    weights_make_fill(weights, &entry, 0, bytes, entry.bytes);
    return bytes;
}

/* Its values, dequantized. */
struct values {
    float *v;
    uint64_t rows, cols, n;
};

static struct values values_of(enum tensor_id id, uint32_t layer, uint32_t expert) {
    const struct manifest_entry e = entry_of(id, layer, expert);
    const bool fp4 = e.dtype == DTYPE_I8;
    struct values out = { .rows = e.shape[0], .cols = e.n_dims == 2 ? e.shape[1] : 1 };
    out.cols *= fp4 ? 2 : 1;
    out.n = out.rows * out.cols;
    out.v = malloc(out.n * sizeof *out.v);
    unsigned char *codes = tensor(id, layer, expert), *scales = NULL;
    if (fp4 || e.dtype == DTYPE_F8_E4M3)
        scales = tensor((enum tensor_id)(id + 1), layer, expert);
    for (uint64_t i = 0; i < out.n; i++) {
        const uint64_t row = i / out.cols, col = i % out.cols;
        if (fp4)
            out.v[i] = e2m1_value(codes[i / 2] >> (col % 2 ? 4 : 0)) *
                       e8m0_value(scales[row * (out.cols / 32) + col / 32]);
        else if (e.dtype == DTYPE_F8_E4M3)
            out.v[i] = e4m3_value(codes[i]) *
                       e8m0_value(scales[row / 128 * ((out.cols + 127) / 128) + col / 128]);
        else if (e.dtype == DTYPE_BF16)
            out.v[i] = bf16_value(load_u16(codes + 2 * i));
        else
            out.v[i] = load_f32(codes + 4 * i);
    }
    free(codes);
    free(scales);
    return out;
}

static double root_mean_square(const float *v, uint64_t n, uint64_t stride) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += (double)v[i * stride] * v[i * stride];
    return sqrt(sum / (double)n);
}

static double mean(const float *v, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += v[i];
    return sum / (double)n;
}

static void any_range_of_a_tensor_equals_that_part_of_the_whole(void **state) {
    (void)state;
    static const enum tensor_id ids[] = {
        TENSOR_EMBED,     TENSOR_HC_ATTN_FN, TENSOR_HC_ATTN_BASE, TENSOR_ATTN_NORM,
        TENSOR_WO_B,      TENSOR_WQ_A_SCALE, TENSOR_GATE_TABLE,   TENSOR_GATE,
        TENSOR_GATE_BIAS, TENSOR_COMP_APE,   TENSOR_W1,           TENSOR_W2,
        TENSOR_W2_SCALE,  TENSOR_ATTN_SINK,  TENSOR_HC_FFN_SCALE, TENSOR_SHARED_W2,
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const uint32_t layer = ids[i] == TENSOR_EMBED ? 0 : ids[i] == TENSOR_GATE_BIAS ? 4 : 2;
        const struct manifest_entry e = entry_of(ids[i], layer, 0);
        unsigned char *whole = tensor(ids[i], layer, 0);
        uint64_t r = i * 977 + 1;
        for (int k = 0; k < 30; k++) {
            r = r * 6364136223846793005u + 1442695040888963407u;
            const uint64_t from = (r >> 33) % e.bytes;
            const uint64_t left = e.bytes - from, n = (r >> 17) % (left < 9000 ? left : 9000) + 1;
            unsigned char part[9000];
            weights_make_fill(weights, &e, from, part, n);
            if (memcmp(part, whole + from, n) != 0)
                fail_msg("%s: %lu bytes from %lu on differ", e.name, (unsigned long)n,
                         (unsigned long)from);
        }
        free(whole);
    }
}

/* Every tensor of the model, so that none lacks a recipe: filled, finite, not constant. */
static enum status check_tensor(void *context, const struct manifest_entry *e, struct err *err) {
    (void)context;
    (void)err;
    if (e->expert > 1)
        return OK;
    unsigned char *bytes = malloc(e->bytes);
    weights_make_fill(weights, e, 0, bytes, e->bytes);
    bool varied = e->bytes <= 64; // a few scales may be equal
    for (uint64_t i = 0; i < e->bytes; i++) {
        varied |= bytes[i] != bytes[0];
        if (e->dtype == DTYPE_F8_E4M3 && (bytes[i] & 0x7F) == 0x7F)
            fail_msg("%s: byte %lu is no number", e->name, (unsigned long)i);
        if (e->dtype == DTYPE_F8_E8M0 && (bytes[i] < 127 - 24 || bytes[i] > 127 + 4))
            fail_msg("%s: scale %u", e->name, bytes[i]);
    }
    for (uint64_t i = 0; e->dtype == DTYPE_F32 && i < e->bytes; i += 4)
        assert_true(fabsf(load_f32(bytes + i)) < 16);
    for (uint64_t i = 0; e->dtype == DTYPE_BF16 && i < e->bytes; i += 2)
        assert_true(fabsf(bf16_value(load_u16(bytes + i))) < 32);
    if (!varied)
        fail_msg("%s: all bytes are %u", e->name, bytes[0]);
    free(bytes);
    return OK;
}
static void every_tensor_of_the_model_holds_numbers_of_sane_size(void **state) {
    (void)state;
    assert_int_equal(manifest_walk(&demo, check_tensor, NULL, NULL), OK);
}

/* An input of variance 1 gives an output of variance gain². */
static void matrices_keep_the_variance_of_their_input(void **state) {
    (void)state;
    static const struct {
        enum tensor_id id;
        double gain;
    } cases[] = {
        { TENSOR_HEAD, 3 },        { TENSOR_WQ_A, 1 },       { TENSOR_WQ_B, 1 },
        { TENSOR_WKV, 1 },         { TENSOR_WO_A, 1 },       { TENSOR_WO_B, 0.6 },
        { TENSOR_COMP_WKV, 1 },    { TENSOR_INDEX_WQ_B, 1 }, { TENSOR_SHARED_W1, 1 },
        { TENSOR_SHARED_W2, 0.6 }, { TENSOR_W1, 1 },         { TENSOR_W2, 0.6 },
        { TENSOR_W3, 1 },          { TENSOR_HC_ATTN_FN, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct values m = values_of(cases[i].id, cases[i].id < TENSOR_ATTN_NORM ? 0 : 4, 0);
        const double rms = root_mean_square(m.v, m.n, 1) * sqrt((double)m.cols);
        // Few blocks of scales, and a few large channels: within a fifth.
        if (rms < 0.8 * cases[i].gain || rms > 1.2 * cases[i].gain)
            fail_msg("%s: %.3f",
                     entry_of(cases[i].id, cases[i].id < TENSOR_ATTN_NORM ? 0 : 4, 0).name, rms);
        assert_true(fabs(mean(m.v, m.n)) < 0.02 / sqrt((double)m.cols) * 3);
        free(m.v);
    }
}

/* Codes of E2M1 by their magnitude, as a gaussian of σ = 1.9 falls into them. */
static void fp4_codes_are_gaussian(void **state) {
    (void)state;
    static const double border[] = { 0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 99 };
    const struct manifest_entry e = entry_of(TENSOR_W1, 5, 3);
    unsigned char *bytes = tensor(TENSOR_W1, 5, 3);
    uint32_t count[16] = { 0 };
    for (uint64_t i = 0; i < e.bytes; i++) {
        count[bytes[i] & 15]++;
        count[bytes[i] >> 4]++;
    }
    const double n = 2.0 * (double)e.bytes;
    for (int code = 0; code < 8; code++) {
        const double expected =
            erf(border[code + 1] / 1.9 / sqrt(2)) - erf(border[code] / 1.9 / sqrt(2));
        const double share = (count[code] + count[code + 8]) / n;
        if (fabs(share - expected) > 0.006)
            fail_msg("code %d: %.4f of all, not %.4f", code, share, expected);
        assert_true(fabs(count[code] / n - share / 2) < 0.004); // either sign
    }
    free(bytes);
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Words of 16 codes at any byte, from several experts: a word that comes twice is a repetition. */
static void no_run_of_codes_comes_twice_in_any_experts(void **state) {
    (void)state;
    const uint64_t n_each = entry_of(TENSOR_W1, 4, 0).bytes - 7;
    static const enum tensor_id ids[] = { TENSOR_W1, TENSOR_W3 };
    uint64_t *words = malloc(8 * n_each * sizeof *words), n = 0;
    for (uint32_t expert = 0; expert < 4; expert++) {
        for (int k = 0; k < 2; k++) {
            unsigned char *bytes = tensor(ids[k], 4, expert);
            for (uint64_t i = 0; i < n_each; i++)
                memcpy(&words[n++], bytes + i, 8);
            free(bytes);
        }
    }
    qsort(words, n, sizeof *words, by_value);
    uint64_t twice = 0;
    for (uint64_t i = 1; i < n; i++)
        twice += words[i] == words[i - 1];
    // Half a million words of about 50 bits of entropy: by chance, hardly ever.
    assert_true(twice < 10);
    free(words);
}

static void another_seed_gives_another_model_and_the_same_seed_the_same(void **state) {
    (void)state;
    const struct manifest_entry e = entry_of(TENSOR_W1, 4, 0);
    unsigned char *first = tensor(TENSOR_W1, 4, 0), *other = malloc(e.bytes);
    for (uint64_t seed = SEED; seed < SEED + 2; seed++) {
        struct weights_make *w;
        assert_int_equal(weights_make_open(&w, &demo, seed, NULL), OK);
        weights_make_fill(w, &e, 0, other, e.bytes);
        assert_true((memcmp(first, other, e.bytes) == 0) == (seed == SEED));
        weights_make_close(w);
    }
    free(first);
    free(other);
}

/* A change here changes every checkpoint that mkmodel makes: say so in the commit. */
static void seed_means_the_same_weights_on_every_machine(void **state) {
    (void)state;
    uint64_t sum = 0;
    static const enum tensor_id ids[] = { TENSOR_EMBED, TENSOR_W1, TENSOR_W2_SCALE, TENSOR_GATE };
    for (size_t i = 0; i < 4; i++) {
        const struct manifest_entry e = entry_of(ids[i], i ? 4 : 0, 0);
        unsigned char *bytes = tensor(ids[i], i ? 4 : 0, 0);
        for (uint64_t b = 0; b < e.bytes; b++)
            sum = sum * 31 + bytes[b];
        free(bytes);
    }
    assert_true(sum == 0x30c716f3935a108fu);
}

/* --- large channels -------------------------------------------------------------------------- */

/* The columns of a matrix that are far larger than the 128 they share a scale with; how many. */
static uint32_t large_columns(enum tensor_id id, double times, uint32_t *out) {
    const struct values m = values_of(id, id == TENSOR_EMBED ? 0 : 4, 0);
    uint32_t n = 0;
    for (uint64_t first = 0; first < m.cols; first += 128) {
        double size[128], sum = 0;
        for (uint64_t c = 0; c < 128; c++) {
            size[c] = root_mean_square(m.v + first + c, m.rows, m.cols);
            sum += size[c];
        }
        for (uint64_t c = 0; c < 128; c++)
            if (size[c] > times * sum / 128 && n < 16)
                out[n++] = (uint32_t)(first + c);
    }
    free(m.v);
    return n;
}

static void the_same_few_channels_are_large_everywhere(void **state) {
    (void)state;
    uint32_t embedding[16], reading[16];
    const uint32_t n = large_columns(TENSOR_EMBED, 2.5, embedding);
    assert_int_equal(n, 2);
    static const enum tensor_id readers[] = { TENSOR_WQ_A, TENSOR_WKV, TENSOR_GATE,
                                              TENSOR_W1,   TENSOR_W3,  TENSOR_SHARED_W1 };
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        assert_int_equal(large_columns(readers[i], 1.4, reading), n);
        assert_memory_equal(reading, embedding, n * sizeof *reading);
    }
    static const enum tensor_id writers[] = { TENSOR_WO_B, TENSOR_W2, TENSOR_SHARED_W2 };
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        const struct values m = values_of(writers[i], 4, 0);
        const double all = root_mean_square(m.v, m.n, 1);
        uint32_t found = 0;
        for (uint64_t r = 0; r < m.rows; r++) {
            if (root_mean_square(m.v + r * m.cols, m.cols, 1) < 2.5 * all)
                continue;
            assert_true(found < n);
            assert_int_equal(r, embedding[found++]);
        }
        assert_int_equal(found, n);
        free(m.v);
    }
}

/* --- hyper-connections ----------------------------------------------------------------------- */

static void streams_keep_most_of_themselves(void **state) {
    (void)state;
    const uint32_t n = demo.n_streams;
    for (uint32_t layer = 0; layer < demo.n_layers; layer++) {
        const struct values base = values_of(TENSOR_HC_FFN_BASE, layer, 0);
        const float *mix = base.v + 2 * n;
        for (uint32_t i = 0; i < n; i++) {
            double sum = 0;
            for (uint32_t j = 0; j < n; j++)
                sum += exp(mix[i * n + j]);
            assert_true(exp(mix[i * n + i]) / sum > 0.9); // softmax, before the Sinkhorn rounds
            const double pre = 1 / (1 + exp(-base.v[i])), post = 2 / (1 + exp(-base.v[n + i]));
            assert_true(pre > 0.08 && pre < 0.55);
            assert_true(post > 0.4 && post < 1.6);
        }
        free(base.v);
    }
}

/* --- routing --------------------------------------------------------------------------------- */

static void table_names_distinct_experts_and_leaves_none_out(void **state) {
    (void)state;
    const uint32_t k = demo.n_chosen;
    unsigned char *bytes = tensor(TENSOR_GATE_TABLE, 1, 0);
    uint32_t count[64] = { 0 };
    for (uint64_t token = 0; token < demo.vocab; token++) {
        int64_t row[CONFIG_MAX_CHOSEN];
        memcpy(row, bytes + token * k * 8, k * 8);
        for (uint32_t i = 0; i < k; i++) {
            assert_in_range(row[i], 0, demo.n_experts - 1);
            count[row[i]]++;
            for (uint32_t j = 0; j < i; j++)
                assert_int_not_equal(row[i], row[j]);
        }
    }
    for (uint32_t e = 0; e < demo.n_experts; e++)
        assert_in_range(count[e], demo.vocab * k / demo.n_experts / 2,
                        demo.vocab * k / demo.n_experts * 2);
    free(bytes);
}

/* N(0, 1), good enough for an input. */
static float gaussian(uint64_t *r) {
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *r = *r * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*r >> 40) * 0x1p-24f;
    }
    return sum - 6;
}

/* How often a layer's gate chooses each expert, for random normalized inputs. */
static void count_choices(const struct config *c, const struct weights_make *w, uint32_t layer,
                          uint32_t n_tokens, uint32_t *count) {
    struct manifest_entry gate, bias;
    assert_true(manifest_entry(c, TENSOR_GATE, layer, 0, &gate));
    assert_true(manifest_entry(c, TENSOR_GATE_BIAS, layer, 0, &bias));
    uint16_t *rows = malloc(gate.bytes);
    float *biases = malloc(bias.bytes), *x = malloc(c->d * sizeof *x);
    float *score = malloc(c->n_experts * sizeof *score);
    weights_make_fill(w, &gate, 0, rows, gate.bytes);
    weights_make_fill(w, &bias, 0, biases, bias.bytes);
    uint64_t r = 1;
    for (uint32_t t = 0; t < n_tokens; t++) {
        for (uint32_t i = 0; i < c->d; i++)
            x[i] = gaussian(&r);
        for (uint32_t e = 0; e < c->n_experts; e++) {
            float s = 0;
            for (uint32_t i = 0; i < c->d; i++)
                s += x[i] * bf16_value(rows[(uint64_t)e * c->d + i]);
            score[e] = sqrtf(log1pf(expf(s))) + biases[e];
        }
        for (uint32_t k = 0; k < c->n_chosen; k++) {
            uint32_t best = 0;
            for (uint32_t e = 1; e < c->n_experts; e++)
                best = score[e] > score[best] ? e : best;
            count[best]++;
            score[best] = -1;
        }
    }
    free(rows);
    free(biases);
    free(x);
    free(score);
}

static void some_experts_are_hot_and_none_is_out_of_reach(void **state) {
    (void)state;
    const uint32_t n_tokens = 4000, mean_count = n_tokens * demo.n_chosen / demo.n_experts;
    for (uint32_t layer = demo.n_hash_layers; layer < demo.n_layers; layer++) {
        uint32_t count[64] = { 0 }, most = 0, least = UINT32_MAX;
        count_choices(&demo, weights, layer, n_tokens, count);
        for (uint32_t e = 0; e < demo.n_experts; e++) {
            most = count[e] > most ? count[e] : most;
            least = count[e] < least ? count[e] : least;
        }
        assert_true(most > mean_count * 3 / 2);
        assert_true(least > 0);
        assert_true(least < mean_count * 2 / 3);
    }
}

/* --- the -Base form -------------------------------------------------------------------------- */

static void base_experts_have_float_scales_of_the_right_size(void **state) {
    (void)state;
    struct config base = demo;
    base.expert_format = EXPERT_FP8;
    struct weights_make *w;
    assert_int_equal(weights_make_open(&w, &base, SEED, NULL), OK);
    struct manifest_entry codes, scales;
    assert_true(manifest_entry(&base, TENSOR_W1, 4, 0, &codes));
    assert_true(manifest_entry(&base, TENSOR_W1_SCALE, 4, 0, &scales));
    assert_int_equal(scales.dtype, DTYPE_F32);
    unsigned char *code = malloc(codes.bytes);
    float *scale = malloc(scales.bytes);
    weights_make_fill(w, &codes, 0, code, codes.bytes);
    weights_make_fill(w, &scales, 0, scale, scales.bytes);
    double sum = 0;
    for (uint64_t i = 0; i < codes.bytes; i++) {
        const uint64_t row = i / base.d, col = i % base.d;
        const float s = scale[row / 128 * (base.d / 128) + col / 128];
        assert_true(s > 0);
        sum += pow(e4m3_value(code[i]) * s, 2);
    }
    const double rms = sqrt(sum / (double)codes.bytes * base.d);
    assert_true(rms > 0.8 && rms < 1.25);
    free(code);
    free(scale);
    weights_make_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_range_of_a_tensor_equals_that_part_of_the_whole),
        cmocka_unit_test(every_tensor_of_the_model_holds_numbers_of_sane_size),
        cmocka_unit_test(matrices_keep_the_variance_of_their_input),
        cmocka_unit_test(fp4_codes_are_gaussian),
        cmocka_unit_test(no_run_of_codes_comes_twice_in_any_experts),
        cmocka_unit_test(another_seed_gives_another_model_and_the_same_seed_the_same),
        cmocka_unit_test(seed_means_the_same_weights_on_every_machine),
        cmocka_unit_test(the_same_few_channels_are_large_everywhere),
        cmocka_unit_test(streams_keep_most_of_themselves),
        cmocka_unit_test(table_names_distinct_experts_and_leaves_none_out),
        cmocka_unit_test(some_experts_are_hot_and_none_is_out_of_reach),
        cmocka_unit_test(base_experts_have_float_scales_of_the_right_size),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
