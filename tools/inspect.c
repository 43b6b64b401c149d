#include "tools/commands.h"
#include "tools/inspection.h"
#include "tools/models.h"

#include "src/checkpoint/checkpoint.h"
#include "src/sluice.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static struct sluice_fit least_fit(const struct model_dirs *dirs);
static void print_text(const struct checkpoint *cp, const struct inspection *in,
                       const struct sluice_fit *fit);
static int print_json(const struct checkpoint *cp, const struct inspection *in,
                      const struct sluice_fit *fit);

int cmd_inspect(const struct options *o) {
    struct err err = { .status = OK };
    struct model_dirs dirs = { .n = 0 };
    struct checkpoint cp = { .n_files = 0 };
    struct inspection in = { .n_layers = 0 };
    // Directories are operands here; -m means the same, as for the commands that run the model.
    enum status status = model_dirs_open(&dirs, o, o->models.n ? &o->models : &o->operands, &err);
    if (status == OK)
        status = checkpoint_open(&cp, dirs.dirs, dirs.n, &err);
    if (status == OK)
        status = inspection_open(&in, &cp, &err);
    struct sluice_fit fit = { 0 };
    if (status == OK)
        fit = least_fit(&dirs);
    int code = EXIT_OK;
    if (status != OK)
        code = command_error(o, &err);
    else if (o->json)
        code = print_json(&cp, &in, &fit);
    else
        print_text(&cp, &in, &fit);
    inspection_close(&in);
    checkpoint_close(&cp);
    model_dirs_close(&dirs);
    return code;
}

/* What running it takes at the least: a megabyte is refused, with the sum. */
static struct sluice_fit least_fit(const struct model_dirs *dirs) {
    struct sluice_options options = { .dirs = dirs->dirs, .n_dirs = dirs->n, .ram_bytes = 1 << 20 };
    struct sluice_fit fit;
    struct err err = { .status = OK };
    sluice_fit(&options, &fit, &err);
    return fit;
}

/* --- words ----------------------------------------------------------------------------------- */

static const char *attention_name(const struct config *c, uint32_t layer) {
    return c->ratio[layer] == 128 ? "HCA" : c->ratio[layer] == 4 ? "CSA" : "window";
}

static const char *routing_name(const struct config *c, uint32_t layer) {
    return config_is_hash(c, layer) ? "hash" : "score";
}

static const char *draft_name(const struct checkpoint *cp) {
    return cp->draft == DRAFT_MTP ? "mtp" : cp->draft == DRAFT_DSPARK ? "dspark" : "none";
}

static uint32_t count_layers(const struct config *c, const char *attention) {
    uint32_t n = 0;
    for (uint32_t layer = 0; layer < c->n_layers; layer++)
        n += strcmp(attention_name(c, layer), attention) == 0;
    return n;
}

/* "35,094,528". A struct by value, so that several fit in one printf. */
struct words {
    char text[40];
};

static struct words grouped(uint64_t n) {
    char digits[24];
    struct words out = { "" };
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    char *to = out.text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    return out;
}

/* Decimal units, three or four digits: "13.48 GB", "410.1 MB", "208.9 KB". */
static struct words size(uint64_t bytes) {
    struct words out;
    if (bytes >= 1000000000)
        snprintf(out.text, sizeof out.text, "%.2f GB", (double)bytes * 1e-9);
    else if (bytes >= 1000000)
        snprintf(out.text, sizeof out.text, "%.1f MB", (double)bytes * 1e-6);
    else
        snprintf(out.text, sizeof out.text, "%.1f KB", (double)bytes * 1e-3);
    return out;
}

/* A file's name; with its directory where there are several. */
static const char *shown_path(const struct checkpoint *cp, uint32_t file) {
    const char *path = cp->files[file].path, *slash = strrchr(path, '/');
    return cp->n_dirs == 1 && slash ? slash + 1 : path;
}

/* --- as text --------------------------------------------------------------------------------- */

static void print_geometry(const struct checkpoint *cp) {
    const struct config *c = &cp->config;
    printf("  width         %s in %u streams; vocabulary %s; up to %s positions\n",
           grouped(c->d).text, c->n_streams, grouped(c->vocab).text,
           grouped(c->max_positions).text);
    printf("  layers        %u: %u HCA, %u CSA, %u window only; %u routed by hash, %u by score\n",
           c->n_layers, count_layers(c, "HCA"), count_layers(c, "CSA"), count_layers(c, "window"),
           c->n_hash_layers, c->n_layers - c->n_hash_layers);
    printf("  attention     %u heads of %u (%u rotary), query rank %s, window %u; output in %u "
           "groups of rank %s\n",
           c->n_heads, c->head_dim, c->rope_dim, grouped(c->q_rank).text, c->window, c->o_groups,
           grouped(c->o_rank).text);
    if (count_layers(c, "CSA") > 0)
        printf("  indexer       %u heads of %u, keeps %s entries\n", c->index_heads, c->index_dim,
               grouped(c->index_topk).text);
    printf("  experts       %u, %u chosen, inner width %s, %s; 1 shared\n", c->n_experts,
           c->n_chosen, grouped(c->expert_dim).text,
           c->expert_format == EXPERT_FP4 ? "FP4" : "FP8");
    if (cp->draft == DRAFT_MTP)
        printf("  draft         MTP, %u block%s\n", cp->n_draft_blocks,
               cp->n_draft_blocks == 1 ? "" : "s");
    else if (cp->draft == DRAFT_DSPARK)
        printf("  draft         DSpark, %u stages: recognized, not run\n", cp->n_draft_blocks);
    else
        printf("  draft         none\n");
}

