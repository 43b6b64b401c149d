/* What a reader records: on a virtual clock, exactly; on every disk, each request once. */
#include "io/trace.h"
#include "tests/io/fixture.h"

#define MS          1000000ull
#define CHUNK_BYTES (4 * READER_ALIGN)
#define MOST        4096

struct recording {
    struct trace_request request[MOST]; // ended at, in ns:
    uint64_t ended_ns[MOST];
    uint32_t n_requests;
    struct trace_queue queue[MOST];
    uint64_t queue_ns[MOST];
    uint32_t n_queue;
};

static void take_all(struct trace *t, struct recording *out) {
    struct trace_event event;
    uint64_t before = 0;
    out->n_requests = out->n_queue = 0;
    while (trace_take(t, TRACE_DISK, &event)) {
        assert_true(event.ns >= before); // time never goes back
        before = event.ns;
        assert_int_equal(event.n_lost, 0);
        if (event.kind == TRACE_REQUEST) {
            out->ended_ns[out->n_requests] = event.ns;
            out->request[out->n_requests++] = event.is.request;
        } else {
            assert_int_equal(event.kind, TRACE_QUEUE);
            out->queue_ns[out->n_queue] = event.ns;
            out->queue[out->n_queue++] = event.is.queue;
        }
        assert_true(out->n_requests < MOST && out->n_queue < MOST);
    }
    assert_false(trace_take(t, TRACE_CONTROL, &event));
}

static struct request *request_of(struct request *r, uint64_t label, uint64_t n_chunks,
                                  enum read_priority priority) {
    static _Alignas(READER_ALIGN) unsigned char memory[64][5 * CHUNK_BYTES];
    assert_true(label < 64 && n_chunks <= 5);
    *r = (struct request){ .n_reads = 1, .priority = priority, .label = label };
    r->reads[0] = (struct read){ .bytes = n_chunks * CHUNK_BYTES,
                                 .offset = label * CHUNK_BYTES,
                                 .dst = memory[label] };
    return r;
}

static void await(struct reader *r, uint32_t n) {
    while (n > 0)
        if (reader_next(r))
            n--;
        else
            event_wait(reader_event(r), UINT64_MAX);
}

