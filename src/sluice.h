/* src/sluice.h - the engine's public interface.
 *
 *     sluice_open ── one engine: checkpoint, dense weights, expert cache, KV memory
 *       sequence_open ── a sequence: its KV state and length
 *       step_open ── buffers for a step of up to max_rows rows
 *         step_begin (spans of sequences) → step_run or step_advance … → step_commit
 *
 * A step takes a ragged list of rows: any number of sequences, each with its next tokens. Prefill
 * and decode are the same code; what comes out for a sequence depends on its tokens alone, bit for
 * bit, whatever else is in the step, however it is cut into steps, cached or read.
 *
 * One control thread calls everything here. Nothing prints, exits, or reads the environment;
 * cancelling is a callback that is asked now and then. */
#ifndef SLUICE_SRC_SLUICE_H
#define SLUICE_SRC_SLUICE_H

#include "io/reader.h"
#include "io/status.h"
#include "kernels/cpu/cpu.h"
#include "src/account.h"
#include "src/checkpoint/config.h"
#include "src/prefetch_count.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sluice;
struct sequence;
struct step;

/* --- open ------------------------------------------------------------------------------------- */

#define SLUICE_DEFAULT_CTX   32768
#define SLUICE_DEFAULT_CHUNK 512

struct sluice_options {
    const char *const *dirs; /* of the checkpoint; shards may be spread over several */
    uint32_t n_dirs;
    uint64_t ram_bytes; /* resident set plus huge pages; 0: what the machine has free */
    uint32_t n_threads; /* 0: all that this process may use */
    enum cpu_isa cpu;   /* the loops of the arithmetic */
    enum io_mode io;
    bool forbid_uring;                     /* read with pread threads */
    uint32_t read_chunk_bytes, read_depth; /* as reader_options has them; 0: its defaults */
    uint32_t ctx;            /* tokens of one sequence; 0: SLUICE_DEFAULT_CTX, or what fits */
    uint32_t chunk;          /* most rows in a step; 0: SLUICE_DEFAULT_CHUNK */
    uint32_t n_sequences;    /* that can be at full length at once, and a snapshot of one; 0: 1 */
    uint32_t n_narrow_steps; /* open at once (step_open_narrow), beside one of `chunk` rows */
    uint32_t n_slots;        /* 0: as many as fit; else exactly so many (tests, measurements) */
    enum prefetch_mode prefetch;
    bool exact;          /* no quantization of activations and KV state; slow, for checking */
    bool drafts;         /* load the MTP block */
    struct disk *disk;   /* read experts through this backend; NULL: the real one */
    struct trace *trace; /* record a timeline here (src/trace_file.h); NULL: none */
    /* A line of progress: what is being done, how far. Returns false to cancel. NULL: none. */
    bool (*progress)(void *context, const char *what, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
};

/* What an engine with these options would take, and what there is. Reads headers only. */
struct sluice_fit {
    uint64_t dense_bytes, embed_bytes, draft_bytes, kv_bytes, scratch_bytes, overhead_bytes;
    bool embed_on_disk; /* then embed_bytes is 0 */
    /* Where dense_bytes and draft_bytes are less than all of them: what is read for a step of the
     * trunk that gives logits, and the memory it is read into. */
    uint64_t dense_streamed_bytes, frames_bytes;
    uint64_t dense_room_bytes; /* what src/dense_plan.h was given */
    uint64_t slot_bytes;
    uint32_t n_slots;   /* that fit, or were asked for */
    uint32_t n_experts; /* of the checkpoint, all layers */
    uint32_t ctx;
    uint64_t needed_bytes;   /* with the smallest cache that works, two slots, and as little of the
                              dense weights in memory as can be */
    uint64_t resident_bytes; /* as needed_bytes, but with all dense weights in memory */
    uint64_t used_bytes;     /* with n_slots */
    uint64_t has_bytes;      /* --ram, or what is free */
};

/* ERR_MEMORY: it does not fit; err says by part what it needs, and the smallest --ram that would
 * do. *fit is filled in either way. Others: as checkpoint_open. */
enum status sluice_fit(const struct sluice_options *options, struct sluice_fit *fit,
                       struct err *err);

/* ERR_MEMORY as sluice_fit, before anything is loaded; CANCELLED; and whatever a checkpoint, the
 * disk or the system can do. *out is NULL after a failure. */
enum status sluice_open(struct sluice **out, const struct sluice_options *options, struct err *err);
void sluice_close(struct sluice *s); /* after its steps and sequences; NULL is fine */

const struct config *sluice_config(const struct sluice *s);
const struct sluice_fit *sluice_fitted(const struct sluice *s);
bool sluice_has_draft(const struct sluice *s);

/* Lines for people on what was found and what was lost on the way (reader, pinned memory,
 * checkpoint); "" if nothing. */
const char *sluice_notes(const struct sluice *s);

/* Is this expert (layer * n_experts + id) in memory now? */
bool sluice_holds(const struct sluice *s, uint32_t expert);

struct account *sluice_account(struct sluice *s);
void sluice_report(struct sluice *s, struct account_report *out);

/* --- sequences -------------------------------------------------------------------------------- */

/* A sequence that can grow to the engine's ctx. ERR_MEMORY. */
enum status sluice_sequence(struct sluice *s, struct sequence **out, struct err *err);

/* Defined in src/sequence.h, which says more. */
void sequence_close(struct sequence *s);
uint32_t sequence_length(const struct sequence *s);
uint32_t sequence_max_tokens(const struct sequence *s);
uint32_t sequence_rollback_floor(const struct sequence *s);
enum status sequence_rollback(struct sequence *s, uint32_t length, struct err *err);
enum status sequence_fork(struct sequence **out, const struct sequence *s, struct err *err);
void sequence_restore(struct sequence *s, const struct sequence *from);

/* --- steps ------------------------------------------------------------------------------------ */

/* The next tokens of one sequence. */
struct span {
    struct sequence *sequence;
    const int32_t *tokens; /* the caller's; valid until commit */
    uint32_t n_tokens;
    uint32_t n_logits;  /* the last so many rows want logits */
    int32_t next_token; /* that follows the span: wanted by the draft block; −1: not known */
};

/* A look into a step, for comparing with other implementations. The data may be changed. */
enum tap_point {
    TAP_STREAMS,       /* [rows, n, d] after the layer; layer TAP_EMBEDDING: before the first */
    TAP_ATTN_IN,       /* [rows, d] normalized input of the attention block */
    TAP_ATTN_OUT,      /* [rows, d] */
    TAP_FFN_IN,        /* [rows, d] */
    TAP_FFN_OUT,       /* [rows, d] */
    TAP_ROUTE_EXPERTS, /* int32 [rows, K], ascending */
    TAP_ROUTE_WEIGHTS, /* [rows, K] in the same order */
    TAP_INDEX_CHOSEN   /* int32 [rows, k], ascending, padded with −1 (CSA layers) */
};
#define TAP_EMBEDDING UINT32_MAX

struct tap {
    void *context;
    /* Is this point wanted? Layers count the trunk, then the draft block. */
    bool (*wants)(void *context, uint32_t layer, enum tap_point point);
    /* Rows first_row … of the step; true: the data was changed, put it back. */
    bool (*see)(void *context, uint32_t layer, enum tap_point point, uint32_t first_row,
                uint32_t n_rows, uint32_t width, void *data);
};

struct step_options {
    bool draft; /* run the draft block too: every span knows its next_token */
    /* Logits [vocab] of a row that wanted them, rows ascending; after those of the trunk those of
     * the draft block. `row` is the row in the step. */
    void (*logits)(void *context, uint32_t row, bool draft, const float *logits);
    /* What the gate of a layer (the trunk's, then the draft block's) chose for the step's rows,
     * [rows][K], ascending in each row; again if the layer is retried. NULL: not wanted. */
    void (*routed)(void *context, uint32_t layer, const int32_t *experts);
    void *context;
    const struct tap *tap; /* NULL: none */
};

/* Buffers for steps of the engine: at most its chunk rows and n_sequences spans. ERR_MEMORY. */
enum status step_open(struct step **out, struct sluice *s, struct err *err);
/* For sequences that decode: at most n_sequences rows. Several steps of one engine may be under way
 * and take turns (all of them: one that stands still may have the memory that another waits for), as
 * many as sluice_options announced; they are opened for sequences that have nothing
 * in common, and what one does never shows in another's results. ERR_MEMORY. */
enum status step_open_narrow(struct step **out, struct sluice *s, struct err *err);
uint32_t step_max_rows(const struct step *s);
void step_close(struct step *s); /* a step under way is abandoned; NULL is fine */

/* Begin a step. Spans are in the caller's order, distinct sequences. ERR_MEMORY: a context or the
 * KV memory is full. ERR_USAGE: a token that is no token, too many rows, a draft without a block. */
enum status step_begin(struct step *s, const struct span *spans, uint32_t n_spans,
                       const struct step_options *options, struct err *err);

/* Go on until bytes are missing or it is done.
 *   OK       all layers done, logits delivered: commit
 *   AGAIN    waiting for experts, or for dense weights: see step_event
 *   ERR_IO, ERR_TRUNCATED, …   the step is as far as it got: clear err and advance again to retry, or
 *            abandon it */
enum status step_advance(struct step *s, struct err *err);
struct event step_event(struct step *s); /* ready when step_advance can go on */

/* Go on by one layer at most, so that steps can take turns.
 *   OK     something was done, and there is more to do
 *   DONE   all layers done, logits delivered: commit
 *   AGAIN, errors: as step_advance */
enum status step_layer(struct step *s, struct err *err);
/* Wait for step_event, for timeout_ns at most: time that the account charges to this step. */
void step_wait(struct step *s, uint64_t timeout_ns);

/* Advance to the end, waiting as needed. `cancel` is asked at every layer and while waiting
 * (NULL: never): CANCELLED leaves the step under way; go on, or abandon it. */
enum status step_run(struct step *s, bool (*cancel)(void *context), void *context, struct err *err);

/* How far the step under way is through the layers, from 0 to 1. */
double step_share(const struct step *s);

void step_commit(struct step *s);  /* the sequences are longer now */
void step_abandon(struct step *s); /* the sequences are as before step_begin */

#ifdef __cplusplus
}
#endif
#endif
