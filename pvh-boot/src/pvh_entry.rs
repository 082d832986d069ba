//! The first instructions of a PVH guest.
//!
//! Xen starts vCPU 0 at `XEN_ELFNOTE_PHYS32_ENTRY` in 32-bit protected mode with
//! flat segments, paging and interrupts off, and `ebx` holding the physical
//! address of `struct hvm_start_info` (`docs/misc/pvh.pandoc`). Everything up to
//! the jump to [`KERNEL_BASE`] therefore uses physical addresses: symbol minus
//! base. No stack is needed before the boot stack, no SSE anywhere.

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

/// What turns the virtual address of a symbol into its physical one when added:
/// the negative of [`KERNEL_BASE`], which the assembler takes as a small number.
const TO_PHYSICAL: u64 = KERNEL_BASE.wrapping_neg();

/// Where Xen starts a PVH guest.
///
/// # Safety
///
/// Only for Xen to jump to, once, in the state that the module describes. It is
/// 32-bit code: no function that Rust code can call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
pub unsafe extern "C" fn pvh_boot_pvh_entry() -> ! {
    naked_asm!(
        ".code32",
        "cld",
        "mov esp, offset {stack} + {top} + {to_physical}",
        "mov ebp, offset {tables} + {to_physical}",

        // 2 MiB pages from physical 0 on: the directories of the low mapping ...
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

        // ... and the one of the kernel mapping.
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

        // The low third-level table, an entry per directory.
        "lea edi, [ebp + {low_pdpt}]",
        "lea eax, [ebp + {low_directories} + {table}]",
        "mov ecx, {low_directory_count}",
        "4:",
        "mov dword ptr [edi], eax",
        "add eax, {page_size}",
        "add edi, 8",
        "dec ecx",
        "jnz 4b",

        // The kernel's third-level table.
        "lea eax, [ebp + {kernel_directory} + {table}]",
        "mov dword ptr [ebp + {kernel_pdpt} + {kernel_pdpt_slot}], eax",

        // The top level: identity, linear without execution, kernel.
        "lea eax, [ebp + {low_pdpt} + {table}]",
        "mov dword ptr [ebp], eax",
        "mov dword ptr [ebp + {linear_slot}], eax",
        "mov dword ptr [ebp + {linear_slot} + 4], {no_execute_high}",
        "lea eax, [ebp + {kernel_pdpt} + {table}]",
        "mov dword ptr [ebp + {kernel_slot}], eax",

        // Long mode and the no-execute bit, then paging switches both on.
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

        // Still 32-bit code, in compatibility mode: a far return loads cs.
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

/// The first 64-bit code, started at its physical address, with `ebx` as Xen left
/// it: moves up to the kernel's addresses and calls Rust.
///
/// # Safety
///
/// Only for [`pvh_boot_pvh_entry`] to return into.
#[unsafe(naked)]
#[unsafe(link_section = ".text.boot")]
unsafe extern "C" fn long_mode() -> ! {
    naked_asm!(
        "lea rax, [rip + 2f]",
        "add rax, {kernel_base}",
        "jmp rax",
        "2:",
        "mov rsp, offset {stack} + {top}",
        // The GDT again by its virtual address, so that the identity mapping can go.
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
        // No caller: a walk along frame pointers ends here.
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

/// The first Rust of a PVH guest.
extern "C" fn start(start_info: u32) -> ! {
    call_kernel(BootInfo::Pvh { start_info })
}
