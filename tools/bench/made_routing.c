#include "tools/bench/made_routing.h"

#include "src/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCES_MAX 64
#define ROWS_MAX      512
#define VOCABULARY    129280
#define COMMON_TOKENS 1000 // ranks of Zipf's law that every text shares

/* Standard deviations of the five scopes. Fitted by hand to what others measured: 35-43 % of a token's
 * experts were the last one's, too; LRU finds 46-68 % where 15 % fit, 81 % where 34 % do. Pro, chat:
 *
 *     base topic drift token rest   tokens    overlap   LRU at 15 %   34 %
 *     0.40 0.45  0.95  0.40  0.35   12        40        67            80
 *     0.40 0.40  0.90  0.45  0.40   16        33        67            79
 *     0.35 0.35  1.00  0.40  0.35   16        40        69            80
 *     0.35 0.35  1.00  0.35  0.30   24        46        77            86
 *     0.30 0.30  1.00  0.40  0.40   32        36        75            83
 *     0.55 0.75  0.75  0.55  0.45   24        32        76            90
 *
 * Which policy does best, and by how much, hardly depends on the row. */
static const struct weights {
    float base, topic, drift, token, rest;
    uint32_t drift_tokens; // from one value of the drift to an independent one
} weights = { 0.4f, 0.45f, 0.95f, 0.4f, 0.35f, 12 };

static const struct shape {
    const char *name;
    uint32_t n_layers, n_hash, n_experts, n_chosen;
    uint64_t expert_bytes;
} shapes[MADE_MODELS] = {
    [MADE_PRO] = { "Pro", 61, 3, 384, 6, 35092480 },
    [MADE_FLASH] = { "Flash", 43, 3, 256, 6, 13369344 },
};

static const char *const load_names[MADE_LOADS] = { "chat", "long", "prefill", "batch", "several" };

const char *made_model_name(enum made_model model) {
    return shapes[model].name;
}

const char *made_load_name(enum made_load load) {
    return load_names[load];
}

/* One text: what its rows' logits have in common. */
struct text {
    uint32_t id; // also its subject
    uint32_t position;
    uint32_t knot;    // `from` is the drift at the beginning of this stretch, `to` at its end
    float *steady;    // base + topic
    float *from, *to; // [n_layers][n_experts], as all of these
    uint32_t left;    // rows until it ends, or is asked again
    uint32_t turns;   // of a conversation
};

struct made_routing {
    struct routing_header header;
    enum made_load load;
    uint64_t seed;
    uint32_t salt;
    uint32_t n_cells; // n_layers * n_experts
    float *memory;
    float *base;
    float *logits; // of one layer
    struct text texts[SEQUENCES_MAX];
    uint32_t n_texts, n_begun; // at a time; in all
    uint32_t n_steps, n_draws;
    uint32_t rows[3][ROWS_MAX]; // sequence, position, token
    uint16_t *experts;
};

// --- random numbers ------------------------------------------------------------------------------

static inline uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x21F0AAADu;
    x ^= x >> 15;
    x *= 0x735A2D97u;
    return x ^ x >> 15;
}

/* Nearly normal, mean 0 and deviation 1: the sum of eight bytes. A cell has one value under a key. */
static inline float normal(uint32_t key, uint32_t cell) {
    uint32_t a = mix(key + cell * 0x9E3779B9u), b = mix(a ^ 0x85EBCA6Bu);
    uint32_t pairs =
        (a & 0xFF00FFu) + (a >> 8 & 0xFF00FFu) + (b & 0xFF00FFu) + (b >> 8 & 0xFF00FFu);
    return ((float)((pairs & 0xFFFFu) + (pairs >> 16)) - 1020.0f) * (1.0f / 209.0f);
}

static uint32_t key_of(const struct made_routing *m, uint32_t scope, uint32_t a, uint32_t b) {
    return mix(mix(mix(m->salt + scope) + a) + b);
}

enum scope { SCOPE_BASE = 1, SCOPE_TOPIC, SCOPE_DRIFT, SCOPE_TOKEN, SCOPE_REST, SCOPE_WORD };

static double uniform(struct made_routing *m) {
    return random_uniform(m->seed, m->n_draws++, 0);
}

static uint32_t between(struct made_routing *m, uint32_t least, uint32_t most) {
    return least + (uint32_t)(uniform(m) * (most - least + 1));
}

static void fill(float *to, uint32_t n, uint32_t key, float weight) {
    for (uint32_t i = 0; i < n; i++)
        to[i] = weight * normal(key, i);
}

// --- texts ---------------------------------------------------------------------------------------

static void drift_to(struct made_routing *m, struct text *t, uint32_t knot) {
    if (knot == t->knot + 1) {
        float *other = t->from;
        t->from = t->to;
        t->to = other;
    } else {
        fill(t->from, m->n_cells, key_of(m, SCOPE_DRIFT, t->id, knot), weights.drift);
    }
    fill(t->to, m->n_cells, key_of(m, SCOPE_DRIFT, t->id, knot + 1), weights.drift);
    t->knot = knot;
}

