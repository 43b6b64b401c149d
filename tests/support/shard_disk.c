#include "tests/support/shard_disk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct shard_disk {
    struct disk disk;
    struct disk *model;
    int fd[SHARD_DISK_FILES];
    uint32_t n_files;
};

static struct shard_disk *shard_disk_of(struct disk *d) {
    return (struct shard_disk *)d;
}

static int32_t content(void *context, const struct disk_chunk *chunk) {
    const struct shard_disk *s = context;
    ssize_t n = pread(s->fd[chunk->file], chunk->dst, chunk->bytes, (off_t)chunk->offset);
    return n < 0 ? -errno : (int32_t)n;
}

static enum status add_file(struct disk *d, int fd, const char *path, struct err *err) {
    struct shard_disk *s = shard_disk_of(d);
    if (s->n_files == SHARD_DISK_FILES ||
        (s->fd[s->n_files] = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return err_set(err, ERR_IO, "%s: cannot be opened", path);
    s->n_files++;
    return disk_add_file(s->model, fd, path, err);
}

static void submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    disk_submit(shard_disk_of(d)->model, chunks, n);
}

static uint32_t reap(struct disk *d, struct disk_result *results, uint32_t max,
                     uint64_t timeout_ns) {
    return disk_reap(shard_disk_of(d)->model, results, max, timeout_ns);
}

static void wake(struct disk *d) {
    disk_wake(shard_disk_of(d)->model);
}

static uint64_t now_ns(const struct disk *d) {
    const struct disk *model = ((const struct shard_disk *)d)->model;
    return model->ops->now_ns(model);
}

static void close_disk(struct disk *d) {
    struct shard_disk *s = shard_disk_of(d);
    disk_close(s->model);
    while (s->n_files > 0)
        close(s->fd[--s->n_files]);
    free(s);
}

struct disk *shard_disk_open(const struct disk_model_options *options) {
    static const struct disk_ops ops = { .name = "modelled disk of real files",
                                         .add_file = add_file,
                                         .submit = submit,
                                         .reap = reap,
                                         .wake = wake,
                                         .now_ns = now_ns,
                                         .close = close_disk };
    struct shard_disk *s = calloc(1, sizeof *s);
    struct disk_model_options model = *options;
    struct err err = { .status = OK };
    assert_non_null(s);
    model.content = content;
    model.context = s;
    if (disk_model_open(&s->model, &model, &err) != OK)
        fail_msg("%s", err.text);
    s->disk = (struct disk){ .ops = &ops,
                             .depth = s->model->depth,
                             .synchronous = s->model->synchronous };
    return &s->disk;
}
