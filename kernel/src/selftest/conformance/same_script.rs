//! Does this Xen answer the script of raw calls as the model does? The script is in `tests/script`,
//! and `tests/same_script.rs` plays it against the model.

use alloc::string::String;

use hypercall::ops::Pte;
use hypercall::{DomId, Mfn, Pfn, VirtAddr};
use script::{FRAMES, ScriptGuest, ScriptPage, ScriptResult};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{GuestMemory, LinearMapping};

use super::m2p;
use super::raw::{NOWHERE, free_populated, is_pv, limit};
use super::start_info::StartInfo;
use crate::guest::guest;
use crate::hypervisor::Hypervisor;
use crate::layout::{WINDOW_SLOTS, linear, slot, window};
use crate::machine::Machine;
use crate::say;
use crate::selftest::reservation::can_refill;
use crate::selftest::{Check, Test, TestContext, error, fail, skip};
use crate::vcpu::xen;

pub fn add(tests: &mut alloc::vec::Vec<Test>) {
    tests.push(Test::new("same-script", same_script).needs_order(4));
}

struct ScriptKernel<'m> {
    machine: &'m Machine,
    start_info: Option<StartInfo>,
    limit: u32,
    run: FrameRun,
    unowned: Option<u64>,
}

fn same_script(context: &TestContext<'_>) -> Check {
    can_refill()?;
    let machine = context.machine;
    let Some(run) = machine.take(FRAMES) else {
        skip!("the guest has no {FRAMES} free frames in a row")
    };
    // SAFETY: `run` owns the frames ([M1](xen_contig::rules#M1)), and they are mapped.
    unsafe { machine.linear.zero(run.first(), FRAMES) };
    let start_info = StartInfo::find(machine);
    if start_info.is_none() && is_pv(context) {
        machine.give(run);
        error!("the start info is not at the place that the builder used");
    }
    let unowned = match machine.m2p {
        Some(_) => m2p::frames_of_others(machine, 2).of_nobody.last().copied(),
        None => None,
    };
    let kernel = ScriptKernel { machine, start_info, limit: limit(context)?, run, unowned };
    let script = if is_pv(context) { script::PV } else { script::TRANSLATED };
    let mut text = String::new();
    if script.unpack(&mut text).is_err() {
        error!("the script cannot be unpacked");
    }
    match script::run(&kernel, &text, |_, _| ()) {
        ScriptResult::Same { calls } => {
            say!("# same-script: {calls} calls were answered as the model answers them");
            machine.give(kernel.run);
            Ok(())
        }
        ScriptResult::Differs { line, call, expected, answer } => {
            let machine = kernel.machine;
            for slot in [slot::ALIAS, NOWHERE] {
                let _not_mapped = guest().set_window(slot, None);
            }
            free_populated(machine, &kernel.run, |index| {
                machine.p2m.mfn(kernel.run.first().add(index as u64)).map(Mfn::number)
            });
            fail!("line {line}: `{call}`: expected `{expected}`, Xen answered `{answer}`")
        }
    }
}

// SAFETY: the run comes from the frame allocator, whose frames have only the linear mapping. Both
// window slots are reserved for tests, of which one runs at a time. The lists lie in frames of the
// run.
unsafe impl ScriptGuest for ScriptKernel<'_> {
    type Xen = Hypervisor;

    fn xen(&self) -> &Hypervisor {
        xen()
    }

    fn is_dom0(&self) -> bool {
        self.machine.initial_domain
    }

    fn is_translated(&self) -> bool {
        self.machine.m2p.is_none()
    }

    fn limit(&self) -> u32 {
        self.limit
    }

    fn run(&self) -> Pfn {
        self.run.first()
    }

    fn backing(&self, pfn: Pfn) -> u64 {
        self.machine.p2m.gfn(pfn).map_or(u64::MAX, |gfn| gfn.number())
    }

    fn record(&self, pfn: Pfn, mfn: u64) {
        if let Some(info) = &self.start_info {
            info.set_p2m(pfn, mfn);
        }
    }

    fn entry(&self, pfn: Pfn) -> u64 {
        self.machine.linear.entry(pfn).get()
    }

    fn pte(&self, pfn: Pfn) -> Pte {
        self.machine.linear.read(pfn).unwrap_or(Pte::NOT_PRESENT)
    }

    fn address(&self, page: ScriptPage) -> VirtAddr {
        match page {
            ScriptPage::Linear(pfn) => linear(pfn),
            ScriptPage::Alias => window(slot::ALIAS),
            ScriptPage::Probe => window(NOWHERE),
            // One table contains all slots of the window, so the next address has no entry.
            ScriptPage::Nowhere => window(0) + WINDOW_SLOTS * 4096,
        }
    }

    fn m2p(&self, mfn: u64) -> Option<u64> {
        m2p::get(self.machine, mfn)
    }

    fn find(&self, pfn: Pfn, fits: &mut dyn FnMut(u64) -> bool) -> Option<u64> {
        m2p::find_near(self.machine, |mfn, recorded| recorded == Some(pfn) && fits(mfn))
    }

    fn hole(&self) -> u64 {
        self.machine.p2m.frames().next_multiple_of(1024) + 0x1000
    }

    fn unowned(&self) -> Option<u64> {
        self.unowned
    }

    fn other_domain(&self) -> DomId {
        DomId(0)
    }

    fn list(&self, pfn: Pfn) -> *mut u64 {
        linear(pfn).as_mut_ptr()
    }
}
