/* src/engine.h - what an open engine is made of; private to src/.
 *
 *     sluice_open:  checkpoint → fit → backend → weights → reader → experts → slots → dense → KV
 *     sluice_close: the other way round */
#ifndef SLUICE_SRC_ENGINE_H
#define SLUICE_SRC_ENGINE_H

#include "cache/slots.h"
#include "src/checkpoint/checkpoint.h"
#include "src/dense.h"
#include "src/sequence.h"
#include "src/sluice.h"
#include "src/weights.h"

struct sluice {
    struct checkpoint cp;
    struct sluice_fit fit;
    uint32_t chunk, n_sequences; /* bounds of a step: rows, spans */
    uint32_t n_narrow_steps;     /* with up to n_sequences rows, beside one of `chunk` */
    struct ops *ops;
    struct weights weights;
    struct mem theta_plain, theta_yarn; /* rotary frequencies [r/2]: layers with m = 0, m > 0 */
    float index_scale;                  /* ci^(−1/2) · Hi^(−1/2), rounded once */
    struct reader *reader;
    struct expert_table experts;
    struct pinned slot_memory; /* and after the slots the frames of streamed dense weights */
    struct slots *slots;
    struct dense dense;
    struct kv_store kv;
    enum prefetch_mode prefetch;
    struct prefetch_count *prefetch_counts; /* [n_blocks][PREFETCH_KINDS] */
    struct account account;
    uint32_t n_steps; /* begun so far */
    char notes[2048];
};

#endif
