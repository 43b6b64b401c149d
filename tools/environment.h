/* tools/environment.h - the environment variables that sluice heeds, read once, here only.
 *
 *   HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME   where `-m org/name` is looked up
 *   HOME                                          what "~/" means in the chat's /load and /save
 *   XDG_CACHE_HOME, HOME                          where what was measured of drives is kept
 *   NO_COLOR, TERM                                whether text on a terminal may be dimmed
 *   COLUMNS                                       its width, where the terminal does not tell
 *
 * (And OMP_WAIT_POLICY, which is the OpenMP runtime's: see main.c.) */
#ifndef SLUICE_TOOLS_ENVIRONMENT_H
#define SLUICE_TOOLS_ENVIRONMENT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct environment {
    char home[PATH_MAX];      /* "" where it is not set */
    char hub_cache[PATH_MAX]; /* "" where not even HOME is set, or the path is too long */
    char cache[PATH_MAX];     /* sluice's own folder below the user's cache; "" likewise */
    bool plain;               /* no escape codes: NO_COLOR is set, or TERM is "dumb" */
    uint32_t columns;         /* 0: not told */
};

/* `get` is getenv, or a test's table: NULL for a variable that is not set. */
typedef char *environment_get(const char *name);
void environment_read(struct environment *out, environment_get *get);

#ifdef __cplusplus
}
#endif
#endif
