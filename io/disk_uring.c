// io_uring: chunks are entries of a ring, reads into registered memory pin no pages, files are
// registered, and a descriptor that the ring itself polls wakes the disk thread.
#include "io/disk.h"

#include "io/device.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

// Memory is registered in pieces: the kernel takes at most 1 GiB at once, and a small limit then
// refuses the pieces that are too many, not all. 4096 of them are 4 TiB.
#define PIECE_BYTES ((uint64_t)1 << 30)
#define PIECES_MAX  4096

#define WAKE_TAG ((uint64_t)1) // no chunk's tag: those are addresses of objects

struct piece {
    uintptr_t base;
    uint64_t bytes;
    uint32_t index; // in the ring's table
};

struct uring_disk {
    struct disk disk;
    struct io_uring ring;
    bool ring_open;
    int wake_fd;
    bool wake_armed;
    int *fds;
    bool *buffered; // by file, known from the first submit on
    uint32_t n_fds;
    bool submitted;        // something has been: files are registered by now, or never will be
    bool files_registered; // or each read looks its descriptor up: slower, not wrong
    bool buffers_table;    // kernels before 5.19 have no table that can be filled piece by piece
    struct piece *pieces;  // [n_pieces], ascending by base
    uint32_t n_pieces;
};

static struct uring_disk *uring_of(struct disk *d) {
    return (struct uring_disk *)d;
}

// --- files and memory ----------------------------------------------------------------------------

static enum status uring_add_file(struct disk *d, int fd, const char *path, struct err *err) {
    struct uring_disk *u = uring_of(d);
    assert(!u->submitted);
    int *fds = realloc(u->fds, (u->n_fds + 1) * sizeof *fds);
    if (!fds)
        return err_set(err, ERR_MEMORY, "%s: no memory to open it", path);
    u->fds = fds;
    u->fds[u->n_fds++] = fd;
    return OK;
}

static int register_piece(struct uring_disk *u, unsigned char *base, uint64_t bytes) {
    if (u->n_pieces == PIECES_MAX)
        return ENOSPC;
    struct piece *pieces = realloc(u->pieces, (u->n_pieces + 1) * sizeof *pieces);
    if (!pieces)
        return ENOMEM;
    u->pieces = pieces;
    struct iovec iov = { .iov_base = base, .iov_len = bytes };
    __u64 no_tag = 0;
    int n = io_uring_register_buffers_update_tag(&u->ring, u->n_pieces, &iov, &no_tag, 1);
    if (n != 1)
        return n < 0 ? -n : ENOMEM;
    uint32_t at = u->n_pieces;
    for (; at > 0 && pieces[at - 1].base > (uintptr_t)base; at--)
        pieces[at] = pieces[at - 1];
    pieces[at] = (struct piece){ .base = (uintptr_t)base, .bytes = bytes, .index = u->n_pieces };
    u->n_pieces++;
    u->disk.registered_bytes += bytes;
    return 0;
}

static int uring_add_memory(struct disk *d, unsigned char *base, uint64_t bytes) {
    struct uring_disk *u = uring_of(d);
    assert(!u->submitted);
    if (!u->buffers_table)
        return EOPNOTSUPP;
    while (bytes > 0) {
        uint64_t n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
        int error = register_piece(u, base, n);
        if (error)
            return error;
        base += n;
        bytes -= n;
    }
    return 0;
}

