/* How many bytes of stack the functions of the library use. */
#include "check.h"

/*
 * The use of the stack: bytes below the frame of `used` are painted, a call is made, and the lowest byte that
 * changed says how far it came. Interrupts on the same stack count, too.
 */

#define PAINTED (24 * KIB)
/* Where the painted bytes begin, below what this function itself needs. */
#define OWN 512u
#define PAINT 0xc5

/* What the measured calls use. */
struct measured {
    const struct xc_platform *platform;
    struct xc_allocator *allocator;
    struct xc_device *device;
    struct xc_buffer *buffer;
    struct xc_mapping *mapping;
    struct xc_pool *pool;
    void *memory;
    struct xc_error *error;
};

static __attribute__((noinline)) uint64_t used(int (*call)(const struct measured *), const struct measured *with, int *code)
{
    uintptr_t top = (uintptr_t)__builtin_frame_address(0) - OWN;
    volatile uint8_t *byte;

    for (byte = (volatile uint8_t *)(top - PAINTED); byte < (volatile uint8_t *)top; byte++)
        *byte = PAINT;
    *code = call(with);
    for (byte = (volatile uint8_t *)(top - PAINTED); byte < (volatile uint8_t *)top && *byte == PAINT; byte++)
        ;
    return top + OWN - (uintptr_t)byte;
}

static int call_init(const struct measured *with)
{
    return xc_init(with->allocator, with->platform, with->error);
}

static int call_device(const struct measured *with)
{
    const struct xc_limits limits = { .mask = UINT32_MAX, .max_segments = 16, .streaming_align = 4096 };

    return xc_device_init(with->device, with->allocator, "c-stack", &limits, with->error);
}

static int call_alloc(const struct measured *with)
{
    return xc_alloc(with->device, 256 * KIB, 0, NULL, with->buffer, with->error);
}

static int call_again(const struct measured *with)
{
    return xc_alloc(with->device, 256 * KIB, XC_NO_SLEEP, NULL, with->buffer, with->error);
}

static int call_free(const struct measured *with)
{
    return xc_free(with->buffer, with->error);
}

static int call_map(const struct measured *with)
{
    return xc_map(with->device, with->memory, 4 * 4096, XC_BIDIRECTIONAL, 0, with->mapping, with->error);
}

static int call_unmap(const struct measured *with)
{
    return xc_unmap(with->mapping, with->error);
}

/* The device takes no such address in place, and nothing is idle: the bounce buffer needs an exchange. */
static int call_bounce(const struct measured *with)
{
    void *odd = (uint8_t *)with->memory + 8;

    return xc_map(with->device, odd, 3 * 4096, XC_BIDIRECTIONAL, 0, with->mapping, with->error);
}

static int call_pool(const struct measured *with)
{
    const struct xc_pool_config config = { .size = 64, .chunk = 64 * KIB, .reserve = 1 };

    return xc_pool_init(with->pool, with->device, &config, with->error);
}

static int call_pool_fini(const struct measured *with)
{
    return xc_pool_fini(with->pool, with->error);
}

static int call_text(const struct measured *with)
{
    static char text[512];

    xc_alloc(with->device, 0, 0, NULL, with->buffer, with->error);
    return xc_error_text(with->error, text, sizeof(text)) == 0;
}

static int call_trim(const struct measured *with)
{
    return xc_trim(with->allocator, UINT64_MAX, NULL, with->error);
}

static int call_device_fini(const struct measured *with)
{
    return xc_device_fini(with->device, with->error);
}

static int call_fini(const struct measured *with)
{
    return xc_fini(with->allocator, with->error);
}

uint64_t selftest_stack(const struct selftest *test)
{
    static const struct {
        const char *name;
        int (*call)(const struct measured *);
    } calls[] = {
        { "xc_init", call_init },
        { "xc_device_init", call_device },
        { "xc_alloc", call_alloc },
        { "xc_free", call_free },
        { "xc_alloc with XC_NO_SLEEP", call_again },
        { "xc_free again", call_free },
        { "xc_map", call_map },
        { "xc_unmap", call_unmap },
        { "xc_error_text", call_text },
        { "xc_trim", call_trim },
        { "xc_map that bounces", call_bounce },
        { "xc_unmap that bounces", call_unmap },
        { "xc_trim again", call_trim },
        { "xc_pool_init", call_pool },
        { "xc_pool_fini", call_pool_fini },
        { "xc_device_fini", call_device_fini },
        { "xc_fini", call_fini },
    };
    static struct xc_allocator allocator;
    struct xc_device device;
    struct xc_mapping mapping;
    struct xc_buffer buffer;
    struct xc_pool pool;
    struct xc_error error;
    const struct xc_platform *platform = test->platform;
    uint64_t frame = platform->take(platform->context, 4, 1);
    const struct measured with = {
        platform, &allocator, &device, &buffer, &mapping, &pool, (void *)(uintptr_t)(platform->linear_base + frame * 4096), &error,
    };
    uint64_t most = 0;
    size_t at;
    int code;

    if (frame == XC_NO_FRAME)
        return 0;
    for (at = 0; at < sizeof(calls) / sizeof(calls[0]); at++) {
        struct line line = { .bytes = 0 };
        uint64_t bytes = used(calls[at].call, &with, &code);

        if (code != XC_OK) {
            failed(test, __LINE__, calls[at].name, &error);
            return 0;
        }
        line_add(&line, "# c-interface: bytes of stack by ");
        line_add(&line, calls[at].name);
        line_add(&line, ": ");
        line_number(&line, bytes);
        test->say(test->context, line.text);
        most = bytes > most ? bytes : most;
    }
    platform->give(platform->context, frame, 4);
    return most;
}
