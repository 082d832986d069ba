/* Checks, and lines for people. Every function that checks has parameters `test` and `error`. */
#ifndef CHECK_H
#define CHECK_H

#include "selftest.h"
#include "text.h"

#define KIB 1024u

/* Ends a test with the text of an error. */
#define CHECK(condition)                                                                               \
    do {                                                                                               \
        if (!(condition))                                                                              \
            return failed(test, __LINE__, #condition, error);                                          \
    } while (0)

static inline int failed(const struct selftest *test, int number, const char *condition, const struct xc_error *error)
{
    struct line line = { .bytes = 0 };
    char text[512];

    xc_error_text(error, text, sizeof(text));
    line_add(&line, "# c-interface: line ");
    line_number(&line, (uint64_t)number);
    line_add(&line, ": not ");
    line_add(&line, condition);
    line_add(&line, "; the last error: ");
    line_add(&line, text);
    test->say(test->context, line.text);
    return number;
}

/* Prints text of the library after words of the test, a line for each of its own. */
static inline void show(const struct selftest *test, const char *words, const char *text)
{
    struct line line = { .bytes = 0 };
    char letter[2] = { 0, 0 };

    line_add(&line, "# c-interface: ");
    line_add(&line, words);
    for (; *text != 0; text++) {
        if (*text == '\n') {
            test->say(test->context, line.text);
            line.bytes = 0;
            line_add(&line, "# c-interface: ");
        } else {
            letter[0] = *text;
            line_add(&line, letter);
        }
    }
    test->say(test->context, line.text);
}

/* Returns 1 if an error has this code and its text contains this part. Prints the text. */
static inline int is_error(const struct selftest *test, int code, int expected, const struct xc_error *error, const char *part)
{
    char text[512];
    size_t bytes = xc_error_text(error, text, sizeof(text));

    if (code != expected || error->code != expected || bytes >= sizeof(text) || !text_contains(text, part))
        return 0;
    show(test, "refused as expected: ", text);
    return 1;
}

#endif
