#include "tools/progress.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define SECOND_NS   1000000000ull
#define FIRST_NS    (SECOND_NS / 2)  /* what is done sooner needs no progress */
#define REDRAW_NS   (SECOND_NS / 10) /* faster than that cannot be read */
#define RATE_NS     (SECOND_NS / 4)  /* a rate is taken over at least this long */
#define RATE_FADE_S 5.0              /* and fades with this time constant: steady, yet it follows */

void progress_start(struct progress *p, const char *label, enum progress_unit unit, uint64_t total,
                    const struct terminal *terminal, const struct clock *clock, FILE *out) {
    uint64_t now = clock_now_ns(clock);
    *p = (struct progress){
        .terminal = terminal,
        .clock = clock,
        .out = out,
        .label = label,
        .unit = unit,
        .total = total,
        .start_ns = now,
        .rate_ns = now,
    };
}

/* Exponential smoothing that does not depend on how often it is called. */
static void rate_update(struct progress *p, uint64_t done, uint64_t now) {
    if (now - p->rate_ns < RATE_NS || done < p->rate_done)
        return;
    double seconds = (double)(now - p->rate_ns) / SECOND_NS;
    double rate = (double)(done - p->rate_done) / seconds;
    double keep = p->rate > 0 ? exp(-seconds / RATE_FADE_S) : 0;
    p->rate = keep * p->rate + (1 - keep) * rate;
    p->rate_ns = now;
    p->rate_done = done;
}

void progress_update(struct progress *p, uint64_t done) {
    uint64_t now = clock_now_ns(p->clock);
    rate_update(p, done, now);
    if (!p->terminal->is_terminal || now - p->start_ns < FIRST_NS ||
        (p->drawn && now - p->drawn_ns < REDRAW_NS))
        return;
    char line[256];
    progress_line(p, done, terminal_columns(p->terminal), line, sizeof line);
    if (p->terminal->escapes)
        fprintf(p->out, "\r%s%s%s\x1b[K", terminal_dim(p->terminal), line,
                terminal_plain(p->terminal));
    else // no escape to erase with: pad with blanks
        fprintf(p->out, "\r%-*s", (int)terminal_columns(p->terminal) - 1, line);
    fflush(p->out);
    p->drawn = true;
    p->drawn_ns = now;
}

void progress_clear(struct progress *p) {
    if (!p->drawn)
        return;
    if (p->terminal->escapes)
        fputs("\r\x1b[K", p->out);
    else
        fprintf(p->out, "\r%*s\r", (int)terminal_columns(p->terminal) - 1, "");
    fflush(p->out);
    p->drawn = false;
}

/* --- the line --------------------------------------------------------------------------------- */

/* 1234567 as "1,234,567". */
static void count_format(uint64_t value, char *out, size_t out_bytes) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRIu64, value);
    size_t at = 0;
    for (int i = 0; i < n && at + 2 < out_bytes; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

/* 83 s as "1:23", 7384 s as "2:03:04". */
static void time_format(double seconds, char *out, size_t out_bytes) {
    if (!(seconds < 1e6)) {
        snprintf(out, out_bytes, "days");
        return;
    }
    unsigned s = (unsigned)(seconds + 0.5);
    if (s < 3600)
        snprintf(out, out_bytes, "%u:%02u", s / 60, s % 60);
    else
        snprintf(out, out_bytes, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
}

static const char *unit_word(enum progress_unit unit) {
    return unit == PROGRESS_TOKENS ? "tokens" : "files";
}

static void amount_item(const struct progress *p, uint64_t done, char *out, size_t out_bytes) {
    if (p->unit == PROGRESS_BYTES) {
        double total = (double)p->total / 1e9, now = (double)done / 1e9;
        if (p->total)
            snprintf(out, out_bytes, "%.2f of %.2f GB", now, total);
        else
            snprintf(out, out_bytes, "%.2f GB", now);
        return;
    }
    char now[32], total[32];
    count_format(done, now, sizeof now);
    count_format(p->total, total, sizeof total);
    if (p->total)
        snprintf(out, out_bytes, "%s of %s %s", now, total, unit_word(p->unit));
    else
        snprintf(out, out_bytes, "%s %s", now, unit_word(p->unit));
}

static void rate_item(const struct progress *p, char *out, size_t out_bytes) {
    if (p->rate <= 0)
        return;
    if (p->unit == PROGRESS_BYTES)
        snprintf(out, out_bytes, "%.2f GB/s", p->rate / 1e9);
    else
        snprintf(out, out_bytes, p->rate < 10 ? "%.2f %s/s" : "%.1f %s/s", p->rate,
                 unit_word(p->unit));
}

static void left_item(const struct progress *p, uint64_t done, char *out, size_t out_bytes) {
    if (p->rate <= 0 || p->total <= done)
        return;
    char time[32];
    time_format((double)(p->total - done) / p->rate, time, sizeof time);
    snprintf(out, out_bytes, "%s left", time);
}

void progress_line(const struct progress *p, uint64_t done, uint32_t columns, char *out,
                   size_t out_bytes) {
    char amount[96] = "", percent[16] = "", rate[32] = "", left[48] = "";
    amount_item(p, done, amount, sizeof amount);
    if (p->total)
        snprintf(percent, sizeof percent, "%.0f %%",
                 floor(100.0 * (double)done / (double)p->total));
    rate_item(p, rate, sizeof rate);
    left_item(p, done, left, sizeof left);
    const char *items[] = { p->label, amount, percent, rate, left };
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        size_t length = strlen(items[i]), gap = at ? 2 : 0;
        if (length == 0)
            continue;
        if (at + gap + length + 1 > columns || at + gap + length + 1 > out_bytes)
            break;
        memcpy(out + at, "  ", gap);
        memcpy(out + at + gap, items[i], length + 1);
        at += gap + length;
    }
}
