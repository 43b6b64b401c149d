#include "tools/commands.h"

int exit_code(enum status status) {
    switch (status) {
    case OK:
    case DONE:
        return EXIT_OK;
    case CANCELLED:
        return EXIT_INTERRUPTED;
    case ERR_USAGE:
        return EXIT_USAGE;
    case ERR_MEMORY:
        return EXIT_MEMORY;
    case AGAIN: // nobody may stop there; a bug of ours is a failure too
    case ERR_INPUT:
    case ERR_MISSING:
    case ERR_TRUNCATED:
    case ERR_IO:
    case ERR_SYSTEM:
        break;
    }
    return EXIT_FAILED;
}

int command_error(const struct options *o, const struct err *err) {
    if (err->status != OK && err->status != CANCELLED) {
        fflush(stdout); // so that the text generated so far stands before the error
        fprintf(stderr, "sluice%s%s: %s\n", o ? " " : "", o ? o->command->name : "", err->text);
    }
    return exit_code(err->status);
}
