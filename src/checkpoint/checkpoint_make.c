#include "src/checkpoint/checkpoint_make.h"

#include "io/file_fill.h"
#include "src/checkpoint/config_make.h"
#include "src/checkpoint/weights_make.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PART ".mkmodel" // no downloader's suffix: what has it is ours to remove

/* The state of one run. Names of everything that is to be written, shards first, config.json last:
 * a reader that finds config.json finds all. */
struct making {
    const char *dir;
    const struct checkpoint_plan *plan;
    const struct checkpoint_make_options *options;
    struct weights_make *weights;
    struct companion_file *small; /* companions, the index, config.json */
    uint32_t n_small;
    char *index, *config;
    bool made_dir;
    uint32_t n_written; /* of shards and small files, as PART */
    uint32_t n_renamed;
    uint64_t done; /* bytes of complete shards */
    const struct planned_shard *shard;
};

static enum status prepare(struct making *m, struct err *err);
static enum status prepare_dir(struct making *m, struct err *err);
static enum status check_space(struct making *m, struct err *err);
static enum status write_all(struct making *m, struct err *err);
static enum status publish(struct making *m, struct err *err);
static void remove_written(struct making *m);

enum status checkpoint_make(const char *dir, const struct checkpoint_plan *plan,
                            const struct checkpoint_make_options *options, struct err *err) {
    struct making m = { .dir = dir, .plan = plan, .options = options };
    enum status status = prepare(&m, err);
    if (status == OK)
        status = prepare_dir(&m, err);
    if (status == OK)
        status = check_space(&m, err);
    if (status == OK)
        status = write_all(&m, err);
    if (status == OK)
        status = publish(&m, err);
    if (status != OK)
        remove_written(&m);
    weights_make_close(m.weights);
    free(m.small);
    free(m.index);
    free(m.config);
    return status;
}

/* --- names ----------------------------------------------------------------------------------- */

static const char *file_name(const struct making *m, uint32_t i) {
    return i < m->plan->n_shards ? m->plan->shards[i].name : m->small[i - m->plan->n_shards].name;
}

static void file_path(const struct making *m, uint32_t i, const char *suffix, char *out) {
    // A path that is too long was refused by mkdir already, or is refused by open.
    (void)!snprintf(out, PATH_MAX, "%s/%s%s", m->dir, file_name(m, i), suffix);
}

static enum status prepare(struct making *m, struct err *err) {
    const uint32_t n = m->options->n_companions;
    m->index = checkpoint_plan_index(m->plan);
    m->config = config_text(&m->plan->config);
    m->small = calloc(n + 2, sizeof *m->small);
    if (!m->index || !m->config || !m->small)
        return err_set(err, ERR_MEMORY, "%s: no memory for the index", m->dir);
    for (uint32_t i = 0; i < n; i++)
        m->small[i] = m->options->companions[i];
    m->small[n] =
        (struct companion_file){ "model.safetensors.index.json", m->index, strlen(m->index), NULL };
    m->small[n + 1] = (struct companion_file){ "config.json", m->config, strlen(m->config), NULL };
    m->n_small = n + 2;
    return weights_make_open(&m->weights, &m->plan->config, m->options->seed, err);
}

/* --- the directory --------------------------------------------------------------------------- */

/* mkdir -p; *made says whether the last part is new. */
static enum status make_dirs(const char *dir, bool *made, struct err *err) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path)
        return err_set(err, ERR_USAGE, "%.64s…: the path is too long", dir);
    for (char *end = path + 1;; end++) {
        const char c = *end;
        if (c && (c != '/' || end[1] == '/' || end[1] == '\0'))
            continue;
        *end = '\0';
        *made = mkdir(path, 0777) == 0;
        if (!*made && errno != EEXIST)
            return err_set(err, ERR_IO, "%s: cannot make this directory: %s", path,
                           strerror(errno));
        *end = c;
        if (!c)
            return OK;
    }
}

