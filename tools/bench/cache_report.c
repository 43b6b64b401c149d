#include "tools/bench/cache.h"
#include "tools/bench/plot.h"

#include <inttypes.h>
#include <jansson.h>

// What others measured of models like V4; what is made was fitted to it.
#define OTHERS_OVERLAP "35-43"
#define OTHERS_LRU_15  "46-68"
#define OTHERS_LRU_34  "81"
#define OTHERS_TOKEN   "0"

static double hit_rate(const struct bench_trace *t, int contender, int size) {
    const struct replay_result *r = &t->results[contender][size];
    return 1 - (double)r->misses / (double)r->accesses;
}

// The default's place among the contenders, and LRU's.
static int place_of(enum policy_kind kind) {
    int c = 0;
    while (replay_contenders[c].belady || replay_contenders[c].policy != kind ||
           replay_contenders[c].per_layer || replay_contenders[c].pinned > 0)
        c++;
    return c;
}

// --- text ----------------------------------------------------------------------------------------

void bench_cache_text(const struct bench_trace *t, FILE *out) {
    fprintf(out,
            "%s\n  %" PRIu32 " layers, %" PRIu32 " of %" PRIu32 " experts; %" PRIu64
            " tokens in %" PRIu64 " steps ask for %" PRIu64 " experts\n",
            t->name, t->n_layers, t->n_chosen, t->n_experts, t->n_rows, t->n_steps, t->n_accesses);
    fprintf(
        out,
        "  a token shares %.0f %% of its experts with the one before (others saw " OTHERS_OVERLAP
        "); LRU finds %.0f %%\n  at 15 %% of the experts (" OTHERS_LRU_15
        "), %.0f %% at 34 %% (" OTHERS_LRU_34 "), %.0f %% just below one token's (" OTHERS_TOKEN
        ");\n  a tenth of the experts has %.0f %% of the uses\n",
        100 * t->overlap, 100 * t->lru_15, 100 * t->lru_34, 100 * t->lru_token, 100 * t->top_tenth);
    fprintf(out, "\n  %-18s", "hits, % (of Belady)");
    for (int i = 0; i < BENCH_SIZES; i++)
        fprintf(out, "%11.0f %%", 100 * bench_sizes[i]);
    fputc('\n', out);
    for (int c = 0; c < REPLAY_CONTENDERS; c++) {
        fprintf(out, "  %-18s ", replay_contenders[c].name);
        for (int i = 0; i < BENCH_SIZES; i++)
            fprintf(out, "%6.1f (%.2f)", 100 * hit_rate(t, c, i), bench_of_belady(t, c, i));
        fputc('\n', out);
    }
    int lru = place_of(POLICY_LRU), ours = place_of(POLICY_DEFAULT), best = REPLAY_CONTENDERS - 1;
    fprintf(out, "  %-18s ", "MB a token");
    for (int i = 0; i < BENCH_SIZES; i++)
        fprintf(out, "%13.4g", bench_bytes_a_row(t, ours, i) * 1e-6);
    fprintf(out, "\n  %-18s ", "  LRU");
    for (int i = 0; i < BENCH_SIZES; i++)
        fprintf(out, "%13.4g", bench_bytes_a_row(t, lru, i) * 1e-6);
    fprintf(out, "\n  %-18s ", "  Belady");
    for (int i = 0; i < BENCH_SIZES; i++)
        fprintf(out, "%13.4g", bench_bytes_a_row(t, best, i) * 1e-6);
    fputs("\n\n", out);
}

// --- JSON ----------------------------------------------------------------------------------------

static json_t *json_trace(const struct bench_trace *t) {
    json_t *sizes = json_array(), *contenders = json_array();
    for (int i = 0; i < BENCH_SIZES; i++)
        json_array_append_new(sizes, json_pack("{sf sI}", "share", bench_sizes[i], "slots",
                                               (json_int_t)t->n_slots[i]));
    for (int c = 0; c < REPLAY_CONTENDERS; c++) {
        json_t *points = json_array();
        for (int i = 0; i < BENCH_SIZES; i++)
            json_array_append_new(
                points, json_pack("{sI sI sf sf sf}", "misses", (json_int_t)t->results[c][i].misses,
                                  "first", (json_int_t)t->results[c][i].first, "hit_rate",
                                  hit_rate(t, c, i), "of_belady", bench_of_belady(t, c, i),
                                  "bytes_a_token", bench_bytes_a_row(t, c, i)));
        json_array_append_new(
            contenders, json_pack("{ss so}", "policy", replay_contenders[c].name, "at", points));
    }
    return json_pack("{ss sI sI sI sI sI sI sI s{sf sf sf sf sf} so so}", "trace", t->name,
                     "layers", (json_int_t)t->n_layers, "experts", (json_int_t)t->n_experts,
                     "chosen", (json_int_t)t->n_chosen, "expert_bytes", (json_int_t)t->expert_bytes,
                     "steps", (json_int_t)t->n_steps, "tokens", (json_int_t)t->n_rows, "accesses",
                     (json_int_t)t->n_accesses, "statistics", "overlap", t->overlap, "top_tenth",
                     t->top_tenth, "lru_15", t->lru_15, "lru_34", t->lru_34, "lru_below_token",
                     t->lru_token, "sizes", sizes, "policies", contenders);
}

