/* bench_open - what opening a full-size checkpoint costs.
 *
 * Makes DeepSeek-V4-Pro in a temporary directory, sparse: 61 layers and three draft blocks, 66
 * shards, about 150,000 tensors, 900 GB that take a few MB. Opens it in a process of its own and
 * prints that process's CPU time and peak memory; the bounds are 2 s and 100 MB. The exit status
 * says whether they were kept. (Three MTP blocks stand in for the three DSpark stages of the
 * August release: as many tensors, and each of them looked up and checked.) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/config_make.h"
#include "tests/support/make_checkpoint.h"

#define MAX_CPU_S 2.0
#define MAX_MB    100.0

static double seconds(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

static int make(const char *dir) {
    struct config c;
    struct err err = { .status = OK };
    const struct make_options options = { .layer_per_shard = true, .sparse = true };
    config_preset(&c, "pro", &err);
    c.n_drafts = 3;
    if (make_checkpoint(dir, &c, &options, &err) == OK)
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 2;
}

static int open_and_measure(const char *dir) {
    struct checkpoint cp;
    struct rusage before, after;
    struct err err = { .status = OK };
    getrusage(RUSAGE_SELF, &before);
    if (checkpoint_open(&cp, &dir, 1, &err) != OK) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    getrusage(RUSAGE_SELF, &after);
    const double user = seconds(after.ru_utime) - seconds(before.ru_utime);
    const double kernel = seconds(after.ru_stime) - seconds(before.ru_stime);
    const double mb = (double)after.ru_maxrss / 1024; // ru_maxrss is in KiB
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cp.n_files; i++)
        bytes += cp.files[i].bytes;
    printf("%s: %u shards, %llu tensors, %.1f GB\n", cp.config.name, cp.n_files,
           (unsigned long long)cp.n_tensors, (double)bytes / 1e9);
    printf("open: %.2f s CPU (%.2f user, %.2f kernel), %.0f MB at most\n", user + kernel, user,
           kernel, mb);
    const bool kept = user + kernel < MAX_CPU_S && mb < MAX_MB;
    printf("bounds of %.0f s and %.0f MB: %s\n", MAX_CPU_S, MAX_MB, kept ? "kept" : "NOT kept");
    checkpoint_close(&cp);
    return kept ? 0 : 1;
}

/* Each in a process of its own: making takes more memory than opening is allowed. */
static int in_child(int (*work)(const char *dir), const char *dir) {
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0)
        return 2;
    if (child == 0)
        exit(work(dir));
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

int main(void) {
    char *dir = make_temp_dir();
    if (!dir) {
        fprintf(stderr, "no temporary directory\n");
        return 2;
    }
    int result = in_child(make, dir);
    if (result == 0)
        result = in_child(open_and_measure, dir);
    remove_temp_dir(dir);
    return result;
}
