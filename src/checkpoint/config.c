#include "src/checkpoint/config.h"
#include "io/small_file.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is being parsed, and where complaints go. */
struct reading {
    const char *path;
    const char *within; /* "" or "rope_scaling.": so that a message names the whole key */
    struct err *err;
};

static enum status parse_object(struct config *c, json_t *root, const struct reading *r);

enum status config_load(struct config *out, const char *path, struct err *err) {
    char *text;
    size_t length;
    enum status status = small_file_read(path, CONFIG_MAX_BYTES, &text, &length, err);
    if (status == OK)
        status = config_parse(out, text, length, path, err);
    free(text);
    return status;
}

enum status config_parse(struct config *out, const char *text, size_t length, const char *path,
                         struct err *err) {
    *out = (struct config){ .draft = DRAFT_NONE };
    json_error_t why;
    // jansson refuses nesting beyond 2048 itself: a depth bomb is "not JSON" like any other.
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_INPUT, "%s: not JSON: %s (line %d)", path, why.text, why.line);
    const struct reading r = { .path = path, .within = "", .err = err };
    enum status status = json_is_object(root)
                             ? parse_object(out, root, &r)
                             : err_set(err, ERR_INPUT, "%s: not a JSON object", path);
    json_decref(root);
    return status;
}

/* ---- single values ---- */

static enum status complain(const struct reading *r, const char *key, const char *what) {
    return err_set(r->err, ERR_INPUT, "%s: \"%s%s\" %s", r->path, r->within, key, what);
}

/* A whole number, spelled as an integer or as a float without a fraction. */
static bool whole(const json_t *value, int64_t *out) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    const double real = json_is_real(value) ? json_real_value(value) : NAN;
    // Beyond 2^53 a float no longer says which whole number it means. NAN fails this test.
    if (!(fabs(real) <= 9007199254740992.0) || real != floor(real))
        return false;
    *out = (int64_t)real;
    return true;
}

static enum status get_whole(const struct reading *r, const json_t *object, const char *key,
                             int64_t min, int64_t max, int64_t *out) {
    const json_t *value = json_object_get(object, key);
    if (!value)
        return complain(r, key, "is missing");
    if (!whole(value, out))
        return complain(r, key, "is not a whole number");
    if (*out < min || *out > max)
        return err_set(r->err, ERR_INPUT, "%s: \"%s%s\" is %lld, not within %lld .. %lld", r->path,
                       r->within, key, (long long)*out, (long long)min, (long long)max);
    return OK;
}

static enum status get_real(const struct reading *r, const json_t *object, const char *key,
                            double min, double max, double *out) {
    const json_t *value = json_object_get(object, key);
    if (!value)
        return complain(r, key, "is missing");
    if (!json_is_number(value))
        return complain(r, key, "is not a number");
    *out = json_number_value(value);
    if (!(*out >= min && *out <= max))
        return err_set(r->err, ERR_INPUT, "%s: \"%s%s\" is %g, not within %g .. %g", r->path,
                       r->within, key, *out, min, max);
    return OK;
}

/* ---- the geometry: one row a key, bounds generous but such that no product overflows ---- */

struct whole_key {
    const char *key;
    size_t offset; /* of a uint32_t in struct config */
    uint32_t min, max;
};

#define WHOLE(key, field, min, max)                                                                \
    { key, offsetof(struct config, field), min, max }

static const struct whole_key whole_keys[] = {
    WHOLE("hidden_size", d, 128, 1 << 16),
    WHOLE("num_hidden_layers", n_layers, 1, CONFIG_MAX_LAYERS - CONFIG_MAX_DRAFTS),
    WHOLE("num_attention_heads", n_heads, 1, 1 << 12),
    WHOLE("head_dim", head_dim, 66, 1 << 13),
    WHOLE("qk_rope_head_dim", rope_dim, 2, CONFIG_MAX_ROPE),
    WHOLE("q_lora_rank", q_rank, 128, 1 << 16),
    WHOLE("o_groups", o_groups, 1, 1 << 12),
    WHOLE("o_lora_rank", o_rank, 1, 1 << 16),
    WHOLE("sliding_window", window, 1, 1 << 20),
    WHOLE("index_n_heads", index_heads, 1, 1 << 10),
    WHOLE("index_head_dim", index_dim, 32, 1 << 10),
    WHOLE("index_topk", index_topk, 1, 1 << 16),
    WHOLE("n_routed_experts", n_experts, 1, 1 << 12),
    WHOLE("num_experts_per_tok", n_chosen, 1, CONFIG_MAX_CHOSEN),
    WHOLE("moe_intermediate_size", expert_dim, 128, 1 << 16),
    WHOLE("num_hash_layers", n_hash_layers, 0, CONFIG_MAX_LAYERS),
    WHOLE("hc_mult", n_streams, 1, CONFIG_MAX_STREAMS),
    WHOLE("hc_sinkhorn_iters", sinkhorn_iters, 1, 1000),
    WHOLE("vocab_size", vocab, 1, 1 << 24),
    WHOLE("max_position_embeddings", max_positions, 1, 1 << 26),
};

