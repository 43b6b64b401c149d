/* tools/terminal.h - what standard error is: a terminal or not, how wide, whether text can be dimmed.
 *
 * Text that a program produces goes to stdout, all else to stderr; only the latter is asked about
 * here. Where it is not a terminal nothing is dimmed and no progress is drawn. */
#ifndef SLUICE_TOOLS_TERMINAL_H
#define SLUICE_TOOLS_TERMINAL_H

#include "src/text/text.h"
#include "tools/environment.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct terminal {
    int fd;
    bool is_terminal;
    bool escapes;          /* it understands escape codes, and the user does not mind them */
    uint32_t columns_told; /* COLUMNS, for a terminal that does not tell */
};

/* Ask about `fd`. Never fails: what cannot be found out is not a terminal. */
void terminal_open(struct terminal *t, int fd, const struct environment *environment);

/* Columns now (people resize windows): at least 20; 80 where nobody tells. */
uint32_t terminal_columns(const struct terminal *t);

/* What to print before and after dimmed text: "" where there is no dimming. */
const char *terminal_dim(const struct terminal *t);
const char *terminal_plain(const struct terminal *t);

/* Append text without what a terminal would obey: C0 but for line ends and tabs, DEL, and C1 as UTF-8
 * spells it (C2 80 to C2 9F) become U+FFFD. Where text comes in pieces that may cut a character in
 * two, *held_c2 carries it over: false before the first; else give the address of a false. */
void terminal_harmless(bool *held_c2, struct text text, struct text_buffer *out);

#ifdef __cplusplus
}
#endif
#endif
