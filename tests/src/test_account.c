#include "src/account.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS 1000000ull

static void fill(struct account *a, struct clock_virtual *clock) {
    clock_virtual_init(clock);
    account_start(a, &clock->clock);
    account_enter(a, ACTIVITY_LOAD);
    clock_virtual_advance(clock, 300 * MS);
    account_phase(a, PHASE_PREFILL);
    account_enter(a, ACTIVITY_ATTENTION);
    clock_virtual_advance(clock, 50 * MS);
    account_enter(a, ACTIVITY_WAIT);
    clock_virtual_advance(clock, 600 * MS);
    account_phase(a, PHASE_DECODE);
    assert_int_equal(account_enter(a, ACTIVITY_EXPERTS), ACTIVITY_WAIT);
    clock_virtual_advance(clock, 50 * MS);
    a->tokens[PHASE_PREFILL] = 100;
    a->steps[PHASE_PREFILL] = 1;
    a->tokens[PHASE_DECODE] = a->steps[PHASE_DECODE] = 5;
}

static void every_moment_is_charged_once(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    fill(&a, &clock);
    account_report(&a, NULL, NULL, &r);
    assert_int_equal(r.total_ns, 1000 * MS);
    uint64_t sum = 0;
    for (int p = 0; p < PHASES; p++)
        for (int i = 0; i < ACTIVITIES; i++)
            sum += r.account.time_ns[p][i];
    assert_int_equal(sum, r.total_ns);
    assert_int_equal(r.account.time_ns[PHASE_LOAD][ACTIVITY_LOAD], 300 * MS);
    assert_int_equal(r.account.time_ns[PHASE_PREFILL][ACTIVITY_WAIT], 600 * MS);
    assert_int_equal(r.account.time_ns[PHASE_DECODE][ACTIVITY_EXPERTS], 50 * MS); // still open
}

static void a_pause_is_nobodys_time(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    fill(&a, &clock);
    account_pause(&a);
    clock_virtual_advance(&clock, 5000 * MS);
    account_resume(&a);
    clock_virtual_advance(&clock, 7 * MS);
    account_report(&a, NULL, NULL, &r);
    assert_int_equal(r.total_ns, 1007 * MS);
    assert_int_equal(r.account.time_ns[PHASE_DECODE][ACTIVITY_EXPERTS], 57 * MS);
}

static void which_expert_is_computed_is_for_the_trace(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct trace *trace;
    struct trace_event event;
    uint32_t experts[5], activities[5];
    assert_int_equal(trace_open(&trace, 16, NULL), OK);
    clock_virtual_init(&clock);
    account_start(&a, &clock.clock);
    account_trace(&a, trace);
    account_enter(&a, ACTIVITY_EXPERTS);
    clock_virtual_advance(&clock, 5 * MS);
    account_expert(&a, 77);
    clock_virtual_advance(&clock, 3 * MS);
    account_expert(&a, 12);
    clock_virtual_advance(&clock, 2 * MS);
    account_enter(&a, ACTIVITY_WAIT);
    for (int i = 0; i < 5; i++) {
        assert_true(trace_take(trace, TRACE_CONTROL, &event));
        experts[i] = event.is.place.expert;
        activities[i] = event.is.place.activity;
    }
    assert_false(trace_take(trace, TRACE_CONTROL, &event));
    assert_int_equal(activities[0], ACTIVITY_OTHER);
    assert_true(activities[1] == ACTIVITY_EXPERTS && experts[1] == TRACE_NOWHERE);
    assert_true(activities[2] == ACTIVITY_EXPERTS && experts[2] == 77);
    assert_true(activities[3] == ACTIVITY_EXPERTS && experts[3] == 12);
    assert_true(activities[4] == ACTIVITY_WAIT && experts[4] == TRACE_NOWHERE);
    assert_int_equal(a.time_ns[PHASE_LOAD][ACTIVITY_EXPERTS], 10 * MS); // they are one activity
    trace_close(trace);
}

static void the_text_is_cut_where_there_is_no_room(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    char text[8192], small[64];
    fill(&a, &clock);
    account_report(&a, NULL, NULL, &r);
    size_t n = account_text(&r, text, sizeof text);
    assert_int_equal(n, strlen(text));
    assert_non_null(strstr(text, "100.0 %"));
    assert_null(strstr(text, "kept"));
    assert_int_equal(account_text(&r, small, sizeof small), n); // and says how long it is
    assert_int_equal(strlen(small), sizeof small - 1);
    r.account.kept = 321;
    account_text(&r, text, sizeof text);
    assert_non_null(strstr(text, "kept          321 tokens of prompts"));
}

