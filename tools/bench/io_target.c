#include "tools/bench/io_target.h"

#include "io/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE_BYTES (8u << 20)

// --- a file that is there ------------------------------------------------------------------------

// The largest regular file of a directory, links to files included: a snapshot of the Hugging Face
// cache is made of them.
bool bench_largest_file(const char *directory, char out[PATH_MAX]) {
    DIR *entries = opendir(directory);
    uint64_t bytes = 0;
    for (struct dirent *e; entries && (e = readdir(entries));) {
        struct stat st;
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s", directory, e->d_name);
        if (n >= PATH_MAX || stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
            (uint64_t)st.st_size <= bytes || access(path, R_OK) != 0)
            continue;
        bytes = (uint64_t)st.st_size;
        strcpy(out, path);
    }
    if (entries)
        closedir(entries);
    return bytes > 0;
}

static enum status find_file(struct bench_target *t, struct err *err) {
    struct stat st;
    if (!bench_largest_file(t->path, t->file) || stat(t->file, &st) != 0 ||
        (uint64_t)st.st_size < TARGET_BYTES_LEAST)
        return err_set(err, ERR_MISSING,
                       "%s: no file of at least %d MiB in it to read: name one, or let one be made "
                       "and removed again, with --write-test 8G",
                       t->path, (int)(TARGET_BYTES_LEAST >> 20));
    snprintf(t->name, sizeof t->name, "%s", t->file);
    return OK;
}

// --- a file that is made -------------------------------------------------------------------------

// Bytes that no drive and no file system can make smaller.
static void fill_random(uint64_t *words, size_t n, uint64_t *seed) {
    uint64_t s = *seed;
    for (size_t i = 0; i < n; i++) {
        uint64_t x = s += 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        words[i] = x ^ x >> 31;
    }
    *seed = s;
}

// Without a name from the start; where the file system cannot do that, its name is taken away
// before the first byte is written.
static int open_nameless(const char *directory) {
    char name[PATH_MAX];
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    if (snprintf(name, sizeof name, "%s/.sluice-bench.XXXXXX", directory) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    return fd;
}

static bool write_all(int fd, const unsigned char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            data += n;
            bytes -= (size_t)n;
        }
    }
    return true;
}

// Send a piece on its way to the device and wait for the one eight before it: the device has always
// something to do, and memory does not fill with what is still to be written.
static bool flush_behind(int fd, uint64_t offset, size_t bytes) {
    const uint64_t behind = 8ull * PIECE_BYTES;
    if (sync_file_range(fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE) != 0)
        return fdatasync(fd) == 0; // a file system that cannot do it in parts
    if (offset < behind)
        return true;
    off_t from = (off_t)(offset - behind);
    posix_fadvise(fd, from, PIECE_BYTES, POSIX_FADV_DONTNEED);
    return sync_file_range(fd, from, PIECE_BYTES,
                           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                               SYNC_FILE_RANGE_WAIT_AFTER) == 0;
}

static enum status write_random(struct bench_target *t, const struct target_options *o,
                                struct err *err) {
    unsigned char *piece = aligned_alloc(4096, PIECE_BYTES);
    if (!piece)
        return err_set(err, ERR_MEMORY, "no memory to make a test file with");
    uint64_t seed = clock_now_ns(clock_system()), start_ns = seed, done = 0;
    enum status status = OK;
    while (done < o->write_bytes && status == OK) {
        size_t n = o->write_bytes - done < PIECE_BYTES ? o->write_bytes - done : PIECE_BYTES;
        if (o->cancelled && o->cancelled(o->context)) {
            status = err_set(err, CANCELLED, "interrupted");
            break;
        }
        fill_random((uint64_t *)(void *)piece, PIECE_BYTES / 8, &seed);
        if (!write_all(t->made_fd, piece, n) || !flush_behind(t->made_fd, done, n))
            status =
                err_set(err, ERR_IO, "%s: cannot write a test file: %s", t->path, strerror(errno));
        done += n;
        if (o->progress)
            o->progress(o->context, done);
    }
    free(piece);
    if (status == OK && fdatasync(t->made_fd) != 0)
        status = err_set(err, ERR_IO, "%s: cannot write a test file: %s", t->path, strerror(errno));
    posix_fadvise(t->made_fd, 0, 0, POSIX_FADV_DONTNEED);
    t->write_rate = (double)done / ((double)(clock_now_ns(clock_system()) - start_ns) * 1e-9);
    return status;
}

static enum status make_file(struct bench_target *t, const struct target_options *o,
                             struct err *err) {
    struct statvfs fs;
    if (statvfs(t->path, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < o->write_bytes)
        return err_set(err, ERR_IO, "%s: %.1f GB are free there, --write-test wants %.1f", t->path,
                       (double)fs.f_bavail * (double)fs.f_frsize * 1e-9,
                       (double)o->write_bytes * 1e-9);
    t->made_fd = open_nameless(t->path);
    if (t->made_fd < 0)
        return err_set(err, ERR_IO, "%s: cannot make a test file: %s", t->path, strerror(errno));
    snprintf(t->file, sizeof t->file, "/proc/self/fd/%d", t->made_fd);
    snprintf(t->name, sizeof t->name, "%s (a test file of %.1f GB)", t->path,
             (double)o->write_bytes * 1e-9);
    return write_random(t, o, err);
}

// --- open, close ---------------------------------------------------------------------------------

// Is what was found worth measuring?
static enum status judge(const struct bench_target *t, struct err *err) {
    const struct place *p = &t->place;
    if (p->device.bytes < TARGET_BYTES_LEAST)
        return err_set(err, ERR_INPUT,
                       "%s: %.1f MB are too little to measure with: at least %d MiB", t->name,
                       (double)p->device.bytes * 1e-6, (int)(TARGET_BYTES_LEAST >> 20));
    if (p->map.absent_bytes > p->device.bytes / 100)
        return err_set(err, ERR_INPUT,
                       "%s: %.0f %% of it are holes or were never written; they are read without "
                       "the drive, and would look faster than it is",
                       t->name, 100.0 * (double)p->map.absent_bytes / (double)p->device.bytes);
    return OK;
}

enum status bench_target_open(struct bench_target *t, const char *path,
                              const struct target_options *o, struct err *err) {
    struct stat st;
    *t = (struct bench_target){ .path = path, .made_fd = -1 };
    if (stat(path, &st) != 0)
        return err_set(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: %s", path,
                       strerror(errno));
    enum status status = OK;
    bool is_directory = S_ISDIR(st.st_mode);
    if (is_directory)
        status = o->write_bytes ? make_file(t, o, err) : find_file(t, err);
    else if (o->write_bytes)
        status = err_set(err, ERR_USAGE,
                         "%s: not a directory: --write-test makes a file in one, and writes to no "
                         "other",
                         path);
    else if (snprintf(t->file, sizeof t->file, "%s", path) >= PATH_MAX)
        status = err_set(err, ERR_INPUT, "%s: a path too long", path);
    else
        snprintf(t->name, sizeof t->name, "%s", path);
    if (status == OK)
        status = place_examine(&t->place, t->file, o->sysfs, err);
    return status == OK ? judge(t, err) : status;
}

void bench_target_close(struct bench_target *t) {
    if (t->made_fd >= 0)
        close(t->made_fd);
    t->made_fd = -1;
}
