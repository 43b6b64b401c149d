#include "tools/place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

// The block device's number: the file's own, or that of what its file system was mounted from
// (btrfs has numbers of its own making).
static dev_t block_number(const struct place *p, const struct stat *st, const char *sysfs) {
    struct link_stack stack;
    struct stat source;
    if (S_ISBLK(st->st_mode))
        return st->st_rdev;
    if (!link_examine(&stack, sysfs, major(st->st_dev), minor(st->st_dev)) &&
        stat(p->mount.source, &source) == 0 && S_ISBLK(source.st_mode))
        return source.st_rdev;
    return st->st_dev;
}

static void append(char *text, size_t bytes, const char *between, const char *more) {
    size_t n = strlen(text);
    snprintf(text + n, bytes - n, "%s%s", n > 0 ? between : "", more);
}

static void make_key(struct place *p, dev_t number, uint64_t filesystem_id) {
    char one[320];
    bool told = p->has_stack && p->stack.n_drives > 0;
    for (uint32_t i = 0; i < p->stack.n_layers; i++)
        append(p->key, sizeof p->key, " > ", p->stack.layers[i].what);
    for (uint32_t i = 0; i < p->stack.n_drives; i++) {
        const struct drive *d = &p->stack.drives[i];
        snprintf(one, sizeof one, "%s %s %s", drive_bus_name(d->bus), d->model, d->id);
        append(p->key, sizeof p->key, i == 0 ? " > " : " + ", one);
        told &= d->id[0] != '\0' && d->bus != BUS_VIRTUAL && d->bus != BUS_UNTOLD;
    }
    if (told)
        return;
    snprintf(one, sizeof one, "%s %u:%u %016" PRIx64, p->mount.filesystem, major(number),
             minor(number), filesystem_id);
    append(p->key, sizeof p->key, " > ", one);
}

static void locate(struct place *out, int fd, const struct stat *st, const char *sysfs) {
    struct statfs fs;
    uint64_t id = 0;
    mount_find(&out->mount, "/proc/self/mountinfo", mount_id_of(fd), st->st_dev);
    if (!S_ISBLK(st->st_mode) && fstatfs(fd, &fs) == 0)
        memcpy(&id, &fs.f_fsid, sizeof id < sizeof fs.f_fsid ? sizeof id : sizeof fs.f_fsid);
    dev_t number = block_number(out, st, sysfs);
    out->has_stack = link_examine(&out->stack, sysfs, major(number), minor(number));
    make_key(out, number, id);
}

// O_NONBLOCK: opening a pipe must not wait for somebody to write into it.
static enum status open_file(const char *path, int *fd, struct stat *st, struct err *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return err_set(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: cannot open: %s", path,
                       strerror(errno));
    if (fstat(*fd, st) == 0)
        return OK;
    close(*fd);
    return err_set(err, ERR_IO, "%s: cannot examine: %s", path, strerror(errno));
}

enum status place_locate(struct place *out, const char *path, const char *sysfs, struct err *err) {
    int fd;
    struct stat st;
    *out = (struct place){ .has_stack = false };
    enum status status = open_file(path, &fd, &st, err);
    if (status != OK)
        return status;
    locate(out, fd, &st, sysfs);
    close(fd);
    return OK;
}

enum status place_examine(struct place *out, const char *path, const char *sysfs, struct err *err) {
    int fd;
    struct stat st;
    *out = (struct place){ .has_stack = false };
    enum status status = open_file(path, &fd, &st, err);
    if (status != OK)
        return status;
    status = device_examine_fd(&out->device, fd, path, err);
    if (status == OK) {
        filemap_examine(&out->map, fd);
        locate(out, fd, &st, sysfs);
    }
    close(fd);
    return status;
}

void place_name(const struct place *p, char *text, size_t bytes) {
    text[0] = '\0';
    if (p->stack.n_drives > 1) {
        snprintf(text, bytes, "%" PRIu32 " drives: ", p->stack.n_drives);
    }
    for (uint32_t i = 0; i < p->stack.n_drives; i++) {
        const struct drive *d = &p->stack.drives[i];
        size_t n = strlen(text);
        snprintf(text + n, bytes - n, "%s%s%s%s", i > 0 ? ", " : "", d->device,
                 d->model[0] ? " " : "", d->model);
    }
    if (p->stack.n_drives == 0)
        snprintf(text, bytes, "%s", p->mount.source[0] ? p->mount.source : "unknown device");
}

double place_link_rate(const struct place *p) {
    double sum = 0;
    for (uint32_t i = 0; i < p->stack.n_drives; i++) {
        const struct drive *d = &p->stack.drives[i];
        double rate = d->port_rate > 0 ? d->port_rate : pcie_rate(d->pcie.narrow);
        if (rate <= 0)
            return 0;
        sum += rate;
    }
    return sum;
}

bool place_temperature(const struct place *p, double *celsius) {
    bool told = false;
    for (uint32_t i = 0; i < p->stack.n_drives; i++) {
        double one;
        if (!drive_temperature(&p->stack.drives[i], &one))
            continue;
        *celsius = told && *celsius > one ? *celsius : one;
        told = true;
    }
    return told;
}

const struct layer *place_layer(const struct place *p, enum layer_kind kind) {
    for (uint32_t i = 0; i < p->stack.n_layers; i++)
        if (p->stack.layers[i].kind == kind)
            return &p->stack.layers[i];
    return NULL;
}
