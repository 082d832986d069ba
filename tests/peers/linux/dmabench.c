// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Measures dma_alloc_coherent() and dma_free_coherent() in a Linux PV guest.
 *
 *   insmod dmabench.ko bench=<pattern>:<order>:<bits>:<count>[,...] [seed=<n>]
 *
 * The entries, the patterns and the lines that it prints are those of the kernel option `bench=` of
 * xen-contig. Patterns: cycle, hold and churn, each also as `-far`. A line has no `calls=`, because
 * Linux does not count its hypercalls. Time is counted in ticks of the TSC.
 */
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <asm/msr.h>
#include <asm/xen/page.h>

#define pr_line(format, ...) printk(KERN_INFO "bench: " format "\n", ##__VA_ARGS__)

/* The most buffers that `churn` holds at a time. */
#define CHURN_SLOTS 300

static char *bench = "";
module_param(bench, charp, 0);

static ulong seed;
module_param(seed, ulong, 0);

struct buffer {
	void *cpu;
	dma_addr_t dma;
	size_t bytes;
};

struct totals {
	u64 operations;
	u64 ticks;
	u64 max;
};

struct run {
	struct device *dev;
	unsigned int order;
	unsigned int count;
	unsigned int exchanged;
	struct totals alloc;
	struct totals release;
};

static void add(struct totals *totals, u64 ticks)
{
	totals->operations++;
	totals->ticks += ticks;
	totals->max = max(totals->max, ticks);
}

static u64 mean(const struct totals *totals)
{
	return totals->operations ? totals->ticks / totals->operations : 0;
}

/* Returns true if Linux exchanged the memory of the buffer with Xen. */
static bool is_exchanged(const struct buffer *buffer)
{
	return !is_vmalloc_addr(buffer->cpu) && PageXenRemapped(virt_to_page(buffer->cpu));
}

static void allocate(struct run *run, struct buffer *buffer, u64 pages)
{
	u64 start;

	buffer->bytes = pages * PAGE_SIZE;
	start = rdtsc_ordered();
	buffer->cpu = dma_alloc_coherent(run->dev, buffer->bytes, &buffer->dma,
					 GFP_KERNEL | __GFP_NOWARN);
	start = rdtsc_ordered() - start;
	if (!buffer->cpu)
		return;
	add(&run->alloc, start);
	run->exchanged += is_exchanged(buffer);
}

static void release(struct run *run, struct buffer *buffer)
{
	u64 start;

	if (!buffer->cpu)
		return;
	start = rdtsc_ordered();
	dma_free_coherent(run->dev, buffer->bytes, buffer->cpu, buffer->dma);
	add(&run->release, rdtsc_ordered() - start);
	buffer->cpu = NULL;
}

/* Allocates and frees one buffer, `count` times. */
static u64 cycle(struct run *run)
{
	struct buffer buffer = {};
	unsigned int n;

	for (n = 0; n < run->count; n++) {
		allocate(run, &buffer, 1ULL << run->order);
		release(run, &buffer);
	}
	return run->alloc.operations;
}

/* Allocates `count` buffers, then frees all of them. */
static u64 hold(struct run *run)
{
	struct buffer *buffers = kvcalloc(run->count, sizeof(*buffers), GFP_KERNEL);
	unsigned int n;

	if (!buffers)
		return 0;
	for (n = 0; n < run->count; n++)
		allocate(run, &buffers[n], 1ULL << run->order);
	for (n = 0; n < run->count; n++)
		release(run, &buffers[n]);
	kvfree(buffers);
	return run->alloc.operations;
}

