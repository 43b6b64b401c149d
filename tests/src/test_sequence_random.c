/* Sequences against a model of them: random steps, rollbacks, forks, restores, abandoned steps and
 * closes over several sequences at once. The model is a list of tokens for each; what a step says of
 * its rows must be, bit for bit, what a fresh sequence says that takes the whole list in at once. */
#include "src/engine.h"
#include "src/schedule.h"
#include "tests/support/engine.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#define N_SEEDS 1 // arithmetic is 20 times slower there
#else
#define N_SEEDS 3
#endif
#define N_OPS     130
#define MOST      6   // live at once: more than the engine has promised memory for,
#define PROMISED  3   // so that pages do run out
#define CTX       176 // past a group of 128, and a few windows of 16
#define MOST_ROWS 48  // of a step
#define ROW_BYTES (GOLDEN_VOCAB * sizeof(float))

struct model {
    struct sequence *sequence; // NULL: not live
    int32_t tokens[CTX];
    uint32_t length, written, draft_length;
    int32_t draft_next[CTX]; // the token that the draft block was given at each position
};

struct world {
    struct sluice *engine, *fresh;
    struct step *step, *fresh_step;
    struct model live[MOST];
    uint64_t random;
    uint32_t n_compared, n_refused, n_abandoned, n_full; // what the run has met
};

// Rows of a step: [0] the trunk's logits, [1] the draft block's.
struct rows {
    uint32_t first; // row of the step that is kept at 0
    float logits[2][MOST_ROWS][GOLDEN_VOCAB];
};

static uint32_t below(struct world *w, uint32_t n) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((w->random >> 33) % n);
}

static void keep(void *context, uint32_t row, bool draft, const float *logits) {
    struct rows *r = context;
    if (row >= r->first && row - r->first < MOST_ROWS)
        memcpy(r->logits[draft][row - r->first], logits, ROW_BYTES);
}

// --- the model -----------------------------------------------------------------------------------

// What a fresh sequence says of the last n tokens of a list.
static void compute_anew(struct world *w, const int32_t *tokens, uint32_t length, uint32_t n,
                         const int32_t *draft_next, struct rows *out) {
    struct sequence *s;
    struct err err = { .status = OK };
    struct span span = { .tokens = tokens,
                         .n_tokens = length,
                         .n_logits = n,
                         .next_token = draft_next ? draft_next[length - 1] : -1 };
    struct step_options options = { .draft = draft_next, .logits = keep, .context = out };
    out->first = length - n;
    assert_int_equal(sluice_sequence(w->fresh, &s, &err), OK);
    span.sequence = s;
    assert_int_equal(step_begin(w->fresh_step, &span, 1, &options, &err), OK);
    assert_int_equal(step_run(w->fresh_step, NULL, NULL, &err), OK);
    step_commit(w->fresh_step);
    sequence_close(s);
}

static bool draft_is_current(const struct model *m, int32_t token) {
    return m->draft_length == m->length &&
           (m->length == 0 || m->draft_next[m->length - 1] == token);
}

static uint32_t floor_of(const struct model *m) {
    return m->written > KV_ROLLBACK ? m->written - KV_ROLLBACK : 0;
}

// Every page has as many owners as there are tables that name it.
static void check_pages(const struct world *w) {
    const struct pages *pages = &w->engine->kv.pages;
    uint32_t *owners = calloc(pages->n_pages, sizeof *owners);
    for (int i = 0; i < MOST; i++) {
        const struct model *m = &w->live[i];
        if (!m->sequence)
            continue;
        sequence_check(m->sequence);
        assert_int_equal(sequence_length(m->sequence), m->length);
        assert_int_equal(sequence_rollback_floor(m->sequence), floor_of(m));
        for (uint32_t layer = 0; layer < w->engine->kv.layout.n_blocks; layer++)
            for (int kind = 0; kind < KV_KINDS; kind++) {
                uint32_t n;
                const uint32_t *page =
                    sequence_pages(m->sequence, layer, (enum kv_kind)kind, false, &n);
                for (uint32_t k = 0; k < n; k++)
                    owners[page[k]]++;
            }
    }
    pages_check(pages);
    assert_memory_equal(owners, pages->owners, pages->n_pages * sizeof *owners);
    free(owners);
}

// --- what can happen -----------------------------------------------------------------------------

