#include "tools/bench/bench.h"
#include "tools/commands.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command commands[] = {
    {
        .name = "run",
        .bit = COMMAND_RUN,
        .summary = "chat, answer a message, or continue a text",
        .operands = "",
        .about = "Answer a message (-p, -f, or standard input); chat (none of these, on a\n"
                 "terminal: /help says how); or continue a text (--raw). Routed experts are read\n"
                 "from disk as they are needed. The answer goes to standard output, all else to\n"
                 "standard error: reasoning, and at the end where time and bytes went.",
        .run = cmd_run,
    },
    {
        .name = "eval",
        .bit = COMMAND_EVAL,
        .summary = "the perplexity of a text, or the logits of a list of tokens",
        .operands = "",
        .about = "How well the model predicts a text; or, for comparing implementations, its\n"
                 "logits at every position of a list of token ids.",
        .run = cmd_eval,
    },
    {
        .name = "inspect",
        .bit = COMMAND_INSPECT,
        .summary = "what is in a checkpoint, and what a token costs to read",
        .operands = "[DIR...]",
        .most_operands = OPTION_LIST_MAX,
        .about = "Check a checkpoint's files without reading its weights, and list them: sizes by\n"
                 "kind, where each layer lies, what one token reads. DIR may be org/name.",
        .run = cmd_inspect,
    },
    {
        .name = "tokenize",
        .bit = COMMAND_TOKENIZE,
        .summary = "text to token ids and back; conversations to prompts",
        .operands = "[FILE]",
        .most_operands = 1,
        .about =
            "Print the ids of a text (FILE, or standard input), the spellings of added tokens\n"
            "becoming those tokens; or show what the chat format makes of a conversation and\n"
            "of an answer. Of a model only its tokenizer.json is needed.",
        .run = cmd_tokenize,
    },
    {
        .name = "mkmodel",
        .bit = COMMAND_MKMODEL,
        .summary = "write a random checkpoint in the published form",
        .operands = "DIR",
        .least_operands = 1,
        .most_operands = 1,
        .about = "Random weights that behave like trained ones, for trying things out and for\n"
                 "measuring: a small demo, or layers of the real models at their real size.",
        .run = cmd_mkmodel,
    },
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void print_help(FILE *out) {
    fputs("usage: sluice COMMAND [options]\n\n"
          "Runs DeepSeek-V4 checkpoints on one workstation: routed experts stay on disk and are\n"
          "streamed through a cache in memory.\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("  bench      measure this machine: `sluice bench` lists what\n", out);
    fputs("\n  sluice COMMAND --help     its options\n"
          "  sluice help exit-codes    what the exit code means\n"
          "  sluice --version\n",
          out);
}

static void print_exit_codes(FILE *out) {
    fprintf(out,
            "  %-3d  done\n"
            "  %-3d  something failed: a file is missing, damaged or unreadable; a system limit\n"
            "  %-3d  the command line makes no sense\n"
            "  %-3d  it does not fit in memory: in --ram, or in the machine\n"
            "  %-3d  interrupted (Ctrl-C, SIGTERM), after an orderly end\n",
            EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_MEMORY, EXIT_INTERRUPTED);
}

static int unknown_command(const char *name) {
    const char *names[N_COMMANDS + 2];
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    names[N_COMMANDS] = "help";
    names[N_COMMANDS + 1] = "bench";
    const char *nearest = nearest_word(name, names, N_COMMANDS + 2);
    struct err err = { .status = OK };
    if (nearest)
        err_set(&err, ERR_USAGE, "unknown command '%s' (did you mean '%s'?)", name, nearest);
    else
        err_set(&err, ERR_USAGE, "unknown command '%s' (`sluice --help` lists them)", name);
    return command_error(NULL, &err);
}

static int unknown_measurement(const char *what) {
    struct err err = { .status = OK };
    bench_unknown(what, &err);
    return command_error(NULL, &err);
}

/* sluice help bench [WHAT] */
static int help_bench(const char *what) {
    const struct command *command = what ? bench_find(what) : NULL;
    if (what && !command)
        return unknown_measurement(what);
    if (command)
        options_help(command, stdout);
    else
        bench_help(stdout);
    return EXIT_OK;
}

/* sluice help [COMMAND | bench [WHAT] | exit-codes] */
static int help(int argc, char *const *argv) {
    if (argc == 0)
        print_help(stdout);
    else if (strcmp(argv[0], "exit-codes") == 0)
        print_exit_codes(stdout);
    else if (strcmp(argv[0], "bench") == 0)
        return help_bench(argc > 1 ? argv[1] : NULL);
    else if (find_command(argv[0]))
        options_help(find_command(argv[0]), stdout);
    else
        return unknown_command(argv[0]);
    return EXIT_OK;
}

/* OpenMP's threads spin for a while at every barrier, and a token passes hundreds of them. Where
 * anything else runs (the disk's thread, another program) that takes the core from the work they
 * wait for: on two cores with a load of 4 to 8, the demo model made 8-24 tokens/s that way and
 * 24-133 with threads that sleep. The runtime reads its policy before main, so the way to set it is
 * to begin again. Whoever sets it, has it; where it cannot be set, the run is slower, no more. */
static void let_threads_sleep(char *const *argv) {
    if (!getenv("OMP_WAIT_POLICY") && setenv("OMP_WAIT_POLICY", "passive", 1) == 0)
        execv("/proc/self/exe", argv);
}

static int run_command(const struct command *command, int argc, char *const *argv,
                       char *const *whole_argv) {
    struct options o = { .command = command };
    struct err err = { .status = OK };
    environment_read(&o.environment, getenv);
    switch (options_parse(&o, command, argc, argv, &err)) {
    case OK:
        if (command->bit & (COMMANDS_ENGINE | COMMAND_BENCH_KERNELS))
            let_threads_sleep(whole_argv);
        interrupt_install();
        return command->run(&o);
    case DONE:
        options_help(command, stdout);
        return EXIT_OK;
    default:
        return command_error(&o, &err);
    }
}

/* sluice bench WHAT [options] */
static int bench(int argc, char *const *argv) {
    const char *what = argc > 2 ? argv[2] : NULL;
    if (!what) {
        bench_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0)
        return help_bench(NULL);
    const struct command *command = bench_find(what);
    return command ? run_command(command, argc - 3, argv + 3, argv) : unknown_measurement(what);
}

static int dispatch(int argc, char *const *argv) {
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        puts("sluice " SLUICE_VERSION);
        return EXIT_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(name, "bench") == 0)
        return bench(argc, argv);
    const struct command *command = find_command(name);
    return command ? run_command(command, argc - 2, argv + 2, argv) : unknown_command(name);
}

int main(int argc, char **argv) {
    int code = dispatch(argc, argv);
    // What was buffered may not fit on the disk; nobody else would notice.
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "sluice: cannot write to standard output: %s\n", strerror(errno));
        if (code == EXIT_OK)
            code = EXIT_FAILED;
    }
    return code;
}
