#include "src/budget.h"

#include "kernels/cpu/cpu.h"
#include "src/sequence.h"
#include "src/step.h"
#include "src/weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The program and its libraries (12 MB), the tokenizer (44 MB at its peak for V4's 129,280 ids), the
// open checkpoint (48 MB for Pro's 150,000 tensors while it is being read), stages of loading (24 MB,
// after that): not all at once.
#define OVERHEAD_BYTES (112ull << 20)
#define LEAST_CTX      4096 // the default context shrinks to this before anything is refused

#define MIB (1024.0 * 1024)
#define GIB (1024.0 * 1024 * 1024)

static uint64_t kv_bytes(const struct checkpoint *cp, const struct sluice_options *o,
                         uint32_t n_blocks, uint32_t ctx, uint32_t *n_pages) {
    struct kv_layout layout;
    kv_layout_init(&layout, &cp->config, n_blocks, o->exact);
    uint32_t n_sequences = o->n_sequences ? o->n_sequences : 1;
    uint64_t all = kv_pages_enough(&layout, ctx, n_sequences);
    *n_pages = all > UINT32_MAX - 1 ? UINT32_MAX - 1 : (uint32_t)all;
    return all * layout.page_bytes + kv_tables_bytes(&layout, ctx, n_sequences);
}

// All but dense weights and slots.
static uint64_t other_bytes(const struct sluice_fit *f) {
    return f->embed_bytes + f->kv_bytes + f->scratch_bytes + f->overhead_bytes;
}

static uint64_t sum(const struct sluice_fit *f) {
    return other_bytes(f) + f->dense_bytes + f->draft_bytes + f->frames_bytes;
}

static uint32_t blocks(const struct checkpoint *cp, const struct sluice_options *o) {
    return o->drafts ? checkpoint_n_blocks(cp) : cp->config.n_layers;
}

static uint32_t least_slots(const struct sluice_options *o) {
    return o->n_slots > 2 ? o->n_slots : 2;
}

static void plan_dense(const struct checkpoint *cp, const struct sluice_options *o, uint64_t room,
                       struct sluice_fit *f, struct dense_plan *plan) {
    dense_plan(plan, cp, blocks(cp, o), room);
    f->dense_room_bytes = room;
    f->dense_bytes = plan->trunk_bytes;
    f->draft_bytes = plan->draft_bytes;
    f->frames_bytes = DENSE_FRAMES * plan->frame_bytes;
    f->dense_streamed_bytes = plan->bytes_per_pass;
}

// Everything that does not depend on how much there is; dense weights as the smallest plan has them.
static void measure(const struct checkpoint *cp, const struct sluice_options *o, uint32_t ctx,
                    struct sluice_fit *f, struct dense_plan *least, uint32_t *n_kv_pages) {
    uint32_t n_blocks = blocks(cp, o);
    uint32_t chunk = o->chunk ? o->chunk : SLUICE_DEFAULT_CHUNK;
    uint32_t n_sequences = o->n_sequences ? o->n_sequences : 1;
    f->embed_on_disk = true;
    f->embed_bytes = 0;
    f->ctx = ctx;
    f->kv_bytes = kv_bytes(cp, o, n_blocks, ctx, n_kv_pages);
    struct cpu_options cpu = { .n_threads = o->n_threads };
    uint64_t wide = step_bytes(&cp->config, n_blocks, chunk, n_sequences, ctx, o->exact, o->drafts,
                               f->embed_on_disk);
    uint64_t narrow = step_bytes(&cp->config, n_blocks, n_sequences, n_sequences, ctx, o->exact,
                                 o->drafts, f->embed_on_disk);
    f->scratch_bytes = cpu_scratch_bytes(&cpu) + wide + o->n_narrow_steps * narrow;
    f->overhead_bytes = OVERHEAD_BYTES;
    f->n_experts = n_blocks * cp->config.n_experts;
    f->slot_bytes = expert_slot_bytes(cp, n_blocks);
    plan_dense(cp, o, 0, f, least);
    f->needed_bytes = sum(f) + least_slots(o) * f->slot_bytes;
    f->resident_bytes = f->needed_bytes - least->memory_bytes + least->all_bytes;
}

