/* The arguments and results of the self-test of the C interface. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "xen_contig.h"

/* The kernel and the device that the self-test uses. */
struct selftest {
    const struct xc_platform *platform;
    /* The first argument of the functions below. */
    void *context;
    /* Prints a line. */
    void (*say)(void *context, const char *line);
    /* Lets a device copy bytes from one device address to another, 4095 at most. Returns 0 if it did. NULL if
     * there is no device. */
    int (*copy)(void *context, uint64_t from, uint64_t to, uint64_t bytes);
    /* The highest address of a byte that the device can drive. */
    uint64_t mask;
};

/* The result if Xen has too little memory that the device reaches. */
#define SELFTEST_NO_MEMORY (-1)

/* Uses all of the interface. Returns 0 or SELFTEST_NO_MEMORY, or prints what is wrong and returns the line of the
 * failed check. */
int selftest_run(const struct selftest *test);

/* Prints how many bytes of stack some calls use, on a stack with room for 32 KiB more. Returns the most of all,
 * or 0 if a call failed. */
uint64_t selftest_stack(const struct selftest *test);

#endif
