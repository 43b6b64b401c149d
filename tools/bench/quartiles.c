#include "tools/bench/quartiles.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(const double *values, size_t n, double share) {
    double place = share * (double)(n - 1);
    size_t i = (size_t)place;
    return i + 1 < n ? values[i] + (values[i + 1] - values[i]) * (place - (double)i) : values[i];
}

struct quartiles quartiles_of(double *values, size_t n) {
    if (n == 0)
        return (struct quartiles){ 0, 0, 0 };
    qsort(values, n, sizeof *values, ascending);
    return (struct quartiles){ at(values, n, 0.25), at(values, n, 0.5), at(values, n, 0.75) };
}
