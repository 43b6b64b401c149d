#include "src/text/answer.h"
#include "src/text/chat_encode.h"
#include "src/text/token_decoder.h"
#include "tools/commands.h"
#include "tools/engine.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void print_ids(const struct token_ids *ids) {
    for (size_t i = 0; i < ids->n; i++)
        printf("%s%u", i ? " " : "", ids->id[i]);
    if (ids->n)
        putchar('\n');
}

static enum status encode(const struct tokenizer *t, bool added, const char *text, size_t n,
                          struct err *err) {
    struct token_ids ids = { 0 };
    enum status status =
        tokenizer_encode(t, text, n, added ? TOKENIZER_ADDED : TOKENIZER_PLAIN, &ids, err);
    if (status == OK)
        print_ids(&ids);
    token_ids_free(&ids);
    return status;
}

// Ids separated by white space.
static enum status parse_ids(const char *name, const char *text, size_t n, struct token_ids *out,
                             struct err *err) {
    for (const char *at = text; err->status == OK;) {
        while (isspace((unsigned char)*at))
            at++;
        if (at == text + n)
            break;
        char *end;
        errno = 0;
        unsigned long id = strtoul(at, &end, 10); // the text ends in a NUL
        if (!isdigit((unsigned char)*at) || (*end && !isspace((unsigned char)*end)) || errno ||
            id > UINT32_MAX) {
            int word = (int)strcspn(at, " \t\r\n\v\f");
            return err_set(err, ERR_INPUT, "%s: byte %zu: not a token id: %.*s", name,
                           (size_t)(at - text), word < 20 ? word : 20, at);
        }
        token_ids_push(out, (uint32_t)id, err);
        at = end;
    }
    return err->status;
}

static enum status decode(const struct tokenizer *t, const char *name, const char *text, size_t n,
                          struct err *err) {
    struct token_decoder decoder;
    struct token_ids ids = { 0 };
    const char *out;
    size_t n_out;
    enum status status = token_decoder_open(&decoder, t, false, err);
    if (status == OK)
        status = parse_ids(name, text, n, &ids, err);
    for (size_t i = 0; i < ids.n && status == OK; i++) {
        out = token_decoder_push(&decoder, ids.id[i], &n_out);
        fwrite(out, 1, n_out, stdout); // main looks whether everything got out
    }
    if (status == OK) {
        out = token_decoder_flush(&decoder, &n_out);
        fwrite(out, 1, n_out, stdout);
    }
    token_ids_free(&ids);
    token_decoder_close(&decoder);
    return status;
}

// Without a tokenizer the prompt's text.
static enum status render(const struct options *o, const struct tokenizer *t, const char *name,
                          const char *text, size_t n, struct err *err) {
    struct chat *chat;
    struct chat_prompt prompt = { 0 };
    struct token_ids ids = { 0 };
    enum status status = chat_parse(&chat, text, n, name, err);
    if (status == OK)
        status = chat_render(chat, o->mode, o->effort, &prompt, err);
    if (status == OK && t)
        status = chat_encode(t, &prompt, 0, &ids, err);
    if (status == OK && t)
        print_ids(&ids);
    else if (status == OK)
        fwrite(prompt.text, 1, prompt.n_bytes, stdout);
    token_ids_free(&ids);
    chat_prompt_free(&prompt);
    chat_close(chat);
    return status;
}

static enum status parse(const struct options *o, const char *text, size_t n, struct err *err) {
    struct answer_parser *parser;
    struct text_buffer json = { 0 };
    enum status status = answer_open(&parser, o->mode, err);
    if (status == OK)
        status = answer_push(parser, text, n, err);
    if (status == OK)
        status = answer_finish(parser, err);
    if (status == OK) {
        struct chat_message message = answer_message(parser);
        status = answer_to_json(&message, &json, err);
    }
    if (status == OK) {
        fwrite(json.bytes, 1, json.n_bytes, stdout);
        putchar('\n');
    }
    text_buffer_free(&json);
    answer_close(parser);
    return status;
}

int cmd_tokenize(const struct options *o) {
    struct model_dirs dirs = { .n = 0 };
    struct tokenizer *tokenizer = NULL;
    struct err err = { .status = OK };
    const char *file = o->operands.n ? o->operands.items[0] : "-";
    const char *name = strcmp(file, "-") == 0 ? "standard input" : file;
    char *text;
    size_t n;
    enum status status = read_text(file, &text, &n, &err);
    if (status == OK && !o->parse && !(o->chat && o->text)) {
        status = model_dirs_open(&dirs, o, &o->models, &err);
        if (status == OK)
            status = find_tokenizer(&dirs, &tokenizer, &err);
    }
    if (status == OK && o->chat)
        render(o, tokenizer, name, text, n, &err);
    else if (status == OK && o->parse)
        parse(o, text, n, &err);
    else if (status == OK && o->decode)
        decode(tokenizer, name, text, n, &err);
    else if (status == OK)
        encode(tokenizer, !o->no_added, text, n, &err);
    tokenizer_close(tokenizer);
    model_dirs_close(&dirs);
    free(text);
    return command_error(o, &err);
}
