#include "tests/support/make_checkpoint.h"
#include "src/checkpoint/config_make.h"
#include "src/checkpoint/safetensors.h"
#include "io/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void make_small_config(struct config *c) {
    *c = (struct config){ .d = 128,
                          .n_layers = 4,
                          .n_drafts = 1,
                          .n_heads = 2,
                          .head_dim = 128,
                          .rope_dim = 64,
                          .q_rank = 128,
                          .o_groups = 2,
                          .o_rank = 64,
                          .window = 16,
                          .ratio = { 128, 4, 0, 4, 0 },
                          .index_heads = 2,
                          .index_dim = 64,
                          .index_topk = 4,
                          .n_experts = 5,
                          .n_chosen = 2,
                          .expert_dim = 128,
                          .n_hash_layers = 1,
                          .route_scale = 2,
                          .swiglu_limit = 10,
                          .n_streams = 4,
                          .sinkhorn_iters = 20,
                          .hc_eps = 1e-6f,
                          .norm_eps = 1e-6f,
                          .rope_theta = 10000,
                          .compress_rope_theta = 160000,
                          .yarn_factor = 16,
                          .yarn_original_positions = 65536,
                          .yarn_beta_fast = 32,
                          .yarn_beta_slow = 1,
                          .vocab = 64,
                          .max_positions = 4096,
                          .bos_token = 0,
                          .eos_token = 1,
                          .expert_format = EXPERT_FP4,
                          .draft = DRAFT_MTP };
}

/* ---- bytes ---- */

static uint64_t next_random(uint64_t *state) { // splitmix64
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t seed_of(const char *name, uint64_t seed) { // FNV-1a
    uint64_t hash = 0xCBF29CE484222325u ^ seed;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001B3u;
    return hash;
}

void make_bytes(const struct config *c, const struct manifest_entry *entry, uint64_t seed,
                void *out) {
    uint64_t state = seed_of(entry->name, seed);
    const uint64_t n = entry->bytes / dtype_bytes(entry->dtype);
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t r = next_random(&state);
        const float f = ((float)(r >> 40) / (float)(1 << 24) - 0.5f) * 0.25f;
        uint8_t *byte = (uint8_t *)out + i;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        switch (entry->dtype) {
        case DTYPE_F32:
            memcpy((float *)out + i, &f, sizeof f);
            break;
        case DTYPE_BF16:
            ((uint16_t *)out)[i] = (uint16_t)(bits >> 16);
            break;
        case DTYPE_F8_E4M3:
            *byte = (uint8_t)(r & 0x80) | (uint8_t)(r >> 8) % 0x60; // never a NaN code
            break;
        case DTYPE_F8_E8M0:
            *byte = (uint8_t)(118 + r % 8);
            break;
        case DTYPE_I8:
            *byte = (uint8_t)r;
            break;
        case DTYPE_I32:
            ((int32_t *)out)[i] = (int32_t)(r % c->n_experts);
            break;
        case DTYPE_I64:
            ((int64_t *)out)[i] = (int64_t)(r % c->n_experts);
            break;
        }
    }
}

/* ---- names ---- */

void make_spelling(const char *canonical, enum make_names names, char *out, size_t out_bytes) {
    static const struct {
        const char *ours, *other;
        enum make_names from;
    } table[] = {
        { "attn", "self_attn", NAMES_PREFIXED },
        { "ffn", "mlp", NAMES_PREFIXED },
        { "scale", "weight_scale_inv", NAMES_PREFIXED },
        { "bias", "e_score_correction_bias", NAMES_PREFIXED },
        { "attn_norm", "input_layernorm", NAMES_V3 },
        { "ffn_norm", "post_attention_layernorm", NAMES_V3 },
        { "w1", "gate_proj", NAMES_V3 },
        { "w2", "down_proj", NAMES_V3 },
        { "w3", "up_proj", NAMES_V3 },
        { "wq_a", "q_a_proj", NAMES_V3 },
        { "q_norm", "q_a_layernorm", NAMES_V3 },
        { "wq_b", "q_b_proj", NAMES_V3 },
        { "kv_norm", "kv_a_layernorm", NAMES_V3 },
        { "embed", "embed_tokens", NAMES_V3 },
        { "head", "lm_head", NAMES_V3 },
    };
    size_t used = 0;
    // V3 puts lm_head beside the model, not into it.
    if (names != NAMES_PUBLISHED && !(names == NAMES_V3 && strncmp(canonical, "head.", 5) == 0))
        used += (size_t)snprintf(out, out_bytes, "model.");
    for (const char *s = canonical;;) {
        const size_t n = strcspn(s, ".");
        const char *segment = s;
        size_t length = n;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (names >= table[i].from && strlen(table[i].ours) == n &&
                strncmp(table[i].ours, s, n) == 0) {
                segment = table[i].other;
                length = strlen(segment);
            }
        }
        used += (size_t)snprintf(out + used, out_bytes - used, "%.*s%s", (int)length, segment,
                                 s[n] ? "." : "");
        if (!s[n])
            return;
        s += n + 1;
    }
}

