#include "tools/bench/recording.h"

#include <assert.h>
#include <stdlib.h>

// Taken at every layer: one of Pro reads 384 experts in 34 chunks each, two events a chunk.
#define RING_EVENTS (1u << 17)

// Between two looks at the counter of bytes that are kept, where nothing else changes.
#define LOOK_NS 100000u

#define DEMANDS_MAX 16 // steps in flight, at most

struct place {
    uint64_t ns;
    uint32_t activity, step, layer, expert;
};

struct ended_read {
    uint64_t ended_ns;
    struct trace_request is;
};

struct look {
    uint64_t ns, bytes;
    bool busy;
};

struct recording {
    struct trace *trace;
    struct place *places;
    struct ended_read *reads; // in the order of their ends
    struct look *looks;
    size_t n_places, places_room, n_reads, reads_room, n_looks, looks_room;
    uint64_t from_ns, to_ns;
    uint64_t n_lost; // for want of memory
};

enum status recording_open(struct recording **out, struct err *err) {
    struct recording *r = *out = calloc(1, sizeof *r);
    if (!r)
        return err_set(err, ERR_MEMORY, "no memory to record a run");
    if (trace_open(&r->trace, RING_EVENTS, err) == OK)
        return OK;
    free(r);
    *out = NULL;
    return err->status;
}

void recording_close(struct recording *r) {
    if (!r)
        return;
    trace_close(r->trace);
    free(r->places);
    free(r->reads);
    free(r->looks);
    free(r);
}

struct trace *recording_trace(struct recording *r) {
    return r->trace;
}

uint64_t recording_lost(const struct recording *r) {
    return r->n_lost + trace_lost(r->trace);
}

// --- taking --------------------------------------------------------------------------------------

static bool grow(void **array, size_t *room, size_t n, size_t size) {
    if (n < *room)
        return true;
    size_t more = *room ? *room * 2 : 4096;
    void *larger = realloc(*array, more * size);
    if (!larger)
        return false;
    *array = larger;
    *room = more;
    return true;
}

static bool keep_place(struct recording *r, const struct trace_event *event) {
    const struct trace_place *p = &event->is.place;
    if (!grow((void **)&r->places, &r->places_room, r->n_places, sizeof *r->places))
        return false;
    r->places[r->n_places++] =
        (struct place){ event->ns, p->activity, p->step, p->layer, p->expert };
    return true;
}

static bool keep_read(struct recording *r, const struct trace_event *event) {
    if (!grow((void **)&r->reads, &r->reads_room, r->n_reads, sizeof *r->reads))
        return false;
    r->reads[r->n_reads++] = (struct ended_read){ event->ns, event->is.request };
    return true;
}

static bool keep_look(struct recording *r, const struct trace_event *event) {
    const struct trace_queue *q = &event->is.queue;
    struct look look = { event->ns, q->bytes_so_far, q->n_chunks > 0 };
    if (r->n_looks >= 2) { // in place of the last, if that says no more than its neighbours do
        struct look *last = &r->looks[r->n_looks - 1];
        if (look.busy && last->busy && last[-1].busy && look.ns - last[-1].ns < LOOK_NS) {
            *last = look;
            return true;
        }
    }
    if (!grow((void **)&r->looks, &r->looks_room, r->n_looks, sizeof *r->looks))
        return false;
    r->looks[r->n_looks++] = look;
    return true;
}

void recording_take(struct recording *r) {
    struct trace_event event;
    for (int track = 0; track < TRACE_TRACKS; track++)
        while (trace_take(r->trace, (enum trace_track)track, &event)) {
            bool kept = true;
            switch ((enum trace_kind)event.kind) {
            case TRACE_PLACE:
                kept = keep_place(r, &event);
                break;
            case TRACE_QUEUE:
                kept = keep_look(r, &event);
                break;
            case TRACE_REQUEST:
                kept = keep_read(r, &event);
                break;
            }
            r->n_lost += !kept;
        }
}

void recording_begin(struct recording *r, uint64_t now_ns) {
    recording_take(r);
    // Where the control thread and the disk are, they are from the beginning on.
    if (r->n_places > 0) {
        r->places[0] = r->places[r->n_places - 1];
        r->n_places = 1;
    }
    if (r->n_looks > 0) {
        r->looks[0] = r->looks[r->n_looks - 1];
        r->n_looks = 1;
    }
    r->n_reads = 0;
    r->from_ns = r->to_ns = now_ns;
}

