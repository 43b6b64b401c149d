#include "src/rope.h"

#include "kernels/arith.h"

#include <math.h>

// The dimension whose wavelength makes `turns` turns over the original context.
static double dim_of(const struct config *c, double turns) {
    return c->rope_dim * log(c->yarn_original_positions / (turns * 2 * 3.14159265358979323846)) /
           (2 * log(c->compress_rope_theta));
}

void rope_frequencies(const struct config *c, bool compressed, float *theta) {
    uint32_t r = c->rope_dim;
    double base = compressed ? c->compress_rope_theta : c->rope_theta;
    for (uint32_t i = 0; i < r / 2; i++) {
        float exponent = (float)(2 * i) / (float)r;
        theta[i] = 1.0f / (float)arith_pow(base, exponent);
    }
    if (!compressed)
        return;
    double low = floor(dim_of(c, c->yarn_beta_fast));
    double high = ceil(dim_of(c, c->yarn_beta_slow));
    low = low < 0 ? 0 : low;
    high = high > r - 1 ? r - 1 : high;
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < r / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        theta[i] = theta[i] / (float)c->yarn_factor * ramp + theta[i] * (1.0f - ramp);
    }
}
