/* tests/fuzz/fuzz_chat.c - any text as a conversation: what is accepted renders in every mode, keeps
 * to what chat.h says of pieces, and is the same after it was saved and loaded. Any JSON: written
 * and read again it is written the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/chat.h"
#include "src/text/json_text.h"
#include "src/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds) {
    if (!holds)
        abort();
}

static void check_json(struct text input) {
    struct err err = { .status = OK };
    struct json_text j;
    struct text_buffer once = { .bytes = NULL }, twice = { .bytes = NULL };
    const enum status status = json_text_parse(&j, input.bytes, input.n_bytes, "fuzz", &err);
    check(status == err.status && (status == OK) == (err.text[0] == 0));
    if (status != OK)
        return;
    json_text_write(&j, j.values, &once);
    json_text_free(&j);
    check(utf8_valid_bytes(once.bytes, once.n_bytes) == once.n_bytes);
    check(json_text_parse(&j, once.bytes, once.n_bytes, "again", NULL) == OK);
    json_text_write(&j, j.values, &twice);
    check(text_equal(text_buffer_view(&once), text_buffer_view(&twice)));
    json_text_free(&j);
    text_buffer_free(&once);
    text_buffer_free(&twice);
}

static void check_prompt(const struct chat_prompt *p) {
    const char *at = p->text;
    check(p->n_pieces > 0 && p->pieces[0].control);
    for (size_t i = 0; i < p->n_pieces; i++) {
        check(p->pieces[i].text == at && p->pieces[i].n_bytes > 0);
        check(p->pieces[i].control || p->pieces[i - 1].control);
        at += p->pieces[i].n_bytes;
    }
    check(at == p->text + p->n_bytes && *at == 0);
    check(utf8_valid_bytes(p->text, p->n_bytes) == p->n_bytes);
    for (size_t i = 0; i < p->n_messages; i++)
        check(p->message_at[i] <= p->message_at[i + 1]);
    check(p->message_at[p->n_messages] == p->n_bytes);
}

static void check_same(const struct chat *a, const struct chat *b) {
    check(chat_n_messages(a) == chat_n_messages(b));
    for (int i = 0; i < 4; i++) {
        const enum chat_mode mode = i & 1 ? CHAT_MODE_THINKING : CHAT_MODE_CHAT;
        const enum chat_effort effort = i & 2 ? CHAT_EFFORT_MAX : CHAT_EFFORT_NONE;
        struct chat_prompt p, q;
        check(chat_render(a, mode, effort, &p, NULL) == OK);
        check(chat_render(b, mode, effort, &q, NULL) == OK);
        check_prompt(&p);
        check(p.n_bytes == q.n_bytes && !memcmp(p.text, q.text, p.n_bytes));
        chat_prompt_free(&p);
        chat_prompt_free(&q);
    }
}

static void check_chat(struct text input) {
    struct err err = { .status = OK };
    struct chat *c, *loaded;
    struct text_buffer saved = { .bytes = NULL };
    const enum status status = chat_parse(&c, input.bytes, input.n_bytes, "fuzz", &err);
    check(status == err.status && (status == OK) == (err.text[0] == 0));
    check((status == OK) == (c != NULL));
    if (status != OK)
        return;
    check(chat_to_json(c, &saved, NULL) == OK);
    check(chat_parse(&loaded, saved.bytes, saved.n_bytes, "saved", NULL) == OK);
    check_same(c, loaded);
    text_buffer_free(&saved);
    chat_close(loaded);
    chat_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct text input = { (const char *)data, size };
    check_json(input);
    check_chat(input);
    return 0;
}