static void text_begin(struct made_routing *m, struct text *t) {
    t->id = m->n_begun++;
    t->position = 0;
    t->knot = UINT32_MAX - 1;
    t->turns = 0;
    fill(t->steady, m->n_cells, key_of(m, SCOPE_TOPIC, t->id, 0), weights.topic);
    for (uint32_t i = 0; i < m->n_cells; i++)
        t->steady[i] += m->base[i];
    drift_to(m, t, 0);
}

static uint32_t word(struct made_routing *m, const struct text *t) {
    uint32_t rank = (uint32_t)exp(uniform(m) * log(VOCABULARY)) - 1;
    return rank < COMMON_TOKENS ? rank : key_of(m, SCOPE_WORD, t->id, rank) % VOCABULARY;
}

// --- one row -------------------------------------------------------------------------------------

static void choose(const float *logits, uint32_t n, uint32_t n_chosen, uint16_t *out) {
    float best[CONFIG_MAX_CHOSEN];
    uint32_t n_best = 0;
    for (uint32_t e = 0; e < n; e++) {
        if (n_best == n_chosen && logits[e] <= best[n_best - 1])
            continue;
        uint32_t at = n_best < n_chosen ? n_best++ : n_best - 1;
        for (; at > 0 && best[at - 1] < logits[e]; at--) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
        }
        best[at] = logits[e];
        out[at] = (uint16_t)e;
    }
}

static void ascend(uint16_t *ids, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) {
        uint16_t id = ids[i];
        uint32_t at = i;
        for (; at > 0 && ids[at - 1] > id; at--)
            ids[at] = ids[at - 1];
        ids[at] = id;
    }
}

static void by_token(const struct made_routing *m, uint32_t layer, uint32_t token, uint16_t *out) {
    uint32_t n = 0;
    for (uint32_t i = 0; n < m->header.n_chosen; i++) {
        uint16_t e =
            (uint16_t)(key_of(m, SCOPE_TOKEN, token * 64 + layer, i) % m->header.n_experts);
        uint32_t at = 0;
        while (at < n && out[at] != e)
            at++;
        if (at == n)
            out[n++] = e;
    }
}

static void by_score(struct made_routing *m, const struct text *t, uint32_t layer, uint32_t token,
                     uint16_t *out) {
    uint32_t n = m->header.n_experts, first = layer * n;
    uint32_t of_token = key_of(m, SCOPE_TOKEN, token, 0);
    uint32_t of_row = key_of(m, SCOPE_REST, t->id, t->position);
    float along = (float)(t->position % weights.drift_tokens) / (float)weights.drift_tokens;
    float norm = 1.0f / sqrtf(along * along + (1 - along) * (1 - along));
    float a = (1 - along) * norm, b = along * norm;
    const float *steady = t->steady + first, *from = t->from + first, *to = t->to + first;
    for (uint32_t e = 0; e < n; e++)
        m->logits[e] = steady[e] + a * from[e] + b * to[e] +
                       weights.token * normal(of_token, first + e) +
                       weights.rest * normal(of_row, first + e);
    choose(m->logits, n, m->header.n_chosen, out);
}

static void row(struct made_routing *m, struct text *t, uint32_t index, uint32_t n_rows) {
    const struct routing_header *h = &m->header;
    uint32_t token = word(m, t), knot = t->position / weights.drift_tokens;
    if (knot != t->knot)
        drift_to(m, t, knot);
    for (uint32_t layer = 0; layer < h->n_blocks; layer++) {
        uint16_t *out = m->experts + ((size_t)layer * n_rows + index) * h->n_chosen;
        if (h->kind[layer] & ROUTING_HASH)
            by_token(m, layer, token, out);
        else
            by_score(m, t, layer, token, out);
        ascend(out, h->n_chosen);
    }
    m->rows[0][index] = t->id;
    m->rows[1][index] = t->position++;
    m->rows[2][index] = token;
}

// --- steps ---------------------------------------------------------------------------------------

static uint32_t prefill(struct made_routing *m, struct text *t, uint32_t n_rows) {
    for (uint32_t i = 0; i < n_rows; i++)
        row(m, t, i, n_rows);
    return n_rows;
}

#define CHAT_STEPS    1500
#define LONG_STEPS    1500
#define PREFILL_STEPS 14
#define BATCH_STEPS   40
#define SEVERAL_STEPS 400

/* A turn: the question in one step, then the answer token by token. Four turns, another subject. */
static uint32_t chat_step(struct made_routing *m) {
    struct text *t = &m->texts[0];
    if (t->left > 0) {
        t->left--;
        return prefill(m, t, 1);
    }
    if (t->turns == 4)
        text_begin(m, t);
    t->turns++;
    t->left = between(m, 40, 240);
    return prefill(m, t, between(m, 10, 150));
}

