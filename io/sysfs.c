#include "io/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool sysfs_text(const char *path, char *text, size_t bytes) {
    text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, bytes - 1);
    close(fd);
    size_t from = 0, to = n > 0 ? (size_t)n : 0;
    for (size_t i = 0; i < to; i++)
        if (text[i] == '\0') // a device's serial number may be padded with them
            text[i] = ' ';
    while (to > 0 && strchr(" \t\n", text[to - 1]))
        to--;
    while (from < to && strchr(" \t\n", text[from]))
        from++;
    memmove(text, text + from, to - from);
    text[to - from] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = '?';
    return text[0] != '\0';
}

bool sysfs_number(const char *path, uint64_t *number) {
    char text[64], *end;
    if (!sysfs_text(path, text, sizeof text) || text[0] == '-')
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 0);
    if (end == text || errno)
        return false;
    *number = n;
    return true;
}

bool sysfs_path(char path[PATH_MAX], const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, PATH_MAX, format, args);
    va_end(args);
    return n >= 0 && n < PATH_MAX;
}
