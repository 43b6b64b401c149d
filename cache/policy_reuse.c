/* The slot whose expert is least likely to be used soon goes first, as learned from the demands.
 *
 * Time, for an expert, is how often its layer has been demanded: a visit. An expert's class is how
 * long it was away before its last use, and how often it was used lately; its age is the visits since
 * then. For each class and age the policy counts how often the next visit used it, of all experts,
 * in memory or not. From that follows what a slot is worth that keeps it: the most uses for the
 * visits that it is kept,
 *
 *     max over T of  P(used within T) / E(visits until it is used, at most T),
 *
 * the Gittins index of the slot. A visit that is under way counts as the share of a step that is left
 * until its layer's turn: of two alike the one whose layer comes first is worth more, so that a
 * sweep over more than fits keeps what it will come to, not what it has just left.
 *
 * To look at all slots for each eviction would be O(n): the worst of SAMPLE slots drawn at random goes
 * (from a hash of a count, so that it is the same in every run).
 *
 * Two groups stand apart. What was read by prediction, and whose layer has passed without a use, goes
 * before all. What the demand under way touches goes last, except what it read itself: from AHEAD
 * such slots on, if they are worth less than what would go for them, the first of them are used
 * again. So a wide pass streams through AHEAD slots and leaves alone what is better.
 *
 * After LHD (Beckmann, Chen, Cidon: "LHD: improving cache hit rate by maximizing hit density", NSDI
 * 2018), which learns likewise and samples 64, too; visits, classes and the phase are ours. */
#include "cache/policy_parts.h"

#include <string.h>

/* 16, 32, 64 drawn: 1.673, 1.664, 1.660 times Belady's misses at 15 % of Pro's, an answer; the wide
 * passes 0.2 % apart. */
#define SAMPLE 64

/* Experts that a wide pass reads ahead: the disk is busy with 2 or 3 (35 MB against 32 MB of reads
 * under way), four fast drives with 10, and some are being computed. 8 or 16: the same misses. */
#define AHEAD 16

#define AGES         40 // up to 8 each; then four to an octave, to 2048 and beyond
#define GAPS         5
#define LEVELS       10
#define CLASSES      (GAPS * LEVELS)
#define LEARN_STEPS  8     // passes through all layers between two looks at what was counted
#define FADING       0.99f // of the counts from one look to the next: half after 550 steps
#define DOUBT        1.0f  // uses that the first guess is worth
#define EXPIRED_LOOK 16    // predicted slots looked at for one whose layer has passed

enum standing { PLAIN, FILLED /* by the demand under way */, PREDICTED /* read, not used yet */ };
enum queue { QUEUE_FILLED, QUEUE_PREDICTED, N_QUEUES };

struct history {
    uint32_t visit;     // of its layer, at its last use; 0: never used
    uint32_t frequency; // uses, each fading to half in 128 visits; 16 bits of fraction
    uint8_t gap, level; // its class
};

struct reuse {
    struct policy policy;
    struct queues by_touch, special;
    uint32_t n_filled;
    uint64_t n_demands, next_look;
    uint64_t n_fills;        // in all: what is drawn depends on it
    uint32_t *visits;        // by layer
    uint64_t *visited;       // by layer: n_demands then
    uint32_t *foretold;      // by layer: the visit whose uses are all known
    struct history *history; // by expert
    // By slot.
    uint8_t *standing;
    uint64_t *used;          // n_demands at its last use
    uint32_t *predicted;     // its layer's visits when its use was predicted, and 1; 0: it was not
    uint32_t *dense, *place; // slots that are ranked, and where each is among them
    uint64_t *asked;         // the last search that asked about it
    uint32_t n_dense;
    uint64_t n_searches;
    // By class and age.
    float (*uses)[AGES];                // that came at this age
    float (*open)[AGES];                // experts that are that old now
    float (*gain)[AGES], (*cost)[AGES]; // of the best T: uses, visits
};

/* --- classes and ages ---------------------------------------------------------------------------- */

static uint32_t age_index(uint32_t age) {
    if (age < 8)
        return age;
    uint32_t octave = 31 - (uint32_t)__builtin_clz(age);
    uint32_t index = 8 + (octave - 3) * 4 + (age >> (octave - 2) & 3);
    return index < AGES ? index : AGES - 1;
}

/* The least age of an index; AGES is where the last one ends. */
static float age_from(uint32_t index) {
    if (index < 8)
        return (float)index;
    return (float)((4 + (index - 8) % 4) << (1 + (index - 8) / 4));
}

static uint8_t gap_class(uint32_t gap) {
    return gap >= 6 ? 0 : gap >= 4 ? 1 : gap == 3 ? 2 : gap == 2 ? 3 : 4;
}

