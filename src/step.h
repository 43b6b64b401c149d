/* src/step.h - a step under way: rows, buffers, and how far it is; private to src/.
 *
 *   IDLE --step_begin--> EMBED → (ATTENTION → GATE → EXPERTS) for each layer → HEAD
 *        --draft block, if wanted--> DRAFT → ATTENTION → GATE → EXPERTS → HEAD
 *        --> FINISHED --step_commit--> IDLE
 *   any state --step_abandon--> IDLE
 *
 * step.c forms the rows and walks over the layers; layer.c is one layer; step_buffers.c says how
 * big everything is. Row buffers are [n_rows, …]; tile buffers hold STEP_TILE rows of what would
 * be too wide for all of them (the queries of one Pro row are 256 KB). */
#ifndef SLUICE_SRC_STEP_H
#define SLUICE_SRC_STEP_H

#include "src/engine.h"
#include "src/prefetch.h"

#define STEP_TILE                                                                                  \
    64 /* rows: 16 MiB of Pro's queries; more gains nothing, weights are re-used already */
#define STEP_LOGIT_TILE  16 /* rows: 8 MiB of Pro's logits */
#define STEP_NARROW_ROWS 16 /* up to here results of experts are kept apart until all are there */

enum step_state {
    STEP_IDLE,
    STEP_EMBED,
    STEP_ATTENTION,
    STEP_GATE,
    STEP_EXPERTS,
    STEP_HEAD,
    STEP_DRAFT,
    STEP_FINISHED
};

/* Backend memory of a step. Shapes: R rows, n streams, T tile rows. */
struct step_buffers {
    struct mem arena;
    struct mem h, h2;                 /* [R,n,d] streams; h2 only with a draft block */
    struct mem x, y, shared;          /* [R,d] a block's input, its output, the shared expert's */
    struct mem post, comb;            /* [R,n], [R,n,n] */
    struct mem qr, kv;                /* [R,dq], [R,c] */
    struct mem fresh;                 /* [R] KV entries of these rows */
    struct mem values, gates;         /* [R,2c] a compressor's input */
    struct mem cs_plain, cs_yarn;     /* [R,r/2,2] */
    struct mem token, next, position; /* I32 [R] */
    struct mem embed_rows;            /* BF16 [R,d], only if the embedding stays on disk */
    struct mem logits_gate, experts, weights, pick; /* [R,E], I32 [R,K], [R,K], I32 [R·K] */
    struct mem parts;                               /* [narrow,K,d] */
    struct mem q, og;                               /* [T,H,c], [T,g·dg] */
    struct mem index_q, index_w, chosen;            /* [T,Hi,ci], [T,Hi], I32 [T,k] */
    struct mem logit_row, logit_h, logit_x, logits; /* I32 [R], [16,n,d], [16,d], [16,V] */
    struct mem ahead_x, ahead_post, ahead_comb; /* as x, post, comb; [narrow]: an early gate's */
    struct mem ahead_logits, ahead_experts, ahead_weights; /* [narrow,E], I32 [narrow,width], … */
    struct mem tables, rows; /* u32 page numbers; struct kv_rows [blocks][spans] */
};

struct step {
    struct sluice *engine;
    struct step_options options;
    struct step_buffers b;

    enum step_state state;
    uint32_t number; /* of the engine's steps */
    uint32_t layer;  /* block under way: trunk, then draft */
    bool demanded;   /* s->demand is open: the layer's routed experts are on their way */
    uint32_t n_rows, n_spans;
    uint32_t max_rows,
        max_spans; /* the engine's chunk, or of a narrow step n_sequences; n_sequences */
    struct span *spans;
    uint32_t max_span_rows;
    enum phase phase; /* what the account calls it: more than one row of any span is prefill */

    struct demand demand;
    struct dense_user dense;        /* how far it is through the units of dense weights */
    uint32_t head_tile, head_panel; /* of the head's, where it goes on */
    struct prefetch *prefetch;
    /* host side, allocated once */
    int32_t *token, *next, *position; /* [R] */
    int32_t *logit_row;               /* [R] */
    uint32_t n_logits;
    int32_t *experts;     /* [R,K] */
    int32_t *pick;        /* [R·K] by expert, then row */
    uint32_t *pick_begin; /* [E+1] */
    uint32_t *wanted;     /* [E] ids of the demand */
    uint8_t *handed;      /* [E] */
    unsigned char *embed_host;
    float *logits; /* [16,V] */
    uint32_t *tables;
    uint32_t n_tables, max_tables;
    struct kv_rows *rows; /* [blocks][max_spans] */
};

/* step_buffers.c: bytes of backend memory of a step, for the fit check; and all of its memory. */
uint64_t step_bytes(const struct config *c, uint32_t n_blocks, uint32_t max_rows,
                    uint32_t max_spans, uint32_t max_tokens, bool exact, bool draft,
                    bool embed_on_disk);
enum status step_buffers_open(struct step *s, struct err *err);
void step_buffers_close(struct step *s);

/* step.c: embedding rows of the step's tokens, in memory or from disk, as n_streams copies. */
enum status step_embed(struct step *s, const int32_t *host_token, struct mem token, struct mem h,
                       uint32_t n_streams, struct err *err);

/* layer.c: one layer, as far as it goes. OK: on to the next state. AGAIN, errors: see step_advance. */
enum status layer_advance(struct step *s, struct err *err);
/* layer.c: the input of a half of a layer, hc's mix of the streams normalized, to x; post and comb are
 * for the way back. */
void layer_read_streams(struct step *s, const struct hyper_weights *hc, struct mem norm,
                        struct mem x, struct mem post, struct mem comb);
/* layer.c: the logits of rows that want them, and the draft block's input. */
enum status layer_head(struct step *s, struct err *err);
enum status layer_draft_input(struct step *s, struct err *err);
/* layer.c: show a buffer to the tap, if there is one. */
enum status layer_tap(struct step *s, uint32_t layer, enum tap_point point, struct mem data,
                      uint32_t first_row, uint32_t n_rows, uint32_t width, struct err *err);

#endif
