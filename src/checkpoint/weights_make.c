/* How a tensor of gigabytes is drawn at the speed of a drive.
 *
 * For every kind of tensor a pool of POOL_WORDS words is drawn carefully, once. Each block of a
 * tensor then picks two windows of its pool, and each value of the block one of the two windows and
 * a sign, by bits of a counter-based generator: three multiplications for eight bytes. The values keep
 * the pool's distribution; no two blocks have a run of values in common, and no two tensors.
 * Numbers come from integers, exact products and square roots alone, so that a seed means the same
 * weights on every machine. */
#include "src/checkpoint/weights_make.h"

#include "kernels/lowbit.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define BLOCK_BYTES 4096u
#define BLOCK_WORDS (BLOCK_BYTES / 8)
#define POOL_WORDS  32768u /* 256 KiB: two windows stay in a core's L2 */
#define POOL_BYTES  (POOL_WORDS * 8)

#define N_DRAWS (POOL_BYTES * 2) /* of N(0, 1): one for each FP4 code of a pool */

/* --- what each tensor is drawn from --------------------------------------------------------- */

enum recipe_kind {
    MATRIX,  /* N(0, (gain/√columns)²): a row times a normalized input has variance gain² */
    TABLE,   /* N(0, gain²): looked up or added, not multiplied */
    AROUND,  /* mean + gain·N(0, 1): norms and other vectors */
    HC_BASE, /* biases of pre, post and the mixing of streams */
    HC_SCALE,
    GATE_BIAS,
    GATE_TABLE
};

/* A few channels of the residual stream are large in trained models, always the same ones. */
enum channels {
    READS = 1,    /* columns that read them are twice as large */
    WRITES = 2,   /* rows that write them are four times as large */
    EMBEDS = 4,   /* so are their columns, and positive: a direction that all tokens share */
    ROWS_VARY = 8 /* besides: rows of different length (GATE_ROW_SPREAD) */
};

struct recipe {
    enum recipe_kind kind;
    float gain, mean;
    unsigned channels;
};

