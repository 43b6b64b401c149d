#include "tools/bench/report.h"

double report_share(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

json_t *report_whole(uint64_t n) {
    return json_integer((json_int_t)n);
}

void report_put(json_t *object, const char *key, json_t *value) {
    json_object_set_new(object, key, value);
}

json_t *report_activities(const uint64_t ns[ACTIVITIES]) {
    json_t *o = json_object();
    for (int a = 0; a < ACTIVITIES; a++)
        report_put(o, activity_name((enum activity)a), json_real((double)ns[a] * 1e-9));
    return o;
}

enum status report_json(json_t *root, FILE *out, struct err *err) {
    // A text that is not UTF-8 is no value: nothing was put in then.
    bool failed = !json_object_get(root, "model") ||
                  json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0;
    json_decref(root);
    fputc('\n', out);
    return failed ? err_set(err, ERR_INPUT,
                            "this cannot be written as JSON (a path that is not UTF-8?)")
                  : OK;
}
