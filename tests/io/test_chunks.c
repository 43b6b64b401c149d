// Requests and their chunks, without a thread, a lock or a disk: the test is the device.
#include "tests/io/fixture.h"

#include "io/chunks.h"

#define BLOCK ((uint64_t)READER_ALIGN)
#define CHUNK (4 * BLOCK)
#define DEPTH 4
#define DEEP  16 // an eighth of it is two chunks: what nobody waits for

// A reader's core over two files: 0 wants 512-byte alignment, 1 is buffered.
struct bench {
    struct file file[2];
    struct files files;
    struct chunks chunks;
    uint64_t now_ns, wait_ns;
    struct disk_chunk out[DEEP]; // at the device, in the order they went
    uint32_t n_out;
};

static void bench_open_depth(struct bench *b, uint32_t depth) {
    *b = (struct bench){ .file = { { .align_bytes = 512 }, { .align_bytes = 1 } }, .now_ns = 1000 };
    b->files = (struct files){ .file = b->file, .n = 2 };
    assert_int_equal(chunks_open(&b->chunks, &b->files, CHUNK, depth, true, NULL), OK);
}

static void bench_open(struct bench *b) {
    bench_open_depth(b, DEPTH);
}

static void bench_close(struct bench *b) {
    chunks_check(&b->chunks);
    chunks_close(&b->chunks);
}

static uint32_t send(struct bench *b) {
    uint32_t n = chunks_fill(&b->chunks, b->out + b->n_out, b->now_ns, &b->wait_ns);
    b->n_out += n;
    chunks_check(&b->chunks);
    return n;
}

// The i-th chunk at the device comes back.
static void back(struct bench *b, uint32_t i, int32_t result) {
    assert_true(i < b->n_out);
    struct disk_result r = { .tag = b->out[i].tag, .result = result };
    memmove(&b->out[i], &b->out[i + 1], (b->n_out - i - 1) * sizeof *b->out);
    b->n_out--;
    chunks_done(&b->chunks, &r, b->now_ns);
    chunks_check(&b->chunks);
}

static void back_whole(struct bench *b) {
    back(b, 0, (int32_t)b->out[0].bytes);
}

static unsigned char memory[64 * READER_ALIGN] __attribute__((aligned(READER_ALIGN)));

static struct request request_for(uint32_t file, uint64_t offset, uint64_t bytes, uint32_t slack,
                                  enum read_priority priority) {
    return (struct request){
        .n_reads = 1,
        .reads = { { .file = file,
                     .offset = offset,
                     .bytes = bytes,
                     .slack = slack,
                     .dst = memory } },
        .priority = priority,
    };
}

static void request_is_cut_into_chunks_that_cover_it_once(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 3 * BLOCK, 2 * CHUNK + BLOCK, 100, READ_DEMAND);
    q.n_reads = 2;
    q.reads[1] =
        (struct read){ .file = 1, .offset = BLOCK, .bytes = BLOCK, .dst = memory + 10 * BLOCK };
    chunks_submit(&b.chunks, &q);
    assert_int_equal(q.state, REQUEST_QUEUED);
    assert_int_equal(send(&b), 4);
    assert_int_equal(q.state, REQUEST_ACTIVE);
    const struct disk_chunk expected[] = {
        { .file = 0, .bytes = CHUNK, .offset = 3 * BLOCK, .dst = memory },
        { .file = 0, .bytes = CHUNK, .offset = 7 * BLOCK, .dst = memory + CHUNK },
        { .file = 0, .bytes = BLOCK, .offset = 11 * BLOCK, .dst = memory + 2 * CHUNK },
        { .file = 1, .bytes = BLOCK, .offset = BLOCK, .dst = memory + 10 * BLOCK },
    };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(b.out[i].file, expected[i].file);
        assert_int_equal(b.out[i].bytes, expected[i].bytes);
        assert_int_equal(b.out[i].offset, expected[i].offset);
        assert_ptr_equal(b.out[i].dst, expected[i].dst);
    }
    while (b.n_out > 0) {
        assert_null(chunks_take_ended(&b.chunks));
        back_whole(&b);
    }
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_null(chunks_take_ended(&b.chunks));
    assert_int_equal(q.status, OK);
    assert_int_equal(q.bytes_read, 2 * CHUNK + 2 * BLOCK);
    assert_int_equal(b.chunks.stats.chunks, 4);
    bench_close(&b);
}

