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
    static const char *const names[ACTIVITIES] = { "other",        "load",       "attention",
                                                   "gate",         "experts",    "predict",
                                                   "wait_experts", "wait_dense", "head",
                                                   "sample" };
    return names[activity];
}

// --- keeping -------------------------------------------------------------------------------------

void account_start(struct account *a, const struct clock *clock) {
    *a = (struct account){ .clock = clock, .phase = PHASE_LOAD, .activity = ACTIVITY_OTHER };
    account_step(a, TRACE_NOWHERE, 0);
    a->start_ns = a->since_ns = clock_now_ns(clock);
}

static void charge(struct account *a) {
    uint64_t now = clock_now_ns(a->clock);
    a->time_ns[a->phase][a->activity] += now - a->since_ns;
    a->since_ns = now;
}

// From the moment of the last charge on.
static void record_with(const struct account *a, uint32_t activity, uint32_t expert) {
    if (!a->trace)
        return;
    struct trace_event event = { .ns = a->since_ns, .kind = TRACE_PLACE, .is.place = a->place };
    event.is.place.phase = a->phase;
    event.is.place.activity = activity;
    event.is.place.expert = expert;
    trace_put(a->trace, TRACE_CONTROL, &event);
}

static void record(const struct account *a, uint32_t activity) {
    record_with(a, activity, TRACE_NOWHERE);
}

enum activity account_enter(struct account *a, enum activity activity) {
    enum activity before = a->activity;
    charge(a);
    a->activity = activity;
    record(a, activity);
    return before;
}

void account_phase(struct account *a, enum phase phase) {
    charge(a);
    a->phase = phase;
    record(a, a->activity);
}

void account_trace(struct account *a, struct trace *trace) {
    a->trace = trace;
    record(a, a->activity);
}

void account_step(struct account *a, uint32_t step, uint32_t n_rows) {
    a->place = (struct trace_place){ .step = step, .layer = TRACE_NOWHERE, .n_rows = n_rows };
}

void account_layer(struct account *a, uint32_t layer) {
    a->place.layer = layer;
}

void account_expert(struct account *a, uint32_t expert) {
    charge(a);
    a->activity = ACTIVITY_EXPERTS;
    record_with(a, ACTIVITY_EXPERTS, expert);
}

void account_pause(struct account *a) {
    charge(a);
    record(a, TRACE_NOWHERE);
}

