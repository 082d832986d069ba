//! The guest's P2M, for a witness outside the guest that can read Xen's M2P.
//!
//! The listing runs only if it is named: `selftest=p2m-before,soak,p2m-after`. Each word of a line
//! is `<pfn>+<frames>=<mfn>`, in hexadecimal. It means that consecutive machine frames from `mfn`
//! on back the guest frames from `pfn` on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_contig::addr::{Mfn, Pfn};

use super::{Check, Test, TestContext, skip};
use crate::command_line::When;
use crate::say;

/// The approximate number of characters in a line. A console breaks lines at 192.
const LINE: usize = 130;

/// Adds a test of this name that lists the P2M.
pub fn add(tests: &mut Vec<Test>, name: &'static str) {
    tests.push(Test::new(name, move |context| listing(context, name)).when(When::Asked));
}

fn listing(context: &TestContext<'_>, name: &str) -> Check {
    let p2m = context.machine.p2m;
    if p2m.is_translated() {
        skip!("Xen does not reveal machine frames to translated guests");
    }
    let mut line = String::new();
    let mut stretch: Option<(Pfn, u64, Mfn)> = None;
    let mut listed = 0;
    for pfn in (0..p2m.frames()).map(Pfn::new) {
        let mfn = p2m.mfn(pfn);
        listed += u64::from(mfn.is_some());
        match (&mut stretch, mfn) {
            (Some((_, frames, first)), Some(mfn)) if first.add(*frames) == mfn => *frames += 1,
            (old, mfn) => {
                let old = core::mem::replace(old, mfn.map(|mfn| (pfn, 1, mfn)));
                put(name, &mut line, old);
            }
        }
    }
    put(name, &mut line, stretch);
    say!("# {name}:{line}");
    say!("# {name}: {listed} frames in all");
    Ok(())
}

fn put(name: &str, line: &mut String, stretch: Option<(Pfn, u64, Mfn)>) {
    let Some((pfn, frames, mfn)) = stretch else { return };
    *line += &format!(" {:x}+{frames:x}={:x}", pfn.number(), mfn.number());
    if line.len() > LINE {
        say!("# {name}:{line}");
        line.clear();
    }
}
