/*
 * Errors that the model of Xen and the C kernel provoke on demand. Each has its code, and a text with the
 * values in it.
 */
#include "check.h"
#include "kernel.h"

/* What `change` does to the machine. */
enum change {
    RELIEVE = 0, /* Xen has memory again. */
    EXHAUST = 1, /* Xen has no memory below 2^value. */
    DENY = 2, /* A policy denies the exchange, with this errno; 0 permits it. */
    HOLD = 3, /* Another domain maps this frame. */
    UNHOLD = 4,
    TEAR = 5, /* Xen cannot write this entry of the next out-list. */
    FORGE = 6, /* The P2M says that this frame is backed by the machine frame of the same number. Returns the
                  true one. */
};

/* `struct Model` of src/machine.rs. */
struct model {
    struct selftest test;
    uint64_t (*change)(void *context, int what, uint64_t value);
};

int errors_run(const struct model *model);

/* xc_init names the member of a platform that is missing or wrong. */
static int platforms(const struct selftest *test, struct xc_error *error)
{
    static struct xc_allocator allocator;
    struct xc_platform p;

#define REFUSED(member, value, part)                                                                   \
    do {                                                                                               \
        p = *test->platform;                                                                           \
        p.member = value;                                                                              \
        CHECK(is_error(test, xc_init(&allocator, &p, error), XC_ERROR_ARGUMENT, error, part));         \
    } while (0)

    REFUSED(size, 8, "xc_platform.size is 8");
    REFUSED(hypercall, NULL, "xc_platform.hypercall is NULL");
    REFUSED(take, NULL, "xc_platform.take is NULL");
    REFUSED(give, NULL, "xc_platform.give is NULL");
    REFUSED(free_frames, NULL, "xc_platform.free_frames is NULL");
    REFUSED(entry, NULL, "xc_platform.entry is NULL");
    REFUSED(p2m, (uint64_t *)0x100001004, "xc_platform.p2m 0x100001004 must be a multiple of 8");
    REFUSED(frames, 0, "xc_platform.frames is 0");
    REFUSED(frames, UINT64_MAX, "xc_platform.frames is 18446744073709551615");
    REFUSED(linear_base, 5, "xc_platform.linear_base 0x5");
    REFUSED(take_at, NULL, "one of xc_platform.next_free and xc_platform.take_at is NULL");
    REFUSED(unmask, NULL, "one of xc_platform.mask and xc_platform.unmask is NULL");
    CHECK(is_error(test, xc_init(&allocator, NULL, error), XC_ERROR_ARGUMENT, error, "xc_platform is NULL"));
    CHECK(is_error(test, xc_init(NULL, test->platform, error), XC_ERROR_ARGUMENT, error, "xc_allocator is NULL"));
    CHECK(is_error(test, xc_init((struct xc_allocator *)((char *)&allocator + 4), test->platform, error), XC_ERROR_ARGUMENT, error, "must lie at a multiple of 8"));
    CHECK(xc_init(NULL, NULL, NULL) == XC_ERROR_ARGUMENT);
    return 0;
}

static uint64_t other_mask(void)
{
    return 0;
}

static void other_unmask(uint64_t state)
{
    (void)state;
}

/* All allocators that exist mask interrupts by the same functions. The first one chooses them. */
static int masks(const struct selftest *test, struct xc_error *error)
{
    static struct xc_allocator first, second;
    struct xc_platform other = *test->platform, unmasked = *test->platform;
    const char *text = "xc_platform.mask and xc_platform.unmask differ from those of an allocator";

    other.mask = other_mask;
    other.unmask = other_unmask;
    unmasked.mask = NULL;
    unmasked.unmask = NULL;
    CHECK(xc_init(&first, test->platform, error) == XC_OK);
    CHECK(is_error(test, xc_init(&second, &other, error), XC_ERROR_ARGUMENT, error, text));
    CHECK(is_error(test, xc_init(&second, &unmasked, error), XC_ERROR_ARGUMENT, error, text));
    CHECK(xc_init(&second, test->platform, error) == XC_OK && xc_fini(&first, error) == XC_OK);
    CHECK(is_error(test, xc_init(&first, &other, error), XC_ERROR_ARGUMENT, error, text));
    CHECK(xc_fini(&second, error) == XC_OK);
    CHECK(xc_init(&first, &unmasked, error) == XC_OK);
    CHECK(is_error(test, xc_init(&second, &other, error), XC_ERROR_ARGUMENT, error, text));
    CHECK(xc_fini(&first, error) == XC_OK && xc_init(&first, &other, error) == XC_OK);
    CHECK(xc_fini(&first, error) == XC_OK);
    return 0;
}

