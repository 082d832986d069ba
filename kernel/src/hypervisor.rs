//! The hypervisor handles of the kernel: the real Xen, traced, one for each vCPU.

use hypercall::trace::{Entry, Level, Summary};
use hypercall::{Clock, RealXen, Traced};

use super::{say, vcpu};

/// The seam as this kernel uses it.
pub type Hypervisor = Traced<RealXen, Tsc>;

/// Time stamps of the trace.
#[derive(Clone, Copy, Debug)]
pub struct Tsc;

impl Clock for Tsc {
    fn now(&self) -> u64 {
        super::events::tsc()
    }
}

/// A handle for one vCPU.
pub const fn new() -> Hypervisor {
    Traced::new(untraced(), Tsc)
}

/// Xen, every call recorded in the trace of the vCPU that makes it.
pub fn xen() -> &'static Hypervisor {
    &vcpu::local().xen
}

/// Xen past the trace, for the console: its writes would drown what the trace is there to show,
/// and a traced call that prints would trace its own printing.
pub const fn untraced() -> RealXen {
    // SAFETY: this kernel runs as a Xen guest and nothing else, and `boot::start` sees to the
    // hypercall page before it makes the first call.
    unsafe { RealXen::new() }
}

/// Shows as much as the command line asks for, from now on.
pub fn show_trace(level: Level) {
    vcpu::online().for_each(|vcpu| vcpu.xen.show(level, show));
}

/// Has the trace of a new vCPU show as much as that of the others.
pub fn show_like_boot(xen: &Hypervisor) {
    xen.show(self::xen().level(), show);
}

/// Prints an entry; where there are several vCPUs, with the one that made the call.
fn show(entry: &Entry) {
    match vcpu::count() {
        0 | 1 => say!("# trace {entry}"),
        _ => say!("# trace {} {entry}", vcpu::current()),
    }
}

/// Prints the table at the end, of all vCPUs together, where it was asked for.
pub fn show_summary() {
    if xen().level() != Level::Off {
        let mut all = Summary::new();
        vcpu::online().for_each(|vcpu| all.add(&vcpu.xen.summary()));
        for line in alloc::format!("{all}").lines() {
            say!("# trace {line}");
        }
    }
}

/// Prints the last entries of this vCPU, for a panic.
pub fn show_recent() {
    match vcpu::count() {
        0 | 1 => say!("# trace: the last hypercalls, oldest first"),
        _ => say!("# trace: the last hypercalls of {}, oldest first", vcpu::current()),
    }
    if !xen().recent(show) {
        say!("# trace: is being written, can't be read");
    }
}