/* A disk that takes 1 ms a chunk and 2 ms before the first, two chunks at a time. */
static void times_are_those_of_the_clock(void **state) {
    (void)state;
    static struct recording is;
    struct clock_virtual clock;
    struct disk *disk;
    struct trace *trace;
    struct reader *r;
    struct request one, two, three;
    uint32_t file;
    clock_virtual_init(&clock);
    clock_virtual_advance(&clock, 10 * MS);
    struct disk_model_options model = {
        .clock = &clock, .bytes_per_s = CHUNK_BYTES * 1000, .latency_ns = 2 * MS, .depth = 2
    };
    assert_int_equal(disk_model_open(&disk, &model, NULL), OK);
    assert_int_equal(trace_open(&trace, MOST, NULL), OK);
    struct reader_options options = {
        .clock = &clock.clock, .disk = disk, .chunk_bytes = CHUNK_BYTES, .depth = 2, .trace = trace
    };
    assert_int_equal(reader_open(&r, &options, NULL), OK);
    assert_int_equal(reader_add_file(r, "any", &file, NULL), OK);

    reader_submit(r, request_of(&one, 5, 2, READ_DEMAND));
    clock_virtual_advance(&clock, MS);
    reader_submit(r, request_of(&two, 6, 1, READ_GATHER));
    reader_submit(r, request_of(&three, 7, 1, READ_BACKGROUND));
    reader_cancel(r, &three);
    await(r, 3);
    reader_submit(r, request_of(&three, 8, 0, READ_GATHER)); // wants nothing
    await(r, 1);

    take_all(trace, &is);
    struct reader_stats stats;
    reader_stats(r, &stats);
    assert_int_equal(is.n_requests, 4);
    // Cancelled at once; the first is active at once; the second when a chunk of it has come back.
    struct {
        uint64_t label, submitted, active, ended, bytes;
        enum read_priority priority;
        enum status status;
    } want[] = {
        { 7, 11 * MS, UINT64_MAX, 11 * MS, 0, READ_BACKGROUND, CANCELLED },
        { 5, 10 * MS, 10 * MS, 14 * MS, 2 * CHUNK_BYTES, READ_DEMAND, OK },
        { 6, 11 * MS, 13 * MS, 16 * MS, CHUNK_BYTES, READ_GATHER, OK },
        { 8, 16 * MS, UINT64_MAX, 16 * MS, 0, READ_GATHER, OK },
    };
    for (uint32_t i = 0; i < is.n_requests; i++) {
        assert_int_equal(is.request[i].label, want[i].label);
        assert_int_equal(is.request[i].submitted_ns, want[i].submitted);
        assert_int_equal(is.request[i].raised_ns, want[i].submitted);
        assert_int_equal(is.request[i].active_ns, want[i].active);
        assert_int_equal(is.ended_ns[i], want[i].ended);
        assert_int_equal(is.request[i].bytes, want[i].bytes);
        assert_int_equal(is.request[i].priority, want[i].priority);
        assert_int_equal(is.request[i].status, want[i].status);
    }
    struct {
        uint64_t ns, chunks, requests, so_far;
    } queue[] = {
        { 10 * MS, 2, 1, 0 }, { 13 * MS, 2, 2, 1 }, { 14 * MS, 1, 1, 2 }, { 16 * MS, 0, 0, 3 }
    };
    assert_int_equal(is.n_queue, sizeof queue / sizeof *queue);
    for (uint32_t i = 0; i < is.n_queue; i++) {
        assert_int_equal(is.queue_ns[i], queue[i].ns);
        assert_int_equal(is.queue[i].n_chunks, queue[i].chunks);
        assert_int_equal(is.queue[i].bytes, queue[i].chunks * CHUNK_BYTES);
        assert_int_equal(is.queue[i].n_requests, queue[i].requests);
        assert_int_equal(is.queue[i].bytes_so_far, queue[i].so_far * CHUNK_BYTES);
    }
    assert_int_equal(stats.busy_ns, 6 * MS); // as the queue says
    reader_close(r);
    disk_close(disk);
    take_all(trace, &is);
    assert_int_equal(is.n_requests, 0);
    trace_close(trace);
}

/* A prefetch that is demanded while it is queued. */
static void a_raise_is_told(void **state) {
    (void)state;
    static struct recording is;
    struct clock_virtual clock;
    struct disk *disk;
    struct trace *trace;
    struct reader *r;
    struct request one, two;
    uint32_t file;
    clock_virtual_init(&clock);
    struct disk_model_options model = {
        .clock = &clock, .bytes_per_s = CHUNK_BYTES * 1000, .latency_ns = 2 * MS, .depth = 1
    };
    assert_int_equal(disk_model_open(&disk, &model, NULL), OK);
    assert_int_equal(trace_open(&trace, MOST, NULL), OK);
    struct reader_options options = {
        .clock = &clock.clock, .disk = disk, .chunk_bytes = CHUNK_BYTES, .depth = 1, .trace = trace
    };
    assert_int_equal(reader_open(&r, &options, NULL), OK);
    assert_int_equal(reader_add_file(r, "any", &file, NULL), OK);
    reader_submit(r, request_of(&one, 5, 1, READ_DEMAND));
    reader_submit(r, request_of(&two, 6, 1, READ_PREFETCH));
    clock_virtual_advance(&clock, MS);
    reader_promote(r, &two, READ_DEMAND);
    clock_virtual_advance(&clock, MS);
    reader_promote(r, &two, READ_PREFETCH); // it has a higher one
    await(r, 2);
    reader_promote(r, &two, READ_DEMAND); // it has ended
    take_all(trace, &is);
    assert_int_equal(is.n_requests, 2);
    assert_int_equal(is.request[0].label, 5);
    assert_int_equal(is.request[0].raised_ns, 0); // as it was submitted
    assert_int_equal(is.request[1].label, 6);
    assert_int_equal(is.request[1].submitted_ns, 0);
    assert_int_equal(is.request[1].raised_ns, MS);
    assert_int_equal(is.request[1].priority, READ_DEMAND);
    reader_close(r);
    disk_close(disk);
    trace_close(trace);
}

