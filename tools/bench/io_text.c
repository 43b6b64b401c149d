#include "tools/bench/io.h"
#include "tools/bench/io_meaning.h"

#include <inttypes.h>
#include <string.h>

#define COLUMNS 78

// --- words ---------------------------------------------------------------------------------------

static struct bench_words time_words(double ns) {
    struct bench_words w;
    if (ns < 1e6)
        snprintf(w.text, sizeof w.text, "%.0f us", ns * 1e-3);
    else if (ns < 10e6)
        snprintf(w.text, sizeof w.text, "%.2f ms", ns * 1e-6);
    else
        snprintf(w.text, sizeof w.text, "%.0f ms", ns * 1e-6);
    return w;
}

// A sentence behind a bullet, broken between words.
static void bullet(FILE *out, const char *text) {
    int at = 2;
    fputs("  -", out);
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (at + 1 + word > COLUMNS) {
            fputs("\n   ", out);
            at = 3;
        }
        fprintf(out, " %.*s", word, text);
        at += 1 + word;
        text += word;
        text += strspn(text, " ");
    }
    putc('\n', out);
}

static double per_gb(double seconds, uint64_t bytes) {
    return bytes ? seconds / ((double)bytes * 1e-9) : 0;
}

// --- where it lies -------------------------------------------------------------------------------

static void print_link(const struct drive *v, FILE *out) {
    static const char *const places[] = { "", ", on the processor's lanes",
                                          ", on the chipset's lanes", ", behind a switch" };
    const struct pcie_path *p = &v->pcie;
    fprintf(out, "  %-9s %s%s%s", v->device, drive_bus_name(v->bus), v->model[0] ? " " : "",
            v->model);
    if (pcie_generation(p->now))
        fprintf(out, "; PCIe Gen%" PRIu32 " x%" PRIu32 ", %.2f GB/s%s", pcie_generation(p->now),
                p->now.lanes, pcie_rate(p->now) * 1e-9, places[p->place]);
    else if (v->port_rate > 0)
        fprintf(out, "; a port of %.2f GB/s", v->port_rate * 1e-9);
    else
        fprintf(out, "; no link that could be seen");
    putc('\n', out);
}

static void print_place(const struct bench_drive *d, FILE *out) {
    const struct place *p = &d->target.place;
    fprintf(out, "%s\n", d->target.name);
    fprintf(out, "  %.1f GB", (double)p->device.bytes * 1e-9);
    if (p->mount.filesystem[0])
        fprintf(out, " on %s", p->mount.filesystem);
    for (uint32_t i = 0; i < p->stack.n_layers; i++)
        fprintf(out, ", %s %s", p->stack.layers[i].what,
                p->stack.layers[i].name[0] ? p->stack.layers[i].name : p->stack.layers[i].device);
    fprintf(out, d->buffered ? ", through the page cache" : ", O_DIRECT");
    if (p->map.known && p->map.whole)
        fprintf(out, ", in %" PRIu32 " piece%s", p->map.n_pieces, p->map.n_pieces == 1 ? "" : "s");
    putc('\n', out);
    for (uint32_t i = 0; i < p->stack.n_drives; i++)
        print_link(&p->stack.drives[i], out);
    if (d->target.write_rate > 0)
        fprintf(out, "  written at %.2f GB/s, and gone when this ends\n",
                d->target.write_rate * 1e-9);
}

// --- experts -------------------------------------------------------------------------------------

