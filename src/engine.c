#include "src/engine.h"

#include "io/device.h"
#include "kernels/cpu/cpu.h"
#include "src/budget.h"
#include "src/rope.h"
#include "src/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Of what is free on the machine, when no --ram was given; the rest is for everybody else.
#define SHARE_OF_FREE 0.85

static uint64_t ram_of(const struct sluice_options *o) {
    if (o->ram_bytes)
        return o->ram_bytes;
    struct device_limits limits;
    device_limits(&limits);
    return (uint64_t)((double)limits.available_bytes * SHARE_OF_FREE);
}

enum status sluice_fit(const struct sluice_options *options, struct sluice_fit *fit,
                       struct err *err) {
    struct checkpoint cp;
    uint32_t n_kv_pages;
    *fit = (struct sluice_fit){ 0 };
    enum status status = checkpoint_open(&cp, options->dirs, options->n_dirs, err);
    if (status == OK)
        status = budget_split(&cp, options, ram_of(options), fit, &n_kv_pages, err);
    checkpoint_close(&cp);
    return status;
}

static void note(struct sluice *s, const char *text) {
    size_t used = strlen(s->notes);
    if (text && *text)
        snprintf(s->notes + used, sizeof s->notes - used, "%s%s", used ? "\n" : "", text);
}

static void note_streamed(struct sluice *s) {
    const struct dense_plan *plan = &s->weights.plan;
    char text[200];
    if (plan->n_streamed == 0)
        return;
    bool small = plan->all_bytes < 1000000000;
    double unit = small ? 1e6 : 1e9, binary = small ? 1 << 20 : 1 << 30;
    snprintf(text, sizeof text,
             "%.2f of %.2f %s of dense weights do not fit and are read again for every token, or "
             "every step of several; %.1f %s more --ram would hold them",
             (double)plan->bytes_per_pass / unit, (double)plan->all_bytes / unit,
             small ? "MB" : "GB", (double)(plan->all_bytes - plan->memory_bytes) / binary + 0.05,
             small ? "MiB" : "GiB");
    note(s, text);
}

// --- stages of opening -------------------------------------------------------------------------

static bool load_progress(void *context, uint64_t done, uint64_t total) {
    const struct sluice_options *o = context;
    return !o->progress || o->progress(o->context, "loading dense weights", done, total);
}

static bool touch_progress(void *context, uint64_t done, uint64_t total) {
    const struct sluice_options *o = context;
    return !o->progress || o->progress(o->context, "making memory ready", done, total);
}

static enum status open_weights(struct sluice *s, const struct sluice_options *o, struct err *err) {
    struct cpu_options cpu = { .n_threads = o->n_threads, .exact = o->exact, .isa = o->cpu };
    if (cpu_open(&s->ops, &cpu, err) != OK)
        return err->status;
    if (o->drafts && s->cp.draft != DRAFT_MTP)
        return err_set(err, ERR_USAGE, "%s: has no MTP draft block", s->cp.dirs[0]);
    struct dense_plan plan;
    uint32_t n_blocks = o->drafts ? checkpoint_n_blocks(&s->cp) : s->cp.config.n_layers;
    dense_plan(&plan, &s->cp, n_blocks, s->fit.dense_room_bytes);
    struct weights_options load = { .plan = &plan,
                                    .embed_on_disk = s->fit.embed_on_disk,
                                    .io = o->io,
                                    .forbid_uring = o->forbid_uring,
                                    .progress = load_progress,
                                    .context = (void *)o };
    return weights_load(&s->weights, &s->cp, s->ops, &load, err);
}

static enum status upload_theta(struct sluice *s, bool compressed, struct mem *out,
                                struct err *err) {
    float theta[CONFIG_MAX_ROPE / 2];
    rope_frequencies(&s->cp.config, compressed, theta);
    uint64_t bytes = s->cp.config.rope_dim / 2 * sizeof *theta;
    enum status status = ops_alloc(s->ops, bytes, out, err);
    if (status == OK)
        ops_upload(s->ops, *out, theta, bytes);
    return status;
}

static enum status open_rope(struct sluice *s, struct err *err) {
    const struct config *c = &s->cp.config;
    s->index_scale = (float)(1 / sqrt(c->index_dim) / sqrt(c->index_heads));
    enum status status = upload_theta(s, false, &s->theta_plain, err);
    return status == OK ? upload_theta(s, true, &s->theta_yarn, err) : status;
}

