#include "tools/bench/bench_options.h"
#include "tools/options.h"

#include <stdio.h>

#define FIELD(name) offsetof(struct options, name)

#define MACHINE  GROUP_MACHINE
#define TEXT     "Text"
#define SAMPLING "Sampling"
#define MEASURE  GROUP_MEASURE
#define MODEL    "The checkpoint to make"
#define CHAT     "Chat"
#define OUTPUT   GROUP_OUTPUT

// The order is that of the enums in io/reader.h, src/text/chat.h, src/checkpoint/config.h and options.h.
static const char *const io_words[] = { "auto", "direct", "buffered", NULL };
static const char *const cpu_words[] = { "auto", "scalar", "avx2", "avx512", NULL };
static const char *const io_engine_words[] = { "auto", "uring", "pread", NULL };
static const char *const prefetch_words[] = { "auto", "off", "hash", "gate", "sweep", NULL };
static const char *const preset_words[] = { "demo", "flash", "pro", NULL };
static const char *const mode_words[] = { "chat", "thinking", NULL };
static const char *const effort_words[] = { "none", "high", "max", NULL };
static const char *const drafts_words[] = { "none", "mtp", NULL };

static const struct option_row table[] = {
    /* --- machine and memory: the same for every command that runs the model ------------------- */
    {
        .group = MACHINE,
        .name = "model",
        .letter = 'm',
        .kind = OPTION_LIST,
        .commands = COMMANDS_ENGINE | COMMAND_INSPECT | COMMAND_TOKENIZE,
        .argument = "DIR",
        .field = FIELD(models),
        .help = "the checkpoint: a directory, or org/name in the Hugging Face cache. Given more "
                "than once, its shards are spread over several directories (and drives)",
    },
    {
        .group = MACHINE,
        .name = "ram",
        .kind = OPTION_BYTES,
        .commands = COMMANDS_ENGINE,
        .argument = "SIZE",
        .shown = "what is free now",
        .least = 1 << 20,
        .most = 1ull << 50,
        .field = FIELD(ram_bytes),
        .help = "all the memory to use, e.g. 64G: dense weights, KV cache, scratch, and the rest "
                "for experts. More of it means fewer reads",
    },
    {
        .group = MACHINE,
        .name = "threads",
        .kind = OPTION_COUNT,
        .commands = COMMANDS_ENGINE | COMMAND_BENCH_KERNELS,
        .argument = "N",
        .shown = "one for each core",
        .least = 1,
        .most = 1024,
        .field = FIELD(n_threads),
        .help = "threads of arithmetic",
    },
    {
        .group = MACHINE,
        .name = "cpu",
        .kind = OPTION_CHOICE,
        .commands = COMMANDS_ENGINE | COMMAND_BENCH_KERNELS,
        .fallback = "auto",
        .words = cpu_words,
        .field = FIELD(cpu),
        .help = "the vector instructions of the arithmetic; auto is the best that this machine "
                "has. The result does not depend on it",
    },
    {
        .group = MACHINE,
        .name = "io",
        .kind = OPTION_CHOICE,
        .commands = COMMANDS_ENGINE | COMMAND_BENCH_IO,
        .fallback = "auto",
        .words = io_words,
        .field = FIELD(io),
        .help = "read experts with O_DIRECT, or through the page cache; auto is direct unless "
                "the page cache has room for all of them (never with --ram)",
    },
    {
        .group = MACHINE,
        .name = "io-engine",
        .kind = OPTION_CHOICE,
        .commands = COMMANDS_ENGINE | COMMAND_BENCH_IO,
        .fallback = "auto",
        .words = io_engine_words,
        .field = FIELD(io_engine),
        .help = "io_uring, or a pool of threads that call pread; auto is io_uring where the "
                "system allows it",
    },
    {
        .group = MACHINE,
        .name = "remeasure",
        .kind = OPTION_FLAG,
        .commands = COMMANDS_ENGINE,
        .field = FIELD(remeasure),
        .help = "find out anew which chunk size and depth the checkpoint's drives want, about 12 "
                "seconds each; what `sluice bench io` or this found before is used otherwise",
    },
    {
        .group = MACHINE,
        .name = "prefetch",
        .kind = OPTION_CHOICE,
        .commands = COMMANDS_ENGINE,
        .fallback = "auto",
        .words = prefetch_words,
        .field = FIELD(prefetch),
        .help = "experts read before their layer asks for them: hash, layers routed by table, "
                "known from the token; gate, the next layer's gate run early; sweep, the next "
                "layer whole where a prompt wants nearly all of it",
    },
    {
        .group = MACHINE,
        .name = "ctx",
        .kind = OPTION_COUNT,
        .commands = COMMANDS_MODEL,
        .argument = "N",
        .shown = "32768, or what fits",
        .least = 1,
        .most = 1 << 20,
        .field = FIELD(ctx),
        .help = "positions to keep room for in the KV cache, prompt and answer together",
    },
    {
        .group = MACHINE,
        .name = "chunk",
        .kind = OPTION_COUNT,
        .commands = COMMANDS_MODEL,
        .argument = "N",
        .shown = "chosen by the engine",
        .least = 1,
        .most = 1 << 16,
        .field = FIELD(chunk),
        .help = "tokens of one prefill step: each expert is read at most once a step. The result "
                "does not depend on it",
    },
    {
        .group = MACHINE,
        .name = "groups",
        .kind = OPTION_COUNT,
        .commands = COMMAND_RUN,
        .argument = "N",
        .shown = "2, or 1 while that is faster",
        .least = 1,
        .most = OPTION_LIST_MAX,
        .field = FIELD(groups),
        .help = "of several prompts (-p A -p B): decode them in N groups, one of which computes "
                "while another's experts are read. The result does not depend on it",
    },
    {
        .group = MACHINE,
        .name = "exact",
        .kind = OPTION_FLAG,
        .commands = COMMANDS_MODEL,
        .field = FIELD(exact),
        .help = "do not quantize activations, and keep the KV cache in float32: for checking, and "
                "to measure what the model's own quantization costs",
    },

    /* --- run ----------------------------------------------------------------------------------- */
    {
        .group = TEXT,
        .name = "prompt",
        .letter = 'p',
        .kind = OPTION_LIST,
        .commands = COMMAND_RUN,
        .argument = "TEXT",
        .field = FIELD(prompts),
        .help =
            "what to answer; without -p and -f it is read from standard input, and if that is a "
            "terminal a chat begins. Several are answered together, each as if it were alone",
    },
    {
        .group = TEXT,
        .name = "file",
        .letter = 'f',
        .kind = OPTION_TEXT,
        .commands = COMMAND_RUN,
        .argument = "FILE",
        .field = FIELD(file),
        .help = "read the text from a file; - is standard input",
    },
    {
        .group = TEXT,
        .name = "raw",
        .kind = OPTION_FLAG,
        .commands = COMMAND_RUN,
        .field = FIELD(raw),
        .help = "continue the text as it is: a BOS token, then the text, in which the spelling of "
                "a control token is only text. (Otherwise it is a user's message, and answered)",
    },
    {
        .group = TEXT,
        .name = "max-tokens",
        .kind = OPTION_COUNT,
        .commands = COMMAND_RUN,
        .argument = "N",
        .shown = "until the context is full",
        .least = 1,
        .most = 1 << 20,
        .field = FIELD(max_tokens),
        .help = "stop after this many new tokens",
    },
    {
        .group = TEXT,
        .name = "stop",
        .kind = OPTION_LIST,
        .commands = COMMAND_RUN,
        .argument = "TEXT",
        .field = FIELD(stop),
        .help = "stop before this text appears; may be given several times",
    },
    {
        .group = CHAT,
        .name = "mode",
        .kind = OPTION_CHOICE,
        .commands = COMMAND_RUN | COMMAND_TOKENIZE,
        .fallback = "chat",
        .shown = "chat",
        .words = mode_words,
        .field = FIELD(mode),
        .help = "whether to answer at once, or to reason first. Of run, reasoning goes to standard "
                "error, dimmed on a terminal; the answer goes to standard output",
    },
    {
        .group = CHAT,
        .name = "effort",
        .kind = OPTION_CHOICE,
        .commands = COMMAND_RUN | COMMAND_TOKENIZE,
        .fallback = "none",
        .shown = "none",
        .words = effort_words,
        .field = FIELD(effort),
        .help = "how hard to reason; the model was trained to see high as none",
    },
    {
        .group = CHAT,
        .name = "system",
        .kind = OPTION_TEXT,
        .commands = COMMAND_RUN,
        .argument = "TEXT",
        .field = FIELD(system),
        .help = "a system message, before all others",
    },
    {
        .group = CHAT,
        .name = "tools",
        .kind = OPTION_TEXT,
        .commands = COMMAND_RUN,
        .argument = "FILE",
        .field = FIELD(tools),
        .help = "functions that the model may call: a JSON list, as OpenAI's \"tools\". Its calls "
                "are shown on standard error, or are part of what --json prints",
    },
    {
        .group = CHAT,
        .name = "messages",
        .kind = OPTION_TEXT,
        .commands = COMMAND_RUN,
        .argument = "FILE",
        .field = FIELD(messages),
        .help = "answer a conversation: a JSON list of messages, or {\"messages\": [...], "
                "\"tools\": [...]}; - is standard input",
    },
    {
        .group = CHAT,
        .name = "json",
        .kind = OPTION_FLAG,
        .commands = COMMAND_RUN,
        .field = FIELD(json),
        .help = "print the answer at its end, as a message: content, reasoning_content and "
                "tool_calls, one line of JSON",
    },
    {
        .group = SAMPLING,
        .name = "temperature",
        .kind = OPTION_REAL,
        .commands = COMMAND_RUN,
        .argument = "T",
        .fallback = "1", // with top-p 1: what the publisher recommends
        .real_least = 0,
        .real_most = 100,
        .field = FIELD(temperature),
        .help = "0 takes the most likely token; the options below then have nothing to choose from "
                "and are refused",
    },
    {
        .group = SAMPLING,
        .name = "top-k",
        .kind = OPTION_COUNT,
        .commands = COMMAND_RUN,
        .argument = "N",
        .shown = "off",
        .least = 1,
        .most = 1 << 20,
        .field = FIELD(top_k),
        .help = "choose among the N most likely tokens",
    },
    {
        .group = SAMPLING,
        .name = "top-p",
        .kind = OPTION_REAL,
        .commands = COMMAND_RUN,
        .argument = "P",
        .fallback = "1",
        .shown = "1, off",
        .real_least = 0,
        .real_most = 1,
        .field = FIELD(top_p),
        .help = "then among the fewest whose probabilities reach P",
    },
    {
        .group = SAMPLING,
        .name = "min-p",
        .kind = OPTION_REAL,
        .commands = COMMAND_RUN,
        .argument = "P",
        .fallback = "0",
        .shown = "0, off",
        .real_least = 0,
        .real_most = 1,
        .field = FIELD(min_p),
        .help = "then among those at least P times as likely as the first",
    },
    {
        .group = SAMPLING,
        .name = "seed",
        .kind = OPTION_NUMBER,
        .commands = COMMAND_RUN,
        .argument = "N",
        .fallback = "0",
        .most = UINT64_MAX,
        .field = FIELD(seed),
        .help = "the same seed and text give the same answer, on any machine",
    },

    /* --- eval ---------------------------------------------------------------------------------- */
    {
        .group = MEASURE,
        .name = "file",
        .letter = 'f',
        .kind = OPTION_TEXT,
        .commands = COMMAND_EVAL,
        .argument = "FILE",
        .field = FIELD(file),
        .help = "the perplexity of this text; - is standard input",
    },
    {
        .group = MEASURE,
        .name = "window",
        .kind = OPTION_COUNT,
        .commands = COMMAND_EVAL,
        .argument = "N",
        .fallback = "2048",
        .least = 2,
        .most = 1 << 20,
        .field = FIELD(window),
        .help = "tokens of one window of the text, BOS included; half of each overlaps the one "
                "before and is not scored again",
    },
    {
        .group = MEASURE,
        .name = "tokens",
        .kind = OPTION_TEXT,
        .commands = COMMAND_EVAL,
        .argument = "FILE",
        .field = FIELD(tokens),
        .help =
            "instead of a text: token ids separated by white space, whose logits go to --logits",
    },
    {
        .group = MEASURE,
        .name = "logits",
        .kind = OPTION_TEXT,
        .commands = COMMAND_EVAL,
        .argument = "FILE",
        .field = FIELD(logits),
        .help = "write a safetensors file: logits, F32 [positions, vocabulary]",
    },
    {
        .group = MEASURE,
        .name = "mtp",
        .kind = OPTION_FLAG,
        .commands = COMMAND_EVAL,
        .field = FIELD(mtp),
        .help = "and the draft block's: mtp.logits, F32 [positions - 1, vocabulary]",
    },
    {
        .group = MEASURE,
        .name = "decode-from",
        .kind = OPTION_COUNT,
        .commands = COMMAND_EVAL,
        .argument = "P",
        .fallback = "4294967295", // DECODE_FROM_NEVER
        .shown = "never",
        .most = 1 << 20,
        .field = FIELD(decode_from),
        .help = "feed position P and those after it one by one, as decoding does",
    },
    {
        .group = OUTPUT,
        .name = "trace",
        .kind = OPTION_TEXT,
        .commands = COMMANDS_MODEL,
        .argument = "FILE",
        .field = FIELD(trace),
        .help = "write a timeline of steps, layers, waits and reads, which ui.perfetto.dev and "
                "chrome://tracing open, and tools/trace-summary.py sums up",
    },

    /* --- run and eval -------------------------------------------------------------------------- */
    {
        .group = OUTPUT,
        .name = "stats",
        .kind = OPTION_TEXT,
        .commands = COMMANDS_MODEL,
        .argument = "FILE",
        .field = FIELD(stats),
        .help = "write the account of the run as JSON: where its time and its bytes went",
    },
    {
        .group = OUTPUT,
        .name = "record-routing",
        .kind = OPTION_TEXT,
        .commands = COMMANDS_MODEL,
        .argument = "FILE",
        .field = FIELD(record_routing),
        .help = "write which experts each token chose in each layer, a compact binary file "
                "(src/routing_trace.h) that tools/plot-routing.py shows",
    },

    /* --- mkmodel ------------------------------------------------------------------------------- */
    {
        .group = MODEL,
        .name = "preset",
        .kind = OPTION_CHOICE,
        .commands = COMMAND_MKMODEL,
        .fallback = "demo",
        .words = preset_words,
        .field = FIELD(preset),
        .help = "demo takes seconds and under 100 MB; flash and pro have the layers of the real "
                "models, at their real size",
    },
    {
        .group = MODEL,
        .name = "layers",
        .kind = OPTION_COUNT,
        .commands = COMMAND_MKMODEL,
        .argument = "N",
        .shown = "3; demo: all of its own",
        .least = 1,
        .most = CONFIG_MAX_LAYERS,
        .field = FIELD(n_layers),
        .help = "make N consecutive layers of the preset's list",
    },
    {
        .group = MODEL,
        .name = "first",
        .kind = OPTION_COUNT,
        .commands = COMMAND_MKMODEL,
        .argument = "LAYER",
        .shown = "3; demo: 0",
        .most = CONFIG_MAX_LAYERS - 1,
        .field = FIELD(first_layer),
        .help = "the first of them: layers 0 to 2 of the real models are routed by table, those "
                "after by score",
    },
    {
        .group = MODEL,
        .name = "drafts",
        .kind = OPTION_CHOICE,
        .commands = COMMAND_MKMODEL,
        .fallback = "none",
        .shown = "none; demo: mtp",
        .words = drafts_words,
        .field = FIELD(drafts),
        .help = "whether to add the draft block",
    },
    {
        .group = MODEL,
        .name = "seed",
        .kind = OPTION_NUMBER,
        .commands = COMMAND_MKMODEL,
        .argument = "N",
        .fallback = "0",
        .most = UINT64_MAX,
        .field = FIELD(seed),
        .help = "of the random weights",
    },
    {
        .group = MODEL,
        .name = "shards",
        .kind = OPTION_COUNT,
        .commands = COMMAND_MKMODEL,
        .argument = "N",
        .shown = "as many as the size asks for",
        .least = 1,
        .most = 999,
        .field = FIELD(n_shards),
        .help = "files to spread it over",
    },

    /* --- inspect ------------------------------------------------------------------------------- */
    {
        .group = OUTPUT,
        .name = "json",
        .kind = OPTION_FLAG,
        .commands = COMMAND_INSPECT,
        .field = FIELD(json),
        .help = "print JSON instead of a table",
    },

    /* --- tokenize ------------------------------------------------------------------------------ */
    {
        .group = TEXT,
        .name = "no-added",
        .kind = OPTION_FLAG,
        .commands = COMMAND_TOKENIZE,
        .field = FIELD(no_added),
        .help = "as text from users is encoded: the spelling of a control token is only text",
    },
    {
        .group = TEXT,
        .name = "decode",
        .kind = OPTION_FLAG,
        .commands = COMMAND_TOKENIZE,
        .field = FIELD(decode),
        .help = "the other way: read ids, separated by white space, and print their text. An id "
                "that no token has is nothing",
    },
    {
        .group = CHAT,
        .name = "chat",
        .kind = OPTION_FLAG,
        .commands = COMMAND_TOKENIZE,
        .field = FIELD(chat),
        .help =
            "read a conversation ({\"messages\": [...], \"tools\": [...]}) and print the ids of "
            "its prompt",
    },
    {
        .group = CHAT,
        .name = "text",
        .kind = OPTION_FLAG,
        .commands = COMMAND_TOKENIZE,
        .field = FIELD(text),
        .help = "print the prompt's text instead: no tokenizer, and no -m, is needed",
    },
    {
        .group = CHAT,
        .name = "parse",
        .kind = OPTION_FLAG,
        .commands = COMMAND_TOKENIZE,
        .field = FIELD(parse),
        .help = "read an answer of the model, and print it as a message in JSON: no -m is needed",
    },
};