// --- the last line -------------------------------------------------------------------------------

// Ten seconds of decoding, seven of them waiting for a disk that works all the while, with a cache of
// 100 of 10,000 experts of 32 MiB that has turned over five times.
static struct account_report busy_run(void) {
    struct account_report r = { .n_slots = 100, .n_experts = 10000, .slot_bytes = 32 << 20 };
    struct account *a = &r.account;
    a->time_ns[PHASE_LOAD][ACTIVITY_LOAD] = 5000 * MS;
    a->time_ns[PHASE_DECODE][ACTIVITY_WAIT] = 7000 * MS;
    a->time_ns[PHASE_DECODE][ACTIVITY_EXPERTS] = 2000 * MS;
    a->time_ns[PHASE_DECODE][ACTIVITY_ATTENTION] = 1000 * MS;
    a->tokens[PHASE_DECODE] = a->steps[PHASE_DECODE] = 20;
    r.slots = (struct slots_stats){
        .demanded = 1000, .hits = 400, .joined = 0, .misses = 600, .evicted = 500
    };
    r.reader.busy_ns = 7000 * MS;
    r.reader.bytes[READ_DEMAND] = 21000000000;
    r.total_ns = 15000 * MS;
    return r;
}

static void assert_verdict(const struct account_report *r, const char *want) {
    char text[8192];
    size_t n = account_text(r, text, sizeof text);
    assert_true(n < sizeof text && text[n - 1] == '\n');
    text[n - 1] = '\0';
    assert_string_equal(strrchr(text, '\n') + 1, want);
}

static void waiting_for_a_busy_disk_wants_drives_or_memory(void **state) {
    (void)state;
    struct account_report r = busy_run();
    assert_verdict(&r, "waited 70 % of the time for the disk, which gave 3.00 GB/s while 60 % of "
                       "the experts were missed: drives twice as fast would save up to 35 % of the "
                       "time; each GiB more of --ram holds 32 of the 9900 experts that have no "
                       "place in memory (99 %)");
    r.n_experts = 200; // little is missing: 100 of 32 MiB
    assert_verdict(&r, "waited 70 % of the time for the disk, which gave 3.00 GB/s while 60 % of "
                       "the experts were missed: drives twice as fast would save up to 35 % of the "
                       "time; 3.2 GiB more --ram would hold all experts (now 50 %)");
}

static void an_idle_disk_is_not_to_blame_for_a_wait(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.reader.busy_ns = 2100 * MS;
    assert_verdict(&r,
                   "waited 70 % of the time for the disk, which gave 10.00 GB/s, but was at "
                   "work for 2.10 s of the 7.00 s: it is not the drive that is slow here but "
                   "what asks it, often a machine busy with something else; --trace shows where");
}

static void a_cold_cache_is_no_reason_to_buy(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.slots.evicted = 0;
    assert_verdict(&r,
                   "waited 70 % of the time for the disk, which gave 3.00 GB/s, while the cache "
                   "was filling (100 % of the reads found an empty slot): a longer run waits less");
    r.slots.evicted = 150; // a quarter of what was read
    assert_verdict(&r,
                   "waited 70 % of the time for the disk, which gave 3.00 GB/s, while the cache "
                   "was filling (75 % of the reads found an empty slot): a longer run waits less");
    r.slots.evicted = 0;
    r.n_slots = r.n_experts = 800;
    assert_verdict(&r,
                   "waited 70 % of the time for the disk, which gave 3.00 GB/s, while the cache "
                   "was filling (100 % of the reads found an empty slot): it holds every expert, "
                   "so a longer run waits less");
}

static void a_cache_below_one_step_is_told_what_it_lacks(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.slots =
        (struct slots_stats){ .demanded = 4000, .hits = 120, .misses = 3880, .evicted = 3780 };
    assert_verdict(&r,
                   "waited 70 % of the time for the disk, which gave 3.00 GB/s; the cache is too "
                   "small to help: a step wants 200 experts, it has 100 slots, and 97 % were "
                   "missed: at least 3.2 GiB more --ram is needed for experts to be found again");
}

