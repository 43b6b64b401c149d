#include "tools/bench/prefill.h"
#include "tools/bench/report.h"

#include <inttypes.h>
#include <math.h>

static double seconds_of(const struct prefill_pass *p) {
    return (double)p->window.figures.ns * 1e-9;
}

double prefill_disk_s(const struct prefill_pass *p) {
    return report_share((double)(p->ideal_bytes + p->window.dense_bytes), p->rate);
}

double prefill_arithmetic_s(const struct prefill_pass *p) {
    return (double)(p->window.figures.ns - p->window.figures.wait_ns) * 1e-9;
}

// While the disk is busy.
static double busy_rate(const struct prefill_pass *p) {
    const struct recording_figures *f = &p->window.figures;
    return report_share(f->bytes, (double)(f->ns - f->idle_ns) * 1e-9);
}

static double awaited_rate(const struct prefill_pass *p) {
    const struct recording_figures *f = &p->window.figures;
    return report_share(f->wait_bytes, (double)f->wait_ns * 1e-9);
}

static bool by_arithmetic(const struct prefill_pass *p) {
    return prefill_arithmetic_s(p) > prefill_disk_s(p);
}

enum crossover prefill_crossover(const struct prefill_pass *passes, uint32_t n, double *rows) {
    *rows = 0;
    if (n == 0 || by_arithmetic(&passes[0]))
        return n ? CROSSOVER_BELOW : CROSSOVER_ABOVE;
    for (uint32_t i = 0; i + 1 < n; i++) {
        const struct prefill_pass *a = &passes[i], *b = &passes[i + 1];
        if (!by_arithmetic(b))
            continue;
        // How far arithmetic is behind, at both: it goes from below 0 to above.
        double x = prefill_arithmetic_s(a) - prefill_disk_s(a);
        double y = prefill_arithmetic_s(b) - prefill_disk_s(b);
        double at = y > x ? -x / (y - x) : 0;
        *rows = exp(log(a->n_rows) + at * (log(b->n_rows) - log(a->n_rows)));
        return CROSSOVER_FOUND;
    }
    return CROSSOVER_ABOVE;
}

// --- for people ----------------------------------------------------------------------------------

static void print_crossover(const struct prefill_result *r, FILE *out) {
    double rows;
    switch (prefill_crossover(r->passes, r->n_passes, &rows)) {
    case CROSSOVER_FOUND:
        fprintf(out,
                "arithmetic takes longer than the disk from about %.0f rows on (interpolated)\n",
                rows);
        break;
    case CROSSOVER_BELOW:
        fputs("arithmetic takes longer than the disk at all of these lengths\n", out);
        break;
    case CROSSOVER_ABOVE:
        fputs("the disk takes longer than arithmetic at all of these lengths\n", out);
        break;
    }
}

static void print_pass(const struct prefill_pass *p, FILE *out) {
    // Through the page cache the kernel may have read less than the dense weights.
    uint64_t kernel_bytes = p->window.kernel_bytes > p->window.dense_bytes
                                ? p->window.kernel_bytes - p->window.dense_bytes
                                : 0;
    fprintf(out, "%6u %8.1f %7.3g %7.3f %6.3f %6.3f %5.2f %5.2f %7.3g %7.3g %6.3f\n", p->n_rows,
            report_share(p->n_rows, seconds_of(p)), seconds_of(p), (double)p->window.bytes * 1e-9,
            report_share((double)(p->window.bytes - p->window.dense_bytes), (double)p->ideal_bytes),
            report_share((double)kernel_bytes, (double)p->ideal_bytes), p->rate * 1e-9,
            report_share(busy_rate(p), p->rate), prefill_disk_s(p), prefill_arithmetic_s(p),
            report_share(seconds_of(p) * 1e9, p->bound.ns));
}

static void print_again(const struct prefill_result *r, FILE *out) {
    for (uint32_t i = 0; i < r->n_passes; i++)
        if (r->passes[i].n_again)
            fprintf(out, "%u rows: %" PRIu64 " reads of an expert that had been read before\n",
                    r->passes[i].n_rows, r->passes[i].n_again);
}

