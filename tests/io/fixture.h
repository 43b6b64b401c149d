/* tests/io/fixture.h - what the tests of io share: a folder of files with known bytes, memory with
 * known garbage, and children that live with less.
 *
 * The byte at an offset of test file n is disk_pattern(n)'s, so null and modelled disks serve the
 * same bytes as real ones. Everything here fails the test that calls it. */
#ifndef SLUICE_TESTS_IO_FIXTURE_H
#define SLUICE_TESTS_IO_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/device.h"
#include "io/disk.h"
#include "io/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GARBAGE 0xC3

/* --- files ------------------------------------------------------------------------------------ */

struct folder {
    char path[256];
};

static inline void folder_open(struct folder *f) {
    const char *tmp = getenv("TMPDIR");
    snprintf(f->path, sizeof f->path, "%s/sluice-io.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->path));
}

/* "DIR/NAME", in out. */
static inline const char *folder_path(const struct folder *f, const char *name, char out[512]) {
    snprintf(out, 512, "%s/%s", f->path, name);
    return out;
}

/* Removes the files in it, too. */
static inline void folder_close(struct folder *f) {
    DIR *entries = opendir(f->path);
    assert_non_null(entries);
    for (struct dirent *e; (e = readdir(entries));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            assert_int_equal(unlinkat(dirfd(entries), e->d_name, 0), 0);
    closedir(entries);
    assert_int_equal(rmdir(f->path), 0);
}

/* A file of `bytes`, on the device and, as far as possible, out of the page cache. */
static inline void write_file(const char *path, uint32_t number, uint64_t bytes) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    unsigned char *block = malloc(1 << 20);
    assert_non_null(block);
    for (uint64_t at = 0; at < bytes;) {
        size_t n = bytes - at < 1 << 20 ? bytes - at : 1 << 20;
        disk_pattern(number, at, block, n);
        assert_int_equal(write(fd, block, n), n);
        at += n;
    }
    free(block);
    assert_int_equal(fsync(fd), 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* Whether files of this folder can be read with O_DIRECT. Where not, what is said of direct reads
 * cannot be tested there. */
static inline bool is_direct(const char *path) {
    struct device d;
    return device_examine(&d, path, NULL) == OK && d.direct == DIRECT_YES;
}

/* --- memory ----------------------------------------------------------------------------------- */

static inline unsigned char *new_memory(size_t bytes) {
    unsigned char *memory = aligned_alloc(READER_ALIGN, bytes);
    assert_non_null(memory);
    memset(memory, GARBAGE, bytes);
    return memory;
}

static inline bool holds(const unsigned char *memory, uint32_t file, uint64_t offset,
                         uint64_t bytes) {
    unsigned char expected[4096];
    for (uint64_t at = 0; at < bytes;) {
        size_t n = bytes - at < sizeof expected ? bytes - at : sizeof expected;
        disk_pattern(file, offset + at, expected, n);
        if (memcmp(memory + at, expected, n) != 0)
            return false;
        at += n;
    }
    return true;
}

/* --- numbers by chance ------------------------------------------------------------------------ */

static inline uint64_t random_below(uint64_t *seed, uint64_t n) {
    uint64_t x = *seed += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (x >> 16) % n;
}

/* --- a reader --------------------------------------------------------------------------------- */

/* The next request that ends. A minute is far more than any test needs: then it is an error. */
static inline struct request *wait_next(struct reader *r) {
    struct request *q = reader_next(r);
    for (int i = 0; !q && i < 60; i++) {
        event_wait(reader_event(r), 1000000000u);
        q = reader_next(r);
    }
    assert_non_null(q);
    assert_int_equal(q->state, REQUEST_ENDED);
    reader_check(r);
    return q;
}

/* A request for extents, in a buffer of its own. */
struct order {
    struct request request;
    struct extents_layout layout;
    struct extent extents[REQUEST_MAX_READS];
    uint32_t n;
    unsigned char *memory;
};

static inline void order_make(struct order *o, enum read_priority priority,
                              const struct extent *extents, uint32_t n) {
    memset(o, 0, sizeof *o);
    memcpy(o->extents, extents, n * sizeof *extents);
    o->n = n;
    extents_layout(&o->layout, extents, n);
    o->memory = new_memory(o->layout.bytes + READER_ALIGN);
    request_bind(&o->request, &o->layout, o->memory);
    o->request.priority = priority;
    o->request.owner = o;
}

/* One extent. */
static inline void order_one(struct order *o, enum read_priority priority, uint32_t file,
                             uint64_t offset, uint64_t bytes) {
    struct extent e = { .file = file, .offset = offset, .bytes = bytes };
    order_make(o, priority, &e, 1);
}

static inline bool order_filled(const struct order *o) {
    for (uint32_t i = 0; i < o->n; i++)
        if (!holds(o->memory + o->layout.at[i], o->extents[i].file, o->extents[i].offset,
                   o->extents[i].bytes))
            return false;
    return true;
}

static inline void order_free(struct order *o) {
    free(o->memory);
}

/* --- children that live with less ------------------------------------------------------------- */

/* Run `body` in a child, which fails the test by returning anything but 0 or by dying. */
static inline void in_child(int (*body)(void *), void *context) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(body(context));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* For bodies: what is not so, told with the line, is the child's exit status. */
#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* From here on a system call fails with EPERM, as a container's profile makes it. */
static inline int forbid_call(unsigned number) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = 4, .filter = filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* An ordinary user's limit: so many bytes of locked memory, and no CAP_IPC_LOCK. */
static inline int limit_memlock(uint64_t bytes) {
    struct rlimit limit = { .rlim_cur = bytes, .rlim_max = bytes };
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || syscall(SYS_capget, &header, data) != 0)
        return -1;
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    data[0].permitted &= ~(1u << CAP_IPC_LOCK);
    return (int)syscall(SYS_capset, &header, data);
}

#endif
