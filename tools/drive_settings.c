#include "tools/drive_settings.h"

#include "io/disk.h"
#include "io/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES_MOST (256u << 20) // as reader_open takes it
#define FILE_BYTES_MOST  (1u << 20)

static bool file_path(const char *directory, char path[PATH_MAX]) {
    int n = snprintf(path, PATH_MAX, "%s/drives.json", directory);
    return directory[0] && n > 0 && n < PATH_MAX;
}

// The whole file as an object, a new one where there is none.
static json_t *load(const char *path) {
    struct stat st;
    json_t *root = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_BYTES_MOST)
        root = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    if (fd >= 0)
        close(fd);
    if (!json_is_object(root)) {
        json_decref(root);
        root = json_object();
    }
    return root;
}

static const char *engine_name(bool uring) {
    return uring ? "io_uring" : "pread";
}

bool drive_setting_find(const char *directory, const char *key, bool uring,
                        struct drive_setting *out) {
    char path[PATH_MAX];
    if (!file_path(directory, path))
        return false;
    json_t *root = load(path);
    json_t *one = json_object_get(json_object_get(root, engine_name(uring)), key);
    json_int_t chunk = json_integer_value(json_object_get(one, "chunk_bytes"));
    json_int_t depth = json_integer_value(json_object_get(one, "depth"));
    bool found = chunk > 0 && chunk <= CHUNK_BYTES_MOST && chunk % READER_ALIGN == 0 && depth > 0 &&
                 depth <= DISK_DEPTH_MAX;
    if (found)
        *out = (struct drive_setting){
            .chunk_bytes = (uint32_t)chunk,
            .depth = (uint32_t)depth,
            .uring = uring,
            .rate = json_number_value(json_object_get(one, "bytes_per_s")),
        };
    json_decref(root);
    return found;
}

static bool make_folder(const char *directory) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", directory);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

// Under another name first: who reads it meanwhile, or after a crash, finds a whole one.
static bool store(const char *path, const json_t *root) {
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = json_dumpfd(root, fd, JSON_INDENT(2) | JSON_SORT_KEYS) == 0;
    int error = errno;
    written &= close(fd) == 0;
    if (written && rename(temporary, path) == 0)
        return true;
    error = written ? errno : error;
    unlink(temporary);
    errno = error;
    return false;
}

enum status drive_setting_keep(const char *directory, const char *key,
                               const struct drive_setting *setting, struct err *err) {
    char path[PATH_MAX];
    if (!file_path(directory, path))
        return err_set(err, ERR_IO, "neither XDG_CACHE_HOME nor HOME is set");
    if (!make_folder(directory))
        return err_set(err, ERR_IO, "%s: cannot be made: %s", directory, strerror(errno));
    json_t *root = load(path), *engine = json_object_get(root, engine_name(setting->uring));
    if (!json_is_object(engine)) {
        engine = json_object();
        json_object_set_new(root, engine_name(setting->uring), engine);
    }
    json_object_set_new(engine, key,
                        json_pack("{sI sI sf}", "chunk_bytes", (json_int_t)setting->chunk_bytes,
                                  "depth", (json_int_t)setting->depth, "bytes_per_s",
                                  setting->rate));
    bool stored = store(path, root);
    int error = errno;
    json_decref(root);
    return stored ? OK : err_set(err, ERR_IO, "%s: cannot be written: %s", path, strerror(error));
}
