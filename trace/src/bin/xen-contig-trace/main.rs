//! Shows the hypercall trace of a xen-contig guest.
//!
//! `xl dmesg | xen-contig-trace`, or `xen-contig-trace console.log`. The manual is `trace/README.md`.

#![forbid(unsafe_code)]

mod damage;
mod filter;
mod follow;
mod input;
mod json;
mod longest;
mod names;
mod options;
mod perfetto;
mod plain;
mod problem;
mod selection;
mod summary;
mod tally;
mod units;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use input::Input;
use options::{Options, View};
use problem::{PROGRAM, Problem};
use selection::Chosen;
use xen_contig_trace::Trace;

fn main() -> ExitCode {
    let options = options::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = run(&options, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has seen enough.
        Err(Problem::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Problem::Io(error)) => fail(&error.to_string()),
        Err(Problem::User(message)) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{PROGRAM}: {message}");
    ExitCode::FAILURE
}

fn run(options: &Options, out: &mut impl Write) -> Result<(), Problem> {
    let input = Input::open(options.file.as_deref())?;
    if options.follow {
        return follow::run(options, input, out);
    }
    let trace =
        Trace::read(input).map_err(|error| input::cannot_read(options.file.as_deref(), &error))?;
    if trace.boots.is_empty() {
        return Err(damage::no_trace(&trace).into());
    }
    options.selection.filter.check(&trace)?;
    let boots = options.boots.choose(&trace)?;
    options.selection.check(&boots)?;
    show(options, &boots, out)?;
    out.flush()?;
    if let Some(report) = damage::report(&trace, &boots) {
        eprintln!("{PROGRAM}: {report}");
    }
    Ok(())
}

fn show(options: &Options, boots: &[Chosen<'_>], out: &mut impl Write) -> Result<(), Problem> {
    if let Some(path) = &options.perfetto {
        perfetto::write(boots, &options.selection, &mut create(path)?)?;
    }
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => json::write(boots, &options.selection, out)?,
        Some(path) => json::write(boots, &options.selection, &mut create(path)?)?,
        None => {}
    }
    for chosen in boots {
        if options.view != View::Nothing && chosen.of > 1 {
            writeln!(out, "{}", chosen.heading())?;
        }
        if chosen.boot.calls.is_empty() && options.view != View::Nothing {
            // With `trace=summary` the kernel's own table is all that there is.
            chosen.boot.summary.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            continue;
        }
        match options.view {
            View::Nothing => {}
            View::Plain => {
                let mut printer = plain::Printer::new(&options.columns);
                printer.print(chosen.boot, &options.selection, 0..chosen.boot.calls.len(), out)?;
            }
            View::Summary => summary::write(chosen.boot, &options.selection, out)?,
            View::By(group) => summary::write_by(chosen.boot, &options.selection, group, out)?,
            View::Longest(count) => {
                longest::write(chosen.boot, &options.selection, count, out)?;
            }
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>, Problem> {
    match File::create(path) {
        Ok(file) => Ok(BufWriter::new(file)),
        Err(error) => Err(format!("{} cannot be written: {error}", path.display()).into()),
    }
}
