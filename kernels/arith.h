/* kernels/arith.h - the canonical arithmetic: one order for every sum, our own exp, log1p, pow, sin
 * and cos. C11, C++17 and CUDA.
 *
 * Scalar C, AVX2, AVX-512 and every GPU give the same bits, for one row or thousands, any tile and
 * any number of threads, because each op's result is defined here as a sequence of IEEE float32
 * operations, and nowhere depends on how the work is split.
 *
 * T16: 16 lanes from +0, column c in lane c mod 16, ascending, lane = fmaf(a, b, lane); then the
 * tree: lane i += lane i+8 for i < 8, then +4, +2, +1. seq: ascending from the first term (not from
 * +0), products by fmaf. Each product of a code and its power-of-two scale is one float.
 *
 *   FP8, BF16, F32 matrices    T16 over dequantized x and w. FP8 codes 0x7F/0xFF read as ±480
 *   (attention, wo_a, shared
 *   expert, gate, hc, com-
 *   pressor, weights_proj,
 *   head, e/h_proj), q·key
 *   FP4 expert                 x·2^9 (an integer below 2^18) times w·2 (below 2^4): int32 over 32
 *                              columns, exact in any order; then acc = fmaf((float)sum,
 *                              s·s_w·2^-10, acc) from +0, groups ascending
 *   FP8 with F32 scales        T16's lanes from +0 per 128 columns, A = fmaf(lane, s_w, A), tree
 *   (-Base)                    at the end
 *   exact mode                 FP4 and index products by T16 on unquantized x
 *   RMSNorm, q norm, ρ         Σx² by T16; /d; 1/sqrt(·+ε); (x·r)·w
 *   hc_pre, hc_post, head mix, seq over j; post·x first, then i ascending; softmax: max first, sums
 *   Sinkhorn                   seq, divide; z·scale + base is one fmaf
 *   attention                  T16·c^-½; maximum over keys (window, then compressed, ascending),
 *                              sink not among them; denominator seq, then + exp(sink − max);
 *                              o = (seq e·kv) / denominator
 *   compressor                 per channel in token order (A half before B half), running M, S, N:
 *                              g ≤ M: e = exp(g−M), S += e, N = fmaf(e, kv, N); else r = exp(M−g),
 *                              S = fmaf(S, r, 1), N = fmaf(N, r, kv), M = g; entry N/S
 *   Hadamard; rotation         butterflies 1, 2, …, ci/2, then ·ci^-½; fmaf(a, cos, −(b·sin)),
 *                              fmaf(a, sin, b·cos)
 *   index score                int32 per 32 columns, scales by fmaf, groups ascending; relu; seq
 *                              over heads fmaf(w_h, ·)
 *   router                     softplus = max(x,0) + log1p(exp(−|x|)); Σ by ascending id; (a/Σ)·λ
 *   expert activation          ((v/(1+exp(−v)))·u)·weight
 *   MoE sum                    routed experts seq by id, then shared
 *   sampling                   candidates by (logit down, id up); max first; sums in that order
 *   equal scores               the lower index
 *
 * Why these. 16 lanes are one AVX-512 register, two of AVX2, half a warp; within a lane the order
 * is that of the columns, so a tile may end anywhere, and many rows may share a weight's load. The
 * tree is what a register folds to. FP4 groups are integers because then VNNI, dp4a and tensor
 * cores may add in any order. From +0, not from the first product: so that a lane that no column
 * reaches, and a sum cut at a tile, need no case of their own. -Base scales by lane, since one
 * fmaf for 128 columns is cheaper than a product for each column, which would not be exact.
 *
 * Square root, division and fma are IEEE; everything else is + − × on floats and integers. It holds
 * under -ffp-contract=off and without -ffast-math (the build's flags); in CUDA -fmad=false, with
 * -ftz=false, -prec-div=true, -prec-sqrt=true, which are the defaults. Bits of a NaN are not
 * promised (the machines disagree on them), that it is one is. */
#ifndef SLUICE_KERNELS_ARITH_H
#define SLUICE_KERNELS_ARITH_H

#include "kernels/lowbit.h"

#include <math.h>
#include <stdint.h>

/* --- T16 ------------------------------------------------------------------------------------ */

/* The tree. lanes[16] is used up. */
ARITH_FN float arith_tree16(float *lanes) {
    for (int i = 0; i < 8; i++)
        lanes[i] += lanes[i + 8];
    for (int i = 0; i < 4; i++)
        lanes[i] += lanes[i + 4];
    for (int i = 0; i < 2; i++)
        lanes[i] += lanes[i + 2];
    return lanes[0] + lanes[1];
}