static void print_rate(const struct bench_drive *d, FILE *out) {
    double link = place_link_rate(&d->target.place);
    fprintf(out, "  experts   %.2f GB/s", d->expert.rate * 1e-9);
    if (link > 0)
        fprintf(out, ", %.0f %% of the link", 100 * d->expert.rate / link);
    fprintf(out, "; %.3f CPU seconds a GB", per_gb(d->expert.cpu_s, d->expert.bytes));
    if (d->celsius_after > 0)
        fprintf(out, "; %.0f to %.0f C", d->celsius_before, d->celsius_after);
    fprintf(out, "\n            35.1 MB at any byte, %d queued, in chunks of %s x %" PRIu32 "\n",
            EXPERTS_AHEAD, bench_block_words(d->chunk_bytes).text, d->depth);
    if (d->alone.rate > 0)
        fprintf(
            out,
            "  waited    for one expert alone: %s, 1 in 100 %s or more (%" PRIu64 " measured)\n",
            time_words(d->alone.p50_ns).text, time_words(d->alone.p99_ns).text, d->alone.n_reads);
    if (d->buffered_expert.rate > 0)
        fprintf(out, "  buffered  %.2f GB/s, %.3f CPU seconds a GB\n",
                d->buffered_expert.rate * 1e-9,
                per_gb(d->buffered_expert.cpu_s, d->buffered_expert.bytes));
    if (d->plain_expert.rate > 0)
        fprintf(out, "  memory that is not registered: %.2f GB/s, %.3f CPU seconds a GB\n",
                d->plain_expert.rate * 1e-9, per_gb(d->plain_expert.cpu_s, d->plain_expert.bytes));
}

static void print_choice(const struct bench_drive *d, FILE *out) {
    fprintf(out, "  chosen    chunks of %s x %" PRIu32 ": %.2f GB/s; sluice's default: %.2f\n",
            bench_block_words(d->chunk_bytes).text, d->depth, d->tuned_rate * 1e-9,
            d->default_rate * 1e-9);
}

// --- the grid ------------------------------------------------------------------------------------

#define AXIS_MAX 16

// The distinct values of blocks or depths, in the order they were measured in.
static uint32_t axis(const struct bench_drive *d, const struct bench_table *table, bool depths,
                     uint32_t values[AXIS_MAX]) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_points; i++) {
        const struct read_setup *s = &d->points[i].setup;
        uint32_t value = depths ? s->depth : s->block_bytes, k = 0;
        if (!bench_is_in(&d->points[i], table))
            continue;
        while (k < n && values[k] != value)
            k++;
        if (k == n && n < AXIS_MAX)
            values[n++] = value;
    }
    return n;
}

static const struct read_result *find_point(const struct bench_drive *d,
                                            const struct bench_table *table, uint32_t block_bytes,
                                            uint32_t depth) {
    for (uint32_t i = 0; i < d->n_points; i++)
        if (bench_is_in(&d->points[i], table) && d->points[i].setup.block_bytes == block_bytes &&
            d->points[i].setup.depth == depth)
            return &d->points[i];
    return NULL;
}

static void print_grid(const struct bench_drive *d, const struct bench_table *table, FILE *out) {
    uint32_t blocks[AXIS_MAX], depths[AXIS_MAX];
    uint32_t n_blocks = axis(d, table, false, blocks), n_depths = axis(d, table, true, depths);
    char what[64];
    if (bench_table_depths(d, table) < 3)
        return;
    bench_table_text(d, table, what, sizeof what);
    fprintf(out, "  %s reads, GB/s\n    %-9s", what, "depth");
    for (uint32_t j = 0; j < n_depths; j++)
        fprintf(out, "%8" PRIu32, depths[j]);
    putc('\n', out);
    for (uint32_t i = 0; i < n_blocks; i++) {
        fprintf(out, "    %-9s", bench_block_words(blocks[i]).text);
        for (uint32_t j = 0; j < n_depths; j++) {
            const struct read_result *r = find_point(d, table, blocks[i], depths[j]);
            if (r)
                fprintf(out, "%8.2f", r->rate * 1e-9);
            else
                fprintf(out, "%8s", "");
        }
        putc('\n', out);
    }
}

