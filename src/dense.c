#include "src/dense.h"

#include "io/trace.h"

#include <assert.h>
#include <stdlib.h>

#define NONE          UINT32_MAX
#define CLOSE_WAIT_NS 100000000

// --- the order of use ----------------------------------------------------------------------------

uint32_t dense_visit_layer(const struct dense *d, const struct dense_user *user, uint32_t layer) {
    uint32_t n_layers = d->weights->cp->config.n_layers;
    return layer < n_layers ? layer : n_layers + user->n_tiles * d->plan->n_panels;
}

uint32_t dense_visit_head(const struct dense *d, const struct dense_user *user, bool draft,
                          uint32_t tile, uint32_t panel) {
    uint32_t n_layers = d->weights->cp->config.n_layers;
    uint32_t head = draft ? dense_visit_layer(d, user, n_layers) + 1 : n_layers;
    return head + tile * d->plan->n_panels + panel;
}

// The unit of a visit; after a step's last, those of the layers of the step that will follow it.
static uint32_t unit_of(const struct dense *d, const struct dense_user *user, uint32_t visit) {
    uint32_t n_layers = d->weights->cp->config.n_layers, n_panels = d->plan->n_panels;
    uint32_t n_head = user->n_tiles * n_panels;
    for (int half = 0; half < (user->draft ? 2 : 1); half++) {
        uint32_t n_blocks = half ? 1 : n_layers;
        if (visit < n_blocks)
            return half ? n_layers : visit;
        visit -= n_blocks;
        if (visit < n_head)
            return d->plan->n_blocks + visit % n_panels;
        visit -= n_head;
    }
    return visit < n_layers ? visit : NONE;
}

// The streamed units that are to be used soonest, the soonest first; of steps that are equally far
// from theirs, the oldest step's.
static uint32_t soonest(const struct dense *d, uint32_t unit[DENSE_FRAMES]) {
    struct dense_user nobody = { .n_tiles = 0 }; // the next step begins with the first layer
    const struct dense_user *users = d->users ? d->users : &nobody;
    uint32_t n = 0;
    bool more = true;
    for (uint32_t ahead = 0; more && n < DENSE_FRAMES; ahead++) {
        more = false;
        for (const struct dense_user *user = users; user && n < DENSE_FRAMES; user = user->next) {
            uint32_t next = unit_of(d, user, user->visit + ahead);
            if (next == NONE)
                continue;
            more = true;
            bool known = !d->plan->streamed[next];
            for (uint32_t i = 0; i < n; i++)
                known |= unit[i] == next;
            if (!known)
                unit[n++] = next;
        }
    }
    return n;
}

static bool is_awaited(const struct dense *d, uint32_t unit) {
    for (const struct dense_user *user = d->users; user; user = user->next)
        if (user->waiting && unit_of(d, user, user->visit) == unit)
            return true;
    return false;
}

// --- frames --------------------------------------------------------------------------------------

static struct dense_frame *frame_of(struct dense *d, uint32_t unit) {
    for (int i = 0; i < DENSE_FRAMES; i++)
        if (d->frame[i].state != FRAME_EMPTY && d->frame[i].unit == unit)
            return &d->frame[i];
    return NULL;
}

static void empty(struct dense *d, struct dense_frame *f) {
    if (f->state == FRAME_READY)
        weights_unit_place(d->weights, f->unit, NULL);
    f->state = FRAME_EMPTY;
}

// One that holds nothing, or nothing that is among the n units to come.
static struct dense_frame *free_frame(struct dense *d, const uint32_t *unit, uint32_t n) {
    for (int i = 0; i < DENSE_FRAMES; i++)
        if (d->frame[i].state == FRAME_EMPTY)
            return &d->frame[i];
    for (int i = 0; i < DENSE_FRAMES; i++) {
        struct dense_frame *f = &d->frame[i];
        bool wanted = f->state != FRAME_READY || f->held || !event_ready(f->after);
        for (uint32_t k = 0; k < n; k++)
            wanted |= f->unit == unit[k];
        if (!wanted)
            return f;
    }
    return NULL;
}

