#include "io/link.h"

#include "io/pcie_path.h"
#include "io/sysfs.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *drive_bus_name(enum drive_bus bus) {
    static const char *const names[] = {
        [BUS_UNTOLD] = "unknown bus", [BUS_NVME] = "NVMe",       [BUS_SATA] = "SATA",
        [BUS_SCSI] = "SCSI",          [BUS_USB] = "USB",         [BUS_MMC] = "MMC",
        [BUS_VIRTUAL] = "virtual",    [BUS_NETWORK] = "network", [BUS_MEMORY] = "memory",
    };
    return names[bus];
}

// --- a drive -------------------------------------------------------------------------------------

static bool contains(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

// By where the device hangs in the tree; `home` is the resolved directory of the disk or, for
// NVMe, of its controller.
static enum drive_bus bus_of(const char *home, const char *device) {
    if (contains(home, "/nvme-fabrics/") || contains(home, "/session") ||
        strncmp(device, "nbd", 3) == 0 || strncmp(device, "rbd", 3) == 0 ||
        strncmp(device, "drbd", 4) == 0)
        return BUS_NETWORK;
    if (contains(home, "/virtio") || contains(home, "/vbd-") || contains(home, "/VMBUS") ||
        contains(home, "/vmbus"))
        return BUS_VIRTUAL;
    if (contains(home, "/usb")) // a USB drive is a SCSI device below it
        return BUS_USB;
    if (contains(home, "/nvme/"))
        return BUS_NVME;
    if (contains(home, "/mmc_host/"))
        return BUS_MMC;
    if (contains(home, "/ata"))
        return BUS_SATA;
    if (contains(home, "/target"))
        return BUS_SCSI;
    if (strncmp(device, "zram", 4) == 0 || strncmp(device, "ram", 3) == 0 ||
        strncmp(device, "pmem", 4) == 0)
        return BUS_MEMORY;
    return BUS_UNTOLD;
}

// The controller of an NVMe namespace. Where the kernel shows one head for several paths, the disk
// lies in a subsystem's directory, beside links to its controllers; the first that there is.
static void find_controller(const char *disk, char controller[PATH_MAX]) {
    char path[PATH_MAX], *slash;
    snprintf(controller, PATH_MAX, "%s", disk);
    if (!(slash = strrchr(controller, '/')))
        return;
    *slash = '\0';
    if (!contains(controller, "/nvme-subsystem/"))
        return;
    DIR *entries = opendir(controller);
    unsigned first = UINT_MAX;
    for (struct dirent *e; entries && (e = readdir(entries));) {
        unsigned number;
        char rest;
        if (sscanf(e->d_name, "nvme%u%c", &number, &rest) == 1 && number < first)
            first = number;
    }
    if (entries)
        closedir(entries);
    if (first != UINT_MAX && sysfs_path(path, "%s/nvme%u", controller, first) &&
        !realpath(path, controller))
        snprintf(controller, PATH_MAX, "%s", disk);
}

// Of the directory of an ATA port: "6.0 Gbps", ten bits a byte on the wire.
static double sata_rate(const char *home) {
    char port[PATH_MAX], path[PATH_MAX], text[64];
    const char *ata = strstr(home, "/ata");
    double gbps;
    unsigned number;
    if (!ata || sscanf(ata, "/ata%u", &number) != 1)
        return 0;
    snprintf(port, sizeof port, "%.*s", (int)(ata + 1 + strcspn(ata + 1, "/") - home), home);
    if (!sysfs_path(path, "%s/link%u/ata_link/link%u/sata_spd", port, number, number) ||
        !sysfs_text(path, text, sizeof text) || sscanf(text, "%lf Gbps", &gbps) != 1)
        return 0;
    return gbps * 1e9 / 10;
}

// The nearest directory upwards that tells a speed, in Mbit/s: 8b/10b up to 5 Gbit/s, 128b/132b
// above.
static double usb_rate(const char *home) {
    char up[PATH_MAX], path[PATH_MAX];
    uint64_t mbps;
    snprintf(up, sizeof up, "%s", home);
    for (char *slash; (slash = strrchr(up, '/')) && contains(up, "/usb"); *slash = '\0')
        if (sysfs_path(path, "%s/speed", up) && sysfs_number(path, &mbps))
            return (double)mbps * 1e6 / 8 * (mbps <= 5000 ? 0.8 : 128.0 / 132);
    return 0;
}

// NVMe: nvme0/hwmon3/temp1_input, in older kernels beside nvme/. SATA: the drivetemp module's.
static void find_temperature(struct drive *d, const char *home, const char *device_link) {
    const char *const parents[] = { home, device_link };
    for (size_t i = 0; i < 2 && !d->temperature_path[0]; i++)
        for (int inner = 0; inner < 2 && !d->temperature_path[0]; inner++) {
            char directory[PATH_MAX];
            if (!sysfs_path(directory, inner ? "%s/hwmon" : "%s", parents[i]))
                continue;
            DIR *entries = opendir(directory);
            for (struct dirent *e; entries && (e = readdir(entries));) {
                char path[PATH_MAX];
                if (strncmp(e->d_name, "hwmon", 5) == 0 && e->d_name[5] &&
                    sysfs_path(path, "%s/%s/temp1_input", directory, e->d_name) &&
                    access(path, R_OK) == 0 && strlen(path) < sizeof d->temperature_path)
                    strcpy(d->temperature_path, path);
            }
            if (entries)
                closedir(entries);
        }
}

bool drive_temperature(const struct drive *drive, double *celsius) {
    uint64_t millidegrees;
    if (!drive->temperature_path[0] || !sysfs_number(drive->temperature_path, &millidegrees))
        return false;
    *celsius = (double)millidegrees / 1000;
    return true;
}

static void read_id(struct drive *d, const char *disk) {
    static const char *const places[] = { "wwid", "device/wwid", "device/serial", "serial" };
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof places / sizeof *places && !d->id[0]; i++)
        if (sysfs_path(path, "%s/%s", disk, places[i]))
            sysfs_text(path, d->id, sizeof d->id);
}

