#include "tools/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 64 /* longer than any name; what is longer is not a misspelt one */

_Static_assert(sizeof(enum io_mode) == sizeof(int), "OPTION_CHOICE stores an int");

/* --- finding rows ----------------------------------------------------------------------------- */

static const struct option_row *find_name(unsigned commands, const char *name, size_t length) {
    const struct option_row *row;
    for (size_t i = 0; (row = options_row(i)); i++)
        if ((row->commands & commands) && strlen(row->name) == length &&
            memcmp(row->name, name, length) == 0)
            return row;
    return NULL;
}

static const struct option_row *find_letter(unsigned commands, char letter) {
    const struct option_row *row;
    for (size_t i = 0; (row = options_row(i)); i++)
        if ((row->commands & commands) && row->letter == letter)
            return row;
    return NULL;
}

static size_t row_number(const struct option_row *row) {
    size_t i = 0;
    while (options_row(i) != row)
        i++;
    assert(i < OPTIONS_MAX);
    return i;
}

static bool is_given(const struct options *o, const struct option_row *row) {
    size_t i = row_number(row);
    return o->given[i / 64] >> i % 64 & 1;
}

static void set_given(struct options *o, const struct option_row *row) {
    size_t i = row_number(row);
    o->given[i / 64] |= 1ull << i % 64;
}

bool options_given(const struct options *o, const char *name) {
    const struct option_row *row = find_name(o->command->bit, name, strlen(name));
    assert(row);
    return is_given(o, row);
}

static void *field_of(struct options *o, const struct option_row *row) {
    return (char *)o + row->field;
}

static const void *const_field_of(const struct options *o, const struct option_row *row) {
    return (const char *)o + row->field;
}

/* --- values ----------------------------------------------------------------------------------- */

/* Digits only: strtoull would take "-1" and " 7" for numbers. */
static bool number_parse(const char *text, uint64_t *out) {
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return errno == 0 && *end == '\0';
}

static bool real_parse(const char *text, double *out) {
    if (!isdigit((unsigned char)*text) && *text != '.')
        return false;
    for (const char *c = text; *c; c++) // neither 0x1p3 nor nan
        if (!isdigit((unsigned char)*c) && !strchr(".eE+-", *c))
            return false;
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && isfinite(*out);
}

bool bytes_parse(const char *text, uint64_t *out) {
    static const char suffixes[] = "KMGT";
    char number[WORD_MAX];
    size_t length = strlen(text);
    if (length == 0 || length >= sizeof number)
        return false;
    const char *suffix = strchr(suffixes, toupper((unsigned char)text[length - 1]));
    if (!suffix)
        return number_parse(text, out);
    memcpy(number, text, length - 1);
    number[length - 1] = '\0';
    unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
    uint64_t whole;
    if (number_parse(number, &whole)) { // exact, where a double would round
        *out = whole << shift;
        return whole <= UINT64_MAX >> shift;
    }
    double value;
    if (!real_parse(number, &value) || (value = ldexp(value, (int)shift)) >= 0x1p63)
        return false;
    *out = (uint64_t)value;
    return true;
}

/* The largest suffix that leaves a whole number: 8589934592 is "8G". */
static void bytes_format(uint64_t bytes, char *out, size_t out_bytes) {
    static const char suffixes[] = "KMGT";
    int at = -1;
    while (at < 3 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        at++;
    }
    if (at < 0)
        snprintf(out, out_bytes, "%" PRIu64, bytes);
    else
        snprintf(out, out_bytes, "%" PRIu64 "%c", bytes, suffixes[at]);
}

/* "auto, direct or buffered" */
static void words_format(const char *const *words, const char *between, const char *last, char *out,
                         size_t out_bytes) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; words[i] && at < out_bytes; i++) {
        const char *before = i == 0 ? "" : words[i + 1] ? between : last;
        at += (size_t)snprintf(out + at, out_bytes - at, "%s%s", before, words[i]);
    }
}

static enum status integer_set(struct options *o, const struct option_row *row, const char *text,
                               struct err *err) {
    bool is_bytes = row->kind == OPTION_BYTES;
    uint64_t value;
    if (!(is_bytes ? bytes_parse(text, &value) : number_parse(text, &value)))
        return err_set(err, ERR_USAGE, "--%s: '%s' is not a %s", row->name, text,
                       is_bytes ? "size (such as 512M, 8G or 1.5T)" : "whole number");
    if (value < row->least || value > row->most) {
        char least[32], most[32];
        bytes_format(row->least, least, sizeof least);
        bytes_format(row->most, most, sizeof most);
        if (!is_bytes) {
            snprintf(least, sizeof least, "%" PRIu64, row->least);
            snprintf(most, sizeof most, "%" PRIu64, row->most);
        }
        return err_set(err, ERR_USAGE, "--%s: %s is out of range (%s to %s)", row->name, text,
                       least, most);
    }
    if (row->kind == OPTION_COUNT)
        *(uint32_t *)field_of(o, row) = (uint32_t)value;
    else
        *(uint64_t *)field_of(o, row) = value;
    return OK;
}

