#include "tools/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_LEAST   20
#define COLUMNS_DEFAULT 80

void terminal_open(struct terminal *t, int fd, const struct environment *environment) {
    bool is_terminal = isatty(fd) == 1;
    *t = (struct terminal){
        .fd = fd,
        .is_terminal = is_terminal,
        .escapes = is_terminal && !environment->plain,
        .columns_told = environment->columns,
    };
}

uint32_t terminal_columns(const struct terminal *t) {
    struct winsize size = { 0 };
    uint32_t columns = t->columns_told;
    if (t->is_terminal && ioctl(t->fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    if (columns == 0)
        return COLUMNS_DEFAULT;
    return columns < COLUMNS_LEAST ? COLUMNS_LEAST : columns;
}

const char *terminal_dim(const struct terminal *t) {
    return t->escapes ? "\x1b[2m" : "";
}

const char *terminal_plain(const struct terminal *t) {
    return t->escapes ? "\x1b[0m" : "";
}
