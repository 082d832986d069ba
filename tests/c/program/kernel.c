/*
 * A small C kernel around the library: an allocator of frames, and the members of xc_platform.
 *
 * It has a flag for each frame. A kernel with a buddy allocator frees a part of a run in the largest aligned
 * blocks that the part consists of.
 */
#include "kernel.h"

#define MOST_FRAMES 16384u

static struct machine machine;
static uint8_t is_free[MOST_FRAMES];
static uint64_t free_count;
static int hidden;

int kernel_masked;
unsigned kernel_mask_calls;

static int run_is_free(uint64_t first, uint64_t frames)
{
    uint64_t at;

    if (first > machine.frames || frames > machine.frames - first)
        return 0;
    for (at = first; at < first + frames; at++) {
        if (!is_free[at])
            return 0;
    }
    return 1;
}

static void set_run(uint64_t first, uint64_t frames, uint8_t free)
{
    uint64_t at;

    for (at = first; at < first + frames; at++)
        is_free[at] = free;
    free_count = free ? free_count + frames : free_count - frames;
}

static int take_at(void *context, uint64_t first, uint64_t frames)
{
    (void)context;
    if (hidden || !run_is_free(first, frames))
        return 0;
    set_run(first, frames, 0);
    return 1;
}

static uint64_t take(void *context, uint64_t frames, uint64_t align)
{
    uint64_t first;

    for (first = 0; first + frames <= machine.frames; first += align) {
        if (take_at(context, first, frames))
            return first;
    }
    return XC_NO_FRAME;
}

static void give(void *context, uint64_t first, uint64_t frames)
{
    (void)context;
    set_run(first, frames, 1);
}

static uint64_t free_frames(void *context)
{
    (void)context;
    return hidden ? 0 : free_count;
}

static int next_free(void *context, uint64_t from, uint64_t *first, uint64_t *frames)
{
    uint64_t at = from, end;

    (void)context;
    while (at < machine.frames && !is_free[at])
        at++;
    for (end = at; end < machine.frames && is_free[end];)
        end++;
    *first = at;
    *frames = end - at;
    return !hidden && end > at;
}

static uint64_t mask(void)
{
    kernel_mask_calls++;
    return (uint64_t)kernel_masked++;
}

static void unmask(uint64_t state)
{
    kernel_masked = (int)state;
}

void kernel_hide_frames(int hide)
{
    hidden = hide;
}

void kernel_boot(const struct machine *booted, struct xc_platform *platform)
{
    const struct xc_platform kernel = {
        .size = sizeof(kernel),
        .context = booted->context,
        .hypercall = booted->hypercall,
        .p2m = booted->p2m,
        .frames = booted->frames,
        .linear_base = booted->linear_base,
        .entry = booted->p2m != NULL ? booted->entry : NULL,
        .take = take,
        .give = give,
        .free_frames = free_frames,
        .next_free = next_free,
        .take_at = take_at,
        .mask = mask,
        .unmask = unmask,
    };

    machine = *booted;
    free_count = 0;
    set_run(0, machine.frames, 0);
    free_count = 0;
    set_run(machine.first_free, machine.frames - machine.first_free, 1);
    *platform = kernel;
}
