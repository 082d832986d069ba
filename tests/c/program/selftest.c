/*
 * A driver in C that uses all of the interface: on the model by `cargo test`, and in the kernel image on a
 * real Xen, where a real device moves the data.
 */
#include "check.h"

/* The byte of a pattern. */
static uint8_t pattern(uint64_t seed, uint64_t at)
{
    return (uint8_t)((seed + at) * 2654435761u >> 13);
}

static void fill(void *memory, uint64_t seed, uint64_t bytes)
{
    volatile uint8_t *byte = memory;
    uint64_t at;

    for (at = 0; at < bytes; at++)
        byte[at] = pattern(seed, at);
}

/* Returns 1 if memory has the pattern, or is zero if seed is UINT64_MAX. */
static int holds(const void *memory, uint64_t seed, uint64_t bytes)
{
    const volatile uint8_t *byte = memory;
    uint64_t at;

    for (at = 0; at < bytes; at++) {
        if (byte[at] != (seed == UINT64_MAX ? 0 : pattern(seed, at)))
            return 0;
    }
    return 1;
}

/* Lets the device copy what lies at one device address to another. Without a device, there is nothing to
 * see, and the processor does it. */
static int copy(const struct selftest *test, const void *from, uint64_t from_device, void *to, uint64_t to_device, uint64_t bytes)
{
    const volatile uint8_t *source = from;
    volatile uint8_t *target = to;
    uint64_t at, piece;

    for (at = 0; at < bytes; at += piece) {
        piece = bytes - at < 4095 ? bytes - at : 4095;
        if (test->copy != NULL) {
            if (test->copy(test->context, from_device + at, to_device + at, piece) != 0)
                return -1;
        } else {
            uint64_t byte;

            for (byte = at; byte < at + piece; byte++)
                target[byte] = source[byte];
        }
    }
    return 0;
}

/* Buffers are zeroed, contiguous, within the mask, and where the device finds them. */
static int buffers(const struct selftest *test, const struct xc_device *device, struct xc_error *error)
{
    struct xc_buffer from, to, copied;
    struct xc_segment segment;
    char text[1024];

    CHECK(xc_alloc(device, 64 * KIB, 0, "c-from", &from, error) == XC_OK);
    CHECK(xc_alloc(device, 4 * KIB + 5, 0, NULL, &to, error) == XC_OK);
    CHECK(from.bytes == 64 * KIB && to.bytes == 4 * KIB + 5);
    CHECK(from.device_address % (64 * KIB) == 0 && to.device_address % (8 * KIB) == 0);
    CHECK(from.device_address + from.bytes - 1 <= test->mask);
    CHECK(to.device_address + to.bytes - 1 <= test->mask);
    CHECK(holds(from.memory, UINT64_MAX, from.bytes) && holds(to.memory, UINT64_MAX, to.bytes));
    CHECK(xc_segments(&from, &segment, 1) == 1);
    CHECK(segment.device_address == from.device_address && segment.offset == 0);
    CHECK(segment.bytes == from.bytes);
    CHECK(xc_check(&from, error) == XC_OK && xc_device_check(device, error) == XC_OK);
    xc_device_text(device, text, sizeof(text));
    CHECK(text_contains(text, "device c-device") && text_contains(text, "c-from") && text_contains(text, "live buffers: 2"));

    /* The device copies the end of one buffer to the other. */
    fill(from.memory, 7, from.bytes);
    CHECK(copy(test, (uint8_t *)from.memory + 40 * KIB, from.device_address + 40 * KIB, to.memory, to.device_address, to.bytes) == 0);
    CHECK(holds(to.memory, 7 + 40 * KIB, to.bytes));

    /* A handle that was copied or freed is refused. */
    copied = from;
    CHECK(is_error(test, xc_free(&copied, error), XC_ERROR_HANDLE, error, "copied from elsewhere"));
    CHECK(xc_free(&from, error) == XC_OK && from.memory == NULL);
    CHECK(is_error(test, xc_free(&from, error), XC_ERROR_HANDLE, error, "xc_buffer"));
    CHECK(xc_segments(&from, &segment, 1) == 0);

    /* Released memory serves the next request, also one that must not sleep. It is zeroed again. */
    CHECK(xc_alloc(device, 64 * KIB, XC_NO_SLEEP, NULL, &from, error) == XC_OK);
    CHECK(holds(from.memory, UINT64_MAX, from.bytes));
    CHECK(xc_free(&from, error) == XC_OK && xc_free(&to, error) == XC_OK);
    return 0;
}