static void blocks_of_nothing_but_slack_are_not_read(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 0, 4 * BLOCK, 3 * BLOCK + 5, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    assert_int_equal(send(&b), 1);
    assert_int_equal(b.out[0].bytes, BLOCK);
    back(&b, 0, BLOCK - 5); // the file ends here, and nobody asked for more
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, OK);
    bench_close(&b);
}

static void empty_request_ends_at_once(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request none = { .n_reads = 0 };
    struct request slack = request_for(0, 0, BLOCK, BLOCK, READ_GATHER);
    chunks_submit(&b.chunks, &none);
    chunks_submit(&b.chunks, &slack);
    assert_int_equal(send(&b), 0);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &none);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &slack);
    assert_int_equal(slack.status, OK);
    bench_close(&b);
}

// --- priorities ----------------------------------------------------------------------------------

static void lower_priority_waits_for_all_of_the_higher(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q[READ_PRIORITIES];
    for (int p = READ_PRIORITIES - 1; p >= 0; p--) {
        q[p] = request_for(0, (uint64_t)p * 64 * BLOCK, 3 * CHUNK, 0, (enum read_priority)p);
        chunks_submit(&b.chunks, &q[p]);
    }
    uint64_t seen = 0;
    for (uint64_t n = 0; n < 3 * READ_PRIORITIES; n++) {
        send(&b);
        assert_true(b.out[0].offset / (64 * BLOCK) >= seen);
        seen = b.out[0].offset / (64 * BLOCK);
        assert_int_equal(seen, n / 3);
        back_whole(&b);
    }
    for (int p = 0; p < READ_PRIORITIES; p++)
        assert_ptr_equal(chunks_take_ended(&b.chunks), &q[p]);
    bench_close(&b);
}

static void demand_waits_for_no_more_than_the_chunks_at_the_device(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request gather = request_for(0, 0, 16 * CHUNK, 0, READ_GATHER);
    struct request demand = request_for(1, 0, CHUNK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &gather);
    assert_int_equal(send(&b), DEPTH);
    chunks_submit(&b.chunks, &demand);
    assert_int_equal(send(&b), 0);
    back_whole(&b);
    assert_int_equal(send(&b), 1);
    assert_int_equal(b.out[DEPTH - 1].file, 1);
    while (b.n_out > 0) {
        back_whole(&b);
        send(&b);
    }
    assert_ptr_equal(chunks_take_ended(&b.chunks), &demand);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &gather);
    bench_close(&b);
}

static void what_nobody_waits_for_leaves_room_at_the_device(void **state) {
    (void)state;
    for (int p = READ_PREFETCH; p <= READ_BACKGROUND; p++) {
        struct bench b;
        bench_open_depth(&b, DEEP);
        struct request ahead = request_for(0, 0, 16 * CHUNK, 0, (enum read_priority)p);
        struct request demand = request_for(1, 0, 20 * CHUNK, 0, READ_DEMAND);
        chunks_submit(&b.chunks, &ahead);
        assert_int_equal(send(&b), 2);
        back_whole(&b);
        assert_int_equal(send(&b), 1);
        chunks_submit(&b.chunks, &demand);
        assert_int_equal(send(&b), DEEP - 2); // all the rest of the device is the demand's
        for (uint32_t n_back = 0; n_back < 2 + 20 - 2; n_back++) {
            back_whole(&b);
            send(&b);
            // Nothing more goes ahead while the device has as much as keeps it busy.
            for (uint32_t i = 0; i < b.n_out; i++)
                assert_true(b.out[i].file == 1 || i < 2);
        }
        assert_int_equal(b.n_out, 2); // the last of the demand
        back_whole(&b);
        assert_int_equal(send(&b), 1);
        assert_int_equal(b.out[1].file, 0);
        chunks_cancel_all(&b.chunks);
        while (b.n_out > 0)
            back_whole(&b);
        bench_close(&b);
    }
}

