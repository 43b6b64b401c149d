/* tools/question.h - what `sluice run` is asked: a text to continue, a message, a conversation.
 *
 * Read before the model is opened, so that a file that is not there is found at once; then cut into
 * tokens by the model's tokenizer. Several prompts (-p A -p B) are as many questions. */
#ifndef SLUICE_TOOLS_QUESTION_H
#define SLUICE_TOOLS_QUESTION_H

#include "tools/conversation.h"
#include "tools/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

struct question {
    char *text; /* of the prompt, if it was read from a file */
    const char *prompt;
    size_t n_bytes;
    struct conversation conversation; /* without --raw */
    struct token_ids ids;
};

/* Do the options ask anything, or is it a chat? */
bool has_question(const struct options *o);

/* All questions of the options, at least one: for a chat a conversation without a message. *n of them,
 * freed by questions_free whatever comes of it. Errors: as read_text, chat_parse, conversation_check;
 * ERR_USAGE: what contradicts itself or asks nothing. */
enum status questions_read(struct question **out, uint32_t *n, const struct options *o,
                           struct err *err);
void questions_free(struct question *questions, uint32_t n);

/* Fill in its ids. Errors: as encode_raw, conversation_prompt, check_tokens. */
enum status question_encode(struct question *q, const struct engine *e, struct err *err);

#ifdef __cplusplus
}
#endif
#endif
