/* Reading ahead pays or is left alone: times of the committed trained model on a virtual clock, from a
 * modelled disk; so these are no measurements but what the rules lead to, the same every time. */
#include "src/text/tokenizer.h"
#include "tests/src/virtual_decode.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL     "models/demo"
#define N_PREFILL 60
#define N_TOKENS  (N_PREFILL + 200)
#define MOST      1.01 // of the time without

static int32_t tokens[N_TOKENS];

static int read_tokens(void **state) {
    (void)state;
    static char text[4 * N_TOKENS];
    struct err err = { .status = OK };
    struct tokenizer *tokenizer;
    struct token_ids ids = { 0 };
    FILE *file = fopen(MODEL "/heldout.txt", "re");
    size_t n = file ? fread(text, 1, sizeof text, file) : 0;
    if (file)
        fclose(file);
    if (tokenizer_open(&tokenizer, MODEL "/tokenizer.json", &err) != OK)
        return -1;
    enum status status = tokenizer_encode(tokenizer, text, n, TOKENIZER_PLAIN, &ids, &err);
    tokenizer_close(tokenizer);
    for (size_t i = 0; i < N_TOKENS && i < ids.n; i++)
        tokens[i] = (int32_t)ids.id[i];
    bool enough = status == OK && ids.n >= N_TOKENS;
    token_ids_free(&ids);
    return enough ? 0 : -1;
}

static struct virtual_decode decode(double attention, uint32_t slots_percent) {
    return (struct virtual_decode){ .dir = MODEL,
                                    .tokens = tokens,
                                    .n_tokens = N_TOKENS,
                                    .n_prefill = N_PREFILL,
                                    .slots_percent = slots_percent,
                                    .prefetch = PREFETCH_AUTO,
                                    .attention = attention,
                                    .expert = attention / 10 };
}

// Time against that of no prefetch.
static double ratio(struct virtual_decode d) {
    double with = virtual_decode(&d).ns_per_token;
    d.prefetch = PREFETCH_OFF;
    return with / virtual_decode(&d).ns_per_token;
}

static double suspended(const struct prefetch_count *c) {
    return (double)c->suspended / (double)(c->steps + c->suspended);
}

// Attention takes from no time to that of four reads; gates that know something, and that know nothing.
static void reading_ahead_never_costs(void **state) {
    (void)state;
    static const double attention[] = { 0, 0.1, 0.3, 1, 4 };
    for (uint32_t random = 0; random < 2; random++)
        for (uint32_t a = 0; a < sizeof attention / sizeof *attention; a++) {
            struct virtual_decode d = decode(attention[a], (a + random) % 2 ? 20 : 5);
            d.n_random = random * UINT32_MAX;
            double r = ratio(d);
            if (r > MOST)
                fail_msg("%s, attention %.1f, %u %%: %.4f", random ? "random" : "model",
                         attention[a], d.slots_percent, r);
        }
}

static void reading_ahead_gains_where_there_is_time_to(void **state) {
    (void)state;
    assert_true(ratio(decode(0.3, 15)) < 0.97);
    assert_true(ratio(decode(1, 15)) < 0.88);
    assert_true(ratio(decode(4, 15)) < 0.88);
}

static void guesses_that_come_to_nothing_are_suspended(void **state) {
    (void)state;
    struct virtual_decode d = decode(1, 15);
    struct virtual_decode_result good = virtual_decode(&d);
    d.n_random = UINT32_MAX;
    struct virtual_decode_result bad = virtual_decode(&d);
    assert_true(suspended(&good.last) < 0.25);
    assert_true(suspended(&bad.last) > 0.75);
    assert_true(bad.last.steps > 0); // tried now and then
    // Where nothing can be hidden the best guess is worth nothing.
    d = decode(0, 15);
    struct virtual_decode_result no_time = virtual_decode(&d);
    assert_true(suspended(&no_time.last) > 0.75);
}

static void they_are_taken_up_again_when_they_are_right(void **state) {
    (void)state;
    struct virtual_decode d = decode(1, 15);
    d.n_random = 50;
    struct virtual_decode_result r = virtual_decode(&d);
    d.n_random = 0;
    struct virtual_decode_result all = virtual_decode(&d);
    assert_true(r.gate.suspended > all.gate.suspended + 50);
    assert_true(suspended(&r.last) < 0.3);
}

static void a_run_is_the_same_every_time(void **state) {
    (void)state;
    struct virtual_decode d = decode(0.3, 15);
    struct virtual_decode_result first = virtual_decode(&d), second = virtual_decode(&d);
    assert_memory_equal(&first, &second, sizeof first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_ahead_never_costs),
        cmocka_unit_test(reading_ahead_gains_where_there_is_time_to),
        cmocka_unit_test(guesses_that_come_to_nothing_are_suspended),
        cmocka_unit_test(they_are_taken_up_again_when_they_are_right),
        cmocka_unit_test(a_run_is_the_same_every_time),
    };
    return cmocka_run_group_tests(tests, read_tokens, NULL);
}
