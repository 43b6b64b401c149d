#include "tests/src/virtual_decode.h"

#include "src/engine.h"
#include "tests/support/shard_disk.h"

#include <stdio.h>
#include <stdlib.h>

#define CHUNK_BYTES READER_ALIGN // an expert of the demo model is seven or eight of them

struct machine {
    struct clock_virtual clock;
    uint64_t attention_ns, experts_ns;
    const struct config *config;
    bool is_random;
    uint64_t seed;
};

// Stands in for a backend that takes time: the clock moves on where the step shows its buffers.
static bool moment(void *context, uint32_t layer, enum tap_point point) {
    struct machine *m = context;
    if (point == TAP_ATTN_OUT)
        clock_virtual_advance(&m->clock, m->attention_ns);
    if (point == TAP_FFN_OUT)
        clock_virtual_advance(&m->clock, m->experts_ns);
    return m->is_random && point == TAP_ROUTE_EXPERTS && layer >= m->config->n_hash_layers;
}

static uint32_t draw(uint64_t *seed, uint32_t n) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) * n >> 31);
}

// Distinct and ascending, each set as likely as any other.
static bool choose_at_random(void *context, uint32_t layer, enum tap_point point,
                             uint32_t first_row, uint32_t n_rows, uint32_t width, void *data) {
    struct machine *m = context;
    int32_t *chosen = data;
    (void)layer, (void)point, (void)first_row;
    for (uint32_t row = 0; row < n_rows; row++)
        for (uint32_t e = 0, n = 0; n < width; e++)
            if (draw(&m->seed, m->config->n_experts - e) < width - n)
                chosen[row * width + n++] = (int32_t)e;
    return true;
}

static void check(enum status status, const struct err *err) {
    if (status == OK)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void feed(struct step *step, struct sequence *sequence, const int32_t *tokens, uint32_t n,
                 const struct tap *tap) {
    struct span span = { .sequence = sequence, .tokens = tokens, .n_tokens = n, .next_token = -1 };
    struct step_options options = { .tap = tap };
    struct err err = { .status = OK };
    check(step_begin(step, &span, 1, &options, &err), &err);
    check(step_run(step, NULL, NULL, &err), &err);
    step_commit(step);
}

static uint64_t bytes_read(const struct account_report *r) {
    return r->reader.bytes[READ_DEMAND] + r->reader.bytes[READ_PREFETCH];
}

// What was counted of all layers' gates since `from`.
static struct prefetch_count of_gates(const struct account_report *r,
                                      const struct prefetch_count *from) {
    struct prefetch_count sum = account_prefetch(r, PREFETCH_BY_GATE);
    sum.steps -= from->steps;
    sum.suspended -= from->suspended;
    sum.wanted -= from->wanted;
    sum.predicted -= from->predicted;
    sum.right -= from->right;
    sum.read -= from->read;
    sum.used -= from->used;
    sum.in_vain -= from->in_vain;
    sum.cancelled -= from->cancelled;
    sum.lost -= from->lost;
    return sum;
}

struct virtual_decode_result virtual_decode(const struct virtual_decode *d) {
    struct machine machine = { .is_random = d->n_random == UINT32_MAX };
    struct prefetch_count zero = { 0 }, before_last = { 0 };
    clock_virtual_init(&machine.clock);
    struct sluice_options o = { .dirs = &d->dir,
                                .n_dirs = 1,
                                .ctx = d->n_tokens,
                                .chunk = d->n_prefill,
                                .n_threads = 1,
                                .ram_bytes = 16ull << 30,
                                .read_chunk_bytes = CHUNK_BYTES,
                                .prefetch = d->prefetch };
    struct sluice_fit fit;
    struct err err = { .status = OK };
    check(sluice_fit(&o, &fit, &err), &err);
    o.n_slots = fit.n_experts * d->slots_percent / 100;
    o.read_depth = (uint32_t)(2 * fit.slot_bytes / CHUNK_BYTES);
    struct disk_model_options model = { .clock = &machine.clock,
                                        .bytes_per_s =
                                            fit.slot_bytes * (1000000000u / VIRTUAL_UNIT_NS),
                                        .latency_ns = VIRTUAL_UNIT_NS / 50,
                                        .depth = o.read_depth };
    o.disk = shard_disk_open(&model);
    struct sluice *engine;
    struct step *step;
    struct sequence *sequence;
    check(sluice_open(&engine, &o, &err), &err);
    check(step_open(&step, engine, &err), &err);
    check(sluice_sequence(engine, &sequence, &err), &err);
    machine.config = sluice_config(engine);
    machine.attention_ns = (uint64_t)(d->attention * VIRTUAL_UNIT_NS);
    machine.experts_ns = (uint64_t)(d->expert * VIRTUAL_UNIT_NS * machine.config->n_chosen);
    struct tap tap = { .context = &machine, .wants = moment, .see = choose_at_random };
    feed(step, sequence, d->tokens, d->n_prefill, &tap);
    struct account_report before, after;
    sluice_report(engine, &before);
    uint64_t start_ns = machine.clock.now;
    for (uint32_t i = d->n_prefill; i < d->n_tokens; i++) {
        machine.is_random = i - d->n_prefill < d->n_random;
        feed(step, sequence, d->tokens + i, 1, &tap);
        if (i == d->n_tokens - (d->n_tokens - d->n_prefill) / 4) {
            sluice_report(engine, &after);
            before_last = of_gates(&after, &zero);
        }
    }
    sluice_report(engine, &after);
    double n = d->n_tokens - d->n_prefill;
    struct virtual_decode_result r = {
        .ns_per_token = (double)(machine.clock.now - start_ns) / n,
        .there = (double)(after.slots.hits - before.slots.hits) /
                 (double)(after.slots.demanded - before.slots.demanded),
        .reads_per_token =
            (double)(bytes_read(&after) - bytes_read(&before)) / (double)fit.slot_bytes / n,
        .gate = of_gates(&after, &zero),
        .last = of_gates(&after, &before_last),
    };
    sequence_close(sequence);
    step_close(step);
    sluice_close(engine);
    disk_close(o.disk);
    return r;
}