// However large its chunks are, and however small the device's depth.
static void what_nobody_waits_for_goes_where_nothing_else_is(void **state) {
    (void)state;
    struct bench b;
    bench_open_depth(&b, 1);
    struct request ahead = request_for(0, 0, 3 * CHUNK, 0, READ_PREFETCH);
    chunks_submit(&b.chunks, &ahead);
    for (int n = 0; n < 3; n++) {
        assert_int_equal(send(&b), 1);
        back_whole(&b);
    }
    assert_ptr_equal(chunks_take_ended(&b.chunks), &ahead);
    bench_close(&b);
}

static void promoted_request_comes_last_of_its_new_priority(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q[4];
    const enum read_priority priorities[] = { READ_DEMAND, READ_PREFETCH, READ_PREFETCH,
                                              READ_DEMAND };
    for (int i = 0; i < 4; i++) {
        q[i] = request_for(0, (uint64_t)i * 64 * BLOCK, BLOCK, 0, priorities[i]);
        chunks_submit(&b.chunks, &q[i]);
    }
    chunks_promote(&b.chunks, &q[2], READ_DEMAND);
    chunks_promote(&b.chunks, &q[0], READ_BACKGROUND); // never down
    chunks_check(&b.chunks);
    const uint64_t order[] = { 0, 3, 2, 1 };
    for (int i = 0; i < 4; i++) {
        send(&b);
        assert_int_equal(b.out[0].offset, order[i] * 64 * BLOCK);
        back_whole(&b);
    }
    assert_int_equal(b.chunks.stats.requests[READ_DEMAND], 0); // nobody has taken one yet
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(chunks_take_ended(&b.chunks), &q[order[i]]);
    assert_int_equal(b.chunks.stats.requests[READ_DEMAND], 3);
    assert_int_equal(b.chunks.stats.requests[READ_PREFETCH], 1);
    chunks_promote(&b.chunks, &q[1], READ_DEMAND); // has ended: nothing to raise
    assert_int_equal(q[1].priority, READ_PREFETCH);
    bench_close(&b);
}

static void chunk_to_be_sent_again_has_its_requests_priority(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request low = request_for(0, 0, BLOCK, 0, READ_PREFETCH);
    struct request high = request_for(1, 0, (DEPTH + 1) * CHUNK, 0, READ_GATHER);
    chunks_submit(&b.chunks, &low);
    send(&b);
    back(&b, 0, -EINTR);
    chunks_submit(&b.chunks, &high);
    send(&b);
    for (uint32_t i = 0; i < DEPTH; i++)
        assert_int_equal(b.out[i].file, 1);
    chunks_promote(&b.chunks, &low, READ_DEMAND);
    back_whole(&b);
    send(&b);
    assert_int_equal(b.out[DEPTH - 1].file, 0);
    while (b.n_out > 0) {
        back_whole(&b);
        send(&b);
    }
    bench_close(&b);
}

// --- what comes back -----------------------------------------------------------------------------

// A short read of any length; after it the rest, from a multiple of the alignment on.
static void short_read_goes_on_where_the_alignment_allows(void **state) {
    (void)state;
    for (uint32_t file = 0; file < 2; file++)
        for (uint32_t bytes = 1; bytes < CHUNK; bytes++) {
            struct bench b;
            bench_open(&b);
            struct request q = request_for(file, 8 * BLOCK, CHUNK, 0, READ_DEMAND);
            chunks_submit(&b.chunks, &q);
            send(&b);
            back(&b, 0, (int32_t)bytes);
            assert_null(chunks_take_ended(&b.chunks));
            assert_int_equal(send(&b), 1);
            uint32_t have = file == 0 ? bytes / 512 * 512 : bytes;
            assert_int_equal(b.out[0].offset, 8 * BLOCK + have);
            assert_ptr_equal(b.out[0].dst, memory + have);
            assert_int_equal(b.out[0].bytes, CHUNK - have);
            back_whole(&b);
            assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
            assert_int_equal(q.status, OK);
            assert_int_equal(q.bytes_read, CHUNK + bytes - have);
            assert_int_equal(b.chunks.stats.short_reads, 1);
            bench_close(&b);
        }
}