/* frequency * 2^(-visits / 128) */
static uint32_t fade(uint32_t frequency, uint32_t visits) {
    static const uint32_t sixteenths[16] = { // 2^(-i / 16), 16 bits of fraction
                                             65536, 62757, 60097, 57549, 55109, 52772, 50535, 48393,
                                             46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219
    };
    uint32_t halvings = visits >> 7;
    if (halvings > 31)
        return 0;
    return (uint32_t)((uint64_t)frequency * sixteenths[(visits & 127) >> 3] >> 16) >> halvings;
}

/* Two to an octave, from one use on. */
static uint8_t frequency_level(uint32_t frequency) {
    static const uint32_t from[LEVELS] = { 65536,  92682,  131072, 185364,  262144,
                                           370728, 524288, 741455, 1048576, 1482910 };
    uint8_t level = 0;
    while (level + 1 < LEVELS && frequency >= from[level + 1])
        level++;
    return level;
}

static uint32_t class_of(const struct history *h) {
    return (uint32_t)h->gap * LEVELS + h->level;
}

/* --- learning ------------------------------------------------------------------------------------ */

/* The chance that an expert of this class and age is used at the next visit, where nothing is known. */
static float first_guess(uint32_t class, uint32_t age) {
    float guess = (float)(1 + class % LEVELS + class / LEVELS) / (16 + 2 * age_from(age));
    return guess < 0.5f ? guess : 0.5f;
}

/* How often those of each age were used before they were older: a table of mortality. Who is still
 * unused counts up to its age. */
static void hazards(const struct reuse *r, uint32_t class, float *hazard) {
    float alive = 0;
    for (uint32_t age = AGES; age-- > 0;) {
        alive += r->uses[class][age] + r->open[class][age];
        hazard[age] = (r->uses[class][age] + DOUBT * first_guess(class, age)) /
                      (alive - 0.5f * r->open[class][age] + DOUBT);
        if (hazard[age] > 0.98f)
            hazard[age] = 0.98f;
    }
}

/* What is `age` now can be used from the next age on; within an index that spans several, from its
 * middle. */
static void index_of_age(struct reuse *r, uint32_t class, uint32_t age, const float *hazard) {
    float unused = 1, uses = 0, visits = 0, best = -1;
    for (uint32_t i = age < 8 ? age + 1 : age; i < AGES; i++) {
        float share = i == age ? 0.5f : 1, chance = share * hazard[i];
        float span = share * (i < 8 ? 1 : age_from(i + 1) - age_from(i));
        visits += unused * (span > 1 ? span * (1 - chance / 2) : span);
        uses += unused * chance;
        unused *= 1 - chance;
        if (uses > best * visits) {
            best = uses / visits;
            r->gain[class][age] = uses;
            r->cost[class][age] = visits;
        }
    }
}

static void learn(struct reuse *r) {
    uint32_t n_experts = r->policy.options.n_experts;
    memset(r->open, 0, CLASSES * sizeof *r->open);
    for (uint32_t layer = 0; layer < r->policy.options.n_layers; layer++)
        for (uint32_t e = layer * n_experts; e < (layer + 1) * n_experts; e++)
            if (r->history[e].visit)
                r->open[class_of(&r->history[e])]
                       [age_index(r->visits[layer] - r->history[e].visit)]++;
    for (uint32_t class = 0; class < CLASSES; class ++) {
        float hazard[AGES];
        hazards(r, class, hazard);
        for (uint32_t age = 0; age < AGES; age++) {
            index_of_age(r, class, age, hazard);
            r->uses[class][age] *= FADING;
        }
    }
}

/* Counted once a visit. */
static void use(struct reuse *r, uint32_t expert) {
    struct history *h = &r->history[expert];
    uint32_t visit = r->visits[expert / r->policy.options.n_experts], gap = visit - h->visit;
    if (!gap)
        return;
    bool is_first = !h->visit;
    if (!is_first)
        r->uses[class_of(h)][age_index(gap)]++;
    h->frequency = fade(h->frequency, gap) + (1 << 16);
    h->gap = is_first ? 0 : gap_class(gap);
    h->level = frequency_level(h->frequency);
    h->visit = visit;
}

/* --- ranking ------------------------------------------------------------------------------------- */

static uint32_t layer_of(const struct reuse *r, uint32_t slot) {
    return r->policy.expert[slot] / r->policy.options.n_experts;
}

