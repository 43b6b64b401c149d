#include "cache/replay.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

const struct replay_contender replay_contenders[REPLAY_CONTENDERS] = {
    { .name = "LRU", .policy = POLICY_LRU },
    { .name = "LRU, per layer", .policy = POLICY_LRU, .per_layer = true },
    { .name = "LRU, TinyLFU", .policy = POLICY_TINYLFU },
    { .name = "LFU, aging", .policy = POLICY_LFU },
    { .name = "S3-FIFO", .policy = POLICY_S3FIFO },
    // The best half to pin, known beforehand: better than a set pinned from experience can be.
    { .name = "pinned half, LRU", .policy = POLICY_LRU, .pinned = 0.5 },
    { .name = "reuse", .policy = POLICY_REUSE },
    { .name = "Belady", .belady = true },
};

/* --- traces -------------------------------------------------------------------------------------- */

enum status replay_trace_open(struct replay_trace *t, uint32_t n_layers, uint32_t n_experts,
                              struct err *err) {
    *t = (struct replay_trace){ .n_layers = n_layers, .n_experts = n_experts };
    t->wanted = calloc(n_experts, 1);
    return t->wanted ? OK : err_set(err, ERR_MEMORY, "no memory for a trace");
}

void replay_trace_close(struct replay_trace *t) {
    free(t->begin);
    free(t->experts);
    free(t->wanted);
    *t = (struct replay_trace){ 0 };
}

static bool make_room(void *array, size_t size, uint64_t wanted, uint64_t *max) {
    if (wanted <= *max)
        return true;
    uint64_t more = wanted + wanted / 2 + 1024;
    void *grown = realloc(*(void **)array, more * size);
    if (!grown)
        return false;
    *(void **)array = grown;
    *max = more;
    return true;
}

enum status replay_trace_add(struct replay_trace *t, uint32_t layer, const uint16_t *ids,
                             uint64_t n, struct err *err) {
    uint64_t most = n < t->n_experts ? n : t->n_experts;
    assert(layer < t->n_layers);
    if (!make_room(&t->begin, sizeof *t->begin, t->n_demands + 2ull, &t->demands_max) ||
        !make_room(&t->experts, sizeof *t->experts, t->n_accesses + most, &t->accesses_max))
        return err_set(err, ERR_MEMORY, "no memory for a trace of %llu accesses",
                       (unsigned long long)t->n_accesses);
    for (uint64_t i = 0; i < n; i++) {
        assert(ids[i] < t->n_experts);
        t->wanted[ids[i]] = 1;
    }
    t->begin[t->n_demands++] = t->n_accesses;
    for (uint32_t e = 0; e < t->n_experts; e++)
        if (t->wanted[e])
            t->experts[t->n_accesses++] = layer * t->n_experts + e;
    t->begin[t->n_demands] = t->n_accesses;
    memset(t->wanted, 0, t->n_experts);
    return OK;
}

/* --- one cache ----------------------------------------------------------------------------------- */

/* Slots under one policy: all, or those of a layer. */
struct pool {
    struct policy *policy;
    uint32_t n_slots, n_full;
    uint32_t first_expert; /* ids are counted from here in this pool */
    uint32_t *expert;      /* by slot */
};

struct replayed {
    const struct replay_trace *trace;
    struct pool *pools;
    uint32_t n_pools;
    uint32_t *slot_of; /* by expert: in its pool; NONE */
    uint64_t *wanted;  /* by expert: where it stands in the trace at the demand under way; 0: not */
    uint64_t at;       /* in the trace */
    uint8_t *pinned;   /* by expert: 0 no, 1 yes, 2 and there */
    uint8_t *seen;     /* by expert */
};

/* Goes over the pool's slots: `context` is both. */
struct judged {
    const struct replayed *r;
    const struct pool *pool;
};

static enum policy_verdict not_awaited(void *context, uint32_t slot) {
    const struct judged *j = context;
    return j->r->wanted[j->pool->expert[slot]] > j->r->at ? POLICY_SKIP : POLICY_TAKE;
}

/* All slots hold what this demand has not come to yet: what it needs last goes, and is read again. */
static uint32_t last_awaited(const struct replayed *r, const struct pool *pool, uint64_t end) {
    for (uint64_t i = end; i-- > r->at + 1;) {
        uint32_t slot = r->slot_of[r->trace->experts[i]];
        if (slot != NONE && pool->expert[slot] == r->trace->experts[i])
            return slot;
    }
    return NONE;
}

static void bring(struct replayed *r, struct pool *pool, uint32_t expert, uint64_t end) {
    if (!pool->n_slots)
        return;
    uint32_t slot = pool->n_full;
    if (slot == pool->n_slots) {
        struct judged judged = { r, pool };
        struct policy_judge judge = { .verdict = not_awaited, .context = &judged };
        slot = policy_victim(pool->policy, &judge);
        if (slot == POLICY_NONE)
            slot = last_awaited(r, pool, end);
        assert(slot != NONE);
        policy_forget(pool->policy, slot);
        r->slot_of[pool->expert[slot]] = NONE;
    } else {
        pool->n_full++;
    }
    pool->expert[slot] = expert;
    r->slot_of[expert] = slot;
    policy_touch(pool->policy, slot, expert - pool->first_expert, POLICY_USE);
}

