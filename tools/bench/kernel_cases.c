#include "tools/bench/kernel_cases.h"

#include <stdlib.h>
#include <string.h>

/* --- memory ------------------------------------------------------------------------------------ */

#define N_IDS     ((size_t)BENCH_MAX_ROWS * 1024)  /* index_topk's k for each row */
#define N_ENTRIES 65536                            /* 256K tokens at m = 4 */
#define KEY_PAGES 5                                /* of 1 MiB: 65536 keys of 68 bytes */
#define POSITION  (N_ENTRIES * 4 - BENCH_MAX_ROWS) /* of the first row: it sees nearly all */

/* Widest activations of one row: H·c, the streams, an index query, experts' results. */
static size_t widest(const struct config *c) {
    size_t width = (size_t)c->n_heads * c->head_dim;
    size_t others[] = { (size_t)c->n_streams * c->d, (size_t)c->index_heads * c->index_dim,
                        (size_t)c->o_groups * c->o_rank };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        width = others[i] > width ? others[i] : width;
    return width;
}

static enum status put(struct bench_memory *m, struct mem *out, size_t bytes,
                       void (*fill)(unsigned char *p, size_t n, const struct bench_memory *m),
                       struct err *err) {
    unsigned char *p = malloc(bytes);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory for %zu MiB of test data", bytes >> 20);
    enum status status = ops_alloc(m->ops, bytes, out, err);
    if (status == OK) {
        fill(p, bytes, m);
        ops_upload(m->ops, *out, p, bytes);
    }
    free(p);
    return status;
}

static uint32_t next(uint32_t *state) {
    return *state = *state * 1664525u + 1013904223u;
}

/* Every second byte is a sign and an exponent near 0: as F32, BF16, E4M3 and E2M1 there is no number
 * that a processor takes longer for. */
static void fill_pool(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)m;
    uint32_t state = 1;
    for (size_t i = 0; i + 4 <= n; i += 4) {
        uint32_t word = (next(&state) & 0x80FF80FFu) | 0x3D003D00u;
        memcpy(p + i, &word, 4);
    }
}
static void fill_scales(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)m;
    uint32_t state = 2;
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(116 + (next(&state) >> 29));
}
static void fill_ones(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)m;
    const float one = 1.0f;
    for (size_t i = 0; i + 4 <= n; i += 4)
        memcpy(p + i, &one, 4);
}
static void fill_rows(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)m;
    uint32_t state = 3;
    for (size_t i = 0; i + 4 <= n; i += 4) {
        float v = (float)(int32_t)next(&state) * 0x1p-31f;
        memcpy(p + i, &v, 4);
    }
}
/* Entries as the indexer would choose them: ascending, distinct, all over the context. */
static void fill_ids(unsigned char *p, size_t n, const struct bench_memory *m) {
    uint32_t state = 4;
    const uint32_t k = m->config->index_topk;
    for (size_t i = 0; i < n / 4; i++) {
        int32_t id = (int32_t)(i % k * 60 + (next(&state) >> 27));
        memcpy(p + 4 * i, &id, 4);
    }
}
/* Pages of KV entries, then of index keys (4.3), then one of compressor states. */
static void fill_pages(unsigned char *p, size_t n, const struct bench_memory *m) {
    const struct config *c = m->config;
    const uint32_t bytes = kv_entry_bytes(false, c->head_dim, c->rope_dim);
    const uint32_t coded = c->head_dim - c->rope_dim, groups = coded / 64;
    const size_t entries = (size_t)m->keys_page * m->page_bytes;
    fill_scales(p + entries, n - entries, m);
    fill_pool(p, entries, m);
    for (size_t block = 0; block < entries; block += KV_BLOCK_BYTES)
        for (size_t at = block; at + bytes <= block + KV_BLOCK_BYTES; at += bytes) {
            memset(p + at + coded, 120, groups);
            for (size_t i = at + coded + groups; i + 2 <= at + bytes; i += 2)
                p[i + 1] = (unsigned char)(0x3D | (p[i] & 0x80)); // BF16 of middling size
        }
}
static void fill_fresh(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)n;
    const struct config *c = m->config;
    const uint32_t bytes = kv_entry_bytes(false, c->head_dim, c->rope_dim);
    unsigned char *page = malloc(KV_BLOCK_BYTES);
    struct bench_memory one = *m;
    one.keys_page = 1, one.page_bytes = KV_BLOCK_BYTES;
    if (page)
        fill_pages(page, KV_BLOCK_BYTES, &one);
    for (size_t i = 0; page && i < BENCH_MAX_ROWS; i++)
        memcpy(p + i * bytes, page, bytes);
    free(page);
}
static void fill_tables(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)m;
    for (uint32_t i = 0; i < n / 4; i++)
        memcpy(p + 4 * (size_t)i, &i, 4);
}
static void fill_kv_rows(unsigned char *p, size_t n, const struct bench_memory *m) {
    (void)n;
    const uint32_t states = m->keys_page + KEY_PAGES;
    struct kv_rows rows = { .n_rows = BENCH_MAX_ROWS, .start = POSITION, .keys = m->keys_page };
    rows.state_read = rows.state_write = rows.index_state_read = rows.index_state_write = states;
    memcpy(p, &rows, sizeof rows);
}