static bool countdown(void *context) {
    uint32_t *left = context;
    return (*left)-- == 0;
}

// Rows for a sequence: mostly a few, at times many; tokens that go on from what the draft was given.
static uint32_t choose_span(struct world *w, struct model *m, uint32_t room, int32_t *tokens) {
    uint32_t n = below(w, 4) ? 1 + below(w, 9) : 1 + below(w, MOST_ROWS);
    n = n < room ? n : room;
    n = n < CTX - m->length ? n : CTX - m->length;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)below(w, GOLDEN_VOCAB);
    if (n && m->length && m->draft_length == m->length && below(w, 4))
        tokens[0] = m->draft_next[m->length - 1];
    return n;
}

struct planned {
    struct model *model;
    uint32_t first_row;
};

static uint32_t plan_step(struct world *w, struct span *spans, struct planned *planned,
                          int32_t *tokens) {
    uint32_t n_spans = 0, rows = 0, first = below(w, MOST), most = 1 + below(w, PROMISED);
    for (uint32_t k = 0; k < MOST && n_spans < most; k++) {
        struct model *m = &w->live[(first + k) % MOST];
        uint32_t n = m->sequence ? choose_span(w, m, MOST_ROWS - rows, tokens + rows) : 0;
        if (n == 0)
            continue;
        planned[n_spans] = (struct planned){ m, rows };
        spans[n_spans++] = (struct span){ .sequence = m->sequence,
                                          .tokens = tokens + rows,
                                          .n_tokens = n,
                                          .n_logits = n,
                                          .next_token = (int32_t)below(w, GOLDEN_VOCAB) };
        rows += n;
    }
    return n_spans;
}

static void commit(struct world *w, const struct span *spans, uint32_t n_spans,
                   const struct planned *planned, bool draft) {
    step_commit(w->step);
    for (uint32_t i = 0; i < n_spans; i++) {
        struct model *m = planned[i].model;
        for (uint32_t k = 0; k < spans[i].n_tokens; k++) {
            m->tokens[m->length + k] = spans[i].tokens[k];
            m->draft_next[m->length + k] =
                k + 1 < spans[i].n_tokens ? spans[i].tokens[k + 1] : spans[i].next_token;
        }
        m->length += spans[i].n_tokens;
        m->written = m->written > m->length ? m->written : m->length;
        m->draft_length = draft ? m->length : m->draft_length;
    }
}

static void compare(struct world *w, const struct span *spans, uint32_t n_spans,
                    const struct planned *planned, bool draft, const struct rows *got) {
    static struct rows expected;
    for (uint32_t i = 0; i < n_spans; i++) {
        const struct model *m = planned[i].model;
        uint32_t n = spans[i].n_tokens;
        compute_anew(w, m->tokens, m->length, n, draft ? m->draft_next : NULL, &expected);
        for (int kind = 0; kind <= draft; kind++)
            if (memcmp(got->logits[kind][planned[i].first_row], expected.logits[kind][0],
                       n * ROW_BYTES) != 0)
                fail_msg("%s of %u tokens after %u differ", kind ? "drafts" : "logits", n,
                         m->length - n);
        w->n_compared += n;
    }
}

static void abandon(struct world *w, const struct span *spans, uint32_t n_spans,
                    const struct planned *planned, bool ran) {
    step_abandon(w->step);
    w->n_abandoned++;
    for (uint32_t i = 0; i < n_spans && ran; i++) {
        struct model *m = planned[i].model;
        uint32_t reached = m->length + spans[i].n_tokens;
        // In place of older states: the floor rises. Nothing is older than an empty sequence.
        if (spans[i].n_tokens <= KV_ROLLBACK && m->length > 0 && m->written < reached)
            m->written = reached;
    }
}

