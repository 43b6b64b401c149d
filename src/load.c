#include "src/load.h"

#include <assert.h>
#include <stdlib.h>

#define STAGE_BYTES (4u << 20)   // eight of the reader's chunks
#define N_STAGES    6            // 48 chunks: more than are at the device at once
#define GAP_BYTES   (256u << 10) // reading over a shorter gap costs less than a read of its own
#define WAIT_NS     100000000

// One read under way: bytes [from, to) of a file are wanted, whole blocks are read.
struct stage {
    struct request request;
    unsigned char *data;
    uint32_t file; // of the checkpoint
    uint64_t from, to;
    uint32_t first_item; // that reaches into it
    bool arrived;        // reader_next has returned the request: the stage is ours again
};

struct load {
    const struct checkpoint *cp;
    struct ops *ops;
    const struct load_options *options;
    struct load_item *items;
    uint32_t n_items;
    uint32_t item;    // next one that a read has to be planned for
    uint64_t item_at; // bytes of it that are planned
    struct reader *reader;
    uint32_t *file_of; // checkpoint file → reader file
    unsigned char *memory;
    struct stage stages[N_STAGES];
    uint32_t n_begun, n_ended; // stages are used in turn
};

static uint64_t align_down(uint64_t x) {
    return x / READER_ALIGN * READER_ALIGN;
}

static uint64_t align_up(uint64_t x) {
    return align_down(x + READER_ALIGN - 1);
}

static int by_place(const void *a, const void *b) {
    const struct tensor_place *x = &((const struct load_item *)a)->place;
    const struct tensor_place *y = &((const struct load_item *)b)->place;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

// --- planning ------------------------------------------------------------------------------------

static void take(struct load *l, uint64_t bytes) {
    l->item_at += bytes;
    if (l->item_at == l->items[l->item].place.bytes) {
        l->item++;
        l->item_at = 0;
    }
}

// The next range: from where planning stands, over neighbours, as far as a stage reaches.
static bool plan(struct load *l, struct stage *s) {
    if (l->item == l->n_items)
        return false;
    const struct tensor_place *p = &l->items[l->item].place;
    s->first_item = l->item;
    s->file = p->file;
    s->from = s->to = p->offset + l->item_at;
    uint64_t end = align_down(s->from) + STAGE_BYTES;
    while (l->item < l->n_items) {
        p = &l->items[l->item].place;
        uint64_t at = p->offset + l->item_at;
        if (p->file != s->file || at >= end || at - s->to > GAP_BYTES)
            break;
        uint64_t left = p->bytes - l->item_at;
        uint64_t bytes = left < end - at ? left : end - at;
        s->to = at + bytes;
        take(l, bytes);
    }
    return true;
}

static void begin(struct load *l, struct stage *s) {
    uint64_t offset = align_down(s->from), end = align_up(s->to);
    s->request = (struct request){ .n_reads = 1, .priority = READ_DEMAND, .owner = s };
    s->request.reads[0] = (struct read){ .file = l->file_of[s->file],
                                         .slack = (uint32_t)(end - s->to),
                                         .offset = offset,
                                         .bytes = end - offset,
                                         .dst = s->data };
    s->arrived = false;
    reader_submit(l->reader, &s->request);
    l->n_begun++;
}

// --- arriving --------------------------------------------------------------------------------------

// What has arrived goes to where its tensors are.
static enum status deliver(struct load *l, const struct stage *s, struct err *err) {
    uint64_t delivered = 0, base = align_down(s->from);
    for (uint32_t i = s->first_item; i < l->n_items; i++) {
        const struct tensor_place *p = &l->items[i].place;
        if (p->file != s->file || p->offset >= s->to)
            break;
        uint64_t from = p->offset > s->from ? p->offset : s->from;
        uint64_t end = p->offset + p->bytes, to = end < s->to ? end : s->to;
        if (from >= to)
            continue;
        ops_upload(l->ops, mem_at(l->items[i].to, from - p->offset), s->data + (from - base),
                   to - from);
        delivered += to - from;
    }
    if (l->options->progress && !l->options->progress(l->options->context, delivered))
        return err_set(err, CANCELLED, "cancelled while loading weights");
    return OK;
}

// Stages end in the order they were begun in; the reads may not.
static enum status await(struct load *l, struct stage *s, struct err *err) {
    while (!s->arrived) {
        struct request *ended = reader_next(l->reader);
        if (ended)
            ((struct stage *)ended->owner)->arrived = true;
        else
            event_wait(reader_event(l->reader), WAIT_NS);
    }
    l->n_ended++;
    if (s->request.status != OK)
        return request_error(l->reader, &s->request, err);
    return deliver(l, s, err);
}

static enum status stream(struct load *l, struct err *err) {
    bool more = true;
    while (more || l->n_ended < l->n_begun) {
        struct stage *next = &l->stages[l->n_begun % N_STAGES];
        if (more && l->n_begun - l->n_ended < N_STAGES) {
            more = plan(l, next);
            if (more)
                begin(l, next);
            continue;
        }
        enum status status = await(l, &l->stages[l->n_ended % N_STAGES], err);
        if (status != OK)
            return status;
    }
    return OK;
}

// --- set-up ----------------------------------------------------------------------------------------

static enum status open_files(struct load *l, struct err *err) {
    struct reader_options options = { .mode = l->options->io,
                                      .forbid_uring = l->options->forbid_uring };
    enum status status = reader_open(&l->reader, &options, err);
    for (uint32_t i = 0; i < l->n_items && status == OK; i++) {
        uint32_t file = l->items[i].place.file;
        if (i == 0 || file != l->items[i - 1].place.file)
            status = reader_add_file(l->reader, l->cp->files[file].path, &l->file_of[file], err);
    }
    if (status == OK)
        reader_add_memory(l->reader, l->memory, (uint64_t)N_STAGES * STAGE_BYTES);
    return status;
}

enum status load_items(const struct checkpoint *cp, struct ops *ops, struct load_item *items,
                       uint32_t n_items, const struct load_options *options, struct err *err) {
    struct load l = {
        .cp = cp, .ops = ops, .options = options, .items = items, .n_items = n_items
    };
    qsort(items, n_items, sizeof *items, by_place);
    l.file_of = calloc(cp->n_files, sizeof *l.file_of);
    l.memory = aligned_alloc(READER_ALIGN, (size_t)N_STAGES * STAGE_BYTES);
    enum status status = l.file_of && l.memory
                             ? open_files(&l, err)
                             : err_set(err, ERR_MEMORY, "no memory to load weights with");
    for (uint32_t i = 0; i < N_STAGES && l.memory; i++)
        l.stages[i].data = l.memory + (size_t)i * STAGE_BYTES;
    if (status == OK)
        status = stream(&l, err);
    reader_close(l.reader); // waits for what is still under way
    free(l.file_of);
    free(l.memory);
    return status;
}
