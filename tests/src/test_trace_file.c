/* The timeline as a file: exactly what was recorded, whole at every moment, nested as it should be. */
#include "io/reader.h"
#include "src/account.h"
#include "src/trace_file.h"
#include "tests/support/make_checkpoint.h"
#include "tests/support/timeline.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS 1000000ull

struct world {
    char *dir;
    char path[512];
    struct clock_virtual clock;
    struct trace_file *file;
    struct trace *trace;
    struct account account;
};

static int open_world(void **state) {
    static struct world w;
    struct err err = { .status = OK };
    w = (struct world){ .dir = make_temp_dir() };
    assert_non_null(w.dir);
    snprintf(w.path, sizeof w.path, "%s/trace.json", w.dir);
    clock_virtual_init(&w.clock);
    clock_virtual_advance(&w.clock, 5000 * MS); // machines have run for a while
    struct trace_file_options options = { .clock = &w.clock.clock,
                                          .ring_events = 64,
                                          .no_thread = true };
    assert_int_equal(trace_file_open(&w.file, w.path, &options, &err), OK);
    w.trace = trace_file_trace(w.file);
    *state = &w;
    return 0;
}

static int close_world(void **state) {
    struct world *w = *state;
    trace_file_close(w->file);
    remove_temp_dir(w->dir);
    return 0;
}

static void start(struct world *w) {
    struct err err = { .status = OK };
    if (trace_file_start(w->file, 3, 32, &err) != OK)
        fail_msg("%s", err.text);
}

static void finish(struct world *w) {
    struct err err = { .status = OK };
    if (trace_file_finish(w->file, &err) != OK)
        fail_msg("%s", err.text);
}

static char *text_of(const char *path) {
    FILE *in = fopen(path, "re");
    static char text[1 << 20];
    assert_non_null(in);
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    return text;
}

static uint64_t at_us(const json_t *event) {
    return timeline_ns(event) / 1000;
}

// Events as lines: "ph tid ts name {args}", without metadata.
static char *lines_of(const json_t *root) {
    static char lines[1 << 16];
    size_t i, used = 0;
    json_t *event;
    lines[0] = '\0';
    json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
        if (strcmp(timeline_string(event, "ph"), "M") == 0)
            continue;
        const json_t *args = json_object_get(event, "args");
        char *text = args ? json_dumps(args, JSON_COMPACT | JSON_SORT_KEYS) : strdup("");
        used += (size_t)snprintf(
            lines + used, sizeof lines - used, "%s %d %llu %s%s%s %s\n",
            timeline_string(event, "ph"), (int)json_integer_value(json_object_get(event, "tid")),
            (unsigned long long)at_us(event), timeline_string(event, "cat"),
            *timeline_string(event, "cat") ? ":" : "", timeline_string(event, "name"), text);
        assert_true(used < sizeof lines);
        free(text);
    }
    return lines;
}

static void advance(struct world *w, uint64_t us) {
    clock_virtual_advance(&w->clock, us * 1000);
}

// --- what is in it -------------------------------------------------------------------------------

// A load, one step of two layers with a wait, and its head.
static void live(struct world *w) {
    struct account *a = &w->account;
    account_start(a, &w->clock.clock);
    account_trace(a, w->trace);
    account_enter(a, ACTIVITY_LOAD);
    advance(w, 100);
    account_phase(a, PHASE_DECODE);
    account_step(a, 0, 4);
    enum activity before = account_enter(a, ACTIVITY_OTHER);
    account_enter(a, ACTIVITY_ATTENTION);
    advance(w, 10);
    for (uint32_t layer = 0; layer < 2; layer++) {
        account_layer(a, layer);
        account_enter(a, ACTIVITY_EXPERTS);
        advance(w, 20);
        account_enter(a, ACTIVITY_WAIT);
        advance(w, 30);
        account_layer(a, layer);
        account_enter(a, ACTIVITY_EXPERTS);
        advance(w, 1);
    }
    account_layer(a, TRACE_NOWHERE);
    account_enter(a, ACTIVITY_HEAD);
    advance(w, 5);
    account_step(a, TRACE_NOWHERE, 0);
    account_enter(a, before);
    account_pause(a);
    advance(w, 1000000);
    account_resume(a);
    advance(w, 3);
}