static void dense_weights_without_room_want_memory(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.account.time_ns[PHASE_DECODE][ACTIVITY_WAIT] = 3000 * MS;
    r.account.time_ns[PHASE_DECODE][ACTIVITY_WAIT_DENSE] = 4000 * MS;
    r.dense_bytes = 2700000000;
    r.dense_streamed_bytes = 700000000;
    r.dense_missing_bytes = 3ull << 29;
    r.dense_read_bytes = 14000000000;
    assert_verdict(&r, "waited 70 % of the time for the disk, which gave 3.00 GB/s, and most of "
                       "what was read (67 %) are dense weights, 0.70 GB for every step: 1.6 GiB "
                       "more --ram would hold them");
    char text[8192];
    account_text(&r, text, sizeof text);
    assert_non_null(strstr(text, "waiting for dense"));
    assert_non_null(strstr(text, "dense    0.70 of 2.70 GB stay on disk and are read for every "
                                 "step; 14.000 GB read, 66.7 % of all\n"));
    r = busy_run();
    account_text(&r, text, sizeof text);
    assert_null(strstr(text, "dense")); // of what there is none of, not a word
}

static void prefill_in_many_steps_wants_a_larger_chunk(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.account.time_ns[PHASE_PREFILL][ACTIVITY_WAIT] = 8000 * MS;
    r.account.tokens[PHASE_PREFILL] = 2048;
    r.account.steps[PHASE_PREFILL] = 4;
    r.reader.busy_ns = 14000 * MS;
    assert_verdict(&r,
                   "waited 83 % of the time for the disk, which gave 1.50 GB/s, most of it in 4 "
                   "steps of prefill that each read their experts anew: a larger --chunk (512 "
                   "tokens a step were used) reads them less often");
}

static void arithmetic_that_limits_is_named(void **state) {
    (void)state;
    struct account_report r = busy_run();
    r.account.time_ns[PHASE_DECODE][ACTIVITY_WAIT] = 300 * MS;
    assert_verdict(&r, "the disk is not what limits this run: 9 % of the time went to waiting for "
                       "it, 61 % to experts: more or faster cores would help, a faster drive would "
                       "not");
    r.account.time_ns[PHASE_PREFILL][ACTIVITY_ATTENTION] = 4000 * MS;
    assert_verdict(&r, "the disk is not what limits this run: 4 % of the time went to waiting for "
                       "it, 68 % to attention: more or faster cores would help, a faster drive "
                       "would not");
    r.account.time_ns[PHASE_DECODE][ACTIVITY_OTHER] = 9000 * MS;
    assert_verdict(&r, "the disk is not what limits this run: 2 % of the time went to waiting for "
                       "it, 55 % to other: something outside the model, such as a slow reader of "
                       "the text");
}

static void a_tiny_run_is_not_judged(void **state) {
    (void)state;
    struct account_report r = busy_run();
    memset(r.account.time_ns[PHASE_DECODE], 0, sizeof r.account.time_ns[PHASE_DECODE]);
    r.account.time_ns[PHASE_DECODE][ACTIVITY_WAIT] = 60 * MS;
    assert_verdict(&r, "0.06 s after 5.00 s of loading are too short to say what limits this "
                       "machine: give it more to do");
}

static void the_json_holds_the_same_numbers(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    fill(&a, &clock);
    account_report(&a, NULL, NULL, &r);
    r.slots.misses = 150;
    r.account.kept = 321;
    char *text = account_json(&r);
    assert_non_null(text);
    json_t *root = json_loads(text, 0, NULL), *phases = json_object_get(root, "phases");
    assert_non_null(root);
    double sum = 0, seconds;
    const char *name, *activity;
    json_t *phase, *value;
    json_object_foreach(phases, name, phase)
        json_object_foreach(json_object_get(phase, "activity_seconds"), activity, value) sum +=
        json_real_value(value);
    seconds = json_real_value(json_object_get(root, "seconds"));
    assert_true(sum > seconds - 1e-9 && sum < seconds + 1e-9);
    assert_int_equal(json_integer_value(json_object_get(root, "kept_tokens")), 321);
    json_t *experts = json_object_get(root, "experts");
    assert_int_equal(json_integer_value(json_object_get(experts, "misses")), 150);
    phase = json_object_get(phases, "decode");
    assert_int_equal(json_integer_value(json_object_get(phase, "tokens")), 5);
    json_decref(root);
    free(text);
}

