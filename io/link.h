/* io/link.h - what lies between a block device and the medium: layers, drives, and their links.
 *
 *     partition, LUKS, LVM, RAID, …  →  drive(s)  →  controller  →  PCIe link(s)  →  processor
 *
 * All of it is told by sysfs, whose root is an argument: "/sys", or a tree like that of
 * another machine (tests/data/sysfs). Nothing is opened but small text files, nothing is kept; any
 * thread. What a machine does not tell stays empty or zero: a virtual disk has no link. */
#ifndef SLUICE_IO_LINK_H
#define SLUICE_IO_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LINK_LAYERS_MAX 8
#define LINK_DRIVES_MAX 16

/* --- PCI Express ------------------------------------------------------------------------------ */

struct pcie_link {
    double gt_per_s; /* per lane: 8 is Gen3, 16 is Gen4, 32 is Gen5; 0: not told */
    uint32_t lanes;
};

/* What a link carries, in bytes a second, line code taken off (Gen4 x4: 7.88e9). Packet headers
 * take another 5 to 15 % of it. 0 where the link is not told. */
double pcie_rate(struct pcie_link link);
uint32_t pcie_generation(struct pcie_link link); /* 1 to 6; 0: not told */

enum pcie_place {
    PCIE_UNTOLD,
    PCIE_PROCESSOR, /* on lanes of the processor */
    PCIE_CHIPSET,   /* on lanes of the chipset, whose own link everything there shares */
    PCIE_SWITCH     /* behind a switch, likewise */
};

struct pcie_path {
    char address[20];        /* of the controller: "0000:01:00.0"; "" if it is on no PCI bus */
    struct pcie_link now;    /* what controller and slot agreed on */
    struct pcie_link drive;  /* the most that the controller can do */
    struct pcie_link slot;   /* the most that the port it sits in can do */
    struct pcie_link narrow; /* the slowest link on the way to the processor; often `now` */
    enum pcie_place place;
    bool external; /* Thunderbolt, USB4: what bridges say of their links there is made up */
};

/* --- drives and layers ------------------------------------------------------------------------ */

enum drive_bus {
    BUS_UNTOLD,
    BUS_NVME,
    BUS_SATA,
    BUS_SCSI, /* SAS, and whatever else speaks it */
    BUS_USB,
    BUS_MMC,
    BUS_VIRTUAL, /* virtio, Xen, Hyper-V: the host knows what it is */
    BUS_NETWORK, /* NVMe over fabrics, nbd, rbd, iSCSI */
    BUS_MEMORY   /* zram, brd */
};
const char *drive_bus_name(enum drive_bus bus); /* "NVMe", "SATA", … */

struct drive {
    char device[32]; /* "nvme0n1" */
    char model[64];
    char id[128]; /* of this very drive: wwid, or serial number; "" if it has none */
    enum drive_bus bus;
    bool rotational, removable;
    uint64_t bytes;
    double port_rate; /* of SATA and USB: bytes a second, line code taken off; 0: not told */
    struct pcie_path pcie;
    char temperature_path[512]; /* millidegrees, see drive_temperature; "" if there is none */
};

enum layer_kind { LAYER_CRYPT, LAYER_VOLUME, LAYER_RAID, LAYER_LOOP, LAYER_CACHE, LAYER_OTHER };

struct layer {
    enum layer_kind kind;
    char device[32]; /* "dm-0" */
    char name[64];   /* "cryptroot"; of a loop device its file */
    char what[32];   /* "LUKS2", "raid0", "LVM" */
    uint32_t n_below;
};

struct link_stack {
    struct layer layers[LINK_LAYERS_MAX]; /* from the top */
    uint32_t n_layers;
    struct drive drives[LINK_DRIVES_MAX];
    uint32_t n_drives;
    bool cut; /* there are more layers or drives than fit */
};

/* Examine the block device `major:minor`; false if sysfs does not know it. */
bool link_examine(struct link_stack *out, const char *sysfs, uint32_t major_number,
                  uint32_t minor_number);

/* Degrees Celsius now; false if the drive does not tell. */
bool drive_temperature(const struct drive *drive, double *celsius);

#ifdef __cplusplus
}
#endif
#endif