static enum status parse_wholes(struct config *c, const json_t *root, const struct reading *r) {
    for (size_t i = 0; i < sizeof whole_keys / sizeof *whole_keys; i++) {
        const struct whole_key *k = &whole_keys[i];
        int64_t value;
        if (get_whole(r, root, k->key, k->min, k->max, &value) != OK)
            return ERR_INPUT;
        *(uint32_t *)((char *)c + k->offset) = (uint32_t)value;
    }
    return OK;
}

static enum status parse_reals(struct config *c, const json_t *root, const struct reading *r) {
    const struct {
        const char *key;
        float *out;
        double min, max;
    } keys[] = {
        { "routed_scaling_factor", &c->route_scale, 1e-6, 1e6 },
        { "swiglu_limit", &c->swiglu_limit, 1e-3, 1e9 },
        { "hc_eps", &c->hc_eps, 1e-30, 1 },
        { "rms_norm_eps", &c->norm_eps, 1e-30, 1 },
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double value;
        if (get_real(r, root, keys[i].key, keys[i].min, keys[i].max, &value) != OK)
            return ERR_INPUT;
        *keys[i].out = (float)value;
    }
    if (get_real(r, root, "rope_theta", 1.001, 1e15, &c->rope_theta) != OK ||
        get_real(r, root, "compress_rope_theta", 1.001, 1e15, &c->compress_rope_theta) != OK)
        return ERR_INPUT;
    return OK;
}

static enum status parse_yarn(struct config *c, const json_t *root, const struct reading *outer) {
    const json_t *yarn = json_object_get(root, "rope_scaling");
    if (!json_is_object(yarn))
        return complain(outer, "rope_scaling", yarn ? "is not an object" : "is missing");
    const struct reading r = { .path = outer->path, .within = "rope_scaling.", .err = outer->err };
    // Newer writers say rope_type; some say both.
    const json_t *type = json_object_get(yarn, "rope_type");
    if (!type)
        type = json_object_get(yarn, "type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "yarn") != 0)
        return complain(&r, "type", "is not \"yarn\"");
    c->yarn_beta_fast = 32; // the publisher's defaults
    c->yarn_beta_slow = 1;
    if (get_real(&r, yarn, "factor", 1, 1e6, &c->yarn_factor) != OK ||
        get_real(&r, yarn, "original_max_position_embeddings", 1, 1 << 30,
                 &c->yarn_original_positions) != OK)
        return ERR_INPUT;
    if (json_object_get(yarn, "beta_fast") &&
        get_real(&r, yarn, "beta_fast", 1e-3, 1e6, &c->yarn_beta_fast) != OK)
        return ERR_INPUT;
    if (json_object_get(yarn, "beta_slow") &&
        get_real(&r, yarn, "beta_slow", 1e-3, 1e6, &c->yarn_beta_slow) != OK)
        return ERR_INPUT;
    if (c->yarn_beta_slow > c->yarn_beta_fast)
        return complain(&r, "beta_slow", "is above beta_fast");
    return OK;
}

/* A token id: absent, null or -1 is none (-1); of a list the first. */
static enum status get_token(const struct config *c, const json_t *root, const char *key,
                             int32_t *out, const struct reading *r) {
    const json_t *value = json_object_get(root, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    *out = -1;
    if (!value || json_is_null(value))
        return OK;
    int64_t id;
    if (!whole(value, &id) || id < -1 || id >= c->vocab)
        return complain(r, key, "is not a token of the vocabulary");
    *out = (int32_t)id;
    return OK;
}

/* ---- what kind of model it is ---- */

static enum status check_architecture(const json_t *root, const struct reading *r) {
    const json_t *type = json_object_get(root, "model_type");
    const json_t *list = json_object_get(root, "architectures");
    bool known = json_is_string(type) && strcmp(json_string_value(type), "deepseek_v4") == 0;
    if (type && !known)
        return complain(r, "model_type", "is not \"deepseek_v4\": sluice runs DeepSeek-V4 only");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name && strcmp(name, "DeepseekV4ForCausalLM") == 0)
            return OK;
    }
    if (!list && known)
        return OK;
    return complain(r, "architectures",
                    list ? "does not name DeepseekV4ForCausalLM: sluice runs DeepSeek-V4 only"
                         : "is missing, and so is \"model_type\"");
}

