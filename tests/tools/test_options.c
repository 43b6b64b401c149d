#include "tools/options.h"
#include "tools/bench/decode.h"
#include "tools/bench/io.h"
#include "tools/bench/prefill.h"
#include "tools/commands.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct command run = { .name = "run",
                                    .bit = COMMAND_RUN,
                                    .summary = "generate text",
                                    .operands = "",
                                    .about = "Continue a text." };
static const struct command eval = { .name = "eval",
                                     .bit = COMMAND_EVAL,
                                     .summary = "perplexity",
                                     .operands = "",
                                     .about = "How well a text is predicted." };
static const struct command inspect = { .name = "inspect",
                                        .bit = COMMAND_INSPECT,
                                        .operands = "[DIR...]",
                                        .most_operands = OPTION_LIST_MAX,
                                        .about = "List a checkpoint." };
static const struct command mkmodel = { .name = "mkmodel",
                                        .bit = COMMAND_MKMODEL,
                                        .operands = "DIR",
                                        .least_operands = 1,
                                        .most_operands = 1,
                                        .about = "Make a checkpoint." };
static const struct command tokenize = { .name = "tokenize",
                                         .bit = COMMAND_TOKENIZE,
                                         .operands = "[FILE]",
                                         .most_operands = 1,
                                         .about = "Text to ids." };
static const struct command *const all[] = { &run,      &eval,     &inspect,      &mkmodel,
                                             &tokenize, &bench_io, &bench_decode, &bench_prefill };

static struct options o;
static struct err err;

#define PARSE(command, ...)                                                                        \
    parse(&command, sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *), (char *[]){ __VA_ARGS__ })

static enum status parse(const struct command *command, size_t argc, char *const *argv) {
    memset(&o, 0xA5, sizeof o); // nothing may depend on what was there
    memset(&o.environment, 0, sizeof o.environment);
    err_clear(&err);
    return options_parse(&o, command, (int)argc, argv, &err);
}

static void refused(enum status status, const char *text) {
    assert_int_equal(status, ERR_USAGE);
    assert_int_equal(err.status, ERR_USAGE);
    if (!strstr(err.text, text))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

/* What a function prints to a file, in a static buffer. */
static const char *printed(void (*print)(FILE *out)) {
    static char text[16384];
    FILE *file = tmpfile();
    assert_non_null(file);
    print(file);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void print_echo(FILE *out) {
    options_echo(&o, out);
}

static const struct command *help_of;
static void print_help(FILE *out) {
    options_help(help_of, out);
}

/* --- values ----------------------------------------------------------------------------------- */

static void every_default_is_in_force_when_nothing_is_given(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "-m", "dir"), OK);
    assert_int_equal(o.ram_bytes, 0);
    assert_int_equal(o.io, IO_AUTO);
    assert_int_equal(o.io_engine, IO_ENGINE_AUTO);
    assert_int_equal(o.ctx, 0);
    assert_false(o.exact);
    assert_int_equal(o.prompts.n, 0);
    assert_null(o.record_routing);
    assert_null(o.trace);
    assert_true(o.temperature == 1.0);
    assert_true(o.top_p == 1.0);
    assert_true(o.min_p == 0.0);
    assert_int_equal(o.top_k, 0);
    assert_int_equal(o.stop.n, 0);
    assert_int_equal(PARSE(eval, "-m", "dir", "-f", "x"), OK);
    assert_int_equal(o.window, 2048);
    assert_int_equal(o.decode_from, DECODE_FROM_NEVER);
    assert_int_equal(PARSE(mkmodel, "out"), OK);
    assert_int_equal(o.preset, PRESET_DEMO);
    assert_int_equal(o.drafts, DRAFT_NONE);
    assert_string_equal(o.operands.items[0], "out");
}

