#include "tools/bench/ideal_disk.h"

#include <assert.h>
#include <stdlib.h>

enum op_kind { OP_COMPUTE, OP_SUBMIT, OP_RAISE, OP_NEED, OP_TAKE };

struct ideal_op {
    enum op_kind kind;
    enum read_priority priority;
    uint32_t request, group;
    uint64_t ns;
};

struct ideal_request {
    uint64_t bytes;
};

// --- building ------------------------------------------------------------------------------------

// Room for one more; false: there is no memory.
static bool grow(void **array, size_t *room, size_t n, size_t size) {
    if (n < *room)
        return true;
    size_t more = *room ? *room * 2 : 256;
    void *larger = realloc(*array, more * size);
    if (!larger)
        return false;
    *array = larger;
    *room = more;
    return true;
}

static void add(struct ideal_run *run, struct ideal_op op) {
    if (run->failed || !grow((void **)&run->ops, &run->ops_room, run->n_ops, sizeof *run->ops)) {
        run->failed = true;
        return;
    }
    run->ops[run->n_ops++] = op;
}

uint32_t ideal_add_request(struct ideal_run *run, uint64_t bytes) {
    if (run->failed || !grow((void **)&run->requests, &run->requests_room, run->n_requests,
                             sizeof *run->requests)) {
        run->failed = true;
        return IDEAL_NONE;
    }
    run->requests[run->n_requests].bytes = bytes;
    return (uint32_t)run->n_requests++;
}

void ideal_add_compute(struct ideal_run *run, uint64_t ns) {
    if (ns > 0)
        add(run, (struct ideal_op){ .kind = OP_COMPUTE, .ns = ns });
}

void ideal_add_submit(struct ideal_run *run, uint32_t request, enum read_priority priority) {
    add(run, (struct ideal_op){ .kind = OP_SUBMIT, .request = request, .priority = priority });
}

void ideal_add_raise(struct ideal_run *run, uint32_t request, enum read_priority priority) {
    add(run, (struct ideal_op){ .kind = OP_RAISE, .request = request, .priority = priority });
}

void ideal_add_need(struct ideal_run *run, uint32_t request) {
    add(run, (struct ideal_op){ .kind = OP_NEED, .request = request });
}

void ideal_add_take(struct ideal_run *run, uint32_t group, uint32_t request) {
    add(run, (struct ideal_op){ .kind = OP_TAKE, .request = request, .group = group });
    run->n_groups = run->n_groups > group ? run->n_groups : group + 1;
}

void ideal_run_free(struct ideal_run *run) {
    free(run->ops);
    free(run->requests);
    *run = (struct ideal_run){ .ops = NULL };
}

// --- the disk ------------------------------------------------------------------------------------

struct state {
    bool submitted, there;
    double bytes_left;
    enum read_priority priority;
    uint32_t next, prev; // in its queue
};

// An expert of a demand that is still to be taken.
struct member {
    uint32_t request, next; // of the group
};

struct replay {
    double rate; // bytes a nanosecond
    double now_ns, disk_ns;
    struct state *states; // [n_requests]
    struct {
        uint32_t first, last;
    } queues[READ_PRIORITIES];
    struct member *members; // [n_ops]: of OP_TAKE
    uint32_t *groups;       // [n_groups] the first member
};

static void queue_append(struct replay *r, uint32_t request, enum read_priority priority) {
    struct state *s = &r->states[request];
    s->priority = priority;
    s->next = IDEAL_NONE;
    s->prev = r->queues[priority].last;
    if (s->prev == IDEAL_NONE)
        r->queues[priority].first = request;
    else
        r->states[s->prev].next = request;
    r->queues[priority].last = request;
}

static void queue_remove(struct replay *r, uint32_t request) {
    struct state *s = &r->states[request];
    if (s->prev == IDEAL_NONE)
        r->queues[s->priority].first = s->next;
    else
        r->states[s->prev].next = s->next;
    if (s->next == IDEAL_NONE)
        r->queues[s->priority].last = s->prev;
    else
        r->states[s->next].prev = s->prev;
}

static uint32_t queue_first(const struct replay *r) {
    for (int p = 0; p < READ_PRIORITIES; p++)
        if (r->queues[p].first != IDEAL_NONE)
            return r->queues[p].first;
    return IDEAL_NONE;
}

