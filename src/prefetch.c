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
 * On random weights of Pro's shape (two layers), which choose at random: 47 % of 66, 67 % of 46. */
#define DEPTH 1

/* A wrong guess costs: what is at the device of it stands in the way of what is demanded, and its slot
 * held something. Time of a decoded token against no prefetch by tests/src/bench_prefetch.c (a virtual
 * clock; models/demo, 200 tokens of its heldout.txt after 60), attention of a layer as a multiple of
 * the time to read one expert, by the share of the experts cached:
 *
 * attention       0                   0.2                 1                   4
 * cache           5 %   15 %  30 %    5     15    30      5     15    30      5     15    30
 * all at once     1.107 1.107 1.116   1.068 1.060 1.059   0.966 0.949 0.931   0.786 0.834 0.891
 * few at a time   1.074 1.058 1.073   1.004 0.976 0.967   0.834 0.811 0.798   0.778 0.815 0.859
 * and judged      1.002 1.003 1.003   0.962 0.967 0.960   0.818 0.808 0.806   0.787 0.826 0.872
 *   at random     1.006 1.004 1.005   1.002 1.001 1.000   0.981 0.981 0.975   0.958 0.964 0.967
 *
 * All at once: as many chunks of a prefetch at the device as of a demand. Few at a time: as io/chunks.c
 * has it, and what was sent of a wrong guess in part is not read to its end. And judged: a layer that
 * reading ahead has lately cost more than it gained (judge_read) is left alone, but for every PROBE-th
 * step and the one after a step that went well; and a guess is asked for only as far as those before
 * it were there in time. (The rest above 1 at 0 is its learning.) At random: experts are, whatever
 * gates say, so what is gained there is by the layer routed by table, one of eight.
 *
 * VAIN_SHARE is what an expert brought in vain counts: at 4, random guesses would gain 3 % more, by
 * reading half as much again. */
#define VAIN_SHARE  0.25
#define LEAST_STEPS 8  // that were judged, before a layer is left alone
#define MOST_STEPS  32 // remembered: older ones fade
#define PROBE       32 // steps; 16: 1.011 at worst

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

// How reading ahead of a layer went lately, older steps fading.
struct worth {
    double gained, lost; // bytes: of what was wanted, there by then; and see judge_read
    bool went_well;      // in the last step that was judged
    uint32_t n_steps;
    uint32_t window; // reads under way at a time, and one to try: what is queued takes a slot
};

enum mark { MARK_PREDICTED = 1, MARK_READ = 2 };

