//! Draws one HTML page of the last runs, `target/report/index.html`, and checks it in a browser.
//!
//! `make report` runs `report draw`, and `make report-check` runs `report check`, both at the root of
//! the repository. The page is one file: pictures, styles and the script for the filters are in it.
//! A source that is missing is named on the page, with the target of `make` that writes it.

#![forbid(unsafe_code)]

mod bench;
mod browser;
mod check;
mod conformance;
mod faults;
mod figure;
mod links;
mod matrix;
mod page;
mod places;
mod results;
mod source;
mod summary;
mod traced;
mod visible;

use std::path::Path;
use std::process::ExitCode;

/// The exit status if the page cannot be written, or the browser not be run.
const BROKEN: u8 = 4;

/// The exit status if the page was checked and is wrong.
const WRONG: u8 = 5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let root = Path::new(".");
    let done = match words[..] {
        ["draw"] => page::write(root).map(|file| {
            let file = file.strip_prefix(root).unwrap_or(&file);
            println!("the report is {}; open it in a browser", file.display());
            ExitCode::SUCCESS
        }),
        ["check", browser] => check::run(root, browser).map(|wrong| match wrong {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(WRONG),
        }),
        _ => Err("usage: report draw | report check BROWSER".to_owned()),
    };
    done.unwrap_or_else(|why| {
        eprintln!("report: {why}");
        ExitCode::from(BROKEN)
    })
}
