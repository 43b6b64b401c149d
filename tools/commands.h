/* tools/commands.h - what `sluice` can do: one function a command, each in its own file.
 *
 * A command is called after its options were parsed and checked (options.h). What it reports
 * goes to stderr through command_error, its product to stdout, and what it returns is the exit
 * code of the process:
 *
 *   0    done
 *   1    something failed while it ran: a file is missing, damaged or unreadable, a system limit
 *   2    the command line makes no sense
 *   3    it does not fit in memory: in --ram, or in the machine
 *   130  interrupted (Ctrl-C, SIGTERM), after an orderly end
 *
 * To add one: a function here, a bit in enum command_bit and the rows of its own options in
 * options.c, one row in main.c. */
#ifndef SLUICE_TOOLS_COMMANDS_H
#define SLUICE_TOOLS_COMMANDS_H

#include "io/status.h"
#include "tools/options.h"

#ifdef __cplusplus
extern "C" {
#endif

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_MEMORY = 3,
    EXIT_INTERRUPTED = 130 /* 128 + SIGINT, as a shell would report it */
};

/* The one place where a status becomes an exit code. */
int exit_code(enum status status);

/* Print "sluice COMMAND: TEXT" on stderr (nothing for OK and CANCELLED: there is nothing to say)
 * and return the exit code: `return command_error(o, &err);` ends any command. */
int command_error(const struct options *o, const struct err *err);

int cmd_run(const struct options *o);
int cmd_eval(const struct options *o);
int cmd_inspect(const struct options *o);
int cmd_tokenize(const struct options *o);
int cmd_mkmodel(const struct options *o);

#ifdef __cplusplus
}
#endif
#endif
