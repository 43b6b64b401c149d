/* tools/chat.h - `sluice run` on a terminal: a conversation, turn by turn.
 *
 * A message is typed (tools/chat_line.h) and answered; a line that begins with a command (/help lists
 * them) is obeyed. Ctrl-C ends an answer and keeps what was shown of it, as if the model had said no
 * more; what was stopped before it said anything is taken back, message and all. So the state of the
 * engine, the messages and the screen agree at every prompt. An error in an answer is printed and
 * treated alike; the chat goes on. */
#ifndef SLUICE_TOOLS_CHAT_H
#define SLUICE_TOOLS_CHAT_H

#include "tools/conversation.h"
#include "tools/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Chat until the user ends it (OK) or SIGTERM does (CANCELLED). ERR_SYSTEM: no terminal;
 * ERR_IO: standard output takes no more. */
enum status chat_run(struct generator *g, struct conversation *c, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
