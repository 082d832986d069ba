//! The addresses that the notes, the entries and the linker script agree on.

/// Virtual address of pseudo-physical address 0 in the kernel's own mapping.
///
/// Announced to Xen as `XEN_ELFNOTE_VIRT_BASE`: in a PV guest the domain builder
/// maps the first frames of the domain from here on (`xen/include/public/xen.h`,
/// "Start-of-day memory layout", item 5). The PVH entry builds the same mapping.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Physical address at which the image is loaded, above the first MiB that
/// firmware and the PVH dom0 builder keep for themselves.
pub const IMAGE_PHYS: u64 = 0x20_0000;

/// Virtual address of the first byte of the image.
pub const IMAGE_VIRT: u64 = KERNEL_BASE + IMAGE_PHYS;

/// Start of the linear mapping of all memory that the PVH entry sets up.
///
/// It is the first address past the range that a 64-bit PV guest must leave to
/// Xen (`HYPERVISOR_VIRT_END` in `xen/include/public/arch-x86/xen-x86_64.h`), so
/// that a kernel may use the same address in both worlds.
pub const LINEAR_BASE: u64 = 0xffff_8800_0000_0000;

/// How much physical memory the PVH boot page tables map at [`LINEAR_BASE`] (and
/// at its own address). Xen puts all boot data below this limit
/// (`xen/include/public/arch-x86/hvm/start_info.h`).
pub const BOOT_MAPPED: u64 = 4 << 30;

/// How much physical memory the PVH boot page tables map at [`KERNEL_BASE`].
pub const KERNEL_MAPPED: u64 = 1 << 30;

/// Size of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Size of the pages in the PVH boot page tables.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Entries in one page table.
pub const ENTRIES: u64 = 512;

/// Index into the top-level table for a virtual address.
pub const fn pml4_index(virt: u64) -> u64 {
    (virt >> 39) % ENTRIES
}

/// Index into the third-level table for a virtual address.
pub const fn pdpt_index(virt: u64) -> u64 {
    (virt >> 30) % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_land_in_the_slots_that_xen_leaves_to_guests() {
        assert_eq!(pml4_index(LINEAR_BASE), 272);
        assert_eq!((pml4_index(KERNEL_BASE), pdpt_index(KERNEL_BASE)), (511, 510));
        assert_eq!(pml4_index(0xffff_8000_0000_0000), 256, "first slot of Xen's own range");
    }

    #[test]
    fn the_kernel_mapping_is_whole_tables() {
        assert_eq!(KERNEL_BASE % KERNEL_MAPPED, 0);
        assert_eq!(KERNEL_MAPPED, ENTRIES * LARGE_PAGE_SIZE);
        assert_eq!(IMAGE_PHYS % LARGE_PAGE_SIZE, 0);
    }
}