static void spans_of_the_control_thread_are_what_was_done(void **state) {
    struct world *w = *state;
    advance(w, 7);
    start(w);
    live(w);
    finish(w);
    json_t *root = timeline_read(w->path);
    assert_string_equal(lines_of(root), "B 1 7 load:other \n"
                                        "E 1 7  \n"
                                        "B 1 7 load:load \n"
                                        "E 1 107  \n"
                                        "B 1 107 decode:load \n"
                                        "E 1 107  \n"
                                        "B 1 107 step:decode {\"rows\":4,\"step\":0}\n"
                                        "B 1 107 decode:other \n"
                                        "E 1 107  \n"
                                        "B 1 107 decode:attention \n"
                                        "E 1 117  \n"
                                        "B 1 117 layer:layer 0 {\"layer\":0}\n"
                                        "B 1 117 decode:experts \n"
                                        "E 1 137  \n"
                                        "B 1 137 decode:wait_experts \n"
                                        "E 1 167  \n"
                                        "B 1 167 decode:experts \n"
                                        "E 1 168  \n"
                                        "E 1 168  \n"
                                        "B 1 168 layer:layer 1 {\"layer\":1}\n"
                                        "B 1 168 decode:experts \n"
                                        "E 1 188  \n"
                                        "B 1 188 decode:wait_experts \n"
                                        "E 1 218  \n"
                                        "B 1 218 decode:experts \n"
                                        "E 1 219  \n"
                                        "E 1 219  \n"
                                        "B 1 219 decode:head \n"
                                        "E 1 224  \n"
                                        "E 1 224  \n"
                                        "B 1 224 decode:load \n"
                                        "E 1 224  \n"
                                        "B 1 1000224 decode:load \n"
                                        "E 1 1000227  \n");
    struct timeline timeline;
    timeline_sum(root, &timeline);
    assert_true(timeline.complete && timeline.lost_events == 0);
    json_decref(root);
}

static void times_are_those_of_the_account(void **state) {
    struct world *w = *state;
    struct account *a = &w->account;
    struct timeline timeline;
    uint64_t seed = 3;
    start(w);
    account_start(a, &w->clock.clock);
    account_trace(a, w->trace);
    for (int i = 0; i < 3000; i++) { // anything, in any order
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t r = (uint32_t)(seed >> 33);
        advance(w, r % 50);
        switch (r / 64 % 8) {
        case 0:
            account_phase(a, (enum phase)(r / 1024 % PHASES));
            break;
        case 1:
            account_step(a, r / 1024 % 3 ? r / 4096 % 5 : TRACE_NOWHERE, 1);
            break;
        case 2:
            if (a->place.step != TRACE_NOWHERE)
                account_layer(a, r / 1024 % 4 ? r / 4096 % 5 : TRACE_NOWHERE);
            break;
        case 3:
            account_pause(a);
            advance(w, 11);
            account_resume(a);
            break;
        default:
            account_enter(a, (enum activity)(r / 1024 % ACTIVITIES));
        }
        if (i % 20 == 0)
            trace_file_write(w->file);
    }
    struct account_report report;
    account_report(a, NULL, NULL, &report);
    finish(w);
    json_t *root = timeline_read(w->path);
    timeline_sum(root, &timeline);
    for (int p = 0; p < PHASES; p++)
        for (int i = 0; i < ACTIVITIES; i++)
            assert_int_equal(timeline.ns[p][i], report.account.time_ns[p][i]);
    json_decref(root);
}

static void put_request(struct world *w, uint64_t submitted_us, uint64_t active_us,
                        uint64_t ended_us, uint64_t label, uint64_t bytes,
                        enum read_priority priority, enum status status) {
    uint64_t base = 5000 * MS;
    struct trace_event event = {
        .ns = base + ended_us * 1000,
        .kind = TRACE_REQUEST,
        .is.request = { .submitted_ns = base + submitted_us * 1000,
                        .active_ns = active_us ? base + active_us * 1000 : UINT64_MAX,
                        .label = label,
                        .bytes = bytes,
                        .priority = priority,
                        .status = status },
    };
    trace_put(w->trace, TRACE_DISK, &event);
}

