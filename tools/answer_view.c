#include "tools/answer_view.h"

#include "tools/generate.h"

#include <stdio.h>
#include <unistd.h>

enum status answer_view_open(struct answer_view *v, enum chat_mode mode,
                             const struct terminal *terminal, bool quiet, struct err *err) {
    *v = (struct answer_view){ .terminal = terminal,
                               .out_is_terminal = isatty(STDOUT_FILENO) == 1,
                               .quiet = quiet };
    return answer_open(&v->parser, mode, err);
}

void answer_view_close(struct answer_view *v) {
    answer_close(v->parser);
    v->parser = NULL;
}

static enum status show(struct answer_view *v, bool on_stderr, struct text text, struct err *err) {
    struct text_buffer harmless = { 0 };
    if (on_stderr ? v->terminal->is_terminal : v->out_is_terminal) {
        terminal_harmless(&v->held_c2, text, &harmless);
        text = text_buffer_view(&harmless);
    }
    enum status status = text_buffer_status(&harmless, err);
    if (status == OK && on_stderr)
        fwrite(text.bytes, 1, text.n_bytes, stderr); // nobody to tell if that fails
    else if (status == OK)
        status = write_out(text.bytes, text.n_bytes, err);
    text_buffer_free(&harmless);
    return status;
}

// --- what is shown -------------------------------------------------------------------------------

static void end_reasoning(struct answer_view *v) {
    if (v->reasoning)
        fprintf(stderr, "%s\n\n", terminal_plain(v->terminal));
    v->reasoning = false;
}

static enum status show_call(struct answer_view *v, const struct chat_call *call, struct err *err) {
    end_reasoning(v);
    fprintf(stderr, "%s%scalls ", v->shown && v->last != '\n' && v->out_is_terminal ? "\n" : "",
            terminal_dim(v->terminal));
    enum status status = show(v, true, call->name, err);
    fputc(' ', stderr);
    if (status == OK)
        status = show(v, true, call->arguments, err);
    fprintf(stderr, "%s\n", terminal_plain(v->terminal));
    return status;
}

static enum status show_event(struct answer_view *v, const struct answer_event *e,
                              struct err *err) {
    switch (e->kind) {
    case ANSWER_REASONING:
        if (!v->reasoning)
            fputs(terminal_dim(v->terminal), stderr);
        v->reasoning = true;
        return show(v, true, e->text, err);
    case ANSWER_CONTENT:
        end_reasoning(v);
        v->shown = true;
        v->last = e->text.bytes[e->text.n_bytes - 1];
        return show(v, false, e->text, err);
    case ANSWER_CALL:
        return show_call(v, &e->call, err);
    }
    return OK;
}

static enum status show_events(struct answer_view *v, struct err *err) {
    struct answer_event event;
    while (answer_next(v->parser, &event))
        if (!v->quiet && show_event(v, &event, err) != OK)
            return err->status;
    return OK;
}

enum status answer_view_take(void *view, const char *text, size_t n_bytes, struct err *err) {
    struct answer_view *v = view;
    enum status status = answer_push(v->parser, text, n_bytes, err);
    return status == OK ? show_events(v, err) : status;
}

enum status answer_view_finish(struct answer_view *v, struct chat_message *message,
                               struct err *err) {
    enum status status = answer_finish(v->parser, err);
    *message = answer_message(v->parser);
    if (status == OK)
        status = show_events(v, err);
    end_reasoning(v);
    if (status == OK && v->shown)
        status = write_out("\n", 1, err);
    return status;
}
