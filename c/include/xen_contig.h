/*
 * Machine-contiguous DMA memory for Xen guest kernels in C.
 *
 * This is the C interface of the library xen-contig, for 64-bit x86 kernels that run as PV or PVH guests
 * of Xen. docs/EMBEDDING.md, section "From C", is the tutorial.
 *
 * Words
 *   frame           4096 bytes. A number of the guest's own ("pfn"), unless it is called a machine frame.
 *   device address  what goes into a register of a device: a machine address in a PV guest, an address of
 *                   the guest's own numbering in a PVH guest.
 *
 * Storage
 *   The library gets frames by take of xc_platform, and allocates no other memory. The caller provides each
 *   structure, and its content does not matter before the call that fills it. A structure must stay at its
 *   address until the call that ends it. The library marks it with the address, so it recognises a structure
 *   that was copied, ended or never filled, and returns XC_ERROR_HANDLE.
 *
 * Errors
 *   A function that returns int returns XC_OK or one of XC_ERROR_..., and writes the whole error to its last
 *   argument, which may be NULL. NULL for any other argument is an error and not a crash, unless a comment
 *   permits it. After an error nothing was allocated and nothing was lost, unless the code is XC_ERROR_LOST.
 *
 * Contexts
 *   "May sleep" means: makes hypercalls that can take milliseconds, and calls take and give of xc_platform.
 *   Such a function must not be called in an interrupt handler, nor under a lock that these two take.
 *   Several vCPUs may call any functions at the same time, but no function may run on an object while another
 *   vCPU ends that object.
 */
#ifndef XEN_CONTIG_H
#define XEN_CONTIG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Results. The text of an error (xc_error_text) names the values and what to do. */

/* The call did what it says. */
#define XC_OK 0
/* An argument is wrong: NULL, misaligned, an unknown flag, or an incomplete xc_platform. */
#define XC_ERROR_ARGUMENT 1
/* The structure was not filled, was ended already, or was copied from elsewhere. */
#define XC_ERROR_HANDLE 2
/* Something still uses the object. End that first. */
#define XC_ERROR_IN_USE 3
/* The limits of a device or of a pool contradict each other. */
#define XC_ERROR_LIMITS 4
/* No memory can satisfy the request within the limits of the device. */
#define XC_ERROR_REQUEST 5
/* Only a call that may sleep can satisfy the request. */
#define XC_ERROR_MUST_NOT_SLEEP 6
/* The kernel has too few free frames, or too few in a row. */
#define XC_ERROR_GUEST_MEMORY 7
/* Xen has no such memory. */
#define XC_ERROR_XEN_MEMORY 8
/* Xen does not permit this domain what was asked for. */
#define XC_ERROR_NOT_PERMITTED 9
/* Something references a frame that take handed out. */
#define XC_ERROR_FRAME_IN_USE 10
/* Xen refused the call for another reason. */
#define XC_ERROR_XEN 11
/* Frames were lost to a failure. They are never used again, and xc_report_text counts them. */
#define XC_ERROR_LOST 12
/* All objects of the pool are in use. */
#define XC_ERROR_EXHAUSTED 13
/* The memory has other device addresses since a restore or a migration. Free it and allocate it again. */
#define XC_ERROR_MOVED 14
/* An error that this header has no code for. */
#define XC_ERROR_OTHER 99

/* Flags of requests. */

/* The call must not sleep. It makes no hypercall and calls no function of xc_platform but zero, mask and
 * unmask. */
#define XC_NO_SLEEP 1
/* A pool does not zero its objects: they hold what their last user or the device wrote. */
#define XC_NOT_ZEROED 2

/* Directions of mappings. */

/* The device reads. */
#define XC_TO_DEVICE 1
/* The device writes. */
#define XC_FROM_DEVICE 2
/* The device reads and writes. */
#define XC_BIDIRECTIONAL 3

/* What take returns if it has no such frames. */
#define XC_NO_FRAME UINT64_MAX