static enum status real_set(struct options *o, const struct option_row *row, const char *text,
                            struct err *err) {
    double value;
    if (!real_parse(text, &value))
        return err_set(err, ERR_USAGE, "--%s: '%s' is not a number", row->name, text);
    if (value < row->real_least || value > row->real_most)
        return err_set(err, ERR_USAGE, "--%s: %s is out of range (%g to %g)", row->name, text,
                       row->real_least, row->real_most);
    *(double *)field_of(o, row) = value;
    return OK;
}

static enum status choice_set(struct options *o, const struct option_row *row, const char *text,
                              struct err *err) {
    for (int i = 0; row->words[i]; i++)
        if (strcmp(row->words[i], text) == 0) {
            *(int *)field_of(o, row) = i;
            return OK;
        }
    char words[128];
    words_format(row->words, ", ", " or ", words, sizeof words);
    return err_set(err, ERR_USAGE, "--%s: '%s' is not one of %s", row->name, text, words);
}

static enum status row_set(struct options *o, const struct option_row *row, const char *text,
                           struct err *err) {
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)field_of(o, row) = true;
        return OK;
    case OPTION_TEXT:
        *(const char **)field_of(o, row) = text;
        return OK;
    case OPTION_LIST: {
        struct text_list *list = (struct text_list *)field_of(o, row);
        if (list->n == OPTION_LIST_MAX)
            return err_set(err, ERR_USAGE, "--%s: given more than %d times", row->name,
                           OPTION_LIST_MAX);
        list->items[list->n++] = text;
        return OK;
    }
    case OPTION_COUNT:
    case OPTION_NUMBER:
    case OPTION_BYTES:
        return integer_set(o, row, text, err);
    case OPTION_REAL:
        return real_set(o, row, text, err);
    case OPTION_CHOICE:
        return choice_set(o, row, text, err);
    }
    return err_set(err, ERR_USAGE, "--%s: unknown kind of option", row->name);
}

static void set_defaults(struct options *o, const struct command *command) {
    *o = (struct options){ .command = command, .environment = o->environment };
    o->decode_from = DECODE_FROM_NEVER;
    const struct option_row *row;
    for (size_t i = 0; (row = options_row(i)); i++)
        if ((row->commands & command->bit) && row->fallback) {
            struct option_row unbounded = *row; // a default may lie outside: "never"
            unbounded.least = 0;
            unbounded.most = UINT64_MAX;
            enum status status = row_set(o, &unbounded, row->fallback, NULL);
            assert(status == OK);
            (void)status;
        }
}

/* --- parsing ---------------------------------------------------------------------------------- */

struct cursor {
    int argc;
    char *const *argv;
    int at;
};

/* --ram --io: the value was forgotten; "-" and "-5" may be values, and so may any --text that is
 * no option. */
static bool looks_like_an_option(const struct options *o, const char *text) {
    return text[0] == '-' && text[1] == '-' &&
           find_name(o->command->bit, text + 2, strcspn(text + 2, "="));
}

static enum status take(struct options *o, const struct option_row *row, const char *attached,
                        struct cursor *c, struct err *err) {
    const char *value = attached;
    if (row->kind == OPTION_FLAG) {
        if (attached)
            return err_set(err, ERR_USAGE, "--%s takes no value", row->name);
    } else if (!value) {
        if (c->at == c->argc || looks_like_an_option(o, c->argv[c->at]))
            return err_set(err, ERR_USAGE, "--%s needs a value: --%s %s", row->name, row->name,
                           row->argument ? row->argument : row->words[0]);
        value = c->argv[c->at++];
    }
    if (is_given(o, row) && row->kind != OPTION_LIST)
        return err_set(err, ERR_USAGE, "--%s is given twice", row->name);
    set_given(o, row);
    return row_set(o, row, value, err);
}

static enum status unknown(const struct options *o, const char *name, size_t length,
                           struct err *err) {
    const char *word = name;
    char copy[WORD_MAX];
    if (length < sizeof copy) {
        memcpy(copy, name, length);
        copy[length] = '\0';
        word = copy;
    }
    if (!find_name(o->command->bit, name, length) && find_name(~0u, name, length))
        return err_set(err, ERR_USAGE, "--%s is no option of this command", word);
    size_t n_names = 0;
    const struct option_row *row;
    const char *names[OPTIONS_MAX + 1];
    names[n_names++] = "help";
    for (size_t i = 0; (row = options_row(i)); i++)
        if (row->commands & o->command->bit)
            names[n_names++] = row->name;
    const char *nearest = nearest_word(word, names, n_names);
    if (nearest)
        return err_set(err, ERR_USAGE, "unknown option --%s (did you mean --%s?)", word, nearest);
    return err_set(err, ERR_USAGE, "unknown option --%s (--help lists them)", word);
}

