//! Prose: paragraphs of comments and documents, without the code in them.

/// Words that belong together, each with the number of its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph {
    /// The words in lower case, without punctuation. An inline code span is the word `CODE`.
    pub words: Vec<(usize, String)>,
}

/// What stands for an inline code span. It is in upper case, so no word of the list equals it.
pub const CODE: &str = "CODE";

/// Returns the paragraphs in the comments of a Rust file.
pub fn of_rust(source: &str) -> Vec<Paragraph> {
    let comments = source.lines().map(|line| match line.trim_start().strip_prefix("//") {
        Some(comment) => ParagraphLine::Goes(comment.trim_start_matches(['/', '!'])),
        None => trailing_comment(line).map_or(ParagraphLine::Ends, ParagraphLine::Begins),
    });
    paragraphs(comments)
}

/// Returns the paragraphs of a Markdown file.
pub fn of_markdown(source: &str) -> Vec<Paragraph> {
    paragraphs(source.lines().map(ParagraphLine::Goes))
}

/// Returns the comment at the end of a line of code.
fn trailing_comment(line: &str) -> Option<&str> {
    const MARK: &str = " // ";
    let in_a_string = |at: usize| line[..at].matches('"').count() % 2 == 1;
    let (at, _) = line.match_indices(MARK).find(|&(at, _)| !in_a_string(at))?;
    Some(&line[at + MARK.len()..])
}

/// What a line is to the paragraph before it.
enum ParagraphLine<'t> {
    /// It goes on with it.
    Goes(&'t str),
    /// It begins another one.
    Begins(&'t str),
    /// It has no text.
    Ends,
}

/// Joins lines to paragraphs. An empty line ends one; a table row, a heading and a list item begin
/// one. Fenced code is skipped.
fn paragraphs<'t>(lines: impl Iterator<Item = ParagraphLine<'t>>) -> Vec<Paragraph> {
    let mut all = vec![Collector::default()];
    let mut fenced = false;
    for (index, line) in lines.enumerate() {
        let (text, begins) = match line {
            ParagraphLine::Goes(text) => (text.trim(), false),
            ParagraphLine::Begins(text) => (text.trim(), true),
            ParagraphLine::Ends => ("", true),
        };
        let is_fence = text.starts_with("```");
        fenced ^= is_fence;
        let is_prose = !text.is_empty() && !is_fence && !fenced;
        if begins || !is_prose || text.starts_with(['|', '#', '*', '-']) {
            all.push(Collector::default());
        }
        if let (true, Some(last)) = (is_prose, all.last_mut()) {
            last.read(index + 1, text);
        }
    }
    let paragraphs = all.into_iter().map(|collector| collector.paragraph);
    paragraphs.filter(|paragraph| !paragraph.words.is_empty()).collect()
}

/// Collects the words of a paragraph. A code span may go on in the next line.
#[derive(Default)]
struct Collector {
    paragraph: Paragraph,
    in_code: bool,
}

impl Collector {
    fn read(&mut self, number: usize, line: &str) {
        let mut word = String::new();
        for character in without_targets(line).chars().chain([' ']) {
            if character == '`' {
                self.in_code = !self.in_code;
                if self.in_code {
                    self.paragraph.words.push((number, CODE.to_owned()));
                }
            } else if self.in_code {
                continue;
            } else if character.is_alphanumeric() {
                word.extend(character.to_lowercase());
            } else if !word.is_empty() {
                self.paragraph.words.push((number, std::mem::take(&mut word)));
            }
        }
    }
}

/// Removes the targets of links: `[text](target)`.
fn without_targets(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        text.push(']');
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(paragraphs: &[Paragraph]) -> Vec<String> {
        let words = |it: &Paragraph| {
            it.words.iter().map(|(line, word)| format!("{line}:{word}")).collect::<Vec<_>>()
        };
        paragraphs.iter().map(|it| words(it).join(" ")).collect()
    }

    #[test]
    fn comments_are_read_and_code_is_not() {
        let source =
            "//! One two,\n//! three.\nlet nobody = \"a // b\"; // four\n\n/// five\n///\n// SIX's";
        assert_eq!(
            lines(&of_rust(source)),
            ["1:one 1:two 2:three", "3:four", "5:five", "7:six 7:s"]
        );
    }

    #[test]
    fn code_spans_and_fences_and_link_targets_are_skipped() {
        let text = "A `b\nc` d [e](https://f.g/h) i\n```\nj\n```\nk";
        assert_eq!(lines(&of_markdown(text)), ["1:a 1:CODE 2:d 2:e 2:i", "6:k"]);
    }

    #[test]
    fn rows_and_items_are_paragraphs() {
        let text = "| a | b |\n| c | d |\n- e\n  f";
        assert_eq!(lines(&of_markdown(text)), ["1:a 1:b", "2:c 2:d", "3:e 4:f"]);
    }
}
