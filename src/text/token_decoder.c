#include "src/text/token_decoder.h"
#include "src/text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define REPLACEMENT_BYTES 3

enum status token_decoder_open(struct token_decoder *d, const struct tokenizer *t,
                               bool skip_special, struct err *err) {
    *d = (struct token_decoder){ .t = t, .skip_special = skip_special };
    d->input = malloc(token_decoder_longest(d) / REPLACEMENT_BYTES);
    d->text = malloc(token_decoder_longest(d));
    if (d->input && d->text)
        return OK;
    token_decoder_close(d);
    return err_set(err, ERR_MEMORY, "no memory to decode tokens");
}

size_t token_decoder_longest(const struct token_decoder *d) {
    // Each byte may be broken by itself.
    return (tokenizer_longest_token(d->t) + UTF8_MAX_BYTES) * REPLACEMENT_BYTES;
}

void token_decoder_close(struct token_decoder *d) {
    free(d->input);
    free(d->text);
    d->input = NULL;
    d->text = NULL;
}

const char *token_decoder_push(struct token_decoder *d, uint32_t id, size_t *n_bytes) {
    size_t n_token, n_text = 0;
    const char *token = tokenizer_token_bytes(d->t, id, &n_token);
    *n_bytes = 0;
    if (!token || (d->skip_special && tokenizer_is_special(d->t, id)))
        return d->text;
    memcpy(d->input + d->n_waiting, token, n_token);
    size_t n_input = d->n_waiting + n_token;
    d->n_waiting = 0;
    for (size_t at = 0; at < n_input;) {
        struct utf8_step step = utf8_next(d->input + at, n_input - at);
        if (step.kind == UTF8_CUT) { // always the end of the input
            memmove(d->input, d->input + at, step.bytes);
            d->n_waiting = step.bytes;
            break;
        }
        bool good = step.kind == UTF8_CHARACTER;
        size_t n = good ? step.bytes : REPLACEMENT_BYTES;
        memcpy(d->text + n_text, good ? d->input + at : UTF8_REPLACEMENT, n);
        n_text += n;
        at += step.bytes;
    }
    *n_bytes = n_text;
    return d->text;
}

const char *token_decoder_flush(struct token_decoder *d, size_t *n_bytes) {
    *n_bytes = d->n_waiting ? REPLACEMENT_BYTES : 0;
    memcpy(d->text, UTF8_REPLACEMENT, REPLACEMENT_BYTES);
    d->n_waiting = 0;
    return d->text;
}
