#include "src/flight.h"

#include "src/engine.h"
#include "src/pace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_SLICE_NS 50000000 // as in step.c: until cancelling is looked at again

// A sequence on its way. While it has none it is a place for the next one.
struct member {
    struct sequence *sequence;
    struct flight_sequence owner;
    uint32_t number;
    uint32_t n_in; // tokens of its prompt that were taken in
    int32_t token; // that goes in next
};

// A step and whose rows are in it.
struct group {
    struct flight *flight;
    struct step *step;
    uint32_t *who; // [n_sequences] members, the first n_flying of them in the step under way
    uint32_t n, n_flying;
    struct span *spans; // [n_sequences], of the step under way
    int32_t *experts;   // [n_blocks][max_rows][K] of it; NULL: nothing is recorded
};

struct flight {
    struct sluice *engine;
    struct flight_options options;
    struct member *members; // [n_sequences]
    uint32_t n_members;     // that are under way
    uint32_t n_prompts;     // of them, whose prompt is not all in
    uint32_t n_added;
    uint32_t prompt_done, prompt_total; // tokens
    struct group wide;                  // takes prompts in; its step is the caller's
    struct group *groups;
    uint32_t n_groups;
    uint32_t n_used; // the first so many of them
    struct pace pace;
};

// --- open and close ------------------------------------------------------------------------------

static enum status group_open(struct group *g, struct flight *f, struct step *step,
                              struct err *err) {
    uint32_t n_sequences = f->engine->n_sequences;
    g->flight = f;
    g->step = step;
    if (!step && step_open_narrow(&g->step, f->engine, err) != OK)
        return err->status;
    g->who = calloc(n_sequences, sizeof *g->who);
    g->spans = calloc(n_sequences, sizeof *g->spans);
    if (f->options.routing)
        g->experts = calloc((size_t)f->engine->weights.n_blocks * step_max_rows(g->step) *
                                f->engine->cp.config.n_chosen,
                            sizeof *g->experts);
    if (!g->who || !g->spans || (f->options.routing && !g->experts))
        return err_set(err, ERR_MEMORY, "no memory for a group of %u sequences", n_sequences);
    return OK;
}

static void group_close(struct group *g) {
    free(g->who);
    free(g->spans);
    free(g->experts);
}

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

enum status flight_open(struct flight **out, struct sluice *engine, struct step *wide,
                        const struct flight_options *options, struct err *err) {
    struct flight *f = *out = calloc(1, sizeof *f);
    if (!f)
        return err_set(err, ERR_MEMORY, "no memory for sequences in flight");
    assert(engine->n_narrow_steps > 0);
    f->engine = engine;
    f->options = *options;
    f->n_groups = least(options->n_groups ? options->n_groups : FLIGHT_GROUPS,
                        least(engine->n_narrow_steps, engine->n_sequences));
    f->n_used = f->n_groups;
    pace_init(&f->pace, f->n_groups);
    f->members = calloc(engine->n_sequences, sizeof *f->members);
    f->groups = calloc(f->n_groups, sizeof *f->groups);
    enum status status = OK;
    if (!f->members || !f->groups)
        status = err_set(err, ERR_MEMORY, "no memory for sequences in flight");
    else
        status = group_open(&f->wide, f, wide, err);
    for (uint32_t i = 0; i < f->n_groups && status == OK; i++)
        status = group_open(&f->groups[i], f, NULL, err);
    if (status != OK) {
        flight_close(f);
        *out = NULL;
    }
    return status;
}

void flight_close(struct flight *f) {
    if (!f)
        return;
    for (uint32_t i = 0; f->groups && i < f->n_groups; i++) {
        step_close(f->groups[i].step); // what was under way is abandoned
        group_close(&f->groups[i]);
    }
    group_close(&f->wide);
    for (uint32_t i = 0; f->members && i < f->engine->n_sequences; i++)
        sequence_close(f->members[i].sequence);
    free(f->members);
    free(f->groups);
    free(f);
}

// --- coming and going ----------------------------------------------------------------------------

