//! The first instructions of a PVH guest.
//!
//! Xen starts vCPU 0 in 32-bit protected mode, at the address in `XEN_ELFNOTE_PHYS32_ENTRY`. The
//! segments are flat, and paging and interrupts are off. `ebx` holds the physical address of
//! `struct hvm_start_info` (`docs/misc/pvh.pandoc`). All code up to the jump to [`KERNEL_BASE`]
//! therefore uses physical addresses: the symbol minus the base.

use core::arch::naked_asm;

use crate::boot_info::{BootInfo, call_kernel};
use crate::gdt::{BOOT_GDT, BOOT_GDT_LIMIT, CODE_SELECTOR, DATA_SELECTOR};
use crate::layout::{
    ENTRIES, KERNEL_BASE, LARGE_PAGE_SIZE, LINEAR_BASE, PAGE_SIZE, pdpt_index, pml4_index,
};
use crate::page_tables::{
    BOOT_TABLES, LARGE, LOW_DIRECTORIES, NO_EXECUTE_HIGH, PRESENT, WRITABLE, offset,
};
use crate::stack::{BOOT_STACK, BOOT_STACK_TOP_OFFSET};

const CR0_WRITE_PROTECT: u32 = 1 << 16;
const CR0_PAGING: u32 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u32 = 1 << 5;
const MSR_EFER: u32 = 0xc000_0080;
const EFER_LONG_MODE_ENABLE: u32 = 1 << 8;
const EFER_NO_EXECUTE_ENABLE: u32 = 1 << 11;

/// The sum of this and the virtual address of a symbol is its physical address.
///
/// The assembler accepts this negative of [`KERNEL_BASE`] because it fits into 32 bits.
const TO_PHYSICAL: u64 = KERNEL_BASE.wrapping_neg();

