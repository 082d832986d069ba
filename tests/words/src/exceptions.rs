//! Where a word of the list is right, and what is not read.

use crate::list::{Finding, split};

/// The exceptions, each with the number of its line and whether it was needed.
#[derive(Clone, Debug, Default)]
pub struct Exceptions(Vec<(usize, Exception, bool)>);

#[derive(Clone, Debug)]
enum Exception {
    /// A file that is not read, a directory with a slash at its end, or files with a `*` for the name.
    Excluded(String),
    /// A phrase in a file, with words from its paragraph.
    Right { path: String, phrase: String, around: String },
}

impl Exceptions {
    /// Reads lines of the form `exclude | path | reason` or `path | phrase | words around it | reason`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            if fields.iter().any(|field| field.is_empty()) {
                return Err(format!("line {} of the exceptions has an empty field", index + 1));
            }
            let exception = match fields.as_slice() {
                ["exclude", path, _reason] => Exception::Excluded((*path).to_owned()),
                [path, phrase, around, _reason] => {
                    let [phrase, around] = [phrase, around].map(|it| split(it).join(" "));
                    Exception::Right { path: (*path).to_owned(), phrase, around }
                }
                _ => {
                    return Err(format!(
                        "line {} of the exceptions has {} fields; the last one must be the reason",
                        index + 1,
                        fields.len()
                    ));
                }
            };
            all.push((index + 1, exception, false));
        }
        Ok(Self(all))
    }

    /// Returns true if a file is not to be read.
    pub fn exclude(&mut self, file: &str) -> bool {
        self.any(|exception| match exception {
            Exception::Excluded(pattern) => covers(pattern, file),
            Exception::Right { .. } => false,
        })
    }

    /// Returns true if a phrase is right where it was found.
    pub fn allow(&mut self, file: &str, finding: &Finding) -> bool {
        self.any(|exception| match exception {
            Exception::Right { path, phrase, around } => {
                file == path
                    && split(&finding.word).join(" ") == *phrase
                    && finding.around.contains(around.as_str())
            }
            Exception::Excluded(_) => false,
        })
    }

    /// Marks every exception that applies as used and returns true if one does.
    fn any(&mut self, applies: impl Fn(&Exception) -> bool) -> bool {
        let mut found = false;
        for (_, exception, used) in &mut self.0 {
            if applies(exception) {
                *used = true;
                found = true;
            }
        }
        found
    }

    /// Returns the lines of exceptions that no finding needed. An excluded path may be missing: a
    /// directory can be moved without this file.
    pub fn unused(&self) -> Vec<usize> {
        let unused = |(_, exception, used): &&(usize, Exception, bool)| {
            !used && matches!(exception, Exception::Right { .. })
        };
        self.0.iter().filter(unused).map(|(line, _, _)| *line).collect()
    }
}

/// Returns true if a pattern is of a directory around `file`, or of the file itself.
fn covers(pattern: &str, file: &str) -> bool {
    if pattern.ends_with('/') {
        return file.starts_with(pattern);
    }
    match pattern.split_once('*') {
        Some((before, after)) => file
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|name| !name.contains('/')),
        None => file == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(word: &str, around: &str) -> Finding {
        let (instead, around) = (String::new(), around.to_owned());
        Finding { line: 1, word: word.to_owned(), instead, around }
    }

    #[test]
    fn an_exception_applies_to_its_file_phrase_and_words() {
        let text =
            "exclude | src/dma/ | not yet\n# a comment\na.md | Nobody | nobody's Frame | a name";
        let mut exceptions = Exceptions::parse(text).unwrap();
        assert!(exceptions.exclude("src/dma/mod.rs") && !exceptions.exclude("src/dmax.rs"));
        assert_eq!(exceptions.unused(), [3]);
        let right = finding("Nobody", "on nobody s frame here");
        assert!(!exceptions.allow("b.md", &right));
        assert!(!exceptions.allow("a.md", &finding("whoever", "nobody s frame")));
        assert!(!exceptions.allow("a.md", &finding("nobody", "nobody s page")));
        assert!(exceptions.allow("a.md", &right));
        assert!(exceptions.unused().is_empty());
    }

    #[test]
    fn a_star_stands_for_a_name_in_one_directory() {
        assert!(covers("tests/*.rs", "tests/a.rs"));
        assert!(!covers("tests/*.rs", "tests/a/b.rs") && !covers("tests/*.rs", "tests/a.md"));
        assert!(covers("a.md", "a.md") && !covers("a.md", "b/a.md"));
    }

    #[test]
    fn a_reason_is_needed() {
        for line in ["exclude | src/", "a.md | nobody | words | ", "a.md | nobody | words"] {
            assert!(Exceptions::parse(line).is_err(), "{line}");
        }
    }
}