void prefill_text(const struct prefill_result *r, FILE *out) {
    const struct sluice_fit *f = r->fit;
    fprintf(out, "%s: %u layers, %u of %u experts of %.4g MB\n", r->model, r->config->n_layers,
            r->config->n_chosen, r->config->n_experts, (double)r->expert_bytes * 1e-6);
    fprintf(out, "cache of %u slots (%.1f %% of all), %.2f GB in use in all\n%s\n\n", f->n_slots,
            100 * report_share(f->n_slots, f->n_experts), (double)f->used_bytes * 1e-9, r->engine);
    fputs("                                  of ideal     disk while  alone, seconds     by\n"
          "  rows tokens/s seconds GB read reader kernel  GB/s  busy    disk  arith.  bound\n",
          out);
    for (uint32_t i = 0; i < r->n_passes; i++)
        print_pass(&r->passes[i], out);
    fputc('\n', out);
    print_again(r, out);
    print_crossover(r, out);
    if (r->interrupted)
        fputs("interrupted: these are the passes that came to their end\n", out);
    if (r->n_lost)
        fprintf(out, "%llu events of the timeline were lost: the bound is not to be trusted\n",
                (unsigned long long)r->n_lost);
}

// --- for programs --------------------------------------------------------------------------------

static json_t *one_pass(const struct prefill_pass *p) {
    const struct recording_figures *f = &p->window.figures;
    json_t *o = json_object();
    report_put(o, "rows", report_whole(p->n_rows));
    report_put(o, "seconds", json_real(seconds_of(p)));
    report_put(o, "tokens_per_s", json_real(report_share(p->n_rows, seconds_of(p))));
    report_put(o, "experts_chosen", report_whole(p->n_chosen));
    report_put(o, "experts_held", report_whole(p->n_held));
    report_put(o, "experts_again", report_whole(p->n_again));
    report_put(o, "chosen_bytes", report_whole(p->chosen_bytes));
    report_put(o, "ideal_bytes", report_whole(p->ideal_bytes));
    report_put(o, "bytes", report_whole(p->window.bytes));
    report_put(o, "dense_bytes", report_whole(p->window.dense_bytes));
    report_put(o, "kernel_bytes", report_whole(p->window.kernel_bytes));
    report_put(o, "disk_bytes_per_s", json_real(p->rate));
    report_put(o, "busy_bytes_per_s", json_real(busy_rate(p)));
    report_put(o, "awaited_bytes_per_s", json_real(awaited_rate(p)));
    report_put(o, "wait_seconds", json_real((double)f->wait_ns * 1e-9));
    report_put(o, "idle_seconds", json_real((double)f->idle_ns * 1e-9));
    report_put(o, "idle_wanted_seconds", json_real((double)f->idle_wanted_ns * 1e-9));
    report_put(o, "disk_seconds", json_real(prefill_disk_s(p)));
    report_put(o, "arithmetic_seconds", json_real(prefill_arithmetic_s(p)));
    report_put(o, "binds", json_string(by_arithmetic(p) ? "arithmetic" : "disk"));
    report_put(o, "bound_seconds", json_real(p->bound.ns * 1e-9));
    report_put(o, "activity_seconds", report_activities(f->activity_ns));
    return o;
}

enum status prefill_json(const struct prefill_result *r, FILE *out, struct err *err) {
    json_t *root = json_object(), *passes = json_array();
    double rows;
    enum crossover crossover = prefill_crossover(r->passes, r->n_passes, &rows);
    for (uint32_t i = 0; i < r->n_passes; i++)
        json_array_append_new(passes, one_pass(&r->passes[i]));
    report_put(root, "version", json_string(SLUICE_VERSION));
    report_put(root, "model", json_string(r->model));
    report_put(root, "engine", json_string(r->engine));
    report_put(root, "layers", report_whole(r->config->n_layers));
    report_put(root, "expert_bytes", report_whole(r->expert_bytes));
    report_put(root, "slots", report_whole(r->fit->n_slots));
    report_put(root, "experts_total", report_whole(r->fit->n_experts));
    report_put(root, "used_bytes", report_whole(r->fit->used_bytes));
    report_put(root, "disk_rate_given", json_boolean(r->rate_given));
    report_put(root, "passes", passes);
    report_put(root, "crossover_rows",
               crossover == CROSSOVER_FOUND ? json_real(rows) : json_null());
    report_put(root, "lost_events", report_whole(r->n_lost));
    report_put(root, "interrupted", json_boolean(r->interrupted));
    return report_json(root, out, err);
}