static void print_sizes(const struct checkpoint *cp, const struct inspection *in) {
    for (int kind = 0; kind < KIND_COUNT; kind++)
        if (in->kind_bytes[kind] > 0)
            printf("  %-24s %10s\n", weight_kind_name((enum weight_kind)kind),
                   size(in->kind_bytes[kind]).text);
    if (cp->ignored_bytes > 0)
        printf("  %-24s %10s  in %s tensors\n", "not used", size(cp->ignored_bytes).text,
               grouped(cp->n_ignored).text);
    printf("  %-24s %10s  all but routed experts and draft\n", "dense", size(in->dense_bytes).text);
    printf("  %-24s %10s\n", "all files", size(in->total_bytes).text);
}

static void print_expert(const struct inspection *in) {
    printf("  %s bytes; its six tensors are adjacent in ", grouped(in->expert_bytes).text);
    if (in->n_adjacent == in->n_experts)
        printf("all %s experts\n", grouped(in->n_experts).text);
    else
        printf("%s of %s experts\n", grouped(in->n_adjacent).text, grouped(in->n_experts).text);
    if (in->reads_least == in->reads_most)
        printf("  %u read%s each", in->reads_most, in->reads_most == 1 ? "" : "s");
    else
        printf("  %u to %u reads each, %.2f on average", in->reads_least, in->reads_most,
               in->reads_mean);
    printf("; rounding to blocks of %s bytes adds %.3f %%; a slot takes %s bytes\n",
           grouped(READER_ALIGN).text, in->overhead * 100, grouped(in->slot_bytes).text);
}

static void print_layers(const struct checkpoint *cp, const struct inspection *in) {
    printf("  %5s  %-6s  %-7s  %10s  %10s  %s\n", "", "kind", "routing", "dense", "experts",
           "file, first and last byte");
    for (uint32_t i = 0; i < in->n_layers; i++) {
        const struct layer_figures *layer = &in->layers[i];
        char name[16];
        const bool draft = i >= cp->config.n_layers;
        snprintf(name, sizeof name, "%s%u", draft ? "mtp " : "",
                 draft ? i - cp->config.n_layers : i);
        printf("  %5s  %-6s  %-7s  %10s  %10s", name, attention_name(&cp->config, i),
               routing_name(&cp->config, i), size(layer->dense_bytes).text,
               size(layer->expert_bytes).text);
        for (uint32_t s = 0; s < layer->n_spans; s++)
            printf("%*s%s  %s .. %s\n", s == 0 ? 2 : 50, "", shown_path(cp, layer->spans[s].file),
                   grouped(layer->spans[s].begin).text, grouped(layer->spans[s].end - 1).text);
    }
}

static uint64_t mib(uint64_t bytes) {
    return (bytes + (1 << 20) - 1) >> 20;
}

static void print_memory(const struct sluice_fit *fit) {
    printf("\nmemory, for %s tokens of context and two experts\n", grouped(fit->ctx).text);
    if (fit->dense_streamed_bytes)
        printf("  --ram %" PRIu64 "M at least: then %s of dense weights are read for every token\n",
               mib(fit->needed_bytes), size(fit->dense_streamed_bytes).text);
    printf("  --ram %" PRIu64
           "M holds all dense weights but the embedding; more holds more experts\n",
           mib(fit->resident_bytes));
}

static void print_text(const struct checkpoint *cp, const struct inspection *in,
                       const struct sluice_fit *fit) {
    printf("%s: %s tensors in %u file%s\n", cp->config.name, grouped(cp->n_tensors).text,
           cp->n_files, cp->n_files == 1 ? "" : "s");
    for (uint32_t i = 0; i < cp->n_dirs; i++)
        printf("  %s\n", cp->dirs[i]);
    if (*cp->note)
        printf("  note: %s\n", cp->note);
    printf("\ngeometry\n");
    print_geometry(cp);
    printf("\nsizes\n");
    print_sizes(cp, in);
    printf("\none expert\n");
    print_expert(in);
    printf(
        "\none token\n  %u experts (%u in each of %u layers) are %s: what it reads if none is in "
        "memory\n",
        in->token_experts, cp->config.n_chosen, cp->config.n_layers, size(in->token_bytes).text);
    if (fit->needed_bytes)
        print_memory(fit);
    printf("\nlayers\n");
    print_layers(cp, in);
}

/* --- as JSON --------------------------------------------------------------------------------- */

static json_t *whole(uint64_t n) {
    return json_integer((json_int_t)n);
}

