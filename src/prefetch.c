#include "src/prefetch.h"

#include "src/step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* How far, how many. Accuracy (right of those predicted), coverage (predicted of those wanted) and
 * waste (in vain of the reads) of early gates, decoding 200 tokens of plain text with a demo model
 * after 1,000 steps of its training (8 layers, K = 4 of 40 experts; a quarter of them cached), by
 * the layer that is predicted; tools/compare-prefetch.py prints the like:
 *
 * depth    width                all       1    2    3    4    5    6    7     waste
 *     1    K / 2  accuracy     77.0 %    20   69   93   85   88   89   95    32.4 %
 *                 coverage     38.5      10   34   46   42   44   45   48
 *     1    K      both         63.1      15   54   83   71   73   74   72    42.9
 *     1    3/2 K  accuracy     48.9      13   43   63   55   56   57   55    52.8
 *                 coverage     73.3      19   64   94   83   84   86   83
 *     1    2 K    accuracy     39.6      12   37   49   45   44   46   45    58.1
 *                 coverage     79.2      23   74   97   90   88   92   90
 *     2    K      both         53.9            31   46   64   58   68   56    56.0
 *     3    K      both         45.5                 21   45   53   58   50    67.1
 *
 * One layer, K experts: half as many more find a sixth more, and every second read is in vain. At
 * the layer's end instead, when its experts have been added to the streams, it is 66.6 % (layer 1:
 * 32, layer 7: 79, others the same), but what was there to hide reads in has gone by. To carry the
 * streams through the mixing that is still to come, with the shared expert's output or without:
 * 61.4 to 62.7 %.
 *
 * On random weights of Pro's shape (two layers), which choose at random: 47 % of 66, 67 % of 46; that
 * is too little, decoding there is 7 % slower with it. */
#define DEPTH 1

/* Where nothing is computed long enough to hide a read in, a wrong guess at the device only stands
 * in the way of what is demanded. Time of a decoded token against no prefetch, early gates always
 * on, and with the rule below; tests/src/bench_prefetch.c (a virtual clock; the model above, 200
 * tokens), attention of a layer as a multiple of the time to read one expert, of which two are at
 * the device at a time, by share of the experts cached:
 *
 * attention  0.2                 0.4                 1                   4
 * cache      5 %   15 %  30 %    5     15    30      5     15    30      5     15    30
 * always     1.050 1.111 1.160   1.006 1.047 1.076   0.913 0.912 0.896   0.792 0.846 0.893
 * >= 1/4     1.005 1.025 1.044   0.984 1.005 1.016   0.909 0.936 0.944   0.798 0.852 0.906
 * >= 1/2     1.005 1.025 1.044   0.984 1.005 1.016   0.941 0.974 0.965   0.798 0.881 0.941
 *
 * So: a layer of whose reads ahead fewer were there in time than this, for each that was in vain,
 * is left alone, but for every PROBE-th step. (What the rule costs at 0.2 is mostly its learning.)
 * With the layers routed by table, one of eight there: 0.884, 0.906, 0.909 at 1, 0.750, 0.802,
 * 0.863 at 4. */
#define LEAST_READY 0.25
#define LEAST_READS 32  // that were judged, before a layer is left alone
#define MOST_READS  256 // remembered: older ones fade
#define PROBE       16  // steps

#define SWEEP_SHARE 0.9 /* of a layer's experts, from which on reading all is no waste */

enum part { PART_HASH = 1, PART_GATE = 2, PART_SWEEP = 4 };

static const uint8_t parts_of[] = {
    [PREFETCH_AUTO] = PART_HASH | PART_GATE | PART_SWEEP,
    [PREFETCH_OFF] = 0,
    [PREFETCH_HASH] = PART_HASH,
    [PREFETCH_GATE] = PART_GATE,
    [PREFETCH_SWEEP] = PART_SWEEP,
};

#define NOWHERE UINT32_MAX

// What is known of a layer before its gate has run.
struct target {
    bool predicted; // and not judged yet
    enum prefetch_kind kind;
    uint32_t n, n_asked; // of its list: all, and those that slots_prefetch has taken
};

// How the reads ahead of a layer went lately: there when they were wanted, and not wanted.
struct worth {
    uint32_t ready, in_vain;
};

enum mark { MARK_PREDICTED = 1, MARK_READ = 2 };

struct prefetch {
    uint8_t parts;
    uint32_t n_blocks, n_experts;
    struct target *targets;        // [n_blocks]
    struct worth *worth;           // [n_blocks], of early gates
    uint32_t *list;                // [n_blocks][E] ids, in the order in which they are asked for
    uint8_t *marks;                // [n_blocks][E]
    float *score;                  // [E]
    int32_t *experts;              // [narrow][width], of one early gate
    float *weights;                // likewise
    uint32_t first_open, end_open; // layers whose lists may hold something that is not asked for
    uint32_t ahead_from;           // the layer whose streams were predicted from last
    uint32_t n_steps;
};

