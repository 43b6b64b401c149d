#include "tools/engine.h"

#include "tools/drive_tuning.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// More than any context holds; so an endless file ends.
#define TEXT_MAX (256u << 20)

// --- open ----------------------------------------------------------------------------------------

static bool show_progress(void *context, const char *what, uint64_t done, uint64_t total) {
    struct engine *e = context;
    if (e->progress.label != what) {
        progress_clear(&e->progress);
        progress_start(&e->progress, what, PROGRESS_BYTES, total, &e->terminal, clock_system(),
                       stderr);
    }
    progress_update(&e->progress, done);
    return !interrupt_requested(NULL);
}

static void print_notes(const char *notes) {
    while (*notes) {
        size_t n = strcspn(notes, "\n");
        if (n)
            fprintf(stderr, "note: %.*s\n", (int)n, notes);
        notes += n + (notes[n] == '\n');
    }
}

enum status find_tokenizer(const struct model_dirs *dirs, struct tokenizer **out, struct err *err) {
    char path[4096];
    for (uint32_t i = 0; i < dirs->n; i++) {
        snprintf(path, sizeof path, "%s/tokenizer.json", dirs->dirs[i]);
        if (access(path, F_OK) == 0)
            return tokenizer_open(out, path, err);
    }
    return err_set(err, ERR_MISSING, "%s: no tokenizer.json there: text cannot be read or written",
                   dirs->dirs[0]);
}

/* Where a shell closed one of the first three descriptors (`>&-`), the next file that is opened
 * would get its number, and text or messages would be written into it. Now they fail instead. */
static void occupy_standard_descriptors(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDONLY); // not for writing: a text that goes nowhere is an error
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

static enum status start_recording(struct engine *e, struct err *err) {
    const struct config *c = sluice_config(e->sluice);
    struct account_report now;
    struct routing_header header;
    sluice_report(e->sluice, &now);
    routing_header_init(&header, c, c->n_layers + sluice_has_draft(e->sluice), now.expert_bytes);
    return routing_writer_start(e->routing, &header, step_max_rows(e->step), err);
}

enum status engine_open(struct engine *e, const struct options *o, bool with_tokenizer,
                        bool with_draft, struct err *err) {
    e->options = o;
    occupy_standard_descriptors();
    terminal_open(&e->terminal, STDERR_FILENO, &o->environment);
    // Now, not after hours of work that it was to be the account of.
    if (o->stats && !(e->stats = fopen(o->stats, "we")))
        return err_set(err, ERR_IO, "%s: cannot be made: %s", o->stats, strerror(errno));
    if (o->record_routing && routing_writer_open(&e->routing, o->record_routing, err) != OK)
        return err->status;
    struct trace_file_options timeline = { .clock = clock_system() };
    if (o->trace && trace_file_open(&e->trace, o->trace, &timeline, err) != OK)
        return err->status;
    if (model_dirs_open(&e->dirs, o, &o->models, err) != OK)
        return err->status;
    if (with_tokenizer && find_tokenizer(&e->dirs, &e->tokenizer, err) != OK)
        return err->status;
    if (drive_tuning(o, &e->dirs, &e->read_chunk_bytes, &e->read_depth, err) != OK)
        return err->status;
    struct sluice_options options = {
        .dirs = e->dirs.dirs,
        .n_dirs = e->dirs.n,
        .ram_bytes = o->ram_bytes,
        .n_threads = o->n_threads,
        .cpu = o->cpu,
        .io = o->io,
        .forbid_uring = o->io_engine == IO_ENGINE_PREAD,
        .read_chunk_bytes = e->read_chunk_bytes,
        .read_depth = e->read_depth,
        .prefetch = o->prefetch,
        .ctx = o->ctx,
        .chunk = o->chunk,
        .exact = o->exact,
        .drafts = with_draft,
        .n_sequences = e->n_sequences,
        .n_narrow_steps = e->n_narrow_steps,
        .trace = e->trace ? trace_file_trace(e->trace) : e->record,
        .progress = show_progress,
        .context = e,
    };
    enum status status = sluice_open(&e->sluice, &options, err);
    progress_clear(&e->progress);
    if (status != OK)
        return status;
    print_notes(sluice_notes(e->sluice));
    status = step_open(&e->step, e->sluice, err);
    if (status == OK && e->routing)
        status = start_recording(e, err);
    const struct config *c = sluice_config(e->sluice);
    if (status == OK && e->trace)
        status = trace_file_start(e->trace, c->n_layers, c->n_experts, err);
    return status;
}

void engine_close(struct engine *e) {
    step_close(e->step);
    sluice_close(e->sluice);
    tokenizer_close(e->tokenizer);
    model_dirs_close(&e->dirs);
    routing_writer_close(e->routing);
    trace_file_close(e->trace); // after the engine, which records in it
    if (e->stats)
        fclose(e->stats);
}

// --- text ----------------------------------------------------------------------------------------