static void print_latencies(const struct bench_drive *d, FILE *out) {
    const struct bench_table usual = { .shape = SHAPE_RANDOM, .buffered = d->buffered };
    uint32_t depths[AXIS_MAX], n = axis(d, &usual, true, depths);
    bool headed = false;
    for (uint32_t j = 0; j < n; j++) {
        const struct read_result *r = find_point(d, &usual, 4096, depths[j]);
        if (!r)
            continue;
        if (!headed)
            fprintf(out, "  latency of 4 KiB, random\n    %-9s%9s%12s%12s%12s%12s\n", "depth",
                    "IO/s", "median", "99 %", "99.9 %", "longest");
        headed = true;
        fprintf(out, "    %-9" PRIu32 "%9.0f%12s%12s%12s%12s\n", depths[j],
                (double)r->n_reads / r->seconds, time_words(r->p50_ns).text,
                time_words(r->p99_ns).text, time_words(r->p999_ns).text,
                time_words(r->most_ns).text);
    }
}

// Points that are in no table of their own.
static bool is_variant(const struct bench_drive *d, const struct read_result *r) {
    const struct bench_table table = { r->setup.shape, r->setup.buffered, r->setup.plain_memory };
    return bench_table_depths(d, &table) < 3;
}

static void print_variants(const struct bench_drive *d, FILE *out) {
    bool headed = false;
    for (uint32_t i = 0; i < d->n_points; i++) {
        const struct read_result *r = &d->points[i];
        char what[96];
        if (!is_variant(d, r))
            continue;
        if (!headed)
            fputs("  otherwise\n", out);
        headed = true;
        read_setup_text(&r->setup, what, sizeof what);
        fprintf(out, "    %-42s%6.2f GB/s  %.3f CPU s/GB\n", what, r->rate * 1e-9,
                per_gb(r->cpu_s, r->bytes));
    }
}

static void print_sustained(const struct bench_drive *d, FILE *out) {
    const struct bench_sustained *s = &d->sustained;
    double least = 0, most = 0, first, last, hottest = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        least = i == 0 || s->rates[i] < least ? s->rates[i] : least;
        most = s->rates[i] > most ? s->rates[i] : most;
        hottest = s->celsius[i] > hottest ? s->celsius[i] : hottest;
    }
    if (s->n == 0)
        return;
    fprintf(out, "  sustained %.2f GB/s for %.0f s; spans of %.2g s from %.2f to %.2f",
            d->together.rate * 1e-9, s->n * s->span_s, s->span_s, least * 1e-9, most * 1e-9);
    if (bench_sustained_ends(s, &first, &last))
        fprintf(out, "; first tenth %.2f, last %.2f", first * 1e-9, last * 1e-9);
    if (hottest > 0)
        fprintf(out, "; %.0f C", hottest);
    putc('\n', out);
}

// --- all -----------------------------------------------------------------------------------------

static void print_drive(const struct bench_drive *d, FILE *out) {
    print_place(d, out);
    if (d->expert.rate > 0)
        print_rate(d, out);
    if (d->tuned_rate > 0)
        print_choice(d, out);
    print_sustained(d, out);
    struct bench_table tables[BENCH_TABLES];
    bench_tables(d, tables);
    for (int i = 0; i < BENCH_TABLES; i++)
        print_grid(d, &tables[i], out);
    print_latencies(d, out);
    print_variants(d, out);
    if (d->n_skipped > 0)
        fprintf(out,
                "  %" PRIu32 " points were left out: there was no time; --seconds gives more\n",
                d->n_skipped);
    if (d->n_findings > 0)
        fputs("  what slows it, or should be known\n", out);
    for (uint32_t i = 0; i < d->n_findings; i++)
        bullet(out, d->findings[i]);
    putc('\n', out);
}

