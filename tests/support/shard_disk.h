/* tests/support/shard_disk.h - a modelled disk (io/disk.h) whose content is that of the real files. */
#ifndef SLUICE_TESTS_SHARD_DISK_H
#define SLUICE_TESTS_SHARD_DISK_H

#include "io/disk.h"

/* As disk_model_open; the options' content is the disk's own: the bytes of the files it is given.
 * At most SHARD_DISK_FILES of them. Fails the test where it cannot be. */
#define SHARD_DISK_FILES 64
struct disk *shard_disk_open(const struct disk_model_options *options);

#endif
