#include "src/text/tokenizer_make.h"
#include "src/text/bpe.h"
#include "src/text/tokenizer.h"
#include "src/text/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_BYTES    256
#define FIRST_BYTE 3 /* id of the first byte letter; before it BOS, EOS and padding */

/* As published, from the file's own text; only the white space between JSON tokens is gone. */
static const char PRE_TOKENIZER[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}\"},"
    "\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[一-龥぀-ゟ゠-ヿ]+\"},"
    "\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\""
    "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*"
    "|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":false}]}";

struct control_token {
    const char *content;
    bool special; /* else `normalized`, as the published file has these two */
};

static const struct control_token FIRST_TOKENS[FIRST_BYTE] = { { "<｜begin▁of▁sentence｜>", true },
                                                               { "<｜end▁of▁sentence｜>", true },
                                                               { "<｜▁pad▁｜>", true } };
static const struct control_token LAST_TOKENS[] = {
    { "<｜User｜>", false },   { "<｜Assistant｜>", false }, { "<think>", false },
    { "</think>", false },     { "｜DSML｜", false },        { "<｜latest_reminder｜>", false },
    { "<｜action｜>", false }, { "<｜query｜>", false },     { "<｜authority｜>", false },
    { "<｜domain｜>", false }, { "<｜title｜>", false },     { "<｜read_url｜>", false },
};
#define N_LAST (sizeof LAST_TOKENS / sizeof LAST_TOKENS[0])

_Static_assert(TOKENIZER_MAKE_LEAST == FIRST_BYTE + N_BYTES + N_LAST, "as the header says");

static const char WORDS[] =
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by but not what all were we when your can said there use an each which she do how "
    "their if will up other about out many then them these so some her would make like him into "
    "time has look two more write go see number no way could people my than first water been call "
    "who oil its now find long down day did get come made may part over new sound take only little "
    "work know place year live me back give most very after thing our just name good sentence man "
    "think say great where help through much before line right too mean old any same tell boy "
    "follow came want show also around form three small set put end does another well large must "
    "big even such because turn here why ask went men read need land different home us move try "
    "kind hand picture again change off play spell air away animal house point page letter mother "
    "answer found study still learn should world high every near add food between own below "
    "country plant last school father keep tree never start city earth eye light thought head "
    "under story saw left few while along might close something seem next hard open example begin "
    "life always those both paper together got group often run important until children side feet "
    "car mile night walk white sea began grow took river four carry state once book hear stop "
    "without second later miss idea enough eat face watch far really almost let above girl "
    "sometimes mountain cut young talk soon list song being leave family";

/* The n-th made-up word of so many syllables; a space comes first. Numbers are scattered by a
 * factor without a common divisor with 105^n, so that neighbours differ from the first letter on. */
static const char CONSONANTS[] = "bcdfghjklmnpqrstvwxyz";
static const char VOWELS[] = "aeiou";
#define N_SYLLABLES (21 * 5)

static void made_up_word(uint64_t n, int n_syllables, char *word) {
    uint64_t n_words = 1;
    for (int i = 0; i < n_syllables; i++)
        n_words *= N_SYLLABLES;
    n = n * 389171 % n_words;
    *word++ = ' ';
    for (int i = 0; i < n_syllables; i++, n /= N_SYLLABLES) {
        *word++ = CONSONANTS[n % N_SYLLABLES / 5];
        *word++ = VOWELS[n % 5];
    }
    *word = '\0';
}

/* Every merge appends one letter to what is there: a token is its beginning and a last letter. */
struct maker {
    struct bpe merges;            /* finds the token that a beginning and a letter already make */
    uint32_t n_wanted;            /* merges */
    uint32_t *left;               /* by merge: the token before the last letter */
    uint8_t *letter;              /* by merge: that letter's place among the byte letters */
    uint8_t place_of[N_BYTES];    /* of a byte among the letters */
    uint32_t code_point[N_BYTES]; /* of a letter */
};

/* Letters in the order of their code points: bytes that print, then those that do not from U+0100
 * on (src/text/tokenizer_parse.c has the same alphabet). */
static void letters_open(struct maker *m) {
    uint32_t n = 0, next = 256;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t byte = 0; byte < N_BYTES; byte++) {
            bool prints =
                (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
            if (prints != (pass == 0))
                continue;
            m->place_of[byte] = (uint8_t)n;
            m->code_point[n++] = prints ? byte : next++;
        }
}

static bool full(const struct maker *m) {
    return m->merges.n_merges == m->n_wanted;
}

/* Add the merges that are missing on the way to a word. */
static void add_word(struct maker *m, const char *word) {
    uint32_t token = FIRST_BYTE + m->place_of[(unsigned char)word[0]];
    for (int i = 1; word[i] && !full(m); i++) {
        uint8_t place = m->place_of[(unsigned char)word[i]];
        uint32_t rank = m->merges.n_merges;
        uint32_t made = FIRST_BYTE + N_BYTES + rank;
        uint32_t known = bpe_add_merge(&m->merges, token, FIRST_BYTE + (uint32_t)place, made);
        if (known == BPE_NONE) {
            m->left[rank] = token;
            m->letter[rank] = place;
            known = rank;
        }
        token = FIRST_BYTE + N_BYTES + known;
    }
}

