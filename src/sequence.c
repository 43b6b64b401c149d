#include "src/sequence.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// One layer's tables in a sequence: page numbers by kind. Rings have a second table, used while
// a wide step writes to fresh pages; it is empty (n_fresh 0) otherwise.
struct table {
    uint32_t *page; // [capacity]
    uint32_t *fresh;
    uint32_t n, n_fresh, capacity;
};

struct sequence {
    struct kv_store *store;
    struct table (*layers)[KV_KINDS];
    uint32_t *numbers; // what all tables point into
    uint32_t max_tokens;
    uint32_t length;
    uint32_t draft_length;               // tokens that the draft block has seen: length, or less
    int32_t draft_next[KV_ROLLBACK + 1]; // the token it saw after position p, at p mod their number
    uint32_t written;                    // the longest length that the rings hold states for
    uint32_t pending;                    // rows of the step under way; 0: none
};

static bool is_ring(enum kv_kind kind) {
    return kind == KV_WINDOW || kind == KV_STATE || kind == KV_INDEX_STATE;
}

// --- layout --------------------------------------------------------------------------------------

static uint32_t entry_bytes_of(const struct kv_layout *l, uint32_t layer, enum kv_kind kind) {
    const struct config *c = l->config;
    uint32_t m = c->ratio[layer];
    switch (kind) {
    case KV_STATE:
        return compressor_state_bytes(m, c->head_dim);
    case KV_INDEX_STATE:
        return compressor_state_bytes(m, c->index_dim);
    case KV_KEYS:
        return index_key_bytes(l->exact, c->index_dim);
    default:
        return kv_entry_bytes(l->exact, c->head_dim, c->rope_dim);
    }
}

void kv_layout_init(struct kv_layout *l, const struct config *config, uint32_t n_blocks,
                    bool exact) {
    *l = (struct kv_layout){
        .config = config, .exact = exact, .n_blocks = n_blocks, .page_bytes = KV_PAGE_BYTES
    };
    for (uint32_t layer = 0; layer < n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++)
            while (entry_bytes_of(l, layer, (enum kv_kind)kind) > l->page_bytes)
                l->page_bytes *= 2;
    // Whole pages of ring: the rest of the last page costs nothing.
    struct kv_shape shape =
        kv_shape(kv_entry_bytes(exact, config->head_dim, config->rope_dim), l->page_bytes);
    uint32_t need = config->window + KV_ROLLBACK;
    l->ring_entries = (need + shape.per_page - 1) / shape.per_page * shape.per_page;
}

struct kv_shape kv_shape_of(const struct kv_layout *l, uint32_t layer, enum kv_kind kind) {
    return kv_shape(entry_bytes_of(l, layer, kind), l->page_bytes);
}

uint32_t kv_pages(const struct kv_layout *l, uint32_t layer, enum kv_kind kind, uint32_t length) {
    uint32_t m = l->config->ratio[layer];
    uint32_t entries = 0;
    switch (kind) {
    case KV_WINDOW:
        entries = l->ring_entries;
        break;
    case KV_STATE:
        entries = m > 0 ? KV_ROLLBACK + 1 : 0;
        break;
    case KV_INDEX_STATE:
        entries = m == 4 ? KV_ROLLBACK + 1 : 0;
        break;
    case KV_ENTRIES:
        entries = m > 0 ? length / m : 0;
        break;
    case KV_KEYS:
        entries = m == 4 ? length / m : 0;
        break;
    case KV_KINDS:
        break;
    }
    uint32_t per_page = kv_shape_of(l, layer, kind).per_page;
    return entries / per_page + (entries % per_page != 0);
}

uint64_t kv_pages_total(const struct kv_layout *l, uint32_t length, uint64_t *rings) {
    uint64_t total = 0, ring = 0;
    for (uint32_t layer = 0; layer < l->n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            uint32_t n = kv_pages(l, layer, (enum kv_kind)kind, length);
            total += n;
            if (is_ring((enum kv_kind)kind))
                ring += n;
        }
    if (rings)
        *rings = ring;
    return total;
}

// A snapshot's own pages, once its sequence has gone on: the rings, and of the entries of a table
// those that a rollback can take back, at most two pages' (8 tokens are two entries).
static uint64_t snapshot_pages(const struct kv_layout *l) {
    uint64_t pages;
    kv_pages_total(l, 0, &pages);
    for (uint32_t layer = 0; layer < l->n_blocks; layer++)
        pages += l->config->ratio[layer] == 4 ? 4 : l->config->ratio[layer] > 0 ? 2 : 0;
    return pages;
}

