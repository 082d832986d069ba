//! Finds the trace of a guest in Xen's log.

/// What begins a line of a trace, and what a line of Xen begins with.
const TRACE: &str = "# trace ";
const XEN: &str = "(XEN) ";

/// What the bed writes for equal lines.
const FOLDED: &str = "… the line above came ";

/// Holds the lines of the trace in Xen's log against those that the guest printed. Returns how many there
/// are.
///
/// # Errors
/// The guest printed no trace, or the log lacks a line of it or has another one in its place.
pub fn compare(console: &[String], log: &[String]) -> Result<usize, String> {
    let printed: Vec<&str> = console.iter().filter_map(|line| traced(line)).collect();
    let joined = joined(log);
    let logged: Vec<&str> = joined.iter().filter_map(|line| traced(line)).collect();
    if printed.is_empty() {
        return Err("the guest printed no trace".to_owned());
    }
    let missing =
        |at: usize, lines: &[&str]| lines.get(at).map_or("nothing", |line| line).to_owned();
    let at = printed.iter().zip(&logged).take_while(|(line, logged)| line == logged).count();
    match at == printed.len() && at == logged.len() {
        true => Ok(at),
        false => Err(format!(
            "the guest printed {} lines of a trace, and Xen's log has {}. Line {} of the guest is `{}`, \
             and in the log `{}`",
            printed.len(),
            logged.len(),
            at + 1,
            missing(at, &printed),
            missing(at, &logged),
        )),
    }
}

/// Returns the line without what stands before a trace: `(d1) `.
fn traced(line: &str) -> Option<&str> {
    line.find(TRACE).map(|at| &line[at..])
}

/// Joins lines that Xen cut in two by a line of its own.
fn joined(log: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    for line in log.iter().filter(|line| !line.starts_with(FOLDED)) {
        match line.find(XEN) {
            // Xen's own line, which may have a guest's words in it: `(XEN) (d1) # trace`.
            Some(0) if line.contains(TRACE) => lines.push(line.clone()),
            Some(at) => pending.push_str(&line[..at]),
            None => lines.push(std::mem::take(&mut pending) + line),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_same_lines_are_found_behind_any_prefix() {
        let console = lines("# trace a\nok 1 x\n# trace b");
        for log in [
            "(d1) # tra(XEN) odd\n… the line above came 9 more times\nce a\n(d1) # trace b",
            "# trace a\nok 1 x\n# trace b",
            "(d1) # trace a\n(d1) ok 1 x\n(XEN) mm.c: odd\n(d1) # trace b",
            "(XEN) (d1) # trace a\n(XEN) (d1) # trace b",
            "(d1) # tra(XEN) mm.c: odd\n(XEN) mm.c: odd\nce a\n(d1) # trace b",
        ] {
            assert_eq!(compare(&console, &lines(log)), Ok(2), "{log}");
        }
    }

    #[test]
    fn a_line_that_is_missing_is_named() {
        let console = lines("# trace a\n# trace b\n# trace c");
        let wrong = |log| compare(&console, &lines(log)).unwrap_err();
        assert!(
            wrong("(d1) # trace a\n(d1) # trace c").contains("Line 2 of the guest is `# trace b`")
        );
        assert!(wrong("(d1) # trace a\n(d1) # trace b").contains("in the log `nothing`"));
        let more = wrong("# trace a\n# trace b\n# trace c\n# trace c");
        assert!(more.contains("has 4") && more.contains("is `nothing`"), "{more}");
        assert!(wrong("").contains("has 0"));
        assert!(compare(&[], &console).unwrap_err().contains("no trace"));
    }
}
