#include "tools/conversation.h"

#include "src/text/chat_encode.h"
#include "src/text/token_decoder.h"
#include "src/text/utf8.h"

#include <stdlib.h>
#include <string.h>

void conversation_open(struct conversation *c, struct chat *chat) {
    *c = (struct conversation){ .chat = chat };
}

void conversation_close(struct conversation *c) {
    while (c->n_spoken)
        token_ids_free(&c->spoken[--c->n_spoken].ids);
    free(c->spoken);
    chat_close(c->chat);
    *c = (struct conversation){ .chat = NULL };
}

// --- messages ------------------------------------------------------------------------------------

enum status conversation_say(struct conversation *c, const char *text, size_t n_bytes,
                             struct err *err) {
    struct text_buffer clean = { 0 };
    for (size_t at = 0; at < n_bytes;) {
        size_t n = utf8_valid_bytes(text + at, n_bytes - at);
        text_buffer_append(&clean, text + at, n);
        if ((at += n) == n_bytes)
            break;
        text_buffer_string(&clean, UTF8_REPLACEMENT);
        at += utf8_next(text + at, n_bytes - at).bytes;
    }
    enum status status = text_buffer_status(&clean, err);
    struct chat_message message = { .role = CHAT_USER, .content = text_buffer_view(&clean) };
    if (status == OK)
        status = chat_append(c->chat, &message, err);
    text_buffer_free(&clean);
    return status;
}

enum status conversation_answered(struct conversation *c, const struct chat_message *message,
                                  struct token_ids *ids, struct err *err) {
    if (c->n_spoken == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        struct spoken *larger = realloc(c->spoken, capacity * sizeof *larger);
        if (!larger)
            return err_set(err, ERR_MEMORY, "no memory for another answer");
        c->spoken = larger;
        c->capacity = capacity;
    }
    enum status status = chat_append(c->chat, message, err);
    if (status != OK || ids->n == 0)
        return status;
    c->spoken[c->n_spoken++] =
        (struct spoken){ .message = chat_n_messages(c->chat) - 1, .ids = *ids };
    *ids = (struct token_ids){ 0 };
    return OK;
}

void conversation_truncate(struct conversation *c, size_t n_messages) {
    while (c->n_spoken && c->spoken[c->n_spoken - 1].message >= n_messages)
        token_ids_free(&c->spoken[--c->n_spoken].ids);
    chat_truncate(c->chat, n_messages);
}

enum status conversation_set_system(struct conversation *c, struct text text, struct err *err) {
    size_t before = chat_n_messages(c->chat);
    enum status status = chat_set_system(c->chat, text, err);
    for (size_t i = 0; i < c->n_spoken; i++) // one may have been put before the others
        c->spoken[i].message += chat_n_messages(c->chat) - before;
    return status;
}

static const struct chat_message *last_message(const struct conversation *c) {
    size_t n = chat_n_messages(c->chat);
    return n ? chat_message(c->chat, n - 1) : NULL;
}

enum chat_mode conversation_answer_mode(const struct conversation *c) {
    const struct chat_message *last = last_message(c);
    return last && (last->role == CHAT_ASSISTANT || last->task != CHAT_TASK_NONE) ? CHAT_MODE_CHAT
                                                                                  : c->mode;
}

enum status conversation_check(const struct conversation *c, const char *name, struct err *err) {
    const struct chat_message *last = last_message(c);
    if (!last)
        return err_set(err, ERR_USAGE, "%s: no messages in it", name);
    if (last->role == CHAT_ASSISTANT && !last->without_eos)
        return err_set(err, ERR_USAGE,
                       "%s: its last message is an answer: there is nothing to answer (\"wo_eos\": "
                       "true in it would have it continued)",
                       name);
    if (last->role == CHAT_SYSTEM)
        return err_set(err, ERR_USAGE,
                       "%s: its last message is a system message: nobody has asked anything", name);
    return OK;
}

// --- tokens --------------------------------------------------------------------------------------

// What ids stand for, and where in it each of them begins; SIZE_MAX: within a character.
struct spelling {
    struct text_buffer text;
    size_t *starts; // [n + 1]
};

