#include "tests/support/golden.h"

#include "src/checkpoint/safetensors.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct expected {
    struct safetensors st;
    unsigned char *data; // the whole file
};

struct run {
    const struct expected *e;
    const struct config *config;
    enum golden_mode mode;
    uint32_t start; // position of the step's row 0
    uint32_t n_tokens, prompt;
    uint32_t *rows; // positions that partial arrays hold
    uint32_t n_rows;
    double *errors; // [GOLDEN_MAX_ROWS][n_tokens]; -1: not compared
    struct golden_result *out;
    int32_t *experts; // of the layer under way, for the weights that follow
    uint64_t top1;
};

// --- expected files ------------------------------------------------------------------------------

static enum status expected_open(struct expected *e, const char *dir, const char *kind,
                                 struct err *err) {
    char path[4096];
    struct stat info;
    *e = (struct expected){ .data = NULL };
    snprintf(path, sizeof path, "%s/expected.%s.safetensors", dir, kind);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0)
        return err_set(err, ERR_MISSING, "%s: not there", path);
    enum status status = safetensors_read(&e->st, fd, (uint64_t)info.st_size, path, err);
    e->data = malloc((size_t)info.st_size);
    if (status == OK && pread(fd, e->data, (size_t)info.st_size, 0) != info.st_size)
        status = err_set(err, ERR_IO, "%s: cannot be read", path);
    close(fd);
    return status;
}

static void expected_close(struct expected *e) {
    safetensors_close(&e->st);
    free(e->data);
}

static const void *find(const struct expected *e, const char *name, uint32_t *n_rows,
                        uint32_t *width) {
    *n_rows = *width = 0;
    const struct safetensors_tensor *t = safetensors_find(&e->st, name);
    if (!t)
        return NULL;
    *n_rows = (uint32_t)t->shape[0];
    *width = 1;
    for (uint32_t i = 1; i < t->n_dims; i++)
        *width *= (uint32_t)t->shape[i];
    return e->data + t->offset;
}

static void block_name(const struct run *r, uint32_t layer, const char *what, char *out,
                       size_t bytes) {
    if (layer < r->config->n_layers)
        snprintf(out, bytes, "layers.%u.%s", layer, what);
    else
        snprintf(out, bytes, "mtp.%u.%s", layer - r->config->n_layers, what);
}

// Row of an expected array for a position; -1: that position is not in it. Arrays over fewer
// positions hold 0, 1, P-2 … P+1, those of the draft block P-2, P-1.
static int row_of(const struct run *r, uint32_t n_rows, uint32_t position) {
    if (n_rows > 6 || n_rows == r->n_tokens)
        return position < n_rows ? (int)position : -1;
    uint32_t first = r->prompt - 2;
    if (n_rows == 2)
        return position >= first && position < r->prompt ? (int)(position - first) : -1;
    if (position < 2)
        return (int)position;
    return position >= first && position < first + 4 ? (int)(position - first + 2) : -1;
}

// --- measuring -----------------------------------------------------------------------------------

static uint32_t measure_row(struct run *r, const char *name, bool is_head) {
    struct golden_result *out = r->out;
    for (uint32_t i = 0; i < out->n_rows; i++)
        if (strcmp(out->rows[i].name, name) == 0)
            return i;
    struct golden_measure *m = &out->rows[out->n_rows];
    *m = (struct golden_measure){ .is_head = is_head };
    snprintf(m->name, sizeof m->name, "%s", name);
    return out->n_rows++;
}

