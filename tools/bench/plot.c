#include "tools/bench/plot.h"

#include <math.h>

#define WIDTH  640
#define HEIGHT 320
#define LEFT   64
#define RIGHT  150 // the names of the lines
#define TOP    34
#define BOTTOM 46

struct axis {
    double least, most;
    bool log;        // positions by logarithm
    double at0, at1; // pixels
};

static double position(const struct axis *a, double value) {
    double from = a->least, to = a->most;
    if (a->log) {
        from = log2(from);
        to = log2(to);
        value = log2(value);
    }
    return a->at0 + (value - from) / (to - from) * (a->at1 - a->at0);
}

// 1, 2 or 5 times a power of ten, so that there are four to ten of them.
static double round_step(double span) {
    double step = pow(10, floor(log10(span / 4)));
    if (span / step > 20)
        return 5 * step;
    return span / step > 10 ? 2 * step : step;
}

static bool fits(const struct axis *a, double value) {
    return isfinite(value) && (!a->log || value > 0);
}

static void range(const struct plot *p, bool of_y, double *least, double *most, bool log) {
    *least = INFINITY;
    *most = -INFINITY;
    for (uint32_t s = 0; s < p->n_series; s++)
        for (uint32_t i = 0; i < p->series[s].n; i++) {
            double v = of_y ? p->series[s].y[i] : p->series[s].x[i];
            if (!isfinite(v) || (log && v <= 0))
                continue;
            *least = fmin(*least, v);
            *most = fmax(*most, v);
        }
    if (*least > *most) {
        *least = log ? 1 : 0;
        *most = log ? 2 : 1;
    }
}

static struct axis x_axis(const struct plot *p) {
    struct axis a = { .log = p->log_x, .at0 = LEFT, .at1 = WIDTH - RIGHT };
    range(p, false, &a.least, &a.most, a.log);
    if (!(a.most > a.least))
        a.most = a.log ? a.least * 2 : a.least + 1;
    return a;
}

static struct axis y_axis(const struct plot *p) {
    struct axis a = { .log = p->log_y, .at0 = HEIGHT - BOTTOM, .at1 = TOP };
    range(p, true, &a.least, &a.most, a.log);
    if (p->y_most > 0)
        a.most = p->y_most;
    if (a.log) {
        a.least = pow(10, floor(log10(a.least)));
        a.most = pow(10, ceil(log10(a.most)));
        a.most = a.most > a.least ? a.most : a.least * 10;
    } else {
        a.least = 0;
        a.most = a.most > 0 ? a.most : 1;
        double step = round_step(a.most);
        a.most = ceil(a.most / step - 1e-9) * step;
    }
    return a;
}

// --- marks ---------------------------------------------------------------------------------------

static void y_mark(const struct axis *y, double value, FILE *out) {
    double at = position(y, value);
    fprintf(out,
            "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
            "<text class=\"mark\" text-anchor=\"end\" x=\"%d\" y=\"%.1f\">%.6g</text>\n",
            LEFT, at, WIDTH - RIGHT, at, LEFT - 6, at + 4, value);
}

static void x_mark(const struct axis *x, double value, FILE *out) {
    double at = position(x, value);
    fprintf(out,
            "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>"
            "<text class=\"mark\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">%.6g</text>\n",
            at, TOP, at, HEIGHT - BOTTOM, at, HEIGHT - BOTTOM + 16, value);
}

static void marks(const struct axis *x, const struct axis *y, FILE *out) {
    if (y->log) {
        for (double v = y->least; v <= y->most * 1.001; v *= 10)
            y_mark(y, v, out);
    } else {
        double step = round_step(y->most);
        for (int i = 0; i * step <= y->most * 1.001; i++)
            y_mark(y, i * step, out);
    }
    if (x->log) {
        for (double v = exp2(ceil(log2(x->least) - 1e-9)); v <= x->most * 1.001; v *= 2)
            x_mark(x, v, out);
    } else {
        double step = round_step(x->most - x->least);
        for (double v = ceil(x->least / step) * step; v <= x->most + step * 1e-3; v += step)
            x_mark(x, v, out);
    }
}