static void each_kind_of_option_fills_its_field(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "--model", "a", "-m", "b", "--ram", "8G", "--threads", "3", "--io",
                           "buffered", "--io-engine", "pread", "--prefetch", "gate", "--ctx",
                           "4096", "--chunk", "7", "--exact", "-p", "Hello", "--raw",
                           "--temperature", "0.7", "--top-k", "40", "--top-p", "0.95", "--min-p",
                           ".05", "--seed", "18446744073709551615", "--max-tokens", "12", "--stop",
                           "\n\n", "--stop", "END", "--stats", "s.json", "--record-routing", "r",
                           "--trace", "t.json"),
                     OK);
    assert_int_equal(o.models.n, 2);
    assert_string_equal(o.models.items[1], "b");
    assert_true(o.ram_bytes == 8ull << 30);
    assert_int_equal(o.n_threads, 3);
    assert_int_equal(o.io, IO_BUFFERED);
    assert_int_equal(o.io_engine, IO_ENGINE_PREAD);
    assert_int_equal(o.prefetch, PREFETCH_GATE);
    assert_int_equal(o.ctx, 4096);
    assert_int_equal(o.chunk, 7);
    assert_true(o.exact);
    assert_string_equal(o.prompts.items[0], "Hello");
    assert_true(o.raw);
    assert_true(o.temperature == 0.7);
    assert_int_equal(o.top_k, 40);
    assert_true(o.top_p == 0.95);
    assert_true(o.min_p == 0.05);
    assert_true(o.seed == UINT64_MAX);
    assert_int_equal(o.max_tokens, 12);
    assert_int_equal(o.stop.n, 2);
    assert_string_equal(o.stop.items[0], "\n\n");
    assert_string_equal(o.stats, "s.json");
    assert_string_equal(o.record_routing, "r");
    assert_string_equal(o.trace, "t.json");
    assert_int_equal(PARSE(mkmodel, "d", "--preset", "pro", "--layers", "2", "--first", "3",
                           "--drafts", "mtp", "--shards", "4", "--seed", "9"),
                     OK);
    assert_int_equal(o.preset, PRESET_PRO);
    assert_int_equal(o.n_layers, 2);
    assert_int_equal(o.first_layer, 3);
    assert_int_equal(o.drafts, DRAFT_MTP);
    assert_int_equal(o.n_shards, 4);
    assert_true(o.seed == 9);
}

static void all_spellings_of_a_value_mean_the_same(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "--model=a=b", "-pHello", "--ram=1T"), OK);
    assert_string_equal(o.models.items[0], "a=b");
    assert_string_equal(o.prompts.items[0], "Hello");
    assert_true(o.ram_bytes == 1ull << 40);
    assert_int_equal(PARSE(run, "-m", "a", "-p", "--dashes are text"), OK);
    assert_string_equal(o.prompts.items[0], "--dashes are text");
    assert_int_equal(PARSE(run, "-m", "a", "-p", "one", "--prompt", "two", "--groups=3"), OK);
    assert_int_equal(o.prompts.n, 2);
    assert_string_equal(o.prompts.items[0], "one");
    assert_string_equal(o.prompts.items[1], "two");
    assert_int_equal(o.groups, 3);
    assert_int_equal(PARSE(run, "-m", "a", "--prompt="), OK);
    assert_string_equal(o.prompts.items[0], "");
    assert_int_equal(PARSE(run, "-m", "a", "-f", "-"), OK);
    assert_string_equal(o.file, "-");
    assert_int_equal(PARSE(mkmodel, "--", "--preset"), OK);
    assert_string_equal(o.operands.items[0], "--preset");
}