/* What references a frame: kinds of xc_holder, and what the member value is. */

/* The kernel does not know. */
#define XC_HOLDER_UNKNOWN 0
/* A page-table entry. value: the address that it maps. */
#define XC_HOLDER_MAPPING 1
/* The frame is a page table. value: its level, 1 to 4. */
#define XC_HOLDER_PAGE_TABLE 2
/* The frame is in a GDT or LDT. value: the vCPU. */
#define XC_HOLDER_DESCRIPTOR_TABLE 3
/* The frame is granted to another domain. value: the grant reference. */
#define XC_HOLDER_GRANTED 4
/* The frame is shared for good. name: with whom. */
#define XC_HOLDER_SHARED 5
/* A device accesses the frame. name: the device. */
#define XC_HOLDER_DEVICE 6

/* Sizes of structures, in words of 8 bytes. */

#define XC_ERROR_WORDS 16
#define XC_ALLOCATOR_WORDS 384
#define XC_DEVICE_WORDS 64
#define XC_BUFFER_WORDS 24
#define XC_POOL_WORDS 64
#define XC_OBJECT_WORDS 24
#define XC_MAPPING_WORDS 96

/* Why a call failed. It may be copied and needs no end. The names of pools in it must still exist. */
struct xc_error {
    /* XC_OK or XC_ERROR_.... */
    int code;
    /* For the library. */
    uint32_t mark;
    uint64_t words[XC_ERROR_WORDS];
};

/* What references a frame, for the errors that name it. The library has set frame and XC_HOLDER_UNKNOWN. */
struct xc_holder {
    /* The frame. */
    uint64_t frame;
    /* XC_HOLDER_.... */
    uint32_t kind;
    uint32_t reserved;
    /* The address, level, vCPU or grant reference. */
    uint64_t value;
    /* Text with a zero at the end that stays for good, or NULL. */
    const char *name;
};

/*
 * The kernel around the library. xc_init copies it.
 *
 * The library trusts it: all members describe the guest that the program runs in, for as long as the
 * allocator exists. The members below "optional" may be NULL.
 *
 * No function may call the library. Only zero, mask and unmask are called in an interrupt handler, and only
 * if interrupt handlers allocate or free.
 */