static bool ends_in(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What a killed run leaves. */
static bool is_remains(const char *name) {
    return ends_in(name, PART);
}

static bool is_free_to_use(const char *name) {
    // An empty file system of its own has lost+found.
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0 ||
           is_remains(name);
}

static enum status prepare_dir(struct making *m, struct err *err) {
    if (make_dirs(m->dir, &m->made_dir, err) != OK)
        return err->status;
    DIR *dir = opendir(m->dir);
    if (!dir)
        return err_set(err, ERR_IO, "%s: cannot be opened as a directory: %s", m->dir,
                       strerror(errno));
    enum status status = OK;
    for (struct dirent *e; status == OK && (e = readdir(dir));)
        if (!is_free_to_use(e->d_name))
            status = err_set(err, ERR_USAGE,
                             "%s: not empty, it has %s: name a new directory, nothing is ever "
                             "overwritten",
                             m->dir, e->d_name);
    rewinddir(dir);
    for (struct dirent *e; status == OK && (e = readdir(dir));)
        if (is_remains(e->d_name) && unlinkat(dirfd(dir), e->d_name, 0) < 0)
            status = err_set(err, ERR_IO, "%s/%s: cannot remove what an earlier run left: %s",
                             m->dir, e->d_name, strerror(errno));
    closedir(dir);
    return status;
}

/* --- space ----------------------------------------------------------------------------------- */

static enum status check_space(struct making *m, struct err *err) {
    uint64_t need = m->plan->bytes;
    for (uint32_t i = 0; i < m->n_small; i++)
        need += m->small[i].n_bytes;
    // A tokenizer (7 MB for 129,280 tokens), blocks half used, what the file system notes down.
    need += need / 1024 + (16 << 20);
    uint64_t have;
    if (m->options->free_bytes) {
        have = m->options->free_bytes(m->options->context, m->dir);
    } else {
        struct statvfs fs;
        if (statvfs(m->dir, &fs) < 0)
            return err_set(err, ERR_IO, "%s: cannot ask for its free space: %s", m->dir,
                           strerror(errno));
        have = (uint64_t)fs.f_bavail * fs.f_frsize;
    }
    if (need <= have)
        return OK;
    return err_set(
        err, ERR_SYSTEM,
        "%s: needs %.2f GB, has %.2f GB free: name a directory on another drive, or make "
        "fewer layers",
        m->dir, (double)need * 1e-9, (double)have * 1e-9);
}

/* --- writing --------------------------------------------------------------------------------- */

/* Bytes [from, from + n) of the shard under way: its header, then its tensors. */
static void fill_range(void *context, uint64_t from, unsigned char *dst, uint64_t n) {
    const struct making *m = context;
    const struct planned_shard *shard = m->shard;
    if (from < shard->header_bytes) {
        const uint64_t left = shard->header_bytes - from, some = left < n ? left : n;
        memcpy(dst, shard->header + from, some);
        from += some;
        dst += some;
        n -= some;
    }
    const struct planned_tensor *low = &m->plan->tensors[shard->first];
    uint32_t count = shard->n_tensors; // the last tensor that begins at or before `from`
    while (count > 1) {
        const uint32_t half = count / 2;
        if (low[half].offset <= from) {
            low += half;
            count -= half;
        } else {
            count = half;
        }
    }
    for (const struct planned_tensor *t = low; n > 0; t++) {
        struct manifest_entry entry;
        manifest_entry(&m->plan->config, (enum tensor_id)t->id, t->layer, t->expert, &entry);
        const uint64_t at = from - t->offset, left = t->bytes - at, some = left < n ? left : n;
        weights_make_fill(m->weights, &entry, at, dst, some);
        from += some;
        dst += some;
        n -= some;
    }
}

static bool shard_progress(void *context, uint64_t done) {
    const struct making *m = context;
    return m->options->progress(m->options->context, m->done + done, m->plan->bytes);
}

static void fill_small(void *context, uint64_t from, unsigned char *dst, uint64_t n) {
    memcpy(dst, ((const struct companion_file *)context)->bytes + from, n);
}

/* What somebody else has written gets to the device like our own. */
static enum status sync_file(const char *path, struct err *err) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool synced = fd >= 0 && fsync(fd) == 0;
    const int why = errno;
    if (fd >= 0)
        close(fd);
    return synced ? OK : err_set(err, ERR_IO, "%s: cannot complete: %s", path, strerror(why));
}

static enum status write_small(const struct making *m, const struct companion_file *small,
                               const char *path, struct err *err) {
    const struct file_fill job = { .path = path,
                                   .bytes = small->n_bytes,
                                   .n_threads = 1,
                                   .fill = fill_small,
                                   .context = (void *)small };
    if (!small->write)
        return file_fill(&job, err);
    enum status status = small->write(&m->plan->config, path, err);
    if (status == OK)
        status = sync_file(path, err);
    if (status != OK)
        unlink(path);
    return status;
}

static uint32_t default_threads(void) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (uint32_t)cores + 2 : 4;
}

static enum status write_all(struct making *m, struct err *err) {
    char path[PATH_MAX];
    enum status status = OK;
    const uint32_t n_threads = m->options->n_threads ? m->options->n_threads : default_threads();
    for (uint32_t i = 0; i < m->plan->n_shards && status == OK; i++) {
        m->shard = &m->plan->shards[i];
        file_path(m, i, PART, path);
        const struct file_fill job = { .path = path,
                                       .bytes = m->shard->bytes,
                                       .n_threads = n_threads,
                                       .fill = fill_range,
                                       .progress = m->options->progress ? shard_progress : NULL,
                                       .context = m };
        status = file_fill(&job, err);
        if (status == OK)
            m->n_written++;
        m->done += m->shard->bytes;
    }
    for (uint32_t i = 0; i < m->n_small && status == OK; i++) {
        file_path(m, m->plan->n_shards + i, PART, path);
        status = write_small(m, &m->small[i], path, err);
        if (status == OK)
            m->n_written++;
    }
    return status;
}

/* --- the end --------------------------------------------------------------------------------- */

/* Names are on the device too, before and after config.json gets its own. */
static enum status sync_dir(const struct making *m, struct err *err) {
    const int fd = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); // some have nothing to sync
    const int why = errno;
    if (fd >= 0)
        close(fd);
    return synced ? OK : err_set(err, ERR_IO, "%s: cannot sync: %s", m->dir, strerror(why));
}

static enum status publish(struct making *m, struct err *err) {
    char from[PATH_MAX], to[PATH_MAX];
    for (uint32_t i = 0; i < m->n_written; i++) {
        if (i + 1 == m->n_written && sync_dir(m, err) != OK)
            return err->status;
        file_path(m, i, PART, from);
        file_path(m, i, "", to);
        if (rename(from, to) < 0)
            return err_set(err, ERR_IO, "%s: cannot rename it to %s: %s", from, file_name(m, i),
                           strerror(errno));
        m->n_renamed++;
    }
    return sync_dir(m, err);
}

static void remove_written(struct making *m) {
    char path[PATH_MAX];
    for (uint32_t i = m->n_written; i-- > 0;) { // config.json first: what is left is no checkpoint
        file_path(m, i, i < m->n_renamed ? "" : PART, path);
        unlink(path);
    }
    if (m->made_dir)
        rmdir(m->dir);
}
