#include "io/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum status err_set(struct err *err, enum status status, const char *format, ...) {
    if (!err)
        return status;
    if (err->status != OK)
        return err->status;
    err->status = status;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (length >= (int)sizeof err->text) {
        // Cut on a whole UTF-8 character, so that the line stays printable.
        static const char mark[] = "\xe2\x80\xa6";
        size_t at = sizeof err->text - sizeof mark;
        while (at > 0 && ((unsigned char)err->text[at] & 0xC0) == 0x80)
            at--;
        memcpy(err->text + at, mark, sizeof mark);
    }
    // Nothing that a terminal would obey: C0, DEL, and C1 as UTF-8 spells it.
    for (unsigned char *c = (unsigned char *)err->text; *c; c++) {
        bool c1 = *c == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F;
        if (c1)
            *c++ = '?';
        if (c1 || *c < 0x20 || *c == 0x7F)
            *c = '?';
    }
    return status;
}

void err_clear(struct err *err) {
    *err = (struct err){ .status = OK };
}

const char *status_name(enum status status) {
    switch (status) {
    case OK:
        return "ok";
    case AGAIN:
        return "not yet";
    case DONE:
        return "done";
    case CANCELLED:
        return "cancelled";
    case ERR_USAGE:
        return "usage error";
    case ERR_INPUT:
        return "bad input";
    case ERR_MISSING:
        return "missing";
    case ERR_TRUNCATED:
        return "truncated file";
    case ERR_IO:
        return "I/O error";
    case ERR_MEMORY:
        return "out of memory";
    case ERR_SYSTEM:
        return "system error";
    }
    return "unknown status";
}