enum status flight_add(struct flight *f, const struct flight_sequence *sequence, struct err *err) {
    uint32_t ctx = f->engine->fit.ctx;
    if (sequence->n_prompt == 0)
        return err_set(err, ERR_USAGE, "a prompt without tokens");
    if (sequence->n_prompt > ctx)
        return err_set(err, ERR_MEMORY,
                       "the prompt has %u tokens, the context holds %u: a larger --ctx is needed",
                       sequence->n_prompt, ctx);
    if (f->n_members == f->engine->n_sequences)
        return err_set(err, ERR_USAGE, "%u sequences are under way, the most that were announced",
                       f->n_members);
    struct member *m = f->members;
    while (m->sequence)
        m++;
    if (sluice_sequence(f->engine, &m->sequence, err) != OK)
        return err->status;
    m->owner = *sequence;
    m->number = f->n_added++;
    m->n_in = 0;
    f->n_members++;
    f->n_prompts++;
    f->prompt_total += sequence->n_prompt;
    return OK;
}

static struct group *smallest_group(struct flight *f) {
    struct group *smallest = &f->groups[0];
    for (uint32_t i = 1; i < f->n_used; i++)
        if (f->groups[i].n < smallest->n)
            smallest = &f->groups[i];
    return smallest;
}

static void join(struct group *g, uint32_t member) {
    g->who[g->n++] = member;
}

// Between its steps a group gives away what it has too many of, or all, if it is not used any more.
// (Those of the others may be in their steps: they can take some in, not give any away.)
static void even_out(struct group *g) {
    struct flight *f = g->flight;
    bool used = g < f->groups + f->n_used;
    struct group *smallest;
    assert(g->n_flying == 0);
    while (g->n > 0 && ((smallest = smallest_group(f))->n + 2 <= g->n || !used))
        join(smallest, g->who[--g->n]);
}

// The groups that are used from now on, if nobody has said how many.
static void count_tokens(struct flight *f, uint32_t n) {
    const struct clock *clock = f->options.clock ? f->options.clock : clock_system();
    if (f->options.n_groups == 0 && f->n_groups > 1)
        f->n_used = pace_tokens(&f->pace, n, f->n_members, clock_now_ns(clock));
}

static void count_groups(struct flight *f) {
    struct account *account = &f->engine->account;
    uint32_t n_groups = 0, n_sequences = 0;
    for (uint32_t i = 0; i < f->n_groups; i++) {
        n_groups += f->groups[i].n > 0;
        n_sequences += f->groups[i].n;
    }
    if (account->sequences < n_sequences)
        account->sequences = n_sequences;
    if (account->groups < n_groups)
        account->groups = n_groups;
}

/* Its owner says how it goes on. *more: it does. The sequence of one that does not is closed. */
static enum status ask(struct flight *f, struct member *m, bool *more, struct err *err) {
    enum status status = m->owner.next(m->owner.context, &m->token, more, err);
    if (status != OK)
        *more = false;
    if (*more)
        return OK;
    sequence_close(m->sequence);
    m->sequence = NULL;
    f->n_members--;
    return status;
}

uint32_t flight_length(const struct flight *f, uint32_t number) {
    for (uint32_t i = 0; i < f->engine->n_sequences; i++)
        if (f->members[i].sequence && f->members[i].number == number)
            return sequence_length(f->members[i].sequence);
    return 0;
}

// --- a step --------------------------------------------------------------------------------------

static struct member *member_of(const struct group *g, uint32_t i) {
    return &g->flight->members[g->who[i]];
}

// Rows come in the order of the spans; of each it is the last that has logits.
static void pass_logits(void *context, uint32_t row, bool draft, const float *logits) {
    const struct group *g = context;
    uint32_t i = 0;
    (void)draft;
    for (uint32_t end = 0; (end += g->spans[i].n_tokens) <= row;)
        i++;
    const struct flight_sequence *owner = &member_of(g, i)->owner;
    owner->logits(owner->context, logits);
}

static uint32_t n_rows(const struct group *g) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_flying; i++)
        n += g->spans[i].n_tokens;
    return n;
}

// Kept until the step is done: the writer knows one step at a time, and others are under way.
static void keep_experts(void *context, uint32_t layer, const int32_t *experts) {
    const struct group *g = context;
    uint32_t width = g->flight->engine->cp.config.n_chosen, n = n_rows(g) * width;
    memcpy(g->experts + (size_t)layer * step_max_rows(g->step) * width, experts,
           n * sizeof *experts);
}

