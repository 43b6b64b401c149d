/* io/pcie_path.h - the way from a PCI function to the processor, read off its place in sysfs.
 *
 * A device's resolved directory names every function on the way, the root port first:
 *
 *     …/pci0000:00/0000:00:02.1/0000:02:00.0/0000:03:04.0/0000:05:00.0/nvme/nvme0
 *       root bus   root port    switch, up   switch, down controller
 *
 * Part of io/link.h; a file of its own because it is a subject of its own. */
#ifndef SLUICE_IO_PCIE_PATH_H
#define SLUICE_IO_PCIE_PATH_H

#include "io/link.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `directory` is resolved. All fields stay zero where it lies on no PCI bus. */
void pcie_path_examine(struct pcie_path *out, const char *directory);

#ifdef __cplusplus
}
#endif
#endif
