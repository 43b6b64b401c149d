/* src/text/chat_encode.c - see chat_encode.h. */
#include "src/text/chat_encode.h"

#include <assert.h>
#include <string.h>

/* Control tokens are the renderer's, hence short. */
static enum status push_control(const struct tokenizer *t, const struct chat_piece *piece,
                                struct token_ids *out, struct err *err) {
    char content[64];
    uint32_t id;
    assert(piece->n_bytes < sizeof content);
    memcpy(content, piece->text, piece->n_bytes);
    content[piece->n_bytes] = 0;
    if (!tokenizer_added_id(t, content, &id))
        return err_set(err, ERR_INPUT,
                       "the tokenizer has no token \"%s\": the chat format of DeepSeek-V4 needs it",
                       content);
    return token_ids_push(out, id, err);
}

enum status chat_encode(const struct tokenizer *t, const struct chat_prompt *prompt, size_t from,
                        struct token_ids *out, struct err *err) {
    const size_t n_before = out->n;
    const char *begin = prompt->text + from;
    enum status status = OK;
    assert(from <= prompt->n_bytes);
    for (size_t i = 0; i < prompt->n_pieces && status == OK; i++) {
        const struct chat_piece *piece = &prompt->pieces[i];
        const char *end = piece->text + piece->n_bytes;
        const char *text = begin > piece->text ? begin : piece->text;
        if (end <= begin)
            continue;
        assert(!piece->control || text == piece->text);
        status = piece->control
                     ? push_control(t, piece, out, err)
                     : tokenizer_encode(t, text, (size_t)(end - text), TOKENIZER_PLAIN, out, err);
    }
    if (status != OK)
        out->n = n_before;
    return status;
}
