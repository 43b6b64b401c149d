#include "io/device.h"

#include "io/mount.h"
#include "io/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

// --- direct or not -------------------------------------------------------------------------------

enum residency { ABSENT, RESIDENT, UNSEEN };

// Is the block at `offset` in the page cache? A buffered read that may not wait for the device says
// so to anybody who may read the file; mincore says it only to those who own it. Asking for a block
// that is absent makes the kernel fetch it: look at a block once, when all else is done.
static enum residency look_at(int fd, uint64_t offset) {
    unsigned char byte;
    struct iovec one = { .iov_base = &byte, .iov_len = 1 };
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags & ~O_DIRECT);
    ssize_t n = preadv2(fd, &one, 1, (off_t)offset, RWF_NOWAIT);
    int error = errno;
    fcntl(fd, F_SETFL, flags);
    if (n > 0)
        return RESIDENT;
    return n < 0 && error == EAGAIN ? ABSENT : UNSEEN;
}

// Drop what the page cache has of a block: with what surrounds it, since a large folio goes as a
// whole or not at all.
static void drop_from_cache(int fd, uint64_t offset) {
    const uint64_t around = 4u << 20;
    uint64_t from = offset > around ? offset - around : 0;
    posix_fadvise(fd, (off_t)from, (off_t)(offset - from + around), POSIX_FADV_DONTNEED);
}

// Does reading the block at `read` leave it in the cache? Only if one at `other`, which nobody
// reads, is absent meanwhile does its presence prove anything: else all of the file is cached.
static enum residency read_and_look(int fd, uint64_t read, uint64_t other, void *buffer) {
    drop_from_cache(fd, other);
    // Twice: a direct read writes back what was dirty, and only what is clean can be dropped.
    for (int i = 0; i < 2; i++) {
        drop_from_cache(fd, read);
        if (pread(fd, buffer, READER_ALIGN, (off_t)read) <= 0)
            return UNSEEN;
    }
    enum residency after = look_at(fd, read);
    return after == RESIDENT && look_at(fd, other) != ABSENT ? UNSEEN : after;
}

bool device_reads_are_cached(int fd, uint64_t file_bytes, bool *known) {
    // Both pairs have to agree on "cached", where both can be seen: somebody else may be reading
    // the file just now. A single block that stayed absent is proof enough of the contrary.
    const uint64_t n_blocks = (file_bytes + READER_ALIGN - 1) / READER_ALIGN;
    const uint64_t pairs[2][2] = { { n_blocks / 2, n_blocks / 5 },
                                   { n_blocks - n_blocks / 5, n_blocks / 3 } };
    uint32_t n_cached = 0;
    *known = false;
    void *buffer = aligned_alloc(READER_ALIGN, READER_ALIGN);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); // read-ahead would fetch the other block as well
    for (int i = 0; buffer && i < 2; i++) {
        uint64_t read = pairs[i][0], other = pairs[i][1];
        if (read >= n_blocks || read == other)
            continue;
        enum residency after = read_and_look(fd, read * READER_ALIGN, other * READER_ALIGN, buffer);
        if (after == RESIDENT)
            n_cached++;
        if (after == ABSENT) {
            *known = true;
            n_cached = 0;
            break;
        }
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
    free(buffer);
    *known |= n_cached > 0;
    return n_cached > 0;
}

// The alignment that statx reports for direct reads of this file; READER_ALIGN where the kernel
// (before 6.1) or the file system reports none, 0 where it reports that there are none.
static uint32_t reported_align(int fd) {
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN))
        return sx.stx_dio_offset_align > sx.stx_dio_mem_align ? sx.stx_dio_offset_align
                                                              : sx.stx_dio_mem_align;
#else
    (void)fd;
#endif
    return READER_ALIGN;
}

// One block, read as the reader will. 0 or an errno: EINVAL where the alignment is not enough.
static int try_direct_read(int fd) {
    void *buffer = aligned_alloc(READER_ALIGN, READER_ALIGN);
    if (!buffer)
        return ENOMEM;
    ssize_t n = pread(fd, buffer, READER_ALIGN, 0);
    int error = n < 0 ? errno : 0;
    free(buffer);
    return error;
}