static const struct recipe recipes[TENSOR_COUNT] = {
    // Streams begin with a root mean square of 1. Measured: attention adds 0.35 and the experts 0.45
    // in Flash, 0.4 and 0.7 in the demo, whose geometry ends at 6.6 after 61 layers: the newest layers
    // are still heard, and two tokens' streams have a cosine below 0.2, so routing does not collapse.
    [TENSOR_EMBED] = { TABLE, 1, 0, EMBEDS },
    // Logits N(0, 3²): the best of 129,280 leads at 13, with a few percent of the probability:
    // neither flat nor certain.
    [TENSOR_HEAD] = { MATRIX, 3, 0, 0 },
    [TENSOR_NORM] = { AROUND, 0.15f, 1, 0 },
    // fn·u·ρ is N(0, 1) for each coefficient; hc_scale says how far that moves pre, post and mixing.
    [TENSOR_HC_HEAD_FN] = { MATRIX, 1, 0, 0 },
    [TENSOR_HC_HEAD_BASE] = { HC_BASE, 0, 0, 0 },
    [TENSOR_HC_HEAD_SCALE] = { HC_SCALE, 0, 0, 0 },
    [TENSOR_ATTN_NORM] = { AROUND, 0.15f, 1, 0 },
    [TENSOR_FFN_NORM] = { AROUND, 0.15f, 1, 0 },
    [TENSOR_HC_ATTN_FN] = { MATRIX, 1, 0, 0 },
    [TENSOR_HC_ATTN_BASE] = { HC_BASE, 0, 0, 0 },
    [TENSOR_HC_ATTN_SCALE] = { HC_SCALE, 0, 0, 0 },
    [TENSOR_HC_FFN_FN] = { MATRIX, 1, 0, 0 },
    [TENSOR_HC_FFN_BASE] = { HC_BASE, 0, 0, 0 },
    [TENSOR_HC_FFN_SCALE] = { HC_SCALE, 0, 0, 0 },
    // A sink of exp(0) weighs as much as one key of average score.
    [TENSOR_ATTN_SINK] = { TABLE, 0.5f, 0, 0 },
    [TENSOR_WQ_A] = { MATRIX, 1, 0, READS },
    [TENSOR_Q_NORM] = { AROUND, 0.1f, 1, 0 },
    [TENSOR_WQ_B] = { MATRIX, 1, 0, 0 },
    [TENSOR_WKV] = { MATRIX, 1, 0, READS },
    // Queries are normalized, so these set the scores: N(0, 1.5²), of 128 keys about a tenth counts.
    [TENSOR_KV_NORM] = { AROUND, 0.2f, 1.5f, 0 },
    [TENSOR_WO_A] = { MATRIX, 1, 0, 0 },
    [TENSOR_WO_B] = { MATRIX, 0.6f, 0, WRITES },
    [TENSOR_COMP_APE] = { TABLE, 0.5f, 0, 0 },
    [TENSOR_COMP_WKV] = { MATRIX, 1, 0, READS },
    [TENSOR_COMP_WGATE] = { MATRIX, 1, 0, READS },
    [TENSOR_COMP_NORM] = { AROUND, 0.2f, 1.5f, 0 },
    [TENSOR_INDEX_WQ_B] = { MATRIX, 1, 0, 0 },
    [TENSOR_INDEX_WEIGHTS] = { MATRIX, 1, 0, READS },
    [TENSOR_INDEX_COMP_APE] = { TABLE, 0.5f, 0, 0 },
    [TENSOR_INDEX_COMP_WKV] = { MATRIX, 1, 0, READS },
    [TENSOR_INDEX_COMP_WGATE] = { MATRIX, 1, 0, READS },
    [TENSOR_INDEX_COMP_NORM] = { AROUND, 0.2f, 1, 0 },
    // Scores N(0, 1) and rows of different length: experts with long rows are chosen more often.
    [TENSOR_GATE] = { MATRIX, 1, 0, READS | ROWS_VARY },
    [TENSOR_GATE_TABLE] = { GATE_TABLE, 0, 0, 0 },
    [TENSOR_GATE_BIAS] = { GATE_BIAS, 0, 0, 0 },
    [TENSOR_SHARED_W1] = { MATRIX, 1, 0, READS },
    [TENSOR_SHARED_W2] = { MATRIX, 0.6f, 0, WRITES },
    [TENSOR_SHARED_W3] = { MATRIX, 1, 0, READS },
    [TENSOR_MTP_E_PROJ] = { MATRIX, 0.7f, 0, 0 }, // the sum of two projections has variance 1
    [TENSOR_MTP_H_PROJ] = { MATRIX, 0.7f, 0, 0 },
    [TENSOR_MTP_ENORM] = { AROUND, 0.15f, 1, 0 },
    [TENSOR_MTP_HNORM] = { AROUND, 0.15f, 1, 0 },
    [TENSOR_MTP_NORM] = { AROUND, 0.15f, 1, 0 },
    [TENSOR_MTP_HC_HEAD_FN] = { MATRIX, 1, 0, 0 },
    [TENSOR_MTP_HC_HEAD_BASE] = { HC_BASE, 0, 0, 0 },
    [TENSOR_MTP_HC_HEAD_SCALE] = { HC_SCALE, 0, 0, 0 },
    [TENSOR_W1] = { MATRIX, 1, 0, READS },
    [TENSOR_W2] = { MATRIX, 0.6f, 0, WRITES },
    [TENSOR_W3] = { MATRIX, 1, 0, READS },
};

// Biases of hyper-connections. pre: σ(−1.1) = 1/4, the mean of four streams. post: 2σ(0) = 1. Mixing:
// exp(5) against 1, so that a stream keeps about 98 % of itself in each half layer.
#define HC_PRE_BASE     -1.1f
#define HC_MIX_DIAGONAL 5.0f
#define HC_BASE_SPREAD  0.3f

// pre and post follow the input visibly, the mixing barely.
static const float hc_scale_mean[3] = { 0.3f, 0.3f, 0.1f };

// Against scores of sqrt(softplus(N(0, 1))), whose middle is 0.8 and whose sixth largest of 384 is
// 1.5. Measured on 300 random tokens of Flash: a tenth of the experts gets a third of the choices (what
// the tokens have in common adds to what is set here), the most popular six times its share.
#define GATE_BIAS_SPREAD 0.04f
#define GATE_BIAS_HOT    0.08f
#define GATE_HOT_ONE_IN  16
#define GATE_ROW_SPREAD  0.08f