/* Σ a·b over n columns (any n). */
ARITH_FN float arith_dot16(const float *a, const float *b, uint32_t n) {
    float lanes[16] = { 0 };
    uint32_t c = 0;
    for (; c + 16 <= n; c += 16)
        for (uint32_t l = 0; l < 16; l++)
            lanes[l] = fmaf(a[c + l], b[c + l], lanes[l]);
    for (uint32_t l = 0; c + l < n; l++)
        lanes[l] = fmaf(a[c + l], b[c + l], lanes[l]);
    return arith_tree16(lanes);
}

ARITH_FN float arith_sum16_squares(const float *x, uint32_t n) {
    return arith_dot16(x, x, n);
}

/* max |x|, compared as integers: the order of the maxima cannot matter, and a NaN is the largest on
 * every machine (the scales of lowbit.h say what becomes of it). */
ARITH_FN float arith_amax(const float *x, uint32_t n) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = float_bits(x[i]) & 0x7FFFFFFFu;
        most = a > most ? a : most;
    }
    return bits_float(most);
}

/* What a sum of 32 products (x·2^9)·(w·2) is multiplied with. s·2^-10 is exact (s lies in 2^-22 …
 * 2^120), so there is one rounding, and only where the product leaves float's range. */
ARITH_FN float arith_fp4_scale(float s, float s_w) {
    return (s * 0.0009765625f) * s_w;
}

/* 1/sqrt(x), two IEEE operations: what norms multiply with. */
ARITH_FN float arith_rsqrt(float x) {
    return 1.0f / sqrtf(x);
}

/* --- exp, log1p and company ----------------------------------------------------------------- */

/* e^x in float alone, since doubles are 1/64 as fast on most GPUs and attention needs one a key
 * and head. Within 1 ulp (all floats were tried). exp(−∞) = +0 exactly, above 88.73 +∞; results
 * below 2^-126 are rounded once; NaN stays NaN. */
ARITH_FN float arith_exp(float x) {
    // Beyond these the result is 0 or infinite; they keep n in the range of two exponents.
    float t = x < -105.0f ? -105.0f : x > 90.0f ? 90.0f : x;
    // n = x/ln 2 to the nearest integer: adding 1.5·2^23 leaves no room for a fraction.
    float shifted = fmaf(t, 0x1.715476p+0f, 0x1.8p+23f);
    uint32_t n = float_bits(shifted) - 0x4B400000u;
    float whole = shifted - 0x1.8p+23f;
    // r = x − n·ln 2. The upper part of ln 2 has 21 bits, which makes the first step exact.
    float r = fmaf(-whole, 0x1.62e43p-1f, t);
    r = fmaf(-whole, -0x1.05c61p-29f, r);
    // e^r = 1 + (r + r²·p); p is the minimax polynomial on |r| < ln 2/2, relative error 5e-11
    // (one term less has 3e-9, which misses 1 ulp by a hair).
    float p = 0x1.9f0896p-13f;
    p = fmaf(p, r, 0x1.6d8d06p-10f);
    p = fmaf(p, r, 0x1.11127p-7f);
    p = fmaf(p, r, 0x1.55548ep-5f);
    p = fmaf(p, r, 0x1.555554p-3f);
    p = fmaf(p, r, 0x1p-1f);
    float y = fmaf(r * r, p, r) + 1.0f;
    // 2^n in two factors, each a normal float for every n in -152 … 130; the first product is exact.
    uint32_t half = (n + 1024) / 2 - 512;
    return (y * bits_float((half + 127) << 23)) * bits_float((n - half + 127) << 23);
}

/* ln x in double, x positive, finite and normal: 2^e·m, ln m = 2 atanh((m−1)/(m+1)). The series' terms
 * are 1/(2k+1); with m in √½ … √2 eleven of them are enough for double. */
ARITH_FN double arith_log_double(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    // Subtracting the bits of √½ makes the exponent count from there.
    uint64_t from = bits - 0x3FE6A09E667F3BCDu;
    int64_t e = (int64_t)(from >> 52);
    if (e >= 2048)
        e -= 4096;
    bits -= (uint64_t)e << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 21;
    p = fma(p, z, 1.0 / 19);
    p = fma(p, z, 1.0 / 17);
    p = fma(p, z, 1.0 / 15);
    p = fma(p, z, 1.0 / 13);
    p = fma(p, z, 1.0 / 11);
    p = fma(p, z, 1.0 / 9);
    p = fma(p, z, 1.0 / 7);
    p = fma(p, z, 1.0 / 5);
    p = fma(p, z, 1.0 / 3);
    double log_m = fma(2.0 * s * z, p, 2.0 * s);
    return fma((double)e, 0x1.62e42fefa39efp-1, fma((double)e, 0x1.abc9e3b39803fp-56, log_m));
}

/* ln(1 + x). In double: the router takes one an expert, which no machine feels. Within 0.51 ulp.
 * x = −1: −∞; x < −1: NaN. */
