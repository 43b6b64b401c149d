#include "tools/bench/meter.h"

#include "src/random.h"
#include "tools/interrupt.h"

#include <stdio.h>
#include <time.h>

enum status meter_open(struct meter *m, const struct options *o, const struct meter_options *how,
                       struct err *err) {
    m->settings = *o;
    m->settings.ctx = how->ctx;
    m->settings.chunk = how->chunk;
    if (recording_open(&m->recording, err) != OK)
        return err->status;
    m->engine.record = recording_trace(m->recording);
    m->engine.n_sequences = how->n_sequences;
    m->engine.n_narrow_steps = how->n_narrow_steps;
    if (engine_open(&m->engine, &m->settings, how->with_tokenizer, false, err) != OK)
        return err->status;
    const struct sluice_fit *fit = sluice_fitted(m->engine.sluice);
    struct reader_options read = {
        .mode = o->io,
        .chunk_bytes = m->engine.read_chunk_bytes,
        .depth = m->engine.read_depth,
        .forbid_uring = o->io_engine == IO_ENGINE_PREAD,
        // As the engine's own: through the page cache where that has room for all.
        .ram_bytes = o->ram_bytes ? 0 : fit->has_bytes - fit->used_bytes,
    };
    return plain_reads_open(&m->plain, m->engine.dirs.dirs, m->engine.dirs.n, &read, err);
}

void meter_close(struct meter *m) {
    plain_reads_close(m->plain);
    engine_close(&m->engine);
    recording_close(m->recording); // after the engine, which records in it
}

// Dense weights that do not fit are read ahead of the next step: hundreds of MB, that a look would have
// to share the disk with.
static enum status let_reads_end(struct meter *m, struct err *err) {
    while (recording_busy(m->recording)) {
        if (interrupt_requested(NULL))
            return err_set(err, CANCELLED, "interrupted");
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return OK;
}

enum status meter_rate(struct meter *m, double *rate, struct err *err) {
    *rate = m->settings.disk_rate * 1e9;
    if (*rate > 0)
        return OK;
    if (let_reads_end(m, err) != OK)
        return err->status;
    return plain_reads_look(m->plain, m->settings.seconds, interrupt_requested, NULL, rate, err);
}

// --- windows -------------------------------------------------------------------------------------

static uint64_t now(void) {
    return clock_now_ns(clock_system());
}

static void report(struct meter *m, struct account_report *out) {
    sluice_report(m->engine.sluice, out);
    account_process(out, "/proc/self");
}

void meter_begin(struct meter *m) {
    report(m, &m->before);
    recording_begin(m->recording, now());
}

static uint64_t bytes_of(const struct account_report *r) {
    uint64_t bytes = 0;
    for (int p = 0; p < READ_PRIORITIES; p++)
        bytes += r->reader.bytes[p];
    return bytes;
}

enum status meter_end(struct meter *m, struct meter_window *out, struct err *err) {
    struct account_report after;
    recording_end(m->recording, now());
    report(m, &after);
    *out = (struct meter_window){
        .demanded = after.slots.demanded - m->before.slots.demanded,
        .hits = after.slots.hits - m->before.slots.hits,
        .bytes = bytes_of(&after) - bytes_of(&m->before),
        .kernel_bytes = after.storage_read_bytes - m->before.storage_read_bytes,
        .dense_bytes = after.dense_read_bytes - m->before.dense_read_bytes,
    };
    recording_figures(m->recording, &out->figures, err);
    if (err->status == OK)
        recording_story(m->recording, sluice_config(m->engine.sluice)->n_layers, &out->story);
    return err->status;
}

bool meter_cancelled(void *context) {
    struct meter *m = context;
    recording_take(m->recording);
    return interrupt_requested(NULL);
}

bool meter_idle_cancelled(void *context) {
    struct meter *m = context;
    recording_begin(m->recording, now());
    return interrupt_requested(NULL);
}

// --- prompts -------------------------------------------------------------------------------------

void meter_prompt(const struct meter *m, uint32_t sequence, int32_t *tokens, uint32_t n) {
    const struct config *c = sluice_config(m->engine.sluice);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(random_uniform(m->settings.seed, i, sequence) * c->vocab);
    if (n > 0 && c->bos_token >= 0)
        tokens[0] = c->bos_token;
}
