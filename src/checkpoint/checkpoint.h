/* src/checkpoint/checkpoint.h - a published checkpoint: which tensor lies where.
 *
 * checkpoint_open reads config.json, the index, and the header of every shard; it never reads a
 * weight. Everything in those files is untrusted: each offset, length, shape and type is checked
 * against the file's size and against the manifest before anyone uses it. After OK:
 *   - every tensor that the manifest lists is there, with its shape and an accepted type
 *   - no two tensors of a file overlap, all lie inside it
 *   - files stay open (O_RDONLY, buffered; the streaming reader opens its own by path)
 * A draft module is optional: drafts are complete or, with a note, absent.
 *
 * A file's header is checked as safetensors.h says, the index as shard_index.h says; names are read
 * by tensor_name.h in any spelling, each by itself, and the same tensor under two spellings is a
 * duplicate. Types accepted beside the published ones: tid2eid as I32; FP4 codes as U8; E8M0 scales
 * as U8; FP8 scales as F32. (FP4 scales are E8M0 only: the exact integer sums need powers of two.)
 *
 * With an index, it alone says which shard holds a tensor; without one, model.safetensors or all of
 * model-*-of-*.safetensors are read, and a tensor in two of them is an error. Tensors that no V4
 * checkpoint has are counted as ignored and noted; tensors that contradict config.json (a
 * compressor where the ratio is 0, an expert beyond the last) are refused.
 *
 * Headers are parsed one at a time: opening Pro takes its index (about 50 MB for a moment) and
 * 3.5 MB that stay. Open, read and close may be called by any thread; reads may run in parallel. */
#ifndef SLUICE_SRC_CHECKPOINT_CHECKPOINT_H
#define SLUICE_SRC_CHECKPOINT_CHECKPOINT_H

#include "src/checkpoint/manifest.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tensor_place {
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;  /* 0: absent */
    uint16_t file;   /* index into checkpoint.files */
    uint8_t dtype;   /* enum dtype, as stored (a U8 is an I8 or F8_E8M0) */
};

struct checkpoint_file {
    char *path;
    uint64_t bytes;
    int fd;
};

/* One routed expert's six tensors, in the order W1, W1_SCALE, W2, W2_SCALE, W3, W3_SCALE. */
#define EXPERT_TENSORS 6
struct expert_place {
    struct tensor_place part[EXPERT_TENSORS];
};

struct checkpoint {
    struct config config;
    struct checkpoint_file *files;
    uint32_t n_files;
    enum draft_kind draft;   /* what the tensors say; config.draft follows it */
    uint32_t n_draft_blocks; /* blocks present (mtp.0, …); for DSpark: recognized, unused */
    uint64_t n_tensors;      /* in all headers, ignored ones included */
    uint64_t n_ignored;      /* unneeded: mtp.*.emb*, DSpark stages, copies that the index passes
                                over, names that no V4 checkpoint has */
    uint64_t ignored_bytes;
    struct tensor_place global[TENSOR_ATTN_NORM];
    struct tensor_place (*layers)[TENSOR_W1]; /* [n_layers + MTP block], by tensor_id */
    struct expert_place *experts;             /* [n_layers + MTP block][n_experts] */
    char note[256]; /* "" or one line for people: what was recognized and left alone */
    char **dirs;    /* the directories as given, after hub resolution */
    uint32_t n_dirs;
};

/* Open the checkpoint whose files are spread over `dirs` (at least one; config.json and the index
 * are taken from the first that has them; a shard from the first directory that has it).
 *   ERR_MISSING    no config.json; shards of the index that are in no directory, all listed in one
 *                  line (the first eight by name, then "and N more"); tensors that are missing
 *   ERR_TRUNCATED  shards shorter than their header says (an incomplete download), listed likewise
 *   ERR_INPUT      anything malformed: file and tensor are named
 *   ERR_IO         a file that cannot be read (ERR_SYSTEM: too many open files; ERR_MEMORY)
 * The object can be closed after any result. */
enum status checkpoint_open(struct checkpoint *cp, const char *const *dirs, uint32_t n_dirs,
                            struct err *err);
void checkpoint_close(struct checkpoint *cp);

/* Number of layers whose tensors are in layers[] and experts[]: trunk, and the MTP block if any. */
static inline uint32_t checkpoint_n_blocks(const struct checkpoint *cp) {
    return cp->config.n_layers + (cp->draft == DRAFT_MTP ? cp->n_draft_blocks : 0);
}

static inline const struct expert_place *checkpoint_expert(const struct checkpoint *cp,
                                                           uint32_t layer, uint32_t expert) {
    return &cp->experts[(uint64_t)layer * cp->config.n_experts + expert];
}

/* Read `bytes` bytes of a tensor, `from` bytes after its begin, into dst (0 and place->bytes: all
 * of it; to ask beyond the tensor is a bug). Short reads are resumed; ERR_IO, ERR_TRUNCATED name
 * file and offset. For dense weights at load time and for the embedding's rows. */
enum status checkpoint_read(const struct checkpoint *cp, const struct tensor_place *place,
                            uint64_t from, void *dst, uint64_t bytes, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
