//! The self-tests at boot. Each file asks one question, in its first line.
//!
//! To add a self-test, write `NAME.rs` with a function `add`, like that of `neighbours.rs`. Then add
//! to this file the line `mod NAME;`, and the line `NAME::add(&mut tests);` in [`tests`].
//!
//! | helper | what it does |
//! |---|---|
//! | `test` | the types [`Test`] and [`TestContext`], and the macros `fail!`, `error!` and `skip!` |
//! | `run` | runs the tests that the command line selects |
//! | `owned` | a run of frames that is freed on drop |
//! | `sent_events` | counts the events that the vCPUs send each other |
//! | `reservation` | skips a test if Xen would not populate the frames that it returns |
//! | `frame_checks` | patterns in frames, and checks that Xen and the guest agree on frames |

mod accounts;
mod address_bits;
mod backed;
mod bench;
mod c_interface;
mod conformance;
mod dma;
mod drivers;
mod edu;
mod fragment;
mod frame_checks;
mod grants;
mod misbehave;
mod neighbours;
mod net;
mod nvme;
mod order_limit;
mod orders;
mod owned;
mod pci;
mod reservation;
mod rights;
mod run;
mod sent_events;
mod soak;
mod stale_alias;
mod storm;
mod test;
mod translated;
mod vcpus;
mod virtio;
mod vmap;

use alloc::vec::Vec;

use crate::command_line::Options;
use crate::machine::Machine;
use crate::verdict::{FinishedTest, TestOutcome, Verdict};
use test::{Check, Test, TestContext, error, fail, skip};

/// Runs the self-tests that the command line selects. The results in `finished` come first in the
/// report.
pub fn run(machine: &Machine, options: &Options, finished: Vec<FinishedTest>) -> Verdict {
    run::run(machine, options, finished, tests(machine))
}

/// Returns all self-tests, in the order in which they run.
fn tests(machine: &Machine) -> Vec<Test> {
    let mut tests = Vec::new();
    rights::add(&mut tests);
    backed::add(&mut tests);
    vcpus::add(&mut tests);
    order_limit::add(&mut tests);
    orders::add(machine, &mut tests);
    translated::add(machine, &mut tests);
    address_bits::add(&mut tests);
    neighbours::add(&mut tests);
    stale_alias::add(&mut tests);
    vmap::add(&mut tests);
    conformance::add(&mut tests);
    dma::add(&mut tests);
    grants::add(&mut tests);
    pci::add(&mut tests);
    edu::add(&mut tests);
    c_interface::add(&mut tests);
    virtio::add(&mut tests);
    nvme::add(&mut tests);
    net::add(&mut tests);
    soak::add(&mut tests);
    storm::add(&mut tests);
    bench::add(&mut tests);
    fragment::add(&mut tests);
    misbehave::add(&mut tests);
    // The last test checks that the others have freed all their frames.
    accounts::add(&mut tests);
    tests
}
