#include "tools/bench/io.h"
#include "tools/bench/io_meaning.h"
#include "tools/bench/plot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CURVE 101 // points of a computed curve

// --- words ---------------------------------------------------------------------------------------

static void row(FILE *out, const char *head, const char *value) {
    fputs("<tr><th>", out);
    plot_text(head, out);
    fputs("</th><td>", out);
    plot_text(value, out);
    fputs("</td></tr>\n", out);
}

static void row_rate(FILE *out, const char *head, const struct read_result *r) {
    char text[160];
    if (r->rate <= 0)
        return;
    snprintf(text, sizeof text, "%.2f GB/s; %.3f CPU seconds a GB", r->rate * 1e-9,
             r->cpu_s / ((double)r->bytes * 1e-9));
    row(out, head, text);
}

// --- plots of a drive ----------------------------------------------------------------------------

// Points of the grid that have the same block, as lines over depth.
struct lines {
    struct plot plot;
    double x[PLOT_SERIES_MAX][BENCH_CANDIDATES_MAX], y[PLOT_SERIES_MAX][BENCH_CANDIDATES_MAX];
    uint32_t block[PLOT_SERIES_MAX];
    char name[PLOT_SERIES_MAX][64];
};

// In ascending order of depth: points come in whatever order they were measured in.
static void lines_add(struct lines *l, uint32_t block_bytes, double depth, double value) {
    uint32_t s = 0;
    while (s < l->plot.n_series && l->block[s] != block_bytes)
        s++;
    if (s == PLOT_SERIES_MAX)
        return;
    struct plot_series *series = &l->plot.series[s];
    if (s == l->plot.n_series) {
        l->plot.n_series++;
        l->block[s] = block_bytes;
        snprintf(l->name[s], sizeof l->name[s], "%s", bench_block_words(block_bytes).text);
        *series = (struct plot_series){ l->name[s], l->x[s], l->y[s], 0 };
    }
    if (series->n == BENCH_CANDIDATES_MAX)
        return;
    uint32_t at = series->n++;
    for (; at > 0 && l->x[s][at - 1] > depth; at--) {
        l->x[s][at] = l->x[s][at - 1];
        l->y[s][at] = l->y[s][at - 1];
    }
    l->x[s][at] = depth;
    l->y[s][at] = value;
}

static void lines_draw(const struct lines *l, FILE *out) {
    if (l->plot.n_series > 0)
        plot_svg(&l->plot, out);
}

static void plot_grid(const struct bench_drive *d, const struct bench_table *table, FILE *out) {
    char title[96];
    struct lines *l = calloc(1, sizeof *l);
    if (!l)
        return; // a plot less
    int n = snprintf(title, sizeof title, "Reads by block size: ");
    bench_table_text(d, table, title + n, sizeof title - (size_t)n);
    l->plot = (struct plot){
        .title = title, .x_label = "reads at the device", .y_label = "GB/s", .log_x = true
    };
    for (uint32_t i = 0; i < d->n_points; i++)
        if (bench_is_in(&d->points[i], table))
            lines_add(l, d->points[i].setup.block_bytes, d->points[i].setup.depth,
                      d->points[i].rate * 1e-9);
    if (bench_table_depths(d, table) >= 3)
        lines_draw(l, out);
    free(l);
}

static void plot_candidates(const struct bench_drive *d, FILE *out) {
    struct lines *l = calloc(1, sizeof *l);
    if (!l)
        return;
    l->plot = (struct plot){ .title = "Experts, by chunk size and depth",
                             .x_label = "chunks at the device",
                             .y_label = "GB/s",
                             .log_x = true };
    for (uint32_t i = 0; i < d->n_candidates; i++)
        if (d->candidates[i].rate > 0)
            lines_add(l, d->candidates[i].chunk_bytes, d->candidates[i].depth,
                      d->candidates[i].rate * 1e-9);
    lines_draw(l, out);
    free(l);
}

// Percentiles of 4 KiB reads over depth.
static void plot_latencies(const struct bench_drive *d, FILE *out) {
    static const char *const names[] = { "median", "90 %", "99 %", "99.9 %", "longest" };
    const struct bench_table usual = { .shape = SHAPE_RANDOM, .buffered = d->buffered };
    double x[16], y[5][16];
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_points && n < 16; i++) {
        const struct read_result *r = &d->points[i];
        if (!bench_is_in(r, &usual) || r->setup.block_bytes != 4096)
            continue;
        const double ns[] = { r->p50_ns, r->p90_ns, r->p99_ns, r->p999_ns, r->most_ns };
        x[n] = r->setup.depth;
        for (int k = 0; k < 5; k++)
            y[k][n] = ns[k] * 1e-3;
        n++;
    }
    struct plot plot = { .title = "Latency of random reads of 4 KiB",
                         .x_label = "reads at the device",
                         .y_label = "microseconds",
                         .n_series = 5,
                         .log_x = true,
                         .log_y = true };
    for (int k = 0; k < 5; k++)
        plot.series[k] = (struct plot_series){ names[k], x, y[k], n };
    if (n > 0)
        plot_svg(&plot, out);
}

