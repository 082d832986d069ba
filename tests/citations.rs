//! Citations of rules and rows: each is a link, and its target exists.
//!
//! A rule or a row is cited by its id: `M3`, `F2`, `S2`, `C51`. The ids are anchors in `src/rules.rs`
//! and `docs/CONFORMANCE.md`. A citation in Rust is a link to the documentation,
//! `[M3](crate::rules#M3)` in the library and `[M3](xen_contig::rules#M3)` elsewhere. A citation in
//! Markdown is a link to the file, relative to the citing file.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The file that defines the rules.
const RULES: &str = "src/rules.rs";

/// The file that defines the rows.
const ROWS: &str = "docs/CONFORMANCE.md";

/// The crates that do not depend on the library.
///
/// Their documentation cannot link to it, so they state the fact instead of a citation.
const WITHOUT_LIBRARY: &[&str] = &["hypercall/", "pvh-boot/", "tests/bed/", "tests/words/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust and Markdown files of the repository, as paths from its root.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = directory.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && name != "target" {
                    pending.push(path);
                }
            } else if name.ends_with(".rs") || name.ends_with(".md") {
                files.push(path.into_os_string().into_string().unwrap());
            }
        }
    }
    files.sort();
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the ids that have an anchor in a text, in order.
fn anchors(text: &str) -> Vec<String> {
    text.split("<a id=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once("\"></a>"))
        .map(|(id, _)| id.to_owned())
        .filter(|id| is_id(id))
        .collect()
}

/// Returns true for an id: `M3`, `F2` or `S6` with one digit, `C51` with two.
fn is_id(word: &str) -> bool {
    let digits = match word.as_bytes() {
        [b'M' | b'F' | b'S', digits @ ..] if digits.len() == 1 => digits,
        [b'C', digits @ ..] if digits.len() == 2 => digits,
        _ => return false,
    };
    digits.iter().all(u8::is_ascii_digit)
}

/// An id in a text, and the target of its link if it has one.
#[derive(Debug, PartialEq, Eq)]
struct Citation {
    id: String,
    target: Option<String>,
}

/// Returns the citations in a line of prose. Code spans and link targets are not prose.
fn citations(line: &str) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if first == '`' {
            let fence = rest.len() - rest.trim_start_matches('`').len();
            let (ticks, after) = rest.split_at(fence);
            rest = after.split_once(ticks).map_or("", |(_, after)| after);
        } else if let Some((text, target, after)) = link(rest) {
            if is_id(text) {
                found.push(Citation { id: text.to_owned(), target: Some(target.to_owned()) });
            } else {
                found.extend(citations(text));
            }
            rest = after;
        } else if is_word(first) {
            let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
            if is_id(word) {
                found.push(Citation { id: word.to_owned(), target: None });
            }
            rest = after;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Splits a link `[text](target)rest` or a definition `[text]: target` into its parts.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (text, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (target, rest) = match rest.strip_prefix(": ") {
        Some(target) => (target, ""),
        None => rest.strip_prefix('(')?.split_once(')')?,
    };
    (!text.contains('[')).then_some((text, target, rest))
}

/// Returns the lines that can contain a citation, with their numbers.
///
/// In Rust these are comments, in Markdown all lines outside code blocks.
fn prose<'t>(path: &str, text: &'t str) -> Vec<(usize, &'t str)> {
    let mut prose = Vec::new();
    let mut in_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = match path.ends_with(".rs") {
            true => match line.find("//") {
                Some(start) => line[start..].trim_start_matches(['/', '!']),
                None => {
                    in_block = false;
                    continue;
                }
            },
            false => line,
        };
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push((number, line));
        }
    }
    prose
}

/// Returns the error in a citation in the file `path`, or `None` if it is correct.
fn complaint(path: &str, citation: &Citation, ids: &BTreeSet<String>) -> Option<String> {
    let Citation { id, target } = citation;
    if !ids.contains(id) {
        return Some(format!("{id} is neither in {RULES} nor in {ROWS}"));
    }
    if WITHOUT_LIBRARY.iter().any(|crate_| path.starts_with(crate_)) {
        return Some(format!("{id} cannot be linked from this crate: state the fact"));
    }
    let (module, definition) =
        if id.starts_with('C') { ("conformance", ROWS) } else { ("rules", RULES) };
    if path == definition && target.as_ref().is_none_or(|target| *target == format!("#{id}")) {
        return None;
    }
    let Some(target) = target else {
        // The file with the table writes `[M3]`, and defines the link at its end.
        return (path != ROWS).then(|| format!("{id} is not a link"));
    };
    if path.ends_with(".rs") {
        let crate_ = if path.starts_with("src/") { "crate" } else { "xen_contig" };
        let right = format!("{crate_}::{module}#{id}");
        return (*target != right).then(|| format!("{id} links to {target}, not to {right}"));
    }
    let Some(file) = target.strip_suffix(&format!("#{id}")) else {
        return Some(format!("{id} links to {target}, not to #{id}"));
    };
    let meant = root().join(path).parent().unwrap().join(file).canonicalize().ok();
    let right = root().join(definition).canonicalize().unwrap();
    (meant != Some(right)).then(|| format!("{id} links to {target}, not to {definition}"))
}