struct xc_platform {
    /* sizeof(struct xc_platform). */
    uint64_t size;
    /* The first argument of the functions below. May be NULL. */
    void *context;
    /* Makes hypercall number (__HYPERVISOR_... of xen.h) with four arguments, in rdi, rsi, rdx and r10, and
     * returns Xen's answer. The library makes memory_op, mmu_update, mmuext_op, multicall, hvm_op, sched_op
     * and xen_version. */
    int64_t (*hypercall)(void *context, uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
    /* The P2M of a PV guest, at a multiple of 8: entry n is the machine frame of frame n, or UINT64_MAX. The
     * library writes to it. Nothing else may, except for frames that the kernel owns. NULL in a PVH guest. */
    uint64_t *p2m;
    /* The number of entries. In a PVH guest, the number after the highest frame. */
    uint64_t frames;
    /* The address at which the kernel maps frame 0: frame n is at linear_base + n * 4096, readable and
     * writable. A multiple of 4096. */
    uint64_t linear_base;
    /* Returns the machine address of the first-level page-table entry that maps a frame there: the same
     * entry for good. Only a PV guest needs it; otherwise NULL. */
    uint64_t (*entry)(void *context, uint64_t frame);
    /* Takes a run of free frames, the first of which is a multiple of align, a power of two up to 512.
     * Nothing but the linear mapping may map them. Returns the first, or XC_NO_FRAME. Must not wait for
     * memory. */
    uint64_t (*take)(void *context, uint64_t frames, uint64_t align);
    /* Takes frames back. They may be a part of a run that was taken. */
    void (*give)(void *context, uint64_t first, uint64_t frames);
    /* Returns the number of free frames. */
    uint64_t (*free_frames)(void *context);

    /* Optional: a search of the free frames for such as a device reaches already. Without it, the library
     * exchanges frames where it could have used those. Both functions or neither. */

    /* Writes the first run of free frames that ends after frame from. Returns 0 if there is none. */
    int (*next_free)(void *context, uint64_t from, uint64_t *first, uint64_t *frames);
    /* Takes exactly these frames. Returns 0 if one of them is not free any more. */
    int (*take_at)(void *context, uint64_t first, uint64_t frames);

    /* Optional: for a kernel that maps frames elsewhere, too. */

    /* Removes page-table entries of these frames that nothing uses any more, except the linear mapping. Must
     * not flush. Returns 0, or else names a frame that is in use. Needed if take can return frames that are
     * unmapped lazily. */
    int (*purge)(void *context, uint64_t first, uint64_t frames, struct xc_holder *holder);
    /* Says what references a frame that Xen refused to take. machine_frame is XC_NO_FRAME in a PVH guest. It
     * may walk page tables. */
    void (*holder)(void *context, uint64_t frame, uint64_t machine_frame, struct xc_holder *holder);

    /* Optional: a faster way to fill memory with zeros. */
    void (*zero)(void *context, void *memory, uint64_t bytes);

    /* Optional: needed if interrupt handlers allocate or free. Both functions or neither. All allocators that
     * exist at the same time have the same pair, or none has one. */

    /* Masks interrupts on this vCPU. Returns what unmask needs. */
    uint64_t (*mask)(void);
    /* Restores the state that mask returned. */
    void (*unmask)(uint64_t state);
};

/* An allocator. Filled by xc_init, ended by xc_fini. */
struct xc_allocator {
    uint64_t words[XC_ALLOCATOR_WORDS];
};

/* The result of xc_trim, in frames. */
struct xc_trim_report {
    /* Frames that Xen took and replaced by others. */
    uint64_t returned;
    /* Frames that are free memory of the kernel again. */
    uint64_t freed;
    /* Frames that Xen refused to take. The next trim offers them again. */
    uint64_t set_aside;
    /* Frames that were lost to a failure. */
    uint64_t quarantined;
};

/* What a device can reach. 0 stands for the default of each member. */
struct xc_limits {
    /* The highest address of a byte that the device can drive: 0xffffffff for 32 address bits. 0: any. */
    uint64_t mask;
    /* The lowest address that the device may be given. */
    uint64_t lowest;
    /* The alignment of the address of each segment: a power of two. */
    uint64_t align;
    /* A power of two. No segment crosses a multiple of it. 0: segments may cross any address. */
    uint64_t boundary;
    /* The length of the longest segment in bytes. 0: any. */
    uint64_t max_segment;
    /* The largest number of segments of a buffer or of a mapping. 0: one. With one, a buffer begins at a
     * multiple of the smallest power of two of pages that holds it. */
    uint64_t max_segments;
    /* The alignment of the address of each segment of a mapping: a power of two up to 4096. Other bytes are
     * bounced. 0: any. align has no effect on mappings. */
    uint64_t streaming_align;
};

/* A device. Filled by xc_device_init, ended by xc_device_fini. */
struct xc_device {
    uint64_t words[XC_DEVICE_WORDS];
};

/* A coherent buffer. Filled by xc_alloc, ended by xc_free. */
struct xc_buffer {
    /* The first byte for the processor. All bytes are side by side. The device may write at any time, so
     * access them volatile. */
    void *memory;
    /* The first byte for the device. */
    uint64_t device_address;
    /* The number of bytes. */
    uint64_t bytes;
    /* For the library. */
    uint64_t words[XC_BUFFER_WORDS];
};

/* A part of memory that a device sees as one address and length. */
struct xc_segment {
    /* The first byte for the device. */
    uint64_t device_address;
    /* The offset of the first byte in the memory. */
    uint64_t offset;
    /* The number of bytes. */
    uint64_t bytes;
};

/* What the objects of a pool are. 0 stands for the default of each member. */
struct xc_pool_config {
    /* Text with a zero at the end, for errors, for the reports of the pool, and for its memory in the report of
     * the device. It must stay while the pool and errors that name it are used. The first 64 bytes count.
     * NULL: "unnamed". */
    const char *name;
    /* Bytes of an object, at least 1. */
    uint64_t size;
    /* The alignment of the address of each object: a power of two. 0: the next power of two above the size, at
     * most 64. */
    uint64_t align;
    /* The least number of bytes that the pool allocates at a time. 0: a page, or what an object needs. */
    uint64_t chunk;
    /* The largest number of objects. 0: any number. */
    uint64_t limit;
    /* Objects that are available after xc_pool_init and xc_pool_refill. */
    uint64_t reserve;
    /* XC_NOT_ZEROED or 0. */
    uint32_t flags;
    uint32_t reserved;
};

/* A pool. Filled by xc_pool_init, ended by xc_pool_fini. */
struct xc_pool {
    uint64_t words[XC_POOL_WORDS];
};

/* An object of a pool. Filled by xc_pool_alloc, ended by xc_pool_free. */
struct xc_object {
    /* The first byte for the processor. Access it volatile. */
    void *memory;
    /* The first byte for the device. */
    uint64_t device_address;
    /* The number of bytes. */
    uint64_t bytes;
    /* For the library. */
    uint64_t words[XC_OBJECT_WORDS];
};

/* Bytes of the kernel, for xc_map_list. */
struct xc_range {
    /* The first byte. */
    void *memory;
    /* The number of bytes. */
    uint64_t bytes;
};

/* A mapping. Filled by xc_map or xc_map_list, ended by xc_unmap. */
struct xc_mapping {
    /* The number of bytes. */
    uint64_t bytes;
    /* The number of bytes that are bounced: the device accesses a copy of them. */
    uint64_t bounced_bytes;
    /* For the library. */
    uint64_t words[XC_MAPPING_WORDS];
};

/*
 * Errors
 *
 * Both functions accept NULL and any content, do not sleep, and may be called in an interrupt handler.
 */

/* Writes the text of an error with a zero at the end: what failed, the values, and what to do. Returns the
 * number of bytes of the whole text without the zero, as snprintf does. buffer may be NULL if size is 0. A
 * text has at most 512 bytes. */
size_t xc_error_text(const struct xc_error *error, char *buffer, size_t size);

/* Returns 1 if the same call can succeed later although the caller changes nothing, for example when memory
 * becomes free. Otherwise returns 0. */
int xc_error_is_transient(const struct xc_error *error);

/* A function that a kernel defines if it links the static library libxen_contig.a. The library calls it if it
 * finds a bug in itself, with a text of at most 255 bytes. It prints the text and must not return. */
void xc_panic(const char *message);

/*
 * The allocator
 */

/* Makes the allocator of a kernel. Makes up to 20 hypercalls that move nothing. Does not sleep.
 * XC_ERROR_ARGUMENT: the platform is incomplete or contradicts itself. */
int xc_init(struct xc_allocator *allocator, const struct xc_platform *platform, struct xc_error *error);

/* Ends an allocator, after its devices. Idle memory returns to Xen and to the kernel. May sleep.
 * XC_ERROR_IN_USE: a device exists. */
int xc_fini(struct xc_allocator *allocator, struct xc_error *error);

/* Writes which contiguous memory this domain can get, and why, as xc_error_text does. Print it at boot. Does
 * not sleep. */
size_t xc_capability_text(const struct xc_allocator *allocator, char *buffer, size_t size);

/* Writes how requests were served and where the frames are, in lines, as xc_error_text does. Does not sleep.
 * An interrupt handler may call it if mask and unmask are given. */
size_t xc_report_text(const struct xc_allocator *allocator, char *buffer, size_t size);

/* Releases at least this many bytes of idle memory, or all of it: scarce memory to Xen, all other memory to the
 * kernel. UINT64_MAX releases all. report may be NULL. May sleep. An error says why the last exchange
 * was refused; the report is written nevertheless. */
int xc_trim(const struct xc_allocator *allocator, uint64_t bytes, struct xc_trim_report *report, struct xc_error *error);

/* Makes at least this many frames of idle memory, or all of them, free memory of the kernel. Returns the number
 * of frames. Makes no hypercall, but calls give: call it where the kernel finds no free frame, and not
 * in take. */
uint64_t xc_reclaim(const struct xc_allocator *allocator, uint64_t frames);

/*
 * Devices
 */

/* Makes a device with these limits. Takes a frame for records of its buffers. name must stay while the device and
 * its errors are used; the first 64 bytes count, and NULL stands for "unnamed". Does not sleep, but calls take.
 * XC_ERROR_LIMITS: the limits contradict each other. */
int xc_device_init(struct xc_device *device, const struct xc_allocator *allocator, const char *name, const struct xc_limits *limits, struct xc_error *error);

/* Ends a device, after its buffers, pools and mappings. Does not sleep, but calls give. XC_ERROR_IN_USE: one of them
 * exists. */
int xc_device_fini(struct xc_device *device, struct xc_error *error);

/* Checks that all buffers of a device still have the addresses that the device received, as xc_check does for
 * one. Pools and mappings have checks of their own. Call it after a restore or a migration. */
int xc_device_check(const struct xc_device *device, struct xc_error *error);

/* Writes the limits of a device, what it counted, and its buffers with tag, size and device address, in lines, as
 * xc_error_text does. Print it when a request failed. Takes no lock: an interrupt handler may always call it. */
size_t xc_device_text(const struct xc_device *device, char *buffer, size_t size);

/*
 * Coherent buffers
 */

/* Allocates a zeroed buffer of 1 byte to 1 GiB within the limits of the device. flags: XC_NO_SLEEP or 0. tag says
 * in xc_device_text what the buffer is for, and may be NULL. It must stay until the buffer is freed, while
 * xc_device_text runs, and while an error of xc_device_check is used.
 * Without XC_NO_SLEEP it may sleep. With it, an interrupt handler may call it if mask and unmask are given. */
int xc_alloc(const struct xc_device *device, uint64_t bytes, uint32_t flags, const char *tag, struct xc_buffer *buffer, struct xc_error *error);

/* Frees a buffer. Stop the device first. Makes no hypercall and does not sleep: the memory stays idle in the
 * allocator for the next request. An interrupt handler may call it if mask and unmask are given. */
int xc_free(struct xc_buffer *buffer, struct xc_error *error);

/* Copies the segments of a buffer, first to last, at most capacity of them. Returns the number of all
 * segments, or 0 if this is not a buffer. segments may be NULL if capacity is 0. Does not sleep. An interrupt
 * handler may call it if mask and unmask are given. */
size_t xc_segments(const struct xc_buffer *buffer, struct xc_segment *segments, size_t capacity);

/* Checks that a buffer still has the addresses that the device received. Call it after a restore or a
 * migration, when the P2M is up to date again. Does not sleep. XC_ERROR_MOVED: an address has changed. */
int xc_check(const struct xc_buffer *buffer, struct xc_error *error);

/*
 * Pools of objects
 */

/* Makes a pool of a device and allocates its reserve. The memory of the pool is live buffers of the device,
 * within its limits. May sleep. */
int xc_pool_init(struct xc_pool *pool, const struct xc_device *device, const struct xc_pool_config *config, struct xc_error *error);

/* Ends a pool, after its objects. Makes no hypercall, but calls give. XC_ERROR_IN_USE: an object exists. */
int xc_pool_fini(struct xc_pool *pool, struct xc_error *error);

/* Allocates an object. flags: XC_NO_SLEEP or 0. Without XC_NO_SLEEP the pool grows if all objects are in use,
 * and the call may sleep. With it, an interrupt handler may always call it: it takes no lock.
 * XC_ERROR_EXHAUSTED: all objects are in use. */
int xc_pool_alloc(const struct xc_pool *pool, uint32_t flags, struct xc_object *object, struct xc_error *error);

/* Frees an object. Stop the device first. Takes no lock: an interrupt handler may always call it. */
int xc_pool_free(struct xc_object *object, struct xc_error *error);

/* Allocates objects until the reserve is available again. May sleep. */
int xc_pool_refill(const struct xc_pool *pool, struct xc_error *error);

/* Returns 1 if fewer objects are available than the reserve has. An interrupt handler may always call it. */
int xc_pool_is_low(const struct xc_pool *pool);

/* Checks that the objects still have the addresses that the device received, as xc_check does. The pool hands
 * out no object that moved. */
int xc_pool_check(const struct xc_pool *pool, struct xc_error *error);

/* Writes how many objects and frames a pool has, as xc_error_text does. Takes no lock. */
size_t xc_pool_text(const struct xc_pool *pool, char *buffer, size_t size);

/*
 * Mappings: a device accesses memory of the kernel for a while
 *
 * The device accesses memory in place if it can. Memory above its mask, and memory outside of the linear mapping,
 * is bounced: the device accesses a copy within its reach.
 *
 * From xc_map to xc_unmap, the bytes stay valid and their frames stay as they are. The processor accesses them
 * only between xc_sync_for_cpu and xc_sync_for_device. Of the functions below, one at a time may run on a mapping.
 * Those that take a mapping do not sleep. An interrupt handler may call them if mask and unmask are given.
 */

/* Maps bytes for a device. direction: XC_TO_DEVICE, XC_FROM_DEVICE or XC_BIDIRECTIONAL. flags: XC_NO_SLEEP or 0.
 * If bytes are bounced, the call allocates a buffer for them and copies them. For that it may sleep without
 * XC_NO_SLEEP. With it, an interrupt handler may call it if mask and unmask are given. XC_ERROR_REQUEST: the
 * device cannot access so many bytes; the text says how many it can. */
int xc_map(const struct xc_device *device, void *memory, uint64_t bytes, uint32_t direction, uint32_t flags, struct xc_mapping *mapping, struct xc_error *error);

/* Maps count ranges as one mapping, first to last. The library overwrites the array of ranges with its own form of
 * them: the array must exist until xc_unmap, and the caller must not access it. After an error, too, it may have
 * other content. If the device writes, no two ranges may overlap. Otherwise as xc_map. */
int xc_map_list(const struct xc_device *device, struct xc_range *ranges, size_t count, uint32_t direction, uint32_t flags, struct xc_mapping *mapping, struct xc_error *error);

/* Ends a mapping. Stop the device first. Copies bounced bytes back if the device may have written them. */
int xc_unmap(struct xc_mapping *mapping, struct xc_error *error);

/* Copies the segments of a mapping, as xc_segments does. Their offsets count from the first byte. */
size_t xc_map_segments(const struct xc_mapping *mapping, struct xc_segment *segments, size_t capacity);

/* Hands bytes to the processor, from offset on: call it when the device has written them. XC_ERROR_ARGUMENT: the
 * mapping does not have these bytes. */
int xc_sync_for_cpu(struct xc_mapping *mapping, uint64_t offset, uint64_t bytes, struct xc_error *error);

/* Hands bytes to the device, from offset on: call it when the processor has written them. XC_ERROR_ARGUMENT: the
 * mapping does not have these bytes. */
int xc_sync_for_device(struct xc_mapping *mapping, uint64_t offset, uint64_t bytes, struct xc_error *error);

/* Checks that a mapping still has the addresses that the device received, as xc_check does. XC_ERROR_MOVED: stop
 * the device, end the mapping and map again. The bytes are intact. */
int xc_map_check(const struct xc_mapping *mapping, struct xc_error *error);

/* Returns the most bytes that a device can map wherever they lie, or 0 if this is not a device. */
uint64_t xc_max_mapping(const struct xc_device *device);

#ifdef __cplusplus
}
#endif

#endif
