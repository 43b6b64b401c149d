/* tests/kernels/kv_fixture.h - sequences with KV state for the tests of the ops that read and write
 * it, and the literal forms that these tests compare with.
 *
 * A fixture owns a backend, page memory, page tables and a few sequences. Every page begins as 0xFF
 * bytes (NaN as floats, and codes that would show), pages are dealt out in a random order, and each
 * sequence has two sets of ring pages, so that a step may write in place or to the other set, which
 * is filled with 0xFF again first: whatever a step needs and did not carry over is missed.
 * What can fail here fails the test that runs. One thread. */
#ifndef SLUICE_TESTS_KERNELS_KV_FIXTURE_H
#define SLUICE_TESTS_KERNELS_KV_FIXTURE_H

#include "kernels/ops.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- sequences ------------------------------------------------------------------------------ */

#define KV_FIXTURE_SEQS 4

struct kv_fixture_options {
    bool exact;
    uint32_t n_threads;
    uint32_t n_seqs, max_tokens;
    uint32_t c, r, index_dim;
    uint32_t window, rollback;
    uint32_t m;          /* of the compressor; 0: none */
    uint32_t page_bytes; /* 0: 16384 */
    uint64_t seed;
};

struct kv_fixture_seq {
    uint32_t tokens; /* committed; a test that rolls back lowers it */
    uint32_t now;    /* which of the two ring sets is the sequence's */
    uint32_t window[2], state[2], index_state[2], entries, keys; /* in `tables` */
};

/* One sequence's share of a step. */
struct kv_fixture_part {
    uint32_t seq, n_rows;
};

struct kv_fixture {
    struct ops *ops;
    struct kv_fixture_options options;
    struct kv_fixture_seq seqs[KV_FIXTURE_SEQS];
    uint32_t ring_entries, history;
    uint32_t n_pages, n_tables; /* n_tables: entries of all tables */
    uint32_t *tables;           /* as uploaded */
    unsigned char *page;        /* one page, for moving bytes */
    struct mem pages_mem, tables_mem, rows_mem;
    struct kv_rows rows[KV_FIXTURE_SEQS]; /* of the step under way */
    struct kv_fixture_part parts[KV_FIXTURE_SEQS];
    uint32_t n_parts;
    bool fresh;
};

void kv_fixture_open(struct kv_fixture *f, const struct kv_fixture_options *options);
void kv_fixture_close(struct kv_fixture *f);

/* Begin a step of these parts, in this order (each sequence once). fresh: rings are written to the
 * other set, which is garbage now. */
struct kv_view kv_fixture_step(struct kv_fixture *f, const struct kv_fixture_part *parts,
                               uint32_t n_parts, bool fresh);
/* Its sequences have their rows, and what it wrote. */
void kv_fixture_commit(struct kv_fixture *f);

/* Entry i of a table, of entry_bytes. */
void kv_fixture_read(struct kv_fixture *f, uint32_t table, uint32_t entry_bytes, uint32_t i,
                     void *out);
void kv_fixture_write(struct kv_fixture *f, uint32_t table, uint32_t entry_bytes, uint32_t i,
                      const void *in);

/* Device memory with these bytes in it; with NULL, 0xFF. Freed when the fixture closes. */
struct mem kv_fixture_put(struct kv_fixture *f, const void *bytes, size_t n);
void kv_fixture_get(struct kv_fixture *f, struct mem m, void *out, size_t n);

/* --- plans: ways to cut the same text into steps --------------------------------------------- */

/* Steps that give each of n_seqs sequences its length, `chunk` rows at a time (0: random sizes,
 * sometimes none), several sequences in a step. next: false at the end. */
struct kv_plan {
    uint32_t chunk, n_seqs;
    uint32_t left[KV_FIXTURE_SEQS];
    uint64_t random;
};
struct kv_plan kv_plan(uint32_t chunk, uint32_t n_seqs, const uint32_t *lengths, uint64_t seed);
bool kv_plan_next(struct kv_plan *p, struct kv_fixture_part *parts, uint32_t *n_parts);

/* --- random --------------------------------------------------------------------------------- */

uint64_t random_next(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t n);
float random_float(uint64_t *state); /* -1 … 1 */
/* n floats of ±spread, some of them zero, tiny or much larger. */
void random_floats(uint64_t *state, float *out, size_t n, float spread);

/* --- literal forms -------------------------------------------------------------------------- */
/* Written from the specification, by definition and without haste. */

float literal_t16(const float *a, const float *b, uint32_t n);
double literal_e4m3(uint8_t code); /* no NaN: 0x7F is 480 */
double literal_e2m1(uint8_t code);
/* Codes of the nearest values; ties to the even code. */
uint8_t literal_e4m3_nearest(double x);
uint8_t literal_e2m1_nearest(double x);
uint8_t literal_scale(float amax, double least, double most); /* 2^⌈log2(max(amax,least)/most)⌉ */

/* Entries and keys as ops.h lays them out; unpack gives floats. */
void literal_entry_pack(bool exact, const float *x, uint32_t c, uint32_t r, unsigned char *out);
void literal_entry_unpack(bool exact, const unsigned char *in, uint32_t c, uint32_t r, float *x);
void literal_key_pack(bool exact, const float *x, uint32_t ci, unsigned char *out);

/* y = Hadamard transform of x[n], canonical order. */
void literal_hadamard(const float *x, uint32_t n, float *y);

#ifdef __cplusplus
}
#endif
#endif