fn ids() -> BTreeSet<String> {
    anchors(&read(RULES)).into_iter().chain(anchors(&read(ROWS))).collect()
}

#[test]
fn every_citation_links_to_its_rule_or_row() {
    let ids = ids();
    let mut complaints = Vec::new();
    // This file contains wrong citations as samples.
    for path in files().into_iter().filter(|path| path != file!()) {
        for (number, line) in prose(&path, &read(&path)) {
            for citation in citations(line) {
                let complaint = complaint(&path, &citation, &ids);
                complaints.extend(complaint.map(|what| format!("{path}:{number}: {what}")));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_rule_and_row_has_one_anchor() {
    let rules = anchors(&read(RULES));
    let count = |letter: char| rules.iter().filter(|id| id.starts_with(letter)).count();
    assert_eq!((count('M'), count('F'), count('S')), (6, 5, 6), "{rules:?}");
    assert_eq!(rules.len(), rules.iter().collect::<BTreeSet<_>>().len(), "{rules:?}");
    let rows = anchors(&read(ROWS));
    assert!(rows.len() > 40 && rows.iter().all(|id| id.starts_with('C')), "{rows:?}");
    assert!(rows.is_sorted_by(|one, other| one < other), "{rows:?}");
}

#[test]
fn every_rule_is_cited_in_code_and_every_row_has_a_test() {
    let mut uncited: BTreeSet<String> = ids();
    for path in files() {
        if path == RULES || path == file!() || path.ends_with(".md") {
            continue;
        }
        let text = read(&path);
        for (_, line) in prose(&path, &text) {
            for citation in citations(line) {
                uncited.remove(&citation.id);
            }
        }
        for line in text.lines() {
            rows_of_test(line).iter().for_each(|id| _ = uncited.remove(id));
        }
    }
    assert!(
        uncited.is_empty(),
        "no code cites these, and no test is named after them: {uncited:?}"
    );
}

/// Returns the rows in the name of a test: `fn c24_c35_…` on the host, `"c24-…"` in the image.
fn rows_of_test(line: &str) -> Vec<String> {
    let Some((_, name)) = line.split_once("fn c").or_else(|| line.split_once("\"c")) else {
        return Vec::new();
    };
    format!("C{name}")
        .split(['_', '-'])
        .map(str::to_ascii_uppercase)
        .take_while(|word| word.starts_with('C') && is_id(word))
        .collect()
}

#[test]
fn paths_in_markdown_exist() {
    let top: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "target")
        .collect();
    let mut missing = Vec::new();
    // The changelog also names files that no longer exist.
    let current = |path: &String| path.ends_with(".md") && path != "CHANGELOG.md";
    for path in files().into_iter().filter(current) {
        let text = read(&path);
        for (number, line) in prose(&path, &text) {
            // Paths in code spans count from the root, and those of links from the file.
            for span in line.split('`').skip(1).step_by(2) {
                let first = span.split('/').next().unwrap();
                let is_path = span.contains('/') && top.contains(first);
                // A recipe writes `NAME.rs` for a file that its reader will create.
                let is_pattern =
                    span.contains(['*', '{', '<', '…', ' ', ':', 'N']) && !span.ends_with(".md");
                if is_path && !is_pattern && !root().join(span).exists() {
                    missing.push(format!("{path}:{number}: {span}"));
                }
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap();
                let near = root().join(&path).parent().unwrap().join(file);
                if !target.contains(':') && !near.exists() {
                    missing.push(format!("{path}:{number}: {target}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

/// Returns the file and the function of a table row.
///
/// The row has a form such as "| `src/p2m.rs` | `P2m::mfn` | … |".
fn function_of_row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let file = cells.find(|cell| cell.ends_with(".rs`"))?;
    let function = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((file.trim_matches('`'), function.rsplit("::").next()?))
}

#[test]
fn functions_in_the_way_of_a_request_exist() {
    let text = read("docs/ARCHITECTURE.md");
    let rows: Vec<_> = text.lines().filter_map(function_of_row).collect();
    let defines = |file: &str, function: &str| {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        ["(", "<"].iter().any(|end| text.contains(&format!("fn {function}{end}")))
    };
    let missing: Vec<_> = rows.iter().filter(|(file, name)| !defines(file, name)).collect();
    assert!(missing.is_empty(), "no such function in that file: {missing:?}");
    assert!(rows.len() >= 20, "{rows:?}");
}

/// Returns the lines of code without their indentation.
fn unindented(code: &str) -> String {
    code.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn the_rust_code_of_the_documents_is_that_of_the_examples() {
    let examples: Vec<String> = files()
        .into_iter()
        .filter(|path| path.starts_with("examples/"))
        .map(|path| unindented(&read(&path)))
        .collect();
    for (document, least) in [("README.md", 2), ("docs/EMBEDDING.md", 9)] {
        let text = read(document);
        // The language may have attributes: `rust,ignore`.
        let blocks: Vec<String> = text
            .split("```rust")
            .skip(1)
            .filter_map(|rest| rest.split_once('\n')?.1.split_once("```"))
            .map(|(block, _)| unindented(block))
            .collect();
        let is_in_an_example = |block: &str| examples.iter().any(|example| example.contains(block));
        let strange: Vec<&String> =
            blocks.iter().filter(|block| !is_in_an_example(block)).collect();
        assert!(strange.is_empty(), "{document}: in none of the examples: {strange:#?}");
        assert!(blocks.len() >= least, "{document}: {blocks:#?}");
    }
}

#[test]
fn other_text_is_not_a_citation() {
    let cited = |line: &str| -> Vec<(String, Option<String>)> {
        citations(line).into_iter().map(|found| (found.id, found.target)).collect()
    };
    let bare = |id: &str| (id.to_owned(), None);
    let linked = |id: &str, target: &str| (id.to_owned(), Some(target.to_owned()));
    assert_eq!(cited("ours (M1), see C51."), [bare("M1"), bare("C51")]);
    assert_eq!(cited("[M3](crate::rules#M3) holds"), [linked("M3", "crate::rules#M3")]);
    assert_eq!(cited("[M3]: crate::rules#M3"), [linked("M3", "crate::rules#M3")]);
    assert_eq!(cited("[rule M3](crate::rules#M3), [M4]"), [bare("M3"), bare("M4")]);
    assert_eq!(cited("`C02`, M2P, 0xC50, C123, F12, M, ``M1 ` M2``"), []);
}

#[test]
fn prose_is_comments_in_rust_and_text_in_markdown() {
    let rust = "let M1 = 1; // M2\n/// ```\n/// M3\n/// ```\n//! M4\n";
    assert_eq!(prose("a.rs", rust), [(1, " M2"), (5, " M4")]);
    assert_eq!(prose("a.md", "M1\n```text\nM2\n```\nM3\n"), [(1, "M1"), (5, "M3")]);
}

#[test]
fn wrong_citations_are_reported() {
    let ids = ids();
    let wrong = |path: &str, id: &str, target: Option<&str>| {
        let citation = Citation { id: id.to_owned(), target: target.map(str::to_owned) };
        complaint(path, &citation, &ids).is_some()
    };
    assert!(wrong("src/a.rs", "M3", None));
    assert!(wrong("src/a.rs", "M9", Some("crate::rules#M9")));
    assert!(wrong("src/a.rs", "M3", Some("crate::rules#M2")));
    assert!(wrong("src/a.rs", "C51", Some("crate::rules#C51")));
    assert!(wrong("src/a.rs", "M3", Some("xen_contig::rules#M3")));
    assert!(!wrong("src/a.rs", "M3", Some("crate::rules#M3")));
    assert!(!wrong("kernel/src/a.rs", "C51", Some("xen_contig::conformance#C51")));
    assert!(wrong("kernel/src/a.rs", "C51", Some("crate::conformance#C51")));
    assert!(wrong("hypercall/src/a.rs", "M3", Some("xen_contig::rules#M3")));
    assert!(!wrong("README.md", "M3", Some("src/rules.rs#M3")));
    assert!(wrong("README.md", "M3", Some("../src/rules.rs#M3")));
    assert!(!wrong("docs/a.md", "C51", Some("CONFORMANCE.md#C51")));
    assert!(wrong("docs/a.md", "C51", Some("CONFORMANCE.md#C50")));
}

#[test]
fn a_row_names_a_file_and_a_function() {
    let row = "| 1 | `src/p2m.rs` | `P2m::mfn` | looks up |";
    assert_eq!(function_of_row(row), Some(("src/p2m.rs", "mfn")));
    assert_eq!(function_of_row("| `src/p2m.rs` | the P2M |"), None);
}

#[test]
fn a_test_is_named_after_rows() {
    assert_eq!(rows_of_test("fn c24_c35_a_rollback() {"), ["C24", "C35"]);
    assert_eq!(rows_of_test("Test::new(\"c50-out-list\", x)"), ["C50"]);
    assert_eq!(rows_of_test("fn check() {"), Vec::<String>::new());
}