// Serve what is queued up to the control thread's moment.
static void catch_up(struct replay *r) {
    uint32_t request;
    while (r->disk_ns < r->now_ns && (request = queue_first(r)) != IDEAL_NONE) {
        struct state *s = &r->states[request];
        double takes_ns = s->bytes_left / r->rate;
        if (r->disk_ns + takes_ns > r->now_ns) {
            s->bytes_left -= (r->now_ns - r->disk_ns) * r->rate;
            break;
        }
        r->disk_ns += takes_ns;
        s->there = true;
        queue_remove(r, request);
    }
    r->disk_ns = r->now_ns;
}

// The control thread waits until the next read is there.
static void serve_one(struct replay *r) {
    uint32_t request = queue_first(r);
    assert(request != IDEAL_NONE);
    r->now_ns += r->states[request].bytes_left / r->rate;
    r->disk_ns = r->now_ns;
    r->states[request].there = true;
    queue_remove(r, request);
}

// --- the control thread --------------------------------------------------------------------------

static bool is_there(const struct replay *r, uint32_t request) {
    return request == IDEAL_NONE || r->states[request].there;
}

// The place where the first member that is there is linked in, or NULL.
static uint32_t *find_there(struct replay *r, uint32_t group) {
    uint32_t *link = &r->groups[group];
    while (*link != IDEAL_NONE && !is_there(r, r->members[*link].request))
        link = &r->members[*link].next;
    return *link == IDEAL_NONE ? NULL : link;
}

static void take(struct replay *r, uint32_t group) {
    uint32_t *link;
    while (!(link = find_there(r, group)))
        serve_one(r); // one of them has been submitted: as many were taken in the run up to here
    *link = r->members[*link].next;
}

static void submit(struct replay *r, const struct ideal_op *op, uint64_t bytes) {
    struct state *s = &r->states[op->request];
    assert(!s->submitted);
    s->submitted = true;
    s->bytes_left = (double)bytes;
    queue_append(r, op->request, op->priority);
}

static void follow(struct replay *r, const struct ideal_run *run, const struct ideal_op *op) {
    catch_up(r);
    switch (op->kind) {
    case OP_COMPUTE:
        r->now_ns += (double)op->ns;
        break;
    case OP_SUBMIT:
        submit(r, op, run->requests[op->request].bytes);
        break;
    case OP_RAISE:
        if (is_there(r, op->request) || r->states[op->request].priority <= op->priority)
            break;
        queue_remove(r, op->request);
        queue_append(r, op->request, op->priority);
        break;
    case OP_NEED:
        while (!is_there(r, op->request))
            serve_one(r);
        break;
    case OP_TAKE:
        take(r, op->group);
        break;
    }
}

// In the order of the run.
static void link_members(struct replay *r, const struct ideal_run *run) {
    for (uint32_t g = 0; g < run->n_groups; g++)
        r->groups[g] = IDEAL_NONE;
    for (size_t i = run->n_ops; i-- > 0;)
        if (run->ops[i].kind == OP_TAKE) {
            r->members[i] = (struct member){ run->ops[i].request, r->groups[run->ops[i].group] };
            r->groups[run->ops[i].group] = (uint32_t)i;
        }
}

enum status ideal_replay(const struct ideal_run *run, double rate, struct ideal_time *out,
                         struct err *err) {
    struct replay r = { .rate = rate * 1e-9 };
    r.states = calloc(run->n_requests + 1, sizeof *r.states);
    r.members = calloc(run->n_ops + 1, sizeof *r.members);
    r.groups = calloc(run->n_groups + 1, sizeof *r.groups);
    *out = (struct ideal_time){ 0 };
    if (!r.states || !r.members || !r.groups || run->failed) {
        err_set(err, ERR_MEMORY, "no memory to replay a run of %zu reads", run->n_requests);
    } else {
        for (int p = 0; p < READ_PRIORITIES; p++)
            r.queues[p].first = r.queues[p].last = IDEAL_NONE;
        link_members(&r, run);
        for (size_t i = 0; i < run->n_ops; i++) {
            follow(&r, run, &run->ops[i]);
            out->compute_ns += (double)run->ops[i].ns;
        }
        out->ns = r.now_ns;
        out->wait_ns = r.now_ns - out->compute_ns;
    }
    free(r.states);
    free(r.members);
    free(r.groups);
    return err->status;
}
