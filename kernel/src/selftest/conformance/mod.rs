//! The rows of `docs/CONFORMANCE.md` that a test can reach on a real Xen, by the raw hypercall.
//!
//! The library never makes most of these calls. The tests make them because the library relies on
//! Xen's answers, and on what Xen leaves unchanged. A test is named after its row: `c02-…`. A row
//! that does not apply to a kind of guest is skipped with the reason.
//!
//! | file | rows |
//! |---|---|
//! | [`arguments`] | [C02](xen_contig::conformance#C02)–[C18](xen_contig::conformance#C18): the argument itself |
//! | [`frames`] | [C24](xen_contig::conformance#C24)–[C34](xen_contig::conformance#C34): frames that Xen refuses |
//! | [`xens_frames`] | [C29](xen_contig::conformance#C29): frames of Xen's |
//! | [`descriptors`] | [C31](xen_contig::conformance#C31): frames with descriptors, run by [`frames`] |
//! | [`supply`] | [C40](xen_contig::conformance#C40)–[C48](xen_contig::conformance#C48), [C55](xen_contig::conformance#C55)–[C60](xen_contig::conformance#C60): the memory that Xen has |
//! | [`lists`] | [C50](xen_contig::conformance#C50)–[C54](xen_contig::conformance#C54): errors after the commit point |
//! | [`recovery`] | [C51](xen_contig::conformance#C51) in the library, which finds the new frames |
//! | [`chunks`] | [C70](xen_contig::conformance#C70)–[C73](xen_contig::conformance#C73): many chunks |
//! | [`saved`] | [C75](xen_contig::conformance#C75): the domain is saved and restored |
//! | [`reservation`] | [C76](xen_contig::conformance#C76), [C77](xen_contig::conformance#C77): without the exchange |
//! | [`same_script`] | the script of raw calls that the model must answer in the same way |
//! | [`returned`] | frames that a test returns to Xen for a while |
//! | [`raw`] | the hypercall, and frames to exchange |
//! | [`m2p`], [`start_info`] | what Xen and the domain builder report about frames |

mod arguments;
mod chunks;
mod descriptors;
mod frames;
mod lists;
mod m2p;
mod raw;
mod recovery;
mod reservation;
pub(super) mod returned;
mod same_script;
mod saved;
mod start_info;
mod supply;
mod xens_frames;

use alloc::vec::Vec;

use super::Test;
use crate::verdict::TestOutcome;

pub fn add(tests: &mut Vec<Test>) {
    arguments::add(tests);
    frames::add(tests);
    xens_frames::add(tests);
    supply::add(tests);
    lists::add(tests);
    recovery::add(tests);
    chunks::add(tests);
    reservation::add(tests);
    saved::add(tests);
    same_script::add(tests);
}