static void plot_sustained(const struct bench_drive *d, FILE *out) {
    const struct bench_sustained *s = &d->sustained;
    double x[BENCH_SPANS_MAX], y[BENCH_SPANS_MAX];
    bool told = false;
    for (uint32_t i = 0; i < s->n; i++) {
        x[i] = (i + 1) * s->span_s;
        y[i] = s->rates[i] * 1e-9;
        told |= s->celsius[i] > 0;
    }
    struct plot plot = { .title = "Experts, read on and on",
                         .x_label = "seconds",
                         .y_label = "GB/s",
                         .series = { { "rate", x, y, s->n } },
                         .n_series = 1 };
    if (s->n == 0)
        return;
    plot_svg(&plot, out);
    struct plot heat = { .title = "Temperature meanwhile",
                         .x_label = "seconds",
                         .y_label = "degrees Celsius",
                         .series = { { "drive", x, s->celsius, s->n } },
                         .n_series = 1 };
    if (told)
        plot_svg(&heat, out);
}

// --- a drive -------------------------------------------------------------------------------------

static void place_rows(const struct bench_drive *d, FILE *out) {
    static const char *const places[] = { "", ", on the processor's lanes",
                                          ", on the chipset's lanes", ", behind a switch" };
    const struct place *p = &d->target.place;
    char text[512];
    snprintf(text, sizeof text, "%.1f GB on %s, %s", (double)p->device.bytes * 1e-9,
             p->mount.filesystem[0] ? p->mount.filesystem : "a block device",
             d->buffered ? "through the page cache" : "O_DIRECT");
    row(out, "file", text);
    for (uint32_t i = 0; i < p->stack.n_layers; i++) {
        snprintf(text, sizeof text, "%s %s", p->stack.layers[i].what, p->stack.layers[i].name);
        row(out, p->stack.layers[i].device, text);
    }
    for (uint32_t i = 0; i < p->stack.n_drives; i++) {
        const struct drive *v = &p->stack.drives[i];
        int n = snprintf(text, sizeof text, "%s %s", drive_bus_name(v->bus), v->model);
        if (pcie_generation(v->pcie.now))
            snprintf(text + n, sizeof text - (size_t)n,
                     ", PCIe Gen%" PRIu32 " x%" PRIu32 " (%.2f GB/s)%s",
                     pcie_generation(v->pcie.now), v->pcie.now.lanes, pcie_rate(v->pcie.now) * 1e-9,
                     places[v->pcie.place]);
        row(out, v->device, text);
    }
}

static void expert_rows(const struct bench_drive *d, FILE *out) {
    char text[256];
    double link = place_link_rate(&d->target.place);
    row_rate(out, "experts", &d->expert);
    if (link > 0 && d->expert.rate > 0) {
        snprintf(text, sizeof text, "%.0f %% of %.2f GB/s", 100 * d->expert.rate / link,
                 link * 1e-9);
        row(out, "share of the link", text);
    }
    if (d->tuned_rate > 0) {
        snprintf(text, sizeof text, "chunks of %s x %" PRIu32 ": %.2f GB/s; sluice's default: %.2f",
                 bench_block_words(d->chunk_bytes).text, d->depth, d->tuned_rate * 1e-9,
                 d->default_rate * 1e-9);
        row(out, "chosen", text);
    }
    if (d->alone.rate > 0) {
        snprintf(text, sizeof text, "median %.1f ms, 99 %% %.1f ms", d->alone.p50_ns * 1e-6,
                 d->alone.p99_ns * 1e-6);
        row(out, "one expert alone", text);
    }
    row_rate(out, "page cache", &d->buffered_expert);
    row_rate(out, "memory not registered", &d->plain_expert);
    row_rate(out, "together", &d->together);
}

// What is in no plot: how memory and page cache matter at two sizes.
static void variants(const struct bench_drive *d, FILE *out) {
    fputs("<table>\n", out);
    for (uint32_t i = 0; i < d->n_points; i++) {
        const struct read_setup *s = &d->points[i].setup;
        const struct bench_table table = { s->shape, s->buffered, s->plain_memory };
        char what[96];
        read_setup_text(s, what, sizeof what);
        if (bench_table_depths(d, &table) < 3)
            row_rate(out, what, &d->points[i]);
    }
    fputs("</table>\n", out);
}

