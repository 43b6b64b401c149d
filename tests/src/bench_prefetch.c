/* What prefetch is worth, on a virtual clock: the same figures whatever else the machine does.
 *
 *     build/tests/src/bench_prefetch DIR TOKENS [PREFILL]
 *
 * Decodes the ids in the file TOKENS (those before the first PREFILL ones, 60, in one step) with the
 * checkpoint in DIR, which should be a trained one, from a modelled disk that reads one expert in one
 * unit of time and has two at a time, while attention and each expert's arithmetic take what the
 * table says in the same unit. Time a token against --prefetch off, the share of its experts that
 * were there, and reads a token, at three cache sizes. */
#include "src/engine.h"
#include "tests/support/shard_disk.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT_NS    1000000u
#define MAX_TOKENS 4096

// Stands in for a backend that takes time: the clock moves on where the step shows its buffers.
struct machine {
    struct clock_virtual clock;
    uint64_t attention_ns, expert_ns;
};

static bool moment(void *context, uint32_t layer, enum tap_point point) {
    struct machine *m = context;
    (void)layer;
    if (point == TAP_ATTN_OUT)
        clock_virtual_advance(&m->clock, m->attention_ns);
    if (point == TAP_FFN_OUT)
        clock_virtual_advance(&m->clock, m->expert_ns);
    return false;
}

static bool look_away(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                      uint32_t n_rows, uint32_t width, void *data) {
    (void)context, (void)layer, (void)point, (void)first_row, (void)n_rows, (void)width, (void)data;
    return false;
}

struct result {
    double ns_per_token, there, reads_per_token;
};

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

static struct result measure(const char *dir, const int32_t *tokens, uint32_t n, uint32_t prefill,
                             uint32_t slots_percent, enum prefetch_mode mode, double attention,
                             double expert) {
    struct machine machine;
    clock_virtual_init(&machine.clock);
    struct sluice_options o = { .dirs = &dir,
                                .n_dirs = 1,
                                .ctx = n,
                                .chunk = prefill,
                                .n_threads = 1,
                                .ram_bytes = 16ull << 30,
                                .prefetch = mode };
    struct sluice_fit fit;
    struct err err = { .status = OK };
    check(sluice_fit(&o, &fit, &err), &err);
    o.n_slots = fit.n_experts * slots_percent / 100;
    struct disk_model_options model = { .clock = &machine.clock,
                                        .bytes_per_s = fit.slot_bytes * (1000000000u / UNIT_NS),
                                        .latency_ns = UNIT_NS / 50,
                                        .depth = 2 };
    o.disk = shard_disk_open(&model);
    struct sluice *engine;
    struct step *step;
    struct sequence *sequence;
    check(sluice_open(&engine, &o, &err), &err);
    check(step_open(&step, engine, &err), &err);
    check(sluice_sequence(engine, &sequence, &err), &err);
    machine.attention_ns = (uint64_t)(attention * UNIT_NS);
    machine.expert_ns = (uint64_t)(expert * UNIT_NS * sluice_config(engine)->n_chosen);
    struct tap tap = { .context = &machine, .wants = moment, .see = look_away };
    feed(step, sequence, tokens, prefill, &tap);
    struct account_report before, after;
    sluice_report(engine, &before);
    uint64_t start_ns = machine.clock.now;
    for (uint32_t i = prefill; i < n; i++)
        feed(step, sequence, tokens + i, 1, &tap);
    sluice_report(engine, &after);
    struct result r = {
        .ns_per_token = (double)(machine.clock.now - start_ns) / (n - prefill),
        .there = (double)(after.slots.hits - before.slots.hits) /
                 (double)(after.slots.demanded - before.slots.demanded),
        .reads_per_token =
            (double)(after.reader.bytes[READ_DEMAND] + after.reader.bytes[READ_PREFETCH] -
                     before.reader.bytes[READ_DEMAND] - before.reader.bytes[READ_PREFETCH]) /
            fit.slot_bytes / (n - prefill),
    };
    sequence_close(sequence);
    step_close(step);
    sluice_close(engine);
    disk_close(o.disk);
    return r;
}

int main(int argc, char **argv) {
    static const char *const names[] = { "auto", "off", "hash", "gate" };
    static const enum prefetch_mode modes[] = { PREFETCH_OFF, PREFETCH_HASH, PREFETCH_GATE,
                                                PREFETCH_AUTO };
    static const uint32_t caches[] = { 5, 15, 30 };
    static const double machines[][2] = { { 0.2, 0.02 }, { 0.4, 0.02 }, { 1, 0.1 }, { 4, 0.5 } };
    static int32_t tokens[MAX_TOKENS];
    uint32_t n = 0, prefill = argc > 3 ? (uint32_t)atoi(argv[3]) : 60;
    FILE *file = argc > 2 ? fopen(argv[2], "re") : NULL;
    while (file && n < MAX_TOKENS && fscanf(file, "%" SCNd32, &tokens[n]) == 1)
        n++;
    if (!file || prefill < 1 || n <= prefill) {
        fprintf(stderr, "bench_prefetch DIR TOKENS [PREFILL]\n");
        return 2;
    }
    fclose(file);
    printf("%10s%8s%7s%6s%10s%8s%8s%8s\n", "attention", "expert", "cache", "mode", "time", "to off",
           "there", "reads");
    for (int m = 0; m < 4; m++)
        for (int c = 0; c < 3; c++) {
            double off = 0;
            for (int i = 0; i < 4; i++) {
                struct result r = measure(argv[1], tokens, n, prefill, caches[c], modes[i],
                                          machines[m][0], machines[m][1]);
                off = i == 0 ? r.ns_per_token : off;
                printf("%10.2f%8.2f%5u %%%6s%10.2f%8.3f%6.1f %%%8.2f\n", machines[m][0],
                       machines[m][1], caches[c], names[modes[i]], r.ns_per_token / UNIT_NS,
                       r.ns_per_token / off, 100 * r.there, r.reads_per_token);
                fflush(stdout);
            }
        }
    return 0;
}
