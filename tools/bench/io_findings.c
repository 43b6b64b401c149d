#include "tools/bench/io.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static void add(struct bench_drive *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add(struct bench_drive *d, const char *format, ...) {
    if (d->n_findings == BENCH_FINDINGS_MAX)
        return;
    char *text = d->findings[d->n_findings++];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof d->findings[0], format, args);
    va_end(args);
}

// --- how it is reached ---------------------------------------------------------------------------

static void direct(struct bench_drive *d) {
    const struct device *v = &d->target.place.device;
    const char *filesystem = v->filesystem[0] ? v->filesystem : "the file system";
    if (v->direct == DIRECT_REFUSED)
        add(d,
            "%s refuses O_DIRECT here: all is read through the page cache, which costs CPU time "
            "and "
            "memory; a copy on ext4 or xfs would be read directly",
            filesystem);
    else if (v->direct == DIRECT_BUFFERED)
        add(d,
            "%s takes O_DIRECT and reads through the page cache all the same (compressed, or in "
            "memory): an uncompressed copy would be read directly",
            filesystem);
}

static void filesystem(struct bench_drive *d) {
    const struct place *p = &d->target.place;
    const char *fs = p->mount.filesystem;
    if (strcmp(fs, "overlay") == 0)
        add(d, "overlay: a container's file system, which looks up every file in several; a "
               "directory of the host's that is mounted into it has no such detour");
    if (strncmp(fs, "nfs", 3) == 0 || strcmp(fs, "cifs") == 0 || strcmp(fs, "ceph") == 0)
        add(d, "%s from %.120s: what is measured is the network as well", fs, p->mount.source);
    if (strncmp(fs, "fuse", 4) == 0 || strcmp(fs, "9p") == 0 || strcmp(fs, "virtiofs") == 0)
        add(d, "%s: every read passes through another process or machine", fs);
    if (strcmp(fs, "zfs") == 0)
        add(d,
            "zfs checks, and where it is told to, decompresses every block on the CPU, in records "
            "of `zfs get recordsize`; `zfs get compression` says whether");
    if (p->map.encoded_bytes > p->device.bytes / 100)
        add(d,
            "%.0f %% of the file are stored compressed or encrypted: the CPU undoes it at every "
            "read",
            100.0 * (double)p->map.encoded_bytes / (double)p->device.bytes);
    else if (mount_has_option(&p->mount, "compress") ||
             mount_has_option(&p->mount, "compress-force") ||
             mount_has_option(&p->mount, "compress_algorithm"))
        add(d,
            "%s is mounted with compression: new files may be stored compressed, and are then "
            "read through the page cache",
            fs);
    if (p->map.known && p->map.n_pieces > 16 && p->device.bytes / p->map.n_pieces < 4u << 20)
        add(d,
            "the file lies in %" PRIu32 " pieces of %.2f MB on average: a copy made in one go "
            "would be read in fewer requests",
            p->map.n_pieces, (double)p->device.bytes / p->map.n_pieces * 1e-6);
}

// --- layers and links ----------------------------------------------------------------------------

static void layers(struct bench_drive *d) {
    const struct link_stack *s = &d->target.place.stack;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct layer *l = &s->layers[i];
        double per_gb = d->expert.bytes ? d->expert.machine_s / (double)d->expert.bytes * 1e9 : 0;
        if (l->kind == LAYER_CRYPT && per_gb > 0)
            add(d,
                "%s (%s): the CPU decrypts every byte; the whole machine was busy for %.2f CPU "
                "seconds a GB meanwhile",
                l->name, l->what, per_gb);
        else if (l->kind == LAYER_CRYPT)
            add(d, "%s (%s): the CPU decrypts every byte", l->name, l->what);
        else if (l->kind == LAYER_RAID && strcmp(l->what, "raid0") != 0)
            add(d,
                "%s (%s of %" PRIu32 "): reads less than the sum of its drives; raid0 reads all "
                "of them at once, and sluice reads several directories at once without any",
                l->device, l->what, l->n_below);
        else if (l->kind == LAYER_LOOP)
            add(d, "%s is a loop device on %s: its file system is passed twice", l->device,
                l->name);
        else if (l->kind == LAYER_CACHE)
            add(d, "%s (%s): what is measured may be its cache", l->device, l->what);
    }
}

static struct bench_words link_words(struct pcie_link link) {
    struct bench_words w;
    snprintf(w.text, sizeof w.text, "Gen%" PRIu32 " x%" PRIu32 " (%.2f GB/s)",
             pcie_generation(link), link.lanes, pcie_rate(link) * 1e-9);
    return w;
}

