#include "src/checkpoint/hub.h"
#include "io/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

static enum status find_snapshot(const char *repo, char revision[NAME_MAX + 1], struct err *err);

static bool is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A path, or ERR_USAGE if it is too long for where it goes. */
static enum status __attribute__((format(printf, 4, 5)))
path_write(char *out, size_t out_bytes, struct err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(out, out_bytes, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= out_bytes)
        return err_set(err, ERR_USAGE, "%.100s…: path too long", out);
    return OK;
}

/* One part of org/name, or a revision: nothing that could lead out of the cache. */
static bool plain_part(const char *s, size_t length) {
    return length > 0 && length <= 128 && *s != '.' && strspn(s, NAME_CHARACTERS) >= length;
}

enum status hub_resolve(const char *model, const char *cache, char *out, size_t out_bytes,
                        struct err *err) {
    if (is_directory(model))
        return path_write(out, out_bytes, err, "%s", model);

    const char *slash = strchr(model, '/');
    if (!slash || !plain_part(model, (size_t)(slash - model)) ||
        !plain_part(slash + 1, strlen(slash + 1)))
        return err_set(
            err, ERR_MISSING,
            "%s: no such directory (and not of the form org/name, to be looked up in the "
            "Hugging Face cache)",
            model);
    if (!cache)
        return err_set(
            err, ERR_MISSING,
            "%s: no such directory, and no Hugging Face cache to look in: set HF_HOME or "
            "HF_HUB_CACHE",
            model);

    char repo[PATH_MAX], revision[NAME_MAX + 1];
    if (path_write(repo, sizeof repo, err, "%s/models--%.*s--%s", cache, (int)(slash - model),
                   model, slash + 1) != OK)
        return ERR_USAGE;
    if (!is_directory(repo))
        return err_set(err, ERR_MISSING,
                       "%s: no such directory, and no %s in the cache; `hf download %s` fetches it",
                       model, repo, model);
    enum status status = find_snapshot(repo, revision, err);
    if (status != OK)
        return status;
    return path_write(out, out_bytes, err, "%s/snapshots/%s", repo, revision);
}

/* The revision that refs/main names, if its snapshot is there. */
static bool main_revision(const char *repo, char revision[NAME_MAX + 1]) {
    char path[PATH_MAX], *text;
    size_t length;
    if (path_write(path, sizeof path, NULL, "%s/refs/main", repo) != OK ||
        small_file_read(path, 4096, &text, &length, NULL) != OK)
        return false;
    const size_t n = strspn(text, NAME_CHARACTERS); // a newline may follow
    bool found = plain_part(text, n) && text[n + strspn(text + n, " \r\n")] == 0;
    if (found) {
        memcpy(revision, text, n);
        revision[n] = 0;
        found = path_write(path, sizeof path, NULL, "%s/snapshots/%s", repo, revision) == OK &&
                is_directory(path);
    }
    free(text);
    return found;
}

static int skip_hidden(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static enum status find_snapshot(const char *repo, char revision[NAME_MAX + 1], struct err *err) {
    if (main_revision(repo, revision))
        return OK;
    char path[PATH_MAX], list[400] = "";
    if (path_write(path, sizeof path, err, "%s/snapshots", repo) != OK)
        return ERR_USAGE;
    struct dirent **names = NULL;
    const int n = scandir(path, &names, skip_hidden, alphasort);
    enum status status = OK;
    if (n < 0 && errno != ENOENT)
        status = err_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    else if (n <= 0)
        status =
            err_set(err, ERR_MISSING, "%s: holds no snapshot: the download is not complete", repo);
    else if (n == 1)
        snprintf(revision, NAME_MAX + 1, "%s", names[0]->d_name);
    for (int i = 0; i < n; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]->d_name);
        free(names[i]);
    }
    free(names);
    if (n > 1)
        status = err_set(err, ERR_USAGE,
                         "%s: several snapshots and no refs/main to choose by: give the directory "
                         "of one of %s",
                         path, list);
    return status;
}
