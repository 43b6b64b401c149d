/* tools/bench/plot.h - plots as SVG, for pages that need nothing from elsewhere.
 *
 * Lines over an axis that is linear or by powers of two; both axes begin and end at round numbers.
 * Colours are CSS variables of the page (plot_style), so that it follows the reader's light or dark
 * setting. */
#ifndef SLUICE_TOOLS_BENCH_PLOT_H
#define SLUICE_TOOLS_BENCH_PLOT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLOT_SERIES_MAX 8

struct plot_series {
    const char *name;
    const double *x, *y; /* [n]; x ascending */
    uint32_t n;
};

struct plot {
    const char *title, *x_label, *y_label;
    struct plot_series series[PLOT_SERIES_MAX];
    uint32_t n_series;
    bool log_x;    /* x at powers of two: 1, 2, 4, … */
    bool log_y;    /* y by decades */
    double y_most; /* the end of the axis; 0: what the data need */
};

void plot_svg(const struct plot *plot, FILE *out);

/* The CSS that plots need, for the page's <style>. */
void plot_style(FILE *out);

/* Text into HTML or SVG: < > & " are written so that they mean themselves. */
void plot_text(const char *text, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
