//! `-f`: reads a log while it grows.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use xen_contig_trace::{Trace, TraceReader};

use crate::damage;
use crate::input::Input;
use crate::options::Options;
use crate::plain::Printer;
use crate::problem::{PROGRAM, Problem};
use crate::selection::Boots;

/// How often a file is checked for more.
const PERIOD: Duration = Duration::from_millis(200);

/// After this time without input nothing more belongs to the last call.
const QUIET: Duration = Duration::from_millis(400);

/// Prints calls as they come, until the input ends or nothing reads the output.
pub fn run(options: &Options, input: Input, out: &mut impl Write) -> Result<(), Problem> {
    // The log is not there yet: only names that this program knows can be checked.
    options.selection.filter.check(&Trace::default())?;
    let (sender, chunks) = channel();
    thread::spawn(move || read(input, &sender));
    let mut reader = TraceReader::new();
    let mut shown = Progress::new(options);
    loop {
        match chunks.recv_timeout(QUIET) {
            Ok(chunk) => {
                reader.feed(&chunk?);
                feed_waiting(&mut reader, &chunks)?;
                shown.print_settled(&mut reader, out)?;
            }
            Err(RecvTimeoutError::Timeout) => shown.print_all(&mut reader, out)?,
            Err(RecvTimeoutError::Disconnected) => {
                // An end of line makes the last line complete.
                reader.feed(b"\n");
                shown.print_all(&mut reader, out)?;
                return name_damage(options, reader.trace());
            }
        }
    }
}

/// Says at the end of the input what is missing.
fn name_damage(options: &Options, trace: &Trace) -> Result<(), Problem> {
    if trace.boots.is_empty() {
        return Err(damage::no_trace(trace).into());
    }
    if let Some(report) = damage::report(trace, &options.boots.choose(trace)?) {
        eprintln!("{PROGRAM}: {report}");
    }
    Ok(())
}

/// Reads what has arrived already, so that a large log is not sorted once per chunk.
fn feed_waiting(
    reader: &mut TraceReader,
    chunks: &Receiver<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    chunks.try_iter().try_for_each(|chunk| {
        reader.feed(&chunk?);
        Ok(())
    })
}

/// Sends the input in pieces. A file is read again when it grows, and from its beginning when it
/// shrinks.
fn read(mut input: Input, chunks: &Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let chunk = match input.read(&mut buffer) {
            Ok(0) => match wait(&mut input) {
                Ok(true) => continue,
                Ok(false) => return,
                Err(error) => Err(error),
            },
            Ok(length) => Ok(buffer[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Waits at the end of a file. Returns false if the input can have no more.
fn wait(input: &mut Input) -> io::Result<bool> {
    let Input::File(file) = input else { return Ok(false) };
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    thread::sleep(PERIOD);
    if file.metadata()?.len() < file.stream_position()? {
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(true)
}

/// What has been printed.
struct Progress<'a> {
    options: &'a Options,
    printer: Printer<'a>,
    /// The boot that is printed, an index; the last one if none was printed yet.
    boot: Option<usize>,
    /// The number of its calls that were printed.
    calls: usize,
}

impl<'a> Progress<'a> {
    fn new(options: &'a Options) -> Self {
        let boot = match options.boots {
            Boots::Last => None,
            Boots::All => Some(0),
            Boots::Number(number) => Some(number - 1),
        };
        Self { options, printer: Printer::new(&options.columns), boot, calls: 0 }
    }

    /// Prints what is new, except for the last call of each vCPU, whose frames may follow.
    fn print_settled(
        &mut self,
        reader: &mut TraceReader,
        out: &mut impl Write,
    ) -> Result<(), Problem> {
        self.print(reader, 1, out)
    }

    /// Prints everything that is new.
    fn print_all(&mut self, reader: &mut TraceReader, out: &mut impl Write) -> Result<(), Problem> {
        self.print(reader, 0, out)
    }

    /// Prints what is new, except for the last `held` calls per vCPU of the last boot.
    fn print(
        &mut self,
        reader: &mut TraceReader,
        held: usize,
        out: &mut impl Write,
    ) -> Result<(), Problem> {
        let trace = reader.trace();
        let Some(last) = trace.boots.len().checked_sub(1) else { return Ok(()) };
        let mut index = *self.boot.get_or_insert(last);
        while let Some(boot) = trace.boots.get(index) {
            let held = if index == last { held * boot.vcpu_count() as usize } else { 0 };
            let ready = boot.calls.len().saturating_sub(held).max(self.calls);
            self.printer.print(boot, &self.options.selection, self.calls..ready, out)?;
            self.calls = ready;
            if index == last || matches!(self.options.boots, Boots::Number(_)) {
                break;
            }
            index += 1;
            (self.boot, self.calls) = (Some(index), 0);
            self.printer = Printer::new(&self.options.columns);
            writeln!(out, "# boot {} of the log: line {}", index + 1, trace.boots[index].line)?;
        }
        out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;

    #[test]
    fn a_call_waits_for_its_frames() {
        let options = options::of(&["-f"]);
        let mut shown = Progress::new(&options);
        let mut reader = TraceReader::new();
        reader.feed(b"# trace version=1 vcpus=1 ring=8 calls=all\n");
        reader.feed(b"# trace v0 #0 @1.000000000 +1 - memory_op exchange -> 0\n");
        let mut out = Vec::new();
        assert!(shown.print_settled(&mut reader, &mut out).is_ok());
        assert!(out.is_empty());
        reader.feed(b"# trace v0 #0 in 0x5\n# trace v0 #0 out 0x6\n");
        assert!(shown.print_all(&mut reader, &mut out).is_ok());
        assert!(shown.print_all(&mut reader, &mut out).is_ok());
        let line = "boot\n  memory_op exchange -> 0  0x5 => 0x6\n";
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }
}