bool bench_cache_json(const struct bench_trace *traces, uint32_t n, FILE *out) {
    json_t *list = json_array();
    bool whole = true;
    for (uint32_t i = 0; i < n; i++)
        whole &= json_array_append_new(list, json_trace(&traces[i])) == 0;
    json_t *all = json_pack("{ss so}", "default", policy_name(POLICY_DEFAULT), "traces", list);
    whole = whole && all && json_dumpf(all, out, JSON_INDENT(2)) == 0;
    fputc('\n', out);
    json_decref(all);
    return whole;
}

// --- the page ------------------------------------------------------------------------------------

static void html_table(const struct bench_trace *t, FILE *out) {
    fputs("<table>\n<tr><th>hits, % (misses of Belady's)</th>", out);
    for (int i = 0; i < BENCH_SIZES; i++)
        fprintf(out, "<th>%.0f %%</th>", 100 * bench_sizes[i]);
    fputs("</tr>\n", out);
    for (int c = 0; c < REPLAY_CONTENDERS; c++) {
        fputs("<tr><th>", out);
        plot_text(replay_contenders[c].name, out);
        fputs("</th>", out);
        for (int i = 0; i < BENCH_SIZES; i++)
            fprintf(out, "<td>%.1f (%.2f)</td>", 100 * hit_rate(t, c, i), bench_of_belady(t, c, i));
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void html_statistics(const struct bench_trace *t, FILE *out) {
    fprintf(out,
            "<table>\n<tr><th></th><th>here</th><th>published</th></tr>\n"
            "<tr><th>experts shared with the token before</th><td>%.0f %%</td><td>" OTHERS_OVERLAP
            " %%</td></tr>\n"
            "<tr><th>LRU's hits at 15 %%</th><td>%.0f %%</td><td>" OTHERS_LRU_15 " %%</td></tr>\n"
            "<tr><th>at 34 %%</th><td>%.0f %%</td><td>" OTHERS_LRU_34 " %%</td></tr>\n"
            "<tr><th>just below one token's experts</th><td>%.0f %%</td><td>" OTHERS_TOKEN
            " %%</td></tr>\n"
            "<tr><th>uses of the commonest tenth</th><td>%.0f %%</td><td></td></tr>\n</table>\n",
            100 * t->overlap, 100 * t->lru_15, 100 * t->lru_34, 100 * t->lru_token,
            100 * t->top_tenth);
}

static void html_plots(const struct bench_trace *t, FILE *out) {
    double x[BENCH_SIZES], hits[REPLAY_CONTENDERS][BENCH_SIZES];
    double of[REPLAY_CONTENDERS][BENCH_SIZES];
    _Static_assert(REPLAY_CONTENDERS <= PLOT_SERIES_MAX, "a plot has no more series");
    struct plot rate = { .title = "Experts found in memory",
                         .x_label = "room for % of the experts",
                         .y_label = "%",
                         .n_series = REPLAY_CONTENDERS,
                         .y_most = 100 };
    struct plot ratio = { .title = "Misses, as a multiple of Belady's",
                          .x_label = "room for % of the experts",
                          .n_series = REPLAY_CONTENDERS };
    ratio.y_label = "times";
    for (int c = 0; c < REPLAY_CONTENDERS; c++) {
        for (int i = 0; i < BENCH_SIZES; i++) {
            x[i] = 100 * bench_sizes[i];
            hits[c][i] = 100 * hit_rate(t, c, i);
            of[c][i] = bench_of_belady(t, c, i);
        }
        const char *name = replay_contenders[c].name;
        rate.series[c] = (struct plot_series){ name, x, hits[c], BENCH_SIZES };
        ratio.series[c] = (struct plot_series){ name, x, of[c], BENCH_SIZES };
    }
    fputs("<div class=\"plots\">\n", out);
    plot_svg(&rate, out);
    plot_svg(&ratio, out);
    fputs("</div>\n", out);
}

void bench_cache_html(const struct bench_trace *traces, uint32_t n, FILE *out) {
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<title>sluice bench cache</title>\n<style>\n"
          ":root{color-scheme:light dark;--text:#222;--line:#ddd;--ground:#fff}\n"
          "@media(prefers-color-scheme:dark){:root{--text:#ddd;--line:#444;--ground:#181818}}\n"
          "body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--ground);"
          "max-width:1340px;margin:2em auto;padding:0 1em}\n"
          "table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em .2em 0;"
          "text-align:right}th:first-child{text-align:left}th{font-weight:600}\n"
          ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:1em}\n",
          out);
    plot_style(out);
    fprintf(out,
            "</style>\n</head>\n<body>\n<h1>sluice bench cache</h1>\n<p>sluice %s. Which experts "
            "each policy finds in memory; the default is <b>%s</b>. Belady's knows the future: no "
            "policy can miss less.</p>\n",
            SLUICE_VERSION, policy_name(POLICY_DEFAULT));
    for (uint32_t i = 0; i < n; i++) {
        fputs("<section>\n<h2>", out);
        plot_text(traces[i].name, out);
        fprintf(out, "</h2>\n<p>%" PRIu64 " tokens in %" PRIu64 " steps.</p>\n", traces[i].n_rows,
                traces[i].n_steps);
        html_plots(&traces[i], out);
        html_table(&traces[i], out);
        html_statistics(&traces[i], out);
        fputs("</section>\n", out);
    }
    fputs("</body>\n</html>\n", out);
}
