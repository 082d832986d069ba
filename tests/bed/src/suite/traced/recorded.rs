//! Reads what `xentrace` recorded: the PV hypercalls of a domU, in their order.
//!
//! The format is that of Xen's `public/trace.h`; `xentrace` writes each CPU's records in windows, each
//! with a record of its own before it. The domain that a record belongs to is the one that the CPU
//! was last switched to.

use std::fmt;
use std::io::Read;

use flate2::read::GzDecoder;

use crate::domu::JobReport;

/// A hypercall that Xen recorded when it began or, after a preemption, went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    /// The number of the hypercall.
    pub number: u32,
    /// Whether it is an entry of a multicall.
    pub is_entry: bool,
    /// The arguments that Xen records of this hypercall. It records no others.
    pub args: [Option<u32>; ARGS],
}

/// The number of arguments of a hypercall in a record.
const ARGS: usize = 6;

const LOST_RECORDS: u32 = 0x1f001;
const CPU_CHANGE: u32 = 0x1f003;
const RUNSTATE_CHANGE: u32 = 0x21001;
/// A change of the runstate has the old and the new one in these digits.
const RUNSTATES: u32 = 0x330;
const CONTINUE_RUNNING: u32 = 0x21002;
const PV_HYPERCALL: u32 = 0x20100d;
const PV_HYPERCALL_ENTRY: u32 = 0x20200e;

/// The first number that is not a domain's: Xen's idle domain is above it.
const FIRST_RESERVED: u32 = 0x7ff0;

/// A record: which event, and its words.
struct Record<'a> {
    event: u32,
    words: &'a [u32],
}

impl<'a> Record<'a> {
    /// Takes the first record off `rest`.
    fn take(rest: &mut &'a [u32]) -> Option<Self> {
        const CYCLES: u32 = 1 << 31;
        let (&header, after) = rest.split_first()?;
        let after = after.get(if header & CYCLES == 0 { 0 } else { 2 }..)?;
        let (words, after) = after.split_at_checked((header >> 28 & 7) as usize)?;
        *rest = after;
        Some(Self { event: header & 0x0fff_ffff, words })
    }

    /// Returns the domain that runs from now on.
    fn runs(&self) -> Option<u32> {
        let runs = match self.event & !RUNSTATES {
            // The new runstate 0 is `RUNSTATE_running`.
            RUNSTATE_CHANGE => self.event & 0x30 == 0,
            _ => self.event == CONTINUE_RUNNING,
        };
        Some(self.words.first()? >> 16).filter(|_| runs)
    }

    /// Returns the hypercall.
    fn call(&self) -> Option<RecordedCall> {
        let is_entry = match self.event {
            PV_HYPERCALL => false,
            PV_HYPERCALL_ENTRY => true,
            _ => return None,
        };
        let (&head, mut values) = self.words.split_first()?;
        let mut args = [None; ARGS];
        for (index, arg) in args.iter_mut().enumerate() {
            // Two bits for each argument say how many words it has.
            let words = head >> (20 + 2 * index) & 3;
            if words > 0 {
                *arg = values.first().copied();
                values = values.get(words as usize..).unwrap_or_default();
            }
        }
        Some(RecordedCall { number: head & 0xf_ffff, is_entry, args })
    }
}

/// Returns the hypercalls that dom0 recorded of a guest.
///
/// # Errors
/// `xentrace` failed, or its recording is not whole.
pub fn of(report: &JobReport) -> Result<Vec<RecordedCall>, String> {
    let said = report.section("xentrace");
    if said.last().is_none_or(|line| line != "status 0") {
        return Err(format!("xentrace failed: {}", said.join("; ")));
    }
    let packed = bytes(report.section("record")).ok_or("dom0 sent a damaged recording")?;
    let mut recording = Vec::new();
    GzDecoder::new(&packed[..])
        .read_to_end(&mut recording)
        .map_err(|error| format!("dom0 sent a damaged recording: {error}"))?;
    calls(&recording)
}

/// Reads lines of `xxd`: `00000010: 1f8b 0800 …`.
fn bytes(lines: &[String]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        let (_, digits) = line.split_once(": ")?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            bytes.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
        }
    }
    Some(bytes)
}

/// Returns the hypercalls of the only domU in a recording of one CPU.
///
/// # Errors
/// The recording has gaps, more than one domU, or is cut.
pub fn calls(bytes: &[u8]) -> Result<Vec<RecordedCall>, String> {
    let words: Vec<u32> = bytes.chunks_exact(4).map(word).collect();
    let mut rest = &words[..];
    let (mut runs, mut guest) = (None, None);
    let mut cpu = None;
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let at = words.len() - rest.len();
        let record = Record::take(&mut rest)
            .ok_or_else(|| format!("the record of xentrace at byte {} is cut", 4 * at))?;
        match (record.event, record.words) {
            (CPU_CHANGE, [id, ..]) if cpu.is_none_or(|cpu| cpu == *id) => cpu = Some(*id),
            (CPU_CHANGE, _) => return Err("xentrace recorded more than one CPU".to_owned()),
            (LOST_RECORDS, [lost, ..]) => {
                return Err(format!("xentrace lost {lost} records, because its buffer was full"));
            }
            _ => {}
        }
        runs = record.runs().or(runs);
        let Some(call) = record.call() else { continue };
        let Some(domain) = runs.filter(|domain| (1..FIRST_RESERVED).contains(domain)) else {
            continue;
        };
        if *guest.get_or_insert(domain) != domain {
            return Err(format!("xentrace recorded two guests: {guest:?} and {domain}"));
        }
        calls.push(call);
    }
    Ok(calls)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