void recording_end(struct recording *r, uint64_t now_ns) {
    recording_take(r);
    r->to_ns = now_ns;
}

bool recording_busy(struct recording *r) {
    recording_take(r);
    return r->n_looks > 0 && r->looks[r->n_looks - 1].busy;
}

// --- spans of time -------------------------------------------------------------------------------

struct span {
    uint64_t from, to;
};

struct spans {
    struct span *span;
    size_t n;
};

static void add_span(const struct recording *r, struct spans *s, uint64_t from, uint64_t to) {
    from = from < r->from_ns ? r->from_ns : from;
    to = to > r->to_ns ? r->to_ns : to;
    if (from < to)
        s->span[s->n++] = (struct span){ from, to };
}

static int earlier(const void *a, const void *b) {
    uint64_t x = ((const struct span *)a)->from, y = ((const struct span *)b)->from;
    return (x > y) - (x < y);
}

// Sorted, and none touches another.
static void unite(struct spans *s) {
    size_t n = 0;
    qsort(s->span, s->n, sizeof *s->span, earlier);
    for (size_t i = 0; i < s->n; i++)
        if (n > 0 && s->span[i].from <= s->span[n - 1].to)
            s->span[n - 1].to =
                s->span[i].to > s->span[n - 1].to ? s->span[i].to : s->span[n - 1].to;
        else
            s->span[n++] = s->span[i];
    s->n = n;
}

static uint64_t length(const struct spans *s) {
    uint64_t ns = 0;
    for (size_t i = 0; i < s->n; i++)
        ns += s->span[i].to - s->span[i].from;
    return ns;
}

// Of both at once; they are united.
static uint64_t common(const struct spans *a, const struct spans *b) {
    uint64_t ns = 0;
    for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
        struct span x = a->span[i], y = b->span[k];
        uint64_t from = x.from > y.from ? x.from : y.from, to = x.to < y.to ? x.to : y.to;
        ns += from < to ? to - from : 0;
        if (x.to < y.to)
            i++;
        else
            k++;
    }
    return ns;
}

static bool is_waiting(const struct place *p) {
    return p->activity == ACTIVITY_WAIT || p->activity == ACTIVITY_WAIT_DENSE;
}

static bool is_dense(const struct trace_request *q) {
    return q->label & TRACE_LABEL_DENSE;
}

// --- figures -------------------------------------------------------------------------------------

static uint64_t end_of(const struct recording *r, size_t place) {
    return place + 1 < r->n_places ? r->places[place + 1].ns : r->to_ns;
}

// Bytes that had arrived by then: `*at` is the last look not after it, and goes forward only.
static double arrived(const struct recording *r, uint64_t ns, size_t *at) {
    if (r->n_looks == 0)
        return 0;
    while (*at + 1 < r->n_looks && r->looks[*at + 1].ns <= ns)
        (*at)++;
    const struct look *a = &r->looks[*at], *b = a + 1;
    if (*at + 1 == r->n_looks || ns < a->ns)
        return (double)a->bytes;
    return (double)a->bytes +
           (double)(b->bytes - a->bytes) * (double)(ns - a->ns) / (double)(b->ns - a->ns);
}

static double bytes_in(const struct recording *r, const struct spans *s) {
    double bytes = 0;
    for (size_t i = 0, at = 0; i < s->n; i++) {
        double before = arrived(r, s->span[i].from, &at);
        bytes += arrived(r, s->span[i].to, &at) - before;
    }
    return bytes;
}

static void find_idle(const struct recording *r, struct spans *idle) {
    if (r->n_looks == 0 || r->looks[0].ns > r->from_ns)
        add_span(r, idle, r->from_ns, r->n_looks ? r->looks[0].ns : r->to_ns);
    for (size_t i = 0; i < r->n_looks; i++)
        if (!r->looks[i].busy)
            add_span(r, idle, r->looks[i].ns, i + 1 < r->n_looks ? r->looks[i + 1].ns : r->to_ns);
    unite(idle);
}