uint64_t kv_pages_enough(const struct kv_layout *l, uint32_t max_tokens, uint32_t n_sequences) {
    uint64_t rings, pages = kv_pages_total(l, max_tokens, &rings);
    return (pages + rings) * n_sequences + snapshot_pages(l);
}

uint64_t kv_tables_bytes(const struct kv_layout *l, uint32_t max_tokens, uint32_t n_sequences) {
    uint64_t rings, pages = kv_pages_total(l, max_tokens, &rings);
    return (pages + rings) * (n_sequences + 1ull) * sizeof(uint32_t) +
           kv_pages_enough(l, max_tokens, n_sequences) * 2 * sizeof(uint32_t);
}

// --- store ---------------------------------------------------------------------------------------

enum status kv_store_open(struct kv_store *s, struct ops *ops, const struct kv_layout *layout,
                          uint32_t n_pages, struct err *err) {
    *s = (struct kv_store){ .layout = *layout, .ops = ops };
    enum status status = pages_open(&s->pages, n_pages, err);
    if (status == OK)
        status = ops_alloc(ops, (uint64_t)n_pages * layout->page_bytes, &s->memory, err);
    if (status != OK)
        kv_store_close(s);
    return status;
}

void kv_store_close(struct kv_store *s) {
    if (s->memory.address)
        ops_release(s->ops, s->memory);
    pages_close(&s->pages);
    *s = (struct kv_store){ .ops = NULL };
}

static struct mem page_memory(const struct kv_store *s, uint32_t page) {
    return mem_at(s->memory, (uint64_t)page * s->layout.page_bytes);
}

// --- open, close, copy ---------------------------------------------------------------------------

enum status sequence_open(struct sequence **out, struct kv_store *store, uint32_t max_tokens,
                          struct err *err) {
    const struct kv_layout *l = &store->layout;
    uint64_t rings, total = kv_pages_total(l, max_tokens, &rings);
    struct sequence *s = *out = calloc(1, sizeof *s);
    if (!s)
        goto fail;
    s->store = store;
    s->max_tokens = max_tokens;
    s->layers = calloc(l->n_blocks, sizeof *s->layers);
    s->numbers = malloc((total + rings) * sizeof *s->numbers + 1);
    if (!s->layers || !s->numbers)
        goto fail;
    uint32_t *next = s->numbers;
    for (uint32_t layer = 0; layer < l->n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            struct table *t = &s->layers[layer][kind];
            t->capacity = kv_pages(l, layer, (enum kv_kind)kind, max_tokens);
            t->page = next;
            next += t->capacity;
            if (is_ring((enum kv_kind)kind)) {
                t->fresh = next;
                next += t->capacity;
            }
        }
    return OK;
fail:
    sequence_close(s);
    *out = NULL;
    return err_set(err, ERR_MEMORY, "no memory for the page tables of a sequence of %u tokens",
                   max_tokens);
}

static void table_drop(struct pages *pages, uint32_t *page, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++)
        pages_drop(pages, page[i]);
}

static void drop_all(struct sequence *s) {
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            struct table *t = &s->layers[layer][kind];
            table_drop(&s->store->pages, t->page, 0, t->n);
            t->n = 0;
        }
}

void sequence_close(struct sequence *s) {
    if (!s)
        return;
    assert(!s->pending);
    if (s->layers && s->numbers)
        drop_all(s);
    free(s->layers);
    free(s->numbers);
    free(s);
}

enum status sequence_fork(struct sequence **out, const struct sequence *s, struct err *err) {
    enum status status = sequence_open(out, s->store, s->max_tokens, err);
    if (status == OK)
        sequence_restore(*out, s);
    return status;
}

void sequence_restore(struct sequence *s, const struct sequence *from) {
    assert(s->store == from->store && s->max_tokens >= from->max_tokens);
    assert(!s->pending && !from->pending);
    if (s == from)
        return;
    // Share first: pages that both have must not fall free in between.
    struct pages *pages = &s->store->pages;
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            struct table *t = &s->layers[layer][kind];
            const struct table *f = &from->layers[layer][kind];
            for (uint32_t i = 0; i < f->n; i++)
                pages_share(pages, f->page[i]);
            table_drop(pages, t->page, 0, t->n);
            memcpy(t->page, f->page, f->n * sizeof *t->page);
            t->n = f->n;
        }
    s->length = from->length;
    s->draft_length = from->draft_length;
    memcpy(s->draft_next, from->draft_next, sizeof s->draft_next);
    s->written = from->written;
}