/* Keys that, where present, must say what the arithmetic takes for granted. */
static enum status check_constants(const json_t *root, const struct reading *r) {
    static const struct {
        const char *key, *text;
    } texts[] = {
        { "scoring_func", "sqrtsoftplus" },
        { "topk_method", "noaux_tc" },
        { "hidden_act", "silu" },
    };
    static const struct {
        const char *key;
        bool value;
    } flags[] = {
        { "norm_topk_prob", true },
        { "tie_word_embeddings", false },
        { "attention_bias", false },
    };
    char what[64];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const json_t *value = json_object_get(root, texts[i].key);
        snprintf(what, sizeof what, "is not \"%s\"", texts[i].text);
        if (value &&
            (!json_is_string(value) || strcmp(json_string_value(value), texts[i].text) != 0))
            return complain(r, texts[i].key, what);
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const json_t *value = json_object_get(root, flags[i].key);
        snprintf(what, sizeof what, "is not %s", flags[i].value ? "true" : "false");
        if (value && !(flags[i].value ? json_is_true(value) : json_is_false(value)))
            return complain(r, flags[i].key, what);
    }
    static const char *const ones[] = { "n_shared_experts", "num_key_value_heads" };
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
        const json_t *value = json_object_get(root, ones[i]);
        int64_t number;
        if (value && (!whole(value, &number) || number != 1))
            return complain(r, ones[i], "is not 1");
    }
    return OK;
}

/* Re-quantized copies say so here; the published form is FP8 over 128×128 blocks. */
static enum status check_quantization(const json_t *root, const struct reading *outer) {
    const json_t *q = json_object_get(root, "quantization_config");
    if (!q || json_is_null(q))
        return OK; // the tensors' own types are checked in any case
    const struct reading r = { outer->path, "quantization_config.", outer->err };
    if (!json_is_object(q))
        return complain(outer, "quantization_config", "is not an object");
    const json_t *method = json_object_get(q, "quant_method");
    if (method && (!json_is_string(method) || strcmp(json_string_value(method), "fp8") != 0))
        return complain(&r, "quant_method", "is not \"fp8\": sluice reads the published weights");
    const json_t *block = json_object_get(q, "weight_block_size");
    if (!block)
        return OK;
    int64_t side[2];
    if (json_array_size(block) != 2 || !whole(json_array_get(block, 0), &side[0]) ||
        !whole(json_array_get(block, 1), &side[1]) || side[0] != 128 || side[1] != 128)
        return complain(&r, "weight_block_size", "is not [128, 128]");
    return OK;
}

static enum status parse_expert_format(struct config *c, const json_t *root,
                                       const struct reading *r) {
    const json_t *value = json_object_get(root, "expert_dtype");
    const char *text = value && !json_is_null(value) ? json_string_value(value) : "fp4";
    if (text && strcmp(text, "fp4") == 0)
        c->expert_format = EXPERT_FP4;
    else if (text && strcmp(text, "fp8") == 0)
        c->expert_format = EXPERT_FP8;
    else
        return complain(r, "expert_dtype", "is neither \"fp4\" nor \"fp8\"");
    return OK;
}

/* ---- layers ---- */

static enum status parse_ratios(struct config *c, const json_t *root, const struct reading *r) {
    const json_t *list = json_object_get(root, "compress_ratios");
    if (!json_is_array(list))
        return complain(r, "compress_ratios", list ? "is not a list" : "is missing");
    const size_t n = json_array_size(list);
    if (n < c->n_layers || n > c->n_layers + CONFIG_MAX_DRAFTS)
        return err_set(r->err, ERR_INPUT,
                       "%s: \"compress_ratios\" has %zu entries for %u layers and their drafts",
                       r->path, n, c->n_layers);
    for (size_t i = 0; i < n; i++) {
        int64_t m;
        if (!whole(json_array_get(list, i), &m) || (m != 0 && m != 4 && m != 128))
            return err_set(r->err, ERR_INPUT,
                           "%s: \"compress_ratios\"[%zu] is none of 0, 4 and 128", r->path, i);
        c->ratio[i] = (uint32_t)m;
    }
    c->n_drafts = (uint32_t)n - c->n_layers;
    return OK;
}

