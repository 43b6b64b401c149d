#include "io/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum status regular_file_open(const char *path, int *fd, uint64_t *bytes, struct err *err) {
    // O_NONBLOCK: opening a FIFO would otherwise wait for a writer. Files do not mind it.
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return err_set(err, ERR_MISSING, "%s: no such file", path);
        if (errno == EMFILE || errno == ENFILE)
            return err_set(err, ERR_SYSTEM, "%s: too many open files: raise `ulimit -n`", path);
        return err_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    struct stat st;
    enum status status = OK;
    if (fstat(*fd, &st) != 0)
        status = err_set(err, ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = err_set(err, ERR_INPUT, "%s: not a regular file", path);
    if (status != OK) {
        close(*fd);
        *fd = -1;
        return status;
    }
    *bytes = (uint64_t)st.st_size;
    return OK;
}

enum status small_file_read(const char *path, size_t max_bytes, char **text, size_t *length,
                            struct err *err) {
    *text = NULL;
    *length = 0;
    int fd;
    uint64_t bytes;
    enum status status = regular_file_open(path, &fd, &bytes, err);
    if (status != OK)
        return status;
    if (bytes > max_bytes) {
        status = err_set(err, ERR_INPUT, "%s: %llu bytes, more than such a file can have (%zu)",
                         path, (unsigned long long)bytes, max_bytes);
        goto end;
    }
    *text = malloc(bytes + 1);
    if (!*text) {
        status = err_set(err, ERR_MEMORY, "%s: no memory for %llu bytes", path,
                         (unsigned long long)bytes);
        goto end;
    }
    while (*length < bytes) {
        ssize_t got = read(fd, *text + *length, bytes - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = err_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (got <= 0)
            break; // shorter than it was a moment ago: what there is, is the file
        *length += (size_t)got;
    }
    (*text)[*length] = 0;
end:
    if (status != OK) {
        free(*text);
        *text = NULL;
        *length = 0;
    }
    close(fd);
    return status;
}
