#include "tools/terminal.h"

#include "src/text/utf8.h"

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

void terminal_harmless(bool *held_c2, struct text text, struct text_buffer *out) {
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        bool after_c2 = *held_c2;
        *held_c2 = false;
        if (after_c2 && c >= 0x80 && c <= 0x9F) {
            text_buffer_string(out, UTF8_REPLACEMENT);
            continue;
        }
        if (after_c2)
            text_buffer_append(out, "\xC2", 1);
        if (c == 0xC2)
            *held_c2 = true;
        else if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7F)
            text_buffer_string(out, UTF8_REPLACEMENT);
        else
            text_buffer_append(out, text.bytes + i, 1);
    }
}