/* The releases of August 2026 keep num_nextn_predict_layers at 1 for three DSpark stages, so
 * the count comes from compress_ratios wherever that has more than L entries. */
static enum status parse_drafts(struct config *c, json_t *root, const struct reading *r) {
    int64_t announced = c->n_drafts;
    if (json_object_get(root, "num_nextn_predict_layers") &&
        get_whole(r, root, "num_nextn_predict_layers", 0, CONFIG_MAX_DRAFTS, &announced) != OK)
        return ERR_INPUT;
    if (c->n_drafts == 0)
        c->n_drafts = (uint32_t)announced; // ratios past L stay 0: a window-only block
    c->draft = announced > 0 ? DRAFT_MTP : DRAFT_NONE;
    for (void *it = json_object_iter(root); it; it = json_object_iter_next(root, it))
        if (strncmp(json_object_iter_key(it), "dspark_", 7) == 0)
            c->draft = DRAFT_DSPARK;
    return OK;
}

/* ---- what must divide what ---- */

static enum status check_divides(const struct config *c, const struct reading *r) {
    const struct {
        const char *key, *what;
        bool holds;
    } rules[] = {
        { "hidden_size", "is no multiple of 128", c->d % 128 == 0 },
        { "moe_intermediate_size", "is no multiple of 128", c->expert_dim % 128 == 0 },
        { "q_lora_rank", "is no multiple of 128", c->q_rank % 128 == 0 },
        { "qk_rope_head_dim", "is odd", c->rope_dim % 2 == 0 },
        { "head_dim", "less qk_rope_head_dim is no positive multiple of 64",
          c->head_dim > c->rope_dim && (c->head_dim - c->rope_dim) % 64 == 0 },
        { "num_attention_heads", "is no multiple of o_groups", c->n_heads % c->o_groups == 0 },
        { "head_dim", "times the heads of an output group is no multiple of 128",
          (uint64_t)(c->n_heads / c->o_groups) * c->head_dim % 128 == 0 },
        { "o_lora_rank", "times o_groups is no multiple of 128",
          (uint64_t)c->o_groups * c->o_rank % 128 == 0 },
        { "index_head_dim", "is no power of two", (c->index_dim & (c->index_dim - 1)) == 0 },
        { "index_head_dim", "is below qk_rope_head_dim", c->index_dim >= c->rope_dim },
        { "num_attention_heads", "times head_dim is above 2^20: no row is that wide",
          (uint64_t)c->n_heads * c->head_dim <= 1 << 20 },
        { "o_groups", "times o_lora_rank is above 2^20: no row is that wide",
          (uint64_t)c->o_groups * c->o_rank <= 1 << 20 },
        { "index_n_heads", "times index_head_dim is above 2^18: no query is that wide",
          (uint64_t)c->index_heads * c->index_dim <= 1 << 18 },
        { "num_experts_per_tok", "is above n_routed_experts", c->n_chosen <= c->n_experts },
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!rules[i].holds)
            return complain(r, rules[i].key, rules[i].what);
    return OK;
}

static enum status parse_object(struct config *c, json_t *root, const struct reading *r) {
    if (check_architecture(root, r) != OK || check_constants(root, r) != OK ||
        check_quantization(root, r) != OK || parse_wholes(c, root, r) != OK ||
        parse_reals(c, root, r) != OK || parse_yarn(c, root, r) != OK ||
        get_token(c, root, "bos_token_id", &c->bos_token, r) != OK ||
        get_token(c, root, "eos_token_id", &c->eos_token, r) != OK ||
        parse_expert_format(c, root, r) != OK || parse_ratios(c, root, r) != OK ||
        parse_drafts(c, root, r) != OK || check_divides(c, r) != OK)
        return ERR_INPUT;
    snprintf(c->name, sizeof c->name, "DeepSeek-V4%s (%u layers, %u experts)",
             c->expert_format == EXPERT_FP8 ? "-Base" : "", c->n_layers, c->n_experts);
    return OK;
}
