/* What groups are worth, on a virtual clock: the same figures whatever else the machine does.
 *
 *     build/tests/src/bench_flight DIR TOKENS [SEQUENCES]
 *
 * So many sequences (4) with prompts cut out of the ids in the file TOKENS decode 50 tokens each, the
 * most likely ones, in one group, two, three, and as many as src/pace.h finds (0). DIR is a checkpoint,
 * which should be a trained one; a modelled disk reads one expert in one unit of time and has two at a
 * time. Attention of a layer takes what the table says in the same unit, whatever the rows (the weights
 * cross memory once a step), each of the layer's distinct experts a tenth. Time a token against one
 * group, the share of the time that the disk was idle, and reads a token, at four cache sizes, prefetch
 * off and on. */
#include "src/engine.h"
#include "src/flight.h"
#include "tests/support/shard_disk.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_NS    1000000u
#define MAX_TOKENS 4096
#define MAX_ROWS   64
#define N_PROMPT   40
#define N_SAID     50

static uint32_t n_vocab;

// Stands in for a backend that takes time: the clock moves on where a step shows its buffers.
struct machine {
    struct clock_virtual clock;
    uint64_t attention_ns, expert_ns;
};

static bool moment(void *context, uint32_t layer, enum tap_point point) {
    struct machine *m = context;
    (void)layer;
    if (point == TAP_ATTN_OUT)
        clock_virtual_advance(&m->clock, m->attention_ns);
    return point == TAP_ROUTE_EXPERTS;
}

// A layer's experts, counted; they are computed where the last of them has come.
static bool count(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                  uint32_t n_rows, uint32_t width, void *data) {
    struct machine *m = context;
    static bool seen[1 << 16];
    const int32_t *experts = data;
    (void)layer, (void)point, (void)first_row;
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_rows * width; i++) {
        n += !seen[experts[i]];
        seen[experts[i]] = true;
    }
    for (uint32_t i = 0; i < n_rows * width; i++)
        seen[experts[i]] = false;
    clock_virtual_advance(&m->clock, n * m->expert_ns);
    return false;
}

struct speaker {
    int32_t best;
    uint32_t n_said;
};

static void choose(void *context, const float *logits) {
    struct speaker *s = context;
    s->best = 0;
    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[s->best])
            s->best = (int32_t)i;
}

static enum status next(void *context, int32_t *token, bool *more, struct err *err) {
    struct speaker *s = context;
    (void)err;
    *token = s->best;
    *more = ++s->n_said < N_SAID;
    return OK;
}

static void check(enum status status, const struct err *err) {
    if (status == OK)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

struct result {
    double ns_per_token, idle, reads_per_token;
};

static struct result measure(const char *dir, const int32_t *tokens, uint32_t n_tokens,
                             uint32_t n_sequences, uint32_t n_groups, uint32_t slots_percent,
                             enum prefetch_mode mode, double attention) {
    struct machine machine;
    clock_virtual_init(&machine.clock);
    struct sluice_options o = { .dirs = &dir,
                                .n_dirs = 1,
                                .ctx = N_PROMPT + N_SAID,
                                .chunk = 512,
                                .n_sequences = n_sequences,
                                .n_narrow_steps = n_groups ? n_groups : FLIGHT_GROUPS,
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
    struct step *wide;
    struct flight *flight;
    struct speaker speakers[MAX_ROWS] = { { 0 } };
    struct tap tap = { .context = &machine, .wants = moment, .see = count };
    struct flight_options options = { .n_groups = n_groups,
                                      .clock = &machine.clock.clock,
                                      .tap = &tap };
    check(sluice_open(&engine, &o, &err), &err);
    n_vocab = sluice_config(engine)->vocab;
    machine.attention_ns = (uint64_t)(attention * UNIT_NS);
    machine.expert_ns = UNIT_NS / 10;
    check(step_open(&wide, engine, &err), &err);
    check(flight_open(&flight, engine, wide, &options, &err), &err);
    for (uint32_t i = 0; i < n_sequences; i++) {
        struct flight_sequence s = { .prompt = tokens + i * (n_tokens - N_PROMPT) / n_sequences,
                                     .n_prompt = N_PROMPT,
                                     .logits = choose,
                                     .next = next,
                                     .context = &speakers[i] };
        check(flight_add(flight, &s, &err), &err);
    }
    check(flight_run(flight, &err), &err);
    struct account_report end;
    sluice_report(engine, &end);
    uint64_t bytes = end.reader.bytes[READ_DEMAND] + end.reader.bytes[READ_PREFETCH];
    uint32_t n_said = n_sequences * N_SAID;
    struct result r = { .ns_per_token = (double)machine.clock.now / n_said,
                        .idle = 1 - (double)end.reader.busy_ns / machine.clock.now,
                        .reads_per_token = (double)bytes / fit.slot_bytes / n_said };
    flight_close(flight);
    step_close(wide);
    sluice_close(engine);
    disk_close(o.disk);
    return r;
}

int main(int argc, char **argv) {
    static const uint32_t caches[] = { 2, 5, 15, 30 };
    static const double attentions[] = { 0.2, 1, 4 };
    static int32_t tokens[MAX_TOKENS];
    uint32_t n = 0, n_sequences = argc > 3 ? (uint32_t)atoi(argv[3]) : 4;
    FILE *file = argc > 2 ? fopen(argv[2], "re") : NULL;
    while (file && n < MAX_TOKENS && fscanf(file, "%" SCNd32, &tokens[n]) == 1)
        n++;
    if (!file || n < N_PROMPT || n_sequences < 1 || n_sequences > MAX_ROWS) {
        fprintf(stderr, "bench_flight DIR TOKENS [SEQUENCES]\n");
        return 2;
    }
    fclose(file);
    printf("%9s%7s%9s%8s%9s%8s%8s%8s\n", "attention", "cache", "prefetch", "groups", "time",
           "to one", "idle", "reads");
    for (size_t a = 0; a < sizeof attentions / sizeof *attentions; a++)
        for (size_t c = 0; c < sizeof caches / sizeof *caches; c++)
            for (int mode = PREFETCH_OFF; mode >= PREFETCH_AUTO; mode--) {
                double one = 0;
                for (uint32_t i = 1; i <= 4; i++) {
                    uint32_t n_groups = i % 4; // 0: chosen
                    struct result r = measure(argv[1], tokens, n, n_sequences, n_groups, caches[c],
                                              (enum prefetch_mode)mode, attentions[a]);
                    one = n_groups == 1 ? r.ns_per_token : one;
                    printf("%9.1f%5u %%%9s%8u%9.2f%8.3f%6.1f %%%8.2f\n", attentions[a], caches[c],
                           mode == PREFETCH_OFF ? "off" : "auto", n_groups,
                           r.ns_per_token / UNIT_NS, r.ns_per_token / one, 100 * r.idle,
                           r.reads_per_token);
                    fflush(stdout);
                }
            }
    return 0;
}