void recording_figures(const struct recording *r, struct recording_figures *out, struct err *err) {
    struct spans waits = { 0 }, wanted = { 0 }, idle = { 0 };
    struct span window = { r->from_ns, r->to_ns };
    *out = (struct recording_figures){ .ns = r->to_ns - r->from_ns };
    waits.span = calloc(r->n_places + 1, sizeof *waits.span);
    wanted.span = calloc(r->n_places + r->n_reads + 1, sizeof *wanted.span);
    idle.span = calloc(r->n_looks + 2, sizeof *idle.span);
    if (!waits.span || !wanted.span || !idle.span) {
        err_set(err, ERR_MEMORY, "no memory to look into a run");
    } else {
        for (size_t i = 0; i < r->n_places; i++) {
            const struct place *p = &r->places[i];
            uint64_t from = p->ns < r->from_ns ? r->from_ns : p->ns, to = end_of(r, i);
            to = to > r->to_ns ? r->to_ns : to;
            if (p->activity != TRACE_NOWHERE && from < to)
                out->activity_ns[p->activity] += to - from;
            if (is_waiting(p)) {
                add_span(r, &waits, from, to);
                add_span(r, &wanted, from, to);
            }
        }
        for (size_t i = 0; i < r->n_reads; i++)
            add_span(r, &wanted, r->reads[i].is.submitted_ns, r->reads[i].ended_ns);
        unite(&waits);
        unite(&wanted);
        find_idle(r, &idle);
        out->wait_ns = length(&waits);
        out->idle_ns = length(&idle);
        out->idle_wanted_ns = common(&idle, &wanted);
        out->wait_bytes = bytes_in(r, &waits);
        out->bytes = bytes_in(r, &(struct spans){ &window, window.from < window.to });
    }
    free(waits.span);
    free(wanted.span);
    free(idle.span);
}

enum status recording_again(const struct recording *r, uint32_t n_experts, uint64_t *n,
                            struct err *err) {
    bool *seen = calloc(n_experts + 1, sizeof *seen);
    *n = 0;
    if (!seen)
        return err_set(err, ERR_MEMORY, "no memory to look into a run");
    for (size_t i = 0; i < r->n_reads; i++) {
        uint64_t label = r->reads[i].is.label;
        if (r->reads[i].is.status != OK || label == 0 || label > n_experts)
            continue;
        *n += seen[label];
        seen[label] = true;
    }
    free(seen);
    return OK;
}

// --- the story -----------------------------------------------------------------------------------

enum action_kind { ACTION_SUBMIT, ACTION_RAISE, ACTION_NEED };

// Something about a read, at a moment.
struct action {
    uint64_t ns;
    enum action_kind kind;
    uint32_t read;
};

static int sooner(const void *a, const void *b) {
    const struct action *x = a, *y = b;
    if (x->ns != y->ns)
        return x->ns < y->ns ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->read < y->read ? -1 : x->read > y->read;
}

struct story {
    const struct recording *r;
    struct ideal_run *run;
    uint32_t *number; // [n_reads] of a read as the run has it
    struct action *actions;
    size_t n_actions, at;
    uint32_t n_layers;
    bool has_dense;
    bool *needed; // [n_reads] of dense weights: it has been
    struct {
        uint32_t step, layer, group;
        bool used;
    } demands[DEMANDS_MAX]; // the last of each step, by its number
};

// A read that was given up while it was queued has no bytes, and is none.
static bool counts(const struct ended_read *read) {
    return read->is.bytes > 0;
}

static void list_actions(struct story *s) {
    const struct recording *r = s->r;
    for (uint32_t i = 0; i < r->n_reads; i++) {
        const struct trace_request *q = &r->reads[i].is;
        if (!counts(&r->reads[i]))
            continue;
        s->number[i] = ideal_add_request(s->run, q->bytes);
        s->actions[s->n_actions++] = (struct action){ q->submitted_ns, ACTION_SUBMIT, i };
        s->has_dense |= is_dense(q);
        if (q->raised_ns > q->submitted_ns)
            s->actions[s->n_actions++] = (struct action){ q->raised_ns, ACTION_RAISE, i };
        if (q->label == 0 && q->priority == READ_DEMAND)
            s->actions[s->n_actions++] = (struct action){ r->reads[i].ended_ns, ACTION_NEED, i };
    }
    qsort(s->actions, s->n_actions, sizeof *s->actions, sooner);
}

static void act(struct story *s, const struct action *a, bool waiting) {
    const struct trace_request *q = &s->r->reads[a->read].is;
    bool raised = q->raised_ns > q->submitted_ns;
    switch (a->kind) {
    case ACTION_SUBMIT: // what it was before it was raised is not told: what is read ahead
        ideal_add_submit(s->run, s->number[a->read],
                         !raised       ? (enum read_priority)q->priority
                         : is_dense(q) ? READ_AHEAD
                                       : READ_PREFETCH);
        break;
    case ACTION_RAISE:
        ideal_add_raise(s->run, s->number[a->read], (enum read_priority)q->priority);
        break;
    case ACTION_NEED: // what came while something else was done was there in time
        if (waiting)
            ideal_add_need(s->run, s->number[a->read]);
        break;
    }
}