static enum status take_long(struct options *o, const char *name, struct cursor *c,
                             struct err *err) {
    size_t length = strcspn(name, "=");
    if (length == 4 && memcmp(name, "help", 4) == 0)
        return DONE;
    const struct option_row *row = find_name(o->command->bit, name, length);
    if (!row)
        return unknown(o, name, length, err);
    return take(o, row, name[length] == '=' ? name + length + 1 : NULL, c, err);
}

static enum status take_short(struct options *o, const char *letters, struct cursor *c,
                              struct err *err) {
    if (letters[0] == 'h' && letters[1] == '\0')
        return DONE;
    const struct option_row *row = find_letter(o->command->bit, letters[0]);
    if (!row) // -temperature is more often a forgotten dash than a letter
        return letters[1]
                   ? unknown(o, letters, strcspn(letters, "="), err)
                   : err_set(err, ERR_USAGE, "unknown option -%c (--help lists them)", letters[0]);
    return take(o, row, letters[1] ? letters + 1 : NULL, c, err);
}

static enum status take_operand(struct options *o, const char *text, struct err *err) {
    const struct command *command = o->command;
    if (command->most_operands == 0)
        return err_set(err, ERR_USAGE, "'%s' belongs to no option (--help lists them)", text);
    if (o->operands.n == command->most_operands || o->operands.n == OPTION_LIST_MAX)
        return err_set(err, ERR_USAGE, "'%s' is one operand too many: %s", text, command->operands);
    o->operands.items[o->operands.n++] = text;
    return OK;
}

enum status options_parse(struct options *o, const struct command *command, int argc,
                          char *const *argv, struct err *err) {
    struct cursor c = { .argc = argc, .argv = argv };
    bool operands_only = false;
    set_defaults(o, command);
    while (c.at < argc) {
        const char *word = argv[c.at++];
        enum status status;
        if (operands_only || word[0] != '-' || word[1] == '\0')
            status = take_operand(o, word, err);
        else if (word[1] != '-')
            status = take_short(o, word + 1, &c, err);
        else if (word[2] != '\0')
            status = take_long(o, word + 2, &c, err);
        else {
            operands_only = true;
            continue;
        }
        if (status != OK)
            return status;
    }
    if (o->operands.n < command->least_operands)
        return err_set(err, ERR_USAGE, "needs %s", command->operands);
    return options_check(o, err);
}

/* --- help ------------------------------------------------------------------------------------- */

#define HELP_COLUMNS 80
#define HELP_INDENT  26

