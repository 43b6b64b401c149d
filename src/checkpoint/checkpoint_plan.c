#include "src/checkpoint/checkpoint_plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHARDS 99999u /* five digits */

/* --- the list of tensors --------------------------------------------------------------------- */

struct listing {
    struct checkpoint_plan *plan;
    uint32_t capacity;
};

static enum status list_tensor(void *context, const struct manifest_entry *entry, struct err *err) {
    struct listing *list = context;
    struct checkpoint_plan *plan = list->plan;
    if (plan->n_tensors == list->capacity) {
        const uint32_t capacity = list->capacity ? 2 * list->capacity : 1024;
        struct planned_tensor *more = realloc(plan->tensors, capacity * sizeof *more);
        if (!more)
            return err_set(err, ERR_MEMORY, "no memory for a list of %" PRIu32 " tensors",
                           capacity);
        plan->tensors = more;
        list->capacity = capacity;
    }
    plan->tensors[plan->n_tensors++] = (struct planned_tensor){ .bytes = entry->bytes,
                                                                .layer = entry->layer,
                                                                .expert = (uint16_t)entry->expert,
                                                                .id = (uint16_t)entry->id };
    plan->tensor_bytes += entry->bytes;
    return OK;
}

static void describe(const struct checkpoint_plan *plan, const struct planned_tensor *tensor,
                     struct manifest_entry *out) {
    const bool known = manifest_entry(&plan->config, (enum tensor_id)tensor->id, tensor->layer,
                                      tensor->expert, out);
    assert(known);
    (void)known;
}

/* --- shards ---------------------------------------------------------------------------------- */

/* What has a file of its own in the published form: 0 the embedding, a layer, what follows the
 * trunk, a draft block. Ascending in the walk's order. */
static uint32_t published_unit(const struct config *c, const struct planned_tensor *tensor) {
    if (tensor->id == TENSOR_EMBED)
        return 0;
    if (tensor->id < TENSOR_ATTN_NORM)
        return 1 + c->n_layers;
    return tensor->layer < c->n_layers ? 1 + tensor->layer : 2 + tensor->layer;
}

/* Whether tensor i begins a new shard. `filled` is what the shard under way holds, `left` what
 * the shards from it on still have to hold. */
struct cutting {
    uint32_t n_wanted, n_begun;
    uint64_t filled, left;
};
static bool cuts(const struct checkpoint_plan *plan, const struct cutting *cut, uint32_t i) {
    if (i == 0)
        return true;
    if (cut->n_wanted == 0)
        return published_unit(&plan->config, &plan->tensors[i]) !=
               published_unit(&plan->config, &plan->tensors[i - 1]);
    const uint32_t shards_left = cut->n_wanted - cut->n_begun;
    if (shards_left == 0)
        return false;
    if (plan->n_tensors - i == shards_left) // one each from here on
        return true;
    const uint64_t share = cut->left / (shards_left + 1);
    return cut->filled + plan->tensors[i].bytes / 2 >= share;
}

static enum status cut_shards(struct checkpoint_plan *plan, uint32_t n_wanted, struct err *err) {
    const uint32_t most = n_wanted ? n_wanted : plan->config.n_layers + plan->config.n_drafts + 2;
    plan->shards = calloc(most, sizeof *plan->shards);
    if (!plan->shards)
        return err_set(err, ERR_MEMORY, "no memory for %" PRIu32 " shards", most);
    struct cutting cut = { .n_wanted = n_wanted, .left = plan->tensor_bytes };
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        if (cuts(plan, &cut, i)) {
            plan->shards[plan->n_shards++].first = i;
            cut.n_begun++;
            cut.left -= cut.filled;
            cut.filled = 0;
        }
        plan->shards[plan->n_shards - 1].n_tensors++;
        cut.filled += plan->tensors[i].bytes;
    }
    for (uint32_t s = 0; s < plan->n_shards; s++)
        snprintf(plan->shards[s].name, sizeof plan->shards[s].name,
                 "model-%05" PRIu32 "-of-%05" PRIu32 ".safetensors", s + 1, plan->n_shards);
    return OK;
}