static void sizes_are_binary(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = { { "0", 0 },
                 { "123", 123 },
                 { "2k", 2048 },
                 { "512M", 512ull << 20 },
                 { "8G", 8ull << 30 },
                 { "1.5T", 3ull << 39 },
                 { "0.25G", 1ull << 28 },
                 { "15T", 15ull << 40 },
                 { "18446744073709551615", UINT64_MAX } };
    static const char *const bad[] = { "",
                                       "G",
                                       "-1G",
                                       " 8G",
                                       "8 G",
                                       "8GB",
                                       "0x10",
                                       "1e99T",
                                       "nanG",
                                       "infG",
                                       "99999999999999999999",
                                       "16777216T",
                                       "1..5G",
                                       "8G8" };
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(bytes_parse(good[i].text, &bytes));
        assert_true(bytes == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (bytes_parse(bad[i], &bytes))
            fail_msg("'%s' was taken for a size", bad[i]);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void malformed_values_are_refused_by_name(void **state) {
    (void)state;
    refused(PARSE(run, "-m", "a", "--ram", "8X"), "--ram: '8X' is not a size");
    refused(PARSE(run, "-m", "a", "--threads", "-1"), "--threads: '-1' is not a whole number");
    refused(PARSE(run, "-m", "a", "--threads", "2x"), "--threads: '2x'");
    refused(PARSE(run, "-m", "a", "--threads", ""), "--threads: ''");
    refused(PARSE(run, "-m", "a", "--temperature", "nan"), "--temperature: 'nan' is not a number");
    refused(PARSE(run, "-m", "a", "--temperature", "1e999"), "--temperature");
    refused(PARSE(run, "-m", "a", "--io", "fast"), "'fast' is not one of auto, direct or buffered");
    refused(PARSE(run, "-m", "a", "--exact=yes"), "--exact takes no value");
}

static void values_out_of_bounds_are_refused_with_the_bounds(void **state) {
    (void)state;
    refused(PARSE(run, "-m", "a", "--threads", "0"), "--threads: 0 is out of range (1 to 1024)");
    refused(PARSE(run, "-m", "a", "--ctx", "4294967297"), "--ctx: 4294967297 is out of range");
    refused(PARSE(run, "-m", "a", "--ram", "1K"), "--ram: 1K is out of range (1M to 1024T)");
    refused(PARSE(run, "-m", "a", "--top-p", "1.5"), "--top-p: 1.5 is out of range (0 to 1)");
}

static void missing_values_are_refused(void **state) {
    (void)state;
    refused(PARSE(run, "-m"), "--model needs a value: --model DIR");
    refused(PARSE(run, "-m", "--ram", "8G"), "--model needs a value");
    refused(PARSE(run, "-m", "a", "--io"), "--io needs a value: --io auto");
}

static void unknown_options_suggest_the_nearest(void **state) {
    (void)state;
    refused(PARSE(run, "--tempreature", "1"), "did you mean --temperature?");
    refused(PARSE(run, "--temp=1"), "did you mean --temperature?");
    refused(PARSE(run, "-temperature", "1"), "did you mean --temperature?");
    refused(PARSE(run, "--max_tokens", "1"), "did you mean --max-tokens?");
    refused(PARSE(run, "--xyzzy"), "unknown option --xyzzy (--help lists them)");
    refused(PARSE(run, "-Z"), "unknown option -Z");
    refused(PARSE(run, "--window", "3"), "--window is no option of this command");
}

static void contradictions_are_refused(void **state) {
    (void)state;
    refused(PARSE(run, "-m", "a", "-p", "x", "-f", "y"), "--prompt and --file exclude each other");
    refused(PARSE(run, "-m", "a", "--groups", "2"), "--groups needs --prompt");
    refused(PARSE(run, "-m", "a", "-p", "x", "--groups", "0"), "out of range");
    refused(PARSE(run, "-m", "a", "--temperature", "0", "--top-k", "5"), "--temperature 0");
    refused(PARSE(run, "-m", "a", "--min-p", "0.1", "--temperature", "0"),
            "--min-p would do nothing");
    refused(PARSE(run, "-m", "a", "--ram", "8G", "--ram", "9G"), "--ram is given twice");
    refused(PARSE(eval, "-m", "a", "-f", "x", "--tokens", "y", "--logits", "z"), "exclude");
    refused(PARSE(eval, "-m", "a", "-f", "x", "--logits", "z"), "--logits needs --tokens");
    refused(PARSE(eval, "-m", "a", "-f", "x", "--mtp"), "--mtp needs --logits");
    refused(PARSE(eval, "-m", "a", "--tokens", "x", "--logits", "y", "--window", "8"), "--window");
    assert_int_equal(PARSE(run, "-m", "a", "--temperature", "0", "--seed", "3"), OK);
    assert_int_equal(
        PARSE(eval, "-m", "a", "--tokens", "x", "--logits", "y", "--mtp", "--decode-from", "0"),
        OK);
    assert_int_equal(o.decode_from, 0);
    assert_int_equal(PARSE(eval, "-m", "a", "-f", "x", "--record-routing", "r"), OK);
    assert_string_equal(o.record_routing, "r");
    refused(PARSE(mkmodel, "d", "--record-routing", "r"), "no option of this command");
    assert_int_equal(PARSE(eval, "-m", "a", "-f", "x", "--trace", "t"), OK);
    assert_string_equal(o.trace, "t");
    refused(PARSE(mkmodel, "d", "--trace", "t"), "no option of this command");
}

static void what_is_needed_is_asked_for(void **state) {
    (void)state;
    refused(options_parse((memset(&o, 0, sizeof o), err_clear(&err), &o), &run, 0, NULL, &err),
            "no model");
    refused(PARSE(eval, "-m", "a"), "nothing to evaluate");
    refused(PARSE(inspect, "--json"), "no model");
    refused(PARSE(inspect, "-m", "a", "b"), "not in both ways");
    assert_int_equal(PARSE(inspect, "a", "b"), OK);
    assert_int_equal(o.operands.n, 2);
    refused(PARSE(mkmodel, "--seed", "1"), "needs DIR");
    refused(PARSE(mkmodel, "a", "b"), "'b' is one operand too many: DIR");
    refused(PARSE(run, "-m", "a", "stray"), "'stray' belongs to no option");
}

static void a_list_has_an_end(void **state) {
    (void)state;
    char *argv[2 * (OPTION_LIST_MAX + 1)];
    for (int i = 0; i <= OPTION_LIST_MAX; i++) {
        argv[2 * i] = (char *)"-m";
        argv[2 * i + 1] = (char *)"dir";
    }
    assert_int_equal(parse(&run, 2 * OPTION_LIST_MAX, argv), OK);
    assert_int_equal(o.models.n, OPTION_LIST_MAX);
    refused(parse(&run, 2 * OPTION_LIST_MAX + 2, argv), "--model: given more than 32 times");
}

/* --- what else the table makes ---------------------------------------------------------------- */

static void help_is_asked_for_anywhere(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "--help"), DONE);
    assert_int_equal(PARSE(run, "-m", "a", "-h"), DONE);
    assert_int_equal(PARSE(mkmodel, "--help"), DONE); // though its operand is missing
}