/* A device that takes several segments gets them. */
static int segments(const struct selftest *test, const struct xc_allocator *allocator, struct xc_error *error)
{
    const struct xc_limits limits = {
        .mask = test->mask, .boundary = 64 * KIB, .max_segment = 16 * KIB, .max_segments = 16,
    };
    struct xc_segment segment[16];
    struct xc_device device;
    struct xc_buffer buffer;
    uint64_t offset = 0;
    size_t count, at;

    CHECK(xc_device_init(&device, allocator, "c-scatter", &limits, error) == XC_OK);
    CHECK(xc_alloc(&device, 100 * KIB, 0, NULL, &buffer, error) == XC_OK);
    count = xc_segments(&buffer, segment, 16);
    CHECK(count >= 7 && count <= 16 && xc_segments(&buffer, NULL, 0) == count);
    for (at = 0; at < count; at++) {
        uint64_t last = segment[at].device_address + segment[at].bytes - 1;

        CHECK(segment[at].offset == offset && segment[at].bytes <= 16 * KIB && last <= test->mask);
        CHECK(segment[at].device_address / (64 * KIB) == last / (64 * KIB));
        offset += segment[at].bytes;
    }
    CHECK(offset == buffer.bytes && segment[0].device_address == buffer.device_address);
    CHECK(is_error(test, xc_device_fini(&device, error), XC_ERROR_IN_USE, error, "1 objects use this struct xc_device"));
    CHECK(xc_free(&buffer, error) == XC_OK);
    CHECK(xc_device_fini(&device, error) == XC_OK);
    return 0;
}

/* A pool hands out objects up to its limit. The device reaches each of them. */
static int objects(const struct selftest *test, const struct xc_device *device, struct xc_error *error)
{
    const struct xc_pool_config config = { .name = "c-pool", .size = 1536, .limit = 6, .reserve = 2 };
    struct xc_object object[6], more;
    struct xc_pool pool;
    char text[1024];
    uint64_t at;

    CHECK(xc_pool_init(&pool, device, &config, error) == XC_OK);
    for (at = 0; at < 6; at++) {
        CHECK(xc_pool_alloc(&pool, at == 0 ? XC_NO_SLEEP : 0, &object[at], error) == XC_OK);
        CHECK(object[at].bytes == 1536 && object[at].device_address + 1535 <= test->mask);
        CHECK(holds(object[at].memory, UINT64_MAX, 1536));
        fill(object[at].memory, at, 1536);
    }
    CHECK(is_error(test, xc_pool_alloc(&pool, 0, &more, error), XC_ERROR_EXHAUSTED, error, "6 of 6 are in use"));
    CHECK(xc_error_is_transient(error) == 1 && xc_pool_is_low(&pool) == 1);
    CHECK(copy(test, object[1].memory, object[1].device_address, object[4].memory, object[4].device_address, 1536) == 0);
    for (at = 0; at < 6; at++)
        CHECK(holds(object[at].memory, at == 4 ? 1 : at, 1536));
    CHECK(xc_pool_check(&pool, error) == XC_OK);
    xc_pool_text(&pool, text, sizeof(text));
    CHECK(text_contains(text, "pool c-pool: 6 of 6 objects of 1536 bytes in use"));
    xc_device_text(device, text, sizeof(text));
    CHECK(text_contains(text, "\n  c-pool "));
    CHECK(is_error(test, xc_pool_fini(&pool, error), XC_ERROR_IN_USE, error, "6 objects use this struct xc_pool"));
    for (at = 0; at < 6; at++)
        CHECK(xc_pool_free(&object[at], error) == XC_OK);
    CHECK(is_error(test, xc_pool_free(&object[0], error), XC_ERROR_HANDLE, error, "xc_object"));
    CHECK(xc_pool_refill(&pool, error) == XC_OK && xc_pool_is_low(&pool) == 0);
    CHECK(xc_pool_fini(&pool, error) == XC_OK);
    return 0;
}