impl fmt::Display for RecordedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = if self.is_entry { "multicall entry " } else { "" };
        write!(f, "{within}{}", name(self.number))?;
        let mut args = self.args.iter().enumerate();
        args.try_for_each(|(index, arg)| match arg {
            Some(arg) => write!(f, " arg{index}={arg:#x}"),
            None => Ok(()),
        })
    }
}

/// The hypercalls that the kernel makes as a PV guest, by number (`public/xen.h`).
const NAMES: [(u32, &str); 15] = [
    (0, "set_trap_table"),
    (1, "mmu_update"),
    (4, "set_callbacks"),
    (12, "memory_op"),
    (13, "multicall"),
    (14, "update_va_mapping"),
    (17, "xen_version"),
    (18, "console_io"),
    (20, "grant_table_op"),
    (23, "iret"),
    (24, "vcpu_op"),
    (25, "set_segment_base"),
    (26, "mmuext_op"),
    (29, "sched_op"),
    (32, "event_channel_op"),
];

/// Returns the name of a hypercall, as a trace has it.
pub fn name(number: u32) -> String {
    let row = NAMES.iter().find(|(known, _)| *known == number);
    row.map_or_else(|| format!("hypercall {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a hypercall with `count` as its second argument, if it has one.
    pub fn call(name: &str, count: Option<u32>) -> RecordedCall {
        let number = NAMES.iter().find(|row| row.1 == name).unwrap().0;
        RecordedCall { number, is_entry: false, args: [None, count, None, None, None, None] }
    }

    fn record(event: u32, words: &[u32]) -> Vec<u32> {
        let header = 1 << 31 | (words.len() as u32) << 28 | event;
        [header, 7, 8].into_iter().chain(words.iter().copied()).collect()
    }

    /// CPU 1 runs a domain.
    fn switch(domain: u32) -> Vec<u32> {
        record(RUNSTATE_CHANGE | 0x100, &[domain << 16])
    }

    fn read(records: &[Vec<u32>]) -> Result<Vec<RecordedCall>, String> {
        let window = vec![2 << 28 | CPU_CHANGE, 1, 0];
        let words = window.into_iter().chain(records.concat());
        calls(&words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
    }

    #[test]
    fn the_calls_of_the_guest_are_read_and_no_others() {
        let count_of_3 = 1 << 22;
        let read = read(&[
            record(PV_HYPERCALL, &[12]),
            switch(0),
            record(PV_HYPERCALL, &[12]),
            switch(5),
            record(PV_HYPERCALL, &[13 | count_of_3, 3]),
            record(PV_HYPERCALL_ENTRY, &[1 | count_of_3, 8]),
            // The guest stops running; the CPU has not been switched to another domain yet.
            record(RUNSTATE_CHANGE | 0x20, &[5 << 16]),
            switch(0x7fff),
            record(0x20100b, &[1, 2, 3]),
            record(CONTINUE_RUNNING, &[5 << 16]),
            record(PV_HYPERCALL, &[12]),
        ]);
        let entry = RecordedCall { is_entry: true, ..call("mmu_update", Some(8)) };
        let memory = call("memory_op", None);
        assert_eq!(read, Ok(vec![call("multicall", Some(3)), entry, memory]));
        assert_eq!(entry.to_string(), "multicall entry mmu_update arg1=0x8");
    }

    #[test]
    fn a_dump_is_read() {
        let lines = ["00000000: 1f8b 08", "00000003: ff"].map(str::to_owned);
        assert_eq!(bytes(&lines), Some(vec![0x1f, 0x8b, 0x08, 0xff]));
        assert_eq!(bytes(&["1f8b".to_owned()]), None);
    }

    #[test]
    fn a_gap_is_an_error() {
        let lost = read(&[switch(5), record(LOST_RECORDS, &[17, 0, 0, 0])]);
        assert!(lost.unwrap_err().contains("lost 17 records"));
        let cut = read(&[vec![3 << 28 | PV_HYPERCALL, 12]]);
        assert!(cut.unwrap_err().contains("byte 12 is cut"));
        let two =
            read(&[switch(5), record(PV_HYPERCALL, &[12]), switch(6), record(PV_HYPERCALL, &[12])]);
        assert!(two.unwrap_err().contains("two guests"));
        assert!(read(&[vec![2 << 28 | CPU_CHANGE, 0, 0]]).unwrap_err().contains("one CPU"));
    }
}
