//! The addresses that the notes, the entries and the linker script share.
//!
//! All addresses and sizes are in bytes.

/// Virtual address of pseudo-physical address 0 in the kernel's own mapping.
///
/// The note `XEN_ELFNOTE_VIRT_BASE` passes it to Xen. In a PV guest, the domain builder maps the first
/// frames of the domain from this address on (`xen/include/public/xen.h`, "Start-of-day memory
/// layout"). The PVH entry builds the same mapping.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Physical address at which Xen loads the image.
///
/// It lies above the first MiB, which firmware and the builder of a PVH dom0 use.
pub const IMAGE_PHYS: u64 = 0x20_0000;

/// Virtual address of the first byte of the image.
pub const IMAGE_VIRT: u64 = KERNEL_BASE + IMAGE_PHYS;

/// First address of the linear mapping that the PVH entry builds.
///
/// A 64-bit PV guest must leave a range of addresses to Xen. This is the first address past that range
/// (`HYPERVISOR_VIRT_END` in `xen/include/public/arch-x86/xen-x86_64.h`). A kernel can therefore use
/// it in both kinds of guest.
pub const LINEAR_BASE: u64 = 0xffff_8800_0000_0000;

/// Size of the memory that the PVH boot page tables map at [`LINEAR_BASE`].
///
/// They also map this memory at its own physical address. Xen puts all boot data below this limit
/// (`xen/include/public/arch-x86/hvm/start_info.h`).
pub const BOOT_MAPPED: u64 = 4 << 30;

/// Size of the memory that the PVH boot page tables map at [`KERNEL_BASE`].
pub const KERNEL_MAPPED: u64 = 1 << 30;

/// Size of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Size of the pages that the PVH boot page tables map.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Number of entries in a page table.
pub const ENTRIES: u64 = 512;

/// Returns the index of a virtual address in the top-level page table.
pub const fn pml4_index(virt: u64) -> u64 {
    (virt >> 39) % ENTRIES
}

/// Returns the index of a virtual address in its third-level page table.
pub const fn pdpt_index(virt: u64) -> u64 {
    (virt >> 30) % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_lie_in_slots_that_xen_leaves_to_guests() {
        assert_eq!(pml4_index(LINEAR_BASE), 272);
        assert_eq!((pml4_index(KERNEL_BASE), pdpt_index(KERNEL_BASE)), (511, 510));
        assert_eq!(pml4_index(0xffff_8000_0000_0000), 256, "first slot of Xen's own range");
    }

    #[test]
    fn the_kernel_mapping_consists_of_whole_tables() {
        assert_eq!(KERNEL_BASE % KERNEL_MAPPED, 0);
        assert_eq!(KERNEL_MAPPED, ENTRIES * LARGE_PAGE_SIZE);
        assert_eq!(IMAGE_PHYS % LARGE_PAGE_SIZE, 0);
    }
}
