/* replay - run a fuzz target over the files, and the files of the directories, that are given.
 *
 * Linked with any fuzz_*.c in place of libFuzzer: the corpus is a regression test for every
 * compiler, and crash files can be debugged with it. Exit status 0 unless a file cannot be read,
 * or nothing was found to replay; a finding is a crash. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Number of files replayed, -1 after an error. */
static long replay_file(const char *path, size_t bytes) {
    FILE *file = fopen(path, "rb");
    // Of exactly this size, so that a sanitizer sees a read beyond it.
    uint8_t *data = malloc(bytes ? bytes : 1);
    if (!file || !data || fread(data, 1, bytes, file) != bytes) {
        fprintf(stderr, "%s: cannot read: %s\n", path, strerror(errno));
        free(data);
        if (file)
            fclose(file);
        return -1;
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 1;
}

static long replay(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path, (size_t)st.st_size);
    struct dirent **names;
    const int n = scandir(path, &names, NULL, alphasort);
    long total = n < 0 ? -1 : 0;
    for (int i = 0; i < n; i++) {
        char *inner;
        if (total >= 0 && names[i]->d_name[0] != '.' &&
            asprintf(&inner, "%s/%s", path, names[i]->d_name) >= 0) {
            const long found = replay(inner);
            total = found < 0 ? -1 : total + found;
            free(inner);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return total;
}

int main(int argc, char **argv) {
    long total = 0;
    for (int i = 1; i < argc; i++) {
        const long found = replay(argv[i]);
        if (found < 0)
            return 1;
        total += found;
    }
    printf("%s: %ld inputs replayed\n", argv[0], total);
    return total > 0 ? 0 : 1;
}
