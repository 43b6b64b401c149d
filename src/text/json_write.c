/* src/text/json_write.c - the writing half of json_text.h. */
#include "src/text/json_text.h"

#include "src/text/utf8.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- floats --- */

#define MAX_DIGITS 17 /* always enough to read back the same double */

/* 0.DIGITS x 10^point. */
struct decimal {
    char digits[MAX_DIGITS + 1];
    int n_digits;
    int point;
};

/* Without a decimal point, which is the locale's to choose. */
static bool reads_back(const struct decimal *d, double value) {
    char text[MAX_DIGITS + 16];
    snprintf(text, sizeof text, "%se%d", d->digits, d->point - d->n_digits);
    return strtod(text, NULL) == value;
}

/* The nearest decimal of n digits. */
static struct decimal rounded(double value, int n_digits) {
    struct decimal d = { .n_digits = n_digits };
    char text[MAX_DIGITS + 16]; // "d.ddde-308"
    snprintf(text, sizeof text, "%.*e", n_digits - 1, value);
    const char *exponent = strchr(text, 'e');
    int n = 0;
    for (const char *p = text; p < exponent; p++)
        if (*p >= '0' && *p <= '9')
            d.digits[n++] = *p;
    d.point = atoi(exponent + 1) + 1;
    return d;
}

/* The next decimal of as many digits; there is one unless all are 9. */
static bool step_up(struct decimal *d) {
    int i = d->n_digits - 1;
    while (i >= 0 && d->digits[i] == '9')
        d->digits[i--] = '0';
    if (i < 0)
        return false;
    d->digits[i]++;
    return true;
}

/* The shortest decimal that reads back the same; of those the nearest. A normal double that has one
 * of 15 digits or less is nearest to it of all decimals of 15 digits, so 15, zeros trimmed, is the
 * place to begin. With 16, a power of two needs a second look: the doubles below it lie closer
 * together than those above, so the nearest decimal may miss it and the next one up still hit. */
static struct decimal shortest(double value) {
    struct decimal d = { .n_digits = 0 };
    int exponent;
    const bool power_of_two = frexp(value, &exponent) == 0.5;
    for (int n = value < DBL_MIN ? 1 : 15; n <= MAX_DIGITS; n++) {
        d = rounded(value, n);
        if (reads_back(&d, value))
            break;
        if (n == 16 && power_of_two && step_up(&d) && reads_back(&d, value))
            break;
    }
    while (d.n_digits > 1 && d.digits[d.n_digits - 1] == '0')
        d.digits[--d.n_digits] = 0;
    return d;
}

/* Python writes fixed point from 0.0001 to below 1e16. */
static void write_decimal(const struct decimal *d, char *out) {
    const int n = d->n_digits, point = d->point;
    if (point <= -4 || point > 16)
        snprintf(out, JSON_TEXT_FLOAT_BYTES - 1, "%c%s%se%c%02d", d->digits[0], n > 1 ? "." : "",
                 d->digits + 1, point > 0 ? '+' : '-', abs(point - 1));
    else if (point <= 0)
        snprintf(out, JSON_TEXT_FLOAT_BYTES - 1, "0.%.*s%s", -point, "000", d->digits);
    else if (point >= n)
        snprintf(out, JSON_TEXT_FLOAT_BYTES - 1, "%s%.*s.0", d->digits, point - n,
                 "0000000000000000");
    else
        snprintf(out, JSON_TEXT_FLOAT_BYTES - 1, "%.*s.%s", point, d->digits, d->digits + point);
}

size_t json_text_float(double value, char out[JSON_TEXT_FLOAT_BYTES]) {
    char *at = out;
    if (signbit(value) && !isnan(value))
        *at++ = '-';
    value = fabs(value);
    if (isnan(value))
        strcpy(at, "NaN");
    else if (isinf(value))
        strcpy(at, "Infinity");
    else if (value == 0)
        strcpy(at, "0.0");
    else {
        const struct decimal d = shortest(value);
        write_decimal(&d, at);
    }
    return strlen(out);
}

double json_text_number(const struct json_text_value *value) {
    // The text has a point, whatever the locale; this one is the C library's own and costs nothing.
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    const double number = strtod_l(value->text.bytes, NULL, c);
    freelocale(c);
    return number;
}

static void write_float(const struct json_text_value *value, struct text_buffer *out) {
    char repr[JSON_TEXT_FLOAT_BYTES];
    text_buffer_append(out, repr, json_text_float(json_text_number(value), repr));
}

/* --- strings --- */

/* What stands for a byte within quotes; NULL: itself. */
static const char *escaped(unsigned char c, char out[8]) {
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *found = c ? strchr(special, c) : NULL;
    if (found)
        snprintf(out, 8, "\\%c", letter[found - special]);
    else if (c < 0x20)
        snprintf(out, 8, "\\u%04x", c);
    else
        return NULL;
    return out;
}

void json_text_write_string(struct text text, struct text_buffer *out) {
    char escape[8];
    size_t begin = 0, at = 0; // what lies between is waiting to be copied
    text_buffer_string(out, "\"");
    while (at < text.n_bytes) {
        const struct utf8_step step = utf8_next(text.bytes + at, text.n_bytes - at);
        const char *instead = step.kind == UTF8_CHARACTER
                                  ? escaped((unsigned char)text.bytes[at], escape)
                                  : UTF8_REPLACEMENT;
        if (instead) {
            text_buffer_append(out, text.bytes + begin, at - begin);
            text_buffer_string(out, instead);
            begin = at + step.bytes;
        }
        at += step.bytes;
    }
    if (at > begin)
        text_buffer_append(out, text.bytes + begin, at - begin);
    text_buffer_string(out, "\"");
}

/* --- values --- */

void json_text_write(const struct json_text *j, const struct json_text_value *value,
                     struct text_buffer *out) {
    const bool object = value->kind == JSON_TEXT_OBJECT;
    switch (value->kind) {
    case JSON_TEXT_NULL:
        text_buffer_string(out, "null");
        return;
    case JSON_TEXT_FALSE:
        text_buffer_string(out, "false");
        return;
    case JSON_TEXT_TRUE:
        text_buffer_string(out, "true");
        return;
    case JSON_TEXT_INTEGER:
        text_buffer_text(out, value->text);
        return;
    case JSON_TEXT_FLOAT:
        write_float(value, out);
        return;
    case JSON_TEXT_STRING:
        json_text_write_string(value->text, out);
        return;
    case JSON_TEXT_ARRAY:
    case JSON_TEXT_OBJECT:
        break;
    }
    text_buffer_string(out, object ? "{" : "[");
    const struct json_text_value *first = json_text_first(j, value);
    for (const struct json_text_value *v = first; v; v = json_text_next(j, value, v)) {
        if (v != first)
            text_buffer_string(out, ", ");
        if (object) {
            json_text_write_string(v->text, out);
            text_buffer_string(out, ": ");
        }
        // As deep as the reader allows, no deeper.
        json_text_write(j, object ? json_text_member(j, v) : v, out);
    }
    text_buffer_string(out, object ? "}" : "]");
}