// Codes are scaled such that the largest of a block just fits: of 128×128 gaussian values that is 4σ,
// of 32 about 2σ, below 448 and 6 by at most an octave, since scales are powers of two.
#define FP8_CODE_SIGMA      52.0f /* to twice that */
#define FP8_SMALL_BLOCKS    0.15f /* share of blocks with half the scale */
#define FP8_BASE_CODE_SIGMA 72.0f /* where scales are any float */
#define FP4_CODE_SIGMA      1.9f

#define CHANNELS_PER_D 1024 /* one in so many is large, at least two */
#define MAX_CHANNELS   64
#define WRITE_OCTAVES  2
#define READ_OCTAVES   1

struct weights_make {
    struct config config;
    uint64_t seed;
    uint32_t channels[MAX_CHANNELS];
    uint32_t n_channels;
    uint64_t *pool[TENSOR_COUNT]; /* POOL_WORDS + BLOCK_WORDS, the last being the first again */
    uint64_t *fp4_codes;          /* the same for all matrices: their scales differ */
};

/* --- numbers -------------------------------------------------------------------------------- */

/* Word `i` of the stream that a key names: splitmix64's output function over a counter. Philox
 * (src/random.h) would be better and several times slower than a drive. */
static inline uint64_t draw(uint64_t key, uint64_t i) {
    uint64_t z = key + i * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t key_of(uint64_t seed, const char *name) {
    return XXH3_64bits_withSeed(name, strlen(name), seed);
}

static float uniform(uint64_t word) {
    return (float)(word >> 40) * 0x1p-24f;
}

/* N(0, 1) as a sum of twelve 16-bit uniforms: variance exactly 1, nothing beyond 6, no libm. */
static float normal(uint64_t key, uint64_t i) {
    uint32_t sum = 0;
    for (uint64_t k = 0; k < 3; k++) {
        const uint64_t word = draw(key, 3 * i + k);
        sum += (uint32_t)(word & 0xFFFF) + (uint32_t)(word >> 16 & 0xFFFF) +
               (uint32_t)(word >> 32 & 0xFFFF) + (uint32_t)(word >> 48);
    }
    return (float)((double)sum * 0x1p-16 - 6 + 12 * 0x1p-17);
}

/* --- pools ---------------------------------------------------------------------------------- */

static uint64_t *pool_new(void) {
    return malloc((POOL_WORDS + BLOCK_WORDS) * 8);
}

/* The last window may begin at the pool's end: it goes on at its beginning. */
static void pool_close_ring(uint64_t *pool) {
    memcpy(pool + POOL_WORDS, pool, BLOCK_BYTES);
}

static uint64_t *pool_fp4(const float *draws) {
    uint64_t *pool = pool_new();
    if (!pool)
        return NULL;
    unsigned char *bytes = (unsigned char *)pool;
    for (size_t i = 0; i < POOL_BYTES; i++)
        bytes[i] = (unsigned char)(e2m1_code(fabsf(draws[2 * i]) * FP4_CODE_SIGMA) |
                                   e2m1_code(fabsf(draws[2 * i + 1]) * FP4_CODE_SIGMA) << 4);
    pool_close_ring(pool);
    return pool;
}

static double fp4_root_mean_square(const uint64_t *pool) {
    const unsigned char *bytes = (const unsigned char *)pool;
    double sum = 0;
    for (size_t i = 0; i < POOL_BYTES; i++) {
        const float low = e2m1_value(bytes[i]), high = e2m1_value(bytes[i] >> 4);
        sum += (double)(low * low + high * high);
    }
    return sqrt(sum / N_DRAWS);
}

static uint64_t *pool_fp8(const float *draws, float sigma) {
    uint64_t *pool = pool_new();
    if (!pool)
        return NULL;
    unsigned char *bytes = (unsigned char *)pool;
    for (size_t i = 0; i < POOL_BYTES; i++)
        bytes[i] = e4m3_code(fabsf(draws[i]) * sigma);
    pool_close_ring(pool);
    return pool;
}

/* Plain values, as BF16 or F32: mean + spread·N(0, 1). */
static uint64_t *pool_plain(const float *draws, enum dtype dtype, double mean, double spread) {
    uint64_t *pool = pool_new();
    if (!pool)
        return NULL;
    unsigned char *bytes = (unsigned char *)pool;
    const size_t size = dtype_bytes(dtype);
    for (size_t i = 0; i < POOL_BYTES / size; i++) {
        const float value = (float)mean + (float)spread * draws[i];
        const uint16_t code = bf16_code(value);
        memcpy(bytes + i * size, size == 2 ? (const void *)&code : (const void *)&value, size);
    }
    pool_close_ring(pool);
    return pool;
}

/* E8M0 bytes: 2^exponent, and a share of the next higher power. */
static uint64_t *pool_scales(int exponent, float share_above, uint64_t key) {
    uint64_t *pool = pool_new();
    if (!pool)
        return NULL;
    unsigned char *bytes = (unsigned char *)pool;
    for (size_t i = 0; i < POOL_BYTES; i++)
        bytes[i] = (unsigned char)(127 + exponent + (uniform(draw(key, i)) < share_above));
    pool_close_ring(pool);
    return pool;
}

/* wanted = 2^exponent · the result, which lies in [1, 2). */
static double octaves_below(double wanted, int *exponent) {
    const double half = frexp(wanted, exponent);
    --*exponent;
    return 2 * half;
}

/* Codes and scales of a quantized matrix whose values shall have a root mean square of `wanted`. */
static bool make_fp4(struct weights_make *w, enum tensor_id id, double wanted, uint64_t key) {
    // Scales vary, codes do not: of two neighbouring powers as many as give the mean square.
    int exponent;
    const double ratio = octaves_below(wanted / fp4_root_mean_square(w->fp4_codes), &exponent);
    w->pool[id] = w->fp4_codes;
    w->pool[id + 1] = pool_scales(exponent, (float)((ratio * ratio - 1) / 3), key);
    return w->pool[id + 1] != NULL;
}
static bool make_fp8(struct weights_make *w, enum tensor_id id, double wanted, enum dtype scale,
                     const float *draws, uint64_t key) {
    if (scale == DTYPE_F32) { // -Base: N(1, ¼²) times what the codes lack; the mean square is 17/16
        const double lacking = wanted / FP8_BASE_CODE_SIGMA / sqrt(17.0 / 16);
        w->pool[id] = pool_fp8(draws, FP8_BASE_CODE_SIGMA);
        w->pool[id + 1] = pool_plain(draws, DTYPE_F32, lacking, lacking / 4);
    } else {
        // A small matrix has few blocks: its codes carry the size, scales are nearly all alike.
        int exponent;
        const double lost = sqrt(1 - FP8_SMALL_BLOCKS * 0.75);
        const double ratio = octaves_below(wanted / lost / FP8_CODE_SIGMA, &exponent);
        w->pool[id] = pool_fp8(draws, (float)ratio * FP8_CODE_SIGMA);
        w->pool[id + 1] = pool_scales(exponent - 1, 1 - FP8_SMALL_BLOCKS, key);
    }
    return w->pool[id] && w->pool[id + 1];
}

/* Some layer's tensor of this kind: all have the same columns and type. False: the config has none. */
static bool any_entry(const struct config *c, enum tensor_id id, struct manifest_entry *out) {
    for (uint32_t layer = 0; layer < c->n_layers + c->n_drafts; layer++)
        if (manifest_entry(c, id, layer, 0, out))
            return true;
    return false;
}

static uint64_t columns(const struct manifest_entry *entry) {
    const uint64_t stored = entry->shape[entry->n_dims - 1];
    return entry->dtype == DTYPE_I8 ? 2 * stored : stored;
}

static bool make_pool(struct weights_make *w, enum tensor_id id, const float *draws) {
    const struct recipe *recipe = &recipes[id];
    struct manifest_entry entry, scale;
    if (!any_entry(&w->config, id, &entry) || recipe->kind > AROUND || manifest_is_scale(id))
        return true; // nothing to make, drawn one by one, or made with its matrix
    const double spread =
        recipe->kind == MATRIX ? recipe->gain / sqrt((double)columns(&entry)) : recipe->gain;
    const uint64_t key = key_of(w->seed, manifest_suffix(id));
    if (entry.dtype == DTYPE_I8)
        return make_fp4(w, id, spread, key);
    if (entry.dtype == DTYPE_F8_E4M3) {
        any_entry(&w->config, (enum tensor_id)(id + 1), &scale);
        return make_fp8(w, id, spread, scale.dtype, draws, key);
    }
    w->pool[id] = pool_plain(draws, entry.dtype, recipe->mean, spread);
    return w->pool[id] != NULL;
}

static void choose_channels(struct weights_make *w) {
    const uint32_t d = w->config.d, wanted = d / CHANNELS_PER_D;
    const uint64_t key = key_of(w->seed, "channels");
    const uint32_t n = wanted < 2 ? 2 : wanted > MAX_CHANNELS ? MAX_CHANNELS : wanted;
    for (uint64_t i = 0; w->n_channels < n; i++) {
        const uint32_t channel = (uint32_t)(draw(key, i) % d);
        bool taken = false;
        for (uint32_t k = 0; k < w->n_channels; k++)
            taken |= w->channels[k] == channel;
        if (!taken)
            w->channels[w->n_channels++] = channel;
    }
}

enum status weights_make_open(struct weights_make **out, const struct config *c, uint64_t seed,
                              struct err *err) {
    *out = NULL;
    struct weights_make *w = calloc(1, sizeof *w);
    float *draws = malloc(N_DRAWS * sizeof *draws);
    bool made = w && draws;
    if (made) {
        w->config = *c;
        w->seed = seed;
        choose_channels(w);
        const uint64_t key = key_of(seed, "draws");
        for (size_t i = 0; i < N_DRAWS; i++)
            draws[i] = normal(key, i);
        w->fp4_codes = pool_fp4(draws);
        made = w->fp4_codes != NULL;
    }
    for (int id = 0; id < TENSOR_COUNT && made; id++)
        made = make_pool(w, (enum tensor_id)id, draws);
    free(draws);
    if (!made) {
        weights_make_close(w);
        return err_set(err, ERR_MEMORY, "random weights: no memory for their pools (15 MB)");
    }
    *out = w;
    return OK;
}

void weights_make_close(struct weights_make *w) {
    if (!w)
        return;
    for (int id = 0; id < TENSOR_COUNT; id++)
        if (w->pool[id] != w->fp4_codes)
            free(w->pool[id]);
    free(w->fp4_codes);
    free(w);
}

/* --- blocks --------------------------------------------------------------------------------- */

/* One value's bits in a word: the lowest bit of each, a whole one, and where its sign is. */
struct lanes {
    uint64_t lowest, whole, sign;
};
static struct lanes lanes_of(enum dtype dtype, enum tensor_id id, const struct recipe *recipe) {
    switch (dtype) {
    case DTYPE_I8:
        return (struct lanes){ 0x1111111111111111u, 0xF, 0x8888888888888888u };
    case DTYPE_F8_E4M3:
        return (struct lanes){ 0x0101010101010101u, 0xFF, 0x8080808080808080u };
    case DTYPE_F8_E8M0:
        return (struct lanes){ 0x0101010101010101u, 0xFF, 0 };
    case DTYPE_BF16: // what lies around a mean keeps its sign
        return (struct lanes){ 0x0001000100010001u, 0xFFFF,
                               recipe->kind == AROUND ? 0 : 0x8000800080008000u };
    default:
        return (struct lanes){ 0x0000000100000001u, 0xFFFFFFFF,
                               recipe->kind == AROUND || manifest_is_scale(id)
                                   ? 0
                                   : 0x8000000080000000u };
    }
}

/* Block `block` of a tensor (all of its words: the caller drops what is past its end). */
static void mix_block(const uint64_t *pool, struct lanes lanes, uint64_t key, uint64_t block,
                      uint64_t *out) {
    const uint64_t where = draw(~key, block);
    const uint64_t *a = pool + (where & (POOL_WORDS - 1));
    const uint64_t *b = pool + (where >> 32 & (POOL_WORDS - 1));
    const uint64_t first = block * BLOCK_WORDS;
    for (uint64_t i = 0; i < BLOCK_WORDS; i++) {
        // The lowest bit of a value chooses its window, the highest its sign: different bits.
        const uint64_t random = draw(key, first + i);
        const uint64_t mask = (random & lanes.lowest) * lanes.whole;
        out[i] = ((a[i] & ~mask) | (b[i] & mask)) ^ (random & lanes.sign);
    }
}

/* The bytes of a block, where they lie in their tensor, and what a row is there. */
struct piece {
    unsigned char *bytes;
    uint64_t from, n; /* multiples of the value's size */
    uint64_t row_bytes;
};

/* Make a value larger by octaves, in its own code; what would pass the largest number stays there. */
static void enlarge(enum dtype dtype, unsigned char *value, uint64_t column, unsigned octaves) {
    switch (dtype) {
    case DTYPE_I8: // a magnitude of 2 to 6
        *value |= column % 2 ? 0x40 : 0x04;
        break;
    case DTYPE_F8_E4M3: {
        const unsigned code = (*value & 0x7Fu) + (octaves << 3);
        *value = (unsigned char)((*value & 0x80) | (code < 0x7E ? code : 0x7E));
        break;
    }
    case DTYPE_F8_E8M0:
        *value = (unsigned char)(*value + octaves);
        break;
    case DTYPE_BF16: { // the exponent begins at bit 7
        const uint16_t code = (uint16_t)(load_u16(value) + (octaves << 7));
        memcpy(value, &code, sizeof code);
        break;
    }
    default:
        assert(!"no such tensor has large channels");
    }
}

static void enlarge_columns(const struct weights_make *w, const struct manifest_entry *entry,
                            const struct piece *p, unsigned octaves, bool positive) {
    const uint64_t size = dtype_bytes(entry->dtype);
    for (uint64_t row = p->from / p->row_bytes; row * p->row_bytes < p->from + p->n; row++) {
        for (uint32_t i = 0; i < w->n_channels; i++) {
            const uint64_t column = w->channels[i];
            const uint64_t at =
                row * p->row_bytes + (entry->dtype == DTYPE_I8 ? column / 2 : column * size);
            if (at < p->from || at - p->from >= p->n)
                continue;
            unsigned char *value = p->bytes + (at - p->from);
            enlarge(entry->dtype, value, column, octaves);
            if (positive)
                value[size - 1] &= 0x7F;
        }
    }
}

static void enlarge_rows(const struct weights_make *w, const struct manifest_entry *entry,
                         const struct piece *p, unsigned octaves) {
    for (uint32_t i = 0; i < w->n_channels; i++) {
        const uint64_t begin = w->channels[i] * p->row_bytes, end = begin + p->row_bytes;
        for (uint64_t at = begin > p->from ? begin : p->from; at < end && at < p->from + p->n; at++)
            enlarge(entry->dtype, p->bytes + (at - p->from), 0, octaves);
    }
}

static void vary_rows(const struct piece *p, uint64_t key) {
    for (uint64_t at = p->from, end; at < p->from + p->n; at = end) {
        const uint64_t row = at / p->row_bytes;
        const float factor = 1 + GATE_ROW_SPREAD * normal(~key, row);
        end = (row + 1) * p->row_bytes;
        end = end < p->from + p->n ? end : p->from + p->n;
        for (unsigned char *v = p->bytes + (at - p->from); v < p->bytes + (end - p->from); v += 2) {
            const uint16_t code = bf16_code(bf16_value(load_u16(v)) * factor);
            memcpy(v, &code, sizeof code);
        }
    }
}

static void large_channels(const struct weights_make *w, const struct manifest_entry *entry,
                           uint64_t key, const struct piece *p) {
    const bool scale = manifest_is_scale(entry->id);
    const unsigned channels = recipes[scale ? entry->id - 1 : entry->id].channels;
    // Rows of FP4 grow by their scales (one for each row), rows of FP8 by their codes.
    const bool fp4_scale = scale && w->config.expert_format == EXPERT_FP4 && entry->id > TENSOR_W1;
    if (channels & WRITES && (scale ? fp4_scale : entry->dtype != DTYPE_I8))
        enlarge_rows(w, entry, p, WRITE_OCTAVES);
    if (scale)
        return;
    if (channels & READS)
        enlarge_columns(w, entry, p, READ_OCTAVES, false);
    if (channels & EMBEDS)
        enlarge_columns(w, entry, p, WRITE_OCTAVES, true);
    if (channels & ROWS_VARY)
        vary_rows(p, key);
}

/* --- what is drawn one by one ---------------------------------------------------------------- */

static float hc_base(const struct config *c, uint64_t key, uint64_t i) {
    const uint64_t n = c->n_streams;
    float mean = 0;
    if (i < n)
        mean = HC_PRE_BASE;
    else if (i >= 2 * n && (i - 2 * n) % (n + 1) == 0)
        mean = HC_MIX_DIAGONAL;
    return mean + HC_BASE_SPREAD * normal(key, i);
}

static float hc_scale(uint64_t key, uint64_t i) {
    return hc_scale_mean[i] * (1 + 0.15f * normal(key, i));
}

static float gate_bias(uint64_t key, uint64_t i) {
    const bool hot = draw(~key, i) % GATE_HOT_ONE_IN == 0;
    return GATE_BIAS_SPREAD * normal(key, i) + (hot ? GATE_BIAS_HOT : 0);
}

/* K distinct experts for a token. */
static void gate_table_row(const struct config *c, uint64_t key, uint64_t token, int64_t *row) {
    uint64_t at = token << 20; // a token's own stretch of the stream
    for (uint32_t i = 0; i < c->n_chosen;) {
        const int64_t expert = (int64_t)(draw(key, at++) % c->n_experts);
        bool taken = false;
        for (uint32_t k = 0; k < i; k++)
            taken |= row[k] == expert;
        if (!taken)
            row[i++] = expert;
    }
}

/* A block of such a tensor: BLOCK_BYTES of it, or what is left. */
static void draw_block(const struct weights_make *w, const struct manifest_entry *entry,
                       uint64_t key, const struct piece *p) {
    if (recipes[entry->id].kind == GATE_TABLE) {
        const uint64_t chosen = w->config.n_chosen, first = p->from / 8;
        int64_t row[CONFIG_MAX_CHOSEN];
        for (uint64_t i = first; i < first + p->n / 8; i++) {
            if (i == first || i % chosen == 0)
                gate_table_row(&w->config, key, i / chosen, row);
            memcpy(p->bytes + (i - first) * 8, &row[i % chosen], 8);
        }
        return;
    }
    for (uint64_t i = p->from / 4; i < (p->from + p->n) / 4; i++) {
        float value = 0;
        switch (recipes[entry->id].kind) {
        case HC_BASE:
            value = hc_base(&w->config, key, i);
            break;
        case HC_SCALE:
            value = hc_scale(key, i);
            break;
        case GATE_BIAS:
            value = gate_bias(key, i);
            break;
        default:
            assert(!"this tensor comes from a pool");
        }
        memcpy(p->bytes + i * 4 - p->from, &value, 4);
    }
}

/* --- filling -------------------------------------------------------------------------------- */

static void fill_block(const struct weights_make *w, const struct manifest_entry *entry,
                       uint64_t key, uint64_t block, uint64_t *out) {
    const uint64_t from = block * BLOCK_BYTES, left = entry->bytes - from;
    const struct piece p = { .bytes = (unsigned char *)out,
                             .from = from,
                             .n = left < BLOCK_BYTES ? left : BLOCK_BYTES,
                             .row_bytes = entry->bytes / entry->shape[0] };
    const uint64_t *pool = w->pool[entry->id];
    if (!pool) {
        draw_block(w, entry, key, &p);
        return;
    }
    mix_block(pool, lanes_of(entry->dtype, entry->id, &recipes[entry->id]), key, block, out);
    large_channels(w, entry, key, &p);
}

void weights_make_fill(const struct weights_make *w, const struct manifest_entry *entry,
                       uint64_t from, void *dst, uint64_t bytes) {
    assert(from <= entry->bytes && bytes <= entry->bytes - from);
    const uint64_t key = key_of(w->seed, entry->name);
    unsigned char *out = dst;
    while (bytes > 0) {
        // A tensor begins at any byte of its file, so blocks are made aside and copied.
        uint64_t words[BLOCK_WORDS];
        const uint64_t skip = from % BLOCK_BYTES;
        const uint64_t n = bytes < BLOCK_BYTES - skip ? bytes : BLOCK_BYTES - skip;
        fill_block(w, entry, key, from / BLOCK_BYTES, words);
        memcpy(out, (unsigned char *)words + skip, n);
        from += n;
        out += n;
        bytes -= n;
    }
}