static enum status begin(struct group *g, uint32_t n, struct err *err) {
    const struct flight_options *o = &g->flight->options;
    struct step_options options = { .logits = pass_logits,
                                    .routed = o->routing ? keep_experts : NULL,
                                    .context = g,
                                    .tap = o->tap };
    enum status status = step_begin(g->step, g->spans, n, &options, err);
    if (status == OK)
        g->n_flying = n;
    return status;
}

static void commit(struct group *g) {
    struct routing_writer *writer = g->flight->options.routing;
    const struct config *c = &g->flight->engine->cp.config;
    if (writer)
        routing_writer_begin(writer, n_rows(g), false);
    for (uint32_t i = 0, row = 0; writer && i < g->n_flying; row += g->spans[i++].n_tokens)
        routing_writer_rows(writer, row, g->spans[i].n_tokens, member_of(g, i)->number,
                            sequence_length(g->spans[i].sequence), g->spans[i].tokens);
    for (uint32_t layer = 0; writer && layer < c->n_layers; layer++)
        routing_writer_experts(writer, layer,
                               g->experts + (size_t)layer * step_max_rows(g->step) * c->n_chosen);
    step_commit(g->step);
    if (writer)
        routing_writer_commit(writer);
}

static bool is_cancelled(const struct flight *f) {
    return f->options.cancel && f->options.cancel(f->options.context);
}

// --- prompts -------------------------------------------------------------------------------------

static uint32_t fill_pass(struct flight *f) {
    uint32_t most = step_max_rows(f->wide.step), n = 0, n_taken = 0;
    if (f->options.chunk && f->options.chunk < most)
        most = f->options.chunk;
    for (uint32_t i = 0; i < f->engine->n_sequences && n_taken < most; i++) {
        const struct member *m = &f->members[i];
        uint32_t rest = m->sequence ? m->owner.n_prompt - m->n_in : 0;
        uint32_t rows = rest < most - n_taken ? rest : most - n_taken;
        if (rows == 0)
            continue;
        f->wide.who[n] = i;
        f->wide.spans[n++] = (struct span){ .sequence = m->sequence,
                                            .tokens = m->owner.prompt + m->n_in,
                                            .n_tokens = rows,
                                            .n_logits = rows == rest,
                                            .next_token = -1 };
        n_taken += rows;
    }
    return n;
}

static void tell_progress(const struct flight *f, uint32_t of_pass) {
    if (f->options.progress)
        f->options.progress(f->options.context, f->prompt_done + of_pass, f->prompt_total);
}

static bool between_layers(void *context) {
    const struct flight *f = context;
    tell_progress(f, (uint32_t)(n_rows(&f->wide) * step_share(f->wide.step)));
    return is_cancelled(f);
}

// Those whose prompt is in now join a group, if they go on.
static enum status end_pass(struct flight *f, struct err *err) {
    enum status status = OK;
    uint32_t n = f->wide.n_flying;
    f->prompt_done += n_rows(&f->wide);
    f->wide.n_flying = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct member *m = member_of(&f->wide, i);
        bool more;
        m->n_in += f->wide.spans[i].n_tokens;
        if (m->n_in < m->owner.n_prompt)
            continue;
        f->n_prompts--;
        struct err why = { .status = OK };
        if (ask(f, m, &more, &why) != OK && status == OK) {
            *err = why; // the first one
            status = why.status;
        }
        if (more)
            join(smallest_group(f), f->wide.who[i]);
    }
    tell_progress(f, 0);
    return status;
}

static enum status take_prompts_in(struct flight *f, struct err *err) {
    enum status status = begin(&f->wide, fill_pass(f), err);
    if (status != OK)
        return status;
    status = step_run(f->wide.step, between_layers, f, err);
    if (status != OK) {
        step_abandon(f->wide.step);
        f->wide.n_flying = 0;
        return status;
    }
    commit(&f->wide);
    return end_pass(f, err);
}

// --- groups --------------------------------------------------------------------------------------

