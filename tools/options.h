/* tools/options.h - one table of options: it makes parsing, --help and the run's echo of settings.
 *
 * A row of the table says everything about an option: name, kind, default, bounds, help, which
 * commands take it, and which field of struct options it fills. Commands read fields; nothing
 * else in the program looks at argv. The options of machine and memory are rows that every
 * command which runs the model shares, so they mean the same everywhere.
 *
 * Sizes are binary: 8G is 8 GiB, 1.5T and 512M work, a bare number is bytes.
 * Text fields point into argv, which must outlive the struct. */
#ifndef SLUICE_TOOLS_OPTIONS_H
#define SLUICE_TOOLS_OPTIONS_H

#include "io/reader.h"
#include "io/status.h"
#include "kernels/cpu/cpu.h"
#include "src/text/chat.h"
#include "src/checkpoint/config.h"
#include "tools/bench/io_measure.h"
#include "src/prefetch_count.h"
#include "tools/environment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- what a command sees ---------------------------------------------------------------------- */

#define OPTION_LIST_MAX 32 /* values of one repeatable option: shards over 32 drives, 32 stops */

struct text_list {
    const char *items[OPTION_LIST_MAX];
    uint32_t n;
};

enum io_engine { IO_ENGINE_AUTO, IO_ENGINE_URING, IO_ENGINE_PREAD };
enum preset { PRESET_DEMO, PRESET_FLASH, PRESET_PRO };

#define DECODE_FROM_NEVER UINT32_MAX

#define OPTIONS_MAX 128 /* rows of the table, at most: bits of `given` */

struct command;

struct options {
    const struct command *command;
    struct environment environment;   /* filled in by the caller of options_parse */
    uint64_t given[OPTIONS_MAX / 64]; /* bit i: row i of the table was on the command line */
    struct text_list operands;        /* what is not an option: the DIR of mkmodel and inspect */

    /* Machine and memory: run, eval. */
    struct text_list models; /* directories or org/name, as given: see models.h */
    uint64_t ram_bytes;      /* 0: what the machine has free */
    uint32_t n_threads;      /* 0: one for each core */
    enum cpu_isa cpu;
    enum io_mode io;
    enum io_engine io_engine;
    enum prefetch_mode prefetch;
    uint32_t ctx;   /* 0: 32768, or what fits */
    uint32_t chunk; /* rows of one prefill step; 0: the engine's own choice */
    bool exact;

    /* run, eval */
    const char *file;           /* -f: the text, "-" is standard input; NULL */
    const char *stats;          /* the account as JSON; NULL */
    const char *record_routing; /* a file; NULL */
    const char *trace;          /* likewise */

    /* run, tokenize */
    enum chat_mode mode;
    enum chat_effort effort;

    /* run */
    struct text_list prompts;
    uint32_t groups; /* that several sequences decode in; 0: chosen by the engine */
    bool raw;
    const char *system;   /* the system message; NULL: none */
    const char *messages; /* a file of JSON, "-" is standard input; NULL */
    const char *tools;    /* a file of JSON; NULL */
    double temperature;   /* 0: greedy */
    uint32_t top_k;       /* 0: off */
    double top_p;         /* 1: off */
    double min_p;         /* 0: off */
    uint64_t seed;        /* of the sampling; mkmodel: of the weights; bench: of prompts */
    uint32_t max_tokens;  /* 0: until the context is full */
    struct text_list stop;

    /* eval */
    uint32_t window;
    const char *tokens; /* --tokens FILE; NULL: a text */
    const char *logits; /* --logits OUT; NULL */
    bool mtp;
    uint32_t decode_from; /* DECODE_FROM_NEVER: all by prefill */

    /* mkmodel */
    enum preset preset;
    uint32_t n_layers;      /* 0: the preset's own */
    uint32_t first_layer;   /* of the real layer list */
    enum draft_kind drafts; /* DRAFT_NONE or DRAFT_MTP */
    uint32_t n_shards;      /* 0: as many as the size asks for */

    /* inspect, run, bench */
    bool json;

    /* bench io */
    double seconds;            /* 0: the measurement's own choice */
    double sustain;            /* 0: not */
    uint64_t write_test_bytes; /* 0: nothing is written */
    const char *html;          /* NULL */
    const char *sysfs;
    enum read_shape shape;
    uint64_t block_bytes; /* 0: the reader's own choice */
    uint32_t depth;       /* likewise */
    bool unregistered;
    bool full;

    /* run, eval */
    bool remeasure;

    /* bench cache */
    struct text_list routing; /* traces; none: made ones */

    /* bench kernels */
    const char *op;  /* NULL: all */
    uint32_t n_rows; /* 0: 1, 8, 64 and 512 */

    /* bench decode, bench prefill */
    uint32_t n_tokens, n_prompt, n_sequences, n_rounds;
    const char *rows; /* "32,64" */
    double disk_rate; /* GB/s; 0: measured */

    /* tokenize */
    bool no_added;
    bool decode;
    bool chat;
    bool text;
    bool parse;
};

/* --- the table -------------------------------------------------------------------------------- */