static void load(struct dense *d, struct dense_frame *f, uint32_t unit, bool awaited) {
    struct dense_layout layout;
    empty(d, f);
    dense_layout(&layout, d->plan, d->weights->cp, unit, d->file_of);
    assert(layout.bytes <= d->plan->frame_bytes);
    f->state = FRAME_LOADING;
    f->unit = unit;
    f->failed = DENSE_MAX_REQUESTS;
    f->n_requests = f->n_under_way = layout.n_requests;
    for (uint32_t i = 0; i < f->n_requests; i++) {
        struct request *r = &f->request[i];
        *r = (struct request){ .priority = awaited ? READ_DEMAND : READ_AHEAD,
                               .owner = f,
                               .label = TRACE_LABEL_DENSE | unit };
        request_bind(r, &layout.request[i], f->data + layout.request_at[i]);
    }
    for (uint32_t i = 0; i < f->n_requests; i++)
        reader_submit(d->reader, &f->request[i]);
}

static void fill(struct dense *d) {
    uint32_t unit[DENSE_FRAMES];
    if (d->plan->n_streamed == 0)
        return;
    uint32_t n = soonest(d, unit);
    for (uint32_t i = 0; i < n; i++) {
        if (frame_of(d, unit[i]) || d->failed[unit[i]])
            continue;
        struct dense_frame *f = free_frame(d, unit, n);
        if (f)
            load(d, f, unit[i], is_awaited(d, unit[i]));
    }
}

static void promote(struct dense *d, struct dense_frame *f) {
    for (uint32_t i = 0; i < f->n_requests; i++)
        reader_promote(d->reader, &f->request[i], READ_DEMAND);
}

static void ready(struct dense *d, struct dense_frame *f) {
    struct dense_layout layout;
    struct mem at[DENSE_MAX_PARTS];
    dense_layout(&layout, d->plan, d->weights->cp, f->unit, d->file_of);
    for (uint32_t i = 0; i < layout.n_parts; i++)
        at[i] = ops_host_mem(d->weights->ops, f->data + layout.at[i]);
    weights_unit_place(d->weights, f->unit, at);
    f->state = FRAME_READY;
    f->after = event_now();
    d->stats.units++;
}

void dense_read_ended(void *context, struct request *request) {
    struct dense *d = context;
    struct dense_frame *f = request->owner;
    uint32_t number = (uint32_t)(request - f->request);
    assert(f->state == FRAME_LOADING && number < DENSE_MAX_REQUESTS && f->n_under_way > 0);
    d->stats.bytes += request->bytes_read;
    if (request->status != OK && f->failed == DENSE_MAX_REQUESTS)
        f->failed = number;
    if (--f->n_under_way > 0)
        return;
    if (f->failed == DENSE_MAX_REQUESTS) {
        ready(d, f);
        return;
    }
    d->stats.failed += f->request[f->failed].status != CANCELLED;
    d->failed[f->unit] = true;
    f->state = is_awaited(d, f->unit) ? FRAME_FAILED : FRAME_EMPTY;
}

// --- open and close ------------------------------------------------------------------------------

enum status dense_open(struct dense *d, struct weights *weights, struct slots *slots,
                       struct reader *reader, const uint32_t *file_of, unsigned char *memory,
                       struct err *err) {
    *d = (struct dense){ .weights = weights,
                         .plan = &weights->plan,
                         .reader = reader,
                         .slots = slots,
                         .file_of = file_of };
    d->failed = calloc(d->plan->n_units, sizeof *d->failed);
    if (!d->failed)
        return err_set(err, ERR_MEMORY, "no memory for an engine");
    for (int i = 0; i < DENSE_FRAMES; i++)
        d->frame[i].data = memory + i * d->plan->frame_bytes;
    fill(d);
    return OK;
}