/* Each function accepts NULL for every pointer: it returns an error, or does nothing. */
static int nulls(const struct selftest *test, struct xc_error *error)
{
    char text[64];

    CHECK(xc_error_text(NULL, NULL, 0) == 8 && xc_error_is_transient(NULL) == 0);
    CHECK(xc_fini(NULL, error) == XC_ERROR_ARGUMENT && xc_trim(NULL, 1, NULL, error) == XC_ERROR_ARGUMENT);
    CHECK(xc_reclaim(NULL, 1) == 0 && xc_capability_text(NULL, text, 64) > 0 && xc_report_text(NULL, text, 64) > 0);
    CHECK(xc_device_init(NULL, NULL, NULL, NULL, error) == XC_ERROR_ARGUMENT);
    CHECK(xc_device_fini(NULL, error) == XC_ERROR_ARGUMENT && xc_device_check(NULL, error) == XC_ERROR_ARGUMENT);
    CHECK(xc_device_text(NULL, text, 64) > 0);
    CHECK(xc_alloc(NULL, 0, 0, NULL, NULL, NULL) == XC_ERROR_ARGUMENT && xc_free(NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_segments(NULL, NULL, 5) == 0 && xc_check(NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_pool_init(NULL, NULL, NULL, NULL) == XC_ERROR_ARGUMENT && xc_pool_fini(NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_pool_alloc(NULL, 0, NULL, NULL) == XC_ERROR_ARGUMENT && xc_pool_free(NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_pool_refill(NULL, NULL) == XC_ERROR_ARGUMENT && xc_pool_is_low(NULL) == 0);
    CHECK(xc_pool_check(NULL, NULL) == XC_ERROR_ARGUMENT && xc_pool_text(NULL, text, 64) > 0);
    CHECK(text_contains(text, "xc_pool is NULL"));
    CHECK(xc_map(NULL, NULL, 0, 0, 0, NULL, NULL) == XC_ERROR_ARGUMENT && xc_unmap(NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_map_list(NULL, NULL, 1, XC_TO_DEVICE, 0, NULL, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_sync_for_cpu(NULL, 0, 0, NULL) == XC_ERROR_ARGUMENT && xc_sync_for_device(NULL, 0, 0, NULL) == XC_ERROR_ARGUMENT);
    CHECK(xc_map_check(NULL, NULL) == XC_ERROR_ARGUMENT && xc_map_segments(NULL, NULL, 1) == 0 && xc_max_mapping(NULL) == 0);
    return 0;
}

/* Requests fail if the kernel or Xen has too little memory, or if Xen does not permit them. */
static int refusals(const struct model *model, const struct xc_device *device, struct xc_error *error)
{
    const struct selftest *test = &model->test;
    void *context = test->context;
    struct xc_buffer buffer;

    CHECK(is_error(test, xc_alloc(device, 8 << 20, 0, NULL, &buffer, error), XC_ERROR_REQUEST, error, "0x3fffff"));
    CHECK(is_error(test, xc_alloc(device, 4 << 20, 0, NULL, &buffer, error), XC_ERROR_NOT_PERMITTED, error, "order 10 is needed"));
    CHECK(is_error(test, xc_alloc(device, 64 * KIB, XC_NO_SLEEP, NULL, &buffer, error), XC_ERROR_MUST_NOT_SLEEP, error, "must not sleep"));
    CHECK(xc_error_is_transient(error) == 1);
    kernel_hide_frames(1);
    CHECK(is_error(test, xc_alloc(device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_GUEST_MEMORY, error, "free frame"));
    CHECK(xc_error_is_transient(error) == 1);
    kernel_hide_frames(0);
    model->change(context, EXHAUST, 22);
    CHECK(is_error(test, xc_alloc(device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_XEN_MEMORY, error, "below 2^22"));
    CHECK(xc_error_is_transient(error) == 1);
    model->change(context, RELIEVE, 0);
    model->change(context, DENY, 1);
    CHECK(is_error(test, xc_alloc(device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_NOT_PERMITTED, error, "denies this domain the exchange"));
    CHECK(xc_error_is_transient(error) == 0);
    model->change(context, DENY, 13);
    CHECK(is_error(test, xc_alloc(device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_XEN, error, "refused the call: -EACCES"));
    model->change(context, DENY, 0);
    return 0;
}

static int purge(void *context, uint64_t first, uint64_t frames, struct xc_holder *holder)
{
    (void)context;
    (void)frames;
    holder->frame = first;
    holder->kind = XC_HOLDER_SHARED;
    holder->name = "the C kernel's console";
    return 1;
}

static void granted(void *context, uint64_t frame, uint64_t machine_frame, struct xc_holder *holder)
{
    (void)context;
    (void)machine_frame;
    if (holder->frame == frame) {
        holder->kind = XC_HOLDER_GRANTED;
        holder->value = 9;
    }
}

/* An error names a frame in use in the kernel's words. */
static int holders(const struct model *model, struct xc_error *error)
{
    const struct selftest *test = &model->test;
    const struct xc_limits limits = { .mask = test->mask };
    static struct xc_allocator allocator;
    struct xc_platform platform = *test->platform;
    struct xc_device device;
    struct xc_buffer buffer;
    uint64_t frame;

    platform.purge = purge;
    platform.holder = granted;
    CHECK(xc_init(&allocator, &platform, error) == XC_OK);
    CHECK(xc_device_init(&device, &allocator, "c-holders", &limits, error) == XC_OK);
    CHECK(is_error(test, xc_alloc(&device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_FRAME_IN_USE, error, "is shared: the C kernel's console"));
    CHECK(xc_error_is_transient(error) == 0);
    CHECK(xc_device_fini(&device, error) == XC_OK && xc_fini(&allocator, error) == XC_OK);

    platform.purge = NULL;
    CHECK(xc_init(&allocator, &platform, error) == XC_OK);
    CHECK(xc_device_init(&device, &allocator, "c-holders", &limits, error) == XC_OK);
    for (frame = 6; frame < test->platform->frames; frame++)
        model->change(test->context, HOLD, frame);
    CHECK(is_error(test, xc_alloc(&device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_FRAME_IN_USE, error, "is granted by reference 9"));
    CHECK(xc_error_is_transient(error) == 1);
    for (frame = 6; frame < test->platform->frames; frame++)
        model->change(test->context, UNHOLD, frame);
    CHECK(xc_device_fini(&device, error) == XC_OK && xc_fini(&allocator, error) == XC_OK);
    return 0;
}

/* After a restore, memory has other device addresses. */
static int restores(const struct model *model, const struct xc_device *device, struct xc_error *error)
{
    const struct selftest *test = &model->test;
    const struct xc_platform *platform = test->platform;
    struct xc_buffer buffer;
    uint64_t frame, machine_frame;

    CHECK(xc_alloc(device, 8 * KIB, 0, NULL, &buffer, error) == XC_OK);
    frame = ((uint64_t)(uintptr_t)buffer.memory - platform->linear_base) / 4096 + 1;
    CHECK(xc_check(&buffer, error) == XC_OK);
    machine_frame = model->change(test->context, FORGE, frame);
    CHECK(is_error(test, xc_check(&buffer, error), XC_ERROR_MOVED, error, "the byte at offset 4096 was at"));
    CHECK(is_error(test, xc_device_check(device, error), XC_ERROR_MOVED, error, "1 buffers of device c-device were moved"));
    platform->p2m[frame] = machine_frame;
    CHECK(xc_check(&buffer, error) == XC_OK && xc_free(&buffer, error) == XC_OK);
    return 0;
}

/* A wrong configuration of a pool is refused with its values. */
static int pools(const struct selftest *test, const struct xc_device *device, struct xc_error *error)
{
    const struct xc_pool_config empty = { .name = "c-empty" };
    const struct xc_pool_config reserve = { .size = 64, .limit = 1, .reserve = 2 };
    const struct xc_pool_config flags = { .size = 64, .flags = XC_NO_SLEEP };
    const struct xc_pool_config named = {
        .name = "123456789 123456789 123456789 123456789 123456789 123456789 1234 and more",
        .size = 64,
        .flags = XC_NOT_ZEROED,
    };
    struct xc_object object;
    struct xc_pool pool;

    CHECK(is_error(test, xc_pool_init(&pool, device, &empty, error), XC_ERROR_LIMITS, error, "pool c-empty: an object must have"));
    CHECK(is_error(test, xc_pool_init(&pool, device, &reserve, error), XC_ERROR_LIMITS, error, "pool unnamed: a reserve of 2"));
    CHECK(is_error(test, xc_pool_init(&pool, device, &flags, error), XC_ERROR_ARGUMENT, error, "flags 0x1"));
    CHECK(xc_pool_init(&pool, device, &named, error) == XC_OK);
    kernel_hide_frames(1);
    CHECK(is_error(test, xc_pool_alloc(&pool, XC_NO_SLEEP, &object, error), XC_ERROR_EXHAUSTED, error, "123456789 1234: no object is available"));
    CHECK(is_error(test, xc_pool_alloc(&pool, 0, &object, error), XC_ERROR_GUEST_MEMORY, error, "free frame"));
    CHECK(is_error(test, xc_pool_alloc(&pool, XC_NOT_ZEROED, &object, error), XC_ERROR_ARGUMENT, error, "flags 0x2"));
    kernel_hide_frames(0);
    CHECK(xc_pool_fini(&pool, error) == XC_OK);
    return 0;
}

int errors_run(const struct model *model)
{
    const struct selftest *test = &model->test;
    const struct xc_limits limits = { .mask = test->mask };
    static struct xc_allocator allocator;
    struct xc_error errors, *error = &errors;
    struct xc_device device;
    struct xc_buffer buffer;
    int line;

    if ((line = platforms(test, error)) != 0 || (line = masks(test, error)) != 0 || (line = nulls(test, error)) != 0)
        return line;
    CHECK(xc_init(&allocator, test->platform, error) == XC_OK);
    CHECK(xc_device_init(&device, &allocator, "c-device", &limits, error) == XC_OK);
    if ((line = refusals(model, &device, error)) != 0 || (line = restores(model, &device, error)) != 0)
        return line;
    if ((line = pools(test, &device, error)) != 0)
        return line;
    CHECK(xc_device_fini(&device, error) == XC_OK && xc_fini(&allocator, error) == XC_OK);
    if ((line = holders(model, error)) != 0)
        return line;
    CHECK(kernel_masked == 0 && kernel_mask_calls > 0);

    /* Frames are lost, so this is the last. */
    CHECK(xc_init(&allocator, test->platform, error) == XC_OK);
    CHECK(xc_device_init(&device, &allocator, "c-lost", &limits, error) == XC_OK);
    model->change(test->context, TEAR, 0);
    CHECK(is_error(test, xc_alloc(&device, 64 * KIB, 0, NULL, &buffer, error), XC_ERROR_LOST, error, "quarantined"));
    CHECK(xc_device_fini(&device, error) == XC_OK && xc_fini(&allocator, error) == XC_OK);
    return 0;
}
