#include "io/small_file.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum status tokenizer_open(struct tokenizer **out, const char *path, struct err *err) {
    *out = NULL;
    char *text;
    size_t n_bytes;
    enum status s = small_file_read(path, TOKENIZER_MAX_FILE_BYTES, &text, &n_bytes, err);
    if (s == OK)
        s = tokenizer_parse(out, text, n_bytes, path, err);
    free(text);
    return s;
}

void tokenizer_close(struct tokenizer *t) {
    if (!t)
        return;
    pretokenizer_close(t->pretokenizer);
    bpe_close(&t->bpe);
    for (int c = 0; c < N_ADDED_CLASSES; c++)
        added_close(&t->added[c]);
    free(t->word);
    free(t->token);
    free(t->bytes);
    free(t->path);
    free(t);
}

uint32_t tokenizer_n_ids(const struct tokenizer *t) {
    return t->n_ids;
}

size_t tokenizer_longest_token(const struct tokenizer *t) {
    return t->longest;
}

bool tokenizer_added_id(const struct tokenizer *t, const char *content, uint32_t *id) {
    for (int c = 0; c < N_ADDED_CLASSES; c++) {
        const struct added_token *found = added_find(&t->added[c], content, strlen(content));
        if (found) {
            *id = found->id;
            return true;
        }
    }
    return false;
}

const char *tokenizer_token_bytes(const struct tokenizer *t, uint32_t id, size_t *n_bytes) {
    bool used = id < t->n_ids && t->token[id].kind != TOKEN_UNUSED;
    *n_bytes = used ? t->token[id].n_bytes : 0;
    return used ? t->bytes + t->token[id].offset : NULL;
}

bool tokenizer_is_special(const struct tokenizer *t, uint32_t id) {
    return id < t->n_ids && t->token[id].kind == TOKEN_SPECIAL;
}

uint32_t tokenizer_word_id(const struct tokenizer *t, const char *bytes, size_t n_bytes) {
    if (!t->word)
        return BPE_NONE;
    uint32_t i = (uint32_t)XXH3_64bits(bytes, n_bytes) & t->word_mask;
    for (; t->word[i] != BPE_NONE; i = (i + 1) & t->word_mask) {
        const struct token *token = &t->token[t->word[i]];
        if (token->n_bytes == n_bytes && !memcmp(t->bytes + token->offset, bytes, n_bytes))
            return t->word[i];
    }
    return BPE_NONE;
}

/* ---- lists of ids ---- */

static enum status token_ids_append(struct token_ids *ids, const uint32_t *id, size_t n,
                                    struct err *err) {
    if (ids->capacity - ids->n < n) {
        size_t capacity = ids->capacity ? ids->capacity : 256;
        while (capacity - ids->n < n)
            capacity *= 2;
        uint32_t *bigger = realloc(ids->id, capacity * sizeof *bigger);
        if (!bigger)
            return err_set(err, ERR_MEMORY, "no memory for %zu tokens", capacity);
        ids->id = bigger;
        ids->capacity = capacity;
    }
    memcpy(ids->id + ids->n, id, n * sizeof *id);
    ids->n += n;
    return OK;
}

enum status token_ids_push(struct token_ids *ids, uint32_t id, struct err *err) {
    return token_ids_append(ids, &id, 1, err);
}

void token_ids_free(struct token_ids *ids) {
    free(ids->id);
    *ids = (struct token_ids){ .id = NULL };
}

/* ---- encoding ---- */

/* A piece whose ids are known: most of a text is words that came before. One cache line. */
#define WORD_MAX_BYTES 30
#define WORD_MAX_IDS   8
struct word {
    uint8_t n_bytes; /* 0: the slot is free */
    uint8_t n_ids;
    char bytes[WORD_MAX_BYTES];
    uint32_t id[WORD_MAX_IDS];
};

/* 2 MB: the distinct words of a book; beyond the second-level cache it would not pay. */
#define MAX_WORDS 32768

/* One call of tokenizer_encode. */
struct encoder {
    const struct tokenizer *t;
    struct token_ids *out;
    struct pretokenize_scratch *pretokenize;
    struct bpe_scratch *bpe;
    struct word *word;
    uint32_t word_mask;
};

static enum status encoder_open(struct encoder *e, const struct tokenizer *t, struct token_ids *out,
                                size_t text_bytes, struct err *err) {
    *e = (struct encoder){ .t = t, .out = out, .word_mask = 63 };
    while (e->word_mask + 1 < MAX_WORDS && (e->word_mask + 1) * (size_t)16 < text_bytes)
        e->word_mask = e->word_mask * 2 + 1;
    enum status s = pretokenize_scratch_open(&e->pretokenize, text_bytes, err);
    if (s == OK)
        s = bpe_scratch_open(&e->bpe, &t->bpe, err);
    if (s != OK)
        return s;
    e->word = calloc((size_t)e->word_mask + 1, sizeof *e->word);
    return e->word ? OK : err_set(err, ERR_MEMORY, "no memory to encode a text");
}

