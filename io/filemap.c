#include "io/filemap.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define EXTENTS_AT_ONCE 512
#define EXTENTS_MAX     (1u << 18) // 32 GiB in compressed pieces of 128 KiB: enough to judge by

static void add_extent(struct filemap *m, const struct fiemap_extent *e, uint64_t *logical,
                       uint64_t *physical, uint64_t file_bytes) {
    uint64_t end = e->fe_logical + e->fe_length;
    uint64_t bytes = (end < file_bytes ? end : file_bytes) - e->fe_logical;
    if (e->fe_logical > *logical)
        m->absent_bytes += e->fe_logical - *logical;
    if (e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
        m->absent_bytes += bytes;
    if (e->fe_flags & (FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_ENCRYPTED))
        m->encoded_bytes += bytes;
    if (m->n_pieces == 0 || e->fe_physical != *physical)
        m->n_pieces++;
    *logical = end;
    *physical = e->fe_physical + e->fe_length;
}

void filemap_examine(struct filemap *out, int fd) {
    *out = (struct filemap){ .known = false };
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return;
    uint64_t bytes = (uint64_t)st.st_size, used = (uint64_t)st.st_blocks * 512;
    struct fiemap *map = calloc(1, sizeof *map + EXTENTS_AT_ONCE * sizeof *map->fm_extents);
    uint64_t logical = 0, physical = 0;
    for (uint32_t n = 0; map && n < EXTENTS_MAX && !out->whole; n += map->fm_mapped_extents) {
        *map = (struct fiemap){ .fm_start = logical,
                                .fm_length = FIEMAP_MAX_OFFSET - logical,
                                .fm_extent_count = EXTENTS_AT_ONCE };
        if (ioctl(fd, FS_IOC_FIEMAP, map) != 0)
            break;
        out->known = true;
        out->whole = map->fm_mapped_extents == 0;
        for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
            const struct fiemap_extent *e = &map->fm_extents[i];
            if (e->fe_logical >= bytes) { // reserved past the end
                out->whole = true;
                break;
            }
            add_extent(out, e, &logical, &physical, bytes);
            out->whole |= (e->fe_flags & FIEMAP_EXTENT_LAST) != 0;
        }
    }
    free(map);
    if (out->known && out->whole && logical < bytes)
        out->absent_bytes += bytes - logical;
    if (!out->known)
        out->absent_bytes = used < bytes ? bytes - used : 0;
}