static void no_bytes_are_the_end_of_the_file(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 8 * BLOCK, CHUNK, 1, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    send(&b);
    back(&b, 0, 1024);
    send(&b);
    back(&b, 0, 0);
    assert_int_equal(send(&b), 0); // never a reason to ask again
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, ERR_TRUNCATED);
    assert_int_equal(q.failed_file, 0);
    assert_int_equal(q.failed_offset, 8 * BLOCK + 1024);
    assert_int_equal(q.failed_errno, 0);
    bench_close(&b);
}

static void same_part_of_a_block_twice_is_the_end_of_the_file(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 8 * BLOCK, CHUNK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    send(&b);
    back(&b, 0, 1024 + 77);
    for (int i = 0; i < 2; i++) {
        assert_null(chunks_take_ended(&b.chunks));
        assert_int_equal(send(&b), 1);
        assert_int_equal(b.out[0].offset, 8 * BLOCK + 1024);
        back(&b, 0, 77);
    }
    assert_int_equal(send(&b), 0);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, ERR_TRUNCATED);
    assert_int_equal(q.failed_offset, 8 * BLOCK + 1024 + 77); // where it ends, to the byte
    bench_close(&b);
}

static void io_error_gets_one_second_try(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 8 * BLOCK, CHUNK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    send(&b);
    back(&b, 0, -EIO);
    assert_int_equal(send(&b), 1);
    back(&b, 0, 2048); // it got better, for a while
    assert_int_equal(send(&b), 1);
    back(&b, 0, -EIO);
    assert_int_equal(send(&b), 0);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, ERR_IO);
    assert_int_equal(q.failed_errno, EIO);
    assert_int_equal(q.failed_offset, 8 * BLOCK + 2048);
    assert_int_equal(b.chunks.stats.retries, 1);
    assert_int_equal(b.chunks.stats.failed, 1);

    chunks_submit(&b.chunks, &q); // whoever asks again begins anew
    send(&b);
    back(&b, 0, -EIO);
    assert_int_equal(send(&b), 1);
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, OK);
    assert_int_equal(q.failed_errno, 0);
    bench_close(&b);
}

static void other_errors_are_not_retried(void **state) {
    (void)state;
    const int errors[] = { EINVAL, EBADF, EFAULT, ENOMEM, EOPNOTSUPP, ENODATA };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct bench b;
        bench_open(&b);
        struct request q = request_for(1, 0, BLOCK, 0, READ_DEMAND);
        chunks_submit(&b.chunks, &q);
        send(&b);
        back(&b, 0, -errors[i]);
        assert_int_equal(send(&b), 0);
        assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
        assert_int_equal(q.status, ERR_IO);
        assert_int_equal(q.failed_errno, errors[i]);
        bench_close(&b);
    }
}

static void interrupted_read_is_repeated_at_once(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(1, 0, BLOCK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(send(&b), 1);
        assert_true(b.wait_ns == UINT64_MAX);
        back(&b, 0, -EINTR);
    }
    assert_int_equal(send(&b), 1);
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, OK);
    assert_int_equal(b.chunks.stats.retries, 100);
    bench_close(&b);
}

