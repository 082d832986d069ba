//! The list of words and what to write in their place.

use crate::text::Paragraph;

/// A word or phrase that the project writes otherwise.
#[derive(Clone, Debug)]
struct WordEntry {
    /// As the list has it.
    word: String,
    phrase: Vec<String>,
    instead: String,
    /// Longer phrases that contain it and are right.
    right: Vec<Vec<String>>,
}

/// All entries.
#[derive(Clone, Debug)]
pub struct List(Vec<WordEntry>);

/// A place where a phrase of the list stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The number of the line where the phrase begins.
    pub line: usize,
    /// The phrase, as the list has it.
    pub word: String,
    /// What to write.
    pub instead: String,
    /// The words of the paragraph, joined by spaces.
    pub around: String,
}

/// Splits a phrase as [`Paragraph`] splits text.
pub fn split(phrase: &str) -> Vec<String> {
    let words = phrase.split(|it: char| !it.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

impl List {
    /// Reads lines of the form `phrase | instead` or `phrase | instead | right; right`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let (phrase, instead, right) = match fields.as_slice() {
                [phrase, instead] => (phrase, instead, ""),
                [phrase, instead, right] => (phrase, instead, *right),
                _ => {
                    return Err(format!(
                        "the list has a line with {} fields: {line}",
                        fields.len()
                    ));
                }
            };
            let (word, phrase) = ((*phrase).to_owned(), split(phrase));
            let right: Vec<_> =
                right.split(';').map(split).filter(|words| !words.is_empty()).collect();
            let contains =
                |longer: &Vec<String>| longer.windows(phrase.len()).any(|it| it == phrase);
            if phrase.is_empty() || instead.is_empty() || !right.iter().all(contains) {
                return Err(format!("the list has a line that can't be used: {line}"));
            }
            entries.push(WordEntry { word, phrase, instead: (*instead).to_owned(), right });
        }
        Ok(Self(entries))
    }

    /// Returns the findings in a paragraph, in the order of the text.
    pub fn find(&self, paragraph: &Paragraph) -> Vec<Finding> {
        let words: Vec<&str> = paragraph.words.iter().map(|(_, word)| word.as_str()).collect();
        let mut found = Vec::new();
        for (at, (line, _)) in paragraph.words.iter().enumerate() {
            for entry in self.0.iter().filter(|entry| entry.stands_at(&words, at)) {
                found.push(Finding {
                    line: *line,
                    word: entry.word.clone(),
                    instead: entry.instead.clone(),
                    around: words.join(" "),
                });
            }
        }
        found
    }
}

impl WordEntry {
    fn stands_at(&self, words: &[&str], at: usize) -> bool {
        let is_at = |phrase: &[String], at: usize| {
            words.get(at..at + phrase.len()).is_some_and(|here| here == phrase)
        };
        // A longer phrase covers this place if it stands so that its part of the same words is here.
        let covers = |longer: &Vec<String>| {
            let offsets = (0..=longer.len() - self.phrase.len())
                .filter(|&offset| longer[offset..].starts_with(&self.phrase));
            offsets
                .into_iter()
                .any(|offset| at.checked_sub(offset).is_some_and(|begin| is_at(longer, begin)))
        };
        is_at(&self.phrase, at) && !self.right.iter().any(covers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::of_markdown;

    fn found(list: &str, text: &str) -> Vec<(usize, String)> {
        let list = List::parse(list).unwrap();
        let all = of_markdown(text).iter().flat_map(|it| list.find(it)).collect::<Vec<_>>();
        all.into_iter().map(|it| (it.line, it.word)).collect()
    }

    #[test]
    fn a_phrase_is_found_across_lines_and_in_any_case() {
        let list = "# a comment\nso many | N\nNobody | the actor";
        assert_eq!(
            found(list, "Nobody has so\nmany."),
            [(1, "Nobody".to_owned()), (1, "so many".to_owned())]
        );
        assert_eq!(found(list, "Somebody; so, many; so much.").len(), 1, "commas do not count");
        assert!(found(list, "so\n\nmany").is_empty(), "paragraphs do");
    }

    #[test]
    fn a_longer_phrase_can_be_right() {
        let list = "is no | is not a | there is no; is no longer";
        assert!(found(list, "There is no frame. It is no longer used.").is_empty());
        assert_eq!(found(list, "There it is no frame.").len(), 1);
    }

    #[test]
    fn a_broken_list_is_refused() {
        for line in ["nobody", "a | b | c | d", "a | b | c", " | b"] {
            assert!(List::parse(line).is_err(), "{line}");
        }
    }
}
