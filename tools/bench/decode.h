/* tools/bench/decode.h - `sluice bench decode`: tokens a second, and what they are held against.
 *
 *     decode.c          the command: prompts, then rounds of decoding between looks at the disk
 *     decode_report.c   what is told of them
 *     in_groups.c       the sequences in several groups (src/flight.h)
 *
 * A round is a window of the engine's work; before and after it the disk's rate is measured (meter.h),
 * and their mean is the round's. What is told:
 *
 *   bound           of a round: its time over an ideal disk of its rate (ideal_disk.h)
 *   while awaited   bytes that arrived while the control thread waited, by the time it waited
 *   idle, wanted    as recording.h has them
 *
 * With several groups a round may end within a step of one of them: what it has asked for arrives
 * before the next round, and is there then. So are dense weights that are read ahead of the next step,
 * two units of them: in short rounds a token reads less than it does in a long run, and takes less time,
 * which goes for the bound alike.
 *
 * Ratios are taken within a round; of the rounds' ratios the median and the quartiles are told. As a
 * control, the disk against itself: the ratios of neighbouring looks. */
#ifndef SLUICE_TOOLS_BENCH_DECODE_H
#define SLUICE_TOOLS_BENCH_DECODE_H

#include "tools/bench/bench.h"
#include "tools/bench/meter.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct command bench_decode;

struct decode_round {
    uint32_t n_tokens; /* of all sequences */
    struct meter_window window;
    struct ideal_time bound;
    double rate; /* of the disk, bytes a second */
};

struct decode_result {
    const struct sluice_fit *fit;
    const struct config *config;
    uint64_t expert_bytes;
    const char *model, *engine; /* its directory; reader_describe */
    uint32_t n_prompt, n_sequences, n_groups;
    double prompt_s;             /* of all prompts */
    struct decode_round *rounds; /* [n_rounds] */
    double *looks;               /* [n_looks] at the disk's rate */
    uint32_t n_rounds, n_looks;
    bool rate_given;  /* --disk-rate: there was no look */
    bool interrupted; /* fewer rounds than asked for */
    uint64_t n_lost;  /* events of the recording */
};

/* ERR_MEMORY. */
enum status decode_text(const struct decode_result *d, FILE *out, struct err *err);
enum status decode_json(const struct decode_result *d, FILE *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
