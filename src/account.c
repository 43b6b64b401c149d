#include "src/account.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *phase_name(enum phase phase) {
    static const char *const names[PHASES] = { "load", "prefill", "decode" };
    return names[phase];
}

const char *activity_name(enum activity activity) {
    static const char *const names[ACTIVITIES] = {
        "other", "load", "attention", "gate", "experts", "wait_experts", "head", "sample"
    };
    return names[activity];
}

// --- keeping -------------------------------------------------------------------------------------

void account_start(struct account *a, const struct clock *clock) {
    *a = (struct account){ .clock = clock, .phase = PHASE_LOAD, .activity = ACTIVITY_OTHER };
    a->start_ns = a->since_ns = clock_now_ns(clock);
}

static void charge(struct account *a) {
    uint64_t now = clock_now_ns(a->clock);
    a->time_ns[a->phase][a->activity] += now - a->since_ns;
    a->since_ns = now;
}

enum activity account_enter(struct account *a, enum activity activity) {
    enum activity before = a->activity;
    charge(a);
    a->activity = activity;
    return before;
}

void account_phase(struct account *a, enum phase phase) {
    charge(a);
    a->phase = phase;
}

void account_pause(struct account *a) {
    charge(a);
}

void account_resume(struct account *a) {
    uint64_t now = clock_now_ns(a->clock);
    a->start_ns += now - a->since_ns;
    a->since_ns = now;
}

void account_report(const struct account *a, struct reader *reader, const struct slots *slots,
                    struct account_report *out) {
    *out = (struct account_report){ .account = *a };
    charge(&out->account);
    out->total_ns = out->account.since_ns - a->start_ns;
    if (reader) {
        reader_stats(reader, &out->reader);
        snprintf(out->engine, sizeof out->engine, "%s", reader_describe(reader));
    }
    if (slots)
        slots_stats(slots, &out->slots);
}

static uint64_t field(const char *proc, const char *file, const char *name) {
    char path[256], line[256];
    uint64_t value = 0;
    snprintf(path, sizeof path, "%s/%s", proc, file);
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name), NULL, 10);
    if (in)
        fclose(in);
    return value;
}

void account_process(struct account_report *r, const char *proc) {
    r->peak_bytes =
        (field(proc, "status", "VmHWM:") + field(proc, "status", "HugetlbPages:")) * 1024;
    r->storage_read_bytes = field(proc, "io", "read_bytes:");
}

#define GIB (1024.0 * 1024 * 1024)

// --- telling -------------------------------------------------------------------------------------

struct text {
    char *out;
    size_t bytes, used;
};

static void put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    size_t room = t->used < t->bytes ? t->bytes - t->used : 0;
    int n = vsnprintf(room ? t->out + t->used : NULL, room, format, args);
    va_end(args);
    t->used += n > 0 ? (size_t)n : 0;
}

static double seconds(uint64_t ns) {
    return ns / 1e9;
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static uint64_t phase_ns(const struct account_report *r, enum phase phase) {
    uint64_t sum = 0;
    for (int i = 0; i < ACTIVITIES; i++)
        sum += r->account.time_ns[phase][i];
    return sum;
}

static uint64_t bytes_read(const struct account_report *r) {
    uint64_t sum = 0;
    for (int i = 0; i < READ_PRIORITIES; i++)
        sum += r->reader.bytes[i];
    return sum;
}

static void put_times(struct text *t, const struct account_report *r) {
    static const char *const label[ACTIVITIES] = { "other",     "loading weights",
                                                   "attention", "gate, shared expert",
                                                   "experts",   "waiting for experts",
                                                   "head",      "sampling" };
    static const enum activity order[] = { ACTIVITY_LOAD,    ACTIVITY_ATTENTION, ACTIVITY_GATE,
                                           ACTIVITY_EXPERTS, ACTIVITY_WAIT,      ACTIVITY_HEAD,
                                           ACTIVITY_SAMPLE,  ACTIVITY_OTHER };
    put(t, "%-22s", "time");
    for (int p = 0; p < PHASES; p++)
        put(t, "%18s", phase_name((enum phase)p));
    put(t, "%18s\n", "all");
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        uint64_t all = 0;
        put(t, "  %-20s", label[order[i]]);
        for (int p = 0; p < PHASES; p++) {
            uint64_t ns = r->account.time_ns[p][order[i]];
            all += ns;
            put(t, "%9.2f s %5.1f %%", seconds(ns), 100 * ratio(ns, r->total_ns));
        }
        put(t, "%9.2f s %5.1f %%\n", seconds(all), 100 * ratio(all, r->total_ns));
    }
    put(t, "  %-20s", "sum");
    for (int p = 0; p < PHASES; p++) {
        uint64_t ns = phase_ns(r, (enum phase)p);
        put(t, "%9.2f s %5.1f %%", seconds(ns), 100 * ratio(ns, r->total_ns));
    }
    put(t, "%9.2f s %5.1f %%\n", seconds(r->total_ns), 100.0);
}