// --- open and close ------------------------------------------------------------------------------

uint32_t prefetch_width(const struct config *c) {
    return c->n_chosen;
}

uint64_t prefetch_bytes(const struct config *c, uint32_t n_blocks) {
    uint64_t all = (uint64_t)n_blocks * c->n_experts;
    uint64_t choices = (uint64_t)STEP_NARROW_ROWS * prefetch_width(c);
    return sizeof(struct prefetch) + n_blocks * (sizeof(struct target) + sizeof(struct worth)) +
           all * (sizeof(uint32_t) + 1) + c->n_experts * sizeof(float) +
           choices * (sizeof(int32_t) + sizeof(float));
}

enum status prefetch_open(struct prefetch **out, const struct config *c, uint32_t n_blocks,
                          enum prefetch_mode mode, struct err *err) {
    size_t all = (size_t)n_blocks * c->n_experts;
    size_t choices = (size_t)STEP_NARROW_ROWS * prefetch_width(c);
    struct prefetch *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory to predict experts");
    p->parts = parts_of[mode];
    p->n_blocks = n_blocks;
    p->n_experts = c->n_experts;
    p->targets = calloc(n_blocks, sizeof *p->targets);
    p->worth = calloc(n_blocks, sizeof *p->worth);
    p->list = calloc(all, sizeof *p->list);
    p->marks = calloc(all, sizeof *p->marks);
    p->score = calloc(c->n_experts, sizeof *p->score);
    p->experts = calloc(choices, sizeof *p->experts);
    p->weights = calloc(choices, sizeof *p->weights);
    if (p->targets && p->worth && p->list && p->marks && p->score && p->experts && p->weights)
        return OK;
    prefetch_close(p);
    *out = NULL;
    return err_set(err, ERR_MEMORY, "no memory to predict experts");
}

void prefetch_close(struct prefetch *p) {
    if (!p)
        return;
    free(p->targets);
    free(p->worth);
    free(p->list);
    free(p->marks);
    free(p->score);
    free(p->experts);
    free(p->weights);
    free(p);
}

// --- lists ---------------------------------------------------------------------------------------

static struct prefetch_count *count_of(const struct step *s, uint32_t layer,
                                       enum prefetch_kind kind) {
    return &s->engine->prefetch_counts[layer * PREFETCH_KINDS + kind];
}

static void target_open(struct prefetch *p, uint32_t layer, enum prefetch_kind kind) {
    p->targets[layer] = (struct target){ .predicted = true, .kind = kind };
    if (p->first_open > layer)
        p->first_open = layer;
    if (p->end_open < layer + 1)
        p->end_open = layer + 1;
}

static void target_add(struct prefetch *p, uint32_t layer, uint32_t expert) {
    uint8_t *mark = &p->marks[(size_t)layer * p->n_experts + expert];
    if (*mark)
        return;
    *mark = MARK_PREDICTED;
    struct target *t = &p->targets[layer];
    p->list[(size_t)layer * p->n_experts + t->n++] = layer * p->n_experts + expert;
}

void prefetch_more(struct step *s) {
    struct prefetch *p = s->prefetch;
    for (; p->first_open < p->end_open; p->first_open++) {
        uint32_t layer = p->first_open;
        struct target *t = &p->targets[layer];
        for (; t->n_asked < t->n; t->n_asked++) {
            uint32_t id = p->list[(size_t)layer * p->n_experts + t->n_asked];
            bool absent = slots_state(s->engine->slots, id) == SLOT_EMPTY;
            if (!slots_prefetch(s->engine->slots, id))
                return; // no slot for now; nothing of a later layer goes before it
            if (!absent)
                continue;
            p->marks[id] |= MARK_READ;
            count_of(s, layer, t->kind)->read++;
        }
    }
    p->first_open = p->n_blocks;
    p->end_open = 0;
}

// A prediction that was wrong, or comes to nothing.
static void take_back(struct step *s, uint32_t id, struct prefetch_count *count) {
    struct slots *slots = s->engine->slots;
    if (slots_state(slots, id) == SLOT_EMPTY) {
        count->lost++;
        return;
    }
    slots_prefetch_cancel(slots, id);
    if (slots_state(slots, id) == SLOT_EMPTY)
        count->cancelled++;
    else
        count->in_vain++;
}

// --- layers routed by table ----------------------------------------------------------------------

