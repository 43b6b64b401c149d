#include "src/pace.h"

void pace_init(struct pace *p, uint32_t most) {
    *p = (struct pace){ .most = most, .now = most, .patience = PACE_FIRST, .left = PACE_FIRST };
}

static uint32_t other(const struct pace *p) {
    return p->now > 1 ? 1 : p->most;
}

static void begin_window(struct pace *p, uint64_t now_ns) {
    p->n_tokens = 0;
    p->since_ns = now_ns;
}

static void change(struct pace *p) {
    p->now = other(p);
    p->n_settling = p->n_sequences;
}

static void end_trial(struct pace *p, bool faster) {
    p->trial = false;
    if (faster) {
        p->patience = PACE_FIRST;
    } else {
        change(p);
        p->patience = 2 * p->patience < PACE_LAST ? 2 * p->patience : PACE_LAST;
    }
    p->left = p->patience;
}

static void end_window(struct pace *p, uint64_t now_ns) {
    double cost = (double)(now_ns - p->since_ns) / p->n_tokens;
    if (p->trial) {
        end_trial(p, cost < (1 - PACE_GAIN) * p->before);
    } else if (--p->left == 0) {
        p->before = cost;
        p->trial = true;
        change(p);
    }
    begin_window(p, now_ns);
}

uint32_t pace_tokens(struct pace *p, uint32_t n_tokens, uint32_t n_sequences, uint64_t now_ns) {
    if (n_sequences != p->n_sequences) {
        p->n_sequences = n_sequences;
        p->n_settling = n_sequences;
        if (p->trial) { // of other sequences: it says nothing
            p->trial = false;
            p->now = other(p);
            p->left = p->patience;
        }
        begin_window(p, now_ns);
        return p->now;
    }
    if (p->n_settling > 0) {
        p->n_settling -= n_tokens < p->n_settling ? n_tokens : p->n_settling;
        begin_window(p, now_ns);
        return p->now;
    }
    p->n_tokens += n_tokens;
    if (p->n_tokens >= PACE_WINDOW * n_sequences)
        end_window(p, now_ns);
    return p->now;
}