void dense_close(struct dense *d) {
    assert(!d->users);
    for (int i = 0; i < DENSE_FRAMES; i++) {
        struct dense_frame *f = &d->frame[i];
        for (uint32_t k = 0; f->state == FRAME_LOADING && k < f->n_requests; k++)
            reader_cancel(d->reader, &f->request[k]);
        while (f->state == FRAME_LOADING) {
            slots_take_in(d->slots);
            if (f->state == FRAME_LOADING)
                event_wait(reader_event(d->reader), CLOSE_WAIT_NS);
        }
    }
    free(d->failed);
    *d = (struct dense){ .users = NULL };
}

// --- steps ---------------------------------------------------------------------------------------

void dense_begin(struct dense *d, struct dense_user *user, uint32_t n_tiles, bool draft) {
    struct dense_user **last = &d->users;
    while (*last)
        last = &(*last)->next;
    *user = (struct dense_user){ .n_tiles = n_tiles, .draft = draft, .active = true };
    *last = user;
    fill(d);
}

void dense_end(struct dense *d, struct dense_user *user) {
    struct dense_user **at = &d->users;
    if (!user->active)
        return;
    while (*at != user)
        at = &(*at)->next;
    *at = user->next;
    user->active = false;
    for (int i = 0; i < DENSE_FRAMES; i++) // of what it waited for, and will not hear about
        if (d->frame[i].state == FRAME_FAILED && !is_awaited(d, d->frame[i].unit))
            empty(d, &d->frame[i]);
    fill(d);
}

// A read that went wrong, told to the first that asks; for others that wait it is tried again.
static enum status tell(struct dense *d, struct dense_user *user, struct dense_frame *f,
                        struct err *err) {
    user->waiting = false;
    enum status status = request_error(d->reader, &f->request[f->failed], err);
    empty(d, f);
    d->failed[f->unit] = !is_awaited(d, f->unit);
    fill(d);
    return status;
}

enum status dense_hold(struct dense *d, struct dense_user *user, uint32_t visit, struct err *err) {
    uint32_t unit = unit_of(d, user, visit);
    assert(user->active && visit >= user->visit && unit != NONE);
    user->visit = visit;
    if (!d->plan->streamed[unit])
        return OK;
    slots_take_in(d->slots);
    struct dense_frame *f = frame_of(d, unit);
    if (f && f->state == FRAME_FAILED)
        return tell(d, user, f, err);
    if (f && f->state == FRAME_READY) {
        f->held = true;
        user->waiting = false;
        d->failed[unit] = false;
        return OK;
    }
    bool news = !user->waiting;
    user->waiting = true;
    if (news)
        d->failed[unit] = false;
    if (news && f)
        promote(d, f);
    fill(d);
    return AGAIN;
}

void dense_release(struct dense *d, struct dense_user *user, bool past, struct event after) {
    uint32_t unit = unit_of(d, user, user->visit);
    user->visit += past;
    if (!d->plan->streamed[unit])
        return;
    struct dense_frame *f = frame_of(d, unit);
    assert(f && f->held);
    f->held = false;
    f->after = after;
    fill(d);
}

struct event dense_event(struct dense *d, const struct dense_user *user) {
    const struct dense_frame *f = frame_of(d, unit_of(d, user, user->visit));
    if (f && f->state != FRAME_LOADING)
        return event_now();
    for (int i = 0; i < DENSE_FRAMES && !f; i++) // a frame that will be free is worth waking up for
        if (d->frame[i].state == FRAME_READY && !event_ready(d->frame[i].after))
            return d->frame[i].after;
    return reader_event(d->reader);
}

void dense_check(const struct dense *d) {
    for (int i = 0; i < DENSE_FRAMES; i++) {
        const struct dense_frame *f = &d->frame[i];
        assert((f->state == FRAME_LOADING) == (f->n_under_way > 0));
        assert(!f->held || f->state == FRAME_READY);
        assert(f->state == FRAME_EMPTY || d->plan->streamed[f->unit]);
        for (int k = 0; k < i; k++)
            assert(f->state == FRAME_EMPTY || d->frame[k].state == FRAME_EMPTY ||
                   d->frame[k].unit != f->unit);
        if (f->state == FRAME_FAILED)
            assert(is_awaited(d, f->unit));
    }
    for (const struct dense_user *user = d->users; user; user = user->next)
        assert(user->active);
}