// The registered piece that holds all of a chunk, or NULL: it is then read the plain way.
static const struct piece *piece_of(const struct uring_disk *u, const unsigned char *dst,
                                    uint32_t bytes) {
    uintptr_t address = (uintptr_t)dst;
    uint32_t low = 0, high = u->n_pieces;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (u->pieces[middle].base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    const struct piece *p = &u->pieces[low - 1];
    return address + bytes <= p->base + p->bytes ? p : NULL;
}

// --- out -----------------------------------------------------------------------------------------

static void register_files(struct uring_disk *u) {
    u->submitted = true;
    u->files_registered = io_uring_register_files(&u->ring, u->fds, u->n_fds) == 0;
    // A read from the page cache is a copy, which the kernel makes in the submitting thread, one
    // after the other, unless it is told to let its workers do it: 9 to 11 GB/s against 15 to 16
    // on two cores with everything cached. What the device has to read first is no slower.
    u->buffered = calloc(u->n_fds, sizeof *u->buffered);
    for (uint32_t i = 0; u->buffered && i < u->n_fds; i++)
        u->buffered[i] = (fcntl(u->fds[i], F_GETFL) & O_DIRECT) == 0;
}

static void uring_submit(struct disk *d, const struct disk_chunk *chunks, uint32_t n) {
    struct uring_disk *u = uring_of(d);
    if (!u->submitted)
        register_files(u);
    for (uint32_t i = 0; i < n; i++) {
        const struct disk_chunk *c = &chunks[i];
        assert(c->file < u->n_fds);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        assert(sqe); // the ring has room for depth chunks and the wake-up
        int fd = u->files_registered ? (int)c->file : u->fds[c->file];
        const struct piece *piece = piece_of(u, c->dst, c->bytes);
        if (piece)
            io_uring_prep_read_fixed(sqe, fd, c->dst, c->bytes, c->offset, (int)piece->index);
        else
            io_uring_prep_read(sqe, fd, c->dst, c->bytes, c->offset);
        if (u->files_registered)
            sqe->flags |= IOSQE_FIXED_FILE;
        if (u->buffered && u->buffered[c->file])
            sqe->flags |= IOSQE_ASYNC;
        io_uring_sqe_set_data(sqe, c->tag);
    }
    io_uring_submit(&u->ring); // what it leaves is submitted by the next reap, which sees why
}

// --- back ----------------------------------------------------------------------------------------

static void arm_wake(struct uring_disk *u) {
    if (u->wake_armed)
        return;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe)
        return; // cannot be; and then the next result wakes us
    io_uring_prep_poll_add(sqe, u->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, WAKE_TAG);
    u->wake_armed = true;
}

static uint32_t take_results(struct uring_disk *u, struct disk_result *results, uint32_t max,
                             bool *woken) {
    struct io_uring_cqe *cqe;
    uint32_t n = 0;
    while (n < max && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        if (cqe->user_data == WAKE_TAG) {
            uint64_t count;
            ssize_t got = read(u->wake_fd, &count, sizeof count); // back to zero
            (void)got; // nothing there: a poll that ended in an error, and is armed anew
            u->wake_armed = false;
            *woken = true;
        } else {
            results[n++] =
                (struct disk_result){ .tag = io_uring_cqe_get_data(cqe), .result = cqe->res };
        }
        io_uring_cqe_seen(&u->ring, cqe);
    }
    return n;
}

// The kernel refuses the ring itself, which it does not do after a first success (see try_ring):
// what it has not taken yet comes back with that error, so that each chunk still ends once.
static uint32_t take_back(struct uring_disk *u, int error, struct disk_result *results,
                          uint32_t max) {
    struct io_uring_sq *sq = &u->ring.sq;
    uint32_t n = 0;
    while (n < max && io_uring_sq_ready(&u->ring) > 0) {
        const struct io_uring_sqe *sqe = &sq->sqes[(sq->sqe_tail - 1) & *sq->kring_mask];
        if (sqe->user_data == WAKE_TAG)
            u->wake_armed = false;
        else
            results[n++] =
                (struct disk_result){ .tag = (void *)(uintptr_t)sqe->user_data, .result = error };
        // The attempt to submit has published everything: head, tail and the kernel's tail agree.
        sq->sqe_tail--;
        sq->sqe_head = sq->sqe_tail;
        *sq->ktail = sq->sqe_tail;
    }
    return n;
}

static uint32_t uring_reap(struct disk *d, struct disk_result *results, uint32_t max,
                           uint64_t timeout_ns) {
    struct uring_disk *u = uring_of(d);
    bool woken = false;
    arm_wake(u);
    uint32_t n = take_results(u, results, max, &woken);
    bool wait = n == 0 && !woken && timeout_ns > 0;
    if (!wait && io_uring_sq_ready(&u->ring) == 0)
        return n;

    int error;
    if (wait) {
        struct __kernel_timespec t = { .tv_sec = (long long)(timeout_ns / 1000000000u),
                                       .tv_nsec = (long long)(timeout_ns % 1000000000u) };
        struct io_uring_cqe *cqe;
        error = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1,
                                                 timeout_ns == UINT64_MAX ? NULL : &t, NULL);
    } else {
        error = io_uring_submit(&u->ring);
    }
    n += take_results(u, results + n, max - n, &woken);
    if (error >= 0 || error == -ETIME || error == -EINTR)
        return n;
    // -EAGAIN, -EBUSY: short of memory, or of room for results, which time may bring. Anything else
    // is for good.
    if (error != -EAGAIN && error != -EBUSY)
        n += take_back(u, error, results + n, max - n);
    if (wait && n == 0)
        poll(NULL, 0, 1); // a moment, not a hot loop
    return n;
}

