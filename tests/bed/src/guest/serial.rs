//! Takes the machine's console apart into what Xen printed and what dom0 printed.
//!
//! Dom0's bytes come raw. Xen begins each of its own lines with `(XEN) `, and may do so in
//! the middle of one of dom0's; the rest of dom0's line then follows after Xen's.

use super::LogLines;

/// How Xen says that the machine's life is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEnd {
    /// Dom0 powered off: Xen halts.
    Halted,
    /// Dom0 asked for a reboot.
    Rebooting,
    /// Dom0 crashed.
    Dom0Crashed,
    /// Dom0 shut down for another reason, in Xen's words.
    Other(String),
    /// Xen panicked, in its own words.
    Panic(String),
}

/// Both sides of a serial line.
#[derive(Clone, Debug, Default)]
pub struct SerialLog {
    /// Dom0's lines.
    pub guest: Vec<String>,
    /// Xen's lines, prefix included.
    pub xen: Vec<String>,
    /// All lines as they came: Xen's log, as `xl dmesg` shows it.
    pub whole: Vec<String>,
}

const PREFIX: &str = "(XEN) ";

impl SerialLog {
    /// Splits everything that came over the line. A last line without its end is kept too. Equal
    /// lines fold.
    pub fn split(text: &str) -> Self {
        let (mut guest, mut xen) = (LogLines::default(), LogLines::default());
        let mut whole = LogLines::default();
        let mut pending = String::new();
        for line in text.split_inclusive('\n') {
            let has_ended = line.ends_with('\n');
            let line = line.trim_end_matches(['\n', '\r']);
            whole.push(line);
            if let Some(at) = line.find(PREFIX).filter(|_| !is_of_domain(line)) {
                pending.push_str(&line[..at]);
                xen.push(&line[at..]);
            } else {
                pending.push_str(line);
                if has_ended {
                    guest.push(&std::mem::take(&mut pending));
                }
            }
        }
        if !pending.is_empty() {
            guest.push(&pending);
        }
        Self { guest: guest.into_lines(), xen: xen.into_lines(), whole: whole.into_lines() }
    }

    /// The first line by which Xen says that it is over, if there is one. The strings are
    /// those of `hwdom_shutdown` and `panic` in Xen 4.17 and 4.20.
    pub fn machine_end(&self) -> Option<MachineEnd> {
        let lines = self.xen.iter().filter_map(|line| line.strip_prefix(PREFIX));
        let mut lines = lines.map(without_timestamp);
        while let Some(line) = lines.next() {
            if line.starts_with("Panic on CPU") {
                let why = lines.find(|line| !line.is_empty() && !line.starts_with('*'));
                return Some(MachineEnd::Panic(format!("{line} {}", why.unwrap_or_default())));
            }
            if line.starts_with("Hardware domain ") && line.contains("soft reset") {
                return Some(MachineEnd::Other(line.to_owned()));
            }
            let Some(rest) = line.strip_prefix("Hardware Dom0 ") else { continue };
            if rest.starts_with("halted") {
                return Some(MachineEnd::Halted);
            } else if rest.starts_with("crashed") {
                return Some(MachineEnd::Dom0Crashed);
            } else if rest == "shutdown: rebooting machine" {
                return Some(MachineEnd::Rebooting);
            } else if rest.starts_with("shutdown") {
                return Some(MachineEnd::Other(line.to_owned()));
            }
        }
        None
    }
}

/// Returns a line of Xen's without the time that `console_timestamps=` adds: `[    1.234567] text`.
fn without_timestamp(line: &str) -> &str {
    let stamped = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match stamped {
        Some((time, text)) if time.starts_with([' ', '2']) || time.parse::<f64>().is_ok() => text,
        _ => line,
    }
}

/// Whether Xen put this line in for a domU, `(d3) …`: what follows is that domain's own words.
fn is_of_domain(line: &str) -> bool {
    let number = line.strip_prefix("(d").and_then(|rest| rest.split_once(')'));
    number.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Option<MachineEnd> {
        SerialLog::split(text).machine_end()
    }

    #[test]
    fn timestamps_hide_no_end() {
        let halted = "Hardware Dom0 halted: halting machine\n";
        for time in ["[    3.456789] ", "[2026-11-26 09:00:00] ", ""] {
            assert_eq!(end(&format!("(XEN) {time}{halted}")), Some(MachineEnd::Halted), "{time}");
        }
        assert_eq!(end(&format!("(XEN) [of d0] {halted}")), None);
    }

    #[test]
    fn lines_go_to_the_side_that_printed_them() {
        let log = SerialLog::split("(XEN) Xen version\r\nKTAP version 1\r\nok 1 a\n(XEN) bye\n");
        assert_eq!(log.guest, ["KTAP version 1", "ok 1 a"]);
        assert_eq!(log.xen, ["(XEN) Xen version", "(XEN) bye"]);
    }

    #[test]
    fn a_line_that_xen_cuts_in_two_is_joined() {
        let log = SerialLog::split("not ok 3 ali(XEN) mm.c: bad\nas # left\nTest result: FAIL");
        assert_eq!(log.guest, ["not ok 3 alias # left", "Test result: FAIL"]);
        assert_eq!(log.xen, ["(XEN) mm.c: bad"]);
        assert_eq!(log.whole[..2], ["not ok 3 ali(XEN) mm.c: bad", "as # left"]);
    }

    #[test]
    fn equal_lines_of_each_side_fold() {
        let flood = "# same\n(XEN) same\n".repeat(4);
        let log =
            SerialLog::split(&format!("{flood}(XEN) Hardware Dom0 halted: halting machine\n"));
        assert_eq!(log.guest, ["# same", "… the line above came 3 more times"]);
        assert_eq!(log.xen[..2], ["(XEN) same", "… the line above came 3 more times"]);
        assert_eq!(log.machine_end(), Some(MachineEnd::Halted));
    }

    #[test]
    fn every_end_is_recognised() {
        assert_eq!(end("(XEN) Hardware Dom0 halted: halting machine\n"), Some(MachineEnd::Halted));
        assert_eq!(
            end("(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting.\n"),
            Some(MachineEnd::Dom0Crashed)
        );
        assert_eq!(
            end("(XEN) Hardware Dom0 shutdown: rebooting machine\n"),
            Some(MachineEnd::Rebooting)
        );
        for odd in [
            "Hardware Dom0 shutdown: watchdog rebooting machine",
            "Hardware Dom0 shutdown (unknown reason 9): 'noreboot' set - not rebooting.",
            "Hardware domain 0 did unsupported soft reset, rebooting.",
        ] {
            assert_eq!(end(&format!("(XEN) {odd}\n")), Some(MachineEnd::Other(odd.to_owned())));
        }
    }

    #[test]
    fn a_panic_of_xen_is_quoted() {
        let text = "(XEN) \n(XEN) ****************************************\n\
                    (XEN) Panic on CPU 0:\n(XEN) Could not construct domain 0\n\
                    (XEN) ****************************************\n";
        assert_eq!(
            end(text),
            Some(MachineEnd::Panic("Panic on CPU 0: Could not construct domain 0".to_owned()))
        );
    }

    #[test]
    fn a_guest_that_says_it_without_the_prefix_ends_nothing() {
        assert_eq!(end("Hardware Dom0 halted: halting machine\n"), None);
        assert_eq!(end("(d7) (XEN) Hardware Dom0 halted: halting machine\n"), None);
        assert_eq!(end("(XEN) (d7) (XEN) Panic on CPU 0:\n"), None);
        assert_eq!(end("(XEN) Dom0 has maximum 2 VCPUs\n"), None);
    }
}