enum status bench_memory_open(struct bench_memory *m, struct ops *ops, const struct config *config,
                              struct err *err) {
    *m = (struct bench_memory){ .ops = ops, .config = config, .page_bytes = 1 << 20 };
    const size_t row_bytes = widest(config) * sizeof(float);
    const struct kv_shape shape =
        kv_shape(kv_entry_bytes(false, config->head_dim, config->rope_dim), m->page_bytes);
    m->keys_page = N_ENTRIES / shape.per_page + 1;
    const size_t pages = m->keys_page + KEY_PAGES + 1;
    if (put(m, &m->pool, BENCH_POOL_BYTES, fill_pool, err) != OK ||
        put(m, &m->scales, BENCH_POOL_BYTES / 16, fill_scales, err) != OK ||
        put(m, &m->ones, 1 << 20, fill_ones, err) != OK ||
        put(m, &m->x, BENCH_MAX_ROWS * row_bytes, fill_rows, err) != OK ||
        put(m, &m->y, BENCH_MAX_ROWS * row_bytes, fill_rows, err) != OK ||
        put(m, &m->z, BENCH_MAX_ROWS * row_bytes, fill_rows, err) != OK ||
        put(m, &m->ids, N_IDS * 4, fill_ids, err) != OK ||
        put(m, &m->pages, pages * m->page_bytes, fill_pages, err) != OK ||
        put(m, &m->tables, pages * 4, fill_tables, err) != OK ||
        put(m, &m->rows, sizeof(struct kv_rows), fill_kv_rows, err) != OK ||
        put(m, &m->fresh, (size_t)BENCH_MAX_ROWS * shape.entry_bytes, fill_fresh, err) != OK)
        return err->status;
    return OK;
}

/* --- weights of a turn --------------------------------------------------------------------------- */

static uint64_t weight_bytes(enum matrix_type type, uint32_t rows, uint32_t cols) {
    const uint64_t n = (uint64_t)rows * cols;
    return type == MATRIX_F32    ? 4 * n
           : type == MATRIX_BF16 ? 2 * n
           : type == MATRIX_FP4  ? n / 2
                                 : n;
}

/* The i-th matrix of a turn, somewhere in the pool, at an odd address, as shards have them. */
static struct matrix matrix(const struct bench_memory *m, enum matrix_type type, uint32_t rows,
                            uint32_t cols, uint32_t turn, uint32_t i) {
    const uint64_t bytes = weight_bytes(type, rows, cols);
    const uint64_t at = (turn * UINT64_C(3) + i) * (bytes + 65) % (BENCH_POOL_BYTES - bytes);
    struct matrix w = { type, rows, cols, mem_at(m->pool, at), mem_none() };
    if (type == MATRIX_FP4)
        w.scale = mem_at(m->scales, at / 16);
    if (type == MATRIX_FP8)
        w.scale = mem_at(m->scales, 1);
    if (type == MATRIX_FP8_F32)
        w.scale = m->ones;
    return w;
}

static void multiply(const struct bench_memory *m, enum matrix_type type, uint32_t rows,
                     uint32_t cols, uint32_t n_groups, uint32_t n_rows, uint32_t turn) {
    struct matmul a = { matrix(m, type, rows, cols, turn, 0), m->x, m->y, n_rows, n_groups, true };
    matmul(m->ops, &a);
}

static struct bench_work matrix_work(enum matrix_type type, uint32_t rows, uint32_t cols,
                                     uint32_t n_rows) {
    struct bench_work w = { (double)weight_bytes(type, rows, cols), (double)rows * cols * n_rows };
    if (type == MATRIX_FP4)
        w.bytes *= 17.0 / 16;
    return w;
}

/* --- cases --------------------------------------------------------------------------------------- */

