/* src/text/chat_parts.h - how a conversation is kept; for chat.c, chat_parse.c and chat_render.c only.
 *
 * A message lies in memory of its own (chat_kept.storage holds every byte of its texts), so that
 * messages can be added, replaced and dropped one by one. */
#ifndef SLUICE_SRC_TEXT_CHAT_PARTS_H
#define SLUICE_SRC_TEXT_CHAT_PARTS_H

#include "src/text/chat.h"

#ifdef __cplusplus
extern "C" {
#endif

struct chat_kept {
    struct chat_message message;
    struct text schemas; /* of its tools: a line of JSON each, as the model is shown them */
    void *storage;       /* owned: the calls, then all texts */
};

struct chat {
    struct chat_kept *kept; /* owned */
    size_t n_messages;
    size_t capacity;
};

/* chat_append for messages of a file: errors begin with `name` and the message's index. */
enum status chat_add(struct chat *c, const struct chat_message *message, const char *name,
                     struct err *err);

#ifdef __cplusplus
}
#endif
#endif
