//! The page: the sources, put into the template.
//!
//! Everything from a log is escaped. The template engine escapes what HTML gives a meaning; control
//! characters, which a terminal would obey, and marks that reverse the direction of letters are
//! replaced by their names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Value, escape_formatter};
use serde::Serialize;

use crate::bench::{self, Bench};
use crate::conformance::{self, AnsweredRow, Conformance};
use crate::faults::{self, Faults};
use crate::figure::timeline::time;
use crate::links::{self, Link};
use crate::matrix::{self, Matrix};
use crate::results::{self, BED, Boot, GuestResult, TestResult};
use crate::source::{self, Source};
use crate::summary::{self, Commit, Problem, Summary};
use crate::traced::{self, Traced};
use crate::visible::visible;

const TEMPLATE: &str = include_str!("../page/page.html");
const PARTS: &str = include_str!("../page/parts.html");
const STYLE: &str = include_str!("../page/style.css");
const SCRIPT: &str = include_str!("../page/filter.js");

/// What the template is filled with.
#[derive(Debug, Serialize)]
struct Page {
    style: &'static str,
    script: &'static str,
    made: String,
    commit: Option<Commit>,
    run: Source<Summary>,
    problems: Vec<ProblemRow>,
    matrix: Matrix,
    guests: Vec<GuestRow>,
    others: Vec<OtherLogs>,
    checks: Vec<TestResult>,
    conformance: Source<Conformance>,
    traced: Option<Traced>,
    bench: Vec<(String, Source<Bench>)>,
    faults: Option<Faults>,
}

#[derive(Debug, Serialize)]
struct ProblemRow {
    problem: Problem,
    links: Vec<Link>,
}

#[derive(Debug, Serialize)]
struct GuestRow {
    guest: GuestResult,
    mode: String,
    outcome: &'static str,
    earlier: Option<String>,
    links: Vec<Link>,
}

/// Logs of a boot that the table of guests leaves out: one that is to end badly, for example.
#[derive(Debug, Serialize)]
struct OtherLogs {
    dir: String,
    links: Vec<Link>,
}

/// Writes the page below `root` and returns its path.
pub fn write(root: &Path) -> Result<PathBuf, String> {
    let html = html(root)?;
    let dir = root.join(links::DIR);
    let file = dir.join("index.html");
    let failed = |error| format!("writing {}: {error}", file.display());
    fs::create_dir_all(&dir).map_err(failed)?;
    fs::write(&file, html).map_err(failed)?;
    Ok(file)
}

/// Returns the page for what lies below `root`.
pub fn html(root: &Path) -> Result<String, String> {
    let last = results::last(root);
    let boots = results::boots(root, last.data());
    let links_of = |problem: Problem| {
        let links = problem.logs.as_deref().map(|dir| links::logs(root, dir));
        ProblemRow { links: links.unwrap_or_default(), problem }
    };
    let row_of = |boot: &Boot| GuestRow {
        mode: boot.guest.mode().to_owned(),
        outcome: match boot.guest.verdict.as_str() {
            "SUCCESS" => "passed",
            "SKIP" => "skipped",
            _ => "failed",
        },
        earlier: boot.earlier.clone(),
        links: links::logs(root, &boot.guest.logs),
        guest: GuestResult { tests: Vec::new(), ..boot.guest.clone() },
    };
    let rows = source::json::<Vec<AnsweredRow>>(root, &format!("{BED}/conformance.json"));
    let page = Page {
        style: STYLE,
        script: SCRIPT,
        made: source::utc(SystemTime::now()),
        commit: Commit::of(root),
        problems: summary::problems(last.data(), &boots).into_iter().map(links_of).collect(),
        matrix: matrix::of(&boots),
        guests: boots.iter().map(row_of).collect(),
        others: others(root, &boots),
        checks: last.data().map(|run| run.checks.clone()).unwrap_or_default(),
        run: last.map(|run| Summary::of(&run)),
        conformance: rows.map(conformance::of),
        traced: traced::of(root),
        bench: bench::of(root),
        faults: faults::of(root),
    };
    render(&page)
}

/// Returns the logs of all boots that are not among the guests.
fn others(root: &Path, boots: &[Boot]) -> Vec<OtherLogs> {
    let xens = source::names(&root.join(BED)).into_iter();
    let dirs = xens.flat_map(|xen| {
        let names = source::names(&root.join(BED).join(&xen)).into_iter();
        names.map(move |name| format!("{BED}/{xen}/{name}"))
    });
    let dirs = dirs.filter(|dir| boots.iter().all(|boot| boot.guest.logs != *dir));
    let others = dirs.map(|dir| OtherLogs { links: links::logs(root, &dir), dir });
    others.filter(|other| !other.links.is_empty()).collect()
}

fn render(page: &Page) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if value.kind() == ValueKind::String && !value.is_safe() => {
            escape_formatter(out, state, &Value::from(visible(text)))
        }
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter("duration", |ns: u64| time(ns));
    environment.add_filter("grouped", |number: u64| grouped(number));
    let failed = |error: minijinja::Error| format!("the template: {error:#}");
    environment.add_template("parts.html", PARTS).map_err(failed)?;
    environment.add_template("page.html", TEMPLATE).map_err(failed)?;
    let template = environment.get_template("page.html").map_err(failed)?;
    template.render(Serde(page)).map_err(failed)
}

/// Writes a number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