static void run_ffn(const struct bench_memory *m, enum matrix_type type, uint32_t n,
                    uint32_t turn) {
    const struct config *c = m->config;
    const uint32_t d = c->d, f = c->expert_dim;
    struct expert_ffn a = {
        .w1 = matrix(m, type, f, d, turn, 0),
        .w3 = matrix(m, type, f, d, turn, 1),
        .w2 = matrix(m, type, d, f, turn, 2),
        .x = m->x,
        .y = m->y,
        .n = n,
        .mode = EXPERT_STORE,
        .limit = c->swiglu_limit,
    };
    expert_ffn(m->ops, &a);
}
static struct bench_work ffn_work(const struct config *c, enum matrix_type type, uint32_t n) {
    struct bench_work w = matrix_work(type, c->expert_dim, c->d, n);
    w.bytes *= 3, w.multiply_adds *= 3;
    return w;
}

#define FFN(name, type)                                                                            \
    static void run_##name(const struct bench_memory *m, uint32_t n, uint32_t turn) {              \
        run_ffn(m, type, n, turn);                                                                 \
    }                                                                                              \
    static struct bench_work work_##name(const struct config *c, uint32_t n) {                     \
        return ffn_work(c, type, n);                                                               \
    }
FFN(expert, MATRIX_FP4)
FFN(shared, MATRIX_FP8)
FFN(base, MATRIX_FP8_F32)

#define MATMUL(name, type, rows, cols, groups)                                                     \
    static void run_##name(const struct bench_memory *m, uint32_t n, uint32_t turn) {              \
        const struct config *c = m->config;                                                        \
        multiply(m, type, rows, cols, groups, n, turn);                                            \
    }                                                                                              \
    static struct bench_work work_##name(const struct config *c, uint32_t n) {                     \
        return matrix_work(type, rows, cols, n);                                                   \
    }
MATMUL(wq_a, MATRIX_FP8, c->q_rank, c->d, 1)
MATMUL(wq_b, MATRIX_FP8, c->n_heads * c->head_dim, c->q_rank, 1)
MATMUL(wo_a, MATRIX_FP8, c->o_groups * c->o_rank, c->n_heads * c->head_dim / c->o_groups,
       c->o_groups)
MATMUL(wo_b, MATRIX_FP8, c->d, c->o_groups * c->o_rank, 1)
MATMUL(gate, MATRIX_BF16, c->n_experts, c->d, 1)
MATMUL(wkv_c, MATRIX_BF16, 2 * c->head_dim, c->d, 1)
MATMUL(head, MATRIX_BF16, c->vocab / 8, c->d, 1)

static void run_hc_pre(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    const struct config *c = m->config;
    const uint32_t s = c->n_streams, dots = (2 + s) * s;
    struct hc_pre a = {
        .h = m->x,
        .fn = matrix(m, MATRIX_F32, dots, s * c->d, turn, 0).weight,
        .base = m->ones,
        .scale = m->ones,
        .x = m->y,
        .post = m->z,
        .comb = mem_at(m->z, (uint64_t)BENCH_MAX_ROWS * s * 4),
        .n_rows = n,
        .n_streams = s,
        .d = c->d,
        .sinkhorn_iters = c->sinkhorn_iters,
        .norm_eps = c->norm_eps,
        .hc_eps = c->hc_eps,
    };
    hc_pre(m->ops, &a);
}
static struct bench_work work_hc_pre(const struct config *c, uint32_t n) {
    const uint32_t s = c->n_streams;
    struct bench_work w = matrix_work(MATRIX_F32, (2 + s) * s, s * c->d, n);
    w.bytes += (s + 1.0) * c->d * n * 4;
    w.multiply_adds += 2.0 * s * c->d * n; // squares, and the mix
    return w;
}

static void run_hc_post(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    const struct config *c = m->config;
    struct hc_post a = { m->x, m->y, m->z, m->z, n, c->n_streams, c->d };
    hc_post(m->ops, &a);
}
static struct bench_work work_hc_post(const struct config *c, uint32_t n) {
    const double s = c->n_streams, width = (double)c->d * n;
    struct bench_work w = { (2 * s + 1) * width * 4, s * (s + 1) * width };
    return w;
}

static void run_norm(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    const struct config *c = m->config;
    struct rms_norm a = { m->x, m->pool, m->y, n, c->d, c->norm_eps };
    rms_norm(m->ops, &a);
}
static struct bench_work work_norm(const struct config *c, uint32_t n) {
    struct bench_work w = { 2.0 * c->d * n * 4, 3.0 * c->d * n };
    return w;
}

static struct kv_view view(const struct bench_memory *m) {
    const struct config *c = m->config;
    struct kv_view v = {
        .pages = m->pages,
        .tables = m->tables,
        .rows = m->rows,
        .n_seqs = 1,
        .page_bytes = m->page_bytes,
        .c = c->head_dim,
        .r = c->rope_dim,
        .index_dim = c->index_dim,
        .ring_entries = c->window + 8,
        .history = 9,
        .max_seq_rows = BENCH_MAX_ROWS,
    };
    return v;
}

