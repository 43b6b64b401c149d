/* tools/bench/report.h - what reports of measurements have in common. */
#ifndef SLUICE_TOOLS_BENCH_REPORT_H
#define SLUICE_TOOLS_BENCH_REPORT_H

#include "io/status.h"
#include "src/account.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* part / whole; 0 of nothing. */
double report_share(double part, double whole);

json_t *report_whole(uint64_t n);
/* Takes the value over. */
void report_put(json_t *object, const char *key, json_t *value);
/* Seconds of each activity, by its name. */
json_t *report_activities(const uint64_t ns[ACTIVITIES]);

/* Print the root, which is released. ERR_INPUT: there is no "model" in it, or it cannot be written. */
enum status report_json(json_t *root, FILE *out, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