static void help_lists_every_option_of_the_command_and_no_other(void **state) {
    (void)state;
    const struct option_row *row, *other;
    for (size_t c = 0; c < sizeof all / sizeof all[0]; c++) {
        help_of = all[c];
        const char *text = printed(print_help);
        for (size_t i = 0; (row = options_row(i)); i++) {
            char listed[80];
            snprintf(listed, sizeof listed, "--%s ", row->name);
            bool is_there = strstr(text, listed) != NULL;
            bool another = false; // a row of the same name that is this command's
            for (size_t k = 0; (other = options_row(k)); k++)
                another |= strcmp(other->name, row->name) == 0 && (other->commands & help_of->bit);
            if (is_there != another)
                fail_msg("%s --help and --%s", help_of->name, row->name);
        }
    }
}

static void help_fits_eighty_columns(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof all / sizeof all[0]; c++) {
        help_of = all[c];
        for (const char *line = printed(print_help); *line;) {
            size_t length = strcspn(line, "\n");
            if (length > 80)
                fail_msg("%.*s", (int)length, line);
            line += length + (line[length] == '\n');
        }
    }
}

// Rows of the second word of `given`, and those of the first beside them.
static void measurements_have_options_of_their_own(void **state) {
    (void)state;
    assert_int_equal(PARSE(bench_decode, "-m", "a", "--ram", "8G", "--tokens", "32", "--rounds",
                           "32", "--sequences", "4", "--json"),
                     OK);
    assert_int_equal(o.ram_bytes, 8ull << 30);
    assert_int_equal(o.n_tokens, 32);
    assert_int_equal(o.n_rounds, 32);
    assert_int_equal(o.n_sequences, 4);
    assert_int_equal(o.n_prompt, 64);
    assert_true(o.json && o.disk_rate == 0 && o.seconds == 1);
    assert_true(options_given(&o, "tokens") && options_given(&o, "json"));
    assert_true(options_given(&o, "ram") && !options_given(&o, "prompt-tokens"));
    assert_true(!options_given(&o, "disk-rate") && !options_given(&o, "threads"));
    assert_int_equal(PARSE(bench_decode, "-m", "a", "--tokens", "3"), OK); // fewer rounds then
    refused(PARSE(bench_decode, "-m", "a", "--tokens", "3", "--rounds", "4"), "--rounds 4");
    refused(PARSE(bench_decode, "-m", "a", "-f", "b", "--prompt-tokens", "4"), "--prompt-tokens");
    refused(PARSE(bench_decode, "-m", "a", "--disk-rate", "3", "--seconds", "4"), "--seconds");
    refused(PARSE(bench_decode), "no model");
    refused(PARSE(bench_decode, "-m", "a", "--rows", "4"), "no option of this command");
    refused(PARSE(bench_decode, "-m", "a", "--json", "--json"), "twice");
    assert_int_equal(PARSE(bench_prefill, "-m", "a", "--disk-rate", "3.2"), OK);
    assert_string_equal(o.rows, "32,64,128,512");
    assert_true(o.disk_rate == 3.2);
}

