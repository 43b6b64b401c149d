/* fuzz_config - any text as a config.json; what is accepted must make a sane manifest. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/manifest.h"
#include "src/checkpoint/tensor_name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

/* What config.h promises after OK. */
static void check_config(const struct config *c) {
    MUST(c->n_layers >= 1 && c->n_layers + c->n_drafts <= CONFIG_MAX_LAYERS);
    MUST(c->n_drafts <= CONFIG_MAX_DRAFTS);
    MUST(c->head_dim > c->rope_dim && (c->head_dim - c->rope_dim) % 64 == 0);
    MUST(c->rope_dim >= 2 && c->rope_dim % 2 == 0);
    MUST(c->index_dim >= 32 && (c->index_dim & (c->index_dim - 1)) == 0);
    MUST(c->index_dim >= c->rope_dim);
    MUST(c->d % 128 == 0 && c->expert_dim % 128 == 0 && c->q_rank % 128 == 0);
    MUST(c->d && c->expert_dim && c->q_rank && c->window && c->vocab && c->index_topk);
    MUST(c->n_heads % c->o_groups == 0);
    MUST((uint64_t)c->n_heads / c->o_groups * c->head_dim % 128 == 0);
    MUST((uint64_t)c->o_groups * c->o_rank % 128 == 0);
    MUST(c->n_chosen >= 1 && c->n_chosen <= CONFIG_MAX_CHOSEN && c->n_chosen <= c->n_experts);
    MUST(c->n_streams >= 1 && c->n_streams <= CONFIG_MAX_STREAMS);
    MUST(c->bos_token < (int64_t)c->vocab && c->eos_token < (int64_t)c->vocab);
    MUST(c->route_scale > 0 && c->swiglu_limit > 0 && c->hc_eps > 0 && c->norm_eps > 0);
    MUST(c->yarn_factor >= 1 && c->yarn_beta_slow > 0 && c->yarn_beta_slow <= c->yarn_beta_fast);
    for (uint32_t i = 0; i < c->n_layers; i++)
        MUST(c->ratio[i] == 0 || c->ratio[i] == 4 || c->ratio[i] == 128);
}

static void check_entry(const struct config *c, enum tensor_id id, uint32_t layer,
                        uint32_t expert) {
    struct manifest_entry entry;
    if (!manifest_entry(c, id, layer, expert, &entry))
        return;
    MUST(entry.bytes > 0 && entry.bytes < 1ull << 60);
    MUST(strlen(entry.name) < MANIFEST_NAME_BYTES - 1);
    const struct tensor_name name = tensor_name_parse(entry.name);
    MUST(name.kind == NAME_TENSOR && name.id == id && name.expert == expert);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config c;
    struct err err = { .status = OK };
    char *text = malloc(size ? size : 1);
    memcpy(text, data, size);
    const enum status status = config_parse(&c, text, size, "config.json", &err);
    free(text);
    MUST(status == err.status);
    MUST((status == OK) == (err.text[0] == 0));
    if (status != OK)
        return 0;
    check_config(&c);
    c.draft = DRAFT_MTP;
    for (int id = 0; id < TENSOR_COUNT; id++) {
        check_entry(&c, (enum tensor_id)id, 0, 0);
        check_entry(&c, (enum tensor_id)id, c.n_layers - 1, c.n_experts - 1);
        check_entry(&c, (enum tensor_id)id, c.n_layers + c.n_drafts - 1, c.n_experts - 1);
    }
    return 0;
}