/* ---- files ---- */

static enum status io_error(struct err *err, const char *path) {
    return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
}

static FILE *open_in(const char *dir, const char *name, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        io_error(err, path);
    return file;
}

static enum status close_file(FILE *file, const char *name, struct err *err) {
    const bool failed = ferror(file);
    return fclose(file) == 0 && !failed ? OK : io_error(err, name);
}

enum status make_file(const char *dir, const char *name, const void *bytes, size_t length,
                      struct err *err) {
    FILE *file = open_in(dir, name, err);
    if (!file)
        return ERR_IO;
    fwrite(bytes, 1, length, file);
    return close_file(file, name, err);
}

/* ---- a checkpoint from a config ---- */

struct item {
    struct manifest_entry entry;
    bool is_extra;
    const char *dtype; /* as stored */
    uint64_t bytes;    /* as stored */
    uint32_t shard;
};

struct making {
    const struct config *c;
    const struct make_options *o;
    struct item *items;
    size_t n_items, room;
    uint32_t n_shards;
    uint64_t total;
};

static enum status add_item(struct making *m, const struct manifest_entry *entry, bool is_extra) {
    if (m->n_items == m->room) {
        m->room = m->room ? 2 * m->room : 1024;
        m->items = realloc(m->items, m->room * sizeof *m->items);
    }
    struct item *item = &m->items[m->n_items++];
    *item = (struct item){ .entry = *entry,
                           .is_extra = is_extra,
                           .dtype = dtype_name(entry->dtype),
                           .bytes = entry->bytes };
    const bool is_scale = manifest_is_scale(entry->id);
    if (!is_extra && m->o->u8 && (is_scale || entry->dtype == DTYPE_I8) &&
        entry->dtype != DTYPE_F32)
        item->dtype = "U8";
    if (!is_extra && m->o->i32_table && entry->dtype == DTYPE_I64) {
        item->dtype = "I32";
        item->bytes /= 2;
    }
    if (!is_extra && m->o->f32_scales && is_scale && entry->id < TENSOR_W1) {
        item->dtype = "F32";
        item->bytes *= 4;
    }
    m->total += item->bytes;
    return OK;
}

static enum status visit_entry(void *context, const struct manifest_entry *entry, struct err *err) {
    struct making *m = context;
    (void)err;
    if (m->o->leave_out && m->o->leave_out(entry, m->o->context))
        return OK;
    return add_item(m, entry, false);
}

/* In the order of the list: by blocks, or into n_shards of about equal size. */
static void assign_shards(struct making *m) {
    uint64_t before = 0;
    uint32_t shard = 0;
    for (size_t i = 0; i < m->n_items; i++) {
        struct item *item = &m->items[i];
        const struct manifest_entry *last = &m->items[i ? i - 1 : 0].entry;
        const struct manifest_entry *now = &item->entry;
        if (i && m->o->layer_per_shard)
            shard += last->layer != now->layer ||
                     (last->id < TENSOR_ATTN_NORM) != (now->id < TENSOR_ATTN_NORM);
        else if (m->o->n_shards)
            shard = (uint32_t)(before * m->o->n_shards / m->total);
        item->shard = shard;
        before += item->bytes;
    }
    m->n_shards = shard + 1;
}

static void shard_name(const struct making *m, uint32_t shard, char out[64]) {
    if (m->o->n_shards == 0 && !m->o->layer_per_shard)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1, m->n_shards);
}

static void write_header_entry(FILE *file, const struct making *m, const struct item *item,
                               uint64_t *at) {
    char name[256];
    make_spelling(item->entry.name, item->is_extra ? NAMES_PUBLISHED : m->o->names, name,
                  sizeof name);
    *at += m->o->gap;
    fprintf(file, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", name, item->dtype,
            (unsigned long long)item->entry.shape[0]);
    if (item->entry.n_dims > 1)
        fprintf(file, ",%llu", (unsigned long long)item->entry.shape[1]);
    fprintf(file, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at,
            (unsigned long long)(*at + item->bytes));
    *at += item->bytes;
}