static void device_that_is_short_of_something_gets_a_growing_pause(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(1, 0, BLOCK, 0, READ_GATHER);
    chunks_submit(&b.chunks, &q);
    uint64_t pause = 0, total = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(send(&b), 1);
        back(&b, 0, -EAGAIN);
        assert_int_equal(send(&b), 0);
        assert_true(b.wait_ns >= pause && b.wait_ns > 0 && b.wait_ns < UINT64_MAX);
        pause = b.wait_ns;
        total += pause;
        b.now_ns += pause - 1;
        assert_int_equal(send(&b), 0);
        assert_int_equal(b.wait_ns, 1);
        b.now_ns += 1;
    }
    assert_true(total > 1000000000u && total < 60000000000u);
    assert_int_equal(send(&b), 1);
    back(&b, 0, -EAGAIN); // enough
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, ERR_IO);
    assert_int_equal(q.failed_errno, EAGAIN);
    bench_close(&b);
}

static void bytes_in_between_renew_the_patience(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(1, 0, BLOCK, 0, READ_GATHER);
    chunks_submit(&b.chunks, &q);
    for (int i = 0; i < 250; i++) {
        assert_int_equal(send(&b), 1);
        back(&b, 0, i % 100 == 99 ? 1 : -EINTR);
    }
    assert_null(chunks_take_ended(&b.chunks));
    send(&b);
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, OK);
    bench_close(&b);
}

static void pause_holds_up_its_own_priority_but_not_a_higher_one(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request paused = request_for(0, 0, BLOCK, 0, READ_GATHER);
    struct request same = request_for(0, 16 * BLOCK, BLOCK, 0, READ_GATHER);
    struct request lower = request_for(0, 32 * BLOCK, BLOCK, 0, READ_BACKGROUND);
    struct request higher = request_for(0, 48 * BLOCK, BLOCK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &paused);
    send(&b);
    back(&b, 0, -EAGAIN);
    chunks_submit(&b.chunks, &same);
    chunks_submit(&b.chunks, &lower);
    assert_int_equal(send(&b), 0);
    chunks_submit(&b.chunks, &higher);
    assert_int_equal(send(&b), 1);
    assert_int_equal(b.out[0].offset, 48 * BLOCK);
    b.now_ns += b.wait_ns;
    const uint64_t order[] = { 48, 0, 16, 32 };
    for (int i = 0; i < 4; i++) {
        send(&b);
        assert_int_equal(b.out[0].offset, order[i] * BLOCK);
        back_whole(&b);
    }
    bench_close(&b);
}

static void device_without_time_is_asked_without_a_pause(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    b.chunks.pauses = false;
    struct request q = request_for(1, 0, BLOCK, 0, READ_GATHER);
    chunks_submit(&b.chunks, &q);
    for (int i = 0; i <= 100; i++) {
        assert_int_equal(send(&b), 1);
        back(&b, 0, -EAGAIN);
    }
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.failed_errno, EAGAIN);
    bench_close(&b);
}

// --- ends ----------------------------------------------------------------------------------------

static void failed_request_ends_when_what_is_out_is_back(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q = request_for(0, 0, 16 * CHUNK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &q);
    send(&b);
    back(&b, 3, 512); // to be sent again, and then not
    back(&b, 1, -EINVAL);
    assert_int_equal(send(&b), 0); // nothing more of it
    assert_null(chunks_take_ended(&b.chunks));
    back(&b, 0, -EIO); // not retried, and not the error that counts
    assert_null(chunks_take_ended(&b.chunks));
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &q);
    assert_int_equal(q.status, ERR_IO);
    assert_int_equal(q.failed_errno, EINVAL);
    assert_int_equal(q.failed_offset, CHUNK);
    assert_int_equal(q.bytes_read, CHUNK + 512);
    bench_close(&b);
}