// Reads the rows' entries of the table; the choice needs no gate.
static bool look_up(struct step *s, uint32_t layer) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    struct gather_rows gather = { .x = s->engine->weights.layers[layer].gate_table,
                                  .row = layer < c->n_layers ? s->b.token : s->b.next,
                                  .y = s->b.experts,
                                  .n = s->n_rows,
                                  .width = c->n_chosen };
    struct err err = { .status = OK }; // a device's error stays, and the step itself meets it
    gather_rows(ops, &gather);
    return ops_download(ops, s->experts, s->b.experts,
                        (uint64_t)s->n_rows * c->n_chosen * sizeof *s->experts, &err) == OK;
}

void prefetch_begin(struct step *s) {
    struct prefetch *p = s->prefetch;
    const struct config *c = &s->engine->cp.config;
    p->first_open = p->n_blocks;
    p->end_open = 0;
    p->ahead_from = NOWHERE;
    p->n_steps++;
    if (!(p->parts & PART_HASH))
        return;
    enum activity before = account_enter(&s->engine->account, ACTIVITY_PREDICT);
    uint32_t n_blocks = c->n_layers + (s->options.draft ? 1 : 0);
    for (uint32_t layer = 0; layer < n_blocks; layer++) {
        if (!s->engine->weights.layers[layer].gate_table.address || !look_up(s, layer))
            continue;
        memset(p->score, 0, p->n_experts * sizeof *p->score);
        for (uint32_t i = 0; i < s->n_rows * c->n_chosen; i++)
            p->score[s->experts[i]] = 1;
        target_open(p, layer, PREFETCH_BY_HASH);
        for (uint32_t e = 0; e < p->n_experts; e++)
            if (p->score[e] > 0)
                target_add(p, layer, e);
    }
    prefetch_more(s);
    account_enter(&s->engine->account, before);
}

// --- layers routed by score: narrow steps --------------------------------------------------------

static void run_gate(struct step *s, uint32_t layer) {
    struct ops *ops = s->engine->ops;
    const struct config *c = &s->engine->cp.config;
    const struct layer_weights *w = &s->engine->weights.layers[layer];
    layer_read_streams(s, &w->hc_ffn, w->ffn_norm, s->b.ahead_x, s->b.ahead_post, s->b.ahead_comb);
    struct matmul logits = { .w = w->gate,
                             .x = s->b.ahead_x,
                             .y = s->b.ahead_logits,
                             .n_rows = s->n_rows,
                             .n_groups = 1,
                             .quantize = true };
    matmul(ops, &logits);
    struct route choose = {
        .logits = s->b.ahead_logits,
        .bias = w->gate_bias,
        .experts = s->b.ahead_experts,
        .weights = s->b.ahead_weights,
        .n_rows = s->n_rows,
        .n_experts = c->n_experts,
        .n_chosen = prefetch_width(c),
        .route_scale = 1,
    };
    route(ops, &choose);
}

// The most promising first: those that weigh most, over all rows.
static void add_by_score(struct prefetch *p, uint32_t layer, uint32_t n_choices) {
    memset(p->score, 0, p->n_experts * sizeof *p->score);
    for (uint32_t i = 0; i < n_choices; i++)
        p->score[p->experts[i]] += p->weights[i];
    for (uint32_t i = 0; i < n_choices; i++)
        target_add(p, layer, (uint32_t)p->experts[i]);
    uint32_t *list = p->list + (size_t)layer * p->n_experts, base = layer * p->n_experts;
    for (uint32_t i = 1; i < p->targets[layer].n; i++) { // by insertion: a few dozen at most
        uint32_t id = list[i], at = i;
        for (; at > 0 && p->score[list[at - 1] - base] < p->score[id - base]; at--)
            list[at] = list[at - 1];
        list[at] = id;
    }
}

static bool predict(struct step *s, uint32_t layer) {
    struct prefetch *p = s->prefetch;
    struct ops *ops = s->engine->ops;
    uint32_t n_choices = s->n_rows * prefetch_width(&s->engine->cp.config);
    struct err err = { .status = OK }; // as in look_up
    run_gate(s, layer);
    if (ops_download(ops, p->experts, s->b.ahead_experts, n_choices * sizeof *p->experts, &err) !=
            OK ||
        ops_download(ops, p->weights, s->b.ahead_weights, n_choices * sizeof *p->weights, &err) !=
            OK)
        return false;
    target_open(p, layer, PREFETCH_BY_GATE);
    add_by_score(p, layer, n_choices);
    return true;
}

static bool worth_it(const struct prefetch *p, uint32_t layer) {
    const struct worth *w = &p->worth[layer];
    return w->ready + w->in_vain < LEAST_READS || w->ready >= LEAST_READY * w->in_vain ||
           (p->n_steps + layer) % PROBE == 0;
}

static void remember(struct prefetch *p, uint32_t layer, uint32_t ready, uint32_t in_vain) {
    struct worth *w = &p->worth[layer];
    w->ready += ready;
    w->in_vain += in_vain;
    if (w->ready + w->in_vain <= MOST_READS)
        return;
    w->ready /= 2;
    w->in_vain /= 2;
}

