/* tools/talk.h - a chat under way: the conversation, the last answer, and what is said to the person
 * beside it. tools/chat.c is the loop, tools/chat_commands.c what a command does to a talk. */
#ifndef SLUICE_TOOLS_TALK_H
#define SLUICE_TOOLS_TALK_H

#include "tools/conversation.h"
#include "tools/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

struct talk {
    struct generator *g;    /* the caller's */
    struct conversation *c; /* the caller's */
    const struct terminal *terminal;
    struct generated last; /* of the last answer; its ids are the conversation's */
    bool has_last, over;
};

/* A line for the person, dimmed, not part of the conversation; harmless to a terminal. */
void talk_say(const struct talk *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void talk_complain(const struct talk *t, const struct err *err);

/* Answer the messages. Where that fails or is stopped before a word of it was said, those from
 * `before` on, which were said just now, are taken back. */
void talk_answer(struct talk *t, size_t before);

#ifdef __cplusplus
}
#endif
#endif
