/*
 * The least that a C kernel links of the static library: a buffer, and the text of an error. With -DALL, all of
 * the interface. `tests/bed/library.sh` links it without any other library and measures the code.
 */
#include "xen_contig.h"

#define FAR(name) ((void (*)(void))(name))

struct xc_allocator allocator;
struct xc_device device;
struct xc_buffer buffer;
struct xc_error error;
char text[512];

extern const struct xc_platform platform;
const struct xc_platform platform = { .size = sizeof(platform) };

void xc_panic(const char *message)
{
    (void)message;
    for (;;)
        ;
}

#ifdef ALL
extern void (*const all[])(void);
void (*const all[])(void) = {
    FAR(xc_error_is_transient), FAR(xc_fini), FAR(xc_capability_text), FAR(xc_report_text),
    FAR(xc_trim), FAR(xc_reclaim), FAR(xc_device_fini), FAR(xc_device_check),
    FAR(xc_device_text), FAR(xc_segments), FAR(xc_check),
    FAR(xc_pool_init), FAR(xc_pool_fini), FAR(xc_pool_alloc), FAR(xc_pool_free), FAR(xc_pool_refill),
    FAR(xc_pool_is_low), FAR(xc_pool_check), FAR(xc_pool_text),
    FAR(xc_map), FAR(xc_map_list), FAR(xc_unmap), FAR(xc_map_segments), FAR(xc_sync_for_cpu),
    FAR(xc_sync_for_device), FAR(xc_map_check), FAR(xc_max_mapping),
};
#endif

void _start(void);
void _start(void)
{
    const struct xc_limits limits = { .mask = 0xffffffff };

    if (xc_init(&allocator, &platform, &error) != XC_OK
        || xc_device_init(&device, &allocator, "minimal", &limits, &error) != XC_OK
        || xc_alloc(&device, 65536, 0, NULL, &buffer, &error) != XC_OK)
        xc_error_text(&error, text, sizeof(text));
    xc_free(&buffer, &error);
#ifdef ALL
    for (;;)
        all[limits.lowest]();
#endif
}
