#include "io/pinned.h"

#include "io/device.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES ((uint64_t)2 << 20)

// What a thread takes at a time: a few milliseconds of zeroing, whole huge pages.
#define STRIPE_BYTES ((uint64_t)64 << 20)

// More threads only wait for each other: zeroing is bound by the memory long before.
#define THREADS_MAX 64

// --- first touch ---------------------------------------------------------------------------------

struct touch {
    unsigned char *base;
    uint64_t bytes, page_bytes;
    _Atomic uint64_t next; // the first byte that nobody has taken
    _Atomic uint64_t done;
};

// Cancelled: nothing is left for anybody to take.
static void stop_touching(struct touch *t) {
    atomic_store(&t->next, t->bytes);
}

static bool touch_stripe(struct touch *t) {
    uint64_t from = atomic_fetch_add(&t->next, STRIPE_BYTES);
    if (from >= t->bytes)
        return false;
    uint64_t n = t->bytes - from < STRIPE_BYTES ? t->bytes - from : STRIPE_BYTES;
    for (uint64_t at = 0; at < n; at += t->page_bytes)
        *(volatile unsigned char *)(t->base + from + at) = 0;
    atomic_fetch_add(&t->done, n);
    return true;
}

static void *touch_stripes(void *context) {
    while (touch_stripe(context))
        ;
    return NULL;
}

// Signals are the program's: blocked in the helpers, they reach the thread that expects them.
static uint32_t start_helpers(pthread_t *threads, uint32_t n, struct touch *t) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    uint32_t n_started = 0;
    while (n_started < n && pthread_create(&threads[n_started], NULL, touch_stripes, t) == 0)
        n_started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n_started;
}

static enum status touch_all(const struct pinned *p, const struct pinned_options *options,
                             struct err *err) {
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n_threads = options->n_threads ? options->n_threads
                         : n_cores > 0      ? (uint32_t)n_cores
                                            : 1;
    uint64_t n_stripes = (p->bytes + STRIPE_BYTES - 1) / STRIPE_BYTES;
    n_threads = n_threads > THREADS_MAX ? THREADS_MAX : n_threads;
    n_threads = n_threads > n_stripes ? (uint32_t)n_stripes : n_threads;
    struct touch t = { .base = p->base,
                       .bytes = p->bytes,
                       .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE) };
    pthread_t helpers[THREADS_MAX];
    uint32_t n_helpers = start_helpers(helpers, n_threads - 1, &t);
    bool go_on = true;
    while (touch_stripe(&t))
        if (go_on && options->progress &&
            !options->progress(options->context, atomic_load(&t.done), p->bytes)) {
            go_on = false;
            stop_touching(&t);
        }
    for (uint32_t i = 0; i < n_helpers; i++)
        pthread_join(helpers[i], NULL);
    if (go_on && options->progress)
        go_on = options->progress(options->context, p->bytes, p->bytes);
    return go_on ? OK : err_set(err, CANCELLED, "cancelled while making memory ready");
}

// --- what came of it -----------------------------------------------------------------------------

// AnonHugePages of the mappings that hold the arena. A neighbour may have been merged into one.
static uint64_t count_huge(const struct pinned *p) {
    FILE *f = fopen("/proc/self/smaps", "re");
    uint64_t from = (uintptr_t)p->base, to = from + p->bytes, total = 0;
    char line[512];
    bool inside = false;
    while (f && fgets(line, sizeof line, f)) {
        uint64_t start, end, kib;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
            inside = start < to && end > from;
        else if (inside && sscanf(line, "AnonHugePages: %" SCNu64 " kB", &kib) == 1)
            total += kib * 1024;
    }
    if (f)
        fclose(f);
    return total < p->bytes ? total : p->bytes;
}

static void add_note(struct pinned *p, const char *text) {
    size_t used = strlen(p->note);
    snprintf(p->note + used, sizeof p->note - used, "%s%s", used ? "; " : "", text);
}

static void lock(struct pinned *p) {
    if (mlock(p->base, p->bytes) == 0) {
        p->locked = true;
        return;
    }
    int error = errno;
    struct device_limits limits;
    device_limits(&limits);
    char text[200];
    if (!limits.may_lock && limits.memlock_bytes != UINT64_MAX)
        snprintf(text, sizeof text,
                 "not locked in memory: RLIMIT_MEMLOCK is %.4g MiB; raise it with `ulimit -l "
                 "unlimited` or LimitMEMLOCK=infinity",
                 (double)limits.memlock_bytes / (1 << 20));
    else
        snprintf(text, sizeof text, "not locked in memory: %s", strerror(error));
    munlock(p->base, p->bytes); // what it may have locked before it gave up
    add_note(p, text);
}

static void look_at_huge_pages(struct pinned *p) {
    p->huge_bytes = count_huge(p);
    // The tail that is no whole huge page cannot be one; a few missing are not worth a word.
    if (p->huge_bytes >= p->bytes / 10 * 9 || p->bytes < HUGE_BYTES)
        return;
    char text[160];
    snprintf(text, sizeof text,
             "%.0f%% in huge pages: `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, "
             "or memory is fragmented",
             100.0 * (double)p->huge_bytes / (double)p->bytes);
    add_note(p, text);
}

// --- open, close ---------------------------------------------------------------------------------

// A mapping of `bytes` that begins on a huge page: mapped larger, then trimmed on both sides.
static unsigned char *map_aligned(uint64_t bytes) {
    uint64_t with_margin = bytes + HUGE_BYTES;
    unsigned char *map =
        mmap(NULL, with_margin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    uint64_t before = (HUGE_BYTES - (uintptr_t)map % HUGE_BYTES) % HUGE_BYTES;
    if (before > 0)
        munmap(map, before);
    if (before < HUGE_BYTES)
        munmap(map + before + bytes, HUGE_BYTES - before);
    return map + before;
}

enum status pinned_open(struct pinned *p, const struct pinned_options *options, struct err *err) {
    *p = (struct pinned){ 0 };
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    if (options->bytes == 0)
        return err_set(err, ERR_USAGE, "no memory was asked for");
    struct device_limits limits;
    device_limits(&limits);
    if (options->bytes > limits.available_bytes || options->bytes > INT64_MAX / 2)
        return err_set(err, ERR_MEMORY,
                       "%.1f GiB of memory are wanted and %.1f GiB are available: ask for less "
                       "(--ram), or close other programs",
                       (double)options->bytes / (1 << 30),
                       (double)limits.available_bytes / (1 << 30));
    uint64_t bytes = (options->bytes + page_bytes - 1) / page_bytes * page_bytes;
    p->base = map_aligned(bytes);
    if (!p->base)
        return err_set(err, ERR_MEMORY, "cannot map %.1f GiB: %s", (double)bytes / (1 << 30),
                       strerror(errno));
    p->bytes = bytes;
    if (options->want_huge)
        madvise(p->base, p->bytes, MADV_HUGEPAGE); // refused: seen in what came of it
    if (touch_all(p, options, err) != OK) {
        pinned_close(p);
        return CANCELLED;
    }
    if (options->want_huge)
        look_at_huge_pages(p);
    else
        p->huge_bytes = count_huge(p);
    if (options->want_locked)
        lock(p);
    return OK;
}

void pinned_close(struct pinned *p) {
    if (p->base)
        munmap(p->base, p->bytes);
    *p = (struct pinned){ 0 };
}
