/* The engine against what the publisher's code computes. Without arguments: cmocka tests on the
 * committed checkpoint. With a directory: a table of every comparison that it allows. */
#include "tests/support/golden.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define MINI "tests/data/golden"

static const uint32_t chunks[] = { 300, 1, 7, 64 };
#define N_CHUNKS (sizeof chunks / sizeof *chunks)

static void check(enum golden_mode mode, uint32_t chunk) {
    struct golden_result result;
    struct err err = { .status = OK };
    if (golden_run(MINI, mode, chunk, &result, &err) != OK)
        fail_msg("%s", err.text);
    const char *verdict = golden_verdict(mode, &result);
    if (verdict)
        fail_msg("chunks of %u: %s", chunk, verdict);
}

static void exact_mode_agrees_end_to_end(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CHUNKS; i++)
        check(GOLDEN_EXACT, chunks[i]);
}

static void each_quantized_layer_agrees(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CHUNKS; i++)
        check(GOLDEN_LAYERS, chunks[i]);
}

static void print_rows(const struct golden_result *r) {
    printf("  %-24s %9s %10s %10s %9s\n", "", "positions", "median", "largest", "< 1e-5");
    for (uint32_t i = 0; i < r->n_rows; i++)
        printf("  %-24s %9u %10.2e %10.2e %8.1f%%\n", r->rows[i].name, r->rows[i].n,
               r->rows[i].median, r->rows[i].largest, 100 * r->rows[i].share_1e5);
}

static int table(const char *dir) {
    static const char *const titles[] = { "1. exact, end to end (must agree)",
                                          "2. quantized, layer by layer (must agree)",
                                          "3. quantized, end to end (reported)",
                                          "4. against the publisher's bf16 (reported)" };
    int passed = 0, failed = 0;
    for (int mode = GOLDEN_EXACT; mode <= GOLDEN_BF16; mode++)
        for (size_t i = 0; i < (mode <= GOLDEN_LAYERS ? N_CHUNKS : 1); i++) {
            struct golden_result r;
            struct err err = { .status = OK };
            enum status status = golden_run(dir, (enum golden_mode)mode, chunks[i], &r, &err);
            if (status == ERR_MISSING && mode != GOLDEN_EXACT && mode != GOLDEN_LAYERS) {
                printf("\n%s: skipped: %s\n", titles[mode], err.text);
                continue;
            }
            if (status != OK) {
                printf("\n%s: %s\n", titles[mode], err.text);
                failed++;
                continue;
            }
            const char *verdict = golden_verdict((enum golden_mode)mode, &r);
            printf("\n%s, chunks of %u: %s\n", titles[mode], chunks[i],
                   verdict                 ? verdict
                   : mode <= GOLDEN_LAYERS ? "agrees"
                                           : "see below");
            if (i == 0)
                print_rows(&r);
            printf("  layers: median %.2e, largest %.2e, %.1f%% < 1e-5; sets %.2f%% equal of %llu; "
                   "routing weights within %.1e; most likely token %.1f%%\n",
                   r.median, r.largest, 100 * r.share_1e5,
                   100.0 * (double)r.sets_equal / (double)r.sets, (unsigned long long)r.sets,
                   r.weights_largest, 100 * r.top1);
            passed += verdict == NULL;
            failed += verdict != NULL;
        }
    printf("\n%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return table(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_mode_agrees_end_to_end),
        cmocka_unit_test(each_quantized_layer_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
