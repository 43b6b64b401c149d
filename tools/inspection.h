/* tools/inspection.h - what is in a checkpoint, added up: the figures behind `sluice inspect`.
 *
 * Everything comes from the places that checkpoint_open found; nothing is read. An expert's reads
 * are those that the streaming reader would do: extents_layout decides, here as there. */
#ifndef SLUICE_TOOLS_INSPECTION_H
#define SLUICE_TOOLS_INSPECTION_H

#include "io/reader.h"
#include "src/checkpoint/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

enum weight_kind {
    KIND_EMBEDDING,
    KIND_HEAD, /* with the last norm and the head's own hyper-connection */
    KIND_ATTENTION,
    KIND_COMPRESSOR,
    KIND_INDEXER, /* with its own compressor */
    KIND_SHARED_EXPERTS,
    KIND_GATES,
    KIND_HYPER, /* hyper-connections */
    KIND_NORMS,
    KIND_DRAFT, /* dense weights of the draft block */
    KIND_EXPERTS,
    KIND_DRAFT_EXPERTS,
    KIND_COUNT
};
const char *weight_kind_name(enum weight_kind kind);

/* Where a layer's tensors lie in one file: first byte, and one past the last. */
struct byte_span {
    uint32_t file;
    uint64_t begin, end;
};

struct layer_figures {
    uint64_t dense_bytes, expert_bytes;
    struct byte_span *spans; /* ascending by file */
    uint32_t n_spans;
};

struct inspection {
    uint64_t kind_bytes[KIND_COUNT];
    uint64_t dense_bytes; /* of the trunk: embedding, head, and all but the routed experts */
    uint64_t total_bytes; /* of the files */
    struct layer_figures *layers; /* the trunk, then the draft blocks */
    uint32_t n_layers;
    /* Experts of trunk and draft. All have the same size but where copies store scales otherwise. */
    uint64_t n_experts, n_adjacent; /* whose six tensors follow each other in one file */
    uint64_t expert_bytes;          /* of the largest */
    uint64_t slot_bytes;            /* room that the largest needs, rounded outwards */
    uint32_t reads_least, reads_most;
    double reads_mean;
    double overhead; /* bytes read in vain, by rounding, for each byte wanted */
    /* A token that finds none of its experts in memory, trunk only. */
    uint32_t token_experts;
    uint64_t token_bytes;
    uint64_t token_read_bytes; /* rounding included, on average */
};

/* ERR_MEMORY. Close is due after any result. */
enum status inspection_open(struct inspection *in, const struct checkpoint *cp, struct err *err);
void inspection_close(struct inspection *in);

#ifdef __cplusplus
}
#endif
#endif
