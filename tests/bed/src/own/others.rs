//! Kernels of other projects as guests of the suite: Debian's GRUB for Xen and Debian's Linux.

use std::time::Duration;

use super::{OwnKernel, guest};
use crate::choice::{GuestMode, KernelArgs};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::guest::{Guest, GuestVerdict};
use crate::setup::OtherKernels;

/// A guest takes seconds, GRUB included, which waits for a key.
const LIMIT: Duration = Duration::from_secs(90);

/// The prompt of a GRUB that found no configuration.
const PROMPT: &str = "regex:grub>";

/// Returns the guests: each kernel as PV and as PVH domU.
pub fn guests(kernels: &OtherKernels) -> Result<Vec<Expectation>> {
    let mut all = Vec::new();
    for (mode, grub) in
        [(GuestMode::PvDomu, &kernels.grub_pv), (GuestMode::PvhDomu, &kernels.grub_pvh)]
    {
        let kernel = OwnKernel::with_ramdisk(mode, grub.clone(), None);
        let grub = guest(&kernel, &format!("{mode}-grub"), &KernelArgs::default(), LIMIT);
        all.push(Expectation::of(Guest { expect: PROMPT.parse()?, ..grub }));
        let ramdisk = Some(kernels.ramdisk.clone());
        let kernel = OwnKernel::with_ramdisk(mode, kernels.linux.clone(), ramdisk);
        let linux = |label: &str, args: &str| -> Result<Guest> {
            let args = KernelArgs::new(&format!("console=hvc0 quiet {args}"))?;
            Ok(guest(&kernel, &format!("{mode}-linux{label}"), &args, LIMIT))
        };
        all.push(Expectation::of(Guest { expect: "ktap".parse()?, ..linux("", "")? }));
        let panics = Guest { expect: "xtf".parse()?, ..linux("-panic", "rdinit=/none panic=1")? };
        let crash = GuestVerdict::Crash;
        all.push(Expectation { verdict: crash, words: "Kernel panic", ..Expectation::of(panics) });
    }
    Ok(all)
}
