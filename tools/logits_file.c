#include "tools/logits_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status write_all(struct logits_file *f, const void *data, uint64_t bytes,
                             uint64_t offset, struct err *err) {
    const char *from = data;
    while (bytes) {
        ssize_t n = pwrite(f->fd, from, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_IO, "%s: cannot be written at byte %" PRIu64 ": %s", f->path,
                           offset, strerror(n < 0 ? errno : ENOSPC));
        from += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return OK;
}

/* A regular file gets its name at the end, through links to it. What is no regular file (/dev/null)
 * is written as it is: it must never be replaced by one. */
static enum status open_file(struct logits_file *f, const char *path, struct err *err) {
    struct stat st;
    bool exists = stat(path, &st) == 0, is_file = exists && S_ISREG(st.st_mode);
    f->path = is_file ? realpath(path, NULL) : strdup(path);
    if (!f->path || ((is_file || !exists) && asprintf(&f->partial, "%s.partial", f->path) < 0)) {
        f->partial = NULL;
        return err_set(err, ERR_MEMORY, "%s: no memory for its name", path);
    }
    const char *name = f->partial ? f->partial : f->path;
    int flags = f->partial ? O_CREAT | O_TRUNC : 0;
    f->fd = open(name, O_WRONLY | O_CLOEXEC | flags, 0666);
    if (f->fd < 0) {
        err_set(err, ERR_IO, "%s: cannot be made: %s", name, strerror(errno));
        free(f->partial); // not ours: whatever is there stays
        f->partial = NULL;
    }
    return err->status;
}

enum status logits_file_open(struct logits_file *f, const char *path, uint32_t n_rows,
                             uint32_t vocab, bool with_draft, struct err *err) {
    *f = (struct logits_file){ .fd = -1, .n_rows = n_rows, .row_bytes = (uint64_t)vocab * 4 };
    uint64_t end = n_rows * f->row_bytes, draft_end = end + (n_rows - 1) * f->row_bytes;
    char header[512];
    int n = snprintf(header + 8, sizeof header - 8,
                     "{\"logits\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[0,%" PRIu64
                     "]}",
                     n_rows, vocab, end);
    if (with_draft)
        n += snprintf(header + 8 + n, sizeof header - 8 - (size_t)n,
                      ",\"mtp.logits\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":"
                      "[%" PRIu64 ",%" PRIu64 "]}",
                      n_rows - 1, vocab, end, draft_end);
    header[8 + n++] = '}';
    while (n % 8) // so that the floats are aligned in the file
        header[8 + n++] = ' ';
    uint64_t length = (uint64_t)n;
    for (int i = 0; i < 8; i++)
        header[i] = (char)(length >> (8 * i));
    f->header_bytes = 8 + length;

    if (open_file(f, path, err) != OK)
        return err->status;
    uint64_t total = f->header_bytes + (with_draft ? draft_end : end);
    int full = posix_fallocate(f->fd, 0, (off_t)total);
    if (full == ENOSPC || full == EFBIG || full == EDQUOT)
        return err_set(err, ERR_IO, "%s: no room for %.2f GB: %s", path, total / 1e9,
                       strerror(full));
    return write_all(f, header, f->header_bytes, 0, err);
}

enum status logits_file_write(struct logits_file *f, bool draft, uint32_t row, const float *logits,
                              struct err *err) {
    uint64_t at = (draft ? f->n_rows + row : row) * f->row_bytes;
    return write_all(f, logits, f->row_bytes, f->header_bytes + at, err);
}

enum status logits_file_finish(struct logits_file *f, struct err *err) {
    int fd = f->fd;
    f->fd = -1;
    int why = 0;
    if (fsync(fd) != 0 && (f->partial || errno != EINVAL)) // a device has nothing to sync
        why = errno;
    if (close(fd) != 0 && !why)
        why = errno;
    if (!why && f->partial && rename(f->partial, f->path) != 0)
        why = errno;
    if (why)
        return err_set(err, ERR_IO, "%s: cannot be finished: %s", f->path, strerror(why));
    free(f->partial);
    f->partial = NULL;
    return OK;
}

void logits_file_close(struct logits_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    if (f->partial)
        unlink(f->partial);
    free(f->partial);
    free(f->path);
    *f = (struct logits_file){ .fd = -1 };
}