static void demand(struct replayed *r, uint64_t begin, uint64_t end, struct replay_result *out) {
    const struct replay_trace *t = r->trace;
    uint32_t layer = t->experts[begin] / t->n_experts;
    struct pool *pool = &r->pools[r->n_pools > 1 ? layer : 0];
    if (pool->n_slots)
        policy_demand(pool->policy, r->n_pools > 1 ? 0 : layer);
    for (uint64_t i = begin; i < end; i++) {
        uint32_t expert = t->experts[i], slot = r->slot_of[expert];
        r->wanted[expert] = i + 1;
        if (slot != NONE)
            policy_touch(pool->policy, slot, expert - pool->first_expert, POLICY_USE);
    }
    for (r->at = begin; r->at < end; r->at++) {
        uint32_t expert = t->experts[r->at], slot = r->slot_of[expert];
        r->wanted[expert] = 0;
        out->accesses++;
        out->first += !r->seen[expert];
        r->seen[expert] = 1;
        if (r->pinned[expert]) {
            out->misses += r->pinned[expert] == 1;
            r->pinned[expert] = 2;
        } else if (slot != NONE) {
            policy_touch(pool->policy, slot, expert - pool->first_expert, POLICY_USE);
        } else {
            out->misses++;
            bring(r, pool, expert, end);
        }
    }
}

/* --- a whole trace ------------------------------------------------------------------------------- */

struct counted {
    uint32_t expert;
    uint32_t uses;
};

static int by_uses(const void *a, const void *b) {
    const struct counted *x = a, *y = b;
    if (x->uses != y->uses)
        return x->uses < y->uses ? 1 : -1;
    return x->expert < y->expert ? -1 : 1;
}

static enum status pin(struct replayed *r, uint32_t n, struct err *err) {
    const struct replay_trace *t = r->trace;
    uint32_t n_all = t->n_layers * t->n_experts;
    struct counted *counted = calloc(n_all, sizeof *counted);
    if (!counted)
        return err_set(err, ERR_MEMORY, "no memory to count uses");
    for (uint32_t e = 0; e < n_all; e++)
        counted[e].expert = e;
    for (uint64_t i = 0; i < t->n_accesses; i++)
        counted[t->experts[i]].uses++;
    qsort(counted, n_all, sizeof *counted, by_uses);
    for (uint32_t i = 0; i < n && i < n_all; i++)
        r->pinned[counted[i].expert] = 1;
    free(counted);
    return OK;
}

static enum status pools_open(struct replayed *r, const struct replay_contender *c,
                              uint32_t n_slots, struct err *err) {
    const struct replay_trace *t = r->trace;
    for (uint32_t i = 0; i < r->n_pools; i++) {
        struct pool *pool = &r->pools[i];
        bool layer = c->per_layer;
        pool->n_slots = n_slots / r->n_pools + (i < n_slots % r->n_pools);
        pool->first_expert = layer ? i * t->n_experts : 0;
        struct policy_options options = { .kind = c->policy,
                                          .n_slots = pool->n_slots,
                                          .n_layers = layer ? 1 : t->n_layers,
                                          .n_experts = t->n_experts };
        pool->expert = malloc((pool->n_slots + 1) * sizeof *pool->expert);
        if (!pool->expert)
            return err_set(err, ERR_MEMORY, "no memory for %u slots", pool->n_slots);
        if (pool->n_slots && policy_open(&pool->policy, &options, err) != OK)
            return err->status;
    }
    return OK;
}

static enum status replay_run(struct replayed *r, const struct replay_contender *c,
                              uint32_t n_slots, struct replay_result *out, struct err *err) {
    const struct replay_trace *t = r->trace;
    uint32_t n_all = t->n_layers * t->n_experts, n_pinned = (uint32_t)(c->pinned * n_slots);
    r->n_pools = c->per_layer ? t->n_layers : 1;
    r->pools = calloc(r->n_pools, sizeof *r->pools);
    r->slot_of = malloc(n_all * sizeof *r->slot_of);
    r->wanted = calloc(n_all, sizeof *r->wanted);
    r->pinned = calloc(n_all, 1);
    r->seen = calloc(n_all, 1);
    if (!r->pools || !r->slot_of || !r->wanted || !r->pinned || !r->seen)
        return err_set(err, ERR_MEMORY, "no memory for a cache of %u slots", n_slots);
    memset(r->slot_of, 0xFF, n_all * sizeof *r->slot_of);
    if (n_pinned && pin(r, n_pinned, err) != OK)
        return err->status;
    if (pools_open(r, c, n_slots - n_pinned, err) != OK)
        return err->status;
    for (uint32_t d = 0; d < t->n_demands; d++)
        if (t->begin[d] < t->begin[d + 1])
            demand(r, t->begin[d], t->begin[d + 1], out);
    return OK;
}

enum status replay(const struct replay_trace *t, const struct replay_contender *contender,
                   uint32_t n_slots, struct replay_result *out, struct err *err) {
    *out = (struct replay_result){ 0 };
    assert(n_slots);
    if (contender->belady)
        return replay_belady(t, n_slots, out, err);
    struct err failed = { .status = OK };
    struct replayed r = { .trace = t };
    enum status status = replay_run(&r, contender, n_slots, out, &failed);
    for (uint32_t i = 0; r.pools && i < r.n_pools; i++) {
        policy_close(r.pools[i].policy);
        free(r.pools[i].expert);
    }
    free(r.pools);
    free(r.slot_of);
    free(r.wanted);
    free(r.pinned);
    free(r.seen);
    return status == OK ? OK : err_set(err, status, "%s", failed.text);
}