static void add_words(struct maker *m) {
    for (int bare = 0; bare < 2; bare++) // " the" first: most words follow a space
        for (const char *at = WORDS; *at;) {
            char word[16] = " ";
            size_t n = strcspn(at, " ");
            memcpy(word + 1, at, n);
            add_word(m, word + bare);
            at += n + (at[n] == ' ');
        }
    char word[16];
    for (uint64_t i = 0; i < 105 * 105 && !full(m); i++) {
        made_up_word(i, 2, word);
        add_word(m, word);
    }
    for (uint64_t i = 0; i < 105 * 105 * 105 && !full(m); i++) {
        made_up_word(i, 3, word);
        add_word(m, word);
    }
}

/* ---- writing ---- */

static void put_letter(FILE *f, const struct maker *m, uint32_t place) {
    char letter[UTF8_MAX_BYTES];
    uint32_t n = utf8_encode(m->code_point[place], letter);
    if (letter[0] == '"' || letter[0] == '\\')
        fputc('\\', f);
    fwrite(letter, 1, n, f);
}

static void put_token(FILE *f, const struct maker *m, uint32_t id) {
    uint8_t letters[16];
    int n = 0;
    for (; id >= FIRST_BYTE + N_BYTES; id = m->left[id - FIRST_BYTE - N_BYTES])
        letters[n++] = m->letter[id - FIRST_BYTE - N_BYTES];
    put_letter(f, m, id - FIRST_BYTE);
    while (n > 0)
        put_letter(f, m, letters[--n]);
}

static void put_added(FILE *f, uint32_t id, const struct control_token *token) {
    fprintf(f,
            "%s{\"id\":%" PRIu32 ",\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
            "\"rstrip\":false,\"normalized\":%s,\"special\":%s}",
            id ? ",\n" : "", id, token->content, token->special ? "false" : "true",
            token->special ? "true" : "false");
}

static void put_file(FILE *f, const struct maker *m) {
    uint32_t n_words = FIRST_BYTE + N_BYTES + m->n_wanted;
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n\"added_tokens\":[\n", f);
    for (uint32_t i = 0; i < FIRST_BYTE; i++)
        put_added(f, i, &FIRST_TOKENS[i]);
    for (uint32_t i = 0; i < N_LAST; i++)
        put_added(f, n_words + i, &LAST_TOKENS[i]);
    fprintf(
        f,
        "],\n\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]},\n\"pre_tokenizer\":%s,\n"
        "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":false,\"use_regex\":true},\n"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":true,\"use_regex\":true},\n"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
        "\"byte_fallback\":false,\n\"vocab\":{",
        PRE_TOKENIZER);
    for (uint32_t i = 0; i < FIRST_BYTE; i++)
        fprintf(f, "%s\n\"%s\":%" PRIu32, i ? "," : "", FIRST_TOKENS[i].content, i);
    for (uint32_t id = FIRST_BYTE; id < n_words; id++) {
        fputs(",\n\"", f);
        put_token(f, m, id);
        fprintf(f, "\":%" PRIu32, id);
    }
    fputs("},\n\"merges\":[", f);
    for (uint32_t i = 0; i < m->n_wanted; i++) {
        fputs(i ? ",\n\"" : "\n\"", f);
        put_token(f, m, m->left[i]);
        fputc(' ', f);
        put_letter(f, m, m->letter[i]);
        fputc('"', f);
    }
    fputs("]}}\n", f);
}

static enum status write_file(const struct maker *m, const char *path, struct err *err) {
    FILE *f = fopen(path, "we");
    if (!f)
        return err_set(err, ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    errno = 0;
    put_file(f, m);
    bool good = !ferror(f);
    good &= fclose(f) == 0;
    return good ? OK : err_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
}

enum status tokenizer_make(const char *path, uint32_t n_ids, struct err *err) {
    if (n_ids < TOKENIZER_MAKE_LEAST || n_ids > TOKENIZER_MAX_IDS)
        return err_set(err, ERR_USAGE, "a vocabulary of %" PRIu32 " tokens: must be %d to %u",
                       n_ids, TOKENIZER_MAKE_LEAST, TOKENIZER_MAX_IDS);
    struct maker m = { .n_wanted = n_ids - TOKENIZER_MAKE_LEAST };
    enum status s = bpe_open(&m.merges, m.n_wanted, err);
    if (s != OK)
        return s;
    m.left = malloc(((size_t)m.n_wanted + 1) * sizeof *m.left);
    m.letter = malloc((size_t)m.n_wanted + 1);
    if (m.left && m.letter) {
        letters_open(&m);
        add_words(&m);
        s = write_file(&m, path, err);
    } else {
        s = err_set(err, ERR_MEMORY, "no memory for a vocabulary of %" PRIu32 " tokens", n_ids);
    }
    free(m.left);
    free(m.letter);
    bpe_close(&m.merges);
    return s;
}