/* Many requests of a real file by a thread of the reader's own, some cancelled, the last past the end
 * of the file, and a close while some are under way. */
static void each_request_ends_once(bool forbid_uring) {
    static struct recording is;
    static struct request requests[64];
    struct folder folder;
    struct trace *trace;
    struct reader *r;
    char path[512];
    uint32_t file, seen[64] = { 0 }, by_status[ERR_SYSTEM + 1] = { 0 };
    folder_open(&folder);
    write_file(folder_path(&folder, "file", path), 0, 64 * CHUNK_BYTES);
    assert_int_equal(trace_open(&trace, MOST, NULL), OK);
    struct reader_options options = {
        .chunk_bytes = CHUNK_BYTES, .depth = 3, .forbid_uring = forbid_uring, .trace = trace
    };
    assert_int_equal(reader_open(&r, &options, NULL), OK);
    assert_int_equal(reader_add_file(r, path, &file, NULL), OK);
    for (uint32_t i = 0; i < 64; i++)
        reader_submit(r, request_of(&requests[i], i, 1 + i % 5, (enum read_priority)(i % 4)));
    for (uint32_t i = 0; i < 64; i += 7)
        reader_cancel(r, &requests[i]);
    await(r, 40);
    reader_close(r); // with up to 24 under way
    take_all(trace, &is);
    assert_int_equal(is.n_requests, 64);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 64; i++) {
        const struct trace_request *q = &is.request[i];
        seen[q->label]++;
        by_status[q->status]++;
        bytes += q->bytes;
        assert_int_equal(q->status, requests[q->label].status);
        assert_int_equal(q->priority, requests[q->label].priority);
        assert_true(q->submitted_ns > 0 && q->submitted_ns <= is.ended_ns[i]);
        assert_true(q->active_ns == UINT64_MAX ||
                    (q->active_ns >= q->submitted_ns && q->active_ns <= is.ended_ns[i]));
    }
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(seen[i], 1);
    assert_true(by_status[OK] > 0);
    const struct trace_queue *last = &is.queue[is.n_queue - 1];
    assert_int_equal(last->n_chunks, 0);
    assert_int_equal(last->bytes, 0);
    assert_int_equal(last->bytes_so_far, bytes);
    trace_close(trace);
    folder_close(&folder);
}

static void each_request_ends_once_with_threads(void **state) {
    (void)state;
    each_request_ends_once(true);
}

static void each_request_ends_once_with_a_ring(void **state) {
    (void)state;
    struct device_limits limits;
    device_limits(&limits);
    if (limits.uring != URING_YES)
        skip();
    each_request_ends_once(false);
}

/* A reader that was never used, and one that could not be opened, have nothing to say. */
static void nothing_asked_is_nothing_recorded(void **state) {
    (void)state;
    static struct recording is;
    struct trace *trace;
    struct reader *r;
    assert_int_equal(trace_open(&trace, 16, NULL), OK);
    struct reader_options options = { .trace = trace };
    assert_int_equal(reader_open(&r, &options, NULL), OK);
    reader_close(r);
    options.depth = DISK_DEPTH_MAX + 1;
    assert_int_equal(reader_open(&r, &options, NULL), ERR_USAGE);
    take_all(trace, &is);
    assert_int_equal(is.n_requests + is.n_queue, 0);
    trace_close(trace);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_those_of_the_clock),
        cmocka_unit_test(a_raise_is_told),
        cmocka_unit_test(each_request_ends_once_with_threads),
        cmocka_unit_test(each_request_ends_once_with_a_ring),
        cmocka_unit_test(nothing_asked_is_nothing_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