static void attend(const struct bench_memory *m, uint32_t n, uint32_t ratio, bool chosen) {
    const struct config *c = m->config;
    struct attention a = {
        .kv = view(m),
        .q = m->x,
        .o = m->y,
        .fresh = m->fresh,
        .sink = m->ones,
        .chosen = chosen ? m->ids : mem_none(),
        .n_rows = n,
        .n_heads = c->n_heads,
        .window = c->window,
        .m = ratio,
        .k = c->index_topk,
    };
    attention(m->ops, &a);
}
static struct bench_work attention_work(const struct config *c, double keys, uint32_t n) {
    struct bench_work w = { keys * kv_entry_bytes(false, c->head_dim, c->rope_dim) * n,
                            keys * 2 * c->n_heads * c->head_dim * n };
    return w;
}

static void run_csa(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    attend(m, n, 4, true);
}
static struct bench_work work_csa(const struct config *c, uint32_t n) {
    return attention_work(c, c->window + c->index_topk, n);
}
static void run_hca(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    attend(m, n, 128, false);
}
static struct bench_work work_hca(const struct config *c, uint32_t n) {
    return attention_work(c, c->window + POSITION / 128, n);
}

static void run_index(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    const struct config *c = m->config;
    struct index_topk a = {
        view(m), m->x, m->y, m->z, 0, n, c->index_heads, 4, c->index_topk, 1.0f
    };
    index_topk(m->ops, &a);
}
static struct bench_work work_index(const struct config *c, uint32_t n) {
    struct bench_work w = { (double)N_ENTRIES * index_key_bytes(false, c->index_dim) * n,
                            (double)N_ENTRIES * c->index_heads * (c->index_dim + 1.0) * n };
    return w;
}

static void run_compress(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    const struct config *c = m->config;
    struct compress a = {
        .kv = view(m),
        .values = m->x,
        .gates = m->y,
        .ape = m->ones,
        .norm = m->pool,
        .theta = m->ones,
        .n_rows = n,
        .m = 4,
        .dim = c->head_dim,
        .r = c->rope_dim,
        .eps = c->norm_eps,
    };
    // Of the step that the view describes, n_rows rows; all of them are in memory.
    compress(m->ops, &a);
}
/* Values and gates of two halves; an exp counts as its 14 multiplications and additions. */
static struct bench_work work_compress(const struct config *c, uint32_t n) {
    struct bench_work w = { 4.0 * c->head_dim * n * 4, 2.0 * c->head_dim * n * 18 };
    return w;
}

static void run_route(const struct bench_memory *m, uint32_t n, uint32_t turn) {
    (void)turn;
    const struct config *c = m->config;
    struct route a = { m->x, mem_none(), mem_none(),   mem_none(),  m->y,
                       m->z, n,          c->n_experts, c->n_chosen, c->route_scale };
    route(m->ops, &a);
}
/* log1p in double and exp: some 40 operations an expert. */
static struct bench_work work_route(const struct config *c, uint32_t n) {
    struct bench_work w = { 4.0 * c->n_experts * n, 40.0 * c->n_experts * n };
    return w;
}

#define CASE(name, about)                                                                          \
    { #name, about, run_##name, work_##name }
static const struct bench_case cases[] = {
    CASE(expert, "routed expert, FP4"),
    CASE(shared, "shared expert, FP8"),
    CASE(base, "expert, FP8 with F32 scales (-Base)"),
    CASE(wq_a, "FP8 [q_rank, d]"),
    CASE(wq_b, "FP8 [heads, q_rank]"),
    CASE(wo_a, "FP8, in groups [ranks, heads]"),
    CASE(wo_b, "FP8 [d, ranks]"),
    CASE(gate, "BF16 [experts, d]"),
    CASE(wkv_c, "BF16 [2 c, d]: a compressor"),
    CASE(head, "BF16 [an eighth of the vocabulary, d]"),
    CASE(hc_pre, "hyper-connections, read: F32 [24, 4 d]"),
    CASE(hc_post, "hyper-connections, write"),
    CASE(norm, "RMSNorm of d"),
    CASE(csa, "attention, window and chosen entries"),
    CASE(hca, "attention, window and 2044 entries"),
    CASE(index, "index scores of 65536 keys, their highest"),
    CASE(compress, "compressor, m = 4"),
    CASE(route, "softplus, sqrt, the highest"),
};

const struct bench_case *bench_cases(size_t *n) {
    *n = sizeof cases / sizeof *cases;
    return cases;
}