// --- lines ---------------------------------------------------------------------------------------

static void line(const struct plot *p, uint32_t s, const struct axis *x, const struct axis *y,
                 FILE *out) {
    const struct plot_series *series = &p->series[s];
    fprintf(out, "<polyline class=\"line c%u\" points=\"", s);
    for (uint32_t i = 0; i < series->n; i++)
        if (fits(x, series->x[i]) && fits(y, series->y[i]))
            fprintf(out, "%.1f,%.1f ", position(x, series->x[i]),
                    fmax(position(y, series->y[i]), TOP));
    fputs("\"/>\n", out);
    if (series->n <= 24) // where they can be told apart, each with its figures
        for (uint32_t i = 0; i < series->n; i++) {
            if (!fits(x, series->x[i]) || !fits(y, series->y[i]) || series->y[i] > y->most)
                continue;
            fprintf(out, "<circle class=\"dot c%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", s,
                    position(x, series->x[i]), position(y, series->y[i]));
            plot_text(series->name, out);
            fprintf(out, ": %.6g, %.6g</title></circle>\n", series->x[i], series->y[i]);
        }
    int at = TOP + 12 + 18 * (int)s;
    fprintf(out,
            "<line class=\"line c%u\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>"
            "<text class=\"name\" x=\"%d\" y=\"%d\">",
            s, WIDTH - RIGHT + 12, at, WIDTH - RIGHT + 32, at, WIDTH - RIGHT + 38, at + 4);
    plot_text(series->name, out);
    fputs("</text>\n", out);
}

void plot_svg(const struct plot *p, FILE *out) {
    struct axis x = x_axis(p), y = y_axis(p);
    fprintf(out, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\"><title>", WIDTH, HEIGHT);
    plot_text(p->title, out);
    fputs("</title>\n", out);
    marks(&x, &y, out);
    fprintf(out, "<text class=\"title\" x=\"%d\" y=\"20\">", LEFT);
    plot_text(p->title, out);
    fprintf(out, "</text>\n<text class=\"name\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10);
    plot_text(p->x_label, out);
    fprintf(out,
            "</text>\n<text class=\"name\" text-anchor=\"middle\" transform=\"translate(16 %d) "
            "rotate(-90)\">",
            (TOP + HEIGHT - BOTTOM) / 2);
    plot_text(p->y_label, out);
    fputs("</text>\n", out);
    for (uint32_t s = 0; s < p->n_series; s++)
        line(p, s, &x, &y, out);
    fputs("</svg>\n", out);
}

void plot_style(FILE *out) {
    // Okabe and Ito's colours, which can be told apart with any eyes; on dark ground the black one
    // would not be seen.
    static const char *const colours[PLOT_SERIES_MAX] = { "#0072b2", "#d55e00", "#009e73",
                                                          "#cc79a7", "#e69f00", "#56b4e9",
                                                          "#8c6d46", "#888888" };
    fputs(".plot{width:100%;max-width:640px;height:auto}\n"
          ".plot text{fill:var(--text);font:12px system-ui,sans-serif}\n"
          ".plot .title{font-weight:600;font-size:13px}\n"
          ".plot .grid{stroke:var(--line);stroke-width:1}\n"
          ".plot .line{fill:none;stroke-width:2}\n",
          out);
    for (int i = 0; i < PLOT_SERIES_MAX; i++)
        fprintf(out, ".plot .line.c%d{stroke:%s}.plot .dot.c%d{fill:%s}\n", i, colours[i], i,
                colours[i]);
}

void plot_text(const char *text, FILE *out) {
    for (const char *c = text; *c; c++)
        switch (*c) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            putc(*c, out);
        }
}
