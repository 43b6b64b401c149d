/* tools/chat_commands.h - what a line that begins with a slash does to a chat: /help lists it. */
#ifndef SLUICE_TOOLS_CHAT_COMMANDS_H
#define SLUICE_TOOLS_CHAT_COMMANDS_H

#include "tools/talk.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Does the line begin with a command? */
bool is_chat_command(const char *line, size_t n_bytes);

/* Obey a line, or say that it is no command but looks like one ("/hlep", but not "/etc/fstab" nor
 * "/usr is what?"). Returns false if the line is a message. It ends in a NUL. */
bool obey_chat_command(struct talk *t, const char *line, size_t n_bytes);

#ifdef __cplusplus
}
#endif
#endif
