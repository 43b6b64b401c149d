// A disk that fails on purpose: it sits before another one and changes what comes back.
#include "io/disk.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// A chunk between submit and reap. It goes on to the inner disk with this as its tag.
struct faulty_chunk {
    struct disk_chunk chunk;
    bool faulty;
    enum fault fault;
    uint32_t short_bytes; // FAULT_SHORT: what is left of it
    struct faulty_chunk *next;
};

struct faulty_list {
    struct faulty_chunk *first, **end;
};

// Where a rule has struck: what is submitted again for the same place meets it again.
struct struck {
    bool yet;
    uint32_t file;
    uint64_t end; // of the chunk; a second try may begin later in it
    uint32_t times;
};

struct faulty_disk {
    struct disk disk;
    struct disk_ops ops;
    struct disk *inner;
    struct disk_faulty_options options;
    struct struck struck[DISK_FAULTY_RULES];
    uint64_t random;
    struct faulty_chunk *chunks; // [depth]
    struct faulty_chunk *free;
    struct faulty_list ready;   // fail without the inner disk
    struct faulty_list stalled; // wait for disk_faulty_release
    atomic_bool release;
    _Atomic uint64_t n_submitted;
};

static struct faulty_disk *faulty_of(struct disk *d) {
    return (struct faulty_disk *)d;
}

static void list_append(struct faulty_list *list, struct faulty_chunk *c) {
    c->next = NULL;
    *list->end = c;
    list->end = &c->next;
}

static struct faulty_chunk *list_take(struct faulty_list *list) {
    struct faulty_chunk *c = list->first;
    if (c) {
        list->first = c->next;
        if (!list->first)
            list->end = &list->first;
    }
    return c;
}

// --- which fault ---------------------------------------------------------------------------------

static uint32_t random_next(struct faulty_disk *f) { // splitmix64
    uint64_t x = f->random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)(x >> 32);
}

static bool rule_strikes(const struct fault_rule *rule, struct struck *struck,
                         const struct disk_chunk *chunk, uint64_t nth) {
    uint64_t end = chunk->offset + chunk->bytes;
    if (!struck->yet && rule->nth == nth)
        *struck = (struct struck){ .yet = true, .file = chunk->file, .end = end };
    if (!struck->yet || struck->file != chunk->file || struck->end != end ||
        struck->times >= rule->times)
        return false;
    struck->times++;
    return true;
}

static void choose_fault(struct faulty_disk *f, struct faulty_chunk *c) {
    uint64_t nth = atomic_fetch_add(&f->n_submitted, 1) + 1;
    c->faulty = false;
    for (uint32_t i = 0; i < f->options.n_rules; i++) {
        const struct fault_rule *rule = &f->options.rules[i];
        if (rule_strikes(rule, &f->struck[i], &c->chunk, nth)) {
            c->faulty = true;
            c->fault = rule->fault;
            c->short_bytes = rule->bytes;
            return;
        }
    }
    uint32_t dice = random_next(f) % 1000;
    for (uint32_t fault = 0; fault < FAULTS; fault++) {
        if (dice < f->options.per_1000[fault]) {
            c->faulty = true;
            c->fault = (enum fault)fault;
            c->short_bytes = random_next(f) % c->chunk.bytes;
            return;
        }
        dice -= f->options.per_1000[fault];
    }
}

static int32_t result_of(const struct faulty_chunk *c) {
    switch (c->fault) {
    case FAULT_EIO:
        return -EIO;
    case FAULT_EINTR:
        return -EINTR;
    case FAULT_EAGAIN:
        return -EAGAIN;
    default:
        return 0; // FAULT_ZERO
    }
}

// What the inner disk brought, less what a short read leaves out. Memory behind it is overwritten,
// so that whoever takes a short read for a whole one has wrong bytes to show for it.
static int32_t shorten(const struct faulty_chunk *c, int32_t result) {
    if (!c->faulty || c->fault != FAULT_SHORT || result < 0 || (uint32_t)result <= c->short_bytes)
        return result;
    memset(c->chunk.dst + c->short_bytes, 0xA5, (uint32_t)result - c->short_bytes);
    return (int32_t)c->short_bytes;
}

// --- a disk's verbs ------------------------------------------------------------------------------

static void pass_on(struct faulty_disk *f, struct faulty_chunk *c) {
    struct disk_chunk chunk = c->chunk;
    chunk.tag = c;
    disk_submit(f->inner, &chunk, 1);
}