enum command_bit {
    COMMAND_RUN = 1 << 0,
    COMMAND_EVAL = 1 << 1,
    COMMAND_INSPECT = 1 << 2,
    COMMAND_MKMODEL = 1 << 3,
    COMMAND_TOKENIZE = 1 << 4,
    COMMAND_BENCH_IO = 1 << 5,
    COMMAND_BENCH_KERNELS = 1 << 6,
    COMMAND_BENCH_CACHE = 1 << 7,
    COMMAND_BENCH_DECODE = 1 << 8,
    COMMAND_BENCH_PREFILL = 1 << 9,
    COMMANDS_MODEL = COMMAND_RUN | COMMAND_EVAL, /* those that run the model */
    COMMANDS_BENCH_ENGINE = COMMAND_BENCH_DECODE | COMMAND_BENCH_PREFILL,
    COMMANDS_ENGINE = COMMANDS_MODEL | COMMANDS_BENCH_ENGINE /* and those that measure it */
};

enum option_kind {
    OPTION_FLAG,   /* bool; takes no argument */
    OPTION_TEXT,   /* const char * */
    OPTION_LIST,   /* struct text_list; may be repeated */
    OPTION_COUNT,  /* uint32_t */
    OPTION_NUMBER, /* uint64_t */
    OPTION_BYTES,  /* uint64_t, with a binary suffix: K, M, G, T */
    OPTION_REAL,   /* double */
    OPTION_CHOICE  /* an enum: the index of the word in `words` */
};

struct option_row {
    const char *group; /* the heading of --help that it stands under */
    const char *name;  /* without the dashes */
    char letter;       /* 0: no short form */
    enum option_kind kind;
    unsigned commands;    /* enum command_bit, or-ed */
    const char *argument; /* what --help calls it: "DIR", "N"; NULL for flags and choices */
    const char *fallback; /* parsed like an argument when the option is not given; NULL: zero */
    const char *shown;    /* the default in words, where `fallback` is not what one would say */
    uint64_t least, most; /* COUNT, NUMBER, BYTES: bounds of what is given, inclusive */
    double real_least, real_most;
    const char *const *words; /* CHOICE: NULL-terminated */
    size_t field;             /* offsetof(struct options, …) */
    const char *help;
};

/* Headings that rows of several files stand under. */
#define GROUP_MACHINE "Machine and memory"
#define GROUP_MEASURE "What is measured"
#define GROUP_OUTPUT  "Output"

/* Row i, in the order of --help, or NULL after the last; there are at most OPTIONS_MAX. Two rows may
 * have one name if no command takes both. Rows and contradictions are in options_table.c, those of
 * measurements alone in bench/bench_options.c. */
const struct option_row *options_row(size_t i);

/* Refuse what contradicts itself or lacks something; called by options_parse. */
enum status options_check(const struct options *o, struct err *err);

struct command {
    const char *name;
    enum command_bit bit;
    const char *summary;  /* one line, for `sluice --help` */
    const char *operands; /* for the usage line: "DIR", "DIR...", or "" */
    uint32_t least_operands, most_operands;
    const char *about; /* a paragraph for `sluice COMMAND --help`, broken into lines */
    int (*run)(const struct options *o);
};

/* --- parsing ---------------------------------------------------------------------------------- */

/* Read argv[0 .. argc) (what follows the command's name) into *o: every field gets its default
 * first; o->environment is kept. `--name value`, `--name=value`, `-n value`, `-nvalue`; options and
 * operands in any order, after `--` only operands.
 *   DONE       --help or -h was among them: print options_help and end with success
 *   ERR_USAGE  an unknown option (the nearest one is suggested), a value that is missing, malformed or
 *              out of bounds, an option of another command, a contradiction: one line in err */
enum status options_parse(struct options *o, const struct command *command, int argc,
                          char *const *argv, struct err *err);

/* `sluice COMMAND --help`. */
void options_help(const struct command *command, FILE *out);

/* Was the option on the command line? Asserts that the name is in the table for o's command. */
bool options_given(const struct options *o, const char *name);

/* The settings of this run, a single line that could be typed: every option of the command with
 * the value in force, those left at a default that is "off" or "none" omitted. A command that
 * resolves a value (ram_bytes 0 to what is free) writes it into its copy of *o first. */
void options_echo(const struct options *o, FILE *out);

/* The value of one row as text, as it would be typed ("8G", "direct"); lists are joined by blanks.
 * Returns false if it is unset: an empty list, no text, a flag that is off, a number at its zero
 * default. */
bool options_value(const struct options *o, const struct option_row *row, char *out,
                   size_t out_bytes);

/* "8G", "1536M", "0.5T", "123" to bytes; false if it is not one, or does not fit. */
bool bytes_parse(const char *text, uint64_t *out);

/* The word of a list that is nearest to `word` (fewest edits), or NULL if none is near enough to
 * be worth suggesting. For options and for command names. */
const char *nearest_word(const char *word, const char *const *words, size_t n);

#ifdef __cplusplus
}
#endif
#endif