static void of_a_cancelled_request_nothing_more_is_sent(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request sent = request_for(0, 0, 2 * CHUNK, 0, READ_DEMAND);
    struct request active = request_for(0, 8 * CHUNK, 8 * CHUNK, 0, READ_DEMAND);
    struct request queued = request_for(1, 0, 8 * CHUNK, 0, READ_DEMAND);
    chunks_submit(&b.chunks, &sent);
    chunks_submit(&b.chunks, &active);
    chunks_submit(&b.chunks, &queued);
    send(&b);
    chunks_cancel(&b.chunks, &sent); // all of it is at the device
    chunks_cancel(&b.chunks, &active);
    chunks_cancel(&b.chunks, &queued);
    chunks_check(&b.chunks);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &queued);
    assert_int_equal(queued.status, CANCELLED);
    chunks_cancel(&b.chunks, &queued); // has ended: nothing to cancel
    back_whole(&b);
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &sent);
    assert_int_equal(sent.status, OK);
    assert_int_equal(send(&b), 0);
    back_whole(&b);
    assert_int_equal(active.state, REQUEST_ACTIVE);
    back_whole(&b);
    assert_ptr_equal(chunks_take_ended(&b.chunks), &active);
    assert_int_equal(active.status, CANCELLED);
    assert_int_equal(active.bytes_read, 2 * CHUNK);
    assert_null(chunks_take_ended(&b.chunks));
    assert_int_equal(b.chunks.stats.cancelled, 2);
    bench_close(&b);
}

static void cancelling_all_leaves_only_what_is_out(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request again = request_for(0, 0, BLOCK, 0, READ_DEMAND);
    struct request active = request_for(0, 0, 8 * CHUNK, 0, READ_DEMAND);
    struct request queued = request_for(1, 0, 8 * CHUNK, 0, READ_BACKGROUND);
    chunks_submit(&b.chunks, &again);
    chunks_submit(&b.chunks, &active);
    chunks_submit(&b.chunks, &queued);
    send(&b);
    back(&b, 0, -EIO);
    chunks_cancel_all(&b.chunks);
    chunks_check(&b.chunks);
    assert_int_equal(send(&b), 0);
    assert_int_equal(b.chunks.n_ended, 2);
    assert_int_equal(again.status, CANCELLED);
    assert_int_equal(queued.status, CANCELLED);
    while (b.n_out > 0) {
        assert_int_equal(active.state, REQUEST_ACTIVE);
        back_whole(&b);
    }
    assert_int_equal(active.state, REQUEST_ENDED);
    assert_int_equal(active.status, CANCELLED);
    bench_close(&b);
}

// Every priority from the lowest up has as many chunks to be sent again as the device takes of it.
static void chunks_suffice_however_many_come_back(void **state) {
    (void)state;
    struct bench b;
    bench_open(&b);
    struct request q[READ_PRIORITIES];
    for (int p = READ_PRIORITIES - 1; p >= 0; p--) {
        q[p] = request_for(0, 0, 16 * CHUNK, 0, (enum read_priority)p);
        chunks_submit(&b.chunks, &q[p]);
        assert_int_equal(send(&b), p < READ_PREFETCH ? DEPTH : 1);
        while (b.n_out > 0)
            back(&b, 0, -EAGAIN);
    }
    for (int p = 0; p < READ_PRIORITIES; p++)
        for (int n = 0; n < 16; n++) {
            b.now_ns += 200000000;
            send(&b);
            back_whole(&b);
        }
    for (int p = 0; p < READ_PRIORITIES; p++)
        assert_ptr_equal(chunks_take_ended(&b.chunks), &q[p]);
    bench_close(&b);
}

// --- everything at once --------------------------------------------------------------------------

#define N_REQUESTS 24

static int32_t any_result(uint64_t *seed, const struct disk_chunk *c) {
    switch (random_below(seed, 12)) {
    case 0:
        return -EINTR;
    case 1:
        return -EAGAIN;
    case 2:
        return -EIO;
    case 3:
        return (int32_t)random_below(seed, c->bytes);
    default:
        return (int32_t)c->bytes;
    }
}

