//! The one hypervisor handle of the kernel: the real Xen, traced.

use hypercall::trace::{Entry, Level};
use hypercall::{RealXen, Traced};

use super::say;

/// The seam as this kernel uses it.
pub type Hypervisor = Traced<RealXen>;

// SAFETY: this kernel runs as a Xen guest and nothing else, and `boot::start` sees to the
// hypercall page before it makes the first call.
static XEN: Hypervisor = Traced::new(unsafe { RealXen::new() }, clock);

/// Xen, every call recorded.
pub fn xen() -> &'static Hypervisor {
    &XEN
}

/// Xen past the trace, for the console: its writes would drown what the trace is there to show,
/// and a traced call that prints would trace its own printing.
pub fn untraced() -> RealXen {
    // SAFETY: as for XEN.
    unsafe { RealXen::new() }
}

/// Time stamps of the trace: the TSC.
fn clock() -> u64 {
    // SAFETY: Xen lets guests read the TSC or emulates it. `rdtscp` is another matter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Shows as much as the command line asks for, from now on.
pub fn show_trace(level: Level) {
    XEN.show(level, |entry: &Entry| say!("# trace {entry}"));
}

/// Prints the table at the end, where it was asked for.
pub fn show_summary() {
    if XEN.level() != Level::Off {
        for line in alloc::format!("{}", XEN.summary()).lines() {
            say!("# trace {line}");
        }
    }
}

/// Prints the last entries, for a panic.
pub fn show_recent() {
    say!("# trace: the last hypercalls, oldest first");
    if !XEN.recent(|entry| say!("# trace {entry}")) {
        say!("# trace: is being written, can't be read");
    }
}