static void print_together(const struct bench_io *b, FILE *out) {
    double sum = 0, alone = 0, slowest = 0;
    for (uint32_t i = 0; i < b->n_drives; i++) {
        const struct bench_drive *d = &b->drives[i];
        if (d->together.rate <= 0)
            return;
        sum += d->together.rate;
        alone += d->expert.rate;
        slowest = i == 0 || d->together.rate < slowest ? d->together.rate : slowest;
    }
    if (b->n_drives < 2)
        return;
    fprintf(out, "all %" PRIu32 " at once\n", b->n_drives);
    for (uint32_t i = 0; i < b->n_drives; i++)
        fprintf(out, "  %6.2f GB/s  (alone %.2f)  %s\n", b->drives[i].together.rate * 1e-9,
                b->drives[i].expert.rate * 1e-9, b->drives[i].target.path);
    fprintf(out, "  %6.2f GB/s  together, %.0f %% of the sum of each alone\n", sum * 1e-9,
            alone > 0 ? 100 * sum / alone : 0);
    fprintf(out,
            "  With equal shares of the model on each, the slowest decides: %.2f GB/s; with shares "
            "as\n  their rates, all of the sum.\n\n",
            slowest * b->n_drives * 1e-9);
}

static void print_meaning(const struct bench_io *b, FILE *out) {
    struct meaning_model models[MEANING_MODELS];
    double rate = bench_rate(b);
    if (rate <= 0)
        return;
    meaning_models(models);
    fprintf(out, "what %.2f GB/s mean: tokens/s at most, by the share of experts found in memory\n",
            rate * 1e-9);
    fprintf(out, "  %-7s", "hits");
    for (int i = 0; i < MEANING_HITS; i++)
        fprintf(out, "%7.0f%%", meaning_hits[i] * 100);
    fprintf(out, "   full sweep\n");
    for (int m = 0; m < MEANING_MODELS; m++) {
        fprintf(out, "  %-7s", models[m].name);
        for (int i = 0; i < MEANING_HITS; i++)
            fprintf(out, "%8.2f", meaning_tokens_per_s(&models[m], rate, meaning_hits[i]));
        fprintf(out, "%9.0f s\n", meaning_sweep_s(&models[m], rate));
    }
    for (int m = 0; m < MEANING_MODELS; m++)
        fprintf(out, "  %s: a token is %" PRIu32 " experts, %.2f GB; all its experts %.0f GB\n",
                models[m].name, models[m].token_experts, (double)models[m].token_bytes * 1e-9,
                (double)models[m].sweep_bytes * 1e-9);
    fputs(
        "  Hits that others measured: 46-68 % with 15 % of the experts in memory, 81 % with 34 %.\n"
        "  A sweep is what a prefill of many tokens, or a batch for each token, reads once.\n",
        out);
}

static void print_single(const struct bench_io *b, FILE *out) {
    double sum = 0;
    for (uint32_t i = 0; i < b->n_drives; i++) {
        const struct bench_drive *d = &b->drives[i];
        const struct read_result *r = &d->points[0];
        char what[96];
        read_setup_text(&r->setup, what, sizeof what);
        sum += r->rate;
        fprintf(out, "%s\n  %s: %.3f GB/s, %.0f reads/s, %.3f CPU s/GB\n", d->target.name, what,
                r->rate * 1e-9, r->seconds > 0 ? (double)r->n_reads / r->seconds : 0,
                per_gb(r->cpu_s, r->bytes));
        fprintf(out, "  latency: median %s, 90 %% %s, 99 %% %s, 99.9 %% %s, longest %s\n",
                time_words(r->p50_ns).text, time_words(r->p90_ns).text, time_words(r->p99_ns).text,
                time_words(r->p999_ns).text, time_words(r->most_ns).text);
    }
    if (b->n_drives > 1)
        fprintf(out, "together %.3f GB/s\n", sum * 1e-9);
}

void bench_text(const struct bench_io *b, FILE *out) {
    if (b->single) {
        print_single(b, out);
        return;
    }
    for (uint32_t i = 0; i < b->n_drives; i++)
        print_drive(&b->drives[i], out);
    print_together(b, out);
    print_meaning(b, out);
    if (b->interrupted)
        fputs("interrupted: what was measured until then\n", out);
}
