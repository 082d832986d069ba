/* A small C kernel around the library, on the model of Xen. */
#ifndef KERNEL_H
#define KERNEL_H

#include "xen_contig.h"

/* The machine that the model plays. */
struct machine {
    int64_t (*hypercall)(void *context, uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
    uint64_t (*entry)(void *context, uint64_t frame);
    void *context;
    /* NULL in a PVH guest. */
    uint64_t *p2m;
    uint64_t frames;
    uint64_t linear_base;
    /* The frames from here on are free. */
    uint64_t first_free;
};

/* Describes the kernel to the library. */
void kernel_boot(const struct machine *machine, struct xc_platform *platform);

/* Makes the kernel hide its free frames, or show them again. */
void kernel_hide_frames(int hidden);

/* The number of times that interrupts were masked and are not restored. */
extern int kernel_masked;

/* The number of times that interrupts were masked. */
extern unsigned kernel_mask_calls;

#endif
