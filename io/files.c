#include "io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void files_init(struct files *files, enum io_mode mode, uint64_t ram_bytes) {
    *files = (struct files){ .mode = mode, .ram_bytes = ram_bytes };
}

void files_remove_last(struct files *files) {
    struct file *file = &files->file[--files->n];
    files->total_bytes -= file->device.bytes;
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
}

void files_close(struct files *files) {
    while (files->n > 0)
        files_remove_last(files);
    free(files->file);
    *files = (struct files){ 0 };
}

static enum status add(struct files *files, const char *path, struct file **out, struct err *err) {
    struct file *file = realloc(files->file, (files->n + 1) * sizeof *file);
    char *copy = strdup(path);
    if (file)
        files->file = file;
    if (!file || !copy) {
        free(copy);
        return err_set(err, ERR_MEMORY, "%s: no memory to open it", path);
    }
    *out = &file[files->n++];
    **out = (struct file){ .path = copy, .fd = -1, .align_bytes = 1 };
    return OK;
}

enum status files_add_name(struct files *files, const char *path, struct err *err) {
    struct file *file;
    return add(files, path, &file, err);
}

// --- direct or buffered --------------------------------------------------------------------------

static bool everything_fits(const struct files *files) {
    return files->mode == IO_AUTO && files->total_bytes <= files->ram_bytes;
}

static bool wants_direct(const struct files *files, const struct file *file) {
    switch (files->mode) {
    case IO_DIRECT:
        return true;
    case IO_BUFFERED:
        return false;
    case IO_AUTO:
        break;
    }
    return file->device.direct == DIRECT_YES && !everything_fits(files);
}

// O_DIRECT is a flag of the open file: it can be set and cleared without opening it again.
static int set_direct(struct file *file, bool direct) {
    if (direct != file->direct) {
        int flags = fcntl(file->fd, F_GETFL);
        if (fcntl(file->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) != 0)
            return errno;
        file->direct = direct;
    }
    // A buffered read goes on from the very byte where it stopped.
    file->align_bytes = direct ? file->device.align_bytes : 1;
    // Reads come at random, in chunks that are large enough already.
    if (!direct)
        posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
}

static enum status refuse_buffered(const struct file *file, struct err *err) {
    const struct device *d = &file->device;
    if (d->direct == DIRECT_BUFFERED)
        return err_set(err, ERR_IO,
                       "%s: %s takes O_DIRECT and reads through the page cache all the same%s; use "
                       "--io auto or --io buffered",
                       file->path, d->filesystem[0] ? d->filesystem : "the file system",
                       strcmp(d->filesystem, "btrfs") == 0 ? " (compressed?)" : "");
    if (d->direct_errno == 0)
        return err_set(err, ERR_IO,
                       "%s: O_DIRECT wants more than %d-byte alignment here; use --io auto or --io "
                       "buffered",
                       file->path, READER_ALIGN);
    return err_set(err, ERR_IO, "%s: O_DIRECT is refused (%s): %s; use --io auto or --io buffered",
                   file->path, d->filesystem[0] ? d->filesystem : "unknown file system",
                   strerror(d->direct_errno));
}

enum status files_add(struct files *files, const char *path, struct err *err) {
    // O_NONBLOCK only to open: a pipe would wait for somebody to write into it. Kept, it would make
    // io_uring answer EAGAIN instead of waiting for the device.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: cannot open: %s", path,
                       strerror(errno));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    struct file *file;
    struct device device;
    enum status status = device_examine_fd(&device, fd, path, err);
    if (status == OK)
        status = add(files, path, &file, err);
    if (status != OK) {
        close(fd);
        return status;
    }
    file->fd = fd;
    file->device = device;
    files->total_bytes += device.bytes;
    int error = files->mode == IO_DIRECT && device.direct != DIRECT_YES ? EINVAL : 0;
    if (error)
        status = refuse_buffered(file, err);
    // The new file may be the one that makes all of them not fit.
    for (uint32_t i = 0; i < files->n && status == OK; i++) {
        error = set_direct(&files->file[i], wants_direct(files, &files->file[i]));
        if (error)
            status = err_set(err, ERR_IO, "%s: O_DIRECT cannot be changed: %s", files->file[i].path,
                             strerror(error));
    }
    if (status == OK)
        return OK;
    files_remove_last(files);
    return status;
}

// --- for people ----------------------------------------------------------------------------------

void files_describe(const struct files *files, char *text, size_t bytes) {
    uint32_t n_direct = 0;
    for (uint32_t i = 0; i < files->n; i++)
        n_direct += files->file[i].direct;
    if (n_direct > 0 && n_direct < files->n)
        snprintf(text, bytes, "O_DIRECT (%" PRIu32 " of %" PRIu32 " files)", n_direct, files->n);
    else if (n_direct > 0 || (files->n == 0 && files->mode != IO_BUFFERED))
        snprintf(text, bytes, "O_DIRECT");
    else
        snprintf(text, bytes, "page cache");
}

// One line for all files that are not direct for one cause, by the first of them.
static size_t note_cause(const struct files *files, enum direct_io cause, char *text,
                         size_t bytes) {
    const struct file *first = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < files->n; i++)
        if (files->file[i].device.direct == cause) {
            first = first ? first : &files->file[i];
            n++;
        }
    if (!first)
        return 0;
    char others[48] = "";
    if (n > 1)
        snprintf(others, sizeof others, " and %" PRIu32 " more", n - 1);
    const char *filesystem = first->device.filesystem;
    filesystem = filesystem[0] ? filesystem : "its file system";
    int length =
        cause == DIRECT_REFUSED
            ? snprintf(text, bytes,
                       "%s%s: %s refuses O_DIRECT: read through the page cache, which costs CPU "
                       "time and memory; a copy on ext4 or xfs would be read directly\n",
                       first->path, others, filesystem)
            : snprintf(text, bytes,
                       "%s%s: %s takes O_DIRECT but reads through the page cache (compressed or "
                       "in memory): read buffered; an uncompressed copy would be read directly\n",
                       first->path, others, filesystem);
    return length > 0 && (size_t)length < bytes ? (size_t)length : bytes - 1;
}

void files_notes(const struct files *files, char *text, size_t bytes) {
    text[0] = '\0';
    if (files->mode != IO_AUTO || everything_fits(files))
        return;
    size_t used = note_cause(files, DIRECT_REFUSED, text, bytes);
    note_cause(files, DIRECT_BUFFERED, text + used, bytes - used);
}
