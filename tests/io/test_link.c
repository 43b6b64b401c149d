/* What sysfs tells of drives: on trees of real machines' shape (tests/data/sysfs). */
#include "io/link.h"
#include "io/mount.h"
#include "io/sysfs.h"
#include "tests/support/make_checkpoint.h"
#include "tests/support/sysfs_tree.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

static char *dir;
static struct link_stack s;

static int make_dir(void **state) {
    (void)state;
    dir = make_temp_dir();
    return dir == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    remove_temp_dir(dir);
    return 0;
}

static const struct drive *examine(const char *name, uint32_t major_number, uint32_t minor_number) {
    struct err err = { .status = OK };
    if (sysfs_tree_make(dir, name, &err) != OK)
        fail_msg("%s", err.text);
    assert_true(link_examine(&s, dir, major_number, minor_number));
    assert_false(s.cut);
    return &s.drives[0];
}

static void assert_link(struct pcie_link link, uint32_t generation, uint32_t lanes) {
    assert_int_equal(pcie_generation(link), generation);
    assert_int_equal(link.lanes, lanes);
}

static void a_partition_leads_to_its_drive_and_its_link(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_gen4_x4", 259, 2);
    assert_int_equal(s.n_drives, 1);
    assert_int_equal(s.n_layers, 0);
    assert_string_equal(d->device, "nvme0n1");
    assert_string_equal(d->model, "Samsung SSD 990 PRO 2TB");
    assert_string_equal(d->id, "eui.0025380000000000");
    assert_int_equal(d->bus, BUS_NVME);
    assert_int_equal(d->bytes, 3907029168u * 512ull);
    assert_false(d->rotational);
    assert_string_equal(d->pcie.address, "0000:01:00.0");
    assert_link(d->pcie.now, 4, 4);
    assert_link(d->pcie.narrow, 4, 4);
    assert_int_equal(d->pcie.place, PCIE_PROCESSOR);
    // 16 GT/s x 4 lanes, 128 of 130 bits
    assert_true(pcie_rate(d->pcie.now) > 7.87e9 && pcie_rate(d->pcie.now) < 7.88e9);
    double celsius;
    assert_true(drive_temperature(d, &celsius));
    assert_true(celsius == 41.85);
}

static void a_slot_that_is_narrower_than_the_drive_shows(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_gen4_in_gen3_x2", 259, 0);
    assert_link(d->pcie.now, 3, 2);
    assert_link(d->pcie.drive, 4, 4);
    assert_link(d->pcie.slot, 3, 2);
    assert_true(pcie_rate(d->pcie.now) < 2e9);
}

static void a_chipset_is_told_from_the_processor(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_chipset_amd", 259, 3);
    assert_string_equal(d->device, "nvme1n1");
    assert_string_equal(d->pcie.address, "0000:08:00.0");
    assert_int_equal(d->pcie.place, PCIE_CHIPSET);
    assert_link(d->pcie.narrow, 4, 4);
}

static void intels_chipset_is_told_by_its_ports(void **state) {
    (void)state;
    assert_int_equal(examine("nvme_chipset_intel", 259, 0)->pcie.place, PCIE_CHIPSET);
}

static void a_narrow_link_above_the_drives_own_is_found(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_chipset_gen3_uplink", 259, 0);
    assert_link(d->pcie.now, 4, 4);
    assert_link(d->pcie.narrow, 3, 4);
}

static void bridges_of_thunderbolt_are_not_believed(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_thunderbolt", 259, 0);
    assert_true(d->pcie.external);
    assert_link(d->pcie.narrow, 3, 4);
}

static void a_bus_below_vmd_begins_anew(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_vmd", 259, 0);
    assert_string_equal(d->pcie.address, "10000:e1:00.0");
    assert_int_equal(d->pcie.place, PCIE_PROCESSOR);
    assert_link(d->pcie.slot, 4, 4);
}

static void the_head_of_several_paths_leads_to_a_controller(void **state) {
    (void)state;
    const struct drive *d = examine("nvme_multipath", 259, 1);
    assert_int_equal(d->bus, BUS_NVME);
    assert_string_equal(d->model, "Micron_9550_MTFDLAL7T6TGT");
    assert_link(d->pcie.now, 5, 4);
    double celsius;
    assert_true(drive_temperature(d, &celsius));
}

static void volumes_and_encryption_are_layers_from_the_top(void **state) {
    (void)state;
    const struct drive *d = examine("luks_on_nvme", 252, 1);
    assert_int_equal(s.n_layers, 2);
    assert_int_equal(s.layers[0].kind, LAYER_VOLUME);
    assert_string_equal(s.layers[0].name, "vg0-root");
    assert_int_equal(s.layers[1].kind, LAYER_CRYPT);
    assert_string_equal(s.layers[1].what, "LUKS2");
    assert_int_equal(s.n_drives, 1);
    assert_string_equal(d->device, "nvme0n1");
}

static void a_raid_has_all_its_drives(void **state) {
    (void)state;
    examine("md_raid0_of_two", 9, 0);
    assert_int_equal(s.n_layers, 1);
    assert_int_equal(s.layers[0].kind, LAYER_RAID);
    assert_string_equal(s.layers[0].what, "raid0");
    assert_int_equal(s.layers[0].n_below, 2);
    assert_int_equal(s.n_drives, 2);
    assert_string_equal(s.drives[1].device, "nvme1n1");
    assert_string_not_equal(s.drives[0].id, s.drives[1].id);
}