static void put_queue(struct world *w, uint64_t us, uint32_t n_chunks, uint32_t n_requests,
                      uint64_t bytes, uint64_t so_far) {
    struct trace_event event = { .ns = 5000 * MS + us * 1000,
                                 .kind = TRACE_QUEUE,
                                 .is.queue = { n_chunks, n_requests, bytes, so_far } };
    trace_put(w->trace, TRACE_DISK, &event);
}

static void requests_are_shown_from_submission_to_end(void **state) {
    struct world *w = *state;
    start(w);
    put_request(w, 10, 12, 20, 1 + 2 * 32 + 5, 4096, READ_DEMAND, OK);
    put_request(w, 11, 0, 21, 1, 0, READ_PREFETCH, CANCELLED);
    put_request(w, 12, 13, 22, 0, 100, READ_GATHER, ERR_IO);
    finish(w);
    json_t *root = timeline_read(w->path);
    assert_string_equal(
        lines_of(root),
        "b 2 10 read:demand {\"bytes\":4096,\"expert\":5,\"layer\":2,\"status\":\"ok\"}\n"
        "b 2 10 read:queued \n"
        "e 2 12 read:queued \n"
        "b 2 12 read:active \n"
        "e 2 20 read:active \n"
        "e 2 20 read:demand \n"
        "b 2 11 read:prefetch {\"bytes\":0,\"expert\":0,\"layer\":0,\"status\":\"cancelled\"}\n"
        "b 2 11 read:queued \n"
        "e 2 21 read:queued \n"
        "e 2 21 read:prefetch \n"
        "i 2 21 read cancelled {\"expert\":0,\"layer\":0,\"status\":\"cancelled\"}\n"
        "b 2 12 read:gather {\"bytes\":100,\"status\":\"I/O error\"}\n"
        "b 2 12 read:queued \n"
        "e 2 13 read:queued \n"
        "b 2 13 read:active \n"
        "e 2 22 read:active \n"
        "e 2 22 read:gather \n"
        "i 2 22 read failed {\"status\":\"I/O error\"}\n");
    size_t i;
    json_t *event;
    int n_of_id[4] = { 0 };
    json_array_foreach(json_object_get(root, "traceEvents"), i,
                       event) if (*timeline_string(event, "id"))
        n_of_id[strtoul(timeline_string(event, "id"), NULL, 16)]++;
    assert_true(n_of_id[0] == 0 && n_of_id[1] == 6 && n_of_id[2] == 4 && n_of_id[3] == 6);
    json_decref(root);
}

static void counters_are_written_where_they_change(void **state) {
    struct world *w = *state;
    start(w);
    put_queue(w, 10, 2, 1, 8192, 0);
    put_queue(w, 20, 2, 1, 8192, 4096); // bytes only: not before a millisecond has passed,
    put_queue(w, 900, 2, 1, 8192, 8192);
    put_queue(w, 1010, 2, 1, 8192, 12288);
    put_queue(w, 1020, 1, 1, 4096, 16384); // or something else changes,
    put_queue(w, 1030, 1, 1, 4096, 20480); // or it is over
    finish(w);
    json_t *root = timeline_read(w->path);
    assert_string_equal(lines_of(root), "C 2 10 disk queue {\"chunks\":2}\n"
                                        "C 2 10 disk in flight {\"bytes\":8192}\n"
                                        "C 2 10 disk requests {\"open\":1}\n"
                                        "C 2 10 disk read {\"bytes\":0}\n"
                                        "C 2 1010 disk read {\"bytes\":12288}\n"
                                        "C 2 1020 disk queue {\"chunks\":1}\n"
                                        "C 2 1020 disk in flight {\"bytes\":4096}\n"
                                        "C 2 1020 disk read {\"bytes\":16384}\n"
                                        "C 2 1030 disk read {\"bytes\":20480}\n");
    json_decref(root);
}

static void a_draft_block_is_called_one(void **state) {
    struct world *w = *state;
    start(w);
    account_start(&w->account, &w->clock.clock);
    account_trace(&w->account, w->trace);
    account_step(&w->account, 0, 1);
    account_layer(&w->account, 3);
    account_enter(&w->account, ACTIVITY_GATE);
    finish(w);
    assert_non_null(strstr(text_of(w->path), "\"name\":\"layer 3 (draft)\""));
}