struct prefetch {
    uint8_t parts;
    uint32_t n_blocks, n_experts;
    struct target *targets;        // [n_blocks]
    struct worth *worth;           // [n_blocks]
    uint32_t *list;                // [n_blocks][E] ids, in the order in which they are asked for
    uint8_t *marks;                // [n_blocks][E]
    float *score;                  // [E]
    int32_t *experts;              // [narrow][width], of one early gate
    float *weights;                // likewise
    uint32_t first_open, end_open; // layers whose lists may hold something that is not asked for
    uint32_t ahead_from;           // the layer whose streams were predicted from last
    uint32_t reach;                // nothing of this layer or later is asked for yet
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

// A wide step wants more of a layer than there are slots to spare. What is read for a layer further
// than the next would evict residents that the layers before it are about to use; by then their own
// experts have been used, and may go.
static bool is_wide(const struct step *s) {
    return s->n_rows > STEP_NARROW_ROWS;
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

// False where there is no slot for it now.
static bool ask(struct step *s, uint32_t layer, uint32_t id) {
    struct prefetch *p = s->prefetch;
    enum slots_prefetched got = slots_prefetch(s->engine->slots, id);
    if (got == SLOTS_QUEUED) {
        p->marks[id] |= MARK_READ;
        count_of(s, layer, p->targets[layer].kind)->read++;
    }
    return got != SLOTS_NO_ROOM;
}

// Those that are there already stay: before anything is evicted for the others.
static void target_keep(struct step *s, uint32_t layer) {
    struct prefetch *p = s->prefetch;
    const uint32_t *list = p->list + (size_t)layer * p->n_experts;
    for (uint32_t i = 0; i < p->targets[layer].n; i++)
        if (slots_state(s->engine->slots, list[i]) != SLOT_EMPTY)
            ask(s, layer, list[i]);
}

// A guess is asked for as far as it is likely to be there in time, and no further.
static bool window_open(const struct step *s, uint32_t layer) {
    const struct prefetch *p = s->prefetch;
    const struct target *t = &p->targets[layer];
    uint32_t n_loading = 0;
    if (t->kind != PREFETCH_BY_GATE)
        return true;
    for (uint32_t i = 0; i < t->n_asked; i++) {
        uint32_t id = p->list[(size_t)layer * p->n_experts + i];
        n_loading += p->marks[id] & MARK_READ && slots_state(s->engine->slots, id) == SLOT_LOADING;
    }
    return n_loading <= p->worth[layer].window;
}

void prefetch_more(struct step *s) {
    struct prefetch *p = s->prefetch;
    for (; p->first_open < p->end_open; p->first_open++) {
        uint32_t layer = p->first_open;
        if (layer >= p->reach)
            return;
        struct target *t = &p->targets[layer];
        for (; t->n_asked < t->n; t->n_asked++) {
            if (!window_open(s, layer))
                return;
            if (!ask(s, layer, p->list[(size_t)layer * p->n_experts + t->n_asked]))
                return; // no slot for now; nothing of a later layer goes before it
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

// --- what it is worth ----------------------------------------------------------------------------

static bool worth_it(struct step *s, uint32_t layer, enum prefetch_kind kind) {
    const struct prefetch *p = s->prefetch;
    const struct worth *w = &p->worth[layer];
    if (w->n_steps < LEAST_STEPS || w->gained > w->lost || w->went_well ||
        (p->n_steps + layer) % PROBE == 0)
        return true;
    count_of(s, layer, kind)->suspended++;
    return false;
}

// One step's.
struct verdict {
    double gained, lost;
    uint32_t n_ready;
};

// Of a read ahead, when the layer has chosen: had it not been made, what is there of a wanted one would
// have to be waited for; what is at the device of one that is not wanted would not stand in the way.
// And what was brought in vain was read, and has evicted something.
static void judge_read(struct step *s, uint32_t id, bool wanted, struct verdict *now) {
    struct request_progress progress = slots_progress(s->engine->slots, id);
    now->n_ready += slots_state(s->engine->slots, id) == SLOT_READY;
    if (wanted)
        now->gained += (double)progress.bytes_read;
    else
        now->lost += (double)progress.bytes_out + VAIN_SHARE * (double)progress.bytes_read;
}

static void judge_step(struct worth *w, const struct verdict *now) {
    w->gained += now->gained;
    w->lost += now->lost;
    w->went_well = now->gained > now->lost;
    w->window = now->n_ready >= w->window ? now->n_ready : w->window - 1;
    if (++w->n_steps <= MOST_STEPS)
        return;
    w->n_steps /= 2;
    w->gained /= 2;
    w->lost /= 2;
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
    p->reach = is_wide(s) ? 1 : p->n_blocks;
    p->n_steps++;
    if (!(p->parts & PART_HASH))
        return;
    enum activity before = account_enter(&s->engine->account, ACTIVITY_PREDICT);
    uint32_t n_blocks = c->n_layers + (s->options.draft ? 1 : 0);
    for (uint32_t layer = 0; layer < n_blocks; layer++) {
        if (!s->engine->weights.layers[layer].gate_table.address ||
            !worth_it(s, layer, PREFETCH_BY_HASH) || !look_up(s, layer))
            continue;
        memset(p->score, 0, p->n_experts * sizeof *p->score);
        for (uint32_t i = 0; i < s->n_rows * c->n_chosen; i++)
            p->score[s->experts[i]] = 1;
        target_open(p, layer, PREFETCH_BY_HASH);
        for (uint32_t e = 0; e < p->n_experts; e++)
            if (p->score[e] > 0)
                target_add(p, layer, e);
        target_keep(s, layer);
        slots_foretell(s->engine->slots, layer);
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
    target_keep(s, layer);
    return true;
}

bool prefetch_ahead(struct step *s) {
    struct prefetch *p = s->prefetch;
    const struct config *c = &s->engine->cp.config;
    if (!(p->parts & PART_GATE) || is_wide(s) || p->ahead_from == s->layer)
        return false;
    p->ahead_from = s->layer;
    // The draft block's input is no stream of the trunk: nothing is predicted for it.
    uint32_t layer = s->layer + DEPTH;
    if (layer >= c->n_layers || p->targets[layer].predicted ||
        s->engine->weights.layers[layer].gate_table.address ||
        !worth_it(s, layer, PREFETCH_BY_GATE))
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
    if (!(p->parts & PART_SWEEP) || !is_wide(s) || layer >= n_blocks || p->targets[layer].predicted)
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
    struct verdict now = { 0 };
    count->steps++;
    count->wanted += n_wanted;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t id = s->layer * p->n_experts + e;
        bool wanted = s->pick_begin[e + 1] > s->pick_begin[e], was_read = marks[e] & MARK_READ;
        count->predicted += marks[e] != 0;
        count->right += marks[e] && wanted;
        marks[e] = 0;
        if (!was_read)
            continue;
        judge_read(s, id, wanted, &now);
        enum slot_state state = slots_state(s->engine->slots, id);
        if (!wanted) {
            take_back(s, id, count);
            continue;
        }
        count->lost += state == SLOT_EMPTY;
        count->used += state != SLOT_EMPTY;
    }
    if (t->kind != PREFETCH_BY_SWEEP)
        judge_step(&p->worth[s->layer], &now);
    *t = (struct target){ .predicted = false };
}

void prefetch_demanded(struct step *s, uint32_t n_wanted) {
    struct prefetch *p = s->prefetch;
    uint32_t n_ready = 0;
    if (is_wide(s))
        p->reach = s->layer + 2;
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
