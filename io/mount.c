#include "io/mount.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

uint64_t mount_id_of(int fd) {
#ifdef STATX_MNT_ID
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &sx) == 0 && (sx.stx_mask & STATX_MNT_ID))
        return sx.stx_mnt_id;
#else
    (void)fd;
#endif
    return 0;
}

// A blank in a name is written \040, and so on.
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned code;
        int length = 0;
        if (*from == '\\' && sscanf(from + 1, "%3o%n", &code, &length) == 1 && length == 3) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

bool mount_find(struct mount *out, const char *mountinfo, uint64_t mount_id, dev_t device) {
    *out = (struct mount){ "", "", "" };
    FILE *f = fopen(mountinfo, "re");
    char *line = NULL;
    size_t line_bytes = 0;
    bool found = false;
    while (f && !found && getline(&line, &line_bytes, f) > 0) {
        uint64_t id;
        unsigned major_number, minor_number;
        const char *rest = strstr(line, " - ");
        if (!rest ||
            sscanf(line, "%" SCNu64 " %*d %u:%u", &id, &major_number, &minor_number) != 3 ||
            !(mount_id ? id == mount_id : makedev(major_number, minor_number) == device))
            continue;
        found =
            sscanf(rest, " - %23s %4095s %1023s", out->filesystem, out->source, out->options) >= 2;
        if (!found)
            break;
        unescape(out->source);
    }
    if (!found)
        *out = (struct mount){ "", "", "" };
    free(line);
    if (f)
        fclose(f);
    return found;
}

bool mount_has_option(const struct mount *mount, const char *word) {
    size_t length = strlen(word);
    for (const char *at = mount->options; *at;) {
        size_t n = strcspn(at, ",");
        if (n >= length && memcmp(at, word, length) == 0 && (n == length || at[length] == '='))
            return true;
        at += n + (at[n] == ',');
    }
    return false;
}
