//! The exception and event entries of a PVH guest, as the processor finds them.
//!
//! All vCPUs share one interrupt descriptor table. Each vCPU has segment descriptors of its own,
//! which name its stack for page faults and double faults. Without that stack, a stack that
//! overflows into its guard page could not be reported.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use crate::traps::entry;
use crate::vcpu::{Local, MAX};

/// The vector at which Xen delivers events. It lies above those of the exceptions.
pub const UPCALL_VECTOR: u8 = 0x30;

/// The descriptors of one vCPU.
struct Descriptors {
    tss: Once<TaskStateSegment>,
    gdt: Once<(GlobalDescriptorTable, [SegmentSelector; 3])>,
}

static VCPUS: [Descriptors; MAX as usize] =
    [const { Descriptors { tss: Once::new(), gdt: Once::new() } }; MAX as usize];
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the descriptors of the running vCPU, which must be `vcpu`.
pub fn load(vcpu: &Local) {
    let Descriptors { tss, gdt } = &VCPUS[vcpu.id.index()];
    let tss = tss.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[0] = VirtAddr::new(vcpu.fault_stack.top());
        tss
    });
    let (gdt, [code, data, task]) = gdt.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        (gdt, [code, data, task])
    });
    gdt.load();
    // SAFETY: the selectors name a 64-bit code segment, a data segment and the TSS of the table that
    // was just loaded. The table is never freed.
    unsafe {
        CS::set_reg(*code);
        SS::set_reg(*data);
        load_tss(*task);
    }
    IDT.call_once(interrupt_descriptor_table).load();
}

fn interrupt_descriptor_table() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    macro_rules! set {
        ($($vector:literal => $name:ident,)*) => {
            $(
                // SAFETY: the entry expects the frame of this vector and preserves all registers.
                unsafe { idt.$name.set_handler_addr(VirtAddr::new(entry::stub($vector))) };
            )*
        };
    }
    set! {
        0 => divide_error,
        1 => debug,
        2 => non_maskable_interrupt,
        3 => breakpoint,
        4 => overflow,
        5 => bound_range_exceeded,
        6 => invalid_opcode,
        7 => device_not_available,
        10 => invalid_tss,
        11 => segment_not_present,
        12 => stack_segment_fault,
        13 => general_protection_fault,
        16 => x87_floating_point,
        17 => alignment_check,
        18 => machine_check,
        19 => simd_floating_point,
        20 => virtualization,
    }
    // SAFETY: each entry expects the frame of its vector and preserves all registers. Index 0 of the
    // interrupt stack table is the vCPU's fault stack, which nothing else uses.
    unsafe {
        idt.double_fault.set_handler_addr(VirtAddr::new(entry::stub(8))).set_stack_index(0);
        idt.page_fault.set_handler_addr(VirtAddr::new(entry::stub(14))).set_stack_index(0);
        idt[UPCALL_VECTOR].set_handler_addr(VirtAddr::new(entry::event()));
    }
    idt
}