static json_t *json_geometry(const struct config *c) {
    json_t *ratios = json_array();
    for (uint32_t i = 0; i < c->n_layers; i++)
        json_array_append_new(ratios, whole(c->ratio[i]));
    return json_pack("{si si si si si si si si si si si si si si si si si si ss si so}", //
                     "hidden_size", c->d, "hc_mult", c->n_streams, "vocab_size", c->vocab,
                     "max_position_embeddings", c->max_positions, "num_hidden_layers", c->n_layers,
                     "num_hash_layers", c->n_hash_layers, "num_attention_heads", c->n_heads,
                     "head_dim", c->head_dim, "qk_rope_head_dim", c->rope_dim, "q_lora_rank",
                     c->q_rank, "o_groups", c->o_groups, "o_lora_rank", c->o_rank, "sliding_window",
                     c->window, "index_n_heads", c->index_heads, "index_head_dim", c->index_dim,
                     "index_topk", c->index_topk, "n_routed_experts", c->n_experts,
                     "num_experts_per_tok", c->n_chosen, "expert_dtype",
                     c->expert_format == EXPERT_FP4 ? "fp4" : "fp8", "moe_intermediate_size",
                     c->expert_dim, "compress_ratios", ratios);
}

/* "draft's routed experts" as a key: "draft_routed_experts". */
static void as_key(const char *name, char *out) {
    for (; *name; name++) {
        if (name[0] == '\'' && name[1] == 's')
            name++;
        else
            *out++ = *name == ' ' || *name == '-' ? '_' : *name;
    }
    *out = '\0';
}

static json_t *json_sizes(const struct checkpoint *cp, const struct inspection *in) {
    json_t *sizes = json_object();
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        char key[32];
        as_key(weight_kind_name((enum weight_kind)kind), key);
        json_object_set_new(sizes, key, whole(in->kind_bytes[kind]));
    }
    json_object_set_new(sizes, "not_used", whole(cp->ignored_bytes));
    json_object_set_new(sizes, "dense", whole(in->dense_bytes));
    json_object_set_new(sizes, "all_files", whole(in->total_bytes));
    return sizes;
}

static json_t *json_layers(const struct checkpoint *cp, const struct inspection *in) {
    json_t *layers = json_array();
    for (uint32_t i = 0; i < in->n_layers; i++) {
        const struct layer_figures *layer = &in->layers[i];
        json_t *spans = json_array();
        for (uint32_t s = 0; s < layer->n_spans; s++)
            json_array_append_new(
                spans, json_pack("{so so so}", "file", whole(layer->spans[s].file), "begin",
                                 whole(layer->spans[s].begin), "end", whole(layer->spans[s].end)));
        json_array_append_new(layers, json_pack("{sb ss ss so so so}", "draft",
                                                (int)(i >= cp->config.n_layers), "attention",
                                                attention_name(&cp->config, i), "routing",
                                                routing_name(&cp->config, i), "dense_bytes",
                                                whole(layer->dense_bytes), "expert_bytes",
                                                whole(layer->expert_bytes), "spans", spans));
    }
    return layers;
}

static json_t *json_files(const struct checkpoint *cp) {
    json_t *files = json_array();
    for (uint32_t f = 0; f < cp->n_files; f++)
        json_array_append_new(files, json_pack("{ss% so}", "path", cp->files[f].path,
                                               strlen(cp->files[f].path), "bytes",
                                               whole(cp->files[f].bytes)));
    return files;
}

static int print_json(const struct checkpoint *cp, const struct inspection *in,
                      const struct sluice_fit *fit) {
    json_t *root = json_pack(
        "{ss ss ss so so so so s{so so so so si si sf sf} s{si so so} s{so so so so} so}", //
        "name", cp->config.name, "draft", draft_name(cp), "note", cp->note, "tensors",
        whole(cp->n_tensors), "geometry", json_geometry(&cp->config), "sizes", json_sizes(cp, in),
        "files", json_files(cp), //
        "expert", "bytes", whole(in->expert_bytes), "slot_bytes", whole(in->slot_bytes), "count",
        whole(in->n_experts), "adjacent", whole(in->n_adjacent), "reads_least", in->reads_least,
        "reads_most", in->reads_most, "reads_mean", in->reads_mean, "rounding_overhead",
        in->overhead, //
        "token", "experts", in->token_experts, "bytes", whole(in->token_bytes), "read_bytes",
        whole(in->token_read_bytes), //
        "memory", "ctx", whole(fit->ctx), "least_bytes", whole(fit->needed_bytes),
        "dense_streamed_bytes", whole(fit->dense_streamed_bytes), "resident_bytes",
        whole(fit->resident_bytes), "layers", json_layers(cp, in));
    const int failed = !root || json_dumpf(root, stdout, JSON_INDENT(2)) != 0;
    if (!failed)
        putchar('\n');
    json_decref(root);
    if (failed)
        fputs("sluice inspect: this checkpoint cannot be written as JSON (a path that is not "
              "UTF-8?)\n",
              stderr);
    return failed ? EXIT_FAILED : EXIT_OK;
}
