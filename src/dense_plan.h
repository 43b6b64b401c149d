/* src/dense_plan.h - which dense weights stay in memory, and which are streamed; private to src/.
 *
 * Always in memory: norms, hyper-connections, compressors' vectors, gates and routing tables (11 MB
 * a layer of Pro): they are small, and early gates need them out of turn. Also wo_a where it is
 * converted on loading (F32 scales). The other matrices are units:
 *
 *   unit 0 … n_blocks−1    the matrices of a layer (416 MB for a CSA layer of Pro)
 *   unit n_blocks …        the head, cut into panels of rows no larger than a layer: a row of the
 *                          product is one sum, so panels give the same bits as the whole
 *
 * A unit stays in memory or is streamed (src/dense.h): read for every step through one of two
 * frames, each as large as the largest unit. A step uses all units in the same order, so it is a
 * fixed part that should stay, and the more the better; which makes no difference but for the head.
 * That is used twice where there is a draft block, and once for each 16 rows where many want logits:
 * it stays first. Layers that are streamed are spread evenly, so that the drive has something to do
 * while any layer is computed. */
#ifndef SLUICE_SRC_DENSE_PLAN_H
#define SLUICE_SRC_DENSE_PLAN_H

#include "io/reader.h"
#include "src/checkpoint/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One is used while the other is filled. More would hold what could as well stay in memory. */
#define DENSE_FRAMES     2
#define DENSE_MAX_PANELS 256
#define DENSE_MAX_UNITS  (CONFIG_MAX_LAYERS + DENSE_MAX_PANELS)

struct dense_plan {
    uint32_t n_blocks, n_panels, n_units; /* n_units = n_blocks + n_panels */
    uint32_t panel_rows;                  /* of the head; the last panel may have fewer */
    bool streamed[DENSE_MAX_UNITS];
    uint32_t n_streamed;
    uint64_t frame_bytes;    /* of each of DENSE_FRAMES; 0: nothing is streamed */
    uint64_t trunk_bytes;    /* of layers and head, in memory; frames not counted */
    uint64_t draft_bytes;    /* likewise, of the draft block */
    uint64_t memory_bytes;   /* all three */
    uint64_t all_bytes;      /* memory_bytes if nothing were streamed */
    uint64_t bytes_per_pass; /* read for a step that gives logits: trunk and head */
    uint64_t draft_pass;     /* and by its draft block, with the head once more */
};

/* Plan for blocks 0 … n_blocks−1 in room_bytes (UINT64_MAX: all stays in memory). Where the room is
 * too small for anything, memory_bytes is more than it, and the least there is. */
void dense_plan(struct dense_plan *out, const struct checkpoint *cp, uint32_t n_blocks,
                uint64_t room_bytes);

/* Rows of a panel of the head, and where they lie. */
struct dense_panel {
    uint32_t first_row, n_rows;
    struct tensor_place place;
};
struct dense_panel dense_panel(const struct dense_plan *plan, const struct checkpoint *cp,
                               uint32_t panel);

/* Where the parts of a unit go in a block-aligned buffer: in file order, six to a request. */
#define DENSE_MAX_PARTS    27 /* a draft block with CSA: 11 matrices and their scales, 5 without */
#define DENSE_MAX_REQUESTS 5
struct dense_layout {
    uint32_t n_parts, n_requests;
    uint64_t bytes;               /* of the buffer, and what is read */
    uint64_t at[DENSE_MAX_PARTS]; /* of the parts, in the order of weights_unit_parts */
    struct extents_layout request[DENSE_MAX_REQUESTS];
    uint64_t request_at[DENSE_MAX_REQUESTS];
};
/* file_of: checkpoint file → reader file; NULL: the checkpoint's numbers. */
void dense_layout(struct dense_layout *out, const struct dense_plan *plan,
                  const struct checkpoint *cp, uint32_t unit, const uint32_t *file_of);

#ifdef __cplusplus
}
#endif
#endif
