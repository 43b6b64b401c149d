/* tests/e2e/program.h - the program as a child, for tests that a script cannot do: with less than
 * everybody has, with a terminal, interrupted at a certain moment.
 *
 * The binary is $SLUICE, or ./sluice. What a child says on standard output and standard error goes to files of a
 * folder, or to a terminal of its own. Everything here fails the test that calls it; a child that
 * does not come to an end is killed, and fails it too. */
#ifndef SLUICE_TESTS_E2E_PROGRAM_H
#define SLUICE_TESTS_E2E_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PROGRAM_LIMIT_S 300 /* only a program that hangs takes so long, even sanitized */

/* A child that cannot be confined as the test wants ends with one of these. */
#define PROGRAM_CONFINED_NOT 124 /* this machine does not allow it: the test is skipped */
#define PROGRAM_NOT_STARTED  125

struct program_options {
    const char *binary; /* NULL: program_binary() */
    const char *in;     /* what standard input says; NULL: nothing */
    bool hold_in;       /* then standard input stays open, and says no more */
    bool terminal;      /* standard error is a terminal, the child's own */
    bool keyboard;      /* and standard input is that terminal too */
    unsigned columns;   /* of it; 0: 100 */
    /* In the child, before it becomes the program; false: PROGRAM_CONFINED_NOT. */
    bool (*confine)(void *context);
    void *context;
};

struct program {
    pid_t pid;
    char dir[256];
    int in;       /* our end of standard input; -1 */
    int terminal; /* our end of the terminal; -1 */
    char *screen; /* all that was written on it */
    size_t n_screen;
};

const char *program_binary(void);

/* Start `sluice ARGUMENTS...` (up to a NULL); files of `dir` are `out` and `err`. */
void program_start(struct program *p, const char *dir, const struct program_options *options,
                   const char *const *arguments);

/* Wait until it ends: its exit code, or 128 and the signal that ended it. */
int program_wait(struct program *p);

/* Start, wait, and free: for runs that nothing happens to. NULL: no options. */
int program_run(const char *dir, const struct program_options *options,
                const char *const *arguments);

/* The smallest --ram that would do, as a run with too little names it; freed by the caller. */
char *program_least_ram(const char *dir, const char *const *arguments);

/* What `out` or `err` of the folder has by now, freed by the caller. */
char *program_read(const char *dir, const char *name, size_t *n_bytes);

/* Wait until the text is in the file `name`, or on the screen (NULL); false: the child ended before. */
bool program_until(struct program *p, const char *name, const char *text);

/* Wait until there is a file whose path matches the pattern; false: the child ended before. */
bool program_until_there(struct program *p, const char *pattern);

/* Type on its terminal. */
void program_type(struct program *p, const char *text);

/* Free it; one that still runs is killed. */
void program_close(struct program *p);

#define ARGUMENTS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Lines of a text that begin with `start`. */
int count_lines(const char *text, const char *start);

/* Are two files equal, byte for byte? */
bool same_files(const char *one, const char *other);

/* "DIR/NAME", valid until the next call but seven. */
const char *in_dir(const char *dir, const char *name);

#endif
