/* io/status.h - what went wrong, in one line.
 *
 * Every call that can fail for a reason outside our own code returns an enum status and takes
 * a struct err. The layer that knows the file writes the text, once: what, where, what to do;
 * the layers above pass it on unchanged. The first error wins. Nothing here allocates. */
#ifndef SLUICE_IO_STATUS_H
#define SLUICE_IO_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum status {
    OK = 0,
    AGAIN,         /* not yet: wait on the event that the call names, then ask again */
    DONE,          /* nothing is left to hand out */
    CANCELLED,     /* the caller asked for it (Ctrl-C, an abandoned step) */
    ERR_USAGE,     /* options that make no sense, or contradict each other */
    ERR_INPUT,     /* a file that is not what it claims to be: bad header, shape, JSON, UTF-8 */
    ERR_MISSING,   /* a file or a tensor that should be there is not */
    ERR_TRUNCATED, /* a file ends inside something that its header promises */
    ERR_IO,        /* the device or the kernel refused, after the retries that are due */
    ERR_MEMORY,    /* it does not fit: in --ram, in the KV budget, in the machine */
    ERR_SYSTEM     /* a resource of the system is not to be had: threads, rings, limits */
};

#define ERR_TEXT_BYTES 1024

struct err {
    enum status status;
    char text[ERR_TEXT_BYTES]; /* one line, no newline at the end; "" while status is OK */
};

/* Write an error, unless one is there already: the first one wins. Returns err->status, so
 * that a caller can say `return err_set(err, ERR_INPUT, "%s: …", path);`. A text that is too
 * long is cut and ends in "…". Control characters (from a hostile file name) become '?'.
 * err may be NULL: then only the status is returned. */
enum status err_set(struct err *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Forget an error, so that err can be used again. */
void err_clear(struct err *err);

/* The status as a word: "I/O error", "truncated file", … for logs and tests. */
const char *status_name(enum status status);

#ifdef __cplusplus
}
#endif
#endif