static void refuse_direct(struct device *d, int error) {
    d->direct = DIRECT_REFUSED;
    d->direct_errno = error;
    d->align_bytes = 0;
}

static void examine_direct(struct device *d, int fd) {
    int flags = fcntl(fd, F_GETFL);
    d->align_bytes = reported_align(fd);
    if (d->align_bytes == 0 || d->align_bytes > READER_ALIGN) {
        refuse_direct(d, d->align_bytes == 0 ? EINVAL : 0);
        return;
    }
    if (fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) {
        refuse_direct(d, errno);
        return;
    }
    int error = try_direct_read(fd);
    if (error == EINVAL || error == EOPNOTSUPP) {
        refuse_direct(d, error);
    } else {
        // Any other error is the file's, and whoever reads that block will be told.
        bool known, cached = device_reads_are_cached(fd, d->bytes, &known);
        bool in_memory = strcmp(d->filesystem, "tmpfs") == 0; // takes O_DIRECT since 6.6
        d->direct = cached || in_memory ? DIRECT_BUFFERED : DIRECT_YES;
    }
    fcntl(fd, F_SETFL, flags);
}

// --- where it lies -------------------------------------------------------------------------------

static bool read_text(const char *path, char *text, size_t bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, bytes - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool read_number(const char *path, uint64_t *number) {
    char text[64], *end;
    if (!read_text(path, text, sizeof text))
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (end == text || errno)
        return false;
    *number = n;
    return true;
}

// /sys's directory of a block device, the whole disk where it is a partition.
static bool block_directory(dev_t device, char resolved[PATH_MAX]) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(device), minor(device));
    if (!realpath(path, resolved))
        return false;
    snprintf(path, sizeof path, "%s/partition", resolved);
    if (access(path, F_OK) == 0)
        *strrchr(resolved, '/') = '\0';
    return true;
}

static void examine_block_device(struct device *d, dev_t device, const char *source) {
    char directory[PATH_MAX], path[PATH_MAX + 32];
    struct stat st;
    // btrfs has a device number of its own making: what it was mounted from leads on.
    if (!block_directory(device, directory) &&
        !(stat(source, &st) == 0 && S_ISBLK(st.st_mode) && block_directory(st.st_rdev, directory)))
        return;
    snprintf(d->block_device, sizeof d->block_device, "%s", strrchr(directory, '/') + 1);
    uint64_t number;
    snprintf(path, sizeof path, "%s/queue/max_sectors_kb", directory);
    if (read_number(path, &number) && number < UINT32_MAX / 1024)
        d->max_request_bytes = (uint32_t)number * 1024;
    snprintf(path, sizeof path, "%s/queue/rotational", directory);
    d->rotational = read_number(path, &number) && number == 1;
}

enum status device_examine_fd(struct device *out, int fd, const char *path, struct err *err) {
    *out = (struct device){ 0 };
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_set(err, ERR_IO, "%s: cannot examine: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(err, ERR_INPUT, "%s: not a file: a regular file is wanted here", path);
    off_t end = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
    out->bytes = end > 0 ? (uint64_t)end : 0;
    dev_t device = S_ISREG(st.st_mode) ? st.st_dev : st.st_rdev;
    struct mount mount;
    mount_find(&mount, "/proc/self/mountinfo", mount_id_of(fd), device);
    memcpy(out->filesystem, mount.filesystem, sizeof out->filesystem);
    examine_block_device(out, device, mount.source);
    examine_direct(out, fd);
    return OK;
}

enum status device_examine(struct device *out, const char *path, struct err *err) {
    *out = (struct device){ 0 };
    // O_NONBLOCK: opening a pipe must not wait for somebody to write into it.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: cannot open: %s", path,
                       strerror(errno));
    enum status status = device_examine_fd(out, fd, path, err);
    close(fd);
    return status;
}

// --- this process --------------------------------------------------------------------------------

static bool has_ipc_lock(void) {
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & 1u << CAP_IPC_LOCK) != 0;
}

static uint64_t mem_available(void) {
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1;
    if (f)
        fclose(f);
    return found ? kib * 1024 : UINT64_MAX;
}

