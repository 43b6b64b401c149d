#include "tools/bench/kernels.h"

#include "io/clock.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/limits.h"
#include "src/checkpoint/config_make.h"
#include "tools/bench/kernel_cases.h"
#include "tools/commands.h"
#include "tools/interrupt.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* How an op is timed: windows of it, of reading and of multiplying in turns, since other programs take
 * their share of a machine and its clock moves. An op's share of the limit is taken within a turn; what is
 * reported are medians over turns. */
#define TURNS       7
#define WINDOW_NS   UINT64_C(30000000) /* of an op; a limit's windows take 10 ms */
#define READ_BYTES  ((size_t)256 << 20)
#define PEAK_ROUNDS UINT64_C(1500000)

static const uint32_t rows_measured[] = { 1, 8, 64, 512 };
#define N_ROWS (sizeof rows_measured / sizeof *rows_measured)

struct result {
    double us, read_gbs, peak_gmacs; /* of a call; of the machine, meanwhile */
    double gbs, gmacs;               /* of the op */
    double share;                    /* of the least time that the limits allow */
    bool by_memory;                  /* which of the two is the limit */
};

struct bench {
    const struct options *o;
    struct ops *ops;
    struct bench_memory memory;
    const char *preset;
    json_t *json; /* an array; NULL: a table */
    uint32_t sink;
};

/* --- timing ------------------------------------------------------------------------------------- */

static uint64_t now(void) {
    return clock_now_ns(clock_system());
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Bytes a second. Half of the pool at a time, turn by turn the other half. */
static double read_rate(struct bench *b, uint32_t turn) {
    const unsigned char *pool = (const unsigned char *)(uintptr_t)b->memory.pool.address;
    uint64_t start = now();
    b->sink ^= cpu_read_memory(b->ops, pool + turn % 2 * READ_BYTES, READ_BYTES);
    return (double)READ_BYTES / ((double)(now() - start) * 1e-9);
}

static double peak_rate(struct bench *b) {
    uint64_t start = now();
    double n = (double)cpu_multiply_adds(b->ops, PEAK_ROUNDS);
    return n / ((double)(now() - start) * 1e-9);
}

/* Seconds of one call: as many calls as fill the window. */
static double call_seconds(struct bench *b, const struct bench_case *c, uint32_t n_rows,
                           uint32_t *turn) {
    uint64_t start = now(), taken = 0, n = 0;
    do {
        c->run(&b->memory, n_rows, (*turn)++);
        n++;
        taken = now() - start;
    } while (taken < WINDOW_NS);
    return (double)taken * 1e-9 / (double)n;
}

static struct result measure_case(struct bench *b, const struct bench_case *c, uint32_t n_rows) {
    const struct bench_work work = c->work(b->memory.config, n_rows);
    double seconds[TURNS], read[TURNS], peak[TURNS], share[TURNS];
    uint32_t turn = 0;
    c->run(&b->memory, n_rows, turn++); // pages touched, threads awake
    for (uint32_t i = 0; i < TURNS; i++) {
        read[i] = read_rate(b, i);
        peak[i] = peak_rate(b);
        seconds[i] = call_seconds(b, c, n_rows, &turn);
        double least = work.bytes / read[i], other = work.multiply_adds / peak[i];
        share[i] = (least > other ? least : other) / seconds[i];
    }
    struct result r = { .share = median(share, TURNS) };
    const double s = median(seconds, TURNS);
    r.us = s * 1e6;
    r.gbs = work.bytes / s * 1e-9;
    r.gmacs = work.multiply_adds / s * 1e-9;
    r.read_gbs = median(read, TURNS) * 1e-9;
    r.peak_gmacs = median(peak, TURNS) * 1e-9;
    r.by_memory = work.bytes / r.read_gbs > work.multiply_adds / r.peak_gmacs;
    return r;
}

/* --- what is shown ------------------------------------------------------------------------------- */

static void print_head(const struct bench *b) {
    printf("%s, %s, %u thread%s\n", b->preset, cpu_form_name(b->ops), cpu_thread_count(b->ops),
           cpu_thread_count(b->ops) == 1 ? "" : "s");
    printf("  %-9s %5s %11s %8s %9s  %-20s\n", "op", "rows", "us", "GB/s", "GMAC/s",
           "share of the limit");
}

static void print_result(const struct bench_case *c, uint32_t n_rows, const struct result *r) {
    printf("  %-9s %5u %11.1f %8.1f %9.1f  %3.0f %% of %.*f %s\n", c->name, n_rows, r->us, r->gbs,
           r->gmacs, r->share * 100, r->by_memory ? 1 : 0,
           r->by_memory ? r->read_gbs : r->peak_gmacs, r->by_memory ? "GB/s" : "GMAC/s");
    fflush(stdout);
}

static void keep_result(struct bench *b, const struct bench_case *c, uint32_t n_rows,
                        const struct result *r) {
    json_array_append_new(
        b->json, json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:s}",
                           "preset", b->preset, "op", c->name, "about", c->about, "form",
                           cpu_form_name(b->ops), "threads", (int)cpu_thread_count(b->ops), "rows",
                           (int)n_rows, "us", r->us, "gb_per_s", r->gbs, "gmac_per_s", r->gmacs,
                           "read_gb_per_s", r->read_gbs, "peak_gmac_per_s", r->peak_gmacs, "share",
                           r->share, "limit", r->by_memory ? "memory" : "arithmetic"));
}

