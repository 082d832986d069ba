//! `probe=<order>:<address bits>`: a buffer for somebody who can look at the machine from below.

use xen_contig::addr::{PAGE_SIZE, Pfn};

use super::command_line::Probe;
use super::exit::hold;
use super::machine::{Machine, word};
use super::say;
use super::verdict::{Verdict, none_run};

/// The last word of a frame that has the complement, at byte 4088.
const LAST: usize = PAGE_SIZE / 8 - 1;

/// Allocates the buffer, fills it, tells where it is, and holds. Comes back where it can't.
pub fn run(machine: &Machine, probe: Probe, seed: u64) -> Verdict {
    let Probe { order, bits } = probe;
    let Some(exchanger) = machine.exchanger() else {
        say!("# probe: {}", machine.capability);
        return none_run(Verdict::Skip);
    };
    let frames = order.frames();
    let (run, lists) = (machine.take(frames), machine.lists(frames));
    let (Some(run), Some(mut lists)) = (run, lists) else {
        say!("# probe: the guest has no {frames} free frames in a row");
        return none_run(Verdict::Error);
    };
    let extent = match exchanger.acquire(run, bits, lists.words()) {
        Ok(extent) => extent,
        Err(failure) => {
            say!("# probe: {failure}");
            return none_run(Verdict::Error);
        }
    };
    for (index, pfn) in extent.run().iter().enumerate() {
        write(pfn, seed.wrapping_add(index as u64));
    }
    say!(
        "probe: order={order} bits={bits} seed={seed} pages={frames} maddr={} pfn={}",
        extent.machine_addr(),
        extent.run().first()
    );
    hold()
}

fn write(pfn: Pfn, value: u64) {
    // SAFETY: the frame belongs to the extent, which is ours and mapped.
    unsafe {
        word(pfn, 0).write_volatile(value);
        word(pfn, LAST).write_volatile(!value);
    }
}