static void put_verdict(struct text *t, const struct account_report *r) {
    uint64_t run = phase_ns(r, PHASE_PREFILL) + phase_ns(r, PHASE_DECODE);
    uint64_t wait = r->account.time_ns[PHASE_PREFILL][ACTIVITY_WAIT] +
                    r->account.time_ns[PHASE_DECODE][ACTIVITY_WAIT];
    uint64_t experts = r->account.time_ns[PHASE_PREFILL][ACTIVITY_EXPERTS] +
                       r->account.time_ns[PHASE_DECODE][ACTIVITY_EXPERTS];
    if (run == 0)
        return;
    double share = 100 * ratio(wait, run);
    double rate = ratio(bytes_read(r), seconds(r->reader.busy_ns)) / 1e9;
    double missed = 100 * ratio(r->slots.misses + r->slots.joined, r->slots.demanded);
    if (share >= 20 && r->n_slots < r->n_experts)
        put(t,
            "waited %.0f %% of the time for the disk, which gave %.2f GB/s while %.0f %% of the "
            "experts were missed: a faster or second drive, or more --ram (%u slots hold %.0f %% "
            "of the experts), would help\n",
            share, rate, missed, (unsigned)r->n_slots, 100 * ratio(r->n_slots, r->n_experts));
    else if (share >= 20)
        put(t,
            "waited %.0f %% of the time for the disk (%.2f GB/s), while the cache was filling: it "
            "holds every expert, so a longer run waits less\n",
            share, rate);
    else
        put(t,
            "the disk is not what limits this run: %.0f %% of the time went to waiting for it, "
            "%.0f %% to the arithmetic of experts\n",
            share, 100 * ratio(experts, run));
}

size_t account_text(const struct account_report *r, char *out, size_t out_bytes) {
    struct text t = { out, out_bytes, 0 };
    for (int p = PHASE_PREFILL; p < PHASES; p++) {
        uint64_t ns = phase_ns(r, (enum phase)p);
        put(&t, "%-8s %8" PRIu64 " tokens in %.2f s: %.2f tokens/s, %" PRIu64 " steps\n",
            phase_name((enum phase)p), r->account.tokens[p], seconds(ns),
            ratio(r->account.tokens[p], seconds(ns)), r->account.steps[p]);
    }
    if (r->account.kept)
        put(&t, "kept     %8" PRIu64 " tokens of prompts, not computed again\n", r->account.kept);
    put_times(&t, r);
    uint64_t bytes = bytes_read(r);
    uint64_t tokens = r->account.tokens[PHASE_PREFILL] + r->account.tokens[PHASE_DECODE];
    put(&t,
        "experts  %" PRIu64 " wanted, %" PRIu64 " in memory (%.1f %%), %" PRIu64 " read, %" PRIu64
        " evicted; cache of %" PRIu64 " slots of %.2f MB, %.1f %% of all\n",
        r->slots.demanded, r->slots.hits, 100 * ratio(r->slots.hits, r->slots.demanded),
        r->slots.misses, r->slots.evicted, r->n_slots, r->slot_bytes / 1e6,
        100 * ratio(r->n_slots, r->n_experts));
    put(&t, "disk     %.3f GB read", bytes / 1e9);
    if (tokens)
        put(&t, ", %.2f MB a token", bytes / 1e6 / tokens);
    put(&t, "; busy %.2f s (%.1f %%) at %.2f GB/s; %s\n", seconds(r->reader.busy_ns),
        100 * ratio(r->reader.busy_ns, r->total_ns), ratio(bytes, seconds(r->reader.busy_ns)) / 1e9,
        r->engine);
    if (r->reader.retries || r->reader.failed)
        put(&t, "         %" PRIu64 " reads were tried again, %" PRIu64 " failed\n",
            r->reader.retries, r->reader.failed);
    if (r->peak_bytes) {
        put(&t, "memory   %.2f GiB at its peak", r->peak_bytes / GIB);
        if (r->ram_bytes)
            put(&t, " of the %.2f GiB of --ram", r->ram_bytes / GIB);
        put(&t, "; the kernel counts %.3f GB read from storage, weights included\n",
            r->storage_read_bytes / 1e9);
    }
    put_verdict(&t, r);
    return t.used;
}

char *account_json(const struct account_report *r) {
    json_t *phases = json_object();
    for (int p = 0; p < PHASES; p++) {
        json_t *times = json_object();
        for (int i = 0; i < ACTIVITIES; i++)
            json_object_set_new(times, activity_name((enum activity)i),
                                json_real(seconds(r->account.time_ns[p][i])));
        uint64_t ns = phase_ns(r, (enum phase)p);
        json_t *phase = json_pack(
            "{s:I, s:I, s:f, s:f, s:o}", "tokens", (json_int_t)r->account.tokens[p], "steps",
            (json_int_t)r->account.steps[p], "seconds", seconds(ns), "tokens_per_second",
            ratio(r->account.tokens[p], seconds(ns)), "activity_seconds", times);
        json_object_set_new(phases, phase_name((enum phase)p), phase);
    }
    json_t *experts = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "wanted", (json_int_t)r->slots.demanded,
        "hits", (json_int_t)r->slots.hits, "joined", (json_int_t)r->slots.joined, "misses",
        (json_int_t)r->slots.misses, "evicted", (json_int_t)r->slots.evicted, "slots",
        (json_int_t)r->n_slots, "slot_bytes", (json_int_t)r->slot_bytes, "expert_bytes",
        (json_int_t)r->expert_bytes, "of", (json_int_t)r->n_experts);
    json_t *disk =
        json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:s}", "bytes_read", (json_int_t)bytes_read(r),
                  "chunks", (json_int_t)r->reader.chunks, "retries", (json_int_t)r->reader.retries,
                  "failed", (json_int_t)r->reader.failed, "busy_seconds",
                  seconds(r->reader.busy_ns), "gb_per_second_busy",
                  ratio(bytes_read(r), seconds(r->reader.busy_ns)) / 1e9, "engine", r->engine);
    json_t *process = json_pack("{s:I, s:I, s:I}", "peak_bytes", (json_int_t)r->peak_bytes,
                                "ram_bytes", (json_int_t)r->ram_bytes, "storage_read_bytes",
                                (json_int_t)r->storage_read_bytes);
    json_t *root = json_pack("{s:f, s:I, s:o, s:o, s:o, s:o}", "seconds", seconds(r->total_ns),
                             "kept_tokens", (json_int_t)r->account.kept, "phases", phases,
                             "experts", experts, "disk", disk, "process", process);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}