/* --- the command ---------------------------------------------------------------------------------- */

static enum status bench_preset(struct bench *b, const char *preset, struct err *err) {
    struct config config;
    size_t n_cases;
    const struct bench_case *cases = bench_cases(&n_cases);
    const struct cpu_options cpu = { .n_threads = b->o->n_threads, .isa = b->o->cpu };
    enum status status = config_preset(&config, preset, err);
    b->preset = preset;
    if (status == OK)
        status = cpu_open(&b->ops, &cpu, err);
    if (status == OK)
        status = bench_memory_open(&b->memory, b->ops, &config, err);
    if (status == OK && !b->json)
        print_head(b);
    for (size_t i = 0; status == OK && i < n_cases; i++) {
        if (b->o->op && strcmp(b->o->op, cases[i].name) != 0)
            continue;
        for (size_t k = 0; status == OK && k < N_ROWS; k++) {
            if (b->o->n_rows && b->o->n_rows != rows_measured[k])
                continue;
            struct result r = measure_case(b, &cases[i], rows_measured[k]);
            if (b->json)
                keep_result(b, &cases[i], rows_measured[k], &r);
            else
                print_result(&cases[i], rows_measured[k], &r);
            if (interrupt_requested(NULL))
                status = err_set(err, CANCELLED, "interrupted");
        }
    }
    ops_close(b->ops);
    b->ops = NULL;
    return status;
}

static enum status check_op(const struct options *o, struct err *err) {
    const char *names[64];
    size_t n;
    const struct bench_case *cases = bench_cases(&n);
    for (size_t i = 0; i < n; i++) {
        names[i] = cases[i].name;
        if (!o->op || strcmp(o->op, cases[i].name) == 0)
            return OK;
    }
    const char *nearest = nearest_word(o->op, names, n);
    return nearest
               ? err_set(err, ERR_USAGE, "--op %s: no such op (did you mean '%s'?)", o->op, nearest)
               : err_set(err, ERR_USAGE, "--op %s: no such op; without --op all are measured",
                         o->op);
}

static int run(const struct options *o) {
    struct bench b = { .o = o, .json = o->json ? json_array() : NULL };
    struct err err = { .status = OK };
    enum status status = check_op(o, &err);
    if (status == OK)
        status = bench_preset(&b, "pro", &err);
    if (status == OK)
        status = bench_preset(&b, "flash", &err);
    if (b.json && (status == OK || status == CANCELLED)) {
        json_dumpf(b.json, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(5));
        putchar('\n');
    }
    json_decref(b.json);
    return command_error(o, &err);
}

const struct command bench_kernels = {
    .name = "bench kernels",
    .bit = COMMAND_BENCH_KERNELS,
    .summary = "the CPU's ops against memory bandwidth and multiply-adds",
    .operands = "",
    .about = "Each op of a layer at the shapes of Pro and Flash, for 1, 8, 64 and 512 rows:\n"
             "its time, and its share of what the machine allows, which is measured in turns\n"
             "with it: the rate at which cores read memory, and at which they multiply and\n"
             "add in registers. Takes some ten seconds for each op, and 1.5 GB of memory.",
    .run = run,
};
