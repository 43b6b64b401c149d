#include "tools/commands.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/terminal.h"

#include "io/clock.h"
#include "src/checkpoint/checkpoint_make.h"
#include "src/checkpoint/config_make.h"
#include "src/text/tokenizer_make.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Layers that come out when nothing is said: of the real models the first three routed by score, an
// HCA layer and a CSA layer first; a whole one would be 893 GB.
#define DEFAULT_LAYERS 3
#define DEFAULT_FIRST  3

static const char *const preset_names[] = {
    [PRESET_DEMO] = "demo",
    [PRESET_FLASH] = "flash",
    [PRESET_PRO] = "pro",
};

/* The geometry that the options ask for. */
static enum status choose_config(const struct options *o, struct config *c, struct err *err) {
    if (config_preset(c, preset_names[o->preset], err) != OK)
        return err->status;
    const bool demo = o->preset == PRESET_DEMO;
    const bool first_given = options_given(o, "first");
    const bool whole = demo && o->n_layers == 0 && !first_given;
    uint32_t n = whole ? c->n_layers : o->n_layers ? o->n_layers : DEFAULT_LAYERS;
    uint32_t first = first_given ? o->first_layer : whole ? 0 : DEFAULT_FIRST;
    // As many layers as were asked for, if need be from an earlier one on.
    if (!first_given && n <= c->n_layers && first > c->n_layers - n)
        first = c->n_layers - n;
    const enum draft_kind drafts = demo && !options_given(o, "drafts") ? DRAFT_MTP : o->drafts;
    return config_cut(c, first, n, drafts, err);
}

static bool show_progress(void *context, uint64_t done, uint64_t total) {
    (void)total; // progress_start has it
    progress_update(context, done);
    return !interrupt_requested(NULL);
}

static enum status write_tokenizer(const struct config *c, const char *path, struct err *err) {
    return tokenizer_make(path, c->vocab, err);
}

/* All files, with a line of progress on a terminal. */
static enum status write_model(const struct options *o, const struct checkpoint_plan *plan,
                               struct err *err) {
    char *generation = config_generation_text(&plan->config);
    char *tokenizer_config = config_tokenizer_text(&plan->config);
    enum status status = OK;
    if (!generation || !tokenizer_config) {
        status = err_set(err, ERR_MEMORY, "no memory for the texts of a model");
    } else {
        const struct companion_file companions[] = {
            { "generation_config.json", generation, strlen(generation), NULL },
            { "tokenizer_config.json", tokenizer_config, strlen(tokenizer_config), NULL },
            { "tokenizer.json", NULL, 0, write_tokenizer },
        };
        struct terminal terminal;
        struct progress progress;
        terminal_open(&terminal, STDERR_FILENO, &o->environment);
        progress_start(&progress, "writing", PROGRESS_BYTES, plan->bytes, &terminal, clock_system(),
                       stderr);
        const struct checkpoint_make_options options = {
            .seed = o->seed,
            .companions = companions,
            .n_companions = sizeof companions / sizeof companions[0],
            .progress = show_progress,
            .context = &progress,
        };
        status = checkpoint_make(o->operands.items[0], plan, &options, err);
        progress_clear(&progress);
    }
    free(generation);
    free(tokenizer_config);
    return status;
}

int cmd_mkmodel(const struct options *o) {
    struct err err = { .status = OK };
    struct config config;
    struct checkpoint_plan plan = { .n_shards = 0 };
    const uint64_t start_ns = clock_now_ns(clock_system());
    enum status status = choose_config(o, &config, &err);
    if (status == OK)
        status = checkpoint_plan_open(&plan, &config, o->n_shards, &err);
    if (status == OK)
        status = write_model(o, &plan, &err);
    const double seconds = (double)(clock_now_ns(clock_system()) - start_ns) * 1e-9;
    if (status == OK)
        fprintf(stderr, "%s: %s%s, %u shards, %.2f GB in %.1f s (%.2f GB/s)\n",
                o->operands.items[0], config.name,
                config.draft == DRAFT_MTP ? " and a draft block" : "", plan.n_shards,
                (double)plan.bytes * 1e-9, seconds, (double)plan.bytes * 1e-9 / seconds);
    else if (status == CANCELLED)
        fprintf(stderr, "interrupted: what had been written of %s was removed\n",
                o->operands.items[0]);
    checkpoint_plan_close(&plan);
    return status == OK ? EXIT_OK : command_error(o, &err);
}
