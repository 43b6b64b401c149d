#include "src/text/tokenizer_parts.h"
#include "src/text/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* The byte alphabet of GPT-2: bytes that print stand for themselves, the others, in order, for
 * U+0100 and on. Token texts in the file are written in it. */
#define N_ALPHABET (256 + 68)

struct parse {
    struct tokenizer *t;
    const json_t *vocab;         /* token text -> id */
    size_t n_bytes;              /* of t->bytes */
    int16_t byte_of[N_ALPHABET]; /* code point -> byte, or -1 */
    uint32_t letter_of[256];     /* byte -> code point */
    struct err *err;
};

#define REFUSE(p, format, ...)                                                                     \
    err_set((p)->err, ERR_INPUT, "%s: " format, (p)->t->path, __VA_ARGS__)

static enum status no_memory(struct parse *p) {
    return err_set(p->err, ERR_MEMORY, "%s: no memory for this tokenizer", p->t->path);
}

/* A token's text for a message: whole, or its beginning and an ellipsis. */
struct quoted {
    char text[64];
};

static struct quoted quote(const char *text) {
    struct quoted q;
    size_t n = strlen(text), end = n < 48 ? n : 48;
    while (end < n && ((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    snprintf(q.text, sizeof q.text, "%.*s%s", (int)end, text, end < n ? "…" : "");
    return q;
}

/* ---- the vocabulary ---- */

static void alphabet_open(struct parse *p) {
    memset(p->byte_of, -1, sizeof p->byte_of);
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool prints =
            (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        p->letter_of[byte] = prints ? byte : next++;
        p->byte_of[p->letter_of[byte]] = (int16_t)byte;
    }
}

/* Writes the bytes that a token's text stands for; false if it is not in the byte alphabet. */
static bool alphabet_decode(const struct parse *p, const char *text, char *out, uint32_t *n_out) {
    *n_out = 0;
    while (*text) {
        uint32_t n, letter = utf8_decode(text, &n);
        if (letter >= N_ALPHABET || p->byte_of[letter] < 0)
            return false;
        out[(*n_out)++] = (char)p->byte_of[letter];
        text += n;
    }
    return true;
}

/* Room for a token with this id; what lies between is unused. */
static enum status reach_id(struct parse *p, uint32_t id) {
    struct tokenizer *t = p->t;
    if (id < t->n_ids)
        return OK;
    // Doubling, by the number of ids there were: a power of two above it is what is allocated.
    size_t have = 1, need = 1;
    while (have < t->n_ids)
        have *= 2;
    while (need < (size_t)id + 1)
        need *= 2;
    if (!t->token || need > have) {
        struct token *bigger = realloc(t->token, need * sizeof *bigger);
        if (!bigger)
            return no_memory(p);
        t->token = bigger;
    }
    memset(t->token + t->n_ids, 0, ((size_t)id + 1 - t->n_ids) * sizeof *t->token);
    t->n_ids = id + 1;
    return OK;
}

static enum status check_id(struct parse *p, const json_t *id, const char *text, uint32_t *out) {
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value >= TOKENIZER_MAX_IDS)
        return REFUSE(p, "the id of \"%s\" must be a number from 0 to %u", quote(text).text,
                      TOKENIZER_MAX_IDS - 1);
    *out = (uint32_t)value;
    return OK;
}

/* Takes the bytes at the end of t->bytes as a token's. */
static void keep_token(struct parse *p, uint32_t id, enum token_kind kind, uint32_t n_bytes) {
    struct tokenizer *t = p->t;
    t->token[id] = (struct token){ .offset = p->n_bytes, .n_bytes = n_bytes, .kind = kind };
    p->n_bytes += n_bytes;
    if (n_bytes > t->longest)
        t->longest = n_bytes;
}

static enum status read_vocab(struct parse *p) {
    const char *text;
    json_t *value;
    if (!json_is_object(p->vocab))
        return REFUSE(p, "model.vocab must be an %s of token texts and ids", "object");
    json_object_foreach((json_t *)p->vocab, text, value) { // does not change it
        uint32_t id, n_bytes;
        if (check_id(p, value, text, &id) != OK)
            return ERR_INPUT;
        if (!*text)
            return REFUSE(p, "model.vocab: id %u is an empty text", id);
        if (reach_id(p, id) != OK)
            return ERR_MEMORY;
        if (p->t->token[id].kind != TOKEN_UNUSED)
            return REFUSE(p, "model.vocab: two tokens have the id %u, one is \"%s\"", id,
                          quote(text).text);
        // What the letters stand for is shorter than the text, so the room is there.
        char *bytes = p->t->bytes + p->n_bytes;
        bool word = alphabet_decode(p, text, bytes, &n_bytes);
        if (!word) { // "<｜▁pad▁｜>": decodes to its own text
            n_bytes = (uint32_t)strlen(text);
            memcpy(bytes, text, n_bytes);
        }
        keep_token(p, id, word ? TOKEN_WORD : TOKEN_RAW, n_bytes);
    }
    return OK;
}

static enum status read_byte_ids(struct parse *p) {
    for (int byte = 0; byte < 256; byte++) {
        char letter[UTF8_MAX_BYTES + 1] = "";
        utf8_encode(p->letter_of[byte], letter);
        const json_t *id = json_object_get(p->vocab, letter);
        if (!id)
            return REFUSE(p,
                          "model.vocab has no token for the byte 0x%02X (\"%s\"): only "
                          "byte-level BPE is supported",
                          (unsigned)byte, letter);
        p->t->bpe.byte_id[byte] = (uint32_t)json_integer_value(id);
    }
    return OK;
}

/* ---- merges ---- */

/* The two sides of a merge: ["a", "b"], or "a b" as older files have it. `copy` is a buffer for
 * the text of both. */
static bool merge_sides(const json_t *merge, char *copy, size_t capacity, const char **left,
                        const char **right) {
    if (json_is_array(merge)) {
        *left = json_string_value(json_array_get(merge, 0));
        *right = json_string_value(json_array_get(merge, 1));
        return json_array_size(merge) == 2 && *left && *right;
    }
    const char *both = json_string_value(merge);
    if (!both || strlen(both) >= capacity)
        return false;
    strcpy(copy, both);
    char *space = strchr(copy, ' ');
    if (!space || strchr(space + 1, ' '))
        return false;
    *space = '\0';
    *left = copy;
    *right = space + 1;
    return true;
}

static enum status read_merge(struct parse *p, uint32_t rank, const json_t *merge, char *copy,
                              char *joined, size_t capacity) {
    const char *left, *right;
    if (!merge_sides(merge, copy, capacity, &left, &right))
        return REFUSE(p, "model.merges: merge %u is not a pair of tokens", rank);
    const json_t *l = json_object_get(p->vocab, left), *r = json_object_get(p->vocab, right);
    if (!l || !r)
        return REFUSE(p, "model.merges: merge %u is of \"%s\", which is not in model.vocab", rank,
                      quote(l ? right : left).text);
    size_t n_left = strlen(left), n_right = strlen(right);
    if (n_left + n_right < capacity) {
        memcpy(joined, left, n_left);
        memcpy(joined + n_left, right, n_right + 1);
    }
    const json_t *m = n_left + n_right < capacity ? json_object_get(p->vocab, joined) : NULL;
    if (!m)
        return REFUSE(p,
                      "model.merges: merge %u (\"%s\" and \"%s\") makes a token that is not in "
                      "model.vocab",
                      rank, quote(left).text, quote(right).text);
    uint32_t earlier =
        bpe_add_merge(&p->t->bpe, (uint32_t)json_integer_value(l), (uint32_t)json_integer_value(r),
                      (uint32_t)json_integer_value(m));
    if (earlier != BPE_NONE)
        return REFUSE(p, "model.merges: merge %u (\"%s\" and \"%s\") repeats merge %u", rank,
                      quote(left).text, quote(right).text, earlier);
    return OK;
}

static enum status read_merges(struct parse *p, const json_t *merges) {
    size_t n = json_array_size(merges);
    if (!json_is_array(merges) || n > TOKENIZER_MAX_IDS)
        return REFUSE(p, "model.merges must be a list of at most %u merges", TOKENIZER_MAX_IDS);
    // No text in model.vocab is longer than twice the longest token's bytes: the alphabet has
    // letters of two bytes at most, and raw tokens count as they are.
    size_t capacity = 4 * p->t->longest + 2;
    char *copy = malloc(capacity), *joined = malloc(capacity);
    enum status s = copy && joined ? bpe_open(&p->t->bpe, (uint32_t)n, p->err) : no_memory(p);
    if (s == OK)
        s = read_byte_ids(p);
    for (size_t i = 0; s == OK && i < n; i++)
        s = read_merge(p, (uint32_t)i, json_array_get(merges, i), copy, joined, capacity);
    free(copy);
    free(joined);
    return s;
}

/* For ignore_merges: words by their bytes. */
static enum status build_words(struct parse *p) {
    struct tokenizer *t = p->t;
    t->word_mask = 1;
    while (t->word_mask < (uint64_t)t->n_ids * 2)
        t->word_mask = t->word_mask * 2 + 1;
    t->word = malloc(((size_t)t->word_mask + 1) * sizeof *t->word);
    if (!t->word)
        return no_memory(p);
    memset(t->word, 0xFF, ((size_t)t->word_mask + 1) * sizeof *t->word);
    for (uint32_t id = 0; id < t->n_ids; id++) {
        const struct token *token = &t->token[id];
        if (token->kind != TOKEN_WORD)
            continue;
        uint32_t i = (uint32_t)XXH3_64bits(t->bytes + token->offset, token->n_bytes) & t->word_mask;
        while (t->word[i] != BPE_NONE)
            i = (i + 1) & t->word_mask;
        t->word[i] = id;
    }
    return OK;
}

/* ---- model ---- */

/* An optional setting that must not say anything: absent, null, false, 0 or "". */
static enum status must_be_off(struct parse *p, const json_t *model, const char *key) {
    const json_t *v = json_object_get(model, key);
    if (!v || json_is_null(v) || json_is_false(v) ||
        (json_is_number(v) && json_number_value(v) == 0) ||
        (json_is_string(v) && !json_string_length(v)))
        return OK;
    return REFUSE(p, "model.%s is not supported: only plain byte-level BPE is", key);
}

static enum status read_model(struct parse *p, const json_t *model) {
    static const char *const OFF[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix",
                                       "byte_fallback" };
    const json_t *type = json_object_get(model, "type");
    if (!json_is_object(model) ||
        (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE"))))
        return REFUSE(p, "its model is not of type \"%s\", the only one supported", "BPE");
    enum status s = OK;
    for (size_t i = 0; s == OK && i < sizeof OFF / sizeof OFF[0]; i++)
        s = must_be_off(p, model, OFF[i]);
    p->vocab = json_object_get(model, "vocab");
    if (s == OK)
        s = read_vocab(p);
    if (s == OK)
        s = read_merges(p, json_object_get(model, "merges"));
    const json_t *ignore = json_object_get(model, "ignore_merges");
    if (s == OK && ignore && !json_is_null(ignore) && !json_is_boolean(ignore))
        return REFUSE(p, "model.%s must be true or false", "ignore_merges");
    p->t->ignore_merges = json_is_true(ignore);
    return s == OK && p->t->ignore_merges ? build_words(p) : s;
}

/* ---- added tokens ---- */

static enum status added_flag(struct parse *p, const json_t *entry, const char *content,
                              const char *key, bool *value) {
    const json_t *v = json_object_get(entry, key);
    if (v && !json_is_boolean(v))
        return REFUSE(p, "added token \"%s\": \"%s\" must be true or false", quote(content).text,
                      key);
    *value = json_is_true(v);
    return OK;
}

static enum status read_added_token(struct parse *p, size_t index, const json_t *entry,
                                    int *added_class) {
    static const char *const REFUSED[] = { "single_word", "lstrip", "rstrip" };
    const json_t *text = json_object_get(entry, "content");
    const char *content = json_string_value(text);
    size_t n = json_string_length(text);
    uint32_t id;
    bool value, special;
    if (!content || n < 1 || n > ADDED_MAX_BYTES)
        return REFUSE(p, "added_tokens, entry %zu: its content must be a text of 1 to %d bytes",
                      index, ADDED_MAX_BYTES);
    if (check_id(p, json_object_get(entry, "id"), content, &id) != OK)
        return ERR_INPUT;
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        if (added_flag(p, entry, content, REFUSED[i], &value) != OK)
            return ERR_INPUT;
        if (value)
            return REFUSE(p, "added token \"%s\": \"%s\" is not supported", quote(content).text,
                          REFUSED[i]);
    }
    if (added_flag(p, entry, content, "normalized", &value) != OK ||
        added_flag(p, entry, content, "special", &special) != OK)
        return ERR_INPUT;
    *added_class = value ? 1 : 0;
    const json_t *known = json_object_get(p->vocab, content);
    if (known && json_integer_value(known) != id)
        return REFUSE(p, "added token \"%s\" has the id %u, but in model.vocab it has %lld",
                      quote(content).text, id, (long long)json_integer_value(known));
    if (reach_id(p, id) != OK)
        return ERR_MEMORY;
    if (!known && p->t->token[id].kind != TOKEN_UNUSED)
        return REFUSE(p, "added token \"%s\": another token has its id, %u", quote(content).text,
                      id);
    memcpy(p->t->bytes + p->n_bytes, content, n);
    keep_token(p, id, special ? TOKEN_SPECIAL : TOKEN_ADDED, (uint32_t)n);
    struct added_token token = { .content = p->t->bytes + p->t->token[id].offset,
                                 .n_bytes = (uint32_t)n,
                                 .id = id };
    return added_push(&p->t->added[*added_class], token, p->err);
}

static enum status read_added_tokens(struct parse *p, const json_t *list) {
    if (list && !json_is_null(list) && !json_is_array(list))
        return REFUSE(p, "%s must be a list", "added_tokens");
    enum status s = OK;
    int added_class;
    for (size_t i = 0; s == OK && i < json_array_size(list); i++)
        s = read_added_token(p, i, json_array_get(list, i), &added_class);
    for (int c = 0; s == OK && c < N_ADDED_CLASSES; c++) {
        const struct added_token *twice = added_sort(&p->t->added[c]);
        if (twice)
            return REFUSE(p, "added_tokens: the text of id %u stands there twice", twice->id);
    }
    for (uint32_t i = 0; s == OK && i < p->t->added[1].n; i++) {
        const struct added_token *token = &p->t->added[1].token[i];
        if (added_find(&p->t->added[0], token->content, token->n_bytes))
            return REFUSE(p, "added_tokens: the text of id %u stands there twice", token->id);
    }
    return s;
}

/* ---- the file ---- */

/* Text is taken as it is: a normalizer may only be an empty sequence. */
static enum status check_normalizer(struct parse *p, const json_t *normalizer) {
    if (!normalizer || json_is_null(normalizer))
        return OK;
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    const json_t *list = json_object_get(normalizer, "normalizers");
    if (type && !strcmp(type, "Sequence") && json_is_array(list) && !json_array_size(list))
        return OK;
    return REFUSE(p, "its normalizer (%s) is not supported: sluice takes text as it is",
                  type ? quote(type).text : "no type");
}

static enum status check_decoder(struct parse *p, const json_t *decoder) {
    const char *type = json_string_value(json_object_get(decoder, "type"));
    if (type && !strcmp(type, "ByteLevel"))
        return OK;
    return REFUSE(p, "its decoder (%s) is not ByteLevel, the only one supported",
                  type ? quote(type).text : "none");
}

static enum status read_root(struct parse *p, const json_t *root, size_t n_bytes) {
    struct tokenizer *t = p->t;
    alphabet_open(p);
    // Every text that is kept stands in the file, an added token's once more than the vocabulary's.
    t->bytes = malloc(n_bytes + 1);
    if (!t->bytes)
        return no_memory(p);
    enum status s = check_normalizer(p, json_object_get(root, "normalizer"));
    if (s == OK)
        s = check_decoder(p, json_object_get(root, "decoder"));
    if (s == OK)
        s = pretokenizer_open(&t->pretokenizer, json_object_get(root, "pre_tokenizer"), t->path,
                              p->err);
    if (s == OK)
        s = read_model(p, json_object_get(root, "model"));
    return s == OK ? read_added_tokens(p, json_object_get(root, "added_tokens")) : s;
}

enum status tokenizer_parse(struct tokenizer **out, const char *json, size_t n_bytes,
                            const char *path, struct err *err) {
    struct tokenizer *t = *out = calloc(1, sizeof *t);
    json_t *root = NULL;
    json_error_t where;
    enum status s;
    if (!t || !(t->path = strdup(path))) {
        s = err_set(err, ERR_MEMORY, "%s: no memory for this tokenizer", path);
        goto end;
    }
    if (n_bytes > TOKENIZER_MAX_FILE_BYTES) {
        s = err_set(err, ERR_INPUT, "%s: larger than %zu MiB: no tokenizer is", path,
                    TOKENIZER_MAX_FILE_BYTES >> 20);
        goto end;
    }
    root = json_loadb(json, n_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        s = err_set(err, ERR_INPUT, "%s: line %d, column %d: %s", path, where.line, where.column,
                    where.text);
        goto end;
    }
    struct parse p = { .t = t, .err = err };
    s = json_is_object(root) ? read_root(&p, root, n_bytes)
                             : err_set(err, ERR_INPUT, "%s: not a JSON object", path);
end:
    json_decref(root);
    if (s != OK) {
        tokenizer_close(t);
        *out = NULL;
    }
    return s;
}
