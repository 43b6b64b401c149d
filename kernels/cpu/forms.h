/* kernels/cpu/forms.h - the innermost loops, once for each kind of machine.
 *
 *     form      needs                              loops
 *     scalar    nothing (aarch64 has only this)    plain C: the readable truth
 *     avx2      AVX2, FMA, F16C                    the same, compiled for it; products by hand
 *     avx512    AVX-512 F, BW, DQ, VL              likewise
 *     avx512    … and VNNI, VBMI                   likewise
 *     avx512    … by AMD                           FP8 otherwise: see t16_avx512.c
 *
 * A form is a table of functions. The ops (matmul.c, attention.c, …) tile, share work among threads
 * and find what lies where; they call the backend's form for what is done to every element. All
 * forms give the same bits (arith.h); tests compare each with the scalar one. Each is made in files
 * of its own (form_*.c, *_avx2.c, *_avx512.c), which the Makefile compiles for their machine:
 * nothing of them may run before cpu_forms_choose has asked the processor.
 *
 * All functions are pure but for what they write through their output pointers. Weights, entries and
 * keys lie at any byte address; floats are 4-byte aligned. Nothing is read beyond what is described. */
#ifndef SLUICE_KERNELS_CPU_FORMS_H
#define SLUICE_KERNELS_CPU_FORMS_H

#include "kernels/cpu/cpu.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- matrices (panel.h says how they are cut) -------------------------------------------------- */

#define PANEL_ROWS 32  /* rows of w at a time: two registers of 16 rows, for FP4 */
#define TILE_ROWS  96  /* rows of x at a time: what is done once to a weight then costs 1 to 8 % */
#define WIDE_COLS  512 /* columns of w widened at a time: 4 rows of w, 6 of x are 20 KiB, in L1 */
#define BLOCK_COLS 128 /* one scale of FP8 weights, one of x */
#define GROUP_COLS 32  /* one scale of FP4 weights */
/* From row to row of x, and of widened w, in floats: not a multiple of 4096 bytes' divisors, so that
 * rows at equal columns do not share a cache set. */
#define WIDE_STRIDE (WIDE_COLS + 16)

/* 32 columns of a row of x, rounded, for integer products: code·2^9 and the group's scale. A tile of rows
 * is [groups, rows] of these, unless a form likes another order for few rows.
 * Vectors of bytes want digits, each in −64 … 63: code·2^9 = digit[0] + 128·digit[1] +
 * 128²·digit[2]; even columns come first, then odd ones, as FP4's nibbles do. Their weights are w·2 + 12,
 * which is not negative: `minus` = −12·Σ code·2^9 takes that off again. */
struct x_group {
    union {
        int32_t code[GROUP_COLS];
        struct {
            int8_t digit[3][GROUP_COLS];
            int32_t minus;
        } bytes;
    } as;
    float scale; /* s·2^-10: see arith_fp4_scale */
};
#define FP4_ROW_BYTES(n) (((size_t)(n) + BLOCK_COLS - 1) / BLOCK_COLS * 576)

/* Products by T16 of n_rows rows of w and n_x rows of x over n ≤ WIDE_COLS columns:
 * sums[j][i][c mod 16] = fmaf(w[i][c], x[j][c], …), c ascending. Of sums, i up to a multiple of 4 may be
 * written. */
struct t16_block {
    enum matrix_type type; /* of w, not FP4; F32 is also what was widened: */
    bool widened;          /* w is ours, aligned, and has rows up to a multiple of 4 */
    const uint8_t *w;      /* row i begins at w + i·w_stride */
    size_t w_stride;
    const float (*scale)[WIDE_COLS / BLOCK_COLS]; /* [n_rows], of each 128 columns: FP8 forms */
    bool scale_sums; /* MATRIX_FP8_F32: 128 columns' lanes from +0, times scale, join sums */
    const float *x;  /* row j begins at x + j·WIDE_STRIDE */
    uint32_t n_rows, n_x, n;
    float (*sums)[PANEL_ROWS][16]; /* [n_x] */
    const uint8_t
        *ahead; /* as many bytes, that will be wanted next: to be prefetched, in the order of
                             their addresses, which is what memory likes best; or NULL */
};

/* FP4 by integers: n_rows rows of w and n_x rows of x, all columns. */
struct fp4_panel {
    const uint8_t *w, *scale; /* row i's codes at w + i·n_groups·16, scales at scale + i·n_groups */
    const void *x;            /* n_x rows, as round_groups put them */
    uint32_t n_rows, n_x, n_groups;
    const uint8_t *ahead;     /* codes of the rows that will be wanted next, or NULL */
    float (*out)[PANEL_ROWS]; /* [n_x]: all PANEL_ROWS may be written */
    void *scratch;            /* FP4_SCRATCH_BYTES, 64-byte aligned */
};
#define FP4_SCRATCH_BYTES ((size_t)4 << 10)

/* --- index keys --------------------------------------------------------------------------------- */

#define KEY_LANES 16 /* keys scored at a time */

/* A row's query of the indexer: n_heads heads of 32·n_groups columns, rounded; in the form's own
 * layout, where forms differ. */