static double distance(const float *a, const float *b, uint32_t n) {
    double difference = 0, size = 0;
    for (uint32_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return isfinite(difference) ? sqrt(difference / size) : INFINITY;
}

static void compare(struct run *r, const char *name, bool is_head, uint32_t position,
                    const float *got, const float *want, uint32_t width) {
    uint32_t row = measure_row(r, name, is_head);
    r->errors[row * r->n_tokens + position] = distance(got, want, width);
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

// Does a row name the same set? `got` and `want` are sorted here.
static bool same_set(struct run *r, int32_t *got, int32_t *want, uint32_t width) {
    qsort(got, width, sizeof *got, ascending);
    qsort(want, width, sizeof *want, ascending);
    bool same = memcmp(got, want, width * sizeof *got) == 0;
    r->out->sets++;
    r->out->sets_equal += same;
    return same;
}

static void compare_sets(struct run *r, const char *name, uint32_t n, uint32_t width,
                         const int32_t *data) {
    uint32_t n_rows, want_width;
    const int32_t *want = find(r->e, name, &n_rows, &want_width);
    for (uint32_t i = 0; want && i < n; i++) {
        int row = row_of(r, n_rows, r->start + i);
        if (row < 0 || want_width != width)
            continue;
        int32_t a[2048], b[2048];
        memcpy(a, data + i * width, width * sizeof *a);
        memcpy(b, want + (uint32_t)row * width, width * sizeof *b);
        same_set(r, a, b, width);
    }
}

// Weights by expert, where the sets agree: the reference lists experts in its own order.
static void compare_weights(struct run *r, uint32_t layer, uint32_t n, uint32_t K,
                            const float *got) {
    char name[64];
    uint32_t n_rows, width;
    block_name(r, layer, "route_experts", name, sizeof name);
    const int32_t *ids = find(r->e, name, &n_rows, &width);
    block_name(r, layer, "route_weights", name, sizeof name);
    const float *want = find(r->e, name, &n_rows, &width);
    for (uint32_t i = 0; ids && want && i < n; i++) {
        int row = row_of(r, n_rows, r->start + i);
        for (uint32_t k = 0; row >= 0 && k < K; k++)
            for (uint32_t j = 0; j < K; j++) {
                double difference = fabs((double)got[i * K + k] - want[(uint32_t)row * K + j]);
                if (r->experts[i * K + k] == ids[(uint32_t)row * K + j] &&
                    difference > r->out->weights_largest)
                    r->out->weights_largest = difference;
            }
    }
}

// --- the tap -------------------------------------------------------------------------------------

static bool wants(void *context, uint32_t layer, enum tap_point point) {
    struct run *r = context;
    (void)layer;
    if (point == TAP_STREAMS || point == TAP_ROUTE_EXPERTS || point == TAP_ROUTE_WEIGHTS ||
        point == TAP_INDEX_CHOSEN)
        return true;
    return r->mode == GOLDEN_LAYERS;
}

static bool see(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                uint32_t n_rows, uint32_t width, void *data) {
    static const char *const what[] = { "hidden",  "attn_in",       "attn_out",      "ffn_in",
                                        "ffn_out", "route_experts", "route_weights", "index_topk" };
    struct run *r = context;
    char name[64];
    if (layer == TAP_EMBEDDING)
        return false;
    block_name(r, layer, what[point], name, sizeof name);
    if (point == TAP_ROUTE_EXPERTS || point == TAP_INDEX_CHOSEN) {
        r->start += first_row;
        compare_sets(r, name, n_rows, width, data);
        r->start -= first_row;
        if (point == TAP_ROUTE_EXPERTS) {
            r->experts = realloc(r->experts, (size_t)n_rows * width * sizeof *r->experts);
            memcpy(r->experts, data, (size_t)n_rows * width * sizeof *r->experts);
        }
        return false;
    }
    if (point == TAP_ROUTE_WEIGHTS) {
        compare_weights(r, layer, n_rows, width, data);
        return false;
    }
    uint32_t want_rows, want_width;
    const float *want = find(r->e, name, &want_rows, &want_width);
    for (uint32_t i = 0; want && i < n_rows; i++) {
        int row = row_of(r, want_rows, r->start + first_row + i);
        float *got = (float *)data + (size_t)i * width;
        if (row < 0)
            continue;
        compare(r, name, point != TAP_STREAMS, r->start + first_row + i, got,
                want + (size_t)row * width, width);
        if (r->mode == GOLDEN_LAYERS && point == TAP_STREAMS)
            memcpy(got, want + (size_t)row * width, width * sizeof *got);
    }
    return r->mode == GOLDEN_LAYERS && point == TAP_STREAMS;
}

static uint32_t argmax(const float *x, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void see_logits(void *context, uint32_t row, bool draft, const float *logits) {
    struct run *r = context;
    uint32_t n_rows, width;
    const char *name = draft ? "mtp.logits" : "logits";
    const float *want = find(r->e, name, &n_rows, &width);
    int at = want ? row_of(r, n_rows, r->start + row) : -1;
    if (at < 0)
        return;
    compare(r, name, true, r->start + row, logits, want + (size_t)at * width, width);
    if (!draft)
        r->top1 += argmax(logits, width) == argmax(want + (size_t)at * width, width);
}

// --- running -------------------------------------------------------------------------------------

static enum status feed(struct run *r, struct sluice *engine, uint32_t chunk, struct err *err) {
    struct sequence *sequence = NULL;
    struct step *step = NULL;
    uint32_t n, width;
    const int32_t *tokens = find(r->e, "tokens", &n, &width);
    struct tap tap = { r, wants, see };
    enum status status = sluice_sequence(engine, &sequence, err);
    if (status == OK)
        status = step_open(&step, engine, err);
    for (uint32_t at = 0; at < n && status == OK;) {
        bool draft = at < r->prompt && sluice_has_draft(engine);
        uint32_t end = at < r->prompt ? r->prompt : n;
        uint32_t rows = end - at < chunk ? end - at : chunk;
        struct span span = { .sequence = sequence,
                             .tokens = tokens + at,
                             .n_tokens = rows,
                             .n_logits = rows,
                             .next_token = at + rows < n ? tokens[at + rows] : -1 };
        struct step_options options = {
            .draft = draft, .logits = see_logits, .context = r, .tap = &tap
        };
        r->start = at;
        status = step_begin(step, &span, 1, &options, err);
        if (status == OK)
            status = step_run(step, NULL, NULL, err);
        if (status == OK)
            step_commit(step);
        at += rows;
    }
    step_close(step);
    sequence_close(sequence);
    return status;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double share_below(const double *errors, uint32_t n, double bound) {
    uint32_t below = 0;
    for (uint32_t i = 0; i < n; i++)
        below += errors[i] < bound;
    return n ? (double)below / n : 0;
}

static void summarize(struct run *r) {
    struct golden_result *out = r->out;
    double *all = malloc((size_t)out->n_rows * r->n_tokens * sizeof *all + 1);
    uint32_t n_all = 0, n_logits = 0;
    for (uint32_t row = 0; row < out->n_rows; row++) {
        struct golden_measure *m = &out->rows[row];
        double *errors = r->errors + (size_t)row * r->n_tokens;
        for (uint32_t i = 0; i < r->n_tokens; i++)
            if (errors[i] >= 0)
                errors[m->n++] = errors[i];
        if (!m->is_head)
            memcpy(all + n_all, errors, m->n * sizeof *all), n_all += m->n;
        if (strcmp(m->name, "logits") == 0)
            n_logits = m->n;
        qsort(errors, m->n, sizeof *errors, by_size);
        m->median = m->n ? errors[m->n / 2] : 0;
        m->largest = m->n ? errors[m->n - 1] : 0;
        m->share_1e5 = share_below(errors, m->n, 1e-5);
    }
    qsort(all, n_all, sizeof *all, by_size);
    out->median = n_all ? all[n_all / 2] : 0;
    out->largest = n_all ? all[n_all - 1] : 0;
    out->share_1e5 = share_below(all, n_all, 1e-5);
    out->top1 = n_logits ? (double)r->top1 / n_logits : 0;
    free(all);
}

enum status golden_run(const char *dir, enum golden_mode mode, uint32_t chunk,
                       struct golden_result *out, struct err *err) {
    static const char *const kinds[] = { "exact", "fp32", "fp32", "bf16" };
    struct expected e;
    struct sluice *engine = NULL;
    char path[4096];
    *out = (struct golden_result){ 0 };
    enum status status = expected_open(&e, dir, kinds[mode], err);
    const char *dirs[] = { path };
    snprintf(path, sizeof path, "%s/checkpoint", dir);
    if (status == OK) {
        struct sluice_options options = { .dirs = dirs,
                                          .n_dirs = 1,
                                          .ram_bytes = 2ull << 30,
                                          .ctx = 1024,
                                          .exact = mode == GOLDEN_EXACT,
                                          .drafts = true };
        status = sluice_open(&engine, &options, err);
    }
    if (status == OK) {
        uint32_t n, width;
        const char *prompt = safetensors_metadata(&e.st, "prompt");
        find(&e, "tokens", &n, &width);
        struct run r = { .e = &e,
                         .config = sluice_config(engine),
                         .mode = mode,
                         .n_tokens = n,
                         .prompt = prompt ? (uint32_t)atoi(prompt) : n,
                         .out = out };
        out->n_tokens = n;
        out->prompt = r.prompt;
        r.errors = malloc(sizeof *r.errors * GOLDEN_MAX_ROWS * n);
        for (size_t i = 0; i < (size_t)GOLDEN_MAX_ROWS * n; i++)
            r.errors[i] = -1;
        status = feed(&r, engine, chunk, err);
        if (status == OK)
            summarize(&r);
        free(r.errors);
        free(r.experts);
    }
    sluice_close(engine);
    expected_close(&e);
    return status;
}

const char *golden_verdict(enum golden_mode mode, const struct golden_result *r) {
    double sets = r->sets ? (double)r->sets_equal / (double)r->sets : 0;
    if (r->n_rows == 0 || r->sets == 0)
        return "nothing was compared";
    if (mode == GOLDEN_EXACT) {
        for (uint32_t i = 0; i < r->n_rows; i++)
            if (!(r->rows[i].largest < 1e-5))
                return "exact: an error of 1e-5 or more";
        return r->sets_equal == r->sets ? NULL : "exact: a set of experts or entries differs";
    }
    if (mode != GOLDEN_LAYERS)
        return NULL;
    if (!(r->median < 1e-6))
        return "layers: the median is not below 1e-6";
    if (!(r->share_1e5 >= 0.75))
        return "layers: less than 75 % of positions below 1e-5";
    if (!(r->largest < 1e-1))
        return "layers: an error of 1e-1 or more";
    if (!(sets >= 0.99))
        return "layers: less than 99 % of sets equal";
    for (uint32_t i = 0; i < r->n_rows; i++) {
        bool logits = strstr(r->rows[i].name, "logits") != NULL;
        if (!r->rows[i].is_head && !(r->rows[i].share_1e5 >= 0.60))
            return "layers: a layer with less than 60 % of positions below 1e-5";
        if (logits && !(r->rows[i].largest < 1e-5))
            return "layers: head above 1e-5";
    }
    return NULL;
}
