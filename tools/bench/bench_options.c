#include "tools/bench/bench_options.h"

#define FIELD(name) offsetof(struct options, name)

#define MACHINE GROUP_MACHINE
#define MEASURE GROUP_MEASURE
#define OUTPUT  GROUP_OUTPUT

// The order is that of the enum in io_measure.h.
static const char *const shape_words[] = { "random", "sequential", "expert", NULL };

static const struct option_row table[] = {
    /* --- bench kernels ------------------------------------------------------------------------- */
    {
        .group = MEASURE,
        .name = "op",
        .kind = OPTION_TEXT,
        .commands = COMMAND_BENCH_KERNELS,
        .argument = "NAME",
        .field = FIELD(op),
        .help = "this op alone: a name from the table's first column",
    },
    {
        .group = MEASURE,
        .name = "rows",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_KERNELS,
        .argument = "N",
        .shown = "1, 8, 64 and 512",
        .least = 1,
        .most = 512,
        .field = FIELD(n_rows),
        .help = "for so many rows alone",
    },
    {
        .group = OUTPUT,
        .name = "json",
        .kind = OPTION_FLAG,
        .commands = COMMAND_BENCH_KERNELS,
        .field = FIELD(json),
        .help = "print a list of JSON objects instead of the table",
    },

    /* --- bench io ------------------------------------------------------------------------------ */
    {
        .group = MACHINE,
        .name = "sysfs",
        .kind = OPTION_TEXT,
        .commands = COMMAND_BENCH_IO,
        .argument = "DIR",
        .fallback = "/sys",
        .field = FIELD(sysfs),
        .help = "where to look up drives and links: a tree like that of another machine",
    },
    {
        .group = MEASURE,
        .name = "seconds",
        .kind = OPTION_REAL,
        .commands = COMMAND_BENCH_IO,
        .argument = "S",
        .shown = "40; of one measurement 2",
        .real_least = 0.1,
        .real_most = 86400,
        .field = FIELD(seconds),
        .help = "about how long to measure each PATH; longer is steadier",
    },
    {
        .group = MEASURE,
        .name = "full",
        .kind = OPTION_FLAG,
        .commands = COMMAND_BENCH_IO,
        .field = FIELD(full),
        .help = "every size and depth also through the page cache and with memory that is not "
                "registered: a minute or two more",
    },
    {
        .group = MEASURE,
        .name = "sustain",
        .kind = OPTION_REAL,
        .commands = COMMAND_BENCH_IO,
        .argument = "S",
        .shown = "not",
        .real_least = 1,
        .real_most = 86400,
        .field = FIELD(sustain),
        .help = "then read experts for so many seconds, from all PATHs at once, and show the rate "
                "over time: a drive that grows hot slows down",
    },
    {
        .group = MEASURE,
        .name = "write-test",
        .kind = OPTION_BYTES,
        .commands = COMMAND_BENCH_IO,
        .argument = "SIZE",
        .shown = "nothing is written",
        .least = 64 << 20,
        .most = 1ull << 44,
        .field = FIELD(write_test_bytes),
        .help = "measure each directory through a new file of this size, random bytes; it has no "
                "name, and is gone when the program ends, however it ends",
    },
    {
        .group = MEASURE,
        .name = "shape",
        .kind = OPTION_CHOICE,
        .commands = COMMAND_BENCH_IO,
        .fallback = "expert",
        .shown = "all",
        .words = shape_words,
        .field = FIELD(shape),
        .help = "only one measurement, of this shape: blocks, or experts of 35.1 MB at any byte "
                "through the engine's reader",
    },
    {
        .group = MEASURE,
        .name = "block",
        .kind = OPTION_BYTES,
        .commands = COMMAND_BENCH_IO,
        .argument = "SIZE",
        .shown = "all; of one measurement the engine's",
        .least = 4096,
        .most = 64 << 20,
        .field = FIELD(block_bytes),
        .help = "only one measurement: of reads of this size, of experts in chunks of it",
    },
    {
        .group = MEASURE,
        .name = "depth",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_IO,
        .argument = "N",
        .shown = "all; of one measurement the engine's",
        .least = 1,
        .most = 1024,
        .field = FIELD(depth),
        .help = "only one measurement: with so many reads at the device",
    },
    {
        .group = MEASURE,
        .name = "unregistered",
        .kind = OPTION_FLAG,
        .commands = COMMAND_BENCH_IO,
        .field = FIELD(unregistered),
        .help = "only one measurement: into memory that the ring does not know",
    },
    {
        .group = MEASURE,
        .name = "routing",
        .kind = OPTION_LIST,
        .commands = COMMAND_BENCH_CACHE,
        .argument = "FILE",
        .field = FIELD(routing),
        .help = "a trace that --record-routing wrote, repeatable; without, traces are made",
    },

    /* --- bench decode, bench prefill ----------------------------------------------------------- */
    {
        .group = MEASURE,
        .name = "tokens",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "N",
        .fallback = "64",
        .least = 1,
        .most = 1 << 20,
        .field = FIELD(n_tokens),
        .help = "how many each sequence decodes",
    },
    {
        .group = MEASURE,
        .name = "prompt-tokens",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "N",
        .fallback = "64",
        .least = 1,
        .most = 1 << 20,
        .field = FIELD(n_prompt),
        .help = "how long the prompts are: random tokens, another list for each sequence",
    },
    {
        .group = MEASURE,
        .name = "file",
        .letter = 'f',
        .kind = OPTION_TEXT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "FILE",
        .field = FIELD(file),
        .help = "a text as the prompt instead, the same for every sequence; - is standard input",
    },
    {
        .group = MEASURE,
        .name = "sequences",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "N",
        .fallback = "1",
        .least = 1,
        .most = 256,
        .field = FIELD(n_sequences),
        .help = "decode so many at once, in one step",
    },
    {
        .group = MEASURE,
        .name = "groups",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "N",
        .fallback = "1",
        .least = 1,
        .most = 256,
        .field = FIELD(groups),
        .help = "of the sequences: each has a step of its own, and they take turns, so that one "
                "computes while another reads",
    },
    {
        .group = MEASURE,
        .name = "rounds",
        .kind = OPTION_COUNT,
        .commands = COMMAND_BENCH_DECODE,
        .argument = "N",
        .fallback = "8",
        .least = 1,
        .most = 10000,
        .field = FIELD(n_rounds),
        .help = "windows that the tokens are decoded in; between them the disk is measured, since "
                "its rate moves. No more than there are tokens",
    },
    {
        .group = MEASURE,
        .name = "rows",
        .kind = OPTION_TEXT,
        .commands = COMMAND_BENCH_PREFILL,
        .argument = "N,N,...",
        .fallback = "32,64,128,512",
        .field = FIELD(rows),
        .help = "prompts of so many tokens, each taken in by a single step. The largest decides "
                "how much memory steps take",
    },
    {
        .group = MEASURE,
        .name = "disk-rate",
        .kind = OPTION_REAL,
        .commands = COMMANDS_BENCH_ENGINE,
        .argument = "GB/S",
        .shown = "measured meanwhile",
        .real_least = 1e-6,
        .real_most = 1e6,
        .field = FIELD(disk_rate),
        .help = "the rate that the run is held against, decimal: fio's, say. Measured otherwise: "
                "experts of the checkpoint, at random, by the engine's reader (which takes the "
                "memory of 8 experts beside --ram)",
    },
    {
        .group = MEASURE,
        .name = "seconds",
        .kind = OPTION_REAL,
        .commands = COMMANDS_BENCH_ENGINE,
        .argument = "S",
        .fallback = "1",
        .real_least = 0.01,
        .real_most = 3600,
        .field = FIELD(seconds),
        .help = "how long one look at the disk's rate takes",
    },
    {
        .group = MEASURE,
        .name = "seed",
        .kind = OPTION_NUMBER,
        .commands = COMMANDS_BENCH_ENGINE,
        .argument = "N",
        .fallback = "0",
        .most = UINT64_MAX,
        .field = FIELD(seed),
        .help = "of the made prompts",
    },

    /* --- several of them ------------------------------------------------------------------------ */
    {
        .group = OUTPUT,
        .name = "html",
        .kind = OPTION_TEXT,
        .commands = COMMAND_BENCH_IO | COMMAND_BENCH_CACHE,
        .argument = "FILE",
        .field = FIELD(html),
        .help = "write the report as one page with plots, too",
    },
    {
        .group = OUTPUT,
        .name = "json",
        .kind = OPTION_FLAG,
        .commands = COMMAND_BENCH_IO | COMMAND_BENCH_CACHE | COMMANDS_BENCH_ENGINE,
        .field = FIELD(json),
        .help = "print JSON instead of a table",
    },
};