struct index_query {
    uint32_t n_heads, n_groups;
    const float *weight; /* [n_heads] */
    float *scale;        /* [n_heads, n_groups] */
    int8_t *code; /* [n_heads, n_groups, 32]: twice the value; columns of a group even, then odd */
    int32_t *minus; /* [n_heads, n_groups]: −12·Σ code */
};

/* --- the table ---------------------------------------------------------------------------------- */

struct cpu_forms {
    const char *name;

    /* q(x): n columns, rounded in groups of 128. dst may be x. */
    void (*round)(float *dst, const float *x, uint32_t n);
    /* The same for integer products, as row `row` of n_rows; n a multiple of 32. dst: FP4_ROW_BYTES(n) for
     * each row, 64-byte aligned; what lies where is the form's own, and its fp4's. */
    void (*round_groups)(void *dst, uint32_t row, uint32_t n_rows, const float *x, uint32_t n);
    /* n ≤ WIDE_COLS columns of one row as floats. scale: of each 128 columns (FP8; 1 for FP8_F32,
     * whose scale joins the sums) or 32 (FP4). */
    void (*widen)(float *out, enum matrix_type type, const uint8_t *w, const float *scale,
                  uint32_t n);
    uint32_t direct_rows; /* most rows of x for which t16 takes narrow w; 0: only F32 */
    void (*t16)(const struct t16_block *b);
    void (*fold)(float *out, const float (*sums)[16], uint32_t n); /* arith_tree16 of each */
    void (*fp4)(const struct fp4_panel *p);

    /* An expert's activation of n pairs; see arith_swiglu. */
    void (*swiglu)(float *out, const float *v, const float *u, uint32_t n, float limit,
                   float weight);

    /* Rows of d floats. */
    void (*norm)(float *y, const float *x, const uint8_t *weight, uint32_t d, float eps);
    float (*sum_squares)(const float *x, uint32_t n);
    void (*rotate)(float *x, const float *cs, uint32_t r, bool inverse);
    void (*hadamard)(float *x, uint32_t n);
    void (*mix)(float *x, const float *h, const float *pre, uint32_t n_streams, uint32_t d);
    void (*post)(float *h, size_t d, const float *x, const float *post, const float *comb,
                 uint32_t n_streams, uint32_t n); /* n ≤ POST_COLS columns of all streams */
    void (*bf16)(float *out, const uint8_t *row, uint32_t d);
    void (*add)(float *h, const float *e, uint32_t d);
    void (*sum)(float *y, const float *parts, const float *shared, uint32_t n_parts, uint32_t d);

    /* KV entries (kv.h): FP8 in groups of 64, BF16 for the last r. */
    void (*entry_pack)(const float *x, uint32_t c, uint32_t r, unsigned char *entry);
    void (*entry_unpack)(const unsigned char *entry, uint32_t c, uint32_t r, float *x);
    void (*key_pack)(const float *x, uint32_t ci, unsigned char *key);

    /* Attention: n keys of c floats, n_heads heads; rows of scores are `stride` apart, a multiple of
     * 16 heads, of which those beyond n_heads may be written. */
    void (*scores)(float *score, size_t stride, const float *q, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c, float scale);
    void (*most)(float *most, const float *score, size_t stride, uint32_t n, uint32_t n_heads);
    void (*weights)(float *score, size_t stride, uint32_t n, uint32_t n_heads, const float *most,
                    float *denominator); /* exp(score − most), added to the denominators */
    void (*values)(float *o, const float *e, size_t stride, uint32_t n_heads, const float *keys,
                   uint32_t n, uint32_t c);

    void (*divide)(float *o, const float *x, float by, uint32_t n);

    /* The indexer. */
    void (*query)(struct index_query *to, const float *q);
    void (*index_scores)(float *score, const struct index_query *q,
                         const unsigned char *const *keys); /* KEY_LANES of each */

    /* The compressor: one item more of n channels. */
    void (*feed)(float *max, float *sum, float *weighted, const float *kv, const float *gate,
                 const unsigned char *ape, uint32_t n);
    void (*quotient)(float *x, const float *weighted, const float *sum, uint32_t n);

    /* Nothing but reading, of a multiple of 4096 bytes, and nothing but PEAK_LANES multiply-adds a
     * round: limits.h. */
    uint32_t (*read)(const unsigned char *memory, size_t bytes);
    void (*peak)(float *values, uint64_t rounds);
};

#define PEAK_LANES 192 /* 12 registers of AVX-512 */

#define POST_COLS 64 /* columns of all streams that are mixed at once: they stay in L1 */

/* Most forms there can be; those that this machine has, scalar first, the best last. */
#define CPU_MAX_FORMS 5
uint32_t cpu_forms_here(const struct cpu_forms *out[CPU_MAX_FORMS]);

/* The form that an option names: AUTO the best there is. ERR_USAGE: this machine lacks it. */
enum status cpu_forms_choose(enum cpu_isa isa, const struct cpu_forms **out, struct err *err);

extern const struct cpu_forms cpu_forms_scalar;
#if defined(__x86_64__)
extern const struct cpu_forms cpu_forms_avx2;
extern const struct cpu_forms cpu_forms_avx512;
extern const struct cpu_forms cpu_forms_vnni;
extern const struct cpu_forms cpu_forms_zen;
#endif

#ifdef __cplusplus
}
#endif
#endif
