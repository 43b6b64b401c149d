#include "tools/answer_view.h"
#include "tools/chat.h"
#include "tools/commands.h"
#include "tools/engine.h"
#include "tools/generate.h"
#include "tools/question.h"
#include "tools/together.h"

#include "src/flight.h"
#include "src/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TITLE_BYTES 56 // of a prompt, above its answer: the line then fits in 80 columns

// What is asked, and what becomes of it.
struct run {
    const struct options *options;
    struct engine engine;
    struct generator generator;
    struct question *questions;
    uint32_t n;
    struct generated *generated; // [n]
    struct answer_view view;     // of the answer that is being shown
    bool began;                  // there is something to account for
};

// --- how an answer is shown: the stage of tools/turns.h ------------------------------------------

static enum status print_message(const struct chat_message *message, struct err *err) {
    struct text_buffer json = { 0 };
    enum status status = answer_to_json(message, &json, err);
    text_buffer_string(&json, "\n");
    if (status == OK)
        status = text_buffer_status(&json, err);
    if (status == OK)
        status = write_out(json.bytes, json.n_bytes, err);
    text_buffer_free(&json);
    return status;
}

// As `head` and `tail` set files apart, with the prompt's beginning on the line.
static enum status print_title(const struct run *r, uint32_t which, struct err *err) {
    struct text_buffer title = { 0 };
    char number[64];
    const struct question *q = &r->questions[which];
    snprintf(number, sizeof number, "%s==> %u of %u: ", which ? "\n" : "", which + 1, r->n);
    text_buffer_string(&title, number);
    size_t at = 0;
    while (at < q->n_bytes) {
        struct utf8_step step = utf8_next(q->prompt + at, q->n_bytes - at);
        if (at + step.bytes > TITLE_BYTES)
            break;
        unsigned char c = (unsigned char)q->prompt[at];
        bool c1 = c == 0xC2 && step.bytes == 2 && (unsigned char)q->prompt[at + 1] < 0xA0;
        if (c < ' ' || c == 0x7F || c1) // one line, and harmless to a terminal
            text_buffer_string(&title, " ");
        else if (step.kind == UTF8_CHARACTER)
            text_buffer_append(&title, q->prompt + at, step.bytes);
        else
            text_buffer_string(&title, UTF8_REPLACEMENT);
        at += step.bytes;
    }
    text_buffer_string(&title, at < q->n_bytes ? "… <==\n" : " <==\n");
    enum status status = text_buffer_status(&title, err);
    if (status == OK)
        status = write_out(title.bytes, title.n_bytes, err);
    text_buffer_free(&title);
    return status;
}

static enum status begin_answer(void *context, uint32_t which, struct err *err) {
    struct run *r = context;
    const struct options *o = r->options;
    enum status status = OK;
    if (r->n > 1 && !o->json)
        status = print_title(r, which, err);
    if (status != OK || o->raw)
        return status;
    return answer_view_open(&r->view, conversation_answer_mode(&r->questions[which].conversation),
                            &r->engine.terminal, o->json, err);
}

static enum status take_answer(void *context, uint32_t which, const char *text, size_t n_bytes,
                               struct err *err) {
    struct run *r = context;
    (void)which;
    return r->options->raw ? write_out(text, n_bytes, err)
                           : answer_view_take(&r->view, text, n_bytes, err);
}

static enum status end_answer(void *context, uint32_t which, struct err *err) {
    struct run *r = context;
    if (r->options->raw)
        return r->generated[which].n_generated ? write_out("\n", 1, err) : OK;
    struct chat_message message;
    enum status status = answer_view_finish(&r->view, &message, err);
    if (status == OK && r->options->json)
        status = print_message(&message, err);
    answer_view_close(&r->view);
    return status;
}

// --- answers -------------------------------------------------------------------------------------

static enum status take_only_one(void *context, const char *text, size_t n_bytes, struct err *err) {
    return take_answer(context, 0, text, n_bytes, err);
}

