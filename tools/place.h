/* tools/place.h - where a file lies: all that the system tells of it, and a name to remember it by.
 *
 * Mount, layers, drives and links (io/link.h), how the file lies on them (io/filemap.h), whether
 * O_DIRECT is honest there (io/device.h). What is remembered of a drive is remembered by its key:
 * the layers and the drives' own identities; where drives have none (virtual ones), the device
 * number and the file system's own number stand in. */
#ifndef SLUICE_TOOLS_PLACE_H
#define SLUICE_TOOLS_PLACE_H

#include "io/device.h"
#include "io/filemap.h"
#include "io/link.h"
#include "io/mount.h"
#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLACE_KEY_BYTES 1024

struct place {
    struct device device;
    struct mount mount;
    struct filemap map;
    bool has_stack; /* sysfs knows the device */
    struct link_stack stack;
    char key[PLACE_KEY_BYTES];
};

/* `sysfs` is "/sys", or a tree like that of another machine. Errors as device_examine. */
enum status place_examine(struct place *out, const char *path, const char *sysfs, struct err *err);

/* Only mount, layers, drives and key: opens the file and reads nothing of it. */
enum status place_locate(struct place *out, const char *path, const char *sysfs, struct err *err);

/* "nvme0n1 Samsung SSD 990 PRO 2TB", "2 drives: …", "ext4 on vda", in few words. */
void place_name(const struct place *place, char *text, size_t bytes);

/* What the drives' links carry together: each its narrowest, or its SATA or USB port. 0 if one of
 * them does not tell. */
double place_link_rate(const struct place *place);

/* The highest temperature of its drives, in degrees Celsius; false if none tells. */
bool place_temperature(const struct place *place, double *celsius);

/* The first of its layers of that kind, or NULL. */
const struct layer *place_layer(const struct place *place, enum layer_kind kind);

#ifdef __cplusplus
}
#endif
#endif