static void sata_and_usb_tell_what_their_port_carries(void **state) {
    (void)state;
    const struct drive *d = examine("sata_ssd", 8, 1);
    assert_int_equal(d->bus, BUS_SATA);
    assert_true(d->port_rate == 0.6e9);
    assert_string_equal(d->pcie.address, "");
    d = examine("usb_ssd", 8, 17);
    assert_int_equal(d->bus, BUS_USB);
    assert_true(d->port_rate > 1.2e9 && d->port_rate < 1.25e9);
}

static void a_virtual_disk_has_no_link(void **state) {
    (void)state;
    const struct drive *d = examine("virtio", 254, 0);
    double celsius;
    assert_int_equal(d->bus, BUS_VIRTUAL);
    assert_string_equal(d->id, "");
    assert_true(pcie_rate(d->pcie.narrow) == 0);
    assert_false(drive_temperature(d, &celsius));
}

static void a_loop_device_names_its_file(void **state) {
    (void)state;
    examine("loop", 7, 0);
    assert_int_equal(s.n_drives, 0);
    assert_int_equal(s.layers[0].kind, LAYER_LOOP);
    assert_string_equal(s.layers[0].name, "/srv/images/models.img");
}

static void what_sysfs_does_not_know_is_refused(void **state) {
    (void)state;
    examine("virtio", 254, 0);
    assert_false(link_examine(&s, dir, 254, 1));
    assert_false(link_examine(&s, "/nowhere", 254, 0));
    assert_int_equal(s.n_drives, 0);
}

static void a_link_that_is_down_or_nonsense_is_no_link(void **state) {
    (void)state;
    static const char *const speeds[] = { "Unknown", "", "-16.0", "GT/s" };
    static const char *const widths[] = { "0", "255", "many" };
    const char *controller = "devices/pci0000:00/0000:00:06.0/0000:01:00.0";
    struct err err = { .status = OK };
    char path[256];
    for (size_t i = 0; i < 7; i++) {
        examine("nvme_gen4_x4", 259, 2);
        bool speed = i < 4;
        snprintf(path, sizeof path, "%s/current_link_%s", controller, speed ? "speed" : "width");
        assert_int_equal(sysfs_tree_file(dir, path, speed ? speeds[i] : widths[i - 4], &err), OK);
        assert_true(link_examine(&s, dir, 259, 2));
        assert_int_equal(s.drives[0].pcie.now.lanes, 0);
        assert_link(s.drives[0].pcie.narrow, 4, 4); // the port still tells
        remove_temp_dir(dir);
        dir = make_temp_dir();
    }
}

static void layers_that_go_in_a_circle_come_to_an_end(void **state) {
    (void)state;
    examine("luks_on_nvme", 252, 1);
    char path[512];
    snprintf(path, sizeof path, "%s/devices/virtual/block/dm-0/slaves/dm-1", dir);
    assert_int_equal(symlink("../../dm-1", path), 0);
    assert_true(link_examine(&s, dir, 252, 1));
    assert_int_equal(s.n_layers, 2);
    assert_int_equal(s.n_drives, 1);
}

// --- mounts --------------------------------------------------------------------------------------

static const char mounts[] =
    "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro\n"
    "35 22 0:31 /@models /srv/my\\040models rw shared:9 - btrfs /dev/nvme1n1 "
    "rw,compress=zstd:3,ssd,space_cache=v2\n"
    "36 22 0:40 / /mnt/a rw - fuse.sshfs me@host:/a\\040b rw,user_id=1000\n"
    "garbage\n37 22 0:41 / /x rw - \n";

static void a_mount_is_found_by_its_number_or_its_device(void **state) {
    (void)state;
    struct err err = { .status = OK };
    struct mount m;
    char path[512];
    assert_int_equal(sysfs_tree_file(dir, "mountinfo", mounts, &err), OK);
    snprintf(path, sizeof path, "%s/mountinfo", dir);
    assert_true(mount_find(&m, path, 35, makedev(0, 99)));
    assert_string_equal(m.filesystem, "btrfs");
    assert_string_equal(m.source, "/dev/nvme1n1");
    assert_true(mount_has_option(&m, "compress"));
    assert_false(mount_has_option(&m, "compress-force"));
    assert_false(mount_has_option(&m, "comp"));
    assert_true(mount_find(&m, path, 0, makedev(259, 2)));
    assert_string_equal(m.filesystem, "ext4");
    assert_true(mount_find(&m, path, 36, 0));
    assert_string_equal(m.source, "me@host:/a b");
    assert_false(mount_find(&m, path, 99, 0));
    assert_false(mount_find(&m, path, 37, 0));
    assert_string_equal(m.filesystem, "");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(a_partition_leads_to_its_drive_and_its_link),
        TEST(a_slot_that_is_narrower_than_the_drive_shows),
        TEST(a_chipset_is_told_from_the_processor),
        TEST(intels_chipset_is_told_by_its_ports),
        TEST(a_narrow_link_above_the_drives_own_is_found),
        TEST(bridges_of_thunderbolt_are_not_believed),
        TEST(a_bus_below_vmd_begins_anew),
        TEST(the_head_of_several_paths_leads_to_a_controller),
        TEST(volumes_and_encryption_are_layers_from_the_top),
        TEST(a_raid_has_all_its_drives),
        TEST(sata_and_usb_tell_what_their_port_carries),
        TEST(a_virtual_disk_has_no_link),
        TEST(a_loop_device_names_its_file),
        TEST(what_sysfs_does_not_know_is_refused),
        TEST(a_link_that_is_down_or_nonsense_is_no_link),
        TEST(layers_that_go_in_a_circle_come_to_an_end),
        TEST(a_mount_is_found_by_its_number_or_its_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