ARITH_FN float arith_log1p(float x) {
    if (!(x > -1.0f))
        return x == -1.0f ? -(float)INFINITY : bits_float(0x7FC00000u);
    double u = 1.0 + (double)x;
    if (u == 1.0 || x > 0x1.fffffep+127f)
        return x; // too small to tell apart, or infinite
    // 1 + x was rounded: ln u·x/(u−1) makes up for it, since ln(1+x)/x hardly changes.
    return (float)(arith_log_double(u) * ((double)x / (u - 1.0)));
}

/* x^y for x > 0, finite and normal; else NaN. In double: rotary frequencies need a handful, and are
 * then rounded to float. Relative error below 1e-15·(1 + |y ln x|). Overflows to +∞, underflows
 * to 0. */
ARITH_FN double arith_pow(double x, double y) {
    if (!(x >= 0x1p-1022 && x <= 0x1.fffffffffffffp+1023))
        return (double)bits_float(0x7FC00000u);
    double t = y * arith_log_double(x);
    t = t < -750.0 ? -750.0 : t > 720.0 ? 720.0 : t;
    double shifted = fma(t, 0x1.71547652b82fep+0, 0x1.8p+52); // as in arith_exp
    double whole = shifted - 0x1.8p+52;
    double r = fma(-whole, 0x1.62e42fefa39efp-1, t);
    r = fma(-whole, 0x1.abc9e3b39803fp-56, r);
    double p = 1.0; // Taylor, 1/k!: 1 + r/1·(1 + r/2·(1 + r/3·…))
    for (int k = 14; k >= 1; k--)
        p = fma(p * (1.0 / k), r, 1.0);
    uint64_t n;
    memcpy(&n, &shifted, sizeof n);
    n -= 0x4338000000000000u;
    uint64_t half = (n + 4096) / 2 - 2048;
    uint64_t b1 = (half + 1023) << 52, b2 = (n - half + 1023) << 52;
    double f1, f2;
    memcpy(&f1, &b1, sizeof f1);
    memcpy(&f2, &b2, sizeof f2);
    return (p * f1) * f2;
}

/* sin and cos of an angle in radians, |angle| < 2^30 (a rotary angle is at most the position, 1M).
 * In double, reduced by π/2 in two parts, so within 0.51 ulp at any such angle. A float reduction
 * would need three parts more, and positions are few against everything else. NaN and ±∞ give NaN. */
ARITH_FN void arith_sincos(float angle, float *sin_out, float *cos_out) {
    double x = (double)angle;
    double shifted = fma(x, 0x1.45f306dc9c883p-1, 0x1.8p+52); // angle/(π/2), to the nearest
    double whole = shifted - 0x1.8p+52;
    uint64_t quadrant;
    memcpy(&quadrant, &shifted, sizeof quadrant);
    double r = fma(-whole, 0x1.921fb54442d18p+0, x); // π/2, upper and lower 53 bits
    r = fma(-whole, 0x1.1a62633145c07p-54, r);
    double z = r * r;
    // Taylor on |r| ≤ π/4: what is left out is below 2e-14 (sin) and 1e-15 (cos).
    double s = 1.0 / 6227020800.0; // 1/13!
    s = fma(s, z, -1.0 / 39916800.0);
    s = fma(s, z, 1.0 / 362880.0);
    s = fma(s, z, -1.0 / 5040.0);
    s = fma(s, z, 1.0 / 120.0);
    s = fma(s, z, -1.0 / 6.0);
    s = fma(s * z, r, r);
    double c = -1.0 / 87178291200.0; // 1/14!
    c = fma(c, z, 1.0 / 479001600.0);
    c = fma(c, z, -1.0 / 3628800.0);
    c = fma(c, z, 1.0 / 40320.0);
    c = fma(c, z, -1.0 / 720.0);
    c = fma(c, z, 1.0 / 24.0);
    c = fma(c, z, -0.5);
    c = fma(c, z, 1.0);
    double sin_q = quadrant & 1 ? c : s, cos_q = quadrant & 1 ? s : c;
    *sin_out = (float)(quadrant & 2 ? -sin_q : sin_q);
    *cos_out = (float)((quadrant + 1) & 2 ? -cos_q : cos_q);
}

/* 1/(1 + e^−x). */
ARITH_FN float arith_sigmoid(float x) {
    return 1.0f / (1.0f + arith_exp(-x));
}

/* ln(1 + e^x), without overflow: what the router takes the root of. */
ARITH_FN float arith_softplus(float x) {
    float magnitude = bits_float(float_bits(x) & 0x7FFFFFFFu);
    return (x > 0.0f ? x : 0.0f) + arith_log1p(arith_exp(-magnitude));
}

/* An expert's activation: u, v, the products of w3 and w1, not clamped yet. */
ARITH_FN float arith_swiglu(float v, float u, float limit, float weight) {
    v = v > limit ? limit : v;
    u = u > limit ? limit : u < -limit ? -limit : u;
    return ((v / (1.0f + arith_exp(-v))) * u) * weight;
}

#endif
