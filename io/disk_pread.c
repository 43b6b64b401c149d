// A pool of threads, each in one pread: the disk of those who may not use io_uring.
#include "io/disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pread_disk {
    struct disk disk;
    int *fds;
    uint32_t n_fds;
    pthread_t *threads;
    uint32_t n_threads;

    pthread_mutex_t mutex;
    pthread_cond_t work;        // chunks are waiting, or it is time to stop
    pthread_cond_t done;        // results are waiting, or somebody called disk_wake
    struct disk_chunk *waiting; // [depth], ring
    uint32_t first, n_waiting;
    struct disk_result *results; // [depth]
    uint32_t n_results;
    uint32_t n_out; // waiting, being read, or a result
    bool woken, stop;
};

static struct pread_disk *pread_of(struct disk *d) {
    return (struct pread_disk *)d;
}

static void *read_chunks(void *context) {
    struct pread_disk *p = context;
    pthread_mutex_lock(&p->mutex);
    while (true) {
        while (!p->stop && p->n_waiting == 0)
            pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop)
            break;
        struct disk_chunk c = p->waiting[p->first];
        p->first = (p->first + 1) % p->disk.depth;
        p->n_waiting--;
        int fd = p->fds[c.file];
        pthread_mutex_unlock(&p->mutex);

        ssize_t n = pread(fd, c.dst, c.bytes, (off_t)c.offset);
        int32_t result = n < 0 ? -errno : (int32_t)n;

        pthread_mutex_lock(&p->mutex);
        p->results[p->n_results++] = (struct disk_result){ .tag = c.tag, .result = result };
        pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static enum status pread_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    struct pread_disk *p = pread_of(d);
    int *fds = realloc(p->fds, (p->n_fds + 1) * sizeof *fds);
    if (!fds)
        return err_set(err, ERR_MEMORY, "%s: no memory to open it", path);
    p->fds = fds;
    p->fds[p->n_fds++] = fd;
    return OK;
}

static void pread_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    struct pread_disk *p = pread_of(d);
    pthread_mutex_lock(&p->mutex);
    assert(n <= d->depth - p->n_out);
    for (uint32_t i = 0; i < n; i++) {
        assert(chunks[i].file < p->n_fds);
        p->waiting[(p->first + p->n_waiting++) % d->depth] = chunks[i];
        pthread_cond_signal(&p->work);
    }
    p->n_out += n;
    pthread_mutex_unlock(&p->mutex);
}

static uint32_t pread_reap(struct disk *d, struct disk_result *results, uint32_t max,
                           uint64_t timeout_ns) {
    struct pread_disk *p = pread_of(d);
    uint64_t deadline_ns = timeout_ns ? clock_deadline(clock_system(), timeout_ns) : 0;
    pthread_mutex_lock(&p->mutex);
    while (timeout_ns > 0 && p->n_results == 0 && !p->woken &&
           clock_cond_wait(&p->done, &p->mutex, deadline_ns))
        ;
    p->woken = false;
    uint32_t n = p->n_results < max ? p->n_results : max;
    memcpy(results, p->results, n * sizeof *results);
    memmove(p->results, p->results + n, (p->n_results - n) * sizeof *p->results);
    p->n_results -= n;
    p->n_out -= n;
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static void pread_wake(struct disk *d) {
    struct pread_disk *p = pread_of(d);
    pthread_mutex_lock(&p->mutex);
    p->woken = true;
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->mutex);
}

static void pread_close(struct disk *d) {
    struct pread_disk *p = pread_of(d);
    assert(p->n_out == 0);
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p->results);
    free(p->waiting);
    free(p->threads);
    free(p->fds);
    free(p);
}

// Signals are the program's: with all of them blocked here, none interrupts a read.
static int start_threads(struct pread_disk *p, uint32_t n) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (p->n_threads < n && !error) {
        error = pthread_create(&p->threads[p->n_threads], NULL, read_chunks, p);
        if (!error)
            p->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum status disk_pread_open(struct disk **out, uint32_t depth, struct err *err) {
    static const struct disk_ops ops = {
        .name = "pread threads",
        .add_file = pread_add_file,
        .submit = pread_submit,
        .reap = pread_reap,
        .wake = pread_wake,
        .close = pread_close,
    };
    *out = NULL;
    if (depth < 1 || depth > DISK_DEPTH_MAX)
        return err_set(err, ERR_USAGE, "depth %u is not within 1 to %d", depth, DISK_DEPTH_MAX);
    struct pread_disk *p = malloc(sizeof *p);
    if (!p)
        return err_set(err, ERR_MEMORY, "no memory for a pool of reading threads");
    *p = (struct pread_disk){
        .disk = { .ops = &ops, .depth = depth, .wants_fd = true },
        .threads = calloc(depth, sizeof *p->threads),
        .waiting = calloc(depth, sizeof *p->waiting),
        .results = calloc(depth, sizeof *p->results),
    };
    pthread_mutex_init(&p->mutex, NULL); // a plain mutex and condition: cannot fail on Linux
    pthread_cond_init(&p->work, NULL);
    int error = clock_cond_init(&p->done);
    if (!p->threads || !p->waiting || !p->results)
        error = ENOMEM;
    if (!error)
        error = start_threads(p, depth);
    // Fewer threads than asked for are a smaller depth, not a failure; none is.
    if (p->n_threads == 0) {
        pread_close(&p->disk);
        return err_set(err, ERR_SYSTEM, "cannot start a thread to read with: %s", strerror(error));
    }
    p->disk.depth = p->n_threads;
    *out = &p->disk;
    return OK;
}
