//! `fuzz <target>|all|list [--seconds N] [--seed N] [--keep]`, `fuzz replay <target> <file>…`

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::engine::{self, Run, corpus, coverage::Coverage};
use fuzz::targets::{TARGETS, Target};
use lexopt::ValueExt;

const USAGE: &str = "\
fuzz <target>|all [--seconds N] [--seed N] [--keep]   try inputs for so long [60]
fuzz replay <target> <file>...                         try these
fuzz list                                              the targets

--seed N   other inputs; the same N makes the same ones [1]
--keep     keep the smallest inputs that lead everywhere in tests/fuzz/corpus/<target>/
Exit status: 0 nothing found, 5 something, kept in the corpus; 4 this text.";

/// What the command line asks for.
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
    // Whoever replays wants to see where it goes wrong, not a smaller input.
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

/// Answers whether nothing was found.
fn fuzz(target: &'static Target, choice: &Choice) -> std::io::Result<bool> {
    let began = Instant::now();
    let mut run = Run::new(target, choice.seed)?;
    let guided = match Coverage::edges() {
        0 => "blind".to_string(),
        edges => format!("guided by {edges} edges"),
    };
    println!("fuzz {}: {guided}, {} inputs to begin with", target.name, run.inputs());
    run.go(Duration::from_secs(choice.seconds));
    for (input, wrong) in &run.finds {
        let path = corpus::keep(target.name, "find", input)?;
        println!("fuzz {}: FOUND {}: {wrong}", target.name, path.display());
    }
    if choice.keep {
        let inputs = run.distil();
        // None in a blind build, which does not know where they lead.
        if !inputs.is_empty() {
            corpus::forget(target.name, "seed")?;
        }
        for input in inputs {
            corpus::keep(target.name, "seed", &input)?;
        }
    }
    println!(
        "fuzz {}: {} executions in {} s, {} inputs that led somewhere new, {} edges, {} finds",
        target.name,
        run.executions,
        began.elapsed().as_secs(),
        run.inputs(),
        run.edges(),
        run.finds.len()
    );
    Ok(run.finds.is_empty())
}

fn replay(target: &'static Target, files: &[&str]) -> std::io::Result<bool> {
    for file in files {
        println!("fuzz {}: {file}", target.name);
        (target.run)(&std::fs::read(file)?);
    }
    Ok(true)
}
