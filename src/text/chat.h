/* src/text/chat.h - a conversation, and the prompt that the model was trained to see for it.
 *
 * A struct chat is a list of messages in OpenAI's form: read from JSON (chat_parse), built up turn
 * by turn (chat_append), or both. chat_render writes the prompt as the publisher's encoder does,
 * byte for byte; chat_to_json writes the messages back. The answer that comes out of the model is
 * read by src/text/answer.h, whose result is a message that chat_append takes.
 *
 * CONTROL TOKENS AND TEXT. A prompt is a list of pieces. A control piece is exactly one special
 * token that the renderer itself put there ("<｜User｜>", "</think>", "｜DSML｜" of its own tags): it
 * is to become that token's id. Everything else (what users, files and tools wrote, and the
 * renderer's own plain words) is text, to be encoded with TOKENIZER_PLAIN, so that "<｜User｜>" in a
 * file stays seven letters. Two text pieces never follow each other: BPE merges across whoever wrote
 * the text, so what is adjacent is one piece. chat_encode (src/text/chat_encode.h) does all this.
 *
 * ERRORS. A conversation is untrusted input. What is wrong with it is ERR_INPUT, one line that
 * names the message by its index in the list, from 0: "chat.json: message 3: unknown role "robot"".
 *
 * Ownership: a chat owns copies of all its texts; a prompt owns its own and needs neither the chat
 * nor the tokenizer afterwards. Threads: one at a time for a chat that changes; rendering changes
 * nothing. Time and memory are linear in the conversation, up to the logarithm of a sort. */
#ifndef SLUICE_SRC_TEXT_CHAT_H
#define SLUICE_SRC_TEXT_CHAT_H

#include "io/status.h"
#include "src/text/text.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum chat_role {
    CHAT_SYSTEM,
    CHAT_USER,
    CHAT_ASSISTANT,
    CHAT_TOOL, /* the result of a call; rendered as part of a user message */
    CHAT_DEVELOPER,
    CHAT_LATEST_REMINDER
};

/* What a message asks for instead of an answer: a token after it. */
enum chat_task {
    CHAT_TASK_NONE,
    CHAT_TASK_ACTION,
    CHAT_TASK_QUERY,
    CHAT_TASK_AUTHORITY,
    CHAT_TASK_DOMAIN,
    CHAT_TASK_TITLE,
    CHAT_TASK_READ_URL
};

/* As JSON spells them: "system", …; "action", … ("" for none). */
const char *chat_role_name(enum chat_role role);
const char *chat_task_name(enum chat_task task);
bool chat_role_of(struct text name, enum chat_role *role); /* false: there is none of that name */
bool chat_task_of(struct text name, enum chat_task *task);

struct chat_call {
    struct text id;        /* may be empty */
    struct text name;      /* of the function */
    struct text arguments; /* a JSON object; what is none is shown to the model as it is */
};

/* A message. Borrowed when given to chat_append, the chat's own when it comes from chat_message.
 * All zero but for the role and the content is an ordinary message. */
struct chat_message {
    enum chat_role role;
    struct text content;
    struct text reasoning;         /* assistant */
    const struct chat_call *calls; /* assistant */
    size_t n_calls;
    struct text call_id;         /* tool: the id of the call that this answers */
    struct text tools;           /* system, developer: JSON list of {"type": "function", …} */
    struct text response_format; /* system, developer: JSON, the schema of the reply */
    enum chat_task task;
    bool without_eos; /* assistant: the model is to go on where this message ends */
};

struct chat;

/* A conversation without messages. On failure (ERR_MEMORY) *out is NULL. */
enum status chat_open(struct chat **out, struct err *err);

/* Read {"messages": […], "tools": […]}, or the list of messages alone; `name` says in messages
 * where the text came from. On failure *out is NULL.
 *   ERR_INPUT   not JSON, not UTF-8, or no conversation; err names the message
 *   ERR_MEMORY
 * A message is {"role": …, "content": …} and, where the role has them, "reasoning_content",
 * "tool_calls", "tool_call_id", "tools", "response_format", "task", "wo_eos"; null counts as
 * absent, other keys are ignored. Content is a string, or a list of parts of which those of type
 * "text" are joined by empty lines and others become "[Unsupported TYPE]". Only an assistant and a
 * system message may lack content; a developer's may not be empty. */
enum status chat_parse(struct chat **out, const char *json, size_t n_bytes, const char *name,
                       struct err *err);

void chat_close(struct chat *c); /* NULL is fine */

/* Add a message at the end (copied). ERR_INPUT as for chat_parse; the chat is as it was. */
enum status chat_append(struct chat *c, const struct chat_message *message, struct err *err);

/* Keep the first n_messages and forget the rest: /reset, or an answer that was interrupted. */
void chat_truncate(struct chat *c, size_t n_messages);

/* Set the content of the first system message; one is put first if there is none. (None is put
 * there to say nothing.) */
enum status chat_set_system(struct chat *c, struct text content, struct err *err);

/* Give the tools (a JSON list, as beside "messages") to the first system message, in place of those
 * it has; one with empty content is put first if there is none. An empty list takes them away. */
enum status chat_set_tools(struct chat *c, const char *json, size_t n_bytes, const char *name,
                           struct err *err);

size_t chat_n_messages(const struct chat *c);

/* Valid until the chat is changed. index < chat_n_messages. */
const struct chat_message *chat_message(const struct chat *c, size_t index);

/* Append {"messages": […]}, which chat_parse reads back as a chat that renders the same. (Parts
 * have been joined to one string.) A newline ends it. */
enum status chat_to_json(const struct chat *c, struct text_buffer *out, struct err *err);

enum chat_mode { CHAT_MODE_CHAT, CHAT_MODE_THINKING };

enum chat_effort {
    CHAT_EFFORT_NONE,
    CHAT_EFFORT_HIGH, /* renders as none */
    CHAT_EFFORT_MAX   /* a paragraph before the first message, in thinking mode only */
};

struct chat_piece {
    bool control;     /* one special token, else plain text */
    const char *text; /* in chat_prompt.text, where the pieces lie one after the other */
    size_t n_bytes;   /* never 0 */
};

/* A rendered conversation. Owned by whoever rendered it; chat_prompt_free. */
struct chat_prompt {
    char *text; /* the whole prompt: all pieces joined, then a NUL that n_bytes does not count */
    size_t n_bytes;
    struct chat_piece *pieces;
    size_t n_pieces;
    /* n_messages + 1 offsets into text: message i is rendered from message_at[i], and what follows
     * it (an assistant's or a task's token) with it, to message_at[i + 1]. A message that does not
     * show (dropped) is empty. message_at[0] comes after BOS and the paragraph of effort max.
     * Tool results are rendered in the order of their calls: within one user message the offsets
     * count blocks in the order in which they lie in the prompt. */
    size_t *message_at;
    size_t n_messages;
};

/* Render. Where the last message is an assistant's, nothing follows it: the prompt ends in EOS, or
 * is to be continued (without_eos). Else it ends where the answer begins. On failure (ERR_MEMORY)
 * *out is all zero. */
enum status chat_render(const struct chat *c, enum chat_mode mode, enum chat_effort effort,
                        struct chat_prompt *out, struct err *err);
void chat_prompt_free(struct chat_prompt *p); /* all zero is fine */

#ifdef __cplusplus
}
#endif
#endif
