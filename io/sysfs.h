/* io/sysfs.h - the small text files of sysfs, one value each. */
#ifndef SLUICE_IO_SYSFS_H
#define SLUICE_IO_SYSFS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The text of a file, blanks around it taken off, control characters made '?'. False, and "", if it
 * cannot be read or is empty. */
bool sysfs_text(const char *path, char *text, size_t bytes);

/* A decimal or (0x…) hexadecimal number. */
bool sysfs_number(const char *path, uint64_t *number);

/* Write a path; false if it does not fit, so that no other file is read in its stead. */
bool sysfs_path(char path[PATH_MAX], const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