static enum status spell(const struct tokenizer *t, const struct token_ids *ids,
                         struct spelling *out, struct err *err) {
    struct token_decoder decoder;
    *out = (struct spelling){ .starts = malloc((ids->n + 1) * sizeof *out->starts) };
    enum status status = token_decoder_open(&decoder, t, false, err);
    if (!out->starts)
        status = err_set(err, ERR_MEMORY, "no memory for an answer");
    for (size_t i = 0; i < ids->n && status == OK; i++) {
        size_t n;
        out->starts[i] = decoder.n_waiting ? SIZE_MAX : out->text.n_bytes;
        const char *text = token_decoder_push(&decoder, ids->id[i], &n);
        text_buffer_append(&out->text, text, n);
    }
    if (status == OK) {
        size_t n;
        const char *text = token_decoder_flush(&decoder, &n);
        text_buffer_append(&out->text, text, n);
        out->starts[ids->n] = out->text.n_bytes;
        status = text_buffer_status(&out->text, err);
    }
    token_decoder_close(&decoder);
    return status;
}

/* Append the last ids of an answer that are exactly this text. *found: whether there are any such. */
static enum status push_spoken(const struct tokenizer *t, const struct token_ids *ids,
                               struct text text, bool *found, struct token_ids *out,
                               struct err *err) {
    struct spelling s;
    enum status status = spell(t, ids, &s, err);
    *found = false;
    if (status == OK && s.text.n_bytes >= text.n_bytes) {
        size_t from = s.text.n_bytes - text.n_bytes, first = 0;
        while (first < ids->n && s.starts[first] != from)
            first++;
        *found = s.starts[first] == from && text.n_bytes > 0 &&
                 memcmp(s.text.bytes + from, text.bytes, text.n_bytes) == 0;
        for (size_t i = first; *found && i < ids->n && status == OK; i++)
            status = token_ids_push(out, ids->id[i], err);
    }
    text_buffer_free(&s.text);
    free(s.starts);
    return status;
}

// Where the prompt can be cut without cutting a text: pieces begin there, or it ends.
static bool find_piece(const struct chat_prompt *p, size_t at, size_t *piece) {
    for (*piece = 0; *piece < p->n_pieces; ++*piece)
        if (p->pieces[*piece].text == p->text + at)
            return true;
    return at == p->n_bytes;
}

static enum status encode_between(const struct tokenizer *t, const struct chat_prompt *p,
                                  size_t from, size_t to, struct token_ids *out, struct err *err) {
    struct chat_prompt part = *p;
    size_t end;
    if (from == to || !find_piece(p, to, &end))
        return OK;
    part.n_pieces = end;
    part.n_bytes = to;
    return chat_encode(t, &part, from, out, err);
}

/* The text of an answer in the prompt: all of its message but the EOS. False: it is not cut at pieces,
 * or does not show. */
static bool find_answer(const struct chat_prompt *p, size_t message, size_t *from, size_t *to) {
    size_t first, end;
    *from = p->message_at[message];
    *to = p->message_at[message + 1];
    if (!find_piece(p, *from, &first) || !find_piece(p, *to, &end) || end <= first)
        return false;
    if (p->pieces[end - 1].control) // the EOS: an answer of ours always has it
        *to = (size_t)(p->pieces[end - 1].text - p->text);
    return *to > *from;
}

enum status conversation_prompt(const struct conversation *c, const struct tokenizer *t,
                                struct token_ids *out, struct err *err) {
    struct chat_prompt p;
    size_t at = 0, before = out->n;
    enum status status = chat_render(c->chat, c->mode, c->effort, &p, err);
    if (status != OK)
        return status;
    for (size_t i = 0; i < c->n_spoken && status == OK; i++) {
        size_t from, to;
        bool found = false;
        if (!find_answer(&p, c->spoken[i].message, &from, &to))
            continue;
        struct text text = { p.text + from, to - from };
        status = encode_between(t, &p, at, from, out, err);
        if (status == OK)
            status = push_spoken(t, &c->spoken[i].ids, text, &found, out, err);
        at = status == OK && found ? to : from;
    }
    if (status == OK)
        status = encode_between(t, &p, at, p.n_bytes, out, err);
    if (status != OK)
        out->n = before;
    chat_prompt_free(&p);
    return status;
}
