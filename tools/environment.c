#include "tools/environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Set and not empty: an empty variable means the same as none, as most programs read it. */
static const char *value(environment_get *get, const char *name) {
    const char *text = get(name);
    return text && *text ? text : NULL;
}

/* DIR followed by the rest of the path; a path that does not fit is as good as none. */
static void set_path(char *out, size_t out_bytes, const char *dir, const char *rest) {
    int length = snprintf(out, out_bytes, "%s%s", dir, rest);
    if (length < 0 || (size_t)length >= out_bytes)
        out[0] = '\0';
}

/* The order is that of the publisher's own library, so that what it downloaded is found. */
static void find_hub_cache(char *out, size_t out_bytes, environment_get *get) {
    const char *dir;
    out[0] = '\0';
    if ((dir = value(get, "HF_HUB_CACHE")))
        set_path(out, out_bytes, dir, "");
    else if ((dir = value(get, "HF_HOME")))
        set_path(out, out_bytes, dir, "/hub");
    else if ((dir = value(get, "XDG_CACHE_HOME")))
        set_path(out, out_bytes, dir, "/huggingface/hub");
    else if ((dir = value(get, "HOME")))
        set_path(out, out_bytes, dir, "/.cache/huggingface/hub");
}

static void find_cache(char *out, size_t out_bytes, environment_get *get) {
    const char *dir;
    out[0] = '\0';
    if ((dir = value(get, "XDG_CACHE_HOME")))
        set_path(out, out_bytes, dir, "/sluice");
    else if ((dir = value(get, "HOME")))
        set_path(out, out_bytes, dir, "/.cache/sluice");
}

static uint32_t columns(environment_get *get) {
    const char *text = value(get, "COLUMNS");
    if (!text)
        return 0;
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    return errno || *end || n > 10000 ? 0 : (uint32_t)n;
}

void environment_read(struct environment *out, environment_get *get) {
    const char *term = value(get, "TERM");
    *out = (struct environment){
        .plain = value(get, "NO_COLOR") || (term && strcmp(term, "dumb") == 0),
        .columns = columns(get),
    };
    const char *home = value(get, "HOME");
    set_path(out->home, sizeof out->home, home ? home : "", "");
    find_hub_cache(out->hub_cache, sizeof out->hub_cache, get);
    find_cache(out->cache, sizeof out->cache, get);
}
