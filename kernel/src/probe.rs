//! The option `probe=<order>:<address bits>`: a buffer for a witness that reads machine memory.

use xen_contig::addr::{PAGE_SIZE, Pfn};

use crate::command_line::ProbeBuffer;
use crate::console::say;
use crate::exit::{Exit, hold};
use crate::machine::{Machine, word};
use crate::verdict::{Verdict, none_run};

/// The index of the word that holds the complement, at byte 4088.
const LAST: usize = PAGE_SIZE / 8 - 1;

/// Allocates the buffer, fills it, prints where it is and holds.
///
/// Returns if `exit` asks for another end, or if it could not allocate. The buffer is never freed.
pub fn run(machine: &Machine, probe: ProbeBuffer, seed: u64, exit: Option<Exit>) -> Verdict {
    let ProbeBuffer { order, bits } = probe;
    let Some(exchanger) = machine.exchanger() else {
        say!(
            "# probe: needs the exchange; contiguous memory of this domain: {}",
            machine.capability
        );
        return none_run(Verdict::Skip);
    };
    let frames = order.frames();
    let (run, lists) = (machine.take(frames), machine.lists(frames));
    let (Some(run), Some(mut lists)) = (run, lists) else {
        say!("# probe: no run of {frames} free frames; choose a smaller order in probe=");
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
    match exit {
        None | Some(Exit::Hold) => hold(),
        Some(_) => none_run(Verdict::Success),
    }
}

fn write(pfn: Pfn, value: u64) {
    // SAFETY: the frame belongs to the extent, which `run` keeps. The linear mapping maps it.
    unsafe {
        word(pfn, 0).write_volatile(value);
        word(pfn, LAST).write_volatile(!value);
    }
}