static enum status answer_one(struct run *r, struct err *err) {
    struct text_sink sink = { take_only_one, r };
    struct err end = { .status = OK };
    const struct token_ids *prompt = &r->questions[0].ids;
    uint32_t ctx = sluice_fitted(r->engine.sluice)->ctx;
    enum status status = begin_answer(r, 0, err);
    if (status == OK && prompt->n > ctx)
        status = err_set(err, ERR_MEMORY,
                         "the prompt has %zu tokens, the context holds %u: a larger --ctx is "
                         "needed",
                         prompt->n, ctx);
    if (status == OK) {
        r->began = true;
        status = generate(&r->generator, prompt, &sink, r->generated, err);
    }
    // What an interrupted answer has said, it has said.
    if ((status == OK || status == CANCELLED) && end_answer(r, 0, &end) != OK) {
        *err = end;
        status = end.status;
    }
    return status;
}

static enum status answer_all(struct run *r, struct err *err) {
    struct turns_stage stage = { begin_answer, take_answer, end_answer, r };
    const struct token_ids *prompts[OPTION_LIST_MAX];
    for (uint32_t i = 0; i < r->n; i++)
        prompts[i] = &r->questions[i].ids;
    return answer_together(&r->engine, prompts, r->n, &stage, r->generated, &r->began, err);
}

// --- the command ---------------------------------------------------------------------------------

static enum status run(struct run *r, const struct options *o, struct err *err) {
    bool chat = !o->raw && !has_question(o);
    if (chat && o->json)
        return err_set(err, ERR_USAGE, "--json prints one answer as a message: ask with -p or -f");
    if (chat && !isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO))
        return err_set(err, ERR_USAGE, "a chat needs a terminal to be shown on; or ask with -p");
    enum status status = questions_read(&r->questions, &r->n, o, err);
    if (status == OK && !(r->generated = calloc(r->n, sizeof *r->generated)))
        status = err_set(err, ERR_MEMORY, "no memory for %u answers", r->n);
    if (r->n > 1) {
        uint32_t n_groups = o->groups ? o->groups : FLIGHT_GROUPS;
        r->engine.n_sequences = r->n;
        r->engine.n_narrow_steps = n_groups < r->n ? n_groups : r->n;
    }
    if (status == OK)
        status = engine_open(&r->engine, o, true, false, err);
    if (status == OK && r->n == 1)
        status = generator_open(&r->generator, &r->engine, err);
    if (status == OK && chat) {
        r->began = true;
        return chat_run(&r->generator, &r->questions[0].conversation, err);
    }
    for (uint32_t i = 0; i < r->n && status == OK; i++)
        status = question_encode(&r->questions[i], &r->engine, err);
    if (status != OK)
        return status;
    return r->n > 1 ? answer_all(r, err) : answer_one(r, err);
}

static void print_end(struct run *r, const struct options *o, struct err *err) {
    fflush(stdout);
    bool asked = o->raw || has_question(o);
    for (uint32_t i = 0; i < r->n && asked; i++) {
        fputs(i == 0 ? "\n" : "", stderr);
        if (r->n > 1)
            fprintf(stderr, "%u of %u: ", i + 1, r->n);
        fprintf(stderr, "%zu tokens of prompt, %u generated; ended by: %s\n", r->questions[i].ids.n,
                r->generated[i].n_generated, r->generated[i].end);
    }
    engine_account(&r->engine, err);
}

int cmd_run(const struct options *o) {
    struct run r = { .options = o };
    struct err err = { .status = OK };
    run(&r, o, &err);
    if (r.began)
        print_end(&r, o, &err);
    engine_recorded(&r.engine, &err);
    for (uint32_t i = 0; r.generated && i < r.n; i++)
        generated_free(&r.generated[i]);
    free(r.generated);
    answer_view_close(&r.view);
    generator_close(&r.generator);
    questions_free(r.questions, r.n);
    engine_traced(&r.engine, &err);
    engine_close(&r.engine);
    return command_error(o, &err);
}
