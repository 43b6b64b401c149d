#include "io/pcie_path.h"

#include "io/sysfs.h"

#include <stdio.h>
#include <string.h>

#define FUNCTIONS_MAX 16

#define VENDOR_INTEL 0x8086
#define VENDOR_AMD   0x1022

double pcie_rate(struct pcie_link link) {
    // Gen1 and 2 send 10 bits for 8, Gen3 to 5 130 for 128; Gen6 sends blocks of 256 bytes of
    // which 242 are payload and headers.
    double code = link.gt_per_s < 8 ? 0.8 : link.gt_per_s < 64 ? 128.0 / 130 : 242.0 / 256;
    return link.gt_per_s * 1e9 * code * link.lanes / 8;
}

uint32_t pcie_generation(struct pcie_link link) {
    static const double rates[] = { 2.5, 5, 8, 16, 32, 64 };
    for (uint32_t i = 0; i < sizeof rates / sizeof *rates; i++)
        if (link.gt_per_s == rates[i])
            return i + 1;
    return 0;
}

struct function {
    int end;          // of its directory in the path
    unsigned device;  // its number on its bus
    bool on_root_bus; // right below pciDDDD:BB
    uint64_t vendor;
    struct pcie_link now, most;
};

// "16.0 GT/s PCIe" ("16 GT/s" in older kernels, "Unknown" where there is no link) and "4".
static struct pcie_link read_link(const char *directory, const char *which) {
    char path[PATH_MAX], text[64];
    struct pcie_link link = { 0 };
    uint64_t lanes;
    if (!sysfs_path(path, "%s/%s_link_speed", directory, which) ||
        !sysfs_text(path, text, sizeof text) || sscanf(text, "%lf GT/s", &link.gt_per_s) != 1 ||
        !(link.gt_per_s > 0) || !sysfs_path(path, "%s/%s_link_width", directory, which) ||
        !sysfs_number(path, &lanes) || lanes == 0 || lanes > 32) // 255: not told
        return (struct pcie_link){ 0 };
    link.lanes = (uint32_t)lanes;
    return link;
}

static void read_function(struct function *f, const char *directory) {
    char path[PATH_MAX];
    f->now = read_link(directory, "current");
    f->most = read_link(directory, "max");
    if (!sysfs_path(path, "%s/vendor", directory) || !sysfs_number(path, &f->vendor))
        f->vendor = 0;
}

// The functions of the path, the root port first. Below a VMD controller a bus begins anew.
static uint32_t find_functions(const char *path, struct function *functions) {
    uint32_t n = 0;
    bool root_bus = false;
    for (const char *at = strchr(path, '/'); at; at = strchr(at + 1, '/')) {
        unsigned domain, bus, device, function;
        int length = 0;
        if (sscanf(at, "/pci%x:%x%n", &domain, &bus, &length) == 2 && length > 0) {
            root_bus = true;
            n = 0;
            continue;
        }
        length = 0;
        if (sscanf(at, "/%x:%x:%x.%x%n", &domain, &bus, &device, &function, &length) != 4 ||
            (at[length] != '/' && at[length] != '\0') || n == FUNCTIONS_MAX)
            continue;
        char directory[PATH_MAX];
        int end = (int)(at - path) + length;
        snprintf(directory, sizeof directory, "%.*s", end, path);
        functions[n] = (struct function){ .end = end, .device = device, .on_root_bus = root_bus };
        read_function(&functions[n++], directory);
        root_bus = false;
    }
    return n;
}

// Intel's chipsets show their ports on bus 0 as devices 1a to 1d, beside those of the processor
// (01, 06). AMD's are switches behind a port of the processor, and say AMD.
static enum pcie_place place_of(const struct function *functions, uint32_t n) {
    const struct function *root = &functions[0];
    if (!root->on_root_bus || root->vendor == 0 || n < 2)
        return PCIE_UNTOLD;
    if (root->vendor == VENDOR_INTEL && root->device >= 0x1a && root->device <= 0x1d)
        return PCIE_CHIPSET;
    for (uint32_t i = 1; i + 1 < n; i++)
        if (functions[i].vendor == VENDOR_AMD)
            return PCIE_CHIPSET;
    if (n > 2)
        return PCIE_SWITCH;
    return root->vendor == VENDOR_INTEL || root->vendor == VENDOR_AMD ? PCIE_PROCESSOR
                                                                      : PCIE_UNTOLD;
}

static bool is_external(const char *directory, int end) {
    char path[PATH_MAX], text[32];
    return sysfs_path(path, "%.*s/removable", end, directory) &&
           sysfs_text(path, text, sizeof text) && strcmp(text, "removable") == 0;
}

void pcie_path_examine(struct pcie_path *out, const char *directory) {
    struct function functions[FUNCTIONS_MAX];
    uint32_t n = find_functions(directory, functions);
    *out = (struct pcie_path){ .place = PCIE_UNTOLD };
    if (n == 0)
        return;
    const struct function *controller = &functions[n - 1];
    const char *name = directory + controller->end;
    while (name[-1] != '/')
        name--;
    snprintf(out->address, sizeof out->address, "%.*s", (int)(directory + controller->end - name),
             name);
    out->now = out->narrow = controller->now;
    out->drive = controller->most;
    out->place = place_of(functions, n);
    out->external = is_external(directory, controller->end);
    if (n > 1)
        out->slot = functions[n - 2].most;
    // A port and what sits in it tell of the same link; so each is seen, most of them twice.
    for (uint32_t i = 0; i < n && !out->external; i++)
        if (functions[i].now.lanes > 0 &&
            (out->narrow.lanes == 0 || pcie_rate(functions[i].now) < pcie_rate(out->narrow)))
            out->narrow = functions[i].now;
}
