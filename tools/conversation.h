/* tools/conversation.h - a chat, and what the model really said in it: messages to a prompt's tokens.
 *
 * An answer is kept twice: as a message (src/text/chat.h) and as the tokens that were drawn. The same text
 * can be cut into tokens in many ways, and the engine's state holds the one that was drawn; so where
 * a prompt repeats an answer, or its end after the reasoning, those tokens are used, and only if
 * the rendered text is exactly theirs. Everything else is encoded from its text. So the prompt is
 * always the rendered text, to the byte, and shares with the state what it can.
 *
 * What is saved is text: a conversation that was saved and loaded may be cut into other tokens, which
 * a trained model hardly ever does otherwise than the tokenizer. */
#ifndef SLUICE_TOOLS_CONVERSATION_H
#define SLUICE_TOOLS_CONVERSATION_H

#include "src/text/chat.h"
#include "src/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct spoken {
    size_t message; /* index in the chat */
    struct token_ids ids;
};

struct conversation {
    struct chat *chat; /* owned */
    enum chat_mode mode;
    enum chat_effort effort;
    struct spoken *spoken; /* owned; ascending by message */
    size_t n_spoken, capacity;
};

/* Take over a chat (chat_open, chat_parse). */
void conversation_open(struct conversation *c, struct chat *chat);
void conversation_close(struct conversation *c);

/* Add what a user typed; bytes that are not UTF-8 become U+FFFD. */
enum status conversation_say(struct conversation *c, const char *text, size_t n_bytes,
                             struct err *err);

/* Add an answer: the message, and its tokens without the one that ended it. The tokens are taken over;
 * none if it is not known which they were. */
enum status conversation_answered(struct conversation *c, const struct chat_message *message,
                                  struct token_ids *ids, struct err *err);

/* Set the system message, before all others. */
enum status conversation_set_system(struct conversation *c, struct text text, struct err *err);

/* Keep the first messages only. */
void conversation_truncate(struct conversation *c, size_t n_messages);

/* Append the ids of the prompt. ERR_INPUT: the tokenizer lacks a token of the format; ERR_MEMORY. */
enum status conversation_prompt(const struct conversation *c, const struct tokenizer *t,
                                struct token_ids *out, struct err *err);

/* How the answer to the conversation is to be read (answer_open): where its last message is to be
 * continued, or asks for a task's token, no reasoning begins it. */
enum chat_mode conversation_answer_mode(const struct conversation *c);

/* Is there something to answer? ERR_USAGE says why not; `name` is where the messages came from. */
enum status conversation_check(const struct conversation *c, const char *name, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