/* What the slot is worth: uses a visit. */
static float worth(const struct reuse *r, uint32_t slot) {
    const struct history *h = &r->history[r->policy.expert[slot]];
    if (!h->visit)
        return 0;
    uint32_t layer = layer_of(r, slot), class = class_of(h);
    // For those that are not among them the visit whose uses are known has passed already.
    bool passed_by = r->foretold[layer] == r->visits[layer] + 1;
    uint32_t age = age_index(r->visits[layer] + passed_by - h->visit);
    float under_way = (float)(r->n_demands - r->visited[layer]) / (float)r->policy.options.n_layers;
    if (passed_by)
        under_way = 0;
    if (under_way > 1)
        under_way = 1;
    return r->gain[class][age] / (r->cost[class][age] - 0.999f * under_way);
}

static bool is_expected(const struct reuse *r, uint32_t slot) {
    return r->predicted[slot] == r->visits[layer_of(r, slot)] + 1;
}

static void leave_special(struct reuse *r, uint32_t slot) {
    r->n_filled -= r->standing[slot] == FILLED;
    r->standing[slot] = PLAIN;
    queues_remove(&r->special, slot);
}

static void reuse_demand(struct policy *p, uint32_t layer) {
    struct reuse *r = (struct reuse *)p;
    while (r->n_filled)
        leave_special(r, queues_oldest(&r->special, QUEUE_FILLED));
    r->visits[layer]++;
    r->visited[layer] = ++r->n_demands;
    if (r->n_demands < r->next_look)
        return;
    r->next_look = r->n_demands + LEARN_STEPS * p->options.n_layers;
    learn(r);
}

static void reuse_foretell(struct policy *p, uint32_t layer) {
    struct reuse *r = (struct reuse *)p;
    r->foretold[layer] = r->visits[layer] + 1;
}

static void rank(struct reuse *r, uint32_t slot, enum policy_touch touch) {
    r->place[slot] = r->n_dense;
    r->dense[r->n_dense++] = slot;
    r->n_fills++;
    r->standing[slot] = touch == POLICY_USE ? FILLED : PREDICTED;
    r->n_filled += touch == POLICY_USE;
    queues_append(&r->special, touch == POLICY_USE ? QUEUE_FILLED : QUEUE_PREDICTED, slot);
}

static void reuse_touch(struct policy *p, uint32_t slot, uint32_t expert, enum policy_touch touch) {
    struct reuse *r = (struct reuse *)p;
    if (!policy_ranked(p, slot))
        rank(r, slot, touch);
    else if (touch == POLICY_USE && r->standing[slot] == PREDICTED)
        leave_special(r, slot);
    if (touch == POLICY_USE) {
        use(r, expert);
        r->used[slot] = r->n_demands + 1;
        r->predicted[slot] = 0;
    } else {
        r->predicted[slot] = r->visits[expert / p->options.n_experts] + 1;
    }
    queues_remove(&r->by_touch, slot);
    queues_append(&r->by_touch, 0, slot);
}

static void reuse_forget(struct policy *p, uint32_t slot) {
    struct reuse *r = (struct reuse *)p;
    uint32_t last = r->dense[--r->n_dense];
    r->dense[r->place[slot]] = last;
    r->place[last] = r->place[slot];
    leave_special(r, slot);
    queues_remove(&r->by_touch, slot);
    r->used[slot] = r->predicted[slot] = 0;
}

/* --- whom to evict ------------------------------------------------------------------------------- */

struct candidate {
    uint32_t slot;
    float worth;
};

static bool ask(struct reuse *r, const struct policy_judge *judge, uint32_t slot,
                uint32_t *victim) {
    r->asked[slot] = r->n_searches;
    enum policy_verdict verdict = judge->verdict(judge->context, slot);
    if (verdict == POLICY_TAKE)
        *victim = slot;
    return verdict != POLICY_SKIP;
}

static bool ask_expired(struct reuse *r, const struct policy_judge *judge, uint32_t *victim) {
    uint32_t n_slots = r->policy.options.n_slots, n = 0;
    for (uint32_t slot = queues_oldest(&r->special, QUEUE_PREDICTED);
         slot < n_slots && n < EXPIRED_LOOK; slot = queues_next(&r->special, slot), n++)
        if (!is_expected(r, slot) && ask(r, judge, slot, victim))
            return true;
    return false;
}

/* Some slots that are neither of the demand under way nor expected by another, drawn. */
static uint32_t draw(struct reuse *r, struct candidate *out) {
    uint32_t n = 0, n_drawn = r->n_dense < SAMPLE ? r->n_dense : SAMPLE;
    for (uint32_t i = 0; i < n_drawn; i++) {
        uint64_t hash = (r->n_fills * SAMPLE + i) * 0x9E3779B97F4A7C15u;
        hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
        uint32_t at = r->n_dense <= SAMPLE ? i : (uint32_t)((hash >> 32) * r->n_dense >> 32);
        uint32_t slot = r->dense[at];
        if (r->used[slot] == r->n_demands + 1 || is_expected(r, slot))
            continue;
        out[n++] = (struct candidate){ slot, worth(r, slot) };
    }
    return n;
}

