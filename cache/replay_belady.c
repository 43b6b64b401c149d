/* Belady's MIN: of what is there the expert goes whose next use is farthest away. */
#include "cache/replay.h"

#include <stdlib.h>

#define NEVER UINT64_MAX

/* A use that is to come, of an expert that is in memory; outdated once the expert was used again. */
struct next_use {
    uint64_t at;
    uint32_t expert;
};

struct belady {
    uint64_t *next;        // by access: the expert's next one
    uint64_t *latest;      // by expert: its next use, as last told
    uint8_t *there, *seen; // by expert
    struct next_use *heap; // the farthest on top
    uint64_t n_heap;
};

static void push(struct belady *b, struct next_use use) {
    uint64_t at = b->n_heap++;
    for (; at > 0 && b->heap[(at - 1) / 2].at < use.at; at = (at - 1) / 2)
        b->heap[at] = b->heap[(at - 1) / 2];
    b->heap[at] = use;
}

static struct next_use pop(struct belady *b) {
    struct next_use top = b->heap[0], last = b->heap[--b->n_heap];
    uint64_t at = 0;
    for (uint64_t child; (child = 2 * at + 1) < b->n_heap; at = child) {
        child += child + 1 < b->n_heap && b->heap[child + 1].at > b->heap[child].at;
        if (b->heap[child].at <= last.at)
            break;
        b->heap[at] = b->heap[child];
    }
    b->heap[at] = last;
    return top;
}

static void evict(struct belady *b) {
    struct next_use use;
    do {
        use = pop(b);
    } while (!b->there[use.expert] || b->latest[use.expert] != use.at);
    b->there[use.expert] = 0;
}

static void run(struct belady *b, const struct replay_trace *t, uint32_t n_slots,
                struct replay_result *out) {
    uint32_t n_all = t->n_layers * t->n_experts, n_there = 0;
    for (uint32_t e = 0; e < n_all; e++)
        b->latest[e] = NEVER;
    for (uint64_t i = t->n_accesses; i-- > 0;) {
        b->next[i] = b->latest[t->experts[i]];
        b->latest[t->experts[i]] = i;
    }
    for (uint64_t i = 0; i < t->n_accesses; i++) {
        uint32_t expert = t->experts[i];
        out->accesses++;
        out->first += !b->seen[expert];
        b->seen[expert] = 1;
        if (!b->there[expert]) {
            out->misses++;
            if (n_there == n_slots)
                evict(b);
            else
                n_there++;
            b->there[expert] = 1;
        }
        b->latest[expert] = b->next[i];
        push(b, (struct next_use){ b->next[i], expert });
    }
}

enum status replay_belady(const struct replay_trace *t, uint32_t n_slots, struct replay_result *out,
                          struct err *err) {
    uint32_t n_all = t->n_layers * t->n_experts;
    struct belady b = { .next = malloc((t->n_accesses + 1) * sizeof *b.next),
                        .latest = malloc(n_all * sizeof *b.latest),
                        .there = calloc(n_all, 1),
                        .seen = calloc(n_all, 1),
                        .heap = malloc((t->n_accesses + 1) * sizeof *b.heap) };
    enum status status = OK;
    *out = (struct replay_result){ 0 };
    if (b.next && b.latest && b.there && b.seen && b.heap)
        run(&b, t, n_slots, out);
    else
        status = err_set(err, ERR_MEMORY, "no memory for a trace of %llu accesses",
                         (unsigned long long)t->n_accesses);
    free(b.next);
    free(b.latest);
    free(b.there);
    free(b.seen);
    free(b.heap);
    return status;
}