/* Lets the device copy between a buffer and what it sees of a mapping. */
static int transfer(const struct selftest *test, const struct xc_mapping *mapping, const struct xc_buffer *buffer, int to_buffer)
{
    struct xc_segment segment[16];
    size_t count = xc_map_segments(mapping, segment, 16), at;
    uint64_t offset = 0;

    if (count == 0 || count > 16)
        return -1;
    for (at = 0; at < count; at++) {
        uint64_t inside = segment[at].device_address, outside = buffer->device_address + offset;

        if (segment[at].offset != offset || inside + segment[at].bytes - 1 > test->mask)
            return -1;
        if (test->copy != NULL && copy(test, NULL, to_buffer ? inside : outside, NULL, to_buffer ? outside : inside, segment[at].bytes) != 0)
            return -1;
        offset += segment[at].bytes;
    }
    return offset == mapping->bytes ? 0 : -1;
}

/* The device reads and writes memory of the kernel, wherever the kernel took it. */
static int mapped(const struct selftest *test, const struct xc_device *device, void *memory, struct xc_error *error)
{
    /* A range across two pages, no longer than what the device copies at once. */
    uint8_t *part = (uint8_t *)memory + 2500;
    const uint64_t length = 3000;
    struct xc_range ranges[2] = { { part, 1000 }, { part + 1200, 1800 } };
    struct line line = { .bytes = 0 };
    struct xc_mapping mapping;
    struct xc_buffer buffer;

    CHECK(xc_alloc(device, length, 0, NULL, &buffer, error) == XC_OK);
    CHECK(xc_max_mapping(device) >= length);

    /* To the device. */
    fill(part, 3, length);
    CHECK(xc_map(device, part, length, XC_TO_DEVICE, 0, &mapping, error) == XC_OK);
    CHECK(mapping.bytes == length && mapping.bounced_bytes <= length);
    line_add(&line, "# c-interface: mapped ");
    line_number(&line, length);
    line_add(&line, " bytes, bounced ");
    line_number(&line, mapping.bounced_bytes);
    test->say(test->context, line.text);
    CHECK(transfer(test, &mapping, &buffer, 1) == 0 && xc_map_check(&mapping, error) == XC_OK);
    CHECK(test->copy == NULL || holds(buffer.memory, 3, length));
    /* The processor writes something else, and hands a part of it over. */
    CHECK(xc_sync_for_cpu(&mapping, 0, length, error) == XC_OK);
    fill(part, 4, length);
    CHECK(xc_sync_for_device(&mapping, 0, length, error) == XC_OK && transfer(test, &mapping, &buffer, 1) == 0);
    CHECK(test->copy == NULL || holds(buffer.memory, 4, length));
    CHECK(is_error(test, xc_sync_for_cpu(&mapping, length, 1, error), XC_ERROR_ARGUMENT, error, "are not within"));
    CHECK(xc_sync_for_device(&mapping, UINT64_MAX, UINT64_MAX, error) == XC_ERROR_ARGUMENT);
    CHECK(xc_device_fini((struct xc_device *)device, error) == XC_ERROR_IN_USE);
    CHECK(xc_unmap(&mapping, error) == XC_OK);
    CHECK(is_error(test, xc_unmap(&mapping, error), XC_ERROR_HANDLE, error, "xc_mapping"));
    CHECK(holds(part, 4, length));

    /* From the device. What it does not write stays. */
    fill(buffer.memory, 5, length);
    CHECK(xc_map(device, part, length, XC_FROM_DEVICE, XC_NO_SLEEP, &mapping, error) == XC_OK);
    CHECK(transfer(test, &mapping, &buffer, 0) == 0 && xc_sync_for_cpu(&mapping, 0, length, error) == XC_OK);
    CHECK(test->copy == NULL || holds(part, 5, length));
    CHECK(xc_unmap(&mapping, error) == XC_OK);
    CHECK(test->copy == NULL || holds(part, 5, length));

    /* Two ranges, as one mapping. */
    fill(part, 6, length);
    CHECK(xc_map_list(device, ranges, 2, XC_BIDIRECTIONAL, 0, &mapping, error) == XC_OK);
    CHECK(mapping.bytes == 2800 && transfer(test, &mapping, &buffer, 1) == 0);
    CHECK(test->copy == NULL || (holds(buffer.memory, 6, 1000) && holds((uint8_t *)buffer.memory + 1000, 6 + 1200, 1800)));
    CHECK(xc_unmap(&mapping, error) == XC_OK);

    CHECK(is_error(test, xc_map(device, part, 0, XC_TO_DEVICE, 0, &mapping, error), XC_ERROR_REQUEST, error, "at least one byte"));
    CHECK(is_error(test, xc_map(device, part, UINT64_MAX, XC_TO_DEVICE, 0, &mapping, error), XC_ERROR_REQUEST, error, "18446744073709551615 bytes"));
    CHECK(is_error(test, xc_map(device, part, 1, 4, 0, &mapping, error), XC_ERROR_ARGUMENT, error, "direction 4"));
    CHECK(is_error(test, xc_map(device, NULL, 1, XC_TO_DEVICE, 0, &mapping, error), XC_ERROR_ARGUMENT, error, "xc_range.memory is NULL"));
    CHECK(is_error(test, xc_map_list(device, NULL, 2, XC_TO_DEVICE, 0, &mapping, error), XC_ERROR_ARGUMENT, error, "xc_range is NULL"));
    CHECK(is_error(test, xc_map_list(device, (struct xc_range *)((char *)ranges + 4), 1, XC_TO_DEVICE, 0, &mapping, error), XC_ERROR_ARGUMENT, error, "struct xc_range at 0x"));
    CHECK(xc_map_list(device, ranges, 0, XC_TO_DEVICE, 0, &mapping, error) == XC_ERROR_REQUEST);
    CHECK(xc_map_segments(&mapping, NULL, 0) == 0);
    CHECK(xc_free(&buffer, error) == XC_OK);
    return 0;
}