/* Ask the worst first; of equals the lower slot. `first` of the demand's own reads comes before those
 * that are worth as much. */
static bool ask_drawn(struct reuse *r, const struct policy_judge *judge, uint32_t *victim) {
    struct candidate drawn[SAMPLE];
    uint32_t n = draw(r, drawn);
    bool own = r->n_filled >= AHEAD;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = i + 1; j < n; j++)
            if (drawn[j].worth < drawn[i].worth ||
                (drawn[j].worth == drawn[i].worth && drawn[j].slot < drawn[i].slot)) {
                struct candidate better = drawn[j];
                drawn[j] = drawn[i];
                drawn[i] = better;
            }
        uint32_t first = queues_oldest(&r->special, QUEUE_FILLED);
        if (own && worth(r, first) <= drawn[i].worth) {
            own = false;
            if (ask(r, judge, first, victim))
                return true;
        }
        if (r->asked[drawn[i].slot] != r->n_searches && ask(r, judge, drawn[i].slot, victim))
            return true;
    }
    return false;
}

static uint32_t reuse_victim(struct policy *p, const struct policy_judge *judge) {
    struct reuse *r = (struct reuse *)p;
    uint32_t victim = POLICY_NONE;
    r->n_searches++;
    if (ask_expired(r, judge, &victim) || ask_drawn(r, judge, &victim))
        return victim;
    for (uint32_t slot = queues_oldest(&r->by_touch, 0); slot < p->options.n_slots;
         slot = queues_next(&r->by_touch, slot))
        if (r->asked[slot] != r->n_searches && ask(r, judge, slot, &victim))
            break;
    return victim;
}

/* --- open, check --------------------------------------------------------------------------------- */

static void reuse_arrays(struct policy *p, struct policy_memory *m) {
    struct reuse *r = (struct reuse *)p;
    uint32_t n_slots = p->options.n_slots, n_layers = p->options.n_layers;
    queues_arrays(&r->by_touch, n_slots, 1, m);
    queues_arrays(&r->special, n_slots, N_QUEUES, m);
    r->visits = policy_take(m, n_layers, sizeof *r->visits);
    r->visited = policy_take(m, n_layers, sizeof *r->visited);
    r->foretold = policy_take(m, n_layers, sizeof *r->foretold);
    r->history = policy_take(m, (size_t)n_layers * p->options.n_experts, sizeof *r->history);
    r->standing = policy_take(m, n_slots, sizeof *r->standing);
    r->used = policy_take(m, n_slots, sizeof *r->used);
    r->predicted = policy_take(m, n_slots, sizeof *r->predicted);
    r->dense = policy_take(m, n_slots, sizeof *r->dense);
    r->place = policy_take(m, n_slots, sizeof *r->place);
    r->asked = policy_take(m, n_slots, sizeof *r->asked);
    r->uses = policy_take(m, CLASSES, sizeof *r->uses);
    r->open = policy_take(m, CLASSES, sizeof *r->open);
    r->gain = policy_take(m, CLASSES, sizeof *r->gain);
    r->cost = policy_take(m, CLASSES, sizeof *r->cost);
}

static void reuse_open(struct policy *p) {
    struct reuse *r = (struct reuse *)p;
    queues_init(&r->by_touch);
    queues_init(&r->special);
    r->next_look = (uint64_t)LEARN_STEPS * p->options.n_layers;
    learn(r); // the first guess
}

static void reuse_check(const struct policy *p) {
    const struct reuse *r = (const struct reuse *)p;
    uint32_t n_ranked = 0, n_filled = 0, n_special = 0;
    for (uint32_t slot = 0; slot < p->options.n_slots; slot++) {
        bool ranked = policy_ranked(p, slot);
        n_ranked += ranked;
        n_filled += r->standing[slot] == FILLED;
        n_special += r->standing[slot] != PLAIN;
        assert(queues_has(&r->by_touch, slot) == ranked);
        assert(queues_has(&r->special, slot) == (r->standing[slot] != PLAIN));
        assert(!ranked || r->dense[r->place[slot]] == slot);
    }
    assert(n_ranked == r->n_dense && n_filled == r->n_filled);
    assert(queues_check(&r->by_touch) == n_ranked);
    assert(queues_check(&r->special) == n_special);
    (void)n_ranked, (void)n_filled, (void)n_special;
}

const struct policy_functions policy_reuse = {
    .name = "reuse",
    .bytes = sizeof(struct reuse),
    .arrays = reuse_arrays,
    .open = reuse_open,
    .demand = reuse_demand,
    .foretell = reuse_foretell,
    .touch = reuse_touch,
    .forget = reuse_forget,
    .victim = reuse_victim,
    .check = reuse_check,
};