// The control thread is in one place until `to`.
static void stay(struct story *s, uint64_t from, uint64_t to, bool computing, bool waiting) {
    for (; s->at < s->n_actions && s->actions[s->at].ns < to; s->at++) {
        uint64_t ns = s->actions[s->at].ns;
        if (computing && ns > from) {
            ideal_add_compute(s->run, ns - from);
            from = ns;
        }
        act(s, &s->actions[s->at], waiting);
    }
    if (computing)
        ideal_add_compute(s->run, to - from);
}

// The last read of this expert that had ended by then.
static uint32_t read_of(const struct story *s, uint32_t expert, uint64_t ns) {
    const struct recording *r = s->r;
    for (size_t i = r->n_reads; i-- > 0;)
        if (r->reads[i].ended_ns <= ns && r->reads[i].is.label == (uint64_t)expert + 1 &&
            r->reads[i].is.status == OK && counts(&r->reads[i]))
            return s->number[i];
    return IDEAL_NONE;
}

// All of these units that had been read by then, each once.
static void need_dense(struct story *s, uint64_t ns, uint64_t first, uint64_t last) {
    const struct recording *r = s->r;
    stay(s, ns, ns, false, false); // what was asked for by now
    for (size_t i = 0; i < r->n_reads && r->reads[i].ended_ns <= ns; i++) {
        const struct trace_request *q = &r->reads[i].is;
        uint64_t unit = q->label ^ TRACE_LABEL_DENSE;
        if (!is_dense(q) || unit < first || unit > last || s->needed[i] || q->status != OK ||
            !counts(&r->reads[i]))
            continue;
        ideal_add_need(s->run, s->number[i]);
        s->needed[i] = true;
    }
}

// Experts of one layer of one step are those of one demand.
static uint32_t group_of(struct story *s, const struct place *p) {
    uint32_t at = p->step % DEMANDS_MAX;
    if (!s->demands[at].used || s->demands[at].step != p->step ||
        s->demands[at].layer != p->layer) {
        s->demands[at].used = true;
        s->demands[at].step = p->step;
        s->demands[at].layer = p->layer;
        s->demands[at].group = s->run->n_groups;
    }
    return s->demands[at].group;
}

static void tell(struct story *s) {
    const struct recording *r = s->r;
    uint64_t now = r->from_ns;
    if (r->n_places == 0 || r->places[0].ns > now) // nothing is known of what was before
        stay(s, now, r->n_places ? r->places[0].ns : r->to_ns, true, false);
    for (size_t i = 0; i < r->n_places; i++) {
        const struct place *p = &r->places[i];
        uint64_t from = p->ns < r->from_ns ? r->from_ns : p->ns, to = end_of(r, i);
        to = to > r->to_ns ? r->to_ns : to;
        if (p->ns >= r->to_ns || from > to)
            continue;
        if (p->expert != TRACE_NOWHERE && p->ns >= r->from_ns) {
            stay(s, from, from, false, false); // what was asked for by now
            ideal_add_take(s->run, group_of(s, p), read_of(s, p->expert, p->ns));
        }
        if (s->has_dense && p->activity == ACTIVITY_ATTENTION)
            need_dense(s, from, p->layer, p->layer);
        if (s->has_dense && p->activity == ACTIVITY_HEAD)
            need_dense(s, from, s->n_layers, UINT32_MAX);
        bool waiting = is_waiting(p);
        stay(s, from, to, !waiting && p->activity != TRACE_NOWHERE, waiting);
    }
}

void recording_story(const struct recording *r, uint32_t n_layers, struct ideal_run *out) {
    struct story s = { .r = r, .run = out, .n_layers = n_layers };
    *out = (struct ideal_run){ .ops = NULL };
    s.number = calloc(r->n_reads + 1, sizeof *s.number);
    s.actions = calloc(3 * r->n_reads + 1, sizeof *s.actions);
    s.needed = calloc(r->n_reads + 1, sizeof *s.needed);
    if (!s.number || !s.actions || !s.needed) {
        out->failed = true;
    } else {
        list_actions(&s);
        tell(&s);
    }
    free(s.number);
    free(s.actions);
    free(s.needed);
}
