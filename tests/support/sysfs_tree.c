#include "tests/support/sysfs_tree.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The folders above a file.
static bool make_parents(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made)
            return false;
    }
    return true;
}

static enum status make_entry(const char *dir, const char *path, const char *text, bool link,
                              struct err *err) {
    char whole[PATH_MAX];
    snprintf(whole, sizeof whole, "%s/%s", dir, path);
    bool made = make_parents(whole);
    if (made && link) {
        made = symlink(text, whole) == 0;
    } else if (made) {
        FILE *f = fopen(whole, "we");
        made = f && fprintf(f, "%s\n", text) > 0;
        made &= f && fclose(f) == 0;
    }
    return made ? OK : err_set(err, ERR_IO, "%s: cannot be made: %s", whole, strerror(errno));
}

enum status sysfs_tree_file(const char *dir, const char *path, const char *text, struct err *err) {
    return make_entry(dir, path, text, false, err);
}

enum status sysfs_tree_make(const char *dir, const char *name, struct err *err) {
    char path[PATH_MAX], line[1024];
    snprintf(path, sizeof path, "tests/data/sysfs/%s.txt", name);
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(err, ERR_MISSING, "%s: %s", path, strerror(errno));
    enum status status = OK;
    while (status == OK && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *link = strstr(line, " -> "), *file = strstr(line, " = ");
        char *at = link ? link : file;
        if (line[0] == '#' || !at)
            continue;
        *at = '\0';
        status = make_entry(dir, line, strchr(at + 1, ' ') + 1, link != NULL, err);
    }
    fclose(f);
    return status;
}