const struct option_row *options_row(size_t i) {
    size_t n = sizeof table / sizeof table[0];
    return i < n ? &table[i] : bench_options_row(i - n);
}

/* --- contradictions --------------------------------------------------------------------------- */

#define RAW_IS_NO_CHAT "a text that is continued as it is has no messages"

static const struct {
    unsigned commands;
    const char *one, *other, *why;
} exclusive[] = {
    { COMMAND_RUN, "prompt", "file", "the text comes from one place" },
    { COMMAND_RUN, "raw", "mode", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "raw", "effort", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "raw", "system", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "raw", "tools", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "raw", "messages", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "raw", "json", RAW_IS_NO_CHAT },
    { COMMAND_RUN, "messages", "prompt", "the conversation comes from one place" },
    { COMMAND_RUN, "messages", "file", "the conversation comes from one place" },
    { COMMAND_TOKENIZE, "decode", "no-added", "an id is what it is" },
    { COMMAND_TOKENIZE, "decode", "chat", "a conversation is no list of ids" },
    { COMMAND_TOKENIZE, "decode", "parse", "an answer is no list of ids" },
    { COMMAND_TOKENIZE, "chat", "parse", "a conversation goes in, an answer comes out" },
    { COMMAND_TOKENIZE, "chat", "no-added", "only the format's own tokens are control tokens" },
    { COMMAND_TOKENIZE, "parse", "no-added", "an answer is parsed as text" },
    { COMMAND_EVAL, "file", "tokens", "a text has a perplexity, a list of ids has logits" },
    { COMMAND_EVAL, "window", "tokens", "a list of ids is fed as a whole, not in windows" },
};

