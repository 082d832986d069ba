/* Lines of text without a C library. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdint.h>

struct line {
    char text[640];
    size_t bytes;
};

static inline void line_add(struct line *line, const char *text)
{
    while (*text != 0 && line->bytes < sizeof(line->text) - 1)
        line->text[line->bytes++] = *text++;
    line->text[line->bytes] = 0;
}

static inline void line_number(struct line *line, uint64_t number)
{
    char digits[21];
    size_t at = sizeof(digits) - 1;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    line_add(line, digits + at);
}

/* Returns 1 if text contains part. */
static inline int text_contains(const char *text, const char *part)
{
    size_t at;

    for (; *text != 0; text++) {
        for (at = 0; part[at] != 0 && text[at] == part[at]; at++)
            ;
        if (part[at] == 0)
            return 1;
    }
    return 0;
}

#endif
