/* io/device.h - what a path lies on, and what this process may do.
 *
 * Both are found out, not assumed: a file system that takes O_DIRECT and reads through the page
 * cache all the same (compressed btrfs, tmpfs) is recognized by what a read leaves behind, and
 * io_uring is tried before it is believed in. Nothing here keeps state; any thread. */
#ifndef SLUICE_IO_DEVICE_H
#define SLUICE_IO_DEVICE_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum direct_io {
    DIRECT_YES,      /* reads go around the page cache: seen, or reported and not disproved */
    DIRECT_REFUSED,  /* O_DIRECT is not to be had, or wants more than READER_ALIGN */
    DIRECT_BUFFERED, /* accepted, but what was read lies in the page cache afterwards */
};

struct device {
    uint64_t bytes;             /* of the file */
    enum direct_io direct;      /* of this very file: on btrfs it is a matter of each */
    uint32_t align_bytes;       /* that O_DIRECT asks of offset, length and address; 0: refused */
    int direct_errno;           /* of a refusal: why; 0: wants a larger alignment */
    char filesystem[24];        /* "ext4", "xfs", "btrfs", …; "" unknown */
    char block_device[64];      /* the whole disk: "nvme0n1", "dm-0"; "" if there is none */
    uint32_t max_request_bytes; /* the largest read that the device takes in one; 0 unknown */
    bool rotational;            /* turning rust: not what this program is for */
};

/* Examine the file behind `path`. ERR_MISSING, ERR_IO (cannot be opened), ERR_INPUT (not a regular
 * file or a block device). Reads at most a few blocks. */
enum status device_examine(struct device *out, const char *path, struct err *err);

/* The same for an open file; fd comes back as it was, O_DIRECT or not. */
enum status device_examine_fd(struct device *out, int fd, const char *path, struct err *err);

/* Do reads through `fd`, as it is open now, leave their bytes in the page cache? Decided by what a
 * few reads leave behind. *known is false where nothing can be seen: the file is too small, or all
 * of it is cached and stays so, or the kernel cannot tell. Drops some MiB of it from the cache. */
bool device_reads_are_cached(int fd, uint64_t file_bytes, bool *known);

/* --- this process ----------------------------------------------------------------------------- */

enum uring_state {
    URING_YES,
    URING_NO_KERNEL, /* ENOSYS: older than 5.6, or built without */
    URING_SYSCTL,    /* kernel.io_uring_disabled */
    URING_SECCOMP,   /* EPERM from a filter: a container's profile */
    URING_MEMLOCK,   /* ENOMEM: many kernels charge rings to RLIMIT_MEMLOCK */
    URING_ERROR      /* anything else: uring_errno */
};

struct device_limits {
    uint64_t memlock_bytes; /* RLIMIT_MEMLOCK; UINT64_MAX: unlimited */
    bool may_lock;          /* CAP_IPC_LOCK: the limit does not count */
    enum uring_state uring;
    int uring_errno;
    uint64_t available_bytes; /* of memory: MemAvailable, or less by a control group's limit */
};

void device_limits(struct device_limits *out);

/* Why io_uring is not to be had: "is forbidden here (seccomp)", … and how to get it back. */
const char *uring_reason(enum uring_state state);
const char *uring_remedy(enum uring_state state);

/* The state that an error of io_uring_setup, io_uring_enter or io_uring_register stands for. */
enum uring_state uring_state_of(int error);

#ifdef __cplusplus
}
#endif
#endif