enum status read_text(const char *path, char **text, size_t *n_bytes, struct err *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    *text = NULL;
    *n_bytes = 0;
    if (!file)
        return err_set(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: cannot be opened: %s",
                       name, strerror(errno));
    enum status status = OK;
    size_t capacity = 0;
    while (status == OK) {
        if (interrupt_requested(NULL)) { // a file may have no end
            status = err_set(err, CANCELLED, "%s: interrupted", name);
            break;
        }
        if (capacity >= TEXT_MAX) {
            status = err_set(err, ERR_INPUT, "%s: over %u MiB: nothing that could be a prompt",
                             name, TEXT_MAX >> 20);
            break;
        }
        if (*n_bytes == capacity) {
            capacity = capacity ? capacity * 2 : 64 << 10;
            char *larger = realloc(*text, capacity + 1);
            if (!larger) {
                status = err_set(err, ERR_MEMORY, "%s: no memory for %zu bytes", name, capacity);
                break;
            }
            *text = larger;
        }
        *n_bytes += fread(*text + *n_bytes, 1, capacity - *n_bytes, file);
        if (*n_bytes < capacity) // the end, or an error: asking again would wait again
            break;
    }
    int why = errno;
    if (status == OK && ferror(file))
        // Ctrl-C instead of a text is no failure.
        status = why == EINTR && interrupt_requested(NULL)
                     ? err_set(err, CANCELLED, "%s: interrupted", name)
                     : err_set(err, ERR_IO, "%s: cannot be read: %s", name, strerror(why));
    if (!is_stdin)
        fclose(file);
    if (status != OK) {
        free(*text);
        *text = NULL;
    } else {
        (*text)[*n_bytes] = 0;
    }
    return status;
}

enum status check_tokens(const struct engine *e, const struct token_ids *ids, struct err *err) {
    const struct config *c = sluice_config(e->sluice);
    for (size_t i = 0; i < ids->n; i++)
        if (ids->id[i] >= c->vocab)
            return err_set(err, ERR_INPUT,
                           "%s: the tokenizer has token %u, the model a vocabulary of %u: they do "
                           "not belong together",
                           e->dirs.dirs[0], ids->id[i], c->vocab);
    return OK;
}

enum status encode_raw(const struct engine *e, const char *text, size_t n_bytes, int32_t **tokens,
                       uint32_t *n_tokens, struct err *err) {
    const struct config *c = sluice_config(e->sluice);
    struct token_ids ids = { 0 };
    *tokens = NULL;
    if (c->bos_token < 0)
        return err_set(err, ERR_INPUT, "%s: config.json names no bos_token_id to begin a text with",
                       e->dirs.dirs[0]);
    enum status status = token_ids_push(&ids, (uint32_t)c->bos_token, err);
    if (status == OK)
        status = tokenizer_encode(e->tokenizer, text, n_bytes, TOKENIZER_PLAIN, &ids, err);
    if (status == OK)
        status = check_tokens(e, &ids, err);
    if (status != OK) {
        token_ids_free(&ids);
        return status;
    }
    *tokens = (int32_t *)ids.id; // ids are below 2^20: the same bits either way
    *n_tokens = (uint32_t)ids.n;
    return OK;
}

// --- account -------------------------------------------------------------------------------------

static void report(struct engine *e, struct account_report *out) {
    sluice_report(e->sluice, out);
    account_process(out, "/proc/self");
    out->ram_bytes = e->options->ram_bytes;
}

void engine_account_text(struct engine *e) {
    struct account_report now;
    char text[8192];
    report(e, &now);
    account_text(&now, text, sizeof text);
    fputs(text, stderr);
}

enum status engine_account(struct engine *e, struct err *err) {
    struct account_report end;
    char text[8192];
    report(e, &end);
    account_text(&end, text, sizeof text);
    struct options settings = *e->options; // as they were in force
    settings.ram_bytes = sluice_fitted(e->sluice)->has_bytes;
    settings.ctx = sluice_fitted(e->sluice)->ctx;
    options_echo(&settings, stderr);
    fputs(text, stderr);
    if (!e->stats)
        return OK;
    char *json = account_json(&end);
    FILE *file = e->stats;
    e->stats = NULL;
    enum status status = OK;
    if (!json)
        status = err_set(err, ERR_MEMORY, "no memory for the account");
    else if (fprintf(file, "%s\n", json) < 0)
        status =
            err_set(err, ERR_IO, "%s: cannot be written: %s", e->options->stats, strerror(errno));
    if (fclose(file) != 0 && status == OK)
        status =
            err_set(err, ERR_IO, "%s: cannot be written: %s", e->options->stats, strerror(errno));
    free(json);
    return status;
}

// A run that has no other error has this one.
static enum status add_error(struct err *err, const struct err *why) {
    if (err->status == OK)
        *err = *why;
    else if (why->status != OK)
        fprintf(stderr, "note: %s\n", why->text);
    return why->status;
}

enum status engine_recorded(struct engine *e, struct err *err) {
    struct err why = { .status = OK };
    if (e->routing && e->step)
        routing_writer_finish(e->routing, &why);
    return add_error(err, &why);
}

enum status engine_traced(struct engine *e, struct err *err) {
    struct err why = { .status = OK };
    bool started = e->trace && e->step;
    step_close(e->step);
    sluice_close(e->sluice);
    e->step = NULL;
    e->sluice = NULL;
    if (started)
        trace_file_finish(e->trace, &why);
    uint64_t n_lost = started ? trace_file_lost(e->trace) : 0;
    if (n_lost)
        fprintf(stderr, "note: %s: %llu events came too fast to be written, and are missing\n",
                e->options->trace, (unsigned long long)n_lost);
    return add_error(err, &why);
}
