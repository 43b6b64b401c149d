#include "tools/bench/decode.h"
#include "tools/bench/quartiles.h"
#include "tools/bench/report.h"

#include <stdlib.h>

// What is told of the rounds together.
struct summary {
    uint64_t ns, wait_ns, idle_ns, idle_wanted_ns, activity_ns[ACTIVITIES];
    uint64_t n_tokens, demanded, hits, bytes, dense_bytes, kernel_bytes;
    double wait_bytes, bound_ns, bound_compute_ns;
    struct quartiles rate, drift, tokens_per_s, awaited_rate, awaited_share, time_by_bound;
};

static void add_up(struct summary *s, const struct decode_result *d) {
    for (uint32_t i = 0; i < d->n_rounds; i++) {
        const struct decode_round *r = &d->rounds[i];
        s->ns += r->window.figures.ns;
        s->wait_ns += r->window.figures.wait_ns;
        s->idle_ns += r->window.figures.idle_ns;
        s->idle_wanted_ns += r->window.figures.idle_wanted_ns;
        s->wait_bytes += r->window.figures.wait_bytes;
        for (int a = 0; a < ACTIVITIES; a++)
            s->activity_ns[a] += r->window.figures.activity_ns[a];
        s->n_tokens += r->n_tokens;
        s->demanded += r->window.demanded;
        s->hits += r->window.hits;
        s->bytes += r->window.bytes;
        s->dense_bytes += r->window.dense_bytes;
        s->kernel_bytes += r->window.kernel_bytes;
        s->bound_ns += r->bound.ns;
        s->bound_compute_ns += r->bound.compute_ns;
    }
}

static double awaited_rate(const struct decode_round *r) {
    return report_share(r->window.figures.wait_bytes, (double)r->window.figures.wait_ns * 1e-9);
}

static enum status summarize(const struct decode_result *d, struct summary *s, struct err *err) {
    double *values = calloc(d->n_rounds + d->n_looks + 1, sizeof *values);
    *s = (struct summary){ 0 };
    if (!values)
        return err_set(err, ERR_MEMORY, "no memory for a report");
    add_up(s, d);
    uint32_t n = d->n_rounds, n_waits = 0;
    for (uint32_t i = 0; i < n; i++)
        values[i] = d->rounds[i].rate;
    s->rate = quartiles_of(values, n);
    for (uint32_t i = 0; i + 1 < d->n_looks; i++)
        values[i] = d->looks[i + 1] / d->looks[i];
    s->drift = quartiles_of(values, d->n_looks ? d->n_looks - 1 : 0);
    for (uint32_t i = 0; i < n; i++)
        values[i] =
            report_share(d->rounds[i].n_tokens, (double)d->rounds[i].window.figures.ns * 1e-9);
    s->tokens_per_s = quartiles_of(values, n);
    for (uint32_t i = 0; i < n; i++)
        if (d->rounds[i].window.figures.wait_ns > 0)
            values[n_waits++] = awaited_rate(&d->rounds[i]);
    s->awaited_rate = quartiles_of(values, n_waits);
    n_waits = 0;
    for (uint32_t i = 0; i < n; i++)
        if (d->rounds[i].window.figures.wait_ns > 0)
            values[n_waits++] = awaited_rate(&d->rounds[i]) / d->rounds[i].rate;
    s->awaited_share = quartiles_of(values, n_waits);
    for (uint32_t i = 0; i < n; i++)
        values[i] = report_share((double)d->rounds[i].window.figures.ns, d->rounds[i].bound.ns);
    s->time_by_bound = quartiles_of(values, n);
    free(values);
    return OK;
}

// --- for people ----------------------------------------------------------------------------------

static double percent(uint64_t part, uint64_t whole) {
    return 100 * report_share((double)part, (double)whole);
}

static void print_head(const struct decode_result *d, FILE *out) {
    const struct sluice_fit *f = d->fit;
    fprintf(out, "%s: %u layers, %u of %u experts of %.4g MB\n", d->model, d->config->n_layers,
            d->config->n_chosen, d->config->n_experts, (double)d->expert_bytes * 1e-6);
    fprintf(out, "cache of %u slots (%.1f %% of all), %.2f GB in use in all\n%s\n", f->n_slots,
            percent(f->n_slots, f->n_experts), (double)f->used_bytes * 1e-9, d->engine);
    fprintf(out, "%u sequence%s", d->n_sequences, d->n_sequences == 1 ? "" : "s");
    if (d->n_groups > 1)
        fprintf(out, " in %u groups", d->n_groups);
    fprintf(out, ", prompt of %u tokens (%.1f tokens/s)\n\n", d->n_prompt,
            report_share((double)d->n_prompt * d->n_sequences, d->prompt_s));
}