static void the_table_is_consistent(void **state) {
    (void)state;
    const struct option_row *r;
    size_t i = 0;
    for (; (r = options_row(i)); i++) {
        assert_non_null(r->group);
        assert_non_null(r->help);
        assert_true(r->commands != 0);
        assert_true(r->kind != OPTION_CHOICE || (r->words && r->fallback));
        assert_true(r->kind == OPTION_FLAG || r->kind == OPTION_CHOICE || r->argument);
        assert_true(r->kind != OPTION_COUNT || (r->most > 0 && r->most < UINT32_MAX));
        assert_true((r->kind != OPTION_NUMBER && r->kind != OPTION_BYTES) || r->most > 0);
        for (size_t k = 0; k < i; k++) // a name or a letter means one thing to a command
            if (options_row(k)->commands & r->commands) {
                assert_string_not_equal(options_row(k)->name, r->name);
                assert_true(!r->letter || options_row(k)->letter != r->letter);
            }
    }
    assert_in_range(i, 65, OPTIONS_MAX); // more than one word of `given`
}

static void the_echo_is_a_command_line_with_every_setting_in_force(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "-m", "a b", "-m", "c", "-p", "it's", "--ram", "1536M"), OK);
    assert_string_equal(printed(print_echo),
                        "sluice run --model 'a b' --model c --ram 1536M --cpu auto --io auto "
                        "--io-engine auto --prefetch auto "
                        "--prompt 'it'\\''s' --temperature 1 --seed 0\n");
    o.ctx = 4096; // a command resolves a default, then echoes it
    assert_non_null(strstr(printed(print_echo), " --ctx 4096 "));
    assert_int_equal(PARSE(eval, "-m", "a", "--tokens", "t", "--logits", "l", "--decode-from", "0"),
                     OK);
    assert_non_null(strstr(printed(print_echo), " --decode-from 0"));
}