// --- whole at every moment -----------------------------------------------------------------------

static void what_found_no_room_is_counted(void **state) {
    struct world *w = *state;
    start(w);
    account_start(&w->account, &w->clock.clock);
    account_trace(&w->account, w->trace);
    for (int i = 0; i < 200; i++) { // into a ring of 64
        advance(w, 1);
        account_enter(&w->account, i % 2 ? ACTIVITY_WAIT : ACTIVITY_EXPERTS);
    }
    trace_file_write(w->file);
    account_enter(&w->account, ACTIVITY_HEAD);
    finish(w);
    assert_int_equal(trace_file_lost(w->file), 201 - 64);
    json_t *root = timeline_read(w->path);
    struct timeline timeline;
    timeline_sum(root, &timeline); // nested all the same
    assert_non_null(strstr(lines_of(root), "i 1 200 events lost {\"n\":137}\n"));
    assert_int_equal(timeline.lost_events, 137);
    json_decref(root);
}

static void the_file_is_whole_after_each_write(void **state) {
    struct world *w = *state;
    size_t n_before = 0;
    start(w);
    account_start(&w->account, &w->clock.clock);
    account_trace(&w->account, w->trace);
    for (int i = 0; i < 1000; i++) {
        advance(w, 1);
        account_enter(&w->account, i % 2 ? ACTIVITY_WAIT : ACTIVITY_EXPERTS);
        put_request(w, (uint64_t)i, (uint64_t)i + 1, (uint64_t)i + 2, 1, 4096, READ_DEMAND, OK);
        if (i % 30 != 0)
            continue;
        trace_file_write(w->file);
        json_t *root = timeline_read(w->path);
        size_t n = json_array_size(json_object_get(root, "traceEvents"));
        assert_true(n > n_before);
        n_before = n;
        assert_true(json_is_false(json_object_get(json_object_get(root, "sluice"), "complete")));
        json_decref(root);
    }
    finish(w);
    json_t *root = timeline_read(w->path);
    assert_true(json_is_true(json_object_get(json_object_get(root, "sluice"), "complete")));
    assert_int_equal(trace_file_lost(w->file), 0);
    json_decref(root);
}

// In a child, whose files may not grow over 20,000 bytes: the error, in the file `told`.
static void fill_up(struct world *w) {
    struct err err = { .status = OK };
    char told[600];
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 20000, 20000 });
    start(w);
    for (uint64_t i = 0; i < 100; i++) {
        put_request(w, i, i + 1, i + 2, 1 + i % 96, 4096, READ_DEMAND, OK);
        if (i % 10 == 9)
            trace_file_write(w->file);
    }
    enum status status = trace_file_finish(w->file, &err);
    snprintf(told, sizeof told, "%s/told", w->dir);
    FILE *out = fopen(told, "we");
    fprintf(out, "%d %s", (int)status, err.text);
    fclose(out);
    _exit(0);
}

static void a_full_disk_ends_the_timeline_and_leaves_it_whole(void **state) {
    struct world *w = *state;
    int ended;
    char told[600], want[64];
    pid_t child = fork();
    if (child == 0)
        fill_up(w);
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    snprintf(told, sizeof told, "%s/told", w->dir);
    snprintf(want, sizeof want, "%d %s", (int)ERR_IO, w->dir);
    const char *text = text_of(told);
    assert_memory_equal(text, want, strlen(want));
    assert_non_null(strstr(text, "/trace.json: cannot be written at byte 1"));
    assert_non_null(strstr(text, ": File too large: the timeline ends there; "));
    unsigned n_missing;
    assert_int_equal(sscanf(strstr(text, "there; "), "there; %u events are not in it", &n_missing),
                     1);
    json_t *root = timeline_read(w->path);
    size_t n_bytes = strlen(text_of(w->path));
    assert_true(n_bytes > 10000 && n_bytes <= 20000);
    uint32_t n_requests = 0;
    for (const char *at = lines_of(root); (at = strstr(at, "read:demand {")); at++)
        n_requests++;
    assert_int_equal(n_requests + n_missing, 100);
    assert_true(json_is_false(json_object_get(json_object_get(root, "sluice"), "complete")));
    json_decref(root);
}