static void print_times(const struct summary *s, FILE *out) {
    static const struct {
        enum activity activity;
        const char *name, *after;
    } told[] = {
        { ACTIVITY_WAIT, "waiting", ", " },       { ACTIVITY_ATTENTION, "attention", ", " },
        { ACTIVITY_GATE, "gate", ", " },          { ACTIVITY_EXPERTS, "experts", "," },
        { ACTIVITY_PREDICT, "predicting", ", " }, { ACTIVITY_HEAD, "head", ", " },
        { ACTIVITY_SAMPLE, "sampling", ", " },
    };
    uint64_t rest = s->ns, dense_ns = s->activity_ns[ACTIVITY_WAIT_DENSE];
    fprintf(out, "%-15s", "time, %");
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        uint64_t ns = s->activity_ns[told[i].activity];
        if (i == 4)
            fprintf(out, "\n%-15s", "");
        fprintf(out, "%s %.1f%s", told[i].name, percent(ns, s->ns), told[i].after);
        rest -= ns < rest ? ns : rest;
    }
    rest -= dense_ns < rest ? dense_ns : rest;
    if (s->dense_bytes)
        fprintf(out, "waiting for dense weights %.1f, ", percent(dense_ns, s->ns));
    fprintf(out, "other %.1f\n", percent(rest, s->ns));
}

static void print_disk(const struct decode_result *d, const struct summary *s, FILE *out) {
    fprintf(out, "%-15sidle %.1f %% of the time; while something was wanted %.2f %%\n", "disk",
            percent(s->idle_ns, s->ns), percent(s->idle_wanted_ns, s->ns));
    if (d->rate_given)
        fprintf(out, "%-15s%.2f GB/s, as given\n", "disk's rate", s->rate.median * 1e-9);
    else
        fprintf(out,
                "%-15s%.2f GB/s (%.2f to %.2f)\n"
                "%-15sfrom one look to the next %.3f (%.3f to %.3f)\n",
                "disk alone", s->rate.median * 1e-9, s->rate.low * 1e-9, s->rate.high * 1e-9, "",
                s->drift.median, s->drift.low, s->drift.high);
    if (s->wait_ns > 0)
        fprintf(out, "%-15s%.2f GB/s: %.3f (%.3f to %.3f) of that\n", "while awaited",
                s->awaited_rate.median * 1e-9, s->awaited_share.median, s->awaited_share.low,
                s->awaited_share.high);
}

// A step of all sequences is a token of each.
static void print_bound(const struct decode_result *d, const struct summary *s, FILE *out) {
    double n_steps = (double)s->n_tokens / d->n_sequences;
    double step_ms = report_share((double)s->ns * 1e-6, n_steps);
    double bound_ms = report_share(s->bound_ns * 1e-6, n_steps);
    double compute_ms = report_share(s->bound_compute_ns * 1e-6, n_steps);
    fprintf(out, "%-15s%.2f ms; over an ideal disk of that rate %.2f ms, of them\n", "a step takes",
            step_ms, bound_ms);
    fprintf(out, "%-15s%.2f of arithmetic: %.3f (%.3f to %.3f) times its bound\n", "", compute_ms,
            s->time_by_bound.median, s->time_by_bound.low, s->time_by_bound.high);
}

enum status decode_text(const struct decode_result *d, FILE *out, struct err *err) {
    struct summary s;
    if (summarize(d, &s, err) != OK)
        return err->status;
    print_head(d, out);
    fprintf(out, "%-15s%.3g tokens/s (quartiles of %u rounds %.3g to %.3g), %llu tokens\n",
            "decode", report_share((double)s.n_tokens, (double)s.ns * 1e-9), d->n_rounds,
            s.tokens_per_s.low, s.tokens_per_s.high, (unsigned long long)s.n_tokens);
    fprintf(out, "%-15s%.4g MB a token; %.1f experts wanted, %.1f %% found in memory\n", "",
            report_share((double)s.bytes * 1e-6, (double)s.n_tokens),
            report_share((double)s.demanded, (double)s.n_tokens), percent(s.hits, s.demanded));
    if (s.dense_bytes)
        fprintf(out, "%-15s%.4g MB of them are dense weights, which do not fit in memory\n", "",
                report_share((double)s.dense_bytes * 1e-6, (double)s.n_tokens));
    print_times(&s, out);
    print_disk(d, &s, out);
    print_bound(d, &s, out);
    if (d->interrupted)
        fputs("interrupted: these are the rounds that came to their end\n", out);
    if (d->n_lost)
        fprintf(out, "%llu events of the timeline were lost: the bound is not to be trusted\n",
                (unsigned long long)d->n_lost);
    return OK;
}