static void add_drive(struct link_stack *out, const char *disk) {
    char path[PATH_MAX], home[PATH_MAX], device_link[PATH_MAX];
    const char *device = strrchr(disk, '/') + 1;
    for (uint32_t i = 0; i < out->n_drives; i++)
        if (strcmp(out->drives[i].device, device) == 0)
            return; // two partitions of one drive in one volume
    if (out->n_drives == LINK_DRIVES_MAX) {
        out->cut = true;
        return;
    }
    struct drive *d = &out->drives[out->n_drives++];
    *d = (struct drive){ 0 };
    snprintf(d->device, sizeof d->device, "%s", device);
    if (strncmp(device, "nvme", 4) == 0)
        find_controller(disk, home);
    else
        snprintf(home, sizeof home, "%s", disk);
    if (!sysfs_path(path, "%s/device", disk) || !realpath(path, device_link))
        device_link[0] = '\0';
    d->bus = bus_of(home, device);
    if (sysfs_path(path, "%s/device/model", disk))
        sysfs_text(path, d->model, sizeof d->model);
    read_id(d, disk);
    uint64_t number;
    if (sysfs_path(path, "%s/size", disk) && sysfs_number(path, &number))
        d->bytes = number * 512; // sysfs counts in those, whatever the drive does
    d->rotational =
        sysfs_path(path, "%s/queue/rotational", disk) && sysfs_number(path, &number) && number == 1;
    d->removable =
        sysfs_path(path, "%s/removable", disk) && sysfs_number(path, &number) && number == 1;
    if (d->bus == BUS_SATA)
        d->port_rate = sata_rate(home);
    if (d->bus == BUS_USB)
        d->port_rate = usb_rate(home);
    if (d->bus == BUS_NVME)
        pcie_path_examine(&d->pcie, home);
    if (device_link[0])
        find_temperature(d, home, device_link);
}

// --- layers --------------------------------------------------------------------------------------

static const struct {
    const char *uuid; // how dm/uuid begins
    enum layer_kind kind;
    const char *what;
} mapper_kinds[] = {
    { "CRYPT-LUKS2", LAYER_CRYPT, "LUKS2" },
    { "CRYPT-LUKS1", LAYER_CRYPT, "LUKS1" },
    { "CRYPT-BITLK", LAYER_CRYPT, "BitLocker" },
    { "CRYPT-", LAYER_CRYPT, "dm-crypt" },
    { "LVM-", LAYER_VOLUME, "LVM" },
    { "mpath-", LAYER_OTHER, "multipath" },
    { "DMRAID-", LAYER_RAID, "dmraid" },
    { "part", LAYER_OTHER, "partition" },
};