static void pcie(struct bench_drive *d, const struct drive *v) {
    const struct pcie_path *p = &v->pcie;
    const double now = pcie_rate(p->now), most = pcie_rate(p->drive), slot = pcie_rate(p->slot);
    if (now > 0 && now < most && slot > 0 && slot <= now)
        add(d,
            "%s: its slot carries no more than %s; the drive could do %s: another slot would help",
            v->device, link_words(p->slot).text, link_words(p->drive).text);
    else if (now > 0 && now < most)
        add(d,
            "%s: drive and slot agreed on %s although the drive could do %s: reseat it, and look "
            "at the slot's speed in the firmware's settings",
            v->device, link_words(p->now).text, link_words(p->drive).text);
    if (pcie_rate(p->narrow) > 0 && pcie_rate(p->narrow) < now)
        add(d, "%s: a link above the drive's own carries only %s", v->device,
            link_words(p->narrow).text);
    if (p->external)
        add(d,
            "%s: in an external case (Thunderbolt, USB4): the cable carries less than the drive's "
            "own link",
            v->device);
    else if (p->place == PCIE_CHIPSET)
        add(d,
            "%s: on the chipset's lanes: its link to the processor is shared with everything else "
            "there, other drives included",
            v->device);
    else if (p->place == PCIE_SWITCH)
        add(d, "%s: behind a PCIe switch, whose link everything below it shares", v->device);
}

static void drives(struct bench_drive *d) {
    const struct link_stack *s = &d->target.place.stack;
    for (uint32_t i = 0; i < s->n_drives; i++) {
        const struct drive *v = &s->drives[i];
        pcie(d, v);
        if (v->rotational && v->bus != BUS_VIRTUAL)
            add(d, "%s: a turning disk: not what experts can be streamed from", v->device);
        if (v->port_rate > 0)
            add(d,
                "%s: a %s port that carries %.2f GB/s at most; an NVMe drive on four lanes reads "
                "several times that",
                v->device, drive_bus_name(v->bus), v->port_rate * 1e-9);
        if (v->bus == BUS_NETWORK)
            add(d, "%s: over the network", v->device);
        if (v->bus == BUS_VIRTUAL)
            add(d,
                "%s: a virtual disk: its host decides what it reads, which may change by the "
                "second "
                "and may come out of the host's memory",
                v->device);
        if (v->bus == BUS_MEMORY)
            add(d, "%s: lies in memory: this says nothing of a drive", v->device);
    }
}

static void share_of_link(struct bench_drive *d) {
    double link = place_link_rate(&d->target.place);
    if (link > 0 && d->expert.rate > 0.85 * link)
        add(d,
            "the link is the limit: %.0f %% of it is reached, and packet headers take 5 to 15 %%",
            100 * d->expert.rate / link);
}

// --- what was measured ---------------------------------------------------------------------------

static void figures(const struct bench_io *b, struct bench_drive *d) {
    double first, last;
    if (bench_sustained_ends(&d->sustained, &first, &last) && last < 0.93 * first)
        add(d,
            "it slowed down from %.2f to %.2f GB/s while it was read on and on: cooling, or its "
            "host, decides",
            first * 1e-9, last * 1e-9);
    if (d->expert.rate > 0 && d->expert.cpu_s > 0.8 * d->expert.seconds)
        add(d, "reading alone took %.0f %% of one core", 100 * d->expert.cpu_s / d->expert.seconds);
    if (d->alone.p50_ns > 0 && d->alone.p99_ns > 3 * d->alone.p50_ns)
        add(d,
            "one expert in a hundred takes %.0f ms or more where the usual one takes %.0f: the "
            "drive stalls now and then, or others use it",
            d->alone.p99_ns * 1e-6, d->alone.p50_ns * 1e-6);
    if (!b->forbid_uring && d->expert.rate > 0 && !d->expert.registered)
        add(d,
            "memory could not be registered with the ring: RLIMIT_MEMLOCK is too small (`ulimit -l "
            "unlimited`, or LimitMEMLOCK=infinity); every read pins its pages, which costs CPU "
            "time");
    if (d->target.made_fd >= 0)
        add(d, "the test file is new, and may still lie in the drive's fast part (SLC cache): what "
               "was "
               "written long ago may be read more slowly");
    if (d->target.place.device.bytes < 4ull << 30)
        add(d,
            "the file is small (%.1f GB): the drive's own cache may hold a part of it, and "
            "the page cache soon has all of it",
            (double)d->target.place.device.bytes * 1e-9);
}

static void companions(struct bench_io *b, struct bench_drive *d, uint32_t drive) {
    for (uint32_t i = 0; i < drive; i++)
        if (strcmp(b->drives[i].target.place.key, d->target.place.key) == 0)
            add(d, "lies on the same drive as %.120s: no second drive was measured",
                b->drives[i].target.path);
    if (b->n_drives > 1 && d->together.rate > 0 && d->expert.rate > 0 &&
        d->together.rate < 0.93 * d->expert.rate)
        add(d,
            "together with the others it reads %.0f %% of what it reads alone: they share a link, "
            "a "
            "drive, or the CPU",
            100 * d->together.rate / d->expert.rate);
}

void bench_findings(struct bench_io *b, uint32_t drive) {
    struct bench_drive *d = &b->drives[drive];
    d->n_findings = 0;
    direct(d);
    companions(b, d, drive);
    drives(d);
    share_of_link(d);
    layers(d);
    filesystem(d);
    figures(b, d);
}