static void what_is_echoed_parses_to_the_same_settings(void **state) {
    (void)state;
    assert_int_equal(PARSE(mkmodel, "--preset", "flash", "--layers", "2", "dir"), OK);
    struct options before = o;
    char *line = strdup(printed(print_echo)), *words[64];
    size_t n = 0;
    assert_non_null(line);
    for (char *word = strtok(line, " \n"); word && n < 64; word = strtok(NULL, " \n"))
        words[n++] = word;
    assert_int_equal(parse(&mkmodel, n - 2, words + 2), OK);
    assert_int_equal(o.preset, before.preset);
    assert_int_equal(o.n_layers, before.n_layers);
    assert_int_equal(o.first_layer, before.first_layer);
    assert_true(o.seed == before.seed);
    assert_string_equal(o.operands.items[0], "dir");
    free(line);
}

static void nearest_word_is_near_or_none(void **state) {
    (void)state;
    static const char *const words[] = { "run", "eval", "inspect", "mkmodel" };
    assert_string_equal(nearest_word("rnu", words, 4), "run");
    assert_string_equal(nearest_word("inspct", words, 4), "inspect");
    assert_string_equal(nearest_word("mkmodle", words, 4), "mkmodel");
    assert_string_equal(nearest_word("insp", words, 4), "inspect");
    assert_null(nearest_word("serve", words, 4));
    assert_null(nearest_word("", words, 4));
    char huge[300];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_null(nearest_word(huge, words, 4));
}

static void every_status_has_its_exit_code(void **state) {
    (void)state;
    assert_int_equal(exit_code(OK), 0);
    assert_int_equal(exit_code(DONE), 0);
    assert_int_equal(exit_code(ERR_INPUT), 1);
    assert_int_equal(exit_code(ERR_MISSING), 1);
    assert_int_equal(exit_code(ERR_TRUNCATED), 1);
    assert_int_equal(exit_code(ERR_IO), 1);
    assert_int_equal(exit_code(ERR_SYSTEM), 1);
    assert_int_equal(exit_code(AGAIN), 1);
    assert_int_equal(exit_code(ERR_USAGE), 2);
    assert_int_equal(exit_code(ERR_MEMORY), 3);
    assert_int_equal(exit_code(CANCELLED), 130);
}

/* --- the environment -------------------------------------------------------------------------- */

static const char *const (*variables)[2];

static char *get(const char *name) {
    for (size_t i = 0; variables[i][0]; i++)
        if (strcmp(variables[i][0], name) == 0)
            return (char *)variables[i][1];
    return NULL;
}

static void the_hub_cache_is_found_as_its_own_library_does(void **state) {
    (void)state;
    static const char *const order[][2] = { { "HF_HUB_CACHE", "/a" },
                                            { "HF_HOME", "/b" },
                                            { "XDG_CACHE_HOME", "/c" },
                                            { "HOME", "/d" },
                                            { NULL, NULL } };
    static const char *const expected[] = { "/a", "/b/hub", "/c/huggingface/hub",
                                            "/d/.cache/huggingface/hub", "" };
    struct environment e;
    for (size_t i = 0; i < 5; i++) {
        variables = order + i;
        environment_read(&e, get);
        assert_string_equal(e.hub_cache, expected[i]);
    }
    static const char *const empty[][2] = { { "HF_HOME", "" }, { "HOME", "/d" }, { NULL, NULL } };
    variables = empty;
    environment_read(&e, get);
    assert_string_equal(e.hub_cache, "/d/.cache/huggingface/hub");
}

static void a_cache_path_that_is_too_long_is_none(void **state) {
    (void)state;
    char *longest = malloc(PATH_MAX + 1);
    assert_non_null(longest);
    memset(longest, 'x', PATH_MAX);
    longest[PATH_MAX] = '\0';
    const char *const one[][2] = { { "HF_HOME", longest }, { NULL, NULL } };
    variables = one;
    struct environment e;
    environment_read(&e, get);
    assert_string_equal(e.hub_cache, "");
    free(longest);
}

