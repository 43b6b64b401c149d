/* src/account.h - where the time and the bytes of a run went.
 *
 * The control thread is always in exactly one activity of one phase; entering another charges the
 * time since the last entry to the one that is left. So the times add up to the run's, always.
 * Bytes and hits are counted by the reader and the slots; a report takes the differences.
 *
 * With a trace, every change is put on its control track, with the step and the layer in which it
 * happens, at the very moment that is charged: so the times of the two agree. */
#ifndef SLUICE_SRC_ACCOUNT_H
#define SLUICE_SRC_ACCOUNT_H

#include "cache/slots.h"
#include "io/clock.h"
#include "io/reader.h"
#include "io/trace.h"
#include "src/prefetch_count.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum phase { PHASE_LOAD, PHASE_PREFILL, PHASE_DECODE, PHASES };

enum activity {
    ACTIVITY_OTHER,      /* everything that has no name below: set-up, callbacks, the terminal */
    ACTIVITY_LOAD,       /* dense weights from disk, memory made ready */
    ACTIVITY_ATTENTION,  /* attention half of the layers, hyper-connections and norms included */
    ACTIVITY_GATE,       /* the FFN half up to the demand, shared experts */
    ACTIVITY_EXPERTS,    /* arithmetic of routed experts */
    ACTIVITY_PREDICT,    /* gates run early; most of it while experts are awaited */
    ACTIVITY_WAIT,       /* for expert bytes that were not there */
    ACTIVITY_WAIT_DENSE, /* likewise, for dense weights that are streamed */
    ACTIVITY_HEAD,       /* logits */
    ACTIVITY_SAMPLE,
    ACTIVITIES
};

struct account {
    const struct clock *clock;
    enum phase phase;
    enum activity activity;
    uint64_t since_ns;
    uint64_t start_ns;
    uint64_t time_ns[PHASES][ACTIVITIES];
    uint64_t tokens[PHASES]; /* rows that went through the layers */
    uint64_t steps[PHASES];
    uint32_t sequences, groups; /* that decoded together, at most (src/flight.h); 0: none did */
    uint64_t kept;       /* tokens of prompts that a session held already: nothing was computed */
    struct trace *trace; /* NULL: none */
    struct trace_place place; /* its step, layer and rows; phase and activity are those above */
};

void account_start(struct account *a, const struct clock *clock);
/* Leave the current activity for another; returns the one that was left, to go back to. */
enum activity account_enter(struct account *a, enum activity activity);
void account_phase(struct account *a, enum phase phase);

/* Record in a trace too, from the last change on. Not owned; it must stay until the last call here. */
void account_trace(struct account *a, struct trace *trace);
/* Which step and layer the next activity belongs to (TRACE_NOWHERE: none), for the trace. It takes
 * effect with that activity: call it before account_enter. */
void account_step(struct account *a, uint32_t step, uint32_t n_rows);
void account_layer(struct account *a, uint32_t layer);
/* Enter ACTIVITY_EXPERTS with this expert (layer * experts + id): which one is for the trace. */
void account_expert(struct account *a, uint32_t expert);
/* Time in between belongs to nobody, the run's least of all: a person is typing. */
void account_pause(struct account *a);
void account_resume(struct account *a);

/* A copy of everything at one moment, with what reader and slots say (either may be NULL). */
struct account_report {
    struct account account; /* time_ns complete up to now */
    uint64_t total_ns;
    struct reader_stats reader;
    struct slots_stats slots;
    uint64_t slot_bytes, n_slots, n_experts; /* of the cache */
    uint64_t expert_bytes;
    /* Of dense weights: all of them; those read for a step that gives logits, and how much memory they
     * lack to stay; what has been read of them, as a part of the reader's bytes. */
    uint64_t dense_bytes, dense_streamed_bytes, dense_missing_bytes, dense_read_bytes;
    const struct prefetch_count *prefetch; /* [n_layers][PREFETCH_KINDS], the engine's; or NULL */
    uint32_t n_layers;
    char engine[128]; /* reader_describe */
    /* What the kernel says of this process; 0 where it says nothing. */
    uint64_t peak_bytes;         /* resident set plus huge pages, at its highest */
    uint64_t storage_read_bytes; /* that reached a device: page cache hits are not among them */
    uint64_t ram_bytes;          /* what was promised (--ram); 0: no promise */
};
void account_report(const struct account *a, struct reader *reader, const struct slots *slots,
                    struct account_report *out);

/* Fill in what the kernel says, from `proc` ("/proc/self"). */
void account_process(struct account_report *r, const char *proc);

/* What became of predictions of one kind, over all layers. */
struct prefetch_count account_prefetch(const struct account_report *r, enum prefetch_kind kind);

/* For people: several lines, '\n' between and at the end; how many bytes snprintf would want. */
size_t account_text(const struct account_report *r, char *out, size_t out_bytes);
/* For machines: one JSON object, freed by the caller; NULL: no memory. */
char *account_json(const struct account_report *r);

const char *phase_name(enum phase phase);
const char *activity_name(enum activity activity);

#ifdef __cplusplus
}
#endif
#endif