static void encoder_close(struct encoder *e) {
    pretokenize_scratch_close(e->pretokenize);
    bpe_scratch_close(e->bpe);
    free(e->word);
}

static enum status encode_piece(void *user, const char *piece, size_t n_bytes, struct err *err) {
    struct encoder *e = user;
    struct word *w = NULL;
    if (n_bytes <= WORD_MAX_BYTES) {
        w = &e->word[(uint32_t)XXH3_64bits(piece, n_bytes) & e->word_mask];
        if (w->n_bytes == n_bytes && !memcmp(w->bytes, piece, n_bytes))
            return token_ids_append(e->out, w->id, w->n_ids, err);
    }
    const uint32_t *ids;
    size_t n_ids = 1;
    uint32_t whole = tokenizer_word_id(e->t, piece, n_bytes);
    if (whole != BPE_NONE) {
        ids = &whole;
    } else {
        enum status s = bpe_encode(e->bpe, piece, n_bytes, &ids, &n_ids, err);
        if (s != OK)
            return s;
    }
    if (w && n_ids <= WORD_MAX_IDS) {
        w->n_bytes = (uint8_t)n_bytes;
        w->n_ids = (uint8_t)n_ids;
        memcpy(w->bytes, piece, n_bytes);
        memcpy(w->id, ids, n_ids * sizeof *ids);
    }
    return token_ids_append(e->out, ids, n_ids, err);
}

/* Added tokens of this class and those after it, then the text between them. */
static enum status encode_text(struct encoder *e, int added_class, const char *text, size_t n_bytes,
                               struct err *err) {
    if (added_class == N_ADDED_CLASSES)
        return pretokenize(e->t->pretokenizer, e->pretokenize, text, n_bytes, encode_piece, e, err);
    enum status s = OK;
    for (size_t at = 0; s == OK && at < n_bytes;) {
        size_t begins = n_bytes;
        const struct added_token *token =
            added_next(&e->t->added[added_class], text, n_bytes, at, &begins);
        s = encode_text(e, added_class + 1, text + at, begins - at, err);
        at = begins;
        if (s == OK && token) {
            s = token_ids_push(e->out, token->id, err);
            at += token->n_bytes;
        }
    }
    return s;
}

/* A copy with U+FFFD for what is not UTF-8; at most three times as long. */
static char *replace_broken(const char *text, size_t n_bytes, size_t *n_copy) {
    size_t n = 0, n_broken = 0;
    for (size_t at = 0; at < n_bytes; n_broken++) {
        at += utf8_valid_bytes(text + at, n_bytes - at);
        at += at < n_bytes ? utf8_next(text + at, n_bytes - at).bytes : 0;
    }
    char *copy = malloc(n_bytes + n_broken * (sizeof UTF8_REPLACEMENT - 1));
    for (size_t at = 0; copy && at < n_bytes;) {
        size_t good = utf8_valid_bytes(text + at, n_bytes - at);
        memcpy(copy + n, text + at, good);
        n += good;
        at += good;
        if (at < n_bytes) {
            memcpy(copy + n, UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1);
            n += sizeof UTF8_REPLACEMENT - 1;
            at += utf8_next(text + at, n_bytes - at).bytes;
        }
    }
    *n_copy = n;
    return copy;
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes,
                             enum tokenizer_mode mode, struct token_ids *out, struct err *err) {
    if (n_bytes > TOKENIZER_MAX_TEXT_BYTES)
        return err_set(err, ERR_INPUT, "a text of %zu bytes is too long to encode: at most %zu",
                       n_bytes, TOKENIZER_MAX_TEXT_BYTES);
    char *copy = NULL;
    if (utf8_valid_bytes(text, n_bytes) < n_bytes) {
        text = copy = replace_broken(text, n_bytes, &n_bytes);
        if (!copy)
            return err_set(err, ERR_MEMORY, "no memory to encode a text");
    }
    size_t n_before = out->n;
    struct encoder e;
    enum status s = encoder_open(&e, t, out, n_bytes, err);
    if (s == OK)
        s = encode_text(&e, mode == TOKENIZER_ADDED ? 0 : N_ADDED_CLASSES, text, n_bytes, err);
    if (s != OK)
        out->n = n_before;
    encoder_close(&e);
    free(copy);
    return s;
}