static void drive_section(const struct bench_drive *d, FILE *out) {
    fputs("<section>\n<h2>", out);
    plot_text(d->target.name, out);
    fputs("</h2>\n<table>\n", out);
    place_rows(d, out);
    expert_rows(d, out);
    fputs("</table>\n", out);
    if (d->n_findings > 0) {
        fputs("<h3>What slows it, or should be known</h3>\n<ul>\n", out);
        for (uint32_t i = 0; i < d->n_findings; i++) {
            fputs("<li>", out);
            plot_text(d->findings[i], out);
            fputs("</li>\n", out);
        }
        fputs("</ul>\n", out);
    }
    fputs("<div class=\"plots\">\n", out);
    plot_sustained(d, out);
    plot_candidates(d, out);
    plot_latencies(d, out);
    struct bench_table tables[BENCH_TABLES];
    bench_tables(d, tables);
    for (int i = 0; i < BENCH_TABLES; i++)
        plot_grid(d, &tables[i], out);
    fputs("</div>\n", out);
    variants(d, out);
    fputs("</section>\n", out);
}

// --- what it means -------------------------------------------------------------------------------

static void meaning_table(const struct meaning_model *models, double rate, FILE *out) {
    fputs("<table class=\"figures\">\n<tr><th>tokens/s at most</th>", out);
    for (int i = 0; i < MEANING_HITS; i++)
        fprintf(out, "<th>%.0f %%</th>", meaning_hits[i] * 100);
    fputs("<th>full sweep</th></tr>\n", out);
    for (int m = 0; m < MEANING_MODELS; m++) {
        fprintf(out, "<tr><th>%s</th>", models[m].name);
        for (int i = 0; i < MEANING_HITS; i++)
            fprintf(out, "<td>%.2f</td>", meaning_tokens_per_s(&models[m], rate, meaning_hits[i]));
        fprintf(out, "<td>%.0f s</td></tr>\n", meaning_sweep_s(&models[m], rate));
    }
    fputs("</table>\n", out);
}

static void meaning_section(const struct bench_io *b, FILE *out) {
    struct meaning_model models[MEANING_MODELS];
    double x[CURVE], y[MEANING_MODELS][CURVE], rate = bench_rate(b);
    if (rate <= 0)
        return;
    meaning_models(models);
    fprintf(out,
            "<section>\n<h2>What %.2f GB/s mean</h2>\n<p>Tokens a second that the drives allow, by "
            "the share of experts that are found in memory; a full sweep reads every routed expert "
            "once.</p>\n",
            rate * 1e-9);
    meaning_table(models, rate, out);
    struct plot plot = { .title = "Tokens a second, at most",
                         .x_label = "experts found in memory, %",
                         .y_label = "tokens/s",
                         .n_series = MEANING_MODELS,
                         .log_y = true };
    for (int m = 0; m < MEANING_MODELS; m++) {
        for (int i = 0; i < CURVE - 5; i++) { // up to 95 %: towards 100 the drive no longer decides
            x[i] = i;
            y[m][i] = meaning_tokens_per_s(&models[m], rate, i / 100.0);
        }
        plot.series[m] = (struct plot_series){ models[m].name, x, y[m], CURVE - 5 };
    }
    plot_svg(&plot, out);
    fputs("</section>\n", out);
}

void bench_html(const struct bench_io *b, FILE *out) {
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<title>sluice bench io</title>\n<style>\n"
          ":root{color-scheme:light dark;--text:#222;--line:#ddd;--ground:#fff}\n"
          "@media(prefers-color-scheme:dark){:root{--text:#ddd;--line:#444;--ground:#181818}}\n"
          "body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--ground);"
          "max-width:1340px;margin:2em auto;padding:0 1em}\n"
          "table{border-collapse:collapse}th,td{padding:.2em .8em .2em 0;text-align:left;"
          "vertical-align:top}th{font-weight:600}.figures td,.figures th{text-align:right}\n"
          ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:1em}\n",
          out);
    plot_style(out);
    fprintf(
        out,
        "</style>\n</head>\n<body>\n<h1>sluice bench io</h1>\n<p>sluice %s, %s; %.0f seconds of "
        "measuring%s.</p>\n",
        SLUICE_VERSION, b->engine, b->took_s, b->interrupted ? ", interrupted" : "");
    meaning_section(b, out);
    for (uint32_t i = 0; i < b->n_drives; i++)
        drive_section(&b->drives[i], out);
    fputs("</body>\n</html>\n", out);
}