static uint32_t long_step(struct made_routing *m) {
    return prefill(m, &m->texts[0], m->n_steps == 0 ? 200 : 1);
}

static uint32_t prefill_step(struct made_routing *m) {
    if (m->n_steps > 0 && m->n_steps % 2 == 0) // texts of 1024 tokens
        text_begin(m, &m->texts[0]);
    return prefill(m, &m->texts[0], 512);
}

static uint32_t batch_step(struct made_routing *m) {
    for (uint32_t i = 0; i < m->n_texts; i++)
        row(m, &m->texts[i], i, m->n_texts);
    return m->n_texts;
}

/* One by one they end, about every 25 steps. */
static uint32_t several_step(struct made_routing *m) {
    uint32_t rows = batch_step(m);
    if (m->n_steps % 25 == 24)
        text_begin(m, &m->texts[m->n_steps / 25 % m->n_texts]);
    return rows;
}

static const struct {
    uint32_t (*step)(struct made_routing *m);
    uint32_t n_steps, n_texts;
} loads[MADE_LOADS] = {
    [MADE_CHAT] = { chat_step, CHAT_STEPS, 1 },
    [MADE_LONG] = { long_step, LONG_STEPS, 1 },
    [MADE_PREFILL] = { prefill_step, PREFILL_STEPS, 1 },
    [MADE_BATCH] = { batch_step, BATCH_STEPS, SEQUENCES_MAX },
    [MADE_SEVERAL] = { several_step, SEVERAL_STEPS, 4 },
};

enum status made_routing_next(struct made_routing *m, struct routing_step *out) {
    if (m->n_steps == loads[m->load].n_steps)
        return DONE;
    uint32_t n_rows = loads[m->load].step(m);
    m->n_steps++;
    *out = (struct routing_step){ .n_rows = n_rows,
                                  .n_blocks = m->header.n_blocks,
                                  .sequence = m->rows[0],
                                  .position = m->rows[1],
                                  .token = m->rows[2],
                                  .experts = m->experts };
    return OK;
}

// --- open and close ------------------------------------------------------------------------------

/* Some layers are evener than others. */
static void make_base(struct made_routing *m) {
    uint32_t n = m->header.n_experts;
    fill(m->base, m->n_cells, key_of(m, SCOPE_BASE, 0, 0), 1);
    for (uint32_t layer = 0; layer < m->header.n_blocks; layer++) {
        float weight =
            weights.base * (0.6f + 0.8f * (float)(key_of(m, SCOPE_BASE, 1, layer) % 64) / 63);
        for (uint32_t e = 0; e < n; e++)
            m->base[layer * n + e] *= weight;
    }
}

enum status made_routing_open(struct made_routing **out, enum made_model model, enum made_load load,
                              uint64_t seed, struct err *err) {
    const struct shape *shape = &shapes[model];
    uint32_t n_cells = shape->n_layers * shape->n_experts, n_texts = loads[load].n_texts;
    struct made_routing *m = *out = calloc(1, sizeof *m);
    if (m) {
        m->memory =
            malloc(((size_t)n_cells * (1 + 3 * n_texts) + shape->n_experts) * sizeof(float));
        m->experts =
            malloc((size_t)shape->n_layers * ROWS_MAX * shape->n_chosen * sizeof(uint16_t));
    }
    if (!m || !m->memory || !m->experts) {
        made_routing_close(m);
        *out = NULL;
        return err_set(err, ERR_MEMORY, "no memory for a trace of %s", shape->name);
    }
    m->load = load;
    m->seed = seed;
    m->salt = mix((uint32_t)seed + 0x9E3779B9u * (1 + (uint32_t)model));
    m->n_cells = n_cells;
    m->n_texts = n_texts;
    m->header = (struct routing_header){ .n_blocks = shape->n_layers,
                                         .n_experts = shape->n_experts,
                                         .n_chosen = shape->n_chosen,
                                         .expert_bytes = shape->expert_bytes };
    memset(m->header.kind, ROUTING_HASH, shape->n_hash);
    float *memory = m->memory;
    m->base = memory, memory += n_cells;
    make_base(m);
    for (uint32_t i = 0; i < n_texts; i++) {
        m->texts[i].steady = memory, memory += n_cells;
        m->texts[i].from = memory, memory += n_cells;
        m->texts[i].to = memory, memory += n_cells;
        text_begin(m, &m->texts[i]);
    }
    m->logits = memory;
    return OK;
}

void made_routing_close(struct made_routing *m) {
    if (!m)
        return;
    free(m->memory);
    free(m->experts);
    free(m);
}

const struct routing_header *made_routing_header(const struct made_routing *m) {
    return &m->header;
}
