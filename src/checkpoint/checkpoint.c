#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/shard_index.h"
#include "io/small_file.h"
#include "src/checkpoint/tensor_name.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Set in a place's dtype while opening: the index says that place.file holds this tensor. */
#define LISTED 0x80u

#define LIST_SHOWN 8 /* names in a message before "and N more" */

/* Names for a message: the first few, the rest counted. */
struct list {
    uint32_t n;
    char text[800];
};

/* What lives only while a checkpoint is opened. */
struct opening {
    struct checkpoint *cp;
    struct err *err;
    struct config form; /* the config with as many MTP blocks as there can be: what the tensors of
                           mtp.* would look like, before we know which draft module they are */
    struct list missing_shards, short_shards, missing_tensors;
    /* of mtp.*: */
    struct err draft_err; /* the first misshaped tensor: an error if the block is one we run */
    bool has_e_proj, has_dspark;
    uint32_t draft_blocks; /* bit i: mtp.i is there */
    uint32_t draft_stages; /* bit i: mtp.i.attn_norm is there */
    uint64_t n_draft, draft_bytes;
    /* of no known purpose: */
    uint64_t n_unknown;
    char first_unknown[MANIFEST_NAME_BYTES];
};

static enum status keep_dirs(struct opening *o, const char *const *dirs, uint32_t n_dirs);
static enum status load_config(struct opening *o);
static enum status make_tables(struct opening *o);
static enum status find_shards(struct opening *o);
static enum status read_headers(struct opening *o);
static enum status report_incomplete(struct opening *o);
static enum status decide_draft(struct opening *o);
static enum status check_complete(struct opening *o);
static void write_note(struct opening *o);

enum status checkpoint_open(struct checkpoint *cp, const char *const *dirs, uint32_t n_dirs,
                            struct err *err) {
    *cp = (struct checkpoint){ 0 }; // checkpoint_close is safe from here on
    struct opening *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(err, ERR_MEMORY, "no memory to open a checkpoint");
    o->cp = cp;
    o->err = err;
    enum status status = keep_dirs(o, dirs, n_dirs);
    if (status == OK)
        status = load_config(o);
    if (status == OK)
        status = make_tables(o);
    if (status == OK)
        status = find_shards(o);
    if (status == OK)
        status = read_headers(o);
    if (status == OK)
        status = report_incomplete(o);
    if (status == OK)
        status = decide_draft(o);
    if (status == OK)
        status = check_complete(o);
    if (status == OK)
        write_note(o);
    free(o);
    return status;
}

void checkpoint_close(struct checkpoint *cp) {
    for (uint32_t i = 0; i < cp->n_files; i++) {
        if (cp->files[i].fd >= 0)
            close(cp->files[i].fd);
        free(cp->files[i].path);
    }
    for (uint32_t i = 0; i < cp->n_dirs; i++)
        free(cp->dirs[i]);
    free(cp->files);
    free(cp->dirs);
    free(cp->layers);
    free(cp->experts);
    *cp = (struct checkpoint){ 0 };
}

enum status checkpoint_read(const struct checkpoint *cp, const struct tensor_place *place,
                            uint64_t from, void *dst, uint64_t bytes, struct err *err) {
    assert(from <= place->bytes && bytes <= place->bytes - from);
    const struct checkpoint_file *file = &cp->files[place->file];
    for (uint64_t have = 0; have < bytes;) {
        const uint64_t at = place->offset + from + have;
        const ssize_t got = pread(file->fd, (char *)dst + have, bytes - have, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, ERR_IO, "%s: cannot read at byte %llu: %s", file->path,
                           (unsigned long long)at, strerror(errno));
        if (got == 0) // it was longer when it was opened
            return err_set(err, ERR_TRUNCATED, "%s: ends at byte %llu, inside a tensor", file->path,
                           (unsigned long long)at);
        have += (uint64_t)got;
    }
    return OK;
}

/* ---- helpers ---- */

static enum status no_memory(struct opening *o) {
    return err_set(o->err, ERR_MEMORY, "%s: no memory to open the checkpoint", o->cp->dirs[0]);
}