// --- length --------------------------------------------------------------------------------------

uint32_t sequence_length(const struct sequence *s) {
    return s->length;
}

uint32_t sequence_max_tokens(const struct sequence *s) {
    return s->max_tokens;
}

bool sequence_draft_current(const struct sequence *s, int32_t token) {
    return s->draft_length == s->length &&
           (s->length == 0 || s->draft_next[(s->length - 1) % (KV_ROLLBACK + 1)] == token);
}

uint32_t sequence_rollback_floor(const struct sequence *s) {
    return s->written > KV_ROLLBACK ? s->written - KV_ROLLBACK : 0;
}

enum status sequence_rollback(struct sequence *s, uint32_t length, struct err *err) {
    assert(!s->pending);
    if (length > s->length || (length > 0 && length < sequence_rollback_floor(s)))
        return err_set(err, ERR_USAGE, "cannot go back from %u tokens to %u: the floor is %u",
                       s->length, length, sequence_rollback_floor(s));
    s->length = length;
    if (s->draft_length > length)
        s->draft_length = length;
    if (length == 0)
        s->written = 0; // the empty state needs no ring
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = KV_ENTRIES; kind <= KV_KEYS; kind++) {
            struct table *t = &s->layers[layer][kind];
            uint32_t keep = kv_pages(&s->store->layout, layer, (enum kv_kind)kind, length);
            if (keep < t->n) {
                table_drop(&s->store->pages, t->page, keep, t->n);
                t->n = keep;
            }
        }
    return OK;
}

// --- a step --------------------------------------------------------------------------------------

// Make page i of a table ours alone, so that it can be written.
static bool make_private(struct kv_store *store, struct table *t, uint32_t i) {
    if (!pages_shared(&store->pages, t->page[i]))
        return true;
    uint32_t copy = pages_take(&store->pages);
    if (copy == PAGE_NONE)
        return false;
    ops_copy(store->ops, page_memory(store, copy), page_memory(store, t->page[i]),
             store->layout.page_bytes);
    pages_drop(&store->pages, t->page[i]);
    t->page[i] = copy;
    return true;
}

static bool take_pages(struct pages *pages, uint32_t *page, uint32_t *n, uint32_t want) {
    while (*n < want) {
        page[*n] = pages_take(pages);
        if (page[*n] == PAGE_NONE)
            return false;
        ++*n;
    }
    return true;
}

// A ring: the first step takes its pages; a wide step gets a second set, a narrow one writes in
// place, which leaves what a rollback to before it needs (the rings are KV_ROLLBACK longer).
static bool prepare_ring(struct sequence *s, struct table *t, bool wide) {
    if (t->n == 0)
        return take_pages(&s->store->pages, t->page, &t->n, t->capacity);
    if (wide)
        return take_pages(&s->store->pages, t->fresh, &t->n_fresh, t->capacity);
    for (uint32_t i = 0; i < t->n; i++)
        if (!make_private(s->store, t, i))
            return false;
    return true;
}

// Entries: the page that the next entry falls into may be begun, and shared.
static bool prepare_entries(struct sequence *s, uint32_t layer, enum kv_kind kind, uint32_t end) {
    struct table *t = &s->layers[layer][kind];
    const struct kv_layout *l = &s->store->layout;
    if (t->capacity == 0)
        return true;
    uint32_t first = s->length / l->config->ratio[layer] / kv_shape_of(l, layer, kind).per_page;
    for (uint32_t i = first; i < t->n; i++)
        if (!make_private(s->store, t, i))
            return false;
    return take_pages(&s->store->pages, t->page, &t->n, kv_pages(l, layer, kind, end));
}

