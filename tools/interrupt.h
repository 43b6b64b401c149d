/* tools/interrupt.h - Ctrl-C.
 *
 * The first SIGINT or SIGTERM asks for an orderly end: a flag is raised, and whoever loops looks
 * at it (below tools/ it arrives as the cancel argument). The second one ends the process at once.
 * In a chat Ctrl-C ends an answer, not the program: interrupt_forgive makes the next one the first,
 * and from then on one that was pressed twice is one; only where the first has not been heeded for
 * seconds, further ones end the process.
 * SIGPIPE keeps its default: `sluice run | head -1` ends quietly.
 *
 * The flags are the only mutable variables with file scope in the program: a signal handler can
 * reach nothing else. */
#ifndef SLUICE_TOOLS_INTERRUPT_H
#define SLUICE_TOOLS_INTERRUPT_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Install the handlers; once, at start. */
void interrupt_install(void);

/* Has Ctrl-C been pressed? Any thread. `context` is ignored: the signature suits a callback. */
bool interrupt_requested(void *context);

/* Ctrl-C has been heeded: lower the flag, and listen again. Returns false if an end was asked for by
 * SIGTERM, which stays so. */
bool interrupt_forgive(void);

#ifdef __cplusplus
}
#endif
#endif