static void no_color_and_dumb_terminals_are_plain(void **state) {
    (void)state;
    static const char *const cases[][3][2] = {
        { { "TERM", "xterm" }, { NULL, NULL } },
        { { "TERM", "xterm" }, { "NO_COLOR", "1" }, { NULL, NULL } },
        { { "TERM", "dumb" }, { NULL, NULL } },
        { { "NO_COLOR", "" }, { NULL, NULL } },
    };
    static const bool plain[] = { false, true, true, false };
    struct environment e;
    for (size_t i = 0; i < 4; i++) {
        variables = cases[i];
        environment_read(&e, get);
        assert_int_equal(e.plain, plain[i]);
    }
}

static void a_chat_has_no_raw_text(void **state) {
    (void)state;
    assert_int_equal(PARSE(run, "-m", "x", "--system", "s", "--mode", "thinking", "--effort", "max",
                           "--tools", "t", "--json"),
                     OK);
    assert_string_equal(o.system, "s");
    assert_int_equal(o.mode, CHAT_MODE_THINKING);
    assert_int_equal(o.effort, CHAT_EFFORT_MAX);
    assert_true(o.json);
    static const char *const of_chats[] = { "system", "mode", "tools", "messages" };
    for (size_t i = 0; i < sizeof of_chats / sizeof of_chats[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "--%s", of_chats[i]);
        refused(PARSE(run, "-m", "x", "--raw", name, "chat"), "exclude each other");
    }
    refused(PARSE(run, "-m", "x", "--effort", "max"), "--mode thinking");
    refused(PARSE(run, "-m", "x", "--messages", "f", "-p", "x"), "exclude each other");
}

static void tokenize_needs_a_tokenizer_for_ids_only(void **state) {
    (void)state;
    assert_int_equal(PARSE(tokenize, "-m", "x", "f"), OK);
    assert_int_equal(o.mode, CHAT_MODE_CHAT);
    assert_int_equal(PARSE(tokenize, "--chat", "--text"), OK);
    assert_int_equal(PARSE(tokenize, "--parse", "--mode", "thinking"), OK);
    refused(PARSE(tokenize, "f"), "no tokenizer");
    refused(PARSE(tokenize, "--chat"), "no tokenizer");
    refused(PARSE(tokenize, "-m", "x", "--text"), "--text needs --chat");
    refused(PARSE(tokenize, "-m", "x", "--mode", "chat"), "--mode needs");
    refused(PARSE(tokenize, "-m", "x", "--decode", "--no-added"), "exclude each other");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_in_force_when_nothing_is_given),
        cmocka_unit_test(each_kind_of_option_fills_its_field),
        cmocka_unit_test(all_spellings_of_a_value_mean_the_same),
        cmocka_unit_test(sizes_are_binary),
        cmocka_unit_test(malformed_values_are_refused_by_name),
        cmocka_unit_test(values_out_of_bounds_are_refused_with_the_bounds),
        cmocka_unit_test(missing_values_are_refused),
        cmocka_unit_test(unknown_options_suggest_the_nearest),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(what_is_needed_is_asked_for),
        cmocka_unit_test(a_list_has_an_end),
        cmocka_unit_test(help_is_asked_for_anywhere),
        cmocka_unit_test(help_lists_every_option_of_the_command_and_no_other),
        cmocka_unit_test(help_fits_eighty_columns),
        cmocka_unit_test(measurements_have_options_of_their_own),
        cmocka_unit_test(the_table_is_consistent),
        cmocka_unit_test(the_echo_is_a_command_line_with_every_setting_in_force),
        cmocka_unit_test(what_is_echoed_parses_to_the_same_settings),
        cmocka_unit_test(nearest_word_is_near_or_none),
        cmocka_unit_test(every_status_has_its_exit_code),
        cmocka_unit_test(the_hub_cache_is_found_as_its_own_library_does),
        cmocka_unit_test(a_cache_path_that_is_too_long_is_none),
        cmocka_unit_test(no_color_and_dumb_terminals_are_plain),
        cmocka_unit_test(a_chat_has_no_raw_text),
        cmocka_unit_test(tokenize_needs_a_tokenizer_for_ids_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