/* --- headers --------------------------------------------------------------------------------- */

/* The JSON text of a shard's header; tensors get their offsets from the header's end. */
static bool write_json(const struct checkpoint_plan *plan, const struct planned_shard *shard,
                       char **text, size_t *length) {
    FILE *out = open_memstream(text, length);
    if (!out)
        return false;
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", out);
    uint64_t at = 0;
    for (uint32_t i = shard->first; i < shard->first + shard->n_tensors; i++) {
        struct manifest_entry entry;
        describe(plan, &plan->tensors[i], &entry);
        fprintf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%" PRIu64, entry.name,
                dtype_name(entry.dtype), entry.shape[0]);
        if (entry.n_dims == 2)
            fprintf(out, ",%" PRIu64, entry.shape[1]);
        fprintf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + entry.bytes);
        at += entry.bytes;
    }
    fputc('}', out);
    return fclose(out) == 0;
}

static enum status write_header(struct checkpoint_plan *plan, struct planned_shard *shard,
                                struct err *err) {
    char *text = NULL;
    size_t length = 0;
    if (write_json(plan, shard, &text, &length)) {
        const uint64_t padded = (length + 7) / 8 * 8; // by blanks, as the format's own writer does
        shard->header_bytes = 8 + padded;
        shard->header = malloc(shard->header_bytes);
        if (shard->header) {
            for (unsigned i = 0; i < 8; i++)
                shard->header[i] = (char)(padded >> 8 * i & 0xFF);
            memset(shard->header + 8, ' ', padded);
            memcpy(shard->header + 8, text, length);
        }
    }
    free(text);
    if (!shard->header)
        return err_set(err, ERR_MEMORY, "%s: no memory for its header", shard->name);
    uint64_t at = shard->header_bytes;
    for (uint32_t i = shard->first; i < shard->first + shard->n_tensors; i++) {
        plan->tensors[i].offset = at;
        at += plan->tensors[i].bytes;
    }
    shard->bytes = at;
    plan->bytes += at;
    return OK;
}

/* --- the plan -------------------------------------------------------------------------------- */

enum status checkpoint_plan_open(struct checkpoint_plan *plan, const struct config *c,
                                 uint32_t n_shards, struct err *err) {
    *plan = (struct checkpoint_plan){ .config = *c };
    struct listing list = { .plan = plan };
    enum status status = manifest_walk(c, list_tensor, &list, err);
    if (status != OK)
        return status;
    if (n_shards > plan->n_tensors || n_shards > MAX_SHARDS)
        return err_set(err, ERR_USAGE, "%" PRIu32 " shards for %" PRIu32 " tensors: choose fewer",
                       n_shards, plan->n_tensors);
    status = cut_shards(plan, n_shards, err);
    for (uint32_t s = 0; s < plan->n_shards && status == OK; s++)
        status = write_header(plan, &plan->shards[s], err);
    return status;
}

void checkpoint_plan_close(struct checkpoint_plan *plan) {
    for (uint32_t s = 0; s < plan->n_shards; s++)
        free(plan->shards[s].header);
    free(plan->shards);
    free(plan->tensors);
    *plan = (struct checkpoint_plan){ .n_shards = 0 };
}

char *checkpoint_plan_index(const struct checkpoint_plan *plan) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    fprintf(out, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
            plan->tensor_bytes);
    for (uint32_t s = 0; s < plan->n_shards; s++) {
        const struct planned_shard *shard = &plan->shards[s];
        for (uint32_t i = shard->first; i < shard->first + shard->n_tensors; i++) {
            struct manifest_entry entry;
            describe(plan, &plan->tensors[i], &entry);
            fprintf(out, "%s\n    \"%s\": \"%s\"", i ? "," : "", entry.name, shard->name);
        }
    }
    fputs("\n  }\n}\n", out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