/// The address at which Xen starts a PVH guest.
///
/// # Safety
///
/// Only Xen may jump here, once, in the state that the module describes. Rust code must not call it,
/// because it is 32-bit code.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
pub unsafe extern "C" fn pvh_boot_pvh_entry() -> ! {
    naked_asm!(
        ".code32",
        "cld",
        "mov esp, offset {stack} + {top} + {to_physical}",
        "mov ebp, offset {tables} + {to_physical}",

        // The second-level tables of the identity and linear mappings: 2 MiB pages from
        // physical address 0 on.
        "lea edi, [ebp + {low_directories}]",
        "mov eax, {large_page}",
        "mov ecx, {low_directories_entries}",
        "2:",
        "mov dword ptr [edi], eax",
        "mov dword ptr [edi + 4], 0",
        "add eax, {large_page_size}",
        "add edi, 8",
        "dec ecx",
        "jnz 2b",

        // The second-level table of the kernel's mapping: the same pages.
        "lea edi, [ebp + {kernel_directory}]",
        "mov eax, {large_page}",
        "mov ecx, {entries}",
        "3:",
        "mov dword ptr [edi], eax",
        "mov dword ptr [edi + 4], 0",
        "add eax, {large_page_size}",
        "add edi, 8",
        "dec ecx",
        "jnz 3b",

        // The third-level table of the identity and linear mappings.
        "lea edi, [ebp + {low_pdpt}]",
        "lea eax, [ebp + {low_directories} + {table}]",
        "mov ecx, {low_directory_count}",
        "4:",
        "mov dword ptr [edi], eax",
        "add eax, {page_size}",
        "add edi, 8",
        "dec ecx",
        "jnz 4b",

        // The third-level table of the kernel's mapping.
        "lea eax, [ebp + {kernel_directory} + {table}]",
        "mov dword ptr [ebp + {kernel_pdpt} + {kernel_pdpt_slot}], eax",

        // The top level: the identity mapping, the linear mapping without execution, the
        // kernel's mapping.
        "lea eax, [ebp + {low_pdpt} + {table}]",
        "mov dword ptr [ebp], eax",
        "mov dword ptr [ebp + {linear_slot}], eax",
        "mov dword ptr [ebp + {linear_slot} + 4], {no_execute_high}",
        "lea eax, [ebp + {kernel_pdpt} + {table}]",
        "mov dword ptr [ebp + {kernel_slot}], eax",

        // Long mode and the no-execute bit take effect when paging is switched on.
        "mov eax, cr4",
        "or eax, {cr4}",
        "mov cr4, eax",
        "mov cr3, ebp",
        "mov ecx, {efer}",
        "rdmsr",
        "or eax, {efer_bits}",
        "wrmsr",
        "mov eax, cr0",
        "or eax, {cr0}",
        "mov cr0, eax",

        // The CPU is in compatibility mode now. A far return loads cs with the 64-bit segment.
        "sub esp, 8",
        "mov word ptr [esp], {gdt_limit}",
        "mov dword ptr [esp + 2], offset {gdt} + {to_physical}",
        "lgdt [esp]",
        "push {code_selector}",
        "mov eax, offset {long_mode} + {to_physical}",
        "push eax",
        "retf",
        ".code64",
        stack = sym BOOT_STACK,
        top = const BOOT_STACK_TOP_OFFSET,
        to_physical = const TO_PHYSICAL,
        tables = sym BOOT_TABLES,
        low_pdpt = const offset::LOW_PDPT,
        low_directories = const offset::LOW_DIRECTORIES,
        kernel_pdpt = const offset::KERNEL_PDPT,
        kernel_directory = const offset::KERNEL_DIRECTORY,
        low_directories_entries = const LOW_DIRECTORIES as u64 * ENTRIES,
        low_directory_count = const LOW_DIRECTORIES,
        entries = const ENTRIES,
        page_size = const PAGE_SIZE,
        large_page_size = const LARGE_PAGE_SIZE,
        large_page = const PRESENT | WRITABLE | LARGE,
        table = const PRESENT | WRITABLE,
        no_execute_high = const NO_EXECUTE_HIGH,
        linear_slot = const 8 * pml4_index(LINEAR_BASE),
        kernel_slot = const 8 * pml4_index(KERNEL_BASE),
        kernel_pdpt_slot = const 8 * pdpt_index(KERNEL_BASE),
        cr4 = const CR4_PHYSICAL_ADDRESS_EXTENSION,
        efer = const MSR_EFER,
        efer_bits = const EFER_LONG_MODE_ENABLE | EFER_NO_EXECUTE_ENABLE,
        cr0 = const CR0_PAGING | CR0_WRITE_PROTECT,
        gdt = sym BOOT_GDT,
        gdt_limit = const BOOT_GDT_LIMIT,
        code_selector = const CODE_SELECTOR,
        long_mode = sym long_mode,
    )
}

/// Jumps from the physical addresses to the kernel's addresses and calls Rust.
///
/// It is the first 64-bit code. `ebx` still holds the value that Xen passed.
///
/// # Safety
///
/// Only [`pvh_boot_pvh_entry`] may jump here. Rust code must not call it.
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
unsafe extern "C" fn long_mode() -> ! {
    naked_asm!(
        "lea rax, [rip + 2f]",
        "add rax, {kernel_base}",
        "jmp rax",
        "2:",
        "mov rsp, offset {stack} + {top}",
        // Load the GDT by its virtual address, so that the kernel can drop the identity mapping.
        "sub rsp, 16",
        "mov word ptr [rsp], {gdt_limit}",
        "mov rax, offset {gdt}",
        "mov qword ptr [rsp + 2], rax",
        "lgdt [rsp]",
        "add rsp, 16",
        "mov eax, {data_selector}",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "xor eax, eax",
        "mov fs, eax",
        "mov gs, eax",
        "lldt ax",
        // A zero frame pointer ends a backtrace here.
        "xor ebp, ebp",
        "mov edi, ebx",
        "call {start}",
        "ud2",
        kernel_base = const KERNEL_BASE as i64,
        stack = sym BOOT_STACK,
        top = const BOOT_STACK_TOP_OFFSET,
        gdt = sym BOOT_GDT,
        gdt_limit = const BOOT_GDT_LIMIT,
        data_selector = const DATA_SELECTOR,
        start = sym start,
    )
}

/// The first Rust function of a PVH guest.
extern "C" fn start(start_info: u32) -> ! {
    call_kernel(BootInfo::Pvh { start_info })
}