// The page cache of a control group: counted as used, and given up when memory is wanted.
static uint64_t group_cache(const char *path) {
    FILE *f = fopen(path, "re");
    char line[128];
    uint64_t bytes, total = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "inactive_file %" SCNu64, &bytes) == 1 ||
            sscanf(line, "active_file %" SCNu64, &bytes) == 1)
            total += bytes;
    if (f)
        fclose(f);
    return total;
}

// What a control group leaves: the smallest of limit - used on the way up from `group`.
static uint64_t group_available(const char *root, char *group, const char *limit_name,
                                const char *current_name) {
    uint64_t available = UINT64_MAX;
    while (true) {
        char path[PATH_MAX];
        uint64_t limit, current;
        snprintf(path, sizeof path, "%s%s/%s", root, group, limit_name);
        bool limited = read_number(path, &limit); // "max" is no number: no limit
        snprintf(path, sizeof path, "%s%s/%s", root, group, current_name);
        if (limited && read_number(path, &current)) {
            snprintf(path, sizeof path, "%s%s/memory.stat", root, group);
            uint64_t cache = group_cache(path);
            uint64_t used = current > cache ? current - cache : 0;
            uint64_t left = limit > used ? limit - used : 0;
            available = left < available ? left : available;
        }
        char *slash = strrchr(group, '/');
        if (!slash)
            return available;
        *slash = '\0';
    }
}

static uint64_t cgroup_available(void) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[2048], group[1024];
    uint64_t available = UINT64_MAX;
    while (f && fgets(line, sizeof line, f)) {
        uint64_t left = UINT64_MAX;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "0::%1023s", group) == 1)
            left = group_available("/sys/fs/cgroup", group, "memory.max", "memory.current");
        else if (strstr(line, ":memory:") && sscanf(line, "%*d:memory:%1023s", group) == 1)
            left = group_available("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                   "memory.usage_in_bytes");
        available = left < available ? left : available;
    }
    if (f)
        fclose(f);
    return available;
}

enum uring_state uring_state_of(int error) {
    uint64_t disabled = 0;
    switch (error) {
    case 0:
        return URING_YES;
    case ENOSYS:
        return URING_NO_KERNEL;
    case ENOMEM:
        return URING_MEMLOCK;
    case EPERM:
    case EACCES:
        // 1 forbids it to the unprivileged, 2 to all. Somebody it does not forbid met a filter.
        if (read_number("/proc/sys/kernel/io_uring_disabled", &disabled) &&
            (disabled == 2 || (disabled == 1 && geteuid() != 0)))
            return URING_SYSCTL;
        return URING_SECCOMP;
    default:
        return URING_ERROR;
    }
}

const char *uring_reason(enum uring_state state) {
    switch (state) {
    case URING_YES:
        return "works";
    case URING_NO_KERNEL:
        return "is not in this kernel (5.6 and later have it)";
    case URING_SYSCTL:
        return "is forbidden here (kernel.io_uring_disabled)";
    case URING_SECCOMP:
        return "is forbidden here (seccomp)";
    case URING_MEMLOCK:
        return "is refused the memory for its rings (RLIMIT_MEMLOCK)";
    case URING_ERROR:
        break;
    }
    return "cannot be set up";
}

const char *uring_remedy(enum uring_state state) {
    switch (state) {
    case URING_YES:
        return "";
    case URING_NO_KERNEL:
        return "a newer kernel has it";
    case URING_SYSCTL:
        return "`sysctl kernel.io_uring_disabled=0` allows it";
    case URING_SECCOMP:
        return "allow io_uring_setup, io_uring_enter and io_uring_register in the container's "
               "seccomp profile";
    case URING_MEMLOCK:
        return "raise it with `ulimit -l unlimited` or LimitMEMLOCK=infinity";
    case URING_ERROR:
        break;
    }
    return "the kernel log may say more";
}

void device_limits(struct device_limits *out) {
    *out = (struct device_limits){ .memlock_bytes = UINT64_MAX, .may_lock = has_ipc_lock() };
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        out->memlock_bytes = limit.rlim_cur;
    struct io_uring ring;
    int error = io_uring_queue_init(2, &ring, 0);
    if (error == 0)
        io_uring_queue_exit(&ring);
    out->uring_errno = -error;
    out->uring = uring_state_of(-error);
    uint64_t machine = mem_available(), group = cgroup_available();
    out->available_bytes = machine < group ? machine : group;
}
