#include "tools/bench/io_meaning.h"

#include "src/checkpoint/config_make.h"

#include <assert.h>

const double meaning_hits[MEANING_HITS] = { 0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95 };

void meaning_models(struct meaning_model models[MEANING_MODELS]) {
    static const char *const names[MEANING_MODELS][2] = { { "Pro", "pro" }, { "Flash", "flash" } };
    for (int i = 0; i < MEANING_MODELS; i++) {
        struct config c;
        enum status status = config_preset(&c, names[i][1], NULL);
        assert(status == OK);
        (void)status;
        // Three matrices: FP4 codes, and a scale of 8 bits for 32 of them.
        uint64_t expert = 3ull * c.d * c.expert_dim / 2 + 3ull * c.d * c.expert_dim / 32;
        models[i] = (struct meaning_model){
            .name = names[i][0],
            .expert_bytes = expert,
            .token_experts = c.n_chosen * c.n_layers,
            .token_bytes = expert * c.n_chosen * c.n_layers,
            .sweep_bytes = expert * c.n_experts * c.n_layers,
        };
    }
}

double meaning_tokens_per_s(const struct meaning_model *model, double rate, double hits) {
    return rate / ((double)model->token_bytes * (1 - hits));
}

double meaning_sweep_s(const struct meaning_model *model, double rate) {
    return (double)model->sweep_bytes / rate;
}