enum status sequence_begin(struct sequence *s, uint32_t n_rows, struct err *err) {
    assert(!s->pending && n_rows > 0);
    if (n_rows > s->max_tokens - s->length)
        return err_set(err, ERR_MEMORY,
                       "the context is full: %u tokens and %u more, but --ctx holds %u", s->length,
                       n_rows, s->max_tokens);
    bool wide = n_rows > KV_ROLLBACK;
    s->pending = n_rows;
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++) {
        bool fits = true;
        for (int kind = 0; kind < KV_ENTRIES && fits; kind++)
            fits = prepare_ring(s, &s->layers[layer][kind], wide);
        for (int kind = KV_ENTRIES; kind < KV_KINDS && fits; kind++)
            fits = prepare_entries(s, layer, (enum kv_kind)kind, s->length + n_rows);
        if (!fits) {
            sequence_abandon(s, false);
            return err_set(err, ERR_MEMORY,
                           "no KV page is left for %u more tokens: close a sequence, or give "
                           "more --ram or a smaller --ctx",
                           n_rows);
        }
    }
    return OK;
}

const uint32_t *sequence_pages(const struct sequence *s, uint32_t layer, enum kv_kind kind,
                               bool write, uint32_t *n) {
    const struct table *t = &s->layers[layer][kind];
    if (write && t->n_fresh) {
        *n = t->n_fresh;
        return t->fresh;
    }
    *n = t->n;
    return t->page;
}

// Entries past the length hold no page; a ring holds none before the first token.
static void trim(struct sequence *s) {
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            struct table *t = &s->layers[layer][kind];
            uint32_t keep = is_ring((enum kv_kind)kind)
                                ? (s->length ? t->n : 0)
                                : kv_pages(&s->store->layout, layer, (enum kv_kind)kind, s->length);
            if (keep < t->n) {
                table_drop(&s->store->pages, t->page, keep, t->n);
                t->n = keep;
            }
        }
}

void sequence_commit(struct sequence *s, const int32_t *draft_next) {
    assert(s->pending);
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = 0; kind < KV_ENTRIES; kind++) {
            struct table *t = &s->layers[layer][kind];
            if (t->n_fresh == 0)
                continue;
            table_drop(&s->store->pages, t->page, 0, t->n);
            memcpy(t->page, t->fresh, t->n_fresh * sizeof *t->page);
            t->n = t->n_fresh;
            t->n_fresh = 0;
        }
    if (draft_next && s->draft_length == s->length) {
        for (uint32_t i = 0; i < s->pending; i++)
            s->draft_next[(s->length + i) % (KV_ROLLBACK + 1)] = draft_next[i];
        s->draft_length += s->pending;
    }
    s->length += s->pending;
    if (s->written < s->length)
        s->written = s->length;
    s->pending = 0;
}

void sequence_abandon(struct sequence *s, bool ran) {
    for (uint32_t layer = 0; layer < s->store->layout.n_blocks; layer++)
        for (int kind = 0; kind < KV_ENTRIES; kind++) {
            struct table *t = &s->layers[layer][kind];
            table_drop(&s->store->pages, t->fresh, 0, t->n_fresh);
            t->n_fresh = 0;
        }
    // A narrow step has written states of tokens that are not to be: what they replaced is gone.
    uint32_t reached = s->length + s->pending;
    if (ran && s->pending <= KV_ROLLBACK && s->written < reached)
        s->written = reached;
    s->pending = 0;
    if (s->length == 0)
        s->written = 0;
    trim(s);
}

void sequence_check(const struct sequence *s) {
    const struct kv_layout *l = &s->store->layout;
    const struct pages *pages = &s->store->pages;
    assert(s->length <= s->max_tokens && s->draft_length <= s->length);
    assert(s->length <= s->written);
    assert(s->written - s->length <= KV_ROLLBACK || s->length == 0);
    for (uint32_t layer = 0; layer < l->n_blocks; layer++)
        for (int kind = 0; kind < KV_KINDS; kind++) {
            const struct table *t = &s->layers[layer][kind];
            assert(t->n <= t->capacity);
            assert(s->pending || t->n_fresh == 0);
            if (is_ring((enum kv_kind)kind))
                assert(t->n == 0 || t->n == t->capacity);
            else if (!s->pending)
                assert(t->n == kv_pages(l, layer, (enum kv_kind)kind, s->length));
            for (uint32_t i = 0; i < t->n; i++) {
                assert(t->page[i] < pages->n_pages && pages->owners[t->page[i]] > 0);
                assert(!is_ring((enum kv_kind)kind) || t->n_fresh == 0 ||
                       t->page[i] != t->fresh[i]);
            }
        }
    (void)pages;
}