static void every_request_ends_exactly_once_whatever_happens(void **state) {
    (void)state;
    for (uint64_t round = 0; round < 200; round++) {
        struct bench b;
        uint64_t seed = round, n_ends = 0, n_submits = 0;
        bool out[N_REQUESTS] = { false };
        struct request q[N_REQUESTS] = { 0 };
        bench_open(&b);
        for (int step = 0; step < 600; step++) {
            uint32_t i = (uint32_t)random_below(&seed, N_REQUESTS);
            switch (random_below(&seed, 6)) {
            case 0:
                if (!out[i]) {
                    uint64_t bytes = (1 + random_below(&seed, 32)) * BLOCK;
                    q[i] = request_for((uint32_t)random_below(&seed, 2), 0, bytes,
                                       (uint32_t)random_below(&seed, BLOCK),
                                       (enum read_priority)random_below(&seed, READ_PRIORITIES));
                    q[i].n_reads = 1 + (uint32_t)random_below(&seed, REQUEST_MAX_READS);
                    for (uint32_t k = 1; k < q[i].n_reads; k++)
                        q[i].reads[k] = q[i].reads[0];
                    chunks_submit(&b.chunks, &q[i]);
                    out[i] = true;
                    n_submits++;
                }
                break;
            case 1:
                if (out[i])
                    chunks_promote(&b.chunks, &q[i],
                                   (enum read_priority)random_below(&seed, READ_PRIORITIES));
                break;
            case 2:
                if (out[i])
                    chunks_cancel(&b.chunks, &q[i]);
                break;
            default:
                if (b.n_out > 0) {
                    uint32_t k = (uint32_t)random_below(&seed, b.n_out);
                    back(&b, k, any_result(&seed, &b.out[k]));
                }
            }
            b.now_ns += random_below(&seed, 10000000);
            send(&b);
            for (struct request *done; (done = chunks_take_ended(&b.chunks)); n_ends++) {
                assert_true(out[done - q]);
                assert_int_equal(done->state, REQUEST_ENDED);
                out[done - q] = false;
            }
        }
        chunks_cancel_all(&b.chunks);
        while (b.n_out > 0)
            back_whole(&b);
        for (struct request *done; (done = chunks_take_ended(&b.chunks)); n_ends++) {
            assert_true(out[done - q]);
            out[done - q] = false;
        }
        assert_int_equal(n_ends, n_submits);
        assert_int_equal(n_ends, b.chunks.n_ended);
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_cut_into_chunks_that_cover_it_once),
        cmocka_unit_test(blocks_of_nothing_but_slack_are_not_read),
        cmocka_unit_test(empty_request_ends_at_once),
        cmocka_unit_test(lower_priority_waits_for_all_of_the_higher),
        cmocka_unit_test(demand_waits_for_no_more_than_the_chunks_at_the_device),
        cmocka_unit_test(what_nobody_waits_for_leaves_room_at_the_device),
        cmocka_unit_test(what_nobody_waits_for_goes_where_nothing_else_is),
        cmocka_unit_test(promoted_request_comes_last_of_its_new_priority),
        cmocka_unit_test(chunk_to_be_sent_again_has_its_requests_priority),
        cmocka_unit_test(short_read_goes_on_where_the_alignment_allows),
        cmocka_unit_test(no_bytes_are_the_end_of_the_file),
        cmocka_unit_test(same_part_of_a_block_twice_is_the_end_of_the_file),
        cmocka_unit_test(io_error_gets_one_second_try),
        cmocka_unit_test(other_errors_are_not_retried),
        cmocka_unit_test(interrupted_read_is_repeated_at_once),
        cmocka_unit_test(device_that_is_short_of_something_gets_a_growing_pause),
        cmocka_unit_test(bytes_in_between_renew_the_patience),
        cmocka_unit_test(pause_holds_up_its_own_priority_but_not_a_higher_one),
        cmocka_unit_test(device_without_time_is_asked_without_a_pause),
        cmocka_unit_test(failed_request_ends_when_what_is_out_is_back),
        cmocka_unit_test(of_a_cancelled_request_nothing_more_is_sent),
        cmocka_unit_test(cancelling_all_leaves_only_what_is_out),
        cmocka_unit_test(chunks_suffice_however_many_come_back),
        cmocka_unit_test(every_request_ends_exactly_once_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
