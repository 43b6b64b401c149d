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

static void the_text_says_what_to_do(void **state) {
    (void)state;
    struct clock_virtual clock;
    struct account a;
    struct account_report r;
    char text[8192], small[64];
    fill(&a, &clock);
    account_report(&a, NULL, NULL, &r);
    r.n_slots = 10;
    r.n_experts = 100;
    r.slots.demanded = 200;
    r.slots.misses = 150;
    r.slots.hits = 50;
    r.reader.bytes[READ_DEMAND] = 500000000;
    r.reader.busy_ns = 500 * MS;
    size_t n = account_text(&r, text, sizeof text);
    assert_int_equal(n, strlen(text));
    assert_non_null(strstr(text, "100.0 %"));
    assert_null(strstr(text, "kept"));
    assert_non_null(strstr(text, "waited 86 % of the time for the disk, which gave 1.00 GB/s"));
    assert_non_null(strstr(text, "more --ram (10 slots hold 10 % of the experts)"));
    assert_int_equal(account_text(&r, small, sizeof small), n); // cut, and says how long it is
    assert_int_equal(strlen(small), sizeof small - 1);
    r.account.time_ns[PHASE_PREFILL][ACTIVITY_WAIT] = 0;
    r.account.kept = 321;
    account_text(&r, text, sizeof text);
    assert_non_null(strstr(text, "kept          321 tokens of prompts"));
    assert_non_null(strstr(text, "the disk is not what limits this run"));
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
        cmocka_unit_test(the_text_says_what_to_do),
        cmocka_unit_test(the_json_holds_the_same_numbers),
        cmocka_unit_test(the_kernel_s_own_figures_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
