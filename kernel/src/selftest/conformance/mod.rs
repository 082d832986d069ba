//! Every row of `docs/CONFORMANCE.md` that a real Xen can be brought to, by the raw hypercall.
//!
//! The component never makes most of these calls. They are made here because it relies on what Xen
//! answers to them, and on what Xen leaves alone. A test is named after its row: `c02-…`. What does
//! not apply to a kind of guest is skipped there with the reason.
//!
//! | file | rows |
//! |---|---|
//! | [`arguments`] | [C02](xen_contig::conformance#C02)–[C18](xen_contig::conformance#C18): the argument itself |
//! | [`frames`] | [C24](xen_contig::conformance#C24)–[C34](xen_contig::conformance#C34): frames that Xen does not take |
//! | [`descriptors`] | [C31](xen_contig::conformance#C31): frames with descriptors, run by [`frames`] |
//! | [`supply`] | [C40](xen_contig::conformance#C40)–[C48](xen_contig::conformance#C48), [C55](xen_contig::conformance#C55)–[C60](xen_contig::conformance#C60): what Xen has to give |
//! | [`lists`] | [C50](xen_contig::conformance#C50)–[C54](xen_contig::conformance#C54): too late for a way back |
//! | [`recovery`] | [C51](xen_contig::conformance#C51) of the component, which finds the new frames |
//! | [`chunks`] | [C70](xen_contig::conformance#C70)–[C73](xen_contig::conformance#C73): many chunks |
//! | [`saved`] | [C75](xen_contig::conformance#C75): the domain is saved and restored |
//! | [`reservation`] | [C76](xen_contig::conformance#C76), [C77](xen_contig::conformance#C77): without the exchange |
//! | [`same_script`] | the script of raw calls that the model has to answer in the same way |
//! | [`raw`] | the hypercall, and frames to try it with |
//! | [`m2p`], [`start_info`] | what Xen and the builder tell of frames |

mod arguments;
mod chunks;
mod descriptors;
mod frames;
mod lists;
mod m2p;
mod raw;
mod recovery;
mod reservation;
mod same_script;
mod saved;
mod start_info;
mod supply;

use alloc::vec::Vec;

use super::Test;
use crate::verdict::TestOutcome;

pub fn add(tests: &mut Vec<Test>) {
    arguments::add(tests);
    frames::add(tests);
    supply::add(tests);
    lists::add(tests);
    recovery::add(tests);
    chunks::add(tests);
    reservation::add(tests);
    saved::add(tests);
    same_script::add(tests);
}
