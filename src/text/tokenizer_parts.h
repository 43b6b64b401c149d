/* src/text/tokenizer_parts.h - what a struct tokenizer is made of: for tokenizer.c, which encodes, and
 * tokenizer_parse.c, which reads and checks the JSON, and for nobody else. */
#ifndef SLUICE_SRC_TEXT_TOKENIZER_PARTS_H
#define SLUICE_SRC_TEXT_TOKENIZER_PARTS_H

#include "src/text/added.h"
#include "src/text/bpe.h"
#include "src/text/pretokenize.h"
#include "src/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum token_kind {
    TOKEN_UNUSED, /* no token has this id */
    TOKEN_WORD,   /* of the model's vocabulary */
    TOKEN_RAW,    /* the same, but not written in the byte alphabet: no text encodes to it */
    TOKEN_ADDED,
    TOKEN_SPECIAL /* added, and marked special */
};

struct token {
    size_t offset; /* in `bytes` */
    uint32_t n_bytes;
    enum token_kind kind;
};

/* Classes of added tokens, in the order in which they are searched for. */
#define N_ADDED_CLASSES 2

struct tokenizer {
    char *path;
    char *bytes;         /* of all tokens */
    struct token *token; /* by id */
    uint32_t n_ids;
    size_t longest;
    struct pretokenizer *pretokenizer;
    struct bpe bpe;
    struct added added[N_ADDED_CLASSES]; /* normalized: false; normalized: true */
    bool ignore_merges;                  /* a piece that is a token is that token */
    uint32_t *word;                      /* hash table of TOKEN_WORD ids; only for ignore_merges */
    uint32_t word_mask;
};

/* The id of a token of the vocabulary with exactly these bytes; BPE_NONE if there is none. */
uint32_t tokenizer_word_id(const struct tokenizer *t, const char *bytes, size_t n_bytes);

#ifdef __cplusplus
}
#endif
#endif