static void feed(struct world *w) {
    static struct rows got;
    int32_t tokens[MOST_ROWS];
    struct span spans[MOST];
    struct planned planned[MOST];
    struct err err = { .status = OK };
    struct step_options options = { .logits = keep, .context = &got };
    uint32_t n_spans = plan_step(w, spans, planned, tokens);
    if (n_spans == 0)
        return;
    bool current = true;
    uint32_t n_live = 0;
    for (uint32_t i = 0; i < n_spans; i++)
        current &= draft_is_current(planned[i].model, spans[i].tokens[0]);
    for (int i = 0; i < MOST; i++)
        n_live += w->live[i].sequence != NULL;
    options.draft = below(w, 8) ? current : !current;

    enum status status = step_begin(w->step, spans, n_spans, &options, &err);
    if (options.draft && !current) {
        assert_int_equal(status, ERR_USAGE);
        w->n_refused++;
        return;
    }
    if (status == ERR_MEMORY && n_live > PROMISED) {
        w->n_full++;
        return;
    }
    assert_int_equal(status, OK);
    // Cut short before anything has run, after some layers, or (most moves) not at all.
    uint32_t moves = below(w, 16), left = moves;
    status = step_run(w->step, countdown, &left, &err);
    assert_true(status == OK || status == CANCELLED);
    err_clear(&err);
    if (below(w, 4) == 0) {
        abandon(w, spans, n_spans, planned, moves > 0);
        return;
    }
    assert_int_equal(step_run(w->step, NULL, NULL, &err), OK);
    commit(w, spans, n_spans, planned, options.draft);
    if (below(w, 2)) // most of the time goes here
        compare(w, spans, n_spans, planned, options.draft, &got);
}

static void roll_back(struct world *w, struct model *m) {
    struct err err = { .status = OK };
    uint32_t length = below(w, 10) ? m->length - below(w, (m->length < 10 ? m->length : 10) + 1)
                                   : below(w, CTX + 1);
    bool possible = length == 0 || (length <= m->length && length >= floor_of(m));
    assert_int_equal(sequence_rollback(m->sequence, length, &err), possible ? OK : ERR_USAGE);
    if (!possible)
        return;
    m->length = length;
    m->draft_length = m->draft_length < length ? m->draft_length : length;
    m->written = length ? m->written : 0;
}

static void fork_or_restore(struct model *m, struct model *other) {
    struct err err = { .status = OK };
    struct sequence *s = other->sequence;
    if (m == other)
        return;
    if (s)
        sequence_restore(s, m->sequence);
    else
        assert_int_equal(sequence_fork(&s, m->sequence, &err), OK);
    *other = *m;
    other->sequence = s;
}

static void live_one(struct world *w) {
    struct model *m = &w->live[below(w, MOST)];
    struct err err = { .status = OK };
    uint32_t what = below(w, 20);
    if (!m->sequence) {
        *m = (struct model){ .length = 0 };
        assert_int_equal(sluice_sequence(w->engine, &m->sequence, &err), OK);
    } else if (what < 13) {
        feed(w);
    } else if (what < 16) {
        roll_back(w, m);
    } else if (what < 19) {
        fork_or_restore(m, &w->live[below(w, MOST)]);
    } else {
        sequence_close(m->sequence);
        *m = (struct model){ .length = 0 };
    }
    check_pages(w);
}

// --- runs ------------------------------------------------------------------------------------------

static void open_world(struct world *w) {
    struct err err = { .status = OK };
    struct sluice_options o = test_options();
    o.n_slots = 36; // all experts: neither reading them nor threads are what is tried here
    o.n_threads = 1;
    o.ctx = CTX;
    o.drafts = true;
    w->fresh = test_engine(&o);
    o.n_sequences = PROMISED;
    o.chunk = MOST_ROWS;
    w->engine = test_engine(&o);
    assert_int_equal(step_open(&w->step, w->engine, &err), OK);
    assert_int_equal(step_open(&w->fresh_step, w->fresh, &err), OK);
}

static void close_world(struct world *w) {
    step_close(w->fresh_step);
    step_close(w->step);
    sluice_close(w->fresh);
    sluice_close(w->engine);
}

static void sequences_are_what_their_tokens_say(void **state) {
    static struct world w;
    (void)state;
    open_world(&w);
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        w.random = seed;
        for (int op = 0; op < N_OPS; op++)
            live_one(&w);
        for (int i = 0; i < MOST; i++) {
            sequence_close(w.live[i].sequence);
            w.live[i] = (struct model){ .length = 0 };
        }
        assert_int_equal(w.engine->kv.pages.n_free, w.engine->kv.pages.n_pages);
    }
    print_message("%u rows compared; %u drafts refused, %u steps abandoned, %u out of pages\n",
                  w.n_compared, w.n_refused, w.n_abandoned, w.n_full);
    assert_true(w.n_compared > 200 * N_SEEDS && w.n_refused > 0 && w.n_abandoned > 0 &&
                w.n_full > 0);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_are_what_their_tokens_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
