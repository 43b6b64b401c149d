/* tests/support/chat_cases.h - the cases of tests/data/chat/cases.jsonl, one after the other. */
#ifndef SLUICE_TESTS_SUPPORT_CHAT_CASES_H
#define SLUICE_TESTS_SUPPORT_CHAT_CASES_H

#include "src/text/chat.h"
#include "src/text/json_text.h"
#include "src/text/text.h"

struct chat_case {
    int line; /* from 1 */
    bool render;
    enum chat_mode mode;
    enum chat_effort effort;
    struct text messages; /* render: JSON */
    struct text text;     /* parse */
    struct text
        expected; /* render: the prompt; parse: JSON, empty where the strict parser refuses */
};

struct chat_cases {
    char *file;
    size_t n_bytes, at;
    struct json_text json;         /* of the line that was read last, which a case's texts */
    struct text_buffer written[2]; /* point into, or into these */
    struct chat_case one;
};

/* Fails the test that calls it if the file cannot be read. */
void chat_cases_open(struct chat_cases *c);

/* The next case; NULL after the last. Valid until the next call. */
const struct chat_case *chat_cases_next(struct chat_cases *c);
void chat_cases_close(struct chat_cases *c);

#endif