static void a_file_keeps_what_it_has_until_something_is_written(void **state) {
    struct world *w = *state;
    struct err err = { .status = OK };
    struct trace_file *other;
    struct trace_file_options options = { .no_thread = true };
    char path[600];
    assert_int_equal(access(w->path, F_OK), 0);
    trace_file_close(w->file);
    w->file = NULL;
    assert_int_equal(access(w->path, F_OK), -1); // it was made for nothing
    assert_int_equal(make_file(w->dir, "old", "of yesterday", 12, &err), OK);
    snprintf(path, sizeof path, "%s/old", w->dir);
    assert_int_equal(trace_file_open(&other, path, &options, &err), OK);
    trace_file_close(other);
    assert_string_equal(text_of(path), "of yesterday");
    assert_int_equal(trace_file_open(&w->file, path, &options, &err), OK);
    start(w);
    finish(w);
    assert_true(strncmp(text_of(path), "{\"displayTimeUnit\"", 18) == 0);
    assert_null(strstr(text_of(path), "yesterday"));
    snprintf(path, sizeof path, "%s/no/such", w->dir);
    assert_int_equal(trace_file_open(&other, path, &options, &err), ERR_IO);
    assert_null(other);
    assert_non_null(strstr(err.text, "/no/such: cannot be made: No such file"));
}

static void a_pipe_gets_the_same_events(void **state) {
    struct world *w = *state;
    struct err err = { .status = OK };
    struct trace_file_options options = { .clock = &w->clock.clock, .no_thread = true };
    struct trace_file *to_pipe;
    char path[600], text[65536];
    snprintf(path, sizeof path, "%s/pipe", w->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    int in = open(path, O_RDONLY | O_NONBLOCK);
    assert_int_equal(trace_file_open(&to_pipe, path, &options, &err), OK);
    start(w);
    live(w);
    finish(w);
    assert_int_equal(trace_file_start(to_pipe, 3, 32, &err), OK);
    w->trace = trace_file_trace(to_pipe);
    w->clock.now = 5000 * MS;
    live(w);
    assert_int_equal(trace_file_finish(to_pipe, &err), OK);
    ssize_t n = read(in, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, text_of(w->path));
    trace_file_close(to_pipe);
    close(in);
}

// The thread writes without being asked, and finish waits for it.
static void a_thread_writes_by_itself(void **state) {
    struct world *w = *state;
    struct err err = { .status = OK };
    struct trace_file_options options = { .clock = NULL };
    trace_file_close(w->file);
    assert_int_equal(trace_file_open(&w->file, w->path, &options, &err), OK);
    w->trace = trace_file_trace(w->file);
    account_start(&w->account, clock_system());
    account_trace(&w->account, w->trace);
    start(w);
    bool there = false;
    for (int i = 0; i < 3000 && !there; i++) { // 30 s at most
        usleep(10000);
        there = strstr(text_of(w->path), "load") != NULL;
    }
    assert_true(there);
    for (int i = 0; i < 1000; i++)
        account_enter(&w->account, i % 2 ? ACTIVITY_WAIT : ACTIVITY_EXPERTS);
    finish(w);
    json_t *root = timeline_read(w->path);
    int n_waits = 0;
    for (const char *at = lines_of(root); (at = strstr(at, ":wait_experts")); at++)
        n_waits++;
    assert_int_equal(n_waits, 500);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define IN_WORLD(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
        IN_WORLD(spans_of_the_control_thread_are_what_was_done),
        IN_WORLD(times_are_those_of_the_account),
        IN_WORLD(requests_are_shown_from_submission_to_end),
        IN_WORLD(counters_are_written_where_they_change),
        IN_WORLD(a_draft_block_is_called_one),
        IN_WORLD(what_found_no_room_is_counted),
        IN_WORLD(the_file_is_whole_after_each_write),
        IN_WORLD(a_full_disk_ends_the_timeline_and_leaves_it_whole),
        IN_WORLD(a_file_keeps_what_it_has_until_something_is_written),
        IN_WORLD(a_pipe_gets_the_same_events),
        IN_WORLD(a_thread_writes_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