/* Words of `text` from column `at` on, continued at HELP_INDENT. */
static void wrap(const char *text, size_t at, FILE *out) {
    while (*text) {
        size_t word = strcspn(text, " ");
        if (at + 1 + word > HELP_COLUMNS) {
            fprintf(out, "\n%*s", HELP_INDENT, "");
            at = HELP_INDENT;
        } else if (at > HELP_INDENT) {
            putc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", (int)word, text);
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    putc('\n', out);
}

static void row_help(const struct option_row *row, FILE *out) {
    char left[96], words[96], text[512];
    const char *argument = row->argument;
    if (row->kind == OPTION_CHOICE) {
        words_format(row->words, "|", "|", words, sizeof words);
        argument = words;
    }
    int width = row->letter ? snprintf(left, sizeof left, "  -%c, --%s", row->letter, row->name)
                            : snprintf(left, sizeof left, "  --%s", row->name);
    if (argument)
        width += snprintf(left + width, sizeof left - (size_t)width, " %s", argument);
    fputs(left, out);
    if (width + 2 > HELP_INDENT) {
        fprintf(out, "\n%*s", HELP_INDENT, "");
    } else {
        fprintf(out, "%*s", HELP_INDENT - width, "");
    }
    const char *fallback = row->shown ? row->shown : row->fallback;
    if (fallback)
        snprintf(text, sizeof text, "%s (default: %s)", row->help, fallback);
    else
        snprintf(text, sizeof text, "%s", row->help);
    wrap(text, HELP_INDENT, out);
}

void options_help(const struct command *command, FILE *out) {
    fprintf(out, "usage: sluice %s [options]%s%s\n\n%s\n", command->name,
            *command->operands ? " " : "", command->operands, command->about);
    const struct option_row *row;
    const char *group = NULL;
    for (size_t i = 0; (row = options_row(i)); i++) {
        if (!(row->commands & command->bit))
            continue;
        if (!group || strcmp(group, row->group) != 0)
            fprintf(out, "\n%s:\n", row->group);
        group = row->group;
        row_help(row, out);
    }
    fputs("\nSizes are binary: 8G is 8 GiB. Exit codes: sluice help exit-codes\n", out);
}

/* --- the echo --------------------------------------------------------------------------------- */

static bool list_value(const struct text_list *list, char *out, size_t out_bytes) {
    size_t at = 0;
    for (uint32_t i = 0; i < list->n && at < out_bytes; i++)
        at += (size_t)snprintf(out + at, out_bytes - at, "%s%s", i ? " " : "", list->items[i]);
    return list->n > 0;
}

bool options_value(const struct options *o, const struct option_row *row, char *out,
                   size_t out_bytes) {
    const void *field = const_field_of(o, row);
    uint64_t number = 0;
    out[0] = '\0';
    switch (row->kind) {
    case OPTION_FLAG:
        return *(const bool *)field;
    case OPTION_TEXT: {
        const char *text = *(const char *const *)field;
        snprintf(out, out_bytes, "%s", text ? text : "");
        return text != NULL;
    }
    case OPTION_LIST:
        return list_value((const struct text_list *)field, out, out_bytes);
    case OPTION_CHOICE:
        snprintf(out, out_bytes, "%s", row->words[*(const int *)field]);
        return !row->shown || is_given(o, row) || strcmp(out, row->fallback) != 0;
    case OPTION_REAL:
        snprintf(out, out_bytes, "%.9g", *(const double *)field);
        return !row->shown || strcmp(out, row->fallback) != 0;
    case OPTION_COUNT:
        number = *(const uint32_t *)field;
        snprintf(out, out_bytes, "%" PRIu64, number);
        break;
    case OPTION_NUMBER:
        number = *(const uint64_t *)field;
        snprintf(out, out_bytes, "%" PRIu64, number);
        break;
    case OPTION_BYTES:
        number = *(const uint64_t *)field;
        bytes_format(number, out, out_bytes);
        break;
    }
    // A default that is told in words ("never", "what is free now") is no value.
    if (row->shown && !is_given(o, row))
        return row->fallback ? strcmp(out, row->fallback) != 0 : number != 0;
    return true;
}

/* As a shell would need it: quoted unless plain. */
static void quoted(const char *text, FILE *out) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789_-+=.,/:@%";
    if (*text && strspn(text, plain) == strlen(text)) {
        fputs(text, out);
        return;
    }
    putc('\'', out);
    for (const char *c = text; *c; c++)
        if (*c == '\'')
            fputs("'\\''", out);
        else if ((unsigned char)*c == 0xC2 && (unsigned char)c[1] >= 0x80 &&
                 (unsigned char)c[1] <= 0x9F)
            c++; // a terminal would obey it (C1)
        else
            putc((unsigned char)*c < 0x20 || *c == 0x7F ? ' ' : *c, out);
    putc('\'', out);
}

void options_echo(const struct options *o, FILE *out) {
    const struct option_row *row;
    char value[4096];
    fprintf(out, "sluice %s", o->command->name);
    for (size_t i = 0; (row = options_row(i)); i++) {
        if (!(row->commands & o->command->bit) || !options_value(o, row, value, sizeof value))
            continue;
        const struct text_list *list =
            row->kind == OPTION_LIST ? (const struct text_list *)const_field_of(o, row) : NULL;
        for (uint32_t k = 0; k < (list ? list->n : 1); k++) {
            fprintf(out, " --%s", row->name);
            if (row->kind == OPTION_FLAG)
                continue;
            putc(' ', out);
            quoted(list ? list->items[k] : value, out);
        }
    }
    for (uint32_t i = 0; i < o->operands.n; i++) {
        putc(' ', out);
        quoted(o->operands.items[i], out);
    }
    putc('\n', out);
}

/* --- suggestions ------------------------------------------------------------------------------ */

/* Insertions, deletions, substitutions and swaps of neighbours that turn a into b. */
static size_t edits(const char *a, const char *b) {
    size_t n_a = strlen(a), n_b = strlen(b);
    size_t rows[3][WORD_MAX + 1]; // of the table: the one being filled, and the two before it
    for (size_t j = 0; j <= n_b; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n_a % 3][n_b];
}

const char *nearest_word(const char *word, const char *const *words, size_t n) {
    size_t length = strlen(word), least = WORD_MAX;
    const char *nearest = NULL;
    if (length == 0 || length > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (strlen(words[i]) > WORD_MAX)
            continue;
        // The beginning of a word is near to it, however much is missing: --temp.
        bool begins = length >= 3 && strncmp(words[i], word, length) == 0;
        size_t distance = begins ? 1 : edits(word, words[i]);
        if (distance < least) {
            least = distance;
            nearest = words[i];
        }
    }
    return least <= 1 + length / 4 ? nearest : NULL;
}
