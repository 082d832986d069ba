//! Checks the memory that the user asks for: QEMU, Xen and `xl` name no limit.

use std::fs;

use crate::boot::LINUX_MIB;
use crate::choice::GuestMode;
use crate::domu::XEN_MIB;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The MiB below which Xen does not come up (`Not enough memory to relocate Xen`).
const XEN_LEAST_MIB: u32 = 32;

/// Checks the memory for the image in each mode that is chosen.
pub fn check_image(settings: &Settings, image: &[u8]) -> Result<()> {
    let of_another_kernel = settings.kernel.is_some() || settings.config.is_some();
    let Some(mib) = settings.memory.filter(|_| !of_another_kernel) else { return Ok(()) };
    let modes = settings.modes.as_deref().unwrap_or(&GuestMode::ALL);
    modes.iter().try_for_each(|mode| match mode.is_dom0() {
        true => check(mib, XEN_LEAST_MIB, "Xen and a dom0", host_mib()),
        false => check_domain(mib, image.len(), host_mib()),
    })
}

/// Checks the memory of a guest whose files have `size` bytes.
pub fn check_guest(mib: u32, size: usize) -> Result<()> {
    check_domain(mib, size, host_mib())
}

fn check_domain(mib: u32, size: usize, host: u32) -> Result<()> {
    let least = u32::try_from(size.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    let files = "the files that xl loads";
    check(mib, least, files, host.saturating_sub(LINUX_MIB + XEN_MIB))
}

fn check(mib: u32, least: u32, what: &'static str, most: u32) -> Result<()> {
    if mib > most {
        return Err(Error::TooMuchMemory { mib, most });
    }
    if mib < least {
        return Err(Error::TooLittleMemory { mib, least, what });
    }
    Ok(())
}

/// Returns the MiB of this host, or a number above all if Linux does not say.
fn host_mib() -> u32 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_mib(&text).unwrap_or(u32::MAX)
}

/// Reads the line `MemTotal:  24684236 kB`.
fn total_mib(meminfo: &str) -> Option<u32> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    u32::try_from(kib >> 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;

    #[test]
    fn the_limits_are_named() {
        let said = |result: Result<()>| result.unwrap_err().to_string();
        let large = said(check_domain(9000, 5, 8192));
        assert!(large.contains("`9000`") && large.contains("7168 MiB"), "{large}");
        let small = said(check_domain(1, (1 << 20) + 1, 8192));
        assert!(small.contains("`1`") && small.contains("at least 2 MiB"), "{small}");
        assert!(check_domain(2, 1 << 21, 8192).is_ok());
        assert_eq!(total_mib("MemFree: 5 kB\nMemTotal:       24684236 kB\n"), Some(24105));
        assert_ne!(host_mib(), u32::MAX);
    }

    #[test]
    fn each_chosen_mode_counts() {
        let check = |line: &str| {
            let words = std::iter::once("bed").chain(line.split_whitespace());
            let (_, matches) = commands::parse(words).unwrap().unwrap();
            check_image(&Settings::of(&matches), &[0; 5])
        };
        assert!(check("run").is_ok());
        assert!(check("run --memory 5 --mode pvh-domu").is_ok());
        assert!(check("run --memory 5 --mode pv-dom0").is_err());
        assert!(check("run --memory 5").is_err(), "all modes");
        assert!(check("gdb --memory 5 --kernel k").is_ok(), "not the image");
        assert!(check("run --memory 1048576 --mode pv-domu").is_err());
    }
}