void account_resume(struct account *a) {
    uint64_t now = clock_now_ns(a->clock);
    a->start_ns += now - a->since_ns;
    a->since_ns = now;
    record(a, a->activity);
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

static const char *activity_label(enum activity activity) {
    static const char *const label[ACTIVITIES] = {
        "other",   "loading weights", "attention",           "gate, shared expert",
        "experts", "predicting",      "waiting for experts", "waiting for dense",
        "head",    "sampling"
    };
    return label[activity];
}

static void put_times(struct text *t, const struct account_report *r) {
    static const enum activity order[] = { ACTIVITY_LOAD,       ACTIVITY_ATTENTION, ACTIVITY_GATE,
                                           ACTIVITY_EXPERTS,    ACTIVITY_PREDICT,   ACTIVITY_WAIT,
                                           ACTIVITY_WAIT_DENSE, ACTIVITY_HEAD,      ACTIVITY_SAMPLE,
                                           ACTIVITY_OTHER };
    put(t, "%-22s", "time");
    for (int p = 0; p < PHASES; p++)
        put(t, "%18s", phase_name((enum phase)p));
    put(t, "%18s\n", "all");
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        uint64_t all = 0;
        if (order[i] == ACTIVITY_WAIT_DENSE && !r->dense_streamed_bytes)
            continue; // never: nothing is streamed
        put(t, "  %-20s", activity_label(order[i]));
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

// --- the sentence that a person can act on -------------------------------------------------------

// Below this nothing was measured: a page fault shows.
#define TOO_SHORT_NS 100000000u
// Waiting for less than this is not what to mend first: twice the drives would save half of it.
#define WAIT_SHARE 20

// Time of prefill and decode in one activity.
static uint64_t run_ns(const struct account_report *r, enum activity activity) {
    return r->account.time_ns[PHASE_PREFILL][activity] + r->account.time_ns[PHASE_DECODE][activity];
}

static uint64_t wait_ns(const struct account_report *r) {
    return run_ns(r, ACTIVITY_WAIT) + run_ns(r, ACTIVITY_WAIT_DENSE);
}

static double wait_share(const struct account_report *r) {
    uint64_t run = phase_ns(r, PHASE_PREFILL) + phase_ns(r, PHASE_DECODE);
    return 100 * ratio(wait_ns(r), run);
}

// What more memory would hold, in sizes of --ram.
static void put_more_ram(struct text *t, const struct account_report *r) {
    uint64_t missing = r->n_experts - r->n_slots;
    if (missing * r->slot_bytes <= 16 * GIB)
        put(t, "%.1f GiB more --ram would hold all experts (now %.0f %%)",
            missing * r->slot_bytes / GIB + 0.05, 100 * ratio(r->n_slots, r->n_experts));
    else
        put(t,
            "each GiB more of --ram holds %.0f of the %" PRIu64
            " experts that have no place in memory (%.0f %%)",
            ratio(GIB, r->slot_bytes), missing, 100 * ratio(missing, r->n_experts));
}

// It waited, and for bytes: why so many?
static void put_disk_verdict(struct text *t, const struct account_report *r) {
    const struct account *a = &r->account;
    double share = wait_share(r), demanded = r->slots.demanded;
    uint64_t read = r->slots.misses, filled = read > r->slots.evicted ? read - r->slots.evicted : 0;
    uint64_t n_steps = a->steps[PHASE_PREFILL] + a->steps[PHASE_DECODE];
    put(t, "waited %.0f %% of the time for the disk, which gave %.2f GB/s", share,
        ratio(bytes_read(r), seconds(r->reader.busy_ns)) / 1e9);
    // A disk that is waited for is at work. Where it was not for a third of the wait, at least, the bytes
    // were there and nobody woke up, or were asked for late.
    if (2 * wait_ns(r) > 3 * r->reader.busy_ns) {
        put(t,
            ", but was at work for %.2f s of the %.2f s: it is not the drive that is slow here "
            "but what asks it, often a machine busy with something else; --trace shows where\n",
            seconds(r->reader.busy_ns), seconds(wait_ns(r)));
    } else if (2 * r->dense_read_bytes > bytes_read(r)) {
        bool small = r->dense_bytes < 1e9;
        put(t,
            ", and most of what was read (%.0f %%) are dense weights, %.2f %s for every step: %.1f "
            "%s more --ram would hold them\n",
            100 * ratio(r->dense_read_bytes, bytes_read(r)),
            r->dense_streamed_bytes / (small ? 1e6 : 1e9), small ? "MB" : "GB",
            r->dense_missing_bytes / (small ? GIB / 1024 : GIB) + 0.05, small ? "MiB" : "GiB");
    } else if (2 * filled >= read) { // of what was read, most found an empty slot
        put(t, ", while the cache was filling (%.0f %% of the reads found an empty slot): ",
            100 * ratio(filled, read));
        put(t, r->n_slots >= r->n_experts ? "it holds every expert, so a longer run waits less\n"
                                          : "a longer run waits less\n");
    } else if (a->steps[PHASE_PREFILL] > 1 &&
               // (Short ones are the turns of a chat, which nothing makes one step.)
               a->tokens[PHASE_PREFILL] >= 128 * a->steps[PHASE_PREFILL] &&
               2 * a->time_ns[PHASE_PREFILL][ACTIVITY_WAIT] > run_ns(r, ACTIVITY_WAIT)) {
        put(t,
            ", most of it in %" PRIu64 " steps of prefill that each read their experts anew: a "
            "larger --chunk (%.0f tokens a step were used) reads them less often\n",
            a->steps[PHASE_PREFILL], ratio(a->tokens[PHASE_PREFILL], a->steps[PHASE_PREFILL]));
    } else if (r->n_slots * n_steps < r->slots.demanded && r->slots.hits <= 0.05 * demanded) {
        double wanted = ratio(demanded, n_steps);
        put(t,
            "; the cache is too small to help: a step wants %.0f experts, it has %" PRIu64
            " slots, and %.0f %% were missed: at least %.1f GiB more --ram is needed for experts "
            "to be found again\n",
            wanted, r->n_slots, 100 * ratio(demanded - r->slots.hits, demanded),
            (wanted - r->n_slots) * r->slot_bytes / GIB + 0.05);
    } else {
        put(t,
            " while %.0f %% of the experts were missed: drives twice as fast would save up to "
            "%.0f %% of the time; ",
            100 * ratio(r->slots.misses + r->slots.joined, demanded), share / 2);
        put_more_ram(t, r);
        put(t, "\n");
    }
}

static void put_verdict(struct text *t, const struct account_report *r) {
    uint64_t run = phase_ns(r, PHASE_PREFILL) + phase_ns(r, PHASE_DECODE);
    if (run == 0)
        return;
    if (run < TOO_SHORT_NS) {
        put(t,
            "%.2f s after %.2f s of loading are too short to say what limits this machine: give "
            "it more to do\n",
            seconds(run), seconds(phase_ns(r, PHASE_LOAD)));
        return;
    }
    if (wait_share(r) >= WAIT_SHARE) {
        put_disk_verdict(t, r);
        return;
    }
    enum activity most = ACTIVITY_OTHER;
    for (int i = 0; i < ACTIVITIES; i++)
        if (i != ACTIVITY_WAIT && i != ACTIVITY_WAIT_DENSE &&
            run_ns(r, (enum activity)i) > run_ns(r, most))
            most = (enum activity)i;
    put(t, "the disk is not what limits this run: %.0f %% of the time went to waiting for it, ",
        wait_share(r));
    put(t, "%.0f %% to %s: %s\n", 100 * ratio(run_ns(r, most), run), activity_label(most),
        most == ACTIVITY_OTHER ? "something outside the model, such as a slow reader of the text"
                               : "more or faster cores would help, a faster drive would not");
}

static const char *const kind_name[PREFETCH_KINDS] = { "hash", "gate", "sweep" };

struct prefetch_count account_prefetch(const struct account_report *r, enum prefetch_kind kind) {
    struct prefetch_count sum = { 0 };
    for (uint32_t layer = 0; r->prefetch && layer < r->n_layers; layer++) {
        const struct prefetch_count *c = &r->prefetch[layer * PREFETCH_KINDS + kind];
        sum.steps += c->steps;
        sum.suspended += c->suspended;
        sum.wanted += c->wanted;
        sum.predicted += c->predicted;
        sum.right += c->right;
        sum.read += c->read;
        sum.used += c->used;
        sum.in_vain += c->in_vain;
        sum.cancelled += c->cancelled;
        sum.lost += c->lost;
    }
    return sum;
}

static void put_prefetch(struct text *t, const struct account_report *r) {
    const char *before = "prefetch";
    for (int kind = 0; kind < PREFETCH_KINDS; kind++) {
        struct prefetch_count c = account_prefetch(r, kind);
        if (!c.predicted && !c.read && !c.suspended)
            continue;
        put(t,
            "%s %s %" PRIu64 " predicted, %.1f %% right, %.1f %% of what was wanted; %" PRIu64
            " read, %.1f %% of them in vain, %" PRIu64 " cancelled",
            before, kind_name[kind], c.predicted, 100 * ratio(c.right, c.predicted),
            100 * ratio(c.right, c.wanted), c.read, 100 * ratio(c.in_vain, c.read), c.cancelled);
        if (c.suspended)
            put(t, ", suspended %.1f %% of the time",
                100 * ratio(c.suspended, c.steps + c.suspended));
        before = ";";
    }
    if (*before == ';')
        put(t, "\n");
}

size_t account_text(const struct account_report *r, char *out, size_t out_bytes) {
    struct text t = { out, out_bytes, 0 };
    for (int p = PHASE_PREFILL; p < PHASES; p++) {
        uint64_t ns = phase_ns(r, (enum phase)p);
        put(&t, "%-8s %8" PRIu64 " tokens in %.2f s: %.2f tokens/s, %" PRIu64 " steps\n",
            phase_name((enum phase)p), r->account.tokens[p], seconds(ns),
            ratio(r->account.tokens[p], seconds(ns)), r->account.steps[p]);
    }
    if (r->account.groups)
        put(&t, "together %8u sequences in %u group%s, %.1f of them a step of decode\n",
            r->account.sequences, r->account.groups, r->account.groups > 1 ? "s" : "",
            ratio(r->account.tokens[PHASE_DECODE], r->account.steps[PHASE_DECODE]));
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
    if (r->dense_streamed_bytes) {
        bool small = r->dense_bytes < 1e9;
        double unit = small ? 1e6 : 1e9;
        put(&t,
            "dense    %.2f of %.2f %s stay on disk and are read for every step; %.3f GB read, %.1f "
            "%% of all\n",
            r->dense_streamed_bytes / unit, r->dense_bytes / unit, small ? "MB" : "GB",
            r->dense_read_bytes / 1e9, 100 * ratio(r->dense_read_bytes, bytes));
    }
    put_prefetch(&t, r);
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

static json_t *prefetch_object(const struct prefetch_count *c) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "steps",
                     (json_int_t)c->steps, "suspended", (json_int_t)c->suspended, "wanted",
                     (json_int_t)c->wanted, "predicted", (json_int_t)c->predicted, "right",
                     (json_int_t)c->right, "read", (json_int_t)c->read, "used", (json_int_t)c->used,
                     "in_vain", (json_int_t)c->in_vain, "cancelled", (json_int_t)c->cancelled,
                     "lost", (json_int_t)c->lost);
}

// Totals by kind, then the layers for which something was predicted, or would have been.
static json_t *prefetch_json(const struct account_report *r) {
    json_t *root = json_object(), *layers = json_array();
    for (int kind = 0; kind < PREFETCH_KINDS; kind++) {
        struct prefetch_count sum = account_prefetch(r, kind);
        json_object_set_new(root, kind_name[kind], prefetch_object(&sum));
    }
    for (uint32_t i = 0; r->prefetch && i < r->n_layers * PREFETCH_KINDS; i++) {
        const struct prefetch_count *c = &r->prefetch[i];
        if (!c->predicted && !c->read && !c->suspended)
            continue;
        json_t *layer = prefetch_object(c);
        json_object_set_new(layer, "layer", json_integer(i / PREFETCH_KINDS));
        json_object_set_new(layer, "kind", json_string(kind_name[i % PREFETCH_KINDS]));
        json_array_append_new(layers, layer);
    }
    json_object_set_new(root, "layers", layers);
    return root;
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
    json_t *dense = json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)r->dense_bytes,
                              "streamed_bytes_per_step", (json_int_t)r->dense_streamed_bytes,
                              "bytes_read", (json_int_t)r->dense_read_bytes);
    json_t *disk =
        json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:s}", "bytes_read", (json_int_t)bytes_read(r),
                  "chunks", (json_int_t)r->reader.chunks, "retries", (json_int_t)r->reader.retries,
                  "failed", (json_int_t)r->reader.failed, "busy_seconds",
                  seconds(r->reader.busy_ns), "gb_per_second_busy",
                  ratio(bytes_read(r), seconds(r->reader.busy_ns)) / 1e9, "engine", r->engine);
    json_t *process = json_pack("{s:I, s:I, s:I}", "peak_bytes", (json_int_t)r->peak_bytes,
                                "ram_bytes", (json_int_t)r->ram_bytes, "storage_read_bytes",
                                (json_int_t)r->storage_read_bytes);
    json_t *root =
        json_pack("{s:f, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "seconds",
                  seconds(r->total_ns), "kept_tokens", (json_int_t)r->account.kept,
                  "sequences_together", (json_int_t)r->account.sequences, "groups",
                  (json_int_t)r->account.groups, "phases", phases, "experts", experts, "dense",
                  dense, "prefetch", prefetch_json(r), "disk", disk, "process", process);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}