static void describe_mapper(struct layer *l, const char *disk) {
    char path[PATH_MAX], uuid[160] = "";
    l->kind = LAYER_OTHER;
    snprintf(l->what, sizeof l->what, "device mapper");
    if (sysfs_path(path, "%s/dm/name", disk))
        sysfs_text(path, l->name, sizeof l->name);
    if (sysfs_path(path, "%s/dm/uuid", disk))
        sysfs_text(path, uuid, sizeof uuid);
    for (size_t i = 0; i < sizeof mapper_kinds / sizeof *mapper_kinds; i++)
        if (strncmp(uuid, mapper_kinds[i].uuid, strlen(mapper_kinds[i].uuid)) == 0) {
            l->kind = mapper_kinds[i].kind;
            snprintf(l->what, sizeof l->what, "%s", mapper_kinds[i].what);
            return;
        }
}

// Is the disk a layer over others, and which? False for a drive.
static bool describe_layer(struct layer *l, const char *disk) {
    char path[PATH_MAX];
    *l = (struct layer){ .kind = LAYER_OTHER };
    snprintf(l->device, sizeof l->device, "%s", strrchr(disk, '/') + 1);
    if (sysfs_path(path, "%s/dm", disk) && access(path, F_OK) == 0) {
        describe_mapper(l, disk);
    } else if (sysfs_path(path, "%s/md/level", disk) && sysfs_text(path, l->what, sizeof l->what)) {
        l->kind = LAYER_RAID;
    } else if (sysfs_path(path, "%s/bcache", disk) && access(path, F_OK) == 0) {
        l->kind = LAYER_CACHE;
        snprintf(l->what, sizeof l->what, "bcache");
    } else if (sysfs_path(path, "%s/loop/backing_file", disk) &&
               sysfs_text(path, l->name, sizeof l->name)) {
        l->kind = LAYER_LOOP;
        snprintf(l->what, sizeof l->what, "loop device");
    } else {
        return false;
    }
    return true;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_entry(const struct dirent *e) {
    return e->d_name[0] != '.';
}

static void walk(struct link_stack *out, const char *directory);

// What the layer lies on: each is a disk or a partition.
static uint32_t walk_below(struct link_stack *out, const char *disk) {
    char slaves[PATH_MAX], path[PATH_MAX], below[PATH_MAX];
    struct dirent **entries;
    int n =
        sysfs_path(slaves, "%s/slaves", disk) ? scandir(slaves, &entries, is_entry, by_name) : -1;
    for (int i = 0; i < n; i++) {
        if (sysfs_path(path, "%s/%s", slaves, entries[i]->d_name) && realpath(path, below))
            walk(out, below);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return n > 0 ? (uint32_t)n : 0;
}

static void walk(struct link_stack *out, const char *directory) {
    char disk[PATH_MAX], path[PATH_MAX];
    snprintf(disk, sizeof disk, "%s", directory);
    if (sysfs_path(path, "%s/partition", disk) && access(path, F_OK) == 0)
        *strrchr(disk, '/') = '\0';
    struct layer layer;
    if (!describe_layer(&layer, disk)) {
        add_drive(out, disk);
        return;
    }
    for (uint32_t i = 0; i < out->n_layers; i++)
        if (strcmp(out->layers[i].device, layer.device) == 0)
            return; // reached a second time: two volumes over one
    if (out->n_layers == LINK_LAYERS_MAX) {
        out->cut = true;
        return;
    }
    uint32_t at = out->n_layers++;
    out->layers[at] = layer;
    out->layers[at].n_below = walk_below(out, disk);
}

bool link_examine(struct link_stack *out, const char *sysfs, uint32_t major_number,
                  uint32_t minor_number) {
    char path[PATH_MAX], directory[PATH_MAX];
    *out = (struct link_stack){ 0 };
    if (!sysfs_path(path, "%s/dev/block/%u:%u", sysfs, major_number, minor_number) ||
        !realpath(path, directory))
        return false;
    walk(out, directory);
    return true;
}