static void faulty_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    struct faulty_disk *f = faulty_of(d);
    for (uint32_t i = 0; i < n; i++) {
        struct faulty_chunk *c = f->free;
        assert(c);
        f->free = c->next;
        c->chunk = chunks[i];
        choose_fault(f, c);
        if (!c->faulty || c->fault == FAULT_SHORT)
            pass_on(f, c);
        else
            list_append(c->fault == FAULT_STALL ? &f->stalled : &f->ready, c);
    }
}

static struct disk_result finish(struct faulty_disk *f, struct faulty_chunk *c, int32_t result) {
    struct disk_result out = { .tag = c->chunk.tag, .result = result };
    c->next = f->free;
    f->free = c;
    return out;
}

static uint32_t faulty_reap(struct disk *d, struct disk_result *results, uint32_t max,
                            uint64_t timeout_ns) {
    struct faulty_disk *f = faulty_of(d);
    if (atomic_exchange(&f->release, false))
        for (struct faulty_chunk *c; (c = list_take(&f->stalled));)
            pass_on(f, c);
    uint32_t n = 0;
    for (struct faulty_chunk *c; n < max && (c = list_take(&f->ready)); n++)
        results[n] = finish(f, c, result_of(c));
    if (n == max)
        return n;
    uint32_t n_inner = disk_reap(f->inner, results + n, max - n, n > 0 ? 0 : timeout_ns);
    for (uint32_t i = n; i < n + n_inner; i++) {
        struct faulty_chunk *c = results[i].tag;
        results[i] = finish(f, c, shorten(c, results[i].result));
    }
    return n + n_inner;
}

static enum status faulty_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    return disk_add_file(faulty_of(d)->inner, fd, path, err);
}

static int faulty_add_memory(struct disk *d, unsigned char *base, uint64_t bytes) {
    struct faulty_disk *f = faulty_of(d);
    int error = disk_add_memory(f->inner, base, bytes);
    d->registered_bytes = f->inner->registered_bytes;
    return error;
}

static void faulty_wake(struct disk *d) {
    disk_wake(faulty_of(d)->inner);
}

static uint64_t faulty_now_ns(const struct disk *d) {
    const struct disk *inner = ((const struct faulty_disk *)d)->inner;
    return inner->ops->now_ns(inner);
}

static void faulty_close(struct disk *d) {
    struct faulty_disk *f = faulty_of(d);
    assert(!f->ready.first && !f->stalled.first);
    free(f->chunks);
    free(f);
}

// --- open and the test's side --------------------------------------------------------------------

enum status disk_faulty_open(struct disk **out, struct disk *inner,
                             const struct disk_faulty_options *options, struct err *err) {
    static const struct disk_ops ops = {
        .name = "faulty disk",
        .add_file = faulty_add_file,
        .add_memory = faulty_add_memory,
        .submit = faulty_submit,
        .reap = faulty_reap,
        .wake = faulty_wake,
        .close = faulty_close,
    };
    *out = NULL;
    if (options->n_rules > DISK_FAULTY_RULES)
        return err_set(err, ERR_USAGE, "%u fault rules are more than %d", options->n_rules,
                       DISK_FAULTY_RULES);
    struct faulty_disk *f = malloc(sizeof *f);
    struct faulty_chunk *chunks = calloc(inner->depth, sizeof *chunks);
    if (!f || !chunks) {
        free(f);
        free(chunks);
        return err_set(err, ERR_MEMORY, "no memory for a faulty disk");
    }
    *f = (struct faulty_disk){
        .ops = ops,
        .disk = { .ops = &f->ops,
                  .depth = inner->depth,
                  .synchronous = inner->synchronous,
                  .wants_fd = inner->wants_fd },
        .inner = inner,
        .options = *options,
        .random = options->seed,
        .chunks = chunks,
    };
    if (inner->ops->now_ns) // else time is the reader's clock's
        f->ops.now_ns = faulty_now_ns;
    f->ready.end = &f->ready.first;
    f->stalled.end = &f->stalled.first;
    for (uint32_t i = inner->depth; i-- > 0;) {
        chunks[i].next = f->free;
        f->free = &chunks[i];
    }
    *out = &f->disk;
    return OK;
}

uint64_t disk_faulty_submitted(const struct disk *d) {
    return atomic_load(&((const struct faulty_disk *)d)->n_submitted);
}

void disk_faulty_release(struct disk *d) {
    atomic_store(&faulty_of(d)->release, true);
    disk_wake(d);
}
