/* What prefetch is worth, on a virtual clock: the same figures whatever else the machine does.
 *
 *     build/tests/src/bench_prefetch DIR TOKENS [PREFILL [CACHE…]]
 *
 * Decodes the ids in the file TOKENS (those before the first PREFILL ones, 60, in one step) with the
 * checkpoint in DIR, which should be a trained one, from a modelled disk (virtual_decode.h), while
 * attention and each expert's arithmetic take what the table says, in the time that one expert takes
 * to read. Time a token against --prefetch off, the share of its experts that were there, and reads a
 * token; by the share of the experts that is cached (percent; 5 15 30), with the model's own choice
 * of experts, then with one at random. */
#include "tests/src/virtual_decode.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TOKENS 4096

static void row(struct virtual_decode *d) {
    static const char *const names[] = { "auto", "off", "hash", "gate" };
    static const enum prefetch_mode modes[] = { PREFETCH_OFF, PREFETCH_HASH, PREFETCH_GATE,
                                                PREFETCH_AUTO };
    double off = 0;
    for (int i = 0; i < 4; i++) {
        d->prefetch = modes[i];
        struct virtual_decode_result r = virtual_decode(d);
        off = i == 0 ? r.ns_per_token : off;
        printf("%7s%10.2f%8.2f%5u %%%6s%10.2f%8.3f%6.1f %%%8.2f\n",
               d->n_random ? "random" : "model", d->attention, d->expert, d->slots_percent,
               names[modes[i]], r.ns_per_token / VIRTUAL_UNIT_NS, r.ns_per_token / off,
               100 * r.there, r.reads_per_token);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    static const char *const few[] = { "5", "15", "30" };
    static const double machines[][2] = {
        { 0, 0 }, { 0.2, 0.02 }, { 0.4, 0.02 }, { 1, 0.1 }, { 4, 0.5 }
    };
    static int32_t tokens[MAX_TOKENS];
    struct virtual_decode d = { .tokens = tokens, .n_prefill = 60 };
    FILE *file = argc > 2 ? fopen(argv[2], "re") : NULL;
    while (file && d.n_tokens < MAX_TOKENS && fscanf(file, "%" SCNd32, &tokens[d.n_tokens]) == 1)
        d.n_tokens++;
    if (argc > 3)
        d.n_prefill = (uint32_t)atoi(argv[3]);
    if (!file || d.n_prefill < 1 || d.n_tokens <= d.n_prefill) {
        fprintf(stderr, "bench_prefetch DIR TOKENS [PREFILL [CACHE...]]\n");
        return 2;
    }
    fclose(file);
    d.dir = argv[1];
    const char *const *caches = argc > 4 ? (const char *const *)argv + 4 : few;
    int n_caches = argc > 4 ? argc - 4 : 3;
    printf("%7s%10s%8s%7s%6s%10s%8s%8s%8s\n", "chosen", "attention", "expert", "cache", "mode",
           "time", "to off", "there", "reads");
    for (uint32_t random = 0; random < 2; random++)
        for (size_t m = 0; m < sizeof machines / sizeof *machines; m++)
            for (int c = 0; c < n_caches; c++) {
                d.n_random = random * UINT32_MAX;
                d.slots_percent = (uint32_t)atoi(caches[c]);
                d.attention = machines[m][0];
                d.expert = machines[m][1];
                row(&d);
            }
    return 0;
}