static enum status refuse(const struct checkpoint *cp, const struct sluice_options *o,
                          const struct sluice_fit *f, struct err *err) {
    bool small = f->needed_bytes < (4ull << 30); // then in MiB, as --ram would be given
    double unit = small ? MIB : GIB;
    uint64_t least = (uint64_t)ceil(f->needed_bytes / unit);
    uint32_t n_slots = least_slots(o);
    char streamed[64] = "";
    if (f->frames_bytes)
        snprintf(streamed, sizeof streamed, ", room to stream %.2f more through %.2f",
                 f->dense_streamed_bytes / unit, f->frames_bytes / unit);
    return err_set(err, ERR_MEMORY,
                   "%s: needs %.2f %s (dense weights %.2f, draft block %.2f%s, KV for --ctx %u "
                   "%.2f, scratch %.2f, overhead %.2f, %u expert slots %.2f), has %.2f %s%s; the "
                   "smallest that would do is --ram %" PRIu64 "%c",
                   cp->dirs[0], f->needed_bytes / unit, small ? "MiB" : "GiB",
                   f->dense_bytes / unit, f->draft_bytes / unit, streamed, f->ctx,
                   f->kv_bytes / unit, f->scratch_bytes / unit, f->overhead_bytes / unit, n_slots,
                   n_slots * f->slot_bytes / unit, f->has_bytes / unit, small ? "MiB" : "GiB",
                   o->ram_bytes ? " (--ram)" : " free", least, small ? 'M' : 'G');
}

// Dense weights and slots, in what the other parts leave.
static void split_room(const struct checkpoint *cp, const struct sluice_options *o, uint64_t room,
                       const struct dense_plan *least, struct sluice_fit *f) {
    struct dense_plan plan;
    uint64_t slots = least_slots(o) * f->slot_bytes;
    if (least->all_bytes + slots <= room) {
        plan_dense(cp, o, UINT64_MAX, f, &plan);
        return;
    }
    if (!o->n_slots && cp->config.n_chosen > 2)
        slots = cp->config.n_chosen * f->slot_bytes;
    plan_dense(cp, o, slots + least->memory_bytes < room ? room - slots : least->memory_bytes, f,
               &plan);
}

enum status budget_split(const struct checkpoint *cp, const struct sluice_options *o,
                         uint64_t has_bytes, struct sluice_fit *f, uint32_t *n_kv_pages,
                         struct err *err) {
    *f = (struct sluice_fit){ .has_bytes = has_bytes };
    struct dense_plan least;
    uint32_t ctx = o->ctx ? o->ctx : SLUICE_DEFAULT_CTX;
    if (ctx > cp->config.max_positions && !o->ctx)
        ctx = cp->config.max_positions;
    if (ctx > cp->config.max_positions)
        return err_set(err, ERR_USAGE, "--ctx %u: this model has %u positions", ctx,
                       cp->config.max_positions);
    measure(cp, o, ctx, f, &least, n_kv_pages);
    // Context before streaming: less of it costs nothing until it is used.
    while (!o->ctx && ctx > LEAST_CTX && f->resident_bytes > has_bytes)
        measure(cp, o, ctx /= 2, f, &least, n_kv_pages);
    if (f->needed_bytes > has_bytes)
        return refuse(cp, o, f, err);
    split_room(cp, o, has_bytes - other_bytes(f), &least, f);

    uint64_t room = has_bytes - sum(f);
    uint64_t all_slots = (uint64_t)f->n_experts * f->slot_bytes;
    uint64_t embed_bytes = cp->global[TENSOR_EMBED].bytes;
    // A row of the embedding is 14 KB from disk, an expert 35 MB: the table stays on disk until
    // every expert has a slot, or until the choice of slots is the caller's.
    uint64_t slots_bytes = o->n_slots ? o->n_slots * f->slot_bytes : all_slots;
    if (slots_bytes + embed_bytes <= room && !f->frames_bytes) {
        f->embed_on_disk = false;
        f->embed_bytes = embed_bytes;
    }
    f->n_slots =
        (uint32_t)(room / f->slot_bytes < f->n_experts ? room / f->slot_bytes : f->n_experts);
    if (o->n_slots)
        f->n_slots = o->n_slots;
    if (f->n_slots < 2)
        f->n_slots = 2;
    f->used_bytes = sum(f) + f->n_slots * f->slot_bytes;
    return OK;
}