static void list_add(struct list *list, const char *name) {
    if (list->n++ >= LIST_SHOWN)
        return;
    const size_t used = strlen(list->text);
    snprintf(list->text + used, sizeof list->text - used, "%s%s", list->n > 1 ? ", " : "", name);
}

static const char *list_end(struct list *list) {
    const size_t used = strlen(list->text);
    if (list->n > LIST_SHOWN)
        snprintf(list->text + used, sizeof list->text - used, " and %u more", list->n - LIST_SHOWN);
    return list->text;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The path of `name` in the first directory that has it (malloc'd); NULL if none has. A link
 * whose blob is not there yet counts as absent. */
static char *locate(const struct checkpoint *cp, const char *name) {
    for (uint32_t i = 0; i < cp->n_dirs; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", cp->dirs[i], name) < 0)
            return NULL;
        if (access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

/* ---- directories and config ---- */

static enum status keep_dirs(struct opening *o, const char *const *dirs, uint32_t n_dirs) {
    struct checkpoint *cp = o->cp;
    assert(n_dirs > 0);
    cp->dirs = calloc(n_dirs, sizeof *cp->dirs);
    for (uint32_t i = 0; i < n_dirs; i++) {
        struct stat st;
        if (stat(dirs[i], &st) != 0 || !S_ISDIR(st.st_mode))
            return err_set(o->err, ERR_MISSING, "%s: no such directory", dirs[i]);
        if (!cp->dirs || !(cp->dirs[i] = strdup(dirs[i])))
            return err_set(o->err, ERR_MEMORY, "no memory to open a checkpoint");
        cp->n_dirs = i + 1;
    }
    return OK;
}

static enum status load_config(struct opening *o) {
    char *path = locate(o->cp, "config.json");
    if (!path)
        return err_set(o->err, ERR_MISSING, "%s: no config.json: not a checkpoint's directory",
                       o->cp->dirs[0]);
    enum status status = config_load(&o->cp->config, path, o->err);
    free(path);
    o->form = o->cp->config;
    o->form.draft = DRAFT_MTP;
    o->form.n_drafts = CONFIG_MAX_DRAFTS;
    return status;
}

static enum status make_tables(struct opening *o) {
    const struct config *c = &o->form;
    const size_t n_blocks = c->n_layers + c->n_drafts;
    o->cp->layers = calloc(n_blocks, sizeof *o->cp->layers);
    o->cp->experts = calloc(n_blocks * c->n_experts, sizeof *o->cp->experts);
    return o->cp->layers && o->cp->experts ? OK : no_memory(o);
}

static struct tensor_place *place_of(const struct checkpoint *cp, enum tensor_id id, uint32_t layer,
                                     uint32_t expert) {
    if (id < TENSOR_ATTN_NORM)
        return (struct tensor_place *)&cp->global[id];
    if (id < TENSOR_W1)
        return &cp->layers[layer][id];
    const uint64_t e = (uint64_t)layer * cp->config.n_experts + expert;
    return &cp->experts[e].part[id - TENSOR_W1];
}

/* The block of a name as a row of the tables; false if there is none such. */
static bool layer_of(const struct opening *o, const struct tensor_name *name, uint32_t *layer) {
    const uint32_t n_layers = o->form.n_layers;
    *layer = name->where == BLOCK_DRAFT ? n_layers + name->block : name->block;
    return name->where == BLOCK_DRAFT ? name->block < CONFIG_MAX_DRAFTS
                                      : name->block < n_layers || name->where == BLOCK_NONE;
}

/* ---- shards: by the index, or by their names ---- */

static void add_shard(struct opening *o, const char *name) {
    struct checkpoint_file *file = &o->cp->files[o->cp->n_files];
    *file = (struct checkpoint_file){ .path = locate(o->cp, name), .fd = -1 };
    o->cp->n_files++;
    if (!file->path)
        list_add(&o->missing_shards, name);
}

static enum status make_files(struct opening *o, uint32_t n) {
    o->cp->files = calloc(n, sizeof *o->cp->files);
    return o->cp->files ? OK : no_memory(o);
}

/* Note in the tables which shard the index promises each tensor from. */
static enum status note_promises(struct opening *o, const struct shard_index *index,
                                 const char *path) {
    for (uint32_t i = 0; i < index->n_entries; i++) {
        const struct shard_index_entry *entry = &index->entries[i];
        const struct tensor_name name = tensor_name_parse(entry->tensor);
        uint32_t layer;
        if (name.kind != NAME_TENSOR || !layer_of(o, &name, &layer) ||
            name.expert >= o->form.n_experts)
            continue; // read_headers has more to say about these
        struct tensor_place *place = place_of(o->cp, name.id, layer, name.expert);
        if (place->dtype & LISTED)
            return err_set(o->err, ERR_INPUT, "%s: tensor %s is listed twice, in two spellings",
                           path, entry->tensor);
        place->dtype = LISTED;
        place->file = (uint16_t)entry->shard;
    }
    return OK;
}

static enum status shards_by_index(struct opening *o, const char *path) {
    char *text;
    size_t length;
    struct shard_index index = { 0 };
    enum status status = small_file_read(path, SHARD_INDEX_MAX_BYTES, &text, &length, o->err);
    if (status == OK)
        status = shard_index_parse(&index, text, length, path, o->err);
    free(text);
    if (status == OK)
        status = make_files(o, index.n_shards);
    for (uint32_t i = 0; i < index.n_shards && status == OK; i++)
        add_shard(o, index.shards[i]);
    if (status == OK)
        status = note_promises(o, &index, path);
    shard_index_close(&index);
    return status;
}

/* The form of shards' names: model-00003-of-00064.safetensors is { 5, "00064" }; the two numbers
 * need not have as many digits (V3's have 5 and 6). */
struct shard_form {
    int width;
    char of[8];
};

static bool shard_name(const char *name, struct shard_form *form) {
    int end = 0;
    memset(form, 0, sizeof *form);
    if (sscanf(name, "model-%*6[0-9]%n-of-%6[0-9].safetensors%n", &form->width, form->of, &end) !=
        1)
        return false;
    form->width -= (int)strlen("model-");
    return end > 0 && name[end] == 0;
}

/* The form of the shards that are there; of[0] = 0 if there are none. */
static enum status find_form(struct opening *o, struct shard_form *form) {
    memset(form, 0, sizeof *form);
    for (uint32_t i = 0; i < o->cp->n_dirs; i++) {
        DIR *dir = opendir(o->cp->dirs[i]);
        if (!dir)
            return err_set(o->err, ERR_IO, "%s: cannot read: %s", o->cp->dirs[i], strerror(errno));
        struct shard_form other;
        bool mixed = false;
        for (struct dirent *entry; !mixed && (entry = readdir(dir));) {
            if (!shard_name(entry->d_name, &other))
                continue;
            mixed = form->of[0] && memcmp(form, &other, sizeof other) != 0;
            if (!mixed)
                *form = other;
        }
        closedir(dir);
        if (mixed)
            return err_set(o->err, ERR_INPUT,
                           "%s: shards of two checkpoints (…-of-%s, …-of-%s), and no index",
                           o->cp->dirs[i], form->of, other.of);
    }
    return OK;
}

static enum status shards_by_name(struct opening *o) {
    char *single = locate(o->cp, "model.safetensors");
    enum status status;
    if (single) {
        free(single);
        status = make_files(o, 1);
        if (status == OK)
            add_shard(o, "model.safetensors");
        return status;
    }
    struct shard_form form;
    status = find_form(o, &form);
    if (status != OK)
        return status;
    const uint32_t n = (uint32_t)strtoul(form.of, NULL, 10);
    if (n == 0)
        return err_set(o->err, ERR_MISSING,
                       "%s: no model.safetensors.index.json and no shards: not a checkpoint's "
                       "directory",
                       o->cp->dirs[0]);
    if (n > SHARD_INDEX_MAX_SHARDS)
        return err_set(o->err, ERR_INPUT, "%s: %u shards are more than %u", o->cp->dirs[0], n,
                       SHARD_INDEX_MAX_SHARDS);
    status = make_files(o, n);
    for (uint32_t i = 1; i <= n && status == OK; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%0*u-of-%s.safetensors", form.width, i, form.of);
        add_shard(o, name);
    }
    return status;
}

static enum status find_shards(struct opening *o) {
    char *path = locate(o->cp, "model.safetensors.index.json");
    enum status status = path ? shards_by_index(o, path) : shards_by_name(o);
    free(path);
    return status;
}

/* ---- one tensor of a header ---- */

static void shape_text(char *out, size_t bytes, const char *dtype, const uint64_t *shape,
                       uint32_t n_dims) {
    int used = snprintf(out, bytes, "%s [", dtype);
    for (uint32_t i = 0; i < n_dims && (size_t)used < bytes; i++)
        used += snprintf(out + used, bytes - (size_t)used, "%s%llu", i ? ", " : "",
                         (unsigned long long)shape[i]);
    if ((size_t)used < bytes)
        snprintf(out + used, bytes - (size_t)used, "]");
}

/* Is this dtype one of those that a tensor may be stored in? */
static bool accept_dtype(const struct config *c, const struct manifest_entry *want,
                         const char *dtype, uint8_t *stored) {
    const bool is_u8 = strcmp(dtype, "U8") == 0;
    *stored = (uint8_t)want->dtype;
    if (manifest_is_scale(want->id)) {
        const bool is_fp4 = want->id >= TENSOR_W1 && c->expert_format == EXPERT_FP4;
        const bool is_f32 = strcmp(dtype, "F32") == 0;
        *stored = is_f32 ? DTYPE_F32 : DTYPE_F8_E8M0;
        return (is_f32 && !is_fp4) || is_u8 || strcmp(dtype, "F8_E8M0") == 0;
    }
    if (want->dtype == DTYPE_I64 && strcmp(dtype, "I32") == 0) {
        *stored = DTYPE_I32;
        return true;
    }
    return (want->dtype == DTYPE_I8 && is_u8) || strcmp(dtype, dtype_name(want->dtype)) == 0;
}

static enum status check_form(const struct config *c, const struct manifest_entry *want,
                              const struct safetensors_tensor *t, const char *path, uint8_t *stored,
                              struct err *err) {
    bool same = accept_dtype(c, want, t->dtype, stored) && t->n_dims == want->n_dims;
    for (uint32_t i = 0; i < want->n_dims && same; i++)
        same = t->shape[i] == want->shape[i];
    if (same)
        return OK;
    char is[128], should[128];
    shape_text(is, sizeof is, t->dtype, t->shape, t->n_dims);
    shape_text(should, sizeof should, dtype_name(want->dtype), want->shape, want->n_dims);
    return err_set(err, ERR_INPUT, "%s: tensor %s is %s, but config.json makes it %s", path,
                   t->name, is, should);
}

/* A known name that the config has no room for. */
static enum status contradiction(const struct tensor_name *name, const char *tensor,
                                 const char *path, struct err *err) {
    const char *key = "compress_ratios";
    if (name->id == TENSOR_GATE_TABLE)
        key = "num_hash_layers";
    else if (name->id >= TENSOR_W1)
        key = "n_routed_experts";
    return err_set(err, ERR_INPUT, "%s: tensor %s should not be there by config.json's \"%s\"",
                   path, tensor, key);
}

static void ignore(struct opening *o, const struct safetensors_tensor *t) {
    o->cp->n_ignored++;
    o->cp->ignored_bytes += t->bytes;
}

static void count_draft(struct opening *o, const struct tensor_name *name,
                        const struct safetensors_tensor *t) {
    o->n_draft++;
    o->draft_bytes += t->bytes;
    o->draft_blocks |= 1u << name->block;
    if (name->id == TENSOR_ATTN_NORM)
        o->draft_stages |= 1u << name->block;
    o->has_e_proj |= name->id == TENSOR_MTP_E_PROJ;
}

/* Put a tensor where the tables have room for it, unless another shard is to give it. */
static enum status put(struct opening *o, uint32_t file, struct tensor_place *place, uint8_t dtype,
                       const struct safetensors_tensor *t) {
    const struct checkpoint_file *files = o->cp->files;
    if ((place->dtype & LISTED) && place->file != file) {
        ignore(o, t);
        return OK;
    }
    if (place->bytes && place->file == file)
        return err_set(o->err, ERR_INPUT, "%s: tensor %s is there twice, in two spellings",
                       files[file].path, t->name);
    if (place->bytes)
        return err_set(o->err, ERR_INPUT, "%s: tensor %s is in %s too, and no index decides",
                       files[file].path, t->name, files[place->file].path);
    *place = (struct tensor_place){ .offset = t->offset,
                                    .bytes = t->bytes,
                                    .file = (uint16_t)file,
                                    .dtype = (uint8_t)(dtype | (place->dtype & LISTED)) };
    return OK;
}

static enum status take_tensor(struct opening *o, uint32_t file,
                               const struct safetensors_tensor *t) {
    const char *path = o->cp->files[file].path;
    const struct tensor_name name = tensor_name_parse(t->name);
    uint32_t layer;
    o->cp->n_tensors++;
    if (name.kind == NAME_DRAFT_COPY) {
        ignore(o, t);
        return OK;
    }
    if (name.kind == NAME_DSPARK) {
        o->has_dspark = true;
        o->n_draft++;
        o->draft_bytes += t->bytes;
        return OK;
    }
    if (name.kind == NAME_UNKNOWN || !layer_of(o, &name, &layer)) {
        if (o->n_unknown++ == 0)
            snprintf(o->first_unknown, sizeof o->first_unknown, "%s", t->name);
        ignore(o, t);
        return OK;
    }

    // What is wrong with a draft block matters only if it is one that sluice runs.
    const bool is_draft = name.where == BLOCK_DRAFT;
    struct err *err = is_draft ? &o->draft_err : o->err;
    struct manifest_entry want;
    uint8_t dtype = 0;
    enum status status = OK;
    if (is_draft)
        count_draft(o, &name, t);
    if (manifest_entry(&o->form, name.id, layer, name.expert, &want)) {
        status = check_form(&o->form, &want, t, path, &dtype, err);
    } else if (name.id == TENSOR_GATE_BIAS) {
        ignore(o, t); // a hash layer's choice never looks at it
        return OK;
    } else {
        status = contradiction(&name, t->name, path, err);
    }
    if (status != OK)
        return is_draft ? OK : status;
    return put(o, file, place_of(o->cp, name.id, layer, name.expert), dtype, t);
}

/* ---- all headers ---- */

static enum status read_header(struct opening *o, uint32_t i) {
    struct checkpoint_file *file = &o->cp->files[i];
    struct safetensors st = { 0 };
    struct err why = { 0 };
    enum status status = regular_file_open(file->path, &file->fd, &file->bytes, &why);
    if (status == OK)
        status = safetensors_read(&st, file->fd, file->bytes, file->path, &why);
    if (status == ERR_TRUNCATED) {
        char text[NAME_MAX + 64];
        if (st.end > file->bytes)
            snprintf(text, sizeof text, "%s (%llu bytes short)", base_name(file->path),
                     (unsigned long long)(st.end - file->bytes));
        else
            snprintf(text, sizeof text, "%s (not even its header)", base_name(file->path));
        list_add(&o->short_shards, text);
        status = OK;
    } else if (status != OK) {
        status = err_set(o->err, status, "%s", why.text);
    } else {
        for (uint32_t t = 0; t < st.n_tensors && status == OK; t++)
            status = take_tensor(o, i, &st.tensors[t]);
    }
    safetensors_close(&st);
    return status;
}

static enum status read_headers(struct opening *o) {
    enum status status = OK;
    for (uint32_t i = 0; i < o->cp->n_files && status == OK; i++)
        if (o->cp->files[i].path)
            status = read_header(o, i);
    return status;
}

/* Both lists in one line: whoever fetches the rest wants to do it once. */
static enum status report_incomplete(struct opening *o) {
    if (o->missing_shards.n == 0 && o->short_shards.n == 0)
        return OK;
    const bool any_missing = o->missing_shards.n > 0, any_short = o->short_shards.n > 0;
    return err_set(o->err, any_missing ? ERR_MISSING : ERR_TRUNCATED,
                   "%s: incomplete download: fetch again: %s%s%s%s%s", o->cp->dirs[0],
                   any_missing ? "missing " : "", any_missing ? list_end(&o->missing_shards) : "",
                   any_missing && any_short ? "; " : "", any_short ? "truncated " : "",
                   any_short ? list_end(&o->short_shards) : "");
}

/* ---- what the tensors say about drafts ---- */

static uint32_t bits_count(uint32_t bits) {
    return (uint32_t)__builtin_popcount(bits);
}

static enum status decide_draft(struct opening *o) {
    struct checkpoint *cp = o->cp;
    struct config *c = &cp->config;
    if (o->has_e_proj && o->has_dspark)
        return err_set(o->err, ERR_INPUT,
                       "%s: tensors of an MTP block and of DSpark stages at once", cp->dirs[0]);
    if (o->has_dspark)
        cp->draft = DRAFT_DSPARK;
    else if (o->has_e_proj)
        cp->draft = DRAFT_MTP;
    else if (o->n_draft) // neither's mark: believe config.json, then miss what is missing
        cp->draft = c->draft == DRAFT_DSPARK ? DRAFT_DSPARK : DRAFT_MTP;

    if (cp->draft == DRAFT_MTP) {
        if (o->draft_err.status != OK)
            return err_set(o->err, o->draft_err.status, "%s", o->draft_err.text);
        while (o->draft_blocks >> cp->n_draft_blocks)
            cp->n_draft_blocks++; // up to the last: a gap below it is missing tensors
    } else {
        cp->n_draft_blocks = bits_count(o->draft_stages);
        cp->n_ignored += o->n_draft;
        cp->ignored_bytes += o->draft_bytes;
    }
    c->n_drafts = cp->n_draft_blocks;
    return OK;
}

/* ---- is everything there? ---- */

static enum status check_present(void *context, const struct manifest_entry *entry,
                                 struct err *err) {
    struct opening *o = context;
    struct tensor_place *place = place_of(o->cp, entry->id, entry->layer, entry->expert);
    if (place->bytes == 0 && (place->dtype & LISTED))
        return err_set(err, ERR_MISSING, "%s: tensor %s is not in this shard, as the index says",
                       o->cp->files[place->file].path, entry->name);
    if (place->bytes == 0)
        list_add(&o->missing_tensors, entry->name);
    place->dtype &= (uint8_t)~LISTED;
    return OK;
}

static enum status check_complete(struct opening *o) {
    struct checkpoint *cp = o->cp;
    struct config form = o->form;
    form.draft = cp->draft;
    form.n_drafts = cp->n_draft_blocks;
    enum status status = manifest_walk(&form, check_present, o, o->err);
    if (status == OK && o->missing_tensors.n)
        status = err_set(o->err, ERR_MISSING, "%s: no shard holds %s", cp->dirs[0],
                         list_end(&o->missing_tensors));
    // Nothing of an unused draft module stays in the tables.
    const uint32_t n_used = checkpoint_n_blocks(cp), n_all = o->form.n_layers + o->form.n_drafts;
    const uint64_t n_experts = o->form.n_experts;
    memset(cp->layers + n_used, 0, (n_all - n_used) * sizeof *cp->layers);
    memset(cp->experts + n_used * n_experts, 0, (n_all - n_used) * n_experts * sizeof *cp->experts);
    return status;
}

static void write_note(struct opening *o) {
    struct checkpoint *cp = o->cp;
    const size_t room = sizeof cp->note;
    int used = 0;
    if (cp->draft == DRAFT_DSPARK)
        used = snprintf(cp->note, room,
                        "DSpark draft module (%u stages, %.2f GB) recognized and left alone",
                        cp->n_draft_blocks, (double)o->draft_bytes / 1e9);
    else if (cp->draft == DRAFT_NONE && cp->config.draft != DRAFT_NONE)
        used = snprintf(cp->note, room, "no draft block in the shards, though config.json has one");
    if (o->n_unknown)
        snprintf(cp->note + used, room - (size_t)used,
                 "%s%llu tensor%s of no known purpose left alone, first %s", used ? "; " : "",
                 (unsigned long long)o->n_unknown, o->n_unknown == 1 ? "" : "s", o->first_unknown);
    cp->config.draft = cp->draft;
}