static void what_was_read_ahead_is_told(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    char text[8192];
    fill(&a, &clock);
    account_report(&a, NULL, NULL, &r);
    account_text(&r, text, sizeof text);
    assert_null(strstr(text, "prefetch")); // nothing was
    struct prefetch_count counts[2 * PREFETCH_KINDS] = { 0 };
    counts[PREFETCH_BY_HASH] = (struct prefetch_count){
        .wanted = 20, .predicted = 20, .right = 20, .read = 10, .used = 9, .lost = 1
    };
    counts[PREFETCH_BY_GATE] = (struct prefetch_count){ .steps = 5,
                                                        .suspended = 3,
                                                        .wanted = 30,
                                                        .predicted = 20,
                                                        .right = 9,
                                                        .read = 8,
                                                        .used = 5,
                                                        .in_vain = 1,
                                                        .cancelled = 2 };
    counts[PREFETCH_KINDS + PREFETCH_BY_GATE] = (struct prefetch_count){
        .steps = 7, .wanted = 30, .predicted = 20, .right = 15, .read = 8, .used = 5, .in_vain = 3
    };
    r.prefetch = counts;
    r.n_layers = 2;
    account_text(&r, text, sizeof text);
    assert_non_null(strstr(text, "prefetch hash 20 predicted, 100.0 % right, 100.0 % of what was "
                                 "wanted; 10 read, 0.0 % of them in vain, 0 cancelled; gate 40 "
                                 "predicted, 60.0 % right, 40.0 % of what was wanted; 16 read, "
                                 "25.0 % of them in vain, 2 cancelled, suspended 20.0 % of the "
                                 "time\n"));
    assert_null(strstr(text, "sweep"));
    char *json = account_json(&r);
    json_t *root = json_loads(json, 0, NULL), *prefetch = json_object_get(root, "prefetch");
    json_t *gate = json_object_get(prefetch, "gate"), *layers = json_object_get(prefetch, "layers");
    assert_int_equal(json_integer_value(json_object_get(gate, "right")), 24);
    assert_int_equal(json_integer_value(json_object_get(gate, "in_vain")), 4);
    assert_int_equal(json_integer_value(json_object_get(gate, "steps")), 12);
    assert_int_equal(json_integer_value(json_object_get(gate, "suspended")), 3);
    assert_int_equal(json_array_size(layers), 3);
    json_t *last = json_array_get(layers, 2);
    assert_int_equal(json_integer_value(json_object_get(last, "layer")), 1);
    assert_string_equal(json_string_value(json_object_get(last, "kind")), "gate");
    assert_int_equal(json_integer_value(json_object_get(last, "used")), 5);
    json_decref(root);
    free(json);
}

static void the_kernel_s_own_figures_are_read(void **state) {
    (void)state;
    char dir[] = "/tmp/sluice-account.XXXXXX", path[64];
    struct account_report r = { .peak_bytes = 1 };
    assert_non_null(mkdtemp(dir));
    account_process(&r, dir); // nothing there: nothing is said
    assert_int_equal(r.peak_bytes, 0);
    snprintf(path, sizeof path, "%s/status", dir);
    FILE *status = fopen(path, "w");
    fputs("Name:\tsluice\nVmHWM:\t    1000 kB\nVmRSS:\t 900 kB\nHugetlbPages:\t 24 kB\n", status);
    fclose(status);
    snprintf(path, sizeof path, "%s/io", dir);
    FILE *io = fopen(path, "w");
    fputs("rchar: 7\nread_bytes: 8192\nwrite_bytes: 1\n", io);
    fclose(io);
    account_process(&r, dir);
    assert_int_equal(r.peak_bytes, 1024 * 1024);
    assert_int_equal(r.storage_read_bytes, 8192);
    unlink(path);
    snprintf(path, sizeof path, "%s/status", dir);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_moment_is_charged_once),
        cmocka_unit_test(a_pause_is_nobodys_time),
        cmocka_unit_test(which_expert_is_computed_is_for_the_trace),
        cmocka_unit_test(the_text_is_cut_where_there_is_no_room),
        cmocka_unit_test(waiting_for_a_busy_disk_wants_drives_or_memory),
        cmocka_unit_test(an_idle_disk_is_not_to_blame_for_a_wait),
        cmocka_unit_test(a_cold_cache_is_no_reason_to_buy),
        cmocka_unit_test(a_cache_below_one_step_is_told_what_it_lacks),
        cmocka_unit_test(dense_weights_without_room_want_memory),
        cmocka_unit_test(prefill_in_many_steps_wants_a_larger_chunk),
        cmocka_unit_test(arithmetic_that_limits_is_named),
        cmocka_unit_test(a_tiny_run_is_not_judged),
        cmocka_unit_test(the_json_holds_the_same_numbers),
        cmocka_unit_test(what_was_read_ahead_is_told),
        cmocka_unit_test(the_kernel_s_own_figures_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
