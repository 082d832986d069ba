//! What the caller chooses for a guest: the mode and the kernel command line.

use std::fmt;

use crate::error::Error;

/// How the image meets Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMode {
    /// The control domain, paravirtualised.
    PvDom0,
    /// A domain that `xl create` makes, paravirtualised.
    PvDomu,
    /// The control domain, in a hardware container.
    PvhDom0,
    /// A domain that `xl create` makes, in a hardware container.
    PvhDomu,
}

impl GuestMode {
    /// All modes, in the order in which they are run and reported.
    pub const ALL: [Self; 4] = [Self::PvDom0, Self::PvDomu, Self::PvhDom0, Self::PvhDomu];

    /// The mode as the user writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PvDom0 => "pv-dom0",
            Self::PvDomu => "pv-domu",
            Self::PvhDom0 => "pvh-dom0",
            Self::PvhDomu => "pvh-domu",
        }
    }

    /// Returns true for a translated guest.
    pub fn is_pvh(self) -> bool {
        matches!(self, Self::PvhDom0 | Self::PvhDomu)
    }

    /// Returns true if the image is dom0 itself, without Linux and `xl`.
    pub fn is_dom0(self) -> bool {
        matches!(self, Self::PvDom0 | Self::PvhDom0)
    }

    /// The `xl` configuration that a domU of this mode is made from, seen from the
    /// repository's root.
    pub fn xl_config(self) -> &'static str {
        match self {
            Self::PvDom0 | Self::PvDomu => "xen-configs/pv.cfg",
            Self::PvhDom0 | Self::PvhDomu => "xen-configs/pvh.cfg",
        }
    }

    /// Reads the type of a domU.
    pub fn of_type(text: &str) -> Result<Self, Error> {
        match text {
            "pv" => Ok(Self::PvDomu),
            "pvh" => Ok(Self::PvhDomu),
            _ => Err(Error::BadType { given: text.to_owned() }),
        }
    }

    /// Reads `all` or one mode.
    pub fn parse_choice(text: &str) -> Result<Vec<Self>, Error> {
        if text == "all" {
            return Ok(Self::ALL.to_vec());
        }
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .map(|mode| vec![mode])
            .ok_or_else(|| Error::UnknownMode { given: text.to_owned() })
    }
}

impl fmt::Display for GuestMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kernel command line, free of what QEMU's and `xl`'s quoting could change on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelArgs(String);

impl KernelArgs {
    /// Takes `text` if it can reach the guest unchanged.
    pub fn new(text: &str) -> Result<Self, Error> {
        match unfit(text) {
            Some(bad) => Err(Error::BadKernelArgs { given: text.to_owned(), bad }),
            None => Ok(Self(text.trim().to_owned())),
        }
    }

    /// The command line itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the guest allocates one buffer, prints where it is, and holds.
    pub fn holds_after_a_probe(&self) -> bool {
        let mut words = self.0.split_whitespace();
        let ends = words.clone().any(|word| word.starts_with("exit=") && word != "exit=hold");
        words.any(|word| word.starts_with("probe=")) && !ends
    }

    /// Returns true if the guest prints a hypercall trace.
    pub fn traces(&self) -> bool {
        let last = self.0.split_whitespace().rev().find_map(|word| word.strip_prefix("trace="));
        last.is_some_and(|level| level != "off")
    }

    /// How a guest started with this command line ends if all is well.
    pub fn expected_exit(&self) -> GuestExit {
        let last = self.0.split_whitespace().rev().find_map(|word| word.strip_prefix("exit="));
        match last {
            Some("reboot") => GuestExit::Reboot,
            Some("crash") => GuestExit::Crash,
            Some("hold") => GuestExit::Hold,
            _ => GuestExit::PowerOff,
        }
    }
}

/// Returns the options for Xen's command line if they can reach it unchanged.
pub fn xen_args(text: &str) -> Result<String, Error> {
    match unfit(text) {
        Some(bad) => Err(Error::BadXenArgs { given: text.to_owned(), bad }),
        None => Ok(text.trim().to_owned()),
    }
}

/// Returns the first character that quoting would change on the way.
fn unfit(text: &str) -> Option<char> {
    text.chars().find(|c| matches!(c, '"' | '\'' | '\\') || c.is_control())
}

/// The guest's `exit=` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestExit {
    /// Powers off, the default.
    PowerOff,
    /// Asks for a reboot.
    Reboot,
    /// Crashes its own domain.
    Crash,
    /// Keeps running.
    Hold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_mode_is_named() {
        let mode = GuestMode::parse_choice("pv-domx").unwrap_err().to_string();
        assert!(mode.contains("pv-domx") && mode.contains("pvh-dom0"), "{mode}");
    }

    #[test]
    fn all_means_every_mode() {
        assert_eq!(GuestMode::parse_choice("all").unwrap(), GuestMode::ALL);
    }

    #[test]
    fn a_command_line_that_quoting_would_change_is_refused() {
        assert!(KernelArgs::new("selftest=a,b* seed=1").is_ok());
        assert!(KernelArgs::new("a\"b").is_err());
        assert!(KernelArgs::new("a\nb").is_err());
    }

    #[test]
    fn the_last_exit_option_counts() {
        let exit = |text| KernelArgs::new(text).unwrap().expected_exit();
        assert_eq!(exit(""), GuestExit::PowerOff);
        assert_eq!(exit("exit=reboot exit=crash"), GuestExit::Crash);
        assert_eq!(exit("probe=9:32 exit=hold"), GuestExit::Hold);
        let holds = |text| KernelArgs::new(text).unwrap().holds_after_a_probe();
        assert!(holds("probe=9:32") && holds("probe=9:32 exit=hold"));
        assert!(!holds("probe=9:32 exit=poweroff") && !holds("exit=hold"));
    }

    #[test]
    fn a_trace_is_asked_for_by_any_level_but_off() {
        let traces = |text| KernelArgs::new(text).unwrap().traces();
        assert!(traces("trace=summary seed=1") && traces("trace=full:memory_op"));
        assert!(!traces("") && !traces("trace=off") && !traces("selftest=trace=full"));
    }
}