/* The bytes of a tensor in the type that it is stored in. */
static void stored_bytes(const struct making *m, const struct item *item, void *out) {
    if (item->is_extra) {
        memset(out, 0, item->bytes);
        return;
    }
    uint8_t *published = malloc(item->entry.bytes);
    make_bytes(m->c, &item->entry, m->o->seed, published);
    if (item->bytes == item->entry.bytes) {
        memcpy(out, published, item->bytes);
    } else if (item->entry.dtype == DTYPE_I64) {
        for (uint64_t i = 0; i < item->bytes / 4; i++)
            ((int32_t *)out)[i] = (int32_t)((int64_t *)(void *)published)[i];
    } else {
        for (uint64_t i = 0; i < item->bytes / 4; i++) {
            const uint32_t bits = (uint32_t)published[i] << 23; // 2^(b − 127)
            memcpy((float *)out + i, &bits, sizeof bits);
        }
    }
    free(published);
}

static enum status write_shard(const struct making *m, const char *dir, uint32_t shard,
                               struct err *err) {
    char name[64], *text = NULL;
    size_t length = 0;
    uint64_t at = 0;
    FILE *header = open_memstream(&text, &length);
    fprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < m->n_items; i++)
        if (m->items[i].shard == shard)
            write_header_entry(header, m, &m->items[i], &at);
    fputc('}', header);
    fflush(header);
    fprintf(header, "%*s", (int)(-length & 7), "");
    fclose(header);

    shard_name(m, shard, name);
    FILE *file = open_in(dir, name, err);
    if (!file) {
        free(text);
        return ERR_IO;
    }
    const uint64_t length64 = length;
    fwrite(&length64, 8, 1, file); // tests run on little-endian machines
    fwrite(text, 1, length, file);
    free(text);
    for (size_t i = 0; i < m->n_items && !m->o->sparse; i++) {
        const struct item *item = &m->items[i];
        if (item->shard != shard)
            continue;
        void *bytes = malloc(item->bytes);
        stored_bytes(m, item, bytes);
        fseeko(file, (off_t)m->o->gap, SEEK_CUR);
        fwrite(bytes, 1, item->bytes, file);
        free(bytes);
    }
    fflush(file);
    if (ftruncate(fileno(file), (off_t)(8 + length + at)) != 0)
        io_error(err, name);
    return close_file(file, name, err);
}

static enum status write_index(const struct making *m, const char *dir, struct err *err) {
    FILE *file = open_in(dir, "model.safetensors.index.json", err);
    if (!file)
        return ERR_IO;
    fprintf(file, "{\"metadata\":{\"total_size\":%llu},\"weight_map\":{",
            (unsigned long long)m->total);
    for (size_t i = 0; i < m->n_items; i++) {
        const struct item *item = &m->items[i];
        char shard[64], name[256];
        shard_name(m, item->shard, shard);
        make_spelling(item->entry.name, item->is_extra ? NAMES_PUBLISHED : m->o->names, name,
                      sizeof name);
        fprintf(file, "%s\"%s\":\"%s\"", i ? ",\n" : "", name, shard);
    }
    fprintf(file, "}}\n");
    return close_file(file, "index", err);
}

enum status make_checkpoint(const char *dir, const struct config *c, const struct make_options *o,
                            struct err *err) {
    struct making m = { .c = c, .o = o };
    char *text = config_text(c);
    enum status status = make_file(dir, "config.json", text, strlen(text), err);
    free(text);
    if (status == OK)
        status = manifest_walk(c, visit_entry, &m, err);
    for (uint32_t i = 0; i < o->n_extra && status == OK; i++)
        status = add_item(&m, &o->extra[i], true);
    if (status == OK)
        assign_shards(&m);
    for (uint32_t i = 0; i < m.n_shards && status == OK; i++)
        status = write_shard(&m, dir, i, err);
    if (status == OK && (o->n_shards || o->layer_per_shard) && !o->without_index)
        status = write_index(&m, dir, err);
    free(m.items);
    return status;
}

/* ---- changed copies ---- */