bool prefetch_ahead(struct step *s) {
    struct prefetch *p = s->prefetch;
    const struct config *c = &s->engine->cp.config;
    if (!(p->parts & PART_GATE) || s->n_rows > STEP_NARROW_ROWS || p->ahead_from == s->layer)
        return false;
    p->ahead_from = s->layer;
    // The draft block's input is no stream of the trunk: nothing is predicted for it.
    uint32_t layer = s->layer + DEPTH;
    if (layer >= c->n_layers || p->targets[layer].predicted ||
        s->engine->weights.layers[layer].gate_table.address || !worth_it(p, layer))
        return false;
    enum activity before = account_enter(&s->engine->account, ACTIVITY_PREDICT);
    bool predicted = predict(s, layer);
    prefetch_more(s);
    account_enter(&s->engine->account, before);
    return predicted;
}

// --- layers routed by score: wide steps ----------------------------------------------------------

// Of a layer's experts the share that so many rows want if each chooses evenly. Real rows do not,
// so this is a bound from above, and what the layer before wanted has to agree.
static double even_share(const struct config *c, uint32_t n_rows) {
    double missed = 1, each = 1 - (double)c->n_chosen / c->n_experts;
    for (uint32_t i = 0; i < n_rows && missed > 1 - SWEEP_SHARE; i++)
        missed *= each;
    return 1 - missed;
}

static void sweep_on(struct step *s, uint32_t n_wanted) {
    struct prefetch *p = s->prefetch;
    const struct config *c = &s->engine->cp.config;
    uint32_t layer = s->layer + 1, n_blocks = c->n_layers + (s->options.draft ? 1 : 0);
    if (!(p->parts & PART_SWEEP) || s->n_rows <= STEP_NARROW_ROWS || layer >= n_blocks ||
        p->targets[layer].predicted)
        return;
    if (n_wanted < SWEEP_SHARE * p->n_experts || even_share(c, s->n_rows) < SWEEP_SHARE)
        return;
    target_open(p, layer, PREFETCH_BY_SWEEP);
    for (uint32_t e = 0; e < p->n_experts; e++)
        target_add(p, layer, e);
}

// --- a layer's own choice ------------------------------------------------------------------------

void prefetch_judge(struct step *s, uint32_t n_wanted) {
    struct prefetch *p = s->prefetch;
    struct target *t = &p->targets[s->layer];
    uint8_t *marks = p->marks + (size_t)s->layer * p->n_experts;
    if (!t->predicted)
        return;
    struct prefetch_count *count = count_of(s, s->layer, t->kind);
    uint64_t in_vain_before = count->in_vain;
    uint32_t n_ready = 0;
    count->wanted += n_wanted;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t id = s->layer * p->n_experts + e;
        bool wanted = s->pick_begin[e + 1] > s->pick_begin[e], was_read = marks[e] & MARK_READ;
        count->predicted += marks[e] != 0;
        count->right += marks[e] && wanted;
        marks[e] = 0;
        if (!was_read)
            continue;
        enum slot_state state = slots_state(s->engine->slots, id);
        if (!wanted) {
            take_back(s, id, count);
            continue;
        }
        count->lost += state == SLOT_EMPTY;
        count->used += state != SLOT_EMPTY;
        n_ready += state == SLOT_READY;
    }
    if (t->kind == PREFETCH_BY_GATE)
        remember(p, s->layer, n_ready, (uint32_t)(count->in_vain - in_vain_before));
    *t = (struct target){ .predicted = false };
}

void prefetch_demanded(struct step *s, uint32_t n_wanted) {
    uint32_t n_ready = 0;
    sweep_on(s, n_wanted);
    prefetch_more(s);
    for (uint32_t i = 0; i < n_wanted; i++)
        n_ready += slots_state(s->engine->slots, s->wanted[i]) == SLOT_READY;
    if (n_ready == n_wanted) // the disk is idle: now, not when this layer has been computed
        prefetch_ahead(s);
}

void prefetch_end(struct step *s) {
    struct prefetch *p = s->prefetch;
    for (uint32_t layer = 0; layer < p->n_blocks; layer++) {
        struct target *t = &p->targets[layer];
        uint8_t *marks = p->marks + (size_t)layer * p->n_experts;
        if (!t->predicted)
            continue;
        for (uint32_t e = 0; e < p->n_experts; e++)
            if (marks[e] & MARK_READ)
                take_back(s, layer * p->n_experts + e, count_of(s, layer, t->kind));
        memset(marks, 0, p->n_experts);
        *t = (struct target){ .predicted = false };
    }
    p->first_open = p->n_blocks;
    p->end_open = 0;
}