static void uring_wake(struct disk *d) {
    uint64_t one = 1;
    ssize_t put = write(uring_of(d)->wake_fd, &one, sizeof one);
    (void)put; // fails only where 2^64 - 2 wake-ups wait already
}

// --- open, close ---------------------------------------------------------------------------------

static void uring_close(struct disk *d) {
    struct uring_disk *u = uring_of(d);
    if (u->ring_open) {
        // A ring is torn down after its descriptor is closed; what it pins ought to go now.
        if (u->n_pieces > 0)
            io_uring_unregister_buffers(&u->ring);
        io_uring_queue_exit(&u->ring);
    }
    if (u->wake_fd >= 0)
        close(u->wake_fd);
    free(u->pieces);
    free(u->buffered);
    free(u->fds);
    free(u);
}

// 0, or -errno where the kernel lacks an operation that is needed here, or will not say.
static int check_operations(struct io_uring *ring) {
    const int needed[] = { IORING_OP_READ, IORING_OP_READ_FIXED, IORING_OP_POLL_ADD };
    const unsigned n_asked = 256;
    struct io_uring_probe *probe = calloc(1, sizeof *probe + n_asked * sizeof probe->ops[0]);
    if (!probe)
        return -ENOMEM;
    int error = io_uring_register_probe(ring, probe, n_asked);
    for (size_t i = 0; error == 0 && i < sizeof needed / sizeof *needed; i++)
        error = io_uring_opcode_supported(probe, needed[i]) ? 0 : -ENOSYS;
    free(probe);
    return error;
}

// Set up a ring and send one empty operation through it: a filter may allow io_uring_setup and
// forbid io_uring_enter, and that had better be known before chunks depend on it. 0 or -errno.
static int try_ring(struct uring_disk *u) {
    int error = io_uring_queue_init(u->disk.depth + 1, &u->ring, 0);
    if (error < 0)
        return error;
    u->ring_open = true;
    error = check_operations(&u->ring);
    if (error < 0)
        return error;
    io_uring_prep_nop(io_uring_get_sqe(&u->ring));
    error = io_uring_submit_and_wait(&u->ring, 1);
    struct io_uring_cqe *cqe;
    if (error < 0)
        return error;
    if (io_uring_peek_cqe(&u->ring, &cqe) != 0)
        return -EIO;
    io_uring_cqe_seen(&u->ring, cqe);
    return 0;
}

enum status disk_uring_open(struct disk **out, uint32_t depth, struct err *err) {
    static const struct disk_ops ops = {
        .name = "io_uring",
        .add_file = uring_add_file,
        .add_memory = uring_add_memory,
        .submit = uring_submit,
        .reap = uring_reap,
        .wake = uring_wake,
        .close = uring_close,
    };
    *out = NULL;
    if (depth < 1 || depth > DISK_DEPTH_MAX)
        return err_set(err, ERR_USAGE, "depth %u is not within 1 to %d", depth, DISK_DEPTH_MAX);
    struct uring_disk *u = malloc(sizeof *u);
    if (!u)
        return err_set(err, ERR_MEMORY, "no memory for an io_uring");
    *u = (struct uring_disk){
        .disk = { .ops = &ops, .depth = depth, .wants_fd = true },
        .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
    };
    int error = u->wake_fd < 0 ? -errno : try_ring(u);
    if (error < 0) {
        uring_close(&u->disk);
        enum uring_state state = uring_state_of(-error);
        return err_set(err, ERR_SYSTEM, "io_uring %s%s%s; %s", uring_reason(state),
                       state == URING_ERROR ? ": " : "",
                       state == URING_ERROR ? strerror(-error) : "", uring_remedy(state));
    }
    u->buffers_table = io_uring_register_buffers_sparse(&u->ring, PIECES_MAX) == 0;
    *out = &u->disk;
    return OK;
}
