//! `bed guest`: boots a kernel of the user's own under `xl create`, and classifies its end.

mod config;
mod format;
mod kernel;
pub mod others;

use std::sync::Arc;
use std::time::Duration;

use crate::choice::KernelArgs;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::{Goal, Guest, GuestVerdict};
use crate::memory;
use crate::modes;
use crate::parallel;
use crate::report::Reporter;
use crate::settings::Settings;
use crate::setup::NO_TOOLS;

pub use kernel::{OwnKernel, Source};

/// Checks the kernel that the command line must name.
pub fn check(settings: &Settings) -> Result<()> {
    chosen(settings)?.ok_or(Error::NoKernel).map(drop)
}

/// Boots the kernel that the command line names.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let guest = chosen(&context.settings)?.ok_or(Error::NoKernel)?;
    say_notices(&guest, &reporter);
    let bed = context.bed(&mut reporter)?;
    if bed.linux.is_none() {
        return Err(Error::NoTools { mode: guest.mode, why: NO_TOOLS.to_owned() });
    }
    parallel::run(vec![modes::part(&bed, guest)], &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the guest whose kernel or configuration the command line names, if it names one.
pub fn chosen(settings: &Settings) -> Result<Option<Guest>> {
    if settings.kernel.is_none() && settings.config.is_none() {
        return Ok(None);
    }
    let source = Source {
        kernel: settings.kernel.clone(),
        config: settings.config.clone(),
        kind: settings.kind,
    };
    let kernel = OwnKernel::read(&source)?;
    let memory = settings.memory.or(kernel.memory());
    memory.map_or(Ok(()), |mib| memory::check_guest(mib, kernel.size()))?;
    Ok(Some(Guest {
        // What the machine must offer depends on both, also if only the configuration says them.
        memory,
        vcpus: settings.vcpus.or(kernel.vcpus()),
        expect: settings.expect.clone(),
        streams: true,
        ..guest(&kernel, "guest", &settings.args, settings.timeout)
    }))
}

/// Prints what the user should know before the boot of a guest.
pub fn say_notices(guest: &Guest, reporter: &Reporter) {
    let notices = guest.kernel.iter().flat_map(|kernel| kernel.notices());
    notices.for_each(|notice| reporter.line(&format!("bed: {notice}")));
}

/// Returns a guest with a kernel of its own.
pub fn guest(kernel: &Arc<OwnKernel>, name: &str, args: &KernelArgs, limit: Duration) -> Guest {
    let guest = Guest::new(kernel.mode, name, args.clone(), limit);
    Guest { kernel: Some(Arc::clone(kernel)), goal: Goal::End, ..guest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;

    #[test]
    fn the_configuration_says_how_large_the_machine_must_be() {
        let dir = std::env::temp_dir().join(format!("bed-own-size-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join("guest.cfg").display().to_string();
        std::fs::write(&config, "kernel='guest'; memory='512'; vcpus=8").unwrap();
        let [_, _, kernel] = format::tests::kernels();
        std::fs::write(dir.join("guest"), kernel).unwrap();
        let sizes = |more: &[&str]| {
            let words = ["bed", "guest", "--cfg", &config].into_iter().chain(more.iter().copied());
            let (_, matches) = commands::parse(words).unwrap().unwrap();
            let settings = Settings::of(&matches);
            let guest = chosen(&settings).unwrap().unwrap();
            (guest.memory, guest.vcpus)
        };
        assert_eq!(sizes(&[]), (Some(512), Some(8)));
        assert_eq!(sizes(&["--memory", "64", "--vcpus", "1"]), (Some(64), Some(1)));
        std::fs::write(&config, "kernel='guest'; memory=1048576").unwrap();
        let words = ["bed", "guest", "--cfg", &config];
        let (_, matches) = commands::parse(words).unwrap().unwrap();
        let said = check(&Settings::of(&matches)).unwrap_err().to_string();
        assert!(said.contains("`1048576`"), "{said}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