/* Mappings for a device with one segment, and for one with several. */
static int mappings(const struct selftest *test, const struct xc_allocator *allocator, const struct xc_device *device, struct xc_error *error)
{
    const struct xc_platform *platform = test->platform;
    const struct xc_limits limits = { .mask = test->mask, .max_segments = 16, .streaming_align = 8 };
    uint64_t frame = platform->take(platform->context, 2, 1);
    struct xc_device scatter;
    int line;

    CHECK(frame != XC_NO_FRAME);
    CHECK(xc_device_init(&scatter, allocator, "c-mapping", &limits, error) == XC_OK);
    line = mapped(test, device, (void *)(uintptr_t)(platform->linear_base + frame * 4096), error);
    if (line == 0)
        line = mapped(test, &scatter, (void *)(uintptr_t)(platform->linear_base + frame * 4096), error);
    if (line != 0)
        return line;
    platform->give(platform->context, frame, 2);
    CHECK(xc_device_fini(&scatter, error) == XC_OK);
    return 0;
}

/* What is wrong is refused with its values, and nothing crashes. */
static int refusals(const struct selftest *test, const struct xc_allocator *allocator, const struct xc_device *device, struct xc_error *error)
{
    const struct xc_limits odd = { .align = 24 };
    struct xc_device other;
    struct xc_buffer buffer;
    char text[8];

    CHECK(is_error(test, xc_alloc(device, 0, 0, NULL, &buffer, error), XC_ERROR_REQUEST, error, "at least one byte"));
    CHECK(is_error(test, xc_alloc(device, UINT64_MAX, 0, NULL, &buffer, error), XC_ERROR_REQUEST, error, "18446744073709551615 bytes are more than"));
    CHECK(is_error(test, xc_alloc(device, 1, 6, NULL, &buffer, error), XC_ERROR_ARGUMENT, error, "contain 0x6"));
    CHECK(is_error(test, xc_alloc(NULL, 1, 0, NULL, &buffer, error), XC_ERROR_ARGUMENT, error, "xc_device is NULL"));
    CHECK(is_error(test, xc_alloc(device, 1, 0, NULL, NULL, error), XC_ERROR_ARGUMENT, error, "xc_buffer is NULL"));
    CHECK(is_error(test, xc_alloc((const struct xc_device *)allocator, 1, 0, NULL, &buffer, error), XC_ERROR_HANDLE, error, "is not a struct xc_device in use"));
    CHECK(is_error(test, xc_device_init(&other, allocator, NULL, &odd, error), XC_ERROR_LIMITS, error, "alignment 0x18"));
    CHECK(is_error(test, xc_device_init(&other, allocator, NULL, NULL, error), XC_ERROR_ARGUMENT, error, "xc_limits is NULL"));
    CHECK(xc_alloc(device, 0, 0, NULL, &buffer, NULL) == XC_ERROR_REQUEST);

    /* Text is cut where the memory for it ends. */
    CHECK(xc_alloc(device, 0, 0, NULL, &buffer, error) == XC_ERROR_REQUEST);
    CHECK(xc_error_text(error, text, sizeof(text)) > sizeof(text) && text[7] == 0 && text[0] == 'a');
    CHECK(xc_error_text(error, NULL, 0) == xc_error_text(error, text, sizeof(text)));
    return 0;
}

