/* io/mount.h - the mount that a file is reached through, by /proc/self/mountinfo. */
#ifndef SLUICE_IO_MOUNT_H
#define SLUICE_IO_MOUNT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mount {
    char filesystem[24];   /* "ext4", "btrfs", "fuse.sshfs", … */
    char source[PATH_MAX]; /* what was mounted: "/dev/nvme0n1p2", "pool/models", "host:/share" */
    char options[1024];    /* of the file system: "rw,compress=zstd:3,…"; cut where longer */
};

/* The kernel's number of the mount behind an open file (from 5.8 on); 0: not told. By it, since a
 * btrfs file has another device number than its mount. */
uint64_t mount_id_of(int fd);

/* Look it up by that number, or where it is 0 by the device number. `mountinfo` is
 * "/proc/self/mountinfo", or a file of that form. False, and "" everywhere, if it is not there. */
bool mount_find(struct mount *out, const char *mountinfo, uint64_t mount_id, dev_t device);

/* Is a word among the options: "compress" is in "rw,compress=zstd:3". */
bool mount_has_option(const struct mount *mount, const char *word);

#ifdef __cplusplus
}
#endif
#endif