static const struct {
    unsigned commands;
    const char *option, *needs;
} dependent[] = {
    { COMMAND_EVAL, "tokens", "logits" }, { COMMAND_EVAL, "logits", "tokens" },
    { COMMAND_EVAL, "mtp", "logits" },    { COMMAND_EVAL, "decode-from", "tokens" },
    { COMMAND_TOKENIZE, "text", "chat" }, { COMMAND_TOKENIZE, "effort", "chat" },
    { COMMAND_RUN, "groups", "prompt" },
};

static enum status check_greedy(const struct options *o, struct err *err) {
    static const char *const choosers[] = { "top-k", "top-p", "min-p" };
    if (o->temperature > 0)
        return OK;
    for (size_t i = 0; i < sizeof choosers / sizeof choosers[0]; i++)
        if (options_given(o, choosers[i]))
            return err_set(err, ERR_USAGE,
                           "--temperature 0 takes the most likely token: --%s would do nothing",
                           choosers[i]);
    return OK;
}

enum status options_check(const struct options *o, struct err *err) {
    unsigned bit = o->command->bit;
    for (size_t i = 0; i < sizeof exclusive / sizeof exclusive[0]; i++)
        if ((exclusive[i].commands & bit) && options_given(o, exclusive[i].one) &&
            options_given(o, exclusive[i].other))
            return err_set(err, ERR_USAGE, "--%s and --%s exclude each other: %s", exclusive[i].one,
                           exclusive[i].other, exclusive[i].why);
    for (size_t i = 0; i < sizeof dependent / sizeof dependent[0]; i++)
        if ((dependent[i].commands & bit) && options_given(o, dependent[i].option) &&
            !options_given(o, dependent[i].needs))
            return err_set(err, ERR_USAGE, "--%s needs --%s", dependent[i].option,
                           dependent[i].needs);
    bool text_only = o->parse || (o->chat && o->text); // of tokenize
    if ((bit & COMMAND_TOKENIZE) && o->models.n == 0 && !text_only)
        return err_set(err, ERR_USAGE,
                       "no tokenizer: name the directory that has a tokenizer.json, with -m");
    if ((bit & COMMAND_TOKENIZE) && options_given(o, "mode") && !o->chat && !o->parse)
        return err_set(err, ERR_USAGE, "--mode needs --chat or --parse");
    if ((bit & COMMAND_RUN) && options_given(o, "effort") && o->mode == CHAT_MODE_CHAT)
        return err_set(err, ERR_USAGE, "--effort is of reasoning: it needs --mode thinking");
    if ((bit & (COMMANDS_ENGINE | COMMAND_INSPECT)) && o->models.n + o->operands.n == 0)
        return err_set(err, ERR_USAGE,
                       "no model: name the directory of a checkpoint, or org/name, with -m");
    if ((bit & COMMAND_INSPECT) && o->models.n && o->operands.n)
        return err_set(err, ERR_USAGE,
                       "name the directories with -m, or without, not in both ways");
    if ((bit & COMMAND_EVAL) && !o->file && !o->tokens)
        return err_set(err, ERR_USAGE,
                       "nothing to evaluate: name a text with -f FILE (- is standard input), or "
                       "ids with --tokens FILE");
    for (uint32_t i = 0; i < o->stop.n; i++)
        if (!*o->stop.items[i])
            return err_set(err, ERR_USAGE, "--stop: an empty text stops nothing");
    if (bit & COMMAND_RUN)
        return check_greedy(o, err);
    return bench_options_check(o, err);
}