/* Write length, header and the data that begin at `data` of the file `from`. */
static enum status write_with_header(const char *to, const json_t *header, const char *from,
                                     uint64_t data, struct err *err) {
    char *bytes, *text = json_dumps(header, JSON_COMPACT);
    size_t n_bytes;
    enum status status = small_file_read(from, 1u << 30, &bytes, &n_bytes, err);
    FILE *file = status == OK ? fopen(to, "wb") : NULL;
    if (file) {
        const uint64_t length = strlen(text);
        fwrite(&length, 8, 1, file);
        fwrite(text, 1, length, file);
        if (data < n_bytes)
            fwrite(bytes + data, 1, n_bytes - data, file);
        status = close_file(file, to, err);
    } else if (status == OK) {
        status = io_error(err, to);
    }
    free(bytes);
    free(text);
    return status;
}

/* The header of a shard as JSON, unchecked; and where its data begin. */
static json_t *load_header(const char *path, uint64_t *data, struct err *err) {
    char *bytes;
    size_t n;
    uint64_t length = 0;
    if (small_file_read(path, 1u << 30, &bytes, &n, err) != OK)
        return NULL;
    memcpy(&length, bytes, n >= 8 ? 8 : 0);
    json_t *header = n >= 8 && length <= n - 8 ? json_loadb(bytes + 8, length, 0, NULL) : NULL;
    if (!header)
        err_set(err, ERR_INPUT, "%s: no header", path);
    free(bytes);
    *data = 8 + length;
    return header;
}

enum status make_edited(const char *path, void (*edit)(json_t *header, void *context),
                        void *context, struct err *err) {
    uint64_t data;
    json_t *header = load_header(path, &data, err);
    if (!header)
        return ERR_INPUT;
    edit(header, context);
    enum status status = write_with_header(path, header, path, data, err);
    json_decref(header);
    return status;
}

static json_t *renamed_keys(json_t *object, enum make_names names) {
    json_t *out = json_object(), *value;
    const char *key;
    json_object_foreach(object, key, value) {
        char name[256];
        make_spelling(key, strcmp(key, "__metadata__") == 0 ? NAMES_PUBLISHED : names, name,
                      sizeof name);
        json_object_set(out, name, value);
    }
    return out;
}

static enum status rename_shard(const char *from, const char *to, enum make_names names,
                                struct err *err) {
    uint64_t data;
    json_t *header = load_header(from, &data, err);
    if (!header)
        return ERR_INPUT;
    json_t *renamed = renamed_keys(header, names);
    enum status status = write_with_header(to, renamed, from, data, err);
    json_decref(renamed);
    json_decref(header);
    return status;
}

static enum status rename_index(const char *from, const char *to, enum make_names names,
                                struct err *err) {
    json_t *index = json_load_file(from, 0, NULL);
    if (!index)
        return err_set(err, ERR_INPUT, "%s: not JSON", from);
    json_object_set_new(index, "weight_map",
                        renamed_keys(json_object_get(index, "weight_map"), names));
    enum status status = json_dump_file(index, to, 0) == 0 ? OK : io_error(err, to);
    json_decref(index);
    return status;
}

enum status make_renamed(const char *from, const char *to, enum make_names names, struct err *err) {
    DIR *dir = opendir(from);
    if (!dir)
        return io_error(err, from);
    enum status status = OK;
    for (struct dirent *entry; status == OK && (entry = readdir(dir));) {
        char a[4096], b[4096], *text;
        size_t length;
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        if (strstr(entry->d_name, ".safetensors.index.json")) {
            status = rename_index(a, b, names, err);
        } else if (strstr(entry->d_name, ".safetensors")) {
            status = rename_shard(a, b, names, err);
        } else if (strstr(entry->d_name, ".json")) {
            status = small_file_read(a, 1u << 26, &text, &length, err);
            if (status == OK)
                status = make_file(to, entry->d_name, text, length, err);
            free(text);
        }
    }
    closedir(dir);
    return status;
}

/* ---- temporary directories ---- */

char *make_temp_dir(void) {
    const char *base = getenv("TMPDIR");
    char *path;
    if (asprintf(&path, "%s/sluice-test-XXXXXX", base && *base ? base : "/tmp") < 0)
        return NULL;
    if (!mkdtemp(path)) {
        free(path);
        return NULL;
    }
    return path;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *where) {
    (void)st;
    (void)flag;
    (void)where;
    return remove(path);
}

void remove_temp_dir(char *dir) {
    if (dir)
        nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}
