#include "tools/turns.h"

#include <assert.h>
#include <stdlib.h>

struct turn {
    struct text_buffer kept;
    bool ended;
};

enum status turns_open(struct turns *t, uint32_t n, const struct turns_stage *stage,
                       struct err *err) {
    *t = (struct turns){ .stage = *stage, .n = n };
    t->texts = calloc(n, sizeof *t->texts);
    return t->texts ? OK : err_set(err, ERR_MEMORY, "no memory for %u answers", n);
}

void turns_close(struct turns *t) {
    for (uint32_t i = 0; t->texts && i < t->n; i++)
        text_buffer_free(&t->texts[i].kept);
    free(t->texts);
    *t = (struct turns){ .texts = NULL };
}

static enum status show(struct turns *t, const char *text, size_t n_bytes, struct err *err) {
    enum status status = OK;
    if (!t->begun)
        status = t->stage.begin(t->stage.context, t->now, err);
    t->begun = true;
    if (status == OK && n_bytes > 0)
        status = t->stage.take(t->stage.context, t->now, text, n_bytes, err);
    t->failed |= status != OK;
    return status;
}

enum status turns_take(struct turns *t, uint32_t which, const char *text, size_t n_bytes,
                       struct err *err) {
    assert(which < t->n && !t->texts[which].ended);
    if (t->failed)
        return OK;
    if (which == t->now)
        return show(t, text, n_bytes, err);
    text_buffer_append(&t->texts[which].kept, text, n_bytes);
    return text_buffer_status(&t->texts[which].kept, err);
}

// Through those that have ended, and into the one that has not.
enum status turns_end(struct turns *t, uint32_t which, struct err *err) {
    assert(which < t->n && !t->texts[which].ended);
    t->texts[which].ended = true;
    enum status status = OK;
    while (status == OK && !t->failed && t->now < t->n) {
        struct turn *text = &t->texts[t->now];
        if (text->ended || text->kept.n_bytes)
            status = show(t, text->kept.bytes, text->kept.n_bytes, err);
        text_buffer_free(&text->kept);
        if (status != OK || !text->ended)
            break;
        status = t->stage.end(t->stage.context, t->now++, err);
        t->failed |= status != OK;
        t->begun = false;
    }
    return status;
}
