/* tests/e2e/chat_fixture.h - `sluice run` as a chat on a pseudo-terminal: what is typed, shown and
 * answered. Standard output is a file, so that what was answered is known to the byte. */
#ifndef SLUICE_TESTS_E2E_CHAT_FIXTURE_H
#define SLUICE_TESTS_E2E_CHAT_FIXTURE_H

#include "tests/e2e/program.h"

#include <jansson.h>

#define PROMPT  "\x1b[?2004h> "
#define CTRL_C  "\x03"
#define CTRL_D  "\x04"
#define SHORT   "--max-tokens", "12"
#define SHORTER "--max-tokens", "4"

/* A folder with a made model: set-up and tear-down of the group. */
extern char *chat_dir;
extern const char *chat_model;
int chat_fixture_make(void **state);
int chat_fixture_remove(void **state);

struct chat {
    struct program p;
    size_t answered; /* bytes of `out` that have been looked at */
};

#define CHAT(c, ...)                                                                               \
    chat_open((c), 0, ARGUMENTS("run", "-m", chat_model, "--ctx", "2048", __VA_ARGS__))

void chat_open(struct chat *c, unsigned columns, const char *const *arguments);
void chat_end(struct chat *c); /* by Ctrl-D: checks the exit code and that there is an account */

void chat_until(struct chat *c, const char *text);
void chat_until_answering(struct chat *c);
void chat_type(struct chat *c, const char *text); /* the screen is what comes after it */
void chat_ask(struct chat *c, const char *text); /* a message or a command; until the next prompt */
char *chat_answer(struct chat *c); /* what was answered since the last look; the caller's */

struct chat_stats {
    unsigned prompt, kept, fed, answer;
};
struct chat_stats chat_stats(struct chat *c); /* by /stats */

/* --- conversations ---------------------------------------------------------------------------- */

json_t *chat_messages(struct chat *c); /* as /save writes them */
json_t *make_message(const char *role, const char *text);
const char *message_content(json_t *list, size_t index, const char *role); /* checks the role */

/* What a run of its own answers to the conversation that was kept; its parsed form. */
void keep_conversation(json_t *list);
json_t *fresh_answer(const char *seed, const char *mode, const char *n_tokens);

/* A file in chat_dir; /load of one. */
void write_conversation(const char *name, const char *json);
void chat_load(struct chat *c, const char *name);

#endif
