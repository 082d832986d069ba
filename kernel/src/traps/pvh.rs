//! Exceptions and events of a PVH guest: an interrupt descriptor table of its own for all vCPUs,
//! and for each the descriptors that name its stack for faults.
//!
//! Page and double faults run on a stack of their own, or a stack that has overflowed into its
//! guard page could not report itself.

use core::cell::UnsafeCell;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use super::entry;

/// The vector that Xen delivers events at: any above those of the exceptions.
pub const UPCALL_VECTOR: u8 = 0x30;

const STACK: usize = 16 << 10;

/// Memory that the processor alone uses.
#[repr(C, align(4096))]
struct FaultStack(UnsafeCell<[u8; STACK]>);

// SAFETY: no Rust code reads or writes it.
unsafe impl Sync for FaultStack {}

static FAULT_STACK: FaultStack = FaultStack(UnsafeCell::new([0; STACK]));
static BOOT: Once<Descriptors> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// The descriptors of one vCPU.
pub struct Descriptors {
    fault_stack: VirtAddr,
    tss: Once<TaskStateSegment>,
    gdt: Once<(GlobalDescriptorTable, [SegmentSelector; 3])>,
}

impl Descriptors {
    /// For a vCPU whose stack for faults ends at `fault_stack`.
    pub const fn new(fault_stack: VirtAddr) -> Self {
        Self { fault_stack, tss: Once::new(), gdt: Once::new() }
    }

    /// Loads them and the table of all vCPUs.
    pub fn load(&'static self) {
        let tss = self.tss.call_once(|| {
            let mut tss = TaskStateSegment::new();
            tss.interrupt_stack_table[0] = self.fault_stack;
            tss
        });
        let (gdt, [code, data, task]) = self.gdt.call_once(|| {
            let mut gdt = GlobalDescriptorTable::new();
            let code = gdt.append(Descriptor::kernel_code_segment());
            let data = gdt.append(Descriptor::kernel_data_segment());
            let task = gdt.append(Descriptor::tss_segment(tss));
            (gdt, [code, data, task])
        });
        gdt.load();
        // SAFETY: the selectors are those of the table just loaded: 64-bit code, data, the TSS.
        unsafe {
            CS::set_reg(*code);
            SS::set_reg(*data);
            load_tss(*task);
        }
        IDT.call_once(interrupt_descriptor_table).load();
    }
}

/// Loads the tables of the first vCPU.
pub fn init() {
    let top = VirtAddr::from_ptr(FAULT_STACK.0.get()) + STACK as u64;
    BOOT.call_once(|| Descriptors::new(top)).load();
}

fn interrupt_descriptor_table() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    macro_rules! set {
        ($($vector:literal => $name:ident,)*) => {
            $(
                // SAFETY: the stub takes the frame of this vector and leaves all as it was.
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
    // SAFETY: as above; index 0 of the interrupt stack table is the vCPU's stack for faults.
    unsafe {
        idt.double_fault.set_handler_addr(VirtAddr::new(entry::stub(8))).set_stack_index(0);
        idt.page_fault.set_handler_addr(VirtAddr::new(entry::stub(14))).set_stack_index(0);
        idt[UPCALL_VECTOR].set_handler_addr(VirtAddr::new(entry::event()));
    }
    idt
}
