#include "src/sample.h"
#include "kernels/arith.h"
#include "src/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A digit of a sort key; three make 32 bits. 2,048 counters lie in the first-level cache. */
#define DIGIT_BITS 11
#define N_DIGITS   (1u << DIGIT_BITS)

enum status sampling_check(const struct sampling *o, struct err *err) {
    // Written so that NaN fails.
    if (!(o->temperature >= 0 && o->temperature <= 0x1p+100f))
        return err_set(err, ERR_USAGE, "--temperature must be 0 or more");
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return err_set(err, ERR_USAGE, "--top-p must be from 0 to 1");
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return err_set(err, ERR_USAGE, "--min-p must be from 0 to 1");
    return OK;
}

enum status sampler_open(struct sampler *s, uint32_t n_vocab, struct err *err) {
    *s = (struct sampler){ .n_vocab = n_vocab };
    s->candidate = malloc((size_t)n_vocab * 2 * sizeof *s->candidate);
    s->weight = malloc((size_t)n_vocab * sizeof *s->weight);
    if (n_vocab && s->candidate && s->weight)
        return OK;
    sampler_close(s);
    return err_set(err, ERR_MEMORY, "no memory to sample from %" PRIu32 " tokens", n_vocab);
}

void sampler_close(struct sampler *s) {
    free(s->candidate);
    free(s->weight);
    s->candidate = NULL;
    s->weight = NULL;
}

/* The first candidate. */
static enum status find_highest(const struct sampler *s, const float *logits, uint64_t position,
                                uint32_t *id, struct err *err) {
    uint32_t highest = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return err_set(err, ERR_INPUT,
                           "position %" PRIu64 ": the logit of token %" PRIu32
                           " is %s: the weights are damaged, or not what config.json says",
                           position, i, isnan(logits[i]) ? "not a number" : "infinite");
        if (logits[i] > logits[highest])
            highest = i;
    }
    *id = highest;
    if (logits[highest] == -INFINITY)
        return err_set(err, ERR_INPUT,
                       "position %" PRIu64 ": every token is excluded (all logits "
                       "are -inf)",
                       position);
    return OK;
}

/* Orders as the candidates do: the higher logit has the smaller key, -0 and +0 the same. */
static uint32_t logit_key(float logit) {
    float value = logit + 0.0f; // -0 becomes +0
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

/* All tokens whose e may be above 0, ascending by id. */
static uint32_t list_candidates(struct sampler *s, const float *logits, float highest,
                                float temperature) {
    uint32_t n = 0;
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        if ((logits[id] - highest) / temperature < -105.0f) // arith_exp gives +0 there
            continue;
        s->candidate[n++] = (struct sample_candidate){ logit_key(logits[id]), id };
    }
    return n;
}

/* Drop what cannot be among the first k: what has a later first digit than the k-th has. */
static uint32_t keep_first_digits(struct sampler *s, uint32_t n, uint32_t k) {
    uint32_t count[N_DIGITS] = { 0 };
    for (uint32_t i = 0; i < n; i++)
        count[s->candidate[i].key >> (32 - DIGIT_BITS)]++;
    uint32_t digit = 0, n_seen = count[0], n_kept = 0;
    while (n_seen < k)
        n_seen += count[++digit];
    for (uint32_t i = 0; i < n; i++)
        if (s->candidate[i].key >> (32 - DIGIT_BITS) <= digit)
            s->candidate[n_kept++] = s->candidate[i];
    return n_kept;
}

/* Stable, so that equal logits stay in the order of ids. Returns where the sorted list is. */
static struct sample_candidate *sort_candidates(struct sampler *s, uint32_t n) {
    struct sample_candidate *from = s->candidate, *to = s->candidate + s->n_vocab;
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        uint32_t place[N_DIGITS] = { 0 }, sum = 0;
        for (uint32_t i = 0; i < n; i++)
            place[from[i].key >> shift & (N_DIGITS - 1)]++;
        for (uint32_t digit = 0; digit < N_DIGITS; digit++) {
            uint32_t count = place[digit];
            place[digit] = sum;
            sum += count;
        }
        for (uint32_t i = 0; i < n; i++)
            to[place[from[i].key >> shift & (N_DIGITS - 1)]++] = from[i];
        struct sample_candidate *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* top-p, then min-p: how many of n weights stay, and their sum. */
static uint32_t cut_tail(const float *weight, uint32_t n, const struct sampling *o, double *sum) {
    double all = 0, running = 0;
    for (uint32_t i = 0; i < n; i++)
        all += (double)weight[i];
    uint32_t n_kept = 0;
    while (n_kept < n) {
        if (n_kept && o->top_p < 1 && running >= (double)o->top_p * all)
            break;
        if (weight[n_kept] < o->min_p)
            break;
        running += (double)weight[n_kept++];
    }
    *sum = running;
    return n_kept;
}

enum status sampler_draw(struct sampler *s, const struct sampling *o, const float *logits,
                         uint64_t seed, uint64_t position, uint32_t *token, struct err *err) {
    enum status status = find_highest(s, logits, position, token, err);
    if (status != OK || o->temperature == 0)
        return status;
    float highest = logits[*token];
    uint32_t n = list_candidates(s, logits, highest, o->temperature);
    if (o->top_k && o->top_k < n)
        n = keep_first_digits(s, n, o->top_k);
    const struct sample_candidate *candidate = sort_candidates(s, n);
    if (o->top_k && o->top_k < n)
        n = o->top_k;
    for (uint32_t i = 0; i < n; i++)
        s->weight[i] = arith_exp((logits[candidate[i].id] - highest) / o->temperature);
    double sum;
    n = cut_tail(s->weight, n, o, &sum);
    double target = random_uniform(seed, position, 0) * sum, running = 0;
    uint32_t i = 0;
    for (; i + 1 < n; i++) {
        running += (double)s->weight[i];
        if (running > target)
            break;
    }
    *token = candidate[i].id;
    return OK;
}
