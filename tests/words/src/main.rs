//! Finds words in comments and documents for which the project has plainer ones.
//!
//! `cargo run -p words` from the repository's root reads the comments of every `*.rs` file and the
//! text of every `*.md` file. `tests/words/list.txt` has the words and their replacements,
//! `tests/words/exceptions.txt` the places where a word is right and the paths that are not read.
//! Each finding is printed as `file:line: "word"; write: replacement`.
//!
//! `words --count` reads the excluded paths too and prints only the number of findings per directory.

#![forbid(unsafe_code)]

mod exceptions;
mod list;
mod text;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use exceptions::Exceptions;
use list::{Finding, List};

const LIST: &str = "tests/words/list.txt";
const EXCEPTIONS: &str = "tests/words/exceptions.txt";

/// The exit status if the lint itself cannot run.
const BROKEN: u8 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => check(),
        [count] if count == "--count" => count_all(),
        _ => Err("usage: words [--count]".to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("words: {why}");
            ExitCode::from(BROKEN)
        }
    }
}

/// Prints every finding and returns true if there are none.
fn check() -> Result<bool, String> {
    let list = List::parse(&read(LIST)?)?;
    let mut exceptions = Exceptions::parse(&read(EXCEPTIONS)?)?;
    let mut problems = 0;
    for path in files()? {
        if exceptions.exclude(&path) {
            continue;
        }
        for finding in findings(&list, &path)? {
            if !exceptions.allow(&path, &finding) {
                problems += 1;
                let Finding { line, word, instead, .. } = finding;
                println!("{path}:{line}: \"{word}\"; write: {instead}");
            }
        }
    }
    for unused in exceptions.unused() {
        problems += 1;
        println!("{EXCEPTIONS}:{unused}: this line matches nothing; remove it");
    }
    if problems > 0 {
        println!("words: {problems} findings. An exception goes into {EXCEPTIONS}, with a reason.");
    }
    Ok(problems == 0)
}

/// Prints how many findings each directory has, exceptions and excluded paths included.
fn count_all() -> Result<bool, String> {
    let list = List::parse(&read(LIST)?)?;
    let mut counts = BTreeMap::<String, usize>::new();
    for path in files()? {
        let directory = Path::new(&path).parent().map_or(".", |it| it.to_str().unwrap_or("."));
        let directory = if directory.is_empty() { "." } else { directory };
        *counts.entry(directory.to_owned()).or_default() += findings(&list, &path)?.len();
    }
    counts.iter().for_each(|(directory, count)| println!("{count:>5}  {directory}"));
    println!("{:>5}  in all", counts.values().sum::<usize>());
    Ok(true)
}

fn findings(list: &List, path: &str) -> Result<Vec<Finding>, String> {
    let content = read(path)?;
    let paragraphs = match path.rsplit('.').next() {
        Some("rs") => text::of_rust(&content),
        _ => text::of_markdown(&content),
    };
    Ok(paragraphs.iter().flat_map(|paragraph| list.find(paragraph)).collect())
}

/// The files to read, in order, as paths from the repository's root.
fn files() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(".")];
    while let Some(directory) = directories.pop() {
        let failed = |error: io::Error| format!("reading {}: {error}", directory.display());
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                let is_output = name == "target" || name.starts_with('.');
                if !is_output {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") || name.ends_with(".md") {
                found.push(path.strip_prefix(".").unwrap_or(&path).display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"))
}