/* SplitMix64, as in kernel/src/bench/sequence.rs. */
static u64 next(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* Picks a slot `count` times: frees its buffer, or allocates one of 1 to 2^order pages. */
static u64 churn(struct run *run)
{
	struct buffer *buffers = kvcalloc(CHURN_SLOTS, sizeof(*buffers), GFP_KERNEL);
	u64 state = seed, operations;
	unsigned int n;

	if (!buffers)
		return 0;
	for (n = 0; n < run->count; n++) {
		struct buffer *buffer = &buffers[next(&state) % CHURN_SLOTS];
		u64 pages = 1 + next(&state) % (1ULL << run->order);

		if (buffer->cpu)
			release(run, buffer);
		else
			allocate(run, buffer, pages);
	}
	operations = run->alloc.operations + run->release.operations;
	/* The last ones are freed outside of the ticks: they are not among the operations. */
	for (n = 0; n < CHURN_SLOTS; n++)
		if (buffers[n].cpu)
			dma_free_coherent(run->dev, buffers[n].bytes, buffers[n].cpu,
					  buffers[n].dma);
	kvfree(buffers);
	return operations;
}

static const struct {
	const char *name;
	u64 (*run)(struct run *run);
	bool far;
} patterns[] = {
	{ "cycle", cycle },	{ "cycle-far", cycle, true },
	{ "hold", hold },	{ "hold-far", hold, true },
	{ "churn", churn },	{ "churn-far", churn, true },
};

static void free_pages_of(struct list_head *pages)
{
	struct page *page, *following;

	list_for_each_entry_safe(page, following, pages, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
}

/* The pages that are set aside, all within reach of a mask of so many bits. */
static LIST_HEAD(aside);
static unsigned int aside_bits;

/* Takes every free page within reach of the mask, so that a buffer has to come from Xen. */
static void set_aside(unsigned int bits)
{
	LIST_HEAD(out_of_reach);
	struct page *page;
	int order, i;

	aside_bits = bits;
	for (order = MAX_ORDER - 1; order >= 0; order--) {
		while ((page = alloc_pages(GFP_NOWAIT | __GFP_NOWARN, order))) {
			split_page(page, order);
			for (i = 0; i < 1 << order; i++) {
				u64 address = PFN_PHYS(pfn_to_mfn(page_to_pfn(page + i)));
				bool near = address <= DMA_BIT_MASK(bits);

				list_add(&page[i].lru, near ? &aside : &out_of_reach);
			}
		}
	}
	free_pages_of(&out_of_reach);
}

/*
 * Waits for the timer's interrupt, which takes as long as some allocations. A short entry ends before
 * the next one, so it is the same in each boot.
 */
static void wait_for_tick(void)
{
	unsigned long now = READ_ONCE(jiffies);

	while (READ_ONCE(jiffies) == now)
		cpu_relax();
}

static int run_entry(struct device *dev, const char *entry)
{
	unsigned int bits;
	struct run run = { .dev = dev };
	char name[16];
	u64 ok;
	int i;

	if (sscanf(entry, "%15[^:]:%u:%u:%u", name, &run.order, &bits, &run.count) != 4)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(patterns) && strcmp(patterns[i].name, name); i++)
		;
	if (i == ARRAY_SIZE(patterns) || run.order >= 20 || bits < 13 || bits > 64)
		return -EINVAL;
	if (dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(bits)))
		return -EIO;
	/* They stay aside for the next entry if that one wants the same. */
	if (!patterns[i].far || bits != aside_bits)
		free_pages_of(&aside);
	if (patterns[i].far)
		set_aside(bits);
	wait_for_tick();
	ok = patterns[i].run(&run);
	pr_line("pattern=%s order=%u bits=%u count=%u ok=%llu exchanged=%u alloc=%llu free=%llu max=%llu",
		name, run.order, bits, run.count, ok, run.exchanged, mean(&run.alloc),
		mean(&run.release), run.alloc.max);
	return 0;
}

static int __init dmabench_init(void)
{
	struct platform_device *device =
		platform_device_register_simple("dmabench", PLATFORM_DEVID_NONE, NULL, 0);
	char *entries = kstrdup(bench, GFP_KERNEL), *rest = entries, *entry;
	int error = 0;

	if (IS_ERR(device)) {
		kfree(entries);
		return PTR_ERR(device);
	}
	while (!error && (entry = strsep(&rest, ","))) {
		error = run_entry(&device->dev, entry);
		if (error)
			pr_line("bad entry \"%s\": error %d", entry, error);
	}
	free_pages_of(&aside);
	platform_device_unregister(device);
	kfree(entries);
	return error;
}
module_init(dmabench_init);

static void __exit dmabench_exit(void)
{
}
module_exit(dmabench_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Measures coherent DMA allocations");