// --- for programs --------------------------------------------------------------------------------

static json_t *quartiles(struct quartiles q) {
    return json_pack("{sf sf sf}", "low", q.low, "median", q.median, "high", q.high);
}

static json_t *one_round(const struct decode_round *r) {
    const struct recording_figures *f = &r->window.figures;
    json_t *o = json_object();
    report_put(o, "tokens", report_whole(r->n_tokens));
    report_put(o, "seconds", json_real((double)f->ns * 1e-9));
    report_put(o, "wait_seconds", json_real((double)f->wait_ns * 1e-9));
    report_put(o, "wait_bytes", json_real(f->wait_bytes));
    report_put(o, "idle_seconds", json_real((double)f->idle_ns * 1e-9));
    report_put(o, "idle_wanted_seconds", json_real((double)f->idle_wanted_ns * 1e-9));
    report_put(o, "activity_seconds", report_activities(f->activity_ns));
    report_put(o, "bytes", report_whole(r->window.bytes));
    report_put(o, "dense_bytes", report_whole(r->window.dense_bytes));
    report_put(o, "kernel_bytes", report_whole(r->window.kernel_bytes));
    report_put(o, "experts_wanted", report_whole(r->window.demanded));
    report_put(o, "experts_found", report_whole(r->window.hits));
    report_put(o, "disk_bytes_per_s", json_real(r->rate));
    report_put(o, "bound_seconds", json_real(r->bound.ns * 1e-9));
    report_put(o, "bound_wait_seconds", json_real(r->bound.wait_ns * 1e-9));
    return o;
}

static json_t *result_json(const struct decode_result *d, const struct summary *s) {
    json_t *o = json_object(), *rounds = json_array(), *looks = json_array();
    for (uint32_t i = 0; i < d->n_rounds; i++)
        json_array_append_new(rounds, one_round(&d->rounds[i]));
    for (uint32_t i = 0; i < d->n_looks; i++)
        json_array_append_new(looks, json_real(d->looks[i]));
    report_put(o, "version", json_string(SLUICE_VERSION));
    report_put(o, "model", json_string(d->model));
    report_put(o, "engine", json_string(d->engine));
    report_put(o, "layers", report_whole(d->config->n_layers));
    report_put(o, "expert_bytes", report_whole(d->expert_bytes));
    report_put(o, "slots", report_whole(d->fit->n_slots));
    report_put(o, "experts_total", report_whole(d->fit->n_experts));
    report_put(o, "used_bytes", report_whole(d->fit->used_bytes));
    report_put(o, "sequences", report_whole(d->n_sequences));
    report_put(o, "groups", report_whole(d->n_groups));
    report_put(o, "prompt_tokens", report_whole(d->n_prompt));
    report_put(o, "prompt_seconds", json_real(d->prompt_s));
    report_put(o, "tokens", report_whole(s->n_tokens));
    report_put(o, "seconds", json_real((double)s->ns * 1e-9));
    report_put(o, "tokens_per_s",
               json_real(report_share((double)s->n_tokens, (double)s->ns * 1e-9)));
    report_put(o, "bytes_per_token",
               json_real(report_share((double)s->bytes, (double)s->n_tokens)));
    report_put(o, "hit_rate", json_real(report_share((double)s->hits, (double)s->demanded)));
    report_put(o, "idle_share", json_real(report_share((double)s->idle_ns, (double)s->ns)));
    report_put(o, "idle_wanted_share",
               json_real(report_share((double)s->idle_wanted_ns, (double)s->ns)));
    report_put(o, "disk_bytes_per_s", quartiles(s->rate));
    report_put(o, "disk_rate_given", json_boolean(d->rate_given));
    report_put(o, "disk_look_to_look", quartiles(s->drift));
    report_put(o, "awaited_bytes_per_s", quartiles(s->awaited_rate));
    report_put(o, "awaited_share", quartiles(s->awaited_share));
    report_put(o, "time_by_bound", quartiles(s->time_by_bound));
    report_put(o, "bound_seconds", json_real(s->bound_ns * 1e-9));
    report_put(o, "looks_bytes_per_s", looks);
    report_put(o, "rounds", rounds);
    report_put(o, "lost_events", report_whole(d->n_lost));
    report_put(o, "interrupted", json_boolean(d->interrupted));
    return o;
}

enum status decode_json(const struct decode_result *d, FILE *out, struct err *err) {
    struct summary s;
    if (summarize(d, &s, err) != OK)
        return err->status;
    return report_json(result_json(d, &s), out, err);
}