static enum status begin_step(struct group *g, struct err *err) {
    count_groups(g->flight);
    for (uint32_t i = 0; i < g->n; i++)
        g->spans[i] = (struct span){ .sequence = member_of(g, i)->sequence,
                                     .tokens = &member_of(g, i)->token,
                                     .n_tokens = 1,
                                     .n_logits = 1,
                                     .next_token = -1 };
    return begin(g, g->n, err);
}

static enum status end_step(struct group *g, struct err *err) {
    enum status status = OK;
    uint32_t n_flying = g->n_flying, kept = 0;
    commit(g);
    g->n_flying = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        bool more = true;
        struct err why = { .status = OK };
        if (i < n_flying && ask(g->flight, member_of(g, i), &more, &why) != OK && status == OK) {
            *err = why; // the first one
            status = why.status;
        }
        if (more)
            g->who[kept++] = g->who[i];
    }
    g->n = kept;
    count_tokens(g->flight, n_flying);
    return status;
}

static bool any_flying(const struct flight *f) {
    for (uint32_t i = 0; i < f->n_groups; i++)
        if (f->groups[i].n_flying > 0)
            return true;
    return false;
}

// Groups that are not used any more are in their last step: one that begins now would leave their
// sequences behind for a step.
static bool others_will_come(const struct flight *f) {
    for (uint32_t i = f->n_used; i < f->n_groups; i++)
        if (f->groups[i].n > 0)
            return true;
    return false;
}

// A group's turn. OK: it got further; AGAIN: it waits; DONE: it has nothing to do.
static enum status take_turn(struct group *g, struct err *err) {
    if (g->n_flying == 0)
        even_out(g);
    bool may_begin = g->flight->n_prompts == 0 && !others_will_come(g->flight);
    if (g->n == 0 || (g->n_flying == 0 && !may_begin))
        return DONE;
    enum status status = g->n_flying ? OK : begin_step(g, err);
    if (status == OK)
        status = step_layer(g->step, err);
    return status == DONE ? end_step(g, err) : status;
}

static enum status go_round(struct flight *f, struct err *err) {
    struct step *waits = NULL;
    bool moved = false;
    for (uint32_t i = 0; i < f->n_groups; i++) {
        struct group *g = &f->groups[i];
        if (is_cancelled(f))
            return err_set(err, CANCELLED, "cancelled");
        enum status status = take_turn(g, err);
        moved |= status == OK;
        if (status == AGAIN)
            waits = waits ? waits : g->step;
        else if (status != OK && status != DONE)
            return status;
    }
    if (moved || !waits)
        return OK;
    // What one of them took in may be what another waits for.
    for (uint32_t i = 0; i < f->n_groups; i++)
        if (f->groups[i].n_flying && event_ready(step_event(f->groups[i].step)))
            return OK;
    step_wait(waits, WAIT_SLICE_NS);
    return OK;
}

enum status flight_run(struct flight *f, struct err *err) {
    enum status status = err->status; // an old one would be taken for one of this call
    // A pass over prompts goes through without taking turns: a step that stood still meanwhile might
    // have what the pass waits for, a slot or a frame.
    while (status == OK && f->n_members > 0)
        status = f->n_prompts && !any_flying(f) ? take_prompts_in(f, err) : go_round(f, err);
    return status;
}

void flight_check(const struct flight *f) {
    uint32_t n_members = 0, n_prompts = 0, n_dealt = 0;
    for (uint32_t i = 0; i < f->engine->n_sequences; i++) {
        const struct member *m = &f->members[i];
        n_members += m->sequence != NULL;
        n_prompts += m->sequence && m->n_in < m->owner.n_prompt;
        if (m->sequence && m->n_in < m->owner.n_prompt)
            assert(sequence_length(m->sequence) == m->n_in);
    }
    for (uint32_t i = 0; i < f->n_groups; i++) {
        const struct group *g = &f->groups[i];
        assert(g->n_flying <= g->n);
        n_dealt += g->n;
        for (uint32_t k = 0; k < g->n; k++)
            assert(member_of(g, k)->sequence);
    }
    assert(n_members == f->n_members && n_prompts == f->n_prompts);
    assert(n_dealt == n_members - n_prompts && f->wide.n_flying == 0);
    (void)n_members, (void)n_prompts, (void)n_dealt;
}
