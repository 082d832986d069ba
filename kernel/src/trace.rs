//! The hypercall trace: what is recorded on each vCPU, and how it is printed.
//!
//! Calls are recorded in rings and printed later, by [`print`], so that no printing lies between two
//! calls.

use alloc::vec::Vec;
use core::fmt;

use hypercall::trace::{Summary, Timescale, TraceHeader, TraceLine, TraceRecord};
use spin::{Mutex, MutexGuard, Once};
use xen_contig::addr::PAGE_SIZE;

use crate::command_line::{TraceLevel, TraceOptions};
use crate::console::say;
use crate::hypervisor::Hypervisor;
use crate::machine::Machine;
use crate::time;
use crate::vcpu::{self, Local, xen};

/// The number of records that the first vCPU holds while it boots, and with `trace=off`.
const BOOT_RECORDS: usize = 2048;

/// The number of records that each other vCPU holds with `trace=off`.
const FEW_RECORDS: usize = 64;

/// The number of records that a vCPU holds at most, unless `ring=` says otherwise.
const MANY_RECORDS: usize = 8192;

/// The number of records that a panic prints.
const PANIC_RECORDS: usize = 64;

static BOOT_RING: Mutex<[Option<TraceRecord>; BOOT_RECORDS]> =
    Mutex::new([const { None }; BOOT_RECORDS]);

static OPTIONS: Once<TraceOptions> = Once::new();

/// The totals at the end of booting.
static BOOT: Once<Summary> = Once::new();

/// What ticks mean, for a panic, which does not read the page that Xen shares with the domain.
static SCALE: Once<Timescale> = Once::new();

/// Lets the first vCPU record its calls, from the first one on.
///
/// # Panics
/// If it is called twice.
pub fn start() {
    let ring = MutexGuard::leak(BOOT_RING.try_lock().expect("the trace starts once"));
    // The vCPU does not find its data by its GS base yet.
    vcpu::boot().xen.record_into(ring);
}

/// Sets what the first vCPU records, and what the others will record.
pub fn configure(machine: &Machine, options: TraceOptions) {
    SCALE.call_once(time::scale);
    OPTIONS.call_once(|| options);
    let xen = xen();
    xen.set_filter(options.filter);
    xen.set_details(options.level != TraceLevel::Off);
    if options.level == TraceLevel::Full {
        enlarge(xen, records(machine, &options, 64).max(BOOT_RECORDS));
    }
}

/// Sets what a new vCPU records.
pub fn configure_other(machine: &Machine, new: &Hypervisor) {
    let Some(options) = OPTIONS.get() else { return };
    new.set_filter(options.filter);
    new.set_details(options.level != TraceLevel::Off);
    if options.level == TraceLevel::Full {
        enlarge(new, records(machine, options, 1024));
    }
    enlarge(new, FEW_RECORDS);
}

/// Returns the number of records for a vCPU: that of `ring=`, or what fits into this share of the
/// guest's memory.
fn records(machine: &Machine, options: &TraceOptions, share: u64) -> usize {
    let bytes = machine.p2m.frames() * PAGE_SIZE as u64 / share;
    let fitting = bytes as usize / size_of::<Option<TraceRecord>>();
    options.ring.unwrap_or(fitting.clamp(FEW_RECORDS, MANY_RECORDS))
}

/// Gives a tracer a ring of this many records, unless its ring is as large. If the kernel lacks the
/// memory, prints how large the ring is instead.
fn enlarge(xen: &Hypervisor, records: usize) {
    if records <= xen.capacity() {
        return;
    }
    let mut ring = Vec::new();
    if ring.try_reserve_exact(records).is_err() {
        let kib = (records * size_of::<Option<TraceRecord>>()).div_ceil(1024);
        return say!(
            "# trace: there is no memory for a ring of {records} records ({kib} KiB), so the ring \
             holds {}; choose fewer with ring=",
            xen.capacity().max(FEW_RECORDS)
        );
    }
    ring.resize(records, None);
    xen.record_into(ring.leak());
}

/// Ends the part of the totals that belongs to booting, and prints its trace with `trace=full`.
pub fn end_boot() {
    BOOT.call_once(total);
    if let Some(TraceOptions { level: TraceLevel::Full, filter, .. }) = OPTIONS.get() {
        let header = TraceHeader { vcpus: vcpu::count(), ring: xen().capacity(), filter: *filter };
        say!("{header}");
        print();
    }
}

/// Prints if half of this vCPU's ring waits for that. For a test that makes more calls than a ring
/// holds, between two of its steps.
pub fn print_if_filling() {
    let xen = xen();
    if level() == TraceLevel::Full && xen.waiting() > xen.capacity() as u64 / 2 {
        print();
    }
}

/// Prints with `trace=full` what the vCPUs have recorded and not printed, in the order of time.
pub fn print() {
    if level() != TraceLevel::Full {
        return;
    }
    let scale = time::scale();
    for Local { id, xen, .. } in vcpu::online() {
        let lost = xen.take_lost();
        if lost > 0 {
            say!("# trace v{} lost={lost}", id.number());
        }
    }
    while let Some(next) = vcpu::online()
        .filter_map(|one| Some((one.xen.next_time()?, one)))
        .min_by_key(|(time, _)| *time)
    {
        let (_, Local { id, xen, .. }) = next;
        if let Some(record) = xen.take() {
            print_record(id.number(), &record, &scale);
        }
    }
}

fn print_record(vcpu: u32, record: &TraceRecord, time: &Timescale) {
    say!("{}", TraceLine { vcpu, record, time });
}

fn level() -> TraceLevel {
    OPTIONS.get().map_or(TraceLevel::Off, |options| options.level)
}

/// Returns the totals of all vCPUs.
fn total() -> Summary {
    let mut all = Summary::new();
    vcpu::online().for_each(|vcpu| all.add(&vcpu.xen.summary()));
    all
}

/// Prints what remains of the trace and the totals, if the trace is on.
pub fn finish() {
    if level() == TraceLevel::Off {
        return;
    }
    print();
    let (all, scale) = (total(), time::scale());
    if let Some(boot) = BOOT.get() {
        print_table(&boot.table("boot", &scale));
        print_table(&all.since(boot).table("tests", &scale));
    }
    print_table(&all.phase_table(&scale));
}

fn print_table(table: &dyn fmt::Display) {
    for line in alloc::format!("{table}").lines() {
        say!("# trace summary {line}");
    }
}

/// Prints the last records of this vCPU after a panic.
///
/// A panic before the command line was read prints ticks in place of nanoseconds.
pub fn print_recent() {
    let vcpu = vcpu::current();
    say!("# trace: the last hypercalls of vCPU {}, oldest first", vcpu.number());
    let scale = SCALE.get().copied().unwrap_or(Timescale::NANOSECONDS);
    let printed = xen().recent(PANIC_RECORDS, |record| print_record(vcpu.number(), record, &scale));
    if !printed {
        say!(
            "# trace: the last hypercalls cannot be printed, because the panic interrupted a write"
        );
    }
}
