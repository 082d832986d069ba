//! The program `fuzz`, which runs random inputs or replays files. `USAGE` has its command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::engine::{self, Run, corpus, coverage::Coverage};
use fuzz::targets::{TARGETS, Target};
use lexopt::ValueExt;

const USAGE: &str = "\
fuzz <target>|all [--seconds N] [--seed N] [--keep]   run random inputs for N seconds [60]
fuzz replay <target> <file>...                         run the inputs in these files
fuzz list                                              list the targets

--seed N   seed of the random inputs; the same N makes the same inputs [1]
--keep     replace the seeds in tests/fuzz/corpus/<target>/ by the smallest inputs
Exit status: 0 no failure; 5 a failure, whose input is in the corpus; 4 wrong usage or an I/O error.";

/// The options of the command line.
struct Choice {
    words: Vec<String>,
    seconds: u64,
    seed: u64,
    keep: bool,
}

fn choice() -> Result<Choice, lexopt::Error> {
    use lexopt::Arg::{Long, Value};
    let mut choice = Choice { words: Vec::new(), seconds: 60, seed: 1, keep: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => choice.seconds = parser.value()?.parse()?,
            Long("seed") => choice.seed = parser.value()?.parse()?,
            Long("keep") => choice.keep = true,
            Value(word) => choice.words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(choice)
}

fn main() -> ExitCode {
    let choice = match choice() {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("fuzz: {error}\n{USAGE}");
            return ExitCode::from(4);
        }
    };
    let words: Vec<&str> = choice.words.iter().map(String::as_str).collect();
    let named = |name: &str| TARGETS.iter().find(|target| target.name == name);
    // A replay prints the panic and its backtrace. The hook of the engine would hide it.
    if words.first() != Some(&"replay") {
        engine::start();
    }
    let result = match words[..] {
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(true)
        }
        ["all"] => {
            TARGETS.iter().try_fold(true, |clean, target| Ok(fuzz(target, &choice)? & clean))
        }
        ["replay", name, ref files @ ..] if let Some(target) = named(name) => replay(target, files),
        [name] if let Some(target) = named(name) => fuzz(target, &choice),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(4);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(4)
        }
    }
}

/// Fuzzes a target. Returns true if no input failed.
fn fuzz(target: &'static Target, choice: &Choice) -> std::io::Result<bool> {
    let began = Instant::now();
    let mut run = Run::new(target, choice.seed)?;
    let guided = match Coverage::edges() {
        0 => "without coverage".to_string(),
        edges => format!("guided by {edges} edges"),
    };
    println!("fuzz {}: {guided}, {} inputs at the start", target.name, run.inputs());
    run.run_for(Duration::from_secs(choice.seconds));
    for (input, failure) in &run.failures {
        let path = corpus::keep(target.name, "find", input)?;
        println!("fuzz {}: FAILED {}: {failure}", target.name, path.display());
    }
    if choice.keep {
        let inputs = run.smallest_inputs();
        // A build without coverage returns no inputs, because it does not know which code they reach.
        if !inputs.is_empty() {
            corpus::remove(target.name, "seed")?;
        }
        for input in inputs {
            corpus::keep(target.name, "seed", &input)?;
        }
    }
    println!(
        "fuzz {}: {} executions in {} s, {} inputs reached new code, {} edges, {} failures",
        target.name,
        run.executions,
        began.elapsed().as_secs(),
        run.inputs(),
        run.edges(),
        run.failures.len()
    );
    Ok(run.failures.is_empty())
}

fn replay(target: &'static Target, files: &[&str]) -> std::io::Result<bool> {
    for file in files {
        println!("fuzz {}: {file}", target.name);
        (target.run)(&std::fs::read(file)?);
    }
    Ok(true)
}
