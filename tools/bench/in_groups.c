#include "tools/bench/in_groups.h"

#include <stdlib.h>

struct member {
    struct in_groups *all;
    uint32_t i;
    int32_t token; // that comes next
};

struct in_groups {
    struct in_groups_options options;
    struct flight *flight;
    struct member *members; // [n_sequences]
    uint32_t n_members;
    uint64_t n_chosen, stop_at; // tokens of all
    bool cancelled;             // by whoever asked for the stretch
};

static void choose(void *context, const float *logits) {
    struct member *m = context;
    m->token = m->all->options.choose(m->all->options.context, m->i, logits);
}

static enum status go_on(void *context, int32_t *token, bool *more, struct err *err) {
    struct member *m = context;
    (void)err;
    m->all->n_chosen++;
    *token = m->token;
    *more = true;
    return OK;
}

static bool is_over(void *context) {
    struct in_groups *g = context;
    g->cancelled |= g->options.cancel(g->options.context);
    return g->cancelled || g->n_chosen >= g->stop_at;
}

enum status in_groups_open(struct in_groups **out, struct sluice *engine, struct step *wide,
                           const struct in_groups_options *options, struct err *err) {
    struct in_groups *g = *out = calloc(1, sizeof *g);
    if (!g)
        return err_set(err, ERR_MEMORY, "no memory for %u sequences", options->n_sequences);
    g->options = *options;
    g->members = calloc(options->n_sequences, sizeof *g->members);
    struct flight_options flight = { .n_groups = options->n_groups,
                                     .cancel = is_over,
                                     .context = g };
    if (!g->members)
        err_set(err, ERR_MEMORY, "no memory for %u sequences", options->n_sequences);
    else if (flight_open(&g->flight, engine, wide, &flight, err) == OK)
        return OK;
    in_groups_close(g);
    *out = NULL;
    return err->status;
}

void in_groups_close(struct in_groups *g) {
    if (!g)
        return;
    flight_close(g->flight);
    free(g->members);
    free(g);
}

enum status in_groups_add(struct in_groups *g, const int32_t *prompt, uint32_t n, struct err *err) {
    struct member *m = &g->members[g->n_members];
    struct flight_sequence sequence = {
        .prompt = prompt, .n_prompt = n, .logits = choose, .next = go_on, .context = m
    };
    *m = (struct member){ .all = g, .i = g->n_members };
    g->n_members++;
    return flight_add(g->flight, &sequence, err);
}

enum status in_groups_run(struct in_groups *g, uint32_t n, uint32_t *n_chosen, struct err *err) {
    uint64_t before = g->n_chosen;
    g->stop_at = before + n;
    enum status status = flight_run(g->flight, err);
    *n_chosen = (uint32_t)(g->n_chosen - before);
    if (status == CANCELLED && !g->cancelled) {
        err_clear(err);
        return OK;
    }
    return status;
}