const struct option_row *bench_options_row(size_t i) {
    return i < sizeof table / sizeof table[0] ? &table[i] : NULL;
}

/* --- contradictions --------------------------------------------------------------------------- */

// Of bench io: what asks for one measurement leaves no room for what shows many.
static enum status check_single(const struct options *o, struct err *err) {
    static const char *const one[] = { "shape", "block", "depth", "unregistered" };
    static const char *const many[] = { "full", "sustain", "html" };
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        for (size_t j = 0; j < sizeof many / sizeof *many; j++)
            if (options_given(o, one[i]) && options_given(o, many[j]))
                return err_set(
                    err, ERR_USAGE,
                    "--%s and --%s exclude each other: one measurement is asked for, and "
                    "no more",
                    one[i], many[j]);
    if (options_given(o, "block") && o->block_bytes % 4096 != 0)
        return err_set(err, ERR_USAGE, "--block: not a multiple of 4K, which O_DIRECT asks for");
    return OK;
}

static enum status check_decode(const struct options *o, struct err *err) {
    if (o->n_rounds > o->n_tokens && options_given(o, "rounds"))
        return err_set(err, ERR_USAGE,
                       "--rounds %u: a round decodes a token at least, and --tokens is %u",
                       o->n_rounds, o->n_tokens);
    if (o->groups > o->n_sequences)
        return err_set(err, ERR_USAGE, "--groups %u: more than there are --sequences, %u",
                       o->groups, o->n_sequences);
    if (options_given(o, "file") && options_given(o, "prompt-tokens"))
        return err_set(err, ERR_USAGE,
                       "--file and --prompt-tokens exclude each other: a text is as long as it is");
    return OK;
}

enum status bench_options_check(const struct options *o, struct err *err) {
    unsigned bit = o->command->bit;
    if ((bit & COMMANDS_BENCH_ENGINE) && options_given(o, "disk-rate") &&
        options_given(o, "seconds"))
        return err_set(err, ERR_USAGE,
                       "--disk-rate and --seconds exclude each other: the rate is not measured");
    if (bit & COMMAND_BENCH_IO)
        return check_single(o, err);
    return bit & COMMAND_BENCH_DECODE ? check_decode(o, err) : OK;
}