/* Returns SELFTEST_NO_MEMORY if Xen lacks memory for the buffers of the test. */
static int memory(const struct selftest *test, const struct xc_allocator *allocator, const struct xc_device *device, struct xc_error *error)
{
    struct xc_trim_report trim;
    struct xc_buffer buffer;
    int code = xc_alloc(device, 256 * KIB, 0, NULL, &buffer, error);

    if (code == XC_ERROR_XEN_MEMORY)
        return SELFTEST_NO_MEMORY;
    CHECK(code == XC_OK && xc_free(&buffer, error) == XC_OK);
    CHECK(xc_trim(allocator, UINT64_MAX, &trim, error) == XC_OK);
    return 0;
}

/* The whole test, with a device. */
static int with_device(const struct selftest *test, struct xc_allocator *allocator, struct xc_error *error)
{
    const struct xc_limits limits = { .mask = test->mask };
    struct xc_device device;
    int line;

    CHECK(xc_device_init(&device, allocator, "c-device", &limits, error) == XC_OK);
    if ((line = memory(test, allocator, &device, error)) == SELFTEST_NO_MEMORY)
        CHECK(xc_device_fini(&device, error) == XC_OK);
    if (line != 0 || (line = buffers(test, &device, error)) != 0)
        return line;
    if ((line = segments(test, allocator, error)) != 0)
        return line;
    if ((line = objects(test, &device, error)) != 0)
        return line;
    if ((line = mappings(test, allocator, &device, error)) != 0)
        return line;
    if ((line = refusals(test, allocator, &device, error)) != 0)
        return line;
    CHECK(is_error(test, xc_fini(allocator, error), XC_ERROR_IN_USE, error, "xc_allocator"));
    CHECK(xc_device_fini(&device, error) == XC_OK);
    return 0;
}

int selftest_run(const struct selftest *test)
{
    const struct xc_platform *platform = test->platform;
    /* Static, because the stack of a kernel may be too small. */
    static struct xc_allocator allocator;
    struct xc_trim_report trim;
    struct xc_error errors, *error = &errors;
    uint64_t before = platform->free_frames(platform->context);
    char text[512];
    int line;

    CHECK(xc_init(&allocator, platform, error) == XC_OK);
    xc_capability_text(&allocator, text, sizeof(text));
    show(test, "", text);
    if ((line = with_device(test, &allocator, error)) > 0)
        return line;
    xc_report_text(&allocator, text, sizeof(text));
    show(test, "", text);
    CHECK(text_contains(text, " 0 in quarantine"));
    CHECK(xc_trim(&allocator, UINT64_MAX, &trim, error) == XC_OK && trim.quarantined == 0);
    CHECK(xc_reclaim(&allocator, UINT64_MAX) == 0);
    CHECK(xc_fini(&allocator, error) == XC_OK);
    CHECK(xc_fini(&allocator, error) == XC_ERROR_HANDLE);
    CHECK(platform->free_frames(platform->context) == before);
    return line;
}