static enum status open_cache(struct sluice *s, const struct sluice_options *o, struct err *err) {
    // The page cache has what the engine leaves; where --ram promises a bound, nothing is left to it.
    uint64_t left = o->ram_bytes ? 0 : s->fit.has_bytes - s->fit.used_bytes;
    struct reader_options read = {
        .mode = o->io,
        .disk = o->disk,
        .forbid_uring = o->forbid_uring,
        .ram_bytes = left,
        .chunk_bytes = o->read_chunk_bytes,
        .depth = o->read_depth,
        .trace = o->trace,
    };
    if (reader_open(&s->reader, &read, err) != OK ||
        expert_table_open(&s->experts, &s->cp, &s->weights.plan, s->reader, err) != OK)
        return err->status;
    uint64_t slots_bytes = s->fit.n_slots * s->fit.slot_bytes;
    struct pinned_options pin = { .bytes = slots_bytes + s->fit.frames_bytes,
                                  .n_threads = o->n_threads,
                                  .want_locked = true,
                                  .want_huge = true,
                                  .progress = touch_progress,
                                  .context = (void *)o };
    if (ops_host_alloc(s->ops, &pin, &s->slot_memory, err) != OK)
        return err->status;
    note(s, s->slot_memory.note);
    reader_add_memory(s->reader, s->slot_memory.base, pin.bytes);
    struct slots_options slots = { .n_slots = s->fit.n_slots,
                                   .slot_bytes = s->fit.slot_bytes,
                                   .memory = s->slot_memory.base,
                                   .n_experts_total = s->fit.n_experts,
                                   .n_layers = s->weights.n_blocks,
                                   .policy = POLICY_DEFAULT,
                                   .max_demands = 1 + s->n_narrow_steps, // one a step
                                   .reader = s->reader,
                                   .source = { &s->experts, expert_layout },
                                   .other_ended = dense_read_ended,
                                   .other_context = &s->dense };
    if (slots_open(&s->slots, &slots, err) != OK)
        return err->status;
    return dense_open(&s->dense, &s->weights, s->slots, s->reader, s->experts.file_of,
                      s->slot_memory.base + slots_bytes, err);
}

static enum status open_stages(struct sluice *s, const struct sluice_options *o, struct err *err) {
    uint32_t n_kv_pages;
    enum status status = checkpoint_open(&s->cp, o->dirs, o->n_dirs, err);
    if (status == OK)
        status = budget_split(&s->cp, o, ram_of(o), &s->fit, &n_kv_pages, err);
    if (status == OK)
        status = open_weights(s, o, err);
    if (status == OK)
        status = open_rope(s, err);
    if (status == OK)
        status = open_cache(s, o, err);
    if (status == OK && !(s->prefetch_counts = calloc((size_t)s->weights.n_blocks * PREFETCH_KINDS,
                                                      sizeof *s->prefetch_counts)))
        status = err_set(err, ERR_MEMORY, "no memory for an engine");
    struct kv_layout layout;
    if (status == OK) {
        kv_layout_init(&layout, &s->cp.config, s->weights.n_blocks, o->exact);
        status = kv_store_open(&s->kv, s->ops, &layout, n_kv_pages, err);
    }
    return status;
}

enum status sluice_open(struct sluice **out, const struct sluice_options *options,
                        struct err *err) {
    struct sluice *s = *out = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ERR_MEMORY, "no memory for an engine");
    account_start(&s->account, clock_system());
    if (options->trace)
        account_trace(&s->account, options->trace);
    account_enter(&s->account, ACTIVITY_LOAD);
    s->chunk = options->chunk ? options->chunk : SLUICE_DEFAULT_CHUNK;
    s->n_sequences = options->n_sequences ? options->n_sequences : 1;
    s->n_narrow_steps = options->n_narrow_steps;
    s->prefetch = options->prefetch;
    enum status status = open_stages(s, options, err);
    account_enter(&s->account, ACTIVITY_OTHER);
    if (status != OK) {
        sluice_close(s);
        *out = NULL;
        return status;
    }
    note_streamed(s);
    note(s, s->cp.note);
    note(s, reader_notes(s->reader));
    return OK;
}

void sluice_close(struct sluice *s) {
    if (!s)
        return;
    dense_close(&s->dense);
    slots_close(s->slots);
    reader_close(s->reader);
    expert_table_close(&s->experts);
    if (s->ops) {
        kv_store_close(&s->kv);
        ops_host_release(s->ops, &s->slot_memory);
        if (s->theta_plain.address)
            ops_release(s->ops, s->theta_plain);
        if (s->theta_yarn.address)
            ops_release(s->ops, s->theta_yarn);
        weights_close(&s->weights);
    }
    ops_close(s->ops);
    checkpoint_close(&s->cp);
    free(s->prefetch_counts);
    free(s);
}

// --- what is open --------------------------------------------------------------------------------

const struct config *sluice_config(const struct sluice *s) {
    return &s->cp.config;
}

const struct sluice_fit *sluice_fitted(const struct sluice *s) {
    return &s->fit;
}

bool sluice_has_draft(const struct sluice *s) {
    return s->weights.n_blocks > s->cp.config.n_layers;
}

const char *sluice_notes(const struct sluice *s) {
    return s->notes;
}

bool sluice_holds(const struct sluice *s, uint32_t expert) {
    return slots_state(s->slots, expert) == SLOT_READY;
}

struct account *sluice_account(struct sluice *s) {
    return &s->account;
}

void sluice_report(struct sluice *s, struct account_report *out) {
    slots_take_in(s->slots); // what has ended by now counts
    account_report(&s->account, s->reader, s->slots, out);
    out->slot_bytes = s->fit.slot_bytes;
    out->n_slots = s->fit.n_slots;
    out->n_experts = s->fit.n_experts;
    out->expert_bytes = s->experts.expert_bytes;
    const struct dense_plan *plan = &s->weights.plan;
    out->dense_bytes = plan->all_bytes;
    out->dense_streamed_bytes = plan->bytes_per_pass;
    out->dense_missing_bytes = plan->all_bytes - plan->memory_bytes;
    out->dense_read_bytes = s->dense.stats.bytes;
    out->prefetch = s->prefetch_counts;
    out->n_layers = s->weights.n_blocks;
}

enum status sluice_sequence(struct sluice *s, struct sequence **out, struct err *err) {
    return sequence_open(out, &s->kv, s->fit.ctx, err);
}
