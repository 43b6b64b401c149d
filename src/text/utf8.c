#include "src/text/utf8.h"

#include <string.h>

struct utf8_step utf8_next(const char *text, size_t n_bytes) {
    const unsigned char *s = (const unsigned char *)text;
    uint32_t need;                         // continuation bytes after the first
    unsigned char low = 0x80, high = 0xBF; // what the second byte may be
    if (s[0] < 0x80)
        return (struct utf8_step){ UTF8_CHARACTER, 1 };
    if (s[0] < 0xC2 || s[0] > 0xF4) // a continuation, an overlong form, above U+10FFFF
        return (struct utf8_step){ UTF8_BROKEN, 1 };
    if (s[0] < 0xE0) {
        need = 1;
    } else if (s[0] < 0xF0) {
        need = 2;
        if (s[0] == 0xE0)
            low = 0xA0; // below: overlong
        if (s[0] == 0xED)
            high = 0x9F; // above: surrogates
    } else {
        need = 3;
        if (s[0] == 0xF0)
            low = 0x90; // below: overlong
        if (s[0] == 0xF4)
            high = 0x8F; // above: beyond U+10FFFF
    }
    for (uint32_t i = 1; i <= need; i++) {
        if (i >= n_bytes)
            return (struct utf8_step){ UTF8_CUT, i };
        if (s[i] < low || s[i] > high)
            return (struct utf8_step){ UTF8_BROKEN, i };
        low = 0x80;
        high = 0xBF;
    }
    return (struct utf8_step){ UTF8_CHARACTER, need + 1 };
}

size_t utf8_valid_bytes(const char *text, size_t n_bytes) {
    size_t at = 0;
    while (at < n_bytes) {
        uint64_t eight;
        while (n_bytes - at >= 8) { // most text is ASCII most of the time
            memcpy(&eight, text + at, 8);
            if (eight & 0x8080808080808080u)
                break;
            at += 8;
        }
        if (at == n_bytes)
            break;
        struct utf8_step step = utf8_next(text + at, n_bytes - at);
        if (step.kind != UTF8_CHARACTER)
            break;
        at += step.bytes;
    }
    return at;
}

uint32_t utf8_decode(const char *text, uint32_t *n_bytes) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *n_bytes = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *n_bytes = 2;
        return (uint32_t)(s[0] & 0x1F) << 6 | (s[1] & 0x3F);
    }
    if (s[0] < 0xF0) {
        *n_bytes = 3;
        return (uint32_t)(s[0] & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
    }
    *n_bytes = 4;
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 |
           (uint32_t)(s[2] & 0x3F) << 6 | (s[3] & 0x3F);
}

uint32_t utf8_encode(uint32_t code_point, char out[UTF8_MAX_BYTES]) {
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xC0 | code_point >> 6);
        out[1] = (char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xE0 | code_point >> 12);
        out[1] = (char)(0x80 | (code_point >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code_point >> 18);
    out[1] = (char)(0x80 | (code_point >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code_point >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code_point & 0x3F));
    return 4;
}
